"""Measure what networks do to synthetic findings, and what they invent, for notebook 9.

    python benchmarks/hallucination.py runs/lab --out results/hallucination.json

First the networks of ``recipes/lab.yaml`` are trained, one for each adversarial weight and, for one
of the weights, two more with other seeds; those that are finished in the folder are taken as they
are. Then everything is measured on the test part of covid19-hannover, on the first image of each
of its 14 patients: findings and false alarms in the middle 384 x 384 pixels, all else on the whole
image.

The parts of the file, each value for each patient, in the order of ``data``:

- ``thresholds``: the contrast that the detector of :mod:`srgan_lib.findings` must see. It is set on
  HR images of the validation part, without findings, so that 5 % of places give a false alarm.
- ``findings``: of ``places`` places, in how many a finding survives and moves (it fades in the
  others), and the mean contrast recovered: the difference that it makes to the fit in its own
  place, over its contrast.
- ``false_alarms``: on images without findings, the share of ``quiet_places`` with a false alarm.
- ``before``, ``projected``: measures by the library's protocol, and how much of HR's fine detail is
  explained and how alike the two are (:func:`srgan_lib.consistency.explained_detail`), before and
  after projection onto LR.
- ``interpolated``: the same for networks between SRResNet and SRGAN.
- ``uncertainty``: does the spread of several answers lie where the error is? Those of three runs
  that differ in the seed, and those of SRGAN to an image in eight positions.
- ``shift``: other degradations of LR, and another anatomy.
"""

import argparse
import hashlib
import io
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import PIL.Image
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from srgan_lib.architectures import Interpolation, VGGFeatures
from srgan_lib.averaging import interpolate_networks
from srgan_lib.checkpoints import save_weights
from srgan_lib.consistency import explained_detail, project
from srgan_lib.datasets import Dataset, open_dataset
from srgan_lib.degradation import crop_to_multiple, degrade, quantise
from srgan_lib.errors import SRGANError
from srgan_lib.evaluation import super_resolve
from srgan_lib.findings import Finding, fate, implant, match
from srgan_lib.hardware import describe_hardware
from srgan_lib.images import to_pixels
from srgan_lib.metrics import detail_energy, feature_distance, lr_consistency, psnr
from srgan_lib.pretrained import load_network, weights_path
from srgan_lib.recipes import Recipe, read_recipe
from srgan_lib.results import write_results
from srgan_lib.runs import train
from srgan_lib.uncertainty import ensemble, flips, in_squares, rank_correlation, sparsification

ROOT = Path(__file__).resolve().parent.parent
RUNS = {  # adversarial weight and seed of each of the lab's networks
    "adversarial_0": (0.0, 0),
    "adversarial_0.02": (0.02, 0),
    "adversarial_0.08": (0.08, 0),
    "adversarial_0.32": (0.32, 0),
    "adversarial_0.08_seed_1": (0.08, 1),
    "adversarial_0.08_seed_2": (0.08, 2),
}
SEEDS = ("adversarial_0.08", "adversarial_0.08_seed_1", "adversarial_0.08_seed_2")  # the ensemble
SIZES = {"nodule": (4, 8, 16), "line": (1, 2, 4), "catheter": (4, 8, 12), "texture": (4, 8, 16)}
CONTRASTS = (0.03, 0.06, 0.12)
REGION = 128  # side of the region that holds a finding
SIDE = 384  # of the middle of each image, where findings and false alarms are measured
PLACES = 1  # in each image, for findings
QUIET_PLACES = 12  # in each image, for false alarms
FALSE_ALARMS = 0.05
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of SRGAN in networks between SRResNet and SRGAN
SQUARE = 16  # side of the squares that uncertainty is averaged in
STEPS = 20


def lab_recipes() -> dict[str, Recipe]:
    """Return the recipes of the lab's networks, by name."""
    recipe = read_recipe(ROOT / "recipes" / "lab.yaml")
    assert recipe.loss is not None
    recipes = {}
    for name, (weight, seed) in RUNS.items():
        loss = recipe.loss.model_copy(update={"adversarial_weight": weight})
        recipes[name] = recipe.model_copy(update={"loss": loss, "seed": seed})
    return recipes


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


