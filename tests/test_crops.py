"""Crops: every position alike, the right pixels, the same for the same seed."""

import numpy as np
import pytest
import torch

from srgan_lib.crops import CropSampler
from srgan_lib.degradation import degrade
from srgan_lib.errors import ConfigurationError, ImageError
from srgan_lib.images import Pixels


def image(height, width, channels=1, bits=8, seed=0):
    values = np.random.default_rng(seed).integers(0, 2**bits, (channels, height, width))
    return Pixels(torch.from_numpy(values.astype(np.uint8 if bits == 8 else np.uint16)), bits)


def test_every_position_of_every_image_is_equally_likely():
    sampler = CropSampler([image(9, 8), image(8, 8), image(10, 11)], 8, 4)
    number, top, left = sampler.draw(60_000)
    drawn, counts = torch.stack([number, top, left]).unique(dim=1, return_counts=True)
    places = [(0, y, 0) for y in range(2)] + [(1, 0, 0)]
    places += [(2, y, x) for y in range(3) for x in range(4)]
    assert sorted(map(tuple, drawn.T.tolist())) == places
    expected = 60_000 / len(places)
    # 36.1 is the 0.999 quantile of chi square with 14 degrees of freedom.
    assert ((counts - expected) ** 2 / expected).sum() < 36.1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [8, 16])
def test_crops_are_the_images_own_pixels(channels, bits):
    images = [image(20 + n, 30 - 3 * n, channels, bits, n) for n in range(3)]
    sampler = CropSampler(images, 8, 4)
    number, top, left = sampler.draw(50)
    crops = sampler.crop(number, top, left)
    assert crops.shape == (50, channels, 8, 8) and crops.dtype == torch.float32
    for crop, n, y, x in zip(crops, number, top, left, strict=True):
        assert torch.equal(crop, images[n].to_float()[:, y : y + 8, x : x + 8])
    assert set(number.tolist()) == {0, 1, 2}


def test_whole_image_and_its_last_corner_can_be_cropped():
    whole = image(8, 8)
    assert torch.equal(CropSampler([whole], 8).batch(1)[1][0], whole.to_float())
    larger = image(11, 13)
    corner = CropSampler([image(9, 9), larger], 8).crop(*(torch.tensor([n]) for n in (1, 3, 5)))
    assert torch.equal(corner[0], larger.to_float()[:, 3:, 5:])


def test_lr_is_the_degraded_hr_at_the_images_bit_depth():
    for bits in (8, 16):
        lr, hr = CropSampler([image(40, 40, bits=bits)], 16, 4).batch(5)
        assert lr.shape == (5, 1, 4, 4) and hr.shape == (5, 1, 16, 16)
        assert torch.equal(lr, degrade(hr, 4, bits))
    assert CropSampler([image(40, 40)], 16, 2).batch(1)[0].shape == (1, 1, 8, 8)


@pytest.mark.parametrize("options", [{}, {"flips": True, "quarter_turns": True}])
def test_seed_decides_the_crops(options):
    def draw(seed):
        sampler = CropSampler([image(40, 50)], 8, seed=seed, **options)
        return torch.stack([sampler.batch(4)[1] for _ in range(3)])

    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))
    assert not torch.equal(draw(3)[0], draw(3)[1])


def test_sampler_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    CropSampler([image(20, 20)], 8, flips=True, quarter_turns=True).batch(4)
    assert torch.equal(before, torch.get_rng_state())


def test_mixed_bit_depths_become_16_exactly():
    small = Pixels(torch.arange(256, dtype=torch.uint8).view(1, 16, 16), 8)
    sampler = CropSampler([small, image(16, 16, bits=16)], 16)
    assert sampler.bits == 16
    crop = sampler.crop(*(torch.tensor([0]),) * 3)[0]
    assert (crop * 65535).round().long().flatten().tolist() == [257 * n for n in range(256)]
    torch.testing.assert_close(crop, small.to_float(), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"flips": True}, 2),
        ({"quarter_turns": True}, 4),
        ({"flips": True, "quarter_turns": True}, 8),
    ],
)
def test_flips_and_turns_give_all_variants_equally_often_and_nothing_else(options, count):
    source = image(8, 8)
    x = source.to_float()
    mirrored = (x, x.flip(-1)) if options.get("flips") else (x,)
    turns = range(4) if options.get("quarter_turns") else range(1)
    variants = [y.rot90(k, (1, 2)) for y in mirrored for k in turns]
    assert len(variants) == count
    crops = CropSampler([source], 8, **options).batch(1600)[1]
    found = [next(n for n, v in enumerate(variants) if torch.equal(v, crop)) for crop in crops]
    counts = np.bincount(found, minlength=count)
    assert (np.abs(counts - 1600 / count) < 5 * np.sqrt(1600 / count)).all()


def test_without_flips_and_turns_crops_keep_their_orientation():
    source = image(8, 8)
    assert all(
        torch.equal(crop, source.to_float()) for crop in CropSampler([source], 8).batch(50)[1]
    )


def test_batches_are_channels_last_in_memory():
    hr = CropSampler([image(20, 20, 3)], 8, quarter_turns=True).batch(2)[1]
    assert hr.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("crop_size", "scale"), [(10, 4), (2, 4), (8, 0), (8, -4), (0, 4)])
def test_crop_size_must_be_a_multiple_of_scale(crop_size, scale):
    with pytest.raises(ConfigurationError, match="must be a multiple of scale"):
        CropSampler([image(20, 20)], crop_size, scale)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "no image"),
        ([image(20, 20), image(20, 20, 3)], r"\[1, 3\] channels"),
        ([image(20, 20), image(7, 20)], "Image 1 has 7 x 20 pixels, too few for crops of 8 x 8"),
        ([image(20, 7)], "Image 0 has 20 x 7 pixels"),
    ],
)
def test_images_that_can_not_be_cropped_are_refused(images, message):
    with pytest.raises(ImageError, match=message):
        CropSampler(images, 8)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_gives_the_cpu_s_crops():
    options = {"crop_size": 16, "flips": True, "quarter_turns": True, "seed": 5}
    images = [image(30, 40), image(50, 20, bits=16)]
    lr, hr = CropSampler(images, device="cuda", **options).batch(8)
    assert lr.is_cuda and hr.is_cuda
    expected_lr, expected_hr = CropSampler(images, **options).batch(8)
    torch.testing.assert_close(hr.cpu(), expected_hr, rtol=0, atol=1e-7)
    torch.testing.assert_close(lr.cpu(), expected_lr, rtol=0, atol=2e-5)
