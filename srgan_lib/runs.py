"""Training runs: a recipe, a folder, and work that survives being interrupted.

A run folder holds all that a run was made of and all that it made:

- ``recipe.yaml``: the recipe with all defaults; ``environment.json``: hardware and versions;
- ``checkpoints/``: the last two states of the run, and ``best.safetensors``, the best epoch's;
- ``metrics.jsonl``: a line for each epoch; ``tensorboard/``: the same for TensorBoard;
- ``samples/``: the fixed validation crops after each epoch;
- ``generator.safetensors`` and, in stage two, ``discriminator.safetensors``: the weights after
  the newest epoch, the generator's averaged.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from srgan_lib.architectures import (
    DISCRIMINATORS,
    GENERATORS,
    DiscriminatorNetwork,
    Interpolation,
    SRNetwork,
    VGGFeatures,
)
from srgan_lib.checkpoints import load_state, load_weights, save_state, save_weights
from srgan_lib.crops import (
    CropSampler,
    ImageFile,
    LoaderSampler,
    bytes_needed,
    fits,
    read_images,
)
from srgan_lib.datasets import open_dataset
from srgan_lib.degradation import centre, crop_to_multiple, degrade, quantise
from srgan_lib.errors import ConfigurationError, ImageError, SRGANError, WeightsError
from srgan_lib.evaluation import evaluate, super_resolve
from srgan_lib.files import locked, write_atomically
from srgan_lib.hardware import describe_hardware, make_accelerator
from srgan_lib.images import read_image, write_image
from srgan_lib.losses import GeneratorLoss
from srgan_lib.pretrained import weights_path
from srgan_lib.recipes import Recipe, read_recipe, write_recipe
from srgan_lib.training import (
    AdversarialStage,
    ContentStage,
    RecursiveStage,
    constant,
    cosine,
)
from srgan_lib.variation import Variation

_LOOK_EVERY = 20  # steps between two looks at the losses, each of which waits for the device
_KEPT = 2  # checkpoints
_VALIDATION_SIDE = 128  # of the crop of each validation image that is measured, in pixels
_SAMPLES = 4  # validation crops that are drawn
_LOST = 0.99  # the share of places that a discriminator ranks right, from which on it has won


def train(
    recipe: Recipe,
    folder: str | os.PathLike,
    *,
    time_budget: float | None = None,
    checkpoint_every: float = 300,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> bool:
    """Train by a recipe, or go on with a run that was interrupted.

    Called again with the same folder, it continues from the last whole checkpoint; on a CPU to
    the same bits as if it had never stopped. SIGTERM and Ctrl-C save before they end the run.

    Args:
        recipe: what to train, see :func:`srgan_lib.recipes.read_recipe`.
        folder: the run folder; made if it isn't there.
        time_budget: seconds after which to save and stop, or None.
        checkpoint_every: seconds between two checkpoints; each epoch ends with one, too.
        device: what to train on, or None for the best that there is.
        progress: show progress bars.

    Returns:
        Whether the run is finished.

    Raises:
        ConfigurationError: the folder holds a run of another recipe or of other images, or is in
            use.
        DatasetError: missing images, or no validation image.
        ImageError: no image that a crop fits into.
        SRGANError: a loss that is no longer finite, a GPU out of memory, a file that can't be
            written. The last checkpoint is whole in each case.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after saving.
    """
    device = None if device is None else torch.device(device)
    accelerator = make_accelerator(recipe.precision, device)
    folder = Path(folder)
    with _claimed(folder, recipe, accelerator), _stop_signals() as stop:
        run = None
        try:
            run = _Run(recipe, folder, accelerator, progress)
            return run.go(stop, time_budget, checkpoint_every)
        except torch.OutOfMemoryError as error:
            share = max(recipe.batch_size // 2, 1)
            raise SRGANError(
                f"The GPU is out of memory with batch_size {recipe.batch_size}. Try batch_size: "
                f"{share} in the recipe, or close other programs that use the GPU."
            ) from error
        finally:
            if run is not None:
                run.close()


def build_generator(recipe: Recipe) -> SRNetwork:
    """Return the recipe's generator with its starting weights."""
    part = recipe.generator
    generator = GENERATORS[part.network](recipe.data.channels, **part.arguments)
    if recipe.start_from is not None:
        load_weights(generator, weights_path(recipe.start_from))
    return generator


