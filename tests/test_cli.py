"""The command ``srgan``: what it writes, what it says, and its exit codes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import PIL.Image
import pydicom
import pytest
import torch
from pydicom.data import get_testdata_file
from typer.testing import CliRunner

from srgan_lib import cli, runs, tiling
from srgan_lib.architectures import GENERATORS, Discriminator, Interpolation, SRResNet
from srgan_lib.checkpoints import save_weights
from srgan_lib.degradation import KERNELS, degrade, quantise
from srgan_lib.errors import ConfigurationError, SRGANError
from srgan_lib.images import read_pixels, to_pixels, write_image
from srgan_lib.metrics import psnr
from srgan_lib.pretrained import FAMILY, PRETRAINED
from srgan_lib.tiling import upscale_tiled

COMMANDS = ("data", "train", "evaluate", "upscale", "export", "info")


@pytest.fixture
def srgan(tmp_path, monkeypatch):
    """Return a function that runs the command in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments, code=0):
        result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return call


@pytest.fixture
def weights(tmp_path):
    """A tiny generator's weights."""
    torch.manual_seed(0)
    network = SRResNet(blocks=1, width=4, bicubic_skip=True, end_kernel=3)
    torch.nn.init.normal_(network.last.weight, std=0.05)
    save_weights(network, tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


def image(path, bits=8, channels=1, size=(9, 13)):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, torch.rand(channels, *size), bits)
    return path


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


# Help and exit codes


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(srgan, command):
    assert f"\n  srgan {command} " in srgan(command, "--help").output


def test_help_needs_no_pytorch():
    code = (
        "import sys; from typer.testing import CliRunner; from srgan_lib.cli import app;"
        "r = CliRunner().invoke(app, ['upscale', '--help']); assert r.exit_code == 0;"
        "print([name for name in ('torch', 'numpy', 'pydicom') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def entry_point(*arguments, **options):
    code = "import sys; from srgan_lib.cli import main; sys.argv[0] = 'srgan'; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, **options
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--help"], 0, ""),
        (["info", "srresnt"], 1, "Error: Unknown weights 'srresnt'. Did you mean 'srresnet'?"),
        (["info", "--wide"], 2, "No such option"),
        (["enlarge"], 2, "No such command"),
    ],
)
def test_exit_code_of_the_entry_point(arguments, code, message):
    run = entry_point(*arguments)
    assert run.returncode == code
    assert message in run.stderr and "Traceback" not in run.stderr
    if code == 1:
        assert run.stderr.startswith("Error: ") and run.stderr.count("\n") == 1


def test_entry_point_is_declared(root):
    assert 'srgan = "srgan_lib.cli:main"' in (root / "pyproject.toml").read_text()


def test_error_of_several_lines_becomes_one(srgan, monkeypatch):
    def fail(*args, **options):
        raise SRGANError("first\n  second")

    monkeypatch.setattr("srgan_lib.datasets.open_dataset", fail)
    assert srgan("data", "sample", code=1).stderr == "Error: first second\n"


def test_interrupt_ends_with_130(srgan, monkeypatch):
    def interrupt(*args, **options):
        raise KeyboardInterrupt("stopped by signal 2, after saving")

    monkeypatch.setattr("srgan_lib.datasets.open_dataset", interrupt)
    result = srgan("data", "sample", code=130)
    assert "stopped by signal 2, after saving" in result.stderr


def test_unforeseen_error_is_not_hidden(srgan, monkeypatch):
    def fail(*args, **options):
        raise ZeroDivisionError

    monkeypatch.setattr("srgan_lib.datasets.open_dataset", fail)
    with pytest.raises(ZeroDivisionError):
        srgan("data", "sample")


# data, train, evaluate


def test_data_says_what_is_in_each_part(srgan):
    output = re.sub(" +", " ", srgan("data", "sample").output)
    assert "train: 1 images of 1 patients" in output and "test: 1 images" in output
    assert "validation: 0 images of 0 patients" in output and "all: 2 images" in output
    assert "source: pydicom-data" in output and "licence: public test images" in output


