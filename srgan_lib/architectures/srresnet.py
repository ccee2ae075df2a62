"""SRResNet, the generator of SRGAN (Ledig et al. 2017, section 2.1.1 and figure 4)."""

import torch
from torch import Tensor, nn

from srgan_lib.architectures.checks import MOST_LAYERS, check_positive
from srgan_lib.architectures.interpolation import Interpolation
from srgan_lib.errors import ConfigurationError, ImageError


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions around a PReLU, added to their input; batch norm after each."""

    def __init__(self, width: int, batch_norm: bool = True) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(width, batch_norm), nn.PReLU(), *_convolution(width, batch_norm)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (N, width, H, W)."""
        return x + self.body(x)


class SubPixelStage(nn.Module):
    """Double the size: a convolution to four times the channels, then pixel shuffle."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, 4 * width, 3, padding=1),
            nn.PixelShuffle(2),
            nn.PReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Turn (N, width, H, W) into (N, width, 2 H, 2 W)."""
        convolution, shuffle, activation = self.body
        x = shuffle(convolution(x))
        # On some devices the shuffle returns channels-first memory, slow for what follows.
        return activation(x.contiguous(memory_format=torch.channels_last))


class SRResNet(nn.Module):
    """Generator: LR image in, SR image of ``scale`` times the size out.

    A 9 x 9 convolution reads the image; residual blocks work at low resolution; a long skip
    adds what was read; sub-pixel stages enlarge, each by two; a 9 x 9 convolution writes the
    image. The output is not clamped: gradients must reach values out of range. A convolution
    that batch norm follows has no bias, since batch norm has one. Each PReLU has one slope.

    The paper scales LR to [0, 1] and HR to [-1, 1]; here both are in [0, 1].

    The last three arguments leave the paper. With ``batch_norm=False``, ``bicubic_skip=True``
    and ``end_kernel=3`` the network starts as bicubic interpolation and learns only what to add
    to it, which takes a small fraction of the training steps.

    Args:
        channels: 1 (grey) or 3 (RGB).
        scale: 2, 4 or 8.
        blocks: number of residual blocks; 16 in the paper.
        width: number of feature channels; 64 in the paper.
        batch_norm: normalise in the residual blocks and after them, as the paper does.
        bicubic_skip: add the bicubic image to the output; the last convolution starts at zero.
        end_kernel: side of the first and the last convolution, odd; 9 in the paper.

    Attributes:
        adds_to_bicubic: whether what the layers give is added to the bicubic image.
        arguments: what this network was made with; saved along with its weights.

    Raises:
        ConfigurationError: an impossible value.
    """

    def __init__(
        self,
        channels: int = 1,
        scale: int = 4,
        blocks: int = 16,
        width: int = 64,
        *,
        batch_norm: bool = True,
        bicubic_skip: bool = False,
        end_kernel: int = 9,
    ) -> None:
        super().__init__()
        if channels not in (1, 3):
            raise ConfigurationError(f"channels must be 1 or 3, not {channels}.")
        if scale not in (2, 4, 8):
            raise ConfigurationError(f"scale must be 2, 4 or 8, not {scale}.")
        if blocks < 1 or width < 1:
            raise ConfigurationError(f"blocks ({blocks}) and width ({width}) must be positive.")
        check_positive(MOST_LAYERS, blocks=blocks)
        if end_kernel < 1 or end_kernel % 2 == 0:
            raise ConfigurationError(f"end_kernel must be odd, not {end_kernel}.")
        check_positive(width=width, end_kernel=end_kernel)
        self.channels, self.scale = channels, scale
        self.adds_to_bicubic = bicubic_skip
        self.arguments = {
            "channels": channels,
            "scale": scale,
            "blocks": blocks,
            "width": width,
            "batch_norm": batch_norm,
            "bicubic_skip": bicubic_skip,
            "end_kernel": end_kernel,
        }
        padding = end_kernel // 2
        self.head = nn.Sequential(
            nn.Conv2d(channels, width, end_kernel, padding=padding), nn.PReLU()
        )
        self.blocks = nn.Sequential(*(ResidualBlock(width, batch_norm) for _ in range(blocks)))
        self.tail = nn.Sequential(*_convolution(width, batch_norm))
        stages = scale.bit_length() - 1
        self.upsample = nn.Sequential(*(SubPixelStage(width) for _ in range(stages)))
        self.last = nn.Conv2d(width, channels, end_kernel, padding=padding)
        self.bicubic = Interpolation("bicubic", scale) if bicubic_skip else None
        if bicubic_skip:
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)

    @property
    def receptive_radius(self) -> int:
        """No LR pixel that is more rows or columns away changes an LR pixel's SR pixels.

        Holds in evaluation mode: in training, batch norm looks at the whole image.
        """
        # From the output backwards: the first row that the first row of LR pixel 0 depends on.
        end = self.arguments["end_kernel"] // 2
        first = -end  # the last convolution, in HR pixels
        for _ in self.upsample:
            first = first // 2 - 1  # out of the pixel shuffle, then a 3 x 3 convolution
        first -= 1 + 2 * len(self.blocks) + end  # tail, residual blocks, head
        return -first  # 4 at least, further than a bicubic skip

    @property
    def working_width(self) -> int:
        """Channels of its widest features for each SR pixel: what memory grows with."""
        return self.arguments["width"]

    def forward(self, lr: Tensor) -> Tensor:
        """Turn LR (N, channels, H, W) in [0, 1] into SR (N, channels, scale H, scale W)."""
        if lr.ndim != 4 or lr.shape[1] != self.channels:
            raise ImageError(
                f"This SRResNet takes (N, {self.channels}, H, W), not {tuple(lr.shape)}."
            )
        x = self.head(lr)  # (N, width, H, W)
        x = x + self.tail(self.blocks(x))  # (N, width, H, W)
        x = self.upsample(x)  # (N, width, scale H, scale W)
        x = self.last(x)  # (N, channels, scale H, scale W)
        return x if self.bicubic is None else x + self.bicubic(lr)


def _convolution(width: int, batch_norm: bool) -> list[nn.Module]:
    """Return a 3 x 3 convolution with batch norm, or with a bias in its place."""
    if batch_norm:
        return [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
    return [nn.Conv2d(width, width, 3, padding=1)]
