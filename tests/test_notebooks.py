"""Rules for the notebooks.

nbval compares a fresh run with the stored outputs. It compares nothing where nothing is stored, so
these tests hold that every cell was run, in order and without complaint, and that the notebooks
keep to the course's form. A rule takes a notebook and returns its complaints; each rule is itself
tested on small bad notebooks.
"""

import base64
import copy
import io
import itertools
import json
import re
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from first_cell import current_address, first_cell
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXPECTED = [
    "01_data_preparation",
    "02_bicubic_baseline",
    "03_generator",
    "04_discriminator",
    "05_vgg_perceptual_loss",
    "06_adversarial_training",
    "07_evaluation",
    "08_the_family_tree",
    "08b_attention",
    "09_hallucination_lab",
]
FIRST_CELL = first_cell(current_address())
# In the whole course; each with its reason.
MAX_UNCOMPARED_CELLS = 2
UNCOMPARED = re.compile(
    r"nbval[-_](ignore[-_]output|skip|raises[-_]exception)|raises[-_]exception", re.IGNORECASE
)
ABSOLUTE_PATH = re.compile(r"""(?:^|[\s"'(=\[])(/[A-Za-z][\w.-]*/[\w.-]+|[A-Za-z]:\\[\w.-]+)""")
HOME = re.compile(r"~/|%USERPROFILE%")
REMOTE_IMAGE = re.compile(r"""!\[[^\]]*\]\(\s*<?https?:|<img[^>]+src=["']?https?:""")
CITATION = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")
EXERCISE = re.compile(
    r"^#{1,6} +Exercise\b|^(?:`{3,}|:{3,})\{exercise(?:-start)?\}|^(?:[-*]|\d+\.) +\**Exercise\b",
    re.MULTILINE,
)

Notebook = dict[str, Any]
Cell = dict[str, Any]


def joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)


def source(cell: Cell) -> str:
    return joined(cell["source"])


def code_cells(notebook: Notebook) -> list[Cell]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def prose(notebook: Notebook) -> str:
    cells = notebook["cells"]
    return "\n\n".join(source(cell) for cell in cells if cell["cell_type"] == "markdown")


def outputs(notebook: Notebook) -> Iterator[tuple[int, Cell, dict[str, Any]]]:
    """Every output with its cell and the cell's number among the code cells, from 1."""
    for number, cell in enumerate(code_cells(notebook), start=1):
        for output in cell["outputs"]:
            yield number, cell, output


def output_text(output: dict[str, Any]) -> str:
    """All that an output says in words."""
    data = output.get("data", {})
    texts = [joined(value) for kind, value in data.items() if kind.startswith("text/")]
    return "\n".join([joined(output.get("text", "")), *texts])


# The rules


def was_run_in_order(notebook: Notebook) -> list[str]:
    counts = [cell["execution_count"] for cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)) or not counts:
        return [f"not run from top to bottom: execution counts {counts}"]
    return []


def has_no_errors(notebook: Notebook) -> list[str]:
    found = outputs(notebook)
    return [f"code cell {n}: error" for n, _, out in found if out["output_type"] == "error"]


def has_no_stderr(notebook: Notebook) -> list[str]:
    found = outputs(notebook)
    return [f"code cell {n}: stderr" for n, _, out in found if out.get("name") == "stderr"]


def stores_some_output(notebook: Notebook) -> list[str]:
    return [] if any(outputs(notebook)) else ["no cell stores any output: nothing is compared"]


def has_python3_kernel(notebook: Notebook) -> list[str]:
    name = notebook["metadata"].get("kernelspec", {}).get("name")
    return [] if name == "python3" else [f"kernel {name}, not python3"]


def has_png_images_only(notebook: Notebook) -> list[str]:
    return [
        f"code cell {n}: {kind}; show pictures through matplotlib, as PNG"
        for n, _, out in outputs(notebook)
        for kind in out.get("data", {})
        if kind.startswith("image/") and kind != "image/png"
    ]


def has_readable_images(notebook: Notebook) -> list[str]:
    complaints = []
    for n, _, out in outputs(notebook):
        if "image/png" in out.get("data", {}):
            try:
                png = base64.b64decode(joined(out["data"]["image/png"]))
                Image.open(io.BytesIO(png)).load()
            except (OSError, ValueError) as error:
                complaints.append(f"code cell {n}: image does not decode ({error})")
    return complaints


