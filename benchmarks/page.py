"""Write the tables of results/benchmarks.json into book/benchmarks.md, between their marks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import read_results, remarks, table

from srgan_lib.files import write_atomically

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "benchmarks.json"
PAGE = ROOT / "book" / "benchmarks.md"
SCRIPTS = ("training_step", "crops", "upscaling")
PRECISIONS = {"bf16": "bfloat16", "fp16": "float16", "no": "float32"}


def render(page: str, results: Mapping[str, Any]) -> str:
    """Return the page with what stands between its marks written anew.

    Raises:
        ValueError: a mark is missing.
    """
    for name in SCRIPTS:
        begin, end = f"% begin {name}\n", f"% end {name}\n"
        head, began, rest = page.partition(begin)
        _, ended, tail = rest.partition(end)
        if not began or not ended:
            raise ValueError(f"The page has no place for {name}: {begin!r} to {end!r}.")
        parts = [describe(device, measured) for device, measured in results.get(name, {}).items()]
        text = "\n\n".join(parts) or "Not measured yet."
        page = f"{head}{begin}\n{text}\n\n{end}{tail}"
    return page


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
    """Rewrite the page."""
    page = render(PAGE.read_text(encoding="utf-8"), read_results(RESULTS))
    write_atomically(PAGE, page.encode())


if __name__ == "__main__":
    main()
