"""Runs: interrupted or not, they end in the same bits; and what goes wrong is said."""

import errno
import json
import math
import multiprocessing
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nested import assert_equal
from PIL import Image
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from srgan_lib import crops, files, runs
from srgan_lib.architectures import SRResNet
from srgan_lib.checkpoints import load_state, load_weights, save_weights
from srgan_lib.crops import CropSampler, ImageFile, LoaderSampler
from srgan_lib.degradation import degrade, quantise
from srgan_lib.errors import ConfigurationError, DatasetError, ImageError, SRGANError, WeightsError
from srgan_lib.evaluation import super_resolve
from srgan_lib.images import read_image, write_image
from srgan_lib.recipes import check_recipe, read_recipe
from srgan_lib.runs import read_metrics, train
from srgan_lib.training import AdversarialStage, ContentStage

# Processes that are killed are forked from one that has imported all and computed nothing.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["srgan_lib.runs", "torch.utils.tensorboard"])

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 5  # an epoch
STAGES = ("content", "adversarial")


@pytest.fixture(scope="module")
def make(noise_images):
    """Return a tiny recipe; changes go by their path, joined by two underscores."""

    def recipe(stage="content", **changes):
        content = {
            "stage": stage,
            "data": {"name": str(noise_images), "crop_size": 16, "variation": {}, "smaller": [0.8]},
            "generator": {"blocks": 1, "width": 4, "end_kernel": 3},
            "epochs": 2,
            "crops_per_epoch": 2 * STEPS,
            "batch_size": 2,
            "learning_rate": 1e-3,
            "schedule": "cosine",
            "precision": "no",
        }
        if stage == "adversarial":
            content["data"]["crop_size"] = 32
            content["generator"] |= {"batch_norm": False, "noise": True}
            content["discriminator"] = {"network": "PatchDiscriminator", "width": 4}
            content["loss"] = {
                "network": "vgg16",
                "weights": "shipped",
                "layers": {"relu1_1": 0.5, "relu1_2": 1.0},
                "content": "ranked",
                "adversarial_weight": 0.1,
                "consistency_weight": 10.0,
                "perceptual_every": 2,
                "game": "paired",
            }
            content |= {"warm_up": 2, "betas": [0, 0.99], "penalty_weight": 0.01}
        for path, value in changes.items():
            *parts, name = path.split("__")
            place = content
            for part in parts:
                place = place[part]
            place[name] = value
        return check_recipe(content)

    return recipe


@pytest.fixture(scope="module")
def whole(make, tmp_path_factory):
    """Folders of runs that were never interrupted."""
    folders = {}
    for stage in STAGES:
        folders[stage] = tmp_path_factory.mktemp(stage)
        assert go(make(stage), folders[stage])
    return folders


@pytest.fixture
def begun(make, tmp_path):
    """The folder of a content run that stopped after seven steps, one of them in epoch two."""
    for _ in range(STEPS + 2):
        assert not go(make(), tmp_path / "run", time_budget=0)
    return tmp_path / "run"


def go(recipe, folder, **options):
    return train(recipe, folder, device="cpu", progress=False, **options)


def checkpoints(folder):
    names = [path.name for path in (folder / "checkpoints").iterdir()]
    return sorted(name.removesuffix(".safetensors") for name in names)


def metrics(folder):
    """Return the logged lines without what the clock says."""
    lines = read_metrics(folder)
    assert all(line.pop("seconds") >= 0 for line in lines)
    return lines


def assert_same_result(folder, other):
    weights = sorted(path.name for path in other.glob("*.safetensors"))
    assert "generator.safetensors" in weights
    for name in weights:
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name
    assert metrics(folder) == metrics(other)
    names = ["0002-000000", "best"]
    assert checkpoints(folder)[-2:] == names and len(checkpoints(folder)) == 3
    for name in names:
        states = [load_state(x / "checkpoints" / f"{name}.safetensors") for x in (folder, other)]
        assert all(state.pop("seconds") > 0 for state in states)
        assert_equal(*states)
    for path in (other / "samples").iterdir():
        assert (folder / "samples" / path.name).read_bytes() == path.read_bytes(), path.name


# What a run leaves behind


