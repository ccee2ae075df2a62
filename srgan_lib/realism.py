"""How real an SR image looks, whether or not it is right: measures that need no aligned pixels.

The measures of :mod:`srgan_lib.metrics` compare pixel with pixel, and so prefer an image without
grain to one with other grain than HR's. Here the question is whether SR could be told from HR:
by a weave of the generator's grid (:func:`lattice_ratio`), by how much power there is at each
fineness (:func:`ring_ratios`), and by how features of many crops are distributed
(:func:`kernel_distance`). :mod:`srgan_lib.critic` asks a network that was trained to tell.

In all of them SR is clamped and rounded first to the bit depth of the file that it would be
stored in.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from srgan_lib.architectures.vgg import VGGFeatures
from srgan_lib.degradation import quantise
from srgan_lib.errors import ConfigurationError, ImageError
from srgan_lib.spectra import spectrum

_CELLS = 12  # a window's side, in cells of the grid
_ROUNDING = 1 / 255**2 / 12  # variance of the error of rounding to 8 bits


def lattice_ratio(sr: Tensor, hr: Tensor, scale: int = 4, bits: int = 8) -> float:
    """Return how much more SR repeats with the generator's grid than HR does.

    A generator makes the ``scale x scale`` pixels of a cell by as many sets of weights. Where
    these differ, every cell shows the same pattern, and the image is woven. HR has no such
    grid, but its grain isn't white and its file may have been compressed in blocks, so what
    counts is the ratio of :func:`lattice` in the same windows of both: the flattest half of
    those in which HR has grain, chosen by HR alone.

    Args:
        sr: float tensor (C, H, W); clamped and rounded here.
        hr: the same shape, in [0, 1].
        scale: the generator's.
        bits: bit depth of the stored images.

    Returns:
        About 1 for an image as free of a weave as HR. Grain that is rougher or finer than HR's
        moves it by some tenths; a weave that can be seen gives 2 and more.

    Raises:
        ImageError: shapes that differ or are too small, or values that are not finite.
    """
    _check_pair(sr, hr)
    hr = quantise(hr.double(), bits)
    windows = flat_windows(hr, scale)
    return lattice(quantise(sr.double(), bits), scale, windows) / lattice(hr, scale, windows)


def lattice(image: Tensor, scale: int = 4, windows: Tensor | None = None) -> float:
    """Return how far an image repeats with period ``scale``, against white noise.

    The local mean is taken off: that of ``scale`` pixels a side, which holds nothing of any
    pattern with this period. What is left is looked at in windows of 12 periods, 48 pixels for
    scale 4, overlapping by half. In each, all pixels of the same phase, their row and column
    modulo ``scale``, are averaged, 144 of them. Of white noise such means have 1/144 of the
    pixels' variance, of a pure weave all of it. So 144 times the variance of the means over
    the variance of the pixels (divided by what the local mean leaves of white noise) is 1 for
    the one and about 144 for the other, in every window, however strong the pattern is and
    wherever in the image it stands. The mean over the quarter of the windows that have most is
    returned, so that a weave in a part of the image counts. The error of rounding to 8 bits,
    1/12 of a grey level squared, is added to both variances, so that an empty window has 1.

    Within a window a weave may well change its strength. Where it also changes its sign, at
    random, it scores less, by the number of such changes in the window.

    Args:
        image: float tensor (C, H, W).
        scale: the generator's, 2 or more.
        windows: which windows count, from :func:`flat_windows`; by default those of the image
            itself. To compare two images, use :func:`lattice_ratio`.

    Returns:
        About 1.5 for white noise, by chance, as the quarter that has most is taken, and 1 for
        an empty image; less for what is smooth and not woven, since it has less power at the
        grid's frequencies than below them.

    Raises:
        ImageError: an image with less than ``6 scale`` pixels a side.
        ConfigurationError: a scale below 2.
    """
    if windows is None:
        windows = flat_windows(image, scale)
    tiles = _windows(_split(image, scale)[1], scale)[windows]  # (K, C, side, side)
    cells = tiles.shape[-1] // scale
    phases = tiles.unflatten(-1, (cells, scale)).unflatten(-3, (cells, scale))
    means = phases.mean(dim=(-4, -2))  # (K, C, scale, scale)
    of_means = cells**2 * means.var(dim=(-2, -1)).mean(dim=-1)
    of_pixels = tiles.var(dim=(-2, -1)).mean(dim=-1)
    line = _mean_filter(scale)
    passed = 1 - 2 * line.max() ** 2 + line.square().sum() ** 2  # of white noise's variance
    found = (of_means + _ROUNDING) / (of_pixels / passed + _ROUNDING)
    return float(found.topk(math.ceil(len(found) / 4)).values.mean())


def flat_windows(image: Tensor, scale: int = 4) -> Tensor:
    """Choose the windows of :func:`lattice`: the flattest half of those with grain.

    Flat is where the local mean varies least. Windows whose residual varies less than rounding
    alone lets it, like a black margin, count only where there are no others.

    Args:
        image: float tensor (C, H, W), HR.
        scale: the generator's.

    Returns:
        Booleans, (rows, columns) of windows.

    Raises:
        ImageError: as for :func:`lattice`.
    """
    smooth, residual = (_windows(part, scale) for part in _split(image, scale))
    slope = smooth.var(dim=(-2, -1)).mean(dim=-1)
    grain = residual.var(dim=(-2, -1)).mean(dim=-1) > _ROUNDING
    if not grain.any():
        grain = torch.ones_like(grain)
    return grain & (slope <= slope[grain].median())


def ring_ratios(
    sr: Tensor, hr: Tensor, edges: Sequence[float] = (0.25, 0.5, 0.75, 1.0), bits: int = 8
) -> tuple[float, ...]:
    """Return SR's power over HR's in each ring of :func:`ring_power`.

    Args:
        sr: float tensor (C, H, W); clamped and rounded here.
        hr: the same shape, in [0, 1].
        edges: as for :func:`ring_power`.
        bits: bit depth of the stored images.

    Returns:
        1 in each ring where SR is as rough as HR, whether or not in the right places.

    Raises:
        ImageError: shapes that differ or are too small, or values that are not finite.
        ConfigurationError: as for :func:`ring_power`.
    """
    _check_pair(sr, hr)
    powers = (ring_power(quantise(image.double(), bits), edges) for image in (sr, hr))
    return tuple(found / max(wanted, 1e-12) for found, wanted in zip(*powers, strict=True))


def ring_power(image: Tensor, edges: Sequence[float] = (0.25, 0.5, 0.75, 1.0)) -> tuple[float, ...]:
    """Return an image's power in rings of spatial frequency, under a Hann window.

    Args:
        image: float tensor (C, H, W), at least 8 x 8.
        edges: rising fractions of the Nyquist frequency; each ring goes from above one to the
            next. LR of scale 4 ends at 0.25.

    Returns:
        The sum of the power in each of the ``len(edges) - 1`` rings. Only ratios mean something.

    Raises:
        ConfigurationError: fewer than two edges, or edges that don't rise.
        ImageError: an image that is too small.
    """
    if len(edges) < 2 or any(low >= high for low, high in pairwise(edges)):
        raise ConfigurationError(f"edges must be two or more rising numbers, not {edges}.")
    power, radius = spectrum(image)
    return tuple(
        float(power[(radius > low) & (radius <= high)].sum()) for low, high in pairwise(edges)
    )


def kernel_distance(a: Tensor, b: Tensor, paired: bool = False) -> float:
    """Return how far two samples' distributions are apart; about 0 if they are the same.

    The squared maximum mean discrepancy, in the estimate without bias of Gretton et al. (2012,
    eq. 3), with the kernel (x.y / d + 1)^3 of Binkowski et al. (2018, section 4), who call it
    KID on features of Inception. Being without bias, it may fall below 0. Only numbers with
    the same features and crops can be compared.

    Args:
        a: float tensor (n, d), n > 1: features of SR crops, as from :func:`vgg_statistics`.
        b: float tensor (m, d), m > 1: features of HR crops.
        paired: a[i] and b[i] are of the same place, hence not independent. Their n products
            are then left out, as Gretton et al. do for n = m; else there would be a bias.

    Raises:
        ConfigurationError: shapes that don't fit.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ConfigurationError(
            "A kernel distance needs (n, d) and (m, d) with n, m > 1, "
            f"not {tuple(a.shape)} and {tuple(b.shape)}."
        )
    if paired and len(a) != len(b):
        raise ConfigurationError(f"{len(a)} and {len(b)} crops can't be paired.")
    a, b = a.double(), b.double()
    within = sum(_mean_of_others(_kernel(x, x)) for x in (a, b))
    between = _kernel(a, b)
    return float(within - 2 * (_mean_of_others(between) if paired else between.mean()))


