"""Nothing untrusted runs: code is planted in every kind of file, and must not be run."""

import ast
import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from srgan_lib import datasets, images, recipes
from srgan_lib.architectures import SRResNet, VGGFeatures, checks
from srgan_lib.checkpoints import load_state, load_weights
from srgan_lib.cli import app
from srgan_lib.errors import ConfigurationError, SRGANError, WeightsError
from srgan_lib.pretrained import load_network
from srgan_lib.recipes import read_recipe


class Planted:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def pickles(mark):
    """Return files that run code when they are unpickled, as several programs write them."""
    torch_file, numpy_file, archive = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save({"weights": Planted(mark)}, torch_file)
    np.save(numpy_file, np.array([Planted(mark)], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("archive/data.pkl", pickle.dumps(Planted(mark)))
    plain = pickle.dumps(Planted(mark))
    return {
        "pickle": plain,
        "torch": torch_file.getvalue(),
        "numpy": numpy_file.getvalue(),
        "archive": archive.getvalue(),
        "behind a length": len(plain).to_bytes(8, "little") + plain,
    }


KINDS = tuple(pickles("x"))


def test_planted_code_would_run(tmp_path):
    pickle.loads(pickles(tmp_path / "mark")["pickle"])
    assert (tmp_path / "mark").is_dir()


@pytest.mark.parametrize("kind", KINDS)
def test_weights_and_checkpoints_with_code_are_refused(tmp_path, kind):
    path, mark = tmp_path / "w.safetensors", tmp_path / "mark"
    path.write_bytes(pickles(mark)[kind])
    network = SRResNet(blocks=1, width=2)
    for read in (load_network, load_state, lambda path: load_weights(network, path)):
        with pytest.raises(WeightsError):
            read(path)
    assert not mark.exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_vgg_weights_with_code_are_refused(tmp_path, kind, suffix):
    path, mark = tmp_path / f"vgg{suffix}", tmp_path / "mark"
    path.write_bytes(pickles(mark)[kind])
    with pytest.raises(SRGANError):
        VGGFeatures("relu1_1", "vgg16", path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "text",
    [
        "stage: !!python/object/apply:os.mkdir [{mark}]",
        "!!python/object/new:os.mkdir [{mark}]",
        "data: {{name: !!python/name:os.system }}",
        "? !!python/object/apply:os.mkdir [{mark}]\n: 1",
    ],
)
def test_code_in_a_recipe_is_refused(tmp_path, text):
    mark = tmp_path / "mark"
    (tmp_path / "r.yaml").write_text(text.format(mark=mark))
    with pytest.raises(ConfigurationError, match="is not YAML"):
        read_recipe(tmp_path / "r.yaml")
    assert not mark.exists()


def test_names_are_never_given_to_a_shell(tmp_path, monkeypatch):
    words = ["$(mkdir mark)", "`mkdir mark`", "; mkdir mark", "| mkdir mark", "__import__('os')"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "$(mkdir mark).png").write_bytes(b"x")
    for arguments in (
        ["upscale", *words, "$(mkdir mark).png", "--model", "nearest"],
        ["info", "; mkdir mark"],
        ["train", "; mkdir mark.yaml"],
    ):
        result = CliRunner().invoke(app, arguments)
        assert isinstance(result.exception, SystemExit) and result.exit_code == 1, result.output
    assert os.listdir(tmp_path) == ["$(mkdir mark).png"]


FORBIDDEN = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "pickle.load",
    "pickle.loads",
    "marshal.loads",
    "yaml.unsafe_load",
    "yaml.full_load",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "tarfile.open",
    "shutil.unpack_archive",
}


def dangers(source: str) -> list[str]:
    """Return the calls in a source that could run what a file or a user says."""
    found = []
    for call in ast.walk(ast.parse(source)):
        if isinstance(call, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in call.names] + [getattr(call, "module", None) or ""]
            found += [name for name in names if name in ("pickle", "marshal", "shelve", "dill")]
        if not isinstance(call, ast.Call):
            continue
        name = ast.unparse(call.func)
        given = {word.arg: ast.unparse(word.value) for word in call.keywords}
        if name in FORBIDDEN or name.endswith((".extractall", ".extract_all")):
            found.append(name)
        if name == "torch.load" and given.get("weights_only") != "True":
            found.append(name)
        if name == "yaml.load" and [ast.unparse(word) for word in call.args[1:]] != ["_Loader"]:
            found.append(name)
        if given.get("shell", "False") != "False" or given.get("allow_pickle", "False") != "False":
            found.append(name)
    return found


@pytest.mark.parametrize(
    "source",
    [
        "eval(x)",
        "import pickle",
        "torch.load(p)",
        "yaml.load(x, yaml.Loader)",
        "run(x, shell=True)",
    ],
)
def test_the_search_for_dangers_finds_them(source):
    assert dangers(source)


def test_the_library_holds_no_danger(root: Path):
    files = sorted((root / "srgan_lib").rglob("*.py"))
    assert len(files) > 30
    found = {path.name: dangers(path.read_text(encoding="utf-8")) for path in files}
    assert {name: calls for name, calls in found.items() if calls} == {}


def test_the_loader_of_recipes_is_a_safe_one():
    assert issubclass(recipes._Loader, yaml.SafeLoader)


def test_the_page_names_the_limits_of_the_code(root: Path):
    page = (root / "book" / "security.md").read_text(encoding="utf-8")
    table = page.partition("| what | limit |")[2].partition("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    million, gib, kib = 10**6, 2**30, 2**10
    assert [limit for _, limit, _ in rows] == [
        f"{images.MAX_PIXELS // million} million",
        f"{images.BYTES_A_PIXEL} bytes for each of these pixels, and 1 MiB",
        f"{datasets.MAX_UNPACKED // gib} GiB",
        f"{recipes.MAX_BYTES // kib} KiB",
        f"{checks.MOST_LAYERS}; {checks.MOST} each",
    ]
    assert images.MAX_PIXELS_VARIABLE in rows[0][2]
    assert datasets.MAX_UNPACKED_VARIABLE in rows[2][2]
    assert "`srgan_lib.recipes.MAX_BYTES`" in rows[3][2]
    assert f"`MOST_LAYERS`, `MOST` in `{checks.__name__}`" in rows[4][2]
    assert f"{120 * images.MAX_PIXELS // 10**9} GB at the limit" in page
