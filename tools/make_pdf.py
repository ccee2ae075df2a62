"""Print the built site as one PDF: `make_pdf.py SITE FILE`.

The articles of all pages, in the order of `_toc.yml`, are put into one page of HTML behind a title
page and a table of contents; what is folded on the site is unfolded. Chromium sets and prints it.
"""

import posixpath
import shutil
import sys
import threading
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import yaml
from bs4 import BeautifulSoup, Tag
from check_site import ROOT, toc_pages
from playwright.sync_api import Route, sync_playwright
from serve_site import site_server

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NOT_PRINTED = (
    ".headerlink, .course-pdf, script, style, template, button, input, label:has(input[type=range])"
)
# The front page offers the file only where it was made.
PLACE_OF_LINK = "<!-- course.pdf -->"
LINK = '<p class="course-pdf"><a href="course.pdf">The whole course as a PDF</a></p>'
FOOTER = (
    '<div style="width: 100%; font: 8pt sans-serif; color: #555; text-align: center">'
    '<span class="pageNumber"></span></div>'
)


def anchor(page: str, fragment: str = "") -> str:
    """The place of a page, or of an anchor in it, within the one document."""
    return f"{page}--{fragment}" if fragment else page


def move_references(article: Tag, page: str, pages: list[str]) -> None:
    """Let an article's anchors, links and images hold in the one document at the site's root."""
    for tag in article.find_all(id=True):
        tag["id"] = anchor(page, tag["id"])
    for name in ("aria-labelledby", "aria-describedby", "aria-controls", "for"):
        for tag in article.find_all(attrs={name: True}):
            del tag[name]
    for tag in article.find_all(src=True):
        if not urlsplit(tag["src"]).scheme:
            tag["src"] = posixpath.normpath(posixpath.join(posixpath.dirname(page), tag["src"]))
    for link in article.find_all("a", href=True):
        url, fragment = urldefrag(link["href"])
        if urlsplit(url).scheme:
            continue
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(url)))
        target = path.removesuffix(".html") if url else page
        if target in pages:
            link["href"] = f"#{anchor(target, unquote(fragment))}"
        else:  # a file beside the pages, which the document doesn't carry
            link.unwrap()


def unfold(article: Tag) -> None:
    """Show everything that a page folds away, and drop what only works on a screen."""
    for tag in article.select(NOT_PRINTED):
        tag.decompose()
    for tag in article.find_all("noscript"):
        tag.unwrap()
    for details in article.find_all("details"):
        details["open"] = ""
    for tag in article.find_all(hidden=True):
        del tag["hidden"]
    for image in article.find_all("img"):
        image["loading"] = "eager"


def read_article(site: Path, page: str, pages: list[str]) -> Tag:
    """The article of a page, ready to stand in the one document."""
    html = (site / f"{page}.html").read_text(encoding="utf-8")
    article = BeautifulSoup(html, "html.parser").select_one("article.bd-article")
    if article is None:
        sys.exit(f"{page}.html has no article; build the site first: make book.")
    unfold(article)
    move_references(article, page, pages)
    article["id"] = anchor(page)
    return article


def contents(articles: list[Tag]) -> str:
    """A table of contents: each chapter with its sections, all of them links."""
    entries = []
    for article in articles:
        sections = "".join(
            f'<li><a href="#{section["id"]}">{section.h2.decode_contents()}</a></li>'
            for section in article.select("section > section[id]")
            if section.h2 and section.h2.parent is section
        )
        title = article.h1.decode_contents()
        entries.append(f'<li><a href="#{article["id"]}">{title}</a><ul>{sections}</ul></li>')
    return f'<nav class="contents"><h1>Contents</h1><ul>{"".join(entries)}</ul></nav>'


def one_document(site: Path) -> str:
    """The whole course as one page of HTML, to be served at the site's root."""
    pages = toc_pages()
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    head = BeautifulSoup((site / "index.html").read_text(encoding="utf-8"), "html.parser").head
    styles = "".join(str(tag) for tag in head.find_all("link", rel="stylesheet"))
    maths = "".join(str(tag) for tag in head.find_all("script") if "mathjax" in str(tag).lower())
    if not maths:  # a front page without mathematics loads no MathJax
        maths = '<script defer src="_static/mathjax/tex-mml-chtml.js"></script>'
    articles = [read_article(site, page, pages) for page in pages]
    return f"""<!DOCTYPE html>
<html lang="en" data-theme="light" data-mode="light" class="printed">
<head><meta charset="utf-8"><title>{config["title"]}</title>{styles}
<link rel="stylesheet" href="_static/print.css">{maths}</head>
<body><main class="bd-content">
<header class="title-page"><p class="title">{config["title"]}</p>
<p>An executable course, printed from its website</p>
<p class="warning">Synthetic images. Not for diagnosis.</p></header>
{contents(articles)}
{"".join(map(str, articles))}
</main></body></html>"""


def print_pdf(html: str, site: Path, file: Path, browser: str) -> None:
    """Set the document in Chromium, wait for its mathematics and images, and print it."""

    def answer(route: Route) -> None:
        route.fulfill(body=html, content_type="text/html; charset=utf-8")

    with site_server(site) as server, sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        chromium = playwright.chromium.launch(
            executable_path=browser, args=["--no-sandbox", "--disable-gpu"]
        )
        page = chromium.new_page(color_scheme="light")
        page.set_default_timeout(120_000)
        page.route("**/print.html", answer)
        page.goto(f"{address}/print.html", wait_until="load")
        page.evaluate("async () => { await MathJax.startup.promise; await document.fonts.ready; }")
        page.evaluate("Promise.all([...document.images].map((image) => image.decode()))")
        file.parent.mkdir(parents=True, exist_ok=True)
        page.pdf(
            path=file,
            format="A4",
            margin={"top": "18mm", "bottom": "18mm", "left": "17mm", "right": "17mm"},
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOTER,
            print_background=True,
            outline=True,
            tagged=True,
        )
        chromium.close()
        server.shutdown()


def main(site: Path, file: Path) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit("The PDF needs Chromium: sudo apt install chromium.")
    if not (site / "index.html").is_file():
        sys.exit(f"There is no site in {site}: make book.")
    print_pdf(one_document(site), site, file, browser)
    shutil.copyfile(file, site / "course.pdf")
    index = site / "index.html"
    html = index.read_text(encoding="utf-8")
    index.write_text(html.replace(PLACE_OF_LINK, LINK), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
