"""Crops: every position alike, the right pixels, the same for the same seed and any memory."""

import gc
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from srgan_lib import crops
from srgan_lib.crops import (
    CropSampler,
    ImageFile,
    LoaderSampler,
    bytes_needed,
    device_memory,
    fits,
    read_images,
)
from srgan_lib.datasets import open_dataset
from srgan_lib.degradation import degrade
from srgan_lib.errors import ConfigurationError, DatasetError, ImageError, SRGANError
from srgan_lib.files import write_atomically
from srgan_lib.images import Pixels, write_image
from srgan_lib.variation import Variation, with_smaller

VARIED = {"flips": True, "quarter_turns": True, "variation": Variation()}


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


def test_crops_are_srgan_s_96_pixels_of_seed_0_unless_asked_otherwise():
    images = [image(120, 130)]
    lr, hr = CropSampler(images).batch(3)
    assert lr.shape == (3, 1, 24, 24) and hr.shape == (3, 1, 96, 96)
    assert torch.equal(hr, CropSampler(images, 96, 4, seed=0).batch(3)[1])


def test_crop_may_be_one_lr_pixel_and_lr_as_large_as_hr():
    assert CropSampler([image(20, 20)], 4, 4).batch(2)[0].shape == (2, 1, 1, 1)
    lr, hr = CropSampler([image(20, 20)], 8, 1).batch(2)
    torch.testing.assert_close(lr, hr)


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


# Images that don't fit on the device


def mixed(channels, bits=(8, 8, 8)):
    sizes = ((20, 31), (16, 16), (40, 17))
    return [image(*size, channels, bits[n], n) for n, size in enumerate(sizes)]


@pytest.fixture
def folder(tmp_path):
    """Five files: PNG and TIFF of 8 and 16 bits, one of them too small, one in colour."""
    path = tmp_path / "images"
    path.mkdir()
    shapes = ((1, 40, 50), (3, 48, 33), (1, 64, 64), (1, 32, 90))
    for number, shape in enumerate(shapes):
        x = torch.rand(shape, generator=torch.Generator().manual_seed(number))
        write_image(path / f"{number}.png", x, 8)
    x = torch.rand((1, 35, 70), generator=torch.Generator().manual_seed(4))
    write_image(path / "4.tif", x, 16)
    return path


@pytest.fixture
def no_memory(monkeypatch):
    monkeypatch.setattr(crops, "MEMORY_SHARE", 0)


@pytest.fixture
def close():
    """Collect samplers whose workers end with the test."""
    samplers = []
    yield lambda sampler: samplers.append(sampler) or sampler
    for sampler in samplers:
        sampler.close()


def assert_same_batches(sampler, other, sizes=(4, 4, 4, 4, 3, 3, 4)):
    for size in sizes:
        for found, expected in zip(sampler.batch(size), other.batch(size), strict=True):
            assert found.dtype == expected.dtype and torch.equal(found, expected)
        assert torch.equal(sampler.state(), other.state())


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize(
    ("images", "options"),
    [
        (mixed(1), {}),
        (mixed(1), {"flips": True}),
        (mixed(1), VARIED),
        (mixed(3), VARIED),
        (mixed(1, (16, 16, 16)), {"quarter_turns": True}),
        (mixed(3, (8, 16, 8)), {"variation": Variation(), "scale": 2}),
    ],
)
def test_loader_serves_the_very_same_batches(images, options, workers, close):
    loader = close(LoaderSampler(images, 16, workers=workers, seed=3, **options))
    assert_same_batches(loader, CropSampler(images, 16, seed=3, **options))


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_s_state_is_the_next_batch_s_however_far_it_has_loaded(workers, close):
    images = mixed(1)
    sampler = CropSampler(images, 16, **VARIED)
    loader = close(LoaderSampler(images, 16, workers=workers, **VARIED))
    assert_same_batches(loader, sampler, (4, 4))
    state = loader.state()
    later = [loader.batch(4)[1] for _ in range(3)]
    # the same sampler goes back, another one starts there, and one of the other kind
    loader.load_state(state)
    again = close(LoaderSampler(images, 16, workers=workers, seed=9, **VARIED))
    again.load_state(state)
    sampler.load_state(state)
    for one in (loader, again, sampler):
        assert all(torch.equal(hr, one.batch(4)[1]) for hr in later)


