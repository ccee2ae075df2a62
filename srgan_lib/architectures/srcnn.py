"""SRCNN, the first convolutional network for super-resolution (Dong et al. 2014)."""

from typing import ClassVar

from torch import Tensor, nn

from srgan_lib.architectures.checks import check_input, check_positive
from srgan_lib.architectures.interpolation import Interpolation
from srgan_lib.architectures.network import SRNetwork
from srgan_lib.errors import ConfigurationError


class SRCNN(SRNetwork):
    """Enlarge by bicubic interpolation, then sharpen with three convolutions.

    The paper reads them as three steps (section 3.1): patch extraction and representation, a
    non-linear mapping, and reconstruction. All work at the size of the SR image, so that each
    weight is used ``scale``^2 times as often as in a network that works on LR.

    The paper leaves the borders out, where a kernel would hang over. Here the edge is repeated,
    so that SR has its full size.

    Args:
        channels: 1 (grey) or 3 (RGB).
        scale: 2, 3 or 4.
        mapping_kernel: side of the second kernel, odd: 1 in the paper's 9-1-5, 8,032 weights for
            one channel, or 5 in its 9-5-5, 57,184.
        widths: channels after the first and the second convolution, 64 and 32 in the paper.

    Raises:
        ConfigurationError: an impossible value.
    """

    small: ClassVar = {"widths": (6, 4)}

    def __init__(
        self,
        channels: int = 1,
        scale: int = 4,
        mapping_kernel: int = 1,
        widths: tuple[int, int] = (64, 32),
    ) -> None:
        super().__init__(locals())
        if mapping_kernel < 1 or mapping_kernel % 2 == 0:
            raise ConfigurationError(f"mapping_kernel must be odd, not {mapping_kernel}.")
        check_positive(widths=widths, mapping_kernel=mapping_kernel)
        self.bicubic = Interpolation("bicubic", scale)
        self.extraction = _convolution(channels, widths[0], 9)
        self.mapping = _convolution(widths[0], widths[1], mapping_kernel)
        self.reconstruction = _convolution(widths[1], channels, 5)
        self.relu = nn.ReLU()

    @property
    def receptive_radius(self) -> int:
        """No LR pixel that is more rows or columns away changes an LR pixel's SR pixels."""
        layers = (self.extraction, self.mapping, self.reconstruction)
        return self.bicubic.reach(sum(layer.kernel_size[0] // 2 for layer in layers))

    @property
    def working_width(self) -> int:
        """Channels of its widest features for each SR pixel: what memory grows with."""
        return max(self.arguments["widths"])

    def forward(self, lr: Tensor) -> Tensor:
        """Turn LR (N, channels, H, W) in [0, 1] into SR (N, channels, scale H, scale W)."""
        check_input(self, lr)
        x = self.bicubic(lr)  # (N, channels, scale H, scale W)
        x = self.relu(self.extraction(x))
        x = self.relu(self.mapping(x))
        return self.reconstruction(x)


def _convolution(channels_in: int, channels_out: int, side: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, side, padding=side // 2, padding_mode="replicate")