def describes_its_figures(notebook: Notebook) -> list[str]:
    complaints = []
    for number, cell in enumerate(code_cells(notebook), start=1):
        images = sum("image/png" in out.get("data", {}) for out in cell["outputs"])
        if not images:
            continue
        settings = cell["metadata"].get("mystnb", {})
        alt = settings.get("image", {}).get("alt", "")
        caption = settings.get("figure", {}).get("caption", "")
        if images > 1:
            complaints.append(f"code cell {number}: {images} images, and one alternative text")
        if len(alt.split()) < 4:
            complaints.append(f"code cell {number}: mystnb.image.alt says too little: '{alt}'")
        if len(caption.split()) < 4:
            complaints.append(f"code cell {number}: mystnb.figure.caption: '{caption}'")
    return complaints


def begins_with_the_colab_cell(notebook: Notebook) -> list[str]:
    cells = code_cells(notebook)
    if cells and source(cells[0]).strip() == FIRST_CELL.strip():
        return []
    return ["the first code cell is not the course's Colab cell"]


def has_short_cells(notebook: Notebook) -> list[str]:
    lengths = [len(source(cell).strip().splitlines()) for cell in code_cells(notebook)]
    complaints = [
        f"code cell {number}: {length} lines, 25 at the most"
        for number, length in enumerate(lengths, start=1)
        if length > 25
    ]
    if lengths and statistics.median(lengths) > 8:
        complaints.append(f"median code cell of {statistics.median(lengths)} lines, 8 at the most")
    return complaints


def has_prose_before_code(notebook: Notebook) -> list[str]:
    kinds = ["", *(cell["cell_type"] for cell in notebook["cells"])]
    before = [previous for previous, kind in itertools.pairwise(kinds) if kind == "code"]
    share = before.count("markdown") / max(len(before), 1)
    return [] if share >= 0.8 else [f"{share:.0%} of code cells follow prose, 80% at the least"]


def has_exercises(notebook: Notebook) -> list[str]:
    count = len(EXERCISE.findall(prose(notebook)))
    return [] if count >= 3 else [f"{count} exercises, 3 at the least"]


def cites_known_works(notebook: Notebook) -> list[str]:
    bibliography = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    known = set(re.findall(r"^\s*@\w+\s*\{\s*([^,\s]+)", bibliography, re.MULTILINE))
    groups = CITATION.findall(prose(notebook))
    cited = {key.strip() for group in groups for key in group.split(",")}
    return [f"cites {key}, which references.bib lacks" for key in sorted(cited - known)]


def names_no_place_of_one_machine(notebook: Notebook) -> list[str]:
    places = [(f"cell {n}", source(cell)) for n, cell in enumerate(notebook["cells"], start=1)]
    places += [(f"output of code cell {n}", output_text(out)) for n, _, out in outputs(notebook)]
    complaints = [
        f"{place}: absolute path {match[1]}"
        for place, text in places
        for match in ABSOLUTE_PATH.finditer(text)
    ]
    # Prose may say where a tool keeps its files; code and outputs may not depend on it.
    beyond_prose = [(f"code cell {n}", source(c)) for n, c in enumerate(code_cells(notebook), 1)]
    beyond_prose += [place for place in places if place[0].startswith("output")]
    home = str(Path.home())
    complaints += [
        f"{place}: home directory"
        for place, text in beyond_prose
        if HOME.search(text) or (len(home) > 1 and home in text)
    ]
    return complaints


def has_no_remote_images(notebook: Notebook) -> list[str]:
    texts = [prose(notebook), *(output_text(out) for _, _, out in outputs(notebook))]
    return [f"remote image: {m[0]}" for text in texts for m in REMOTE_IMAGE.finditer(text)]


def silences_no_output_by_semicolon(notebook: Notebook) -> list[str]:
    # nbval runs cells without IPython's history, and there a closing `;` silences nothing.
    return [
        f"code cell {number}: ends with ';', which nbval does not heed"
        for number, cell in enumerate(code_cells(notebook), start=1)
        if source(cell).rstrip().endswith(";")
    ]


def gives_reasons_for_uncompared_cells(notebook: Notebook) -> list[str]:
    return [
        f"code cell {number}: output is not compared, and no reason stands in metadata or comment"
        for number, cell in uncompared_cells(notebook)
        if not reason(cell)
    ]


