"""Measure what networks do to synthetic findings, and what they invent, for notebook 9.

    python benchmarks/hallucination.py runs/lab --out results/hallucination.json --only-train
    python benchmarks/hallucination.py runs/lab --out results/hallucination.json

First the networks of ``recipes/lab.yaml`` are trained, three seeds for each adversarial pull; those
that are finished in the folder are taken as they are. Their curves are kept in ``lab``, beside the
output file. Then everything is measured on the test part of covid19-hannover, on the first image of
each of its 14 patients. What the output file already holds of a network whose weights are the same,
by the same protocol, is kept.

Three regions are measured, and no others:

- the *middle* of each image, 384 x 384 pixels: ``measures`` and ``shift``; the places of findings
  and of false alarms lie in it;
- the *window* of 128 x 128 pixels around a place, which is cut out before it is degraded:
  ``findings``, and of 96 x 96 pixels: ``thrown_findings`` and ``thrown_alarms``;
- the *inner* 256 x 256 pixels of the middle: ``throws`` and ``uncertainty``.

The parts of the file, each value for each patient, in the order of ``data``:

- ``thresholds``: the contrast that the detector of :mod:`srgan_lib.findings` must see. It is set on
  HR images of the validation part, without findings, so that 5 % of places give a false alarm.
- ``findings``: a row for each method, kind, size and contrast: in how many of ``places`` places the
  finding survives and moves (it fades in the others), and the contrast recovered, the difference
  that it makes to the fit in its own place, over its contrast.
- ``alarms``: a row for each method, kind and size: the share of ``quiet_places`` places of an image
  without findings at which the detector sees one.
- ``measures``: by the library's protocol, and how much of HR's fine detail is explained and how
  alike the two are (:func:`srgan_lib.consistency.explained_detail`), before and after projection
  onto LR.
- ``thrown_findings``: as ``findings``, but in how many of ``throws`` throws of the SRGAN.
- ``thrown_alarms``: in how many throws of the same windows without the finding the detector sees
  one all the same, and whether it does in HR and in SRResNet's image.
- ``throws``: does the throws' deviation lie where the error of their mean is, how
  many pixels does their interval of 90 % hold, and what do means of more and more throws gain and
  lose?
- ``uncertainty``: the same for the lab's three seeds of one pull.
- ``shift``: other degradations of LR, and two whole radiographs from elsewhere.
"""

import argparse
import hashlib
import io
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import PIL.Image
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from srgan_lib.architectures import Interpolation, VGGFeatures
from srgan_lib.calibration import coverage
from srgan_lib.checkpoints import save_weights
from srgan_lib.consistency import explained_detail, project
from srgan_lib.crops import CropSampler
from srgan_lib.datasets import Dataset, open_dataset
from srgan_lib.degradation import centre, crop_to_multiple, degrade, quantise
from srgan_lib.errors import SRGANError
from srgan_lib.evaluation import super_resolve
from srgan_lib.findings import Finding, fate, implant, match
from srgan_lib.hardware import describe_hardware
from srgan_lib.images import to_pixels
from srgan_lib.metrics import detail_energy, feature_distances, lr_consistency, psnr
from srgan_lib.noise import noise_at
from srgan_lib.pretrained import load_network, weights_path
from srgan_lib.recipes import Recipe, read_recipe
from srgan_lib.results import write_results
from srgan_lib.runs import train
from srgan_lib.training import AdversarialStage
from srgan_lib.uncertainty import ensemble, in_squares, rank_correlation, sparsification

