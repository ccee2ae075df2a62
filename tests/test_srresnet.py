"""SRResNet, against parameter counts by hand and the properties that the paper gives it."""

import pytest
import torch
from torch import nn

from srgan_lib.architectures import Interpolation, SRResNet
from srgan_lib.errors import ConfigurationError, ImageError

SMALL = {"blocks": 2, "width": 8}


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def convolution(channels_in, channels_out, side, bias):
    return channels_in * channels_out * side * side + (channels_out if bias else 0)


def by_hand(channels, stages, blocks, width, batch_norm, end):
    """Add up the parameters of figure 4; batch norm has two a channel, PReLU one in all."""
    same = convolution(width, width, 3, bias=not batch_norm) + (2 * width if batch_norm else 0)
    head = convolution(channels, width, end, True) + 1
    body = blocks * (same + 1 + same) + same
    upsample = stages * (convolution(width, 4 * width, 3, True) + 1)
    return head + body + upsample + convolution(width, channels, end, True)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("scale", "stages"), [(2, 1), (4, 2), (8, 3)])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_parameters_are_those_of_figure_4(channels, scale, stages, batch_norm):
    found = SRResNet(channels, scale, 3, 16, batch_norm=batch_norm, end_kernel=5)
    assert count(found) == by_hand(channels, stages, 3, 16, batch_norm, 5)


def test_paper_s_network_has_1_547_350_parameters():
    # Head 9*9*3*64 + 64 + 1 = 15,617. One 3 x 3 convolution with its batch norm
    # 9*64*64 + 2*64 = 36,992. A block 2*36,992 + 1 = 73,985; sixteen and the tail
    # 16*73,985 + 36,992 = 1,220,752. Two stages 2*(9*64*256 + 256 + 1) = 295,426.
    # Last 9*9*64*3 + 3 = 15,555. In sum 1,547,350.
    assert count(SRResNet(channels=3)) == 15_617 + 1_220_752 + 295_426 + 15_555 == 1_547_350


def test_grey_network_has_1_526_612_parameters():
    # Head 81*64 + 65 = 5,249 and last 81*64 + 1 = 5,185 in place of the colour ones.
    assert count(SRResNet()) == 5_249 + 1_220_752 + 295_426 + 5_185 == 1_526_612


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (12, 9)])
def test_output_is_scale_times_as_large_at_any_size(scale, channels, size):
    generator = SRResNet(channels, scale, **SMALL).eval()
    with torch.no_grad():
        found = generator(torch.rand(2, channels, *size))
    assert found.shape == (2, channels, size[0] * scale, size[1] * scale)


@pytest.mark.parametrize("options", [{}, {"batch_norm": False}, {"end_kernel": 3}])
def test_every_parameter_gets_a_gradient(options):
    generator = SRResNet(**SMALL, **options)
    generator(torch.rand(2, 1, 8, 8)).square().mean().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_output_is_not_clamped_so_values_out_of_range_have_gradients():
    generator = SRResNet(**SMALL)
    for value in (5.0, -5.0):
        nn.init.constant_(generator.last.bias, value)
        generator.zero_grad()
        sr = generator(torch.rand(1, 1, 8, 8))
        assert (sr - value).abs().max() < 4.5
        sr.mean().backward()
        assert generator.last.bias.grad.item() == pytest.approx(1)


@pytest.mark.parametrize("options", [{}, {"batch_norm": False, "end_kernel": 3}])
@pytest.mark.parametrize("scale", [2, 4])
def test_bicubic_skip_starts_exactly_at_bicubic_and_can_leave_it(options, scale):
    generator = SRResNet(1, scale, **SMALL, bicubic_skip=True, **options)
    lr = torch.rand(2, 1, 9, 11)
    sr = generator(lr)
    assert torch.equal(sr, Interpolation("bicubic", scale)(lr))
    sr.square().mean().backward()
    assert generator.last.weight.grad.abs().sum() > 0
    assert not torch.equal(SRResNet(1, scale, **SMALL)(lr), sr)


def test_long_skip_adds_what_the_head_read():
    generator = SRResNet(**SMALL).eval()
    lr = torch.rand(1, 1, 6, 6)
    with torch.no_grad():
        for block in generator.blocks:
            nn.init.zeros_(block.body[-1].weight)  # each block passes its input on
        nn.init.zeros_(generator.tail[-1].weight)  # and the tail adds nothing
        head = generator.head(lr)
        assert torch.equal(generator.blocks(head), head)
        expected = generator.last(generator.upsample(head))
        # Each value ends in a sum of 648 terms, 9 x 9 of 8 channels: sqrt(648) roundings of 6e-8.
        torch.testing.assert_close(generator(lr), expected, rtol=0, atol=2e-6)
        assert expected.std() > 1e-3


def test_pixels_depend_on_nothing_beyond_the_receptive_field():
    # In LR pixels: head 1, two blocks of two convolutions 4, tail 1; the stages at 1 and 2 times
    # the size and the last at 4 times reach 1 + 1/2 + 1/4, rounded up to 2. In sum 8.
    reach = 1 + 4 + 1 + 2
    generator = SRResNet(**SMALL, end_kernel=3).eval().double()
    lr = torch.rand(1, 1, 40, 40, dtype=torch.float64)
    with torch.no_grad():
        whole = generator(lr)
        tile = generator(lr[..., 10:34, 10:34])
        inner = slice(4 * reach, 4 * (24 - reach))
        first, last = 4 * (10 + reach), 4 * (34 - reach)
        torch.testing.assert_close(tile[..., inner, inner], whole[..., first:last, first:last])
        seam = (tile[..., :4, :4] - whole[..., 40:44, 40:44]).abs().max()
    assert seam > 1e-6  # nearer to the border than that they do


def test_sub_pixel_stage_places_channels_as_the_paper_s_shuffle():
    shuffle = next(
        m for m in SRResNet(**SMALL).upsample.modules() if isinstance(m, nn.PixelShuffle)
    )
    x = torch.arange(4.0).view(1, 4, 1, 1)
    assert shuffle(x).tolist() == [[[[0, 1], [2, 3]]]]


def test_batch_norm_can_be_left_out():
    def normalised(generator):
        return sum(isinstance(module, nn.BatchNorm2d) for module in generator.modules())

    assert normalised(SRResNet(**SMALL)) == 2 * 2 + 1
    assert normalised(SRResNet(**SMALL, batch_norm=False)) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 2}, "channels must be 1 or 3, not 2"),
        ({"scale": 3}, "scale must be 2, 4 or 8, not 3"),
        ({"scale": 16}, "scale must be 2, 4 or 8"),
        ({"blocks": 0}, r"blocks \(0\)"),
        ({"width": 0}, r"width \(0\)"),
        ({"end_kernel": 4}, "must be odd, not 4"),
        ({"end_kernel": -1}, "must be odd"),
    ],
)
def test_impossible_values_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        SRResNet(**options)


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (1, 8, 8), (8, 8)])
def test_wrong_inputs_are_refused(shape):
    with pytest.raises(ImageError, match=r"takes \(N, 1, H, W\)"):
        SRResNet(**SMALL)(torch.zeros(shape))
