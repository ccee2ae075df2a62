"""Keep what fuzz.py and faults.py counted, and write it into book/reliability.md.

python tools/reliability.py      # only the page, from results/reliability.json
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from srgan_lib.files import write_atomically
from srgan_lib.hardware import describe_hardware

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "reliability.json"
PAGE = ROOT / "book" / "reliability.md"

READERS = {
    "images": "images",
    "dicom": "DICOM",
    "recipes": "recipes",
    "checkpoints": "checkpoints",
    "weights": "weights",
    "archives": "archives",
    "arguments": "command lines",
}


def record(section: str, counted: Mapping[str, Any]) -> None:
    """Write one section of the results anew, and the page from all of them."""
    results = read_results()
    described = describe_hardware()
    machine = {name: described[name] for name in ("processor", "system", "python", "torch")}
    results[section] = {**counted, "machine": machine}
    write_atomically(RESULTS, (json.dumps(results, indent=1) + "\n").encode())
    write_page()


def read_results() -> dict[str, Any]:
    """Return all that was counted."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}


def write_page() -> None:
    """Write the page's tables anew."""
    page = render(PAGE.read_text(encoding="utf-8"), read_results())
    write_atomically(PAGE, page.encode())


def render(page: str, results: Mapping[str, Any]) -> str:
    """Return the page with what stands between its marks written anew.

    Raises:
        ValueError: a mark is missing.
    """
    for name, tell in (("fuzzing", tell_fuzzing), ("interrupted", tell_interrupted)):
        begin, end = f"% begin {name}\n", f"% end {name}\n"
        head, began, rest = page.partition(begin)
        _, ended, tail = rest.partition(end)
        if not began or not ended:
            raise ValueError(f"The page has no place for {name}: {begin!r} to {end!r}.")
        text = tell(results[name]) if name in results else "Not measured yet."
        page = f"{head}{begin}\n{text}\n\n{end}{tail}"
    return page


def tell_fuzzing(counted: Mapping[str, Any]) -> str:
    """Return the inputs that were tried, as a table and a sentence."""
    lines = [
        "| reader | engine | inputs | taken | refused | slowest | memory |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    total = findings = 0
    for name, found in counted["played"].items():
        target, _, engine = name.partition(", ")
        total += found["inputs"]
        findings += len(found["findings"])
        lines.append(
            f"| {READERS[target]} | {engine} | {found['inputs']:,} | {found['taken']:,} | "
            f"{found['refused']:,} | "
            f"{found['slowest_seconds']:.1f} s | +{found['memory_growth_mib']:.0f} MiB |"
        )
    return "\n".join(lines) + (
        f"\n\nTogether: {total:,} inputs, and {findings} findings that are not mended. "
        f"An input counts as a hang after {counted['hang_seconds']:.0f} s, and memory may grow "
        f"by {counted['memory_mib']} MiB "
        f"beyond what Python, its libraries and the seeds take. {_machine(counted)}"
    )


def tell_interrupted(counted: Mapping[str, Any]) -> str:
    """Return the faults that were played, as a table and a sentence."""
    kills = counted["kills"]
    lines = ["| fault | played | ended in the same weights |", "|---|---:|---:|"]
    for stage, found in kills.items():
        lines.append(
            f"| SIGKILL in the {stage} stage ({found['while_saving']} of them while a file was "
            f"being saved) | {found['kills']} | {found['kills']} |"
        )
    rows = {
        "disk full, simulated at ever later writes": counted["simulated_full_disks"],
        "disk full, a real small file system, then enlarged": counted["real_full_disks"],
        "newest checkpoint cut at each 4 KiB boundary, then resumed": counted["cut_and_resumed"],
    }
    lines += [f"| {name} | {number} | {number} |" for name, number in rows.items()]
    number = counted["cut_and_refused"]
    return "\n".join(lines) + (
        f"\n\nBeside these, a checkpoint of a generator of full size was cut at each of its "
        f"{number:,} boundaries of 4 KiB, and refused each time. {_machine(counted)}"
    )


def _machine(counted: Mapping[str, Any]) -> str:
    machine = counted["machine"]
    return (
        f"Counted on: {machine['processor']}, {machine['system']}, Python {machine['python']}, "
        f"PyTorch {machine['torch']}."
    )


if __name__ == "__main__":
    write_page()
