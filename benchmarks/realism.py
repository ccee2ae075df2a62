"""How real the SRGANs look, and whether their throws can be trusted, on the test split.

    python benchmarks/realism.py                    # all methods, results/realism.json
    python benchmarks/realism.py --model srgan      # only this one anew

The protocol, for each of the 53 test images of covid19-hannover: a window of 192 x 192 px, at
half of the height and a third of the width, where lung, ribs and mediastinum meet.

- One throw (seed 0): PSNR, LR consistency, and the ratios to HR of the lattice and of the power in
  three rings of the spectrum, see srgan_lib.realism. Of the ratios and of LR consistency the
  median over the images counts.
- From 32 throws, PSNR of their mean; from 64, the correlation of deviation and error by blocks of
  8 x 8 px and the share of pixels inside the 90 % intervals, see srgan_lib.calibration.
- Over all windows, the kernel distance and a fresh critic's AUC, see srgan_lib.realism and
  srgan_lib.critic.

And for the two radiographs of the sample, which are from elsewhere, whole, at 640 px and at full
size: ratios of one throw and, at 640 px, PSNR of the mean of 32 throws above bicubic.
"""

import argparse
import hashlib
import json
import math
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from srgan_lib.architectures import Interpolation, VGGFeatures
from srgan_lib.calibration import coverage, error_correlation
from srgan_lib.critic import fresh_critic_auc
from srgan_lib.datasets import open_dataset
from srgan_lib.degradation import crop_to_multiple, degrade, quantise
from srgan_lib.evaluation import super_resolve, throws
from srgan_lib.files import write_atomically
from srgan_lib.metrics import lr_consistency, psnr
from srgan_lib.noise import has_dice
from srgan_lib.pretrained import CARDS, load_network, weights_path
from srgan_lib.realism import (
    kernel_distance,
    lattice_ratio,
    ring_ratios,
    squares,
    vgg_statistics,
)

SHOWN = ("srresnet", "srgan_paper", "srgan_no_dice", "srgan")
NAMES = {"bicubic": "bicubic"} | {name: CARDS[name].title for name in SHOWN}
OUT = Path(__file__).resolve().parent.parent / "results" / "realism.json"
WINDOW = 192
"""Side of the window of each image, in pixels."""
MEAN_OF, THROWS = 32, 64
SCALE = 4


def window(hr: Tensor) -> Tensor:
    """Return the window of an image, at a multiple of the scale."""
    height, width = hr.shape[-2:]
    top, left = (
        int(at) // SCALE * SCALE for at in (height / 2 - WINDOW / 2, width / 3 - WINDOW / 2)
    )
    return quantise(hr[:, top : top + WINDOW, left : left + WINDOW])


def one_throw(network: nn.Module, hr: Tensor) -> tuple[dict[str, Any], Tensor]:
    """Return what is measured on one throw, and the throw."""
    lr = degrade(hr, SCALE)
    sr = super_resolve(network, lr)
    return {
        "psnr": psnr(sr, hr),
        "lr_consistency": lr_consistency(sr, lr, SCALE),
        "lattice": lattice_ratio(sr, hr, SCALE),
        "rings": list(ring_ratios(sr, hr)),
    }, sr


def many_throws(network: nn.Module, hr: Tensor) -> dict[str, float]:
    """Return what is measured on many throws; nothing for a network without dice."""
    if not has_dice(network):
        return {}
    images = throws(network, degrade(hr, SCALE), THROWS)
    return {
        "mean_psnr": psnr(images[:MEAN_OF].mean(0), hr),
        "correlation": error_correlation(images, hr),
        "coverage": coverage(images, hr),
    }


def measure(name: str) -> dict[str, Any]:
    """Return all numbers of one method."""
    network = Interpolation(name, SCALE) if name == "bicubic" else load_network(name)
    dataset = open_dataset("covid19-hannover", "test")
    images, srs, hrs, lrs = [], [], [], []
    for hr, record in tqdm(zip(dataset, dataset.records, strict=True), name, len(dataset)):
        hr = window(hr)
        found, sr = one_throw(network, hr)
        images.append({"name": record.name} | found | many_throws(network, hr))
        srs.append(sr)
        hrs.append(hr)
        lrs.append(degrade(hr, SCALE))
    features = VGGFeatures("relu3_3")
    statistics = [
        torch.cat([vgg_statistics(squares(image), features) for image in kind])
        for kind in (srs, hrs)
    ]
    patients = [record.patient for record in dataset.records]
    return {
        "weights": None if name == "bicubic" else digest(weights_path(name)),
        "images": images,
        "summary": summarise(images)
        | {
            "kernel_distance": kernel_distance(*statistics, paired=True),
            "critic_auc": fresh_critic_auc(srs, hrs, lrs, patients),
        },
        "away": away(network),
    }


