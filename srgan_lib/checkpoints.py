"""Saving and loading weights and training states, as safetensors: plain numbers, no code.

A weights file holds one network. A state file holds whatever a run needs to go on: its tensors
lie in the file as tensors, and all else stands in the header as JSON.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from srgan_lib.architectures.network import Network, SRNetwork
from srgan_lib.errors import WeightsError
from srgan_lib.files import write_atomically


def save_weights(network: nn.Module, path: str | os.PathLike, *, half: bool = False) -> None:
    """Write a network's parameters and buffers to a safetensors file, whole or not at all.

    What the network was made with goes into the header, so that
    :func:`srgan_lib.pretrained.load_network` can build it again.

    Args:
        network: the network.
        path: the file to write.
        half: round floating-point values to half precision, for half the size.

    Raises:
        WeightsError: a value that is NaN or infinite, or too large for half precision.
        SRGANError: the file can't be written.
    """
    state = {}
    for name, value in network.state_dict().items():
        value = value.detach().cpu().contiguous()
        if value.is_floating_point():
            value = value.half() if half else value
            if not torch.isfinite(value).all():
                raise WeightsError(f"{name} holds values that are not finite; nothing was saved.")
        state[name] = value
    header = {"network": type(network).__name__}
    if isinstance(network, Network):
        header["arguments"] = json.dumps(network.arguments)
    write_atomically(path, _in_order(save(state, header)))


def load_weights(network: nn.Module, path: str | os.PathLike) -> None:
    """Read a safetensors file into a network of the same architecture.

    All or nothing: names and shapes must agree in full, and a network that can't take the
    weights is left as it was. Only a SRResNet with noise inputs also takes the weights of one
    without, and means the same with them: the noise inputs' weights are zero.

    Args:
        network: the network to fill, on any device.
        path: the file.

    Raises:
        WeightsError: a missing or damaged file, or weights of another architecture; the message
            names the first thing that differs.
    """
    network.load_state_dict(read_weights(network, path))


def read_weights(network: nn.Module, path: str | os.PathLike) -> dict[str, Tensor]:
    """Return the weights in a file, once it is sure that they belong to a network.

    Args:
        network: the network; its own weights may be on the device "meta", without memory.
        path: the file.

    Raises:
        WeightsError: see :func:`load_weights`.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        state, arguments = load(data), _arguments(data)
    except OSError as error:
        raise WeightsError(f"Could not read weights from {path}: {error.strerror}.") from error
    except Exception as error:  # safetensors and torch raise errors of many kinds
        raise WeightsError(
            f"{path} is not a whole safetensors file ({error}). Other formats are not read, "
            "since they may run code."
        ) from error
    wanted = network.state_dict()
    kind = type(network).__name__
    if isinstance(network, SRNetwork):
        network.complete(state, arguments)
    for name, value in wanted.items():
        if name not in state:
            raise WeightsError(f"{path} is not for this {kind}: {name} is missing in it.")
        if state[name].shape != value.shape:
            raise WeightsError(
                f"{path} is not for this {kind}: {name} has the shape "
                f"{tuple(state[name].shape)} in it, not {tuple(value.shape)}. "
                "Build the network with the arguments that it was trained with."
            )
        if state[name].is_floating_point() != value.is_floating_point():
            raise WeightsError(f"{path} is not for this {kind}: {name} is {state[name].dtype}.")
        if not torch.isfinite(state[name].float()).all():
            raise WeightsError(f"{path} is of no use: {name} holds values that are not finite.")
    unknown = next((name for name in state if name not in wanted), None)
    if unknown is not None:
        raise WeightsError(f"{path} is not for this {kind}: it holds {unknown}, too.")
    own = network.arguments if isinstance(network, Network) else {}
    for name, value in arguments.items():  # some change no shape, a bicubic skip for one
        here = own.get(name, value)
        if here != value:
            raise WeightsError(
                f"{path} is not for this {kind}: it was made with {name}={value!r}, not {here!r}."
            )
    return state


def _header(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header of a whole safetensors file, and what follows it."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _in_order(data: bytes) -> bytes:
    """Sort a file's metadata, which safetensors writes in any order: same weights, same bytes."""
    header, rest = _header(data)
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors are aligned to eight bytes
    return len(text).to_bytes(8, "little") + text + rest


def _arguments(data: bytes) -> dict[str, Any]:
    """Return what the network of a whole safetensors file was made with, as far as it says."""
    header, _ = _header(data)
    arguments = json.loads(header.get("__metadata__", {}).get("arguments", "{}"))
    if not isinstance(arguments, dict):
        raise ValueError("the network's arguments are no dictionary")
    return arguments


def save_state(state: dict[str, Any], path: str | os.PathLike) -> None:
    """Write a training state to a safetensors file, whole or not at all.

    Args:
        state: dictionaries, lists, tuples, tensors, strings, numbers, booleans and None, nested
            as they like.
        path: the file to write.

    Raises:
        WeightsError: a value of another type.
        SRGANError: the file can't be written.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_encode(state, tensors))
    owners = set()
    for name, tensor in tensors.items():  # safetensors refuses to write the same memory twice
        owner = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if owner in owners else tensor
        owners.add(owner)
    metadata = {"state": text, "sha256": _digest(text, tensors)}
    write_atomically(path, save(tensors, metadata))


def load_state(path: str | os.PathLike) -> dict[str, Any]:
    """Read what :func:`save_state` wrote, on the CPU.

    Raises:
        WeightsError: a file that is missing, cut short or altered.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = metadata["state"]
        if metadata["sha256"] != _digest(text, tensors):
            raise ValueError("its content and its SHA-256 disagree")
        state = _decode(json.loads(text), tensors)
        if not isinstance(state, dict):
            raise ValueError("it holds no dictionary")
        return state
    except Exception as error:  # safetensors, torch and what a made-up header leads to
        raise WeightsError(f"{path} is no whole training state: {error}.") from error


def _encode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return ``value`` as JSON can hold it; move its tensors to ``tensors``."""
    if isinstance(value, Tensor):
        name = f"{len(tensors):06d}"
        tensors[name] = value.detach().cpu().contiguous()
        return {"tensor": name}
    if isinstance(value, dict):  # as pairs: the keys of an optimiser's state are integers
        for key in value:
            if not isinstance(key, str | int | float | None):
                raise WeightsError(f"A training state can't hold a {type(key).__name__} as a key.")
        return {"dict": [[key, _encode(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_encode(item, tensors) for item in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise WeightsError(f"A training state can't hold a {type(value).__name__}.")


def _decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _decode(item, tensors) for key, item in content}
    items = [_decode(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items


def _digest(text: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
