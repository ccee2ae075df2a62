"""What an LR image says about its HR image, and what it leaves open.

Before rounding, degradation is linear: y = A x B^T, with a matrix for the rows and one for the
columns (:func:`srgan_lib.degradation.resize_matrix`). With their pseudo-inverses A+ and B+ an
image falls into two parts:

    x = A+ A x (B+ B)^T  +  the rest

The first is what LR measures. The rest is degraded to zero: LR has no say in it.
"""

from functools import lru_cache

import torch
from torch import Tensor

from srgan_lib.degradation import resize_matrix
from srgan_lib.errors import ImageError
from srgan_lib.spectra import waves


def measured_part(image: Tensor, scale: int = 4) -> Tensor:
    """Return the part of an image that its LR image determines.

    Args:
        image: float tensor (..., H, W); ``scale`` must divide H and W.
        scale: HR pixels a side that make one LR pixel.

    Returns:
        Float tensor of the same shape: the least image, in the sum of squares, that is degraded
        to the same LR image, but for rounding.

    Raises:
        ImageError: a size that ``scale`` doesn't divide.
    """
    (rows, rows_back), (columns, columns_back) = _matrices(image, scale)
    lr = rows @ image.double() @ columns.T
    return (rows_back @ lr @ columns_back.T).to(image.dtype)


def open_part(image: Tensor, scale: int = 4) -> Tensor:
    """Return the part of an image that LR leaves open: it is degraded to zero.

    Args:
        image: float tensor (..., H, W); ``scale`` must divide H and W.
        scale: HR pixels a side that make one LR pixel.

    Returns:
        Float tensor of the same shape; with :func:`measured_part` it adds up to the image.

    Raises:
        ImageError: a size that ``scale`` doesn't divide.
    """
    return image - measured_part(image, scale)


def project(sr: Tensor, lr: Tensor) -> Tensor:
    """Return the image nearest to SR, in the sum of squares, that is degraded to LR.

    SR keeps its open part; its measured part is replaced by that of LR. Bahat and Michaeli
    (2020) put such a projection at the end of a network.

    Args:
        sr: float tensor (..., scale h, scale w).
        lr: float tensor (..., h, w).

    Returns:
        Float tensor of SR's shape, neither clamped nor rounded.

    Raises:
        ImageError: SR is not a whole number of times as large as LR.
    """
    scale = sr.shape[-1] // lr.shape[-1]
    if scale < 1 or tuple(sr.shape) != (
        *lr.shape[:-2],
        scale * lr.shape[-2],
        scale * lr.shape[-1],
    ):
        raise ImageError(
            f"SR {tuple(sr.shape)} is not a whole number of times as large as LR {tuple(lr.shape)}."
        )
    (rows, rows_back), (columns, columns_back) = _matrices(sr, scale)
    missing = lr.double() - rows @ sr.double() @ columns.T
    return (sr.double() + rows_back @ missing @ columns_back.T).to(sr.dtype)


def explained_detail(sr: Tensor, hr: Tensor, scale: int = 4) -> tuple[float, float]:
    """Return how much of HR's fine detail SR explains, and how alike the two are.

    Fine is what lies beyond LR's Nyquist frequency, in rows or in columns: LR has no sample of
    it. With H and S for the fine detail of HR and SR, <H, S> for their inner product and |H|^2
    for an energy,

        explained = 1 - |H - S|^2 / |H|^2,    correlation = <H, S> / (|H| |S|).

    Explained is 1 where S is H, 0 where SR has no fine detail, and negative where it would be
    better off without: there, what it added is mostly wrong. The correlation doesn't ask for
    the amount. Multiply S by a: |H - a S|^2 = |H|^2 - 2 a <H, S> + a^2 |S|^2 is least at
    a = <H, S> / |S|^2, where explained is correlation^2. So that is the most that any multiple of
    S explains, and what S itself lacks of it comes from its amount.

    Neither calls a good guess wrong. The best that LR allows in the mean square is S = E[H | LR].
    Its error is orthogonal to it, <H - S, S> = 0, so with |S|^2 = e |H|^2 also <H, S> = e |H|^2.
    Then |H - S|^2 = (1 - e) |H|^2: explained is e and the correlation is sqrt(e).

    Means are taken off and a Hann window applied, so that neither brightness nor the borders
    count.

    Args:
        sr: float tensor (C, H, W), at least 8 x 8.
        hr: the same shape.
        scale: HR pixels a side that make one LR pixel.

    Returns:
        ``(explained, correlation)``: at most 1, and from -1 to 1. HR itself gives (1, 1), an
        image without fine detail (0, 0).

    Raises:
        ImageError: shapes that differ or are too small, or an HR image without fine detail.
    """
    if sr.shape != hr.shape or min(hr.shape[-2:]) < 8:
        raise ImageError(
            f"SR {tuple(sr.shape)} and HR {tuple(hr.shape)} must have one shape, from 8 x 8 up."
        )
    found, true = _fine(sr, scale), _fine(hr, scale)
    energy, there = (detail.abs().square().sum() for detail in (true, found))
    if energy <= 1e-20:
        raise ImageError("HR has no detail that is finer than LR, so there is nothing to compare.")
    explained = 1 - (true - found).abs().square().sum() / energy
    alike = (found * true.conj()).real.sum() / (energy * there).sqrt() if there > 1e-20 else 0.0
    return float(explained), float(alike)


def _fine(image: Tensor, scale: int) -> Tensor:
    """Return an image's Fourier coefficients beyond LR's Nyquist frequency."""
    down, right = (torch.fft.fftfreq(side, device=image.device).abs() for side in image.shape[-2:])
    fine = (down[:, None] > 0.5 / scale) | (right > 0.5 / scale)
    return waves(image) * fine


def _matrices(image: Tensor, scale: int) -> list[tuple[Tensor, Tensor]]:
    """Return degradation's matrix and its pseudo-inverse, for rows and for columns."""
    height, width = image.shape[-2:]
    if scale < 1 or height % scale or width % scale:
        raise ImageError(f"{height} x {width} pixels can't be divided by {scale}.")
    return [
        tuple(matrix.to(image.device) for matrix in _pair(side, scale)) for side in (height, width)
    ]


@lru_cache(maxsize=16)
def _pair(side: int, scale: int) -> tuple[Tensor, Tensor]:
    matrix = resize_matrix(side, side // scale).double()
    return matrix, torch.linalg.pinv(matrix)
