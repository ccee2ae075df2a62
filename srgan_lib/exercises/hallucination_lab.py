"""Checks for the exercises of notebook 9."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from itertools import combinations, product

import torch
from torch import Tensor, nn

from srgan_lib.architectures import Interpolation
from srgan_lib.consistency import measured_part, open_part, project
from srgan_lib.degradation import degrade, quantise
from srgan_lib.evaluation import super_resolve
from srgan_lib.exercises.teacher import Hint, call, graded, judge, number, numbers, tensor
from srgan_lib.findings import Finding, fate, implant, match
from srgan_lib.metrics import detail_energy
from srgan_lib.uncertainty import sparsification


class _Glow(nn.Module):
    """An enlargement that makes what is bright brighter, so that dark and bright differ."""

    scale = 4

    def forward(self, lr: Tensor) -> Tensor:
        sr = Interpolation("bicubic")(lr)
        return sr + sr.square() / 4


_MISTAKES = {
    "exact": "Round the image with the finding to 8 bits, as it would be stored, before it is "
    "reduced.",
    "alone": "What `match` sees in the image without the finding is still in. Take it off.",
    "hr": "Compare with the image without the finding *enlarged by the same network*, not with HR.",
    "unreduced": "Nothing was reduced and enlarged: this is what HR keeps.",
    "best": "You take the best offset. The finding's own place is the middle, [6, 6].",
    "contrast": "That is a contrast. Divide it by the finding's own.",
    "signed": "A dark finding comes out negative. `match` gives a positive number for a shape like "
    "the finding's, so divide by the contrast's absolute value.",
    "times": "Divide by the contrast's absolute value, don't multiply by it.",
}
"""What can go wrong in exercise 1, with its hint; up to one of each line of :data:`_EITHER`."""

_EITHER = (("exact",), ("alone", "hr", "unreduced"), ("best",), ("contrast", "signed", "times"))


@graded
def check_contrast_kept(contrast_kept: Callable) -> None:
    """Exercise 1: what a network's output keeps of a finding's contrast."""
    image, network = quantise(_waves(96) * 0.4 + 0.2), _Glow()
    for finding in (  # the dark one first: with a bright one, a wrong sign doesn't show
        Finding("line", 3, -0.12, 46.5, 48.5, 0.5),
        Finding("nodule", 10, 0.2, 48.5, 46.5),
    ):
        value = number(call(contrast_kept, network, image.clone(), finding))
        right = _kept(network, image, finding)
        alone = [(mistake,) for mistake in _MISTAKES]
        both = [pair for two in combinations(_EITHER, 2) for pair in product(*two)]
        judge(
            value,
            right,
            [
                (
                    _kept(network, image, finding, *mistakes),
                    ("Two things. " if len(mistakes) == 2 else "")
                    + " ".join(_MISTAKES[mistake] for mistake in mistakes),
                )
                for mistakes in alone + both
            ],
            f"Wrong for a {finding.kind} of contrast {finding.contrast}. Enlarge the image with "
            "and without it, fit both by `match`, subtract, take the middle, divide.",
        )


def _kept(network: nn.Module, image: Tensor, finding: Finding, *mistakes: str) -> float:
    """Return the share of a finding's contrast that is kept, measured with some mistakes."""

    def fit(x: Tensor, enlarged: bool = True) -> Tensor:
        return match(super_resolve(network, degrade(x)) if enlarged else x, finding)

    planted = implant(image, finding)[0]
    if "exact" not in mistakes:
        planted = quantise(planted)
    fits = [fit(planted, "unreduced" not in mistakes)]
    if "alone" not in mistakes:
        fits.append(fit(image, not {"unreduced", "hr"} & set(mistakes)))
    seen = [float(x.max() if "best" in mistakes else x[6, 6]) for x in fits]
    gained = seen[0] - sum(seen[1:])
    if "contrast" in mistakes:
        return gained
    if "times" in mistakes:
        return gained * abs(finding.contrast)
    return gained / (finding.contrast if "signed" in mistakes else abs(finding.contrast))


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
    found = _image(value, 24)
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
    found = _image(call(alibi, mine.clone(), other.clone()), 32)

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


@graded
def check_sample_that_lies(sample_that_lies: Callable) -> None:
    """Exercise 5: an image that passes for a throw, and shows a finding that isn't there."""
    hr = quantise(_waves(96) * 0.4 + 0.2)
    lr, finding = degrade(hr), Finding("line", 1, 0.12, 46.5, 48.5, 0.5)
    # The strongest throw comes first: whoever draws into that one exceeds them all.
    grain = torch.randn(6, 1, 96, 96) * torch.linspace(0.03, 0.02, 6)[:, None, None, None]
    throws = quantise(torch.stack([project(hr + one, lr) for one in grain]))
    value = call(sample_that_lies, throws.clone(), lr.clone(), finding)
    found = _image(value, 96)
    if found.min() < 0 or found.max() > 1:
        raise Hint("Some of its values leave [0, 1], which no stored image can. Clamp or round it.")
    if any(torch.equal(found, throw) for throw in throws):
        raise Hint("That is one of the throws as it was, and it shows no line.")
    levels = round(float((degrade(found) - lr).abs().max()) * 255)
    if levels > 1:
        raise Hint(
            f"LR finds you out: your image is degraded to one that differs from it by up to "
            f"{levels} grey levels. Bend it back onto LR, with the line in it."
        )
    if fate(match(found, finding), finding, finding.contrast / 2) != "survives":
        raise Hint(
            "LR agrees, but the detector doesn't see a line of half the contrast in its place. "
            "`implant` draws it; draw it before you bend the image onto LR."
        )
    energies = [detail_energy(throw) for throw in throws]
    energy, least, most = detail_energy(found), min(energies), max(energies)
    if not least <= energy <= most:
        raise Hint(
            f"Its detail gives it away: an energy of {energy / most:.2f} of the strongest throw's, "
            f"where the throws have from {least / most:.2f} to 1. Draw the line into another throw."
        )


def _image(value: object, side: int) -> Tensor:
    """Return an answer that must be an image (1, side, side) of real numbers, without a graph."""
    found = tensor(value, (1, side, side))
    if found.is_complex():
        raise Hint("Your image has complex numbers. Take the real part.")
    return found.detach().float()


def _waves(side: int) -> Tensor:
    """Return a smooth image (1, side, side) in [0, 1]."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return ((torch.sin(y / 5) * torch.cos(x / 7) + 1) / 2)[None]
