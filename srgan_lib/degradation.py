"""From high to low resolution: resampling by separable kernels, and rounding to the bit depth.

Resampling along one axis is a linear map, so it is written as what it is: a matrix with one row
for each output pixel. A row holds the kernel, centred on where that pixel lies in the input. To
shrink, the kernel is stretched by the scale, so that it averages over all pixels that it skips:
that is antialiasing. The same matrices serve degradation and the interpolation baselines.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from srgan_lib.errors import ConfigurationError, ImageError, unknown_name


def _box(x: Tensor) -> Tensor:
    return ((x > -0.5) & (x <= 0.5)).to(x.dtype)


def _triangle(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _cubic(x: Tensor, a: float = -0.5) -> Tensor:
    """Keys' cubic convolution kernel (Keys 1981, eq. 15)."""
    x = x.abs()
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _lanczos3(x: Tensor) -> Tensor:
    """Sinc, windowed by the main lobe of a sinc three times as wide (Duchon 1979)."""
    return torch.where(x.abs() < 3, torch.sinc(x) * torch.sinc(x / 3), torch.zeros_like(x))


_KERNELS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "nearest": (_box, 0.5),
    "bilinear": (_triangle, 1.0),
    "bicubic": (_cubic, 2.0),
    "lanczos": (_lanczos3, 3.0),
}

KERNELS = tuple(_KERNELS)
"""The names of the kernels, from the roughest to the finest."""


def kernel(name: str, x: Tensor) -> Tensor:
    """Return the value of an interpolation kernel at the distances ``x``, in pixels.

    Args:
        name: ``"nearest"``, ``"bilinear"``, ``"bicubic"`` (Keys, a = -0.5) or ``"lanczos"``
            (three lobes).
        x: floating-point tensor of any shape.

    Raises:
        ConfigurationError: an unknown name.
    """
    if name not in _KERNELS:
        raise unknown_name("kernel", name, KERNELS)
    return _KERNELS[name][0](x)


def support(name: str) -> float:
    """Return how far an interpolation kernel reaches to each side, in pixels.

    Args:
        name: a name from :data:`KERNELS`.

    Raises:
        ConfigurationError: an unknown name.
    """
    if name not in _KERNELS:
        raise unknown_name("kernel", name, KERNELS)
    return _KERNELS[name][1]


@lru_cache(maxsize=64)
def resize_matrix(
    size_in: int, size_out: int, name: str = "bicubic", antialias: bool = True
) -> Tensor:
    """Return the matrix that resamples ``size_in`` pixels to ``size_out``.

    Pixel i has its centre at i + 1/2. Rows sum to one; at the border, the part of the kernel
    that lies outside is cut off and the rest is normalised, as Pillow does.

    Args:
        size_in: number of input pixels.
        size_out: number of output pixels.
        name: a name from :data:`KERNELS`.
        antialias: stretch the kernel by the scale when shrinking. Without it, shrinking lets
            fine detail come back as false, coarse patterns.

    Returns:
        Float32 tensor (size_out, size_in).

    Raises:
        ConfigurationError: a size below one, or an unknown kernel.
    """
    if size_in < 1 or size_out < 1:
        raise ConfigurationError(f"Can't resize {size_in} pixels to {size_out}.")
    scale = size_in / size_out
    stretch = max(scale, 1.0) if antialias else 1.0
    centre = (torch.arange(size_out, dtype=torch.float64) + 0.5) * scale
    position = torch.arange(size_in, dtype=torch.float64) + 0.5
    weights = kernel(name, (position[None, :] - centre[:, None]) / stretch)
    reach = support(name) * stretch  # Pillow looks at whole pixels within it only
    first = (centre - reach + 0.5).floor().clamp(min=0)
    last = (centre + reach + 0.5).floor().clamp(max=size_in)
    index = torch.arange(size_in, dtype=torch.float64)
    inside = (index >= first[:, None]) & (index < last[:, None])
    weights = torch.where(inside, weights, torch.zeros_like(weights))
    return (weights / weights.sum(dim=1, keepdim=True)).to(torch.float32)