def uncompared_cells(notebook: Notebook) -> list[tuple[int, Cell]]:
    """The code cells whose output nbval is told to leave alone."""
    return [
        (number, cell)
        for number, cell in enumerate(code_cells(notebook), start=1)
        if any(UNCOMPARED.fullmatch(tag) for tag in cell["metadata"].get("tags", []))
        or any(UNCOMPARED.search(line) for line in comments(cell))
    ]


def comments(cell: Cell) -> list[str]:
    lines = (line.strip() for line in source(cell).splitlines())
    return [line.lstrip("# ") for line in lines if line.startswith("#")]


def reason(cell: Cell) -> str:
    """Why a cell is not compared: `nbval_reason` in its metadata, or a comment of words."""
    texts = [cell["metadata"].get("nbval_reason", "")]
    texts += [UNCOMPARED.sub("", line).strip(" :") for line in comments(cell)]
    return next((text for text in texts if len(text.split()) >= 3), "")


Rule = Callable[[Notebook], list[str]]
RULES: list[Rule] = [
    was_run_in_order,
    has_no_errors,
    has_no_stderr,
    stores_some_output,
    has_python3_kernel,
    has_png_images_only,
    has_readable_images,
    describes_its_figures,
    begins_with_the_colab_cell,
    has_short_cells,
    has_prose_before_code,
    has_exercises,
    cites_known_works,
    names_no_place_of_one_machine,
    has_no_remote_images,
    silences_no_output_by_semicolon,
    gives_reasons_for_uncompared_cells,
]


# The course's notebooks


def read(path: Path) -> Notebook:
    return json.loads(path.read_text(encoding="utf-8"))


def test_all_notebooks_are_here() -> None:
    assert [name for name in EXPECTED if not (ROOT / "notebooks" / f"{name}.ipynb").is_file()] == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path: Path, rule: Rule) -> None:
    assert rule(read(path)) == []


def test_few_cells_are_not_compared() -> None:
    found = [(path.stem, n) for path in NOTEBOOKS for n, _ in uncompared_cells(read(path))]
    assert len(found) <= MAX_UNCOMPARED_CELLS, found


# The rules themselves: a good notebook passes, and each fault is found


def markdown(text: str) -> Cell:
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def code(text: str, count: int, *outputs: dict[str, Any], **metadata: Any) -> Cell:
    return {
        "cell_type": "code",
        "execution_count": count,
        "metadata": metadata,
        "outputs": list(outputs),
        "source": text,
    }


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": text}


def display(**data: str) -> dict[str, Any]:
    named = {kind.replace("_", "/"): value for kind, value in data.items()}
    return {"output_type": "display_data", "metadata": {}, "data": named}


def png() -> str:
    stored = io.BytesIO()
    Image.new("L", (4, 4)).save(stored, "PNG")
    return base64.b64encode(stored.getvalue()).decode()


@pytest.fixture
def good() -> Notebook:
    alt = "A white square of four pixels on each side."
    described = {"image": {"alt": alt}, "figure": {"caption": "Nothing but one small square."}}
    return {
        "metadata": {"kernelspec": {"name": "python3"}},
        "cells": [
            markdown("# A title\n\nKeep the data in `~/data` and/or `data/raw`; 3 /4 is a number."),
            code(FIRST_CELL, 1),
            markdown("Now print."),
            code("print(1)", 2, stream("1\n")),
            markdown("Now draw."),
            code("plt.show()", 3, display(image_png=png()), mystnb=described),
            markdown(
                "## Exercise 1\n\n### Exercise 2: more\n\n```{exercise} Third\n:label: a\n```"
            ),
        ],
    }


def test_rules_accept_a_good_notebook(good: Notebook) -> None:
    assert {rule.__name__: rule(good) for rule in RULES if rule(good)} == {}


def replace_cell(index: int, cell: Cell) -> Callable[[Notebook], None]:
    def change(notebook: Notebook) -> None:
        notebook["cells"][index] = cell

    return change


def set_count(count: int | None) -> Callable[[Notebook], None]:
    def change(notebook: Notebook) -> None:
        notebook["cells"][3]["execution_count"] = count

    return change


def say(text: str) -> Callable[[Notebook], None]:
    def change(notebook: Notebook) -> None:
        notebook["cells"][0]["source"] += "\n" + text

    return change


def set_figure(**settings: Any) -> Callable[[Notebook], None]:
    def change(notebook: Notebook) -> None:
        notebook["cells"][5]["metadata"]["mystnb"].update(settings)

    return change


def clear_outputs(notebook: Notebook) -> None:
    for cell in code_cells(notebook):
        cell["outputs"] = []


