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
        defaults = {"sigma": 0.5, "blurred": 1, "factor": 0.5, "sign": 0, "mean": 0.5}
        defaults |= {"contrast": 1, "noise": 0.5, "noisy": 1}  # 1: not chosen
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
    found = Variation(noise=0.2)(hr, chance(), bits)
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
    for seed, options in [(1, {}), (1, {"noise": 0.0}), (1, {"blur": 0.3, "contrast": (1, 1)})]:
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
    found = Variation()(hr, chance())
    assert len({tuple(crop.flatten().tolist()) for crop in found}) > 50


def test_each_change_happens_as_often_as_the_docstring_says():
    flat = torch.full((4000, 1, 9, 9), 0.5)
    flat[:, :, ::2] = 0.4  # rows, which a blur mixes
    flat = quantise(flat)

    def changed(**options):
        settings = {"blur": 0.3, "contrast": (1.0, 1.0), "noise": 0.0} | options
        return Variation(**settings)(flat, chance())

    moved = changed()
    negative = (moved[:, 0, 1, 4] < moved[:, 0, 0, 4]).float().mean()
    assert negative == pytest.approx(0.375, abs=0.03)
    means = moved.mean((1, 2, 3))
    spread = means[(means - flat[0].mean()).abs() > 1e-3]
    assert len(spread) / 4000 == pytest.approx(0.75, abs=0.03)
    assert spread.min() >= 0.25 - 0.003 and spread.max() <= 0.75 + 0.003
    noisy = changed(noise=0.3)[:, 0, 1].std(dim=-1) > 1e-6
    assert noisy.float().mean() == pytest.approx(0.5, abs=0.04)


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


def test_chosen_crops_are_blurred_and_no_others(monkeypatch):
    hr = crops(4)
    chosen = torch.tensor([0.1, 0.9, 0.49, 0.5])
    Draws(monkeypatch, sigma=0.25, blurred=chosen)
    found = Variation(blur=1.5)(hr, chance())
    sigma = 0.3 + 0.25 * 1.2
    blurred = quantise(gaussian_blur(hr, [9, 9], [sigma, sigma]))
    step = 1.01 / 255  # the two may round a value to different sides
    for number, is_blurred in enumerate([True, False, True, False]):
        expected = blurred if is_blurred else hr
        torch.testing.assert_close(found[number], expected[number], rtol=0, atol=step)
        assert (found[number] != expected[number]).float().mean() < 0.01


@pytest.mark.parametrize(("sign", "direction"), [(0.2, 1), (0.7, -1)])
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_contrast_is_a_line_through_the_new_mean(monkeypatch, sign, direction, place):
    hr = 0.4 + 0.2 * crops(2)
    Draws(monkeypatch, factor=place, sign=sign, mean=0.3, contrast=0.5)
    found = Variation(contrast=(0.5, 1.125))(hr, chance(), 16)
    factor = direction * 0.5 * (1.125 / 0.5) ** place  # evenly on a logarithmic scale
    expected = 0.25 + 0.3 * 0.5 + factor * (hr - hr.mean((1, 2, 3), keepdim=True))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_contrast_clips_what_leaves_the_range(monkeypatch):
    hr = torch.tensor([0.0, 1.0]).repeat(12, 6).view(1, 1, 12, 12)
    Draws(monkeypatch, factor=1, mean=1, contrast=0)
    found = Variation(contrast=(1, 2))(hr, chance())
    assert set(found.unique().tolist()) == {0.0, 1.0}  # 0.75 -+ 1


@pytest.mark.parametrize("drawn", [0.0, 0.5, 1.0])
def test_noise_has_the_standard_deviation_that_was_drawn(monkeypatch, drawn):
    hr = torch.full((2, 1, 200, 200), 0.5)
    Draws(monkeypatch, noise=drawn, noisy=torch.tensor([0.1, 0.9]))
    found = Variation(noise=0.1)(hr, chance(), 16) - quantise(torch.tensor(0.5), 16)
    assert found[0].std() == pytest.approx(0.1 * drawn**2, rel=0.02)
    assert abs(found[0].mean()) < 0.002
    assert found[1].abs().max() == 0
    if drawn:
        across = (found[0, 0, :, 1:] * found[0, 0, :, :-1]).mean() / found[0].var()
        assert abs(across) < 0.02  # white
        kurtosis = ((found[0] / found[0].std()) ** 4).mean()
        assert kurtosis == pytest.approx(3, abs=0.15)  # Gaussian


def test_noise_of_an_8_bit_recipe_is_counted_in_its_levels():
    assert Variation().noise * 255 == pytest.approx(6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"blur": 0.2}, "blur must be between 0.3 and 2.0, not 0.2"),
        ({"blur": 2.1}, "blur must be"),
        ({"blur": math.nan}, "blur must be"),
        ({"contrast": (0, 1)}, "contrast must be 0 < low <= high"),
        ({"contrast": (-1, 1)}, "contrast must be"),
        ({"contrast": (1.2, 1.1)}, "contrast must be"),
        ({"contrast": (1.0, math.inf)}, "contrast must be"),
        ({"contrast": (math.nan, 1)}, "contrast must be"),
        ({"noise": -0.1}, "noise must be between 0 and 1, not -0.1"),
        ({"noise": 6}, "noise must be between 0 and 1, not 6"),
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
