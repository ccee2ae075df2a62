"""Write the measurements into the pages that show them, between the pages' marks.

`results/benchmarks.json` and `results/imports.json` go into `book/benchmarks.md`;
`results/notebooks.json` and, shorter, the benchmarks again go into `book/measured.md`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import imports
from common import read_results, remarks, table

from srgan_lib.files import write_atomically

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "benchmarks.json"
PAGE = ROOT / "book" / "benchmarks.md"
NOTEBOOK_RESULTS = ROOT / "results" / "notebooks.json"
MEASURED = ROOT / "book" / "measured.md"
SCRIPTS = ("training_step", "crops", "upscaling")
PRECISIONS = {"bf16": "bfloat16", "fp16": "float16", "no": "float32"}


def fill(page: str, name: str, text: str) -> str:
    """Return the page with other text between the two marks of that name.

    Raises:
        ValueError: a mark is missing.
    """
    begin, end = f"% begin {name}\n", f"% end {name}\n"
    head, began, rest = page.partition(begin)
    _, ended, tail = rest.partition(end)
    if not began or not ended:
        raise ValueError(f"The page has no place for {name}: {begin!r} to {end!r}.")
    return f"{head}{begin}\n{text}\n\n{end}{tail}"


def render(page: str, results: Mapping[str, Any]) -> str:
    """Return the page of the benchmarks with what stands between its marks written anew.

    Raises:
        ValueError: a mark is missing.
    """
    for name in SCRIPTS:
        parts = [describe(device, measured) for device, measured in results.get(name, {}).items()]
        page = fill(page, name, "\n\n".join(parts) or "Not measured yet.")
    return page


def render_measured(page: str, notebooks: Mapping[str, Any], benchmarks: Mapping[str, Any]) -> str:
    """Return the page of all measurements with what stands between its marks written anew.

    Raises:
        ValueError: a mark is missing.
    """
    machine = notebooks["machine"]
    graphics = "no graphics card" if machine["gpu"] == "none" else machine["gpu"]
    where = (
        f"**The machine:** {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory'] / 2**30:.0f} GiB of memory, {graphics}; {machine['system']}; PyTorch "
        f"computes in {machine['threads']} threads."
    )
    rows = ["| notebook | time | peak memory |", "|---|---:|---:|"]
    for name, measured in notebooks["notebooks"].items():
        minutes, seconds = divmod(round(measured["seconds"]), 60)
        spent = f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"
        rows.append(
            f"| {{doc}}`/notebooks/{name}` | {spent} | {measured['peak'] / 2**30:.2f} GiB |"
        )
    parts = [where, "\n".join(rows)]
    if notebooks["note"]:
        parts.insert(1, f":::{{warning}}\n{notebooks['note']}\n:::")
    page = fill(page, "notebooks", "\n\n".join(parts))

    tables = [
        table(measured) for script in SCRIPTS for measured in benchmarks.get(script, {}).values()
    ]
    head, *_ = (each.splitlines()[:2] for each in tables)
    rows = [row for each in tables for row in each.splitlines()[2:]]
    page = fill(page, "benchmarks", "\n".join([*head, *rows]))

    rows = [f"| {name} | {number} |" for name, number in notebooks["versions"].items()]
    return fill(page, "versions", "\n".join(["| package | version |", "|---|---|", *rows]))


def describe(device: str, measured: Mapping[str, Any]) -> str:
    """Return the table of one script on one device, with the machine it was measured on."""
    machine = measured["machine"]
    where = f"{machine['processor']}, {machine['threads']} threads, {machine['cpu_capability']}"
    if device == "cuda":
        where = f"{machine['gpu']}, beside {where}"
    parts = [
        f"**{device.upper()}:** {where}; {machine['system']}, Python {machine['python']}, PyTorch "
        f"{machine['torch']}. Precision `auto` is {PRECISIONS[measured['precision']]} there. "
        f"Rounds behind each median: {measured['rounds']}.",
        table(measured),
        *remarks(measured),
    ]
    floors = [s.get("floor") or 0 for trial in measured["trials"] for s in trial["sides"].values()]
    if max(floors):
        parts.append(f"Of each peak, Python and its libraries took {max(floors) / 2**30:.2f} GiB.")
    if measured["note"]:
        parts.append(f":::{{warning}}\n{measured['note']}\n:::")
    return "\n\n".join(parts)


def main() -> None:
    """Rewrite both pages."""
    benchmarks = read_results(RESULTS)
    page = render(PAGE.read_text(encoding="utf-8"), benchmarks)
    page = fill(page, "imports", imports.describe(read_results(imports.RESULTS)))
    write_atomically(PAGE, page.encode())
    if NOTEBOOK_RESULTS.is_file():
        notebooks = json.loads(NOTEBOOK_RESULTS.read_text(encoding="utf-8"))
        page = render_measured(MEASURED.read_text(encoding="utf-8"), notebooks, benchmarks)
        write_atomically(MEASURED, page.encode())


if __name__ == "__main__":
    main()