def test_data_of_one_part_and_of_unknown_names(srgan):
    output = srgan("data", "sample", "--split", "test").output
    assert "test:" in output and "train:" not in output
    assert "Did you mean 'sample'" in srgan("data", "sampel", code=1).stderr
    assert "Did you mean 'test'" in srgan("data", "sample", "--split", "tets", code=1).stderr
    assert "holds no image" in srgan("data", "sample", "--split", "validation", code=1).stderr


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("1.5h", 5400), (" 2 m", 120)]
)
def test_durations(text, seconds):
    assert cli.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "15", "m", "-1s", "0s", "1d", "1h30m", "15 minutes"])
def test_what_is_no_duration_is_refused_with_an_example(text):
    with pytest.raises(ConfigurationError, match=r"90s, 15m or 1\.5h"):
        cli.parse_duration(text)


@pytest.fixture
def trained(monkeypatch):
    """Stand in for training; return the calls."""
    calls = []

    def train(recipe, folder, **options):
        calls.append((recipe, folder, options))
        return options["time_budget"] is None

    monkeypatch.setattr(runs, "train", train)
    return calls


RECIPE = "stage: content\ncrops_per_epoch: 32\n"


def test_train_reads_the_recipe_and_names_the_folder_after_it(srgan, tmp_path, trained):
    (tmp_path / "first.yaml").write_text(RECIPE)
    output = srgan("train", "first.yaml", "--device", "cpu").output
    ((recipe, folder, options),) = trained
    assert recipe.crops_per_epoch == 32 and folder == Path("runs/first")
    assert options["device"] == torch.device("cpu") and options["time_budget"] is None
    assert "Finished: runs/first/generator.safetensors" in output


def test_train_stops_in_time_and_says_how_to_go_on(srgan, tmp_path, trained):
    (tmp_path / "first.yaml").write_text(RECIPE)
    output = srgan("train", "first.yaml", "--time-budget", "15m", "--folder", "here").output
    assert trained[0][1:] == (Path("here"), {"time_budget": 900, "device": None})
    assert "To go on" in output and "--folder here" in output


def test_train_family_trains_all_into_one_folder(srgan, monkeypatch):
    calls = []

    def train_family(folder, **options):
        calls.append((folder, options))
        return len(calls) > 1

    monkeypatch.setattr("srgan_lib.family.train_family", train_family)
    output = srgan("train", "--family", "--time-budget", "1h", "--device", "cpu").output
    assert calls == [(Path("runs/family"), {"time_budget": 3600, "device": torch.device("cpu")})]
    assert "To go on, run the same command again with --folder runs/family" in output
    assert "Finished: here\n" in srgan("train", "--family", "--folder", "here").output


@pytest.mark.parametrize("arguments", [(), ("first.yaml", "--family")])
def test_train_takes_a_recipe_or_the_family(srgan, trained, arguments):
    assert "Name a recipe, or give --family" in srgan("train", *arguments, code=2).stderr
    assert trained == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["missing.yaml"], "Could not read the recipe missing.yaml"),
        (["first.yaml", "--time-budget", "soon"], "'soon' is no duration"),
        (["first.yaml", "--device", "cdua"], "Did you mean 'cuda'"),
        (["first.yaml", "--device", "cuda:99"], "no device 'cuda:99' here"),
    ],
)
def test_train_refuses_wrong_input_before_it_starts(srgan, tmp_path, trained, options, message):
    (tmp_path / "first.yaml").write_text(RECIPE)
    assert message in srgan("train", *options, code=1).stderr
    assert trained == []


@pytest.fixture
def measured(monkeypatch):
    """Stand in for srgan_lib.results; return the calls."""
    calls = []
    module = types.ModuleType("srgan_lib.results")

    def measure(models, dataset, *, device=None, cost=False, throws=0, progress=True):
        calls.append((models, dataset.name, dataset.split, dataset.channels, device))
        return {"models": models, "cost": cost} | ({"throws": throws} if throws else {})

    module.measure = measure
    module.write_results = lambda results, path: Path(path).write_text(json.dumps(results))
    module.results_table = lambda results: f"| table of {len(results['models'])} |"
    module.throws_table = lambda results: f"| dice, by {results['throws']} |"
    module.cost_table = lambda results: f"| costs of {len(results['models'])} |"
    monkeypatch.setitem(sys.modules, "srgan_lib.results", module)
    return calls


