"""Neighbour embedding, the last word before deep learning (Bevilacqua et al. 2012)."""

import math
from collections.abc import Iterable
from typing import ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from srgan_lib.architectures.checks import check_input, check_positive
from srgan_lib.architectures.network import SRNetwork
from srgan_lib.degradation import crop_to_multiple, degrade, resize
from srgan_lib.errors import ConfigurationError, ImageError, WeightsError

_PAIRS = 32  # training patches for each example
_FLAT = 0.01  # what flat patches count in place of a contrast of zero


class NeighbourEmbedding(SRNetwork):
    """Blend the HR patches of those examples whose LR patches are alike.

    No layers and no gradients: a dictionary of examples, each a small LR patch with its HR patch.
    Every LR patch of an image, less its mean, is written as a combination of the examples nearest
    to it; the same combination of their HR patches, plus that mean, is its SR patch. LR patches
    lie one pixel apart, and SR patches are averaged where they overlap.

    The idea is of Chang et al. (2004), whose weights sum to one, as in locally linear embedding,
    and may be negative. Bevilacqua et al. forbid negative weights, by a small non-negative
    least-squares problem for each patch, with patches less their mean as features. So does this
    class. The sum is free: an example lends its shape to patches of other contrast.

    Two things raise PSNR here and don't claim to be the paper's. An example is no single training
    patch but the mean of many that are alike, found by k-means: how their HR patches differ, LR
    can't tell. And one step of back-projection (Irani and Peleg 1991) follows: what SR, made small
    again, lacks of LR is enlarged by bicubic interpolation and added.

    SciPy and scikit-learn compute this, on the CPU, whatever the device. Both are slow to import,
    so the methods do that which need them.

    Args:
        channels: 1 (grey) or 3 (RGB); each is enlarged alone, by the same examples.
        scale: 2, 3 or 4.
        patch: side of an LR patch, odd.
        neighbours: how many examples are combined.
        examples: how many there are; zeros until :meth:`fit` or weights fill them.

    Attributes:
        low: LR patches less their mean (examples, patch^2).
        high: HR patches less the mean of their LR patch (examples, (patch scale)^2).

    Raises:
        ConfigurationError: an impossible value.
    """

    differentiable = False
    small: ClassVar = {"neighbours": 3, "examples": 20}

    def __init__(
        self,
        channels: int = 1,
        scale: int = 4,
        patch: int = 3,
        neighbours: int = 15,
        examples: int = 6000,
    ) -> None:
        super().__init__(locals())
        check_positive(patch=patch, neighbours=neighbours)
        check_positive(most=10**7, examples=examples)
        if patch % 2 == 0:
            raise ConfigurationError(f"patch must be odd, not {patch}.")
        if neighbours > examples:
            raise ConfigurationError(f"{examples} examples don't hold {neighbours} neighbours.")
        self.patch, self.neighbours, self.examples = patch, neighbours, examples
        self.register_buffer("low", torch.zeros(examples, patch**2))
        self.register_buffer("high", torch.zeros(examples, (patch * scale) ** 2))

    @property
    def receptive_radius(self) -> int:
        """No LR pixel that is more rows or columns away changes an LR pixel's SR pixels."""
        return self.patch - 1 + 2 + 2  # back-projection reaches two pixels down, and two up again

    @property
    def working_width(self) -> int:
        """Values that are averaged for each SR pixel: what memory grows with."""
        return self.patch**2

    def fit(self, images: Iterable[Tensor], seed: int = 0) -> Self:
        """Make the examples from images, which :func:`srgan_lib.degradation.degrade` makes small.

        Pairs of patches are cut at random places, equally many from each image, more likely where
        contrast is high: flat patches are many, and need few examples. The LR patches are
        clustered. A cluster's mean pair is an example; an empty cluster leaves zeros.

        Args:
            images: HR images (channels, H, W), uint8 or floating-point in [0, 1].
            seed: of the places and the clusters; the same images and seed give the same examples.

        Raises:
            ConfigurationError: fewer patches in the images than examples.
            ImageError: an image of another form, smaller than a patch, or NaN.
        """
        from scipy.sparse import csr_array
        from sklearn.cluster import MiniBatchKMeans

        planes = [plane for image in images for plane in self._planes(image)]
        chance = torch.Generator().manual_seed(seed)
        each = math.ceil(_PAIRS * self.examples / max(len(planes), 1))
        pairs = [self._pairs(plane, each, chance) for plane in planes]
        found = sum(len(low) for low, _ in pairs)
        if found < self.examples:
            raise ConfigurationError(f"{found} patches are too few for {self.examples} examples.")
        low, high = (torch.cat(part).double().numpy() for part in zip(*pairs, strict=True))
        clusters = MiniBatchKMeans(
            self.examples,
            init="random",
            n_init=1,
            batch_size=4096,
            max_iter=5,
            max_no_improvement=None,
            reassignment_ratio=0,  # clusters of edges are small, next to those of flat patches
            random_state=seed,
        )
        cluster = clusters.fit(low).predict(low)
        ones, shape = np.ones(found), (self.examples, found)
        members = csr_array((ones, (cluster, np.arange(found))), shape)
        count = (members @ ones).clip(1)[:, None]
        self.low.copy_(torch.from_numpy(members @ low / count))
        self.high.copy_(torch.from_numpy(members @ high / count))
        return self

    @torch.no_grad()
    def forward(self, lr: Tensor) -> Tensor:
        """Turn LR (N, channels, H, W) in [0, 1] into SR (N, channels, scale H, scale W).

        SR may overshoot [0, 1] and has no gradient.

        Raises:
            ImageError: a batch of another form, or NaN.
            WeightsError: a dictionary without examples.
        """
        check_input(self, lr)
        _check_finite(lr)
        x = lr.reshape(-1, 1, *lr.shape[-2:]).float()
        border = self.patch - 1  # with it, every pixel lies in patch^2 patches
        padded = F.pad(x, (border,) * 4, mode="replicate")
        patches = F.unfold(padded, self.patch).transpose(1, 2)  # (N channels, places, patch^2)
        mean = patches.mean(2, keepdim=True)
        found = self.blend((patches - mean).flatten(0, 1)).unflatten(0, mean.shape[:2]) + mean
        size = [self.scale * side for side in padded.shape[-2:]]
        sr = F.fold(found.transpose(1, 2), size, self.patch * self.scale, stride=self.scale)
        sr = F.pad(sr, (-border * self.scale,) * 4) / self.patch**2  # without the border
        sr = sr + resize(x - resize(sr, x.shape[-2:]), sr.shape[-2:])  # back-projection
        return sr.reshape(*lr.shape[:2], *sr.shape[-2:]).to(lr.dtype)

    def blend(self, features: Tensor) -> Tensor:
        """Combine HR patches with the weights that make LR patches of their nearest examples.

        Args:
            features: LR patches less their mean (n, patch^2).

        Returns:
            HR patches less the same mean (n, (patch scale)^2).

        Raises:
            WeightsError: a dictionary without examples.
        """
        from scipy.optimize import nnls
        from scipy.sparse import csr_array
        from sklearn.neighbors import NearestNeighbors

        if not self.high.any():
            raise WeightsError("This NeighbourEmbedding has no examples; fit it or load weights.")
        low, high, wanted = (x.double().cpu().numpy() for x in (self.low, self.high, features))
        search = NearestNeighbors(n_neighbors=self.neighbours).fit(low)
        near = search.kneighbors(wanted, return_distance=False)  # (n, neighbours)
        weights = [nnls(low[index].T, patch)[0] for index, patch in zip(near, wanted, strict=True)]
        # One sparse matrix (n, examples) of all weights saves gathering the HR patches.
        starts = np.arange(0, near.size + 1, self.neighbours)
        blending = csr_array((np.ravel(weights), near.ravel(), starts), (len(near), len(low)))
        return torch.from_numpy(blending @ high).to(features)

    def _planes(self, image: Tensor) -> Tensor:
        """Return an image's channels in [0, 1], cut to whole LR pixels (channels, H, W)."""
        if image.ndim != 3 or len(image) != self.channels:
            raise ImageError(f"fit takes images ({self.channels}, H, W), not {tuple(image.shape)}.")
        _check_finite(image)
        hr = crop_to_multiple(image / 255 if image.dtype == torch.uint8 else image, self.scale)
        if min(hr.shape[1:]) < self.patch * self.scale:
            raise ImageError(f"{image.shape[1]} x {image.shape[2]} pixels are no whole patch.")
        return hr.float()

    def _pairs(self, hr: Tensor, most: int, chance: torch.Generator) -> tuple[Tensor, Tensor]:
        """Cut pairs of patches, less the LR patch's mean, out of one channel (H, W)."""
        lr = degrade(hr, self.scale)
        low = F.unfold(lr[None, None], self.patch)[0].T
        high = F.unfold(hr[None, None], self.patch * self.scale, stride=self.scale)[0].T
        mean = low.mean(1, keepdim=True)
        low, high = low - mean, high - mean
        contrast = low.norm(dim=1) + _FLAT
        chosen = torch.multinomial(contrast, min(most, len(low)), generator=chance)
        return low[chosen], high[chosen]


def _check_finite(image: Tensor) -> None:
    if not torch.isfinite(image).all():
        raise ImageError("The image holds values that are not finite.")
