"""The page of measured times, memory and versions, and what measures them."""

import copy
import json
import platform
import re
from pathlib import Path

import measure_notebooks
import nbformat
import page
import pytest
import yaml
from common import read_results, table

ROOT = page.ROOT


@pytest.fixture(scope="module")
def measured() -> dict:
    return json.loads(page.NOTEBOOK_RESULTS.read_text(encoding="utf-8"))


def test_each_notebook_was_measured(measured: dict) -> None:
    names = [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    assert list(measured["notebooks"]) == names, "make measure"
    for numbers in measured["notebooks"].values():
        assert 1 < numbers["seconds"] < 3600
        assert 2**27 < numbers["peak"] < measured["machine"]["memory"]


def test_the_machine_is_named_by_its_kind(measured: dict) -> None:
    machine = measured["machine"]
    assert machine["processor"] and machine["cores"] >= 1 and machine["memory"] > 2**30
    assert platform.node() not in json.dumps(measured) or len(platform.node()) < 4
    assert {"Python", "torch", "numpy", "srgan-lib"} <= set(measured["versions"])


def test_the_page_is_written_from_the_numbers(measured: dict) -> None:
    text = page.MEASURED.read_text(encoding="utf-8")
    benchmarks = read_results(page.RESULTS)
    assert page.render_measured(text, measured, benchmarks) == text, "make measure"
    slower = copy.deepcopy(measured)
    slower["notebooks"]["03_generator"]["seconds"] += 61
    changed = page.render_measured(text, slower, benchmarks)
    assert changed != text and page.render_measured(changed, measured, benchmarks) == text
    for devices in benchmarks.values():
        for numbers in devices.values():
            assert set(table(numbers).splitlines()) <= set(text.splitlines())


def test_time_and_memory_are_those_of_the_kernel(tmp_path: Path) -> None:
    code = "import time; ballast = bytearray(b'x') * 2**28; time.sleep(0.2)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    path = tmp_path / "ballast.ipynb"
    nbformat.write(notebook, path)
    before = path.read_bytes()
    numbers = measure_notebooks.measure(path)
    assert path.read_bytes() == before
    assert 2**28 < numbers["peak"] < 2**28 + 2**28
    assert 0.2 < numbers["seconds"] < 60


# Citation and changelog


def test_citation_file_is_in_form() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    keys = re.findall(r"^([\w-]+):", text, re.MULTILINE)
    assert len(keys) == len(set(keys))  # which YAML itself would not complain about
    citation = yaml.safe_load(text)
    required = {"cff-version", "message", "title", "authors"}
    known = required | {"type", "abstract", "version", "repository-code", "license", "keywords"}
    assert required <= set(citation) <= known
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert all(set(author) == {"name"} and author["name"] for author in citation["authors"])
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{citation["version"]}"' in project
    assert not re.search(r"\b(seven|eight|nine|ten|\d+) notebooks", citation["abstract"])


def test_changelog_keeps_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert versions[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", v) for v in versions[1:])
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= kinds