def test_evaluate_measures_prints_and_writes(srgan, tmp_path, measured):
    models = ["bicubic", "tiny.safetensors"]
    options = [part for model in models for part in ("--model", model)]
    result = srgan("evaluate", *options, "--data", "sample", "--out", "r.json", "--device", "cpu")
    assert measured == [(models, "sample", "test", 1, torch.device("cpu"))]
    assert "| table of 2 |" in result.output
    assert json.loads((tmp_path / "r.json").read_text()) == {"models": models, "cost": False}
    assert "costs" not in result.output


def test_evaluate_measures_the_family_with_its_costs(srgan, tmp_path, measured):
    options = ["--family", "--cost", "--model", "nearest", "--data", "sample"]
    result = srgan("evaluate", *options)
    assert measured[0][0] == [*FAMILY, "nearest"]
    assert f"| costs of {len(FAMILY) + 1} |" in result.output


def test_evaluate_measures_colour(srgan, tmp_path):
    """Colour that grey hides: the luma of red and green noise may be flat."""
    chance = torch.Generator().manual_seed(0)
    lr = torch.rand(1, 3, 16, 20, generator=chance)
    hr = quantise(Interpolation("bicubic")(lr)[0] + 0.1 * torch.rand(3, 64, 80, generator=chance))
    (tmp_path / "colour").mkdir()
    write_image(tmp_path / "colour" / "a.png", hr)
    options = ["--model", "bicubic", "--data", "colour", "--split", "all", "--device", "cpu"]
    found = {}
    for channels in (1, 3):
        out = f"{channels}.json"
        srgan("evaluate", *options, "--channels", str(channels), "--out", out)
        found[channels] = json.loads((tmp_path / out).read_text())["methods"]["bicubic"]["mean"]
    sr = quantise(Interpolation("bicubic")(degrade(hr)[None])[0])
    assert found[3]["psnr"] == pytest.approx(psnr(sr, hr), abs=1e-3)  # of luma, 16 to 235
    assert found[3]["psnr"] > found[1]["psnr"] + 1  # 20 log10(255 / 219) is 1.32 dB
    assert "must be 1 or 3" in srgan("evaluate", *options, "--channels", "2", code=2).stderr


def test_evaluate_prints_the_published_value_of_set5(srgan):
    folder = Path(os.environ.get("SRGAN_DATA_DIR") or "nowhere") / "set5"
    if not folder.is_dir():
        pytest.skip("SRGAN_DATA_DIR names no folder that holds set5")
    options = ["--model", "bicubic", "--data", str(folder), "--split", "all", "--channels", "3"]
    assert "| bicubic | 28.43 [" in srgan("evaluate", *options, "--device", "cpu").output


def test_evaluate_measures_the_dice_when_asked(srgan, measured):
    assert "dice" not in srgan("evaluate", "--data", "sample").output
    assert "| dice, by 32 |" in srgan("evaluate", "--data", "sample", "--throws", 32).output
    assert "0, or 2 and more" in srgan("evaluate", "--data", "sample", "--throws", 1, code=2).stderr
    assert len(measured) == 2


def test_evaluate_has_models_of_its_own(srgan, measured):
    srgan("evaluate", "--data", "sample")
    assert measured[0][0] == ["bicubic", "srresnet", "srgan"]


# upscale


