"""The built site, read from its files and in a headless Chromium on localhost.

`make test` builds the site first and sets `SRGAN_REQUIRE_SITE=1`; without that a missing site is
skipped. Where no Chromium is installed, the tests in the browser are skipped.
"""

import functools
import os
import re
import shutil
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
from check_site import toc_pages
from first_cell import UNSET
from playwright.sync_api import Browser, Page, sync_playwright
from set_repository import COLAB, current_address, slug

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "_build" / "html"
PAGES = toc_pages()
IS_SET = current_address() != UNSET
CHROMIUM = next(
    filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None
)
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NARROW = {"width": 360, "height": 740}
WIDE = {"width": 1280, "height": 900}


@pytest.fixture(scope="session", autouse=True)
def site() -> Path:
    """The built site; its absence is a failure only where it was asked for."""
    if not (SITE / "index.html").is_file():
        if os.environ.get("SRGAN_REQUIRE_SITE"):
            pytest.fail("The site is not built.")
        pytest.skip("the site is not built: make book")
    return SITE


# The files


class PageParser(HTMLParser):
    """Collects what a page refers to, its anchors and its images."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.anchors: set[str] = set()
        self.images: list[dict[str, str | None]] = []
        self.has_maths = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        for name in ("id", "name"):
            if attributes.get(name):
                self.anchors.add(str(attributes[name]))
        if tag in ("a", "link", "area"):
            self.references.append(attributes.get("href") or "")
        elif tag in ("img", "script", "source", "iframe", "video", "audio"):
            self.references.append(attributes.get("src") or "")
        if tag == "img":
            self.images.append(attributes)
        if "math" in (attributes.get("class") or "").split():
            self.has_maths = True


@functools.cache
def parse(path: Path) -> PageParser:
    return PageParser(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES)
def test_page_exists(page: str) -> None:
    html = (SITE / f"{page}.html").read_text(encoding="utf-8")
    assert "<h1" in html
    assert len(html) > 2000


@pytest.mark.parametrize("page", PAGES)
def test_internal_links_resolve(page: str) -> None:
    path = SITE / f"{page}.html"
    broken = []
    for reference in parse(path).references:
        url, anchor = urldefrag(reference)
        parts = urlsplit(url)
        if parts.scheme or parts.netloc or not reference:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if not target.is_file() or (
            anchor and target.suffix == ".html" and unquote(anchor) not in parse(target).anchors
        ):
            broken.append(reference)
    assert not broken


@pytest.mark.parametrize("page", PAGES)
def test_tables_are_drawn_as_tables(page: str) -> None:
    html = (SITE / f"{page}.html").read_text(encoding="utf-8")
    assert not re.search(r"<p>\s*\|[^<]*\|", html)


def is_meaningful(alt: str) -> bool:
    """An alternative text of words, not a file's path and not a placeholder."""
    return len(alt.split()) >= 2 and not re.search(r"[\w-]+/[\w./-]+\.\w{2,4}$|^\.\./", alt)


@pytest.mark.parametrize("page", PAGES)
def test_images_have_alternative_text(page: str) -> None:
    images = parse(SITE / f"{page}.html").images
    assert [image["src"] for image in images if not is_meaningful(image.get("alt") or "")] == []


@pytest.mark.parametrize(
    ("alt", "expected"),
    [
        ("Two radiographs, the right one blurred.", True),
        ("../_images/3f2a.png", False),
        ("_images/3f2a.png", False),
        ("", False),
        ("figure", False),
    ],
)
def test_rule_for_alternative_text(alt: str, expected: bool) -> None:
    assert is_meaningful(alt) is expected


def test_notebooks_offer_colab_and_download() -> None:
    """Colab's button leads to the notebook or, without an address, to the page on setting one."""
    colab = f"{COLAB}{slug(current_address())}/blob/main/"
    for page in PAGES:
        if page.startswith("notebooks/"):
            references = parse(SITE / f"{page}.html").references
            expected = f"{colab}{page}.ipynb" if IS_SET else "../book/setup.html#on-colab"
            assert expected in references, page
            assert any(url.endswith(f"{Path(page).name}.ipynb") for url in references), page


@pytest.mark.parametrize("page", PAGES)
def test_no_link_leads_to_an_address_that_is_not_set(page: str) -> None:
    assert [url for url in parse(SITE / f"{page}.html").references if slug(UNSET) in url] == []


@pytest.mark.skipif(IS_SET, reason="the address is set")
def test_readers_are_told_that_the_address_is_not_set() -> None:
    for page, words in {
        "index": "Run it on Colab</span> (address not set)",
        "notebooks/01_data_preparation": "Colab: address not set",
        "book/setup": "know its own address",
    }.items():
        assert words in (SITE / f"{page}.html").read_text(encoding="utf-8"), page


# The browser


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    handler = functools.partial(QuietHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport=WIDE, color_scheme="light")
    yield page
    page.close()


def listen(page: Page, address: str) -> list[str]:
    """A list that fills with everything that a page must not do while it loads."""
    complaints: list[str] = []
    page.on(
        "console",
        lambda message: (
            complaints.append(f"console: {message.text}") if message.type == "error" else None
        ),
    )
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
    page.on(
        "response",
        lambda response: (
            complaints.append(f"status {response.status}: {response.url}")
            if response.status >= 400
            else None
        ),
    )
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((address, "data:", "blob:"))
            else complaints.append(f"another host: {request.url}")
        ),
    )
    return complaints


WIDTH = "document.documentElement.scrollWidth"


@pytest.mark.parametrize("name", [*PAGES, "search", "genindex"])
def test_page_loads_cleanly_and_fits_a_phone(page: Page, address: str, name: str) -> None:
    complaints = listen(page, address)
    page.goto(f"{address}/{name}.html", wait_until="networkidle")
    if parse(SITE / f"{name}.html").has_maths:
        page.wait_for_selector("mjx-container", state="attached", timeout=10_000)
        assert page.locator("mjx-merror").count() == 0
    # Images further down load only when they are near the window.
    unloaded = page.evaluate(
        """() => Promise.all([...document.images].map(async (image) => {
            image.loading = "eager";
            await image.decode().catch(() => {});
            return image.naturalWidth ? null : image.src;
        }))"""
    )
    assert [image for image in unloaded if image] == []
    page.set_viewport_size(NARROW)
    assert page.evaluate(WIDTH) <= NARROW["width"]
    assert complaints == []


def test_search_finds_a_word(page: Page, address: str) -> None:
    complaints = listen(page, address)
    page.goto(f"{address}/search.html?q=discriminator")
    page.wait_for_selector("#search-results li a", timeout=10_000)
    found = page.locator("#search-results li a").evaluate_all("links => links.map(a => a.href)")
    assert any("04_discriminator" in link for link in found)
    assert complaints == []


def test_there_is_one_search_field_on_a_page(page: Page, address: str) -> None:
    page.goto(f"{address}/index.html", wait_until="networkidle")
    assert page.locator(".search-button-field:visible, input[type=search]:visible").count() == 1


def test_dark_mode_toggles(page: Page, address: str) -> None:
    page.goto(f"{address}/index.html", wait_until="networkidle")
    colours = {}
    for _ in range(4):
        theme = str(page.evaluate("document.documentElement.dataset.theme"))
        colours[theme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.locator("button.theme-switch-button:visible").first.click()
    assert set(colours) == {"light", "dark"}
    assert colours["light"] != colours["dark"]


def test_dark_mode_follows_the_reader(browser: Browser, address: str) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto(f"{address}/index.html")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.close()
