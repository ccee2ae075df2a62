"""Ensembles and their judges, against values that can be worked out by hand."""

import pytest
import torch
from torch import nn

from srgan_lib.errors import ConfigurationError, ImageError
from srgan_lib.uncertainty import ensemble, in_squares, rank_correlation, sparsification


class Constant(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, lr):
        return torch.full((*lr.shape[:2], 4 * lr.shape[2], 4 * lr.shape[3]), self.value)


def test_ensemble_gives_mean_and_standard_deviation():
    mean, spread = ensemble([Constant(51 / 255), Constant(153 / 255)], torch.rand(1, 3, 5))
    assert mean.shape == spread.shape == (1, 12, 20)
    torch.testing.assert_close(mean, torch.full_like(mean, 102 / 255))
    torch.testing.assert_close(spread, torch.full_like(spread, 51 / 255))


def test_one_network_is_no_ensemble():
    with pytest.raises(ConfigurationError, match="two networks or more, not 1"):
        ensemble([Constant(0.5)], torch.rand(1, 3, 5))


def test_rank_correlation_sees_order_only():
    values = torch.arange(1.0, 13.0).view(1, 3, 4)
    assert rank_correlation(values, values**3) == pytest.approx(1)
    assert rank_correlation(values, -values) == pytest.approx(-1)
    chance = torch.Generator().manual_seed(0)
    pair = torch.rand(2, 1, 100, 100, generator=chance)
    assert abs(rank_correlation(*pair)) < 0.03


def test_sparsification_by_hand():
    error = torch.tensor([4.0, 3.0, 2.0, 1.0])
    curve, oracle, ause = sparsification(torch.tensor([3.0, 4.0, 1.0, 2.0]), error, steps=4)
    # All: 2.5. Without the 3: 7 / 3. Without the 4: 1.5. Only the 2 is left.
    assert curve.tolist() == pytest.approx([1, 7 / 7.5, 0.6, 0.8])
    assert oracle.tolist() == pytest.approx([1, 0.8, 0.6, 0.4])
    assert ause == pytest.approx((7 / 7.5 - 0.8 + 0.4) / 4)


def test_perfect_uncertainty_costs_nothing_and_chance_stays_at_one():
    error = torch.rand(1, 200, 200, generator=torch.Generator().manual_seed(0))
    assert sparsification(error, error)[2] == 0
    chance = torch.rand(1, 200, 200, generator=torch.Generator().manual_seed(1))
    assert sparsification(chance, error)[0].tolist() == pytest.approx([1] * 20, abs=0.03)


def test_squares_hold_means():
    values = torch.arange(30.0).view(1, 5, 6)
    assert in_squares(values, 2).tolist() == [[[3.5, 5.5, 7.5], [15.5, 17.5, 19.5]]]
    assert torch.equal(in_squares(values, 1), values)


def test_what_can_not_be_judged_is_refused():
    with pytest.raises(ImageError, match="one shape"):
        rank_correlation(torch.rand(1, 4, 4), torch.rand(1, 4, 5))
    with pytest.raises(ImageError, match="one shape"):
        sparsification(torch.rand(1, 4, 4), torch.rand(1, 4, 5))
    with pytest.raises(ImageError, match="nowhere negative"):
        sparsification(torch.rand(1, 8, 8), -torch.rand(1, 8, 8))
    with pytest.raises(ImageError, match="not all 0"):
        sparsification(torch.rand(1, 8, 8), torch.zeros(1, 8, 8))
    with pytest.raises(ConfigurationError, match="steps must be from 2 to 16, not 20"):
        sparsification(torch.rand(1, 4, 4), torch.rand(1, 4, 4))