@pytest.mark.parametrize(
    ("name", "bits", "channels", "written"),
    [
        ("a.png", 8, 1, "a_x4.png"),
        ("a.png", 16, 1, "a_x4.png"),
        ("a.png", 8, 3, "a_x4.png"),
        ("a.png", 16, 3, "a_x4.png"),
        ("a.tif", 8, 1, "a_x4.tif"),
        ("a.tiff", 16, 3, "a_x4.tiff"),
        ("a.jpg", 8, 1, "a_x4.png"),
        ("a.JPEG", 8, 3, "a_x4.png"),
    ],
)
def test_upscale_keeps_bits_channels_and_values(
    srgan, tmp_path, weights, name, bits, channels, written
):
    source = image(tmp_path / name, bits, channels)
    srgan("upscale", name, "--model", weights, "--precision", "no", "--tile", 6)
    assert files_below(tmp_path / "upscaled") == [written]
    found = read_pixels(tmp_path / "upscaled" / written)
    assert found.bits == bits and found.values.shape == (channels, 36, 52)
    network = cli._load(str(weights))
    expected = upscale_tiled(network, read_pixels(source).to_float(), bits=bits, precision="no")
    assert (found.values.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize(("format", "suffix"), [("png", "png"), ("tiff", "tiff"), ("jpg", "jpg")])
def test_upscale_writes_another_format_when_asked(srgan, tmp_path, format, suffix):
    image(tmp_path / "a.jpg")
    srgan("upscale", "a.jpg", "--model", "bicubic", "--format", format)
    magic = {"png": b"\x89PNG", "tiff": b"II*\0", "jpg": b"\xff\xd8"}[format]
    assert (tmp_path / f"upscaled/a_x4.{suffix}").read_bytes().startswith(magic)


@pytest.mark.parametrize("format", ["png", "tiff", "jpg"])
def test_upscale_marks_its_images_as_synthetic(srgan, tmp_path, format):
    image(tmp_path / "a.png")
    (tmp_path / "weights").mkdir()
    network = SRResNet(blocks=1, width=2)
    save_weights(network, tmp_path / "weights" / "mür.safetensors")
    srgan("upscale", "a.png", "--model", "weights/mür.safetensors", "--format", format)
    with PIL.Image.open(tmp_path / f"upscaled/a_x4.{format}") as found:
        texts = {"png": found.info.get("Comment"), "jpg": found.info.get("comment")}
        text = found.tag_v2[270] if format == "tiff" else texts[format]
    text = text if isinstance(text, str) else text.decode()
    assert "model m?r of srgan_lib" in text and text.endswith("Not for diagnosis.")


def test_upscale_writes_no_jpeg_of_16_bits(srgan, tmp_path):
    image(tmp_path / "a.png", bits=16)
    result = srgan("upscale", "a.png", "--model", "bicubic", "--format", "jpg", code=1)
    assert "a_x4.jpg: JPEG holds 8 bits only" in result.stderr
    assert not (tmp_path / "upscaled").exists()


def test_upscale_by_an_interpolation_is_that_interpolation(srgan, tmp_path):
    source = image(tmp_path / "a.png")
    result = srgan("upscale", "a.png", "--model", "bilinear")
    expected = Interpolation("bilinear", 4)(read_pixels(source).to_float()[None])[0]
    found = read_pixels(tmp_path / "upscaled/a_x4.png")
    assert (found.values.int() - to_pixels(expected).values.int()).abs().max() <= 1
    assert "not for diagnosis" not in result.stderr.lower()


def test_upscale_says_once_what_the_images_are_not_for(srgan, tmp_path, weights):
    image(tmp_path / "a.png")
    image(tmp_path / "b.png")
    result = srgan("upscale", "a.png", "b.png", "--model", weights)
    assert result.stderr.count("Not for diagnosis") == 1
    assert "Enlarged 2 of 2 images" in result.output


def test_upscale_takes_the_network_s_own_scale(srgan, tmp_path):
    save_weights(SRResNet(blocks=1, width=2, scale=2), tmp_path / "two.safetensors")
    image(tmp_path / "a.png", size=(5, 6))
    srgan("upscale", "a.png", "--model", "two.safetensors")
    assert read_pixels(tmp_path / "upscaled/a_x2.png").values.shape == (1, 10, 12)


SMALL = {
    "SRCNN": {"widths": (4, 2)},
    "ESPCN": {"widths": (4, 2)},
    "DRCN": {"width": 4, "recursions": 2},
    "SRResNet": {"blocks": 1, "width": 4},
    "RRDBNet": {"blocks": 1, "width": 4, "growth": 2},
    "SwinIR": {"depths": (2,), "width": 4, "heads": 2, "window": 4},
    "IPT": {"width": 4, "patch": 2, "depth": 1, "heads": 2, "crop": 6, "overlap": 2},
}


@pytest.mark.parametrize("name", GENERATORS)
def test_upscale_and_info_take_each_generator(srgan, tmp_path, name):
    network = GENERATORS[name](scale=2, **SMALL[name]).eval()
    save_weights(network, tmp_path / "own.safetensors")
    source = image(tmp_path / "a.png", bits=16)
    srgan("upscale", "a.png", "--model", "own.safetensors", "--tile", 5, "--precision", "no")
    found = read_pixels(tmp_path / "upscaled/a_x2.png")
    with torch.no_grad():
        expected = to_pixels(network(read_pixels(source).to_float()[None])[0], 16)
    assert (found.values.int() - expected.values.int()).abs().max() <= 1
    output = srgan("info", "own.safetensors").output
    assert f"architecture: {name}" in output and "scale: 2" in output


def test_unknown_models_are_answered_with_what_there_is(srgan, tmp_path):
    image(tmp_path / "a.png")
    for command in (["upscale", "a.png"], ["export", "--out", "a.onnx"]):
        error = srgan(*command, "--model", "bicubci", code=1).stderr
        assert "Did you mean 'bicubic'?" in error
        assert set(error.split("Known: ")[1].rstrip(".\n").split(", ")) >= {
            *PRETRAINED,
            *KERNELS,
        }


def test_upscale_searches_folders_and_mirrors_them(srgan, tmp_path):
    for name in ("in/a.png", "in/b/c.tif", "in/b/d/e.JPG"):
        image(tmp_path / name)
    (tmp_path / "in/notes.txt").write_text("no image")
    image(tmp_path / "single.png")
    srgan("upscale", "in", "single.png", "--model", "nearest", "--out", "in/out")
    expected = ["a_x4.png", "b/c_x4.tif", "b/d/e_x4.png", "single_x4.png"]
    assert files_below(tmp_path / "in/out") == expected
    again = srgan("upscale", "in", "--model", "nearest", "--out", "in/out", "--overwrite")
    assert "Enlarged 3 of 3 images" in again.output  # not those that it had made itself
    assert files_below(tmp_path / "in/out") == expected


def test_upscale_may_write_above_the_input(srgan, tmp_path):
    image(tmp_path / "out/in/a.png")
    srgan("upscale", "out/in", "--model", "nearest", "--out", "out")
    assert files_below(tmp_path / "out") == ["a_x4.png", "in/a.png"]


def test_upscale_overwrites_only_when_asked(srgan, tmp_path):
    image(tmp_path / "a.png")
    (tmp_path / "upscaled").mkdir()
    target = tmp_path / "upscaled/a_x4.png"
    target.write_bytes(b"mine")
    result = srgan("upscale", "a.png", "--model", "nearest", code=1)
    assert "a_x4.png is there already; --overwrite replaces it" in result.stderr
    assert target.read_bytes() == b"mine"
    srgan("upscale", "a.png", "--model", "nearest", "--overwrite")
    assert read_pixels(target).values.shape == (1, 36, 52)


def test_upscale_never_writes_over_its_own_results_or_inputs(srgan, tmp_path):
    image(tmp_path / "one/a.png")
    image(tmp_path / "two/a.png", size=(5, 5))
    result = srgan("upscale", "one", "two", "--model", "nearest", "--overwrite", code=1)
    assert "was just made from one/a.png" in result.stderr
    assert read_pixels(tmp_path / "upscaled/a_x4.png").values.shape == (1, 36, 52)
    taken = image(tmp_path / "one/a_x4.png")
    before = taken.read_bytes()
    result = srgan("upscale", "one", "--model", "nearest", "--overwrite", "--out", "one", code=1)
    assert "is itself among the inputs" in result.stderr
    assert taken.read_bytes() == before


def test_upscale_names_bad_files_and_goes_on(srgan, tmp_path):
    for name in ("in/1.png", "in/3.png"):
        image(tmp_path / name)
    (tmp_path / "in/2.png").write_bytes(b"broken")
    (tmp_path / "empty").mkdir()
    result = srgan("upscale", "missing.png", "in", "empty", "--model", "nearest", code=1)
    assert files_below(tmp_path / "upscaled") == ["1_x4.png", "3_x4.png"]
    assert "Error: Could not read missing.png: No such file" in result.stderr
    assert "Error: Could not read in/2.png: it is not a PNG" in result.stderr
    assert "Error: empty holds no image" in result.stderr
    assert "Error: 3 of the inputs could not be enlarged" in result.stderr
    assert "Enlarged 2 of 4 images" in result.output


def test_upscale_names_the_file_that_memory_is_too_small_for(srgan, tmp_path, monkeypatch):
    image(tmp_path / "1.png", size=(8, 8))
    image(tmp_path / "2.png")
    real = tiling.upscale_tiled

    def full(network, lr, **options):
        if lr.shape[-1] == 8:
            raise SRGANError("The GPU is out of memory with tiles of 50 pixels.")
        return real(network, lr, **options)

    monkeypatch.setattr(tiling, "upscale_tiled", full)
    result = srgan("upscale", "1.png", "2.png", "--model", "nearest", code=1)
    assert "Error: 1.png: The GPU is out of memory" in result.stderr
    assert files_below(tmp_path / "upscaled") == ["2_x4.png"]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["a.png", "--model", "bicubci"], 1, "Did you mean 'bicubic'"),
        (["a.png", "--model", "no.safetensors"], 1, "no weights in no.safetensors"),
        (["a.png", "--model", "discriminator.safetensors"], 1, "only a generator enlarges"),
        (["a.png", "--model", "bicubic", "--out", "a.png"], 1, "a.png is a file"),
        (["a.png", "--model", "bicubic", "--tile", "0"], 2, "--tile"),
        (["a.png", "--model", "bicubic", "--format", "gif"], 2, "--format"),
        ([], 2, "Missing argument"),
    ],
)
def test_upscale_refuses_wrong_options_at_once(srgan, tmp_path, options, code, message):
    save_weights(Discriminator(width=2), tmp_path / "discriminator.safetensors")
    image(tmp_path / "a.png")
    assert message in srgan("upscale", *options, code=code).stderr
    assert not (tmp_path / "upscaled").exists()


