"""SRResNet, the generator of SRGAN (Ledig et al. 2017, section 2.1.1 and figure 4)."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from srgan_lib.architectures.checks import MOST_LAYERS, check_positive
from srgan_lib.architectures.interpolation import Interpolation
from srgan_lib.architectures.network import SRNetwork, start_at_zero
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


class NoiseInput(nn.Module):
    """Add noise to features: as much as each place and channel asks for.

    StyleGAN adds one map of normal noise to all features, with a learned gain for each channel
    (Karras et al. 2019, section 3.2). Here the gain is a 1 x 1 convolution of the features, so
    that bone, lung and air get each their own grain. It starts at zero: a trained network means
    the same before and after it gets a noise input.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.gain.weight)
        nn.init.zeros_(self.gain.bias)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Keep the shape (N, width, H, W); ``noise`` is (N, 1, H, W)."""
        gain = self.gain(x)
        return x + noise.to(gain.dtype) * gain


class SRResNet(SRNetwork):
    """Generator: LR image in, SR image of ``scale`` times the size out.

    A 9 x 9 convolution reads the image; residual blocks work at low resolution; a long skip
    adds what was read; sub-pixel stages enlarge, each by two; a 9 x 9 convolution writes the
    image. The output is not clamped: gradients must reach values out of range. A convolution
    that batch norm follows has no bias, since batch norm has one. Each PReLU has one slope.

    The paper scales LR to [0, 1] and HR to [-1, 1]; here both are in [0, 1].

    The last four arguments leave the paper. With ``batch_norm=False``, ``bicubic_skip=True``
    and ``end_kernel=3`` the network starts as bicubic interpolation and learns only what to add
    to it, which takes a small fraction of the training steps. With ``noise=True`` it throws dice:
    noise enters after the long skip and after each sub-pixel stage, and one LR image has many SR
    images (:class:`NoiseInput`). Without, whatever a flat patch of LR becomes repeats every
    ``scale`` pixels, since convolutions and pixel shuffle treat all LR pixels alike.

    Args:
        channels: 1 (grey) or 3 (RGB).
        scale: 2, 4 or 8.
        blocks: number of residual blocks; 16 in the paper.
        width: number of feature channels; 64 in the paper.
        batch_norm: normalise in the residual blocks and after them, as the paper does.
        bicubic_skip: add the bicubic image to the output; the last convolution starts at zero.
        end_kernel: side of the first and the last convolution, odd; 9 in the paper.
        noise: give the network noise inputs.

    Attributes:
        noise_channels: channels of the noise that :meth:`forward` takes, 0 without noise inputs:
            one for each pixel that an LR pixel becomes, at all sizes on the way (1 + 4 + 16 for a
            scale of 4).

    Raises:
        ConfigurationError: an impossible value.
    """

    offered_scales = (2, 4, 8)
    small: ClassVar = {"blocks": 1, "width": 4}

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
        noise: bool = False,
    ) -> None:
        super().__init__(locals())
        check_positive(width=width, end_kernel=end_kernel)
        check_positive(MOST_LAYERS, blocks=blocks)
        if end_kernel % 2 == 0:
            raise ConfigurationError(f"end_kernel must be odd, not {end_kernel}.")
        self.adds_to_bicubic = bicubic_skip
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
            start_at_zero(self.last)
        inputs = stages + 1 if noise else 0
        self.noise = nn.ModuleList(NoiseInput(width) for _ in range(inputs))
        self.noise_channels = sum(4**stage for stage in range(inputs))

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

    def complete(self, state: dict[str, Tensor], arguments: dict[str, Any]) -> None:
        """Turn weights without dice into some with: noise inputs begin at zero, without effect."""
        inputs = {name: x for name, x in self.state_dict().items() if name.startswith("noise.")}
        if inputs and not arguments.get("noise") and not inputs.keys() & state.keys():
            arguments.pop("noise", None)
            state |= {name: torch.zeros(x.shape) for name, x in inputs.items()}

    def forward(self, lr: Tensor, noise: Tensor | None = None) -> Tensor:
        """Turn LR (N, channels, H, W) in [0, 1] into SR (N, channels, scale H, scale W).

        With noise inputs, ``noise`` is standard normal, (N, noise_channels, H, W); without it,
        torch's own random numbers are taken. With (K N, noise_channels, H, W) each image gets K
        throws, (K N, channels, scale H, scale W), the first of all images first; the layers up to
        the long skip run once for them.

        Raises:
            ImageError: LR or noise of another shape; a network without noise inputs takes no noise.
        """
        if lr.ndim != 4 or lr.shape[1] != self.channels:
            raise ImageError(
                f"This SRResNet takes (N, {self.channels}, H, W), not {tuple(lr.shape)}."
            )
        maps = self._noise_maps(lr, noise)
        x = self.head(lr)  # (N, width, H, W)
        x = x + self.tail(self.blocks(x))  # (N, width, H, W)
        if not maps:
            x = self.upsample(x)  # (N, width, scale H, scale W)
        else:
            x = self.noise[0](_repeat(x, maps[0]), maps[0])  # (K N, width, H, W)
            for i, stage in enumerate(self.upsample, 1):
                x = self.noise[i](stage(x), maps[i])  # each time twice the size
        x = self.last(x)  # (K N, channels, scale H, scale W)
        return x if self.bicubic is None else x + _repeat(self.bicubic(lr), x)

    def _noise_maps(self, lr: Tensor, noise: Tensor | None) -> list[Tensor]:
        """Return the noise as one map (K N, 1, height, width) for each noise input."""
        size = (len(lr), self.noise_channels, *lr.shape[2:])
        if noise is None:
            if not self.noise:
                return []
            noise = torch.randn(size, device=lr.device, dtype=lr.dtype)
        elif noise.shape[1:] != size[1:] or not len(noise) or len(noise) % len(lr):
            raise ImageError(
                f"The noise for LR {tuple(lr.shape)} is (K {len(lr)}, {self.noise_channels}, "
                f"{lr.shape[2]}, {lr.shape[3]}), not {tuple(noise.shape)}."
            )
        parts = noise.split([4**i for i in range(len(self.noise))], dim=1)
        return [functional.pixel_shuffle(part, 2**i) for i, part in enumerate(parts)]


def _repeat(x: Tensor, like: Tensor) -> Tensor:
    """Repeat a batch as often as it takes to be as long as another."""
    if x.shape[0] == like.shape[0]:
        return x
    return torch.cat([x] * (like.shape[0] // x.shape[0]))


def _convolution(width: int, batch_norm: bool) -> list[nn.Module]:
    """Return a 3 x 3 convolution with batch norm, or with a bias in its place."""
    if batch_norm:
        return [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
    return [nn.Conv2d(width, width, 3, padding=1)]
