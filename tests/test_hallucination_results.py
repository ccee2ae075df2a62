"""The committed measurement behind notebook 9, recomputed on a sample."""

import hashlib
import json
import os
from pathlib import Path

import hallucination
import pytest
import torch
from hallucination import (
    ENSEMBLE,
    LAB_CASES,
    PLACES,
    PULLS,
    QUIET_PLACES,
    RUNS,
    SEEDS,
    SIZES,
    THROW_CONTRASTS,
    THROWS,
    enlarge,
    find_thresholds,
    first_images,
    kept,
    lab_recipes,
    measure_method,
    measure_pull,
    measure_shifts,
    middle,
    read_hr,
    throw,
    throw_findings,
)

from srgan_lib.architectures import Interpolation, PatchDiscriminator, SRResNet, VGGFeatures
from srgan_lib.datasets import open_dataset
from srgan_lib.evaluation import throws
from srgan_lib.hardware import make_accelerator
from srgan_lib.losses import GeneratorLoss
from srgan_lib.pretrained import load_network, weights_path
from srgan_lib.recipes import read_recipe
from srgan_lib.runs import build_sampler, build_stage, read_metrics
from srgan_lib.training import AdversarialStage

ROOT = Path(__file__).resolve().parent.parent
COMMITTED = json.loads((ROOT / "results" / "hallucination.json").read_text(encoding="utf-8"))
HOME = Path(os.environ.get("SRGAN_DATA_DIR") or "nowhere") / "covid19-hannover"
AT_HOME = pytest.mark.skipif(
    not HOME.is_dir(), reason="SRGAN_DATA_DIR names no folder that holds covid19-hannover"
)


@pytest.fixture(scope="module")
def images():
    dataset, numbers = first_images("test")
    return [middle(read_hr(dataset, number)) for number in numbers]


@pytest.fixture(scope="module")
def features():
    return VGGFeatures("relu3_3")


CASES = {(kind, size) for kind, sizes in SIZES.items() for size in sizes}
METHODS = ("HR", "bicubic", "srresnet", "srgan", *RUNS)


def first(values):
    """Return the first patient's values, as lists of one."""
    if isinstance(values, dict):
        return {key: first(value) for key, value in values.items()}
    if isinstance(values, list) and values and isinstance(values[0], dict):
        return [first(row) for row in values]
    if isinstance(values, list):
        return first(values[0]) if isinstance(values[0], list) else values[:1]
    return values


def compare(found, expected, path=""):
    if isinstance(found, dict):
        assert found.keys() == expected.keys()
        for key in found:
            compare(found[key], expected[key], f"{path}/{key}")
    elif isinstance(found, list) and found and isinstance(found[0], dict):
        for number, pair in enumerate(zip(found, expected, strict=True)):
            compare(*pair, f"{path}/{number}")
    elif isinstance(found, str):
        assert found == expected, path
    else:
        assert found == pytest.approx(expected, rel=5e-3, abs=5e-3), path


def rows(table, **wanted):
    return [row for row in COMMITTED[table] if wanted.items() <= row.items()]


# What is in the file


def test_values_are_of_every_patient():
    count = len(COMMITTED["data"])
    assert count == 14 == len({image["patient"] for image in COMMITTED["data"]})
    for name in METHODS:
        found, alarms = rows("findings", method=name), rows("alarms", method=name)
        wanted = set(LAB_CASES if name in RUNS else hallucination.CASES)
        assert {(r["kind"], r["size"], r["contrast"]) for r in found} == wanted
        assert {(r["kind"], r["size"]) for r in alarms} == CASES
        assert len(found) == len(wanted) and len(alarms) == len(CASES)
        for row in found:
            assert len(row["survives"]) == len(row["moves"]) == len(row["recovered"]) == count
            pairs = zip(row["survives"], row["moves"], strict=True)
            assert all(0 <= stays + moves <= PLACES for stays, moves in pairs)
        assert all(len(row["share"]) == count for row in alarms)