@pytest.mark.parametrize("stage", STAGES)
def test_finished_run_holds_all_that_the_module_promises(whole, make, stage):
    folder = whole[stage]
    names = {path.name for path in folder.iterdir() if path.name != ".lock"}
    expected = {"recipe.yaml", "environment.json", "checkpoints", "metrics.jsonl", "tensorboard"}
    expected |= {"samples", "generator.safetensors"}
    if stage == "adversarial":
        expected.add("discriminator.safetensors")
    assert names == expected
    assert read_recipe(folder / "recipe.yaml") == make(stage)
    assert checkpoints(folder) == ["0001-000000", "0002-000000", "best"]
    samples = {path.name for path in (folder / "samples").iterdir()}
    assert samples == {"hr.png", "bicubic.png", "epoch-001.png", "epoch-002.png"}
    sizes = {Image.open(path).size for path in (folder / "samples").iterdir()}
    assert sizes == {(48, 48)}  # one validation image
    environment = json.loads((folder / "environment.json").read_text())
    assert (environment["device"], environment["precision"]) == ("cpu", "no")
    assert environment["processes"] == 1


@pytest.mark.parametrize("stage", STAGES)
def test_metrics_have_a_line_for_each_epoch(whole, stage):
    lines = read_metrics(whole[stage])
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, STEPS), (2, 2 * STEPS)]
    losses = {"content"}
    if stage == "adversarial":
        losses |= {"total", "perceptual", "adversarial", "consistency", "penalty"}
        losses |= {"discriminator", "d_hr", "d_sr", "ranking", "spread"}
    for line in lines:
        assert set(line["losses"]) == losses
        assert all(math.isfinite(value) for value in line["losses"].values())
        signed = {"perceptual", "total"}  # products of two throws' errors can be below zero
        spread = {"ranking", "spread"}  # the gains start at zero
        assert all(line["losses"][name] > 0 for name in losses - signed - spread)
        assert {"psnr", "ssim", "feature_distance"} <= set(line["validation"])
    # half-way down the cosine, and at its end, with a warm-up and without
    rates = [line["learning_rate"] for line in lines]
    assert rates == pytest.approx([1e-3 * 0.505, 1e-3 * 0.01])


@pytest.fixture
def radiographs(tmp_path):
    """A folder of images that are dark but for one part each, where there is structure."""
    chance = torch.Generator().manual_seed(0)
    for number in range(20):
        image = torch.full((1, 200, 260), 0.1)
        image[:, 100:180, 150:240] += 0.05 * torch.rand(1, 80, 90, generator=chance)
        write_image(tmp_path / f"{number:02d}.png", quantise(image))
    return tmp_path


def test_sample_crops_have_structure_and_are_the_same_for_all_runs(make, radiographs):
    def samples(stage="content", **changes):
        return runs._sample_crops(make(stage, data__name=str(radiographs), **changes))

    crops = samples()
    assert [crop.shape for crop in crops] == [(1, 128, 128)] * 2  # there are two such images
    images = [runs._validation_crops(make(data__name=str(radiographs)))]
    assert len(images[0]) == 2
    for crop in crops:
        assert (crop > 0.105).float().mean() > 0.25  # a corner of an image has nothing
        assert torch.equal(crop, quantise(crop))
    others = [samples(seed=5), samples(generator__width=8, learning_rate=1e-4)]
    others.append(samples("adversarial"))
    for other in others:
        assert all(torch.equal(one, two) for one, two in zip(crops, other, strict=True))


