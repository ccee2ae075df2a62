"""The notebooks' first cell, and all notebooks as Colab would run them.

The tests with the mark `colab` make an environment with other versions of torch and numpy than
the lock's, a stand-in for Colab's own module in it, and a git repository of this working tree, from
which the first cell installs the package. They load several GB from the package index, so they run
only when asked for: `make colab`.
"""

import asyncio
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from first_cell import (
    UNSET,
    colab_metadata,
    current_address,
    first_cell,
    notebooks,
    write_first_cell,
)
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from write_environment import locked_versions

from srgan_lib import colab

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ROOT / "tests" / "colab_packages.txt"
ADDRESS = "https://github.com/somebody/a-course"


# The cell


def run_cell(source: str, *, on_colab: bool) -> str:
    """Run a first cell in IPython, with `%pip` repeating what it was told; return what it says."""
    program = f"""
import sys, types
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell()
shell.register_magic_function(lambda line: print("pip", line), "line", "pip")
fake = types.ModuleType("srgan_lib.colab")
fake.check_runtime = lambda: print("checked")
sys.modules["srgan_lib.colab"] = fake
if {on_colab}:
    sys.modules["google.colab"] = types.ModuleType("google.colab")
shell.run_cell({source!r}).raise_error()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_cell_does_nothing_elsewhere() -> None:
    for url in (UNSET, ADDRESS):
        assert run_cell(first_cell(url), on_colab=False) == ""


def test_cell_installs_from_the_repository_s_address_and_then_checks() -> None:
    listed, installed, checked = run_cell(first_cell(ADDRESS), on_colab=True).splitlines()
    assert listed == "pip list --format=freeze > what-colab-has.txt"
    wanted = f'"srgan-lib @ git+{ADDRESS}"'
    # Of pip's many lines the last ones matter: what was installed, or which packages conflict.
    assert installed == f"pip install --constraint what-colab-has.txt {wanted} | tail -n 12"
    assert checked == "checked"


def test_cell_says_that_the_address_is_not_set_and_installs_nothing() -> None:
    said = run_cell(first_cell(UNSET), on_colab=True)
    assert "make set-repository URL=https://github.com/owner/name" in said
    assert "pip" not in said and "checked" not in said
    assert UNSET not in first_cell(UNSET)


def test_every_notebook_has_cell_and_metadata_as_the_script_writes_them(tmp_path: Path) -> None:
    for path in notebooks(ROOT):
        copied = shutil.copy(path, tmp_path)
        assert not write_first_cell(Path(copied), current_address()), (
            f"{path.name}: run python tools/first_cell.py"
        )


def test_colab_is_asked_for_a_gpu_where_the_library_trains() -> None:
    course = (ROOT / "notebooks").glob("*.ipynb")
    read = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in course}
    asked = [name for name, book in read.items() if book["metadata"].get("accelerator") == "GPU"]
    assert {"03_generator", "06_adversarial_training"} <= set(asked)
    assert "01_data_preparation" not in asked


@pytest.mark.parametrize(
    ("line", "trains"),
    [
        ("history = pretrain(net, crops, 3)", True),
        ("train_gan(g, d)", True),
        ("from srgan_lib.training import pretrain", False),
        ("# pretrain(net) would train", False),
        ("show_source(pretrain)", False),
    ],
)
def test_rule_for_the_gpu(line: str, trains: bool) -> None:
    notebook = {"cells": [{"cell_type": "code", "source": [line]}]}
    assert (colab_metadata(notebook).get("accelerator") == "GPU") is trains


def test_cell_is_put_where_it_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "new.ipynb"
    cells = [nbformat.v4.new_markdown_cell("# Title"), nbformat.v4.new_code_cell("1")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    assert write_first_cell(path, ADDRESS)
    kinds = [(c["cell_type"], c["id"]) for c in json.loads(path.read_text())["cells"]]
    assert kinds[1] == ("code", "colab") and len(kinds) == 3
    assert not write_first_cell(path, ADDRESS)
    nbformat.validate(nbformat.read(path, as_version=4))


def test_results_that_notebooks_read_are_installed_with_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    installed = project["tool"]["setuptools"]["data-files"]
    named = set()
    for path in notebooks(ROOT):
        code = "".join(
            "".join(cell["source"])
            for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
            if cell["cell_type"] == "code"
        )
        named |= set(re.findall(r"results_folder\(\) / \"(\w+)\"", code))
    assert {"srresnet", "srgan"} <= named
    for name in named:
        assert installed.get(f"share/srgan-lib/results/{name}") == [f"results/{name}/*"], name


# The look at the machine


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH, for a stand-in of NVIDIA's tool."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "nvidia-smi"


def nvidia_smi(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_machine_without_gpu(driver: Path, capsys: pytest.CaptureFixture[str]) -> None:
    colab.check_runtime()
    said = capsys.readouterr().out
    assert said.startswith("GPU: none\nMemory: ")
    assert "Profile: quick." in said and "T4 GPU" in said
    assert f"torch {importlib.metadata.version('torch')}, torchvision" in said
    assert f"numpy {importlib.metadata.version('numpy')}" in said


def test_machine_with_gpu(driver: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nvidia_smi(driver, "echo 'Tesla T4, 15360 MiB'; echo 'Tesla T4, 15360 MiB'")
    colab.check_runtime()
    said = capsys.readouterr().out
    assert said.startswith("GPU: Tesla T4, 15360 MiB\n")
    assert "Profile: colab." in said and "recipes/colab_*.yaml" in said


@pytest.mark.parametrize("text", ["echo 'No devices were found' >&2; exit 6", "true"])
def test_driver_without_gpu(driver: Path, text: str) -> None:
    nvidia_smi(driver, text)
    assert colab.graphics_card() is None


def test_too_little_memory_and_a_wrong_version_are_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needs = ["torch>=99", "no-such-package>=1", "numpy>=1.26", "rare>=1 ; extra == 'onnx'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: needs)
    monkeypatch.setattr(colab, "memory_size", lambda: 1.9)
    colab.check_runtime()
    said = capsys.readouterr().out
    torch = importlib.metadata.version("torch")
    assert "Too little memory: the notebooks want 4 GiB." in said
    assert f"Does not fit: torch {torch}, and srgan-lib wants >=99." in said
    assert "Does not fit: no-such-package is missing." in said
    assert "numpy wants" not in said and "rare" not in said


def test_check_is_quick_and_does_not_import_torch() -> None:
    program = (
        "import sys; from srgan_lib.colab import check_runtime; check_runtime(); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=10)


# As on Colab

STARTUP = "import google.colab\n"


def versions(python: Path) -> dict[str, str]:
    """Every installed package with its version."""
    program = (
        "import importlib.metadata as m, json;"
        "print(json.dumps({d.name: d.version for d in m.distributions()}))"
    )
    return json.loads(subprocess.check_output([python, "-I", "-c", program], text=True))


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository of the files that git tracks here, as they are now."""
    copy = tmp_path_factory.mktemp("origin") / "course"
    listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    git = ["git", "-C", str(copy), "-c", "user.name=test", "-c", "user.email=test@localhost"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "The course"]):
        subprocess.run([*git, *arguments], check=True)
    return copy


