"""What all generators ask of their arguments and of their input."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import Tensor

from srgan_lib.errors import ConfigurationError, ImageError

if TYPE_CHECKING:
    from srgan_lib.architectures.network import SRNetwork


def check_form(channels: int, scale: int, scales: tuple[int, ...]) -> None:
    """Raise a ConfigurationError for other than 1 or 3 channels, or a scale that isn't offered."""
    if channels not in (1, 3):
        raise ConfigurationError(f"channels must be 1 or 3, not {channels}.")
    if scale not in scales:
        offered = ", ".join(map(str, scales[:-1])) + f" or {scales[-1]}"
        raise ConfigurationError(f"scale must be {offered}, not {scale}.")


MOST = 1024
"""No number of layers, channels or pixels in a network's arguments may be larger.

Arguments also come from files, which must not make a network that never ends."""

MOST_LAYERS = 128
"""No number of blocks, layers or recursions may be larger."""


def check_positive(most: int = MOST, **values: int | Iterable[int]) -> None:
    """Raise a ConfigurationError that names the first value below 1 or above a limit.

    Args:
        most: the limit, for several values also for their sum.
        **values: numbers, or several of them.
    """
    for name, value in values.items():
        several = list(value) if isinstance(value, Iterable) else [value]
        if min(several, default=0) < 1:
            raise ConfigurationError(f"{name} must be positive, not {str(value)[:40]}.")
        if sum(several) > most:
            raise ConfigurationError(f"{name} must be {most} at most, not {str(value)[:40]}.")


def check_input(network: "SRNetwork", lr: Tensor) -> None:
    """Raise an ImageError unless LR is a batch with as many channels as the network."""
    if lr.ndim != 4 or lr.shape[1] != network.channels:
        raise ImageError(
            f"{type(network).__name__} takes (N, {network.channels}, H, W), not {tuple(lr.shape)}."
        )
