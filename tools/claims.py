"""The numbers in the book's prose, and where each comes from.

A claim is a number with a unit that can be measured: decibels, per cent, seconds, bytes, a factor,
a count of parameters, steps, images or patients. `book/claims.yml` quotes each and names its
source: the output of a notebook's cell, a value in a results file, a file of the repository, a
published work, or an arithmetic that the text itself does. `tests/test_claims.py` holds the prose
against that file; this module finds the numbers and writes `book/claims.md`.

    python tools/claims.py            # write the page
    python tools/claims.py --missing  # list the numbers that no quotation covers
"""

import json
import re
import sys
from collections.abc import Iterator
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
CLAIMS = ROOT / "book" / "claims.yml"
PAGE = ROOT / "book" / "claims.md"
TIMES = "results/notebooks.json"
# Written by commands from measurements, or claiming nothing: plans and questions, a list of works.
NOT_PROSE = {f"book/{name}.md" for name in ("claims", "measured", "instructors", "bibliography")}

WORD = (
    r"(?:half an?|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|"
    r"fifteen|sixteen|twenty|thirty|forty|fifty|sixty|hundreds?|thousands?|millions?)"
)
DIGITS = r"[+−-]?\d[\d,]*(?:\.\d+)?"
PART = r"(?:half|halves|thirds?|quarters?|fifths?|sixths?|eighths?|nine tenths|tenths?|hundredths?)"
CLAIM = re.compile(
    # A quantity with a unit; a count of two digits or more; a factor or a share.
    rf"(?:{DIGITS}|\b{WORD}|\ban?)(?:[\s -](?:of|a|and|to|{WORD}))*[\s -]?"
    r"(?:dB|decibels?|%|per cents?|percent|minutes?|hours?|[KMG]i?B|parameters|multiply-adds)(?!\w)"
    rf"|(?:{DIGITS}|\b{WORD})(?: to {WORD})?[\s -](?:seconds|times)\b"
    r"|(?:\d[\d,]+|\b(?:hundreds?|thousands?|millions?))(?: of thousands of| of the \d+)? "
    r"(?:steps|updates|epochs|images|photographs|radiographs|patients|crops|graphics cards)\b"
    rf"|\b(?:an?|two|three|four) {PART}\b|\btenths of\b"
    r"|\b(?:about|nearly|than|costs) (?:half|twice)\b"
    r"|\bHalf of what\b|\btwice as\b|\bfactors? of \w+|\b(?:two|three|ten|hundred)fold\b",
    re.IGNORECASE,
)
# The course enlarges fourfold: its scale is a setting. Frequencies are named by their share of the
# Nyquist frequency, places by halves. Ordinals and repetitions count, and measure nothing.
SETTING = re.compile(
    r"four times smaller|timetables for 4, 8 and 12 hours"
    r"|a third (?:party|consequence|against)|a fifth,|only a quarter"
    r"|(?:beyond|up to) a quarter|below a tenth, and above a half|from a half|a half of"
    r"|is a quarter of the HR|a quarter of the Nyquist|one layer three times|crop three times"
    r"|(?:on purpose|break it), three times|Exercise \d: [^.]*\. [^.]*\.",
    re.IGNORECASE,
)
# What counts as no claim: code, formulas, links' targets, questions to the reader, exercises.
FENCE = re.compile(r"^(`{3,}|:{3,})(.*?)$\n.*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
KEPT_FENCES = ("{figure}", "{warning}", "{note}", "{glossary}", "{admonition} Not for")
DROPPED = re.compile(
    r"\$\$.*?\$\$|\$[^$\n]+\$|`[^`]*`|\]\([^)]*\)|^\(.*\)=$|^% begin .*?^% end [^\n]*$",
    re.MULTILINE | re.DOTALL,
)
EXERCISES = re.compile(r"^## Exercises.*?(?=^## (?!Exercise)|\Z)", re.MULTILINE | re.DOTALL)


def strip(text: str) -> str:
    """Return Markdown without what counts as no claim."""

    def fence(match: re.Match[str]) -> str:
        return match[0] if match[2].strip().startswith(KEPT_FENCES) else "\n"

    return DROPPED.sub(" ", FENCE.sub(fence, text))


def prose() -> Iterator[tuple[str, str]]:
    """Yield the places of the book's prose, ``file`` or ``file#cell``, with their text."""
    pages = [ROOT / "README.md", ROOT / "index.md", *sorted((ROOT / "book").glob("*.md"))]
    for path in pages:
        name = path.relative_to(ROOT).as_posix()
        if name not in NOT_PROSE:
            yield name, strip(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        exercises = False
        for cell in notebook["cells"]:
            place = f"notebooks/{path.name}#{cell['id']}"
            text = "".join(cell["source"])
            if cell["cell_type"] == "code":
                figure = cell["metadata"].get("mystnb", {}).get("figure", {})
                if "caption" in figure:
                    yield place, strip(figure["caption"])
                continue
            exercises = (exercises or "## Exercises" in text) and "## References" not in text
            text = EXERCISES.sub("", text) if "## Exercises" in text else text
            if not exercises or "## Summary" in text:
                yield place, strip(text)


def plain(text: str) -> str:
    """Return a text with all white space as single spaces."""
    return " ".join(text.split())


def found(text: str) -> list[tuple[int, int]]:
    """Return where claims stand in a plain text."""
    settings = [match.span() for match in SETTING.finditer(text)]
    spans = [match.span() for match in CLAIM.finditer(text)]
    return [s for s in spans if not any(a <= s[0] < b for a, b in settings)]


def read_claims() -> list[dict[str, Any]]:
    """Return the entries of `book/claims.yml`, in its order."""
    return yaml.safe_load(CLAIMS.read_text(encoding="utf-8"))


def step_into(value: Any, path: str) -> Any:
    """Return what stands at a dotted path.

    ``*`` takes all values of a place as a list, and ``mean`` the mean of a list of numbers.
    """
    if not path:
        return value
    if isinstance(value, list) and path == "mean":
        return sum(value) / len(value)
    head, _, rest = path.partition(".")
    if head == "*":
        values = value.values() if isinstance(value, dict) else value
        return [step_into(each, rest) for each in values]
    if isinstance(value, list):
        return step_into(value[int(head)], rest)
    # A key may hold a point itself, such as a contrast of 0.06: the longest that fits.
    head = max((key for key in value if f"{path}.".startswith(f"{key}.")), key=len, default=head)
    return step_into(value[head], path[len(head) + 1 :])


def read_value(file: str, path: str) -> Any:
    """Return a value of a JSON, JSON Lines or YAML file of the repository."""
    text = (ROOT / file).read_text(encoding="utf-8")
    if file.endswith(".jsonl"):
        data = [json.loads(line) for line in text.splitlines()]
    else:
        data = yaml.safe_load(text) if file.endswith(".yaml") else json.loads(text)
    return step_into(data, path)


def value_of(claim: dict[str, Any]) -> Any:
    """Return the value that a claim's results file holds, or the quotient or difference of two."""
    first = read_value(claim["file"], claim["path"])
    for operation in ("over", "minus"):
        if operation in claim:
            *file, path = claim[operation].split()
            second = read_value(file[0] if file else claim["file"], path)
            return first / second if operation == "over" else first - second
    return first


def holds(claim: dict[str, Any]) -> bool:
    """Whether the value of a claim's results file is what the claim needs."""
    value = value_of(claim)
    if "most" in claim:
        return max(map(value.count, value)) == claim["most"]
    if "is" in claim and isinstance(claim["is"], str):
        return value == claim["is"]
    values = value if isinstance(value, list) else [value]
    if "is" in claim:
        said = Decimal(str(claim["is"]))
        return all(Decimal(str(v)).quantize(said, ROUND_HALF_EVEN) == said for v in values)
    low, high = claim.get("between", (claim.get("above"), claim.get("below")))
    return all((low is None or v > low) and (high is None or v < high) for v in values)


def cell_text(place: str) -> str:
    """Return the code of a notebook's cell and all that it stored as text."""
    file, _, name = place.partition("#")
    notebook = json.loads((ROOT / file).read_text(encoding="utf-8"))
    cell = next(cell for cell in notebook["cells"] if cell["id"] == name)
    parts = ["".join(cell["source"])]
    for output in cell.get("outputs", ()):
        parts.append("".join(output.get("text", "")))
        parts += [
            "".join(output.get("data", {}).get(f"text/{x}", "")) for x in ("plain", "markdown")
        ]
    return "\n".join(parts)


def places(claim: dict[str, Any]) -> list[str]:
    """Return where a claim stands."""
    return [claim["at"]] if isinstance(claim["at"], str) else claim["at"]


def missing(claims: list[dict[str, Any]]) -> list[str]:
    """Return the numbers of the prose that no quotation covers, each with some of its text."""
    quotations: dict[str, list[str]] = {}
    for claim in claims:
        for place in places(claim):
            quotations.setdefault(place, []).append(claim["says"])
    complaints = []
    for place, text in prose():
        text = plain(text)
        covered = [
            match.span()
            for says in quotations.get(place, ())
            for match in re.finditer(re.escape(plain(says)), text, re.IGNORECASE)
        ]
        for start, end in found(text):
            if not any(a <= start and end <= b for a, b in covered):
                complaints.append(f"{place}: ... {text[max(0, start - 60) : end + 30]} ...")
    return complaints


def not_said(claims: list[dict[str, Any]]) -> list[str]:
    """Return the quotations that their place doesn't hold."""
    texts = {place: plain(text).lower() for place, text in prose()}
    return [
        f"{place}: {claim['says']}"
        for claim in claims
        for place in places(claim)
        if plain(claim["says"]).lower() not in texts.get(place, "")
    ]


BEGIN = "% begin claims\n"


def link(place: str) -> str:
    """Return a place as a link, or as a file's name."""
    file, _, cell = place.partition("#")
    if file.endswith(".ipynb"):
        number = Path(file).name.split("_")[0].lstrip("0")
        return f"{{doc}}`chapter {number} </{file.removesuffix('.ipynb')}>`, cell `{cell}`"
    if file.startswith("book/"):
        return f"{{doc}}`/{file.removesuffix('.md')}`"
    return f"`{file}`"


def source(claim: dict[str, Any]) -> str:
    """Return a claim's source, for the table."""
    if claim.get("file") == TIMES:
        return "measured: {doc}`measured`"
    if "file" in claim:
        value = value_of(claim)
        text = f"measured: `{claim['file']}`, `{claim['path']}`"
        for word in {"over", "minus"} & claim.keys():
            text += f" {word} `{claim[word]}`"
        return f"{text} = {value:.4g}" if isinstance(value, float) else text
    if "cell" in claim:
        return f"measured or set: {link(claim['cell'])}"
    if "text" in claim:
        return f"set: `{claim['text']}`"
    if "cite" in claim:
        return f"cited: {{cite:t}}`{claim['cite']}`"
    return f"arithmetic or estimate: {claim['because']}"


def title(file: str) -> str:
    """Return the title of a page or notebook, which the README shares with the front page."""
    if file == "README.md":
        return "README"
    text = (ROOT / file).read_text(encoding="utf-8")
    if file.endswith(".ipynb"):
        text = "".join(json.loads(text)["cells"][0]["source"])
    return text.partition("# ")[2].partition("\n")[0]


def render(page: str, claims: list[dict[str, Any]]) -> str:
    """Return the page with its tables written anew: one for each file, in the claims' order."""
    rows: dict[str, list[str]] = {}
    for claim in claims:
        for place in places(claim):
            file, _, cell = place.partition("#")
            says = claim["says"].replace("|", "\\|")
            cell = f"`{cell}`" if cell else "–"
            rows.setdefault(file, []).append(f"| {says} | {cell} | {source(claim)} |")
    parts = [page.partition(BEGIN)[0] + BEGIN]
    for file in sorted(rows, key=lambda name: (name.startswith("notebooks"), name)):
        table = ["| the text says | cell | source |", "|---|---|---|", *rows[file]]
        parts.append("\n".join([f"## {title(file)}", "", *table]))
    return "\n".join(f"{part}\n" for part in parts)


def main(arguments: list[str]) -> None:
    """Write the page, or list what is missing."""
    claims = read_claims()
    if "--missing" in arguments:
        print(*missing(claims), *not_said(claims), sep="\n")
    else:
        page = render(PAGE.read_text(encoding="utf-8"), claims)
        PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
