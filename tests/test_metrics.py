"""Metrics, against hand computations and published values."""

import math
import os
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import learned_perceptual_image_patch_similarity
from torchvision.models import squeezenet1_1

from srgan_lib import metrics
from srgan_lib.architectures import Interpolation, VGGFeatures
from srgan_lib.degradation import crop_to_multiple, degrade
from srgan_lib.errors import ConfigurationError, ImageError, WeightsError
from srgan_lib.images import read_image
from srgan_lib.metrics import (
    detail_energy,
    feature_distance,
    feature_distances,
    lpips,
    lr_consistency,
    psnr,
    radial_power,
    ssim,
    studio_luma,
)

MEASURES = [psnr, ssim]


@pytest.fixture(scope="module")
def features():
    return VGGFeatures("relu1_2")


def random_image(channels=1, size=(40, 48), seed=0, levels=255):
    values = np.random.default_rng(seed).integers(0, levels + 1, (channels, *size))
    return torch.from_numpy(values / levels).float()


def ssim_by_hand(x, y):
    """Wang et al. 2004, eq. 13, in NumPy: the window slid over each place where it fits."""
    x, y = (image.double().numpy() for image in (x, y))
    offset = np.arange(11) - 5
    window = np.exp(-(offset**2) / (2 * 1.5**2))
    window = np.outer(window, window) / window.sum() ** 2

    def average(image):
        views = np.lib.stride_tricks.sliding_window_view(image, (11, 11))
        return (views * window).sum((-1, -2))

    mx, my = average(x), average(y)
    vx, vy, cov = average(x * x) - mx**2, average(y * y) - my**2, average(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()


# PSNR and SSIM


def test_psnr_of_a_constant_difference_is_known():
    hr = torch.full((1, 40, 40), 100 / 255)
    sr = torch.full((1, 40, 40), 110 / 255)
    assert psnr(sr, hr) == pytest.approx(20 * math.log10(255 / 10), abs=1e-4)


def test_psnr_is_ten_times_the_logarithm_of_one_over_the_error():
    sr, hr = random_image(seed=1), random_image(seed=2)
    error = ((sr - hr)[:, 4:-4, 4:-4].double() ** 2).mean().item()
    assert psnr(sr, hr) == pytest.approx(-10 * math.log10(error), abs=1e-4)


def test_grey_images_are_measured_as_they_are():
    grey_hr, grey_sr = random_image(seed=1), random_image(seed=2)
    colour = psnr(grey_sr.expand(3, -1, -1), grey_hr.expand(3, -1, -1))
    # The same pixels as RGB are measured on studio luma, whose range is 219 of 255 levels.
    assert colour - psnr(grey_sr, grey_hr) == pytest.approx(20 * math.log10(255 / 219), abs=1e-3)


def test_colour_images_are_measured_on_bt_601_luma():
    sr, hr = random_image(3, seed=1), random_image(3, seed=2)
    luma = [(65.481 * x[0] + 128.553 * x[1] + 24.966 * x[2] + 16) / 255 for x in (sr, hr)]
    error = ((luma[0] - luma[1])[4:-4, 4:-4].double() ** 2).mean().item()
    assert psnr(sr, hr) == pytest.approx(-10 * math.log10(error), abs=1e-4)
    assert ssim(sr, hr) == pytest.approx(ssim_by_hand(*(x[4:-4, 4:-4] for x in luma)), abs=1e-4)


def test_studio_luma_goes_from_16_to_235():
    ends = torch.tensor([0.0, 1.0]).expand(3, 1, 2)
    torch.testing.assert_close(studio_luma(ends) * 255, torch.tensor([[[16.0, 235.0]]]))


def test_ssim_is_the_paper_s():
    hr = random_image(seed=1)
    sr = (hr + 0.2 * torch.randn(hr.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    sr = (sr * 255).round() / 255
    inner = [x[0, 4:-4, 4:-4] for x in (sr, hr)]
    assert ssim(sr, hr) == pytest.approx(ssim_by_hand(*inner), abs=1e-4)
    assert 0.3 < ssim(sr, hr) < 0.99


def test_equal_images_reach_the_best_value():
    image = random_image()
    assert psnr(image, image) == math.inf
    assert ssim(image, image) == pytest.approx(1, abs=1e-6)
    assert psnr(image, image.clone()) == math.inf


@pytest.mark.parametrize("measure", MEASURES)
def test_border_of_4_pixels_does_not_count_and_the_next_pixel_does(measure):
    hr = random_image()
    for edge in (slice(0, 4), slice(-4, None)):
        for sr in (hr.clone(), hr.clone()):
            sr[:, edge] = 1 - sr[:, edge]
            sr[:, :, edge] = 1 - sr[:, :, edge]
            assert measure(sr, hr) == pytest.approx(measure(hr, hr), abs=1e-6)
    for place in ((0, 4, 20), (0, -5, 20), (0, 20, 4), (0, 20, -5)):
        sr = hr.clone()
        sr[place] = 1 - sr[place]
        assert measure(sr, hr) < measure(hr, hr)


@pytest.mark.parametrize("measure", MEASURES)
def test_sr_is_clamped_and_rounded_first(measure):
    hr = random_image()
    hr[0, 10] = 0
    hr[0, 11] = 1
    sr = hr + 0.4 / 255 * torch.sign(torch.randn(hr.shape))
    sr[0, 10] -= 3
    sr[0, 11] += 3
    assert measure(sr, hr) == measure(hr, hr)
    if measure is psnr:
        assert 90 < psnr(hr + 0.4 / 65535, hr, bits=16) <= math.inf
        assert psnr((hr * 0.5 + 0.25) + 0.4 / 255, hr * 0.5 + 0.25, bits=16) < 60


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    ("sr", "hr", "message"),
    [
        (torch.zeros(1, 40, 40), torch.zeros(1, 40, 44), r"must both be \(C, H, W\)"),
        (torch.zeros(1, 40, 40), torch.zeros(3, 40, 40), r"must both be \(C, H, W\)"),
        (torch.zeros(2, 40, 40), torch.zeros(2, 40, 40), "C = 1 or 3"),
        (torch.zeros(1, 1, 40, 40), torch.zeros(1, 1, 40, 40), r"must both be \(C, H, W\)"),
        (torch.zeros(1, 18, 40), torch.zeros(1, 18, 40), "18 x 40 pixels are too small"),
        (torch.full((1, 40, 40), math.nan), torch.zeros(1, 40, 40), "NaN or infinite"),
        (torch.zeros(1, 40, 40), torch.full((1, 40, 40), math.inf), "NaN or infinite"),
    ],
)
def test_what_can_not_be_measured_is_refused(measure, sr, hr, message):
    with pytest.raises(ImageError, match=message):
        measure(sr, hr)


def test_smallest_measurable_image_has_19_pixels_a_side():
    image = random_image(size=(19, 19))
    assert ssim(image, 1 - image) < ssim(image, image) == pytest.approx(1, abs=1e-6)


def test_bicubic_on_set5_reaches_the_published_values():
    folder = Path(os.environ.get("SRGAN_DATA_DIR") or "nowhere") / "set5"
    if not folder.is_dir():
        pytest.skip("SRGAN_DATA_DIR names no folder that holds set5")
    found = []
    for path in sorted(folder.rglob("*.png")):
        hr = crop_to_multiple(read_image(path), 4)
        sr = Interpolation("bicubic")(degrade(hr)[None])[0]
        found.append((psnr(sr, hr), ssim(sr, hr)))
    assert len(found) == 5
    assert np.mean(found, axis=0)[0] == pytest.approx(28.43, abs=0.005)
    assert np.mean(found, axis=0)[1] == pytest.approx(0.811, abs=0.001)


# Feature distance


def test_feature_distance_is_0_for_equal_images_and_grows_with_noise(features):
    hr = random_image() * 0.5 + 0.25
    noise = torch.randn(hr.shape, generator=torch.Generator().manual_seed(0))
    distances = [feature_distance(hr + s * noise, hr, features) for s in (0, 0.02, 0.1)]
    assert distances[0] == 0
    assert 0 < distances[1] < distances[2]


def test_feature_distance_is_relative_to_the_features_of_hr(features):
    sr, hr = random_image(seed=1), random_image(seed=2)
    with torch.no_grad():
        f_sr, f_hr = (features(x[None, :, 4:-4, 4:-4]) for x in (sr, hr))
    expected = ((f_sr - f_hr) ** 2).mean() / (f_hr**2).mean()
    assert feature_distance(sr, hr, features) == pytest.approx(expected.item(), rel=1e-4)


def test_scale_of_the_weights_cancels(features):
    scaled = VGGFeatures("relu1_2", rescale=7.0)
    with torch.no_grad():
        scaled.layers[2].weight.mul_(100)
        scaled.layers[2].bias.mul_(100)
    sr, hr = random_image(seed=1), random_image(seed=2)
    found = feature_distance(sr, hr, scaled)
    assert found == pytest.approx(feature_distance(sr, hr, features), rel=1e-4)


# LR consistency


@pytest.mark.parametrize("scale", [2, 4])
def test_hr_itself_is_consistent_with_its_lr(scale):
    hr = random_image()
    assert lr_consistency(hr, degrade(hr, scale), scale) == math.inf


def test_lr_consistency_is_the_psnr_of_the_degraded_image_over_all_of_it():
    sr, hr = random_image(seed=1), random_image(seed=2)
    error = ((degrade(sr) - degrade(hr)).double() ** 2).mean().item()
    assert lr_consistency(sr, degrade(hr)) == pytest.approx(-10 * math.log10(error), abs=1e-4)


@pytest.mark.parametrize(
    ("sr", "lr", "message"),
    [
        (torch.zeros(1, 40, 40), torch.zeros(1, 10, 11), "not 4 times as large"),
        (torch.zeros(3, 40, 40), torch.zeros(1, 10, 10), "not 4 times as large"),
        (torch.full((1, 40, 40), math.inf), torch.zeros(1, 10, 10), "NaN or infinite"),
        (torch.full((1, 40, 40), math.nan), torch.zeros(1, 10, 10), "NaN or infinite"),
        (torch.zeros(1, 40, 40), torch.full((1, 10, 10), math.nan), "NaN or infinite"),
    ],
)
def test_lr_consistency_refuses_what_does_not_fit(sr, lr, message):
    with pytest.raises(ImageError, match=message):
        lr_consistency(sr, lr)


# LPIPS


@pytest.fixture
def forget_networks():
    metrics._lpips_network.cache_clear()
    yield
    metrics._lpips_network.cache_clear()


@pytest.mark.parametrize("network", ["alex", "vgg", "squeeze"])
def test_lpips_without_its_weights_says_what_to_use(monkeypatch, forget_networks, network):
    def fail(*args, **kwargs):
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    image = random_image(size=(64, 64))
    with pytest.raises(WeightsError, match=r"no network in tests.*use feature_distance"):
        lpips(image, image, network)


def test_lpips_refuses_an_unknown_network():
    with pytest.raises(ConfigurationError, match="Did you mean 'alex'"):
        lpips(random_image(), random_image(), "alexnet")


def test_lpips_feeds_three_cropped_channels_in_0_to_1(monkeypatch):
    seen = []

    class Metric:
        def to(self, device):
            return self

        def __call__(self, sr, hr):
            seen.append((sr, hr))
            return torch.tensor(0.25)

    monkeypatch.setattr(metrics, "_lpips_network", lambda network: Metric())
    sr, hr = random_image(seed=1) * 2, random_image(seed=2)
    assert lpips(sr, hr) == 0.25
    ((first, second),) = seen
    assert first.shape == second.shape == (1, 3, 32, 40)
    assert first.max() == 1
    assert torch.equal(second[0, 2], hr[0, 4:-4, 4:-4])


def test_lpips_is_torchmetrics_own_of_images_in_0_to_1(monkeypatch, forget_networks):
    """With random weights, since the real ones would have to be downloaded."""
    torch.manual_seed(0)
    weights = squeezenet1_1().state_dict()
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *_, **__: weights
    )
    sr, hr = (random_image(3, (64, 64), seed) for seed in (1, 2))
    both = (2 * x[None, :, 4:-4, 4:-4] - 1 for x in (sr, hr))
    expected = learned_perceptual_image_patch_similarity(*both, net_type="squeeze")
    assert lpips(sr, hr, "squeeze") == pytest.approx(expected.item(), rel=1e-4)


# Spectra


def sinusoid(fraction, size=64, axis=0):
    """A wave at a fraction of the Nyquist frequency."""
    wave = 0.5 + 0.4 * torch.cos(torch.pi * fraction * torch.arange(size))
    image = wave.expand(size, size)
    return (image.T if axis else image)[None]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("fraction", [0.25, 0.5, 0.75])
def test_power_of_a_sinusoid_lies_at_its_frequency(fraction, axis):
    frequency, power = radial_power(sinusoid(fraction, axis=axis), bins=32)
    assert frequency.shape == power.shape == (32,)
    near = (frequency - fraction).abs() < 2 / 32
    rings = (frequency + 0.5 / 32) ** 2 - (frequency - 0.5 / 32) ** 2  # the mean is over a ring
    assert (power * rings)[near].sum() > 0.99 * (power * rings).sum()
    assert abs(frequency[power.argmax()].item() - fraction) <= 1 / 32


@pytest.mark.parametrize(("size", "bins"), [((8, 8), 32), ((16, 12), 4)])
def test_rings_and_detail_are_those_counted_one_frequency_at_a_time(size, bins):
    image = random_image(size=size)[0].double().numpy()
    windows = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(side) / side) for side in size)
    waves = np.fft.fft2((image - image.mean()) * np.outer(*windows), norm="ortho")
    rings, detail = [[] for _ in range(bins)], 0.0
    for (row, column), wave in np.ndenumerate(waves):
        y, x = (min(n, side - n) / (side / 2) for n, side in zip((row, column), size, strict=True))
        if math.hypot(y, x) < 1:
            rings[int(math.hypot(y, x) * bins)].append(abs(wave) ** 2)
        if math.hypot(y, x) > 0.5:
            detail += abs(wave) ** 2
    frequency, power = radial_power(torch.from_numpy(image)[None], bins)
    assert frequency.tolist() == pytest.approx([(n + 0.5) / bins for n in range(bins)])
    assert power.tolist() == pytest.approx([np.mean(ring) if ring else 0 for ring in rings])
    assert detail_energy(torch.from_numpy(image)[None]) == pytest.approx(detail)
    assert radial_power(torch.from_numpy(image)[None])[0].shape == (32,)


