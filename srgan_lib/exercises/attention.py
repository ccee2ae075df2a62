"""Checks for the exercises of notebook 8b."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from srgan_lib.architectures.swinir import SwinLayer
from srgan_lib.exercises.teacher import Hint, call, graded, judge, number, tensor


@graded
def check_no_mask(no_mask: Callable) -> None:
    """Exercise 1: a mask that lets everybody talk to everybody."""
    device = torch.device("cpu")
    value = call(no_mask, 16, 24, 8, 4, device)
    if isinstance(value, Tensor) and value.ndim == 3 and value.shape[0] == 4:
        raise Hint("Four windows is right for 16 x 16 only. Count them from height and width.")
    mask = _masked(value, (6, 64, 64))
    if mask.dtype == torch.bool:
        raise Hint("The mask is *added* to the attention's scores: it needs numbers, not booleans.")
    if torch.isneginf(mask).all():
        raise Hint(
            "-inf everywhere forbids everything. What must be added so that nothing changes?"
        )
    if (mask == 1).all():
        raise Hint(
            "The mask is *added*. The same 1 for all cancels in the softmax, but the library's "
            "mask says 0 where talking is allowed."
        )
    if torch.isneginf(mask).any():
        raise Hint("Some pairs are still forbidden.")
    if mask.any():
        raise Hint("Add the same to every pair: 0.")


def _masked(value: object, shape: tuple[int, ...]) -> Tensor:
    """Return a tensor of a shape, which may hold minus infinity."""
    if isinstance(value, Tensor):
        tensor(torch.zeros_like(value, dtype=torch.float32), shape)
        return value
    return tensor(value, shape)


@graded
def check_swin_parameters(swin_parameters: Callable) -> None:
    """Exercise 2: the number of parameters of a SwinIR layer."""
    for width, heads, window in ((60, 6, 8), (32, 4, 4)):
        with torch.device("meta"):
            layer = SwinLayer(width, heads, window, 2, shifted=False)
            right = sum(p.numel() for p in layer.parameters())
        offsets = (2 * window - 1) ** 2
        judge(
            number(call(swin_parameters, width, heads, window)),
            right,
            [
                (right - 4 * width, "The two layer norms are missing: 2 x width numbers each."),
                (right - 2 * width, "There are two layer norms, each with a weight and a bias."),
                (
                    right - offsets * heads,
                    "The learned biases of the offsets are missing, one for each head.",
                ),
                (right - offsets * (heads - 1), "Each *head* has offset biases of its own."),
                (
                    right - (offsets - window**2) * heads,
                    f"In a window of {window} offsets run from -{window - 1} to {window - 1} along "
                    "each axis: more than window x window.",
                ),
                (
                    right - 7 * width,
                    "The weights are right. The linear layers have biases, too.",
                ),
                (right - 4 * width - offsets * heads, "Layer norms and offset biases are missing."),
                (
                    right - (width * width + width),
                    "The projection behind the heads is missing.",
                ),
            ],
            f"Wrong for width {width}, {heads} heads and windows of {window}. Add up: two layer "
            "norms; query, key, value and projection; the offset biases; the small network.",
        )


class _Framed(nn.Module):
    """An enlargement that commutes with shifts, but for a frame or a fixed pattern."""

    scale = 4

    def __init__(self, pattern: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 16, 3, padding=1)
        self.pattern = pattern

    def forward(self, lr: Tensor) -> Tensor:
        sr = nn.functional.pixel_shuffle(self.convolution(lr), 4)
        if self.pattern:
            rows = torch.arange(sr.shape[-2])[:, None] / sr.shape[-2]
            columns = torch.arange(sr.shape[-1]) / sr.shape[-1]
            sr = sr + columns.square() + rows
        return sr


@graded
def check_shift_error(shift_error: Callable) -> None:
    """Exercise 3: how much an SR image depends on where the LR image lies."""
    lr, shift = torch.rand(1, 1, 16, 16), 2
    for network in (_Framed(pattern=False), _Framed(pattern=True)):
        value = call(shift_error, network, lr.clone(), shift)
        if isinstance(value, Tensor) and value.requires_grad:
            value = value.detach()
        with torch.no_grad():
            still = network(lr)

            def moved(step: int, dim: int, net: nn.Module = network, sr: Tensor = still) -> Tensor:
                return net(lr.roll(shift, dim)).roll(step, dim) - sr

            right = moved(-4 * shift, -1)
            inner = (..., slice(16, 48), slice(16, 48))
            mistakes = [
                (moved(-shift, -1)[inner].abs().max(), "LR moves by `shift` pixels, so SR moves by "
                 "4 x shift. You roll it back by `shift` only."),
                (moved(0, -1)[inner].abs().max(), "Roll the SR image back before you compare."),
                (moved(4 * shift, -1)[inner].abs().max(), "You roll the SR image further the same "
                 "way. Roll it back: minus."),
                (right.abs().max(), "The border is in: what was rolled in there comes from the "
                 "other side. Take the middle half of rows and columns."),
                (right[inner].abs().mean(), "The mean is asked for nowhere: take the largest "
                 "absolute difference."),
                (right[inner].max(), "Differences have signs: take absolute values first."),
                (moved(-4 * shift, -2)[inner].abs().max(), "Right means along the last axis, -1. "
                 "You move down."),
            ]  # fmt: skip
        judge(
            number(value),
            right[inner].abs().max(),
            mistakes,
            "Enlarge lr and lr rolled by `shift` along the last axis; roll the second result back "
            "by 4 x shift; compare the middle half; take the largest absolute difference.",
        )
