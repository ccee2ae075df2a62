"""What a network costs, against counts by hand."""

import pytest
import torch
from torch import nn

from srgan_lib.architectures import SRCNN, Interpolation, SwinIR
from srgan_lib.cost import SIDE, measure_cost

BICUBIC = 4 * SIDE * SIDE * SIDE + 4 * SIDE * SIDE * 4 * SIDE  # rows, then columns


def test_bicubic_has_two_matrix_products_and_learns_nothing():
    cost = measure_cost(Interpolation("bicubic"))
    assert (cost.parameters, cost.multiply_adds) == (0, BICUBIC)
    assert cost.seconds > 0


def test_srcnn_uses_each_weight_once_a_pixel_of_sr():
    network = SRCNN(widths=(2, 3))
    weights = 81 * 2 + 2 * 3 + 25 * 3
    cost = measure_cost(network)
    assert cost.parameters == weights + 2 + 3 + 1
    assert cost.multiply_adds == BICUBIC + weights * (4 * SIDE) ** 2


def test_attention_is_counted_along_with_linear_layers_and_convolutions():
    width, window, pixels = 8, 4, SIDE**2
    network = SwinIR(width=width, depths=(2,), heads=2, window=window)
    convolutions = 9 * (width + 2 * width**2 + 16 * width)
    linear = 2 * (3 * width**2 + width**2 + 2 * 2 * width**2)
    attention = 2 * 2 * window**2 * width  # a layer multiplies queries by keys, then values
    assert measure_cost(network).multiply_adds == pixels * (convolutions + linear + attention)


class Holding(nn.Module):
    """Hold some float32 images of the size of SR at once, then one."""

    def __init__(self, copies):
        super().__init__()
        self.copies = copies
        self.register_buffer("example", torch.zeros(7))

    def forward(self, lr):
        assert not self.training
        return torch.empty(self.copies, 1, 4 * SIDE, 4 * SIDE).mul_(2)[:1].clone()


@pytest.mark.parametrize("copies", [3, 50])
def test_memory_is_that_of_all_tensors_at_once(copies):
    network = Holding(copies)
    cost = measure_cost(network)
    image = 4 * (4 * SIDE) ** 2  # bytes
    assert cost.memory == pytest.approx((copies + 1) * image, abs=4096)
    assert network.training  # its mode is restored
    assert (cost.parameters, cost.multiply_adds) == (7, None)
