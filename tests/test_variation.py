"""Variation: each change against an independent computation, and chance only from its source."""

import math

import pytest
import torch
from torchvision.transforms.functional import gaussian_blur

from srgan_lib import variation
from srgan_lib.degradation import quantise, resize
from srgan_lib.errors import ConfigurationError
from srgan_lib.images import Pixels, to_pixels
from srgan_lib.variation import Variation, with_smaller


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def crops(n=8, channels=1, side=24, bits=8):
    return quantise(torch.rand(n, channels, side, side, generator=chance(99)), bits)


class Draws:
    """Stand for torch.rand: serve what a test wants, in the order that it is asked for."""

    def __init__(self, monkeypatch, **values):
        defaults = {"smooth": 1, "sigma": 0.5, "more": 1, "weaker": 0.5, "stronger": 0.5}
        defaults |= {"sign": 0, "mean": 0.5}  # 1: not chosen
        assert set(values) <= set(defaults)
        self.values = list((defaults | values).values())
        monkeypatch.setattr(variation.torch, "rand", self)

    def __call__(self, n, generator):
        value = self.values.pop(0)
        return value if isinstance(value, torch.Tensor) else torch.full((n,), float(value))


# What holds for every result


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [8, 16])
def test_shape_range_layout_and_levels(channels, bits):
    hr = crops(16, channels, bits=bits)
    found = Variation(smooth=0.5)(hr, chance(), bits)
    assert found.shape == hr.shape and found.dtype == torch.float32
    assert found.min() >= 0 and found.max() <= 1
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found, quantise(found, bits))
    assert torch.equal(found, quantise(found, 8)) == (bits == 8)


def test_chance_comes_from_the_generator_alone():
    before = torch.get_rng_state()
    one, two = (Variation()(crops(), chance(4)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, Variation()(crops(), chance(5)))
    assert torch.equal(before, torch.get_rng_state())


def test_generator_goes_on_by_the_same_amount_whatever_is_drawn():
    states = []
    for seed, options in [(1, {}), (1, {"smooth": 1.0}), (1, {"smooth": 0.0, "stronger": 1.0})]:
        generator = chance(seed)
        Variation(**options)(crops(), generator)
        states.append(generator.get_state())
    assert torch.equal(states[0], states[1]) and torch.equal(states[0], states[2])


def test_input_is_not_changed():
    hr = crops()
    before = hr.clone()
    Variation()(hr, chance())
    assert torch.equal(hr, before)


def test_crops_are_changed_each_by_itself():
    hr = crops(1).expand(64, 1, 24, 24)
    found = Variation(smooth=1)(hr, chance())
    assert len({tuple(crop.flatten().tolist()) for crop in found}) > 50


def test_each_change_happens_as_often_as_the_docstring_says():
    rows = torch.full((4000, 1, 9, 9), 0.5)
    rows[:, :, ::2] = 0.4  # which a blur mixes
    rows = quantise(rows, 16)
    found = Variation(smooth=0.3, blur=(0.5, 0.5), weaker=(0.5, 0.5), stronger=1.4)(
        rows, chance(), 16
    )
    means = found.mean((1, 2, 3))
    moved = (means - rows[0].mean()).abs() > 1e-3
    assert moved.float().mean() == pytest.approx(0.3 + 0.7 / 2, abs=0.03)
    assert means[moved].min() >= 0.25 - 1e-4 and means[moved].max() <= 0.75 + 1e-4
    steps = found[:, 0, 3, 4] - found[:, 0, 4, 4]  # of 0.1 once
    blurred = gaussian_blur(rows[:1], [9, 9], [0.5, 0.5])[0, 0]
    weak = 0.5 * (blurred[3, 4] - blurred[4, 4])
    smooth = (steps.abs() - weak).abs() < 1e-4
    assert smooth.float().mean() == pytest.approx(0.3, abs=0.03)
    assert steps[~smooth].abs().min() > 0.0999 and steps.abs().max() < 0.1401
    assert (steps < 0).float().mean() == pytest.approx(0.65 / 2, abs=0.03)
    assert (steps[smooth] < 0).float().mean() == pytest.approx(0.5, abs=0.05)


# Each change alone


@pytest.mark.parametrize("sigma", [0.3, 0.8, 1.5])
@pytest.mark.parametrize("channels", [1, 3])
def test_blur_is_torchvision_s(sigma, channels):
    hr = crops(3, channels)
    found = variation._blur(hr, torch.full((3,), sigma))
    torch.testing.assert_close(found, gaussian_blur(hr, [9, 9], [sigma, sigma]))


def test_each_image_has_a_blur_of_its_own():
    hr = crops(3)
    sigmas = [0.4, 0.9, 1.4]
    found = variation._blur(hr, torch.tensor(sigmas))
    for image, sigma, one in zip(hr, sigmas, found, strict=True):
        torch.testing.assert_close(one, gaussian_blur(image, [9, 9], [sigma, sigma]))


def test_chosen_crops_are_blurred_and_weakened_and_no_others(monkeypatch):
    hr = crops(4)
    chosen = torch.tensor([0.1, 0.9, 0.29, 0.3])
    Draws(monkeypatch, smooth=chosen, sigma=0.25, weaker=0.25, mean=0.3)
    found = Variation(smooth=0.3, blur=(0.5, 1.5), weaker=(0.2, 0.6), mean=(0.2, 0.7))(hr, chance())
    blurred = gaussian_blur(hr, [9, 9], [0.75, 0.75])
    means = blurred.mean((1, 2, 3), keepdim=True)
    weaker = quantise(0.35 + 0.3 * (blurred - means))
    step = 1.01 / 255  # the two may round a value to different sides
    for number, is_smooth in enumerate([True, False, True, False]):
        expected = weaker if is_smooth else hr
        torch.testing.assert_close(found[number], expected[number], rtol=0, atol=step)
        assert (found[number] != expected[number]).float().mean() < 0.02


@pytest.mark.parametrize(("sign", "direction"), [(0.2, 1), (0.7, -1)])
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_contrast_is_a_line_through_the_new_mean(monkeypatch, sign, direction, place):
    hr = 0.4 + 0.2 * crops(2)
    Draws(monkeypatch, more=0.2, stronger=place, sign=sign, mean=0.3)
    found = Variation(stronger=1.5)(hr, chance(), 16)
    factor = direction * (1 + 0.5 * place)
    expected = 0.25 + 0.3 * 0.5 + factor * (hr - hr.mean((1, 2, 3), keepdim=True))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_contrast_clips_what_leaves_the_range(monkeypatch):
    hr = torch.tensor([0.0, 1.0]).repeat(12, 6).view(1, 1, 12, 12)
    Draws(monkeypatch, more=0, stronger=1, mean=1)
    found = Variation(stronger=2)(hr, chance())
    assert set(found.unique().tolist()) == {0.0, 1.0}  # 0.75 -+ 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"smooth": -0.1}, "smooth must be between 0 and 1, not -0.1"),
        ({"smooth": 1.1}, "smooth must be"),
        ({"smooth": math.nan}, "smooth must be"),
        ({"blur": (0.2, 1)}, r"blur must be 0.3 <= low <= high <= 2.0, not \(0.2, 1\)"),
        ({"blur": (0.5, 2.1)}, "blur must be"),
        ({"blur": (1.5, 1.2)}, "blur must be"),
        ({"weaker": (0, 1)}, "weaker must be 0 < low <= high <= 1"),
        ({"weaker": (0.5, 1.1)}, "weaker must be"),
        ({"weaker": (0.6, 0.5)}, "weaker must be"),
        ({"weaker": (math.nan, 1)}, "weaker must be"),
        ({"stronger": 0.9}, "stronger must be 1 or more, not 0.9"),
        ({"stronger": math.inf}, "stronger must be"),
        ({"mean": (-0.1, 1)}, "mean must be 0 <= low <= high <= 1"),
        ({"mean": (0.5, 1.1)}, "mean must be"),
        ({"mean": (0.6, 0.5)}, "mean must be"),
    ],
)
def test_impossible_values_are_refused(options, words):
    with pytest.raises(ConfigurationError, match=words):
        Variation(**options)


