"""RRDBNet, the generator of ESRGAN (Wang et al. 2018, section 3.1 and figures 3 and 4)."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srgan_lib.architectures.checks import MOST_LAYERS, check_input, check_positive
from srgan_lib.architectures.interpolation import Interpolation
from srgan_lib.architectures.network import SRNetwork, start_at_zero


class DenseBlock(nn.Module):
    """Five 3 x 3 convolutions, each of which sees the outputs of all before it.

    What they find is scaled by 0.2 and added to the input (residual scaling).
    """

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(width + i * growth, growth if i < 4 else width, 3, padding=1)
            for i in range(5)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (N, width, H, W)."""
        seen = [x]
        for convolution in self.convolutions[:4]:
            seen.append(F.leaky_relu(convolution(torch.cat(seen, dim=1)), 0.2))
        return x + 0.2 * self.convolutions[4](torch.cat(seen, dim=1))


class RRDB(nn.Module):
    """Residual in residual dense block: three dense blocks, scaled by 0.2, added to the input."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*(DenseBlock(width, growth) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (N, width, H, W)."""
        return x + 0.2 * self.body(x)


class RRDBNet(SRNetwork):
    """Generator of ESRGAN: SRResNet's frame, with RRDBs in place of residual blocks.

    There is no batch norm: its statistics differ between training and testing, and where they do
    it brings artefacts, says section 3.1. The paper enlarges by repeating pixels, each followed
    by a convolution. The output is not clamped.

    ``bicubic_skip`` leaves the paper: the bicubic image is added, and the last convolution starts
    at zero, see :class:`~srgan_lib.architectures.srresnet.SRResNet`.

    Args:
        channels: 1 (grey) or 3 (RGB).
        scale: 2 or 4.
        blocks: number of RRDBs; 23 in the paper.
        width: feature channels; 64 in the paper.
        growth: channels that each convolution of a dense block adds; 32 in the paper.
        bicubic_skip: add the bicubic image to the output.

    Raises:
        ConfigurationError: an impossible value.
    """

    offered_scales = (2, 4)
    small: ClassVar = {"blocks": 2, "width": 6, "growth": 3}

    def __init__(
        self,
        channels: int = 1,
        scale: int = 4,
        blocks: int = 23,
        width: int = 64,
        growth: int = 32,
        *,
        bicubic_skip: bool = False,
    ) -> None:
        super().__init__(locals())
        check_positive(width=width, growth=growth)
        check_positive(MOST_LAYERS, blocks=blocks)
        self.adds_to_bicubic = bicubic_skip
        self.head = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.Sequential(*(RRDB(width, growth) for _ in range(blocks)))
        self.tail = nn.Conv2d(width, width, 3, padding=1)
        stages = scale.bit_length() - 1
        self.upsample = nn.Sequential(*(_stage(width) for _ in range(stages)))
        self.last = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, channels, 3, padding=1),
        )
        # Section 3.1: a smaller start lets a very deep network train, here by a factor of 0.1.
        with torch.no_grad():
            for module in self.blocks.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, 0.2, nonlinearity="leaky_relu")
                    module.weight *= 0.1
                    nn.init.zeros_(module.bias)
        self.bicubic = Interpolation("bicubic", scale) if bicubic_skip else None
        if bicubic_skip:
            start_at_zero(self.last[-1])

    @property
    def receptive_radius(self) -> int:
        """No LR pixel that is more rows or columns away changes an LR pixel's SR pixels."""
        # From the output backwards: the first row that the first row of LR pixel 0 depends on.
        first = -2  # the last two convolutions, in HR pixels
        for _ in self.upsample:
            first = (first - 1) // 2  # a 3 x 3 convolution of repeated rows
        first -= 1 + 3 * 5 * len(self.blocks) + 1  # tail, dense blocks, head
        return -first  # 18 at least, further than a bicubic skip

    @property
    def working_width(self) -> int:
        """Channels of its widest features for each SR pixel: what memory grows with."""
        width, growth = self.arguments["width"], self.arguments["growth"]
        return max(width, (width + 4 * growth) // self.scale**2)

    def forward(self, lr: Tensor) -> Tensor:
        """Turn LR (N, channels, H, W) in [0, 1] into SR (N, channels, scale H, scale W)."""
        check_input(self, lr)
        x = self.head(lr)  # (N, width, H, W)
        x = x + self.tail(self.blocks(x))
        x = self.upsample(x)  # (N, width, scale H, scale W)
        x = self.last(x)  # (N, channels, scale H, scale W)
        return x if self.bicubic is None else x + self.bicubic(lr)


def _stage(width: int) -> nn.Sequential:
    """Double the size: repeat each pixel, then a convolution."""
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.Conv2d(width, width, 3, padding=1),
        nn.LeakyReLU(0.2),
    )
