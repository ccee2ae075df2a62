"""Write `environment.yml`: the direct dependencies of `pyproject.toml` at the lock's versions."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

HEADER = """\
# The course's environment for conda: conda env create --file environment.yml
# Written by `make lock` from pyproject.toml and requirements.lock; change those instead.
"""


def canonical(name: str) -> str:
    """The name as package indexes compare it: `PyYAML` and `pyyaml` are one."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirement_name(requirement: str) -> str:
    """The project's name in a requirement such as `torch>=2.4`."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match, requirement
    return canonical(match[0])


def direct_dependencies(root: Path = ROOT) -> list[str]:
    """Every requirement of `pyproject.toml`, those of the extras included."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project.get("optional-dependencies", {}).values()
    return [*project["dependencies"], *(line for extra in extras for line in extra)]


def locked_versions(root: Path = ROOT) -> dict[str, str]:
    """Name and version of every line of `requirements.lock`."""
    lines = (root / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = (line.split(";")[0].strip().split("==") for line in lines if line.strip())
    return {canonical(name): version for name, version in pins}


def environment(root: Path = ROOT) -> str:
    """The text of `environment.yml`."""
    versions = locked_versions(root)
    names = sorted({requirement_name(line) for line in direct_dependencies(root)})
    pins = [f"      - {name}=={versions[name]}" for name in names]
    lines = [
        "name: srgan-course",
        "channels:",
        "  - conda-forge",
        "dependencies:",
        "  - python=3.11",
        "  - pip",
        "  - pip:",
        "      - --constraint requirements.lock",
        "      - --editable .",
        *pins,
    ]
    return HEADER + "\n".join(lines) + "\n"


if __name__ == "__main__":
    (ROOT / "environment.yml").write_text(environment(), encoding="utf-8")
