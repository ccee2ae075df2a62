"""The discriminators, against parameter counts by hand and the paper's own form."""

import pytest
import torch
from torch import nn

from srgan_lib.architectures import Discriminator, Interpolation, PatchDiscriminator
from srgan_lib.degradation import degrade, quantise
from srgan_lib.errors import ConfigurationError, ImageError


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_paper_s_network_has_the_parameters_of_figure_4():
    # First convolution 9*3*64 + 64 = 1,792. The seven others, without bias, 9 times
    # 64*64 + 64*128 + 128*128 + 128*256 + 256*256 + 256*512 + 512*512 = 520,192, so 4,681,728;
    # their batch norms 2 * (64 + 2*128 + 2*256 + 2*512) = 3,712.
    # Dense 6*6*512*1024 + 1024 = 18,875,392 and 1024 + 1 = 1,025. In sum 23,563,649.
    found = Discriminator(channels=3)
    assert count(found.features) == 1_792 + 4_681_728 + 3_712
    assert count(found) == 1_792 + 4_681_728 + 3_712 + 18_875_392 + 1_025 == 23_563_649


def test_grey_network_with_global_pooling_has_18_million_parameters_fewer():
    # 9*64 + 64 = 640 in place of 1,792; dense 512*1024 + 1024 = 525,312 in place of 18,875,392.
    assert count(Discriminator(grid=1)) == 640 + 4_681_728 + 3_712 + 525_312 + 1_025 == 5_212_417
    assert count(Discriminator()) - count(Discriminator(grid=1)) == 35 * 512 * 1024


def test_layers_follow_the_paper():
    layers = list(Discriminator(channels=3).features)
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert [c.stride[0] for c in convolutions] == [1, 2, 1, 2, 1, 2, 1, 2]
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in layers) == 7
    assert [type(layer) for layer in layers[:3]] == [nn.Conv2d, nn.LeakyReLU, nn.Conv2d]
    assert {x.negative_slope for x in layers if isinstance(x, nn.LeakyReLU)} == {0.2}
    dense = list(Discriminator().classifier)
    assert [type(layer) for layer in dense[1:]] == [nn.Linear, nn.LeakyReLU, nn.Linear]
    assert dense[2].negative_slope == 0.2


@pytest.mark.parametrize("grid", [1, 2, 6])
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 96), (130, 40)])
def test_any_size_from_32_up_gives_one_logit_an_image(grid, size):
    discriminator = Discriminator(width=4, grid=grid)
    assert discriminator(torch.rand(3, 1, *size)).shape == (3, 1)


def test_at_96_the_network_is_the_paper_s_flattening_one():
    discriminator = Discriminator(width=4).eval()
    images = torch.rand(2, 1, 96, 96)
    with torch.no_grad():
        features = discriminator.features(images)
        assert features.shape == (2, 32, 6, 6)
        assert torch.equal(discriminator.pool(features), features)
        dense, activation, last = discriminator.classifier[1:]
        flattened = last(activation(dense(features.reshape(2, -1))))
        torch.testing.assert_close(discriminator(images), flattened)


def test_logits_are_not_squeezed_into_0_to_1():
    discriminator = Discriminator(width=4, grid=1).eval()
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        for value in (50.0, -50.0):
            discriminator.classifier[-1].bias.fill_(value)
            assert ((discriminator(images) - value).abs() < 40).all()
    assert not any(isinstance(module, nn.Sigmoid) for module in discriminator.modules())


def test_every_parameter_and_the_image_get_a_gradient():
    discriminator = Discriminator(channels=3, width=4, grid=2)
    images = torch.rand(2, 3, 40, 40, requires_grad=True)
    discriminator(images).square().sum().backward()
    assert images.grad.abs().sum() > 0
    for name, parameter in discriminator.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("options", [{"channels": 2}, {"width": 0}, {"grid": 0}, {"grid": -1}])
