"""The checks of notebook 7 against more answers: other right ones, and wrong ones of many kinds."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from srgan_lib import exercises as checks
from srgan_lib.consistency import measured_part, project
from srgan_lib.degradation import degrade, quantise, resize
from srgan_lib.realism import lattice
from srgan_lib.results import mean_over_patients


def said_of(check: str, answer: Callable, capsys: pytest.CaptureFixture[str]) -> str:
    getattr(checks, f"check_{check}")(answer)
    return capsys.readouterr().out.strip()


# Measures of a lattice


def power(image: torch.Tensor, side: int = 96) -> torch.Tensor:
    tiles = image[0].double().unfold(0, side, side // 2).unfold(1, side, side // 2)
    tiles = tiles - tiles.mean(dim=(-2, -1), keepdim=True)
    window = torch.hann_window(side, dtype=torch.float64)
    return torch.fft.fft2(tiles * window[:, None] * window).abs().square().mean(dim=(0, 1))


NEAR = 24 + torch.tensor([-1, 0, 1])
FAR = 24 + torch.tensor([-6, -5, -4, -3, 3, 4, 5, 6])


def by_rows_and_columns(image: torch.Tensor) -> float:
    """The measure that the notebook fools."""
    p = power(image)
    expected = p[NEAR][:, FAR].mean() * p[FAR][:, NEAR].mean() / p[FAR][:, FAR].mean()
    return float(p[NEAR][:, NEAR].mean() / expected)


def by_surroundings(image: torch.Tensor) -> float:
    p = power(image)
    return float(p[NEAR][:, NEAR].mean() / p[FAR][:, FAR].mean())


def without_local_mean(image: torch.Tensor) -> torch.Tensor:
    return image - F.avg_pool2d(image, 5, 1, 2, count_include_pad=False)


def without_cell_mean(image: torch.Tensor) -> torch.Tensor:
    return image - F.avg_pool2d(image, 4).repeat_interleave(4, 1).repeat_interleave(4, 2)


def by_cells(image: torch.Tensor) -> torch.Tensor:
    """144 times the variance of the mean cell over that of the pixels, in windows."""
    near = image[0].unfold(0, 4, 4).unfold(1, 4, 4).unfold(0, 12, 6).unfold(1, 12, 6)
    return 144 * near.mean(dim=(-2, -1)).var(dim=(-2, -1)) / near.var(dim=(-4, -3, -2, -1))


RIGHT = {
    "lattice_measure": [
        by_surroundings,
        lattice,
        lambda image: by_cells(without_local_mean(image)).mean(),
        lambda image: np.float64(by_cells(without_local_mean(image)).median()),
    ],
    "erase": [
        lambda image: quantise(measured_part(image)),
        lambda image: quantise(project(torch.zeros_like(image), degrade(image))),
        lambda image: quantise(measured_part(image)).double(),
    ],
    "interval_over_images": [
        lambda gain: mean_over_patients(gain, [f"image {i}" for i in range(len(gain))])[1:],
        lambda gain: torch.tensor(mean_over_patients(gain, list(map(str, range(len(gain)))))[1:]),
        lambda gain: np.mean(gain) + 1.96 * np.std(gain) / len(gain) ** 0.5 * np.array([-1, 1]),
    ],
}
WRONG = {
    "lattice_measure": [
        by_rows_and_columns,
        lambda image: 1.0,
        lambda image: float(image.std() * 64),
        lambda image: by_cells(without_cell_mean(image)).mean(),
        lambda image: by_cells(without_local_mean(image)).mean() / 144,
        lambda image: by_cells(without_local_mean(image)),
        lambda image: 0 / (image.sum() * 0),
        lambda image: "woven",
    ],
    "erase": [
        lambda image: quantise(resize(degrade(image), tuple(image.shape[-2:]))),
        lambda image: quantise((image + measured_part(image)) / 2),
        lambda image: measured_part(image)[0],
        lambda image: project(torch.zeros_like(image), degrade(image)),
        lambda image: image.mean(),
        lambda image: image * float("nan"),
    ],
    "interval_over_images": [
        lambda gain: np.array([-np.inf, np.inf]),
        lambda gain: torch.tensor(mean_over_patients(gain, list(map(str, range(len(gain)))))),
        lambda gain: torch.zeros(2, 2),
        lambda gain: "0.5, 1.5",
        lambda gain: (sum(gain) / len(gain),) * 2,
        lambda gain: {},
    ],
}


@pytest.mark.parametrize(
    ("name", "answer"), [(name, answer) for name, answers in RIGHT.items() for answer in answers]
)
def test_each_right_answer_is_right(name, answer, capsys) -> None:
    assert said_of(name, answer, capsys) == "right!"


@pytest.mark.parametrize(
    ("name", "answer"), [(name, answer) for name, answers in WRONG.items() for answer in answers]
)
def test_each_wrong_answer_gets_one_hint(name, answer, capsys) -> None:
    said = said_of(name, answer, capsys)
    assert said.startswith("Not yet. ") and "\n" not in said


def test_fooled_measure_is_told_which_weave_it_misses(capsys) -> None:
    assert "column to column" in said_of("lattice_measure", by_rows_and_columns, capsys)


def test_hint_of_an_image_with_too_much_left_says_so(capsys) -> None:
    half = said_of("erase", lambda image: quantise((image + measured_part(image)) / 2), capsys)
    assert "The LR image stays as it was" in half
