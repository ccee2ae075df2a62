"""The discriminator, against parameter counts by hand and the paper's own form."""

import pytest
import torch
from torch import nn

from srgan_lib.architectures import Discriminator
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
