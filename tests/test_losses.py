"""The losses, against known values and PyTorch's cross-entropy."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from srgan_lib.architectures import Discriminator, SRResNet, VGGFeatures
from srgan_lib.errors import ConfigurationError, ImageError
from srgan_lib.losses import (
    GeneratorLoss,
    PerceptualLoss,
    adversarial_loss,
    content_loss,
    discriminator_loss,
    lattice_loss,
    relativistic_adversarial_loss,
    relativistic_discriminator_loss,
    texture_loss,
)

WEIGHTS = {
    "content_weight": 2.0,
    "perceptual_weight": 3.0,
    "adversarial_weight": 5.0,
    "texture_weight": 7.0,
    "lattice_weight": 11.0,
}


@pytest.fixture(scope="module")
def features():
    return VGGFeatures("relu1_2")


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.rand(2, 1, 24, 24, generator=generator) for _ in range(2))


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


def test_generator_s_loss_is_relativistic_if_asked_for(features, pair):
    sr, hr = pair
    logits_sr, logits_hr = torch.randn(2, 1), torch.randn(2, 1)
    weights = {"content_weight": 1, "perceptual_weight": 0, "adversarial_weight": 2}
    terms = GeneratorLoss(features, **weights, relativistic=True)(sr, hr, logits_sr, logits_hr)
    expected = relativistic_adversarial_loss(logits_hr, logits_sr)
    assert torch.equal(terms.adversarial, expected)
    torch.testing.assert_close(terms.total, content_loss(sr, hr) + 2 * expected)
    plain = GeneratorLoss(features, **weights)(sr, hr, logits_sr, logits_hr)
    assert torch.equal(plain.adversarial, adversarial_loss(logits_sr))


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


def test_jitter_compares_the_same_part_of_both_beginning_anywhere(features, pair):
    sr, hr = pair
    plain, jittered = PerceptualLoss(features), PerceptualLoss(features, jitter=3)
    possible = {
        round(plain(sr[..., y : y + 21, x : x + 21], hr[..., y : y + 21, x : x + 21]).item(), 5)
        for y in range(4)
        for x in range(4)
    }
    assert len(possible) == 16
    torch.manual_seed(0)
    found = [round(jittered(sr, hr).item(), 5) for _ in range(200)]
    assert set(found) == possible
    torch.manual_seed(0)
    assert round(jittered(sr, hr).item(), 5) == found[0]
    with pytest.raises(ConfigurationError, match="jitter must be >= 0, not -1"):
        PerceptualLoss(features, jitter=-1)


def test_hr_features_hold_no_graph(features, pair):
    sr, hr = (image.clone().requires_grad_() for image in pair)
    PerceptualLoss(features)(sr, hr).backward()
    assert hr.grad is None
    assert sr.grad.abs().sum() > 0


def test_total_is_the_weighted_sum_of_the_terms(features, pair):
    sr, hr = pair
    logits = torch.randn(2, 1)
    terms = GeneratorLoss(features, **WEIGHTS, texture_amount=1.5)(sr, hr, logits)
    torch.testing.assert_close(terms.content, content_loss(sr, hr))
    torch.testing.assert_close(terms.perceptual, PerceptualLoss(features)(sr, hr))
    torch.testing.assert_close(terms.adversarial, adversarial_loss(logits))
    torch.testing.assert_close(terms.texture, texture_loss(sr, hr, amount=1.5))
    torch.testing.assert_close(terms.lattice, lattice_loss(sr))
    expected = 2 * terms.content + 3 * terms.perceptual + 5 * terms.adversarial
    expected += 7 * terms.texture + 11 * terms.lattice
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


@pytest.mark.parametrize("amount", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_amounts_of_texture_are_refused(features, amount):
    with pytest.raises(ConfigurationError, match="texture_amount must be above 0"):
        GeneratorLoss(features, **WEIGHTS, texture_amount=amount)


def test_texture_and_lattice_cost_nothing_unless_asked_for(features, pair):
    papers = {name: WEIGHTS[name] for name in list(WEIGHTS)[:3]}
    terms = GeneratorLoss(features, **papers)(*pair, torch.zeros(2, 1))
    expected = 2 * terms.content + 3 * terms.perceptual + 5 * terms.adversarial
    torch.testing.assert_close(terms.total, expected)
    assert terms.texture == terms.lattice == 0
    GeneratorLoss(features, **papers)(*(image[..., :2, :2] for image in pair), torch.zeros(2, 1))


def test_texture_loss_compares_amounts_not_patterns():
    generator = torch.Generator().manual_seed(0)
    a, b = (0.02 * torch.randn(1, 1, 256, 256, generator=generator) for _ in range(2))
    assert texture_loss(a, a).item() == 0
    assert texture_loss(a, b).item() < 0.2  # a window holds few waves
    # white noise of s holds a power of s squared in each ring, and a flat image the least, 1e-6
    assert texture_loss(a, 0 * a).item() == pytest.approx(math.log(401) ** 2, rel=0.03)
    assert texture_loss(a, 2 * a).item() == pytest.approx(math.log(4) ** 2, rel=0.02)
    assert texture_loss(a, b).item() == pytest.approx(texture_loss(a, b + 0.5).item(), rel=1e-3)


def test_texture_loss_asks_for_the_amount_that_it_is_told_to():
    noise = 0.05 * torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    assert texture_loss(noise, noise, amount=1.6).item() == pytest.approx(math.log(1.6) ** 2)
    assert texture_loss(1.6**0.5 * noise, noise, amount=1.6).item() < 1e-5


def test_texture_loss_knows_where_and_how_fine():
    generator = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(1, 1, 64, 64, generator=generator)
    left, right = noise.clone(), noise.flip(-1)
    left[..., 32:], right[..., :32] = 0, 0
    assert texture_loss(left, right).item() > 0.5 * texture_loss(noise, 0 * noise).item()
    rows, columns = torch.arange(64)[:, None], torch.arange(64)
    waves = [
        0.1 * (torch.cos(math.pi * y * rows) * torch.cos(math.pi * x * columns))[None, None]
        for y, x in ((0.6, 0), (0.9, 0), (0.9, 0.9))
    ]
    for one, other in itertools.permutations(waves, 2):
        assert texture_loss(one, other).item() > 5
    held_by_lr = 0.1 * torch.cos(math.pi * 0.25 * columns)
    assert texture_loss(waves[1], waves[1] + held_by_lr).item() < 0.01


def test_texture_loss_against_a_sum_over_the_whole_spectrum():
    chance = np.random.default_rng(0)
    sr, hr = 0.1 * chance.random((2, 24, 16))
    hann = np.sin(np.pi * np.arange(16) / 16) ** 2
    window = np.outer(hann, hann) / (hann**2).sum()
    frequency = np.fft.fftfreq(16) * 2
    radius = np.hypot(frequency[:, None], frequency)
    terms = []
    for top in (0, 8):
        tiles = (image[top : top + 16] for image in (sr, hr))
        p, q = (np.abs(np.fft.fft2((tile - tile.mean()) * window)) ** 2 for tile in tiles)
        for low, high in ((0.45, 0.75), (0.75, 1), (1, 2)):
            ring = (radius > low) & (radius <= high)
            terms.append(np.log((q[ring].mean() + 1e-6) / (p[ring].mean() + 1e-6)) ** 2)
    sr, hr = (torch.tensor(image)[None, None].float() for image in (sr, hr))
    assert texture_loss(sr, hr).item() == pytest.approx(np.mean(terms), rel=1e-4)


@pytest.mark.parametrize("side", [4, 5, 15, 16])
def test_texture_loss_of_small_images_is_that_of_one_window(side):
    a, b = 0.1 * torch.rand(2, 1, 1, side, side, generator=torch.Generator().manual_seed(0))
    loss = texture_loss(a, b).item()
    assert 0 < loss < 10
    assert loss == texture_loss(a, b, window=side).item()


def test_texture_loss_has_a_slope_at_no_texture():
    flat = torch.full((1, 1, 32, 32), 0.5) + 1e-4 * torch.randn(1, 1, 32, 32)
    flat.requires_grad_()
    texture_loss(flat, 0.1 * torch.randn(1, 1, 32, 32)).backward()
    assert torch.isfinite(flat.grad).all() and flat.grad.abs().max() > 0


def test_texture_loss_is_exact_under_autocast():
    a, b = 0.5 + 0.004 * torch.randn(2, 1, 1, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):  # whose steps at 0.5 are as large as the texture
        inside = texture_loss(a, b).item()
    assert inside == texture_loss(a, b).item()


@pytest.mark.parametrize("scale", [2, 4])
def test_lattice_loss_against_sums_over_the_spectrum(scale):
    images = np.random.default_rng(0).random((2, 32, 48))
    hann = np.sin(np.pi * np.arange(32) / 32) ** 2
    tiles = [image[:, left : left + 32] for image in images for left in (0, 16)]
    tiles = [(tile - tile.mean()) * np.outer(hann, hann) for tile in tiles]
    power = np.mean([np.abs(np.fft.fft2(tile)) ** 2 for tile in tiles], axis=0)
    near, far = (-1, 0, 1), (-3, 3)

    def mean(y, x, rows, columns):
        return np.mean([power[(y + i) % 32, (x + j) % 32] for i in rows for j in columns])

    logs = []
    for y, x in itertools.product(range(0, 32, 32 // scale), repeat=2):
        if y or x:
            found = mean(y, x, near, near) * mean(y, x, far, far)
            logs.append(np.log(found / mean(y, x, near, far) / mean(y, x, far, near)))
    loss = lattice_loss(torch.tensor(images)[:, None].float(), scale)
    assert loss.item() == pytest.approx(np.mean(np.square(logs)), rel=1e-4)


def test_lattice_loss_sees_a_lattice_and_not_brightness_or_contrast():
    natural = 0.5 + 0.05 * torch.randn(8, 1, 96, 96, generator=torch.Generator().manual_seed(0))
    lattice = 0.05 * (torch.rand(4, 4, generator=torch.Generator().manual_seed(0)) - 0.5)
    without = lattice_loss(natural).item()
    assert without < 0.1
    assert lattice_loss(natural + lattice.repeat(24, 24)).item() > 10 * without
    assert lattice_loss(0.5 * natural + 0.2).item() == pytest.approx(without, rel=1e-3)


def test_lattice_loss_punishes_a_lattice_that_is_missing():
    """Texture with holes at the grid's frequencies is as unnatural as one that peaks there."""
    noise = torch.randn(8, 1, 96, 96, generator=torch.Generator().manual_seed(0))
    spectrum = torch.fft.fft2(noise)
    for y, x in itertools.product(range(0, 96, 24), repeat=2):
        for i, j in itertools.product((-2, -1, 0, 1, 2), repeat=2):
            spectrum[..., (y + i) % 96, (x + j) % 96] *= 0.1
    holes = torch.fft.ifft2(spectrum).real
    assert lattice_loss(holes).item() > 10 * lattice_loss(noise).item()


def test_lattice_loss_of_flat_images_is_none_and_has_a_slope():
    flat = torch.full((1, 1, 32, 32), 0.5, requires_grad=True)
    loss = lattice_loss(flat)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(flat.grad).all()
    with pytest.raises(ImageError, match="24 x 24"):
        lattice_loss(torch.rand(1, 1, 20, 64))
