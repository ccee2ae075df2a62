"""Interrupt training in every way, go on, and compare the weights bit by bit.

    python tools/faults.py      # 50 kills and the rest, counted in results/reliability.json

Each function plays one kind of fault against a small run and raises an AssertionError unless the
run ends in the weights that it has when nothing disturbs it.
"""

import argparse
import contextlib
import errno
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import PIL.Image
import torch

from srgan_lib import files
from srgan_lib.checkpoints import load_state, save_state
from srgan_lib.errors import SRGANError, WeightsError
from srgan_lib.recipes import Recipe, check_recipe
from srgan_lib.runs import build_stage, make_accelerator, train

# Processes that are killed are forked from one that has imported all and computed nothing.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["srgan_lib.runs", "torch.utils.tensorboard"])

PAGE = 4096
WEIGHTS = ("generator.safetensors", "discriminator.safetensors")


def make_recipe(folder: Path, stage: str = "content", epochs: int = 2) -> Recipe:
    """Return a run of five steps an epoch on noise that is written to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(0)
    for number in range(10):
        values = chance.integers(0, 256, (48, 48), dtype=np.uint8)
        PIL.Image.fromarray(values).save(folder / f"{number}.png")
    content = {
        "stage": stage,
        "data": {"name": str(folder), "crop_size": 32, "variation": {}},
        "generator": {"blocks": 1, "width": 4, "end_kernel": 3},
        "epochs": epochs,
        "crops_per_epoch": 10,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "precision": "no",
    }
    if stage == "adversarial":
        content["generator"] |= {"noise": True}
        content["discriminator"] = {"network": "PatchDiscriminator", "width": 4}
        content["loss"] = {"network": "vgg16", "weights": "shipped", "layers": {"relu1_1": 1.0}}
        content["loss"] |= {"game": "paired"}
    return check_recipe(content)


def go(recipe: Recipe, folder: Path, every: float = 0) -> bool:
    """Train on one thread, with a checkpoint after each step: threads change the last bits."""
    torch.set_num_threads(1)
    return train(recipe, folder, checkpoint_every=every, device="cpu", progress=False)


def assert_same_weights(folder: Path, other: Path) -> None:
    for name in WEIGHTS:
        if (other / name).exists():
            assert (folder / name).read_bytes() == (other / name).read_bytes(), name


def _train_and_tell(recipe: Recipe, folder: Path, saving: object) -> None:
    """Train; count in ``saving`` each time that a file is about to be made whole."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        saving.value += 1
        time.sleep(0.01)  # so that a kill can find the file half-way
        real(descriptor)

    with mock.patch.object(files.os, "fsync", fsync):
        go(recipe, folder)


def kill_and_resume(
    recipe: Recipe, folder: Path, whole: Path, kills: int, seed: int | None = None
) -> dict[str, int]:
    """Kill a run with SIGKILL again and again, then let it finish.

    Every other kill comes while a file is being saved, the others at any moment after the process
    began. A run that finishes before all kills are done is begun anew.

    Returns:
        How many kills there were, and how many of them came while a file was being saved.
    """
    chance = random.Random(seed)
    killed = in_saves = runs = 0
    while killed < kills:
        saving = PROCESSES.Value("i", 0)
        process = PROCESSES.Process(target=_train_and_tell, args=(recipe, folder, saving))
        process.start()
        while_saving = killed % 2 == 0
        if while_saving:
            wanted = chance.randint(1, 12)
            while process.is_alive() and saving.value < wanted:
                time.sleep(0.001)
        else:
            end = time.monotonic() + 60
            while process.is_alive() and saving.value == 0 and time.monotonic() < end:
                time.sleep(0.001)
            process.join(chance.uniform(0, 1.0))
        process.kill()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            killed, in_saves = killed + 1, in_saves + while_saving
        else:
            assert process.exitcode == 0, f"the run failed with {process.exitcode}"
            assert_same_weights(folder, whole)
            shutil.rmtree(folder)
            runs += 1
    assert go(recipe, folder)
    assert_same_weights(folder, whole)
    shutil.rmtree(folder)
    return {"kills": killed, "while_saving": in_saves, "runs": runs + 1}


def fill_simulated_disk(recipe: Recipe, folder: Path, whole: Path, every: int = 1) -> int:
    """Let the disk be full at each write in turn; return how many times it was.

    Args:
        every: only each so many-th write.
    """
    real, faults = os.fsync, 0
    finished = False
    while not finished:
        left = every

        def fsync(descriptor: int) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(descriptor)

        try:
            with mock.patch.object(files.os, "fsync", fsync):
                finished = go(recipe, folder)
        except SRGANError as error:
            assert "no space is left on the disk" in str(error)
            assert not list(folder.rglob(".*.*")), "a temporary file stayed"
            faults += 1
            every += 1  # one write further than before, or it would fail at the same for ever
    assert_same_weights(folder, whole)
    shutil.rmtree(folder)
    return faults


