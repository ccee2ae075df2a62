"""What LR determines and what it leaves open, against linear algebra on small images."""

import pytest
import torch

from srgan_lib.architectures import Interpolation
from srgan_lib.consistency import explained_detail, measured_part, open_part, project
from srgan_lib.datasets import open_dataset
from srgan_lib.degradation import crop_to_multiple, degrade, quantise, resize, resize_matrix
from srgan_lib.errors import ImageError
from srgan_lib.metrics import lr_consistency, psnr
from srgan_lib.pretrained import load_network


def noise(*shape, seed=0):
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def plain(image, scale):
    """Degrade without rounding."""
    return resize(image, (image.shape[-2] // scale, image.shape[-1] // scale))


@pytest.mark.parametrize(("shape", "scale"), [((1, 16, 24), 4), ((2, 3, 32, 16), 2), ((12, 20), 4)])
def test_open_part_is_degraded_to_zero_and_the_rest_to_lr(shape, scale):
    image = noise(*shape)
    measured, rest = measured_part(image, scale), open_part(image, scale)
    torch.testing.assert_close(measured + rest, image)
    assert plain(rest, scale).abs().max() < 1e-6
    torch.testing.assert_close(plain(measured, scale), plain(image, scale), atol=1e-6, rtol=0)
    assert (measured * rest).sum().abs() < 1e-9  # they are orthogonal


def test_measured_part_is_the_least_image_with_that_lr():
    """Against a least-squares solution with the whole matrix, of 8 x 12 pixels."""
    image = noise(8, 12)
    rows, columns = (resize_matrix(n, n // 4).double() for n in image.shape)
    whole = torch.kron(rows, columns)
    least = torch.linalg.pinv(whole) @ whole @ image.flatten()
    torch.testing.assert_close(measured_part(image).flatten(), least)


def test_projection_gives_lr_keeps_the_open_part_and_is_the_nearest():
    hr, sr = noise(1, 32, 24), noise(1, 32, 24, seed=1)
    lr = plain(hr, 4)
    found = project(sr, lr)
    torch.testing.assert_close(plain(found, 4), lr, atol=1e-6, rtol=0)
    torch.testing.assert_close(open_part(found), open_part(sr))
    torch.testing.assert_close(project(found, lr), found)
    other = hr + open_part(noise(1, 32, 24, seed=2))  # of the same LR
    assert (found - sr).norm() < (other - sr).norm()


def test_projection_never_takes_an_image_away_from_hr():
    hr, sr = noise(1, 32, 24), noise(1, 32, 24, seed=1)
    found = project(sr, plain(hr, 4))
    before, after = ((image - hr).square().sum() for image in (sr, found))
    torch.testing.assert_close(before - after, (found - sr).square().sum())  # Pythagoras


def test_projection_makes_a_network_consistent():
    hr = quantise(crop_to_multiple(open_dataset("sample", width=320)[0], 4))
    hr = hr[:, :96, 100:196]
    lr = degrade(hr)
    with torch.no_grad():
        sr = load_network("srgan")(lr[None])[0]
    found = project(sr, lr)
    assert found.dtype == torch.float32
    assert lr_consistency(found, lr) > lr_consistency(sr, lr) + 6
    assert psnr(found, hr) > psnr(sr, hr)


def test_detail_of_known_mixtures():
    hr, other = noise(1, 64, 64), noise(1, 64, 64, seed=1)
    assert explained_detail(hr, hr) == pytest.approx((1, 1), abs=1e-9)
    assert explained_detail(0.5 * hr + 0.3, hr) == pytest.approx((0.75, 1), abs=1e-9)
    assert explained_detail(-hr, hr) == pytest.approx((-3, -1), abs=1e-9)
    assert explained_detail(other, hr) == pytest.approx((-1, 0), abs=0.2)
    assert explained_detail(hr + 2 * other, hr) == pytest.approx((-3, 5**-0.5), rel=0.2)
    moved = hr.roll(3, -1)  # the same detail in another place
    assert explained_detail(moved, hr) == pytest.approx((-1, 0), abs=0.2)
    flat = torch.full_like(hr, 0.5)
    assert explained_detail(flat, hr) == pytest.approx((0, 0), abs=1e-9)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_best_guess_counts_as_right_by_the_share_that_it_knows(share):
    """HR is a known part plus an unknown one; its expectation is the known part."""
    known, unknown = noise(1, 256, 256), noise(1, 256, 256, seed=1)
    hr = share**0.5 * known + (1 - share) ** 0.5 * unknown
    explained, correlation = explained_detail(share**0.5 * known, hr)
    assert explained == pytest.approx(share, abs=0.02)
    assert correlation == pytest.approx(share**0.5, abs=0.02)
    for factor in (0.7, 1.3):  # any other amount of it is worse, and as alike
        changed = explained_detail(factor * share**0.5 * known, hr)
        assert changed[0] < explained - 0.005
        assert changed[1] == pytest.approx(correlation)


@pytest.mark.parametrize("axis", [-1, -2])
def test_fine_is_what_lies_beyond_lr_s_nyquist_frequency_in_rows_or_in_columns(axis):
    hr = noise(1, 128, 128)
    nyquist = 128 // 8  # the window spreads each wave to one frequency more on both sides
    for wave, counts in ((nyquist - 1, False), (nyquist + 2, True)):
        stripes = torch.cos(2 * torch.pi * wave * torch.arange(128) / 128).expand(1, 128, 128)
        changed = hr + stripes.transpose(-1, axis)
        assert (explained_detail(changed, hr)[0] < 0.99) == counts


def test_faint_detail_is_compared_as_strong_detail_is():
    hr, sr = noise(1, 64, 64), noise(1, 64, 64) + 0.5 * noise(1, 64, 64, seed=1)
    expected = explained_detail(sr, hr)
    assert explained_detail(1e-5 * sr, 1e-5 * hr) == pytest.approx(expected)
    assert explained_detail(1e-6 * hr, hr) == pytest.approx((2e-6, 1), rel=1e-3)


def test_brightness_of_a_channel_is_no_detail_even_in_an_image_of_one_lr_pixel():
    hr = noise(2, 8, 8)
    brighter = hr + torch.tensor([0.3, -0.2])[:, None, None]
    assert explained_detail(brighter, hr, scale=8) == pytest.approx((1, 1))


def test_lr_of_the_same_size_says_all():
    image, lr = noise(1, 12, 16), noise(1, 12, 16, seed=1)
    torch.testing.assert_close(measured_part(image, 1), image)
    torch.testing.assert_close(project(image, lr), lr)


def test_only_what_is_finer_than_lr_counts():
    hr = noise(1, 64, 64)
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    coarse = torch.cos(2 * torch.pi * x / 16)[None]  # half of LR's Nyquist frequency
    assert explained_detail(hr + coarse, hr)[0] == pytest.approx(1, abs=1e-6)
    fine = torch.cos(2 * torch.pi * (0.4 * x + 0.01 * y))[None]
    assert explained_detail(hr + fine, hr)[0] < 0
    smooth = Interpolation("bicubic")(plain(hr, 4)[None].float())[0]
    assert abs(explained_detail(smooth, hr.float())[0]) < 0.1


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ImageError, match="30 x 32 pixels can't be divided by 4"):
        measured_part(noise(30, 32))
    with pytest.raises(ImageError, match="not a whole number of times"):
        project(noise(1, 32, 32), noise(1, 8, 9))
    with pytest.raises(ImageError, match="not a whole number of times"):
        project(noise(1, 4, 4), noise(1, 8, 8))
    with pytest.raises(ImageError, match="not a whole number of times"):
        project(noise(1, 6, 6), noise(1, 4, 4))  # one and a half times
    with pytest.raises(ImageError, match="must have one shape"):
        explained_detail(noise(1, 32, 32), noise(1, 32, 28))
    for size in ((7, 8), (8, 7)):
        with pytest.raises(ImageError, match="from 8 x 8 up"):
            explained_detail(noise(1, *size), noise(1, *size))
    with pytest.raises(ImageError, match="no detail that is finer than LR"):
        explained_detail(noise(1, 32, 32), torch.zeros(1, 32, 32))
