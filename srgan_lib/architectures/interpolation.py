"""The baselines that learn nothing: nearest, bilinear, bicubic and Lanczos interpolation."""

import math

from torch import Tensor

from srgan_lib.architectures.network import SRNetwork
from srgan_lib.degradation import KERNELS, resize, support
from srgan_lib.errors import ConfigurationError, unknown_name


class Interpolation(SRNetwork, named=False):
    """Enlarge by interpolation, called exactly as a generator is.

    Args:
        kernel: ``"nearest"``, ``"bilinear"``, ``"bicubic"`` or ``"lanczos"``.
        scale: how many times larger each side gets.

    Raises:
        ConfigurationError: an unknown kernel or an impossible scale.
    """

    offered_scales = None
    working_width = 1

    def __init__(self, kernel: str = "bicubic", scale: int = 4) -> None:
        super().__init__(locals())
        if kernel not in KERNELS:
            raise unknown_name("kernel", kernel, KERNELS)
        if scale < 1:
            raise ConfigurationError(f"scale must be a positive whole number, not {scale}.")
        self.kernel = kernel

    def reach(self, beyond: int = 0) -> int:
        """Return how far, in LR pixels, the input reaches that an LR pixel's cell depends on.

        Args:
            beyond: SR pixels around the cell of ``scale`` x ``scale`` that count as well: those
                that the layers of a network read which work on the enlarged image.
        """
        # The centre of the first SR pixel that counts lies this far above the LR pixel's own.
        above = (beyond - 0.5) / self.scale + 0.5
        return math.ceil(above + support(self.kernel)) - 1

    @property
    def receptive_radius(self) -> int:
        """No LR pixel that is more rows or columns away changes an LR pixel's SR pixels."""
        return self.reach()

    def forward(self, lr: Tensor) -> Tensor:
        """Enlarge LR (N, C, H, W) to (N, C, scale H, scale W); may overshoot [0, 1]."""
        height, width = lr.shape[-2:]
        return resize(lr, (height * self.scale, width * self.scale), self.kernel)

    def extra_repr(self) -> str:
        return f"{self.kernel}, scale={self.scale}"
