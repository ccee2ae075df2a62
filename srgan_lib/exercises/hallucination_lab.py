"""Checks for the exercises of notebook 9."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError

import torch
from torch import Tensor, nn

from srgan_lib.architectures import Interpolation
from srgan_lib.consistency import measured_part, open_part
from srgan_lib.degradation import degrade, quantise
from srgan_lib.evaluation import super_resolve
from srgan_lib.exercises.teacher import Hint, call, graded, judge, number, numbers, tensor
from srgan_lib.findings import Finding, implant, match
from srgan_lib.uncertainty import sparsification


class _Glow(nn.Module):
    """An enlargement that makes what is bright brighter, so that dark and bright differ."""

    scale = 4

    def forward(self, lr: Tensor) -> Tensor:
        sr = Interpolation("bicubic")(lr)
        return sr + sr.square() / 4


@graded
def check_contrast_kept(contrast_kept: Callable) -> None:
    """Exercise 1: what a network's output keeps of a finding's contrast."""
    image = quantise(_waves(96) * 0.4 + 0.2)
    for finding in (
        Finding("nodule", 10, 0.2, 48.5, 46.5),
        Finding("line", 3, -0.12, 46.5, 48.5, 0.5),
    ):
        network = _Glow()
        value = number(call(contrast_kept, network, image.clone(), finding))

        def fit(x: Tensor, net: nn.Module | None = network, shape: Finding = finding) -> Tensor:
            return match(x if net is None else super_resolve(net, degrade(x)), shape)

        exact = implant(image, finding)[0]
        stored = quantise(exact)
        gained = fit(stored) - fit(image)
        right = (gained[6, 6] / abs(finding.contrast)).item()
        signed = right * finding.contrast
        judge(
            value,
            right,
            [
                (-right, "A dark finding comes out negative. `match` gives a positive number for "
                 "a shape like the finding's, so divide by the contrast's absolute value."),
                (gained[6, 6], "That is a contrast. Divide it by the finding's own."),
                (signed, "Divide by the contrast's absolute value, don't multiply by it."),
                (fit(stored)[6, 6] / abs(finding.contrast), "What `match` sees in the image "
                 "without the finding is still in. Take it off."),
                ((fit(stored) - fit(image, None))[6, 6] / abs(finding.contrast), "Compare with "
                 "the image without the finding *enlarged by the same network*, not with HR."),
                ((fit(stored, None) - fit(image, None))[6, 6] / abs(finding.contrast), "Nothing "
                 "was reduced and enlarged: this is what HR keeps."),
                ((fit(stored).max() - fit(image).max()) / abs(finding.contrast), "You take the "
                 "best offset. The finding's own place is the middle, [6, 6]."),
                (((fit(exact) - fit(image))[6, 6] / abs(finding.contrast)), "Round the image "
                 "with the finding to 8 bits, as it would be stored, before it is reduced."),
            ],
            f"Wrong for a {finding.kind} of contrast {finding.contrast}. Enlarge the image with "
            "and without it, fit both by `match`, subtract, take the middle, divide.",
        )  # fmt: skip


@graded
def check_extremes(extremes: Callable) -> None:
    """Exercise 2: the least and the largest value of a measure while a finding moves."""
    start = Finding("line", 2, 0.12, 60.5, 40.25)
    best = 62.0

    def measure(finding: Finding) -> float:
        if finding.column != start.column:
            raise Hint("Down means along the rows. You move the finding to the side.")
        if type(finding) is not Finding or finding.size != start.size:
            raise Hint("Hand the measure the same finding, with nothing changed but its row.")
        return 1 - (finding.row - best) ** 2 / 100

    def values(*rows: float) -> list[float]:
        found = [measure(Finding("line", 2, 0.12, row, 40.25)) for row in rows]
        return [min(found), max(found)]

    try:
        found = numbers(call(extremes, measure, start), ("smallest", "largest"))
    except Hint as hint:
        if FrozenInstanceError.__name__ in str(hint):
            raise Hint(
                "A finding can't be changed. `replace(finding, row=...)` makes a changed copy."
            ) from None
        raise
    halves = [60.5 + step / 2 for step in range(8)]
    right = values(*halves)
    judge(
        found,
        right,
        [
            (right[::-1], "Smallest first, then largest."),
            (values(*halves[:-1]), "The last step is missing: `range(8)` goes from 0 to 7."),
            (values(*halves, 64.5), "You go one step too far: 3.5 pixels are the most."),
            (values(*(60.5 + step for step in range(8))), "The steps are half a pixel, not one."),
            (values(*(60.5 + step for step in range(4))), "The steps are half a pixel, not one."),
            (values(*(60.5 - step / 2 for step in range(8))), "Down is towards larger rows."),
            (values(*(step / 2 for step in range(8))), "Start from the finding's own row."),
            ([measure(start), values(*halves)[1]], "The first place isn't always the smallest."),
            (values(60.5, 64), "The first and the last place aren't always the extremes."),
        ],
        "Measure at rows + 0, 0.5, 1, ... 3.5 and return the smallest and the largest value.",
    )


@graded
def check_worst_map(worst_map: Callable) -> None:
    """Exercise 3: a map of uncertainty that is large where the error is small."""
    error = torch.rand(1, 24, 24).square()
    error[0, :2, :2] = 0  # some pixels are right by chance
    value = call(worst_map, error.clone())
    if isinstance(value, Tensor) and value.isinf().any():
        raise Hint("Where the error is 0 your map is infinite. Add a little before you divide.")
    found = tensor(value, (1, 24, 24))
    if found.min() < 0:
        raise Hint("No standard deviation is negative: such a map would give itself away.")
    if found.min() == found.max():
        raise Hint("A map that is the same everywhere says nothing. Make it say the opposite.")
    worst, (curve, best, _) = sparsification(-error, error)[0], sparsification(found, error)
    if (curve - worst).abs().max() < 1e-3:
        return
    if (curve - best).abs().max() < 1e-3:
        raise Hint("That is the best map there is: large where the error is large.")
    if (curve[10] - 1).abs() < 0.2:
        raise Hint("It has little to do with the error, so its curve stays near 1.")
    step = int((curve - worst).abs().argmax())
    raise Hint(
        f"Without the most uncertain {step / len(curve):.0%} the mean error is {curve[step]:.2f} "
        f"times that of all; the worst map has {worst[step]:.2f}. The order of the pixels must be "
        "just the other way round."
    )


@graded
def check_alibi(alibi: Callable) -> None:
    """Exercise 4: an image with the LR image of one and the fine detail of another."""
    mine = quantise(_waves(32) * 0.3 + 0.3)
    other = quantise(torch.rand(1, 32, 32) * 0.3 + 0.3)
    found = tensor(call(alibi, mine.clone(), other.clone()), (1, 32, 32))

    def near(part: Tensor, goal: Tensor) -> bool:
        return bool((part - goal).abs().max() < 0.006)  # rounding to 8 bits is allowed

    lr = measured_part(found)
    if near(found, mine):
        raise Hint("That is `mine` itself: consistent, but nothing in it comes from `other`.")
    if near(found, other):
        raise Hint("That is `other` as it was: its LR image isn't that of `mine`.")
    if near(lr, measured_part(mine)):
        if near(open_part(found), open_part(other)):
            return
        raise Hint(
            "LR agrees. But what LR leaves open must come from `other`, unchanged: start from it."
        )
    if near(lr, measured_part(other)):
        raise Hint("The wrong way round: this agrees with the LR image of `other`.")
    raise Hint("Its LR image isn't that of `mine`. Which image does `project` bend, and to what?")


def _waves(side: int) -> Tensor:
    """Return a smooth image (1, side, side) in [0, 1]."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return ((torch.sin(y / 5) * torch.cos(x / 7) + 1) / 2)[None]
