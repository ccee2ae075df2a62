"""An image as integers, and what its readers share: the limits on its size, alpha, grey.

On disk, and in the memory of the training device, an image is made of integers: 8 or 16 bits a
value.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from srgan_lib.errors import ImageError
from srgan_lib.files import limit_from

MAX_PIXELS = 200_000_000
"""Larger images are refused before they are decoded, see :func:`max_pixels`."""

MAX_PIXELS_VARIABLE = "SRGAN_MAX_PIXELS"
"""Environment variable: another limit, for this process and those that it starts."""

BYTES_A_PIXEL = 8
"""Of a file, at the limit: four values of 16 bits, or one of 64."""


@dataclass(frozen=True)
class Pixels:
    """An image as integers.

    Attributes:
        values: (C, H, W), ``torch.uint8`` or ``torch.uint16``.
        bits: 8 or 16; the values go from 0 to ``2**bits - 1``.
    """

    values: Tensor
    bits: int

    def to_float(self) -> Tensor:
        """Return the image as float32 (C, H, W) in [0, 1]."""
        return self.values.to(torch.float32) / (2**self.bits - 1)


def to_pixels(image: Tensor, bits: int = 8) -> Pixels:
    """Clamp a float image to [0, 1] and round it to integers.

    Args:
        image: float tensor (C, H, W) with C = 1 or 3, in [0, 1].
        bits: 8 or 16.

    Raises:
        ImageError: a wrong shape or bit depth, or values that are NaN or infinite.
    """
    if bits not in (8, 16):
        raise ImageError(f"bits must be 8 or 16, not {bits}.")
    if image.ndim != 3 or image.shape[0] not in (1, 3) or image.numel() == 0:
        raise ImageError(
            f"An image must have the shape (C, H, W) with C = 1 or 3, not {tuple(image.shape)}."
        )
    if not torch.isfinite(image).all():
        raise ImageError("The image holds NaN or infinite values.")
    levels = 2**bits - 1
    dtype = torch.uint8 if bits == 8 else torch.uint16
    rounded = (image.detach().double().clamp(0, 1) * levels).round().to(torch.int32)
    return Pixels(rounded.to(dtype), bits)


def to_channels(image: Tensor, channels: int) -> Tensor:
    """Turn grey into RGB by replication, or RGB into grey by BT.601 luma.

    Args:
        image: float tensor (..., C, H, W) with C = 1 or 3.
        channels: 1 or 3.

    Returns:
        Float tensor (..., channels, H, W); the input itself where nothing is to be done.

    Raises:
        ImageError: a channel count other than 1 or 3.
    """
    found = image.shape[-3]
    if found not in (1, 3) or channels not in (1, 3):
        raise ImageError(f"Can't turn {found} channels into {channels}; only 1 and 3 are known.")
    if found == channels:
        return image
    if channels == 3:
        return image.expand(*image.shape[:-3], 3, *image.shape[-2:])
    luma = image.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    return (image * luma).sum(dim=-3, keepdim=True)


def max_pixels() -> int:
    """Return how many pixels an image may have: ``SRGAN_MAX_PIXELS``, or :data:`MAX_PIXELS`.

    Larger images are refused before they are decoded, and files of more than eight bytes for each
    of these pixels before they are read: a small file can stand for a very large image. While it
    is decoded, an image takes up to 120 bytes of memory for each of its pixels.

    Raises:
        ConfigurationError: ``SRGAN_MAX_PIXELS`` is no positive whole number.
    """
    return limit_from(MAX_PIXELS_VARIABLE, MAX_PIXELS)


def check_size(height: int, width: int) -> None:
    """Raise an ImageError for an image without pixels, or with more than :func:`max_pixels`."""
    limit = max_pixels()
    if height * width > limit:
        raise ImageError(
            f"it has {height} x {width} pixels, more than the limit of {limit:,}. If you trust "
            f"the file, set the environment variable {MAX_PIXELS_VARIABLE} to "
            f"{height * width} or more."
        )
    if height < 1 or width < 1:
        raise ImageError("it has no pixels.")


def coded_size(stream: bytes) -> tuple[int, int]:
    """Return height and width by the header of a JPEG, JPEG-LS or JPEG 2000 stream.

    Its decoders believe the stream, whatever the file around it says. (ISO/IEC 10918-1, B.2;
    14495-1, C.2; 15444-1, A.5.)
    """
    start = stream.find(b"\xff\x4f\xff\x51")  # JPEG 2000, perhaps inside a JP2 file
    if start >= 0 and len(stream) >= start + 24:
        sides = [int.from_bytes(stream[start + i : start + i + 4], "big") for i in (8, 12, 16, 20)]
        return sides[1] - sides[3], sides[0] - sides[2]
    place = stream.find(b"\xff\xd8") + 2
    while place >= 2 and place + 9 <= len(stream):
        if stream[place] != 0xFF:
            place += 1  # as decoders do, until the next marker
            continue
        marker = stream[place + 1]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return tuple(int.from_bytes(stream[place + i : place + i + 2], "big") for i in (5, 7))
        alone = marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8
        length = 0 if alone else int.from_bytes(stream[place + 2 : place + 4], "big")
        place += (1 if marker == 0xFF else 2) + length
    raise ImageError("the compressed pixels don't say their size.")


def from_array(array: np.ndarray) -> Pixels:
    """Turn a decoded array (H, W) or (H, W, C) of uint8 or uint16 into :class:`Pixels`."""
    array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    bits = 8 * array.dtype.itemsize
    native = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False))
    return Pixels(torch.from_numpy(native.copy()), bits)


def drop_alpha(array: np.ndarray) -> np.ndarray:
    """Turn (H, W, 2) into (H, W), and (H, W, 4) into (H, W, 3), laid over black."""
    alpha = array[..., -1:].astype(np.float64) / np.iinfo(array.dtype).max
    colour = np.rint(array[..., :-1] * alpha).astype(array.dtype)
    return colour[..., 0] if colour.shape[-1] == 1 else colour


def grey_if_equal(array: np.ndarray) -> np.ndarray:
    """Return one channel of (H, W, 3) where all three are equal."""
    equal = (array[..., :1] == array).all()
    return array[..., 0] if equal else array


@contextlib.contextmanager
def decoders_silenced() -> Iterator[None]:
    """Keep pydicom and the decoders from warning and logging: they quote the patient's data."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "tifffile", "PIL")]
    before = [logger.disabled for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.disabled = True
            yield
        finally:
            for logger, disabled in zip(loggers, before, strict=True):
                logger.disabled = disabled
