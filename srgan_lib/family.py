"""The networks of chapter 8, trained one after another on the same images."""

import os
import time
from pathlib import Path

import torch
from accelerate import PartialState

from srgan_lib.architectures import NeighbourEmbedding
from srgan_lib.checkpoints import save_weights
from srgan_lib.datasets import open_dataset
from srgan_lib.files import shared_folder
from srgan_lib.pretrained import FAMILY
from srgan_lib.recipes import Recipe, read_recipe
from srgan_lib.runs import train


def family_recipes() -> dict[str, Recipe]:
    """Return the recipes of those of :data:`srgan_lib.pretrained.FAMILY` that have one, by name.

    Raises:
        ConfigurationError: a recipe with a mistake.
        SRGANError: an installation without recipes.
    """
    folder = shared_folder("recipes", "srresnet.yaml")
    files = {name: folder / f"{name}.yaml" for name in FAMILY}
    return {name: read_recipe(file) for name, file in files.items() if file.is_file()}


def train_family(
    folder: str | os.PathLike,
    *,
    recipes: dict[str, Recipe] | None = None,
    time_budget: float | None = None,
    device: torch.device | None = None,
    progress: bool = True,
) -> bool:
    """Train all networks of chapter 8, or go on where it was interrupted.

    First neighbour embedding collects its examples; then the networks follow, each in a run
    folder of its own, as :func:`srgan_lib.runs.train` makes them. Those that are finished are
    passed over. One that starts from another starts from what was trained here.

    Args:
        folder: the folder that holds the run folders.
        recipes: by name, in their order; those of :func:`family_recipes` by default.
        time_budget: seconds after which to save and stop, or None.
        device: what to train on, or None for the best that there is.
        progress: show progress bars.

    Returns:
        Whether all are finished.

    Raises:
        SRGANError: see :func:`srgan_lib.runs.train`.
    """
    started = time.monotonic()
    folder = Path(folder)
    recipes = family_recipes() if recipes is None else recipes
    examples = folder / "neighbour_embedding" / "generator.safetensors"
    if PartialState().is_main_process and not examples.exists():
        data = next(iter(recipes.values())).data
        method = NeighbourEmbedding()
        method.fit(list(open_dataset(data.name, "train", width=data.width)), seed=0)
        save_weights(method, examples)
    for name, recipe in recipes.items():
        left = None if time_budget is None else time_budget - (time.monotonic() - started)
        if left is not None and left <= 0:
            return False
        if recipe.start_from in recipes:
            start = folder / recipe.start_from / "generator.safetensors"
            recipe = recipe.model_copy(update={"start_from": str(start)})
        if progress and PartialState().is_main_process:
            print(f"{name}:", flush=True)
        run = {"time_budget": left, "device": device, "progress": progress}
        if not train(recipe, folder / name, **run):
            return False
    return True
