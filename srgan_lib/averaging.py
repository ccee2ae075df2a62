"""Means of weights: along a run, which is what gets evaluated, and between two networks."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from srgan_lib.errors import ConfigurationError


class MovingAverage:
    """Follow a network's weights with an exponential moving average.

    The weights of a generator that plays against a discriminator never come to rest; their
    average does. Batch norm's running statistics are averaged along with the weights, since they
    belong to them. Early on the average forgets faster, so that it leaves its start behind.

    Args:
        network: the network to follow.
        decay: share of the average that a step keeps, at most; from 0 up to, not including, 1.

    Attributes:
        network: a copy of the network, in evaluation mode, that holds the average.
        steps: number of updates so far.

    Raises:
        ConfigurationError: a decay out of range.
    """

    def __init__(self, network: nn.Module, decay: float = 0.99) -> None:
        if not 0 <= decay < 1:
            raise ConfigurationError(f"decay must be from 0 up to, not including, 1, not {decay}.")
        self.decay, self.steps = decay, 0
        self.network = copy.deepcopy(network).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take one step towards the network's present weights."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        average, present = _values(self.network), _values(network)
        floating = [i for i, value in enumerate(average) if value.is_floating_point()]
        torch._foreach_lerp_(
            [average[i] for i in floating], [present[i] for i in floating], 1 - decay
        )
        for i in set(range(len(average))) - set(floating):
            average[i].copy_(present[i])  # batch norm counts its batches in an integer
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the average and the number of steps."""
        return {"network": self.network.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self.steps = state["steps"]


@torch.no_grad()
def interpolate_networks(first: nn.Module, second: nn.Module, share: float) -> nn.Module:
    """Return the network on the line between two, weight by weight.

    A GAN-trained generator and the PSNR-trained one that it started from lie close enough to each
    other for all networks between them to work: they trade texture for fidelity (Wang et al.
    2018, section 3.4).

    Args:
        first: the network at a share of 0.
        second: the network at a share of 1, of the same form.
        share: from 0 to 1; alpha in the paper.

    Returns:
        A new network in evaluation mode, on the second one's device.

    Raises:
        ConfigurationError: a share out of range, or networks of different form.
    """
    if not 0 <= share <= 1:
        raise ConfigurationError(f"share must be from 0 to 1, not {share}.")
    shapes = [{name: v.shape for name, v in n.state_dict().items()} for n in (first, second)]
    if shapes[0] != shapes[1]:
        raise ConfigurationError("Only networks of the same form can be interpolated.")
    between = copy.deepcopy(second).requires_grad_(False).eval()
    for value, start in zip(_values(between), _values(first), strict=True):
        if value.is_floating_point():
            value.copy_(torch.lerp(start.to(value), value, share))
    return between


def _values(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
