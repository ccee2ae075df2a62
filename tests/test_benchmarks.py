"""The benchmarks: fair turns, equal work, and a page that shows what was measured."""

import copy
import itertools
import json
import os
from statistics import median

import common
import crops
import numpy as np
import page
import public_style
import pytest
import torch
import training_step
import upscaling

from srgan_lib.architectures import Discriminator, SRResNet, VGGFeatures
from srgan_lib.degradation import degrade
from srgan_lib.hardware import make_accelerator
from srgan_lib.images import read_image
from srgan_lib.losses import GeneratorLoss
from srgan_lib.tiling import upscale_tiled
from srgan_lib.training import AdversarialStage, ContentStage

CPU = torch.device("cpu")
SCRIPTS = {"training_step": training_step, "crops": crops, "upscaling": upscaling}


# Time


class Clock:
    """A clock that only work moves on, and a diary of the work."""

    def __init__(self):
        self.now, self.diary = 0.0, []

    def side(self, name, seconds):
        """Return a side whose unit number n of all its turns takes ``seconds[n]``."""
        seconds = iter(seconds)

        def side():
            self.now += 1000
            self.diary.append(f"set up {name}")
            yield
            try:
                while True:
                    self.now += next(seconds)
                    self.diary.append(name)
                    yield
            finally:
                self.diary.append(f"close {name}")

        return side


def test_sides_take_turns_and_close_before_the_next():
    clock = Clock()
    sides = {name: clock.side(name, itertools.repeat(1)) for name in ("a", "b")}
    common.interleave(sides, rounds=2, warm=1, units=2, clock=lambda: clock.now)
    turns = [[f"set up {name}", name, name, name, f"close {name}"] for name in ("a", "b")]
    assert clock.diary == 3 * (turns[0] + turns[1])


def test_only_units_after_the_warm_ones_and_after_the_first_round_are_timed():
    clock = Clock()
    # Three units a round: one to warm up, two that are timed.
    sides = {
        "a": clock.side("a", [500, 500, 500, 70, 1, 3, 70, 4, 6]),
        "b": clock.side("b", [900, 900, 900, 80, 10, 10, 80, 20, 40]),
    }
    seconds = common.interleave(sides, rounds=2, warm=1, units=2, clock=lambda: clock.now)
    assert seconds == {"a": [2, 5], "b": [10, 30]}


def test_the_device_is_waited_for_before_each_look_at_the_clock():
    events = []
    common.interleave(
        {"a": lambda: (events.append("unit") for _ in itertools.count())},
        rounds=1,
        units=2,
        synchronise=lambda: events.append("wait"),
        clock=lambda: events.append("look") or 0.0,
    )
    turn = ["unit", "unit", "wait", "look", "unit", "unit", "wait", "look"]
    assert events == 2 * turn


def trial(ours, other, **more):
    sides = {"ours": {"seconds": ours}, "theirs": {"seconds": other}}
    return {"what": "work", "crops": None, "remarks": [], "sides": sides, **more}


def test_ratio_is_that_of_the_medians():
    assert common.ratio(trial([1, 2, 90], [6, 5, 7]), "theirs") == 3


def test_table_shows_times_or_rates_and_memory():
    slow = trial([0.25], [1.5])
    slow["sides"]["ours"]["peak"] = 3 * 2**29
    fast = trial([0.001], [0.1], crops=16)
    table = common.table({"trials": [slow, fast]}).replace(common.NBSP, " ")
    assert table.splitlines()[2:] == [
        "| work | theirs | 250 ms | 1.5 s | 6 | 1.50 GiB | – |",
        "| work | theirs | 16,000 crops/s | 160 crops/s | 100 | – | – |",
    ]


# Memory

BALLAST = 2**28
HOLD = f"""
from common import Trial, main

def prepare(setting):
    pass

def hold():
    ballast = b"x" * {BALLAST}
    while True:
        yield

def trials(setting):
    return [Trial("hold", hold, {{}})]

main(__file__, prepare, trials)
"""


