"""The committed measurement behind notebook 9, recomputed on a sample."""

import hashlib
import json
import os
from pathlib import Path

import hallucination
import pytest
import torch
from hallucination import (
    CONTRASTS,
    PLACES,
    RUNS,
    SEEDS,
    SIZES,
    enlarge,
    find_thresholds,
    first_images,
    lab_recipes,
    measure_method,
    measure_shifts,
    measure_uncertainty,
    read_hr,
)

from srgan_lib.architectures import Interpolation, VGGFeatures
from srgan_lib.datasets import open_dataset
from srgan_lib.pretrained import load_network, weights_path
from srgan_lib.recipes import read_recipe
from srgan_lib.runs import read_metrics
from srgan_lib.uncertainty import flips

ROOT = Path(__file__).resolve().parent.parent
COMMITTED = json.loads((ROOT / "results" / "hallucination.json").read_text(encoding="utf-8"))
HOME = Path(os.environ.get("SRGAN_DATA_DIR") or "nowhere") / "covid19-hannover"
AT_HOME = pytest.mark.skipif(
    not HOME.is_dir(), reason="SRGAN_DATA_DIR names no folder that holds covid19-hannover"
)


@pytest.fixture(scope="module")
def images():
    dataset, numbers = first_images("test")
    return [read_hr(dataset, number) for number in numbers]


@pytest.fixture(scope="module")
def features():
    return VGGFeatures("relu3_3")


def first(values):
    """Return the first patient's values of what `together` put together, as lists of one."""
    if isinstance(values, dict):
        return {key: first(value) for key, value in values.items()}
    return [first(value) for value in values] if isinstance(values[0], list) else values[:1]


def compare(found, expected, path=""):
    if isinstance(found, dict):
        assert found.keys() == expected.keys()
        for key in found:
            compare(found[key], expected[key], f"{path}/{key}")
    elif isinstance(found[0], list):
        for pair in zip(found, expected, strict=True):
            compare(*pair, path)
    else:
        assert found == pytest.approx(expected, rel=5e-3, abs=5e-3), path


# What is in the file


def test_values_are_of_every_patient():
    count = len(COMMITTED["data"])
    assert count == 14 == len({image["patient"] for image in COMMITTED["data"]})
    for method in COMMITTED["methods"].values():
        for kind, sizes in SIZES.items():
            for size in map(str, sizes):
                assert len(method["false_alarms"][kind][size]) == count
                for contrast in map(str, CONTRASTS):
                    found = method["findings"][kind][size][contrast]
                    assert all(len(values) == count for values in found.values())
                    pairs = zip(found["survives"], found["moves"], strict=True)
                    assert all(0 <= stays + moves <= PLACES for stays, moves in pairs)


def test_shipped_weights_are_those_that_were_measured():
    for name in ("srresnet", "srgan"):
        digest = hashlib.sha256(weights_path(name).read_bytes()).hexdigest()
        assert COMMITTED["weights_sha256"][name] == digest


def test_detector_reads_hr_as_it_is():
    """Without degradation all of the contrast is there, but for rounding to 8 bits."""
    for kind, sizes in COMMITTED["methods"]["HR"]["findings"].items():
        for size, contrasts in sizes.items():
            for contrast, found in contrasts.items():
                mean = sum(found["recovered"]) / 14
                assert mean == pytest.approx(1, abs=0.06), (kind, size, contrast)


def test_lab_s_networks_differ_in_nothing_but_the_weight_or_the_seed():
    recipes = lab_recipes()
    first = recipes[SEEDS[0]]
    for name, recipe in recipes.items():
        weight = 0.08 if name in SEEDS else float(name.removeprefix("adversarial_"))
        assert recipe.loss.adversarial_weight == weight
        loss = recipe.loss.model_copy(update={"adversarial_weight": 0.08})
        assert recipe.model_copy(update={"loss": loss, "seed": first.seed}) == first
    assert [recipes[name].seed for name in SEEDS] == [0, 1, 2]


def test_lab_has_the_reference_run_s_weight_and_both_sides_of_it():
    reference = read_recipe(ROOT / "recipes" / "srgan.yaml").loss.adversarial_weight
    weights = {RUNS[name][0] for name in COMMITTED["methods"] if name in RUNS}
    assert weights == {weight for weight, _ in RUNS.values()}
    assert {0, reference} < weights and reference < max(weights)


@pytest.mark.parametrize("name", RUNS)
def test_lab_s_runs_have_their_curves(name):
    folder = ROOT / "results" / "lab" / name
    recipe = lab_recipes()[name]
    assert read_recipe(folder / "recipe.yaml") == recipe
    last = read_metrics(folder)[-1]
    assert last["epoch"] == recipe.epochs and last["step"] == recipe.steps
    digests = COMMITTED["weights_sha256"]
    assert sum(digest == digests[name] for digest in digests.values()) == 1


