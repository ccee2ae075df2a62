"""Training crops, cut and degraded in whole batches on the device that trains."""

from collections.abc import Sequence

import torch
from torch import Tensor

from srgan_lib.degradation import degrade
from srgan_lib.errors import ConfigurationError, ImageError
from srgan_lib.images import Pixels
from srgan_lib.variation import Variation


class CropSampler:
    """Serve random HR crops and their LR counterparts.

    All images lie one after another in a single integer tensor on the device. A batch is one
    look-up in it: no image file, no process and no copy from the host stands between two
    training steps. Every crop position of every image is equally likely. The positions are
    drawn on the CPU, so a seed gives the same crops on every device.

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

        flat = [_as_bits(image, self.bits).flatten(1) for image in images]
        self._pixels = torch.cat(flat, dim=1).to(self.device)  # (C, pixels of all images)
        sizes = torch.tensor([image.values.shape[1:] for image in images])
        self._heights, self._widths = sizes.T
        pixels = self._heights * self._widths
        self._starts = pixels.cumsum(0) - pixels
        positions = (self._heights - crop_size + 1) * (self._widths - crop_size + 1)
        self._positions_up_to = positions.cumsum(0)

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Return the next ``size`` crops.

        Returns:
            LR (size, C, crop_size / scale, crop_size / scale) and HR (size, C, crop_size,
            crop_size), float32 in [0, 1], on the sampler's device.
        """
        hr = self.crop(*self.draw(size))
        if self.variation is not None:
            hr = self.variation(hr, self.generator, self.bits)
        return degrade(hr, self.scale, self.bits), hr

    def state(self) -> Tensor:
        """Return the state of the sampler's chance, uint8."""
        return self.generator.get_state()

    def load_state(self, state: Tensor) -> None:
        """Go on with the batch that came after ``state`` was returned by :meth:`state`."""
        self.generator.set_state(state)

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


def _as_bits(image: Pixels, bits: int) -> Tensor:
    """Return the values at a bit depth of 8 or 16; 8 bits widen exactly, by 257."""
    if image.bits == bits:
        return image.values
    return (image.values.to(torch.int32) * 257).to(torch.uint16)