def build_stage(recipe: Recipe, accelerator: Accelerator) -> ContentStage | AdversarialStage:
    """Return the recipe's stage with its networks, seeded.

    Raises:
        ConfigurationError: a network or a VGG layer that doesn't exist.
        WeightsError: starting weights or VGG weights that are missing or don't fit.
    """
    torch.manual_seed(recipe.seed)
    schedule = cosine(recipe.steps) if recipe.schedule == "cosine" else constant
    common: dict[str, Any] = {
        "accelerator": accelerator,
        "learning_rate": recipe.learning_rate,
        "schedule": schedule,
        "average_decay": recipe.average_decay,
        "compiled": recipe.compile,
    }
    generator = build_generator(recipe)
    if recipe.stage == "content":
        common["pixel_loss"] = recipe.pixel_loss or "mse"
        if generator.gives_each:
            return RecursiveStage(generator, recipe.steps, **common)
        return ContentStage(generator, **common)
    assert recipe.loss is not None  # the recipe was checked
    loss = GeneratorLoss(
        VGGFeatures(recipe.loss.deepest, recipe.loss.network, recipe.loss.weights),
        **recipe.loss.model_dump(exclude={"network", "weights"}),
    )
    return AdversarialStage(
        generator,
        build_discriminator(recipe),
        loss,
        discriminator_learning_rate=recipe.discriminator_learning_rate,
        betas=recipe.betas,
        penalty_weight=recipe.penalty_weight,
        warm_up=recipe.warm_up,
        **common,
    )


def build_discriminator(recipe: Recipe) -> DiscriminatorNetwork:
    """Return the recipe's discriminator, new."""
    part = recipe.discriminator
    assert part is not None  # the recipe was checked
    network = DISCRIMINATORS[part.network]
    scale = {"scale": recipe.generator.scale} if network.sees_lr else {}
    return network(recipe.data.channels, **scale, **part.arguments)


def build_sampler(recipe: Recipe, device: torch.device, progress: bool = False) -> CropSampler:
    """Return the sampler of the recipe's training crops.

    Images that fit on the device are kept there. Others stay in the host's memory or, where they
    don't fit there either, in their files; the batches are the same. ``progress`` says so.
    """
    data = recipe.data
    dataset = open_dataset(data.name, "train", channels=data.channels, width=data.width)
    images = read_images(dataset, data.smaller, progress)
    images = [image for image in images if min(image.values.shape[1:]) >= data.crop_size]
    if not images:
        raise ImageError(
            f"{data.name} holds no image of {data.crop_size} x {data.crop_size} pixels or more. "
            "Lower data.crop_size."
        )
    variation = None
    if data.variation is not None:
        variation = Variation(**data.variation.model_dump())
    size, in_files = bytes_needed(images), isinstance(images[0], ImageFile)
    sampler = CropSampler if fits(size, device) and not in_files else LoaderSampler
    if sampler is LoaderSampler and progress:
        whose, where = ("host", "their files") if in_files else ("GPU", "the host's memory")
        print(
            f"The images of {data.name} take {size / 1e9:.2g} GB, too much of the memory of the "
            f"{whose} (see srgan_lib.crops.MEMORY_SHARE). They stay in {where}."
        )
    return sampler(
        images,
        data.crop_size,
        recipe.generator.scale,
        flips=data.flips,
        quarter_turns=data.quarter_turns,
        variation=variation,
        seed=recipe.seed,
        device=device,
    )


