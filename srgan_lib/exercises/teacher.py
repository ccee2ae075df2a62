"""How a check speaks: it runs the learner's code, and says what is right or what to look at."""

import functools
import math
import traceback
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Hint(Exception):
    """What is wrong with an answer, in a sentence for the learner."""


class NotAttempted(Exception):
    """The stub stands as it came."""


def graded(test: Callable[[Callable], None]) -> Callable[[Callable], None]:
    """Turn a test, which raises :class:`Hint`, into a check, which prints one line.

    The test's random numbers are the same each time, and the learner's stay what they were.
    """

    @functools.wraps(test)
    def check(answer: Callable) -> None:
        try:
            if not callable(answer):
                raise Hint("Hand over the function itself: its name, without a call behind it.")
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                test(answer)
        except NotAttempted:
            print("not attempted yet")
        except Hint as hint:
            print(f"Not yet. {hint}")
        else:
            print("right!")

    return check


def call(answer: Callable, *arguments: Any) -> Any:
    """Return what the learner's function makes of the arguments.

    Raises:
        NotAttempted: it is the untouched stub.
        Hint: it fails, or returns nothing.
    """
    name = getattr(answer, "__name__", "your function")
    try:
        value = answer(*arguments)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)[1:]  # without this function's own
        file = getattr(getattr(answer, "__code__", None), "co_filename", None)
        if isinstance(error, NotImplementedError) and frames and frames[-1].filename == file:
            raise NotAttempted from None
        lines = [frame.line for frame in frames if frame.filename == file and frame.line]
        where = f" in the line `{lines[-1]}`" if lines else ""
        said = " ".join(str(error).split()).rstrip(".")
        called = ", ".join(map(describe, arguments))
        raise Hint(
            f"Your code stops{where} with {type(error).__name__}: {said}. "
            f"{_advice(said)}The check called {name}({called})."
        ) from None
    if value is None:
        raise Hint(f"{name} returns nothing. Is a `return` missing?")
    return value


def _advice(said: str) -> str:
    """What to do about an error that learners often meet."""
    for part, advice in {
        "in-place operation": "Change weights inside `with torch.no_grad():`. ",
        "to have 3 channels": "VGG wants three channels; `expand` repeats the grey one. ",
        "positional argument": "Compare your function's parameters with the stub's. ",
        "must match the size": "Print the shapes of both operands. ",
    }.items():
        if part in said:
            return advice
    return ""


def describe(value: Any) -> str:
    """Say briefly what a value is: a tensor's shape, a network's class, a number itself."""
    if isinstance(value, Tensor):
        return f"tensor of shape {tuple(value.shape)}"
    if isinstance(value, nn.Module):
        return type(value).__name__
    if callable(value):
        return getattr(value, "__name__", "a function")
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def number(value: Any) -> float:
    """Return an answer that must be one number, as a float.

    Raises:
        Hint: it isn't one, or isn't finite.
    """
    if isinstance(value, Tensor) and value.numel() != 1:
        raise Hint(
            f"One number is wanted, and yours is a {describe(value)}. Is a mean or sum missing?"
        )
    try:
        value = float(value)
    except (TypeError, ValueError):
        raise Hint(f"One number is wanted, not {describe(value)}.") from None
    if not math.isfinite(value):
        raise Hint(f"The result is {value}. Look for a division by zero or a logarithm of it.")
    return value


def numbers(value: Any, names: Iterable[str]) -> list[float]:
    """Return an answer that must be several numbers, such as a pair.

    Raises:
        Hint: there are more or fewer, or one of them isn't a finite number.
    """
    names = list(names)
    wanted = ", ".join(names)
    try:
        values = list(value)
    except TypeError:
        raise Hint(f"{len(names)} numbers are wanted, {wanted}; you return one thing.") from None
    if len(values) != len(names):
        raise Hint(f"{len(names)} numbers are wanted, {wanted}; you return {len(values)}.")
    return [number(x) for x in values]


def tensor(value: Any, shape: tuple[int, ...]) -> Tensor:
    """Return an answer that must be a finite tensor of a certain shape.

    Raises:
        Hint: it is something else.
    """
    if not isinstance(value, Tensor):
        raise Hint(f"A tensor of shape {shape} is wanted, not {describe(value)}.")
    if tuple(value.shape) != shape:
        raise Hint(f"The shape should be {shape}; yours is {tuple(value.shape)}.")
    if not value.isfinite().all():
        raise Hint("Some values of your tensor are infinite or NaN.")
    return value


def judge(value: Any, right: Any, mistakes: Iterable[tuple[Any, str]], otherwise: str) -> None:
    """Accept the right value, and recognise typical mistakes by what they give.

    Args:
        value: the answer: a number, a list of numbers or a tensor, as ``right`` is.
        right: what it should be: whole numbers exactly, others to four digits.
        mistakes: wrong values, each with its hint; the first that fits is named.
        otherwise: the hint for any other value.

    Raises:
        Hint: the value isn't right.
    """
    if _close(value, right):
        return
    for wrong, hint in mistakes:
        if _close(value, wrong):
            raise Hint(hint)
    raise Hint(otherwise)


def _close(value: Any, other: Any) -> bool:
    """Whether two values are equal; whole numbers exactly, others but for rounding."""
    a, b = (torch.as_tensor(x, dtype=torch.float64).detach() for x in (value, other))
    rtol = 1e-9 if isinstance(other, int) else 1e-4
    return a.shape == b.shape and torch.allclose(a, b, rtol=rtol, atol=rtol / 10)
