"""Every page of the site in a headless Chromium on localhost, and its parts used as people do.

A page is loaded once, and what was found there is kept for all the tests that ask about it.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from webpages import NARROW, PAGES, ROOT, SITE, WIDE, WIDTH, commit_guesses, listen, parse

AXE = ROOT / "tests" / "axe" / "axe.min.js"
# The dark page is the light one in other colours: rules that don't look at them hold for both.
RULES = {
    "light": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]},
    "dark": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]},
}
LONGEST_PAINT = 1000
"""Milliseconds to the first paint."""
HEAVIEST_PAGE = 1_500_000
"""Bytes over the wire for a page with all its figures, text compressed as web hosts send it."""
BUILT = [*PAGES, "search", "genindex"]

LOAD_IMAGES = """() => Promise.all([...document.images].map(async (image) => {
    image.loading = "eager";
    await image.decode().catch(() => {});
    return image.naturalWidth ? null : image.src;
})).then((found) => found.filter(Boolean))"""

AUDIT = """(runOnly) => axe.run(document, {
    runOnly, resultTypes: ["violations"],
}).then((result) => result.violations.map(
    (rule) => `${rule.id}: ${rule.nodes.length}, first ${rule.nodes[0].html.slice(0, 200)}`))"""

# The ground on which a figure lies: what is drawn on it must not depend on the page's colour.
CARDS = """() => [...document.querySelectorAll("figure img, .cell_output img")].filter((image) => {
    const style = getComputedStyle(image);
    return style.filter != "none" || style.opacity != "1"
        || !/^rgb\\(/.test(style.backgroundColor);
}).map((image) => image.src.slice(0, 200))"""

TRANSFER = """() => [...performance.getEntriesByType("navigation"),
    ...performance.getEntriesByType("resource")].map((entry) => entry.transferSize)
    .reduce((total, size) => total + size, 0)"""

PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0].startTime"


@dataclass
class Visit:
    """What was found on a page."""

    complaints: list[str]
    broken_images: list[str]
    maths: int
    maths_errors: int
    paint: float
    bytes: int
    narrow_width: int
    violations: dict[str, list[str]] = field(default_factory=dict)
    dim_figures: dict[str, list[str]] = field(default_factory=dict)


def first_paint(browser: Browser, url: str) -> float:
    page = browser.new_page(viewport=WIDE, color_scheme="light", bypass_csp=True)
    page.goto(url)
    page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")
    paint = page.evaluate(PAINT)
    page.close()
    return paint


@pytest.fixture(scope="module")
def visit(browser: Browser, address: str) -> Iterator[Callable[[str], Visit]]:
    @functools.cache
    def visit(name: str) -> Visit:
        # The policy of one page would forbid these tests' own scripts; test_try_it.py tests it.
        page = browser.new_page(viewport=WIDE, color_scheme="light", bypass_csp=True)
        complaints = listen(page, address)
        url = f"{address}/{name}.html"
        page.goto(url, wait_until="networkidle")
        if parse(SITE / f"{name}.html").has_maths:
            page.wait_for_selector("mjx-container", state="attached", timeout=10_000)
        paint = page.evaluate(PAINT)
        for _ in range(4):  # a busy machine slows one load, hardly five
            if paint > LONGEST_PAINT:
                paint = min(paint, first_paint(browser, url))
        broken = page.evaluate(LOAD_IMAGES)
        transfer = page.evaluate(TRANSFER)
        commit_guesses(page)
        page.wait_for_timeout(400)  # the theme looks anew for what scrolls, 300 ms after a change
        page.evaluate(AXE.read_text(encoding="utf-8"))
        violations, dim = {}, {}
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            page.wait_for_function(f"document.documentElement.dataset.theme == '{theme}'")
            page.add_style_tag(content="* { transition: none !important; }")
            violations[theme] = page.evaluate(AUDIT, RULES[theme])
            dim[theme] = page.evaluate(CARDS)
        page.set_viewport_size(NARROW)
        found = Visit(
            complaints,
            broken,
            page.locator("mjx-container").count(),
            page.locator("mjx-merror").count(),
            paint,
            transfer,
            page.evaluate(WIDTH),
            violations,
            dim,
        )
        page.close()
        return found

    yield visit
    visit.cache_clear()


@pytest.mark.parametrize("name", BUILT)
def test_page_loads_cleanly(visit: Callable[[str], Visit], name: str) -> None:
    found = visit(name)
    assert found.complaints == []
    assert found.broken_images == []
    assert found.maths_errors == 0


@pytest.mark.parametrize("name", BUILT)
def test_page_fits_a_phone(visit: Callable[[str], Visit], name: str) -> None:
    assert visit(name).narrow_width <= NARROW["width"]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", BUILT)
def test_page_has_no_barriers(visit: Callable[[str], Visit], name: str, theme: str) -> None:
    assert visit(name).violations[theme] == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_figures_lie_on_a_card(visit: Callable[[str], Visit], name: str, theme: str) -> None:
    assert visit(name).dim_figures[theme] == []


@pytest.mark.parametrize("name", PAGES)
def test_page_is_light_and_fast(visit: Callable[[str], Visit], name: str) -> None:
    found = visit(name)
    assert found.bytes < HEAVIEST_PAGE
    assert found.paint < LONGEST_PAINT


# Used by keyboard and by touch


def pages_with(text: str) -> list[str]:
    pages = [name for name in PAGES if (SITE / f"{name}.html").is_file()]
    return [name for name in pages if text in (SITE / f"{name}.html").read_text("utf-8")]


SLIDER = ".cell_output div:has(> figure + label > input[type=range])"
SLIDERS = pages_with("querySelectorAll(&#39;figure&#39;)") or pages_with("oninput=")
FOLDED = pages_with('class="dropdown admonition') + pages_with("solution dropdown")


@pytest.fixture
def phone(browser: Browser) -> Iterator[Page]:
    """An empty page of a phone, used by touch."""
    page = browser.new_page(viewport=NARROW, has_touch=True, is_mobile=True)
    yield page
    page.close()


def focus_by_tab(page: Page, target: Locator) -> None:
    """Reach an element as a keyboard's user does, from just before it."""
    target.evaluate(
        "(e) => { const a = document.createElement('a'); a.tabIndex = 0; e.before(a); a.focus(); }"
    )
    page.keyboard.press("Tab")
    expect(target).to_be_focused()


def test_slider_by_keyboard(page: Page, address: str) -> None:
    assert SLIDERS
    for name in SLIDERS:
        page.goto(f"{address}/{name}.html")
        commit_guesses(page)
        for slider in page.locator(SLIDER).all():
            knob, frames = slider.locator("input[type=range]"), slider.locator("figure")
            focus_by_tab(page, knob)
            for key, shown in (("Home", 0), ("ArrowRight", 1), ("End", frames.count() - 1)):
                page.keyboard.press(key)
                visible = [frame.is_visible() for frame in frames.all()]
                assert visible == [i == shown for i in range(frames.count())]
            assert slider.get_by_label(slider.locator("label").inner_text().strip()).count()


def test_slider_by_touch(phone: Page, address: str) -> None:
    for name in SLIDERS:
        phone.goto(f"{address}/{name}.html")
        commit_guesses(phone)
        for slider in phone.locator(SLIDER).all():
            knob, frames = slider.locator("input[type=range]"), slider.locator("figure")
            knob.scroll_into_view_if_needed()
            box = knob.bounding_box()
            assert box and box["height"] >= 24
            for place, shown in ((2, 0), (box["width"] - 2, frames.count() - 1)):
                knob.tap(position={"x": place, "y": box["height"] / 2})
                visible = [frame.is_visible() for frame in frames.all()]
                assert visible == [i == shown for i in range(frames.count())]


def folds(page: Page) -> Iterator[tuple[Locator, Locator]]:
    """The buttons of a page's folded solutions, each with what it folds away."""
    for fold in page.locator(".admonition.dropdown:has(> .admonition-title)").all():
        yield (
            fold.locator(".toggle-button").first,
            fold.locator(":scope > :not(.admonition-title)").first,
        )


def test_solutions_by_keyboard(page: Page, address: str) -> None:
    assert FOLDED
    for name in FOLDED[:2]:
        page.goto(f"{address}/{name}.html", wait_until="networkidle")
        for button, hidden in folds(page):
            expect(hidden).to_be_hidden()
            focus_by_tab(page, button)
            page.keyboard.press("Enter")
            expect(hidden).to_be_visible()
            assert button.get_attribute("aria-expanded") == "true"
            page.keyboard.press("Space")
            expect(hidden).to_be_hidden()


def test_solutions_by_touch(phone: Page, address: str) -> None:
    for name in FOLDED[-1:]:
        phone.goto(f"{address}/{name}.html", wait_until="networkidle")
        for button, hidden in folds(phone):
            button.locator("xpath=..").tap()
            expect(hidden).to_be_visible()


def test_search_finds_a_word(page: Page, address: str) -> None:
    complaints = listen(page, address)
    page.goto(f"{address}/index.html", wait_until="networkidle")
    words = page.locator("dialog input[type=search]")
    page.locator("body").press("Control+k")
    expect(words).to_be_focused()
    page.keyboard.press("Escape")
    expect(words).to_be_hidden()
    page.locator("body").press("Control+k")
    expect(words).to_be_focused()
    page.keyboard.type("discriminator")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results li a", timeout=10_000)
    found = page.locator("#search-results li a").evaluate_all("links => links.map(a => a.href)")
    assert any("04_discriminator" in link for link in found)
    assert complaints == []


def test_search_by_touch(phone: Page, address: str) -> None:
    phone.goto(f"{address}/index.html", wait_until="networkidle")
    phone.locator("button.search-button__button:visible").first.tap()
    field = phone.locator("dialog input[type=search]")
    expect(field).to_be_focused()
    field.fill("radiograph")
    field.press("Enter")
    phone.wait_for_selector("#search-results li a", timeout=10_000)
    assert phone.evaluate(WIDTH) <= NARROW["width"]


def test_search_results_fit_a_phone_to_the_last_excerpt(phone: Page, address: str) -> None:
    """Each excerpt comes when its page is loaded, on a busy machine long after the first result."""
    phone.goto(f"{address}/search.html?q=radiograph")
    results = phone.locator("#search-results")
    expect(results.locator(".search-summary")).to_contain_text("finished", timeout=30_000)
    excerpts = results.locator("li p.context")
    expect(excerpts).to_have_count(results.locator("li").count())
    assert phone.evaluate(WIDTH) <= NARROW["width"]
    # Whatever words the course's excerpts hold: names of Python can be of any length.
    for place in (excerpts.first, results.locator("li a").first):
        place.evaluate("e => e.append(' srgan_lib' + '.architectures'.repeat(9))")
    assert phone.evaluate(WIDTH) <= NARROW["width"]


def test_there_is_one_search_field_on_a_page(page: Page, address: str) -> None:
    page.goto(f"{address}/index.html", wait_until="networkidle")
    assert page.locator(".search-button-field:visible, input[type=search]:visible").count() == 1


def switch(page: Page, press: Callable[[Locator], None]) -> None:
    """Press the switch of the colours through all its settings."""
    colours = {}
    for _ in range(4):
        theme = str(page.evaluate("document.documentElement.dataset.theme"))
        colours[theme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        press(page.locator("button.theme-switch-button:visible").first)
    assert set(colours) == {"light", "dark"}
    assert colours["light"] != colours["dark"]


def test_dark_mode_by_keyboard(page: Page, address: str) -> None:
    page.goto(f"{address}/index.html", wait_until="networkidle")
    switch(page, lambda button: button.press("Enter"))


def test_dark_mode_by_touch(phone: Page, address: str) -> None:
    phone.goto(f"{address}/index.html", wait_until="networkidle")
    switch(phone, lambda button: button.tap())


def test_dark_mode_follows_the_reader(browser: Browser, address: str) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto(f"{address}/index.html")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.close()


def test_contents_open_by_touch(phone: Page, address: str) -> None:
    phone.goto(f"{address}/index.html", wait_until="networkidle")
    link = phone.locator(f".bd-sidebar-primary a[href='{PAGES[1]}.html']")
    expect(link).not_to_be_in_viewport()
    phone.locator("button.primary-toggle:visible").first.tap()
    expect(link).to_be_in_viewport()
    link.tap()
    phone.wait_for_url(f"**/{Path(PAGES[1]).name}.html")


def test_page_is_complete_without_scripts(browser: Browser, address: str) -> None:
    context = browser.new_context(java_script_enabled=False, viewport=WIDE)
    page = context.new_page()
    for name in {*SLIDERS[:1], *FOLDED[:1]}:
        page.goto(f"{address}/{name}.html")
        for slider in page.locator(SLIDER).all():
            assert [frame.is_visible() for frame in slider.locator("figure").all()].count(True) == 1
        for fold in page.locator(".admonition.dropdown > :not(.admonition-title)").all():
            expect(fold).to_be_visible()
    context.close()
