"""The errors of our own."""

import difflib
import unicodedata
from collections.abc import Iterable

# Control characters, lone surrogates, and separators of lines.
_UNSEEN = {"Cc", "Cs", "Zl", "Zp"}
# What turns the direction of writing, so that a name reads as another one.
_TURNING = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def visible(text: str) -> str:
    r"""The text in one line, with characters that a terminal would obey, or not show, written as escapes.

    >>> print(visible("red \x1b[31m and\na line"))
    red \x1b[31m and a line
    """
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    if character == "\n":
        return " "
    if character in _TURNING or unicodedata.category(character) in _UNSEEN:
        return character.encode("unicode_escape").decode()
    return character


class InputError(ValueError):
    """What was given cannot be used: the message says what was expected, what came, and the way out.

    The command line prints the message alone and exits with 2; any other exception is a bug of ours and keeps its traceback.
    The message is one line, and what it quotes has no control characters.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(message if message.isprintable() else visible(message))


class CaptureError(ValueError):
    """A program cannot be captured: the message names what stands in the way and says what to do."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A question that names the nearest known name; empty where none is near.

    >>> nearest("lader", ["ladder", "mean_field"])
    "; did you mean 'ladder'?"
    """
    (found,) = difflib.get_close_matches(name, list(known), n=1) or ("",)
    return f"; did you mean {found!r}?" if found else ""
