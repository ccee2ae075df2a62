"""Enlarging an image of any size in flat memory: tile by tile, with no seam.

An output pixel depends on the input within a certain radius only. A tile that is read with that
much of its neighbourhood comes out as it would in one piece; what overlaps is cut off. At the
image's border nothing is added, so that the network pads there as it always does. Where a network
works in windows or crops, tiles begin where these do: see its ``stride``.
"""

import contextlib
import math

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from srgan_lib.architectures.interpolation import Interpolation
from srgan_lib.architectures.network import SRNetwork
from srgan_lib.errors import ConfigurationError, ImageError, SRGANError, unknown_name
from srgan_lib.hardware import best_precision
from srgan_lib.images import to_pixels
from srgan_lib.noise import noise_inputs

TILE_PRECISIONS = ("auto", "bf16", "no")
"""Names of the precisions to enlarge in; ``"no"`` is float32."""

_MEMORY = 2 * 2**30  # bytes that one tile may take on its way through the network
_LAYERS = 4  # of the widest feature maps that are in memory at once


def receptive_radius(network: SRNetwork) -> int:
    """Return how far, in LR pixels, the input reaches that an output pixel depends on.

    No LR pixel that is more rows or columns away than this changes the ``scale`` x ``scale``
    output pixels of an LR pixel. Holds in evaluation mode: in training, batch norm looks at the
    whole image.

    Args:
        network: any :class:`~srgan_lib.architectures.network.SRNetwork`: a generator, an
            interpolation, or a class of one's own that derives from it.

    Raises:
        ConfigurationError: a network of another kind.
    """
    if not isinstance(network, SRNetwork):
        raise ConfigurationError(
            f"The receptive radius of a {type(network).__name__} isn't known, so it can't enlarge "
            "in tiles; a generator, an Interpolation or another SRNetwork can."
        )
    return network.receptive_radius


