"""The errors that the package raises."""

import difflib
import unicodedata
from collections.abc import Iterable

# Control characters, lone surrogates, and separators of lines.
_UNSEEN = {"Cc", "Cs", "Zl", "Zp"}
# Characters that turn the direction of writing, by which a name can look like another one.
_TURNING = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def visible(text: str) -> str:
    r"""The text in one line, with escapes for characters that a terminal would obey or not show.

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
    """An error that the user can mend: the message says what was expected, what came, and the way out.

    The command line prints only the message and exits with 2; any other exception is a bug and keeps its traceback. The message
    is one line without control characters.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(message if message.isprintable() else visible(message))


class LostProcessError(RuntimeError):
    """An error for another process of a group that has ended, or does something else than this one."""


class CaptureError(ValueError):
    """An error for a program that cannot be captured: the message names the obstacle and says what to do."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The nearest known name as a question; empty where none is near.

    >>> nearest("lader", ["ladder", "mean_field"])
    "; did you mean 'ladder'?"
    """
    (found,) = difflib.get_close_matches(name, list(known), n=1) or ("",)
    return f"; did you mean {found!r}?" if found else ""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without the tables that torch and Pyro add; its type where there is no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def in_one_line(error: Exception) -> str:
    """The type of an error and the first line of its message."""
    return f"{type(error).__name__}: {visible(first_line(error)[:200])}"
