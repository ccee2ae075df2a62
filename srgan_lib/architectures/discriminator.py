"""The discriminator of SRGAN (Ledig et al. 2017, section 2.1.1 and figure 4)."""

from torch import Tensor, nn

from srgan_lib.architectures.network import DiscriminatorNetwork
from srgan_lib.errors import ConfigurationError, ImageError


class Discriminator(DiscriminatorNetwork):
    """Say of each image how real it looks, as one logit.

    Eight 3 x 3 convolutions go from 64 to 512 channels; every second one halves the size by its
    stride. LeakyReLU (0.2) follows each, batch norm all but the first. Then come a dense layer
    of 1,024 and one of 1. There is no sigmoid: the losses work on logits, see
    :func:`srgan_lib.losses.discriminator_loss`.

    The paper flattens the last feature map, which binds it to one crop size. Here the map is
    first averaged to ``grid x grid``. A crop of 96 x 96 gives a map of 6 x 6 already, so the
    default is the paper's form there, and still takes any other size from 32 up. ``grid=1`` is
    global average pooling, with 18 million weights fewer.

    Args:
        channels: 1 (grey) or 3 (RGB).
        width: channels of the first convolution; 64 in the paper. All others follow from it.
        grid: side of the feature map that the dense layer sees.

    Raises:
        ConfigurationError: an impossible value.
    """

    def __init__(self, channels: int = 1, width: int = 64, grid: int = 6) -> None:
        super().__init__()
        if channels not in (1, 3):
            raise ConfigurationError(f"channels must be 1 or 3, not {channels}.")
        if width < 1 or grid < 1:
            raise ConfigurationError(f"width ({width}) and grid ({grid}) must be positive.")
        self.channels = channels
        self.arguments = {"channels": channels, "width": width, "grid": grid}
        layers: list[nn.Module] = [
            nn.Conv2d(channels, width, 3, padding=1),
            nn.LeakyReLU(0.2),
            *_block(width, width, stride=2),
        ]
        for factor in (1, 2, 4):
            layers += _block(factor * width, 2 * factor * width, stride=1)
            layers += _block(2 * factor * width, 2 * factor * width, stride=2)
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(grid)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(8 * width * grid * grid, 16 * width),
            nn.LeakyReLU(0.2),
            nn.Linear(16 * width, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Turn (N, channels, H, W) in [0, 1], H and W from 32 up, into logits (N, 1)."""
        if image.ndim != 4 or image.shape[1] != self.channels or min(image.shape[2:]) < 32:
            raise ImageError(
                f"This discriminator takes (N, {self.channels}, H, W) with H and W from 32 up, "
                f"not {tuple(image.shape)}."
            )
        x = self.features(image)  # (N, 8 width, H / 16, W / 16), rounded up
        return self.classifier(self.pool(x))  # (N, 1)


def _block(channels_in: int, channels_out: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.LeakyReLU(0.2),
    ]
