"""Checks for the exercises of notebook 6."""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn

from srgan_lib.architectures import Discriminator
from srgan_lib.exercises.teacher import Hint, call, describe, graded, judge, tensor
from srgan_lib.losses import discriminator_loss

_GREY_LEVEL = 1.001 / 255  # what clamping and rounding to 8 bits may change in a difference


def _small_generator() -> nn.Module:
    """Return a generator whose images lie well inside [0, 1], in training mode."""
    norm = nn.BatchNorm2d(16)
    network = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), norm, nn.PixelShuffle(4)).train()
    with torch.no_grad():
        network(0.2 * torch.rand(2, 1, 8, 8))
        norm.weight.fill_(0.25)
        norm.bias.fill_(0.5)
    return network


@graded
def check_difference_map(difference_map: Callable) -> None:
    """Exercise 1: where the SR images of two generators differ."""
    first, second = _small_generator(), _small_generator()
    lr = torch.rand(2, 1, 6, 9)
    with torch.no_grad():
        training = (deepcopy(first)(lr) - deepcopy(second)(lr)).abs()
        signed = deepcopy(first).eval()(lr) - deepcopy(second).eval()(lr)
    value = call(difference_map, first, second, lr.clone())
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        raise Hint("One number hides *where* the two differ. Return the map, without a mean.")
    answer = tensor(value, (2, 1, 24, 36))
    if answer.requires_grad:
        raise Hint(
            "Your map still hangs on both generators and keeps all their activations in memory. "
            "Nothing is trained here: use `torch.no_grad()`."
        )
    if (answer - signed.abs()).abs().max() <= _GREY_LEVEL:
        return  # from images as they are, or as a file would hold them
    judge(
        answer,
        signed.abs(),
        [
            (signed, "The map has both signs. The *absolute* difference is asked for."),
            (-signed, "The map has both signs. The *absolute* difference is asked for."),
            (signed.square(), "That is the squared difference; the absolute one is asked for."),
            (
                training,
                "The generators were in training mode, where batch norm looks at the batch. Call "
                "`eval()` on both.",
            ),
        ],
        "The map isn't |first(lr) - second(lr)| of two generators in evaluation mode. Look for "
        "batch norm in training mode, and for one generator that is asked twice.",
    )


@graded
def check_without_adversary(without_adversary: Callable) -> None:
    """Exercise 2: weights of the loss in which nobody listens to the discriminator."""
    given = {"content_weight": 1.0, "perceptual_weight": 5e-5, "adversarial_weight": 1e-3}
    weights = dict(given)
    answer = call(without_adversary, weights)
    if not isinstance(answer, dict):
        raise Hint(f"A dictionary of weights is wanted, not {describe(answer)}.")
    if weights != given:
        raise Hint(
            "Your function changes the dictionary that it was given, so every later experiment "
            "would lose its adversary, too. Return a new one: `weights | {...}`."
        )
    if "adversarial_weight" not in answer:
        raise Hint(
            "`adversarial_weight` is gone, and the loss asks for all three. Set it to 0.0 instead."
        )
    if answer["adversarial_weight"] != 0:
        raise Hint(f"`adversarial_weight` is {answer['adversarial_weight']}, and should be 0.")
    for name in ("content_weight", "perceptual_weight"):
        if answer.get(name) != given[name]:
            raise Hint(f"`{name}` should stay {given[name]}: change one thing at a time.")
    if extra := sorted(set(answer) - set(given)):
        raise Hint(f"The loss has no weight called `{extra[0]}`.")


