"""Count training crops a second: the sampler on the device against files and a DataLoader."""

from collections.abc import Iterator

import public_style
from common import Setting, Trial, image_files, main, write_images

from srgan_lib.crops import CropSampler
from srgan_lib.images import read_pixels

CROP, BATCH = 96, 16


def prepare(setting: Setting) -> None:
    """Write image files."""
    write_images(setting.folder, 4 if setting.quick else 40)


def trials(setting: Setting) -> list[Trial]:
    """One trial: batches of crops, on the device."""

    def ours() -> Iterator[None]:
        images = [read_pixels(path) for path in image_files(setting.folder)]
        sampler = CropSampler(images, CROP, device=setting.device)
        yield
        while True:
            sampler.batch(BATCH)
            yield

    def public() -> Iterator[None]:
        batches = public_style.batches(image_files(setting.folder), CROP, BATCH, setting.device)
        yield
        for _ in batches:
            yield

    return [
        Trial(
            f"crops of {CROP} × {CROP}",
            ours,
            {f"DataLoader, {public_style.WORKERS} workers": public},
            warm=6,  # what the workers fetched ahead is used up by then
            units=setting.count(30, 30),
            crops=BATCH,
        )
    ]


if __name__ == "__main__":
    main(__file__, prepare, trials)