def small_dicom(path, name="MR_small.dcm"):
    shutil.copy(get_testdata_file(name, download=False), path)
    return pydicom.dcmread(path)


@pytest.mark.parametrize("keep", [False, True])
def test_upscale_gives_dicom_for_dicom(srgan, tmp_path, weights, keep):
    original = small_dicom(tmp_path / "a.dcm")
    srgan("upscale", "a.dcm", "--model", weights, *["--keep-patient"] * keep)
    path = tmp_path / "upscaled/a_x4.dcm"
    dataset = pydicom.dcmread(path)
    lr = read_pixels(tmp_path / "a.dcm").to_float()
    expected = upscale_tiled(cli._load(str(weights)), lr, bits=16)
    assert torch.equal(read_pixels(path).values, expected)
    assert dataset.PixelSpacing[0] == pytest.approx(original.PixelSpacing[0] / 4)
    assert "model tiny of" in dataset.ImageComments
    assert (dataset.PatientName == original.PatientName) == keep


def test_upscale_knows_dicom_by_its_content(srgan, tmp_path):
    small_dicom(tmp_path / "scan")
    image(tmp_path / "real.png").rename(tmp_path / "false.dcm")
    srgan("upscale", "scan", "false.dcm", "--model", "bicubic")
    assert files_below(tmp_path / "upscaled") == ["false_x4.png", "scan_x4.dcm"]


