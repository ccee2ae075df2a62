"""Training crops, cut and degraded in whole batches on the device that trains.

:class:`CropSampler` keeps all images on the device. Where :func:`fits` says that they would take
too much of its memory, :class:`LoaderSampler` serves the same batches from images that stay in
the host's memory, or in their files.
"""

import contextlib
import copy
import math
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from srgan_lib.datasets import Dataset
from srgan_lib.degradation import degrade
from srgan_lib.errors import ConfigurationError, DatasetError, ImageError, SRGANError
from srgan_lib.pixels import Pixels
from srgan_lib.variation import Variation, check_factors, with_smaller

MEMORY_SHARE = 0.25
"""Images that need more than this share of a device's memory are not kept in it.

The rest is for the networks; and where images are kept in the host's memory, they are there twice
for a moment, while :class:`CropSampler` joins them."""

_CONTAINER_LIMITS = (  # of control groups, version 2 and 1
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_MOST_WORKERS = 8  # by default: each of them holds a whole image while it cuts


class CropSampler:
    """Serve random HR crops and their LR counterparts.

    All images lie one after another in a single integer tensor on the device. A batch is one
    look-up in it: no image file, no process and no copy from the host stands between two
    training steps. Every crop position of every image is equally likely. The positions are
    drawn on the CPU, so a seed gives the same crops on every device. Images that don't fit there
    are for :class:`LoaderSampler`.

    Args:
        images: images as integers, all with the same number of channels; see
            :meth:`srgan_lib.datasets.Dataset.pixels`. Where bit depths are mixed, 16 is used.
        crop_size: side of an HR crop, a multiple of ``scale``.
        scale: HR pixels a side that make one LR pixel.
        flips: also serve left-right mirrored crops, half of the time.
        quarter_turns: also serve crops turned by 90, 180 and 270 degrees, equally often.
        variation: change the HR crops before they are degraded.
        seed: seed of the positions, and of all other chance.
        device: where the images are kept and the crops are cut.

    Raises:
        ConfigurationError: a crop size that ``scale`` doesn't divide.
        ImageError: no image, an image smaller than a crop, or mixed channel counts.
    """

    def __init__(
        self,
        images: Sequence[Pixels],
        crop_size: int = 96,
        scale: int = 4,
        *,
        flips: bool = False,
        quarter_turns: bool = False,
        variation: Variation | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if scale < 1 or crop_size < scale or crop_size % scale:
            raise ConfigurationError(
                f"crop_size ({crop_size}) must be a multiple of scale ({scale})."
            )
        if len(images) == 0:
            raise ImageError("There is no image to cut crops from.")
        channels = {image.values.shape[0] for image in images}
        if len(channels) > 1:
            raise ImageError(
                f"The images have {sorted(channels)} channels; they must agree. "
                "Open the data set with channels=1 or channels=3."
            )
        for number, image in enumerate(images):
            height, width = image.values.shape[1:]
            if min(height, width) < crop_size:
                raise ImageError(
                    f"Image {number} has {height} x {width} pixels, "
                    f"too few for crops of {crop_size} x {crop_size}."
                )
        self.crop_size, self.scale = crop_size, scale
        self.flips, self.quarter_turns, self.variation = flips, quarter_turns, variation
        self.device = torch.device(device)
        self.channels = channels.pop()
        self.bits = max(image.bits for image in images)
        self.generator = torch.Generator().manual_seed(seed)

        sizes = torch.tensor([image.values.shape[1:] for image in images])
        self._heights, self._widths = sizes.T
        pixels = self._heights * self._widths
        self._starts = pixels.cumsum(0) - pixels
        positions = (self._heights - crop_size + 1) * (self._widths - crop_size + 1)
        self._positions_up_to = positions.cumsum(0)
        self._keep(images)

    def _keep(self, images: Sequence[Pixels]) -> None:
        """Put the pixels of all images, one image after another, on the device."""
        flat = [_as_bits(image, self.bits).flatten(1) for image in images]
        self._pixels = torch.cat(flat, dim=1).to(self.device)  # (C, pixels of all images)

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Return the next ``size`` crops.

        Returns:
            LR (size, C, crop_size / scale, crop_size / scale) and HR (size, C, crop_size,
            crop_size), float32 in [0, 1], on the sampler's device.
        """
        hr = self._vary(self.crop(*self.draw(size)))
        return degrade(hr, self.scale, self.bits), hr

    def state(self) -> Tensor:
        """Return the state of the sampler's chance, uint8."""
        return self.generator.get_state()

    def load_state(self, state: Tensor) -> None:
        """Go on with the batch that came after ``state`` was returned by :meth:`state`."""
        self.generator.set_state(state)

    def close(self) -> None:
        """End the processes that work for the sampler."""
        return  # here there are none

    def draw(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw crops: image number, top and left, each int64 (size,), on the CPU."""
        total = int(self._positions_up_to[-1])
        choice = torch.randint(total, (size,), generator=self.generator)
        number = torch.searchsorted(self._positions_up_to, choice, right=True)
        across = self._widths[number] - self.crop_size + 1
        down = self._heights[number] - self.crop_size + 1
        place = choice - (self._positions_up_to[number] - across * down)
        return number, place // across, place % across

    def crop(self, number: Tensor, top: Tensor, left: Tensor) -> Tensor:
        """Cut crops at the given places, and flip and turn them if the sampler does.

        Args:
            number: which image, int64 (N,).
            top: first row, int64 (N,).
            left: first column, int64 (N,).

        Returns:
            Float32 (N, C, crop_size, crop_size) in [0, 1], channels last in memory.
        """
        width = self._widths[number]
        corner = self._starts[number] + top * width + left
        corner, width = (x.to(self.device, non_blocking=True) for x in (corner, width))
        step = torch.arange(self.crop_size, device=self.device)
        rows = corner[:, None, None] + step[:, None] * width[:, None, None]
        crops = self._pixels[:, rows + step]  # (C, N, crop_size, crop_size)
        crops = crops.to(torch.float32).transpose(0, 1) / (2**self.bits - 1)
        return self._turn(crops)

    def _turn(self, crops: Tensor) -> Tensor:
        """Mirror and turn each crop at random, where asked for."""
        if self.flips:
            chosen = torch.rand(len(crops), generator=self.generator) < 0.5
            chosen = chosen.to(self.device, non_blocking=True)[:, None, None, None]
            crops = torch.where(chosen, crops.flip(-1), crops)
        if self.quarter_turns:
            turns = torch.randint(4, (len(crops),), generator=self.generator)
            turns = turns.to(self.device, non_blocking=True)[:, None, None, None]
            crops = torch.where(turns >= 2, crops.flip(-1, -2), crops)
            crops = torch.where(turns % 2 == 1, crops.transpose(-1, -2).flip(-1), crops)
        return crops.contiguous(memory_format=torch.channels_last)

    def _vary(self, hr: Tensor) -> Tensor:
        """Change each crop at random, where asked for."""
        return hr if self.variation is None else self.variation(hr, self.generator, self.bits)


class LoaderSampler(CropSampler):
    """Serve the batches of :class:`CropSampler` from images that don't fit on the device.

    The images stay in the host's memory, or in their files (:class:`ImageFile`). Integers are cut
    there and moved; mirroring, turning, variation and degradation happen on the device. Images and
    seed decide the batches alone: on a CPU they are CropSampler's to the bit, and its state serves
    here as well as there.

    Crops from the host's memory are cut by this process: that takes less time than to pass them
    from one process to another. Crops from files are cut by the worker processes of a DataLoader,
    some batches ahead of the training. For each crop they read a whole image, and shrink it if it
    is a smaller copy; large images keep many processors busy. :meth:`close` ends the workers.

    Args:
        images: as CropSampler's, or :class:`ImageFile` from :func:`read_images`.
        *arguments: as CropSampler's.
        workers: number of worker processes, 0 to let this process cut; by default 0 for images in
            memory, and for files as many as there are processors, at most 8.
        **options: as CropSampler's.

    Raises:
        ConfigurationError: a negative number of workers, or as CropSampler.
        ImageError: as CropSampler.
    """

    def __init__(
        self,
        images: Sequence[Pixels],
        *arguments: Any,
        workers: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(images, *arguments, **options)
        if workers is None:
            in_files = any(isinstance(image, ImageFile) for image in images)
            workers = min(_processors(), _MOST_WORKERS) if in_files else 0
        if workers < 0:
            raise ConfigurationError(f"workers must be 0 or more, not {workers}.")
        self.workers = workers
        self._loaded: Iterator[Tensor | SRGANError] | None = None
        self._size = 0  # of the batches that are loaded; 0 if they are of no use
        self._state = torch.empty(0)  # the generator's, where the next of them belongs

    def _keep(self, images: Sequence[Pixels]) -> None:
        self._cutter = _Cutter(images, self.crop_size, self.bits)

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Return the next ``size`` crops, see :meth:`CropSampler.batch`.

        Raises:
            ImageError: a file can't be read any more.
            DatasetError: a file holds another image than before.
            SRGANError: a worker process has died.
        """
        if self.workers == 0:
            return super().batch(size)
        if size != self._size or not torch.equal(self._state, self.generator.get_state()):
            self._load(size)
        self._size = 0  # should this batch fail, those after it don't follow from the state
        self.draw(size)  # as the loader's copy of this sampler did when it chose the places
        hr = self._vary(self._turn(self._to_float(self._next())))
        self._size, self._state = size, self.generator.get_state()
        return degrade(hr, self.scale, self.bits), hr

    def crop(self, number: Tensor, top: Tensor, left: Tensor) -> Tensor:
        """Cut crops in this process, as :meth:`CropSampler.crop` does; raise as :meth:`batch`."""
        return self._turn(self._to_float(self._cutter.cut(_places(number, top, left))))

    def close(self) -> None:
        """End the worker processes; another batch would start new ones."""
        self._loaded, self._size = None, 0  # an iterator without references ends its workers

    def _load(self, size: int) -> None:
        """Start workers that cut the batches which follow from the generator's state."""
        self.close()
        loader = DataLoader(
            self._cutter,
            batch_size=None,  # the cutter makes whole batches
            sampler=self._ahead(size),
            num_workers=self.workers,
            generator=torch.Generator(),  # or it would draw from the global one
            worker_init_fn=_leave_group,
        )
        with _sigchld_as_it_is():
            self._loaded = iter(loader)

    def _ahead(self, size: int) -> Iterator[list[tuple[int, int, int]]]:
        """Return the places of the next batches, endlessly, without touching the generator.

        A copy of this sampler draws all that the batches will draw. What comes after the places
        depends on shapes, not on pixels, so that the device "meta" serves, which has no pixels.
        """
        ahead = copy.copy(self)
        ahead.generator = torch.Generator().set_state(self.generator.get_state())
        ahead.device = torch.device("meta")
        shape = (size, self.channels, self.crop_size, self.crop_size)

        def places() -> Iterator[list[tuple[int, int, int]]]:
            while True:
                yield _places(*ahead.draw(size))
                ahead._vary(ahead._turn(torch.empty(shape, device="meta")))

        return places()

    def _next(self) -> Tensor:
        """Return the crops that the workers cut next."""
        assert self._loaded is not None
        try:
            cut = next(self._loaded)
        except (RuntimeError, OSError, EOFError) as error:  # by when and how the worker died
            self.close()
            raise SRGANError(
                f"The crops can't be cut: {error}. Where a worker was killed, memory may have run "
                "out; close other programs."
            ) from error
        if isinstance(cut, SRGANError):
            raise cut
        return cut

    def _to_float(self, cut: Tensor) -> Tensor:
        """Move integers (C, N, H, W) to the device, as float32 (N, C, H, W) in [0, 1]."""
        crops = cut.to(self.device, non_blocking=True)
        return crops.to(torch.float32).transpose(0, 1) / (2**self.bits - 1)


@dataclass(frozen=True)
class ImageFile(Pixels):
    """An image that stays in its file until a crop of it is wanted.

    Attributes:
        values: of the image's shape and type, on the device "meta": without pixels.
        bits: 8 or 16.
        dataset: a data set of this one image; it knows how to read it.
        factor: what the image is shrunk by, see :func:`srgan_lib.variation.with_smaller`, or None.
    """

    dataset: Dataset
    factor: float | None = None

    def smaller(self, factor: float) -> "ImageFile":
        """Return the same image, smaller by a factor between 0 and 1."""
        channels, height, width = self.values.shape
        size = (channels, round(height * factor), round(width * factor))
        return replace(self, values=self.values.new_empty(size), factor=factor)

    def read(self) -> Pixels:
        """Read the image.

        Raises:
            ImageError: the file can't be read.
            DatasetError: it holds an image of another shape or bit depth than expected.
        """
        (image,) = self.dataset.pixels()
        if self.factor is not None:
            _, image = with_smaller([image], [self.factor])
        if image.values.shape != self.values.shape or image.bits != self.bits:
            raise DatasetError(
                f"{self.dataset.records[0].path} has changed since the data set was opened: it "
                f"holds {_describe(image)} now, and held {_describe(self)}. Start again."
            )
        return image


def read_images(
    dataset: Dataset, smaller: Sequence[float] = (), progress: bool = False
) -> list[Pixels]:
    """Read the images of a data set, unless they would take too much of the host's memory.

    Either way each file is read once, so that a damaged one is found before any training.

    Args:
        dataset: the data set.
        smaller: factors of smaller copies to add, see :func:`srgan_lib.variation.with_smaller`.
        progress: show a progress bar.

    Returns:
        All images as integers; or, where they don't fit (:func:`fits`), as :class:`ImageFile`, for
        :class:`LoaderSampler`. In both cases in the order of with_smaller.

    Raises:
        ImageError: a file can't be read.
        ConfigurationError: a factor that is not between 0 and 1.
    """
    check_factors(smaller)
    kept: list[Pixels] = []
    in_files: list[ImageFile] = []
    values, bits = 0, 8
    about = (dataset.source, dataset.licence, dataset.channels, dataset.width)
    bar = tqdm(dataset.records, f"reading {dataset.name}", unit="image", disable=not progress)
    for record in bar:
        one = Dataset(dataset.name, dataset.split, [record], *about)
        (image,) = one.pixels()
        file = ImageFile(image.values.to("meta"), image.bits, one)
        in_files.append(file)
        sizes = [file.values, *(file.smaller(factor).values for factor in smaller)]
        values, bits = values + sum(size.numel() for size in sizes), max(bits, image.bits)
        if fits(values * bits // 8, "cpu"):
            kept.append(image)
        else:
            kept.clear()
    if kept:
        return with_smaller(kept, smaller)
    return [*in_files, *(file.smaller(factor) for factor in smaller for file in in_files)]


def fits(size: int, device: torch.device | str) -> bool:
    """Return whether images of ``size`` bytes may be kept in a device's memory.

    They may take :data:`MEMORY_SHARE` of :func:`device_memory`. Each process decides for itself:
    where several train on one machine, each keeps images of its own.
    """
    return size <= MEMORY_SHARE * device_memory(device)


def bytes_needed(images: Sequence[Pixels]) -> int:
    """Return how many bytes images take up when they are kept, all with the same bit depth."""
    bits = max(image.bits for image in images)
    return sum(image.values.numel() for image in images) * bits // 8


def device_memory(device: torch.device | str) -> float:
    """Return the bytes of memory that a device has, used or not.

    For a CUDA GPU that is its own memory, else the machine's, or what a container may have of it;
    infinity where the system doesn't say (Windows).
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    memory = math.inf
    with contextlib.suppress(AttributeError, ValueError, OSError):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _CONTAINER_LIMITS:
        with contextlib.suppress(ValueError, OSError):  # "max", where there is no limit
            memory = min(memory, int(path.read_text()))
    return memory


class _Cutter:
    """Cut crops from images: what a worker process is given to do."""

    def __init__(self, images: Sequence[Pixels], crop_size: int, bits: int) -> None:
        self.images, self.crop_size, self.bits = images, crop_size, bits

    def __getitem__(self, places: list[tuple[int, int, int]]) -> Tensor | SRGANError:
        """Return crops, or the error: DataLoader would bury its message in a traceback."""
        try:
            return self.cut(places)
        except SRGANError as error:
            return error

    def cut(self, places: list[tuple[int, int, int]]) -> Tensor:
        """Return crops at places (image number, top, left), integers (C, N, H, W)."""
        channels = self.images[0].values.shape[0]
        dtype = torch.uint8 if self.bits == 8 else torch.uint16
        crops = torch.empty(channels, len(places), self.crop_size, self.crop_size, dtype=dtype)
        for wanted in sorted({number for number, _, _ in places}):  # an image is read only once
            image = self.images[wanted]
            if isinstance(image, ImageFile):
                image = image.read()
            for place, (number, top, left) in enumerate(places):
                if number == wanted:
                    rows = slice(top, top + self.crop_size)
                    columns = slice(left, left + self.crop_size)
                    crop = Pixels(image.values[:, rows, columns], image.bits)
                    crops[:, place] = _as_bits(crop, self.bits)
        return crops


def _places(number: Tensor, top: Tensor, left: Tensor) -> list[tuple[int, int, int]]:
    """Return places as numbers: unlike tensors, they pass between processes at no cost."""
    return list(zip(number.tolist(), top.tolist(), left.tolist(), strict=True))


def _processors() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _leave_group(worker: int) -> None:
    """Put a worker out of Ctrl-C's reach: it has to live until the run has saved."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()


@contextlib.contextmanager
def _sigchld_as_it_is() -> Iterator[None]:
    """Take back a DataLoader's signal handler, which raises wherever a worker's death finds us.

    Without it, the batch that the worker owes can say what happened.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        yield  # it sets none in other threads, and Windows has no such signal
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)


def _describe(image: Pixels) -> str:
    channels, height, width = image.values.shape
    return f"{channels} x {height} x {width} values of {image.bits} bits"


def _as_bits(image: Pixels, bits: int) -> Tensor:
    """Return the values at a bit depth of 8 or 16; 8 bits widen exactly, by 257."""
    if image.bits == bits:
        return image.values
    return (image.values.to(torch.int32) * 257).to(torch.uint16)
