"""An image's waves, for all that is measured by spatial frequency."""

import torch
from torch import Tensor

from srgan_lib.errors import ImageError


def waves(image: Tensor, norm: str = "backward") -> Tensor:
    """Return the Fourier coefficients of an image less its mean, under a Hann window.

    So neither brightness nor the image's borders count as detail.

    Args:
        image: float tensor (C, H, W).
        norm: how they are scaled, see :func:`torch.fft.fft2`; ``"ortho"`` keeps the energy.

    Returns:
        Complex, in double precision, (C, H, W).
    """
    x = image.to(torch.float64)
    x = x - x.mean(dim=(-2, -1), keepdim=True)
    rows, columns = (
        torch.hann_window(side, dtype=x.dtype, device=x.device) for side in image.shape[-2:]
    )
    return torch.fft.fft2(x * torch.outer(rows, columns), norm=norm)


def spectrum(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return power and radius of all frequencies, each (H W,).

    Args:
        image: float tensor (C, H, W), at least 8 x 8.

    Returns:
        The power, the mean over the channels, and the distance from zero frequency as a fraction
        of the Nyquist frequency.

    Raises:
        ImageError: an image that is too small.
    """
    height, width = image.shape[-2:]
    if min(height, width) < 8:
        raise ImageError(f"A spectrum needs 8 x 8 pixels, not {height} x {width}.")
    power = waves(image, "ortho").abs().square().mean(dim=0)
    fy = torch.fft.fftfreq(height, dtype=power.dtype, device=power.device)[:, None]
    fx = torch.fft.fftfreq(width, dtype=power.dtype, device=power.device)[None, :]
    return power.flatten(), (2 * torch.hypot(fy, fx)).flatten()