def read_metrics(folder: str | os.PathLike) -> list[dict[str, Any]]:
    """Return the epochs of a run folder's ``metrics.jsonl``, oldest first.

    Raises:
        SRGANError: there is none, or it is damaged.
    """
    path = Path(folder) / "metrics.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if not all(isinstance(line, dict) and isinstance(line.get("epoch"), int) for line in lines):
            raise ValueError("a line is no epoch's")
        return lines
    except OSError as error:
        raise SRGANError(f"Could not read {path}: {error.strerror}.") from error
    except ValueError as error:
        raise SRGANError(f"{path} is damaged: {error}. Move it elsewhere.") from error


def write_film_strip(folder: str | os.PathLike, path: str | os.PathLike, ends: int = 5) -> None:
    """Draw a run's first and last epochs: a row of sample crops for each, HR at the bottom.

    Args:
        folder: the run folder.
        path: the image file to write.
        ends: number of epochs from the start, and from the end; all if the run is shorter.

    Raises:
        SRGANError: no epoch has been drawn yet.
    """
    epochs = _samples(folder)
    chosen = epochs if len(epochs) <= 2 * ends else epochs[:ends] + epochs[-ends:]
    rows = [read_image(file) for file in (*chosen, Path(folder) / "samples" / "hr.png")]
    write_image(path, _with_lines(rows, dim=-2))


def write_gif(folder: str | os.PathLike, path: str | os.PathLike, seconds: float = 0.2) -> None:
    """Draw a run's sample crops as a GIF with a frame for each epoch.

    Args:
        folder: the run folder.
        path: the file to write.
        seconds: how long a frame stays.

    Raises:
        SRGANError: no epoch has been drawn yet.
    """
    frames = [PIL.Image.open(file) for file in _samples(folder)]
    data = io.BytesIO()
    frames[0].save(
        data, "GIF", save_all=True, append_images=frames[1:], duration=1000 * seconds, loop=0
    )
    write_atomically(path, data.getvalue())


def _samples(folder: str | os.PathLike) -> list[Path]:
    """Return the pictures of a run's epochs, in order."""
    found = sorted((Path(folder) / "samples").glob("epoch-*.png"))
    if not found:
        raise SRGANError(f"{folder} holds no samples: train for an epoch first.")
    return found


