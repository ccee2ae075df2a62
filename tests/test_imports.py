"""What is loaded when: a reader who draws a figure doesn't wait for the training engine."""

import imports
import pytest
import torch

from srgan_lib.images import write_image

TRAINING = {"accelerate", "torchmetrics", "torchvision", "sklearn", "kagglehub", "tensorboard"}


def loaded(code):
    """Return which slow modules a fresh process has loaded after this code."""
    return set(imports.run(code)[2])


@pytest.mark.parametrize(
    ("code", "needed"),
    [
        ("import srgan_lib.images", {"torch", "pydicom", "imagecodecs"}),
        ("import srgan_lib.figures", {"torch", "matplotlib"}),
        ("import srgan_lib.architectures", {"torch"}),
        ("import srgan_lib.datasets", {"torch", "pydicom", "imagecodecs"}),
    ],
)
def test_a_module_loads_what_it_needs(code, needed):
    assert loaded(code) <= needed


def test_a_figure_is_drawn_without_the_training_engine():
    code = (
        "import torch; from srgan_lib.figures import loss_curves, show_images\n"
        "show_images({'one': torch.rand(1, 8, 8)}); loss_curves({'content': [2.0, 1.0]})"
    )
    assert loaded(code) == {"torch", "matplotlib"}


def test_a_small_image_is_enlarged_without_training_data_or_measures(tmp_path):
    write_image(tmp_path / "small.png", torch.rand(1, 16, 16))
    code = imports.cases(tmp_path)["srgan upscale small.png"]
    assert loaded(code).isdisjoint(TRAINING | {"scipy", "matplotlib"})
    assert (tmp_path / "upscaled" / "small_x4.png").is_file()


def test_help_loads_nothing_slow(tmp_path):
    assert loaded(imports.cases(tmp_path)["srgan --help"]) == set()


def test_the_page_shows_what_was_measured():
    import page
    from common import read_results

    measured = read_results(imports.RESULTS)
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.fill(text, "imports", imports.describe(measured)) == text
    assert set(measured["versions"]) == {"before", "today"}