def test_upscale_finds_dicom_files_of_any_name_in_folders(srgan, tmp_path):
    (tmp_path / "study").mkdir()
    for name in ("1.2.840.1", "1.2.840.2", "IM0001", "DICOMDIR"):
        small_dicom(tmp_path / "study" / name)
    (tmp_path / "study" / "notes").write_text("no image")
    srgan("upscale", "study", "--model", "bicubic")
    expected = ["1.2.840.1_x4.dcm", "1.2.840.2_x4.dcm", "IM0001_x4.dcm"]
    assert files_below(tmp_path / "upscaled") == expected


def test_upscale_turns_dicom_into_png_and_png_into_dicom(srgan, tmp_path):
    small_dicom(tmp_path / "a.dcm")
    image(tmp_path / "b.png", channels=3)
    srgan("upscale", "a.dcm", "--model", "bicubic", "--format", "png")
    assert read_pixels(tmp_path / "upscaled/a_x4.png").bits == 16
    srgan("upscale", "b.png", "--model", "bicubic", "--format", "dcm")
    dataset = pydicom.dcmread(tmp_path / "upscaled/b_x4.dcm")
    assert dataset.PhotometricInterpretation == "RGB" and dataset.PatientName == "ANONYMOUS"
    assert "SourceImageSequence" not in dataset