def test_throws_are_counted_for_every_finding():
    assert COMMITTED["protocol"]["throws"] == THROWS == 32
    found, alarms = COMMITTED["thrown_findings"], COMMITTED["thrown_alarms"]
    assert len(found) == len(CASES) * len(THROW_CONTRASTS) and len(alarms) == len(CASES)
    for row in found:
        pairs = zip(row["survives"], row["moves"], strict=True)
        assert all(0 <= stays + moves <= THROWS for stays, moves in pairs)
    for row in alarms:
        assert all(0 <= n <= THROWS for n in row["throws"]) and set(row["hr"]) <= {0, 1}


def test_shipped_weights_are_those_that_were_measured():
    for name in ("srresnet", "srgan"):
        digest = hashlib.sha256(weights_path(name).read_bytes()).hexdigest()
        assert COMMITTED["weights_sha256"][name] == digest


def test_detector_reads_hr_as_it_is():
    """Without degradation all of the contrast is there, but for rounding to 8 bits."""
    for row in rows("findings", method="HR"):
        mean = sum(row["recovered"]) / 14
        assert mean == pytest.approx(1, abs=0.06), row


def test_lab_s_networks_differ_in_nothing_but_the_weight_or_the_seed():
    recipes = lab_recipes()
    assert len(recipes) == len(PULLS) * len(SEEDS) == 12
    unit = read_recipe(ROOT / "recipes" / "lab.yaml")
    for name, recipe in recipes.items():
        pull, seed = RUNS[name]
        assert recipe.seed == seed and f"{pull:g}" == name.split("_")[1]
        assert recipe.loss.adversarial_weight == pull * unit.loss.adversarial_weight
        loss = recipe.loss.model_copy(update={"adversarial_weight": unit.loss.adversarial_weight})
        assert recipe.model_copy(update={"loss": loss, "seed": unit.seed}) == unit


@pytest.mark.parametrize("name", RUNS)
def test_lab_s_runs_have_their_curves(name):
    folder = ROOT / "results" / "lab" / name
    recipe = lab_recipes()[name]
    assert read_recipe(folder / "recipe.yaml") == recipe
    last = read_metrics(folder)[-1]
    assert last["epoch"] == recipe.epochs and last["step"] == recipe.steps
    digests = COMMITTED["weights_sha256"]
    assert sum(digest == digests[name] for digest in digests.values()) == 1


# A sample of it, measured again


@AT_HOME
def test_lab_s_weight_pulls_as_hard_as_the_other_losses():
    """The adversarial weight of lab.yaml, after the discriminator's warm-up with seed 0."""
    recipe = lab_recipes()["pull_1_seed_0"]
    accelerator = make_accelerator(recipe.precision, torch.device("cpu"))
    sampler, stage = build_sampler(recipe, accelerator.device), build_stage(recipe, accelerator)
    for _ in range(recipe.warm_up):
        stage.step(*sampler.batch(recipe.batch_size))
    assert measure_pull(stage, sampler, recipe.batch_size) == pytest.approx(1, rel=0.25)


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
    found = find_thresholds([middle(read_hr(dataset, number)) for number in numbers])
    for kind, by_size in found.items():
        assert by_size == pytest.approx(COMMITTED["thresholds"][kind], rel=1e-4)


@AT_HOME
@pytest.mark.parametrize("name", ["HR", "bicubic", "srresnet", "srgan"])
def test_first_patient_s_findings_can_be_recomputed(name, images):
    networks = {"HR": None, "bicubic": Interpolation("bicubic")}
    network = networks[name] if name in networks else load_network(name)
    method = None if network is None else enlarge(network)
    found = measure_method(method, images[:1], COMMITTED["thresholds"], name)
    for table in ("findings", "alarms"):
        compare(found[table], first(rows(table, method=name)))
    if name != "HR":
        compare(found["measures"], first(COMMITTED["measures"][name]))


@AT_HOME
def test_first_patient_s_throws_can_be_recomputed(images, monkeypatch):
    """Findings of one kind; a throw near the threshold may fall on either side elsewhere."""
    monkeypatch.setattr(hallucination, "SIZES", {"line": SIZES["line"]})
    networks = load_network("srgan"), load_network("srresnet")
    found = throw_findings(networks[0], images[:1], COMMITTED["thresholds"], networks[1])
    for table, column in (("thrown_findings", "survives"), ("thrown_alarms", "throws")):
        again = [row[column][0] for row in found[table]]
        assert again == pytest.approx([row[column][0] for row in rows(table, kind="line")], abs=2)


