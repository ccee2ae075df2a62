"""Checks for the exercises of notebook 8."""

from collections.abc import Callable

import torch
from torch import nn

from srgan_lib.architectures import DRCN, ESPCN, RRDBNet
from srgan_lib.architectures.srresnet import SubPixelStage
from srgan_lib.exercises.teacher import Hint, call, describe, graded, judge, number


@graded
def check_espcn_parameters(espcn_parameters: Callable) -> None:
    """Exercise 1: weights and biases of ESPCN."""
    for channels, scale in ((3, 3), (1, 4)):
        with torch.device("meta"):
            network = ESPCN(channels=channels, scale=scale)
            right = sum(p.numel() for p in network.parameters())
        last = channels * scale**2
        few = channels * scale
        judge(
            number(call(espcn_parameters, channels, scale)),
            right,
            [
                (right - 64 - 32 - last, "The weights are right. The biases are missing."),
                (
                    right - (9 * 32 + 1) * (last - few),
                    "The last layer makes scale x scale values for each LR pixel and channel: "
                    "square the scale.",
                ),
                (
                    right - (9 * 32 + 1) * (last - scale**2),
                    "The last layer makes all sub-pixels of *each* colour channel.",
                ),
                (
                    right - 25 * 64 * (channels - 1),
                    "The first layer reads all colour channels: 25 weights for each.",
                ),
                (right - 16 * channels * 64, "The first convolution is 5 x 5, not 3 x 3."),
                (right - 9 * 64 * 32 + 25 * 64 * 32, "Only the first convolution is 5 x 5."),
            ],
            f"Wrong for {channels} channels and scale {scale}: convolutions of 5 x 5 to 64 "
            "channels, 3 x 3 to 32, 3 x 3 to channels x scale x scale, each with biases.",
        )


@graded
def check_swap_upsampler(swap_upsampler: Callable) -> None:
    """Exercise 2: an RRDBNet that enlarges by sub-pixel convolution."""
    network = RRDBNet(blocks=1, width=8, growth=4)
    head = network.head
    swapped = call(swap_upsampler, network)
    if not isinstance(swapped, RRDBNet):
        raise Hint(
            f"Return the network with its new upsampler; yours returns {describe(swapped)}, "
            "without the rest."
        )
    stages = [m for m in swapped.modules() if isinstance(m, SubPixelStage)]
    old = [m for m in swapped.modules() if isinstance(m, nn.Upsample)]
    if not stages:
        raise Hint("It still enlarges by repeating pixels: give `upsample` SubPixelStages.")
    if len(stages) == 1 and not old:
        raise Hint("One stage doubles the size. Scale 4 takes two of them.")
    if old or len(stages) > 2:
        raise Hint("It enlarges too much: the new stages *replace* the old ones, all of them.")
    if stages[0] is stages[1]:
        raise Hint("Both stages are the same object and share their weights. Make two.")
    if {stage.body[0].in_channels for stage in stages} != {8}:
        raise Hint("The stages have another width than the network: take network's own, here 8.")
    if swapped.head is not head:
        raise Hint("Keep the other layers as they are, or you compare two different networks.")
    shape = tuple(call(swapped, torch.rand(1, 1, 6, 6)).shape)
    if shape != (1, 1, 24, 24):
        raise Hint(f"6 x 6 pixels become {shape[2]} x {shape[3]}, and should become 24 x 24.")


@graded
def check_keep_last(keep_last: Callable) -> None:
    """Exercise 3: a DRCN in which only the last recursion counts."""
    network = DRCN(width=4, recursions=3)
    network.average.data = torch.tensor([0.2, 0.3, 0.5])
    lr = torch.rand(1, 1, 6, 6)
    before = network.average.detach().clone()
    answer = call(keep_last, network)
    if not isinstance(answer, DRCN):
        raise Hint(f"Return the changed network, not {describe(answer)}.")
    if not torch.equal(network.average.detach(), before):
        raise Hint("The network that was given is changed, too. Change a `deepcopy` of it.")
    shares = [round(x, 3) for x in answer.average.tolist()]
    if len(shares) != 3:
        raise Hint("The shares of the first recursions should be 0, and not be cut off.")
    if shares == [0.2, 0.3, 0.5]:
        raise Hint("Nothing has changed: set `average` of the copy.")
    if shares[-1] == 0:
        raise Hint("You keep the wrong ones: the last share is 0. Python's `[:-1]` is all but it.")
    if any(shares[:-1]):
        raise Hint(f"The shares are {shares}: all but the last should be 0.")
    with torch.no_grad():
        _, each = network(lr, each=True)
        sr = call(answer, lr)
    if not torch.allclose(sr, each[-1], atol=1e-5):
        raise Hint("The result isn't the last recursion's image. Change nothing but the shares.")
