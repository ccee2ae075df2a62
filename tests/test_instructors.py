"""The page for instructors: its minutes add up, and what it names is in the notebooks."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "book" / "instructors.md").read_text(encoding="utf-8")
CHAPTERS = {path.stem.split("_")[0].lstrip("0"): path for path in (ROOT / "notebooks").glob("*.i*")}
MISTAKES = re.findall(r"^\|[^|]+\|[^|]+\| (chapters? [^|]+) \|$", PAGE, re.MULTILINE)


def section(title: str) -> str:
    """Return what stands below a heading of the third level."""
    return re.search(rf"^### {title}.*?(?=^##)", PAGE, re.MULTILINE | re.DOTALL)[0]


def column(text: str, number: int) -> list[int]:
    """Return the whole numbers in one column of the first table."""
    lines = text.partition("\n|")[2].partition("\n\n")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [int(row[number]) for row in rows if row[number].isdigit()]


def test_timetables_add_up() -> None:
    assert sum(column(section("4 hours"), 0)) == 240
    blocks = column(section("8 hours"), 1)
    assert sum(blocks) == 480
    ends = {sum(blocks[: i + 1]) for i in range(len(blocks))}
    assert {120, 240, 360, 480} <= ends
    course = section("12 hours")
    sessions = re.findall(r"^\| (\d) \|", course, re.MULTILINE)
    assert sum(column(course, 0)) * len(sessions) == 720


def test_each_chapter_has_its_goals() -> None:
    goals = re.findall(r"^\| \{doc\}`\w+ </notebooks/(\w+)>` \|", PAGE, re.MULTILINE)
    assert goals == sorted(path.stem for path in CHAPTERS.values())


@pytest.mark.parametrize("place", MISTAKES)
def test_headings_that_show_mistakes_exist(place: str) -> None:
    number, heading = re.search(r"chapters? (\w+)", place)[1], re.search(r"\*(.+)\*", place)
    cells = json.loads(CHAPTERS[number].read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    if heading and heading[1] != "detail":
        assert re.search(rf"^##+ {re.escape(heading[1])}$", text, re.MULTILINE)


def test_what_checks_print_is_what_the_page_looks_for() -> None:
    words = re.search(r"grep -E '(.*)'", PAGE)[1]
    texts = {
        path.parent.name: path.read_text(encoding="utf-8")
        for path in sorted((ROOT / "notebooks").rglob("03_*.ipynb"))
    }
    found = {
        name: [line for line in text.splitlines() if re.search(words, line)]
        for name, text in texts.items()
    }
    assert (
        len(found["notebooks"])
        == len(found["solutions"])
        == texts["notebooks"].count("exercises.check_")
    )
    assert all("right!" in line for line in found["solutions"])
    teacher = (ROOT / "srgan_lib" / "exercises" / "teacher.py").read_text(encoding="utf-8")
    for line in ("right!", "not attempted yet", "Not yet. "):
        assert f'"{line}' in teacher
        assert re.search(words, f'"{line}')