ROOT = Path(__file__).resolve().parent.parent
PULLS = (0.0, 0.25, 1.0, 4.0)  # the adversarial loss's, over that of content and perceptual loss
SEEDS = (0, 1, 2)
RUNS = {f"pull_{pull:g}_seed_{seed}": (pull, seed) for pull in PULLS for seed in SEEDS}
ENSEMBLE = tuple(f"pull_1_seed_{seed}" for seed in SEEDS)
SIZES = {"nodule": (4, 8, 16), "line": (1, 2, 4), "catheter": (4, 8, 12), "texture": (4, 8, 16)}
CONTRASTS = (0.03, 0.06, 0.12)
THROW_CONTRASTS = (0.06, 0.12)
LAB_CASES = [("line", 1, 0.06), ("line", 4, 0.06), ("nodule", 8, 0.06), ("texture", 8, 0.06)]
THROWS = 32
CHUNK = 8  # throws at a time
REGION = 128  # side of the window around a place
THROW_REGION = 96  # the same for throws, of which there are many
SIDE = 384  # of the middle of each image
INNER = 256  # of the middle's middle
PLACES = 1  # in each image, for findings
QUIET_PLACES = 24  # in each image, for false alarms
THRESHOLD_PLACES = 60  # in each validation image
FALSE_ALARMS = 0.05
MEANS = (1, 4, 32)  # throws in a mean
SQUARE = 16  # side of the squares that uncertainty is averaged in
STEPS = 20
PULL_BATCHES = 16


def lab_recipes() -> dict[str, Recipe]:
    """Return the recipes of the lab's networks, by name."""
    recipe = read_recipe(ROOT / "recipes" / "lab.yaml")
    assert recipe.loss is not None
    recipes = {}
    for name, (pull, seed) in RUNS.items():
        weight = pull * recipe.loss.adversarial_weight
        loss = recipe.loss.model_copy(update={"adversarial_weight": weight})
        recipes[name] = recipe.model_copy(update={"loss": loss, "seed": seed})
    return recipes


def measure_pull(stage: AdversarialStage, sampler: CropSampler, batch_size: int) -> float:
    """Return how hard the adversarial loss pulls at SR, over content and perceptual loss together.

    A pull is the length of a weighted loss's gradient with respect to SR, the mean of some batches.
    The perceptual loss counts as it does on the mean of all steps. LR consistency counts for
    neither side: it holds SR to LR, whoever pulls.

    Args:
        stage: networks without dice, after the discriminator's warm-up.
        sampler: serves the crops.
        batch_size: crops in a batch.
    """
    loss, judge = stage.loss, stage.discriminator.plain
    adversarial = others = 0.0
    for _ in range(PULL_BATCHES):
        lr, hr = sampler.batch(batch_size)
        with torch.no_grad():
            sr, logits_hr = stage.generator.plain(lr), judge(hr, lr)
        sr.requires_grad_(True)
        terms = loss(sr, hr, judge(sr, lr), logits_hr, lr=lr)
        images = loss.content_weight * terms.content
        images = images + loss.perceptual_weight / loss.perceptual_every * terms.perceptual
        for_sr = torch.autograd.grad(images, sr, retain_graph=True)[0]
        against = torch.autograd.grad(loss.adversarial_weight * terms.adversarial, sr)[0]
        others, adversarial = others + float(for_sr.norm()), adversarial + float(against.norm())
    return adversarial / others


def first_images(split: str) -> tuple[Dataset, list[int]]:
    """Return a part of covid19-hannover and the index of each patient's first image."""
    dataset = open_dataset("covid19-hannover", split)
    first: dict[str, int] = {}
    for number, record in enumerate(dataset.records):
        first.setdefault(record.patient, number)
    return dataset, list(first.values())


def read_hr(dataset: Dataset, number: int) -> Tensor:
    """Return an image, cut to whole LR pixels and rounded as the protocol wants it."""
    return quantise(crop_to_multiple(dataset[number], 4))


