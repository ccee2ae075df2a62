"""Measures of realism, on images made so that the right answer is known."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from srgan_lib.architectures import VGGFeatures
from srgan_lib.degradation import quantise
from srgan_lib.errors import ConfigurationError, ImageError
from srgan_lib.metrics import detail_energy
from srgan_lib.realism import (
    flat_windows,
    kernel_distance,
    lattice,
    lattice_ratio,
    ring_power,
    ring_ratios,
    squares,
    vgg_statistics,
)

LEVEL = 1 / 255


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def blurred(noise, side=3):
    """Grain that isn't white, of deviation 1."""
    noise = F.avg_pool2d(noise, side, 1)
    return noise / noise.std()


def radiograph(height=240, width=248, seed=0, grain=4.0):
    """An image with the spectrum of natural ones, and with grain, a little blurred."""
    generator = chance(seed)
    fy, fx = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)
    waves = torch.fft.rfft2(torch.randn(height, width, generator=generator))
    structure = torch.fft.irfft2(waves / (torch.hypot(fy, fx) + 1 / 200) ** 1.5, (height, width))
    noise = blurred(torch.randn(1, height + 2, width + 2, generator=generator))
    return quantise(0.5 + 0.1 * structure / structure.std() + grain * LEVEL * noise)


def weave(image, scale=4, amplitude=5.0):
    """A cosine of the grid's period along both axes, with this amplitude in grey levels."""
    rows, columns = (
        (2 * math.pi / scale * torch.arange(n)).cos() for n in (image.shape[-2], image.shape[-1])
    )
    return amplitude * LEVEL * rows[:, None] * columns


# The lattice

MODULATIONS = {
    "uniform": lambda h, w: torch.ones(h, w),
    "by row": lambda h, w: 2 * torch.rand(h, 1, generator=chance(1)),
    "by column": lambda h, w: 2 * torch.rand(1, w, generator=chance(1)),
    "by row, with its sign": lambda h, w: 2 * torch.randn(h, 1, generator=chance(1)),
    "by column, with its sign": lambda h, w: 2 * torch.randn(1, w, generator=chance(1)),
    "by place": lambda h, w: (
        2
        * (math.pi / 24 * torch.arange(h)).sin().abs()[:, None]
        * (math.pi / 24 * torch.arange(w)).sin().abs()
    ),
    "in a quarter of the image": lambda h, w: F.interpolate(torch.eye(4)[None, None], (h, w))[0, 0],
}


@pytest.mark.parametrize("modulation", MODULATIONS.values(), ids=MODULATIONS)
def test_weave_is_seen_however_its_amplitude_varies(modulation):
    hr = radiograph()
    strength = modulation(*hr.shape[-2:])
    line = 5 * LEVEL * (math.pi / 2 * torch.arange(hr.shape[-1])).cos()
    for pattern in (weave(hr), line):
        assert lattice_ratio(hr + strength * pattern, hr) > 2.5


def test_more_weave_scores_more_and_a_strong_one_far_above_hr():
    hr = radiograph()
    found = [lattice_ratio(hr + weave(hr, amplitude=a), hr) for a in (0, 1, 2, 5)]
    assert found == sorted(found)
    assert found[0] == pytest.approx(1, abs=0.02)
    assert found[1] > 1.3 and found[3] > 10


@pytest.mark.parametrize("seed", range(3))
def test_grain_of_any_kind_is_no_weave(seed):
    hr = radiograph(seed=seed)
    noise = torch.randn(hr.shape, generator=chance(seed + 10))
    large = torch.randn(1, hr.shape[-2] + 2, hr.shape[-1] + 2, generator=chance(seed + 20))
    for other in (hr + 2 * LEVEL * noise, hr + 6 * LEVEL * noise, hr + 4 * LEVEL * blurred(large)):
        assert lattice_ratio(other, hr) == pytest.approx(1, abs=0.3)
    assert lattice_ratio(radiograph(seed=seed + 30), hr) == pytest.approx(1, abs=0.4)