@pytest.fixture(scope="session")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The Python of an environment like Colab's: other versions, and a module google.colab."""
    folder = tmp_path_factory.mktemp("colab")
    python = folder / "bin" / "python"
    uv = [sys.executable, "-m", "uv"]
    subprocess.run(
        [*uv, "venv", "-q", "--allow-existing", "-p", sys.executable, folder], check=True
    )
    subprocess.run([*uv, "pip", "install", "-q", "-p", python, "-r", PACKAGES], check=True)
    (module,) = folder.glob("lib/python*/site-packages")
    (module / "google" / "colab").mkdir(parents=True)
    (module / "google" / "colab" / "__init__.py").touch()
    startup = folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "colab.py").write_text(STARTUP)
    kernel = folder / "kernels" / "colab"
    kernel.mkdir(parents=True)
    command = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": "Colab", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    yield python
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def before(runtime: Path) -> dict[str, str]:
    """What the environment has before any notebook ran."""
    found = versions(runtime)
    for name in ("torch", "numpy"):
        assert found[name] != locked_versions()[name], f"{name} is the lock's"
    assert "srgan-lib" not in found
    return found


@pytest.mark.colab
@pytest.mark.parametrize("path", notebooks(ROOT), ids=lambda path: path.stem)
def test_notebook_on_colab(
    path: Path, repository: Path, runtime: Path, before: dict[str, str], tmp_path: Path
) -> None:
    copied = Path(shutil.copy(path, tmp_path))
    write_first_cell(copied, repository.as_uri())
    notebook = nbformat.read(copied, as_version=4)
    folder = runtime.parent.parent
    # Nothing of this checkout or its environment may reach the kernel.
    ours = ("PYTHONPATH", "VIRTUAL_ENV", "SRGAN_DATA_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    environment |= {"IPYTHONDIR": str(folder / "ipython"), "PYTHONNOUSERSITE": "1"}
    specs = KernelSpecManager(kernel_dirs=[str(folder / "kernels")])
    kernel = AsyncKernelManager(kernel_name="colab", kernel_spec_manager=specs)
    try:  # the kernel is in this notebook's folder, and a cell that raises ends the test
        NotebookClient(
            notebook, km=kernel, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}
        ).execute(env=environment)
    finally:
        asyncio.run(kernel.shutdown_kernel(now=True))
    first = next(cell for cell in notebook.cells if cell.get("id") == "colab")
    said = "".join(output.get("text", "") for output in first.outputs)
    assert "Profile: " in said and "ERROR" not in said and "Does not fit" not in said, said
    after = versions(runtime)
    assert {name: after.get(name) for name in before} == before
    assert Path(json.loads(direct_url(runtime))["url"].removeprefix("file://")) == repository


def direct_url(python: Path) -> str:
    """Where the course's package was installed from, as pip recorded it."""
    program = (
        "import importlib.metadata as m;"
        "print(m.distribution('srgan-lib').read_text('direct_url.json'))"
    )
    return subprocess.check_output([python, "-I", "-c", program], text=True)