def places(hr: Tensor, count: int, seed: int) -> list[tuple[int, int, float]]:
    """Return places for findings: the top and left of a region, and an angle.

    They are drawn at random from the grid of LR pixels, where the middle of the region is
    neither so dark nor so bright that the strongest finding would leave [0, 1].

    Raises:
        SRGANError: an image with too few such places.
    """
    chance = torch.Generator().manual_seed(seed)
    found: list[tuple[int, int, float]] = []
    room = max(CONTRASTS) + 0.01
    inner = slice(REGION // 4, REGION - REGION // 4)
    for _ in range(100 * count):
        top, left = (
            4 * int(torch.randint((side - REGION) // 4 + 1, (1,), generator=chance))
            for side in hr.shape[-2:]
        )
        angle = math.pi * float(torch.rand(1, generator=chance))
        middle = hr[0, top : top + REGION, left : left + REGION][inner, inner]
        if room <= middle.min() and middle.max() <= 1 - room and len(found) < count:
            found.append((top, left, angle))
    if len(found) < count:
        raise SRGANError(f"Only {len(found)} of {count} places were found.")
    return found


CASES = [(kind, size, contrast) for kind in SIZES for size in SIZES[kind] for contrast in CONTRASTS]


def a_finding(kind: str, size: float, contrast: float, angle: float, side: int = REGION) -> Finding:
    """Return a finding in the middle of a window."""
    return Finding(kind, size, contrast, side / 2 + 0.5, side / 2 + 0.5, angle)


def regions(hr: Tensor, seed: int, count: int) -> Iterator[tuple[Tensor, float]]:
    """Yield regions of an image and the angle of a finding in each."""
    for top, left, angle in places(hr, count, seed):
        yield hr[:, top : top + REGION, left : left + REGION], angle


def strongest(image: Tensor, kind: str, size: float, angle: float) -> float:
    """Return the contrast that the detector sees in the middle of a region."""
    return float(match(image, a_finding(kind, size, 1.0, angle)).max())


def find_thresholds(images: Sequence[Tensor]) -> dict[str, dict[str, float]]:
    """Return the detector's threshold for each kind and size, from HR images without findings."""
    seen: dict[str, dict[str, list[float]]] = {
        kind: {str(size): [] for size in sizes} for kind, sizes in SIZES.items()
    }
    for number, hr in enumerate(tqdm(images, desc="thresholds", unit="image")):
        for region, angle in regions(hr, 1000 + number, THRESHOLD_PLACES):
            for kind, size in kinds_and_sizes():
                seen[kind][str(size)].append(strongest(region, kind, size, angle))
    return {
        kind: {
            size: float(torch.tensor(values).quantile(1 - FALSE_ALARMS))
            for size, values in by_size.items()
        }
        for kind, by_size in seen.items()
    }


def kinds_and_sizes() -> Iterator[tuple[str, int]]:
    """Yield each kind of finding in each of its sizes."""
    for kind, sizes in SIZES.items():
        for size in sizes:
            yield kind, size


Rows = dict[tuple, dict[str, Any]]
"""One patient's rows of a table, by what they are of: kind, size and perhaps contrast."""


def implant_and_find(
    method: Callable[[Tensor], Tensor],
    hr: Tensor,
    number: int,
    thresholds: dict[str, dict[str, float]],
    cases: Sequence[tuple[str, int, float]] = tuple(CASES),
) -> Rows:
    """Measure what becomes of findings in one image.

    Args:
        method: makes SR images (N, 1, H, W) from HR images of that shape.
        hr: the middle of an image.
        number: of the image, from 0; seeds the places.
        thresholds: of :func:`find_thresholds`.
        cases: kind, size and contrast of each finding.

    Returns:
        By kind, size and contrast: in how many places the finding survives and moves, and the share
        of its contrast that was recovered.
    """
    chosen = list(regions(hr, number, PLACES))
    without = method(torch.stack([region for region, _ in chosen]))
    result: Rows = {}
    for kind, size, contrast in cases:
        findings = [a_finding(kind, size, contrast, angle) for _, angle in chosen]
        planted = [
            quantise(implant(region, finding)[0])
            for (region, _), finding in zip(chosen, findings, strict=True)
        ]
        fates, recovered = [], 0.0
        for finding, image, before in zip(
            findings, method(torch.stack(planted)), without, strict=True
        ):
            fits = match(image, finding)
            fates.append(fate(fits, finding, thresholds[kind][str(size)]))
            change = fits - match(before, finding)
            recovered += float(change[change.shape[0] // 2, change.shape[1] // 2])
        result[kind, size, contrast] = {
            "survives": fates.count("survives"),
            "moves": fates.count("moves"),
            "recovered": round(recovered / PLACES / contrast, 4),
        }
    return result


def false_alarms(
    sr: Tensor, hr: Tensor, number: int, thresholds: dict[str, dict[str, float]]
) -> Rows:
    """Return the share of places, in an image without findings, where the detector sees one."""
    chosen = places(hr, QUIET_PLACES, 1000 + number)
    result: Rows = {}
    for kind, size in kinds_and_sizes():
        alarms = 0
        for top, left, angle in chosen:
            region = sr[:, top : top + REGION, left : left + REGION]
            alarms += strongest(region, kind, size, angle) >= thresholds[kind][str(size)]
        result[kind, size] = {"share": round(alarms / QUIET_PLACES, 5)}
    return result


# The SRGAN's dice


@lru_cache(maxsize=4)
def dice(channels: int, height: int, width: int) -> Tensor:
    """Return the noise of all throws, that of :func:`srgan_lib.evaluation.throws`."""
    return torch.stack([noise_at(channels, 0, 0, height, width, seed) for seed in range(THROWS)])


def throw(network: nn.Module, lr: Tensor) -> Tensor:
    """Return what :func:`srgan_lib.evaluation.throws` returns, (throws, 1, H, W), in less time.

    A few throws at a time go through the layers before the first noise input as one.
    """
    noise = dice(network.noise_channels, *lr.shape[-2:])
    with torch.no_grad():
        return torch.cat([quantise(network(lr[None], part)) for part in noise.split(CHUNK)])


def throw_findings(
    network: nn.Module,
    images: Sequence[Tensor],
    thresholds: dict[str, dict[str, float]],
    smooth: nn.Module,
) -> dict[str, list[dict[str, Any]]]:
    """Count in how many throws a finding survives, and in how many one appears unasked.

    Args:
        network: a generator with noise inputs.
        images: middles of HR images.
        thresholds: of :func:`find_thresholds`.
        smooth: a generator without dice, to compare false alarms with.

    Returns:
        The tables ``thrown_findings`` and ``thrown_alarms``.
    """
    found, alarms = [], []
    for number, hr in enumerate(tqdm(images, desc="throws", unit="image")):
        ((region, angle),) = regions(hr, number, 1)
        window = middle(region, THROW_REGION)
        lr = degrade(window)
        without, answer = throw(network, lr), super_resolve(smooth, lr)
        rows: Rows = {}
        quiet: Rows = {}
        for kind, size in kinds_and_sizes():
            threshold = thresholds[kind][str(size)]

            def seen(image: Tensor, kind: str = kind, size: int = size) -> float:
                finding = a_finding(kind, size, 1.0, angle, THROW_REGION)  # noqa: B023
                return float(match(image, finding).max())

            quiet[kind, size] = {
                "throws": sum(seen(one) >= threshold for one in without),
                "hr": int(seen(window) >= threshold),
                "srresnet": int(seen(answer) >= threshold),
            }
            for contrast in THROW_CONTRASTS:
                finding = a_finding(kind, size, contrast, angle, THROW_REGION)
                thrown = throw(network, degrade(quantise(implant(window, finding)[0])))
                fates = [fate(match(one, finding), finding, threshold) for one in thrown]
                rows[kind, size, contrast] = {
                    "survives": fates.count("survives"),
                    "moves": fates.count("moves"),
                }
        found.append(rows)
        alarms.append(quiet)
    return {"thrown_findings": table(found), "thrown_alarms": table(alarms)}


def judge_throws(
    network: nn.Module, images: Sequence[Tensor], features: VGGFeatures
) -> dict[str, Any]:
    """Judge the throws of each image's inner part: their deviation, interval and means."""
    seen = []
    for image in tqdm(images, desc="deviation", unit="image"):
        hr = middle(image, INNER)
        lr = degrade(hr)
        thrown = throw(network, lr)
        spread, mean = thrown.std(dim=0), thrown.mean(dim=0)
        means = [quantise(thrown[:count].mean(dim=0)) for count in MEANS]
        distances = feature_distances(means, hr, features)
        measured = {
            str(count): compare(sr, hr, lr) | {"feature_distance": distance}
            for count, sr, distance in zip(MEANS, means, distances, strict=True)
        }
        judged = judge(spread, (mean - hr).abs())
        seen.append(judged | {"coverage": coverage(thrown, hr), "means": measured})
    return together(seen)


# What is done to LR before a network sees it


def blurred(lr: Tensor) -> Tensor:
    """Blur by a Gaussian with a sigma of one LR pixel."""
    taps = torch.exp(-torch.arange(-3.0, 4.0).square() / 2)
    taps = taps / taps.sum()
    padded = F.pad(lr[None], (3, 3, 3, 3), mode="replicate")
    return quantise(F.conv2d(F.conv2d(padded, taps.view(1, 1, 1, 7)), taps.view(1, 1, 7, 1))[0])


def noisy(lr: Tensor) -> Tensor:
    """Add Gaussian noise with a standard deviation of 0.02, five grey levels."""
    return quantise(lr + 0.02 * torch.randn(lr.shape, generator=torch.Generator().manual_seed(0)))


def compressed(lr: Tensor) -> Tensor:
    """Store as a JPEG of quality 50 and read it again."""
    file = io.BytesIO()
    PIL.Image.fromarray(to_pixels(lr).values[0].numpy()).save(file, "JPEG", quality=50)
    with PIL.Image.open(file) as image:
        values = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return (values.float() / 255).view_as(lr)


SHIFTS = {
    "none": lambda lr: lr,
    "blur": blurred,
    "noise": noisy,
    "jpeg": compressed,
}


def compare(sr: Tensor, hr: Tensor, lr: Tensor) -> dict[str, float]:
    """Return the measures of an SR image."""
    explained, correlation = explained_detail(sr, hr)
    return {
        "psnr": psnr(sr, hr),
        "lr_consistency": min(lr_consistency(sr, lr), 99.0),  # JSON knows no infinity
        "detail": detail_energy(sr) / detail_energy(hr),
        "explained": explained,
        "correlation": correlation,
    }


def judge(spread: Tensor, error: Tensor) -> dict[str, Any]:
    """Return how well an ensemble's spread tells where the error is, by pixels and squares."""
    result: dict[str, Any] = {"spread": float(spread.mean())}
    for name, side in (("pixels", 1), ("squares", SQUARE)):
        maps = in_squares(spread, side), in_squares(error, side)
        curve, oracle, ause = sparsification(*maps, steps=STEPS)
        result[name] = {
            "correlation": rank_correlation(*maps),
            "curve": curve.tolist(),
            "oracle": oracle.tolist(),
            "ause": ause,
        }
    return result


def together(values: Sequence[Any]) -> Any:
    """Turn a list of equal dictionaries into a dictionary of lists, rounded."""
    if isinstance(values[0], dict):
        return {key: together([value[key] for value in values]) for key in values[0]}
    if isinstance(values[0], list):
        return [together(list(numbers)) for numbers in zip(*values, strict=True)]
    return [value if isinstance(value, int) else round(value, 5) for value in values]


Method = Callable[[Tensor], Tensor]
"""Makes LR images (N, 1, h, w) into SR images (N, 1, 4 h, 4 w), clamped and rounded."""


def enlarge(network: nn.Module) -> Method:
    """Return a network as a method; of one with dice the throw with seed 0."""

    def method(lr: Tensor) -> Tensor:
        return torch.stack([super_resolve(network, image) for image in lr])

    return method


def table(rows: Sequence[Rows], **same: Any) -> list[dict[str, Any]]:
    """Turn each patient's rows into one table, whose values are lists over the patients.

    Args:
        rows: for each patient.
        same: columns with one value in all rows.
    """
    names = ("kind", "size", "contrast")
    return [
        {**same, **dict(zip(names, key, strict=False))}
        | {column: [patient[key][column] for patient in rows] for column in rows[0][key]}
        for key in rows[0]
    ]


def measure_method(
    method: Method | None,
    images: Sequence[Tensor],
    thresholds: dict[str, dict[str, float]],
    name: str,
    cases: Sequence[tuple[str, int, float]] = tuple(CASES),
) -> dict[str, Any]:
    """Measure a method, or HR itself for None, on images without findings and with them.

    Returns:
        Its rows of ``findings`` and ``alarms``, and its ``measures``.
    """
    found, alarms, measures = [], [], []
    for number, hr in enumerate(tqdm(images, desc=name, unit="image")):
        lr = degrade(hr)
        sr = hr if method is None else method(lr[None])[0]
        found.append(
            implant_and_find(
                lambda batch: batch if method is None else method(degrade(batch)),
                hr,
                number,
                thresholds,
                cases,
            )
        )
        alarms.append(false_alarms(sr, hr, number, thresholds))
        if method is not None:
            projected = quantise(project(sr, lr))
            measures.append(
                {"before": compare(sr, hr, lr), "projected": compare(projected, hr, lr)}
            )
    return {
        "findings": table(found, method=name),
        "alarms": table(alarms, method=name),
        "measures": together(measures) if measures else {},
    }


def middle(hr: Tensor, side: int = SIDE) -> Tensor:
    """Return the middle of an image, which begins with a whole LR pixel."""
    return centre(hr, side, step=4)


def measure_uncertainty(
    answers: Callable[[Tensor], tuple[Tensor, Tensor]], images: Sequence[Tensor], name: str = ""
) -> dict[str, Any]:
    """Measure an ensemble on each image's inner part: the error is that of its mean."""
    seen = []
    for image in tqdm(images, desc=name, unit="image"):
        hr = middle(image, INNER)
        mean, spread = answers(degrade(hr))
        seen.append(judge(spread, (mean - hr).abs()))
    return together(seen)


def measure_shifts(network: nn.Module, images: Sequence[Tensor], name: str = "") -> dict[str, Any]:
    """Measure a network on LR images that were made otherwise than those that it learned from."""
    seen = []
    for hr in tqdm(images, desc=name, unit="image"):
        result = {}
        for shift, change in SHIFTS.items():
            lr = change(degrade(hr))
            result[shift] = compare(super_resolve(network, lr), hr, lr)
        seen.append(result)
    return together(seen)


def sha256(path: Path) -> str:
    """Return a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def kept(old: Mapping[str, Any], results: Mapping[str, Any], names: Sequence[str]) -> bool:
    """Return whether a file holds these methods' numbers: same protocol, data and weights."""
    return all(old.get(part) == results[part] for part in ("protocol", "data", "thresholds")) and (
        all(name in old["weights_sha256"] for name in names)
        and all(old["weights_sha256"][n] == results["weights_sha256"][n] for n in names)
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is not yet trained, measure, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds the run folders of the lab's networks")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the numbers")
    parser.add_argument("--only-train", action="store_true", help="measure and write nothing")
    chosen = parser.parse_args(arguments)
    files: dict[str, Path | None] = {"HR": None, "bicubic": None}
    files |= {name: weights_path(name) for name in ("srresnet", "srgan")}
    for name, recipe in lab_recipes().items():
        train(recipe, chosen.folder / name, device=torch.device("cpu"))
    if chosen.only_train:
        return
    for name in RUNS:
        files[name] = half(chosen.folder / name / "generator.safetensors")
        record = chosen.out.parent / "lab" / name
        record.mkdir(parents=True, exist_ok=True)
        for file in ("environment.json", "metrics.jsonl", "recipe.yaml"):
            shutil.copyfile(chosen.folder / name / file, record / file)
    networks = {name: load_network(file) for name, file in files.items() if file is not None}
    networks["bicubic"] = Interpolation("bicubic")
    dataset, numbers = first_images("test")
    images = [middle(read_hr(dataset, number)) for number in numbers]
    other, others = first_images("validation")

    results: dict[str, Any] = {
        "protocol": {
            "middle": SIDE,
            "window": REGION,
            "throw_window": THROW_REGION,
            "inner": INNER,
            "places": PLACES,
            "quiet_places": QUIET_PLACES,
            "threshold_places": THRESHOLD_PLACES,
            "false_alarms": FALSE_ALARMS,
            "throws": THROWS,
            "square": SQUARE,
            "steps": STEPS,
        },
        "versions": describe_hardware(),
        "data": [
            {"name": record.name, "patient": record.patient, "sha256": sha256(record.path)}
            for record in (dataset.records[number] for number in numbers)
        ],
        "weights_sha256": {n: None if f is None else sha256(f) for n, f in files.items()},
        "thresholds": find_thresholds([middle(read_hr(other, number)) for number in others]),
        "findings": [],
        "alarms": [],
        "measures": {},
    }
    thresholds = results["thresholds"]
    old = json.loads(chosen.out.read_text(encoding="utf-8")) if chosen.out.exists() else {}
    for name in files:
        if kept(old, results, [name]):
            part = {
                rows: [row for row in old[rows] if row["method"] == name]
                for rows in ("findings", "alarms")
            } | {"measures": old["measures"].get(name, {})}
        else:
            method = None if name == "HR" else enlarge(networks[name])
            cases = LAB_CASES if name in RUNS else CASES
            part = measure_method(method, images, thresholds, name, cases)
        results["findings"] += part["findings"]
        results["alarms"] += part["alarms"]
        if part["measures"]:
            results["measures"][name] = part["measures"]

    if kept(old, results, ["srgan", "srresnet"]):
        results |= {part: old[part] for part in ("thrown_findings", "thrown_alarms", "throws")}
    else:
        results |= throw_findings(networks["srgan"], images, thresholds, networks["srresnet"])
        results["throws"] = judge_throws(networks["srgan"], images, VGGFeatures("relu3_3"))
    if kept(old, results, ENSEMBLE):
        results["uncertainty"] = old["uncertainty"]
    else:
        seeds = [networks[name] for name in ENSEMBLE]
        results["uncertainty"] = measure_uncertainty(
            lambda lr: ensemble(seeds, lr), images, "seeds"
        )
    sample = open_dataset("sample", width=640)
    elsewhere = {
        "test": images,
        "chest RG1": [read_hr(sample, 0)],
        "extremity RG3": [read_hr(sample, 1)],
    }
    results["shift"] = {}
    for name in ("bicubic", "srresnet", "srgan"):
        results["shift"][name] = (
            old["shift"][name]
            if kept(old, results, [name])
            else {
                where: measure_shifts(networks[name], crops, f"{name}, {where}")
                for where, crops in elsewhere.items()
            }
        )
    write_results(results, chosen.out)


def half(path: Path) -> Path:
    """Store a network in half precision beside itself: what is measured is what can be shipped."""
    smaller = path.with_name("half.safetensors")
    save_weights(load_network(path), smaller, half=True)
    return smaller


if __name__ == "__main__":
    try:
        main()
    except SRGANError as error:
        raise SystemExit(str(error)) from error
