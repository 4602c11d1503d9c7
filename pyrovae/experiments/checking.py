"""Checks of the contents of files, which may come from a stranger, before anything relies on them.

Importing this does not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pyrovae.errors import visible

if TYPE_CHECKING:
    from torch import Tensor

# The errors that libraries raise over damaged files.
DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, ArithmeticError, MemoryError)
# The largest count of a run.
MOST = 2**62


def check_value(name: str, value: Any, kind: Any) -> None:
    """Refuse a value of JSON that is of another kind.

    >>> check_value("position", {"steps": 3}, {"steps": int})
    >>> check_value("position", {"steps": "3"}, {"steps": int})
    Traceback (most recent call last):
    ValueError: expected steps as int; got '3'

    Args:
        name: the name of the value.
        value: the value.
        kind: a type; a tuple of kinds, one of which must fit; or a dictionary of kinds, by the keys that the value must have.
            ``int`` stands for a count, which is not negative; ``float`` for any number.

    Raises:
        ValueError: for a value of another kind.
    """
    if isinstance(kind, dict):
        check_value(name, value, Mapping)
        for key, each in kind.items():
            if key not in value:
                raise ValueError(f"expected {name} with {key}; got none")
            check_value(key, value[key], each)
    elif not any(_is_of(value, each) for each in (kind if isinstance(kind, tuple) else (kind,))):
        names = [getattr(each, "__name__", str(each)) for each in (kind if isinstance(kind, tuple) else (kind,))]
        raise ValueError(f"expected {name} as {' or '.join(names)}; got {short_repr(value)}")


def _is_of(value: Any, kind: Any) -> bool:
    if kind is None:
        return value is None
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST
    if kind is float:
        return is_number(value)
    return isinstance(value, kind)


def is_number(value: Any) -> bool:
    """True for a value of JSON that is a number in the range of floats, infinities included."""
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**1000)


def check_numbers(name: str, value: Any, depth: int = 4) -> None:
    """Refuse anything but numbers, truth values, None, and lists and objects of these.

    Raises:
        ValueError: for anything else.
    """
    nested = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else None
    if nested is None:
        if value is not None and not isinstance(value, bool) and not is_number(value):
            raise ValueError(f"expected numbers as {name}; got {short_repr(value)}")
    elif not depth:
        raise ValueError(f"expected numbers as {name}; got what is nested too deeply")
    else:
        for each in nested:
            check_numbers(name, each, depth - 1)


def check_finite(name: str, value: float | None) -> None:
    """Refuse infinities and NaN; None stands for an unknown number.

    Raises:
        ValueError: for infinities and NaN.
    """
    if value is not None and not math.isfinite(value):
        raise ValueError(f"expected {name} as a finite number; got {value}")


def check_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Refuse tensors of other names, shapes or types than the tensors that they will replace.

    Raises:
        ValueError: for the first of them.
    """
    for name in [*tensors, *expected]:
        if name not in expected or name not in tensors:
            raise ValueError(f"expected tensors {'with' if name in expected else 'without'} {short_repr(name)}")
        one, other = tensors[name], expected[name]
        if one.shape != other.shape or one.dtype != other.dtype:
            raise ValueError(
                f"expected {name} as {other.dtype} of shape {tuple(other.shape)}; got {one.dtype} of {tuple(one.shape)}"
            )


def tensors_in(content: bytes) -> dict[str, Tensor]:
    """The tensors in the content of a safetensors file.

    Raises:
        ValueError: for other content.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(content)
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def short_repr(value: Any) -> str:
    """The text of a value, in no more than a line."""
    try:
        return visible(repr(value))[:200]
    except DAMAGE:  # a number of too many digits, or a value that is nested too deeply
        return f"a {type(value).__name__} that is too large to show"