@pytest.mark.parametrize("workers", [0, 2])
def test_crops_drawn_or_cut_by_hand_move_the_loader_on_as_they_should(workers, close):
    images = mixed(1)
    sampler = CropSampler(images, 16, **VARIED)
    loader = close(LoaderSampler(images, 16, workers=workers, **VARIED))
    for by_hand in ("draw", "crop"):
        assert_same_batches(loader, sampler, (4, 4))
        places = [one.draw(5) for one in (loader, sampler)]
        assert all(map(torch.equal, *places))
        if by_hand == "crop":
            assert torch.equal(loader.crop(*places[0]), sampler.crop(*places[1]))
    assert_same_batches(loader, sampler, (4, 4))


def test_loader_leaves_the_global_random_state_alone(close):
    before = torch.get_rng_state()
    close(LoaderSampler(mixed(1), 16, workers=1, **VARIED)).batch(4)
    assert torch.equal(before, torch.get_rng_state())


def test_images_that_can_not_be_cropped_are_refused_by_the_loader_as_well():
    with pytest.raises(ImageError, match="Image 0 has 20 x 7 pixels"):
        LoaderSampler([image(20, 7)], 8)
    with pytest.raises(ConfigurationError, match="workers must be 0 or more, not -1"):
        LoaderSampler([image(20, 20)], 8, workers=-1)


@pytest.mark.parametrize(
    ("channels", "width", "smaller"), [(1, None, ()), (1, 45, (0.8, 0.5)), (3, None, (0.7,))]
)
def test_images_in_files_are_those_that_would_be_in_memory(
    folder, no_memory, channels, width, smaller
):
    dataset = open_dataset(folder, channels=channels, width=width)
    expected = with_smaller(dataset.pixels(), smaller)
    found = read_images(dataset, smaller)
    assert len(found) == len(expected) == 5 * (1 + len(smaller))
    for file, pixels in zip(found, expected, strict=True):
        assert isinstance(file, ImageFile) and file.values.is_meta
        assert file.values.shape == pixels.values.shape
        assert file.values.dtype == pixels.values.dtype
        assert file.bits == file.read().bits == pixels.bits
        assert torch.equal(file.read().values.int(), pixels.values.int())


@pytest.mark.usefixtures("one_thread")  # as the workers do, which make the smaller copies
@pytest.mark.parametrize("workers", [0, 2])
def test_loader_serves_the_same_batches_from_files(folder, no_memory, workers, close):
    dataset = open_dataset(folder, width=60)
    images, files = with_smaller(dataset.pixels(), [0.8]), read_images(dataset, [0.8])
    sampler = CropSampler(images, 16, seed=1, **VARIED)
    loader = close(LoaderSampler(files, 16, workers=workers, seed=1, **VARIED))
    assert sampler.bits == loader.bits == 16
    assert_same_batches(loader, sampler)


def test_each_batch_reads_a_file_once(folder, no_memory, monkeypatch):
    loader = LoaderSampler(read_images(open_dataset(folder))[:2], 16, workers=0)
    read = []
    real = ImageFile.read
    monkeypatch.setattr(ImageFile, "read", lambda file: (read.append(file), real(file))[1])
    loader.batch(30)
    assert len(read) == 2


def test_only_files_have_workers_unless_asked_for(folder, no_memory, monkeypatch):
    files = read_images(open_dataset(folder))
    for processors, workers in ((3, 3), (64, 8)):
        monkeypatch.setattr(crops, "_processors", lambda count=processors: count)
        assert LoaderSampler(files, 16).workers == workers
    assert LoaderSampler(mixed(1), 16).workers == 0
    assert LoaderSampler(files, 16, workers=1).workers == 1


# How much fits