@pytest.mark.parametrize(("number", "where"), [(0, "chest RG1"), (1, "extremity RG3")])
@pytest.mark.parametrize("name", ["bicubic", "srgan"])
def test_shifts_on_the_sample_can_be_recomputed(name, number, where):
    network = Interpolation(name) if name == "bicubic" else load_network(name)
    image = read_hr(open_dataset("sample", width=640), number)
    compare(measure_shifts(network, [image]), COMMITTED["shift"][name][where])


# The parts of the script


def test_measures_findings_and_alarms_are_of_one_image():
    chance = torch.Generator().manual_seed(0)
    hr = hallucination.quantise(0.4 + 0.2 * torch.rand(1, 384, 384, generator=chance))
    thresholds = {kind: {str(s): 0.05 for s in sizes} for kind, sizes in SIZES.items()}
    cases = LAB_CASES[:2]
    truth = measure_method(None, [hr], thresholds, "HR", cases)
    found = measure_method(enlarge(Interpolation("bicubic")), [hr], thresholds, "bicubic", cases)
    assert truth["measures"] == {} and set(found["measures"]) == {"before", "projected"}
    for kept_by, least in ((truth, 0.9), (found, 0.0)):
        assert [row["size"] for row in kept_by["findings"]] == [1, 4]
        assert all(row["recovered"][0] > least for row in kept_by["findings"])
    loud, quiet = (sum(r["share"][0] for r in x["alarms"]) for x in (truth, found))
    assert loud > quiet  # noise is full of lines, and bicubic hardly knows any
    before, after = (found["measures"][when]["psnr"][0] for when in ("before", "projected"))
    assert after > before


def test_protocol_says_what_was_measured():
    protocol = COMMITTED["protocol"]
    assert (protocol["middle"], protocol["window"]) == (hallucination.SIDE, hallucination.REGION)
    assert protocol["quiet_places"] == QUIET_PLACES
    for name in METHODS[1:]:
        assert {"explained", "correlation"} <= set(COMMITTED["measures"][name]["before"])


def test_fast_throws_are_the_library_s():
    torch.manual_seed(0)
    network = SRResNet(blocks=1, width=4, bicubic_skip=True, end_kernel=3, noise=True).eval()
    for weights in network.parameters():
        torch.nn.init.normal_(weights, 0, 0.1)
    lr = torch.rand(1, 12, 16)
    fast, slow = throw(network, lr), throws(network, lr, THROWS)
    assert not torch.equal(slow[0], slow[1])
    torch.testing.assert_close(fast, slow, rtol=0, atol=1.5 / 255)
    assert (fast != slow).float().mean() < 0.01


def test_pull_doubles_with_its_weight():
    torch.manual_seed(0)

    class Sampler:
        def batch(self, size):
            torch.manual_seed(1)
            return torch.rand(size, 1, 8, 8), torch.rand(size, 1, 32, 32)

    def pull(adversarial, perceptual_every):
        torch.manual_seed(0)
        loss = GeneratorLoss(
            VGGFeatures("relu1_1"),
            content_weight=1,
            perceptual_weight=1,
            adversarial_weight=adversarial,
            perceptual_every=perceptual_every,
            game="paired",
        )
        generator = SRResNet(blocks=1, width=4, bicubic_skip=True)
        stage = AdversarialStage(generator, PatchDiscriminator(width=4), loss)
        return measure_pull(stage, Sampler(), 2)

    assert pull(0, 1) == 0 < pull(1, 1)
    assert pull(2, 1) == pytest.approx(2 * pull(1, 1), rel=1e-4)
    assert pull(1, 4) == pytest.approx(pull(1, 1), rel=1e-4)  # counted as on the mean of all steps


def test_only_the_same_weights_and_places_are_kept():
    def file(**parts):
        return {
            "protocol": 1, "data": 2, "thresholds": 3, "weights_sha256": {"a": "x", "b": "y"}
        } | parts  # fmt: skip

    assert kept(file(), file(), ["a", "b"])
    assert not kept({}, file(), ["a"])
    assert not kept(file(thresholds=4), file(), ["a"])
    other = file(weights_sha256={"a": "x", "b": "z"})
    assert kept(other, file(), ["a"]) and not kept(other, file(), ["a", "b"])
    assert set(ENSEMBLE) <= set(RUNS)


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
