"""The committed measures of realism: recomputed, shown as they are, and what SRGAN promises."""

import json
import os
from pathlib import Path

import pytest
import realism as benchmark

from srgan_lib.datasets import open_dataset
from srgan_lib.pretrained import load_network, weights_path
from srgan_lib.runs import read_metrics

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def committed():
    return json.loads((ROOT / "results" / "realism.json").read_text(encoding="utf-8"))


def test_results_are_of_the_shipped_weights(committed):
    assert tuple(committed["methods"]) == tuple(benchmark.NAMES)
    for name, method in committed["methods"].items():
        assert len(method["images"]) == 53
        if name != "bicubic":
            assert method["weights"] == benchmark.digest(weights_path(name))


def test_summaries_are_those_of_the_images(committed):
    for method in committed["methods"].values():
        for name, value in benchmark.summarise(method["images"]).items():
            assert method["summary"][name] == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("name", ["srresnet", "srgan"])
def test_results_can_be_recomputed_image_by_image(committed, name):
    root = Path(os.environ.get("SRGAN_DATA_DIR") or "nowhere") / "covid19-hannover"
    if not root.is_dir():
        pytest.skip("SRGAN_DATA_DIR names no folder that holds covid19-hannover")
    dataset, network = open_dataset("covid19-hannover", "test"), load_network(name)
    for number in (0, 26, 52):
        expected = committed["methods"][name]["images"][number]
        assert expected["name"] == dataset.records[number].name
        hr = benchmark.window(dataset[number])
        found = benchmark.one_throw(network, hr)[0] | benchmark.many_throws(network, hr)
        for measure, value in found.items():
            assert value == pytest.approx(expected[measure], rel=0.01, abs=0.01), measure


def test_results_away_from_home_can_be_recomputed(committed):
    found = benchmark.away(load_network("srgan"), widths=(640,))
    for image, values in found.items():
        expected = committed["methods"]["srgan"]["away"][image]
        for measure, value in values.items():
            assert value == pytest.approx(expected[measure], rel=0.01, abs=0.01), (image, measure)


def test_srgan_keeps_its_promises_at_home(committed):
    found = {name: method["summary"] for name, method in committed["methods"].items()}
    sr, blurred = found["srgan"], found["srresnet"]
    # A perfect sampler's error is twice that of its mean, 3.01 dB.
    assert 2.4 <= blurred["psnr"] - sr["psnr"] <= 3.6
    assert blurred["psnr"] - sr["mean_psnr"] <= 0.25
    assert sr["critic_auc"] < 0.95 < found["srgan_paper"]["critic_auc"]
    assert sr["lattice"] < 1.25 < 5 < found["srgan_paper"]["lattice"]
    assert all(0.69 < ring < 1.25 for ring in sr["rings"])
    assert sr["lr_consistency"] > 50
    assert sr["kernel_distance"] < blurred["kernel_distance"] / 20
    assert sr["coverage"] > 0.8 and sr["correlation"] > 0.4


def test_the_mean_of_srgan_s_throws_is_above_bicubic_away_from_home(committed):
    away = committed["methods"]["srgan"]["away"]
    gains = [
        found["mean_above_bicubic"] for found in away.values() if "mean_above_bicubic" in found
    ]
    assert len(gains) == 2 and min(gains) > 1


def test_the_game_stays_open_to_the_last_epoch():
    lines = read_metrics(ROOT / "results" / "srgan")
    assert all(0.55 < line["losses"]["ranking"] < 0.85 for line in lines[1:])
