"""Measuring several methods on the same images, by the protocol of :mod:`srgan_lib.metrics`."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from srgan_lib.architectures.network import SRNetwork
from srgan_lib.architectures.vgg import VGGFeatures
from srgan_lib.calibration import MEASURES, measure_throws
from srgan_lib.degradation import crop_to_multiple, degrade, quantise
from srgan_lib.errors import ConfigurationError, unknown_name
from srgan_lib.metrics import (
    detail_energy,
    feature_distances,
    lr_consistency,
    psnr,
    ssim,
)
from srgan_lib.noise import check_dice, has_dice, noise_inputs
from srgan_lib.realism import lattice_ratio

COLUMNS = {
    "psnr": ("PSNR (dB)", 2),
    "ssim": ("SSIM", 3),
    "feature_distance": ("feature distance", 3),
    "lr_consistency": ("LR consistency (dB)", 1),
    "detail": ("detail, SR / HR", 2),
    "lattice": ("lattice, SR / HR", 2),
}
"""Each measure's heading and the decimals that it is printed with."""


_THROWS_AT_ONCE = 8


@dataclass(frozen=True)
class Evaluation:
    """What one method reached on each of several images.

    Attributes:
        method: its name.
        values: for each measure of :data:`COLUMNS`, one value for each image.
        throws: for each measure of :data:`srgan_lib.calibration.MEASURES`, one value for each
            image, if throws were asked for and the method throws dice.
    """

    method: str
    values: Mapping[str, tuple[float, ...]]
    throws: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def mean(self, measure: str) -> float:
        """Return the mean over the images."""
        return fmean(self._of(measure))

    def spread(self, measure: str) -> float:
        """Return the standard deviation over the images; 0 for a single one."""
        values = self._of(measure)
        return stdev(values) if len(values) > 1 else 0.0

    def _of(self, measure: str) -> tuple[float, ...]:
        if measure not in self.values:
            raise unknown_name("measure", measure, self.values)
        return self.values[measure]


def super_resolve(generator: nn.Module, lr: Tensor, bits: int = 8, seed: int = 0) -> Tensor:
    """Enlarge one image as it would be stored: in evaluation mode, clamped and rounded.

    A network for grey images enlarges each channel of a colour image alone. One that throws dice
    gets its noise from :mod:`srgan_lib.noise`: the same on every call, whatever the state of
    torch's random numbers, which stays as it was.

    Args:
        generator: maps (N, C, h, w) to (N, C, scale h, scale w). Its mode is restored.
        lr: float tensor (C, h, w) in [0, 1].
        bits: bit depth to round to.
        seed: of the noise; nothing to a network without dice.

    Returns:
        Float tensor (C, scale h, scale w) in [0, 1], on the device of ``lr``.
    """
    was_training = generator.training
    generator.eval()
    try:
        grey = isinstance(generator, SRNetwork) and generator.channels == 1
        batch = lr[:, None] if grey else lr[None]  # (C, 1, h, w) or (1, C, h, w)
        with torch.no_grad():
            sr = generator(batch, *noise_inputs(generator, batch, seed))
            return quantise(sr.flatten(0, 1).float(), bits)
    finally:
        generator.train(was_training)


def throws(generator: nn.Module, lr: Tensor, count: int, seed: int = 0, bits: int = 8) -> Tensor:
    """Enlarge one image several times, each with dice of its own.

    Args:
        generator: a network with noise inputs. Its mode is restored.
        lr: float tensor (C, h, w) in [0, 1].
        count: number of throws. Throw k is ``super_resolve(generator, lr, bits, seed + k)``, to
            rounding: here the layers before the first noise run once for several.
        seed: of the first throw.
        bits: bit depth to round to.

    Returns:
        Float tensor (count, C, scale h, scale w) in [0, 1], on the device of ``lr``.

    Raises:
        ConfigurationError: no throw, or several of a network without dice, which would be equal.
    """
    if count < 1:
        raise ConfigurationError(f"count must be a positive number of throws, not {count}.")
    if count > 1:
        check_dice(generator)
    if count == 1 or generator.channels != lr.shape[0]:
        return torch.stack([super_resolve(generator, lr, bits, seed + k) for k in range(count)])
    was_training = generator.training
    generator.eval()
    try:
        images = []
        with torch.no_grad():
            for first in range(0, count, _THROWS_AT_ONCE):
                seeds = range(seed + first, seed + min(first + _THROWS_AT_ONCE, count))
                noise = torch.cat([noise_inputs(generator, lr[None], s)[0] for s in seeds])
                images.append(quantise(generator(lr[None], noise).float(), bits))
        return torch.cat(images)
    finally:
        generator.train(was_training)


