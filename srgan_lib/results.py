"""Evaluations that are kept: what was measured, on which images, and how sure the means are.

Two means are kept. That over *images* is what papers publish; a patient with many images counts
for much in it. That over *patients*, each with the mean of their images, is what can be said of
another patient, and the only one that has an interval. The two may differ by several tenths of a
decibel.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from scipy.special import stdtrit

from srgan_lib.architectures.interpolation import Interpolation
from srgan_lib.architectures.network import SRNetwork
from srgan_lib.architectures.vgg import VGGFeatures
from srgan_lib.calibration import MEASURES
from srgan_lib.cost import SIDE, measure_cost
from srgan_lib.datasets import Dataset
from srgan_lib.degradation import KERNELS, crop_to_multiple
from srgan_lib.errors import ConfigurationError
from srgan_lib.evaluation import COLUMNS, evaluate
from srgan_lib.files import shared_folder, write_atomically
from srgan_lib.hardware import describe_hardware
from srgan_lib.metrics import BORDER
from srgan_lib.pretrained import load_generator, weights_path

INTERPOLATIONS = KERNELS
"""Names of methods that need no weights."""

INTERVAL = "95 %, Student's t on the patients' means, skewness removed (Hall 1992)"
"""How the intervals of a results file are made."""


def results_folder() -> Path:
    """Return the folder of the committed results: evaluations, and a folder for each reference run.

    Raises:
        SRGANError: an installation without it.
    """
    return shared_folder("results", "test_split.json")


def measure(
    models: Sequence[str | os.PathLike],
    dataset: Dataset,
    *,
    device: torch.device | None = None,
    cost: bool = False,
    throws: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure methods on a data set by the protocol of :mod:`srgan_lib.metrics`.

    Images whose size the scale doesn't divide are cut at the bottom and the right. Of colour
    images, PSNR and SSIM are those of luma; a network for grey images enlarges each of their
    channels alone, and its cost is that of one channel.

    Args:
        models: names of :data:`INTERPOLATIONS` or :data:`srgan_lib.pretrained.PRETRAINED`, or
            safetensors files; generators of one scale.
        dataset: the images, with 1 or 3 channels.
        device: what to compute on; the CPU by default, in float32.
        cost: measure each method's cost, too, see :func:`srgan_lib.cost.measure_cost`.
        throws: number of throws to measure the dice by, 0 for not; see
            :func:`srgan_lib.evaluation.evaluate`.
        progress: show a progress bar.

    Returns:
        What a JSON file can hold: ``protocol``, ``versions``, ``data`` (with the SHA-256 of each
        image file), ``methods`` (for each: the SHA-256 of its weights; ``values`` of each measure
        by image; what :func:`summarise` makes of them; ``cost`` and ``throws``, if they were asked
        for).

    Raises:
        ConfigurationError: no model, one that is no generator, several scales, or a network for
            colour on grey images.
        WeightsError: weights that are missing or damaged.
    """
    networks: dict[str, SRNetwork] = {}
    for model in models:
        if str(model) not in INTERPOLATIONS:
            networks[str(model)] = load_generator(model)
    scales = {network.scale for network in networks.values()} or {4}
    if not models or len(scales) > 1:
        raise ConfigurationError(
            f"An evaluation needs generators of one scale, not of {sorted(map(str, scales))}."
        )
    scale = scales.pop()
    for name, network in networks.items():
        taken = network.channels or dataset.channels
        if taken not in (1, dataset.channels):
            raise ConfigurationError(
                f"{name} takes images of {taken} channels; open the data with channels={taken}, "
                f"or give --channels {taken}."
            )
    methods = {
        str(model): networks.get(str(model)) or Interpolation(str(model), scale) for model in models
    }
    features = VGGFeatures("relu3_3")
    for module in (*methods.values(), features):
        module.to(device or torch.device("cpu"))
    images = [crop_to_multiple(image, scale).to(device) for image in dataset]
    evaluations = evaluate(methods, images, features, scale=scale, throws=throws, progress=progress)
    costs: dict[str, Any] = {}
    if cost:
        for name, method in methods.items():
            costs[name] = {"cost": asdict(measure_cost(method, dataset.channels))}
    patients = [record.patient for record in dataset.records]
    return {
        "protocol": {
            "scale": scale,
            "degradation": "antialiased bicubic (a = -0.5), rounded to 8 bits",
            "bits": 8,
            "border": BORDER,
            "feature_distance": "VGG16 relu3_3, mean squared difference / mean squared HR feature",
            "interval": INTERVAL,
        },
        "versions": describe_hardware(),
        "data": {
            "name": dataset.name,
            "split": dataset.split,
            "channels": dataset.channels,
            "width": dataset.width,
            "source": dataset.source,
            "images": [
                {
                    "name": record.name,
                    "patient": record.patient,
                    "sha256": _sha256(record.path),
                }
                for record in dataset.records
            ],
        },
        "methods": {
            evaluation.method: {
                "weights_sha256": _sha256(weights_path(evaluation.method))
                if evaluation.method in networks
                else None,
                **_with_summary(evaluation.values, patients),
                **costs.get(evaluation.method, {}),
                **(
                    {"throws": {"count": throws, **_with_summary(evaluation.throws, patients)}}
                    if evaluation.throws
                    else {}
                ),
            }
            for evaluation in evaluations
        },
    }


