"""The losses of SRGAN (Ledig et al. 2017, section 2.2).

The generator's total is a weighted sum of three terms:

    L = w_content * L_MSE + w_perceptual * L_VGG + w_adversarial * L_Gen

The paper takes L_MSE or L_VGG as its content loss and 0.001 as the adversarial weight (eq. 3);
later papers, and this course, sum all three.
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

    Raises:
        ConfigurationError: a layer that the network doesn't have.
    """

    def __init__(self, features: VGGFeatures, layers: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.features = features
        self.layers = {features.layer: 1.0} if layers is None else dict(layers)
        features.check_layers(self.layers)

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return a scalar for SR and HR images, both (N, C, H, W) in [0, 1]."""
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


class GeneratorTerms(NamedTuple):
    """The generator's total loss and its unweighted terms, all scalars."""

    total: Tensor
    content: Tensor
    perceptual: Tensor
    adversarial: Tensor


class GeneratorLoss(nn.Module):
    """The weighted sum of content, perceptual and adversarial loss.

    Args:
        features: the VGG network of the perceptual loss.
        layers: see :class:`PerceptualLoss`.
        content_weight: weight of the mean squared error.
        perceptual_weight: weight of the VGG loss.
        adversarial_weight: weight of the adversarial loss.

    Raises:
        ConfigurationError: a weight that is negative or not finite, or all weights zero.
    """

    def __init__(
        self,
        features: VGGFeatures,
        *,
        layers: Mapping[str, float] | None = None,
        content_weight: float,
        perceptual_weight: float,
        adversarial_weight: float,
    ) -> None:
        super().__init__()
        weights = (content_weight, perceptual_weight, adversarial_weight)
        if not all(0 <= weight < float("inf") for weight in weights) or not any(weights):
            raise ConfigurationError(f"Loss weights must be >= 0 and not all 0, not {weights}.")
        self.perceptual = PerceptualLoss(features, layers)
        self.content_weight, self.perceptual_weight, self.adversarial_weight = weights

    def forward(self, sr: Tensor, hr: Tensor, logits_sr: Tensor) -> GeneratorTerms:
        """Return total and terms for SR and HR (N, C, H, W) and the logits of SR (N, 1)."""
        content = content_loss(sr, hr)
        perceptual = self.perceptual(sr, hr)
        adversarial = adversarial_loss(logits_sr)
        total = (
            self.content_weight * content
            + self.perceptual_weight * perceptual
            + self.adversarial_weight * adversarial
        )
        return GeneratorTerms(total, content, perceptual, adversarial)
