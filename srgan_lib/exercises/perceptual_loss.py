"""Checks for the exercises of notebook 5."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from srgan_lib.architectures import VGGFeatures
from srgan_lib.exercises.teacher import Hint, call, graded, judge, tensor


@graded
def check_same_error(same_error: Callable) -> None:
    """Exercise 1: a spoiled image whose error is scaled to a given MSE."""
    image = torch.rand(1, 16, 16)
    error = torch.randn(1, 16, 16)
    mse = 0.04  # enough for values out of range
    spoiled = image + error
    power = error.square().mean()
    scaled = error * (mse / power).sqrt()
    answer = tensor(call(same_error, image.clone(), spoiled.clone(), mse), (1, 16, 16))
    judge(
        answer,
        image + scaled,
        [
            (scaled, "That is the scaled error alone. Add the image to it."),
            (
                image + error * mse / power,
                "The MSE grows with the *square* of the factor: a root is missing.",
            ),
            (
                spoiled * (mse / power).sqrt(),
                "You scale the spoiled image. Scale the error, spoiled - image, and leave the "
                "image as it is.",
            ),
            (
                (image + scaled).clamp(0, 1),
                "You clamp: that takes away a part of the error, and the MSE is no longer as asked "
                "for.",
            ),
            (image - scaled, "The sign of the error is turned round."),
        ],
        f"The MSE of your image is {F.mse_loss(answer, image):.4f}, where {mse} was asked for, or "
        "the error has another pattern than spoiled - image.",
    )


@graded
def check_grain_penalty(grain_penalty: Callable) -> None:
    """Exercise 2: the mean square of differences of neighbouring pixels, along both axes."""
    image = torch.rand(2, 1, 12, 20, requires_grad=True)
    value = tensor(call(grain_penalty, image), ())
    across, down = image.diff(dim=-1), image.diff(dim=-2)
    rows, columns = down.square().mean(), across.square().mean()
    judge(
        value,
        rows + columns,
        [
            (columns, "Only neighbours to the left and right. Add those above and below."),
            (rows, "Only neighbours above and below. Add those to the left and right."),
            (across.abs().mean() + down.abs().mean(), "Square the differences; you take |x|."),
            (
                across.square().sum() + down.square().sum(),
                "Take means, not sums: a larger image would be punished for its size.",
            ),
            (across.mean() + down.mean(), "Differences of both signs cancel. Square them first."),
            (0.5 * (rows + columns), "Leave the factor 0.5 out; it comes with the loss."),
            (
                image.diff(dim=0).square().mean() + columns,
                "Dimension 0 counts images. Rows and columns are the last two.",
            ),
        ],
        "The mean of the squared differences along the last axis, plus that along the one before.",
    )
    if not value.requires_grad:
        raise Hint(
            "The value is right, but it carries no gradient, so it couldn't move the image. Don't "
            "use `.item()`, `.detach()`, `torch.tensor(...)` or `no_grad` on the way."
        )


@graded
def check_features_before(features_before: Callable) -> None:
    """Exercise 3: VGG features before the last ReLU."""
    net = VGGFeatures("relu2_2")
    image = torch.rand(2, 1, 32, 32, requires_grad=True)
    rgb = image.expand(-1, 3, -1, -1)
    with torch.no_grad():
        right = net.layers[:-1]((rgb - net.mean) / net.std)
        after = net(image)
        raw = net.layers[:-1](rgb)
        raw_after = net.layers(rgb)
        reversed_order = net.layers[:-1](rgb / net.std - net.mean)
    value = tensor(call(features_before, net, image), tuple(right.shape))
    judge(
        value,
        right,
        [
            (after, "No value is negative: the last ReLU is still there. Stop one layer earlier."),
            (raw, "The ImageNet normalisation is forgotten: subtract net.mean, divide by net.std."),
            (raw_after, "Two things: normalise with net.mean and net.std, and leave the ReLU out."),
            (reversed_order, "First subtract the mean, then divide: check the brackets."),
        ],
        "Expand to three channels, normalise with net.mean and net.std, then net.layers[:-1].",
    )
    if not value.requires_grad:
        raise Hint(
            "The features are right, but no gradient gets back to the image. The network is frozen "
            "already; `no_grad` or `detach` would stop the loss as well."
        )
