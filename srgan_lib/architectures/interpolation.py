"""The baselines that learn nothing: nearest, bilinear, bicubic and Lanczos interpolation."""

from torch import Tensor, nn

from srgan_lib.degradation import KERNELS, resize
from srgan_lib.errors import ConfigurationError, unknown_name


class Interpolation(nn.Module):
    """Enlarge by interpolation, called exactly as a generator is.

    Args:
        kernel: ``"nearest"``, ``"bilinear"``, ``"bicubic"`` or ``"lanczos"``.
        scale: how many times larger each side gets.

    Raises:
        ConfigurationError: an unknown kernel or an impossible scale.
    """

    def __init__(self, kernel: str = "bicubic", scale: int = 4) -> None:
        super().__init__()
        if kernel not in KERNELS:
            raise unknown_name("kernel", kernel, KERNELS)
        if scale < 1:
            raise ConfigurationError(f"scale must be a positive whole number, not {scale}.")
        self.kernel, self.scale = kernel, scale

    def forward(self, lr: Tensor) -> Tensor:
        """Enlarge LR (N, C, H, W) to (N, C, scale H, scale W); may overshoot [0, 1]."""
        height, width = lr.shape[-2:]
        return resize(lr, (height * self.scale, width * self.scale), self.kernel)

    def extra_repr(self) -> str:
        return f"{self.kernel}, scale={self.scale}"
