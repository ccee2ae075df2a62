"""The networks that come with this package, and any others that were saved by it.

Each file of weights is named in the first lines of a model card, ``weights/*.md``, as YAML between
two lines of ``---``. What the library knows of the networks it ships, it reads there: their
names, their order and what to call them.
"""

import json
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch
import yaml
from safetensors import safe_open

from srgan_lib.architectures.network import NETWORKS, Network, SRNetwork
from srgan_lib.checkpoints import read_weights
from srgan_lib.errors import ConfigurationError, WeightsError, unknown_name

_FOLDER = Path(str(files("srgan_lib") / "weights"))


@dataclass(frozen=True)
class Card:
    """What the first lines of a model card say of one file of weights.

    Attributes:
        title: its name for readers.
        year: of the paper.
        base_model: the weights that its training started from, or None.
        family: whether it is one of the methods that chapter 8 compares.
        try_it: what the page "Try it on your image" says of it, or None to leave it out there.
    """

    title: str
    year: int
    base_model: str | None = None
    family: bool = False
    try_it: str | None = None


def _read_cards() -> dict[str, Card]:
    """Return what the cards say of each file of weights, in the order of the papers.

    Of one year's, those that started from others come last; the rest stay as their card has them.
    """
    cards = {}
    for path in sorted(_FOLDER.glob("*.md")):
        start, *head = path.read_text(encoding="utf-8").split("---\n", 2)
        if len(head) == 2 and not start:
            entries = yaml.safe_load(head[0])["weights"]
            cards |= {name: Card(**entry) for name, entry in entries.items()}
    return dict(sorted(cards.items(), key=lambda x: (x[1].year, x[1].base_model is not None)))


CARDS = _read_cards()
"""What the model cards say, by the names of the weights, in the order of the papers."""

PRETRAINED = tuple(CARDS)
"""Names of the weights inside this package; ``recipes/`` holds the recipe of each run."""

FAMILY = ("bicubic", *(name for name, card in CARDS.items() if card.family))
"""All methods of chapter 8."""


def load_network(name: str | os.PathLike) -> Network:
    """Build a network and load its weights; no network connection is needed.

    Args:
        name: a name from :data:`PRETRAINED`, or a ``.safetensors`` file that
            :func:`srgan_lib.checkpoints.save_weights` wrote.

    Returns:
        The network in evaluation mode, on the CPU, in float32.

    Raises:
        ConfigurationError: an unknown name.
        WeightsError: a file that is missing or damaged, or doesn't say what it is for.
    """
    path = weights_path(name)
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
    except Exception as error:  # safetensors raises errors of many kinds
        raise WeightsError(f"{path} is not a whole safetensors file: {error}.") from error
    if header.get("network") not in NETWORKS or "arguments" not in header:
        raise WeightsError(
            f"{path} doesn't say which network it is for. Build the network yourself and use "
            "srgan_lib.checkpoints.load_weights."
        )
    kind = NETWORKS[header["network"]]
    try:
        arguments = json.loads(header["arguments"])
        with torch.device("meta"):  # without memory, of which a made-up header may want too much
            form = kind(**arguments)
    except ConfigurationError as error:
        raise WeightsError(f"{path} asks for an impossible network: {error}") from error
    except Exception as error:  # torch raises errors of many kinds on impossible sizes
        raise WeightsError(
            f"{path} asks for an impossible network: no {kind.__name__} can be made with the "
            f"arguments in the file's header ({type(error).__name__})."
        ) from error
    state = read_weights(form, path)
    network = kind(**arguments)
    network.load_state_dict(state)
    return network.eval()


def load_generator(name: str | os.PathLike) -> SRNetwork:
    """Return what :func:`load_network` does, if it is a network that enlarges.

    Raises:
        ConfigurationError: a network that judges, or an unknown name.
        WeightsError: see :func:`load_network`.
    """
    network = load_network(name)
    if not isinstance(network, SRNetwork):
        kind = type(network).__name__
        raise ConfigurationError(f"{name} is a {kind}; only a generator enlarges images.")
    return network


def weights_path(name: str | os.PathLike) -> Path:
    """Return the file of weights that are named, or given by their path.

    Args:
        name: a name from :data:`PRETRAINED`, or a ``.safetensors`` file.

    Raises:
        ConfigurationError: an unknown name.
        WeightsError: a file that isn't there.
    """
    if str(name) in CARDS:
        return _FOLDER / f"{name}.safetensors"
    path = Path(name)
    if path.suffix != ".safetensors":
        raise unknown_name("weights", str(name), PRETRAINED)
    if not os.path.isfile(path):
        raise WeightsError(f"There are no weights in {path}.")
    return path