@contextlib.contextmanager
def small_disk(size: int) -> Iterator[Path]:
    """Mount a file system of ``size`` bytes in memory.

    Raises:
        OSError: mounting isn't allowed, as without root.
    """
    folder = Path(tempfile.mkdtemp(prefix="disk-"))
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        if subprocess.run(command, capture_output=True, check=False).returncode:
            raise OSError(errno.EPERM, "file systems can't be mounted here")
        try:
            yield folder
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
    finally:
        folder.rmdir()


def fill_real_disk(recipe: Recipe, whole: Path, sizes: list[int]) -> int:
    """Train on disks of these sizes until they are full, enlarge them, and go on.

    Returns:
        How many disks were full.
    """
    faults = 0
    for size in sizes:
        with small_disk(size) as disk:
            try:
                assert go(recipe, disk / "run")
            except SRGANError as error:
                text = str(error)
                assert "space" in text, text
                faults += 1
                larger = ["mount", "-o", f"remount,size={size + 2**26}", str(disk)]
                subprocess.run(larger, check=True)
                assert go(recipe, disk / "run")
            assert_same_weights(disk / "run", whole)
    return faults


def cut_checkpoints(recipe: Recipe, folder: Path, whole: Path, step: int = PAGE) -> int:
    """Cut a run's newest checkpoint at each boundary, and let it go on; return how many."""
    for _ in range(7):  # steps: one epoch and some
        train(recipe, folder, time_budget=0, device="cpu", progress=False)
    newest = max((folder / "checkpoints").glob("0*.safetensors"))
    size, cuts = newest.stat().st_size, 0
    for boundary in range(0, size, step):
        copy = folder.with_name(f"{folder.name}-cut")
        shutil.copytree(folder, copy)
        os.truncate(copy / "checkpoints" / newest.name, boundary)
        with contextlib.redirect_stdout(None):
            assert go(recipe, copy)
        assert_same_weights(copy, whole)
        shutil.rmtree(copy)
        cuts += 1
    shutil.rmtree(folder)
    return cuts


def cut_large_checkpoint(folder: Path) -> int:
    """Cut a checkpoint of a generator of full size at each boundary; return how many."""
    recipe = check_recipe({"stage": "content", "crops_per_epoch": 16, "precision": "no"})
    stage = build_stage(recipe, make_accelerator("no", torch.device("cpu")))
    path = folder / "large.safetensors"
    save_state({"stage": stage.state_dict()}, path)
    load_state(path)
    cuts = 0
    for boundary in range((path.stat().st_size - 1) // PAGE * PAGE, -1, -PAGE):
        os.truncate(path, boundary)
        try:
            load_state(path)
        except WeightsError:
            cuts += 1
        else:
            raise AssertionError(f"a checkpoint cut at {boundary} bytes was taken for whole")
    return cuts


def main() -> None:
    """Play all faults, and write what was counted."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    kills = parser.parse_args().kills
    counted: dict[str, object] = {}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        recipes = {
            stage: make_recipe(root / "images", stage) for stage in ("content", "adversarial")
        }
        for stage, recipe in recipes.items():
            assert go(recipe, root / stage)
        counted["kills"] = {}
        for stage, recipe in recipes.items():
            share = kills // 2
            counted["kills"][stage] = kill_and_resume(recipe, root / "run", root / stage, share)
            print(stage, counted["kills"][stage], flush=True)
        recipe, whole = recipes["content"], root / "content"
        counted["simulated_full_disks"] = fill_simulated_disk(recipe, root / "run", whole)
        print(counted, flush=True)
        used = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file())
        sizes = [used * tenth // 10 for tenth in range(1, 11)]
        try:
            counted["real_full_disks"] = fill_real_disk(recipe, whole, sizes)
        except PermissionError as error:
            print(f"No real disk was filled: {error}")
            counted["real_full_disks"] = 0
        counted["cut_and_resumed"] = cut_checkpoints(recipe, root / "run", whole)
        counted["cut_and_refused"] = cut_large_checkpoint(root)
    counted["seconds"] = round(time.monotonic() - began)
    print(counted)
    from reliability import record

    record("interrupted", counted)


if __name__ == "__main__":
    main()
