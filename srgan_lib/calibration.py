"""Whether a network's throws say how sure it is: where they differ, and by how much.

A network that throws dice is calibrated if the original might be one more of its throws: then
nothing but chance tells the original from them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from srgan_lib.degradation import quantise
from srgan_lib.errors import ConfigurationError, ImageError
from srgan_lib.metrics import BORDER, psnr

MEASURES = {
    "mean_psnr": ("PSNR of the mean (dB)", 2),
    "error_correlation": ("correlation of deviation and error", 2),
    "coverage": ("coverage of the 90 % interval", 3),
}
"""What :func:`measure_throws` measures: headings, and the decimals that are printed."""


def measure_throws(throws: Tensor, hr: Tensor, bits: int = 8) -> dict[str, float]:
    """Measure the throws of one image, 4 pixels along each border cut off.

    Args:
        throws: float tensor (n, C, H, W) in [0, 1], n at least 2.
        hr: the original, float tensor (C, H, W) in [0, 1].
        bits: bit depth that the mean is rounded to.

    Returns:
        A value for each name of :data:`MEASURES`: :func:`~srgan_lib.metrics.psnr` of the mean,
        :func:`error_correlation` and :func:`coverage`.

    Raises:
        ConfigurationError: a single throw.
        ImageError: shapes that differ, or images that are too small to be measured.
    """
    _check(throws, hr)
    mean_psnr = psnr(quantise(throws.mean(dim=0), bits), hr, bits)
    inner, inner_hr = (x[..., BORDER:-BORDER, BORDER:-BORDER] for x in (throws, hr))
    return {
        "mean_psnr": mean_psnr,
        "error_correlation": error_correlation(inner, inner_hr),
        "coverage": coverage(inner, inner_hr),
    }


def coverage(throws: Tensor, hr: Tensor, share: float = 0.9) -> float:
    """Return the share of pixels at which the original lies within the throws' interval.

    If the original might be one more throw, its rank among the n throws is equally likely to be
    each of 0 to n: the interval from the i-th smallest to the j-th smallest throw covers it with
    the probability (j - i) / (n + 1), whatever the distribution. From the least to the largest
    that is (n - 1) / (n + 1). Here each rank owns one part of n + 1 of the line from 0 to 1, and
    the interval is the middle of that line; an end that falls within a rank's part counts this
    rank in proportion. An original that equals some throws, as happens with rounded images, has
    all the ranks between them in equal shares (Czado et al. 2009). So the expected value is
    ``share`` for any number of throws.

    Args:
        throws: float tensor (n, C, H, W), n at least 2.
        hr: the original, float tensor (C, H, W).
        share: what a calibrated network covers, between 0 and 1; the interval leaves out as much
            below as above.

    Returns:
        ``share`` for calibrated throws, less for throws that differ too little or miss the
        original by a bias, more for throws that differ too much.

    Raises:
        ConfigurationError: a single throw, or an impossible share.
        ImageError: shapes that differ.
    """
    _check(throws, hr)
    if not 0 < share < 1:
        raise ConfigurationError(f"share must be between 0 and 1, not {share}.")
    ranks = len(throws) + 1
    low = (throws < hr).sum(dim=0, dtype=torch.float64) / ranks
    high = ((throws <= hr).sum(dim=0, dtype=torch.float64) + 1) / ranks
    inside = high.clamp(max=(1 + share) / 2) - low.clamp(min=(1 - share) / 2)
    return float((inside.clamp(min=0) / (high - low)).mean())


def error_correlation(throws: Tensor, hr: Tensor, block: int = 8) -> float:
    """Return whether the mean of the throws is wrong where the throws differ.

    Both are averaged over blocks, since a single pixel's error is mostly chance, and correlated
    within the image. Correlating over many images at once would also reward a network that only
    tells noisy images from clear ones.

    Args:
        throws: float tensor (n, C, H, W), n at least 2.
        hr: the original, float tensor (C, H, W), H and W at least ``block``.
        block: side of a block in pixels; what fills no block at the bottom and the right is left
            out.

    Returns:
        Pearson's correlation, over the blocks, of the standard deviation of the throws and the
        absolute error of their mean; 0 where either is the same in all blocks.

    Raises:
        ConfigurationError: a single throw.
        ImageError: shapes that differ, or fewer than two blocks.
    """
    _check(throws, hr)
    maps = torch.stack([throws.std(dim=0), (throws.mean(dim=0) - hr).abs()]).double()
    if min(hr.shape[-2:]) < block or (hr.shape[-2] // block) * (hr.shape[-1] // block) < 2:
        raise ImageError(f"An image of {tuple(hr.shape[-2:])} pixels has no two blocks of {block}.")
    blocks = F.avg_pool2d(maps, block).flatten(1)
    if bool((blocks.std(dim=1) == 0).any()):
        return 0.0
    return float(torch.corrcoef(blocks)[0, 1])


def _check(throws: Tensor, hr: Tensor) -> None:
    if throws.shape[1:] != hr.shape or hr.ndim != 3:
        raise ImageError(
            "Throws are (n, C, H, W) and the original (C, H, W), "
            f"not {tuple(throws.shape)} and {tuple(hr.shape)}."
        )
    if len(throws) < 2:
        raise ConfigurationError(f"Calibration needs two throws or more, not {len(throws)}.")
