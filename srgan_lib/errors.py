"""The errors that this library raises on bad input: each says what, where, and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class SRGANError(Exception):
    """Base class of every error that this library raises on purpose."""


class ImageError(SRGANError, ValueError):
    """An image that can't be read, written or used as asked."""


class DatasetError(SRGANError, ValueError):
    """A data set that is unknown, missing, incomplete or altered."""


class WeightsError(SRGANError, ValueError):
    """Weights that are missing, or that belong to another architecture."""


class ConfigurationError(SRGANError, ValueError):
    """A parameter with an impossible value, or an unknown name."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> ConfigurationError:
    """Return the error for a name that isn't known, with the nearest one that is.

    Args:
        kind: what the name stands for, for example ``"data set"``.
        name: the name that was given.
        known: all names that would have been accepted.
    """
    known = list(known)
    near = get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ConfigurationError(f"Unknown {kind} {name!r}.{hint} Known: {', '.join(known)}.")