def test_hr_turned_mirrored_or_moved_stays_about_1():
    large = radiograph(256, 256)
    hr = large[:, :244, :244]  # windows of 48 fill it, less a border of 2, in all directions
    for same in (hr.rot90(1, (1, 2)), hr.rot90(2, (1, 2)), hr.flip(-1), hr.flip(-2)):
        assert lattice(same) == pytest.approx(lattice(hr))
    for down in range(4):
        for right in range(4):
            moved = large[:, down : down + 244, right : right + 244]
            assert lattice_ratio(moved, hr) == pytest.approx(1, abs=0.25)


def test_weave_is_seen_wherever_it_begins_on_any_ground_at_any_contrast():
    hr = radiograph(240, 240).double()
    woven = hr + weave(hr)
    found = lattice(woven)
    for rows, columns in ((1, 0), (0, 3), (2, 1)):
        moved = hr + weave(hr).roll((rows, columns), (0, 1))
        assert lattice(moved) == pytest.approx(found, rel=0.1)
    assert lattice(woven + 0.2) == pytest.approx(found)
    assert lattice(2 * woven) == pytest.approx(found, rel=0.02)  # but for the share of rounding
    assert lattice(woven.expand(3, -1, -1)) == pytest.approx(found)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_white_noise_scores_about_1_a_pure_weave_144_and_nothing_1(scale):
    noise = 0.1 * torch.randn(1, 400, 400, generator=chance())
    every = flat_windows(noise, scale)
    alone = []
    for place in every.nonzero().tolist()[:40]:
        one = torch.zeros_like(every)
        one[tuple(place)] = True
        alone.append(lattice(noise, scale, one))
    assert np.mean(alone) == pytest.approx(1, abs=0.25)  # chance: 0.16 at scale 2
    assert lattice(noise, scale) > 1.2  # of those that have most
    pure = torch.rand(scale, scale, generator=chance()).repeat(60, 60)[None]
    assert lattice(pure, scale) == pytest.approx(144, rel=0.15)
    assert lattice(pure[..., 1:, 1:], scale) == pytest.approx(lattice(pure, scale), rel=0.01)
    assert lattice(torch.full((1, 60, 60), 0.5), scale) == pytest.approx(1)


def test_lattice_is_what_its_definition_says():
    image = radiograph(57, 75)
    x = image[0].double().numpy()
    weights = np.array([1, 2, 2, 2, 1]) / 8
    rest = x[2:-2, 2:-2].copy()
    for i in range(rest.shape[0]):
        for j in range(rest.shape[1]):
            rest[i, j] -= weights @ x[i : i + 5, j : j + 5] @ weights
    window = rest[:48, :48]  # no other fits
    means = [window[i::4, j::4].mean() for i in range(4) for j in range(4)]
    rounding = 1 / 255**2 / 12
    delta = np.zeros((5, 5))
    delta[2, 2] = 1
    passed = ((delta - np.outer(weights, weights)) ** 2).sum()
    up = 144 * np.var(means, ddof=1) + rounding
    assert lattice(image) == pytest.approx(up / (np.var(window, ddof=1) / passed + rounding))