def a_finding(kind: str, size: float, contrast: float, angle: float, seed: int = 0) -> Finding:
    """Return a finding in the middle of a region."""
    middle = REGION / 2 + 0.5
    return Finding(kind, size, contrast, middle, middle, angle, seed)


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
        for region, angle in regions(middle(hr), 1000 + number, QUIET_PLACES):
            for kind, sizes in SIZES.items():
                for size in sizes:
                    seen[kind][str(size)].append(strongest(region, kind, size, angle))
    return {
        kind: {
            size: float(torch.tensor(values).quantile(1 - FALSE_ALARMS))
            for size, values in by_size.items()
        }
        for kind, by_size in seen.items()
    }


def implant_and_find(
    method: Callable[[Tensor], Tensor],
    hr: Tensor,
    number: int,
    thresholds: dict[str, dict[str, float]],
) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Measure what becomes of findings in one image.

    Args:
        method: makes SR images (N, 1, H, W) from HR images of that shape.
        hr: the image.
        number: of the image, from 0; seeds the places.
        thresholds: of :func:`find_thresholds`.

    Returns:
        By kind, size and contrast: how many findings survive and move, and the share of their
        contrast that was recovered.
    """
    result: dict[str, Any] = {
        kind: {str(size): {} for size in sizes} for kind, sizes in SIZES.items()
    }
    chosen = list(regions(hr, number, PLACES))
    without = method(torch.stack([region for region, _ in chosen]))
    for kind, sizes in SIZES.items():
        for size in sizes:
            findings = [
                [a_finding(kind, size, c, angle, seed) for seed, (_, angle) in enumerate(chosen)]
                for c in CONTRASTS
            ]
            batch = [
                quantise(implant(region, finding)[0])
                for row in findings
                for finding, (region, _) in zip(row, chosen, strict=True)
            ]
            images = method(torch.stack(batch)).unflatten(0, (len(CONTRASTS), PLACES))
            for contrast, row, found in zip(CONTRASTS, findings, images, strict=True):
                fates, recovered = [], 0.0
                for finding, image, before in zip(row, found, without, strict=True):
                    fits = match(image, finding)
                    fates.append(fate(fits, finding, thresholds[kind][str(size)]))
                    change = fits - match(before, finding)
                    recovered += float(change[change.shape[0] // 2, change.shape[1] // 2])
                result[kind][str(size)][str(contrast)] = {
                    "survives": fates.count("survives"),
                    "moves": fates.count("moves"),
                    "recovered": round(recovered / PLACES / contrast, 4),
                }
    return result


def false_alarms(
    sr: Tensor, hr: Tensor, number: int, thresholds: dict[str, dict[str, float]]
) -> dict[str, dict[str, float]]:
    """Return the share of places, in an image without findings, where the detector sees one."""
    result: dict[str, dict[str, float]] = {kind: {} for kind in SIZES}
    chosen = places(hr, QUIET_PLACES, 1000 + number)
    for kind, sizes in SIZES.items():
        for size in sizes:
            alarms = 0
            for top, left, angle in chosen:
                region = sr[:, top : top + REGION, left : left + REGION]
                alarms += strongest(region, kind, size, angle) >= thresholds[kind][str(size)]
            result[kind][str(size)] = alarms / QUIET_PLACES
    return result


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


def compare(sr: Tensor, hr: Tensor, lr: Tensor, features: VGGFeatures) -> dict[str, float]:
    """Return the measures that consistency and shift are judged by."""
    explained, correlation = explained_detail(sr, hr)
    return {
        "psnr": psnr(sr, hr),
        "feature_distance": feature_distance(sr, hr, features),
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
    """Return a network as a method."""

    def method(lr: Tensor) -> Tensor:
        with torch.no_grad():
            return quantise(network.eval()(lr))

    return method


def measure_method(
    method: Method | None,
    images: Sequence[Tensor],
    thresholds: dict[str, dict[str, float]],
    features: VGGFeatures,
    name: str = "",
) -> dict[str, Any]:
    """Measure a method, or HR itself for None, on images without findings and with them."""
    seen: list[dict[str, Any]] = []
    for number, hr in enumerate(tqdm(images, desc=name, unit="image")):
        lr = degrade(hr)
        sr = hr if method is None else method(lr[None])[0]
        found = implant_and_find(
            lambda batch: batch if method is None else method(degrade(batch)),
            middle(hr),
            number,
            thresholds,
        )
        alarms = false_alarms(middle(sr), middle(hr), number, thresholds)
        result: dict[str, Any] = {"findings": found, "false_alarms": alarms}
        if method is not None:
            result["before"] = compare(sr, hr, lr, features)
            result["projected"] = compare(quantise(project(sr, lr)), hr, lr, features)
        seen.append(result)
    return together(seen)


def middle(hr: Tensor, side: int = SIDE) -> Tensor:
    """Return the middle of an image, where findings and false alarms are measured."""
    top, left = ((size - side) // 2 for size in hr.shape[-2:])
    return hr[:, top : top + side, left : left + side]


def measure_uncertainty(
    answers: Callable[[Tensor], tuple[Tensor, Tensor]], images: Sequence[Tensor], name: str = ""
) -> dict[str, Any]:
    """Measure an ensemble: the error is that of its mean."""
    seen = []
    for hr in tqdm(images, desc=name, unit="image"):
        mean, spread = answers(degrade(hr))
        seen.append(judge(spread, (mean - hr).abs()))
    return together(seen)


def measure_shifts(
    network: nn.Module, images: Sequence[Tensor], features: VGGFeatures, name: str = ""
) -> dict[str, Any]:
    """Measure a network on LR images that were made otherwise than those that it learned from."""
    seen = []
    for hr in tqdm(images, desc=name, unit="image"):
        result = {}
        for shift, change in SHIFTS.items():
            lr = change(degrade(hr))
            result[shift] = compare(super_resolve(network, lr), hr, lr, features)
        seen.append(result)
    return together(seen)


def measure_interpolations(
    images: Sequence[Tensor], features: VGGFeatures
) -> dict[str, dict[str, list[float]]]:
    """Measure the networks between SRResNet and SRGAN, by the share of the second."""
    ends = [load_network(name) for name in ("srresnet", "srgan")]
    result = {}
    for share in SHARES:
        network = interpolate_networks(*ends, share)
        seen = []
        for hr in images:
            lr = degrade(hr)
            seen.append(compare(super_resolve(network, lr), hr, lr, features))
        result[str(share)] = together(seen)
    return result


def sha256(path: Path) -> str:
    """Return a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is not yet trained, measure, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds the run folders of the lab's networks")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the numbers")
    chosen = parser.parse_args(arguments)
    files = {name: weights_path(name) for name in ("srresnet", "srgan")}
    for name, recipe in lab_recipes().items():
        train(recipe, chosen.folder / name, device=torch.device("cpu"))
        files[name] = half(chosen.folder / name / "generator.safetensors")
    networks = {
        "bicubic": Interpolation("bicubic"),
        **{n: load_network(f) for n, f in files.items()},
    }
    features = VGGFeatures("relu3_3")
    dataset, numbers = first_images("test")
    images = [read_hr(dataset, number) for number in numbers]
    other, others = first_images("validation")
    thresholds = find_thresholds([read_hr(other, number) for number in others])

    methods: dict[str, Method | None] = {"HR": None}
    methods |= {name: enlarge(net) for name, net in networks.items()}
    ensembles = {
        "seeds": lambda lr: ensemble([networks[name] for name in SEEDS], lr),
        "flips": lambda lr: flips(networks["srgan"], lr),
    }
    sample = open_dataset("sample", width=640)
    elsewhere = {
        "test": images,
        "chest RG1": [read_hr(sample, 0)],
        "extremity RG3": [read_hr(sample, 1)],
    }
    results = {
        "protocol": {
            "measured": "whole images; findings and false alarms in their middle",
            "region": REGION,
            "side": SIDE,
            "places": PLACES,
            "quiet_places": QUIET_PLACES,
            "false_alarms": FALSE_ALARMS,
            "square": SQUARE,
            "steps": STEPS,
        },
        "versions": describe_hardware(),
        "data": [
            {"name": record.name, "patient": record.patient, "sha256": sha256(record.path)}
            for record in (dataset.records[number] for number in numbers)
        ],
        "weights_sha256": {name: sha256(path) for name, path in files.items()},
        "thresholds": thresholds,
        "methods": {
            name: measure_method(method, images, thresholds, features, name)
            for name, method in methods.items()
        },
        "interpolated": measure_interpolations(images, features),
        "uncertainty": {
            name: measure_uncertainty(answers, images, name) for name, answers in ensembles.items()
        },
        "shift": {
            name: {
                where: measure_shifts(networks[name], crops, features, f"{name}, {where}")
                for where, crops in elsewhere.items()
            }
            for name in ("bicubic", "srresnet", "srgan")
        },
    }
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
