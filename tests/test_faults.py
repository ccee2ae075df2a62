"""A share of what faults.py plays, and the page that tells of the whole."""

import fuzz
import PIL.Image
import pytest
import reliability
import torch
from faults import (
    PAGE,
    cut_checkpoints,
    fill_real_disk,
    fill_simulated_disk,
    go,
    kill_and_resume,
    make_recipe,
)

from srgan_lib.checkpoints import load_state, save_state
from srgan_lib.datasets import open_dataset
from srgan_lib.errors import ConfigurationError, WeightsError
from srgan_lib.recipes import write_recipe
from srgan_lib.runs import train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return make_recipe(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory):
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert go(recipe, folder)
    return folder


def test_kills_at_random_moments(recipe, whole, tmp_path):
    found = kill_and_resume(recipe, tmp_path / "run", whole, kills=4)
    assert found["kills"] == 4 and found["while_saving"] == 2


def test_disk_that_is_full_at_a_later_write_each_time(recipe, whole, tmp_path):
    assert fill_simulated_disk(recipe, tmp_path / "run", whole, every=4) >= 5


def test_real_disk_that_is_full(recipe, whole):
    used = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    try:
        assert fill_real_disk(recipe, whole, [used // 3]) == 1
    except PermissionError:  # without root; the simulated one is always played
        assert torch.get_num_threads() == 1


def test_checkpoint_cut_at_boundaries(recipe, whole, tmp_path):
    assert cut_checkpoints(recipe, tmp_path / "run", whole, step=5 * PAGE) >= 3


def test_comparison_finds_other_weights(recipe, whole, tmp_path):
    other = recipe.model_copy(update={"seed": 1})
    with pytest.raises(AssertionError, match=r"generator\.safetensors"):
        kill_and_resume(other, tmp_path / "run", whole, kills=0)


def test_whole_checkpoint_of_another_form_is_passed_over(recipe, whole, tmp_path, capsys):
    folder = tmp_path / "run"
    while len(list((folder / "checkpoints").glob("0*"))) < 2:
        train(recipe, folder, time_budget=0, device="cpu", progress=False)
    newest = max((folder / "checkpoints").glob("0*"))
    state = load_state(newest)
    save_state(state | {"stage": {"generator": 1}}, newest)
    assert go(recipe, folder)
    assert f"{newest.name} is no state of this run" in capsys.readouterr().out
    assert (folder / "generator.safetensors").read_bytes() == (
        whole / "generator.safetensors"
    ).read_bytes()


def test_without_any_state_of_this_run_nothing_is_started_anew(recipe, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "recipe.yaml").write_text(write_recipe(recipe))
    save_state({"epoch": 1}, tmp_path / "checkpoints" / "0001-000000.safetensors")
    with pytest.raises(WeightsError, match="No checkpoint in"):
        go(recipe, tmp_path)


def test_images_that_changed_are_noticed_when_a_run_goes_on(tmp_path):
    recipe = make_recipe(tmp_path / "images")
    train(recipe, tmp_path / "run", time_budget=0, device="cpu", progress=False)
    first = open_dataset(recipe.data.name, "train").records[0].path
    data = first.read_bytes()
    PIL.Image.new("L", (48, 48)).save(first)
    with pytest.raises(ConfigurationError, match="have changed since the run in"):
        go(recipe, tmp_path / "run")
    first.write_bytes(data)
    assert go(recipe, tmp_path / "run")


# The page


def test_page_shows_what_was_counted():
    page = reliability.PAGE.read_text(encoding="utf-8")
    assert reliability.render(page, reliability.read_results()) == page


def test_page_is_written_from_the_numbers():
    page = reliability.PAGE.read_text(encoding="utf-8")
    results = reliability.read_results()
    results["interrupted"]["kills"]["content"]["kills"] = 77777
    assert "| 77777 |" in reliability.render(page, results)
    with pytest.raises(ValueError, match="no place for fuzzing"):
        reliability.render("", results)


def test_results_are_what_the_page_promises():
    results = reliability.read_results()
    played = results["fuzzing"]["played"]
    assert sum(found["inputs"] for found in played.values()) >= 100_000
    assert {name.partition(",")[0] for name in played} == set(fuzz.SHARES)
    for found in played.values():
        assert not found["findings"]
        assert found["slowest_seconds"] < fuzz.HANG
        assert found["memory_growth_mib"] <= fuzz.MEMORY / 2**20
    interrupted = results["interrupted"]
    assert sum(stage["kills"] for stage in interrupted["kills"].values()) >= 50
    assert all(stage["while_saving"] for stage in interrupted["kills"].values())
    assert interrupted["cut_and_resumed"] > 5 and interrupted["simulated_full_disks"] > 5
