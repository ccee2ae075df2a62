"""ESPCN, which works at the size of the LR image and enlarges last (Shi et al. 2016)."""

from typing import ClassVar

from torch import Tensor, nn

from srgan_lib.architectures.checks import check_input, check_positive
from srgan_lib.architectures.network import SRNetwork


class ESPCN(SRNetwork):
    """Three convolutions on LR; the last makes all pixels of a cell at once.

    The sub-pixel convolution (section 2.2) is a convolution to ``channels * scale^2`` channels
    and a rearrangement of these into cells of ``scale x scale`` pixels. It equals a transposed
    convolution whose weights are arranged otherwise, without the zeros in between.

    Args:
        channels: 1 (grey) or 3 (RGB).
        scale: 2, 3 or 4.
        widths: channels after the first and the second convolution; 64 and 32 in the paper.

    Raises:
        ConfigurationError: an impossible value.
    """

    small: ClassVar = {"widths": (6, 4)}

    def __init__(
        self, channels: int = 1, scale: int = 4, widths: tuple[int, int] = (64, 32)
    ) -> None:
        super().__init__(locals())
        check_positive(widths=widths)
        self.features = nn.Sequential(
            nn.Conv2d(channels, widths[0], 5, padding=2),
            nn.Tanh(),  # better than ReLU here, says section 3.2
            nn.Conv2d(widths[0], widths[1], 3, padding=1),
            nn.Tanh(),
        )
        self.sub_pixel = nn.Sequential(
            nn.Conv2d(widths[1], channels * scale**2, 3, padding=1), nn.PixelShuffle(scale)
        )

    @property
    def receptive_radius(self) -> int:
        """No LR pixel that is more rows or columns away changes an LR pixel's SR pixels."""
        return 2 + 1 + 1  # its kernels are 5, 3 and 3 wide

    @property
    def working_width(self) -> int:
        """Channels of its widest features for each SR pixel: what memory grows with."""
        return self.channels + max(self.arguments["widths"]) // self.scale**2

    def forward(self, lr: Tensor) -> Tensor:
        """Turn LR (N, channels, H, W) in [0, 1] into SR (N, channels, scale H, scale W)."""
        check_input(self, lr)
        x = self.features(lr)  # (N, widths[1], H, W)
        return self.sub_pixel(x)