_throws = throws  # by a name that the argument of evaluate doesn't hide


def evaluate(
    methods: Mapping[str, nn.Module],
    images: Iterable[Tensor],
    features: VGGFeatures,
    *,
    scale: int = 4,
    bits: int = 8,
    throws: int = 0,
    progress: bool = True,
) -> list[Evaluation]:
    """Degrade each image, let every method restore it, and measure.

    Of a method that throws dice, the throw with seed 0 is measured.

    Args:
        methods: generators and interpolations by their names, all on the images' device.
        images: HR images (C, H, W) in [0, 1]; in colour a network for grey images enlarges each
            channel alone, see :func:`super_resolve`. Rows and columns that ``scale`` doesn't divide
            are cut off at the bottom and the right, with a warning.
        features: the VGG layer of the feature distance.
        scale: HR pixels a side that make one LR pixel.
        bits: bit depth of LR and SR.
        throws: number of throws, 2 or more, to measure the dice of the methods that throw some,
            see :func:`srgan_lib.calibration.measure_throws`; 0 for not.
        progress: show a progress bar.

    Returns:
        One :class:`Evaluation` for each method, in the given order.

    Raises:
        ConfigurationError: no method or no image, or a single throw.
        ImageError: an image that is too small, or NaN.
    """
    images = list(images)
    if not methods or not images:
        raise ConfigurationError("An evaluation needs at least one method and one image.")
    if throws < 0 or throws == 1:
        raise ConfigurationError(f"throws must be 0, or 2 at least, not {throws}.")
    values: dict[str, dict[str, list[float]]] = {
        name: {measure: [] for measure in COLUMNS} for name in methods
    }
    thrown: dict[str, dict[str, list[float]]] = {
        name: {measure: [] for measure in MEASURES}
        for name, method in methods.items()
        if throws and has_dice(method)
    }
    for image in tqdm(images, desc="evaluating", unit="image", disable=not progress):
        hr = quantise(crop_to_multiple(image, scale), bits)
        if hr.shape != image.shape:
            warnings.warn(
                f"An image of {image.shape[-2]} x {image.shape[-1]} pixels was cut to "
                f"{hr.shape[-2]} x {hr.shape[-1]}, multiples of the scale {scale}.",
                stacklevel=2,
            )
        lr = degrade(hr, scale, bits)
        detail_hr = detail_energy(hr)
        sr_images = {name: super_resolve(method, lr, bits) for name, method in methods.items()}
        distances = feature_distances(list(sr_images.values()), hr, features, bits)
        for (name, sr), distance in zip(sr_images.items(), distances, strict=True):
            measured = values[name]
            measured["psnr"].append(psnr(sr, hr, bits))
            measured["ssim"].append(ssim(sr, hr, bits))
            measured["feature_distance"].append(distance)
            measured["lr_consistency"].append(lr_consistency(sr, lr, scale, bits))
            measured["detail"].append(detail_energy(sr) / max(detail_hr, 1e-12))
            measured["lattice"].append(lattice_ratio(sr, hr, scale, bits))
        for name, measured in thrown.items():
            several = _throws(methods[name], lr, throws, 0, bits)
            for measure, value in measure_throws(several, hr, bits).items():
                measured[measure].append(value)
    return [
        Evaluation(name, _tuples(measured), _tuples(thrown.get(name, {})))
        for name, measured in values.items()
    ]


def _tuples(lists: Mapping[str, list[float]]) -> dict[str, tuple[float, ...]]:
    return {measure: tuple(values) for measure, values in lists.items()}


def markdown_table(
    evaluations: Sequence[Evaluation], measures: Sequence[str] = tuple(COLUMNS)
) -> str:
    """Return a Markdown table: a row for each method, mean and, in brackets, spread.

    Args:
        evaluations: what :func:`evaluate` returned.
        measures: the columns, names from :data:`COLUMNS`.
    """
    lines = [
        "| method | " + " | ".join(COLUMNS[measure][0] for measure in measures) + " |",
        "|---|" + "---:|" * len(measures),
    ]
    for evaluation in evaluations:
        cells = []
        for measure in measures:
            digits = COLUMNS[measure][1]
            cell = f"{evaluation.mean(measure):.{digits}f}"
            if len(evaluation.values[measure]) > 1:
                cell += f" ({evaluation.spread(measure):.{digits}f})"
            cells.append(cell)
        lines.append(f"| {evaluation.method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