def test_upscale_that_is_interrupted_leaves_whole_files_only(tmp_path):
    image(tmp_path / "1.png")
    code = (
        "import os, signal, sys\n"
        "from srgan_lib import cli, tiling\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # off in background jobs\n"
        "real, calls = tiling.upscale_tiled, []\n"
        "def slow(*args, **options):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 2: os.kill(os.getpid(), signal.SIGINT)\n"
        "    return real(*args, **options)\n"
        "tiling.upscale_tiled = slow\n"
        "cli.main()\n"
    )
    image(tmp_path / "2.png")
    arguments = ["upscale", "1.png", "2.png", "--model", "nearest"]
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=tmp_path
    )
    assert run.returncode == 130 and "Interrupted" in run.stderr
    assert "Traceback" not in run.stderr and signal.SIGINT == 2
    assert os.listdir(tmp_path / "upscaled") == ["1_x4.png"]


def test_written_files_are_those_of_other_readers(srgan, tmp_path):
    image(tmp_path / "a.png", channels=3)
    for format in ("png", "tiff"):
        srgan("upscale", "a.png", "--model", "nearest", "--format", format)
        found = np.asarray(PIL.Image.open(tmp_path / f"upscaled/a_x4.{format}"))
        lr = np.asarray(PIL.Image.open(tmp_path / "a.png"))
        assert np.array_equal(found, lr.repeat(4, axis=0).repeat(4, axis=1))


# upscale by a network that throws dice


@pytest.fixture
def dice(tmp_path):
    """Weights of a tiny generator with noise inputs."""
    torch.manual_seed(0)
    network = SRResNet(
        blocks=1, width=4, batch_norm=False, bicubic_skip=True, end_kernel=3, noise=True
    )
    for name, parameter in network.named_parameters():
        if "gain" in name or name.startswith("last"):
            torch.nn.init.normal_(parameter, std=0.1)
    save_weights(network, tmp_path / "dice.safetensors")
    return tmp_path / "dice.safetensors"


def comment(path):
    with PIL.Image.open(path) as found:
        return found.info["Comment"]


@pytest.mark.parametrize("bits", [8, 16])
def test_upscale_takes_the_seed_and_nothing_else_by_chance(srgan, tmp_path, dice, bits):
    source = image(tmp_path / "a.png", bits)
    options = ["--model", dice, "--precision", "no", "--tile", 6]
    found = {}
    for name, seed in {"first": [], "again": ["--seed", 0], "other": ["--seed", 5]}.items():
        srgan("upscale", "a.png", *options, *seed, "--out", name)
        found[name] = read_pixels(tmp_path / name / "a_x4.png").values.int()
        expected = upscale_tiled(
            cli._load(str(dice)),
            read_pixels(source).to_float(),
            bits=bits,
            precision="no",
            seed=int(seed[1]) if seed else 0,
        )
        assert (found[name] - expected.int()).abs().max() <= 1
        torch.rand(3)
    assert torch.equal(found["first"], found["again"])
    assert (found["first"] != found["other"]).float().mean() > 0.5
    assert "This is the throw with seed 0. Details" in comment(tmp_path / "first/a_x4.png")
    assert "This is the throw with seed 5. Details" in comment(tmp_path / "other/a_x4.png")


def test_samples_are_throws_with_their_mean_and_their_deviation(srgan, tmp_path, dice):
    source = image(tmp_path / "in/a.png", 16)
    options = ["--model", dice, "--precision", "no"]
    result = srgan("upscale", "in", *options, "--samples", 10, "--seed", 3)
    assert "Enlarged 1 of 1 images" in result.output
    names = [f"a_x4_throw{k:02}.png" for k in range(1, 11)]
    assert files_below(tmp_path / "upscaled") == sorted(
        [*names, "a_x4_mean.png", "a_x4_deviation.png"]
    )
    thrown = []
    for k, name in enumerate(names):
        thrown.append(read_pixels(tmp_path / "upscaled" / name).to_float().double())
        alone = upscale_tiled(
            cli._load(str(dice)),
            read_pixels(source).to_float(),
            bits=16,
            precision="no",
            seed=3 + k,
        )
        assert torch.equal(read_pixels(tmp_path / "upscaled" / name).values, alone)
        assert f"throw {k + 1} of 10, seed {3 + k}." in comment(tmp_path / "upscaled" / name)
    stacked = torch.stack(thrown)
    mean, deviation = tmp_path / "upscaled/a_x4_mean.png", tmp_path / "upscaled/a_x4_deviation.png"
    level = 1.5 / 65535
    assert (read_pixels(mean).to_float() - stacked.mean(0)).abs().max() < level
    expected = (10 * stacked.std(0)).clamp(max=1)
    assert expected.std() > 0.01 and expected.min() < 1
    assert (read_pixels(deviation).to_float() - expected).abs().max() < 10 * level
    assert "This is the mean of 10 throws, seeds from 3." in comment(mean)
    text = comment(deviation)
    assert "the deviation of 10 throws, seeds from 3; grey is 10 times the standard dev" in text
    for path in (mean, deviation):
        assert comment(path).startswith("Synthetic") and comment(path).endswith("diagnosis.")


