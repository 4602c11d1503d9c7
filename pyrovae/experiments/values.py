"""Checks of single values of a recipe: their type and their range.

Importing this does not import torch.
"""

from __future__ import annotations

import math
from typing import Any

from pyrovae.errors import InputError, visible

# The limit of whole numbers.
MOST_OF_A_NUMBER = 2**63
_TYPES: dict[str, Any] = {"str": str, "bool": bool, "int": int, "float": (int, float), "Mapping[str, Any]": dict}


def check_type(name: str, value: Any, annotation: str) -> None:
    """Refuse a value that does not have the type of the annotation of its setting.

    >>> check_type("epochs", 3, "int")
    >>> check_type("latent_sizes", [3], "tuple[int, ...]")
    Traceback (most recent call last):
    pyrovae.errors.InputError: expected latent sizes as tuple[int, ...]; got [3]

    Raises:
        InputError: for a value of another type, and for text with control characters.
    """
    inner = annotation.removeprefix("tuple[").removesuffix(", ...]")
    values = value if isinstance(value, tuple) else (value,)
    whole = isinstance(value, tuple) == (inner != annotation)
    if not whole or not all(isinstance(each, _TYPES[inner]) and (inner == "bool") == isinstance(each, bool) for each in values):
        raise InputError(f"expected {name.replace('_', ' ')} as {annotation}; got {_shortened(value)}")
    if inner == "str" and any(visible(each) != each for each in values):
        raise InputError(f"expected {name.replace('_', ' ')} without control characters; got {_shortened(value)}")


def check_range(name: str, value: Any, minimum: float | None = None, maximum: float = math.inf, *, empty: bool = False) -> None:
    """Refuse numbers that are not positive, or below ``minimum`` if one is given, numbers that are too large, and empty tuples.

    Raises:
        InputError: for such a value.
    """
    values = value if isinstance(value, tuple) else (value,)
    if any(isinstance(each, str | bool | dict) for each in values):
        return
    bad = [each for each in values if not (each > 0 if minimum is None else each >= minimum) or not each < maximum]
    bad += [each for each in values if isinstance(each, int) and abs(each) >= MOST_OF_A_NUMBER]
    if bad or not (values or empty):
        bound = "above zero" if minimum is None else f"of at least {minimum}"
        limit = "" if maximum == math.inf else f" and below {maximum}"
        raise InputError(f"expected {name.replace('_', ' ')} {bound}{limit}; got {_shortened(value)}")


def _shortened(value: Any) -> str:
    """The text of a value in no more than a line: numbers as people write them, others as Python does."""
    try:
        text = join_values(value) if isinstance(value, tuple) and not any(map(_is_nested, value)) else repr(value)
    except (ValueError, RecursionError):  # a number of too many digits, or a value that is nested too deeply
        return f"a {type(value).__name__} that is too large to show"
    return text if len(text) <= 200 else f"{text[:200]} ..."


def _is_nested(value: Any) -> bool:
    return isinstance(value, str | tuple | dict)


def join_values(values: tuple[Any, ...]) -> str:
    """Join values as people write them.

    >>> join_values((64, 32)), join_values(())
    ('64, 32', 'nothing')
    """
    return ", ".join(map(str, values)) or "nothing"