def test_detail_is_what_lies_above_the_given_frequency():
    low, high = sinusoid(0.25), sinusoid(0.75)
    total = detail_energy(high, 0.0)
    assert detail_energy(low) < 1e-4 * total
    assert detail_energy(high) > 0.999 * total
    assert detail_energy(high, 0.85) < 0.01 * total
    assert detail_energy(low, 0.1) == pytest.approx(total, rel=1e-3)


def test_detail_grows_with_the_square_of_contrast_and_ignores_brightness():
    image = sinusoid(0.75)
    assert detail_energy(0.5 * image) == pytest.approx(0.25 * detail_energy(image), rel=1e-5)
    assert detail_energy(image + 0.3) == pytest.approx(detail_energy(image), rel=1e-5)
    assert detail_energy(torch.full((1, 32, 32), 0.7)) == pytest.approx(0, abs=1e-12)


def test_white_noise_has_the_same_power_at_all_frequencies():
    noise = torch.randn(1, 256, 256, generator=torch.Generator().manual_seed(0))
    _, power = radial_power(noise, bins=8)
    # The Hann window lets 3/8 of the power through along each axis.
    assert power[1:].mean().item() == pytest.approx((3 / 8) ** 2, rel=0.03)
    assert (power[1:] / power[1:].mean() - 1).abs().max() < 0.15


def test_channels_are_averaged():
    grey = sinusoid(0.5)
    torch.testing.assert_close(radial_power(grey.expand(3, -1, -1))[1], radial_power(grey)[1])


@pytest.mark.parametrize("measure", [radial_power, detail_energy])
def test_image_without_a_spectrum_is_refused(measure):
    with pytest.raises(ImageError, match="7 x 20"):
        measure(torch.zeros(1, 7, 20))


def test_several_feature_distances_are_those_of_each_image_alone():
    torch.manual_seed(0)
    hr = torch.rand(1, 40, 40)
    images = [hr, (hr + 0.1).clamp(0, 1), torch.rand(1, 40, 40)]
    features = VGGFeatures("relu1_2")
    together = feature_distances(images, hr, features)
    assert together == [feature_distance(image, hr, features) for image in images]
    assert together[0] == 0 < together[1] < together[2]
    with pytest.raises(ImageError, match="no SR image"):
        feature_distances([], hr, features)