# Smaller copies


def test_smaller_copies_come_after_the_images_factor_by_factor():
    images = [to_pixels(crops(1, 1, side)[0]) for side in (20, 31)]
    found = with_smaller(images, [0.5, 0.25])
    assert found[0] is images[0] and found[1] is images[1]
    sizes = [tuple(image.values.shape) for image in found]
    assert sizes == [(1, 20, 20), (1, 31, 31), (1, 10, 10), (1, 16, 16), (1, 5, 5), (1, 8, 8)]
    expected = to_pixels(resize(images[1].to_float(), (16, 16)).clamp(0, 1))
    assert torch.equal(found[3].values, expected.values)
    assert with_smaller(images, []) == images


def test_smaller_copies_keep_channels_and_bit_depth():
    values = (65535 * crops(1, 3, bits=16)[0]).round().to(torch.int32).to(torch.uint16)
    (_, small) = with_smaller([Pixels(values, 16)], [0.5])
    assert (small.bits, small.values.dtype) == (16, torch.uint16)
    assert small.values.shape == (3, 12, 12)
    fine = small.values.to(torch.int32) % 257
    assert (fine != 0).any()  # not just eight bits, widened


@pytest.mark.parametrize("factor", [0, 1, -0.5, 1.5, math.nan])
def test_factors_that_do_not_shrink_are_refused(factor):
    with pytest.raises(ConfigurationError, match="Images shrink by a factor between 0 and 1"):
        with_smaller([to_pixels(crops(1)[0])], [factor])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_gives_the_cpu_s_crops():
    hr = crops(32, 3)
    found = Variation()(hr.cuda(), chance())
    torch.testing.assert_close(found.cpu(), Variation()(hr, chance()), rtol=0, atol=1.01 / 255)
