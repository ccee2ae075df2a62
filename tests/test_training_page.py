"""The page about training on one's own images: what it tells readers to type works.

Its recipes, commands and Python cells are taken from the page itself. They run in a folder of
small noise images; recipes are cut down in size first, but keep all their keys.
"""

import contextlib
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
import yaml
from PIL import Image

from srgan_lib.checkpoints import load_state
from srgan_lib.cli import app
from srgan_lib.pretrained import load_network
from srgan_lib.recipes import check_recipe, read_recipe
from srgan_lib.runs import read_metrics, train

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "book" / "training.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
OWN, TUNED, GAN = (yaml.safe_load(text) for kind, text in BLOCKS if kind == "yaml")
PYTHON = [text for kind, text in BLOCKS if kind == "python"]
COLAB = [text for kind, text in BLOCKS if kind == "ipython3"]
LINES = [line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()]
LINES += [line[1:] for text in COLAB for line in text.splitlines() if line.startswith("!")]
LAUNCHED = next(line for line in LINES if line.startswith("accelerate"))
IMAGES = 12  # of which 2 are for testing and 1 is for validation
# The launchers start with nothing to inherit, and leave a core for whoever else is here.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def small(content):
    """Return a recipe with the same keys that takes seconds."""
    small = content | {"crops_per_epoch": 4, "batch_size": 2, "epochs": 2}
    small["data"] = content["data"] | {"crop_size": 32}
    if "discriminator" in content:
        small["discriminator"] = {"width": 4, "grid": 1}
    if content.get("start_from") != "srresnet":
        small["generator"] = content["generator"] | {"blocks": 1, "width": 4}
    return small


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """Return a folder as a reader has it who has typed the page up to `srgan train own.yaml`."""
    desk = tmp_path_factory.mktemp("desk")
    chance = np.random.default_rng(0)
    for folder, number in (("images", IMAGES), ("elsewhere", 1)):
        (desk / folder / "deeper").mkdir(parents=True)
        for i in range(number):
            values = chance.integers(0, 256, (72, 64), dtype=np.uint8)
            Image.fromarray(values).save(desk / folder / "deeper" / f"{i}.png")
    Image.fromarray(values[:16, :16]).save(desk / "small.png")
    for name, content in (("own", OWN), ("tuned", TUNED), ("gan", GAN)):
        text = yaml.safe_dump(small(content), sort_keys=False)
        (desk / f"{name}.yaml").write_text(text, encoding="utf-8")
    srgan(desk, "srgan train own.yaml --device cpu")
    return desk


def srgan(desk, line):
    """Run a command of the page, in this process."""
    with contextlib.chdir(desk):
        app(shlex.split(line)[1:], standalone_mode=False)


