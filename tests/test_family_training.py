"""Training all networks of chapter 8 by one command."""

import json

import pytest

from srgan_lib import family
from srgan_lib.checkpoints import load_state
from srgan_lib.errors import ConfigurationError
from srgan_lib.family import family_recipes, train_family
from srgan_lib.pretrained import FAMILY, load_network
from srgan_lib.recipes import check_recipe
from srgan_lib.runs import read_metrics

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def recipes(noise_images):
    """Two tiny runs, the second of which starts from the first."""
    content = {
        "stage": "content",
        "data": {"name": str(noise_images), "crop_size": 32},
        "generator": {"network": "RRDBNet", "blocks": 1, "width": 4, "growth": 2},
        "epochs": 2,
        "crops_per_epoch": 4,
        "batch_size": 2,
        "precision": "no",
    }
    adversarial = content | {
        "stage": "adversarial",
        "start_from": "rrdbnet",
        "discriminator": {"width": 4, "grid": 1},
        "loss": {
            "network": "vgg16",
            "weights": "shipped",
            "layers": {"conv1_2": 1.0},
            "game": "relativistic",
        },
    }
    return {"rrdbnet": check_recipe(content), "esrgan": check_recipe(adversarial)}


@pytest.fixture(autouse=True)
def few_examples(monkeypatch):
    made = family.NeighbourEmbedding
    monkeypatch.setattr(family, "NeighbourEmbedding", lambda: made(examples=20))


def go(recipes, folder, **options):
    return train_family(folder, recipes=recipes, device="cpu", progress=False, **options)


def test_each_network_gets_its_run_and_starts_from_the_one_trained_here(recipes, tmp_path):
    assert go(recipes, tmp_path)
    for name in recipes:
        assert len(read_metrics(tmp_path / name)) == 2
        assert type(load_network(tmp_path / name / "generator.safetensors")).__name__ == "RRDBNet"
    examples = tmp_path / "neighbour_embedding" / "generator.safetensors"
    assert load_network(examples).arguments["examples"] == 20
    text = (tmp_path / "esrgan" / "recipe.yaml").read_text()
    assert f"start_from: {tmp_path / 'rrdbnet' / 'generator.safetensors'}" in text


def test_what_is_finished_is_left_alone_and_the_rest_goes_on(recipes, tmp_path):
    assert not go(recipes, tmp_path, time_budget=1e-9)  # neighbour embedding alone
    assert not (tmp_path / "rrdbnet").exists()
    first = {"rrdbnet": recipes["rrdbnet"]}
    assert go(first, tmp_path)
    kept = [
        tmp_path / "neighbour_embedding" / "generator.safetensors",
        tmp_path / "rrdbnet" / "generator.safetensors",
    ]
    before = [path.stat().st_mtime_ns for path in kept]
    assert go(recipes, tmp_path)
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert load_state(next((tmp_path / "esrgan" / "checkpoints").glob("0002*")))["epoch"] == 2
    assert go(recipes, tmp_path)


def test_recipe_with_a_mistake_stops_before_anything_is_trained(tmp_path, monkeypatch):
    for name in FAMILY[2:]:
        text = json.dumps({"stage": "content", "crops_per_epoch": 16})  # JSON is YAML
        (tmp_path / f"{name}.yaml").write_text(text if name != "ipt" else '{"stage": "third"}')
    monkeypatch.setattr(family, "shared_folder", lambda name, file: tmp_path)
    with pytest.raises(ConfigurationError, match=r"ipt\.yaml, at stage"):
        train_family(tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_family_is_on_one_protocol():
    recipes = family_recipes()
    assert tuple(recipes) == FAMILY[2:]  # what comes before isn't trained by a recipe
    alone = {name for name in recipes if name not in ("srresnet", "srgan", "esrgan")}
    assert {recipes[name].epochs * recipes[name].crops_per_epoch for name in alone} == {64_000}
    for name in alone:
        same = {"data", "epochs", "batch_size", "schedule", "pixel_loss", "average_decay"}
        for key in same:
            assert getattr(recipes[name], key) == getattr(recipes["srcnn"], key), (name, key)
    assert {recipe.data.name for recipe in recipes.values()} == {"covid19-hannover"}
    assert recipes["srgan"].start_from == "srresnet" and recipes["esrgan"].start_from == "rrdbnet"
    assert recipes["esrgan"].loss.game == "relativistic"
    assert all(layer.startswith("conv") for layer in recipes["esrgan"].loss.layers)
