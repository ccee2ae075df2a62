"""`pyproject.toml`, `requirements.lock` and `environment.yml` name the same packages."""

import re
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version
from write_environment import (
    canonical,
    direct_dependencies,
    environment,
    locked_versions,
)

# What the course promises to have: the reader's own list.
PROMISED = {
    "jupyterlab",
    "jupyter-book",
    "torch",
    "torchvision",
    "matplotlib",
    "nbval",
    "pillow",
    "pytest",
}
REQUIREMENTS = [Requirement(line) for line in direct_dependencies()]
LOCKED = locked_versions()


def conda_pins(root: Path) -> dict[str, str]:
    """Name and version of every pin in the pip section of `environment.yml`."""
    file = yaml.safe_load((root / "environment.yml").read_text(encoding="utf-8"))
    (section,) = (entry["pip"] for entry in file["dependencies"] if isinstance(entry, dict))
    pins = (line.split("==") for line in section if not line.startswith("-"))
    return {canonical(name): version for name, version in pins}


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_lock_holds_each_dependency_within_its_range(requirement: Requirement) -> None:
    name = canonical(requirement.name)
    assert name in LOCKED, f"{name} is not in requirements.lock: make lock"
    assert requirement.specifier.contains(Version(LOCKED[name]), prereleases=True)


def test_environment_pins_what_the_lock_pins(root: Path) -> None:
    direct = {canonical(requirement.name) for requirement in REQUIREMENTS}
    assert conda_pins(root) == {name: LOCKED[name] for name in direct}


def test_environment_is_what_make_lock_writes(root: Path) -> None:
    assert (root / "environment.yml").read_text(encoding="utf-8") == environment()


def test_environment_holds_what_the_course_promises(root: Path) -> None:
    assert set(conda_pins(root)) >= PROMISED


def test_environment_holds_to_the_lock_and_the_supported_python(root: Path) -> None:
    file = yaml.safe_load((root / "environment.yml").read_text(encoding="utf-8"))
    *conda, from_pip = file["dependencies"]
    assert file["channels"] == ["conda-forge"]
    assert conda == ["python=3.11", "pip"]
    assert {"--constraint requirements.lock", "--editable ."} <= set(from_pip["pip"])


def test_lock_is_pins_and_nothing_else(root: Path) -> None:
    lines = (root / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pin = re.compile(r"[a-z0-9][a-z0-9.-]*==[A-Za-z0-9.!]+( ; .+)?")
    assert [line for line in lines if not pin.fullmatch(line)] == []


def test_no_file_of_the_set_up_names_a_host(root: Path) -> None:
    for name in ("requirements.lock", "environment.yml"):
        text = (root / name).read_text(encoding="utf-8")
        assert not re.search(r"://|index-url|find-links", text), name


def test_what_a_notebook_service_brings_is_not_pinned() -> None:
    for requirement in REQUIREMENTS:
        operators = {clause.operator for clause in requirement.specifier}
        assert not operators & {"==", "==="}, requirement
        if requirement.name in ("torch", "torchvision", "numpy"):
            assert operators == {">="}, requirement