def vgg_statistics(crops: Tensor, features: VGGFeatures) -> Tensor:
    """Return mean and standard deviation of each VGG channel over each crop.

    The protocol of the course: crops of 64 x 64 px, quantised, ``relu3_3`` of the shipped VGG16.

    Args:
        crops: float tensor (N, C, H, W) in [0, 1].
        features: the layer.

    Returns:
        (N, 2 x channels of the layer), on the crops' device.
    """
    found = []
    with torch.no_grad():
        for some in crops.split(16):
            maps = features.rescale * features(some).double().flatten(2)
            found.append(torch.cat([maps.mean(-1), maps.std(-1, correction=0)], dim=1))
    return torch.cat(found)


def squares(image: Tensor, side: int = 64) -> Tensor:
    """Cut an image into squares that don't overlap.

    Args:
        image: float tensor (C, H, W).
        side: their side; what doesn't fill a square at the bottom and the right is left out.

    Returns:
        (N, C, side, side), a view where it can be one.

    Raises:
        ImageError: an image smaller than a square.
    """
    if min(image.shape[-2:]) < side:
        raise ImageError(f"No square of {side} pixels fits in {tuple(image.shape[-2:])}.")
    tiles = image.unfold(-2, side, side).unfold(-2, side, side)  # (C, rows, columns, side, side)
    return tiles.flatten(1, 2).movedim(0, 1)


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _mean_of_others(products: Tensor) -> Tensor:
    """Return the mean of a square matrix without its diagonal."""
    n = len(products)
    return (products.sum() - products.diagonal().sum()) / (n * (n - 1))


