"""The networks that come with this package, and any others that were saved by it."""

import json
import os
from importlib.resources import files
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from srgan_lib.architectures import DISCRIMINATORS, GENERATORS, NeighbourEmbedding
from srgan_lib.checkpoints import read_weights
from srgan_lib.errors import ConfigurationError, WeightsError, unknown_name

TRAINED = ("srcnn", "espcn", "drcn", "srresnet", "srgan", "rrdbnet", "esrgan", "swinir", "ipt")
"""The networks of chapter 8, in the order of their papers; ``recipes/`` holds their recipes."""

FAMILY = ("bicubic", "neighbour_embedding", *TRAINED)
"""All methods of chapter 8."""

PRETRAINED = (
    "neighbour_embedding",
    *TRAINED,
    "srresnet_paper",
    "srgan_discriminator",
    "srgan_paper",
    "srgan_no_dice",
)
"""Names of the weights inside this package; ``recipes/`` holds the recipe of each run."""

_NETWORKS = {
    **GENERATORS,
    **DISCRIMINATORS,
    "NeighbourEmbedding": NeighbourEmbedding,
}


def load_network(name: str | os.PathLike) -> nn.Module:
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
    if header.get("network") not in _NETWORKS or "arguments" not in header:
        raise WeightsError(
            f"{path} doesn't say which network it is for. Build the network yourself and use "
            "srgan_lib.checkpoints.load_weights."
        )
    kind = _NETWORKS[header["network"]]
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


def weights_path(name: str | os.PathLike) -> Path:
    """Return the file of weights that are named, or given by their path.

    Args:
        name: a name from :data:`PRETRAINED`, or a ``.safetensors`` file.

    Raises:
        ConfigurationError: an unknown name.
        WeightsError: a file that isn't there.
    """
    if str(name) in PRETRAINED:
        return Path(str(files("srgan_lib") / "weights" / f"{name}.safetensors"))
    path = Path(name)
    if path.suffix != ".safetensors":
        raise unknown_name("weights", str(name), PRETRAINED)
    if not os.path.isfile(path):
        raise WeightsError(f"There are no weights in {path}.")
    return path
