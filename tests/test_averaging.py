"""The moving average, against sums that are written out by hand."""

import copy

import pytest
import torch
from torch import nn

from srgan_lib.architectures import SRResNet
from srgan_lib.averaging import MovingAverage, interpolate_networks
from srgan_lib.errors import ConfigurationError


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.PReLU())


def change(network, seed):
    """Give every weight and every running statistic another value."""
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=chance))
            else:
                value.add_(seed)


def copies(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("decay", [0.0, 0.15, 0.5, 0.9])
def test_average_is_the_one_computed_by_hand_buffers_included(network, decay):
    average = MovingAverage(network, decay)
    expected = copies(network)
    for step in range(5):
        change(network, step + 1)
        average.update(network)
        kept = min(decay, (1 + step) / (10 + step))  # 0.1, 2 / 11, 3 / 12, ...
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                expected[name] = kept * expected[name] + (1 - kept) * value
            else:
                expected[name] = value.clone()
    found = average.network.state_dict()
    assert {"1.running_mean", "1.running_var", "1.num_batches_tracked"} <= set(found)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=name)
    assert found["1.num_batches_tracked"] == 1 + 2 + 3 + 4 + 5


def test_average_leaves_its_start_behind_early_and_keeps_much_later(network):
    average = MovingAverage(network, 0.99)
    shares = []
    for _ in range(1200):
        with torch.no_grad():
            average.network[0].bias.fill_(1)
            network[0].bias.fill_(0)
        average.update(network)
        shares.append(average.network[0].bias[0].item())
    assert shares[0] == pytest.approx(0.1) and shares[90] == pytest.approx(91 / 100)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(0.99)


def test_network_that_rests_is_its_own_average(network):
    average = MovingAverage(network)
    for _ in range(3):
        average.update(network)
    for name, value in average.network.state_dict().items():
        torch.testing.assert_close(value, network.state_dict()[name])


def test_average_is_in_evaluation_mode_without_gradients_and_the_network_stays_as_it_was(network):
    average = MovingAverage(network.train())
    average.update(network)
    assert not any(module.training for module in average.network.modules())
    assert not any(parameter.requires_grad for parameter in average.network.parameters())
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_average_shares_no_memory_with_the_network(network):
    average = MovingAverage(network)
    mine = {value.data_ptr() for value in average.network.state_dict().values()}
    assert mine.isdisjoint(value.data_ptr() for value in network.state_dict().values())
    before = copies(average.network)
    change(network, 3)
    assert all(torch.equal(value, before[n]) for n, value in average.network.state_dict().items())


def test_update_works_in_the_middle_of_training(network):
    average = MovingAverage(network)
    loss = network(torch.rand(2, 1, 8, 8)).mean()
    average.update(network)
    loss.backward()  # nothing that the graph needs was changed
    assert network[0].weight.grad is not None
    assert average.network[0].weight.grad is None


def test_state_goes_on_where_it_was(network):
    one = MovingAverage(network, 0.9)
    for seed in range(4):
        change(network, seed)
        one.update(network)
    state = copy.deepcopy(one.state_dict())
    other = MovingAverage(network, 0.9)
    other.load_state_dict(state)
    assert other.steps == 4
    for seed in range(4, 7):
        change(network, seed)
        one.update(network)
        other.update(network)
    found, expected = copies(other.network), copies(one.network)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    # and the state that was taken is a picture of that moment
    assert state["steps"] == 4 and not torch.equal(state["network"]["0.bias"], found["0.bias"])


def test_memory_layout_is_the_network_s():
    network = SRResNet(blocks=1, width=4).to(memory_format=torch.channels_last)
    average = MovingAverage(network)
    average.update(network)
    weight = average.network.head[0].weight
    assert weight.stride() == network.head[0].weight.stride()


@pytest.mark.parametrize("decay", [-0.1, 1, 2, float("nan")])
def test_impossible_decay_is_refused(network, decay):
    with pytest.raises(ConfigurationError, match="decay must be from 0"):
        MovingAverage(network, decay)


def test_interpolated_network_lies_on_the_line_between_two():
    torch.manual_seed(0)
    first, second = (nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)) for _ in range(2))
    second(torch.rand(4, 1, 8, 8))  # moves batch norm's statistics
    before = {name: value.clone() for name, value in second.state_dict().items()}
    between = interpolate_networks(first, second, 0.75)
    assert not between.training
    assert not any(parameter.requires_grad for parameter in between.parameters())
    for name, value in between.state_dict().items():
        if value.is_floating_point():
            expected = 0.25 * first.state_dict()[name] + 0.75 * before[name]
            torch.testing.assert_close(value, expected)
        assert torch.equal(second.state_dict()[name], before[name])
    x = torch.rand(1, 1, 8, 8)
    for share, end in ((0, first), (1, second)):
        expected = end.eval()(x)
        torch.testing.assert_close(interpolate_networks(first, second, share)(x), expected)


def test_impossible_interpolations_are_refused():
    first, second = nn.Linear(1, 2), nn.Linear(2, 2)
    with pytest.raises(ConfigurationError, match="of the same form"):
        interpolate_networks(first, second, 0.5)
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigurationError, match="share must be from 0 to 1"):
            interpolate_networks(first, first, share)
