"""Varying HR images, so that a network meets other sensors than those of its data set.

A GAN that only ever saw one hospital's noise puts that noise into every image. To get the texture
right it must see in training that there are smoother images, too, and how to tell them: by the
noise that LR still holds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from srgan_lib.degradation import quantise, resize
from srgan_lib.errors import ConfigurationError
from srgan_lib.pixels import Pixels, to_pixels

_RADIUS = 4  # of the blur's kernel, in pixels


@dataclass(frozen=True)
class Variation:
    """Random changes of HR crops, independent for each crop.

    A share of the crops is made smooth: blurred by a Gaussian, and of less contrast. The blur
    alone would be cruel: it hardly shows in LR, four times smaller, so that no network could tell
    which crops it has to leave smooth. With the contrast the noise that is left in LR gets
    weaker, as it is in images of better sensors. Of the other crops, half get more contrast. All
    crops of changed contrast get a new mean, and half of them are turned into negatives. Values
    are clipped to [0, 1] and rounded to the bit depth.

    Args:
        smooth: share of the crops that are made smooth.
        blur: smallest and largest standard deviation of the blur, in pixels.
        weaker: smallest and largest factor of the contrast of smooth crops.
        stronger: largest factor of the contrast of the others; the smallest is 1.
        mean: smallest and largest mean of crops of changed contrast.

    Raises:
        ConfigurationError: an impossible value.
    """

    smooth: float = 0.2
    blur: tuple[float, float] = (0.5, 1.3)
    weaker: tuple[float, float] = (0.35, 0.65)
    stronger: float = 1.4
    mean: tuple[float, float] = (0.25, 0.75)

    def __post_init__(self) -> None:
        if not 0 <= self.smooth <= 1:
            raise ConfigurationError(f"smooth must be between 0 and 1, not {self.smooth}.")
        if not 0.3 <= self.blur[0] <= self.blur[1] <= _RADIUS / 2:
            raise ConfigurationError(
                f"blur must be 0.3 <= low <= high <= {_RADIUS / 2}, not {self.blur}."
            )
        if not 0 < self.weaker[0] <= self.weaker[1] <= 1:
            raise ConfigurationError(f"weaker must be 0 < low <= high <= 1, not {self.weaker}.")
        if not 1 <= self.stronger < math.inf:
            raise ConfigurationError(f"stronger must be 1 or more, not {self.stronger}.")
        if not 0 <= self.mean[0] <= self.mean[1] <= 1:
            raise ConfigurationError(f"mean must be 0 <= low <= high <= 1, not {self.mean}.")

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

        smooth = uniform(0, 1) < self.smooth
        hr = torch.where(each(smooth), _blur(hr, uniform(*self.blur)), hr)

        more = ~smooth & (uniform(0, 1) < 0.5)
        weaker, stronger = uniform(*self.weaker), uniform(1, self.stronger)
        factor = torch.where(smooth, weaker, stronger)
        factor = torch.where(uniform(0, 1) < 0.5, factor, -factor)
        mean = hr.mean((1, 2, 3), keepdim=True)
        changed = each(uniform(*self.mean)) + each(factor) * (hr - mean)
        hr = torch.where(each(smooth | more), changed, hr)
        return quantise(hr, bits).contiguous(memory_format=torch.channels_last)


def with_smaller(images: Sequence[Pixels], factors: Sequence[float]) -> list[Pixels]:
    """Return images and, after them, copies that are smaller by each of the factors.

    Args:
        images: the images.
        factors: each between 0 and 1; resampled by antialiased bicubic.

    Raises:
        ConfigurationError: a factor that is not between 0 and 1.
    """
    check_factors(factors)
    result = list(images)
    for factor in factors:
        for image in images:
            height, width = image.values.shape[1:]
            small = resize(image.to_float(), (round(height * factor), round(width * factor)))
            result.append(to_pixels(small.clamp(0, 1), image.bits))
    return result


def check_factors(factors: Sequence[float]) -> None:
    """Refuse factors that don't make an image smaller.

    Raises:
        ConfigurationError: a factor that is not between 0 and 1.
    """
    for factor in factors:
        if not 0 < factor < 1:
            raise ConfigurationError(f"Images shrink by a factor between 0 and 1, not {factor}.")


def _blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image of (N, C, H, W) by a Gaussian of its own width, sigma (N,) in pixels."""
    distance = torch.arange(-_RADIUS, _RADIUS + 1.0)
    kernel = torch.exp(-(distance**2) / (2 * sigma[:, None] ** 2))
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).to(x.device, non_blocking=True)
    x = F.pad(x, (_RADIUS,) * 4, mode="reflect").transpose(0, 1)  # (C, N, H, W): a group an image
    x = F.conv2d(x, kernel[:, None, :, None], groups=len(kernel))
    return F.conv2d(x, kernel[:, None, None, :], groups=len(kernel)).transpose(0, 1)
