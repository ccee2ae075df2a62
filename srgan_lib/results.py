"""Evaluations that are kept: what was measured, on which images, and how sure the means are."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import nn

from srgan_lib.architectures.interpolation import Interpolation
from srgan_lib.architectures.vgg import VGGFeatures
from srgan_lib.calibration import MEASURES
from srgan_lib.cost import SIDE, measure_cost
from srgan_lib.datasets import Dataset
from srgan_lib.degradation import crop_to_multiple
from srgan_lib.errors import ConfigurationError
from srgan_lib.evaluation import COLUMNS, evaluate
from srgan_lib.files import shared_folder, write_atomically
from srgan_lib.hardware import describe_hardware
from srgan_lib.metrics import BORDER
from srgan_lib.pretrained import load_network, weights_path

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
"""Names of methods that need no weights."""

RESAMPLES = 2000
"""Bootstrap samples behind an interval."""


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

    Images whose size the scale doesn't divide are cut at the bottom and the right.

    Args:
        models: names of :data:`INTERPOLATIONS` or :data:`srgan_lib.pretrained.PRETRAINED`, or
            safetensors files; generators of one scale.
        dataset: the images.
        device: what to compute on; the CPU by default, in float32.
        cost: measure each method's cost, too, see :func:`srgan_lib.cost.measure_cost`.
        throws: number of throws to measure the dice by, 0 for not; see
            :func:`srgan_lib.evaluation.evaluate`.
        progress: show a progress bar.

    Returns:
        What a JSON file can hold: ``protocol``, ``versions``, ``data`` (with the SHA-256 of each
        image file), ``methods`` (for each: the SHA-256 of its weights; values of each measure by
        image; means; 95 % intervals; ``cost`` and ``throws``, if they were asked for).

    Raises:
        ConfigurationError: no model, one that is no generator, or several scales.
        WeightsError: weights that are missing or damaged.
    """
    networks: dict[str, nn.Module] = {}
    for model in models:
        if str(model) not in INTERPOLATIONS:
            networks[str(model)] = load_network(model)
    scales = {getattr(network, "scale", None) for network in networks.values()} or {4}
    if not models or len(scales) > 1 or None in scales:
        raise ConfigurationError(
            f"An evaluation needs generators of one scale, not of {sorted(map(str, scales))}."
        )
    scale = scales.pop()
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
            "interval": f"95 %, bootstrap over patients, {RESAMPLES} samples",
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
                **_summary(evaluation.values, patients),
                **costs.get(evaluation.method, {}),
                **(
                    {"throws": {"count": throws, **_summary(evaluation.throws, patients)}}
                    if evaluation.throws
                    else {}
                ),
            }
            for evaluation in evaluations
        },
    }


def _summary(values: Mapping[str, Sequence[float]], patients: Sequence[str]) -> dict[str, Any]:
    """Return values by image, their means and the means' intervals, for each measure."""
    return {
        "values": {name: list(of_images) for name, of_images in values.items()},
        "mean": {name: fmean(of_images) for name, of_images in values.items()},
        "interval": {
            name: list(bootstrap_interval(of_images, patients))
            for name, of_images in values.items()
        },
    }


def bootstrap_interval(
    values: Sequence[float], patients: Sequence[str], share: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean, resampling patients, not images.

    Images of one patient resemble each other, so counting them as independent would make the
    interval too narrow. With a single patient the interval is a point.

    Args:
        values: one value for each image.
        patients: the patient of each image.
        share: share of the bootstrap means inside the interval.
        seed: of the resampling.

    Returns:
        The lower and the upper end.
    """
    ids = sorted(set(patients))
    sums = np.array([sum(v for v, p in zip(values, patients, strict=True) if p == i) for i in ids])
    counts = np.array([sum(p == i for p in patients) for i in ids])
    drawn = np.random.default_rng(seed).integers(len(ids), size=(RESAMPLES, len(ids)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def write_results(results: dict[str, Any], path: str | os.PathLike) -> None:
    """Write what :func:`measure` returned as JSON, whole or not at all.

    Raises:
        SRGANError: the file can't be written.
    """
    write_atomically(path, (json.dumps(results, indent=1) + "\n").encode())


def results_table(results: dict[str, Any]) -> str:
    """Return a Markdown table: a row for each method, mean and interval of each measure."""
    return _table(results["methods"], COLUMNS)


def throws_table(results: dict[str, Any]) -> str:
    """Return a Markdown table of the dice, a row for each method that throws some."""
    thrown = {
        f"{name}, {method['throws']['count']} throws": method["throws"]
        for name, method in results["methods"].items()
        if "throws" in method
    }
    return _table(thrown, MEASURES) if thrown else "No method throws dice."


def _table(rows: Mapping[str, Any], columns: Mapping[str, tuple[str, int]]) -> str:
    """Return a Markdown table of means and intervals."""
    lines = [
        "| method | " + " | ".join(heading for heading, _ in columns.values()) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for name, row in rows.items():
        cells = [
            f"{row['mean'][m]:.{d}f} [{row['interval'][m][0]:.{d}f}, {row['interval'][m][1]:.{d}f}]"
            for m, (_, d) in columns.items()
        ]
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
