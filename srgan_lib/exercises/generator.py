"""Checks for the exercises of notebook 3."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from srgan_lib.architectures import SRResNet
from srgan_lib.exercises.teacher import Hint, call, graded, judge, number, tensor


@graded
def check_generator_parameters(generator_parameters: Callable) -> None:
    """Exercise 1: the number of parameters of SRResNet at any scale."""
    stage = 9 * 64 * 256 + 256 + 1
    with torch.device("meta"):
        right = {s: sum(p.numel() for p in SRResNet(scale=s).parameters()) for s in (4, 2, 8)}
    for scale, count in right.items():
        stages = int(math.log2(scale))
        judge(
            number(call(generator_parameters, scale)),
            count,
            [
                (
                    right[4],
                    f"That is the count at scale 4. At scale {scale} there are {stages} stages.",
                ),
                (
                    right[2] + (scale // 2 - 1) * stage,
                    f"A stage doubles the size: scale {scale} takes {stages} of them, not "
                    f"{scale // 2}.",
                ),
                (
                    right[2] + (scale - 1) * stage,
                    f"A stage doubles the size: scale {scale} takes {stages} of them.",
                ),
                (count - stages, "Each stage ends in a PReLU with one number. It is forgotten."),
                (count - 256 * stages, "The convolutions of the stages have biases, 256 each."),
                (count - 257 * stages, "Each stage has 256 biases and one number of its PReLU."),
            ],
            f"Wrong at scale {scale}. Only `upsample` depends on the scale: take its size at scale "
            "4 from the table above, find that of one stage, and count stages.",
        )


@graded
def check_is_even(is_even: Callable) -> None:
    """Exercise 2: whether a transposed convolution covers all pixels equally often."""
    for stride in (2, 3, 4):
        for kernel in range(stride, 10):
            ones = torch.ones(1, 1, 20), torch.ones(1, 1, kernel)
            middle = F.conv_transpose1d(*ones, stride=stride)[0, 0, 2 * kernel : -2 * kernel]
            right = bool((middle == middle[0]).all())
            said = bool(call(is_even, kernel, stride))
            if said == right:
                continue
            case = f"kernel {kernel}, stride {stride}"
            counts = " ".join(f"{int(n)}" for n in middle[: 2 * stride])
            if stride == 3:
                raise Hint(
                    f"Right for stride 2, wrong for {case}. An even kernel isn't the point: how "
                    "many multiples of the stride fit into it?"
                )
            if right and kernel > stride:
                raise Hint(
                    f"{case} is covered evenly ({counts}), and you say no. Kernels may be longer "
                    "than the stride."
                )
            if right:
                raise Hint(
                    f"{case}: windows touch without overlap, every pixel is covered once, and you "
                    "say uneven. Is your condition the wrong way round?"
                )
            raise Hint(
                f"{case} is covered unevenly ({counts} ...), and you say even. An overlap alone "
                "isn't enough: it must be the same everywhere."
            )


@graded
def check_least_absolute_error(least_absolute_error: Callable) -> None:
    """Exercise 3: the image of least expected absolute error."""
    toy = torch.zeros(4, 1, 12, 12)
    for i in range(4):
        toy[i, :, :, 4 + i] = 1
    for answers in (toy, torch.rand(5, 1, 12, 12)):
        image = tensor(call(least_absolute_error, answers.clone()), (1, 12, 12))
        best = answers.median(dim=0).values
        if _cost(image, answers) <= _cost(best, answers) + 1e-6:
            continue
        judge(
            image,
            best,
            [
                (answers.mean(dim=0), "The mean is best for the *squared* error. Another average."),
                (answers.amax(dim=0), "The maximum draws all lines at once, and pays for three."),
                (answers[0], "One of the answers is right once and wrong for all the others."),
                (torch.zeros(1, 12, 12), "Right for the toy; other answers need another image."),
            ],
            "Each pixel may be chosen by itself: which number has the least sum of absolute "
            "distances to the values that the answers have there?",
        )


def _cost(image: torch.Tensor, answers: torch.Tensor) -> float:
    return (answers - image).abs().mean().item()