def test_impossible_values_are_refused(options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        Discriminator(**options)


@pytest.mark.parametrize("shape", [(1, 1, 31, 64), (1, 1, 64, 31), (1, 3, 64, 64), (1, 64, 64)])
def test_wrong_inputs_are_refused(shape):
    with pytest.raises(ImageError, match=r"takes \(N, 1, H, W\) with H and W from 32 up"):
        Discriminator(width=4)(torch.zeros(shape))


# The discriminator of patches


def judged(channels=1, count=3, size=(64, 96), scale=4, seed=0):
    """Return images as a file holds them, and their LR images."""
    chance = torch.Generator().manual_seed(seed)
    images = quantise(torch.rand(count, channels, *size, generator=chance))
    return images, degrade(images, scale)


def test_patch_discriminator_has_the_parameters_counted_by_hand():
    # Convolutions 9 times 2*32 + 32*32 + 32*64 + 64*64 + 64*128 + 128*128 + 128*256 + 256*256
    # = 130,112, so 1,171,008, and biases 2 * (32 + 64 + 128 + 256) = 960; the 1 x 1 ones
    # 256*256 + 256 = 65,792 and 256 + 1 = 257. In sum 1,238,017.
    assert count(PatchDiscriminator()) == 1_171_008 + 960 + 65_792 + 257 == 1_238_017
    # In colour the first reads six channels: 9*4*32 = 1,152 more.
    assert count(PatchDiscriminator(channels=3)) == 1_238_017 + 1_152
    assert not any(isinstance(m, nn.BatchNorm2d) for m in PatchDiscriminator(width=4).modules())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("scale", "size", "logits"),
    [(4, (32, 32), (2, 2)), (4, (96, 64), (6, 4)), (2, (34, 50), (3, 4)), (8, (40, 104), (3, 7))],
)
def test_there_is_a_logit_for_each_16_x_16_pixels(channels, scale, size, logits):
    judge = PatchDiscriminator(channels, width=4, scale=scale)
    images, lr = judged(channels, 2, size, scale)
    assert judge(images, lr).shape == (2, 1, *logits)


def test_a_logit_depends_on_61_x_61_pixels():
    judge = PatchDiscriminator(width=4).double()
    images, lr = (x.double() for x in judged(count=1, size=(160, 160)))
    images.requires_grad_()
    judge(images, lr)[0, 0, 5, 4].backward()
    rows, columns = (images.grad[0, 0].abs().sum(dim=dim).nonzero() for dim in (1, 0))
    assert rows.max() - rows.min() + 1 == columns.max() - columns.min() + 1 == 61
    assert (rows.min() + rows.max()) / 2 == 80 and (columns.min() + columns.max()) / 2 == 64


def test_weights_start_as_he_et_al_have_it():
    torch.manual_seed(0)
    for name, layer in PatchDiscriminator(width=32).named_modules():
        if isinstance(layer, nn.Conv2d):
            seen = layer.in_channels * layer.kernel_size[0] ** 2
            expected = (2 / (1 + 0.2**2) / seen) ** 0.5
            samples = layer.weight.numel()
            assert layer.weight.std().item() == pytest.approx(expected, rel=5 / samples**0.5), name
            assert layer.bias.abs().sum() == 0


def test_logits_vary_from_the_start_where_the_framework_s_weights_let_nothing_through():
    images, lr = judged(count=8)
    smooth = Interpolation("bicubic")(lr)

    def spread(judge):
        with torch.no_grad():
            return judge(torch.cat([images, smooth]), torch.cat([lr, lr])).std().item()

    found, default = [], []
    for seed in range(3):
        torch.manual_seed(seed)
        judge = PatchDiscriminator(width=16)
        found.append(spread(judge))
        for layer in judge.modules():
            if isinstance(layer, nn.Conv2d):
                layer.reset_parameters()
        default.append(spread(judge))
    assert min(found) > 0.5
    assert min(found) > 20 * max(default)