def test_memory_of_a_side_is_its_own(tmp_path, monkeypatch):
    if not os.path.exists("/proc/self/status"):
        pytest.skip("Linux tells the peak of one process")
    script = tmp_path / "hold.py"
    script.write_text(HOLD, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(common.__file__))
    ours = b"x" * (4 * BALLAST)  # what the measuring process holds must not count
    memory = common.measure_alone(str(script), common.Setting(tmp_path, CPU), "hold", "ours")
    del ours
    assert 0 < memory["floor"] < common.peak_memory(CPU)
    assert memory["peak"] - memory["floor"] == pytest.approx(BALLAST, rel=0.1)


# The scripts


@pytest.mark.parametrize("name", SCRIPTS)
def test_quick_run(name, tmp_path, capsys):
    script, out = SCRIPTS[name], tmp_path / "out.json"
    out.write_text(json.dumps({"another": {}, name: {"cuda": "kept"}}), encoding="utf-8")
    options = ["--quick", "--rounds", "1", "--device", "cpu", "--out", str(out), "--note", "N."]
    common.main(script.__file__, script.prepare, script.trials, options)
    results = common.read_results(out)
    assert results["another"] == {} and results[name]["cuda"] == "kept"
    measured = results[name]["cpu"]
    assert (
        measured["note"] == f"{common.QUICK_NOTE} N."
        and measured["machine"]["torch"] == torch.__version__
    )

    rows = [line.strip("| ").split(" | ") for line in common.table(measured).splitlines()[2:]]
    sides = [
        (trial, name, side)
        for trial in measured["trials"]
        for name, side in trial["sides"].items()
        if name != "ours"
    ]
    assert len(rows) == len(sides) >= 1
    for row, (trial, name, side) in zip(rows, sides, strict=True):
        assert row[:2] == [trial["what"], name]
        ours = median(trial["sides"]["ours"]["seconds"])
        assert float(row[4]) == pytest.approx(median(side["seconds"]) / ours, rel=0.01)
    assert common.table(measured) in capsys.readouterr().out


def test_a_side_can_be_run_alone(tmp_path, capsys):
    setting = common.Setting(tmp_path, CPU, quick=True)
    crops.prepare(setting)
    (only,) = crops.trials(setting)
    for name in only.sides:
        options = ["--alone", only.what, name, "--folder", str(tmp_path), "--device", "cpu"]
        common.main(crops.__file__, crops.prepare, crops.trials, [*options, "--quick"])
        memory = json.loads(capsys.readouterr().out)
        assert memory["floor"] <= memory["peak"]


def test_trials_are_told_apart_by_their_names(tmp_path):
    for script in SCRIPTS.values():
        trials = script.trials(common.Setting(tmp_path, CPU))
        names = [trial.what for trial in trials]
        assert len(set(names)) == len(names)
        assert all(next(iter(trial.sides)) == "ours" for trial in trials)


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_onnxruntime_is_left_out_in_a_sentence(missing, tmp_path, monkeypatch):
    monkeypatch.setattr(upscaling, "find_spec", lambda name: None if name == missing else name)
    (only,) = upscaling.trials(common.Setting(tmp_path, CPU))
    assert len(only.others) == 1
    assert only.remarks == [f"onnxruntime was left out: {missing} is missing (the extra `onnx`)."]


# Equal work


@pytest.fixture
def batch(tmp_path):
    common.write_images(tmp_path, 2)
    return next(public_style.batches(common.image_files(tmp_path), 32, 4, CPU))


def networks():
    """Return small networks in which every weight has an influence."""
    torch.manual_seed(0)
    generator = SRResNet(blocks=2, width=8, batch_norm=False, bicubic_skip=True, end_kernel=3)
    torch.nn.init.normal_(generator.last.weight, std=0.05)
    return generator, Discriminator(width=4, grid=1), VGGFeatures("relu2_2")