def remove_prose(notebook: Notebook) -> None:
    notebook["cells"] = [cell for cell in notebook["cells"] if cell["source"] != "Now print."]


def draw_twice(notebook: Notebook) -> None:
    notebook["cells"][5]["outputs"] *= 2


def lengthen(lines: int) -> Callable[[Notebook], None]:
    def change(notebook: Notebook) -> None:
        for index in (3, 5):
            notebook["cells"][index]["source"] = "x = 1\n" * lines

    return change


ERROR = {"output_type": "error", "ename": "E", "evalue": "", "traceback": []}
FAULTS: list[tuple[Rule, Callable[[Notebook], None]]] = [
    (was_run_in_order, set_count(None)),
    (was_run_in_order, set_count(7)),
    (was_run_in_order, lambda notebook: notebook.update(cells=[])),
    (has_no_errors, replace_cell(3, code("1 / 0", 2, ERROR))),
    (has_no_stderr, replace_cell(3, code("warn()", 2, stream("w", "stderr")))),
    (stores_some_output, clear_outputs),
    (has_python3_kernel, lambda notebook: notebook["metadata"].clear()),
    (
        has_png_images_only,
        replace_cell(3, code("show()", 2, display(**{"image_svg+xml": ""}))),
    ),
    (has_png_images_only, replace_cell(3, code("show()", 2, display(image_jpeg="AAAA")))),
    (has_readable_images, replace_cell(5, code("show()", 3, display(image_png="AAAA")))),
    (has_readable_images, replace_cell(5, code("show()", 3, display(image_png=png()[:48])))),
    (describes_its_figures, replace_cell(5, code("show()", 3, display(image_png=png())))),
    (describes_its_figures, set_figure(image={"alt": "figure"})),
    (describes_its_figures, set_figure(figure={"caption": ""})),
    (describes_its_figures, draw_twice),
    (begins_with_the_colab_cell, replace_cell(1, code("import sys", 1))),
    (has_short_cells, lengthen(9)),
    (has_short_cells, replace_cell(3, code("x = 1\n" * 26, 2))),
    (has_prose_before_code, remove_prose),
    (has_exercises, replace_cell(6, markdown("## Exercise 1\n\n## Exercise 2"))),
    (cites_known_works, say("{cite:t}`nobody1900`")),
    (names_no_place_of_one_machine, replace_cell(3, code("open('/data/x.png')", 2))),
    (names_no_place_of_one_machine, replace_cell(3, code("print(p)", 2, stream("/data/x.png\n")))),
    (names_no_place_of_one_machine, replace_cell(3, code(r"open('C:\data')", 2))),
    (names_no_place_of_one_machine, replace_cell(3, code("open('~/x.png')", 2))),
    (names_no_place_of_one_machine, replace_cell(3, code("p", 2, stream(f"{Path.home()}\n")))),
    (has_no_remote_images, say("![A lung](https://example.org/a.png)")),
    (has_no_remote_images, say('<img alt="A lung" src="http://example.org/a.png">')),
    (silences_no_output_by_semicolon, replace_cell(3, code("plt.plot(x);\n", 2))),
    (gives_reasons_for_uncompared_cells, replace_cell(3, code("# NBVAL_IGNORE_OUTPUT\nx", 2))),
    (gives_reasons_for_uncompared_cells, replace_cell(3, code("x", 2, tags=["nbval-skip"]))),
    (gives_reasons_for_uncompared_cells, replace_cell(3, code("x", 2, tags=["raises-exception"]))),
]


@pytest.mark.parametrize(("rule", "spoil"), FAULTS)
def test_rule_finds_a_fault(good: Notebook, rule: Rule, spoil: Callable[[Notebook], None]) -> None:
    bad = copy.deepcopy(good)
    spoil(bad)
    assert rule(bad)


def test_every_rule_is_tested() -> None:
    assert {rule for rule, _ in FAULTS} == set(RULES)


@pytest.mark.parametrize(
    "cell",
    [
        code("# NBVAL_IGNORE_OUTPUT: the time depends on the machine\nx", 1),
        code("x", 1, tags=["nbval-ignore-output"], nbval_reason="the time depends on the machine"),
    ],
)
def test_a_reason_is_accepted(good: Notebook, cell: Cell) -> None:
    good["cells"][3] = cell
    assert len(uncompared_cells(good)) == 1
    assert gives_reasons_for_uncompared_cells(good) == []
