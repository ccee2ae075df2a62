"""Resampling, against Keys' kernel by hand, Pillow and PyTorch."""

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F

from srgan_lib import degradation
from srgan_lib.datasets import open_dataset
from srgan_lib.degradation import KERNELS, crop_to_multiple, degrade, kernel, quantise, resize
from srgan_lib.errors import ConfigurationError, ImageError

PILLOW = {
    "bilinear": PIL.Image.Resampling.BILINEAR,
    "bicubic": PIL.Image.Resampling.BICUBIC,
    "lanczos": PIL.Image.Resampling.LANCZOS,
}
SIZES = [((40, 48), (10, 12)), ((10, 12), (40, 48)), ((37, 41), (13, 50)), ((9, 9), (9, 9))]


@pytest.fixture(scope="module")
def radiograph():
    return open_dataset("sample", "train")[0][:, 600:1000, 500:980]  # (1, 400, 480)


def pillow(image, size, name):
    """Resize one channel (H, W) with Pillow in its floating-point mode."""
    kind = PILLOW.get(name, PIL.Image.Resampling.BOX)
    found = PIL.Image.fromarray(image.numpy(), "F").resize(size[::-1], kind)
    return torch.from_numpy(np.asarray(found).copy())


@pytest.mark.parametrize(
    ("x", "value"),
    [(0, 1), (0.5, 0.5625), (1, 0), (1.5, -0.0625), (2, 0), (2.5, 0), (0.25, 0.8671875)],
)
def test_bicubic_is_keys_kernel(x, value):
    # 1.5 x^3 - 2.5 x^2 + 1 up to 1, then -0.5 x^3 + 2.5 x^2 - 4 x + 2 up to 2.
    points = torch.tensor([x, -x], dtype=torch.float64)
    assert kernel("bicubic", points).tolist() == pytest.approx([value, value], abs=1e-12)


def test_the_other_kernels_have_their_known_values():
    x = torch.tensor([0, 0.25, 0.75, 1, 1.5, 2.5, 3, 3.5], dtype=torch.float64)
    assert kernel("nearest", x).tolist() == [1, 1, 0, 0, 0, 0, 0, 0]
    assert kernel("bilinear", x).tolist() == [1, 0.75, 0.25, 0, 0, 0, 0, 0]
    # sinc(1.5) sinc(0.5) = -4 / (3 pi^2), sinc(2.5) sinc(5/6) = 0.4 / pi * 0.6 sin(5 pi / 6) / pi
    known = [1, None, None, 0, -4 / (3 * np.pi**2), 0.4 / np.pi * 0.6 / np.pi, 0, 0]
    for found, value in zip(kernel("lanczos", x).tolist(), known, strict=True):
        assert value is None or found == pytest.approx(value, abs=1e-12)
    for name in ("bilinear", "lanczos"):
        torch.testing.assert_close(kernel(name, -x), kernel(name, x))


def test_what_lies_between_two_pixels_is_nearest_to_one_of_them():
    x = torch.tensor([-0.75, -0.5, -0.25, 0.5])
    assert kernel("nearest", x).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize(("n_in", "n_out"), [(40, 10), (10, 40), (37, 13), (5, 1), (1, 5), (7, 7)])
def test_rows_of_the_matrix_sum_to_one(name, antialias, n_in, n_out):
    matrix = degradation.resize_matrix(n_in, n_out, name, antialias)
    assert matrix.shape == (n_out, n_in)
    torch.testing.assert_close(matrix.sum(dim=1), torch.ones(n_out))


@pytest.mark.parametrize("name", KERNELS)
def test_same_size_is_the_identity(name):
    matrix = degradation.resize_matrix(6, 6, name)
    torch.testing.assert_close(matrix, torch.eye(6), rtol=0, atol=1e-12)


def test_resizing_is_antialiased_and_bicubic_unless_asked_otherwise():
    image = torch.rand(12, 16)
    expected = resize(image, (3, 4), "bicubic", antialias=True)
    assert torch.equal(resize(image, (3, 4)), expected)
    rows, columns = degradation.resize_matrix(12, 3), degradation.resize_matrix(16, 4)
    torch.testing.assert_close(rows @ image @ columns.T, expected)


@pytest.mark.parametrize("name", PILLOW)
@pytest.mark.parametrize(("size_in", "size_out"), SIZES)
def test_resize_agrees_with_pillow(name, size_in, size_out):
    image = torch.rand(size_in, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        resize(image, size_out, name), pillow(image, size_out, name), rtol=0, atol=2e-6
    )


@pytest.mark.parametrize(("size_in", "size_out"), [(13, 6), (19, 12), (40, 10), (10, 40)])
def test_nearest_is_pillow_s_box_also_where_a_pixel_lies_between_two(size_in, size_out):
    image = torch.rand(size_in, size_in, generator=torch.Generator().manual_seed(1))
    found = resize(image, (size_out, size_out), "nearest")
    torch.testing.assert_close(found, pillow(image, (size_out, size_out), "nearest"))


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("size_in", "size_out"), [*SIZES[:1], ((37, 41), (13, 20))])
def test_shrinking_agrees_with_pytorch_s_antialiased_interpolation(name, size_in, size_out):
    image = torch.rand(2, 3, *size_in, generator=torch.Generator().manual_seed(1))
    expected = F.interpolate(image, size_out, mode=name, antialias=True, align_corners=False)
    torch.testing.assert_close(resize(image, size_out, name), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_nearest_repeats_pixels(scale):
    image = torch.rand(2, 1, 5, 7)
    expected = image.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
    torch.testing.assert_close(resize(image, (5 * scale, 7 * scale), "nearest"), expected)


@pytest.mark.parametrize("name", PILLOW)
def test_radiograph_shrunk_in_8_bits_is_pillow_s_to_one_grey_level(radiograph, name):
    eight = (radiograph[0] * 255).round().to(torch.uint8)
    theirs = PIL.Image.fromarray(eight.numpy()).resize((120, 100), PILLOW[name])
    ours = quantise(resize(eight.float() / 255, (100, 120), name)) * 255
    difference = (ours - torch.from_numpy(np.asarray(theirs).astype(np.float32))).abs()
    assert difference.max() <= 1.001
    assert difference.mean() < 0.15  # Pillow rounds between its two passes
    assert eight.unique().numel() > 50


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("size", [(5, 6), (40, 48), (11, 50)])
def test_constant_image_stays_constant(name, size):
    found = resize(torch.full((1, 20, 24), 0.7), size, name)
    torch.testing.assert_close(found, torch.full((1, *size), 0.7), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "lanczos"])
