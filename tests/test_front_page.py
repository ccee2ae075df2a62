"""The pictures of the front page are those of notebook 7, and no others."""

from pathlib import Path

import nbformat
import pytest
import torch
from run_notebooks import FRONT_PAGE, front_page, front_page_wipe

from srgan_lib.architectures import Interpolation
from srgan_lib.datasets import open_dataset
from srgan_lib.degradation import degrade, quantise
from srgan_lib.evaluation import super_resolve
from srgan_lib.images import read_image
from srgan_lib.pretrained import load_network

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


def test_front_page_wipes_the_images_of_the_notebook(root: Path) -> None:
    notebook = nbformat.read(root / "notebooks" / "07_evaluation.ipynb", as_version=4)
    stored = front_page_wipe(notebook)
    page = (root / "index.md").read_text(encoding="utf-8")
    names = [file.stem.removeprefix("front_page_") for file in stored]
    assert names == ["lr", "bicubic", "srresnet", "srgan", "another_throw", "hr"]
    for file, image in stored.items():
        assert f'src="_static/{file.name}"' in page
        assert file.read_bytes() == image, (
            f'{file.name} is not the image of notebook 7: make notebooks NOTEBOOKS="notebooks/07*"'
        )


def test_front_page_shows_what_the_networks_make() -> None:
    chest = quantise(open_dataset("sample", width=640)[0][:, 72:392, 176:496])
    lr = degrade(chest)
    expected = {"lr": lr, "hr": chest, "bicubic": super_resolve(Interpolation("bicubic"), lr)}
    expected |= {name: super_resolve(load_network(name), lr) for name in ("srresnet", "srgan")}
    expected["another_throw"] = super_resolve(load_network("srgan"), lr, seed=1)
    assert not torch.equal(expected["srgan"], expected["another_throw"])
    low, high = chest.min(), chest.max()
    for name, image in expected.items():
        shown = read_image(FRONT_PAGE.with_name(f"front_page_{name}.png"))
        stretched = ((image - low) / (high - low)).clamp(0, 1)
        # One level of the file, widened by the stretched contrast, from processor to processor.
        torch.testing.assert_close(shown, stretched, rtol=0, atol=2.5 / 255)
