"""Predictions on the built site: what is folded, and how a guess unfolds it.

A missing site or browser is treated as in test_site.py.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page
from webpages import NARROW, PAGES, ROOT, WIDE, WIDTH, commit_guesses, listen

CHAPTERS = [name for name in PAGES if name.startswith("notebooks/")]
CHAPTER = "notebooks/01_data_preparation"
FENCE = re.compile(r"^```\{predict\}\n(.*?)\n\n(.*?)^```$", re.MULTILINE | re.S)
SHOWN = "node => getComputedStyle(node).display !== 'none'"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport=WIDE, color_scheme="light")
    yield page
    page.close()


def cells(name: str) -> list[dict]:
    return json.loads((ROOT / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]


def predictions(name: str) -> list[tuple[dict[str, str], str]]:
    """Each prediction's options and text."""
    found = []
    for cell in cells(name):
        if cell["cell_type"] == "markdown":
            for head, body in FENCE.findall("".join(cell["source"])):
                found.append((dict(re.findall(r"^:(\w+): (.*)$", head, re.MULTILINE)), body))
    return found


# The notebooks


@pytest.mark.parametrize("name", CHAPTERS)
def test_no_prediction_of_the_old_form_is_left(name: str) -> None:
    text = "\n".join("".join(cell["source"]) for cell in cells(name))
    assert ":class: predict" not in text
    assert text.count("{predict}") == len(predictions(name)) > 0


NUMBERS = {
    # What the executed cell prints, and the answer that must agree with it.
    ("notebooks/01_data_preparation", r"false stripes repeat after (\d+) LR pixels"): 11,
    ("notebooks/02_bicubic_baseline", r"share of the squared error: (\d+)%"): 51,
    ("notebooks/03_generator", r"reference SRResNet: (\d+) dB above bicubic"): 4,
    ("notebooks/04_discriminator", r"in all +(\d+,\d)\d\d,\d+"): 23.6,
    ("notebooks/07_evaluation", r"lanczos leads in (\d+) of 16 tiles"): 9,
    ("notebooks/08_the_family_tree", r"SRCNN adds (\d+)% of what is missing"): 19,
}


@pytest.mark.parametrize(("name", "pattern"), NUMBERS)
def test_numbers_agree_with_the_executed_cells(name: str, pattern: str) -> None:
    outputs = [out for cell in cells(name) for out in cell.get("outputs", [])]
    printed = "\n".join("".join(out.get("text", "")) for out in outputs)
    found = re.search(pattern, printed)
    assert found, pattern
    answer = NUMBERS[name, pattern]
    assert float(found[1].replace(",", ".")) == pytest.approx(answer, abs=0.11)
    wanted = [options for options, _ in predictions(name) if options["answer"] == f"{answer:g}"]
    assert wanted and "unit" in wanted[0]


# The pages


def test_every_prediction_has_an_answer_and_something_to_unfold(
    page: Page,
    address: str,
) -> None:
    for name in CHAPTERS:
        page.goto(f"{address}/{name}.html", wait_until="domcontentloaded")
        found = page.locator(".bd-article .predict").evaluate_all(
            """nodes => nodes.map(node => ({
                answer: Number(node.dataset.answer),
                options: node.querySelectorAll('.predict-options button').length,
                tolerance: Number(node.dataset.tolerance),
                field: node.querySelectorAll('input[type=number]').length,
                question: node.querySelector('p:not([class])').textContent.length,
                links: node.querySelectorAll('button a').length,
            }))"""
        )
        assert len(found) == len(predictions(name))
        for one in found:
            assert one["question"] > 15 and one["links"] == 0
            if one["options"]:
                assert 2 <= one["options"] <= 4 and one["answer"] in range(1, one["options"] + 1)
            else:
                assert one["field"] == 1 and one["tolerance"] >= 0
        # Each has its note, and each note hides something that takes up room once it is shown.
        assert page.locator(".predict-note").count() == len(found)
        assert page.locator(".predict-note + .predict-folded").count() == len(found)
        empty = page.locator(".predict-folded").evaluate_all(
            "nodes => nodes.filter(node => !node.textContent.trim() && !node.querySelector('img, "
            "svg, input')).length"
        )
        assert empty == 0
        # All unfold, and nothing stays folded.
        commit_guesses(page)
        assert page.locator(".predict-folded, .predict-note").count() == 0
        assert page.locator(".predict-result:empty").count() == 0


def test_without_javascript_everything_is_visible(browser: Browser, address: str) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto(f"{address}/{CHAPTER}.html")
    assert page.locator(".predict").count() == len(predictions(CHAPTER))
    assert page.locator(".predict ol").first.is_visible()
    assert page.locator(".predict-folded, .predict-note, .predict button").count() == 0
    outputs = page.locator(".bd-article .cell_output")
    assert all(outputs.nth(i).is_visible() for i in range(outputs.count()))
    page.close()


