"""Checks for the exercises of notebook 6."""

from collections.abc import Callable

import torch
from torch import nn

from srgan_lib.architectures import Discriminator
from srgan_lib.exercises.teacher import Hint, call, describe, graded, judge, tensor
from srgan_lib.losses import discriminator_loss


def _small_generator() -> nn.Module:
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.PixelShuffle(4)
    ).train()
    with torch.no_grad():
        network(0.2 * torch.rand(2, 1, 8, 8))
    return network


@graded
def check_difference_map(difference_map: Callable) -> None:
    """Exercise 1: where the SR images of two generators differ."""
    first, second = _small_generator(), _small_generator()
    lr = torch.rand(2, 1, 6, 9)
    with torch.no_grad():
        training = (first.train()(lr) - second.train()(lr)).abs()
        signed = first.eval()(lr) - second.eval()(lr)
    first.train(), second.train()
    value = call(difference_map, first, second, lr.clone())
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        raise Hint("One number hides *where* the two differ. Return the map, without a mean.")
    answer = tensor(value, (2, 1, 24, 36))
    if answer.requires_grad:
        raise Hint(
            "Your map still hangs on both generators and keeps all their activations in memory. "
            "Nothing is trained here: use `torch.no_grad()`."
        )
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
        "The map isn't |first(lr) - second(lr)| of two generators in evaluation mode. Batch norm "
        "in training mode and clamped outputs are the usual reasons.",
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


@graded
def check_penalised_loss(penalised_loss: Callable) -> None:
    """Exercise 4: the toy discriminator's loss with a penalty on its slope."""
    psi = torch.tensor([0.7], requires_grad=True)
    theta = torch.tensor([-0.4], requires_grad=True)
    value = call(penalised_loss, psi, theta)
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        raise Hint(f"A tensor with one number is wanted, not {describe(value)}.")
    plain = discriminator_loss(psi * 0, psi * theta)
    penalty = 0.3 * psi.square()
    judge(
        value.reshape(1),
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
    if not value.requires_grad:
        raise Hint("The value is right, but no gradient gets back to psi: don't use `.item()`.")
    slopes = torch.autograd.grad(value.sum(), (psi, theta), allow_unused=True)
    if slopes[0] is None or abs(slopes[0].item()) < 1e-6:
        raise Hint("The value is right, but no gradient gets back to psi.")
    if slopes[1] is not None and slopes[1].abs().item() > 1e-9:
        raise Hint(
            "The value is right, but its gradient also reaches theta, and would move the "
            "generator. Is `theta.detach()` missing?"
        )
