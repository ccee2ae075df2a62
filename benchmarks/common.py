"""What the benchmarks share: sides that take turns, medians, peak memory, a table, a JSON file.

A script brings two functions. ``prepare(setting)`` writes the files that all sides read;
``trials(setting)`` says what is compared. :func:`main` does the rest.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tqdm.auto import tqdm

from srgan_lib.datasets import open_dataset
from srgan_lib.files import write_atomically
from srgan_lib.hardware import best_device, best_precision, describe_hardware
from srgan_lib.images import write_image

Side = Callable[[], Iterator[None]]
"""One way to do the work. It sets itself up and yields; then it does one unit of the work before
each further yield. Closing it gives everything back, worker processes included."""

OURS = "ours"
ROUNDS = 5
DROPPED = 1  # rounds that only warm up
NBSP = "\N{NO-BREAK SPACE}"
QUICK_NOTE = "A quick run, with tiny networks and images: these ratios mean nothing."
HEADER = ("what", "against", "ours", "other", "ratio", "peak memory, ours", "other")


@dataclass(frozen=True)
class Setting:
    """What a script is run with.

    Attributes:
        folder: holds the files that :func:`main` had prepared.
        device: what to compute on.
        quick: tiny networks and few units, to see that a script works; the ratios mean nothing.
    """

    folder: Path
    device: torch.device
    quick: bool = False

    def count(self, cpu: int, gpu: int) -> int:
        """Return how many units to do: a GPU needs more of them to be timed well."""
        return 1 if self.quick else gpu if self.device.type == "cuda" else cpu


@dataclass(frozen=True)
class Trial:
    """One thing that is done in several ways.

    Attributes:
        what: names the work.
        ours: how this library does it.
        others: by name, the ways to compare with.
        warm: units before the clock starts, in each round.
        units: units that are timed together, in each round.
        crops: training crops in one unit, where crops a second are to be shown.
        remarks: sentences to print below the table.
    """

    what: str
    ours: Side
    others: Mapping[str, Side]
    warm: int = 1
    units: int = 1
    crops: int | None = None
    remarks: Sequence[str] = ()

    @property
    def sides(self) -> dict[str, Side]:
        """All sides by name, ours first."""
        return {OURS: self.ours, **self.others}


def interleave(
    sides: Mapping[str, Side],
    *,
    rounds: int,
    warm: int = 1,
    units: int = 1,
    synchronise: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Let the sides take turns, round by round, and time each turn.

    A turn starts afresh: the side is set up, does ``warm`` units, and only then is timed over
    ``units`` more. It is closed before the next side's turn, so that none computes in the
    background of another. The first round is dropped.

    Returns:
        For each side, the seconds that a unit took, one value a round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(DROPPED + rounds):
        for name, side in sides.items():
            work = side()
            for _ in range(1 + warm):
                next(work)
            synchronise()
            start = clock()
            for _ in range(units):
                next(work)
            synchronise()
            elapsed = (clock() - start) / units
            work.close()
            if number >= DROPPED:
                seconds[name].append(elapsed)
    return seconds


def peak_memory(device: torch.device) -> int | None:
    """Return the most memory that this process has held so far, in bytes.

    On a GPU that of PyTorch's tensors; on a CPU the resident memory of the process itself, None
    where the system doesn't tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        # Not getrusage: on Linux its peak begins with that of the process that started this one.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def measure_alone(script: str, setting: Setting, what: str, name: str) -> dict[str, int | None]:
    """Run one side in a process of its own, and return its ``floor`` and ``peak`` of memory.

    The floor is what the process held before the side was set up: Python, PyTorch, the library.
    """
    command = [sys.executable, script, "--alone", what, name]
    command += ["--folder", str(setting.folder), "--device", str(setting.device)]
    command += ["--quick"] * setting.quick
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def _run_alone(side: Side, device: torch.device) -> dict[str, int | None]:
    floor = peak_memory(device)
    work = side()
    for _ in range(3):  # the set-up and two units
        next(work)
    work.close()
    return {"floor": floor, "peak": peak_memory(device)}