def launch(desk, command):
    """Run something that starts processes of its own."""
    done = subprocess.run(
        command,
        cwd=desk,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


# Recipes


@pytest.mark.parametrize("content", [OWN, TUNED, GAN], ids=["own", "tuned", "gan"])
def test_recipe_of_the_page_is_valid(content):
    check_recipe(content)
    check_recipe(small(content))


def test_recipe_says_what_its_comments_say():
    recipe = check_recipe(OWN)
    assert recipe.steps_per_epoch == 175 and recipe.steps == 7000
    assert check_recipe(TUNED).generator == recipe.generator == check_recipe(GAN).generator


def test_table_of_recipes_names_them_all_with_their_steps():
    rows = re.findall(r"^\| (`\w+\.yaml`.*?) \|.*\| (.*?) \|$", PAGE, re.MULTILINE)
    listed = {}
    for names, steps in rows:
        names = re.findall(r"`(\w+)\.yaml`", names)
        alike = steps.endswith(" each")
        numbers = [steps.removesuffix(" each")] * len(names) if alike else steps.split(" and ")
        pairs = zip(names, numbers, strict=True)
        listed |= {name: int(number.replace(",", "")) for name, number in pairs}
    recipes = (ROOT / "recipes").glob("*.yaml")
    assert listed == {path.stem: read_recipe(path).steps for path in recipes}


def test_time_of_the_shipped_network_is_the_one_measured():
    last = read_metrics(ROOT / "results" / "srresnet")[-1]
    assert f"its {last['step']:,} steps took {last['seconds'] / 60:.0f} minutes" in PAGE
    machine = json.loads((ROOT / "results" / "srresnet" / "environment.json").read_text())
    assert machine["threads"] == 2 and machine["device"] == "cpu"


# Commands


def commands():
    return [line for line in LINES if line.startswith("srgan ")]


def test_page_has_commands():
    assert len(commands()) >= 7
    assert all(line.startswith(("srgan ", "accelerate launch ")) for line in LINES)


@pytest.mark.parametrize("line", commands())
def test_command_of_the_page_parses(line):
    """The command and its options exist, and take the values that the page gives them."""
    _, name, *arguments = shlex.split(line)
    command = typer.main.get_command(app).commands[name]
    command.make_context(name, arguments)


def test_words_in_the_text_that_are_options_exist():
    command = typer.main.get_command(app)
    known = {name for part in command.commands.values() for p in part.params for name in p.opts}
    assert set(re.findall(r"`(--[a-z-]+)[ `]", PAGE)) <= known


def test_folder_is_counted_as_the_page_says(desk, capsys):
    srgan(desk, "srgan data images")
    shown = capsys.readouterr().out
    for part, number in (("train", 9), ("validation", 1), ("test", 2)):
        assert re.search(rf"{part}: +{number} images of {number} patients", shown)


def test_run_folder_holds_what_the_table_names(desk):
    table = PAGE.split("| file | what it holds |")[1].split("\n\n")[0]
    first = "".join(row.split("|")[1] for row in table.splitlines()[2:])
    named = re.findall(r"`([\w./]+)`", first)
    assert len(named) == 8
    run = desk / "runs" / "own"
    stage_two = {"discriminator.safetensors"}
    assert {name.rstrip("/") for name in named} - stage_two == {
        path.name for path in run.iterdir() if path.name != ".lock"
    }
    assert (run / "checkpoints" / "best.safetensors").exists()


def test_weights_are_evaluated_and_used_as_the_page_says(desk, capsys):
    for line in commands():
        if line.startswith(("srgan evaluate", "srgan upscale")):
            srgan(desk, f"{line} --device cpu")
    capsys.readouterr()
    for name, images in (("own", 2), ("elsewhere", 1)):
        found = json.loads((desk / f"{name}.json").read_text())
        assert len(found["data"]["images"]) == images
    with Image.open(desk / "enlarged" / "small_x4.png") as enlarged:
        assert enlarged.size == (64, 64)


@pytest.mark.parametrize("name", ["tuned", "gan"])
def test_other_recipes_train(desk, monkeypatch, name):
    monkeypatch.chdir(desk)
    recipe = check_recipe(yaml.safe_load((desk / f"{name}.yaml").read_text()))
    assert train(recipe, desk / "runs" / name, device="cpu", progress=False)
    lines = (desk / "runs" / name / "metrics.jsonl").read_text().splitlines()
    if name == "gan":  # the names that the warning signs use
        losses = json.loads(lines[0])["losses"]
        assert {"discriminator", "d_hr", "d_sr", "ranking", "content"} <= losses.keys()
        assert (desk / "runs" / name / "discriminator.safetensors").exists()


# Python


@pytest.mark.parametrize("cell", [cell for cell in PYTHON if "notebook_launcher" not in cell])
def test_python_of_the_page_runs(desk, monkeypatch, capsys, cell):
    monkeypatch.chdir(desk)
    exec(compile(cell, "book/training.md", "exec"), {})
    for name in re.findall(r'"([\w.]+\.(?:png|gif|safetensors))"', cell):
        assert (desk / name).stat().st_size > 0
    if "print" in cell:
        assert capsys.readouterr().out


def test_weights_out_of_the_best_checkpoint_are_those_of_the_best_epoch(desk):
    (cell,) = (cell for cell in PYTHON if "MovingAverage" in cell)
    with contextlib.chdir(desk):
        exec(compile(cell, "book/training.md", "exec"), {})
    run = desk / "runs" / "own"
    best = max(read_metrics(run), key=lambda line: line["validation"]["psnr"])["epoch"]
    state = load_state(run / "checkpoints" / f"{best:04d}-000000.safetensors")
    found = load_network(desk / "best.safetensors").state_dict()
    for name, value in state["stage"]["average"]["network"].items():
        assert torch.equal(found[name], value), name


def test_cells_for_colab_are_python_but_for_their_magic():
    assert len(COLAB) == 2
    for cell in COLAB:
        compile(re.sub(r"^[%!].*$", "", cell, flags=re.MULTILINE), "book/training.md", "exec")
    assert "srgan train own.yaml" in COLAB[1]


# Several processes: each test starts its own, which takes most of its time.


def free_port():
    """Return a port; the usual one may be taken by another training on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def processes(folder):
    return json.loads((folder / "environment.json").read_text())["processes"]


def test_launcher_of_the_page_trains_with_two_processes(desk):
    """About 20 seconds, nearly all of them for importing PyTorch three times."""
    words = shlex.split(LAUNCHED)
    module = words.index("-m")
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", *words[1:module]]
    command += ["--main_process_port", free_port(), *words[module:], "--folder", "runs/launched"]
    output = launch(desk, command)
    assert "Finished: runs/launched/generator.safetensors" in output
    assert processes(desk / "runs" / "launched") == 2


def test_notebook_launcher_of_the_page_trains_with_two_processes(desk):
    (cell,) = (cell for cell in PYTHON if "notebook_launcher(" in cell)
    assert '"runs/own"' in cell and cell.count("num_processes=2") == 1
    cell = cell.replace('"runs/own"', '"runs/notebook"')
    cell = cell.replace("num_processes=2", f'num_processes=2, use_port="{free_port()}"')
    launch(desk, [sys.executable, "-c", cell])
    assert (desk / "runs" / "notebook" / "generator.safetensors").exists()
    assert processes(desk / "runs" / "notebook") == 2


# Words


def test_messages_of_the_page_are_those_of_the_library():
    table = PAGE.split("| message | why | what to do |")[1].split("\n\n")[0]
    messages = [row.split("|")[1].strip().strip("`") for row in table.splitlines()[2:]]
    assert len(messages) >= 9
    source = "".join(path.read_text() for path in sorted((ROOT / "srgan_lib").glob("*.py")))
    source = re.sub(r'"\s*\n\s*f?"', "", source)  # strings that stand on several lines
    source = re.sub(r"\{[^{}]*\}", "*", source)  # what is filled in
    source += "Unknown data set"  # put together by srgan_lib.errors.unknown_name
    for message in messages:
        assert message.replace("'images'", "*") in source


def test_page_says_what_was_not_run():
    colab = PAGE.split("\n## On Colab\n")[1].split("\n## ")[0]
    several = PAGE.split("\n## On several GPUs\n")[1].split("\n## ")[0]
    assert "Nothing in this section has been run on Colab or on a CUDA GPU yet" in colab
    assert "Nothing was run on several GPUs yet" in several
    assert "not for diagnosis" in PAGE.lower() and "fit for diagnosis" in PAGE