def test_antialiasing_damps_what_the_small_image_can_not_hold(name):
    # 3 / 8 of the sampling rate: above the Nyquist frequency of an image of a quarter the size.
    stripes = torch.cos(2 * np.pi * 3 / 8 * torch.arange(256)).expand(16, 256)
    inner = slice(4, -4)
    damped = resize(stripes, (4, 64), name)[:, inner].abs().max()
    aliased = resize(stripes, (4, 64), name, antialias=False)[:, inner].abs().max()
    assert damped < 0.05
    assert aliased > 0.3


def test_resize_is_computed_in_float32_under_autocast_and_keeps_the_type():
    image = torch.rand(1, 1, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = resize(image, (64, 64))
    assert found.dtype == torch.float32
    assert torch.equal(found, resize(image, (64, 64)))
    assert resize(image.bfloat16(), (8, 8)).dtype == torch.bfloat16
    assert resize(image.double(), (8, 8)).dtype == torch.float64


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("size", [(2, 3), (9, 7)])
def test_resize_is_differentiable(name, size):
    image = torch.rand(1, 4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: resize(x, size, name), image)


def test_batches_and_channels_are_resized_one_by_one():
    images = torch.rand(2, 3, 12, 16)
    found = resize(images, (3, 4))
    torch.testing.assert_close(found[1, 2], resize(images[1, 2], (3, 4)))


def test_quantise_clamps_and_rounds_to_the_levels_of_the_bit_depth():
    x = torch.tensor([-0.2, 0.0, 0.3, 0.6, 1.0, 7.0])
    assert quantise(x, 1).tolist() == [0, 0, 0, 1, 1, 1]
    torch.testing.assert_close(quantise(x, 2) * 3, torch.tensor([0.0, 0, 1, 2, 3, 3]))
    levels = torch.arange(256) / 255
    assert torch.equal(quantise(levels), levels)
    assert quantise(torch.rand(100_000)).unique().numel() == 256


@pytest.mark.parametrize("bits", [0, 17, -1])
def test_quantise_refuses_other_bit_depths(bits):
    with pytest.raises(ConfigurationError, match="between 1 and 16"):
        quantise(torch.zeros(1), bits)


def test_crop_to_multiple_cuts_at_the_bottom_and_the_right():
    image = torch.arange(7 * 9).view(1, 7, 9)
    assert torch.equal(crop_to_multiple(image, 4), image[:, :4, :8])
    assert torch.equal(crop_to_multiple(image, 1), image)
    assert torch.equal(crop_to_multiple(image[:, :7, :7], 7), image[:, :, :7])
    with pytest.raises(ImageError, match="3 x 9 pixels is too small for scale 4"):
        crop_to_multiple(image[:, :3], 4)


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_degrade_is_bicubic_then_rounding(scale):
    hr = torch.rand(2, 1, 32, 48)
    lr = degrade(hr, scale)
    assert lr.shape == (2, 1, 32 // scale, 48 // scale)
    expected = F.interpolate(hr, lr.shape[2:], mode="bicubic", antialias=True).clamp(0, 1)
    assert (lr - expected).abs().max() <= 0.5 / 255 + 2e-6
    assert torch.equal(lr, quantise(lr))
    assert (degrade(hr, scale, bits=16) - expected).abs().max() <= 0.5 / 65535 + 2e-6


def test_degrade_of_an_edge_stays_in_range():
    hr = torch.zeros(1, 32, 32)
    hr[..., 14:] = 1
    assert resize(hr, (8, 8)).max() > 1  # bicubic overshoots
    assert degrade(hr).min() >= 0 and degrade(hr).max() <= 1


def test_degrade_refuses_sizes_that_scale_does_not_divide():
    with pytest.raises(ImageError, match=r"30 x 32 pixels can't be divided by 4.*crop_to_multiple"):
        degrade(torch.zeros(1, 30, 32))
    with pytest.raises(ConfigurationError, match="positive whole number, not 0"):
        degrade(torch.zeros(1, 32, 32), 0)


def test_impossible_sizes_and_unknown_kernels_are_refused():
    with pytest.raises(ConfigurationError, match="Can't resize 8 pixels to 0"):
        resize(torch.zeros(1, 8, 8), (0, 4))
    with pytest.raises(ValueError, match="longer"):
        resize(torch.zeros(1, 8, 8), (4, 4, 4))
    with pytest.raises(ConfigurationError, match="Did you mean 'bicubic'"):
        resize(torch.zeros(1, 8, 8), (4, 4), "bicubik")
    with pytest.raises(ConfigurationError, match="Unknown kernel"):
        kernel("box", torch.zeros(1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_resize_on_the_gpu_gives_the_cpu_s_result():
    image = torch.rand(2, 3, 40, 48)
    found = degrade(image.cuda(), bits=16)
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), degrade(image, bits=16), rtol=0, atol=2e-5)
