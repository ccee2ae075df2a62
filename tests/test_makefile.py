"""What `make` promises: one sentence when something is missing, no set-up done twice."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from first_cell import UNSET, colab_metadata, current_address, first_cell
from set_repository import BADGES, COLAB, badges, check, set_repository, slug

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


@pytest.mark.parametrize("page", ["README.md", "book/setup.md"])
def test_tables_of_targets_are_complete(root: Path, page: str) -> None:
    listed = re.findall(r"^  make (\S+) +\S", make(root, "help").stdout, re.MULTILINE)
    rows = re.findall(
        r"^\| (`make .*) \|$", (root / page).read_text(encoding="utf-8"), re.MULTILINE
    )
    first = [name for row in rows for name in re.findall(r"`make ([\w-]+)", row.split(" | ")[0])]
    assert len(first) == len(set(first))
    named = {name for row in rows for name in re.findall(r"`make ([\w-]+)", row)}
    assert named == set(listed)


# The repository's address


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """A small course with its address unset."""
    (tmp_path / "notebooks" / "solutions").mkdir(parents=True)
    (tmp_path / "book").mkdir()
    cell = {"cell_type": "code", "execution_count": 1, "id": "colab", "metadata": {}, "outputs": []}
    source = first_cell(UNSET).splitlines(keepends=True)
    notebook = {"cells": [cell | {"source": source}], "metadata": colab_metadata({"cells": []})}
    notebook |= {"nbformat": 4, "nbformat_minor": 5}
    files = {
        "_config.yml": f"title: T\nrepository:\n  # here\n  url: {UNSET}\n  branch: main\n",
        "README.md": "<!-- badges: here -->\n" + badges(UNSET) + "\n<!-- end of badges -->\n"
        f"{UNSET} and {UNSET}-2; {COLAB}{slug(UNSET)}/blob/main/notebooks/01.ipynb\n",
        "CITATION.cff": f'repository-code: "{UNSET}"\n',
        "book/setup.md": f"git clone {UNSET} course\n",
        "notebooks/01.ipynb": json.dumps(notebook, indent=1) + "\n",
        "notebooks/solutions/01.ipynb": json.dumps(notebook, indent=1) + "\n",
        "index.md": "No address.\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_set_repository_writes_the_address_everywhere(course: Path) -> None:
    url = "https://github.com/somebody/a-course"
    unset = {path: path.read_bytes() for path in course.rglob("*.*") if path.is_file()}
    changed = set_repository(url, course)
    assert changed == [
        "CITATION.cff",
        "README.md",
        "_config.yml",
        "book/setup.md",
        "notebooks/01.ipynb",
        "notebooks/solutions/01.ipynb",
    ]
    assert current_address(course) == url
    readme = (course / "README.md").read_text(encoding="utf-8")
    assert f"[![Tests]({url}/actions/workflows/tests.yml/badge.svg)]" in readme
    assert f"({COLAB}somebody/a-course/blob/main/notebooks/01_data_preparation.ipynb)" in readme
    assert readme.endswith(
        "<!-- end of badges -->\n"
        f"{url} and {UNSET}-2; {COLAB}somebody/a-course/blob/main/notebooks/01.ipynb\n"
    )
    for name in ("notebooks/01.ipynb", "notebooks/solutions/01.ipynb"):
        cell = json.loads((course / name).read_text(encoding="utf-8"))["cells"][0]
        assert "".join(cell["source"]) == first_cell(url)
    assert set_repository(url, course) == []
    set_repository(UNSET, course)
    assert {path: path.read_bytes() for path in unset} == unset


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


# Repositories of others that the course names, and the one that stands for any.
OTHERS = {"google/atheris", "ml-workgroup/covid-19-image-repository", "owner/name"}
# Where an address means the course itself, whatever its host.
OWN = re.compile(
    r"""git\+(?P<git>\w+://[^\s"'`<>)\\]+)|git\ clone\ (?P<clone>\w+://[^\s"'`<>)]+)"""
    r"""|^repository-code:\ "?(?P<citation>[^\s"]+)|(?P<badge>https://[^\s()]+)/actions/workflows""",
    re.MULTILINE,
)
SLUG = re.compile(
    r"(?:github\.com[/:]|github\.io/|colab\.research\.google\.com/github/"
    r"|mybinder\.org/v2/gh/|raw\.githubusercontent\.com/)([\w-][\w.-]*/[\w-][\w.-]*)"
)


def differing(text: str, address: str) -> list[str]:
    """Every address of a repository in a text that is neither the course's nor a known other."""
    known = {slug(address)} | OTHERS
    found = [match[1].removesuffix(".git").rstrip(".") for match in SLUG.finditer(text)]
    wrong = [name for name in found if name not in known]
    own = [next(filter(None, match.groups())) for match in OWN.finditer(text)]
    return wrong + [url for url in own if url.rstrip(".") != address]


@pytest.fixture(scope="module")
def texts(root: Path) -> dict[str, str]:
    """Each tracked text file, but vendored scripts, tests, and the two that know the unset one."""
    listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=root, text=True).split("\0")
    apart = ("book/_static/", "tests/", "tools/first_cell.py", "book/_ext/address.py")
    paths = [root / name for name in listed if name and not name.startswith(apart)]
    contents = {p: p.read_bytes() for p in paths if p.is_file()}
    return {
        path.relative_to(root).as_posix(): data.decode("utf-8")
        for path, data in contents.items()
        if b"\0" not in data[:4096]
    }


def test_no_file_names_another_address(root: Path, texts: dict[str, str]) -> None:
    address = current_address(root)
    check(address)
    assert {".github/workflows/tests.yml", "README.md", "book/setup.md"} <= set(texts)
    found = {name: differing(text, address) for name, text in texts.items()}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_a_new_address_leaves_the_old_one_nowhere(tmp_path: Path, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    old, new = current_address(tmp_path), "https://github.com/fork-of/the-course"
    changed = set_repository(new, tmp_path)
    assert {"README.md", "CITATION.cff", "_config.yml", "book/setup.md"} <= set(changed)
    written = {name: (tmp_path / name).read_text(encoding="utf-8") for name in texts}
    found = {name: differing(text, new) for name, text in written.items()}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}
    assert [name for name, text in written.items() if slug(old) in text] == []


def test_readme_has_the_badges_of_its_address(root: Path) -> None:
    found = BADGES.search((root / "README.md").read_text(encoding="utf-8"))
    assert found
    assert found[0] == found[1] + badges(current_address(root)) + found[2]


@pytest.mark.parametrize(
    "text",
    [
        "see https://github.com/someone/else for it",
        "git@github.com:someone/else.git",
        "(https://colab.research.google.com/github/someone/else/blob/main/a.ipynb)",
        "https://mybinder.org/v2/gh/someone/else/HEAD",
        '%pip install "srgan-lib @ git+https://example.org/someone/else"',
        "git clone https://example.org/owner/name course",
        'a\nrepository-code: "https://example.org/owner/name"',
        "[![T](https://example.org/o/n/actions/workflows/tests.yml/badge.svg)]",
    ],
)
def test_rule_for_addresses(text: str) -> None:
    address = "https://github.com/own/course"
    assert differing(text, address)
    good = (
        f'git clone {address} c; git+{address}" {COLAB}own/course/blob {address}/actions/workflows'
    )
    assert differing(good, address) == []
