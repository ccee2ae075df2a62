"""What a network costs: weights, multiplications, time and memory for one image."""

import time
from dataclasses import dataclass
from itertools import accumulate
from statistics import median

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from srgan_lib.architectures.network import SRNetwork

SIDE = 128
"""Side of the LR image that costs are measured on, in pixels."""

_ROUNDS = 5


@dataclass(frozen=True)
class Cost:
    """What it takes to enlarge one LR image of :data:`SIDE` x :data:`SIDE` pixels, in float32.

    Attributes:
        parameters: number of learned values; of a method without any, that of the values in its
            examples.
        multiply_adds: of convolutions, matrix products and attention; None for a method that
            isn't made of these.
        seconds: median of five runs, after one that isn't counted.
        memory: bytes of tensors at the most, beyond the network and the image.
    """

    parameters: int
    multiply_adds: int | None
    seconds: float
    memory: int


def measure_cost(network: nn.Module, channels: int = 1) -> Cost:
    """Return what a network costs, on the device that it is on and with torch's threads.

    Args:
        network: a generator, an interpolation, or any other module that enlarges. Its mode is
            restored.
        channels: of the image, where the network takes any number.
    """
    learned = list(network.parameters()) or list(network.buffers())
    device = learned[0].device if learned else torch.device("cpu")
    if isinstance(network, SRNetwork):
        channels = network.channels or channels
    lr = torch.rand(1, channels, SIDE, SIDE, device=device)
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            seconds = [_time(network, lr) for _ in range(_ROUNDS + 1)][1:]
            memory = _peak(network, lr)
    finally:
        network.train(was_training)
    parameters = sum(values.numel() for values in learned)
    return Cost(parameters, count_multiply_adds(network, lr), median(seconds), memory)


def count_multiply_adds(network: nn.Module, lr: torch.Tensor) -> int | None:
    """Return the multiply-adds for LR (N, C, H, W), see :class:`Cost`."""
    if not isinstance(network, SRNetwork) or not network.differentiable:
        return None
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(lr)
    return counter.get_total_flops() // 2


def _time(network: nn.Module, lr: torch.Tensor) -> float:
    started = time.perf_counter()
    network(lr)
    if lr.is_cuda:
        torch.cuda.synchronize(lr.device)
    return time.perf_counter() - started


def _peak(network: nn.Module, lr: torch.Tensor) -> int:
    """Return the bytes of tensors at the most while an image is enlarged."""
    if lr.is_cuda:
        torch.cuda.reset_peak_memory_stats(lr.device)
        before = torch.cuda.memory_allocated(lr.device)
        network(lr)
        return torch.cuda.max_memory_allocated(lr.device) - before
    # Not the process's own peak: its allocator keeps memory, so that small networks need no more.
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        network(lr)
    events = recorded.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return max(accumulate((change for _, change in changes), initial=0))