def resize(
    image: Tensor, size: tuple[int, int], name: str = "bicubic", antialias: bool = True
) -> Tensor:
    """Resample images to another size, differentiably, on their own device.

    The result of bicubic and Lanczos may leave [0, 1] by a little: their kernels overshoot.

    Args:
        image: float tensor (..., H, W).
        size: (height, width) of the result.
        name: a name from :data:`KERNELS`.
        antialias: see :func:`resize_matrix`; leave it on for everything but demonstrations.

    Returns:
        Float tensor (..., height, width) of the same type. Computed in float32 at least, also
        under autocast.

    Raises:
        ConfigurationError: an impossible size or an unknown kernel.
    """
    dtype = torch.float64 if image.dtype == torch.float64 else torch.float32
    rows, columns = (
        resize_matrix(n_in, n_out, name, antialias).to(image.device, dtype)
        for n_in, n_out in zip(image.shape[-2:], size, strict=True)
    )
    with torch.autocast(image.device.type, enabled=False):
        return (rows @ image.to(dtype) @ columns.T).to(image.dtype)


def quantise(image: Tensor, bits: int = 8) -> Tensor:
    """Clamp to [0, 1] and round to the levels that a file of this bit depth can hold.

    Args:
        image: float tensor of any shape.
        bits: bits a value, 1 to 16.

    Raises:
        ConfigurationError: ``bits`` out of range.
    """
    if not 1 <= bits <= 16:
        raise ConfigurationError(f"bits must be between 1 and 16, not {bits}.")
    levels = 2**bits - 1
    return (image.clamp(0, 1) * levels).round() / levels


def crop_to_multiple(image: Tensor, scale: int) -> Tensor:
    """Cut off the last rows and columns that ``scale`` doesn't divide.

    Args:
        image: tensor (..., H, W).
        scale: the number that height and width must be multiples of.

    Returns:
        A view (..., H - H % scale, W - W % scale).

    Raises:
        ImageError: the image is smaller than one LR pixel.
    """
    height, width = image.shape[-2:]
    if height < scale or width < scale:
        raise ImageError(f"An image of {height} x {width} pixels is too small for scale {scale}.")
    return image[..., : height - height % scale, : width - width % scale]


def centre(image: Tensor, side: int, step: int = 1) -> Tensor:
    """Return the middle of an image, or as much of it as there is.

    Args:
        image: tensor (..., H, W).
        side: height and width that are wanted, in pixels.
        step: the first row and column are multiples of it; the scale, to begin with whole LR
            pixels.

    Returns:
        A view (..., min(H, side), min(W, side)).
    """
    height, width = (min(size, side) for size in image.shape[-2:])
    top, left = (
        (size - kept) // 2 // step * step
        for size, kept in zip(image.shape[-2:], (height, width), strict=True)
    )
    return image[..., top : top + height, left : left + width]


def degrade(hr: Tensor, scale: int = 4, bits: int = 8) -> Tensor:
    """Make LR images from HR images: antialiased bicubic, then rounding to the bit depth.

    Args:
        hr: float tensor (..., H, W) in [0, 1]; ``scale`` must divide H and W, see
            :func:`crop_to_multiple`.
        scale: how many HR pixels a side make one LR pixel.
        bits: the bit depth that the LR image is stored with.

    Returns:
        Float tensor (..., H / scale, W / scale) in [0, 1].

    Raises:
        ImageError: a size that ``scale`` doesn't divide.
        ConfigurationError: an impossible scale or bit depth.
    """
    if scale < 1:
        raise ConfigurationError(f"scale must be a positive whole number, not {scale}.")
    height, width = hr.shape[-2:]
    if height % scale or width % scale:
        raise ImageError(
            f"{height} x {width} pixels can't be divided by {scale}; "
            "use srgan_lib.degradation.crop_to_multiple first."
        )
    return quantise(resize(hr, (height // scale, width // scale)), bits)
