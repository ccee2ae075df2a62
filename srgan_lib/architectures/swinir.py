"""SwinIR, image restoration by attention in shifted windows (Liang et al. 2021)."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srgan_lib.architectures.checks import MOST_LAYERS, check_input, check_positive
from srgan_lib.architectures.interpolation import Interpolation
from srgan_lib.architectures.network import SRNetwork, start_at_zero
from srgan_lib.errors import ConfigurationError


class WindowAttention(nn.Module):
    """Self-attention among the pixels of a window, with a learned bias for each offset (eq. 4)."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.bias = nn.Parameter(torch.zeros(heads, (2 * window - 1) ** 2))
        nn.init.trunc_normal_(self.bias, std=0.02)
        place = torch.cartesian_prod(torch.arange(window), torch.arange(window))
        offset = place[:, None] - place + window - 1  # (window^2, window^2, 2), from 0 on
        index = offset[..., 0] * (2 * window - 1) + offset[..., 1]
        self.register_buffer("index", index, persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Keep the shape (N windows, window^2, width).

        The mask (windows, window^2, window^2) is -inf where two pixels may not meet.
        """
        count, pixels, width = x.shape
        parts = self.query_key_value(x).view(count, pixels, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # (N windows, heads, window^2, ...)
        bias = self.bias[:, self.index].to(x.dtype)  # (heads, window^2, window^2)
        if mask is not None:
            windows = mask.shape[0]
            bias = (bias + mask[:, None].to(x.dtype)).repeat(count // windows, 1, 1, 1)
        x = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.project(x.transpose(1, 2).reshape(count, pixels, width))


class SwinLayer(nn.Module):
    """Attention in windows, then a small network for each pixel; each is added to its input.

    Every second layer cuts its windows half a window further down and to the right, so that what
    two windows saw apart comes together.
    """

    def __init__(self, width: int, heads: int, window: int, expansion: int, shifted: bool) -> None:
        super().__init__()
        self.window, self.shift = window, window // 2 if shifted else 0
        self.norm = nn.LayerNorm(width)
        self.attention = WindowAttention(width, heads, window)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, expansion * width),
            nn.GELU(),
            nn.Linear(expansion * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (N, H, W, width), H and W multiples of the window."""
        _, height, width, _ = x.shape
        mask = None
        seen = self.norm(x)
        if self.shift:
            seen = seen.roll((-self.shift, -self.shift), dims=(1, 2))
            mask = shift_mask(height, width, self.window, self.shift, x.device)
        seen = self.attention(to_windows(seen, self.window), mask)
        seen = from_windows(seen, self.window, height, width)
        if self.shift:
            seen = seen.roll((self.shift, self.shift), dims=(1, 2))
        x = x + seen
        return x + self.feed_forward(x)


class SwinIR(SRNetwork):
    """Generator of SwinIR in its lightweight form: one sub-pixel convolution enlarges.

    A convolution reads the image (shallow features); residual Swin transformer blocks, each some
    layers of windowed attention and a convolution around which its input passes, find deep ones;
    both are added and enlarged (section 3.1 and figure 2). The image is padded to whole windows
    by repeating its edge, so that any size will do. As in the authors' code, weights of linear
    layers start with a deviation of 0.02 and their biases at zero; convolutions start as in torch.

    ``bicubic_skip`` leaves the paper: the bicubic image is added, and the last convolution starts
    at zero, see :class:`~srgan_lib.architectures.srresnet.SRResNet`.

    Args:
        channels: 1 (grey) or 3 (RGB).
        scale: 2, 3 or 4.
        width: feature channels, a multiple of ``heads``; 60 in the paper's lightweight form.
        depths: layers of each residual block; four times 6 in that form.
        heads: attention heads; 6 in the paper.
        window: side of a window in LR pixels, even; 8 in the paper.
        expansion: how much wider the small network is inside; 2 in the paper.
        bicubic_skip: add the bicubic image to the output.

    Attributes:
        stride: an image may be cut at multiples of this, so that its windows stay the same.

    Raises:
        ConfigurationError: an impossible value.
    """

    small: ClassVar = {"depths": (2, 2), "width": 6, "heads": 2, "window": 4}

    def __init__(
        self,
        channels: int = 1,
        scale: int = 4,
        width: int = 60,
        depths: tuple[int, ...] = (6, 6, 6, 6),
        heads: int = 6,
        window: int = 8,
        expansion: int = 2,
        *,
        bicubic_skip: bool = False,
    ) -> None:
        super().__init__(locals())
        check_positive(width=width, heads=heads, window=window, expansion=expansion)
        check_positive(MOST_LAYERS, depths=depths)
        if width % heads:
            raise ConfigurationError(f"width ({width}) must be a multiple of heads ({heads}).")
        if window % 2:
            raise ConfigurationError(f"window must be even, not {window}.")
        self.window = self.stride = window
        self.adds_to_bicubic = bicubic_skip
        self.shallow = nn.Conv2d(channels, width, 3, padding=1)
        self.norm_first = nn.LayerNorm(width)
        self.blocks = nn.ModuleList()
        for depth in depths:
            layers = (SwinLayer(width, heads, window, expansion, i % 2 == 1) for i in range(depth))
            block = nn.ModuleDict(
                {
                    "layers": nn.Sequential(*layers),
                    "convolution": nn.Conv2d(width, width, 3, padding=1),
                }
            )
            self.blocks.append(block)
        self.norm_last = nn.LayerNorm(width)
        self.deep = nn.Conv2d(width, width, 3, padding=1)
        self.upsample = nn.Sequential(
            nn.Conv2d(width, channels * scale**2, 3, padding=1), nn.PixelShuffle(scale)
        )
        self.bicubic = Interpolation("bicubic", scale) if bicubic_skip else None
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        if bicubic_skip:
            start_at_zero(self.upsample[0])

    @property
    def receptive_radius(self) -> int:
        """No LR pixel that is more rows or columns away changes an LR pixel's SR pixels.

        It differs with the place in the window; this is the largest.
        """
        return max(place - self._first(place) for place in range(self.window))

    def _first(self, place: int) -> int:
        """Return the first row that this row of the window from 0 on depends on."""
        row = place - 2  # the convolutions of the enlargement and of the deep features
        for block in reversed(self.blocks):
            row -= 1  # the block's own convolution
            for layer in reversed(block["layers"]):
                row = (row + layer.shift) // self.window * self.window - layer.shift
        return row - 1  # the shallow features

    @property
    def working_width(self) -> int:
        """Channels of its widest features for each SR pixel: what memory grows with."""
        attention = self.arguments["heads"] * self.window**2 + 3 * self.arguments["width"]
        return self.channels + attention // self.scale**2

    def forward(self, lr: Tensor) -> Tensor:
        """Turn LR (N, channels, H, W) in [0, 1] into SR (N, channels, scale H, scale W)."""
        check_input(self, lr)
        height, width = lr.shape[-2:]
        down, right = -height % self.window, -width % self.window
        shallow = self.shallow(F.pad(lr, (0, right, 0, down), mode="replicate"))
        x = self.norm_first(shallow.permute(0, 2, 3, 1))  # (N, H, W, width)
        for block in self.blocks:
            seen = block["layers"](x).permute(0, 3, 1, 2)
            x = x + block["convolution"](seen).permute(0, 2, 3, 1)
        deep = self.deep(self.norm_last(x).permute(0, 3, 1, 2))
        sr = self.upsample(shallow + deep)[..., : self.scale * height, : self.scale * width]
        return sr if self.bicubic is None else sr + self.bicubic(lr)


def to_windows(x: Tensor, side: int) -> Tensor:
    """Cut (N, H, W, C) into windows: (N windows, side^2, C)."""
    n, height, width, channels = x.shape
    x = x.reshape(n, height // side, side, width // side, side, channels)
    return x.transpose(2, 3).reshape(-1, side * side, channels)


def from_windows(windows: Tensor, side: int, height: int, width: int) -> Tensor:
    """Undo :func:`to_windows`."""
    channels = windows.shape[-1]
    x = windows.reshape(-1, height // side, width // side, side, side, channels)
    return x.transpose(2, 3).reshape(-1, height, width, channels)


def shift_mask(height: int, width: int, side: int, shift: int, device: torch.device) -> Tensor:
    """Return -inf where pixels of a rolled image share a window but were no neighbours.

    Rolling brings the upper border below the lower one. In the windows there, only pixels that
    came from the same side may meet.

    Returns:
        (windows, side^2, side^2).
    """
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    # 0 in whole windows, 1 and 2 in the two parts of the last window
    rows = (rows >= height - side).long() + (rows >= height - shift)
    columns = (columns >= width - side).long() + (columns >= width - shift)
    part = (3 * rows[:, None] + columns)[None, ..., None]  # (1, H, W, 1)
    part = to_windows(part, side)[..., 0]  # (windows, side^2)
    apart = part[:, :, None] != part[:, None]
    return torch.zeros(apart.shape, device=device).masked_fill(apart, float("-inf"))
