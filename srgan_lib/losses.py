"""The losses of SRGAN (Ledig et al. 2017, section 2.2).

The generator's total is a weighted sum of three terms:

    L = w_content * L_MSE + w_perceptual * L_VGG + w_adversarial * L_Gen

The paper takes L_MSE or L_VGG as its content loss and 0.001 as the adversarial weight (eq. 3);
later papers, and this course, sum all three.

A generator that throws dice is judged by two throws for each LR image, S1 and S2, so that none
of the terms punishes variety. Where content loss and perceptual loss would square an error, they
multiply the errors of the two: as the throws are independent, the expected value is the squared
error *of the mean* of all throws,

    E (HR - S1) (HR - S2) = (HR - E S)^2,

while E (HR - S)^2 would be larger by the variance of S, and so ask for none. A generator without
dice has one image, S1 = S2, and these are the paper's squares. :func:`consistency_loss` holds
every throw to the LR image, and :func:`gradient_penalty` keeps the discriminator's slopes finite.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srgan_lib.architectures.vgg import VGGFeatures
from srgan_lib.degradation import resize
from srgan_lib.errors import ConfigurationError, unknown_name


def content_loss(sr: Tensor, hr: Tensor, other: Tensor | None = None) -> Tensor:
    """Return the pixel-wise mean squared error (eq. 4), of the mean image if there are two throws.

    Args:
        sr: float tensor (N, C, H, W), images in [0, 1].
        hr: the same shape.
        other: another throw for the same LR images, the same shape. The mean product of both
            throws' errors estimates the squared error of the mean image without bias, and can be
            below zero.

    Returns:
        A scalar.
    """
    if other is None:
        return F.mse_loss(sr, hr)
    return ((hr - sr) * (hr - other)).mean()


def consistency_loss(sr: Tensor, lr: Tensor) -> Tensor:
    """Return the mean squared error between SR, degraded again, and LR.

    Rounding is left out, since it has no gradient.

    Args:
        sr: float tensor (N, C, scale h, scale w).
        lr: float tensor (N, C, h, w).

    Returns:
        A scalar.
    """
    return F.mse_loss(resize(sr, tuple(lr.shape[-2:])), lr)


def ranked_score(sr: Tensor, hr: Tensor, other: Tensor | None = None) -> Tensor:
    """Return the continuous ranked probability score of throws; the mean absolute error of one.

    For each pixel E |HR - S| - E |S - S'| / 2, with S and S' independent throws (Gneiting and
    Raftery 2007, section 4.2). The first part draws throws to HR, the second drives them apart,
    and the sum is least, on average over HR, where the throws are spread as HR is, given LR: their
    mean is right *and* so is their deviation. Scored are the pixels and, in equal parts, the means
    of 2 x 2 pixels, so that not all of the spread is the finest grain.

    Args:
        sr: float tensor (N, C, H, W), images in [0, 1].
        hr: the same shape.
        other: another throw for the same LR images, the same shape.

    Returns:
        A scalar.
    """
    if other is None:
        return F.l1_loss(sr, hr)
    scores = []
    for first, second, true in ((sr, other, hr), map(_pairs, (sr, other, hr))):
        errors = (true - first).abs() + (true - second).abs()
        scores.append((errors - (first - second).abs()).mean() / 2)
    return (scores[0] + scores[1]) / 2


def _pairs(image: Tensor) -> Tensor:
    """Return the means of all 2 x 2 pixels."""
    return F.avg_pool2d(image, 2, stride=1)


CONTENT_LOSSES = {"mse": content_loss, "ranked": ranked_score}
"""Content losses of stage two, which may be given two throws."""

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

    Raises:
        ConfigurationError: a layer that the network doesn't have.
    """

    def __init__(self, features: VGGFeatures, layers: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.features = features
        self.layers = {features.layer: 1.0} if layers is None else dict(layers)
        features.check_layers(self.layers)

    def forward(self, sr: Tensor, hr: Tensor, other: Tensor | None = None) -> Tensor:
        """Return a scalar for SR and HR images, both (N, C, H, W) in [0, 1].

        With another throw for the same LR images it is the squared error of the mean features of
        all throws, estimated without bias as :func:`content_loss` does it. Features aren't linear:
        their mean over the throws is HR's where the throws have as much grain as HR has, wherever
        each speck of it lies.
        """
        with torch.no_grad():
            target = self.features.activations(hr, self.layers)
        errors = [self._errors(image, target) for image in (sr, other) if image is not None]
        means = [
            weight * (errors[0][layer] * errors[-1][layer]).mean()
            for layer, weight in self.layers.items()
        ]
        return sum(means) * self.features.rescale**2

    def _errors(self, image: Tensor, target: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return how far an image's features are from HR's, layer by layer."""
        found = self.features.activations(image, self.layers)
        return {layer: found[layer].float() - target[layer].float() for layer in self.layers}


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


def paired_discriminator_loss(logits_hr: Tensor, logits_sr: Tensor) -> Tensor:
    """Return the loss of a discriminator that compares the two images of one place.

    -log sigmoid(D(HR) - D(SR)), averaged: not whether an image is real is asked, but which of the
    two is (Jolicoeur-Martineau 2019, section 3; R3GAN, Huang et al. 2024, eq. 2). A discriminator
    that is sure of all SR images gains nothing by being surer of HR images as well, and each SR
    image is measured against its own HR image, not against the crowd's.

    Args:
        logits_hr: logits for HR images, of any shape; a map of patches for one.
        logits_sr: logits for SR images of the same places, the same shape, without a graph of the
            generator.

    Returns:
        A scalar; log 2 = 0.693 for a discriminator that can't tell. That alone is no health: a
        blind discriminator has it, too.
    """
    return F.softplus(logits_sr - logits_hr).mean()


def paired_adversarial_loss(logits_hr: Tensor, logits_sr: Tensor) -> Tensor:
    """Return the generator's loss against a discriminator that compares: both kinds exchanged.

    Args:
        logits_hr: logits for HR images, of any shape.
        logits_sr: logits for SR images of the same places, the same shape.

    Returns:
        A scalar.
    """
    return paired_discriminator_loss(logits_sr, logits_hr)


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], hr: Tensor) -> Tensor:
    """Return R1, the mean squared length of the logits' gradient at HR images.

    Mescheder et al. (2018, eq. 9): where the generator is right, a discriminator with a slope
    would drive it away again. The logits of an image's patches are summed. Take it in float32;
    its own gradient, that of a gradient, overflows and vanishes early in less.

    Args:
        discriminator: maps images to logits.
        hr: float tensor (N, C, H, W).

    Returns:
        A scalar, with a graph to the discriminator's weights.
    """
    hr = hr.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(hr).sum(), hr, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


GAMES = {
    "standard": (discriminator_loss, lambda logits_hr, logits_sr: adversarial_loss(logits_sr)),
    "relativistic": (relativistic_discriminator_loss, relativistic_adversarial_loss),
    "paired": (paired_discriminator_loss, paired_adversarial_loss),
}
"""The discriminator's and the generator's loss of each game, both of the logits for HR and SR:
SRGAN's, ESRGAN's relativistic average, and the comparison of two images of one place."""


def check_weights(*weights: float) -> None:
    """Refuse weights that no generator can be trained with.

    Raises:
        ConfigurationError: a weight that is negative or not finite, or all weights zero.
    """
    if not all(0 <= weight < float("inf") for weight in weights) or not any(weights):
        raise ConfigurationError(f"Loss weights must be >= 0 and not all 0, not {weights}.")


class GeneratorTerms(NamedTuple):
    """The generator's total loss and its unweighted terms, all scalars.

    ``consistency`` is 0 where its weight is.
    """

    total: Tensor
    content: Tensor
    perceptual: Tensor
    adversarial: Tensor
    consistency: Tensor


class GeneratorLoss(nn.Module):
    """The weighted sum of content, perceptual and adversarial loss, and of LR consistency.

    Args:
        features: the VGG network of the perceptual loss.
        layers: see :class:`PerceptualLoss`.
        content: a name from :data:`CONTENT_LOSSES`; the mean squared error by default.
        content_weight: its weight.
        perceptual_weight: weight of the VGG loss.
        adversarial_weight: weight of the adversarial loss.
        consistency_weight: weight of :func:`consistency_loss`; none in the paper.
        perceptual_every: steps between two looks at VGG, which costs more than all else in a
            step. On these steps its weight counts as many times as much, on the others it is left
            out (as StyleGAN2 does with its penalties, Karras et al. 2020, section 3.1).
        game: a name from :data:`GAMES`; the paper's by default.

    Raises:
        ConfigurationError: a weight that is negative or not finite, all weights zero, an
            impossible number of steps, or an unknown content loss or game.
    """

    def __init__(
        self,
        features: VGGFeatures,
        *,
        layers: Mapping[str, float] | None = None,
        content: str = "mse",
        content_weight: float,
        perceptual_weight: float,
        adversarial_weight: float,
        consistency_weight: float = 0.0,
        perceptual_every: int = 1,
        game: str = "standard",
    ) -> None:
        super().__init__()
        check_weights(content_weight, perceptual_weight, adversarial_weight, consistency_weight)
        if perceptual_every < 1:
            raise ConfigurationError(f"perceptual_every must be 1 or more, not {perceptual_every}.")
        if content not in CONTENT_LOSSES:
            raise unknown_name("content loss", content, CONTENT_LOSSES)
        if game not in GAMES:
            raise unknown_name("game", game, GAMES)
        self.content, self.perceptual = CONTENT_LOSSES[content], PerceptualLoss(features, layers)
        self.content_weight, self.perceptual_weight = content_weight, perceptual_weight
        self.adversarial_weight = adversarial_weight
        self.consistency_weight = consistency_weight
        self.perceptual_every = perceptual_every
        self.discriminator_loss, self.adversarial_loss = GAMES[game]
        self.compares = game != "standard"  # the generator's loss needs the logits of HR

    def forward(
        self,
        sr: Tensor,
        hr: Tensor,
        logits_sr: Tensor,
        logits_hr: Tensor | None = None,
        *,
        other: Tensor | None = None,
        lr: Tensor | None = None,
        step: int = 0,
    ) -> GeneratorTerms:
        """Return total and terms.

        Args:
            sr: (N, C, H, W) in [0, 1].
            hr: the same shape.
            logits_sr: the discriminator's logits for ``sr``.
            logits_hr: the logits for ``hr``; of no use in the standard game.
            other: another throw for the same LR images, if the generator throws dice.
            lr: (N, C, h, w); of no use without a ``consistency_weight``.
            step: number of the step; VGG is looked at in those that ``perceptual_every`` divides.
        """
        content = self.content(sr, hr, other)
        perceptual = consistency = sr.new_zeros(())
        if self.perceptual_weight and step % self.perceptual_every == 0:
            perceptual = self.perceptual_every * self.perceptual(sr, hr, other)
        adversarial = self.adversarial_loss(logits_hr, logits_sr)
        if self.consistency_weight:
            consistency = consistency_loss(sr, lr)
            if other is not None:
                consistency = (consistency + consistency_loss(other, lr)) / 2
        total = (
            self.content_weight * content
            + self.perceptual_weight * perceptual
            + self.adversarial_weight * adversarial
            + self.consistency_weight * consistency
        )
        return GeneratorTerms(total, content, perceptual, adversarial, consistency)