def measure(
    script: str, setting: Setting, trials: Sequence[Trial], rounds: int = ROUNDS
) -> dict[str, Any]:
    """Time all trials, then the memory of each side alone; quick runs leave the memory out.

    Returns:
        What a JSON file can hold; :func:`table` reads it.
    """
    synchronise = torch.cuda.synchronize if setting.device.type == "cuda" else lambda: None
    done = []
    for trial in tqdm(trials, unit="trial", leave=False, disable=None):
        seconds = interleave(
            trial.sides,
            rounds=rounds,
            warm=trial.warm,
            units=trial.units,
            synchronise=synchronise,
        )
        sides = {}
        for name, values in seconds.items():
            memory = {} if setting.quick else measure_alone(script, setting, trial.what, name)
            sides[name] = {"seconds": [round(value, 7) for value in values], **memory}
        done.append(
            {
                "what": trial.what,
                "crops": trial.crops,
                "remarks": list(trial.remarks),
                "sides": sides,
            }
        )
    return {
        "machine": describe_hardware(),
        "precision": best_precision(setting.device),
        "rounds": rounds,
        "trials": done,
    }


def table(measured: Mapping[str, Any]) -> str:
    """Return what :func:`measure` returned as a Markdown table: a row for each comparison."""
    lines = ["| " + " | ".join(HEADER) + " |", "|---|---|" + "---:|" * (len(HEADER) - 2)]
    for trial in measured["trials"]:
        ours = trial["sides"][OURS]
        for name, other in trial["sides"].items():
            if name == OURS:
                continue
            cells = [
                trial["what"],
                name,
                _speed(ours, trial["crops"]),
                _speed(other, trial["crops"]),
                _short(ratio(trial, name)),
                _gibibytes(ours.get("peak")),
                _gibibytes(other.get("peak")),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def remarks(measured: Mapping[str, Any]) -> list[str]:
    """Return what is to be said below the table."""
    return [remark for trial in measured["trials"] for remark in trial["remarks"]]


def ratio(trial: Mapping[str, Any], name: str) -> float:
    """Return how many times faster than another side ours is, by the medians of the rounds."""
    sides = trial["sides"]
    return median(sides[name]["seconds"]) / median(sides[OURS]["seconds"])


def _speed(side: Mapping[str, Any], crops: int | None) -> str:
    seconds = median(side["seconds"])
    if crops is not None:
        return f"{crops / seconds:,.0f}{NBSP}crops/s"
    if seconds < 1:
        return f"{_short(1000 * seconds)}{NBSP}ms"
    return f"{_short(seconds)}{NBSP}s"


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _gibibytes(count: int | None) -> str:
    return "–" if count is None else f"{count / 2**30:.2f}{NBSP}GiB"


def write_images(folder: Path, number: int = 40, width: int = 640) -> None:
    """Write a radiograph as PNG files: the chest that is installed with the library, 8-bit grey.

    They take as long to open as those of ``covid19-hannover``, so copies of one image will do.
    """
    write_image(folder / "00.png", open_dataset("sample", "train", width=width)[0])
    data = (folder / "00.png").read_bytes()
    for i in range(1, number):
        (folder / f"{i:02d}.png").write_bytes(data)


def image_files(folder: Path) -> list[Path]:
    """Return what :func:`write_images` wrote."""
    return sorted(folder.glob("[0-9][0-9].png"))


def read_results(path: str | os.PathLike) -> dict[str, Any]:
    """Return what was measured: by script, then by type of device; empty if nothing was."""
    path = Path(path)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def main(
    script: str,
    prepare: Callable[[Setting], None],
    trials: Callable[[Setting], list[Trial]],
    arguments: Sequence[str] | None = None,
) -> None:
    """Run a benchmark script: measure, print the table, write the JSON file if asked to."""
    parser = argparse.ArgumentParser(description=sys.modules[prepare.__module__].__doc__)
    parser.add_argument("--out", type=Path, help="JSON file to put the numbers into")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds behind each median")
    parser.add_argument("--device", type=torch.device, default=best_device(), help="cpu or cuda")
    parser.add_argument("--note", help="a sentence to show with the numbers")
    parser.add_argument("--quick", action="store_true", help="only see that it works")
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)  # see measure_alone
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.alone:
        what, name = chosen.alone
        setting = Setting(chosen.folder, chosen.device, chosen.quick)
        side = next(trial.sides[name] for trial in trials(setting) if trial.what == what)
        print(json.dumps(_run_alone(side, setting.device)))
        return
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(Path(folder), chosen.device, chosen.quick)
        prepare(setting)
        measured = measure(script, setting, trials(setting), chosen.rounds)
    measured["note"] = " ".join([QUICK_NOTE] * chosen.quick + [chosen.note] * bool(chosen.note))
    print("\n".join([table(measured), *remarks(measured)]))
    if chosen.out is not None:
        results = read_results(chosen.out)
        results.setdefault(Path(script).stem, {})[chosen.device.type] = measured
        write_atomically(chosen.out, (json.dumps(results, indent=1) + "\n").encode())
