"""Checks for the exercises of notebook 7."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from srgan_lib.consistency import measured_part, open_part
from srgan_lib.degradation import degrade, quantise, resize
from srgan_lib.exercises.teacher import Hint, call, graded, judge, number, numbers, tensor
from srgan_lib.metrics import radial_power
from srgan_lib.results import mean_over_patients


@graded
def check_interval_over_images(interval_over_images: Callable) -> None:
    """Exercise 1: the interval of a mean that takes images for patients."""
    gain = (1 + torch.randn(40)).tolist()
    answer = call(interval_over_images, list(gain))
    values = _floats(answer)
    if len(values) == 3:
        raise Hint("`mean_over_patients` gives the mean first. Return the two ends only.")
    if values == [-math.inf, math.inf]:
        raise Hint(
            "Your interval has no end, as with a single patient, who says nothing of others. "
            "Give every image an id of its own."
        )
    low, high = numbers(answer, ("lower end", "upper end"))
    right = mean_over_patients(gain, [str(i) for i in range(len(gain))])[1:]
    if low > high:
        raise Hint("The lower end comes first.")
    width, mean = right[1] - right[0], sum(gain) / len(gain)
    if high - low > 3 * width:
        raise Hint(
            "Your interval is several times too wide. That is the spread of the *images*; the "
            "interval of their *mean* is asked for."
        )
    if not low < mean < high:
        raise Hint("The mean isn't inside your interval. Which values do you pass on?")
    off = max(abs(low - right[0]), abs(high - right[1])) / width
    if off > 0.05:
        raise Hint(
            f"An end of the interval is off by {off:.0%} of its width. Every image must count as "
            "a patient of its own: as many different ids as values."
        )


@graded
def check_erase(erase: Callable) -> None:
    """Exercise 2: a radiograph without the part that its LR image can't see."""
    image = resize(torch.rand(1, 8, 10), (32, 40)) * 0.4 + 0.3 + 0.05 * torch.rand(1, 32, 40)
    seen = measured_part(image)
    answer = tensor(call(erase, image.clone()), (1, 32, 40)).float()

    def near(other: Tensor, levels: float = 0.6) -> bool:
        return bool((answer - other).abs().max() < levels / 255)

    # An LR image that was rounded on the way moves the result by up to a grey level.
    if near(seen, 1.6):
        if (255 * answer - (255 * answer).round()).abs().max() > 1e-3:
            raise Hint("Right but for one thing: a file holds whole grey levels. Use `quantise`.")
        return
    if near(image):
        raise Hint("Nothing is erased. Subtract what `invisible` gives from the image.")
    if near(image - seen) or near((image - seen).clamp(0, 1)):
        raise Hint("That is the invisible part itself. Keep the rest: image minus it.")
    if near(2 * image - seen) or near((2 * image - seen).clamp(0, 1)):
        raise Hint("The invisible part is added instead of subtracted, so it is there twice.")
    change = 255 * (degrade(answer.clamp(0, 1)) - degrade(image)).abs().max().item()
    if change > 1.5:
        raise Hint(
            f"The LR image of your result differs by up to {change:.0f} grey levels from that of "
            "the original. Only what `invisible` finds may go."
        )
    left = 255 * open_part(answer).abs().max().item()
    raise Hint(
        f"The LR image stays as it was, but up to {left:.0f} grey levels are left that it can't "
        "see. All that `invisible` finds must go."
    )


@graded
def check_spectral_distance(spectral_distance: Callable) -> None:
    """Exercise 3: the mean absolute difference of two logarithmic power spectra."""
    hr = torch.rand(1, 48, 48)
    sr = resize(resize(hr, (24, 24)), (48, 48))
    (_, a), (_, b) = radial_power(sr), radial_power(hr)
    difference = a.log() - b.log()
    value = call(spectral_distance, sr.clone(), hr.clone())
    judge(
        number(value),
        difference.abs().mean().item(),
        [
            (
                (a - b).abs().mean().item(),
                "The logarithm is missing: without it the coarse, which has nearly all the power, "
                "decides alone.",
            ),
            (difference.mean().item(), "Too much and too little cancel: take absolute values."),
            (-difference.mean().item(), "Too much and too little cancel: take absolute values."),
            (difference.square().mean().item(), "Absolute values are asked for, not squares."),
            (difference.abs().sum().item(), "The mean is asked for, not the sum."),
            (0.0, "radial_power returns (frequencies, power). You compare the frequencies."),
            (
                (a.log10() - b.log10()).abs().mean().item(),
                "Take the natural logarithm, as the text's numbers do.",
            ),
        ],
        "radial_power gives frequencies and power; log of both powers, absolute difference, mean.",
    )


@graded
def check_lattice_measure(lattice_measure: Callable) -> None:
    """Exercise 4: a measure of a lattice that no modulation of its amplitude fools."""
    grounds = _grounds()
    plain = {
        name: number(call(lattice_measure, image.clone()[None])) for name, image in grounds.items()
    }
    for name, value in plain.items():
        if not 0.1 < value < 4:
            raise Hint(
                f"{name} without any lattice gives {value:.2g}, and about 1 is wanted. "
                + (
                    "Take off the local mean first: a slope is the same in all cells, too."
                    if name == "A slope with grain"
                    else "Divide by what such grain gives by chance."
                )
            )
    most = max(plain.values())
    for kind, image in _woven(grounds["White grain"]):
        value = number(call(lattice_measure, image.clone()[None]))
        if value < max(2.0, 1.3 * most):
            raise Hint(
                f"A lattice {kind} gives {value:.2g}, and grain without a lattice up to "
                f"{most:.2g}: your measure doesn't see it."
            )


def _grounds() -> dict[str, Tensor]:
    """Return images (192, 192) without a lattice."""
    side, level = 192, 1 / 255
    white, other = torch.randn(side, side), torch.randn(1, side + 2, side + 2)
    blurred = F.avg_pool2d(other, 3, 1)[0]
    slope = torch.linspace(-0.2, 0.2, side)
    return {
        "White grain": 0.5 + 4 * level * white,
        "Blurred grain": 0.5 + 4 * level * blurred / blurred.std(),
        "A slope with grain": 0.5 + 2 * level * white.flip(0) + slope[:, None] + slope,
    }


def _woven(ground: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield what is woven into an image (H, W) and the image with it, rounded."""
    side = ground.shape[-1]
    line = torch.arange(side)
    wave = (torch.pi / 2 * line).cos()
    by_cell = torch.randn(side // 4).repeat_interleave(4)
    patches = (torch.pi / 24 * line).sin().abs()
    strengths = {
        "of the same strength everywhere": torch.ones(side, side),
        "whose strength changes from column to column": by_cell.expand(side, side),
        "whose strength changes from row to row": by_cell[:, None].expand(side, side),
        "whose strength changes from place to place": 2 * patches[:, None] * patches,
    }
    for kind, strength in strengths.items():
        woven = 5 / 255 * strength * wave[:, None] * wave
        for down in range(4):
            right = (2 * down + 1) % 4  # 1, 3, 1, 3: with down, four different beginnings
            begins = f"{kind}, moved by {down} rows and {right} columns"
            yield begins, quantise(ground + woven.roll((down, right), (0, 1)))


def _floats(answer: Any) -> list[float]:
    """Return an answer's numbers, none if it doesn't hold any."""
    try:
        return [float(value) for value in answer]
    except (TypeError, ValueError, RuntimeError):
        return []
