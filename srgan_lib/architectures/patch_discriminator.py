"""A discriminator that judges each patch, and knows the LR image it is to belong to."""

import torch
from torch import Tensor, nn

from srgan_lib.architectures.checks import check_positive
from srgan_lib.architectures.interpolation import Interpolation
from srgan_lib.architectures.network import DiscriminatorNetwork
from srgan_lib.degradation import quantise
from srgan_lib.errors import ConfigurationError, ImageError

_SLOPE = 0.2
_ZOOM = 30  # what SR adds to the enlarged LR image is some hundredths of the range


class PatchDiscriminator(DiscriminatorNetwork):
    """Say of each patch of an image how real it looks, beside the LR image, as a map of logits.

    It has the eight 3 x 3 convolutions of SRGAN's discriminator (Ledig et al. 2017, figure 4;
    every second one halves the size) and leaves it in five things:

    - It sees two images: the one that it judges, and what that adds to the enlarged LR image,
      made thirty times larger. So it learns whether an image is *a likely one for this LR image*
      (Mirza and Osindero 2014), and it needn't find grain of two or three grey levels beneath
      bones of two hundred.
    - It rounds them as a file would: HR holds whole grey levels and SR anything between, which
      would give SR away. Gradients pass as if it didn't.
    - It has no batch norm, by which an image's logit would depend on its neighbours in the batch.
    - It starts as He et al. (2015) do, so that its logits vary from image to image from the first
      step on. With the framework's smaller weights eight layers let hardly anything through.
    - In place of dense layers two 1 x 1 convolutions give one logit for each patch (Isola et al.
      2017, section 3.2.2): they say *where* an image isn't real.

    Args:
        channels: 1 (grey) or 3 (RGB).
        width: channels of the first convolution. All others follow from it.
        scale: HR pixels a side that make one LR pixel.
        bits: bit depth that images are rounded to.

    Raises:
        ConfigurationError: an impossible value.
    """

    sees_lr = True

    def __init__(self, channels: int = 1, width: int = 32, scale: int = 4, bits: int = 8) -> None:
        super().__init__()
        if channels not in (1, 3):
            raise ConfigurationError(f"channels must be 1 or 3, not {channels}.")
        check_positive(width=width, scale=scale)
        if not 1 <= bits <= 16:
            raise ConfigurationError(f"bits must be between 1 and 16, not {bits}.")
        self.channels, self.scale, self.bits = channels, scale, bits
        self.arguments = {"channels": channels, "width": width, "scale": scale, "bits": bits}
        self.bicubic = Interpolation("bicubic", scale)
        layers: list[nn.Module] = []
        seen = 2 * channels
        for factor in (1, 2, 4, 8):
            for stride in (1, 2):
                layers += [nn.Conv2d(seen, factor * width, 3, stride=stride, padding=1)]
                layers += [nn.LeakyReLU(_SLOPE)]
                seen = factor * width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Conv2d(seen, seen, 1), nn.LeakyReLU(_SLOPE), nn.Conv2d(seen, 1, 1)
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, a=_SLOPE)
                nn.init.zeros_(layer.bias)

    def forward(self, image: Tensor, lr: Tensor) -> Tensor:
        """Turn images (N, channels, H, W) in [0, 1] and LR into logits (N, 1, H / 16, W / 16).

        Each patch's logit depends on 61 x 61 pixels. Sides are rounded up.

        Raises:
            ImageError: images of an impossible size, or LR images that are not theirs.
        """
        if image.ndim != 4 or image.shape[1] != self.channels or min(image.shape[2:]) < 32:
            raise ImageError(
                f"This discriminator takes (N, {self.channels}, H, W) with H and W from 32 up, "
                f"not {tuple(image.shape)}."
            )
        count, channels, height, width = image.shape
        if lr.shape != (count, channels, height // self.scale, width // self.scale):
            raise ImageError(
                f"The LR images of {tuple(image.shape)} at scale {self.scale} are "
                f"{(count, channels, height // self.scale, width // self.scale)}, "
                f"not {tuple(lr.shape)}."
            )
        image = image + (quantise(image, self.bits) - image).detach()
        added = image - self.bicubic(lr)  # (N, channels, H, W)
        x = torch.cat([2 * image - 1, _ZOOM * added], dim=1)  # (N, 2 channels, H, W)
        return self.classifier(self.features(x))