def test_samples_are_drawn_at_full_contrast_and_by_the_contrast_of_hr(
    make, radiographs, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("run")
    recipe = make(data__name=str(radiographs), epochs=1, data__variation=None)
    assert go(recipe, folder)
    hr = read_image(folder / "samples" / "hr.png")
    assert hr.shape == (1, 128, 128 + 2 + 128)
    crop = runs._sample_crops(recipe)[0]
    low, high = np.quantile(crop.numpy(), [0.01, 0.99])
    expected = np.clip((crop.numpy() - low) / (high - low), 0, 1)
    assert np.abs(hr[..., :128].numpy() - expected).max() < 1 / 255
    assert hr[..., :128].min() == 0 and hr.max() == 1 and (hr[..., 128:130] == 1).all()
    generator = SRResNet(blocks=1, width=4, end_kernel=3)
    load_weights(generator, folder / "generator.safetensors")
    drawn = read_image(folder / "samples" / "epoch-001.png")[..., :128].numpy()
    sr = super_resolve(generator, degrade(crop)).numpy()
    off = np.abs(drawn - np.clip((sr - low) / (high - low), 0, 1))
    assert (off > 1 / 255).mean() < 0.01  # a grey level that was rounded the other way


def test_drawing_and_measuring_draw_no_random_numbers_of_the_run(make, tmp_path, monkeypatch):
    """Only the main process measures; it must not get ahead of the others, which draw with it."""
    states = []
    real = runs._Run._validate

    def validate(run):
        states.append(torch.get_rng_state())
        found = real(run)
        states.append(torch.get_rng_state())
        return found

    monkeypatch.setattr(runs._Run, "_validate", validate)
    assert go(make("adversarial"), tmp_path)
    assert len(states) == 4
    assert torch.equal(states[0], states[1]) and torch.equal(states[2], states[3])
    assert not torch.equal(states[1], states[2])  # the steps between did


def test_stage_two_with_dice_starts_from_a_stage_one_without(make, tmp_path):
    form = {"blocks": 1, "width": 4, "batch_norm": False, "end_kernel": 3}
    made = SRResNet(**form)
    save_weights(made, tmp_path / "w.safetensors")
    built = runs.build_generator(make("adversarial", start_from=str(tmp_path / "w.safetensors")))
    assert built.arguments["noise"] and built.noise_channels == 21
    lr = torch.rand(1, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(built(lr), made(lr))


def test_saved_generator_is_the_average_and_loads(whole):
    generator = SRResNet(blocks=1, width=4, end_kernel=3)
    load_weights(generator, whole["content"] / "generator.safetensors")
    state = load_state(whole["content"] / "checkpoints" / "0002-000000.safetensors")["stage"]
    for name, value in generator.state_dict().items():
        assert torch.equal(value, state["average"]["network"][name])
    trained = state["generator"]["network"]
    assert any(not torch.equal(v, trained[n]) for n, v in generator.state_dict().items())


def test_logged_losses_are_the_means_of_the_steps(make, tmp_path, monkeypatch):
    seen = []
    real = ContentStage.step

    def spy(stage, lr, hr):
        seen.append(real(stage, lr, hr))
        return seen[-1]

    monkeypatch.setattr(ContentStage, "step", spy)
    go(make(), tmp_path)
    values = [losses["content"].item() for losses in seen]
    found = [line["losses"]["content"] for line in read_metrics(tmp_path)]
    expected = [np.mean(values[:STEPS]), np.mean(values[STEPS:])]
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("stage", "measure", "sign"), [("content", "psnr", 1), ("adversarial", "feature_distance", -1)]
)
def test_best_is_the_epoch_with_the_best_score(make, tmp_path, monkeypatch, stage, measure, sign):
    real = runs._Run._validate
    scores = iter([2.0, 3.0, 1.0])

    def validate(run):
        return real(run) | {measure: sign * next(scores)}

    monkeypatch.setattr(runs._Run, "_validate", validate)
    while not go(make(stage, epochs=3), tmp_path, time_budget=0):
        pass  # interrupted or not, it remembers what the best was
    assert load_state(tmp_path / "checkpoints" / "best.safetensors")["epoch"] == 2


def test_run_that_is_finished_stays_as_it_is(whole, make, tmp_path):
    folder = shutil.copytree(whole["content"], tmp_path / "run")
    assert go(make(), folder)
    assert_same_result(folder, whole["content"])


# Interrupted equals uninterrupted


@pytest.mark.parametrize("stage", STAGES)
def test_run_that_stops_after_each_step_ends_in_the_same_bits(whole, make, tmp_path, stage):
    calls = 1
    while not go(make(stage), tmp_path, time_budget=0):
        epoch, step = divmod(calls, STEPS)
        assert f"{epoch:04d}-{step:06d}" in checkpoints(tmp_path)
        calls += 1
    assert calls == 2 * STEPS
    assert_same_result(tmp_path, whole[stage])


def work(recipe, folder, checkpoint_every, pause):
    """Train slowly in a process of its own; write down after how many steps it was stopped."""
    torch.set_num_threads(1)
    steps = []
    for stage in (ContentStage, AdversarialStage):
        real = stage.step

        def slow(self, lr, hr, real=real):
            time.sleep(pause)
            steps.append(1)
            (folder / "steps").write_text(str(len(steps)))
            return real(self, lr, hr)

        stage.step = slow
    try:
        go(recipe, folder, checkpoint_every=checkpoint_every)
    except KeyboardInterrupt as interrupt:
        (folder / "interrupted").write_text(f"{len(steps)} {interrupt}")


def start(*arguments):
    process = PROCESSES.Process(target=work, args=arguments)
    process.start()
    return process


def wait_for(path, process):
    end = time.monotonic() + 60
    while not path.exists():
        assert process.is_alive() and time.monotonic() < end, f"no {path}"
        time.sleep(0.005)


@pytest.mark.parametrize("stage", STAGES)
def test_run_that_is_killed_at_any_moment_ends_in_the_same_bits(whole, make, tmp_path, stage):
    recipe = make(stage)
    for _ in range(3):
        (tmp_path / "steps").unlink(missing_ok=True)
        process = start(recipe, tmp_path, 0, 0.02)
        wait_for(tmp_path / "steps", process)
        time.sleep(random.uniform(0, 0.15))
        process.kill()
        process.join()
        assert process.exitcode in (-signal.SIGKILL, 0)
    assert go(recipe, tmp_path)
    assert_same_result(tmp_path, whole[stage])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_the_very_step_before_it_ends_the_run(whole, make, tmp_path, number):
    process = start(make(), tmp_path, 3600, 0.1)
    wait_for(tmp_path / "steps", process)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == 0
    steps, words = (tmp_path / "interrupted").read_text().split(maxsplit=1)
    assert words == f"stopped by signal {number.value}, after saving"
    assert 1 <= int(steps) < STEPS
    assert checkpoints(tmp_path) == [f"0000-{int(steps):06d}"]
    assert go(make(), tmp_path)
    assert_same_result(tmp_path, whole["content"])


@pytest.mark.parametrize("moment", [1, 2])
def test_signal_between_the_look_for_one_and_the_save_is_not_lost(
    make, tmp_path, monkeypatch, moment
):
    """What is asked first is whether to stop, then whether it is time for a checkpoint."""
    asked = []

    def agree(run, here):
        asked.append(here)
        if len(asked) == moment:
            signal.raise_signal(signal.SIGTERM)
        return here

    monkeypatch.setattr(runs._Run, "_agree", agree)
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="after saving"):
        go(make(), tmp_path)
    assert checkpoints(tmp_path) == ["0000-000002"]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_ctrl_c_in_a_notebook_saves_and_is_raised(whole, make, tmp_path, monkeypatch):
    real = ContentStage.step

    def step(stage, lr, hr):
        signal.raise_signal(signal.SIGINT)
        return real(stage, lr, hr)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="after saving"):
        patch.setattr(ContentStage, "step", step)
        go(make(), tmp_path)
    assert checkpoints(tmp_path) == ["0000-000001"]
    assert go(make(), tmp_path)
    assert_same_result(tmp_path, whole["content"])