def away(network: nn.Module, widths: tuple[int | None, ...] = (640, None)) -> dict[str, Any]:
    """Return what is measured on the sample's two radiographs at these widths; None: full size."""
    found = {}
    for width in widths:
        dataset = open_dataset("sample", width=width)
        for image, record in zip(dataset, dataset.records, strict=True):
            hr = quantise(crop_to_multiple(image, SCALE))
            values, _ = one_throw(network, hr)
            if width is not None:
                lr = degrade(hr, SCALE)
                mean = super_resolve(network, lr)
                if has_dice(network):
                    mean = throws(network, lr, MEAN_OF).mean(0)
                bicubic = super_resolve(Interpolation("bicubic", SCALE), lr)
                values["mean_above_bicubic"] = psnr(mean, hr) - psnr(bicubic, hr)
            found[f"{record.name} {width or 'full'}"] = values
    return found


def summarise(images: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the means over the images; of ratios and of LR consistency, the medians.

    LR consistency can be infinite, which a file has as None.
    """
    medians = ("lr_consistency", "lattice", "rings")
    found: dict[str, Any] = {
        name: fmean(image[name] for image in images)
        for name in images[0]
        if name not in ("name", *medians)
    }
    consistencies = (image["lr_consistency"] for image in images)
    found["lr_consistency"] = median(math.inf if x is None else x for x in consistencies)
    found["lattice"] = median(image["lattice"] for image in images)
    found["rings"] = [median(ring) for ring in zip(*(i["rings"] for i in images), strict=True)]
    return found


def digest(path: Path) -> str:
    """Return a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", choices=NAMES, help="measure only this")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    for name in options.model or NAMES:
        found = measure(name)
        results = json.loads(options.out.read_text()) if options.out.exists() else {}
        results |= {
            "protocol": {
                "window": WINDOW,
                "place": "half of the height, a third of the width",
                "mean_of": MEAN_OF,
                "throws": THROWS,
                "summary": "means over the images; of LR consistency, lattice and rings medians",
            }
        }
        measured = results.get("methods", {}) | {name: rounded(found)}
        results["methods"] = {key: measured[key] for key in NAMES if key in measured}
        write_atomically(options.out, (json.dumps(results, indent=1) + "\n").encode())
        print(name, json.dumps(found["summary"], indent=1))


def table(results: dict[str, Any]) -> str:
    """Return a Markdown table of the test images: a row for each method."""
    lines = [
        "| method | PSNR (dB) | mean of throws (dB) | LR consistency (dB) | lattice / HR's | "
        "rings / HR's | kernel distance | critic's AUC | correlation | coverage of 90 % |",
        "|---|" + "---:|" * 9,
    ]
    for name, method in results["methods"].items():
        found = method["summary"]
        cells = [
            f"{found['psnr']:.2f}",
            f"{found['mean_psnr']:.2f}" if "mean_psnr" in found else "",
            f"{found['lr_consistency']:.1f}",
            f"{found['lattice']:.2f}",
            ", ".join(f"{ring:.2f}" for ring in found["rings"]),
            f"{found['kernel_distance']:.3g}",
            f"{found['critic_auc']:.3f}",
            f"{found['correlation']:.2f}" if "correlation" in found else "",
            f"{found['coverage']:.2f}" if "coverage" in found else "",
        ]
        lines.append(f"| {NAMES[name]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def away_table(results: dict[str, Any], name: str = "srgan") -> str:
    """Return a Markdown table of one method on the two radiographs from elsewhere."""
    lines = [
        "| image | lattice / HR's | rings / HR's | LR consistency (dB) | "
        "mean of throws - bicubic (dB) |",
        "|---|---:|---:|---:|---:|",
    ]
    for image, found in results["methods"][name]["away"].items():
        rings = ", ".join(f"{ring:.2f}" for ring in found["rings"])
        gain = f"{found['mean_above_bicubic']:+.2f}" if "mean_above_bicubic" in found else ""
        lines.append(
            f"| {image} | {found['lattice']:.2f} | {rings} | {found['lr_consistency']:.1f} "
            f"| {gain} |"
        )
    return "\n".join(lines)


def rounded(value: Any) -> Any:
    """Return numbers with six significant digits, in whatever they are nested."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


if __name__ == "__main__":
    main()
