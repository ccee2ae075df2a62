"""What the tests of the built site share: where it is, its pages, and what a page refers to."""

import functools
import shutil
from html.parser import HTMLParser
from pathlib import Path

from check_site import toc_pages
from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "_build" / "html"
PAGES = toc_pages()
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
WIDTH = "document.documentElement.scrollWidth"


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


def commit_guesses(page: Page) -> None:
    """Make a guess everywhere, so that nothing on a chapter's page stays folded."""
    page.locator(".predict").evaluate_all(
        """nodes => nodes.forEach(node => {
            const input = node.querySelector('input');
            if (input) input.value = 1;
            node.querySelector('button').click();
        })"""
    )
