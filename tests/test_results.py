"""Kept evaluations: their intervals, their form, and the committed ones recomputed."""

import hashlib
import json
import math
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import write_cards
import yaml
from PIL import Image

from srgan_lib import files as module
from srgan_lib.architectures import Interpolation, SRResNet, VGGFeatures
from srgan_lib.calibration import MEASURES
from srgan_lib.checkpoints import save_weights
from srgan_lib.cost import SIDE, count_multiply_adds
from srgan_lib.datasets import open_dataset
from srgan_lib.degradation import crop_to_multiple
from srgan_lib.errors import ConfigurationError, SRGANError
from srgan_lib.evaluation import COLUMNS, evaluate
from srgan_lib.pretrained import FAMILY, PRETRAINED, load_network, weights_path
from srgan_lib.recipes import check_recipe, read_recipe
from srgan_lib.results import (
    INTERVAL,
    cost_table,
    mean_over_patients,
    measure,
    results_folder,
    results_table,
    summarise_again,
    throws_table,
    write_results,
)
from srgan_lib.runs import read_metrics

ROOT = Path(__file__).parent.parent


@pytest.fixture
def folder(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for number in range(3):
        values = torch.randint(256, (40, 49), generator=generator, dtype=torch.uint8)
        Image.fromarray(values.numpy()).save(tmp_path / f"{number}.png")
    return tmp_path


IMAGES = (22, 6, 5, 5, 4, 2, 2, 1, 1, 1, 1, 1, 1, 1)  # of each patient of the test part
PATIENTS = [str(patient) for patient, images in enumerate(IMAGES) for _ in range(images)]


@pytest.mark.parametrize(
    ("effect", "truth", "least"),
    [
        (lambda chance: chance.standard_normal(14), 0.0, 0.935),
        (lambda chance: chance.lognormal(0, 0.5, 14), math.exp(0.125), 0.925),
        (lambda chance: chance.lognormal(0, 1, 14), math.exp(0.5), 0.90),
        (lambda chance: -chance.lognormal(0, 1, 14), -math.exp(0.5), 0.90),
    ],
    ids=["normal", "a little skewed", "skewed", "skewed to the left"],
)
def test_interval_covers_the_truth_as_often_as_it_claims(effect, truth, least):
    """Simulated: patients differ, and the images of each differ half as much."""
    chance, rounds, covered = np.random.default_rng(0), 4000, 0
    for _ in range(rounds):
        values = np.repeat(effect(chance), IMAGES) + 0.5 * chance.standard_normal(53)
        mean, low, high = mean_over_patients(values.tolist(), PATIENTS)
        assert low < mean < high
        covered += low <= truth <= high
    assert least <= covered / rounds <= 0.965


def test_interval_is_student_s_where_nothing_is_skewed():
    values = [1.0, 2.0, 4.0, 5.0]  # mean 3, deviation sqrt(10 / 3), t(3) = 3.1824463
    half = 3.1824463 * math.sqrt(10 / 3) / 2
    found = mean_over_patients(values, ["a", "b", "c", "d"])
    assert found == pytest.approx((3, 3 - half, 3 + half))
    # A long tail upwards: the truth may lie far above the mean, not so far below.
    mean, low, high = mean_over_patients([0.0, 0.0, 0.0, 1.0, 9.0], list("abcde"))
    assert high - mean > 2 * (mean - low)


def test_interval_is_of_patients_not_of_images():
    values, patients = [0.0, 3.0, 3.0, 6.0], ["a", "b", "b", "c"]
    assert mean_over_patients(values, patients) == mean_over_patients([0, 3, 6], ["a", "b", "c"])
    assert mean_over_patients([0.0, 6.0, 6.0, 6.0], ["a", "b", "b", "b"])[0] == 3
    many = mean_over_patients([0.0, 3.0, 6.0] * 9, ["a", "b", "c"] * 9)
    assert many == mean_over_patients([0, 3, 6], ["a", "b", "c"])  # no surer by repetition


def test_interval_of_one_patient_is_everything():
    assert mean_over_patients([1.0, 2.0, 6.0], ["a"] * 3) == (3, -math.inf, math.inf)
    assert mean_over_patients([2.0, 2.0], ["a", "b"]) == (2, 2, 2)
    assert mean_over_patients([2.0, math.inf], ["a", "b"]) == (math.inf, -math.inf, math.inf)


def test_measure_writes_what_json_can_hold(folder, tmp_path):
    network = SRResNet(blocks=1, width=4, bicubic_skip=True)
    save_weights(network, tmp_path / "tiny.safetensors")
    model = str(tmp_path / "tiny.safetensors")
    results = measure(["bicubic", model], open_dataset(folder), progress=False)
    write_results(results, tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == results
    assert set(results["methods"]) == {"bicubic", model}
    assert results["methods"]["bicubic"]["weights_sha256"] is None
    assert len(results["methods"][model]["weights_sha256"]) == 64
    for method in results["methods"].values():
        for part in ("mean", "patient_mean", "interval"):
            assert set(method[part]) == set(COLUMNS)
        for name, values in method["values"].items():
            assert len(values) == 3
            assert method["mean"][name] == pytest.approx(sum(values) / 3)
    # The last convolution of a skip network starts at zero: it is bicubic.
    assert results["methods"][model]["mean"] == results["methods"]["bicubic"]["mean"]
    table = results_table(results)
    assert len(table.splitlines()) == 6
    assert f"{results['methods']['bicubic']['mean']['psnr']:.2f} [" in table
    assert "Mean of 3 images, each taken for a patient" in table


def test_table_shows_the_mean_that_its_interval_is_of(folder):
    dataset = open_dataset(folder, patient_of=lambda path: "x" if path.stem == "2" else "y")
    results = measure(["bicubic"], dataset, progress=False)
    method = results["methods"]["bicubic"]
    one, two, three = method["values"]["psnr"]
    assert method["mean"]["psnr"] == pytest.approx((one + two + three) / 3)
    assert method["patient_mean"]["psnr"] == pytest.approx(((one + two) / 2 + three) / 2)
    low, high = method["interval"]["psnr"]
    table = results_table(results)
    assert f"| {method['patient_mean']['psnr']:.2f} [{low:.2f}, {high:.2f}] |" in table
    assert "Mean of 2 patients" in table and "mean of all 3 images" in table


def test_table_of_one_patient_has_no_interval(folder):
    results = measure(
        ["bicubic"], open_dataset(folder, patient_of=lambda path: "x"), progress=False
    )
    method = results["methods"]["bicubic"]
    assert method["interval"]["psnr"] is None
    assert f"| {method['patient_mean']['psnr']:.2f} |" in results_table(results)


def test_older_files_can_be_summarised_again(folder):
    results = measure(["bicubic"], open_dataset(folder), cost=True, progress=False)
    older = json.loads(json.dumps(results))
    older["protocol"]["interval"] = "95 %, by an older way"
    older["methods"]["bicubic"]["interval"]["psnr"] = [0.0, 1.0]
    del older["methods"]["bicubic"]["patient_mean"]
    again = summarise_again(older)
    assert again == results
    assert list(again["methods"]["bicubic"]) == list(results["methods"]["bicubic"])


def test_measure_keeps_what_the_dice_are_worth(folder, tmp_path):
    network = SRResNet(blocks=1, width=4, bicubic_skip=True, noise=True)
    torch.nn.init.normal_(network.last.weight, std=0.05)
    torch.nn.init.normal_(network.noise[2].gain.bias, std=0.5)
    save_weights(network, tmp_path / "dice.safetensors")
    model = str(tmp_path / "dice.safetensors")
    results = measure(["bicubic", model], open_dataset(folder), throws=3, progress=False)
    assert json.loads(json.dumps(results)) == results
    assert "throws" not in results["methods"]["bicubic"]
    thrown = results["methods"][model]["throws"]
    assert thrown["count"] == 3 and set(thrown["mean"]) == set(thrown["interval"]) == set(MEASURES)
    assert all(len(values) == 3 for values in thrown["values"].values())
    head, _, row = throws_table(results).splitlines()
    assert "coverage of the 90 % interval" in head and row.startswith(f"| {model}, 3 throws |")
    assert f" {thrown['mean']['coverage']:.3f} [" in row
    assert throws_table({"methods": {}}) == "No method throws dice."


def test_measure_wants_generators_of_one_scale(folder, tmp_path):
    with pytest.raises(ConfigurationError, match="generators of one scale"):
        measure([], open_dataset(folder), progress=False)
    for scale in (2, 4):
        save_weights(SRResNet(scale=scale, blocks=1, width=4), tmp_path / f"{scale}.safetensors")
    models = [str(tmp_path / f"{scale}.safetensors") for scale in (2, 4)]
    with pytest.raises(ConfigurationError, match=r"\['2', '4'\]"):
        measure(models, open_dataset(folder), progress=False)


def test_colour_and_grey_networks_measure_colour_images(tmp_path):
    generator = torch.Generator().manual_seed(0)
    (tmp_path / "images").mkdir()
    for number in range(2):
        values = torch.randint(256, (40, 48, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(values.numpy()).save(tmp_path / "images" / f"{number}.png")
    models = []
    for channels in (1, 3):
        models.append(str(tmp_path / f"{channels}.safetensors"))
        network = SRResNet(channels=channels, blocks=1, width=4, bicubic_skip=True)
        save_weights(network, models[-1])
    dataset = open_dataset(tmp_path / "images", channels=3)
    found = measure(["bicubic", *models], dataset, cost=True, progress=False)["methods"]
    # The last convolution of a skip network starts at zero: both are bicubic.
    for model in models:
        assert found[model]["values"]["psnr"] == found["bicubic"]["values"]["psnr"]
    with pytest.raises(ConfigurationError, match=r"takes images of 3 channels.*--channels 3"):
        measure(models[1:], open_dataset(tmp_path / "images"), progress=False)


GENERATORS = ["srresnet", "srresnet_paper", "srgan"]
NEW = [name for name in FAMILY if name not in ("bicubic", "srresnet", "srgan")]
RUNS = [name for name in PRETRAINED if name != "neighbour_embedding"]


@pytest.mark.parametrize("name", PRETRAINED)
def test_shipped_weights_are_small(name):
    assert weights_path(name).stat().st_size < (2e6 if name in NEW else 4 * 2**20)


@pytest.mark.parametrize("name", RUNS)
def test_shipped_weights_match_their_recipe(name):
    network = load_network(name)
    assert not network.training
    run = name.removesuffix("_discriminator")
    recipe = read_recipe(ROOT / "recipes" / f"{run}.yaml")
    part = recipe.generator.arguments if run == name else recipe.discriminator.arguments
    assert json.loads(json.dumps({"channels": 1, **part})).items() <= network.arguments.items()
    assert _recipe_of(run) == recipe
    epochs = read_metrics(ROOT / "results" / run)
    assert [line["epoch"] for line in epochs] == list(range(1, recipe.epochs + 1))
    assert epochs[-1]["step"] == recipe.steps


def _recipe_of(run):
    """The recipe in a run's record. ESRGAN's run is older than today's losses: its record, and its
    recipe's first lines, say what it was trained with besides."""
    record = ROOT / "results" / run / "recipe.yaml"
    if run != "esrgan":
        return read_recipe(record)
    content = yaml.safe_load(record.read_text(encoding="utf-8"))
    loss = content["loss"]
    assert (content.pop("dither"), loss.pop("jitter"), loss.pop("lattice_weight")) == (1, 16, 1)
    assert (content.pop("interpolate"), loss.pop("texture_weight")) == (1, 0)
    assert loss.pop("texture_amount") == 1 and loss.pop("relativistic")
    return check_recipe(content | {"loss": loss | {"game": "relativistic"}})


@pytest.mark.parametrize("run", [name for name in RUNS if not name.endswith("_discriminator")])
def test_metrics_are_json_that_strict_readers_take(run):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    for line in (ROOT / "results" / run / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


@pytest.mark.parametrize(
    "file",
    [
        "test_split.json",
        "sample_640.json",
        "sample_full.json",
        "family_test.json",
        "family_validation.json",
    ],
)
def test_committed_means_and_intervals_are_those_of_the_values(file):
    committed = _committed(file)
    assert committed["protocol"]["interval"] == INTERVAL
    patients = [image["patient"] for image in committed["data"]["images"]]
    for method in committed["methods"].values():
        for name, values in method["values"].items():
            mean, *interval = mean_over_patients(values, patients)
            assert method["mean"][name] == pytest.approx(sum(values) / len(values))
            assert method["patient_mean"][name] == pytest.approx(mean)
            assert method["interval"][name] == pytest.approx(interval)


def _committed(file):
    return json.loads((ROOT / "results" / file).read_text(encoding="utf-8"))


def _digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _recompute(file, dataset, names=None):
    committed = _committed(file)
    names = names or list(committed["methods"])
    again = measure(names, dataset, progress=False)
    assert again["data"] == committed["data"]
    for name in names:
        method = committed["methods"][name]
        assert again["methods"][name]["weights_sha256"] == method["weights_sha256"]
        for measure_name, mean in method["mean"].items():
            found = again["methods"][name]["mean"][measure_name]
            assert found == pytest.approx(mean, rel=1e-3, abs=2e-3), (name, measure_name)


def test_results_on_the_sample_can_be_recomputed():
    _recompute("sample_640.json", open_dataset("sample", width=640))


def test_results_on_the_sample_at_full_size_can_be_recomputed():
    _recompute("sample_full.json", open_dataset("sample"), ["bicubic", "srgan"])


@pytest.mark.parametrize("split", ["validation", "test"])
def test_family_s_results_are_of_the_shipped_weights(split):
    committed = _committed(f"family_{split}.json")
    assert tuple(committed["methods"]) == FAMILY
    assert committed["data"]["split"] == split
    for name, method in committed["methods"].items():
        if name != "bicubic":
            assert method["weights_sha256"] == _digest(weights_path(name))


def test_family_s_results_agree_with_those_of_the_reference_networks():
    family, reference = _committed("family_test.json"), _committed("test_split.json")
    assert family["data"] == reference["data"] and family["protocol"] == reference["protocol"]
    for name in ("bicubic", "srresnet", "srgan"):
        assert family["methods"][name]["values"] == reference["methods"][name]["values"]


@pytest.mark.parametrize(
    ("file", "names", "split", "every"),
    [
        ("test_split.json", ["nearest", "bilinear", "bicubic", *GENERATORS], "test", 13),
        ("family_test.json", NEW, "test", 18),
        ("family_validation.json", NEW, "validation", 10),
    ],
)
def test_results_at_home_can_be_recomputed_image_by_image(file, names, split, every):
    root = Path(os.environ.get("SRGAN_DATA_DIR") or "nowhere") / "covid19-hannover"
    if not root.is_dir():
        pytest.skip("SRGAN_DATA_DIR names no folder that holds covid19-hannover")
    dataset, committed = open_dataset("covid19-hannover", split), _committed(file)
    digests = [_digest(record.path) for record in dataset.records]
    assert [image["sha256"] for image in committed["data"]["images"]] == digests
    for name in set(names) & set(PRETRAINED):
        assert committed["methods"][name]["weights_sha256"] == _digest(weights_path(name))
    networks = {
        name: load_network(name) if name in PRETRAINED else Interpolation(name) for name in names
    }
    images = [crop_to_multiple(dataset[i], 4) for i in range(0, len(dataset), every)]
    for found in evaluate(networks, images, VGGFeatures("relu3_3"), progress=False):
        for measure_name, values in found.values.items():
            if measure_name not in committed["methods"][found.method]["values"]:
                continue  # the lattice, which is measured for the SRGANs, see realism.json
            expected = committed["methods"][found.method]["values"][measure_name][::every]
            assert values == pytest.approx(expected, rel=2e-3, abs=2e-3), found.method


@pytest.mark.parametrize("name", FAMILY)
def test_family_s_costs_can_be_recomputed(name):
    costs = [
        _committed(f"family_{s}.json")["methods"][name]["cost"] for s in ("validation", "test")
    ]
    network = Interpolation("bicubic") if name == "bicubic" else load_network(name)
    learned = list(network.parameters()) or list(network.buffers())
    multiply_adds = count_multiply_adds(network, torch.rand(1, 1, SIDE, SIDE))
    for cost in costs:
        assert cost["parameters"] == sum(values.numel() for values in learned)
        assert cost["multiply_adds"] == multiply_adds
        assert cost["seconds"] > 0 and cost["memory"] > 0


def test_family_keeps_its_promises():
    means = {n: m["mean"] for n, m in _committed("family_test.json")["methods"].items()}
    for name in ("srcnn", "espcn", "drcn"):
        assert means[name]["psnr"] > means["bicubic"]["psnr"], name
    for name in ("srresnet", "rrdbnet", "swinir", "ipt"):
        assert means[name]["psnr"] > means["srcnn"]["psnr"], name
    sharp = means["esrgan"]["feature_distance"]
    assert sharp < min(means[name]["feature_distance"] for name in ("srcnn", "rrdbnet", "bicubic"))


def test_family_s_model_card_shows_the_committed_results():
    card = (ROOT / "srgan_lib" / "weights" / "family.md").read_text(encoding="utf-8")
    for split in ("validation", "test"):
        assert results_table(_committed(f"family_{split}.json")) in card
    assert cost_table(_committed("family_test.json")) in card
    for name in NEW:
        if name != "neighbour_embedding":
            last = read_metrics(ROOT / "results" / name)[-1]
            assert f"| `{name}` | {last['step']:,} | {last['seconds'] / 60:.0f} |" in card


def test_srresnet_meets_its_promises():
    methods = _committed("test_split.json")["methods"]
    gains = [
        ours - bicubic
        for ours, bicubic in zip(
            methods["srresnet"]["values"]["psnr"], methods["bicubic"]["values"]["psnr"], strict=True
        )
    ]
    assert len(gains) == 53
    assert sum(gains) / 53 >= 0.75
    assert sum(gain > 0 for gain in gains) >= 50
    methods = _committed("sample_640.json")["methods"]
    gains = [
        ours - bicubic
        for ours, bicubic in zip(
            methods["srresnet"]["values"]["psnr"], methods["bicubic"]["values"]["psnr"], strict=True
        )
    ]
    assert gains[0] >= 1.6 and gains[1] >= 3.8  # RG1 (chest) and RG3 (extremity)


def test_model_card_shows_the_committed_results():
    card = (ROOT / "srgan_lib" / "weights" / "srresnet.md").read_text(encoding="utf-8")
    committed = _committed("test_split.json")
    assert results_table(committed) in card
    methods = committed["methods"]
    gain = methods["srresnet"]["mean"]["psnr"] - methods["bicubic"]["mean"]["psnr"]
    assert f"PSNR is {gain:.2f} dB above bicubic" in card
    gain = methods["srresnet_paper"]["mean"]["psnr"] - methods["bicubic"]["mean"]["psnr"]
    assert f"it is {gain:+.2f} dB against bicubic" in card
    for name in ("srresnet", "srresnet_paper"):
        parameters = sum(p.numel() for p in load_network(name).parameters())
        assert f"{parameters:,} parameters" in card


def test_srgan_s_model_card_shows_the_committed_results():
    card = write_cards.CARD.read_text(encoding="utf-8")
    assert write_cards.written(card) == card, "the card is stale: tools/write_cards.py"
    parameters = sum(p.numel() for p in load_network("srgan_discriminator").parameters())
    assert f"{parameters:,} parameters" in card


def test_card_s_table_of_places_has_the_values_of_its_images():
    methods = write_cards.read("sample_640.json")["methods"]
    gain = methods["srgan"]["values"]["psnr"][1] - methods["bicubic"]["values"]["psnr"][1]
    (line,) = [x for x in write_cards.places_table().splitlines() if "`RG3`, 640" in x]
    assert line.split(" | ")[1] == f"{gain:+.2f}"


def test_paper_s_form_learns_more_slowly():
    methods = _committed("test_split.json")["methods"]
    paper, fast = (methods[name]["mean"]["psnr"] for name in ("srresnet_paper", "srresnet"))
    assert paper < fast
    runs = [read_metrics(ROOT / "results" / name) for name in ("srresnet_paper", "srresnet")]
    slow, quick = ({e["step"]: e["validation"]["psnr"] for e in run} for run in runs)
    last = max(slow)
    assert slow[last] < quick[last]  # after the same number of steps


def test_results_folder_is_the_repository_s_or_the_installed_one(tmp_path, monkeypatch):
    assert results_folder() == ROOT / "results"
    monkeypatch.setattr(module, "__file__", str(tmp_path / "srgan_lib" / "results.py"))
    installed = tmp_path / "share" / "srgan-lib" / "results"
    installed.mkdir(parents=True)
    (installed / "test_split.json").write_text("{}")

    found = [tmp_path / "srgan_lib" / "x.py", installed / "test_split.json"]
    found = [SimpleNamespace(parts=path.parts, locate=lambda path=path: path) for path in found]
    monkeypatch.setattr(module.importlib.metadata, "files", lambda name: found)
    assert results_folder() == installed
    monkeypatch.setattr(module.importlib.metadata, "files", lambda name: None)
    with pytest.raises(SRGANError, match="clone the repository"):
        results_folder()
