"""The losses of SRGAN (Ledig et al. 2017, section 2.2).

The generator's total is a weighted sum of three terms:

    L = w_content * L_MSE + w_perceptual * L_VGG + w_adversarial * L_Gen

The paper takes L_MSE or L_VGG as its content loss and 0.001 as the adversarial weight (eq. 3);
later papers, and this course, sum all three.

Two more can be added that are no part of the paper. :func:`texture_loss` asks for as much texture
as HR has, place by place; :func:`lattice_loss` keeps the generator from weaving its own pixel
grid into the image.
"""

import itertools
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srgan_lib.architectures.vgg import VGGFeatures
from srgan_lib.errors import ConfigurationError
from srgan_lib.metrics import lattice_ratios


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


def relativistic_discriminator_loss(logits_hr: Tensor, logits_sr: Tensor) -> Tensor:
    """Return the relativistic average discriminator's loss (Wang et al. 2018, eq. 1).

    It doesn't ask whether an image is real, but whether an HR image is more real than SR images
    are on average, and an SR image less real than HR images are: the logits of one kind are
    compared with the mean of the other.

    Args:
        logits_hr: logits for HR images, (N, 1).
        logits_sr: logits for SR images that hold no graph of the generator, (N, 1).

    Returns:
        A scalar; 2 log 2 = 1.386 for a discriminator that can't tell.
    """
    return discriminator_loss(logits_hr - logits_sr.mean(), logits_sr - logits_hr.mean())


def relativistic_adversarial_loss(logits_hr: Tensor, logits_sr: Tensor) -> Tensor:
    """Return the generator's loss against a relativistic discriminator (Wang et al. 2018, eq. 2).

    The discriminator's loss with both kinds exchanged: SR images shall look more real than HR
    images do. So HR images take part in it, too.

    Args:
        logits_hr: logits for HR images, (N, 1).
        logits_sr: logits for SR images, (N, 1).

    Returns:
        A scalar.
    """
    return relativistic_discriminator_loss(logits_sr, logits_hr)


def texture_loss(sr: Tensor, hr: Tensor, amount: float = 1.0, window: int = 16) -> Tensor:
    """Return how far SR and HR are apart in the amount of fine texture, whatever its pattern.

    The amount is the power in three rings of the spectrum, from 0.45 to 0.75 of the Nyquist
    frequency, from there to 1, and in the corners beyond, in Hann windows that overlap by half.
    A discriminator judges a crop as a whole and is content with texture anywhere in it; this loss
    says where. Sajjadi et al. (2017, EnhanceNet, section 4.2.3) match the correlations of VGG
    features in patches to the same end.

    Args:
        sr: float tensor (N, C, H, W), H and W from 4 up.
        hr: the same shape.
        amount: the power that is asked for, as a multiple of HR's. Squared differences of
            logarithms are least at the geometric mean of what is possible, which is less than
            the mean wherever LR leaves the power open; more than 1 makes up for that.
        window: side of a window, in pixels; smaller where the image is.

    Returns:
        A scalar: the mean squared difference of the powers' natural logarithms; 0.01 is 10 %.
    """
    with torch.no_grad():
        wanted = (amount * _texture(hr, window)).log()
    return F.mse_loss(_texture(sr, window).log(), wanted)


