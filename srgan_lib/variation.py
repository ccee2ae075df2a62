"""Varying HR images, so that a network meets other sensors than those of its data set.

A GAN that only ever saw one hospital's noise puts that noise into every image. If sharpness,
contrast and noise of HR vary from crop to crop, the only way to get the texture right is to take
it from the LR image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from srgan_lib.degradation import quantise, resize
from srgan_lib.errors import ConfigurationError
from srgan_lib.images import Pixels, to_pixels

_RADIUS = 4  # of the blur's kernel, in pixels


@dataclass(frozen=True)
class Variation:
    """Random changes of HR crops, independent for each crop.

    In this order: blur half of the crops, change the contrast of three in four around their mean
    (half of these are also turned into negatives) and move their mean, add noise to half, and
    round to the bit depth.

    Args:
        blur: largest standard deviation of the Gaussian blur, in pixels; the smallest is 0.3.
        contrast: smallest and largest factor of the contrast.
        noise: largest standard deviation of the added Gaussian noise, as a share of the range;
            squares of uniform numbers, so that little noise is likelier than much.

    Raises:
        ConfigurationError: an impossible value.
    """

    blur: float = 1.5
    contrast: tuple[float, float] = (0.4, 1.3)
    noise: float = 6 / 255

    def __post_init__(self) -> None:
        if not 0.3 <= self.blur <= _RADIUS / 2:
            raise ConfigurationError(
                f"blur must be between 0.3 and {_RADIUS / 2}, not {self.blur}."
            )
        if not 0 < self.contrast[0] <= self.contrast[1] < math.inf:
            raise ConfigurationError(f"contrast must be 0 < low <= high, not {self.contrast}.")
        if not 0 <= self.noise <= 1:
            raise ConfigurationError(f"noise must be between 0 and 1, not {self.noise}.")

    def __call__(self, hr: Tensor, generator: torch.Generator, bits: int = 8) -> Tensor:
        """Change crops.

        Args:
            hr: float tensor (N, C, H, W) in [0, 1].
            generator: on the CPU; all chance comes from it.
            bits: bit depth to round to.

        Returns:
            The same shape and range, channels last in memory.
        """
        n = len(hr)

        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(n, generator=generator)

        def each(values: Tensor) -> Tensor:
            return values.to(hr.device, non_blocking=True)[:, None, None, None]

        sigma = uniform(0.3, self.blur)
        hr = torch.where(each(uniform(0, 1) < 0.5), _blur(hr, sigma), hr)

        low, high = self.contrast
        factor = uniform(math.log(low), math.log(high)).exp()
        factor = torch.where(uniform(0, 1) < 0.5, factor, -factor)
        mean = hr.mean((1, 2, 3), keepdim=True)
        changed = each(uniform(0.25, 0.75)) + each(factor) * (hr - mean)
        hr = torch.where(each(uniform(0, 1) < 0.75), changed, hr)

        sigma = uniform(0, 1) ** 2 * self.noise * (uniform(0, 1) < 0.5)
        noise = torch.randn(hr.shape, generator=generator).to(hr.device, non_blocking=True)
        hr = quantise(hr + each(sigma) * noise, bits)
        return hr.contiguous(memory_format=torch.channels_last)


def with_smaller(images: Sequence[Pixels], factors: Sequence[float]) -> list[Pixels]:
    """Return images and, after them, copies that are smaller by each of the factors.

    Args:
        images: the images.
        factors: each between 0 and 1; resampled by antialiased bicubic.

    Raises:
        ConfigurationError: a factor that is not between 0 and 1.
    """
    result = list(images)
    for factor in factors:
        if not 0 < factor < 1:
            raise ConfigurationError(f"Images shrink by a factor between 0 and 1, not {factor}.")
        for image in images:
            height, width = image.values.shape[1:]
            small = resize(image.to_float(), (round(height * factor), round(width * factor)))
            result.append(to_pixels(small.clamp(0, 1), image.bits))
    return result


def _blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image of (N, C, H, W) by a Gaussian of its own width, sigma (N,) in pixels."""
    distance = torch.arange(-_RADIUS, _RADIUS + 1.0)
    kernel = torch.exp(-(distance**2) / (2 * sigma[:, None] ** 2))
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).to(x.device, non_blocking=True)
    x = F.pad(x, (_RADIUS,) * 4, mode="reflect").transpose(0, 1)  # (C, N, H, W): a group an image
    x = F.conv2d(x, kernel[:, None, :, None], groups=len(kernel))
    return F.conv2d(x, kernel[:, None, None, :], groups=len(kernel)).transpose(0, 1)