def test_uncertainty_is_of_seeds_and_of_positions():
    assert list(COMMITTED["uncertainty"]) == ["seeds", "flips"]


# A sample of it, measured again


@AT_HOME
def test_images_are_those_that_were_measured():
    dataset, numbers = first_images("test")
    for image, number in zip(COMMITTED["data"], numbers, strict=True):
        record = dataset.records[number]
        digest = hashlib.sha256(record.path.read_bytes()).hexdigest()
        assert image == {"name": record.name, "patient": record.patient, "sha256": digest}


@AT_HOME
def test_thresholds_can_be_recomputed():
    dataset, numbers = first_images("validation")
    found = find_thresholds([read_hr(dataset, number) for number in numbers])
    for kind, by_size in found.items():
        assert by_size == pytest.approx(COMMITTED["thresholds"][kind], rel=1e-4)


@AT_HOME
@pytest.mark.parametrize("name", ["HR", "bicubic", "srresnet", "srgan"])
def test_first_patient_s_findings_can_be_recomputed(name, images, features):
    networks = {"HR": None, "bicubic": Interpolation("bicubic")}
    network = networks[name] if name in networks else load_network(name)
    method = None if network is None else enlarge(network)
    found = measure_method(method, images[:1], COMMITTED["thresholds"], features)
    compare(found, first(COMMITTED["methods"][name]))


@AT_HOME
def test_first_patient_s_uncertainty_can_be_recomputed(images):
    network = load_network("srgan")
    found = measure_uncertainty(lambda lr: flips(network, lr), images[:1])
    compare(found, first(COMMITTED["uncertainty"]["flips"]))


@pytest.mark.parametrize(("number", "where"), [(0, "chest RG1"), (1, "extremity RG3")])
@pytest.mark.parametrize("name", ["bicubic", "srgan"])
def test_shifts_on_the_sample_can_be_recomputed(name, number, where, features):
    network = Interpolation(name) if name == "bicubic" else load_network(name)
    image = read_hr(open_dataset("sample", width=640), number)
    found = measure_shifts(network, [image], features)
    compare(found, COMMITTED["shift"][name][where])


# The parts of the script


def test_measures_are_of_whole_images_and_findings_of_their_middle(features):
    """A method that fails at the border only: the measures see it, the findings don't."""
    chance = torch.Generator().manual_seed(0)
    hr = hallucination.quantise(0.4 + 0.2 * torch.rand(1, 480, 400, generator=chance))

    def at_the_border(lr):
        sr = Interpolation("bicubic")(lr)
        if sr.shape[-2:] == hr.shape[-2:]:  # not a region with a finding
            sr[..., :24, :] = sr[..., -24:, :] = 0
        return hallucination.quantise(sr)

    thresholds = {kind: {str(s): 0.05 for s in sizes} for kind, sizes in SIZES.items()}
    broken = measure_method(at_the_border, [hr], thresholds, features)
    sound = measure_method(enlarge(Interpolation("bicubic")), [hr], thresholds, features)
    assert broken["findings"] == sound["findings"]
    assert broken["false_alarms"] == sound["false_alarms"]
    assert broken["before"]["psnr"][0] < sound["before"]["psnr"][0] - 1
    assert set(sound["before"]) >= {"explained", "correlation"}


def test_protocol_says_what_was_measured():
    assert COMMITTED["protocol"]["measured"].startswith("whole images")
    for part in ("before", "projected"):
        for name, method in COMMITTED["methods"].items():
            assert name == "HR" or {"explained", "correlation"} <= set(method[part])


def test_places_leave_room_for_the_strongest_finding():
    image = torch.full((1, 256, 256), 0.5)
    image[:, :, :64] = 0.05
    for top, left, angle in hallucination.places(image, 20, seed=1):
        assert top % 4 == left % 4 == 0 and 0 <= angle < 3.15
        assert left + hallucination.REGION // 4 >= 64
    with pytest.raises(hallucination.SRGANError, match="Only 0 of 2 places"):
        hallucination.places(torch.zeros(1, 256, 256), 2, seed=0)


def test_shifts_do_what_their_names_say():
    lr = torch.rand(1, 24, 32, generator=torch.Generator().manual_seed(0))
    for name, change in hallucination.SHIFTS.items():
        changed = change(lr)
        assert changed.shape == lr.shape and 0 <= changed.min() <= changed.max() <= 1
        assert (name == "none") == torch.equal(changed, lr)
    assert hallucination.blurred(lr).std() < 0.5 * lr.std()
    flat = torch.full((1, 64, 64), 0.4)
    assert hallucination.noisy(flat).std() == pytest.approx(0.02, rel=0.05)
    torch.testing.assert_close(hallucination.blurred(flat), hallucination.quantise(flat))
