"""Noise that belongs to a place in the image: the dice of networks with noise inputs.

A value is a pure function of seed, channel, row and column. So an image comes out the same on
each call, on each device and in whatever tiles it is cut into; any part of the noise can be made
alone, in memory of its own size. The page "Try it on your image" draws the same numbers.

A hash turns seed and place into four uniform numbers (pcg4d: Jarzynski and Olano 2020, Hash
functions for GPU rendering, Journal of Computer Graphics Techniques 9(3), section 4), and the
Box-Muller transform makes four normal ones of them, for four channels.
"""

import numpy as np
import torch
from torch import Tensor, nn

from srgan_lib.architectures.network import SRNetwork
from srgan_lib.errors import ConfigurationError


def noise_at(channels: int, top: int, left: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Return the noise of a window: standard normal, and the same wherever windows overlap.

    Args:
        channels: number of channels; one that is there in both of two numbers is the same in both.
        top: first row of the window, 0 or more.
        left: its first column, 0 or more.
        height: its rows.
        width: its columns.
        seed: any whole number, modulo 2^32. Another seed is another throw.

    Returns:
        Float32 tensor (channels, height, width) on the CPU.

    Raises:
        ConfigurationError: a negative place or size.
    """
    if min(channels, top, left, height, width) < 0:
        raise ConfigurationError(
            f"No noise lies at row {top}, column {left}, with {channels} channels of "
            f"{height} x {width}; none of these may be negative."
        )
    rows = np.arange(top, top + height, dtype=np.uint32)[:, None]  # (height, 1)
    columns = np.arange(left, left + width, dtype=np.uint32)[None]  # (1, width)
    noise = np.empty((-(-channels // 4) * 4, height, width), dtype=np.float32)
    for first in range(0, channels, 4):
        place = np.broadcast_arrays(columns, rows, np.uint32(first // 4), np.uint32(seed % 2**32))
        # Between 0 and 1, and never 0, which has no logarithm.
        uniform = [(x + 0.5) / 2**32 for x in _pcg4d(*place)]
        for i in (0, 2):
            radius, angle = np.sqrt(-2 * np.log(uniform[i])), 2 * np.pi * uniform[i + 1]
            noise[first + i] = radius * np.cos(angle)
            noise[first + i + 1] = radius * np.sin(angle)
    return torch.from_numpy(noise[:channels])


def noise_inputs(
    network: nn.Module, lr: Tensor, seed: int = 0, *, top: int = 0, left: int = 0
) -> tuple[Tensor, ...]:
    """Return what a network takes beside the LR image: ``network(lr, *noise_inputs(...))``.

    Args:
        network: any generator or interpolation; another module throws no dice.
        lr: what it enlarges, float tensor (N, C, H, W); all N get the same noise.
        seed: of the noise.
        top: row of the whole image at which ``lr`` begins.
        left: column at which it begins.

    Returns:
        The noise (N, noise_channels, H, W), on the device of ``lr`` and of its type; nothing for a
        network without dice.
    """
    if not has_dice(network):
        return ()
    noise = noise_at(network.noise_channels, top, left, *lr.shape[-2:], seed).to(
        lr.device, lr.dtype
    )
    return (noise.expand(len(lr), -1, -1, -1),)


def has_dice(network: nn.Module) -> bool:
    """Return whether a network takes noise, and so has many results for one image."""
    return isinstance(network, SRNetwork) and network.noise_channels > 0


def check_dice(network: nn.Module) -> None:
    """Refuse a network without noise inputs where several throws are asked for.

    Raises:
        ConfigurationError: the network throws no dice.
    """
    if not has_dice(network):
        raise ConfigurationError(
            f"This {type(network).__name__} throws no dice: it has one result for an image, "
            "and several throws would all be equal."
        )


def _pcg4d(*values: np.ndarray) -> list[np.ndarray]:
    """Hash four arrays of uint32 of one shape to four others; sums and products wrap at 2^32."""

    def mix(x: list[np.ndarray]) -> None:
        x[0] = x[0] + x[1] * x[3]
        x[1] = x[1] + x[2] * x[0]
        x[2] = x[2] + x[0] * x[1]
        x[3] = x[3] + x[1] * x[2]

    x = [value * np.uint32(1664525) + np.uint32(1013904223) for value in values]
    mix(x)
    x = [value ^ (value >> np.uint32(16)) for value in x]
    mix(x)
    return x