def test_it_judges_an_image_by_its_lr_image():
    torch.manual_seed(0)
    judge = PatchDiscriminator(width=8)
    images, lr = judged(count=2, size=(32, 32))
    with torch.no_grad():
        own, exchanged = judge(images, lr), judge(images, lr.flip(0))
    assert (own - exchanged).abs().min() > 0.01


def test_what_is_added_to_bicubic_is_shown_30_times_larger():
    judge = PatchDiscriminator(width=4)
    seen = []
    judge.features.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    images, lr = judged(count=2)
    judge(images, lr)
    torch.testing.assert_close(seen[0][:, :1], 2 * images - 1)
    torch.testing.assert_close(seen[0][:, 1:], 30 * (images - Interpolation("bicubic")(lr)))


def test_fractions_of_a_grey_level_are_hidden_and_their_gradients_pass():
    torch.manual_seed(0)
    judge = PatchDiscriminator(width=8).double()
    images, lr = (x.double() for x in judged(count=1, size=(32, 32)))
    chance = torch.Generator().manual_seed(1)
    off = 0.49 / 255 * (2 * torch.rand(images.shape, generator=chance, dtype=torch.float64) - 1)
    between = (images.clamp(0.1, 0.9) * 255).round() / 255
    moved = (between + off).requires_grad_()
    stored = between.clone().requires_grad_()
    found, expected = judge(moved, lr), judge(stored, lr)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    found.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(moved.grad, stored.grad)
    assert moved.grad.abs().sum() > 0
    assert (judge(between + 2 / 255, lr) - expected).abs().max() > 1e-3  # levels are seen
    with torch.no_grad():  # and 16 bits tell what 8 hide
        deep = PatchDiscriminator(width=8, bits=16).double()
        assert (deep(moved, lr) - deep(stored, lr)).abs().max() > 1e-3


def test_values_out_of_range_look_like_black_and_white_and_still_have_gradients():
    judge = PatchDiscriminator(width=4)
    images, lr = judged(count=1, size=(32, 32))
    beyond = torch.where(images < 0.5, -0.2, 1.3).requires_grad_()
    found = judge(beyond, lr)
    torch.testing.assert_close(found, judge(beyond.detach().clamp(0, 1), lr), rtol=1e-4, atol=1e-4)
    found.sum().backward()
    assert (beyond.grad != 0).float().mean() > 0.9


def test_logits_of_an_image_do_not_depend_on_its_batch():
    torch.manual_seed(0)
    judge = PatchDiscriminator(width=8).train()
    images, lr = judged()
    with torch.no_grad():
        alone = torch.cat([judge(images[i : i + 1], lr[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(judge(images, lr), alone)


def test_every_parameter_of_the_patch_discriminator_gets_a_gradient():
    judge = PatchDiscriminator(channels=3, width=4)
    images, lr = judged(3, 2)
    judge(images.requires_grad_(), lr).square().sum().backward()
    assert images.grad.abs().sum() > 0
    for name, parameter in judge.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    "options",
    [{"channels": 2}, {"width": 0}, {"width": 2000}, {"scale": 0}, {"bits": 0}, {"bits": 17}],
)
def test_impossible_values_of_the_patch_discriminator_are_refused(options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        PatchDiscriminator(**options)


@pytest.mark.parametrize("shape", [(1, 1, 31, 64), (1, 1, 64, 31), (1, 3, 64, 64), (1, 64, 64)])
def test_images_that_are_no_patch_are_refused(shape):
    with pytest.raises(ImageError, match=r"takes \(N, 1, H, W\) with H and W from 32 up"):
        PatchDiscriminator(width=4)(torch.zeros(shape), torch.zeros(1, 1, 16, 16))


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (2, 1, 8, 7), (2, 3, 8, 8), (2, 1, 16, 16)])
def test_lr_of_other_images_is_refused(shape):
    with pytest.raises(ImageError, match=r"at scale 4 are \(2, 1, 8, 8\), not "):
        PatchDiscriminator(width=4)(torch.zeros(2, 1, 32, 32), torch.zeros(shape))
