"""Checks for the exercises of notebook 1."""

from collections.abc import Callable

import torch

from srgan_lib.degradation import resize
from srgan_lib.exercises.teacher import Hint, call, describe, graded, judge, number, numbers


@graded
def check_tightest_window(tightest_window: Callable) -> None:
    """Exercise 1: from stored values to the (centre, width) that clip nothing."""
    low, high = 120.0, 2047.0
    stored = torch.tensor([[300.0, high], [low, 900.0]])
    answer = numbers(call(tightest_window, stored), ("centre", "width"))
    middle, span = (low + high) / 2, high - low
    judge(
        answer,
        [middle + 0.5, span + 1],
        [
            ([span + 1, middle + 0.5], "Centre first, then width: yours come the other way round."),
            (
                [middle, span],
                "Close, but these are the middle and the span of the values. DICOM's formula has "
                "c - 0.5 and w - 1 in it.",
            ),
            (
                [middle + 0.5, span],
                "The centre is right. The width is one too small: the formula divides by w - 1.",
            ),
            (
                [middle, span + 1],
                "The width is right. The centre is half a step off: the formula subtracts c - 0.5.",
            ),
            ([low, high], "These are the lowest and highest value, not a centre and a width."),
        ],
        "Set DICOM's formula to 0 at stored.min() and to 1 at stored.max(), and solve for c and w.",
    )


@graded
def check_false_period(false_period: Callable) -> None:
    """Exercise 2: from a period and a sampling step to the period of the false pattern."""
    slip = 4 / 3.7 - 1
    judge(
        number(call(false_period, 3.7, 4)),
        1 / slip,
        [
            (slip, "That is the slip from sample to sample, in periods. Ask how many make one."),
            (-1 / slip, "The size is right, but a period has no sign. Take the absolute value."),
            (4 / slip, "That is the period in HR pixels. Count in LR pixels, four times as large."),
            (
                4 / 3.7,
                "So many periods pass in a sample. Whole ones can't be seen: leave them out.",
            ),
            (3.7 / 4, "Look at what is left of step / period after whole periods are taken off."),
        ],
        "From sample to sample the pattern advances by step / period periods. Whole ones are "
        "invisible; how many samples until what is left adds up to one?",
    )
    judge(
        number(call(false_period, 4.4, 4)),
        11,
        [(-11, "Right for 3.7; for 4.4 it is negative. Take the distance to the *nearest* whole.")],
        "Right for a period of 3.7. For 4.4 it should give 11: there the slip is nearly one whole "
        "period, and what counts is the distance to the nearest whole number.",
    )


@graded
def check_commutes(commutes: Callable) -> None:
    """Exercise 3: whether a reduction can be exchanged with mirroring."""
    image = torch.rand(2, 1, 32, 32)

    def bicubic(x: torch.Tensor) -> torch.Tensor:
        return resize(x, (8, 8))

    def slicing(x: torch.Tensor) -> torch.Tensor:
        return x[..., ::4, ::4]

    def rows_only(x: torch.Tensor) -> torch.Tensor:
        return x[..., ::4, :]

    def verdict(reduce: Callable) -> bool:
        value = call(commutes, reduce, image)
        if isinstance(value, torch.Tensor) and value.numel() > 1:
            raise Hint(f"True or False is wanted, not a {describe(value)}: use torch.allclose.")
        return bool(value)

    if verdict(slicing):
        raise Hint(
            "Your function says that slicing commutes. Compare reduce(mirrored) with the mirrored "
            "reduce(image): both sides need one mirroring and one reduction."
        )
    if not verdict(rows_only):
        raise Hint("A mirror swaps left and right: flip the last axis, -1, and no other.")
    if not verdict(bicubic):
        raise Hint(
            "Your function says no to the antialiased reduction, whose two sides differ only by "
            "rounding in the last digits. Compare with torch.allclose and a small atol."
        )


@graded
def check_expected_leaks(expected_leaks: Callable) -> None:
    """Exercise 4: the expected number of patients who are in both sets."""
    images_of, share = [1, 1, 2, 5, 9], 0.2
    train = [(1 - share) ** n for n in images_of]
    test = [share**n for n in images_of]
    judge(
        number(call(expected_leaks, images_of, share)),
        sum(1 - a - b for a, b in zip(train, test, strict=True)),
        [
            (
                sum(1 - a for a in train),
                "You count every patient with an image in the test set. Take off those who have "
                "all their images there: a patient with one image can't leak.",
            ),
            (
                sum(1 - b for b in test),
                "You count every patient with an image in training. Take off those who have all "
                "their images there.",
            ),
            (sum(train), "That is the expected number of patients with no image in the test set."),
            (
                share * sum(images_of),
                "That is the expected number of test *images*. The question is about patients.",
            ),
            (
                sum(n * (1 - a - b) for n, a, b in zip(images_of, train, test, strict=True)),
                "You weigh each patient by the number of images. Count each patient once.",
            ),
        ],
        "For one patient with n images, write down the chance that all are in training and the "
        "chance that all are in testing. What remains is a leak. Then sum over patients.",
    )
