"""Checks for the exercises of notebook 2."""

import math
from collections.abc import Callable

import torch

from srgan_lib.exercises.teacher import Hint, call, graded, judge, number, numbers


@graded
def check_psnr_change(psnr_change: Callable) -> None:
    """Exercise 1: the change of PSNR, in dB, when all differences are multiplied by a factor."""
    for zoom in (2.0, 5.0):
        right = -20 * math.log10(zoom)
        judge(
            number(call(psnr_change, zoom)),
            right,
            [
                (-right, "The size is right and the sign is wrong: larger errors, lower PSNR."),
                (right / 2, "The MSE holds *squared* differences: it grows by zoom squared."),
                (-right / 2, "Two things: errors grow, so PSNR falls; and the MSE has squares."),
                (-20 * math.log(zoom), "Decibels take the logarithm to base 10, not the natural."),
                (-zoom, "How does the MSE change, and what is 10 log10 of that?"),
                (-20 * math.log10(2), "Right for a factor of 2. The factor is the argument."),
            ],
            "All differences are multiplied by zoom. What happens to their squares, and what does "
            "10 log10 make of that?",
        )


@graded
def check_middle_weights(middle_weights: Callable) -> None:
    """Exercise 2: the four weights of a cubic kernel half-way between two pixels."""
    for slope in (-0.75, -1.0):
        far, near = slope / 8, 0.5 - slope / 8
        answer = numbers(call(middle_weights, slope), ("from left to right",) * 4)
        mistakes = [
            ([near, far, far, near], "From left to right: the two nearest pixels are inside."),
            ([-far, near, near, -far], "The kernel is negative between 1 and 2: check the signs."),
            ([-0.0625, 0.5625, 0.5625, -0.0625], "These belong to Keys' slope, -0.5."),
            ([-0.09375, 0.59375, 0.59375, -0.09375], "Right for -0.75; use the argument."),
        ]
        judge(answer, [far, near, near, far], mistakes, _about_weights(answer))


def _about_weights(answer: list[float]) -> str:
    if abs(sum(answer) - 1) > 1e-3:
        return f"The four weights must add up to 1, or a flat area would change; {sum(answer):.3f}."
    if answer != answer[::-1]:
        return "Half-way the pixels lie symmetrically, so the weights must read the same backwards."
    return (
        "Solve the eight equations with the slope in place of the last condition, then evaluate "
        "the pieces at 0.5 (near) and 1.5 (far)."
    )


@graded
def check_psnr_without(psnr_without: Callable) -> None:
    """Exercise 3: PSNR from squared errors, without a box and without the border."""
    squared = torch.full((24, 30), 1e-4)
    squared[10:14, 12:20] = 0.04  # the letter
    squared[:4] = 9e-3
    squared[:, -4:] = 5e-3
    box = (slice(10, 14), slice(12, 20))
    given = squared.clone()
    answer = number(call(psnr_without, given, box))
    if not torch.equal(given, squared):
        raise Hint("Your function changes `squared`, which others may still need. Work on a copy.")

    def of(mse: torch.Tensor) -> float:
        return -10 * math.log10(float(mse))

    inner = squared[4:-4, 4:-4]
    zeroed = squared.clone()
    zeroed[box] = 0
    kept = torch.ones_like(squared, dtype=torch.bool)
    kept[box] = False
    judge(
        answer,
        40.0,
        [
            (-40.0, "The size is right, the sign is not: PSNR is *minus* 10 log10 of the MSE."),
            (of(inner.mean()), "The letter is still in. The border is handled well."),
            (of(squared[kept].mean()), "The letter is out. Now leave out 4 pixels at each border."),
            (
                of(zeroed[4:-4, 4:-4].mean()),
                "The box is set to zero and still counted, which flatters: divide by the pixels "
                "that are left, for example with a boolean mask.",
            ),
            (of(squared.mean()), "That is the PSNR of the whole image."),
            (20.0, "`squared` holds squares already: 10 log10 of their mean, not 20 of a root."),
        ],
        "Make a boolean mask of what counts: True inside the border of 4, False in the box. Take "
        "the mean of squared[mask], then -10 log10 of it.",
    )
