"""The losses of SRGAN (Ledig et al. 2017, section 2.2).

The generator's total is a weighted sum of three terms:

    L = w_content * L_MSE + w_perceptual * L_VGG + w_adversarial * L_Gen

The paper takes L_MSE or L_VGG as its content loss and 0.001 as the adversarial weight (eq. 3);
later papers, and this course, sum all three.

Two more can be added that are no part of the paper. :func:`texture_loss` asks for as much texture
as HR has, place by place; :func:`lattice_loss` keeps the generator from weaving its own pixel
grid into the image.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srgan_lib.architectures.vgg import VGGFeatures
from srgan_lib.errors import ConfigurationError


def content_loss(sr: Tensor, hr: Tensor) -> Tensor:
    """Return the pixel-wise mean squared error (eq. 4).

    Args:
        sr: float tensor (N, C, H, W), images in [0, 1].
        hr: the same shape.

    Returns:
        A scalar.
    """
    return F.mse_loss(sr, hr)


PIXEL_LOSSES = {"mse": content_loss, "l1": F.l1_loss}
"""Losses that stage one can train on: the paper's mean squared error, or the mean absolute error,
which weighs outliers less and trains to a slightly higher PSNR."""


class PerceptualLoss(nn.Module):
    """Mean squared error between VGG features of SR and HR (eq. 5).

    Both feature maps are first multiplied by ``features.rescale``; the paper's 1/12.75 makes
    this loss about as large as the content loss. The features of HR hold no graph.

    Args:
        features: a frozen VGG network.
        layers: layers to compare, up to ``features.layer``, each with the weight of its mean
            squared error; by default ``features.layer`` alone.
        jitter: cut this many pixels off, at random at the left or the right and at the top or
            the bottom, by torch's own random numbers. VGG's pooling steps over 2, 4, 8 and 16
            pixels and so keeps time with the generator's grid, unless it begins elsewhere each
            time: a jitter of 16 is without a beat.

    Raises:
        ConfigurationError: a layer that the network doesn't have, or a negative jitter.
    """

    def __init__(
        self, features: VGGFeatures, layers: Mapping[str, float] | None = None, jitter: int = 0
    ) -> None:
        super().__init__()
        if jitter < 0:
            raise ConfigurationError(f"jitter must be >= 0, not {jitter}.")
        self.features, self.jitter = features, jitter
        self.layers = {features.layer: 1.0} if layers is None else dict(layers)
        features.check_layers(self.layers)

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return a scalar for SR and HR images, both (N, C, H, W) in [0, 1]."""
        if self.jitter:
            top, left = torch.randint(self.jitter + 1, (2,)).tolist()
            down, right = top - self.jitter or None, left - self.jitter or None
            sr, hr = (image[..., top:down, left:right] for image in (sr, hr))
        with torch.no_grad():
            target = self.features.activations(hr, self.layers)
        activations = self.features.activations(sr, self.layers)
        errors = [
            weight * F.mse_loss(activations[layer].float(), target[layer].float())
            for layer, weight in self.layers.items()
        ]
        return sum(errors) * self.features.rescale**2


def adversarial_loss(logits_sr: Tensor) -> Tensor:
    """Return the non-saturating loss of the generator: -log D(SR), averaged (eq. 6).

    On logits, -log sigmoid(x) is softplus(-x), which neither overflows nor dies where the
    discriminator is sure.

    Args:
        logits_sr: the discriminator's logits for SR images, (N, 1).

    Returns:
        A scalar.
    """
    return F.softplus(-logits_sr).mean()


def discriminator_loss(logits_hr: Tensor, logits_sr: Tensor) -> Tensor:
    """Return the discriminator's loss: -log D(HR) - log(1 - D(SR)), averaged (eq. 2).

    Args:
        logits_hr: logits for HR images, (N, 1).
        logits_sr: logits for SR images that hold no graph of the generator, (N, 1).

    Returns:
        A scalar; 2 log 2 = 1.386 for a discriminator that can't tell.
    """
    return F.softplus(-logits_hr).mean() + F.softplus(logits_sr).mean()


def texture_loss(sr: Tensor, hr: Tensor, window: int = 16) -> Tensor:
    """Return how far SR and HR are apart in the amount of texture, whatever its pattern.

    The amount is the root mean square of second differences, along rows, along columns and along
    both, in windows that overlap by half; for white noise it is the noise's standard deviation.
    A discriminator judges a crop as a whole and is content with texture anywhere in it; this loss
    says where. Sajjadi et al. (2017, EnhanceNet, section 4.2.3) match the correlations of VGG
    features in patches to the same end.

    Args:
        sr: float tensor (N, C, H, W), H and W from 3 up.
        hr: the same shape.
        window: side of a window, in pixels; smaller where the image is.

    Returns:
        A scalar: the mean squared difference of the amounts' natural logarithms; 0.01 is 10 %.
    """
    with torch.no_grad():
        wanted = _texture(hr, window).log()
    return F.mse_loss(_texture(sr, window).log(), wanted)