def test_two_newest_checkpoints_and_the_best_are_kept(whole, make, begun):
    assert checkpoints(begun) == ["0001-000001", "0001-000002", "best"]
    assert go(make(), begun, checkpoint_every=0)
    assert_same_result(begun, whole["content"])


def test_checkpoints_come_by_the_clock(make, tmp_path, monkeypatch):
    saved = []
    real = runs._Run._save

    def save(run):
        saved.append((run.epoch, run.step_in_epoch))
        real(run)

    monkeypatch.setattr(runs._Run, "_save", save)
    go(make(), tmp_path / "never", checkpoint_every=math.inf)
    assert saved == [(1, 0), (2, 0)]
    saved.clear()
    go(make(), tmp_path / "always", checkpoint_every=0)
    assert len(saved) == 2 * STEPS


def test_time_budget_counts_from_each_start(make, tmp_path, monkeypatch):
    clock = iter(range(0, 10**6, 10))  # ten seconds pass each time that somebody looks
    monkeypatch.setattr(runs, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    assert not go(make(), tmp_path, time_budget=25)
    assert checkpoints(tmp_path) == ["0000-000003"]
    assert not go(make(), tmp_path, time_budget=25)  # three steps more, one of them in epoch two
    assert checkpoints(tmp_path) == ["0001-000000", "0001-000001", "best"]


def test_what_a_killed_process_left_half_written_is_removed(make, begun):
    (begun / "checkpoints" / ".0001-000003.safetensors.a1b2c3").write_bytes(b"half")
    assert go(make(), begun)
    assert not list((begun / "checkpoints").glob(".*"))


# Images that don't fit into memory


@pytest.fixture
def no_memory(monkeypatch):
    monkeypatch.setattr(crops, "MEMORY_SHARE", 0)


def test_run_whose_images_stay_in_files_ends_in_the_same_bits(whole, make, tmp_path, no_memory):
    for _ in range(3):  # interrupted after a step, when workers have loaded ahead
        assert not go(make(), tmp_path, time_budget=0)
    assert checkpoints(tmp_path) == ["0000-000002", "0000-000003"]
    assert go(make(), tmp_path)
    assert_same_result(tmp_path, whole["content"])
    assert not multiprocessing.active_children()


def test_run_may_go_on_with_more_or_less_memory(whole, make, tmp_path, monkeypatch):
    for share in (0, 0.25, 0):
        monkeypatch.setattr(crops, "MEMORY_SHARE", share)
        assert not go(make(), tmp_path, time_budget=0)
    assert go(make(), tmp_path)
    assert_same_result(tmp_path, whole["content"])


@pytest.mark.parametrize(
    ("device", "host", "gpu", "kind", "said"),
    [
        ("cpu", 1e9, 0, CropSampler, ""),
        ("cuda", 1e9, 1e9, CropSampler, ""),
        ("cuda", 1e9, 1e3, LoaderSampler, r"memory of the GPU .* stay in the host's memory\.$"),
        ("cuda", 1e3, 1e9, LoaderSampler, r"memory of the host .* stay in their files\.$"),
        ("cuda", 1e3, 1e3, LoaderSampler, r"memory of the host .* stay in their files\.$"),
        ("cpu", 1e3, 0, LoaderSampler, r"memory of the host .* stay in their files\.$"),
    ],
)
def test_memory_decides_where_the_images_stay_and_the_run_says_so(
    make, monkeypatch, capsys, device, host, gpu, kind, said
):
    memory = {"cpu": host, "cuda": gpu}
    monkeypatch.setattr(crops, "device_memory", lambda device: memory[torch.device(device).type])
    monkeypatch.setattr(CropSampler, "_keep", lambda sampler, images: None)  # there is no GPU
    sampler = runs.build_sampler(make(), torch.device(device), progress=True)
    assert type(sampler) is kind and sampler.device.type == device
    out = capsys.readouterr().out.strip()
    assert re.search(said, out) if said else not out
    if kind is LoaderSampler:
        in_files = {isinstance(image, ImageFile) for image in sampler._cutter.images}
        assert in_files == {host == 1e3}
        runs.build_sampler(make(), torch.device(device))
        assert capsys.readouterr().out == ""


def test_file_that_vanishes_ends_the_run_and_is_named(make, noise_images, tmp_path, no_memory):
    copy = shutil.copytree(noise_images, tmp_path / "images")
    real, steps = ContentStage.step, []

    def step(stage, lr, hr):
        steps.append(1)
        for path in copy.glob("*.png"):
            path.unlink()
        return real(stage, lr, hr)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ContentStage, "step", step)
        with pytest.raises(ImageError, match=r"Could not read .*images/\d\.png: No such file"):
            go(make(data__name=str(copy), epochs=50), tmp_path / "run")
    assert len(steps) < 100
    assert not multiprocessing.active_children()