class _Run:
    """One process's part in a run."""

    def __init__(
        self, recipe: Recipe, folder: Path, accelerator: Accelerator, progress: bool
    ) -> None:
        self.recipe, self.folder, self.accelerator = recipe, folder, accelerator
        self.main = accelerator.is_main_process
        self.progress = progress and self.main
        world = accelerator.num_processes
        if recipe.batch_size % world:
            raise ConfigurationError(
                f"batch_size ({recipe.batch_size}) must be a multiple of the number of "
                f"processes ({world})."
            )
        size = recipe.batch_size // world
        self.share = slice(accelerator.process_index * size, (1 + accelerator.process_index) * size)
        self.images = _images_digest(recipe)
        self.validation, self.samples = _validation_crops(recipe), _sample_crops(recipe)
        self.sampler = build_sampler(recipe, accelerator.device, self.progress)
        self.stage = build_stage(recipe, accelerator)
        self.epoch, self.step_in_epoch, self.seconds = 0, 0, 0.0
        self.best = -math.inf
        self.sums: dict[str, Tensor] = {}
        self.board: Any = None
        self._resume()

    def go(self, stop: list[int], time_budget: float | None, checkpoint_every: float) -> bool:
        """Train until the run is finished, time is up or a signal came."""
        started = saved = ticked = time.monotonic()
        steps = self.recipe.steps_per_epoch
        bar = tqdm(
            total=self.recipe.steps,
            initial=self.epoch * steps + self.step_in_epoch,
            desc=f"stage {'one' if self.recipe.stage == 'content' else 'two'}",
            unit="step",
            disable=not self.progress,
        )
        with bar:
            while self.epoch < self.recipe.epochs:
                self._step()
                now = time.monotonic()
                self.seconds, ticked = self.seconds + now - ticked, now
                bar.update()
                if self.step_in_epoch % _LOOK_EVERY == 0 or self.step_in_epoch == steps:
                    self._look(bar)
                if self.step_in_epoch == steps:
                    self._end_epoch()
                    saved = time.monotonic()
                    self.seconds, ticked = self.seconds + saved - ticked, saved
                stopped = bool(stop)  # a signal that comes after this is seen after the next step
                out_of_time = time_budget is not None and now - started >= time_budget
                halt = self._agree(stopped or out_of_time)
                if self.step_in_epoch and (halt or self._agree(now - saved >= checkpoint_every)):
                    self._check(self._means())
                    self._save()
                    saved = time.monotonic()
                if stopped:
                    raise KeyboardInterrupt(f"stopped by signal {stop[0]}, after saving")
                if halt:
                    break
        return self.epoch == self.recipe.epochs

    def close(self) -> None:
        self.sampler.close()
        if self.board is not None:
            with contextlib.suppress(OSError):  # all that matters was written by then
                self.board.close()

    def _step(self) -> None:
        lr, hr = self.sampler.batch(self.recipe.batch_size)
        losses = self.stage.step(lr[self.share], hr[self.share])
        for name, value in losses.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.step_in_epoch += 1

    def _look(self, bar: tqdm) -> None:
        """Show the losses, and stop a run whose losses are no longer finite."""
        means = self._means()
        bar.set_postfix({name: f"{value:.3g}" for name, value in means.items()})
        self._check(means)

    def _means(self) -> dict[str, float]:
        """Return the mean of each loss since the epoch began, over all processes."""
        if self.accelerator.num_processes > 1 and self.sums:
            sums = self.accelerator.reduce(torch.stack(list(self.sums.values())), "mean")
            self.sums = dict(zip(self.sums, sums.unbind(), strict=True))
        return {name: float(total) / self.step_in_epoch for name, total in self.sums.items()}

    def _check(self, means: dict[str, float]) -> None:
        """Stop before losses or weights that are no longer finite get into a checkpoint."""
        broken = [f"The {name} loss is" for name, mean in means.items() if not math.isfinite(mean)]
        players = [self.stage.generator]
        if isinstance(self.stage, AdversarialStage):
            players.append(self.stage.discriminator)
        for player in players:
            norms = torch.stack(torch._foreach_norm(list(player.plain.parameters())))
            if not norms.isfinite().all():
                broken.append(f"The {type(player.plain).__name__}'s weights are")
        if broken:
            raise SRGANError(
                f"{broken[0]} no longer finite {self._where()}. The last checkpoint is from "
                "before. Lower learning_rate, or take precision: bf16 or no, and train into a "
                "new folder; if it happens again, look for NaN in the images."
            )

    def _where(self) -> str:
        return f"in epoch {self.epoch + 1}, by step {self.step_in_epoch}"

    def _end_epoch(self) -> None:
        means = self._means()
        self.epoch, self.step_in_epoch, self.sums = self.epoch + 1, 0, {}
        if self.main and means.get("ranking", 0) > _LOST:
            print(
                f"Epoch {self.epoch}: the discriminator ranked {means['ranking']:.1%} of places "
                "right. A game that is lost teaches the generator little about where it is wrong: "
                "lower discriminator_learning_rate or discriminator.width, or raise "
                "penalty_weight, and train into a new folder."
            )
        _by_main(self.accelerator, lambda: self._write_epoch(means))
        self._save()

    def _write_epoch(self, means: dict[str, float]) -> None:
        """Measure, log and draw the epoch that has just ended."""
        measured = self._validate()
        line = {
            "epoch": self.epoch,
            "step": self.epoch * self.recipe.steps_per_epoch,
            "learning_rate": self.stage.generator.schedule.get_last_lr()[0],
            "losses": means,
            # JSON knows no infinity, which LR consistency can be
            "validation": {k: v if math.isfinite(v) else None for k, v in measured.items()},
            "seconds": round(self.seconds, 1),
        }
        path = self.folder / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8") if path.exists() else ""
        write_atomically(path, (lines + json.dumps(line, allow_nan=False) + "\n").encode())
        self._write_board(line)
        score = measured["psnr"]
        if self.recipe.stage == "adversarial":
            score = -measured["feature_distance"]
        if score > self.best:
            self.best = score
            self._write_state(self.folder / "checkpoints" / "best.safetensors")
        save_weights(self.stage.average.network, self.folder / "generator.safetensors")
        if isinstance(self.stage, AdversarialStage):
            save_weights(self.stage.discriminator.plain, self.folder / "discriminator.safetensors")

    def _validate(self) -> dict[str, float]:
        """Measure the averaged generator on the validation crops, and draw some of them."""
        scale = self.recipe.generator.scale
        generator = self.stage.average.network
        crops = [crop.to(self.accelerator.device) for crop in self.validation]
        with torch.random.fork_rng(devices=[]):  # or the main process would be ahead of the others
            features = VGGFeatures("relu3_3").to(self.accelerator.device)
            result = evaluate({"sr": generator}, crops, features, scale=scale, progress=False)[0]
            self._draw(f"epoch-{self.epoch:03d}", generator)
        return {measure: result.mean(measure) for measure in result.values}

    def _write_board(self, line: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        folder = self.folder / "tensorboard"
        try:
            if self.board is None:
                self.board = SummaryWriter(str(folder), purge_step=line["epoch"])
            for part in ("losses", "validation"):
                for name, value in line[part].items():
                    if value is None:
                        continue
                    self.board.add_scalar(f"{part}/{name}", value, line["epoch"])
            self.board.add_scalar("learning_rate", line["learning_rate"], line["epoch"])
            self.board.flush()
        except OSError as error:
            raise SRGANError(f"Could not write to {folder}: {error.strerror}.") from error

    def _agree(self, here: bool) -> bool:
        return _any_process(self.accelerator, here)

    def _state(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "step_in_epoch": self.step_in_epoch,
            "seconds": self.seconds,
            "best": self.best,
            "sums": self.sums,
            "stage": self.stage.state_dict(),
            "sampler": self.sampler.state(),
            "random": torch.get_rng_state(),
            "images": self.images,
        }

    def _write_state(self, path: Path) -> None:
        save_state(self._state(), path)

    def _save(self) -> None:
        """Write a checkpoint, and only then remove all but the newest ones."""

        def write() -> None:
            folder = self.folder / "checkpoints"
            self._write_state(folder / f"{self.epoch:04d}-{self.step_in_epoch:06d}.safetensors")
            for old in _checkpoints(self.folder)[:-_KEPT]:
                old.unlink(missing_ok=True)

        _by_main(self.accelerator, write)

    def _resume(self) -> None:
        """Go back to the newest checkpoint that is whole."""
        found = _checkpoints(self.folder)
        damaged = []
        for path in reversed(found):
            try:
                self._go_on_from(load_state(path), path)
            except WeightsError as error:
                if self.main:
                    print(f"{error} The checkpoint before it is used instead.")
                damaged.append(path)
                continue
            break
        else:
            if found:
                raise WeightsError(
                    f"No checkpoint in {self.folder} is whole. Delete the folder to start anew, "
                    "or train into another one."
                )
        self.accelerator.wait_for_everyone()  # until all have read

        def tidy() -> None:
            for path in damaged:  # it would count as the newest, and good ones be deleted for it
                path.rename(path.with_suffix(".damaged"))
            for rest in (self.folder / "checkpoints").glob(".*.safetensors.*"):
                rest.unlink()  # a process that was killed left it half written
            self._forget_later_epochs()
            self._write_references()

        _by_main(self.accelerator, tidy)

    def _go_on_from(self, state: dict[str, Any], path: Path) -> None:
        """Take over a state that was read from ``path``.

        Raises:
            ConfigurationError: the images are others than those that the run began with.
            WeightsError: a whole file that holds no state of this run.
        """
        if state.get("images", self.images) != self.images:
            raise ConfigurationError(
                f"The images of {self.recipe.data.name} have changed since the run in "
                f"{self.folder} began: files were added, removed, renamed or replaced. Train into "
                "another folder, or bring the images back."
            )
        try:
            self.epoch, self.step_in_epoch = int(state["epoch"]), int(state["step_in_epoch"])
            self.seconds, self.best = float(state["seconds"]), float(state["best"])
            device = self.accelerator.device
            self.sums = {name: value.to(device) for name, value in state["sums"].items()}
            self.stage.load_state_dict(state["stage"])
            self.sampler.load_state(state["sampler"])
            torch.set_rng_state(state["random"])
        except Exception as error:  # torch raises errors of many kinds on what doesn't fit
            raise WeightsError(
                f"{path} is no state of this run ({type(error).__name__}: {error})."
            ) from error

    def _forget_later_epochs(self) -> None:
        """Remove what was logged after the checkpoint that the run goes on from."""
        path = self.folder / "metrics.jsonl"
        if path.exists():
            kept = [line for line in read_metrics(self.folder) if line["epoch"] <= self.epoch]
            text = "".join(json.dumps(line) + "\n" for line in kept)
            write_atomically(path, text.encode())

    def _draw(self, name: str, network: torch.nn.Module | None) -> None:
        """Draw the sample crops as a network restores them, or as HR without one."""
        drawn = self.samples
        if network is not None:
            lr = [degrade(hr, self.recipe.generator.scale) for hr in self.samples]
            device = self.accelerator.device
            drawn = [super_resolve(network, small.to(device)).cpu() for small in lr]
        write_image(
            self.folder / "samples" / f"{name}.png", _side_by_side(drawn, like=self.samples)
        )

    def _write_references(self) -> None:
        """Draw the sample crops as HR and as bicubic interpolation."""
        self._draw("hr", None)
        self._draw("bicubic", Interpolation("bicubic", self.recipe.generator.scale))


def _images_digest(recipe: Recipe) -> str:
    """Return the SHA-256 of the names and contents of the images that a run reads."""
    digest = hashlib.sha256()
    for split in ("train", recipe.data.validation):
        for record in open_dataset(recipe.data.name, split).records:
            digest.update(record.name.encode(errors="surrogateescape") + b"\0")
            try:
                with open(record.path, "rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
            except OSError as error:
                raise ImageError(f"Could not read {record.path}: {error.strerror}.") from error
    return digest.hexdigest()


def _validation_crops(recipe: Recipe) -> list[Tensor]:
    """Return the centre of each validation image, as it would be stored."""
    data, scale = recipe.data, recipe.generator.scale
    images = open_dataset(data.name, data.validation, channels=data.channels, width=data.width)
    crops = (centre(image, _VALIDATION_SIDE) for image in images)
    return [quantise(crop_to_multiple(crop, scale)) for crop in crops]


def _sample_crops(recipe: Recipe) -> list[Tensor]:
    """Return a crop of each of some validation images, with ribs, vessels or devices in it.

    Of all windows of an image on a grid of a quarter of their side, it is the one with more
    structure of some pixels' size than nine in ten have: the most of all has a letter or a cable.
    """
    data, scale = recipe.data, recipe.generator.scale
    images = open_dataset(data.name, data.validation, channels=data.channels, width=data.width)
    numbers = [number * len(images) // _SAMPLES for number in range(_SAMPLES)]
    chosen = [images[number] for number in dict.fromkeys(numbers)]
    side = min(128, *(min(image.shape[-2:]) for image in chosen)) // scale * scale
    crops = []
    for image in chosen:
        around = functional.avg_pool2d(image, 9, 1, 4, count_include_pad=False)
        structure = functional.avg_pool2d((image - around).abs(), side, max(side // 4, 1)).mean(0)
        rank = int(0.9 * (structure.numel() - 1))
        place = int(structure.flatten().argsort(stable=True)[rank])
        top, left = (max(side // 4, 1) * at for at in divmod(place, structure.shape[1]))
        crops.append(quantise(image[:, top : top + side, left : left + side]))
    return crops


def _side_by_side(images: list[Tensor], like: list[Tensor]) -> Tensor:
    """Return images (C, H, W) in a row, white lines between, with the contrast that suits ``like``.

    What shows the darkest and the brightest hundredth of an image of ``like`` becomes black and
    white.
    """
    row: list[Tensor] = []
    for image, model in zip(images, like, strict=True):
        low, high = model.quantile(0.01), model.quantile(0.99)
        row.append(((image - low) / (high - low).clamp(min=1e-3)).clamp(0, 1))
    return _with_lines(row, dim=-1)


def _with_lines(images: list[Tensor], dim: int) -> Tensor:
    """Join images along one dimension, a white line of two pixels between each two."""
    line = torch.ones_like(images[0].narrow(dim, 0, 2))
    return torch.cat([part for image in images for part in (image, line)][:-1], dim=dim)


def _checkpoints(folder: Path) -> list[Path]:
    """Return the run's checkpoints, oldest first."""
    return sorted((folder / "checkpoints").glob("[0-9]*-[0-9]*.safetensors"))


def _any_process(accelerator: Accelerator, here: bool) -> bool:
    """Return whether any process says yes."""
    if accelerator.num_processes == 1:
        return here
    flag = torch.tensor(float(here), device=accelerator.device)
    return bool(accelerator.reduce(flag, "sum") > 0)


def _by_main(accelerator: Accelerator, action: Callable[[], None]) -> None:
    """Let the main process act while the others wait; what fails there ends them, too."""
    failure = None
    if accelerator.is_main_process:
        try:
            action()
        except Exception as error:
            failure = error
    failed = _any_process(accelerator, failure is not None)
    if failure is not None:
        raise failure
    if failed:
        raise SRGANError("The main process has stopped; its message says why.")


@contextlib.contextmanager
def _claimed(folder: Path, recipe: Recipe, accelerator: Accelerator) -> Iterator[None]:
    """Make the run folder this run's own: one recipe, and one program at a time."""
    with contextlib.ExitStack() as held:
        _by_main(accelerator, lambda: _claim(folder, recipe, accelerator, held))
        yield


def _claim(
    folder: Path, recipe: Recipe, accelerator: Accelerator, held: contextlib.ExitStack
) -> None:
    """Lock the folder for as long as ``held`` is open, and write down what runs in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held.enter_context(locked(folder / ".lock"))
    except BlockingIOError as error:
        raise ConfigurationError(
            f"Another program is training into {folder}. Wait for it, or take another folder."
        ) from error
    except OSError as error:
        raise ConfigurationError(f"Can't train into {folder}: {error.strerror}.") from error
    path = folder / "recipe.yaml"
    begun = _checkpoints(folder) or (folder / "metrics.jsonl").exists()
    if begun and not path.exists():
        raise ConfigurationError(
            f"{folder} holds a run but no recipe.yaml. Train into another folder."
        )
    if begun:
        there = read_recipe(path)
        if there != recipe:
            raise ConfigurationError(
                f"{folder} holds a run of another recipe: {_difference(there, recipe)}. "
                "Train into another folder, or go back to that recipe."
            )
    else:  # a recipe that never came to a checkpoint may be mended
        write_atomically(path, write_recipe(recipe).encode())
    described = describe_hardware() | {
        "device": str(accelerator.device),
        "precision": accelerator.mixed_precision,
        "processes": accelerator.num_processes,
    }
    text = json.dumps(described, indent=2) + "\n"
    write_atomically(folder / "environment.json", text.encode())


def _difference(there: Recipe, here: Recipe) -> str:
    """Say where two recipes differ first."""

    def flat(part: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
        for name, value in part.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{name}.")
            else:
                yield prefix + name, value

    old, new = dict(flat(there.model_dump())), dict(flat(here.model_dump()))
    for name in {**old, **new}:
        if old.get(name) != new.get(name):
            return f"{name} is {old.get(name)!r} there and {new.get(name)!r} here"
    return "they differ"


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT while a run goes on, to be seen between two steps."""
    came: list[int] = []
    before = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(ValueError):  # only a main thread may handle signals
            before[number] = signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