def _texture(image: Tensor, window: int) -> Tensor:
    """Return the power in each window and ring, (N, C, h, w, 3); of white noise: its variance."""
    side = min(window, *image.shape[-2:])
    hann = torch.hann_window(side, device=image.device)
    hann = torch.outer(hann, hann) / hann.square().sum()  # of unit energy
    tiles = image.unfold(-2, side, side // 2).unfold(-2, side, side // 2)
    waves = torch.fft.rfft2((tiles - tiles.mean(dim=(-2, -1), keepdim=True)) * hann)
    power = (waves.real.square() + waves.imag.square())[..., None]
    rings = _rings(side, image.device)
    return (power * rings).sum(dim=(-3, -2)) + 1e-6  # a thousandth of the range, squared


@lru_cache
def _rings(side: int, device: torch.device) -> Tensor:
    """Return the weights that average the frequencies of ``rfft2`` over the three rings."""
    rows, columns = (f(side, device=device) for f in (torch.fft.fftfreq, torch.fft.rfftfreq))
    radius = 2 * torch.hypot(rows[:, None], columns)
    count = torch.full_like(radius, 2)  # rfft2 leaves out one of each pair
    count[:, 0] = 1
    if side % 2 == 0:
        count[:, -1] = 1
    edges = (0.45, 0.75, 1, 2)
    rings = [(low < radius) & (radius <= high) for low, high in itertools.pairwise(edges)]
    weights = torch.stack(rings, dim=-1) * count[..., None]
    return weights / weights.sum(dim=(0, 1))


def lattice_loss(sr: Tensor, scale: int = 4) -> Tensor:
    """Return how far SR stands out at the frequencies of the generator's own pixel grid.

    Sub-pixel convolution makes each LR pixel into a cell of ``scale x scale`` pixels, by as many
    sets of weights. Where these differ, each cell shows the same pattern: a lattice. Perceptual
    losses even reward it, since a regular texture excites their features as a natural one does.

    Args:
        sr: float tensor (N, C, H, W), 6 x 6 cells or more.
        scale: side of a cell.

    Returns:
        A scalar: the mean square of the natural logarithms of
        :func:`srgan_lib.metrics.lattice_ratios`; 0.01 is 10 %.

    Raises:
        ImageError: images that are too small.
    """
    return lattice_ratios(sr, scale).log().square().mean()


class GeneratorTerms(NamedTuple):
    """The generator's total loss and its unweighted terms, all scalars.

    ``texture`` and ``lattice`` are 0 where their weight is.
    """

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
        texture_amount: see :func:`texture_loss`.
        lattice_weight: weight of :func:`lattice_loss`; none in the paper.
        scale: the generator's, for :func:`lattice_loss`.
        relativistic: ESRGAN's adversarial loss, :func:`relativistic_adversarial_loss`, for
            SRGAN's.

    Raises:
        ConfigurationError: a weight that is negative or not finite, all weights zero, or an
            impossible amount.
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
        texture_amount: float = 1.0,
        lattice_weight: float = 0.0,
        scale: int = 4,
        relativistic: bool = False,
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
        if not 0 < texture_amount < float("inf"):
            raise ConfigurationError(f"texture_amount must be above 0, not {texture_amount}.")
        self.perceptual = PerceptualLoss(features, layers, jitter)
        self.content_weight, self.perceptual_weight = content_weight, perceptual_weight
        self.adversarial_weight = adversarial_weight
        self.texture_weight, self.lattice_weight = texture_weight, lattice_weight
        self.texture_amount, self.scale = texture_amount, scale
        self.relativistic = relativistic

    def forward(
        self, sr: Tensor, hr: Tensor, logits_sr: Tensor, logits_hr: Tensor | None = None
    ) -> GeneratorTerms:
        """Return total and terms for SR and HR (N, C, H, W) and the logits of SR (N, 1).

        The logits of HR are needed, and used, if the loss is relativistic.
        """
        content = content_loss(sr, hr)
        perceptual = self.perceptual(sr, hr)
        if self.relativistic:
            adversarial = relativistic_adversarial_loss(logits_hr, logits_sr)
        else:
            adversarial = adversarial_loss(logits_sr)
        texture = lattice = sr.new_zeros(())
        if self.texture_weight:
            texture = texture_loss(sr, hr, self.texture_amount)
        if self.lattice_weight:
            lattice = lattice_loss(sr, self.scale)
        total = (
            self.content_weight * content
            + self.perceptual_weight * perceptual
            + self.adversarial_weight * adversarial
            + self.texture_weight * texture
            + self.lattice_weight * lattice
        )
        return GeneratorTerms(total, content, perceptual, adversarial, texture, lattice)