def work_in_a_group(recipe, folder):
    """Train from files that are read slowly; tell when the run waits for its fourth batch."""
    os.setpgrp()
    multiprocessing.set_start_method("fork", force=True)  # for workers, too, as in any program
    crops.MEMORY_SHARE = 0
    read, batches, following = ImageFile.read, iter(range(1, 100)), LoaderSampler._next

    def read_slowly(file):
        time.sleep(0.5)
        return read(file)

    def tell(sampler):
        if next(batches) == 4:
            (folder / "waits").touch()
        return following(sampler)

    ImageFile.read, LoaderSampler._next = read_slowly, tell
    work(recipe, folder, 3600, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_all_processes_of_a_run_still_saves(whole, make, tmp_path, number):
    """Ctrl-C in a terminal goes to workers, too; they must not die before the run has saved."""
    process = PROCESSES.Process(target=work_in_a_group, args=(make(), tmp_path))
    process.start()
    wait_for(tmp_path / "waits", process)
    os.killpg(process.pid, number)
    process.join(60)
    assert process.exitcode == 0
    assert f"stopped by signal {number.value}" in (tmp_path / "interrupted").read_text()
    assert go(make(), tmp_path)
    assert_same_result(tmp_path, whole["content"])


# Damage


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    path.write_bytes(data)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut_short, flip_a_byte, empty])
def test_damaged_checkpoint_is_said_and_the_one_before_is_used(
    whole, make, begun, capsys, monkeypatch, damage
):
    damage(begun / "checkpoints" / "0001-000002.safetensors")
    went_on_from = []
    real = runs._Run.go
    monkeypatch.setattr(
        runs._Run, "go", lambda run, *a: (went_on_from.append(run.step_in_epoch), real(run, *a))[1]
    )
    # It stops twice: the damaged file must not count among the newest two.
    assert not go(make(), begun, time_budget=0)
    said = capsys.readouterr().out
    assert "0001-000002.safetensors is no whole training state" in said
    assert "The checkpoint before it is used instead." in said
    assert not go(make(), begun, time_budget=0)
    names = [name for name in checkpoints(begun) if "damaged" not in name]
    assert names == ["0001-000002", "0001-000003", "best"]
    assert go(make(), begun)
    assert went_on_from == [1, 2, 3]
    assert capsys.readouterr().out == ""
    (begun / "checkpoints" / "0001-000002.damaged").unlink()
    assert_same_result(begun, whole["content"])