def _texture(image: Tensor, window: int) -> Tensor:
    """Return the amount of texture in each window and direction, (3 N, C, h, w)."""
    across, down = _second_difference(image, -1), _second_difference(image, -2)
    both = _second_difference(across, -2)
    differences = torch.cat([across[..., 1:-1, :] / 6**0.5, down[..., 1:-1] / 6**0.5, both / 6])
    window = min(window, *differences.shape[-2:])
    power = F.avg_pool2d(differences.square(), window, stride=max(window // 2, 1))
    return (power + 1e-6).sqrt()  # a thousandth of the range: the root's slope stays finite


def lattice_loss(sr: Tensor, hr: Tensor, scale: int = 4) -> Tensor:
    """Return how much of SR repeats with the generator's own pixel grid.

    Sub-pixel convolution makes each LR pixel into a cell of ``scale x scale`` pixels, by as many
    sets of weights. Where these differ, each cell shows the same pattern: a lattice. Perceptual
    losses even reward it, since a regular texture excites their features as a natural one does.

    Two sums over all cells of a crop find it. The mean error at each place of a cell is the
    pattern itself; by Parseval's theorem its mean square is the error's power at the grid's own
    frequencies. The amount of texture at each place, as in :func:`texture_loss`, finds dots of
    changing sign, whose mean error is none. Either should be the same at all places.

    Args:
        sr: float tensor (N, C, H, W), H and W multiples of ``scale``, 4 cells or more a side.
        hr: the same shape.
        scale: side of a cell.

    Returns:
        A scalar: the variance of both over the places of a cell, summed.
    """
    pattern = _mean_cell(sr - hr, scale)
    rough = _second_difference(_second_difference(sr, -1), -2) / 6
    inner = rough[..., scale - 1 : 1 - scale, scale - 1 : 1 - scale]  # whole cells again
    amount = (_mean_cell(inner.square(), scale) + 1e-6).sqrt()
    return sum(x.var(dim=(2, 3), correction=0).mean() for x in (pattern, amount))


def _mean_cell(image: Tensor, side: int) -> Tensor:
    """Average (N, C, H, W) over all its cells of ``side x side``: (N, C, side, side)."""
    n, channels, height, width = image.shape
    cells = image.reshape(n, channels, height // side, side, width // side, side)
    return cells.mean(dim=(2, 4))


def _second_difference(image: Tensor, dim: int) -> Tensor:
    """Return x[i - 1] - 2 x[i] + x[i + 1] along a dimension, 2 shorter."""
    length = image.shape[dim] - 2
    before, middle, after = (image.narrow(dim, start, length) for start in (0, 1, 2))
    return before - 2 * middle + after


class GeneratorTerms(NamedTuple):
    """The generator's total loss and its unweighted terms, all scalars."""

    total: Tensor
    content: Tensor
    perceptual: Tensor
    adversarial: Tensor
    texture: Tensor
    lattice: Tensor


class GeneratorLoss(nn.Module):
    """The weighted sum of content, perceptual and adversarial loss, and of two more.

    Args:
        features: the VGG network of the perceptual loss.
        layers: see :class:`PerceptualLoss`.
        jitter: see :class:`PerceptualLoss`.
        content_weight: weight of the mean squared error.
        perceptual_weight: weight of the VGG loss.
        adversarial_weight: weight of the adversarial loss.
        texture_weight: weight of :func:`texture_loss`; none in the paper.
        lattice_weight: weight of :func:`lattice_loss`; none in the paper.
        scale: the generator's, for :func:`lattice_loss`.

    Raises:
        ConfigurationError: a weight that is negative or not finite, or all weights zero.
    """

    def __init__(
        self,
        features: VGGFeatures,
        *,
        layers: Mapping[str, float] | None = None,
        jitter: int = 0,
        content_weight: float,
        perceptual_weight: float,
        adversarial_weight: float,
        texture_weight: float = 0.0,
        lattice_weight: float = 0.0,
        scale: int = 4,
    ) -> None:
        super().__init__()
        weights = (
            content_weight,
            perceptual_weight,
            adversarial_weight,
            texture_weight,
            lattice_weight,
        )
        if not all(0 <= weight < float("inf") for weight in weights) or not any(weights):
            raise ConfigurationError(f"Loss weights must be >= 0 and not all 0, not {weights}.")
        self.perceptual = PerceptualLoss(features, layers, jitter)
        self.content_weight, self.perceptual_weight = content_weight, perceptual_weight
        self.adversarial_weight = adversarial_weight
        self.texture_weight, self.lattice_weight = texture_weight, lattice_weight
        self.scale = scale

    def forward(self, sr: Tensor, hr: Tensor, logits_sr: Tensor) -> GeneratorTerms:
        """Return total and terms for SR and HR (N, C, H, W) and the logits of SR (N, 1)."""
        content = content_loss(sr, hr)
        perceptual = self.perceptual(sr, hr)
        adversarial = adversarial_loss(logits_sr)
        texture = texture_loss(sr, hr)
        lattice = lattice_loss(sr, hr, self.scale)
        total = (
            self.content_weight * content
            + self.perceptual_weight * perceptual
            + self.adversarial_weight * adversarial
            + self.texture_weight * texture
            + self.lattice_weight * lattice
        )
        return GeneratorTerms(total, content, perceptual, adversarial, texture, lattice)
