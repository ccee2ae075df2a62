"""IPT, the image processing transformer (Chen et al. 2021)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srgan_lib.architectures.checks import check_form, check_input, check_positive
from srgan_lib.architectures.interpolation import Interpolation
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


class IPT(nn.Module):
    """One transformer for several tasks, here magnifications, each with a head and a tail.

    A head turns the image into features. They are cut into patches, which are the transformer's
    tokens; the encoder lets them exchange, the decoder does so again with a learned embedding of
    the task. Its result, added to the features, goes to the tail of the task (section 3.1 and
    figure 2). The learned positions hold for one size, so an image is cut into crops of it, which
    overlap and are averaged where they do.

    The form follows the authors' code where the paper is silent: a linear layer before the
    encoder and a small network after the decoder, both added to what they read, and attention
    without biases.

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
        arguments: what this network was made with; saved along with its weights.

    Raises:
        ConfigurationError: an impossible value.
    """

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
        super().__init__()
        for one in scales:
            check_form(channels, one, (2, 3, 4))
        if scale not in scales:
            raise ConfigurationError(f"scale must be one of scales {tuple(scales)}, not {scale}.")
        check_positive(width=width, patch=patch, depth=depth, heads=heads, expansion=expansion)
        check_positive(crop=crop)
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
        self.channels, self.scale, self.patch = channels, scale, patch
        self.crop, self.overlap = crop, overlap
        self.arguments = {
            "channels": channels,
            "scale": scale,
            "scales": list(scales),
            "width": width,
            "patch": patch,
            "depth": depth,
            "heads": heads,
            "expansion": expansion,
            "crop": crop,
            "overlap": overlap,
            "bicubic_skip": bicubic_skip,
        }
        tokens, hidden = (crop // patch) ** 2, expansion * dimension
        layer = (dimension, heads, hidden)
        self.heads = nn.ModuleDict({f"x{one}": _head(channels, width) for one in scales})
        self.positions = nn.Parameter(0.02 * torch.randn(tokens, dimension))
        self.tasks = nn.ParameterDict(
            {f"x{one}": nn.Parameter(0.02 * torch.randn(tokens, dimension)) for one in scales}
        )
        self.before = nn.Linear(dimension, dimension)
        self.encoder = nn.Sequential(*(EncoderLayer(*layer) for _ in range(depth)))
        self.decoder = nn.ModuleList(DecoderLayer(*layer) for _ in range(depth))
        self.after = _feed_forward(dimension, hidden)
        self.tails = nn.ModuleDict({f"x{one}": _tail(channels, width, one) for one in scales})
        self.bicubic = Interpolation("bicubic", scale) if bicubic_skip else None
        if bicubic_skip:
            for tail in self.tails.values():
                nn.init.zeros_(tail[-1].weight)
                nn.init.zeros_(tail[-1].bias)

    def body(self, features: Tensor) -> Tensor:
        """Keep the shape (N, width, crop, crop): to tokens, through the transformer, and back."""
        y = F.unfold(features, self.patch, stride=self.patch).transpose(1, 2)
        y = y + self.before(y)  # (N, tokens, dimension)
        encoded = self.encoder(y + self.positions)
        z = encoded
        for layer in self.decoder:
            z = layer(z, encoded, self.tasks[f"x{self.scale}"])
        z = z + self.after(z)
        return F.fold(z.transpose(1, 2), self.crop, self.patch, stride=self.patch)

    def forward(self, lr: Tensor) -> Tensor:
        """Turn LR (N, channels, H, W) in [0, 1] into SR (N, channels, scale H, scale W)."""
        check_input(self, lr)
        height, width = lr.shape[-2:]
        crops, rows, columns = self._cut(lr)
        x = self.heads[f"x{self.scale}"](crops)  # (N crops, width, crop, crop)
        x = self.tails[f"x{self.scale}"](x + self.body(x))
        sr = self._join(x, rows, columns)[..., : self.scale * height, : self.scale * width]
        return sr if self.bicubic is None else sr + self.bicubic(lr)

    def _cut(self, lr: Tensor) -> tuple[Tensor, int, int]:
        """Return crops (N rows columns, channels, crop, crop), and how many rows and columns."""
        step = self.crop - self.overlap
        height, width = lr.shape[-2:]
        rows, columns = (-(-max(side - self.overlap, 1) // step) for side in (height, width))
        down = rows * step + self.overlap - height
        right = columns * step + self.overlap - width
        lr = F.pad(lr, (0, right, 0, down), mode="replicate")
        crops = lr.unfold(2, self.crop, step).unfold(3, self.crop, step)
        crops = crops.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
        return crops, rows, columns

    def _join(self, crops: Tensor, rows: int, columns: int) -> Tensor:
        """Put the enlarged crops back; where they overlap, return their mean."""
        side, step = self.scale * self.crop, self.scale * (self.crop - self.overlap)
        size = tuple(n * step + self.scale * self.overlap for n in (rows, columns))
        cells = crops.unflatten(0, (-1, rows * columns)).flatten(2).transpose(1, 2)
        total = F.fold(cells, size, side, stride=step)
        count = F.fold(torch.ones_like(cells[:1]), size, side, stride=step)
        return total / count


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