def test_without_a_whole_checkpoint_nothing_is_started_anew(make, begun):
    for path in (begun / "checkpoints").iterdir():
        cut_short(path)
    logged = (begun / "metrics.jsonl").read_bytes()
    with pytest.raises(WeightsError, match=r"No checkpoint in .* is whole\. Delete the folder"):
        go(make(), begun)
    assert (begun / "metrics.jsonl").read_bytes() == logged
    assert checkpoints(begun) == ["0001-000001", "0001-000002", "best"]


def test_epochs_after_the_checkpoint_are_forgotten(whole, make, tmp_path):
    folder = shutil.copytree(whole["content"], tmp_path / "run")
    (folder / "checkpoints" / "0002-000000.safetensors").unlink()
    assert not go(make(), folder, time_budget=0)
    assert [line["epoch"] for line in read_metrics(folder)] == [1]


def test_metrics_that_can_not_be_read_are_named(make, begun):
    (begun / "metrics.jsonl").write_text('{"epoch": 1')
    with pytest.raises(SRGANError, match=r"metrics\.jsonl is damaged"):
        go(make(), begun)
    (begun / "metrics.jsonl").unlink()
    with pytest.raises(SRGANError, match=r"Could not read .*metrics\.jsonl: No such file"):
        read_metrics(begun)


@pytest.mark.parametrize("what", ["0001-000003", "metrics", "generator", "epoch-002"])
def test_full_disk_leaves_the_last_checkpoint_and_the_run_goes_on(
    whole, make, begun, monkeypatch, what
):
    real = os.fsync

    def full(descriptor):
        if what in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    before = checkpoints(begun)
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(SRGANError, match=f"Could not write .*{what}.*no space is left"):
            go(make(), begun, checkpoint_every=0 if what == "0001-000003" else math.inf)
    assert checkpoints(begun)[:2] == before[:2]
    assert not list(begun.rglob(".*.*"))  # no temporary file
    load_state(begun / "checkpoints" / "0001-000002.safetensors")
    assert go(make(), begun)
    assert_same_result(begun, whole["content"])


