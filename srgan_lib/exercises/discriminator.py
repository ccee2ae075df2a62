"""Checks for the exercises of notebook 4."""

import math
from collections.abc import Callable

import torch
from torch import nn

from srgan_lib.architectures import Discriminator
from srgan_lib.exercises.teacher import Hint, call, graded, judge, number, tensor


@graded
def check_receptive_field(receptive_field: Callable) -> None:
    """Exercise 1: the receptive field of 3 x 3 convolutions with given strides."""
    for strides in ([1, 2], [1, 2] * 5, [2, 1, 1]):
        field, early, distance = 1, 1, 1
        for stride in strides:
            field += 2 * distance
            distance *= stride
            early += 2 * distance
        judge(
            number(call(receptive_field, list(strides))),
            field,
            [
                (early, "The stride of a layer counts only for the layers *behind* it: widen the "
                        "field by 2 j first, then multiply j."),
                (1 + 2 * len(strides), "You leave the strides out: behind a stride of 2, "
                                       "neighbours are twice as far apart in pixels."),
                (field - 1, "The field starts at one pixel, not at none."),
                (field + len(strides) * 0 + distance, "A 3 x 3 convolution reaches one place to "
                                                      "each side: it adds 2 j, not 3 j."),
                (125, "Right for the ten convolutions; use the argument for others."),
                (distance, "That is j, the distance between neighbours in the last map."),
            ],
            f"Wrong for the strides {strides}: go through them one by one with the two rules of "
            "the section above, from r = j = 1.",
        )  # fmt: skip


@graded
def check_constant_loss(constant_loss: Callable) -> None:
    """Exercise 2: the loss of a discriminator that gives every image the same probability."""
    for p in (0.9, 0.3):
        real, fake = -math.log(p), -math.log(1 - p)
        judge(
            number(call(constant_loss, p)),
            real + fake,
            [
                (real, "That is the term of the real images only. The fakes cost, too."),
                (fake, "That is the term of the fakes only. The real images cost, too."),
                ((real + fake) / 2, "The library's loss *adds* the two means; it doesn't halve."),
                (-real - fake, "The sign: a loss is minus the logarithm."),
                (2 * real, "For a fake, the probability of the right answer is 1 - p."),
                ((real + fake) / math.log(10), "The natural logarithm, not that to base 10."),
            ],
            "-log of the probability that is given to the right answer: p for a real image, 1 - p "
            "for a fake. Add the two.",
        )


@graded
def check_discriminator_parameters(discriminator_parameters: Callable) -> None:
    """Exercise 3: the number of parameters for any grid."""
    with torch.device("meta"):
        right = {g: sum(p.numel() for p in Discriminator(grid=g).parameters()) for g in (6, 1, 3)}
    rest = right[1] - 512 * 1024
    for grid, count in right.items():
        judge(
            number(call(discriminator_parameters, grid)),
            count,
            [
                (right[6], "That is the count for grid 6. The first dense layer depends on grid."),
                (rest + 512 * grid * 1024, "The map is grid by grid: square it."),
                (count - 1024, "The first dense layer has 1,024 biases."),
                (count - 1025, "The last dense layer is missing: 1,024 weights and one bias."),
                (count - 2049, "Add the biases of the first dense layer and the last layer."),
            ],
            f"Wrong for grid {grid}. Three parts: the convolutions, which don't depend on the "
            "grid; the dense layer from 512 x grid x grid numbers to 1,024; and the last one.",
        )


@graded
def check_fakes(fakes: Callable) -> None:
    """Exercise 4: an opponent's images for the discriminator's training."""
    opponent = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.PixelShuffle(4)
    ).train()
    lr = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        for _ in range(3):
            opponent(0.2 * torch.rand(3, 1, 8, 8))
        buffers = [b.clone() for b in opponent.buffers()]
        right = opponent.eval()(lr)
        opponent.train()
    value = call(fakes, opponent, lr.clone())
    if isinstance(value, torch.Tensor) and value.shape == lr.shape:
        raise Hint("These are LR images. The discriminator compares images of HR's size.")
    sr = tensor(value, (3, 1, 32, 32))
    if sr.requires_grad:
        raise Hint(
            "Your images still hang on the opponent: the discriminator's loss would run back into "
            "it. Is a `detach()`, or `torch.no_grad()`, missing?"
        )
    if any((a != b).any() for a, b in zip(buffers, opponent.buffers(), strict=True)):
        raise Hint(
            "The opponent was in training mode, so its batch norm took the statistics of this "
            "batch and moved its running averages. Call `opponent.eval()` first."
        )
    judge(
        sr,
        right,
        [(right.clamp(0, 1), "Don't clamp: pass on what the opponent gives.")],
        "The values aren't the opponent's. Pass `lr` through it and change nothing.",
    )
