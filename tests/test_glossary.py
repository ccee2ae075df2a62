"""Glossary and symbols: what they name exists, and the entries show at their words."""

import functools
import importlib
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "_build" / "html"
GLOSSARY = (ROOT / "book" / "glossary.md").read_text(encoding="utf-8")
SYMBOLS = (ROOT / "book" / "symbols.md").read_text(encoding="utf-8")
NOTEBOOKS = {path.stem: path for path in (ROOT / "notebooks").glob("*.ipynb")}
DOTTED = re.compile(r"^((?:srgan_lib|torch)(?:\.\w+)+)(?:\((.*)\))?$")


def cells(name: str, kind: str) -> str:
    notebook = json.loads(NOTEBOOKS[name].read_text(encoding="utf-8"))
    return "\n".join("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == kind)


def find(name: str) -> Any:
    """Import what a dotted name stands for."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        return functools.reduce(getattr, parts[cut:], found)
    raise ModuleNotFoundError(name)


def entries() -> list[str]:
    body = re.search(r"```\{glossary\}\n:sorted:\n\n(.*?)\n```", GLOSSARY, re.DOTALL)[1]
    return body.split("\n\n")


# The files


def test_each_word_has_one_definition() -> None:
    words = []
    for block in entries():
        head = [line for line in block.splitlines() if not line.startswith("  ")]
        text = [line for line in block.splitlines() if line.startswith("  ")]
        assert text, f"{head} is not explained"
        assert head or text[0].startswith("  Where: "), text
        words += head
    assert len(words) == len(set(words)) > 60


def test_code_that_the_glossary_names_exists() -> None:
    named = {code for code in re.findall(r"`([^`{}]+)`", GLOSSARY) if DOTTED.match(code)}
    assert len(named) > 40
    for code in named:
        assert find(DOTTED.match(code)[1]) is not None


def test_entries_with_code_or_formula_name_equation_or_code() -> None:
    text = "\n\n".join(entries())
    labels = {
        label
        for name in NOTEBOOKS
        for label in re.findall(r"\$\$ \((eq-[\w-]+)\)", cells(name, "markdown"))
    }
    used = set(re.findall(r"\{eq\}`([^`]+)`", GLOSSARY + SYMBOLS))
    assert used == labels and len(labels) >= 9
    for word in ("PSNR", "SSIM", "PReLU", "loss", "receptive field", "windowing"):
        entry = re.search(rf"^{word}\n(?:[^\n]+\n|\n(?=  ))+", f"{text}\n", re.MULTILINE)[0]
        assert "Where: equation {eq}`eq-" in entry, word


ROWS = [line.strip("| ").split(" | ") for line in SYMBOLS.splitlines() if line.startswith("| ")][1:]


def test_there_is_one_table_of_symbols() -> None:
    assert SYMBOLS.count("\n|---") == 1 and len(ROWS) >= 40


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_symbol_and_code_are_in_the_chapter(row: list[str]) -> None:
    symbols, _, code, chapter, _ = row
    name = re.search(r"</notebooks/(\w+)>", chapter)[1]
    prose, source = cells(name, "markdown"), cells(name, "code")
    formulas = " ".join(re.findall(r"\$\$.*?\$\$|\$[^$\n]+\$", prose, re.DOTALL))
    for symbol in symbols.split(", "):
        if symbol.startswith("$"):
            bare = symbol.strip("$")
            end = r"(?![A-Za-z])" if bare[-1].isalpha() else ""
            before = r"(?<![A-Za-z\\])" if bare[0].isalpha() else ""
            pattern = f"{before}{re.escape(bare)}{end}"
            assert re.search(pattern, formulas) or re.search(pattern, source)
        else:
            assert symbol.lower() in prose.lower()
    for entry in re.findall(r"`([^`]+)`", code):
        if "." in entry:
            dotted = DOTTED.match(entry if entry.startswith("torch") else f"srgan_lib.{entry}")
            found = find(dotted[1])
            if dotted[2]:
                assert dotted[2] in inspect.signature(found).parameters
        else:
            assert re.search(rf"\b{entry}\b", source)


# The site


@pytest.fixture
def chapter(address: str) -> str:
    """The address of a chapter."""
    return f"{address}/notebooks/03_generator.html"


@pytest.fixture
def page(browser: Any, chapter: str) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(chapter)
    yield page
    context.close()


def parts(page: Page) -> tuple[Any, Any]:
    """A word's link and its note."""
    link = page.locator("a.glossary-word", has_text="pixel shuffle").first
    return link, page.locator("#note-term-pixel-shuffle")


def test_every_linked_word_has_its_note(page: Page) -> None:
    links = page.locator("a:has(> .std-term)").all()
    assert len(links) > 10
    for link in links:
        note = page.locator(f"#{link.get_attribute('aria-describedby')}")
        expect(note).to_have_attribute("role", "tooltip")
        assert note.locator("a").count() == 0
        assert len(note.text_content()) > 40
    size = page.evaluate("document.querySelector('.glossary-notes').outerHTML.length")
    assert size < 30_000


def test_note_shows_on_pointing_stays_under_the_pointer_and_goes(page: Page) -> None:
    link, note = parts(page)
    expect(note).to_be_hidden()
    link.hover()
    expect(note).to_be_visible()
    expect(note).to_contain_text("no arithmetic, only a new order")
    note.hover()
    page.wait_for_timeout(600)
    expect(note).to_be_visible()
    page.mouse.move(5, 5)
    expect(note).to_be_hidden()


def test_note_shows_on_focus_and_escape_closes_it(page: Page) -> None:
    link, note = parts(page)
    page.keyboard.press("Tab")  # from now on the browser shows the focus
    link.focus()
    expect(note).to_be_visible()
    page.wait_for_timeout(600)
    expect(note).to_be_visible()
    page.keyboard.press("Escape")
    expect(note).to_be_hidden()
    expect(link).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url("**/glossary.html#term-pixel-shuffle")


def test_formulas_in_a_note_are_set(page: Page) -> None:
    _, note = parts(page)
    expect(note.locator("mjx-container")).not_to_have_count(0)
    assert r"\(" not in note.text_content()


def test_first_tap_shows_and_second_follows(browser: Any, chapter: str) -> None:
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    context = browser.new_context(**phone)
    page = context.new_page()
    page.goto(chapter)
    link, note = parts(page)
    link.tap()
    expect(note).to_be_visible()
    box = note.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 360
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    link.tap()
    page.wait_for_url("**/glossary.html#term-pixel-shuffle")
    context.close()


def test_without_javascript_the_link_leads_to_the_entry(browser: Any, chapter: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(chapter)
    expect(page.locator(".glossary-note").first).to_be_hidden()
    page.locator("a:has(> .std-term)", has_text="pixel shuffle").first.click()
    page.wait_for_url("**/glossary.html#term-pixel-shuffle")
    context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_note_can_be_read_in_both_themes(page: Page, theme: str) -> None:
    page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
    link, note = parts(page)
    link.hover()
    expect(note).to_be_visible()
    colours = note.evaluate(
        "note => [note, note.querySelector('code')].map(x => getComputedStyle(x).color)"
        ".concat(getComputedStyle(note).backgroundColor)"
    )
    ink, code, paper = ([int(float(x)) for x in re.findall(r"[\d.]+", c)[:3]] for c in colours)

    def luminance(colour: list[int]) -> float:
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
            for c in (channel / 255 for channel in colour)
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(a: list[int], b: list[int]) -> float:
        low, high = sorted((luminance(a), luminance(b)))
        return (high + 0.05) / (low + 0.05)

    assert contrast(ink, paper) >= 4.5
    assert contrast(code, paper) >= 4.5
