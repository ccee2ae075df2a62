"""The last step of a build: pages that are lighter, and that a screen reader reads rightly.

What the theme and its extensions write cannot be set by options in a few places. They are put
right in the finished pages: icons, names of buttons, roles, and the coding of the figures.
"""

import re
from pathlib import Path

from PIL import Image
from sphinx.application import Sphinx

REPLACEMENTS = (
    # 1.5 MB of code for icons that the theme's style sheet draws from fonts as well.
    (re.compile(r"\s*<script [^>]*/fontawesome\.js[^>]*></script>"), ""),
    # A name that hides the words which stand on the button or the fold.
    (re.compile(r'(<button class="[^"]*search-button-field[^>]*?) aria-label="[^"]*"'), r"\1"),
    (re.compile(r'<summary aria-label="[^"]*">'), "<summary>"),
    # Roles that are out of date, or that promise items which do not follow.
    (re.compile(r' role="doc-biblioentry"'), ""),
    (re.compile(r'<div role="list" class="citation-list">'), '<div class="citation-list">'),
)
PICTURE = re.compile(r'(<img [^>]*?src="[^":]*_images/[^":/]+)\.png"')


def without_loss(folder: Path) -> None:
    """Write each PNG of a folder as lossless WebP too: the same pixels in half the bytes."""
    for path in folder.glob("*.png"):
        Image.open(path).save(path.with_suffix(".webp"), lossless=True, exact=True, quality=80)


def finish_pages(app: Sphinx, exception: Exception | None) -> None:
    if exception or app.builder.name != "html":
        return
    site = Path(app.outdir)
    without_loss(site / "_images")
    for path in site.rglob("*.html"):
        html = path.read_text(encoding="utf-8")
        for pattern, replacement in REPLACEMENTS:
            html = pattern.sub(replacement, html)
        path.write_text(PICTURE.sub(r'\1.webp"', html), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", finish_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