def test_full_disk_for_tensorboard_is_an_error_of_this_library(make, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.flush", full)
    with pytest.raises(SRGANError, match=r"Could not write to .*tensorboard: No space left"):
        go(make(), tmp_path)


# TensorBoard


def test_events_say_what_the_metrics_say_each_epoch_once(make, tmp_path):
    recipe = make("adversarial", epochs=3)
    assert go(recipe, tmp_path)
    # back to epoch one, as if the process had been killed before it saved epochs two and three
    for path in (tmp_path / "checkpoints").glob("000[23]*"):
        path.unlink()
    state = tmp_path / "checkpoints" / "0001-000000.safetensors"
    if not state.exists():
        other = tmp_path / "other"
        while not (other / "checkpoints" / state.name).exists():
            go(recipe, other, time_budget=0)
        shutil.copy(other / "checkpoints" / state.name, state)
    time.sleep(1.1)  # files of events are sorted by the second they were begun in
    assert go(recipe, tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    lines = read_metrics(tmp_path)
    tags = {f"{part}/{name}" for part in ("losses", "validation") for name in lines[0][part]}
    assert set(events.Tags()["scalars"]) == tags | {"learning_rate"}
    for tag in events.Tags()["scalars"]:
        part, _, name = tag.partition("/")
        expected = [line[part][name] if name else line[part] for line in lines]
        assert [event.step for event in events.Scalars(tag)] == [1, 2, 3], tag
        values = [event.value for event in events.Scalars(tag)]
        assert values == pytest.approx(expected, rel=1e-6), tag


# Refusals


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"learning_rate": 5e-4}, r"learning_rate is 0\.001 there and 0\.0005 here"),
        ({"data__flips": False}, r"data\.flips is True there and False here"),
        ({"data__variation": None}, r"data\.variation"),
        ({"generator__width": 8}, r"generator\.width is 4 there and 8 here"),
    ],
)
def test_folder_of_another_recipe_is_refused_by_the_key_that_differs(make, begun, change, words):
    before = checkpoints(begun)
    with pytest.raises(ConfigurationError, match=f"holds a run of another recipe: {words}"):
        go(make(**change), begun)
    assert checkpoints(begun) == before
    assert read_recipe(begun / "recipe.yaml") == make()


def test_checkpoints_of_an_unknown_recipe_are_refused(make, begun):
    (begun / "recipe.yaml").unlink()
    with pytest.raises(ConfigurationError, match=r"holds a run but no recipe\.yaml"):
        go(make(), begun)


def test_recipe_that_failed_before_any_checkpoint_can_be_mended(make, tmp_path):
    with pytest.raises(DatasetError):
        go(make(data__name="sample"), tmp_path)
    assert not go(make(), tmp_path, time_budget=0)
    assert read_recipe(tmp_path / "recipe.yaml") == make()


def test_folder_that_another_program_trains_into_is_refused(make, tmp_path):
    process = start(make(), tmp_path, 3600, 0.2)
    wait_for(tmp_path / "steps", process)
    with pytest.raises(ConfigurationError, match="Another program is training into"):
        go(make(), tmp_path)
    process.kill()
    process.join()
    assert not go(make(), tmp_path, time_budget=0)  # the lock went with the process


def test_folder_that_is_a_file_is_refused(make, tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ConfigurationError, match=r"Can't train into .*run: File exists"):
        go(make(), tmp_path / "run")


def test_empty_validation_set_is_found_before_any_training(make, tmp_path, monkeypatch):
    monkeypatch.setattr(ContentStage, "step", lambda *_: pytest.fail("trained"))
    with pytest.raises(DatasetError, match="The 'validation' part of 'sample' holds no image"):
        go(make(data__name="sample"), tmp_path)


def test_images_all_smaller_than_a_crop_are_refused(make, tmp_path):
    with pytest.raises(ImageError, match=r"no image .*96"):
        go(make(data__crop_size=96), tmp_path)


