"""How good an SR image is, by a fixed protocol.

Before anything is measured, SR is clamped to [0, 1] and rounded to the bit depth of the file
that it would be stored in, and 4 pixels are cut off along each border. Grey images are measured
as they are. Colour images are measured on luma, BT.601 in studio range (16 to 235), as published
tables do; the two kinds of number must not be compared.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

from srgan_lib.architectures.vgg import VGGFeatures
from srgan_lib.degradation import degrade, quantise
from srgan_lib.errors import ImageError, WeightsError, unknown_name
from srgan_lib.pixels import to_channels
from srgan_lib.spectra import spectrum

BORDER = 4
"""Pixels cut off along each border before measuring."""

_LPIPS_NETWORKS = ("alex", "vgg", "squeeze")


def psnr(sr: Tensor, hr: Tensor, bits: int = 8) -> float:
    """Return the peak signal-to-noise ratio, in dB; higher is closer.

    Args:
        sr: float tensor (C, H, W), C = 1 or 3; clamped and rounded here.
        hr: the same shape, in [0, 1].
        bits: bit depth of the stored images.

    Returns:
        10 log10(1 / MSE); infinite for equal images.

    Raises:
        ImageError: shapes that differ or are too small, or values that are not finite.
    """
    sr, hr = _prepare(sr, hr, bits)
    if torch.equal(sr, hr):
        return float("inf")
    return float(peak_signal_noise_ratio(sr, hr, data_range=1.0))


def ssim(sr: Tensor, hr: Tensor, bits: int = 8) -> float:
    """Return the structural similarity index (Wang et al. 2004); 1 for equal images.

    Gaussian window of 11 x 11 with sigma 1.5, K1 = 0.01, K2 = 0.03, as in the paper, averaged
    over all places where it fits.

    Args:
        sr: float tensor (C, H, W), C = 1 or 3; clamped and rounded here.
        hr: the same shape, in [0, 1].
        bits: bit depth of the stored images.

    Raises:
        ImageError: as for :func:`psnr`.
    """
    sr, hr = _prepare(sr, hr, bits)
    _, everywhere = structural_similarity_index_measure(
        sr, hr, data_range=1.0, return_full_image=True
    )
    return float(everywhere[..., 5:-5, 5:-5].mean())  # where the window fits, without padding


def feature_distance(sr: Tensor, hr: Tensor, features: VGGFeatures, bits: int = 8) -> float:
    """Return how far two images are apart in VGG features; 0 for equal images.

    The mean squared difference of the features over the mean squared feature of HR, so that
    the scale of the weights cancels.

    The features are compared place by place. So this is no measure of realism: if a is what
    HR's grain adds to the features, an image without grain is |a|^2 away, and one with grain
    b of the same kind but drawn anew |a - b|^2, which is 2 |a|^2 on average. Every generator
    that draws grain loses here to one that leaves it out. See :mod:`srgan_lib.realism`.

    Args:
        sr: float tensor (C, H, W), C = 1 or 3; clamped and rounded here.
        hr: the same shape, in [0, 1].
        features: the layer to compare; name it with the number.
        bits: bit depth of the stored images.

    Raises:
        ImageError: as for :func:`psnr`.
    """
    return feature_distances([sr], hr, features, bits)[0]


def feature_distances(
    images: Sequence[Tensor], hr: Tensor, features: VGGFeatures, bits: int = 8
) -> list[float]:
    """Return the :func:`feature_distance` of several SR images from one HR image.

    The features of HR are computed once, which saves nearly half of the time.

    Args:
        images: SR images, float tensors (C, H, W), at least one.
        hr: the HR image, the same shape.
        features: the layer to compare.
        bits: bit depth of the stored images.

    Raises:
        ImageError: as for :func:`psnr`, and where there is no SR image.
    """
    if not images:
        raise ImageError("There is no SR image to compare with HR.")
    pairs = [_crop(sr, hr, bits) for sr in images]
    with torch.no_grad():
        f_hr = features(pairs[0][1])
        energy = f_hr.square().mean()
        return [float((features(sr) - f_hr).square().mean() / energy) for sr, _ in pairs]


def lr_consistency(sr: Tensor, lr: Tensor, scale: int = 4, bits: int = 8) -> float:
    """Return how well SR, degraded again, gives the LR image that it came from, in dB.

    A high value does not show that SR is right. A low one shows that it is wrong.

    Args:
        sr: float tensor (C, scale h, scale w); clamped and rounded here.
        lr: the LR image, (C, h, w), in [0, 1].
        scale: the scale between the two.
        bits: bit depth of the stored images.

    Returns:
        The PSNR between the degraded SR image and LR, over the whole image.

    Raises:
        ImageError: sizes that don't fit, or values that are not finite.
    """
    if sr.shape != (*lr.shape[:-2], scale * lr.shape[-2], scale * lr.shape[-1]):
        raise ImageError(
            f"SR {tuple(sr.shape)} is not {scale} times as large as LR {tuple(lr.shape)}."
        )
    _check_finite(sr, lr)
    again = degrade(quantise(sr.float(), bits), scale, bits)
    if torch.equal(again, lr):
        return float("inf")
    return float(peak_signal_noise_ratio(again[None], lr[None].float(), data_range=1.0))


def lpips(sr: Tensor, hr: Tensor, network: str = "alex", bits: int = 8) -> float:
    """Return LPIPS (Zhang et al. 2018); 0 for equal images. Needs torchvision's weights.

    Args:
        sr: float tensor (C, H, W), C = 1 or 3; clamped and rounded here.
        hr: the same shape, in [0, 1].
        network: ``"alex"``, ``"vgg"`` or ``"squeeze"``.
        bits: bit depth of the stored images.

    Raises:
        ConfigurationError: an unknown network.
        WeightsError: the network's weights can't be had; LPIPS then has to be left out.
        ImageError: as for :func:`psnr`.
    """
    if network not in _LPIPS_NETWORKS:
        raise unknown_name("LPIPS network", network, _LPIPS_NETWORKS)
    sr, hr = _crop(sr, hr, bits)
    metric = _lpips_network(network).to(sr.device)
    with torch.no_grad():
        return float(metric(to_channels(sr, 3).contiguous(), to_channels(hr, 3).contiguous()))


@lru_cache(maxsize=3)
def _lpips_network(network: str) -> LearnedPerceptualImagePatchSimilarity:
    try:
        return LearnedPerceptualImagePatchSimilarity(network, normalize=True).eval()
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"LPIPS needs torchvision's weights of {network!r}, which could not be downloaded: "
            f"{error}. Check the network, or use feature_distance, which needs none."
        ) from error


def radial_power(image: Tensor, bins: int = 32) -> tuple[Tensor, Tensor]:
    """Return an image's power by spatial frequency, averaged over all directions.

    The mean is taken off and a Hann window applied, so that neither brightness nor the
    image's borders count as detail.

    Args:
        image: float tensor (C, H, W), at least 8 x 8.
        bins: number of rings between zero and the Nyquist frequency.

    Returns:
        The rings' middle frequencies as fractions of the Nyquist frequency, (bins,), and the
        mean power in each ring, (bins,).
    """
    power, radius = spectrum(image)
    ring = (radius * bins).long().clamp(max=bins)
    total = power.new_zeros(bins + 1).index_add_(0, ring, power)
    count = power.new_zeros(bins + 1).index_add_(0, ring, torch.ones_like(power))
    frequency = (torch.arange(bins, dtype=power.dtype, device=power.device) + 0.5) / bins
    return frequency, (total / count.clamp(min=1))[:bins]


def detail_energy(image: Tensor, above: float = 0.5) -> float:
    """Return the energy that an image holds above a fraction of the Nyquist frequency.

    Only ratios mean something: SR over HR is 1 where SR has as much fine detail as HR,
    whether or not it is the right detail.

    Args:
        image: float tensor (C, H, W), at least 8 x 8.
        above: fraction of the Nyquist frequency, between 0 and 1.
    """
    power, radius = spectrum(image)
    return float(power[radius > above].sum())


def studio_luma(image: Tensor) -> Tensor:
    """Turn RGB (..., 3, H, W) in [0, 1] into BT.601 luma (..., 1, H, W) in [16/255, 235/255]."""
    weights = image.new_tensor([65.481, 128.553, 24.966]).view(3, 1, 1)
    return ((image * weights).sum(dim=-3, keepdim=True) + 16) / 255


def _crop(sr: Tensor, hr: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Apply the protocol's first half: check, clamp, round, cut borders; (1, C, H, W) each."""
    if sr.shape != hr.shape or sr.ndim != 3 or sr.shape[0] not in (1, 3):
        raise ImageError(
            "SR and HR must both be (C, H, W) with C = 1 or 3, "
            f"not {tuple(sr.shape)} and {tuple(hr.shape)}."
        )
    if min(sr.shape[1:]) < 2 * BORDER + 11:
        raise ImageError(
            f"Images of {sr.shape[1]} x {sr.shape[2]} pixels are too small to be measured; "
            f"{2 * BORDER + 11} a side is the least."
        )
    _check_finite(sr, hr)
    sr, hr = quantise(sr.float(), bits)[None], quantise(hr.float(), bits)[None]
    return F.pad(sr, (-BORDER,) * 4), F.pad(hr, (-BORDER,) * 4)


def _prepare(sr: Tensor, hr: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Apply the whole protocol: as :func:`_crop`, and luma for colour images."""
    sr, hr = _crop(sr, hr, bits)
    return (sr, hr) if sr.shape[1] == 1 else (studio_luma(sr), studio_luma(hr))


def _check_finite(*images: Tensor) -> None:
    if not all(torch.isfinite(image).all() for image in images):
        raise ImageError("An image holds NaN or infinite values and can't be measured.")