@graded
def check_fresh_discriminator(fresh_discriminator: Callable) -> None:
    """Exercise 3: a discriminator that has learned nothing."""
    first = call(fresh_discriminator)
    if isinstance(first, type):
        raise Hint("That is the class. Make a network of it: add brackets with the settings.")
    if not isinstance(first, Discriminator):
        raise Hint(f"A Discriminator is wanted, not {describe(first)}.")
    if call(fresh_discriminator) is first:
        raise Hint(
            "Two calls give the same network. The second game would begin with what the first has "
            "taught it: make it inside the function."
        )
    right = Discriminator(width=16, grid=1).state_dict()
    state = first.state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    expected = {name: tuple(value.shape) for name, value in right.items()}
    if shapes != expected:
        head = next(name for name in expected if name.startswith("classifier"))
        if shapes.get("features.0.weight") != expected["features.0.weight"]:
            raise Hint("The width isn't 16: it should have the size of the other discriminator.")
        if shapes.get(head) != expected[head]:
            raise Hint("The grid isn't 1: the dense layer would be many times too large.")
        raise Hint("It isn't of the form Discriminator(width=16, grid=1).")
    if any(v.any() for name, v in state.items() if name.endswith("num_batches_tracked")):
        raise Hint(
            "Its batch norm has already seen images, so this one has learned something. Make a new "
            "one instead of a copy."
        )
    for name, value in right.items():
        if value.ndim > 1 and not 0.5 < state[name].float().std() / value.std() < 2:
            raise Hint(
                f"The weights `{name}` aren't those of a new network. Discriminator(...) draws "
                "random ones, and all layers need them: with zeros, no gradient gets through."
            )


_POINTS = ((0.7, -0.4), (-1.2, 0.5), (0.3, 0.9))  # psi and theta of the toy game


@graded
def check_penalised_loss(penalised_loss: Callable) -> None:
    """Exercise 4: the toy discriminator's loss with a penalty on its slope."""
    for numbers in _POINTS:
        psi, theta = (torch.tensor([x], requires_grad=True) for x in numbers)
        value = call(penalised_loss, psi, theta)
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            raise Hint(f"A tensor with one number is wanted, not {describe(value)}.")
        _judge_penalised_value(value.reshape(1), psi.detach(), theta.detach())
        _judge_penalised_slopes(value, psi, theta)


def _judge_penalised_value(value: Tensor, psi: Tensor, theta: Tensor) -> None:
    plain = discriminator_loss(psi * 0, psi * theta)
    penalty = 0.3 * psi.square()
    judge(
        value,
        plain + penalty,
        [
            (plain.reshape(1), "That is the loss as it was: the penalty 0.3 * psi**2 is missing."),
            (plain - penalty, "The penalty is subtracted: it would *reward* a steep slope."),
            (plain + 0.3 * theta.square(), "The penalty is on the discriminator's psi, not theta."),
            (plain + 0.3 * psi.abs(), "The penalty is the square of psi."),
            (plain + psi.square(), "The penalty has a factor of 0.3."),
            (
                discriminator_loss(psi * theta, psi * 0) + penalty,
                "Real and fake are exchanged: the real data lie at 0 and come first.",
            ),
        ],
        "discriminator_loss(psi * 0, psi * theta) as in the toy game, plus 0.3 * psi**2.",
    )


def _judge_penalised_slopes(value: Tensor, psi: Tensor, theta: Tensor) -> None:
    """Hold the slopes against the derivative, worked out by hand, of softplus(psi theta)."""
    if not value.requires_grad:
        raise Hint("The value is right, but no gradient gets back to psi: don't use `.item()`.")
    try:
        slopes = torch.autograd.grad(value.sum(), (psi, theta), allow_unused=True)
    except RuntimeError as error:
        said = " ".join(str(error).split())
        raise Hint(
            "The value is right, but its graph is used up, or leads elsewhere. Return the loss, "
            f"and leave `backward` to the game. Torch says: {said[:120]}"
        ) from None
    if slopes[1] is not None and slopes[1].abs().item() > 1e-9:
        raise Hint(
            "The value is right, but its gradient also reaches theta, and would move the "
            "generator. Is `theta.detach()` missing?"
        )
    found = 0.0 if slopes[0] is None else slopes[0].item()
    with torch.no_grad():
        game, penalty = (theta * (psi * theta).sigmoid()).item(), 0.6 * psi.item()
    judge(
        found,
        game + penalty,
        [
            (0.0, "The value is right, but no gradient gets back to psi."),
            (
                game,
                "The value is right, but the penalty has no gradient, so that psi swings as "
                "before. Detach theta only.",
            ),
            (
                penalty,
                "The value is right, but only the penalty has a gradient, so that psi no longer "
                "sees theta. Detach theta, not the product.",
            ),
        ],
        "The value is right, but its gradient for psi isn't that of the loss and the penalty.",
    )
