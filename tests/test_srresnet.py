"""SRResNet, against parameter counts by hand and the properties that the paper gives it."""

import pytest
import torch
from torch import nn

from srgan_lib.architectures import Interpolation, SRResNet
from srgan_lib.checkpoints import load_weights, save_weights
from srgan_lib.errors import ConfigurationError, ImageError, WeightsError

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
        ({"blocks": 0}, "blocks must be positive, not 0"),
        ({"width": 0}, "width must be positive, not 0"),
        ({"end_kernel": 4}, "must be odd, not 4"),
        ({"end_kernel": -1}, "end_kernel must be positive"),
    ],
)
def test_impossible_values_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        SRResNet(**options)


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (1, 8, 8), (8, 8)])
def test_wrong_inputs_are_refused(shape):
    with pytest.raises(ImageError, match=r"takes \(N, 1, H, W\)"):
        SRResNet(**SMALL)(torch.zeros(shape))


# Noise inputs


def dice(gain=0.1, **options):
    """Return a network whose noise inputs have been trained: their gains are not zero."""
    torch.manual_seed(0)
    generator = SRResNet(**(SMALL | {"noise": True} | options))
    for place in generator.noise:
        nn.init.normal_(place.gain.weight, std=gain)
        nn.init.normal_(place.gain.bias, std=gain)
    return generator


def noise_for(generator, lr, throws=1, seed=0):
    chance = torch.Generator().manual_seed(seed)
    size = (throws * len(lr), generator.noise_channels, *lr.shape[2:])
    return torch.randn(size, generator=chance, dtype=lr.dtype)


def test_each_noise_input_has_one_convolution_of_1_x_1():
    # 64*64 + 64 = 4,160 after the long skip and after each of two stages
    assert count(SRResNet(noise=True)) - count(SRResNet()) == 3 * (64 * 64 + 64) == 12_480
    for scale, inputs in ((2, 2), (4, 3), (8, 4)):
        found = SRResNet(1, scale, **SMALL, noise=True)
        assert count(found) - count(SRResNet(1, scale, **SMALL)) == inputs * (8 * 8 + 8)
        assert found.noise_channels == sum(4**i for i in range(inputs))
    assert SRResNet(**SMALL).noise_channels == 0


@pytest.mark.parametrize("options", [{}, {"batch_norm": False, "bicubic_skip": True}])
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_noise_inputs_start_at_nothing_and_take_old_weights(tmp_path, scale, options):
    torch.manual_seed(0)
    old = SRResNet(1, scale, **SMALL, **options)
    nn.init.normal_(old.last.weight, std=0.1)
    old(torch.rand(4, 1, 8, 8))  # moves batch norm's statistics
    save_weights(old, tmp_path / "old.safetensors")
    new = dice(scale=scale, **options)
    load_weights(new, tmp_path / "old.safetensors")
    lr = torch.rand(2, 1, 9, 7)
    with torch.no_grad():
        expected = old.eval()(lr)
        assert expected.std() > 0.01
        assert torch.equal(new.eval()(lr), expected)
        assert torch.equal(new(lr, 5 * noise_for(new, lr)), expected)


def test_weights_with_noise_are_refused_by_a_network_without(tmp_path):
    save_weights(dice(), tmp_path / "new.safetensors")
    with pytest.raises(WeightsError, match=r"it holds noise\.[0-2]\.gain"):
        load_weights(SRResNet(**SMALL), tmp_path / "new.safetensors")


@pytest.mark.parametrize("scale", [2, 4])
def test_flat_lr_becomes_a_pattern_that_repeats_unless_dice_are_thrown(scale):
    lr = torch.full((1, 1, 40, 40), 0.5, dtype=torch.float64)
    inner = slice(16 * scale, 24 * scale)  # away from what zeros around the image lead to

    def repeats(generator):
        with torch.no_grad():
            sr = generator.double().eval()(lr)
        part = sr[..., inner, inner]
        moved = (sr.roll(scale, axis)[..., inner, inner] for axis in (-2, -1))
        assert part.std() > 1e-4  # a pattern there is
        return all((part - other).abs().max() < 1e-9 for other in moved)

    torch.manual_seed(0)
    assert repeats(SRResNet(1, scale, **SMALL))
    assert not repeats(dice(scale=scale))


def test_throws_of_one_call_are_those_of_single_calls_and_share_the_trunk():
    generator = dice(batch_norm=True).eval().double()
    lr = torch.rand(3, 1, 6, 5, dtype=torch.float64)
    noise = noise_for(generator, lr, throws=4)
    seen = []
    for part in (generator.head, generator.blocks, generator.tail):
        part.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    with torch.no_grad():
        together = generator(lr, noise)
        assert seen == [3, 3, 3]
        alone = torch.cat([generator(lr, part) for part in noise.chunk(4)])
    assert together.shape == (12, 1, 24, 20)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)
    first, second = together[0], together[3]  # of the same LR image
    assert (first - second).std() > 1e-3


