"""Saving and loading a network's weights, as safetensors: plain numbers that can't run code."""

import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from srgan_lib.errors import WeightsError
from srgan_lib.files import write_atomically


def save_weights(network: nn.Module, path: str | os.PathLike, *, half: bool = False) -> None:
    """Write a network's parameters and buffers to a safetensors file, whole or not at all.

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
    write_atomically(path, save(state))


def load_weights(network: nn.Module, path: str | os.PathLike) -> None:
    """Read a safetensors file into a network of the same architecture.

    All or nothing: names and shapes must agree in full, and a network that can't take the
    weights is left as it was.

    Args:
        network: the network to fill, on any device.
        path: the file.

    Raises:
        WeightsError: a missing or damaged file, or weights of another architecture; the message
            names the first thing that differs.
    """
    path = Path(path)
    try:
        state = load(path.read_bytes())
    except OSError as error:
        raise WeightsError(f"Could not read weights from {path}: {error.strerror}.") from error
    except (SafetensorError, ValueError) as error:
        raise WeightsError(
            f"{path} is not a whole safetensors file ({error}). Other formats are not read, "
            "since they may run code."
        ) from error
    wanted = network.state_dict()
    kind = type(network).__name__
    for name, value in wanted.items():
        if name not in state:
            raise WeightsError(f"{path} is not for this {kind}: {name} is missing in it.")
        if state[name].shape != value.shape:
            raise WeightsError(
                f"{path} is not for this {kind}: {name} has the shape "
                f"{tuple(state[name].shape)} in it, not {tuple(value.shape)}. "
                "Build the network with the arguments that it was trained with."
            )
    unknown = next((name for name in state if name not in wanted), None)
    if unknown is not None:
        raise WeightsError(f"{path} is not for this {kind}: it holds {unknown}, too.")
    network.load_state_dict(state)
