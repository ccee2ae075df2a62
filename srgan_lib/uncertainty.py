"""Several answers to one question: where they differ, and whether that is where they are wrong."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.functional import spearman_corrcoef

from srgan_lib.errors import ConfigurationError, ImageError
from srgan_lib.evaluation import super_resolve


def ensemble(networks: Sequence[nn.Module], lr: Tensor) -> tuple[Tensor, Tensor]:
    """Enlarge an image by several networks.

    Args:
        networks: two or more generators of one scale.
        lr: float tensor (C, h, w) in [0, 1].

    Returns:
        Mean and standard deviation of the results at each pixel, each (C, scale h, scale w).

    Raises:
        ConfigurationError: fewer than two networks.
    """
    if len(networks) < 2:
        raise ConfigurationError(f"An ensemble needs two networks or more, not {len(networks)}.")
    return _spread([super_resolve(network, lr) for network in networks])


def rank_correlation(uncertainty: Tensor, error: Tensor) -> float:
    """Return Spearman's rank correlation of two maps.

    Args:
        uncertainty: float tensor of any shape.
        error: the same shape.

    Returns:
        1 where the larger uncertainty always has the larger error, about 0 where the two have
        nothing to do with each other.

    Raises:
        ImageError: shapes that differ.
    """
    _check(uncertainty, error)
    return float(spearman_corrcoef(uncertainty.flatten(), error.flatten()))


def sparsification(
    uncertainty: Tensor, error: Tensor, steps: int = 20
) -> tuple[Tensor, Tensor, float]:
    """Leave out the most uncertain pixels, more and more of them, and see what error remains.

    Ilg et al. (2018) judge uncertainty so. The second curve leaves out the pixels with
    the largest error, which no uncertainty can do better.

    Args:
        uncertainty: float tensor of any shape.
        error: the same shape, not negative.
        steps: points of a curve; the k-th is for a fraction of k / steps left out.

    Returns:
        The mean error of what remains over that of all, for the uncertainty and for the error
        itself, each (steps,); and AUSE, the mean distance of the two curves: 0 is perfect, and
        for uncertainty at random the first curve stays at 1.

    Raises:
        ImageError: shapes that differ, a negative error, or none at all.
        ConfigurationError: fewer than two steps, or more than there are pixels.
    """
    _check(uncertainty, error)
    if not 2 <= steps <= error.numel():
        raise ConfigurationError(f"steps must be from 2 to {error.numel()}, not {steps}.")
    flat = error.flatten().double()
    if flat.min() < 0 or flat.sum() == 0:
        raise ImageError("Sparsification needs an error that is nowhere negative, and not all 0.")
    kept = [flat.numel() - k * flat.numel() // steps for k in range(steps)]
    curves = []
    for order in (uncertainty.flatten().argsort(stable=True), flat.argsort()):
        means = flat[order].cumsum(0) / torch.arange(1, flat.numel() + 1)
        curves.append(means[[n - 1 for n in kept]] / flat.mean())
    return curves[0], curves[1], float((curves[0] - curves[1]).mean())


def in_squares(values: Tensor, side: int) -> Tensor:
    """Return the mean in squares that don't overlap.

    Args:
        values: float tensor (C, H, W), H and W at least ``side``; what doesn't fill a square at
            the bottom and the right is left out.
        side: side of a square, in pixels.
    """
    return F.avg_pool2d(values, side)


def _spread(results: list[Tensor]) -> tuple[Tensor, Tensor]:
    stacked = torch.stack(results)
    return stacked.mean(dim=0), stacked.std(dim=0, correction=0)


def _check(uncertainty: Tensor, error: Tensor) -> None:
    if uncertainty.shape != error.shape:
        shapes = f"{tuple(uncertainty.shape)} and {tuple(error.shape)}"
        raise ImageError(f"Uncertainty and error must have one shape, not {shapes}.")