def test_each_noise_map_lies_where_its_channels_say():
    """Noise in one LR pixel moves SR around that pixel, and each channel only its own part."""
    generator = dice().eval().double()
    lr = torch.rand(1, 1, 24, 24, dtype=torch.float64)
    none = torch.zeros(1, 21, 24, 24, dtype=torch.float64)
    with torch.no_grad():
        silent = generator(lr, none)
        for channel, reach in ((0, 10), (1, 6), (4, 6), (5, 4), (20, 4)):
            spot = none.clone()
            spot[0, channel, 10, 14] = 1
            moved = (generator(lr, spot) - silent).abs().amax(dim=(0, 1)) > 0
            rows, columns = moved.any(dim=1).nonzero(), moved.any(dim=0).nonzero()
            for found, place in ((rows, 40), (columns, 56)):
                assert place - reach <= found.min() and found.max() < place + 4 + reach, channel
        # of the finest noise, channel 4 + 4 y + x is row y, column x of the cell
        spot = none.clone()
        spot[0, 4 + 1 + 4 * 2 + 3, 10, 14] = 1
        moved = (generator(lr, spot) - silent).abs().amax(dim=(0, 1))
        assert divmod(int(moved.argmax()), 96)[0] in range(38, 47)
        rows, columns = (moved > 0).any(dim=1).nonzero(), (moved > 0).any(dim=0).nonzero()
        assert (rows.min() + rows.max()) / 2 == 40 + 2
        assert (columns.min() + columns.max()) / 2 == 56 + 3


def test_noise_is_torch_s_own_and_normal_unless_given():
    generator = dice().eval()
    lr = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        torch.manual_seed(3)
        drawn = generator(lr)
        torch.manual_seed(3)
        noise = torch.randn(2, 21, 8, 8)
        assert torch.equal(generator(lr, noise), drawn)
        assert not torch.equal(generator(lr), drawn)


@pytest.mark.parametrize(
    "shape", [(2, 20, 8, 8), (2, 21, 8, 7), (3, 21, 8, 8), (0, 21, 8, 8), (2, 21, 32, 32), (21,)]
)
def test_noise_of_a_wrong_shape_is_refused(shape):
    with pytest.raises(ImageError, match=r"is \(K 2, 21, 8, 8\), not \("):
        dice()(torch.rand(2, 1, 8, 8), torch.zeros(shape))


def test_noise_for_a_network_without_dice_is_refused():
    with pytest.raises(ImageError, match=r"\(K 2, 0, 8, 8\), not \(2, 21, 8, 8\)"):
        SRResNet(**SMALL)(torch.rand(2, 1, 8, 8), torch.randn(2, 21, 8, 8))


def test_gradients_reach_each_gain_from_its_start_on():
    generator = SRResNet(**SMALL, noise=True)
    generator(torch.rand(2, 1, 8, 8)).square().mean().backward()
    gains = [p for place in generator.noise for p in place.parameters()]
    assert len(gains) == 6
    assert all(p.abs().sum() == 0 and p.grad.abs().sum() > 0 for p in gains)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_throws_the_same_dice(dtype):
    generator = dice(batch_norm=False, bicubic_skip=True, end_kernel=3).eval()
    nn.init.normal_(generator.last.weight, std=0.05)
    lr = torch.rand(2, 1, 8, 8)
    noise = noise_for(generator, lr, throws=2)
    with torch.no_grad():
        exact = generator(lr, noise)
        with torch.autocast("cpu", dtype):
            inside = generator(lr, noise)
        whole = generator.to(dtype)(lr.to(dtype), noise)
        alone = generator(lr.to(dtype))  # draws its own
    assert whole.dtype == alone.dtype == dtype
    for found in (inside, whole):
        assert found.shape == exact.shape
        torch.testing.assert_close(found.float(), exact, rtol=0, atol=0.05)
    assert (exact.chunk(2)[0] - exact.chunk(2)[1]).std() > 0.01


def test_pixels_with_dice_depend_on_nothing_beyond_the_receptive_field():
    generator = dice(end_kernel=3, batch_norm=False).eval().double()
    radius = generator.receptive_radius
    assert radius == SRResNet(**SMALL, end_kernel=3).receptive_radius == 8
    lr = torch.rand(1, 1, 40, 40, dtype=torch.float64)
    noise = noise_for(generator, lr)
    with torch.no_grad():
        whole = generator(lr, noise)
        tile = generator(lr[..., 10:34, 10:34], noise[..., 10:34, 10:34])
    inner = slice(4 * radius, 4 * (24 - radius))
    first, last = 4 * (10 + radius), 4 * (34 - radius)
    torch.testing.assert_close(tile[..., inner, inner], whole[..., first:last, first:last])
    assert (tile[..., :4, :4] - whole[..., 40:44, 40:44]).abs().max() > 1e-6