def best_tile(network: SRNetwork, precision: str = "no") -> int:
    """Return a tile size that takes about 2 GiB of memory, or less, on its way through a network.

    It is reckoned from the network's ``working_width``, the channels of its widest features for
    each SR pixel. Larger tiles compute less twice, since they overlap less in proportion; their
    memory grows with the square of their side.

    Args:
        network: see :func:`receptive_radius`.
        precision: a name from :data:`TILE_PRECISIONS`.

    Returns:
        The side in LR pixels, without the overlap; 32 at least, 1024 at most.
    """
    size = 2 if choose_precision(network, precision) == "bf16" else 4
    side = math.isqrt(_MEMORY // (_LAYERS * network.working_width * size)) // network.scale
    return min(max(side - 2 * receptive_radius(network), 32), 1024)


def choose_precision(network: SRNetwork, precision: str = "auto") -> str:
    """Return ``"bf16"`` or ``"no"`` for a precision that may be ``"auto"``.

    ``"auto"`` takes bfloat16 where the network's device computes faster in it, but only for
    networks that add to a bicubic image, which stays in float32: their ``adds_to_bicubic`` is
    true. One that writes the image itself would write it with the 8 significant bits of bfloat16,
    too few for 16-bit images and visible in smooth areas.

    Args:
        network: the network, on the device that it is to compute on.
        precision: a name from :data:`TILE_PRECISIONS`.

    Raises:
        ConfigurationError: an unknown precision.
    """
    if precision not in TILE_PRECISIONS:
        raise unknown_name("precision", precision, TILE_PRECISIONS)
    if isinstance(network, Interpolation):
        return "no"  # always in float32
    if precision != "auto":
        return precision
    if not network.adds_to_bicubic:
        return "no"
    return "bf16" if best_precision(next(network.parameters()).device) == "bf16" else "no"


def upscale_tiled(
    network: SRNetwork,
    lr: Tensor,
    *,
    bits: int | None = None,
    tile: int | None = None,
    precision: str = "auto",
    progress: bool = False,
    seed: int = 0,
) -> Tensor:
    """Enlarge one image tile by tile, in evaluation mode and without gradients.

    In float32 the result is that of the whole image in one piece, to rounding. A network for
    grey images enlarges each channel of a colour image alone, and all with the same noise, if it
    takes any: what is grey in LR stays grey.

    Args:
        network: see :func:`receptive_radius`. It computes on the device that it is on, and its
            mode is restored; its weights may be laid out anew in memory (channels last).
        lr: float tensor (C, h, w) in [0, 1].
        bits: 8 or 16 to clamp and round each tile to integers, which for large images saves
            most of the memory; None for float32, as the network gives it.
        tile: side of a tile in LR pixels, or None for :func:`best_tile`; rounded up to a multiple
            of the network's ``stride``.
        precision: a name from :data:`TILE_PRECISIONS`.
        progress: show a progress bar.
        seed: of the noise, see :mod:`srgan_lib.noise`; nothing to a network without dice.

    Returns:
        Tensor (C, scale h, scale w) on the CPU: ``torch.float32``, ``torch.uint8`` or
        ``torch.uint16``.

    Raises:
        ConfigurationError: a network of another kind, an impossible tile, an unknown precision.
        ImageError: an image of the wrong shape or type, NaN values, or a bit depth other than 8
            and 16.
        SRGANError: the GPU is out of memory; the message names a tile to try.
    """
    radius, stride = receptive_radius(network), network.stride
    if tile is not None and tile < 1:
        raise ConfigurationError(f"tile must be a positive number of pixels, not {tile}.")
    if lr.ndim != 3 or lr.numel() == 0 or not lr.is_floating_point():
        raise ImageError(
            f"An image to enlarge must be a float tensor (C, h, w), not {lr.dtype} of the shape "
            f"{tuple(lr.shape)}."
        )
    taken = network.channels or 1
    if taken not in (1, lr.shape[0]):
        raise ImageError(
            f"The network takes {taken} channels, and the image has {lr.shape[0]}; "
            "use srgan_lib.images.to_channels first."
        )
    if bits not in (None, 8, 16):
        raise ImageError(f"bits must be 8 or 16, not {bits}.")
    dtype = {None: torch.float32, 8: torch.uint8, 16: torch.uint16}[bits]
    precision = choose_precision(network, precision)
    side = tile or best_tile(network, precision)
    if tile is None and max(lr.shape[1:]) <= side + 2 * radius:
        side = max(lr.shape[1:])  # no more than a tile with its overlap: one piece
    side = _round_up(side, stride)
    overlap = _round_up(radius, stride)  # above and to the left: what is read begins with a window
    parameter = next(network.parameters(), lr)
    network.to(memory_format=torch.channels_last)
    scale, (channels, height, width) = network.scale, lr.shape
    sr = torch.empty(channels, scale * height, scale * width, dtype=dtype)
    places = [
        (channel, top, left)
        for top in range(0, height, side)
        for left in range(0, width, side)
        for channel in range(0, channels, taken)
    ]
    with _evaluating(network), torch.no_grad():
        for channel, top, left in tqdm(
            places, desc="enlarging", unit="tile", disable=not progress, leave=False
        ):
            bottom, right = min(top + side, height), min(left + side, width)
            above, before = min(overlap, top), min(overlap, left)
            part = lr[
                channel : channel + taken,
                top - above : bottom + radius,
                left - before : right + radius,
            ]
            x = part[None].to(parameter.device, parameter.dtype)  # (1, taken, h', w')
            x = x.contiguous(memory_format=torch.channels_last)
            noise = noise_inputs(network, x, seed, top=top - above, left=left - before)
            try:
                with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
                    y = network(x, *noise)[0]  # (taken, scale h', scale w')
                y = y[
                    :,
                    scale * above : scale * (above + bottom - top),
                    scale * before : scale * (before + right - left),
                ].float()
                y = y if bits is None else to_pixels(y, bits).values
            except torch.OutOfMemoryError as error:
                raise SRGANError(
                    f"The GPU is out of memory with tiles of {side} pixels. "
                    f"Try a tile of {max(side // 2, 1)}, or close other programs that use it."
                ) from error
            sr[
                channel : channel + taken,
                scale * top : scale * bottom,
                scale * left : scale * right,
            ] = y.cpu()
    return sr


def _round_up(value: int, step: int) -> int:
    """Return the next multiple of ``step``."""
    return -(-value // step) * step


@contextlib.contextmanager
def _evaluating(network: nn.Module):
    """Put a network into evaluation mode, and each of its parts back into its own mode."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