def compare(ours, public, batch):
    """Hold the losses of three steps against each other: each depends on the updates before."""
    for _ in range(3):
        losses = {name: float(value) for name, value in ours.step(*batch).items()}
        expected = public.step(*batch)
        assert {name: losses[name] for name in expected} == pytest.approx(expected, rel=1e-4)


def test_stage_one_is_equal_work(batch):
    generator, *_ = networks()
    public = public_style.ContentTraining(public_style.contiguous(copy.deepcopy(generator)))
    compare(ContentStage(generator, accelerator=make_accelerator("no", CPU)), public, batch)


@pytest.mark.parametrize("run_anew", [True, False])
def test_stage_two_is_equal_work(batch, run_anew):
    generator, discriminator, features = networks()
    weights = {"content_weight": 1.0, "perceptual_weight": 0.1, "adversarial_weight": 0.1}
    public = public_style.AdversarialTraining(
        public_style.contiguous(copy.deepcopy(generator)),
        copy.deepcopy(discriminator),
        features,
        weights,
        run_anew,
    )
    loss = GeneratorLoss(features, **weights)
    accelerator = make_accelerator("no", CPU)
    compare(
        AdversarialStage(generator, discriminator, loss, accelerator=accelerator), public, batch
    )


def test_crops_are_the_same_kind_of_crops(batch):
    lr, hr = batch
    assert lr.shape == (4, 1, 8, 8) and hr.shape == (4, 1, 32, 32)
    assert lr.dtype == hr.dtype == torch.float32
    assert (lr - degrade(hr)).abs().max() < 1.01 / 255  # Pillow rounds after each axis


def test_contiguous_form_keeps_the_result_and_nothing_channels_last():
    generator, *_ = networks()
    seen = []
    plain = public_style.contiguous(copy.deepcopy(generator))
    plain.last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    lr = torch.rand(2, 1, 9, 7)
    with torch.no_grad():
        torch.testing.assert_close(plain(lr), generator(lr))
    assert seen[0].is_contiguous()


def test_all_ways_to_enlarge_give_the_same_image(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    generator = networks()[0].eval()
    monkeypatch.setattr(upscaling, "network", lambda setting: copy.deepcopy(generator))
    setting = common.Setting(tmp_path, CPU, quick=True)
    upscaling.prepare(setting)
    lr = read_image(tmp_path / "lr.png")
    ours = upscale_tiled(generator, lr, bits=8, precision="no").int()
    eager = upscaling.upscale_eagerly(public_style.contiguous(copy.deepcopy(generator)), lr)
    onnx = upscaling.upscale_by_onnx(upscaling.open_session(setting), lr)
    assert ours.shape == (1, 192, 192) and ours.float().std() > 1
    for other in (eager, torch.from_numpy(onnx)):
        assert other.dtype == torch.uint8
        assert (ours - other.int()).abs().max() <= 1
    assert isinstance(onnx, np.ndarray)


# The page


def test_page_shows_what_was_measured():
    results = common.read_results(page.RESULTS)
    assert set(results) == set(page.SCRIPTS) == set(SCRIPTS)
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.render(text, results) == text
    for devices in results.values():
        for measured in devices.values():
            assert common.table(measured) in text


def test_page_is_written_from_the_numbers():
    text = page.PAGE.read_text(encoding="utf-8")
    results = copy.deepcopy(common.read_results(page.RESULTS))
    side = next(iter(results["crops"].values()))["trials"][0]["sides"]["ours"]
    side["seconds"] = [2 * seconds for seconds in side["seconds"]]
    assert page.render(text, results) != text
    assert page.render(page.render(text, results), common.read_results(page.RESULTS)) == text
    assert page.render(text, {}).count("Not measured yet.") == len(page.SCRIPTS)
    with pytest.raises(ValueError, match="no place for training_step"):
        page.render("# Benchmarks\n", results)