def _with_summary(values: Mapping[str, Sequence[float]], patients: Sequence[str]) -> dict[str, Any]:
    """Return values by image, and what :func:`summarise` makes of them."""
    kept = {name: list(of_images) for name, of_images in values.items()}
    return {"values": kept, **summarise(values, patients)}


def mean_over_patients(
    values: Sequence[float], patients: Sequence[str], share: float = 0.95
) -> tuple[float, float, float]:
    """Return the mean over patients of each patient's mean, and an interval for it.

    Images of one patient resemble each other, so they are no independent witnesses: each patient
    counts once. The interval is Student's, with one degree of freedom less than patients, on a
    scale on which Hall (1992) removes the skewness of the mean. With T = (mean - truth) / s, the
    skewness g of n patients' means and t = Student's quantile / sqrt(n), its ends are where

        T + g T^2 / 3 + g^2 T^3 / 27 + g / (6 n) = +-t.

    In simulations with the 14 patients of the test part (22, 6, 5, 5, 4, 2, 2 images and seven of
    1) an interval of 95 % covers the truth in 95 % of cases for normal effects of patients, and in
    91 % for log-normal ones with a sigma of 1, whose long tail 14 patients seldom show. The
    bootstrap over patients, which is often used, covers it in 88 % and 80 %.

    Args:
        values: one value for each image.
        patients: the patient of each image.
        share: how often the interval is to cover the truth.

    Returns:
        The mean, the lower and the upper end. With a single patient, or infinite values, nothing
        is known of others, and the ends are infinite.
    """
    by_patient: dict[str, list[float]] = {}
    for value, patient in zip(values, patients, strict=True):
        by_patient.setdefault(patient, []).append(value)
    means = np.array([fmean(of_one) for of_one in by_patient.values()])
    count, mean = len(means), fmean(means)
    if count == 1 or not np.isfinite(means).all():
        return mean, -math.inf, math.inf
    if means.min() == means.max():
        return mean, mean, mean
    skewness = ((means - mean) ** 3).mean() / means.std() ** 3
    t = stdtrit(count - 1, 0.5 + share / 2) / math.sqrt(count)
    x = np.array([t, -t]) - skewness / (6 * count)
    if abs(skewness) > 1e-6:  # the left side is a cube, but for a constant
        x = (np.cbrt(1 + skewness * x) - 1) / (skewness / 3)
    low, high = mean - means.std(ddof=1) * x
    return mean, float(low), float(high)


