"""Publish a finished run: half-precision weights into the package, its record into results/.

Of the discriminators only the reference SRGAN's is shipped, for fine-tuning.

Usage: python tools/publish_run.py runs/srresnet srresnet
"""

import shutil
import sys
from pathlib import Path

from torch import nn

from srgan_lib.checkpoints import load_weights, save_weights
from srgan_lib.recipes import read_recipe
from srgan_lib.runs import build_discriminator, build_generator, write_film_strip, write_gif

ROOT = Path(__file__).resolve().parent.parent


def main(folder: Path, name: str) -> None:
    recipe = read_recipe(folder / "recipe.yaml")
    generator = build_generator(recipe)
    load_weights(generator, folder / "generator.safetensors")
    written = [_halve(generator, name)]
    if name == "srgan":
        discriminator = build_discriminator(recipe)
        load_weights(discriminator, folder / "discriminator.safetensors")
        written.append(_halve(discriminator, f"{name}_discriminator"))
    results = ROOT / "results" / name
    results.mkdir(parents=True, exist_ok=True)
    for file in ("metrics.jsonl", "environment.json", "recipe.yaml"):
        shutil.copyfile(folder / file, results / file)
    write_film_strip(folder, results / "film_strip.png")
    write_gif(folder, results / "training.gif")
    for weights in written:
        print(f"{weights.name}: {weights.stat().st_size / 2**20:.2f} MiB")


def _halve(network: nn.Module, name: str) -> Path:
    """Write a network's weights into the package, in half precision."""
    path = ROOT / "srgan_lib" / "weights" / f"{name}.safetensors"
    save_weights(network, path, half=True)
    return path


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