def test_windows_that_count_are_flat_ones_with_grain():
    image = torch.full((1, 196, 292), 20 * LEVEL)
    image[..., 98:] += 4 * LEVEL * torch.randn(1, 196, 194, generator=chance())
    image[..., 196:] += 0.2 * (torch.arange(96) // 13 % 2)
    windows = flat_windows(image)  # one begins every 24 px
    assert windows.shape == (7, 11)
    assert windows[:, 5:7].float().mean() > 0.9  # grain alone
    assert not windows[:, :3].any()  # nothing at all
    assert not windows[:, 8:].any()  # edges
    assert flat_windows(torch.zeros(1, 100, 100)).all()  # no others to choose


def test_windows_are_chosen_by_hr_alone():
    hr = radiograph()
    flat = flat_windows(hr)
    rows, columns = flat.shape
    sr = hr.clone()
    for i in range(rows):  # weave where HR is not flat
        for j in range(columns):
            if not flat[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].any():
                place = (..., slice(24 * i + 2, 24 * i + 50), slice(24 * j + 2, 24 * j + 50))
                sr[place] = hr[place] + weave(hr)[place[1:]]
    assert not torch.equal(sr, hr)
    assert lattice_ratio(sr, hr) == pytest.approx(1, abs=0.2)


def test_weave_that_no_file_can_hold_is_none():
    hr = torch.full((1, 96, 96), 100 * LEVEL)
    assert lattice_ratio(hr + weave(hr, amplitude=0.4), hr) == pytest.approx(1)
    assert lattice_ratio(hr + weave(hr, amplitude=0.4), hr, bits=16) > 10
    assert lattice_ratio(hr + weave(hr, amplitude=1), hr) > 50


def test_lattice_of_what_does_not_fit_is_refused():
    assert 0 < lattice(torch.rand(1, 24, 40)) < 10
    with pytest.raises(ImageError, match="24 x 24 pixels or more, not"):
        lattice(torch.rand(1, 23, 40))
    with pytest.raises(ImageError, match="48 x 48 pixels or more, not"):
        lattice(torch.rand(1, 64, 47), scale=8)
    with pytest.raises(ConfigurationError, match="2 or more, not 1"):
        lattice(torch.rand(1, 64, 64), scale=1)
    for measure in (lattice_ratio, ring_ratios):
        with pytest.raises(ImageError, match=r"must both be \(C, H, W\)"):
            measure(torch.rand(1, 64, 64), torch.rand(1, 64, 68))
        with pytest.raises(ImageError, match="NaN or infinite"):
            measure(torch.full((1, 64, 64), math.nan), torch.rand(1, 64, 64))


# Rings


@pytest.mark.parametrize(("fraction", "ring"), [(0.4, 0), (0.6, 1), (0.9, 2)])
def test_power_of_a_wave_lies_in_its_ring(fraction, ring):
    wave = 0.5 + 0.4 * (math.pi * fraction * torch.arange(128)).cos().expand(1, 128, 128)
    powers = ring_power(wave)
    assert len(powers) == 3
    assert powers[ring] > 0.99 * sum(powers)


def test_rings_add_up_to_all_detail_between_their_ends():
    image = radiograph(96, 100)
    whole = detail_energy(image, 0.25) - detail_energy(image, 1.0)
    assert sum(ring_power(image)) == pytest.approx(whole)
    assert ring_power(image, (0.25, 1.0)) == pytest.approx((whole,))
    assert ring_power(image, (0.0, 0.5, 1.0, 1.5))[2] == pytest.approx(detail_energy(image, 1.0))


def test_ring_ratio_is_1_for_hr_s_own_kind_and_falls_where_detail_is_lost():
    hr = radiograph(256, 256, seed=1, grain=8)
    assert ring_ratios(hr, hr) == (1, 1, 1)
    assert ring_ratios(radiograph(256, 256, seed=2, grain=8), hr) == pytest.approx(
        (1,) * 3, abs=0.1
    )
    soft = F.avg_pool2d(F.pad(hr, (1, 1, 1, 1), mode="replicate"), 3, 1)
    low, middle, high = ring_ratios(soft, hr)
    assert 0.6 > low > middle and high < 0.2
    assert ring_ratios(0.5 + 0.5 * (hr - 0.5), hr) == pytest.approx((0.25,) * 3, abs=0.02)


@pytest.mark.parametrize("edges", [(0.5,), (0.5, 0.5), (0.5, 0.25)])
def test_edges_that_make_no_rings_are_refused(edges):
    with pytest.raises(ConfigurationError, match="two or more rising numbers"):
        ring_power(torch.rand(1, 32, 32), edges)


# The kernel distance


def test_kernel_distance_is_its_formula_s():
    a, b = (torch.randn(n, 5, generator=chance(n)) for n in (4, 6))

    def kernel(x, y):
        return (sum(p * q for p, q in zip(x.tolist(), y.tolist(), strict=True)) / 5 + 1) ** 3

    aa = [kernel(a[i], a[j]) for i in range(4) for j in range(4) if i != j]
    bb = [kernel(b[i], b[j]) for i in range(6) for j in range(6) if i != j]
    ab = [kernel(x, y) for x in a for y in b]
    expected = np.mean(aa) + np.mean(bb) - 2 * np.mean(ab)
    assert kernel_distance(a, b) == pytest.approx(expected)
    b = b[:4]
    h = [
        kernel(a[i], a[j]) + kernel(b[i], b[j]) - kernel(a[i], b[j]) - kernel(a[j], b[i])
        for i in range(4)
        for j in range(4)
        if i != j
    ]  # Gretton et al. 2012, lemma 6
    assert kernel_distance(a, b, paired=True) == pytest.approx(np.mean(h))


@pytest.mark.parametrize("paired", [False, True])
def test_kernel_distance_has_no_bias(paired):
    generator = chance()
    found = []
    for _ in range(1500):
        a, b = torch.randn(2, 8, 4, generator=generator)
        if paired:
            b = 0.9 * a + math.sqrt(1 - 0.9**2) * b  # the same distribution, not independent
        found.append(kernel_distance(a, b, paired))
    error = np.std(found) / math.sqrt(len(found))
    assert abs(np.mean(found)) < 3 * error
    assert error < 0.05


def test_unpaired_formula_is_wrong_for_pairs():
    generator = chance()
    found = []
    for _ in range(500):
        a, b = torch.randn(2, 8, 4, generator=generator)
        found.append(kernel_distance(a, 0.9 * a + math.sqrt(1 - 0.9**2) * b))
    assert np.mean(found) < -5 * np.std(found) / math.sqrt(500)


def test_kernel_distance_grows_with_the_distance_of_distributions():
    generator = chance()
    a, b = torch.randn(2, 300, 4, generator=generator)
    wider = 1.5 * torch.randn(300, 4, generator=generator)
    found = [kernel_distance(a, x) for x in (b, b + 0.5, b + 1.0)]
    assert found == sorted(found) and found[1] > 10 * abs(found[0])
    assert kernel_distance(a, wider) > 5 * abs(found[0])
    assert kernel_distance(wider, a) == pytest.approx(kernel_distance(a, wider))


def test_vgg_statistics_are_each_channel_s_mean_and_deviation():
    features = VGGFeatures("relu1_2")
    crops = torch.rand(19, 1, 16, 16, generator=chance())
    found = vgg_statistics(crops, features)
    maps = features(crops[17:18])[0].double()
    assert found.shape == (19, 128) and found.dtype == torch.float64
    scale = features.rescale
    expected = torch.cat([maps.mean((1, 2)), maps.std((1, 2), correction=0)]) * scale
    torch.testing.assert_close(found[17], expected, rtol=1e-4, atol=1e-6)


def test_features_tell_lost_grain_from_other_grain():
    features = VGGFeatures("relu2_2")
    hr, other = (squares(radiograph(seed=seed), 48) for seed in (1, 2))
    soft = F.avg_pool2d(F.pad(hr, (1, 1, 1, 1), mode="replicate"), 3, 1)
    a, b, c = (vgg_statistics(x, features) for x in (hr, other, soft))
    assert kernel_distance(a, c, paired=True) > 5 * abs(kernel_distance(a, b))


def test_kernel_distance_of_what_does_not_fit_is_refused():
    with pytest.raises(ConfigurationError, match="n, m > 1"):
        kernel_distance(torch.rand(1, 4), torch.rand(5, 4))
    with pytest.raises(ConfigurationError, match="n, m > 1"):
        kernel_distance(torch.rand(5, 3), torch.rand(5, 4))
    with pytest.raises(ConfigurationError, match="4 and 5 crops can't be paired"):
        kernel_distance(torch.rand(4, 3), torch.rand(5, 3), paired=True)


def test_squares_cover_an_image_without_overlap():
    image = torch.arange(2 * 70 * 33.0).view(2, 70, 33)
    found = squares(image, 16)
    assert found.shape == (8, 2, 16, 16)
    assert torch.equal(found[3], image[:, 16:32, 16:32])
    with pytest.raises(ImageError, match="No square of 64"):
        squares(image)
