"""The interpolation baselines: called like a generator, equal to Pillow."""

import numpy as np
import PIL.Image
import pytest
import torch

from srgan_lib.architectures import Interpolation
from srgan_lib.degradation import KERNELS
from srgan_lib.errors import ConfigurationError


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
def test_output_is_scale_times_as_large_at_any_size(kernel, scale):
    found = Interpolation(kernel, scale)(torch.rand(2, 3, 5, 7))
    assert found.shape == (2, 3, 5 * scale, 7 * scale)


@pytest.mark.parametrize("kernel", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_enlarging_agrees_with_pillow(kernel):
    lr = torch.rand(9, 11, generator=torch.Generator().manual_seed(0))
    method = PIL.Image.Resampling[kernel.upper()]
    expected = np.asarray(PIL.Image.fromarray(lr.numpy(), "F").resize((44, 36), method))
    found = Interpolation(kernel)(lr[None, None])[0, 0]
    torch.testing.assert_close(found, torch.from_numpy(expected.copy()), rtol=0, atol=2e-6)


def test_there_is_nothing_to_learn_and_the_name_can_be_read():
    baseline = Interpolation("lanczos", 2)
    assert list(baseline.parameters()) == [] and baseline.state_dict() == {}
    assert "lanczos, scale=2" in repr(baseline)


def test_output_is_not_clamped():
    edge = torch.zeros(1, 1, 8, 8)
    edge[..., 4:] = 1
    found = Interpolation("bicubic")(edge)
    assert found.max() > 1.01 and found.min() < -0.01


def test_unknown_kernels_and_impossible_scales_are_refused():
    with pytest.raises(ConfigurationError, match="Did you mean 'lanczos'"):
        Interpolation("lanczoz")
    with pytest.raises(ConfigurationError, match="positive whole number, not 0"):
        Interpolation(scale=0)
