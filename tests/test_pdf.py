"""The PDF of the course: one document of all pages, with every figure, and links that lead on."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from make_pdf import anchor, one_document, print_pdf
from pypdf import PdfReader
from webpages import CHROMIUM, PAGES, parse


@pytest.fixture(scope="module")
def html(site: Path) -> str:
    """The one page of HTML that is printed."""
    return one_document(site)


@pytest.fixture(scope="module")
def pdf(html: str, site: Path, tmp_path_factory: pytest.TempPathFactory) -> PdfReader:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    file = tmp_path_factory.mktemp("pdf") / "course.pdf"
    print_pdf(html, site, file, CHROMIUM)
    return PdfReader(file)


@pytest.fixture(scope="module")
def texts(pdf: PdfReader) -> list[str]:
    """The text of every tenth page, and of the first five."""
    chosen = [*range(5), *range(10, len(pdf.pages), 10)]
    return [pdf.pages[number].extract_text() for number in chosen]


def links(pdf: PdfReader) -> Iterator[tuple[str, str]]:
    """Every link of the document: ("URI", address) or ("inside", name of the place)."""
    for page in pdf.pages:
        for annotation in page.get("/Annots") or []:
            entry: Any = annotation.get_object()
            action = entry.get("/A") or {}
            if "/URI" in action:
                yield "URI", str(action["/URI"])
            elif entry.get("/Subtype") == "/Link":
                yield "inside", str(entry.get("/Dest", action.get("/D")))


def drawn_images(pdf: PdfReader) -> set[int]:
    """The numbers of the objects that hold the document's images."""
    objects = [
        value for page in pdf.pages for value in (page["/Resources"].get("/XObject") or {}).values()
    ]
    return {
        o.indirect_reference.idnum
        for o in map(lambda v: v.get_object(), objects)
        if o["/Subtype"] == "/Image"
    }


def site_images(site: Path) -> list[str]:
    """What the articles of the site show, in order; pictures of its tools left out."""
    images = [image for page in PAGES for image in parse(site / f"{page}.html").images]
    sources = [str(image["src"]) for image in images]
    shown = [s for s in sources if "_static/images/" not in s]
    # With the folder: each run of a slider has frames of the same names.
    return [s if s.startswith("data:") else "/".join(Path(s).parts[-2:]) for s in shown]


def test_pages_stand_in_the_order_of_the_contents(html: str) -> None:
    places = [html.index(f'id="{anchor(page)}"') for page in PAGES]
    assert places == sorted(places)
    assert html.index('class="contents"') < places[0]


def test_document_refers_to_places_that_it_has(html: str) -> None:
    anchors = re.findall(r'\bid="([^"]+)"', html)
    assert len(anchors) == len(set(anchors))
    inside = set(re.findall(r'href="#([^"]+)"', html))
    assert inside
    assert inside <= set(anchors)
    assert not re.search(r'<a [^>]*href="(?!#|https?:|mailto:)', html)


def test_nothing_is_folded_away(html: str) -> None:
    assert not re.search(r"<details(?![^>]* open)", html)
    assert not re.search(r"<(figure|div|section)[^>]* hidden", html)


def test_every_figure_is_printed(pdf: PdfReader, site: Path) -> None:
    images = site_images(site)
    assert images
    assert len(drawn_images(pdf)) == len(set(images))


def test_links_lead_to_places_in_the_document(pdf: PdfReader) -> None:
    places = set(pdf.named_destinations)
    found = list(links(pdf))
    inside = [target for kind, target in found if kind == "inside"]
    assert len(inside) > 100
    assert [target for target in inside if target not in places] == []
    assert [url for kind, url in found if kind == "URI" and not url.startswith("http")] == []
    assert [url for kind, url in found if "127.0.0.1" in url or "localhost" in url] == []


def test_text_has_no_broken_reference_and_no_bare_formula(texts: list[str]) -> None:
    text = "\n".join(texts)
    assert "Super-resolution GANs" in texts[0]
    assert "Contents" in texts[1]
    assert "??" not in text
    assert not re.search(r"\\\(|\\\[|\\frac|\{(ref|doc|numref|term|cite)\}", text)


def test_document_has_bookmarks_title_and_tags(pdf: PdfReader) -> None:
    assert len(pdf.outline) >= len(PAGES)
    assert pdf.metadata is not None
    assert pdf.metadata.title
    assert pdf.trailer["/Root"]["/MarkInfo"]["/Marked"]
    assert pdf.trailer["/Root"]["/Lang"]