def _split(image: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """Split an image into its local mean and the rest, without a border of scale / 2 pixels."""
    if scale < 2:
        raise ConfigurationError(f"A lattice needs a scale of 2 or more, not {scale}.")
    if image.ndim != 3 or min(image.shape[-2:]) < 6 * scale:
        raise ImageError(
            f"A lattice needs (C, H, W) with {6 * scale} x {6 * scale} pixels or more, "
            f"not {tuple(image.shape)}."
        )
    x = image.double()[:, None]
    reach = scale // 2
    line = _mean_filter(scale).to(x)
    smooth = F.conv2d(F.conv2d(x, line.view(1, 1, -1, 1)), line.view(1, 1, 1, -1))
    return smooth[:, 0], (F.pad(x, (-reach,) * 4) - smooth)[:, 0]


def _mean_filter(scale: int) -> Tensor:
    """Return weights that average over scale pixels of a line.

    Where scale is even, they are scale + 1, the first and the last by half, so that they have
    a centre.
    """
    line = torch.full((2 * (scale // 2) + 1,), 1 / scale, dtype=torch.float64)
    if scale % 2 == 0:
        line[0] = line[-1] = line[0] / 2
    return line


def _windows(part: Tensor, scale: int) -> Tensor:
    """Cut into windows that overlap by half, (rows, columns, C, side, side)."""
    side = min(_CELLS, min(part.shape[-2:]) // scale) * scale
    tiles = part.unfold(-2, side, side // 2).unfold(-2, side, side // 2)
    return tiles.movedim(0, 2)


def _check_pair(sr: Tensor, hr: Tensor) -> None:
    if sr.shape != hr.shape or sr.ndim != 3:
        raise ImageError(
            f"SR and HR must both be (C, H, W), not {tuple(sr.shape)} and {tuple(hr.shape)}."
        )
    if not (torch.isfinite(sr).all() and torch.isfinite(hr).all()):
        raise ImageError("An image holds NaN or infinite values and can't be measured.")
