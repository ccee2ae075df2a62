"""The losses, against known values and PyTorch's cross-entropy."""

import math

import pytest
import torch
import torch.nn.functional as F

from srgan_lib.architectures import Discriminator, SRResNet, VGGFeatures
from srgan_lib.errors import ConfigurationError
from srgan_lib.losses import (
    GeneratorLoss,
    PerceptualLoss,
    adversarial_loss,
    content_loss,
    discriminator_loss,
)

WEIGHTS = {"content_weight": 2.0, "perceptual_weight": 3.0, "adversarial_weight": 5.0}


@pytest.fixture(scope="module")
def features():
    return VGGFeatures("relu1_2")


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.rand(2, 1, 16, 16, generator=generator) for _ in range(2))


def test_content_loss_is_the_mean_squared_error():
    sr = torch.tensor([[[[0.1, 0.5], [0.5, 0.9]]]])
    hr = torch.tensor([[[[0.3, 0.5], [0.1, 1.0]]]])
    assert content_loss(sr, hr).item() == pytest.approx((0.04 + 0.16 + 0.01) / 4)


def test_unsure_discriminator_has_its_known_losses():
    zeros = torch.zeros(4, 1)
    assert discriminator_loss(zeros, zeros).item() == pytest.approx(2 * math.log(2))
    assert adversarial_loss(zeros).item() == pytest.approx(math.log(2))


def test_adversarial_losses_are_the_cross_entropies():
    logits_hr, logits_sr = 4 * torch.randn(50, 1), 4 * torch.randn(50, 1)
    real, fake = torch.ones(50, 1), torch.zeros(50, 1)
    bce = F.binary_cross_entropy_with_logits
    expected = bce(logits_hr, real) + bce(logits_sr, fake)
    torch.testing.assert_close(discriminator_loss(logits_hr, logits_sr), expected)
    torch.testing.assert_close(adversarial_loss(logits_sr), bce(logits_sr, real))


def test_losses_point_the_right_way():
    def slope(loss, *logits):
        logits = [torch.tensor([[x]], requires_grad=True) for x in logits]
        loss(*logits).backward()
        return [x.grad.item() for x in logits]

    hr, sr = slope(discriminator_loss, 0.0, 0.0)
    assert (hr, sr) == (-0.5, 0.5)  # logits of HR want up, those of SR down
    assert slope(adversarial_loss, 0.0) == [-0.5]  # and the generator wants them up


def test_generator_s_loss_does_not_die_where_the_discriminator_is_sure():
    logits = torch.tensor([[-80.0]], requires_grad=True)
    adversarial_loss(logits).backward()
    assert logits.grad.item() == pytest.approx(-1)


@pytest.mark.parametrize("value", [1e4, -1e4])
def test_huge_logits_stay_finite(value):
    logits = torch.full((3, 1), value, requires_grad=True)
    total = discriminator_loss(logits, logits) + adversarial_loss(logits)
    total.backward()
    assert torch.isfinite(total) and torch.isfinite(logits.grad).all()
    assert total.item() == pytest.approx(1e4 if value > 0 else 2e4)


@pytest.mark.parametrize("rescale", [1.0, 0.1])
def test_perceptual_loss_is_the_rescaled_mean_squared_error_of_features(features, pair, rescale):
    sr, hr = pair
    network = VGGFeatures("relu1_2", rescale=rescale)
    expected = F.mse_loss(rescale * features(sr), rescale * features(hr))
    torch.testing.assert_close(PerceptualLoss(network)(sr, hr), expected)
    assert PerceptualLoss(network)(sr, sr).item() == 0


def test_hr_features_hold_no_graph(features, pair):
    sr, hr = (image.clone().requires_grad_() for image in pair)
    PerceptualLoss(features)(sr, hr).backward()
    assert hr.grad is None
    assert sr.grad.abs().sum() > 0


def test_total_is_the_weighted_sum_of_the_terms(features, pair):
    sr, hr = pair
    logits = torch.randn(2, 1)
    terms = GeneratorLoss(features, **WEIGHTS)(sr, hr, logits)
    torch.testing.assert_close(terms.content, content_loss(sr, hr))
    torch.testing.assert_close(terms.perceptual, PerceptualLoss(features)(sr, hr))
    torch.testing.assert_close(terms.adversarial, adversarial_loss(logits))
    expected = 2 * terms.content + 3 * terms.perceptual + 5 * terms.adversarial
    torch.testing.assert_close(terms.total, expected)
    assert min(terms).item() > 0


@pytest.mark.parametrize("term", WEIGHTS)
def test_each_term_alone_moves_the_generator(features, term):
    torch.manual_seed(0)
    generator = SRResNet(blocks=1, width=4)
    discriminator = Discriminator(width=4, grid=1)
    loss = GeneratorLoss(features, **(dict.fromkeys(WEIGHTS, 0.0) | {term: 1.0}))
    sr = generator(torch.rand(2, 1, 8, 8))
    terms = loss(sr, torch.rand(2, 1, 32, 32), discriminator(sr))
    terms.total.backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_gradients_of_the_total_are_the_weighted_sum_of_each_term_s(features, pair):
    sr, hr = pair

    def gradient(**weights):
        image = sr.clone().requires_grad_()
        logits = image.mean(dim=(1, 2, 3), keepdim=True).view(2, 1)
        GeneratorLoss(features, **weights)(image, hr, logits).total.backward()
        return image.grad

    alone = [gradient(**(dict.fromkeys(WEIGHTS, 0.0) | {name: WEIGHTS[name]})) for name in WEIGHTS]
    torch.testing.assert_close(gradient(**WEIGHTS), sum(alone))


@pytest.mark.parametrize(
    "change",
    [
        {"content_weight": -1.0},
        {"adversarial_weight": float("nan")},
        {"perceptual_weight": float("inf")},
        dict.fromkeys(WEIGHTS, 0.0),
    ],
)
def test_impossible_weights_are_refused(features, change):
    with pytest.raises(ConfigurationError, match="Loss weights must be >= 0"):
        GeneratorLoss(features, **(WEIGHTS | change))
