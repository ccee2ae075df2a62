"""Time what the library costs to start: imports and commands, each in fresh processes.

`import torch` is the floor: all but the help needs it. To compare with another version of the
library, name a checkout of it with --before; the two take turns.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tqdm.auto import tqdm

from srgan_lib.files import write_atomically
from srgan_lib.hardware import describe_hardware
from srgan_lib.images import write_image

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "imports.json"
HEAVY = ("torch", "torchvision", "torchmetrics", "accelerate", "sklearn", "scipy", "kagglehub")
HEAVY += ("tensorboard", "matplotlib", "pydicom", "imagecodecs")
"""Modules that take long to load."""

ROUNDS = 7
FLOOR = "import torch"
SIDE = 32  # of the image that is enlarged, in pixels


def cases(folder: Path) -> dict[str, str]:
    """Return the code of each case by what it is called.

    Args:
        folder: holds ``small.png``, and takes what is made of it.
    """
    command = "import sys; from srgan_lib.cli import main; sys.argv = {}; main()"
    small, out = str(folder / "small.png"), str(folder / "upscaled")
    upscale = ["srgan", "upscale", small, "--out", out, "--device", "cpu", "--overwrite"]
    modules = ("images", "figures", "architectures", "datasets", "training", "metrics")
    return {
        "python": "pass",
        FLOOR: FLOOR,
        **{f"import srgan_lib.{name}": f"import srgan_lib.{name}" for name in modules},
        "srgan --help": command.format(["srgan", "--help"]),
        "srgan upscale small.png": command.format(upscale),
    }


def run(
    code: str, library: Path = ROOT, bytecode: Path | None = None
) -> tuple[float, float, list[str]]:
    """Run code in a fresh process.

    Args:
        code: Python.
        library: the folder that ``srgan_lib`` is taken from.
        bytecode: where Python keeps what it compiled, if not beside the sources.

    Returns:
        Seconds by the clock, the processor's seconds, and those of :data:`HEAVY` that were loaded
        in the end.

    Raises:
        CalledProcessError: it failed.
    """
    look = f"print(*(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)"
    code = f"import atexit, sys; atexit.register(lambda: {look})\n{code}"
    environment = os.environ | {"PYTHONPATH": str(library)}
    if bytecode is not None:
        environment |= {"PYTHONPYCACHEPREFIX": str(bytecode), "PYTHONDONTWRITEBYTECODE": ""}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=library,  # which Python searches before all else
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    elapsed, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return elapsed, used, done.stderr.splitlines()[-1].split()


def measure(libraries: dict[str, Path], rounds: int) -> dict[str, Any]:
    """Let all cases of all versions take turns, after a round that only compiles bytecode.

    Args:
        libraries: folders to take ``srgan_lib`` from, by what is said of them.
        rounds: turns of each.

    Returns:
        For each version and case, what a JSON file can hold: ``seconds`` by the clock and
        ``processor`` seconds, one of each a round, and the ``heavy`` modules.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_image(Path(folder) / "small.png", torch.rand(1, SIDE, SIDE))
        codes = cases(Path(folder))
        found = {
            version: {name: {"seconds": [], "processor": []} for name in codes}
            for version in libraries
        }
        for number in tqdm(range(1 + rounds), unit="round", leave=False, disable=None):
            for name, code in codes.items():
                for version, library in libraries.items():
                    elapsed, used, heavy = run(code, library, Path(folder) / "bytecode")
                    into = found[version][name]
                    into["heavy"] = heavy
                    if number:
                        into["seconds"].append(round(elapsed, 3))
                        into["processor"].append(round(used, 3))
    return found


def table(measured: Mapping[str, Any]) -> str:
    """Return what was measured as a Markdown table: a row for each case, a column a version."""
    versions = measured["versions"]
    head = ["what", *versions, "loads", *["no longer loads"] * (len(versions) > 1)]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * len(versions)]
    lines[1] += "---|" * (len(head) - 1 - len(versions))
    for name, today in versions["today"].items():
        cells = [f"`{name}`"]
        cells += [f"{median(version[name]['processor']):.2f} s" for version in versions.values()]
        cells.append(", ".join(today["heavy"]) or "–")
        if "before" in versions:
            loaded = versions["before"][name]["heavy"]
            gone = [module for module in loaded if module not in today["heavy"]]
            cells.append(", ".join(gone) or "–")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def describe(measured: Mapping[str, Any]) -> str:
    """Return the table with the machine it was measured on."""
    machine = measured["machine"]
    return (
        f"**CPU:** {machine['processor']}; {machine['system']}, Python {machine['python']}, "
        f"PyTorch {machine['torch']}. Rounds behind each median: {measured['rounds']}.\n\n"
        f"{table(measured)}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write the JSON file if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="JSON file to put the numbers into")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds behind each median")
    parser.add_argument("--before", type=Path, help="a checkout of another version, to compare")
    chosen = parser.parse_args(arguments)
    libraries = {"today": ROOT}
    if chosen.before is not None:
        libraries = {"before": chosen.before.resolve(), **libraries}
    measured = {
        "machine": describe_hardware(),
        "rounds": chosen.rounds,
        "versions": measure(libraries, chosen.rounds),
    }
    print(table(measured))
    if chosen.out is not None:
        write_atomically(chosen.out, (json.dumps(measured, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
