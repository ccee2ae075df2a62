"""Write the tables of the SRGANs' model card from the committed results.

The card's text is written by hand; what stands between ``<!-- NAME -->`` and ``<!-- end -->`` is
written here, after ``srgan evaluate`` and ``benchmarks/realism.py`` have measured.
"""

import json
import re
from pathlib import Path

from srgan_lib.pretrained import load_network
from srgan_lib.results import results_table
from srgan_lib.runs import read_metrics

ROOT = Path(__file__).resolve().parent.parent
CARD = ROOT / "srgan_lib" / "weights" / "srgan.md"
PLACES = {
    "test part, mean of 53 images": ("test_split.json", None),
    "chest `RG1`, 640 px": ("sample_640.json", 0),
    "extremity `RG3`, 640 px": ("sample_640.json", 1),
    "chest `RG1`, full size": ("sample_full.json", 0),
    "extremity `RG3`, full size": ("sample_full.json", 1),
}


def read(file: str) -> dict:
    """Return a committed results file."""
    return json.loads((ROOT / "results" / file).read_text(encoding="utf-8"))


def places_table() -> str:
    """Return a Markdown table: one throw of ``srgan`` at home and on other machines' images."""
    lines = [
        "| images | PSNR - bicubic (dB) | feature distance / bicubic's | / SRResNet's | "
        "detail, SR / HR | LR consistency (dB) |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for label, (file, image) in PLACES.items():
        sr, blurred, bicubic = (
            {
                m: v if image is None else method["values"][m][image]
                for m, v in method["mean"].items()
            }
            for method in (read(file)["methods"][n] for n in ("srgan", "srresnet", "bicubic"))
        )
        cells = [f"{sr['psnr'] - bicubic['psnr']:+.2f}"]
        for other in (bicubic, blurred):
            cells.append(f"{sr['feature_distance'] / other['feature_distance']:.2f}")
        cells += [f"{sr['detail']:.2f}", f"{sr['lr_consistency']:.1f}"]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def runs_table() -> str:
    """Return a Markdown table of the three runs: parameters, length and time."""
    lines = ["| name | parameters | epochs | steps | minutes |", "|---|---:|---:|---:|---:|"]
    for name in ("srgan", "srgan_paper", "srgan_no_dice"):
        last = read_metrics(ROOT / "results" / name)[-1]
        count = sum(weights.numel() for weights in load_network(name).parameters())
        lines.append(
            f"| `{name}` | {count:,} | {last['epoch']} | {last['step']:,} "
            f"| {last['seconds'] / 60:.0f} |"
        )
    return "\n".join(lines)


def tables() -> dict[str, str]:
    """Return the card's tables by the names of their marks."""
    import realism  # of benchmarks/

    measured = read("realism.json")
    return {
        "runs": runs_table(),
        "test split": results_table(read("test_split.json")),
        "realism": realism.table(measured),
        "away": realism.away_table(measured),
        "places": places_table(),
    }


def written(card: str) -> str:
    """Return the card with its tables as the results have them."""
    for name, table in tables().items():
        mark = rf"(<!-- {name} -->\n).*?(\n<!-- end -->)"
        card, count = re.subn(mark, lambda m, t=table: m[1] + t + m[2], card, flags=re.DOTALL)
        if count != 1:
            raise SystemExit(f"{CARD} has {count} places for the table '{name}'.")
    return card


if __name__ == "__main__":
    import sys

    sys.path.insert(0, str(ROOT / "benchmarks"))
    CARD.write_text(written(CARD.read_text(encoding="utf-8")), encoding="utf-8")
