"""The built site, read from its files: pages, links, tables, images.

`make test` builds the site first and sets `SRGAN_REQUIRE_SITE=1`; without that a missing site is
skipped. `test_site_browser.py` looks at the same pages in a browser.
"""

import re
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
from first_cell import UNSET, current_address
from PIL import Image
from set_repository import COLAB, slug
from webpages import PAGES, SITE, parse

IS_SET = current_address() != UNSET

pytestmark = pytest.mark.usefixtures("site")


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


@pytest.mark.parametrize("page", PAGES)
def test_figures_say_in_words_what_they_show(page: str) -> None:
    """Two words may name a slider's frame or a logo; a figure needs a sentence."""
    images = parse(SITE / f"{page}.html").images
    figures = [image for image in images if "_images/" in (image["src"] or "")]
    assert [image["src"] for image in figures if len((image.get("alt") or "").split()) < 6] == []


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


def test_no_figure_lets_the_page_shine_through() -> None:
    """A figure's dark ink stays readable on a dark page only where its own ground is opaque."""
    figures = [path for path in (SITE / "_images").iterdir() if path.suffix in (".png", ".webp")]
    assert figures
    for path in figures:
        with Image.open(path) as image:
            assert "A" not in image.mode or image.getextrema()[-1] == (255, 255), path.name


def test_lighter_figures_have_the_same_pixels() -> None:
    for path in (SITE / "_images").glob("*.png"):
        with Image.open(path) as before, Image.open(path.with_suffix(".webp")) as after:
            assert before.convert("RGB").tobytes() == after.convert("RGB").tobytes(), path.name
