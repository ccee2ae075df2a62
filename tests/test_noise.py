"""The dice of networks with noise inputs: normal, independent, and bound to a place."""

import math

import numpy as np
import pytest
import torch

from srgan_lib.architectures import Interpolation, SRResNet
from srgan_lib.errors import ConfigurationError
from srgan_lib.noise import check_dice, noise_at, noise_inputs


def test_noise_is_standard_normal():
    noise = noise_at(21, 0, 0, 256, 256, seed=3)
    assert noise.dtype == torch.float32 and noise.shape == (21, 256, 256)
    noise, count = noise.double(), noise.numel()
    # Four standard errors of each moment, and of the share within one and two deviations.
    assert abs(noise.mean()) < 4 / math.sqrt(count)
    assert abs(noise.square().mean() - 1) < 4 * math.sqrt(2 / count)
    assert abs(noise.pow(3).mean()) < 4 * math.sqrt(15 / count)
    assert abs(noise.pow(4).mean() - 3) < 4 * math.sqrt(96 / count)
    for limit, share in ((1, 0.682689), (2, 0.954500), (3, 0.997300)):
        error = math.sqrt(share * (1 - share) / count)
        assert abs((noise.abs() < limit).double().mean() - share) < 4 * error
    assert noise.isfinite().all() and noise.abs().max() > 4.5  # among 1.4 million


def test_each_channel_is_standard_normal():
    noise = noise_at(21, 0, 0, 200, 200, seed=0)
    assert noise.mean(dim=(1, 2)).abs().max() < 4 / 200
    assert (noise.square().mean(dim=(1, 2)) - 1).abs().max() < 4 * math.sqrt(2) / 200


def test_no_two_channels_or_seeds_are_correlated():
    fields = torch.cat([noise_at(8, 0, 0, 128, 128, seed) for seed in (0, 1, 2, 3, 1000)])
    flat = fields.flatten(1).double()
    correlation = flat @ flat.T / flat.shape[1] - torch.eye(len(flat))
    correlation.fill_diagonal_(0)
    assert correlation.abs().max() < 5 / 128  # of 780 pairs


@pytest.mark.parametrize("seed", [0, 1])
def test_no_two_places_are_correlated_however_far_apart(seed):
    """The correlation with the field moved by each number of rows and columns, in one step."""
    noise = noise_at(21, 0, 0, 128, 128, seed).double()
    power = torch.fft.fft2(noise).abs().square() / 128**2
    moved = torch.fft.ifft2(power).real / 128  # of unit variance in each place but the first
    moved[:, 0, 0] = 0
    assert moved.abs().max() < 6  # of 344,000


@pytest.mark.parametrize(
    "window", [(0, 0, 5, 7), (63, 64, 3, 2), (10, 0, 1, 150), (90, 140, 10, 10)]
)
def test_windows_are_cut_out_of_one_field(window):
    top, left, height, width = window
    whole = noise_at(21, 0, 0, 100, 150, seed=5)
    part = noise_at(21, top, left, height, width, seed=5)
    assert torch.equal(part, whole[:, top : top + height, left : left + width])


def test_more_channels_leave_the_first_ones_as_they_are():
    noise = noise_at(21, 2, 3, 4, 5)
    for channels in (0, 1, 2, 4, 5, 20):
        assert torch.equal(noise_at(channels, 2, 3, 4, 5), noise[:channels])


def test_noise_is_that_of_the_published_hash():
    """pcg4d with Python's whole numbers, by the listing of Jarzynski and Olano (2020)."""
    for channel, row, column, seed in [
        (0, 0, 0, 0),
        (6, 1000, 77, 12345),
        (21, 3, 2**20, 2**32 - 1),
    ]:
        x = [(v * 1664525 + 1013904223) % 2**32 for v in (column, row, channel // 4, seed)]
        for shift in (16, 32):  # after the second round, by nothing
            for i, j, k in ((0, 1, 3), (1, 2, 0), (2, 0, 1), (3, 1, 2)):
                x[i] = (x[i] + x[j] * x[k]) % 2**32
            x = [v ^ (v >> shift) for v in x]
        pair = channel % 4 // 2 * 2
        first, second = ((v + 0.5) / 2**32 for v in x[pair : pair + 2])
        turn = (math.cos, math.sin)[channel % 2]
        expected = math.sqrt(-2 * math.log(first)) * turn(2 * math.pi * second)
        found = noise_at(channel + 1, row, column, 1, 1, seed)[channel, 0, 0]
        assert float(found) == pytest.approx(expected, rel=1e-6)


def test_seed_is_any_whole_number():
    assert torch.equal(noise_at(4, 0, 0, 3, 3, seed=-1), noise_at(4, 0, 0, 3, 3, seed=2**32 - 1))
    assert not torch.equal(noise_at(4, 0, 0, 3, 3, seed=-1), noise_at(4, 0, 0, 3, 3, seed=0))


def test_random_numbers_of_others_are_neither_asked_nor_moved():
    torch.manual_seed(1)
    np.random.seed(1)
    before, state = noise_at(4, 0, 0, 8, 8), torch.get_rng_state()
    torch.rand(3)
    np.random.rand(3)
    moved = torch.get_rng_state()
    assert torch.equal(noise_at(4, 0, 0, 8, 8), before)
    assert torch.equal(torch.get_rng_state(), moved) and not torch.equal(moved, state)


@pytest.mark.parametrize("window", [(-1, 0, 1, 1), (0, -1, 1, 1), (0, 0, -1, 1)])
def test_places_before_the_image_are_refused(window):
    with pytest.raises(ConfigurationError, match="none of these may be negative"):
        noise_at(4, *window)


def test_noise_is_made_for_networks_that_take_it():
    lr = torch.rand(2, 1, 5, 6, dtype=torch.float64)
    network = SRResNet(blocks=1, width=2, noise=True)
    (noise,) = noise_inputs(network, lr, 4, top=7, left=9)
    assert noise.shape == (2, 21, 5, 6) and noise.dtype == lr.dtype
    for image in noise:
        assert torch.equal(image, noise_at(21, 7, 9, 5, 6, 4).double())
    for other in (SRResNet(blocks=1, width=2), Interpolation()):
        assert noise_inputs(other, lr) == ()


def test_networks_without_dice_are_named():
    check_dice(SRResNet(blocks=1, width=2, noise=True))
    for network in (SRResNet(blocks=1, width=2), Interpolation()):
        with pytest.raises(ConfigurationError, match=f"This {type(network).__name__} throws no di"):
            check_dice(network)
