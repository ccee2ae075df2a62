"""The losses, against known values, closed forms and PyTorch's cross-entropy."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import norm
from torch import nn

from srgan_lib.architectures import Discriminator, PatchDiscriminator, SRResNet, VGGFeatures
from srgan_lib.degradation import degrade, resize
from srgan_lib.errors import ConfigurationError
from srgan_lib.losses import (
    PIXEL_LOSSES,
    GeneratorLoss,
    PerceptualLoss,
    adversarial_loss,
    consistency_loss,
    content_loss,
    discriminator_loss,
    gradient_penalty,
    paired_adversarial_loss,
    paired_discriminator_loss,
    ranked_score,
    relativistic_adversarial_loss,
    relativistic_discriminator_loss,
)

WEIGHTS = {
    "content_weight": 2.0,
    "perceptual_weight": 3.0,
    "adversarial_weight": 5.0,
    "consistency_weight": 7.0,
}
NONE = dict.fromkeys(WEIGHTS, 0.0)


@pytest.fixture(scope="module")
def features():
    return VGGFeatures("relu1_2")


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.rand(2, 1, 24, 24, generator=generator) for _ in range(2))


def draws(count, size=1, seed=0):
    """Return standard normal numbers as so many images of ``size`` x ``size`` pixels."""
    shape = (count, 1, size, size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_content_loss_is_the_mean_squared_error():
    sr = torch.tensor([[[[0.1, 0.5], [0.5, 0.9]]]])
    hr = torch.tensor([[[[0.3, 0.5], [0.1, 1.0]]]])
    assert content_loss(sr, hr).item() == pytest.approx((0.04 + 0.16 + 0.01) / 4)


def test_stage_one_trains_on_the_squared_or_the_absolute_error(pair):
    sr, hr = pair
    assert torch.equal(PIXEL_LOSSES["mse"](sr, hr), F.mse_loss(sr, hr))
    assert torch.equal(PIXEL_LOSSES["l1"](sr, hr), F.l1_loss(sr, hr))


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


def test_relativistic_losses_are_eq_1_and_2_of_esrgan_written_out():
    hr, sr = torch.tensor([[2.0], [0.0], [1.0]]), torch.tensor([[-1.0], [0.5]])
    mean_hr, mean_sr = 1.0, -0.25
    hr_real = torch.sigmoid(hr - mean_sr)  # D_Ra(x_r, x_f)
    sr_real = torch.sigmoid(sr - mean_hr)  # D_Ra(x_f, x_r)
    judge = -hr_real.log().mean() - (1 - sr_real).log().mean()
    generator = -(1 - hr_real).log().mean() - sr_real.log().mean()
    torch.testing.assert_close(relativistic_discriminator_loss(hr, sr), judge)
    torch.testing.assert_close(relativistic_adversarial_loss(hr, sr), generator)


def test_relativistic_losses_see_differences_only():
    hr, sr = torch.randn(4, 1), torch.randn(4, 1)
    for loss in (relativistic_discriminator_loss, relativistic_adversarial_loss):
        torch.testing.assert_close(loss(hr + 3, sr + 3), loss(hr, sr))
        alike = loss(hr[:1], hr[:1])
        assert alike.item() == pytest.approx(2 * math.log(2))


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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"game": "fair"}, "Unknown game 'fair'.*Known: standard, relativistic, paired"),
        ({"content": "rank"}, "Unknown content loss 'rank'. Did you mean 'ranked'"),
        ({"perceptual_every": 0}, "perceptual_every must be 1 or more, not 0"),
        ({"layers": {"relu9_9": 1.0}}, "Unknown layer"),
    ],
)
def test_impossible_choices_are_refused(features, change, words):
    with pytest.raises(ConfigurationError, match=words):
        GeneratorLoss(features, **WEIGHTS, **change)


# The generator's total


def play(features, pair, **options):
    """Return the terms of two throws in a game that sees all: logits, LR and both images."""
    sr, hr = pair
    chance = torch.Generator().manual_seed(1)
    other = torch.rand(sr.shape, generator=chance)
    logits_sr, logits_hr = torch.randn(2, 2, 1, 2, 2, generator=chance)
    loss = GeneratorLoss(features, **(WEIGHTS | options))
    given = {"other": other, "lr": degrade(hr)}
    return loss(sr, hr, logits_sr, logits_hr, **given), other, logits_sr, logits_hr


@pytest.mark.parametrize("content", ["mse", "ranked"])
@pytest.mark.parametrize("game", ["standard", "relativistic", "paired"])
def test_total_is_the_weighted_sum_of_the_terms(features, pair, content, game):
    sr, hr = pair
    terms, other, logits_sr, logits_hr = play(features, pair, content=content, game=game)
    score = {"mse": content_loss, "ranked": ranked_score}[content]
    torch.testing.assert_close(terms.content, score(sr, hr, other))
    torch.testing.assert_close(terms.perceptual, PerceptualLoss(features)(sr, hr, other))
    adversarial = {
        "standard": lambda: adversarial_loss(logits_sr),
        "relativistic": lambda: relativistic_adversarial_loss(logits_hr, logits_sr),
        "paired": lambda: paired_adversarial_loss(logits_hr, logits_sr),
    }[game]()
    torch.testing.assert_close(terms.adversarial, adversarial)
    each = [consistency_loss(image, degrade(hr)) for image in (sr, other)]
    torch.testing.assert_close(terms.consistency, sum(each) / 2)
    expected = 2 * terms.content + 3 * terms.perceptual + 5 * terms.adversarial
    torch.testing.assert_close(terms.total, expected + 7 * terms.consistency)


def test_one_image_is_judged_as_the_paper_does_unless_asked_otherwise(features, pair):
    sr, hr = pair
    papers = {name: WEIGHTS[name] for name in list(WEIGHTS)[:3]}
    logits = torch.randn(2, 1)
    terms = GeneratorLoss(features, **papers)(sr, hr, logits)
    torch.testing.assert_close(terms.content, F.mse_loss(sr, hr))
    torch.testing.assert_close(terms.perceptual, PerceptualLoss(features)(sr, hr))
    torch.testing.assert_close(terms.adversarial, adversarial_loss(logits))
    expected = 2 * terms.content + 3 * terms.perceptual + 5 * terms.adversarial
    torch.testing.assert_close(terms.total, expected)
    assert terms.consistency == 0


@pytest.mark.parametrize("game", ["standard", "relativistic", "paired"])
def test_logits_of_hr_are_asked_for_where_the_game_compares(features, game):
    assert GeneratorLoss(features, **WEIGHTS, game=game).compares == (game != "standard")


def test_vgg_is_looked_at_where_no_step_is_named(features, pair):
    sr, hr = pair
    loss = GeneratorLoss(features, **WEIGHTS, perceptual_every=2)
    assert loss(sr, hr, torch.zeros(2, 1), lr=degrade(hr)).perceptual > 0


def test_vgg_is_looked_at_in_every_kth_step_and_counts_k_times(features, pair, monkeypatch):
    looks = []
    real = VGGFeatures.activations
    monkeypatch.setattr(VGGFeatures, "activations", lambda *given: looks.append(1) or real(*given))
    loss = GeneratorLoss(features, **WEIGHTS, perceptual_every=3)
    sr, hr = pair
    lr, logits = degrade(hr), torch.zeros(2, 1)
    found = [loss(sr, hr, logits, lr=lr, step=step) for step in range(7)]
    assert len(looks) == 2 * 3  # SR and HR, in steps 0, 3 and 6
    whole = PerceptualLoss(features)(sr, hr).item()
    assert [x.perceptual.item() for x in found] == pytest.approx(
        [3 * whole, 0, 0, 3 * whole, 0, 0, 3 * whole]
    )
    assert (found[0].total - found[1].total).item() == pytest.approx(3 * 3 * whole, rel=1e-4)


@pytest.mark.parametrize("content", ["mse", "ranked"])
@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize("term", WEIGHTS)
def test_each_term_alone_moves_the_generator(features, term, noise, content):
    torch.manual_seed(0)
    generator = SRResNet(blocks=1, width=4, noise=noise)
    judge, game = (PatchDiscriminator(width=4), "paired") if noise else (None, "standard")
    plain = Discriminator(width=4, grid=1)
    loss = GeneratorLoss(features, **(NONE | {term: 1.0}), game=game, content=content)
    lr, hr = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 32, 32)
    if noise:
        sr, other = generator(lr, torch.randn(4, 21, 8, 8)).chunk(2)
        terms = loss(sr, hr, judge(sr, lr), judge(hr, lr), other=other, lr=lr)
    else:
        sr = generator(lr)
        terms = loss(sr, hr, plain(sr), lr=lr)
    terms.total.backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_gradients_of_the_total_are_the_weighted_sum_of_each_term_s(features, pair):
    sr, hr = pair

    def gradient(**weights):
        image = sr.clone().requires_grad_()
        logits = image.mean(dim=(1, 2, 3), keepdim=True).view(2, 1)
        GeneratorLoss(features, **weights)(image, hr, logits, lr=degrade(hr)).total.backward()
        return image.grad

    alone = [gradient(**(NONE | {name: WEIGHTS[name]})) for name in WEIGHTS]
    torch.testing.assert_close(gradient(**WEIGHTS), sum(alone))


# Two throws


@pytest.mark.parametrize("sigma", [0.1, 2.0])
def test_content_loss_of_two_throws_asks_nothing_of_their_variance(sigma):
    """HR is 0 and throws are N(0.5, sigma): the squared error of their mean is 0.25."""
    sr, other = (0.5 + sigma * draws(400_000, seed=seed) for seed in (1, 2))
    hr = torch.zeros_like(sr)
    error = 3 * math.sqrt(2 * 0.25 * sigma**2 + sigma**4) / math.sqrt(400_000)
    assert content_loss(sr, hr, other).item() == pytest.approx(0.25, abs=error)
    assert content_loss(sr, hr).item() == pytest.approx(0.25 + sigma**2, rel=0.02)


def test_throws_that_miss_to_both_sides_gain_from_it():
    hr = torch.zeros(1, 1, 2, 2)
    assert content_loss(hr + 1, hr, hr - 1).item() == -1
    assert content_loss(hr + 3, hr, hr + 2).item() == 6
    sr = torch.rand(1, 1, 2, 2)
    torch.testing.assert_close(content_loss(sr, hr, sr), F.mse_loss(sr, hr))


def test_perceptual_loss_of_two_throws_is_the_squared_error_of_the_mean_features(features):
    """Throws are one of four images at random; the 16 pairs of them are all there is to draw."""
    chance = torch.Generator().manual_seed(0)
    throws = [torch.rand(1, 1, 8, 8, generator=chance) for _ in range(4)]
    hr = torch.rand(1, 1, 8, 8, generator=chance)
    loss = PerceptualLoss(features)
    with torch.no_grad():
        found = torch.stack([loss(one, hr, other) for one in throws for other in throws]).mean()
        mean = torch.stack([features(throw) for throw in throws]).mean(dim=0)
        expected = F.mse_loss(mean, features(hr)) * features.rescale**2
        squares = torch.stack([loss(throw, hr) for throw in throws]).mean()
    torch.testing.assert_close(found, expected)
    assert squares > 1.3 * expected  # and what the paper's square would ask for on top


def ranked_of_gaussian(sigma, truth, count=400_000):
    """Return the score of throws from N(0, sigma), pixel by pixel: no pixel has a neighbour."""
    sr, other = (sigma * draws(count, seed=seed) for seed in (3, 4))
    hr = truth.expand_as(sr) if truth.numel() == 1 else truth
    errors = (hr - sr).abs() + (hr - other).abs() - (sr - other).abs()
    pixels = errors.mean() / 2
    flat = [image.expand(-1, -1, 2, 2) for image in (sr, hr, other)]
    return ranked_score(*flat), pixels  # of 2 x 2 equal pixels the means are the same, too


@pytest.mark.parametrize("z", [0.0, 0.7, -2.5])
@pytest.mark.parametrize("sigma", [0.3, 1.5])
def test_ranked_score_of_gaussian_throws_is_its_closed_form(z, sigma):
    """Gneiting et al. 2005 (Monthly Weather Review 133), eq. 5."""
    found, pixels = ranked_of_gaussian(sigma, torch.tensor([[[[z * sigma]]]]).double())
    expected = sigma * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / math.sqrt(math.pi))
    assert found.item() == pytest.approx(expected, abs=0.004 * sigma)
    torch.testing.assert_close(found, pixels)


def test_ranked_score_is_least_where_throws_are_spread_as_hr_is():
    truth = draws(400_000, seed=5)
    sigmas = np.arange(0.0, 2.01, 0.25)
    scores = [ranked_of_gaussian(sigma, truth)[0].item() for sigma in sigmas]
    assert sigmas[np.argmin(scores)] == 1
    assert scores[0] > 1.3 * min(scores)  # no dice: the mean absolute error, sqrt(2 / pi)
    assert scores[0] == pytest.approx(math.sqrt(2 / math.pi), rel=0.01)


def test_ranked_score_of_one_image_is_the_mean_absolute_error(pair):
    sr, hr = pair
    assert torch.equal(ranked_score(sr, hr), F.l1_loss(sr, hr))


def test_ranked_score_scores_pixels_and_means_of_four_in_equal_parts():
    """Noise against flat images: the means of four independent pixels are half as large."""
    hr, sr = torch.zeros(1, 1, 400, 400).double(), draws(1, 400)
    pixels = math.sqrt(2 / math.pi)
    expected = (pixels + pixels / 2) / 2
    assert ranked_score(sr, hr, sr).item() == pytest.approx(expected, rel=0.02)
    # a checkerboard has means of nothing, a flat error the same as its pixels
    board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(4, 4)[None, None]
    flat = torch.zeros_like(board)
    assert ranked_score(board, flat, board).item() == pytest.approx(0.5)
    assert ranked_score(flat + 1, flat, flat + 1).item() == pytest.approx(1)


def test_ranked_score_takes_the_means_of_all_neighbours():
    sr = torch.tensor([[0.0, 0, 1], [0, 0, 1]])[None, None]  # 2 x 2 pixels have means 0 and 0.5
    hr = torch.zeros_like(sr)
    assert ranked_score(sr, hr, sr).item() == pytest.approx((1 / 3 + 1 / 4) / 2)


# LR consistency


def test_consistent_image_has_no_consistency_loss():
    """Each SR pixel is moved by what, degraded again, comes to nothing."""
    chance = torch.Generator().manual_seed(0)
    sr = torch.rand(2, 1, 32, 32, generator=chance)
    lr = resize(sr, (8, 8))
    assert consistency_loss(sr, lr).item() == 0
    rows = torch.eye(32)
    matrix = resize(rows[None], (8, 32))[0]  # (8, 32)
    inside = torch.linalg.svd(matrix)[2][8:]  # 24 directions that resizing doesn't see
    unseen = inside.T @ torch.rand(24, 32, generator=chance)
    assert unseen.abs().max() > 0.1
    assert consistency_loss(sr + unseen, lr).item() < 1e-10
    assert consistency_loss(sr + 0.1, lr).item() == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize("scale", [2, 4])
def test_consistency_loss_is_the_degradation_s_but_for_rounding(scale):
    chance = torch.Generator().manual_seed(0)
    sr = 0.3 + 0.4 * torch.rand(2, 1, 32, 48, generator=chance)
    lr = torch.rand(2, 1, 32 // scale, 48 // scale, generator=chance)
    deep = F.mse_loss(degrade(sr, scale, bits=16), lr).item()  # rounds to 1/65535
    assert consistency_loss(sr, lr).item() == pytest.approx(deep, rel=1e-3)
    own = consistency_loss(sr, degrade(sr, scale)).item()  # rounding is all that is left
    assert 0 < own < (0.5 / 255) ** 2


def test_scores_are_exact_under_autocast(pair):
    sr, hr = (0.5 + 0.004 * image for image in pair)  # bfloat16 has steps of 0.004 at 0.5
    other = sr.flip(-1)
    lr = degrade(hr)

    def scores():
        return consistency_loss(sr, lr), ranked_score(sr, hr, other), content_loss(sr, hr, other)

    with torch.autocast("cpu", torch.bfloat16):
        inside = scores()
    assert inside == scores()


# The paired game


def test_paired_losses_have_the_values_worked_out_by_hand():
    hr, sr = torch.tensor([[2.0], [0.0]]), torch.tensor([[-1.0], [0.5]])
    # -log sigmoid(3) = 0.048587 and -log sigmoid(-0.5) = 0.974077
    assert paired_discriminator_loss(hr, sr).item() == pytest.approx(0.511332, rel=1e-5)
    # -log sigmoid(-3) = 3.048587 and -log sigmoid(0.5) = 0.474077
    assert paired_adversarial_loss(hr, sr).item() == pytest.approx(1.761332, rel=1e-5)


def test_paired_losses_compare_the_images_of_one_place_and_nothing_else():
    hr, sr = torch.randn(3, 1, 2, 2), torch.randn(3, 1, 2, 2)
    for loss in (paired_discriminator_loss, paired_adversarial_loss):
        assert loss(hr, hr).item() == pytest.approx(math.log(2))
        places = torch.randn(3, 1, 2, 2)  # a part that both share, such as how hard a place is
        torch.testing.assert_close(loss(hr + places, sr + places), loss(hr, sr))
        order = torch.tensor([1, 2, 0])
        torch.testing.assert_close(loss(hr[order], sr[order]), loss(hr, sr))
        assert not torch.allclose(loss(hr[order], sr), loss(hr, sr))
    torch.testing.assert_close(paired_adversarial_loss(hr, sr), paired_discriminator_loss(sr, hr))


@pytest.mark.parametrize("value", [1e4, -1e4])
def test_huge_differences_in_the_paired_game_stay_finite(value):
    hr, sr = torch.full((3, 1), value, requires_grad=True), torch.zeros(3, 1)
    total = paired_discriminator_loss(hr, sr) + paired_adversarial_loss(hr, sr)
    total.backward()
    assert total.item() == pytest.approx(1e4) and torch.isfinite(hr.grad).all()


# The gradient penalty


def test_penalty_of_a_linear_and_a_quadratic_critic_are_those_by_hand():
    hr = torch.rand(5, 2, 3, 4)
    slope = torch.rand(2, 3, 4)
    linear = gradient_penalty(lambda image: (slope * image).sum(dim=(1, 2, 3)), hr)
    torch.testing.assert_close(linear, slope.square().sum())
    quadratic = gradient_penalty(lambda image: 3 * image.square(), hr)  # a map of logits
    torch.testing.assert_close(quadratic, 36 * hr.square().sum(dim=(1, 2, 3)).mean())


def test_penalty_s_own_gradient_reaches_the_critic_s_weights_and_not_the_image():
    weight = torch.tensor(2.0, requires_grad=True)
    hr = torch.rand(2, 1, 2, 2, requires_grad=True)
    penalty = gradient_penalty(lambda image: weight * image.square(), hr)
    penalty.backward()
    # 4 w^2 |x|^2, so its slope is 8 w |x|^2
    length = hr.detach().square().sum(dim=(1, 2, 3)).mean()
    torch.testing.assert_close(weight.grad, 16 * length)
    assert hr.grad is None


@pytest.mark.parametrize("kind", ["Discriminator", "PatchDiscriminator"])
def test_penalty_of_the_discriminators_falls_when_its_gradient_is_followed(kind):
    torch.manual_seed(0)
    hr, lr = torch.rand(2, 1, 32, 32), torch.rand(2, 1, 8, 8)
    judge: nn.Module = (
        Discriminator(width=4, grid=1) if kind == "Discriminator" else PatchDiscriminator(width=4)
    )
    critic = judge if kind == "Discriminator" else (lambda image: judge(image, lr))
    penalty = gradient_penalty(critic, hr)
    penalty.backward()
    weights = [p for p in judge.parameters() if p.ndim > 1]
    assert penalty > 0 and all(p.grad.abs().sum() > 0 for p in weights)
    with torch.no_grad():
        for p in weights:
            p -= 0.01 * p.grad / torch.stack([q.grad.norm() for q in weights]).norm()
    assert gradient_penalty(critic, hr) < penalty
