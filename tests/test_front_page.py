"""The picture of the front page is a figure of notebook 7, and no other."""

from pathlib import Path

import nbformat
import pytest
from run_notebooks import FRONT_PAGE, front_page

CELL = {
    "cell_type": "code",
    "execution_count": 1,
    "id": "front-page",
    "metadata": {},
    "outputs": [{"output_type": "display_data", "metadata": {}, "data": {"image/png": "YWJj\n"}}],
    "source": "",
}


@pytest.mark.parametrize(("cell", "expected"), [(CELL, b"abc"), ({**CELL, "id": "other"}, None)])
def test_picture_is_taken_from_its_cell(cell: dict, expected: bytes | None) -> None:
    notebook = nbformat.from_dict(
        {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    )
    assert front_page(notebook) == expected


def test_front_page_shows_the_figure_of_the_notebook(root: Path) -> None:
    notebook = nbformat.read(root / "notebooks" / "07_evaluation.ipynb", as_version=4)
    stored = front_page(notebook)
    assert stored is not None
    assert root / "book" / "_static" / "front_page.png" == FRONT_PAGE
    assert FRONT_PAGE.read_bytes() == stored, (
        "book/_static/front_page.png is not the figure of notebook 7: "
        'make notebooks NOTEBOOKS="notebooks/07*.ipynb"'
    )