def test_samples_of_dicom_are_dicom_and_say_what_they_are(srgan, tmp_path, dice):
    small_dicom(tmp_path / "a.dcm")
    srgan("upscale", "a.dcm", "--model", dice, "--samples", 2, "--seed", 2**32 - 1)
    told = {
        "throw1": "throw 1 of 2, seed 4294967295",
        "throw2": "throw 2 of 2, seed 0",
        "mean": "the mean of 2 throws, seeds from 4294967295",
        "deviation": "the deviation of 2 throws, seeds from 4294967295; grey is 10 times",
    }
    for name, what in told.items():
        dataset = pydicom.dcmread(tmp_path / f"upscaled/a_x4_{name}.dcm")
        assert dataset.ImageType == ["DERIVED", "SECONDARY"] and dataset.ConversionType == "SYN"
        assert what in dataset.DerivationDescription and what in dataset.ImageComments
        assert f"not for diagnosis: {what[:25]}" in dataset.SeriesDescription
        assert dataset.PatientName == "ANONYMOUS"


@pytest.mark.parametrize("model", ["bicubic", "tiny.safetensors"])
def test_samples_need_a_model_that_throws_dice(srgan, tmp_path, weights, model):
    image(tmp_path / "a.png")
    result = srgan("upscale", "a.png", "missing.png", "--model", model, "--samples", 4, code=1)
    assert "throws no dice: it has one result for an image" in result.stderr
    assert result.stderr.count("\n") == 1 and not (tmp_path / "upscaled").exists()


def test_no_sample_is_written_over_anything(srgan, tmp_path, dice, monkeypatch):
    image(tmp_path / "a.png")
    (tmp_path / "upscaled").mkdir()
    taken = tmp_path / "upscaled/a_x4_deviation.png"
    taken.write_bytes(b"mine")
    monkeypatch.setattr(tiling, "upscale_tiled", lambda *args, **options: pytest.fail("computed"))
    result = srgan("upscale", "a.png", "--model", dice, "--samples", 2, code=1)
    assert "a_x4_deviation.png is there already; --overwrite replaces it" in result.stderr
    assert taken.read_bytes() == b"mine" and files_below(tmp_path / "upscaled") == [taken.name]
    image(tmp_path / "in/a.png")
    image(tmp_path / "in/a_x4_throw2.png")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    options = ["--model", dice, "--samples", 2, "--overwrite", "--out", "in"]
    result = srgan("upscale", "in/a.png", "in/a_x4_throw2.png", *options, code=1)
    assert "in/a.png: in/a_x4_throw2.png is itself among the inputs" in result.stderr


@pytest.mark.parametrize(
    "options", [["--seed", -1], ["--seed", 2**32], ["--samples", 1], ["--seed", "one"]]
)
def test_impossible_seeds_and_samples_are_wrong_usage(srgan, tmp_path, dice, options):
    image(tmp_path / "a.png")
    assert options[0] in srgan("upscale", "a.png", "--model", dice, *options, code=2).stderr


# export, info


def test_export_writes_a_model(srgan, tmp_path, weights):
    pytest.importorskip("onnxscript")
    onnx = pytest.importorskip("onnx")
    assert "Written: tiny.onnx" in srgan("export", "--model", weights, "--out", "tiny.onnx").output
    onnx.checker.check_model(str(tmp_path / "tiny.onnx"))


def test_info_shows_versions_device_and_models(srgan):
    output = srgan("info").output
    for line in (
        f"torch: {torch.__version__}",
        "device: ",
        "precision: ",
        "  srgan (",
        "bicubic",
    ):
        assert line in output


def test_info_describes_weights(srgan, weights):
    output = srgan("info", weights).output
    count = sum(parameter.numel() for parameter in cli._load(str(weights)).parameters())
    assert "architecture: SRResNet" in output and "end_kernel: 3" in output
    assert f"parameters: {count:,}" in output