def summarise(
    values: Mapping[str, Sequence[float]], patients: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return what a results file keeps of values by image.

    Args:
        values: for each measure, one value for each image.
        patients: the patient of each image.

    Returns:
        For each measure: ``mean``, over images, as is published; ``patient_mean`` and
        ``interval``, of :func:`mean_over_patients`. An infinite interval is None.
    """
    over_patients = {name: mean_over_patients(of_one, patients) for name, of_one in values.items()}
    return {
        "mean": {name: fmean(of_one) for name, of_one in values.items()},
        "patient_mean": {name: mean for name, (mean, _, _) in over_patients.items()},
        "interval": {
            name: ends if all(map(math.isfinite, ends)) else None
            for name, (_, *ends) in over_patients.items()
        },
    }


def summarise_again(results: dict[str, Any]) -> dict[str, Any]:
    """Make the means and intervals of a results file anew from its values; no network is run.

    Args:
        results: what :func:`measure` returned, perhaps by an older version of this library.

    Returns:
        The same with new means and intervals.
    """
    patients = [image["patient"] for image in results["data"]["images"]]
    methods = {}
    for name, method in results["methods"].items():
        rest = {part: method[part] for part in ("cost", "throws") if part in method}
        if "throws" in rest:
            rest["throws"] |= summarise(rest["throws"]["values"], patients)
        methods[name] = {
            "weights_sha256": method["weights_sha256"],
            **_with_summary(method["values"], patients),
            **rest,
        }
    protocol = results["protocol"] | {"interval": INTERVAL}
    return results | {"protocol": protocol, "methods": methods}


def write_results(results: dict[str, Any], path: str | os.PathLike) -> None:
    """Write what :func:`measure` returned as JSON, whole or not at all.

    Raises:
        SRGANError: the file can't be written.
    """
    write_atomically(path, (json.dumps(results, indent=1) + "\n").encode())


def results_table(results: dict[str, Any]) -> str:
    """Return a Markdown table: a row for each method, mean over patients and interval.

    It has the measures that all methods have. A line under it says what was averaged.
    """
    columns = {
        name: column
        for name, column in COLUMNS.items()
        if all(name in method["mean"] for method in results["methods"].values())
    }
    images = results["data"]["images"]
    patients = len({image["patient"] for image in images})
    if patients == len(images):
        averaged = f"Mean of {patients} images, each taken for a patient of its own"
    else:
        averaged = (
            f"Mean of {patients} patients, each with the mean of their images; the mean of all "
            f"{len(images)} images, which papers give, is in the file"
        )
    return f"{_table(results['methods'], columns)}\n\n{averaged}. In brackets: 95 % interval."


def throws_table(results: dict[str, Any]) -> str:
    """Return a Markdown table of the dice, a row for each method that throws some."""
    thrown = {
        f"{name}, {method['throws']['count']} throws": method["throws"]
        for name, method in results["methods"].items()
        if "throws" in method
    }
    return _table(thrown, MEASURES) if thrown else "No method throws dice."


def _table(rows: Mapping[str, Any], columns: Mapping[str, tuple[str, int]]) -> str:
    """Return a Markdown table of means over patients and their intervals."""
    lines = [
        "| method | " + " | ".join(heading for heading, _ in columns.values()) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for name, row in rows.items():
        cells = []
        for measure_name, (_, digits) in columns.items():
            cell = f"{row['patient_mean'][measure_name]:.{digits}f}"
            if row["interval"][measure_name]:
                low, high = row["interval"][measure_name]
                cell += f" [{low:.{digits}f}, {high:.{digits}f}]"
            cells.append(cell)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cost_table(results: dict[str, Any]) -> str:
    """Return a Markdown table of what each method costs, if that was measured."""
    lines = [
        f"| method | parameters | multiply-adds (G), {SIDE} x {SIDE} | seconds | memory (MB) |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, method in results["methods"].items():
        cost = method["cost"]
        count = cost["multiply_adds"]
        lines.append(
            f"| {name} | {cost['parameters']:,} | {'-' if count is None else f'{count / 1e9:.2f}'} "
            f"| {cost['seconds']:.2f} | {cost['memory'] / 1e6:.0f} |"
        )
    return "\n".join(lines)


def _sha256(path: str | os.PathLike) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