def test_memory_of_this_machine_is_known_and_most_of_it_is_left_free():
    with open("/proc/meminfo", encoding="utf-8") as file:
        total = 1024 * int(file.readline().split()[1])  # MemTotal: ... kB
    assert device_memory("cpu") == total
    assert fits(total // 5, "cpu") and not fits(total // 3, "cpu")


@pytest.mark.parametrize(
    "limit", ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
)
def test_container_has_no_more_memory_than_it_may_use(monkeypatch, limit):
    def read(path):
        return "1048576\n" if str(path) == limit else "max\n"

    monkeypatch.setattr(Path, "read_text", read)
    assert device_memory("cpu") == 2**20
    assert fits(2**18, "cpu") and not fits(2**18 + 1, "cpu")


def test_progress_is_shown_only_where_asked_for(folder, capsys):
    for progress in (False, True):
        read_images(open_dataset(folder), progress=progress)
        assert bool(capsys.readouterr().err) == progress


def test_images_count_with_the_bit_depth_that_they_are_kept_in(folder, no_memory):
    assert bytes_needed([image(10, 20), image(30, 5, 3)]) == 200 + 450
    assert bytes_needed([image(10, 20), image(30, 5, bits=16)]) == 2 * (200 + 150)
    files = read_images(open_dataset(folder), [0.5])
    sampler = CropSampler([file.read() for file in files], 16)
    assert bytes_needed(files) == sampler._pixels.nbytes


@pytest.mark.parametrize("smaller", [(), (0.8, 0.5)])
def test_images_are_kept_as_long_as_they_fit(folder, monkeypatch, smaller):
    dataset = open_dataset(folder)
    needed = bytes_needed(with_smaller(dataset.pixels(), smaller))
    monkeypatch.setattr(crops, "MEMORY_SHARE", 0.5)
    for memory, kind in ((2 * needed, Pixels), (2 * needed - 2, ImageFile)):
        monkeypatch.setattr(crops, "device_memory", lambda device, memory=memory: memory)
        assert {type(image) for image in read_images(dataset, smaller)} == {kind}


def test_factor_of_smaller_copies_is_checked_before_anything_is_read(folder, monkeypatch):
    monkeypatch.setattr(crops, "fits", lambda *_: pytest.fail("read"))
    with pytest.raises(ConfigurationError, match="between 0 and 1, not 2"):
        read_images(open_dataset(folder), [2])


# What goes wrong with files and workers


def gone(path):
    path.unlink()


def cut_short(path):
    write_atomically(path, path.read_bytes()[:60])


def another(path):
    write_image(path, torch.rand(1, 90, 32))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        (gone, ImageError, r"^Could not read \S+0\.png: No such file or directory\.$"),
        (cut_short, ImageError, r"^Could not read \S+0\.png: the file is damaged"),
        (
            another,
            DatasetError,
            r"^\S+0\.png has changed .* holds 1 x 90 x 32 .* held 1 x 40 x 50 ",
        ),
    ],
)
def test_file_that_can_not_be_read_any_more_is_named(
    folder, no_memory, damage, error, words, workers, close
):
    path = folder / "0.png"
    whole = path.read_bytes()
    files = read_images(open_dataset(folder))
    loader = close(LoaderSampler(files[:1], 16, workers=workers))
    loader.batch(1)
    damage(path)
    with pytest.raises(error, match=words):
        for _ in range(10):  # some batches were loaded before
            state = loader.state()
            loader.batch(1)
    write_atomically(path, whole)
    loader.load_state(state)
    sampler = CropSampler([files[0].read()], 16)
    sampler.load_state(state)
    assert_same_batches(loader, sampler, (1, 1))


def test_worker_that_was_killed_is_an_error_of_this_library(close):
    before = signal.getsignal(signal.SIGCHLD)
    loader = close(LoaderSampler(mixed(1), 16, workers=2))
    loader.batch(2)
    assert signal.getsignal(signal.SIGCHLD) is before
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    with pytest.raises(SRGANError, match=r"crops can't be cut: .*worker.*close other programs"):
        for _ in range(10):
            loader.batch(2)
    assert_same_batches(loader, loader_twin(loader), (2,))


def loader_twin(loader):
    sampler = CropSampler(mixed(1), 16)
    sampler.load_state(loader.state())
    return sampler


@pytest.mark.parametrize("how", ["closed", "forgotten"])
def test_no_worker_outlives_its_sampler(how):
    loader = LoaderSampler(mixed(1), 16, workers=2, **VARIED)
    loader.batch(2)
    loader.batch(1)  # of another size: by other workers
    assert len(multiprocessing.active_children()) == 2
    loader.close()
    assert not multiprocessing.active_children()
    loader.batch(1)  # starts anew
    if how == "closed":
        loader.close()
    else:
        gc.disable()  # nor does it wait for the garbage collector
        try:
            del loader
        finally:
            gc.enable()
    assert not multiprocessing.active_children()


def test_worker_is_out_of_reach_of_signals_to_the_run_s_group(close):
    close(LoaderSampler(mixed(1), 16, workers=1)).batch(2)
    (worker,) = multiprocessing.active_children()
    assert os.getpgid(worker.pid) == worker.pid != os.getpgrp()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("workers", [0, 2])
def test_loader_gives_the_sampler_s_batches_on_a_gpu(workers, close):
    images = mixed(3, (8, 16, 8))
    loader = close(LoaderSampler(images, 16, workers=workers, device="cuda", **VARIED))
    assert device_memory("cuda") == torch.cuda.mem_get_info()[1]
    assert_same_batches(loader, CropSampler(images, 16, device="cuda", **VARIED))
