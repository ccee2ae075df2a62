"""What `make` promises: one sentence when something is missing, no set-up done twice."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from set_repository import UNSET, check, current_address, set_repository

SET_UP = ("Makefile", "pyproject.toml", "requirements.lock", "_config.yml", "_toc.yml", ".ci")


@pytest.fixture
def tree(tmp_path: Path, root: Path) -> Path:
    """The files that `make` reads, in a folder of their own."""
    for name in SET_UP:
        copy = shutil.copytree if (root / name).is_dir() else shutil.copy2
        copy(root / name, tmp_path / name)
    return tmp_path


def make(tree: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # Nothing of a `make test` around this test may reach the inner make.
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "PYTHON")
    }
    return subprocess.run(
        ["make", *arguments],
        cwd=tree,
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def sentence(result: subprocess.CompletedProcess[str]) -> str:
    """The one line that a failed set-up says, beside make's own."""
    assert result.returncode != 0
    lines = [line for line in result.stderr.splitlines() if not line.startswith("make")]
    assert len(lines) == 1, result.stderr
    return lines[0]


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_missing_python(tree: Path) -> None:
    said = sentence(make(tree, "book", "PYTHON=no-such-python"))
    assert said.startswith("Set-up stopped: PYTHON=no-such-python does not run")
    assert "3.11, 3.12 or 3.13" in said


def test_no_python_at_all(tree: Path) -> None:
    tools = tree / "tools"
    tools.mkdir()
    for name in ("make", "bash", "sh", "env", "dirname", "touch", "mkdir"):
        found = shutil.which(name)
        assert found, name
        (tools / name).symlink_to(found)
    said = sentence(make(tree, "book", PATH=str(tools)))
    assert "Python was not found; install Python 3.11, 3.12 or 3.13" in said


def test_unsupported_python(tree: Path) -> None:
    old = script(tree / "old", '[ "$1" = --version ] && echo Python 3.9.2; [ "$2" = "" ]')
    said = sentence(make(tree, "test", f"PYTHON={old}"))
    assert "is Python 3.9.2, and the course needs 3.11, 3.12 or 3.13" in said


def test_another_python_than_the_one_set_up(tree: Path) -> None:
    made = tree / ".venv"
    (made / "bin").mkdir(parents=True)
    (made / ".tools").touch()
    script(made / "bin" / "python", "echo Python 3.11.2")
    other = script(tree / "other", "[ $1 = --version ] && echo Python 3.12.1; true")
    said = sentence(make(tree, "book", f"PYTHON={other}"))
    assert ".venv holds Python 3.11.2" in said
    assert "make distclean" in said
    assert "does not run" in sentence(make(tree, "book", "PYTHON=no-such-python"))


def test_python_without_venv(tree: Path) -> None:
    bare = script(tree / "bare", 'case "$2" in *ensurepip*) exit 1;; esac')
    said = sentence(make(tree, "book", f"PYTHON={bare}"))
    assert "apt install python3-venv" in said


def test_missing_network(tree: Path) -> None:
    nowhere = "http://127.0.0.1:9/simple"
    result = make(
        tree,
        "book",
        f"PYTHON={sys.executable}",
        PIP_INDEX_URL=nowhere,
        PIP_RETRIES="0",
        PIP_NO_CACHE_DIR="1",
    )
    said = sentence(result)
    assert "could not be downloaded; is there a network?" in said
    log = re.search(r"The full log is in (\S+)\.$", said)
    assert log
    assert "127.0.0.1" in (tree / log[1]).read_text(encoding="utf-8")
    assert not (tree / ".venv" / ".tools").exists()


def test_second_run_repeats_no_set_up(tree: Path) -> None:
    assert "setup.sh" in make(tree, "--dry-run", "book").stdout
    (tree / ".venv").mkdir()
    for stamp in (".tools", ".packages"):
        (tree / ".venv" / stamp).touch()
    for target in ("book", "test", "notebooks", "lint"):
        assert "setup.sh" not in make(tree, "--dry-run", target).stdout, target
    later = (tree / ".venv" / ".packages").stat().st_mtime + 60
    os.utime(tree / "requirements.lock", (later, later))
    planned = make(tree, "--dry-run", "book").stdout
    assert "setup.sh packages" in planned
    assert "setup.sh tools" not in planned


def test_help_names_every_target(root: Path) -> None:
    text = (root / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony
    listed = re.findall(r"^  make (\S+) +\S", make(root, "help").stdout, re.MULTILINE)
    assert set(listed) == set(phony[1].split()) - {"check-python"}


# The repository's address


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """A small course with its address unset."""
    (tmp_path / "notebooks").mkdir()
    files = {
        "_config.yml": f"title: T\nrepository:\n  # here\n  url: {UNSET}\n  branch: main\n",
        "README.md": f"{UNSET} and {UNSET}-2; colab.research.google.com/github/"
        "YOUR-ACCOUNT/YOUR-REPOSITORY/blob/main/notebooks/01.ipynb\n",
        "notebooks/01.ipynb": f'{{"source": ["install git+{UNSET}\\"\\n"]}}\n',
        "index.md": "No address.\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_set_repository_writes_the_address_everywhere(course: Path) -> None:
    url = "https://github.com/somebody/a-course"
    changed = set_repository(url, course)
    assert changed == ["README.md", "_config.yml", "notebooks/01.ipynb"]
    assert current_address(course) == url
    readme = (course / "README.md").read_text(encoding="utf-8")
    assert readme == (
        f"{url} and {UNSET}-2; colab.research.google.com/github/"
        "somebody/a-course/blob/main/notebooks/01.ipynb\n"
    )
    assert f"git+{url}" in (course / "notebooks" / "01.ipynb").read_text(encoding="utf-8")
    assert set_repository(url, course) == []
    set_repository(UNSET, course)
    assert current_address(course) == UNSET


@pytest.mark.parametrize(
    "url",
    [
        "",
        "github.com/somebody/course",
        "http://github.com/somebody/course",
        "https://github.com/somebody",
        "https://github.com/somebody/course/",
        "https://github.com/somebody/course.git",
        "https://github.com/somebody/course/tree/main",
        "https://user:word@github.com/somebody/course",
        "https://github.com/some body/course",
        "https://github.com/somebody/course?x=1",
    ],
)
def test_set_repository_refuses_other_addresses(course: Path, url: str) -> None:
    before = (course / "README.md").read_bytes()
    with pytest.raises(ValueError, match="is not an address of the form"):
        set_repository(url, course)
    assert (course / "README.md").read_bytes() == before


def test_the_course_names_its_address_nowhere_else(root: Path) -> None:
    address = current_address(root)
    check(address)
    folders = [root / "srgan_lib", root / "tests", root / "book" / "_ext"]
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        if path.name != Path(__file__).name:
            assert address not in path.read_text(encoding="utf-8"), path
