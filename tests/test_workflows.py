"""GitHub's workflows: well formed, pinned, with few permissions, and right for every fork."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").iterdir())
TOOLS = Path(sys.executable).parent
PIN = re.compile(r"uses: ([\w-]+/[\w-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)")
# Every permission to write, with the job that has it; all else may read the contents, or nothing.
WRITES = {
    ("pages", "deploy", "id-token"),
    ("pages", "deploy", "pages"),
    ("weekly", "report", "issues"),
}


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def jobs() -> list[tuple[Path, str, dict[str, Any]]]:
    return [(path, name, job) for path in WORKFLOWS for name, job in read(path)["jobs"].items()]


def zizmor(*paths: Path) -> subprocess.CompletedProcess[str]:
    """Run the auditor of workflows, without a network."""
    return subprocess.run(
        [TOOLS / "zizmor", "--offline", "--strict-collection", "--no-progress", *paths],
        capture_output=True,
        text=True,
        timeout=60,
    )


def schema(*paths: Path) -> subprocess.CompletedProcess[str]:
    """Hold workflows against GitHub's schema, as it comes with the tool."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    return subprocess.run(
        [*command, "vendor.github-workflows", *paths], capture_output=True, text=True, timeout=60
    )


def test_all_workflows_are_here() -> None:
    assert [path.name for path in WORKFLOWS] == ["pages.yml", "tests.yml", "weekly.yml"]


def test_triggers() -> None:
    # YAML 1.1 reads the key `on` as true.
    triggers = {path.stem: set(read(path)[True]) for path in WORKFLOWS}
    assert triggers == {
        "pages": {"push", "workflow_dispatch"},
        "tests": {"pull_request", "push"},
        "weekly": {"schedule", "workflow_dispatch"},
    }


def test_workflows_fit_github_s_schema() -> None:
    found = schema(*WORKFLOWS)
    assert found.returncode == 0, found.stdout


def test_auditor_finds_nothing() -> None:
    found = zizmor(*WORKFLOWS)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize(
    ("old", "new", "finder"),
    [
        (r"@[0-9a-f]{40} # v6.0.2", "@v6", zizmor),
        (r"        with:\n          persist-credentials: false\n", "", zizmor),
        (r"permissions:\n      contents: read", "permissions: write-all", zizmor),
        (r"run: \.ci/run", "run: echo ${{ github.head_ref }}", zizmor),
        (r"runs-on: .*", "runs_on: ubuntu-24.04", schema),
        (r"timeout-minutes: 60", "timeout-minutes: long", schema),
    ],
)
def test_tools_find_what_is_wrong(tmp_path: Path, old: str, new: str, finder: Any) -> None:
    text = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    wrong = tmp_path / "tests.yml"
    wrong.write_text(re.sub(old, new, text, count=1), encoding="utf-8")
    assert wrong.read_text(encoding="utf-8") != text
    assert finder(wrong).returncode != 0


def test_actions_are_github_s_own_and_pinned_alike() -> None:
    pins: dict[str, set[tuple[str, ...]]] = {}
    for path in WORKFLOWS:
        for line in path.read_text(encoding="utf-8").splitlines():
            if "uses:" in line:
                match = PIN.search(line)
                assert match, line
                action, *pin = match.groups()
                assert action.startswith("actions/")
                pins.setdefault(action, set()).add(tuple(pin))
    assert pins and all(len(found) == 1 for found in pins.values()), pins


def test_permissions_are_the_least() -> None:
    assert [path.name for path in WORKFLOWS if read(path)["permissions"] != {}] == []
    granted = {
        (path.stem, name, kind, access)
        for path, name, job in jobs()
        for kind, access in job["permissions"].items()
    }
    writes = {(*rest,) for *rest, access in granted if access == "write"}
    assert writes == WRITES
    assert {(kind, access) for _, _, kind, access in granted if access != "write"} == {
        ("contents", "read")
    }


def test_every_job_ends_in_time() -> None:
    assert [name for _, name, job in jobs() if not 0 < job["timeout-minutes"] <= 90] == []


def test_workflows_run_what_is_there() -> None:
    listed = subprocess.check_output(["make", "help"], cwd=ROOT, text=True)
    commands = [step["run"] for path, name, job in jobs() for step in job["steps"] if "run" in step]
    for command in commands:
        first, *rest = command.split()
        if first == "make":
            assert f"  make {rest[0]} " in listed, command
        elif first.startswith(".ci/"):
            assert os.access(ROOT / first, os.X_OK), command
    assert {"make book pdf", "make newest", "make colab", ".ci/run"} <= set(commands)


def test_workflows_name_no_repository() -> None:
    for path in WORKFLOWS:
        assert "github.com/" not in path.read_text(encoding="utf-8"), path.name


@pytest.mark.parametrize(("open_issues", "opened"), [("0", 1), ("1", 0)])
def test_failing_week_opens_one_issue(tmp_path: Path, open_issues: str, opened: int) -> None:
    (step,) = read(ROOT / ".github" / "workflows" / "weekly.yml")["jobs"]["report"]["steps"]
    gh = tmp_path / "gh"
    lines = ["#!/bin/sh", f'echo "$@" >> "{tmp_path}/said"']
    lines.append(f'if [ "$2" = list ]; then echo {open_issues}; fi')
    gh.write_text("\n".join(lines) + "\n")
    gh.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.defpath}", "TITLE": step["env"]["TITLE"], "RUN": "here"}
    subprocess.run(["bash", "-eo", "pipefail", "-c", step["run"]], check=True, env=environment)
    listed, *rest = (tmp_path / "said").read_text().splitlines()
    assert listed.startswith("issue list --state open")
    assert len(rest) == opened
    if opened:
        assert rest[0].startswith("issue create --title The weekly run failed --body See here")
