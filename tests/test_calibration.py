"""Calibration of throws: on cases whose answer is known."""

import math

import pytest
import torch

from srgan_lib.calibration import MEASURES, coverage, error_correlation, measure_throws
from srgan_lib.errors import ConfigurationError, ImageError
from srgan_lib.metrics import psnr


def gaussian(count, factor=1.0, bias=0.0, side=160, levels=None, seed=0):
    """Return throws and an original around one mean, the throws ``factor`` times as wide."""
    generator = torch.Generator().manual_seed(seed)
    mean = torch.rand(1, side, side, generator=generator)
    drawn = torch.randn(count + 1, 1, side, side, generator=generator)
    throws, hr = mean + factor * drawn[1:] + bias, mean + drawn[0]
    if levels:
        throws, hr = (torch.round(x * levels) / levels for x in (throws, hr))
    return throws, hr


@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize("count", [2, 5, 19, 32, 64])
def test_calibrated_throws_cover_their_share_whatever_their_number(count, share):
    error = 4 * math.sqrt(share * (1 - share)) / 160
    assert coverage(*gaussian(count), share) == pytest.approx(share, abs=error)


@pytest.mark.parametrize("levels", [0.5, 2])
def test_rounding_to_few_levels_changes_no_share(levels):
    """Half of the throws and more then equal the original."""
    throws, hr = gaussian(32, levels=levels)
    assert (throws == hr).float().mean() > 0.1
    assert coverage(throws, hr) == pytest.approx(0.9, abs=0.008)


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.25, 2])
def test_throws_too_alike_cover_less_and_throws_too_different_more(factor):
    expected = math.erf(factor * 1.6448536 / math.sqrt(2))  # of a 90 % interval of many throws
    found = coverage(*gaussian(99, factor))
    assert found == pytest.approx(expected, abs=0.012)
    assert (found < 0.85) == (factor < 1) and (found > 0.93) == (factor > 1)


def test_bias_is_not_covered():
    assert coverage(*gaussian(99, bias=1.6448536)) == pytest.approx(0.5, abs=0.015)


def test_least_and_largest_throw_cover_what_the_formula_says():
    for count in (2, 9, 31):
        throws, hr = gaussian(count)
        between = ((throws.amin(0) < hr) & (hr < throws.amax(0))).float().mean()
        share = (count - 1) / (count + 1)
        assert coverage(throws, hr, share) == pytest.approx(float(between))


def test_ranks_in_part_and_equal_throws_are_counted_in_proportion():
    def one(throws, hr):
        return coverage(torch.tensor(throws)[:, None, None, None], torch.tensor([[[hr]]]))

    # Ranks own fifths: a quarter of the first and of the last lies outside the middle 90 %.
    assert one([1.0, 2.0, 3.0, 4.0], 0.0) == pytest.approx(0.75)
    assert one([1.0, 2.0, 3.0, 4.0], 2.5) == 1
    assert one([1.0, 1.0, 1.0, 1.0], 1.0) == pytest.approx(0.9)
    assert one([1.0, 1.0, 3.0, 4.0], 1.0) == pytest.approx((3 - 0.25) / 3)


def varying(side=256, **options):
    """Return throws and an original whose deviation goes from 0 to 1 from left to right."""
    throws, hr = gaussian(16, side=side, **options)
    ramp = torch.linspace(0, 1, side)
    return ramp * throws, ramp * hr


def test_correlation_says_whether_deviation_and_error_share_their_places():
    throws, hr = varying()
    assert error_correlation(throws, hr) > 0.9
    assert error_correlation(throws.flip(-1), hr.flip(-1)) > 0.9
    mean = throws.mean(0)
    elsewhere = mean + (throws - mean).flip(-1)  # the same means, the deviations mirrored
    assert error_correlation(elsewhere, hr) < -0.9
    same = mean + torch.randn(16, 1, 256, 256)
    assert abs(error_correlation(same, hr)) < 0.2


def test_correlation_is_that_of_the_means_of_the_blocks():
    throws, hr = varying(side=33)
    error = (throws.mean(0) - hr).abs()[0, :32, :32].reshape(2, 16, 2, 16).mean((1, 3))
    deviation = throws.std(0)[0, :32, :32].reshape(2, 16, 2, 16).mean((1, 3))
    expected = torch.corrcoef(torch.stack([deviation.flatten(), error.flatten()]))[0, 1]
    assert error_correlation(throws, hr, block=16) == pytest.approx(float(expected), abs=1e-5)


def test_throws_that_all_agree_have_no_correlation():
    hr = torch.rand(1, 16, 16)
    assert error_correlation(torch.zeros(3, 1, 16, 16), hr) == 0


def test_measures_leave_out_the_border_and_round_the_mean():
    hr = torch.rand(1, 40, 48).mul(255).round() / 255
    throws = (hr + 0.1 * torch.randn(8, 1, 40, 48)).clamp(0, 1)
    found = measure_throws(throws, hr)
    assert found.keys() == MEASURES.keys()
    assert found["mean_psnr"] == pytest.approx(psnr(throws.mean(0), hr))
    spoilt = throws.clone()
    spoilt[..., :4], spoilt[..., -4:], spoilt[..., :4, :], spoilt[..., -4:, :] = 0, 1, 1, 0
    assert measure_throws(spoilt, hr) == found
    assert found["coverage"] == coverage(throws[..., 4:-4, 4:-4], hr[..., 4:-4, 4:-4])


def test_what_can_not_be_measured_is_refused():
    hr = torch.rand(1, 24, 24)
    for measure in (coverage, error_correlation, measure_throws):
        with pytest.raises(ConfigurationError, match="two throws or more, not 1"):
            measure(hr[None], hr)
        with pytest.raises(ImageError, match=r"Throws are \(n, C, H, W\)"):
            measure(torch.rand(4, 1, 24, 25), hr)
    with pytest.raises(ConfigurationError, match="share must be between 0 and 1, not 90"):
        coverage(torch.rand(2, 1, 24, 24), hr, 90)
    with pytest.raises(ImageError, match="no two blocks of 16"):
        error_correlation(torch.rand(2, 1, 24, 24), hr, 16)