def test_float16_is_refused_on_a_cpu_before_the_folder_is_made(make, tmp_path):
    with pytest.raises(ConfigurationError, match="float16 needs a CUDA GPU"):
        go(make(precision="fp16"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "other", [{"channels": 3}, {"scale": 2}, {"width": 8}, {"bicubic_skip": True}]
)
def test_start_from_weights_of_another_generator_is_refused(make, tmp_path, other):
    made = SRResNet(**({"blocks": 1, "width": 4, "end_kernel": 3} | other))
    save_weights(made, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"w\.safetensors"):
        go(make(start_from=str(tmp_path / "w.safetensors")), tmp_path / "run")


def test_start_from_takes_the_weights(make, tmp_path):
    made = SRResNet(blocks=1, width=4, end_kernel=3)
    save_weights(made, tmp_path / "w.safetensors")
    built = runs.build_generator(make(start_from=str(tmp_path / "w.safetensors")))
    for name, value in made.state_dict().items():
        assert torch.equal(value, built.state_dict()[name])


def test_batch_that_processes_can_not_share_is_refused(make, tmp_path):
    class Three:
        num_processes, process_index, is_main_process = 3, 0, True

    with pytest.raises(ConfigurationError, match=r"batch_size \(2\) must be a multiple of .*\(3\)"):
        runs._Run(make(), tmp_path, Three(), False)


# Training that comes to nothing


def change_losses(monkeypatch, stage, change):
    real = stage.step
    count = iter(range(1, 10_000))
    monkeypatch.setattr(
        stage, "step", lambda *arguments: change(next(count), real(*arguments)) or {}
    )


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("checkpoint_every", [0, math.inf])
def test_loss_that_is_not_finite_ends_the_run_with_advice_and_is_never_saved(
    make, tmp_path, monkeypatch, value, checkpoint_every
):
    def broken(number, losses):
        return {name: loss * (value if number == 7 else 1) for name, loss in losses.items()}

    change_losses(monkeypatch, ContentStage, broken)
    with pytest.raises(SRGANError) as caught:
        go(make(), tmp_path, checkpoint_every=checkpoint_every)
    words = str(caught.value)
    assert "The content loss is no longer finite in epoch 2, by step " in words
    assert "Lower learning_rate" in words
    for path in (tmp_path / "checkpoints").iterdir():
        assert math.isfinite(sum(map(float, load_state(path)["sums"].values())))


def test_weights_that_are_not_finite_are_never_saved(make, tmp_path, monkeypatch):
    real = ContentStage.step

    def step(stage, lr, hr):
        losses = real(stage, lr, hr)
        with torch.no_grad():
            stage.generator.plain.last.bias.fill_(math.nan)
        return losses

    monkeypatch.setattr(ContentStage, "step", step)
    with pytest.raises(SRGANError, match="The SRResNet's weights are no longer finite"):
        go(make(), tmp_path, checkpoint_every=0)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("ranking", [0.985, 0.995])
def test_discriminator_that_ranks_nearly_all_right_is_named_after_the_epoch(
    make, tmp_path, monkeypatch, capsys, ranking
):
    """It warns, and doesn't end the run: the mean over the epoch counts, not one step."""

    def change(number, losses):
        return losses | {"ranking": torch.tensor(ranking if number > STEPS else 0.5)}

    change_losses(monkeypatch, AdversarialStage, change)
    assert go(make("adversarial"), tmp_path)
    said = capsys.readouterr().out
    if ranking < 0.99:
        assert said == ""
    else:
        assert said.count("discriminator ranked") == 1
        assert said.startswith("Epoch 2: the discriminator ranked 99.5% of places right.")
        for remedy in ("discriminator_learning_rate", "discriminator.width", "penalty_weight"):
            assert remedy in said


@pytest.mark.parametrize("where", ["step", "start"])
def test_gpu_out_of_memory_names_half_the_batch(make, tmp_path, monkeypatch, where):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    if where == "step":
        monkeypatch.setattr(ContentStage, "step", full)
    else:
        monkeypatch.setattr(runs, "build_sampler", full)
    with pytest.raises(SRGANError, match=r"with batch_size 10\. Try batch_size: 5 in the recipe"):
        go(make(batch_size=10), tmp_path)


def test_progress_is_shown_only_if_wanted(make, tmp_path, capsys):
    go(make(), tmp_path / "quiet", time_budget=0)
    assert capsys.readouterr() == ("", "")
    train(make(), tmp_path / "loud", device="cpu", time_budget=0)
    assert "stage one" in capsys.readouterr().err


def test_weights_know_what_they_are_for(whole):
    for name in ("generator", "discriminator"):
        with safe_open(whole["adversarial"] / f"{name}.safetensors", framework="pt") as file:
            network = file.metadata()["network"]
        assert network == {"generator": "SRResNet", "discriminator": "PatchDiscriminator"}[name]


def test_path_may_be_a_string(make, tmp_path):
    assert not go(make(), str(tmp_path), time_budget=0)
    assert Path(tmp_path / "recipe.yaml").exists()
