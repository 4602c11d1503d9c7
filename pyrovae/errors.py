"""The errors of our own."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """What was given cannot be used: the message says what was expected, what came, and the way out.

    The command line prints the message alone and exits with 2; any other exception is a bug of ours and keeps its traceback.
    """


class CaptureError(ValueError):
    """A program cannot be captured: the message names what stands in the way and says what to do."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A question that names the nearest known name; empty where none is near.

    >>> nearest("lader", ["ladder", "mean_field"])
    "; did you mean 'ladder'?"
    """
    (found,) = difflib.get_close_matches(name, list(known), n=1) or ("",)
    return f"; did you mean {found!r}?" if found else ""
