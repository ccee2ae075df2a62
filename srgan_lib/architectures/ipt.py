"""IPT, the image processing transformer (Chen et al. 2021)."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srgan_lib.architectures.checks import MOST_LAYERS, check_form, check_input, check_positive
from srgan_lib.architectures.interpolation import Interpolation
from srgan_lib.architectures.network import SRNetwork, start_at_zero
from srgan_lib.errors import ConfigurationError


class Attention(nn.Module):
    """Multi-head attention of some tokens on others, without biases."""

    def __init__(self, dimension: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dimension, dimension, bias=False)
        self.key = nn.Linear(dimension, dimension, bias=False)
        self.value = nn.Linear(dimension, dimension, bias=False)
        self.project = nn.Linear(dimension, dimension, bias=False)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return (N, tokens, dimension), the shape of all three inputs."""
        # Each becomes (N, heads, tokens, dimension / heads).
        parts = [
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.query, query), (self.key, key), (self.value, value))
        ]
        return self.project(F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """Attention among the patches, then a small network for each; both added (eq. 2)."""

    def __init__(self, dimension: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(dimension) for _ in range(2))
        self.attention = Attention(dimension, heads)
        self.feed_forward = _feed_forward(dimension, hidden)

    def forward(self, y: Tensor) -> Tensor:
        """Keep the shape (N, tokens, dimension)."""
        seen = self.norms[0](y)
        y = y + self.attention(seen, seen, seen)
        return y + self.feed_forward(self.norms[1](y))


class DecoderLayer(nn.Module):
    """As the encoder's, but that it knows the task, and looks back at the encoder (eq. 3)."""

    def __init__(self, dimension: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(dimension) for _ in range(3))
        self.attention = Attention(dimension, heads)
        self.cross_attention = Attention(dimension, heads)
        self.feed_forward = _feed_forward(dimension, hidden)

    def forward(self, z: Tensor, encoded: Tensor, task: Tensor) -> Tensor:
        """Keep the shape (N, tokens, dimension); the task's embedding is (tokens, dimension)."""
        seen = self.norms[0](z)
        z = z + self.attention(seen + task, seen + task, seen)
        z = z + self.cross_attention(self.norms[1](z) + task, encoded, encoded)
        return z + self.feed_forward(self.norms[2](z))


class IPT(SRNetwork):
    """One transformer for several tasks, here magnifications, each with a head and a tail.

    A head turns the image into features. They are cut into patches, which are the transformer's
    tokens; the encoder lets them exchange, the decoder does so again with a learned embedding of
    the task. Its result, added to the features, goes to the tail of the task (section 3.1 and
    figure 2). The learned positions hold for one size, so an image is cut into crops of it, which
    overlap and are averaged where they do.

    The form follows the authors' code where the paper is silent: a linear layer before the
    encoder and a small network after the decoder, both added to what they read, attention without
    biases, and positions and embeddings that start with a deviation of 1.

    ``bicubic_skip`` leaves the paper: the bicubic image is added, and the last convolution starts
    at zero, see :class:`~srgan_lib.architectures.srresnet.SRResNet`.

    Args:
        channels: 1 (grey) or 3 (RGB).
        scale: the task to do, one of ``scales``.
        scales: the tasks that the network knows: 2, 3 and 4, or some of them.
        width: channels of a head's features; 64 in the paper.
        patch: side of a patch in LR pixels; 3 in the paper.
        depth: layers of the encoder, and of the decoder; 12 in the paper.
        heads: attention heads; 12 in the paper.
        expansion: how much wider the small networks are inside; 4 in the paper.
        crop: side of a crop in LR pixels, a multiple of ``patch``; 48 in the paper.
        overlap: LR pixels that two crops share.
        bicubic_skip: add the bicubic image to the output.

    Attributes:
        stride: how far apart crops begin; an image may be cut at multiples of this.

    Raises:
        ConfigurationError: an impossible value.
    """

    small: ClassVar = {
        "width": 4,
        "patch": 2,
        "depth": 1,
        "heads": 2,
        "expansion": 2,
        "crop": 8,
        "overlap": 2,
    }

    def __init__(
        self,
        channels: int = 1,
        scale: int = 4,
        scales: tuple[int, ...] = (2, 3, 4),
        width: int = 64,
        patch: int = 3,
        depth: int = 12,
        heads: int = 12,
        expansion: int = 4,
        crop: int = 48,
        overlap: int = 12,
        *,
        bicubic_skip: bool = False,
    ) -> None:
        super().__init__(locals())
        for one in scales:
            check_form(channels, one, self.offered_scales)
        if scale not in scales:
            raise ConfigurationError(f"scale must be one of scales {tuple(scales)}, not {scale}.")
        check_positive(width=width, patch=patch, heads=heads, expansion=expansion, crop=crop)
        check_positive(MOST_LAYERS, depth=depth, scales=scales)
        dimension = width * patch**2
        if dimension % heads:
            raise ConfigurationError(
                f"width * patch^2 ({dimension}) must be a multiple of heads ({heads})."
            )
        if crop % patch or not 0 <= overlap < crop:
            raise ConfigurationError(
                f"crop ({crop}) must be a multiple of patch ({patch}) and more than overlap "
                f"({overlap}), which must not be negative."
            )
        self.patch, self.crop, self.overlap = patch, crop, overlap
        self.stride = crop - overlap
        self.adds_to_bicubic = bicubic_skip
        tokens, hidden = (crop // patch) ** 2, expansion * dimension
        layer = (dimension, heads, hidden)
        self.heads = nn.ModuleDict({f"x{one}": _head(channels, width) for one in scales})
        self.positions = nn.Parameter(torch.randn(tokens, dimension))
        self.tasks = nn.ParameterDict(
            {f"x{one}": nn.Parameter(torch.randn(tokens, dimension)) for one in scales}
        )
        self.before = nn.Linear(dimension, dimension)
        self.encoder = nn.Sequential(*(EncoderLayer(*layer) for _ in range(depth)))
        self.decoder = nn.ModuleList(DecoderLayer(*layer) for _ in range(depth))
        self.after = _feed_forward(dimension, hidden)
        self.tails = nn.ModuleDict({f"x{one}": _tail(channels, width, one) for one in scales})
        self.bicubic = Interpolation("bicubic", scale) if bicubic_skip else None
        if bicubic_skip:
            for tail in self.tails.values():
                start_at_zero(tail[-1])

    @property
    def receptive_radius(self) -> int:
        """No LR pixel that is more rows or columns away changes an LR pixel's SR pixels.

        A pixel sees all of its crops. It may be the first in one, or the last.
        """
        return max(self.crop - 1, 2)  # the bicubic image reaches 2

    @property
    def working_width(self) -> int:
        """Channels of its widest features for each SR pixel: what memory grows with."""
        form = self.arguments
        attention = form["heads"] * (self.crop // self.patch) ** 2 // self.patch**2
        inside = (attention + form["expansion"] * form["width"]) // self.scale**2
        crops = (-(-self.crop // self.stride)) ** 2  # that a pixel is in, at most
        return crops * max(form["width"], inside)

    def body(self, features: Tensor) -> Tensor:
        """Keep the shape (N, width, crop, crop): to tokens, through the transformer, and back."""
        patches = F.pixel_unshuffle(features, self.patch)  # (N, dimension, rows, columns)
        y = patches.flatten(2).transpose(1, 2)
        y = y + self.before(y)  # (N, tokens, dimension)
        encoded = self.encoder(y + self.positions)
        z = encoded
        for layer in self.decoder:
            z = layer(z, encoded, self.tasks[f"x{self.scale}"])
        z = z + self.after(z)
        return F.pixel_shuffle(z.transpose(1, 2).view_as(patches), self.patch)

    def forward(self, lr: Tensor) -> Tensor:
        """Turn LR (N, channels, H, W) in [0, 1] into SR (N, channels, scale H, scale W)."""
        check_input(self, lr)
        height, width = lr.shape[-2:]
        crops = self._cut(lr)  # (N, rows, columns, channels, crop, crop)
        x = self.heads[f"x{self.scale}"](crops.flatten(0, 2))  # (N crops, width, crop, crop)
        x = self.tails[f"x{self.scale}"](x + self.body(x))
        x = self._join(x.unflatten(0, crops.shape[:3]))
        sr = x[..., : self.scale * height, : self.scale * width]
        return sr if self.bicubic is None else sr + self.bicubic(lr)

    def _cut(self, lr: Tensor) -> Tensor:
        """Return crops (N, rows, columns, channels, crop, crop).

        Those at the end hang over the image, whose edge is repeated.
        """
        rows, columns = (self._places(side, lr.device) for side in lr.shape[-2:])
        crops = lr[:, :, rows][..., columns]  # (N, channels, rows, crop, columns, crop)
        return crops.permute(0, 2, 4, 1, 3, 5)

    def _places(self, side: int, device: torch.device) -> Tensor:
        """Return which pixels along one side are in each of its crops: (crops, crop)."""
        # sym_max is max also for the side of any length that an export is made for.
        count = (torch.sym_max(side - self.overlap, 1) + self.stride - 1) // self.stride
        first = self.stride * torch.arange(count, device=device)
        return (first[:, None] + torch.arange(self.crop, device=device)).clamp(max=side - 1)

    def _join(self, crops: Tensor) -> Tensor:
        """Put enlarged crops (N, rows, columns, channels, side, side) back, by their mean."""
        step = self.scale * self.stride
        # First all columns, (N, channels, rows, side, width), then all rows.
        x = _add_overlapping(crops.permute(0, 3, 1, 4, 2, 5), step)
        x = _add_overlapping(x.permute(0, 1, 4, 2, 3), step).transpose(-2, -1)
        rows, columns = (
            _add_overlapping(crops.new_ones(n, crops.shape[-1]), step) for n in crops.shape[1:3]
        )
        return x / (rows[:, None] * columns)


def _add_overlapping(pieces: Tensor, step: int) -> Tensor:
    """Lay pieces (..., count, side) side by side, ``step`` apart, and add where they overlap."""
    parts = -(-pieces.shape[-1] // step)
    x = F.pad(pieces, (0, parts * step - pieces.shape[-1])).unflatten(-1, (parts, step))
    # Part j of piece i lies at step i + j.
    moved = (F.pad(x[..., j, :], (0, 0, j, parts - 1 - j)) for j in range(parts))
    return sum(moved).flatten(-2)


def _head(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1), _ResidualBlock(width), _ResidualBlock(width)
    )


class _ResidualBlock(nn.Module):
    """Two 5 x 5 convolutions around a ReLU, added to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(width, width, 5, padding=2),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def _tail(channels: int, width: int, scale: int) -> nn.Sequential:
    """Return sub-pixel stages, two of 2 for a scale of 4, and the convolution to the image."""
    layers: list[nn.Module] = []
    for factor in (2, 2) if scale == 4 else (scale,):
        layers += [nn.Conv2d(width, factor**2 * width, 3, padding=1), nn.PixelShuffle(factor)]
    return nn.Sequential(*layers, nn.Conv2d(width, channels, 3, padding=1))


def _feed_forward(dimension: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dimension, hidden), nn.ReLU(), nn.Linear(hidden, dimension))