def test_a_choice_by_keyboard(page: Page, address: str) -> None:
    complaints = listen(page, address)
    page.goto(f"{address}/{CHAPTER}.html")
    predict = page.locator(".predict").nth(1)
    output = page.locator(".predict-folded")
    before = output.count()
    buttons = predict.get_by_role("button")
    buttons.first.focus()
    page.keyboard.press("Tab")
    focused = buttons.nth(1)
    assert focused.evaluate("node => node === document.activeElement")
    assert focused.evaluate("node => getComputedStyle(node).outlineStyle") == "solid"
    assert focused.evaluate("node => node.getBoundingClientRect().height") >= 44
    page.keyboard.press("Space")
    assert predict.get_by_role("status").inner_text() == "Your guess: dark. The answer: bright."
    assert focused.get_attribute("aria-pressed") == "true"
    assert buttons.first.get_attribute("aria-disabled") == "true"
    assert output.count() < before
    # A second guess changes nothing.
    buttons.first.press("Enter")
    assert focused.get_attribute("aria-pressed") == "true"
    # The guess is remembered.
    page.reload()
    assert predict.get_by_role("status").inner_text().startswith("Your guess: dark.")
    assert complaints == []


@pytest.mark.parametrize(
    ("guess", "said"),
    [
        ("11", "Right: it is 11 LR pixels."),
        ("40", "Your guess: 40 LR pixels. It is less: 11 LR pixels."),
    ],
)
def test_a_number_by_touch(browser: Browser, address: str, guess: str, said: str) -> None:
    context = browser.new_context(viewport=NARROW, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(f"{address}/{CHAPTER}.html")
    predict = page.locator(".predict", has=page.locator("input")).first
    button = predict.get_by_role("button")
    button.tap()
    assert predict.get_by_role("status").inner_text() == ""  # an empty field is no guess
    predict.get_by_label("Your guess").fill(guess)
    button.tap()
    assert predict.get_by_role("status").inner_text() == said
    assert page.evaluate(WIDTH) <= NARROW["width"]
    context.close()


def test_a_link_into_an_output_unfolds_it(page: Page, address: str) -> None:
    page.goto(f"{address}/{CHAPTER}.html")
    figure = page.locator(".predict-folded figure[id]").first
    name = figure.get_attribute("id")
    assert not figure.is_visible()
    page.goto(f"{address}/{CHAPTER}.html#{name}")
    assert page.locator(f"#{name}").is_visible()


def test_print_shows_everything(page: Page, address: str) -> None:
    page.goto(f"{address}/{CHAPTER}.html")
    page.emulate_media(media="print")
    folded = page.locator(".predict-folded")
    assert folded.count() > 5
    assert all(folded.evaluate_all(f"nodes => nodes.map({SHOWN})"))


def luminance(colour: str) -> float:
    values = [float(x) / 255 for x in re.findall(r"[\d.]+", colour)[:3]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(browser: Browser, address: str, scheme: str) -> None:
    page = browser.new_page(color_scheme=scheme)
    page.goto(f"{address}/{CHAPTER}.html")
    predict = page.locator(".predict").first
    predict.get_by_role("button").first.click()
    style = "(node, name) => getComputedStyle(node)[name]"
    paper = predict.evaluate(style, "backgroundColor")
    button = predict.get_by_role("button").first
    inside = button.evaluate(style, "backgroundColor")
    assert contrast(button.evaluate(style, "color"), inside) >= 4.5
    assert contrast(button.evaluate(style, "borderTopColor"), paper) >= 3
    assert contrast(button.evaluate(style, "borderTopColor"), inside) >= 3
    assert contrast(predict.get_by_role("status").evaluate(style, "color"), paper) >= 4.5
    page.close()


# The directive


@pytest.mark.parametrize(
    ("block", "complaint"),
    [
        ("Why?\n\n1. a\n2. b", "`answer` of a prediction must be a number, not None"),
        (":answer: 3\n\nWhy?\n\n1. a\n2. b", "from 1 to 2"),
        (":answer: 1.5\n\nWhy?\n\n1. a\n2. b", "from 1 to 2"),
        (":answer: 1\n\nWhy?\n\n1. a", "2 to 4 options, not 1"),
        (":answer: many\n\nHow many?", "must be a number, not 'many'"),
        (":answer: 3\n:tolerance: some\n\nHow many?", "`tolerance` of a prediction"),
    ],
)
def test_faulty_directive_is_an_error(tmp_path: Path, block: str, complaint: str) -> None:
    assert complaint in build(tmp_path, block)[1]


def test_directive_writes_what_the_script_reads(tmp_path: Path) -> None:
    html, warnings = build(tmp_path, ":answer: 2.5\n:unit: dB\n\nHow many {math}`x`?")
    assert warnings == ""
    assert 'data-answer="2.5"' in html and 'data-tolerance="0.25"' in html
    assert 'data-unit="dB"' in html and 'data-outputs="1"' in html


def build(folder: Path, block: str) -> tuple[str, str]:
    """The page and the warnings that Sphinx makes of one prediction."""
    import io
    import sys

    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    (folder / "index.md").write_text(f"# Page\n\n```{{predict}}\n{block}\n```\n", encoding="utf-8")
    warnings = io.StringIO()
    sys.path.insert(0, str(ROOT / "book" / "_ext"))
    try:
        with docutils_namespace():
            settings = {"extensions": ["myst_parser", "predict"], "html_theme": "basic"}
            app = Sphinx(
                folder, None, folder / "out", folder / "doc", "html", settings, None, warnings
            )
            app.build()
    finally:
        sys.path.remove(str(ROOT / "book" / "_ext"))
    return (folder / "out" / "index.html").read_text(encoding="utf-8"), warnings.getvalue()
