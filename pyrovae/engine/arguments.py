"""The arguments of a call: tensors and numbers, which may be inputs of a graph, and others, which are compared by value.

Collections are searched, whatever their class: dictionaries, lists, tuples with or without names, and objects that hold their
parts in attributes. An argument that can be neither an input nor compared from call to call is refused by name.
"""

import copy
import dataclasses
import enum
from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pyrovae.engine.reachable import SCALARS
from pyrovae.errors import CaptureError

_BY_VALUE = (*SCALARS, enum.Enum, range, type(Ellipsis), np.dtype, np.bool_)
_BY_IDENTITY = (nn.Module, type, FunctionType, BuiltinFunctionType, MethodType, ModuleType)
_ARRAYS = (
    np.bool_,
    np.uint8,
    np.int8,
    np.int16,
    np.int32,
    np.int64,
    np.float16,
    np.float32,
    np.float64,
    np.complex64,
    np.complex128,
)
_DEEPEST = 10
_WAY_OUT = "pass its tensors as arguments, in a dictionary or a tuple, or use engine='eager'"


class Arguments:
    """The tensors, numbers and other parts of a call's arguments.

    Args:
        args: positional arguments.
        kwargs: keyword arguments.

    Raises:
        CaptureError: for a part that can be neither an input nor compared.
    """

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args, self.kwargs = args, kwargs
        self.tensors: list[Tensor] = []
        self.numbers: list[float] = []
        self.are_arrays: list[bool] = []
        if not kwargs and all(type(each) is Tensor for each in args):
            self.tensors.extend(args)
            self.are_arrays = [False] * len(args)
            self.key: Any = tuple([_layout(each) for each in args])
        else:
            parts = [self._key(each, f"argument {place}", 0) for place, each in enumerate(args)]
            self.key = (*parts, *(("=", name, self._key(each, f"argument {name!r}", 0)) for name, each in kwargs.items()))

    def substitute(self, tensors: list[Any], numbers: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the same arguments with other tensors and numbers in place of their own."""
        parts = iter(tensors), iter(numbers)
        return tuple(_replaced(each, *parts) for each in self.args), {
            name: _replaced(each, *parts) for name, each in self.kwargs.items()
        }

    def _key(self, each: Any, name: str, depth: int) -> Any:
        """A key that is equal for arguments that differ only in the values of tensors and numbers."""
        if isinstance(each, Tensor):
            if each.layout != torch.strided:
                raise CaptureError(
                    f"expected dense tensors; {name} is {each.layout}: call to_dense() on it, or use engine='eager'"
                )
            self._add(each, is_array=False)
            return type(each), _layout(each)
        if _is_numeric_array(each):
            # A copy where torch cannot use the array's memory.
            self._add(torch.from_numpy(each if _is_plain(each) else np.array(each, order="C")), is_array=True)
            return np.ndarray, _layout(self.tensors[-1])
        if isinstance(each, int | float) and not isinstance(each, bool | enum.Enum):
            self.numbers.append(each)
            return type(each)
        if isinstance(each, _BY_VALUE):
            return type(each), each
        if isinstance(each, slice):
            return slice, each.start, each.stop, each.step
        if isinstance(each, _BY_IDENTITY):
            return "is", id(each)
        parts = _parts(each)
        if parts is None or depth == _DEEPEST:
            raise CaptureError(
                f"expected arguments that can be compared from call to call; {name} is a {type(each).__name__}, whose contents "
                f"cannot be looked at: {_WAY_OUT}"
            )
        return type(each), *((key, self._key(part, f"{name}[{key!r}]", depth + 1)) for key, part in parts)

    def _add(self, tensor: Tensor, *, is_array: bool) -> None:
        self.tensors.append(tensor)
        self.are_arrays.append(is_array)


def _parts(each: Any) -> list[tuple[Any, Any]] | None:
    """The parts of a collection with their keys; None for an object whose parts cannot be found."""
    if isinstance(each, dict):
        return list(each.items())
    if isinstance(each, list | tuple):
        return list(enumerate(each))
    if isinstance(each, set | frozenset) and all(isinstance(part, _BY_VALUE) for part in each):
        return [(part, None) for part in sorted(each, key=repr)]
    if dataclasses.is_dataclass(each):
        return [(field.name, getattr(each, field.name)) for field in dataclasses.fields(each)]
    values = getattr(each, "__dict__", None)
    return list(values.items()) if values and not isinstance(each, Iterator) else None


def _replaced(each: Any, tensors: Iterator[Any], numbers: Iterator[Any]) -> Any:
    if isinstance(each, Tensor) or _is_numeric_array(each):
        return next(tensors)
    if isinstance(each, int | float) and not isinstance(each, bool | enum.Enum):
        return next(numbers)
    if isinstance(each, (*_BY_VALUE, slice, *_BY_IDENTITY, set, frozenset)):
        return each
    parts = {key: _replaced(part, tensors, numbers) for key, part in _parts(each) or ()}
    if isinstance(each, list | tuple):
        return _sequence_like(each, list(parts.values()))
    result = copy.copy(each)
    if isinstance(each, dict):
        dict.update(result, parts)
    else:
        for name, part in parts.items():
            object.__setattr__(result, name, part)
    return result


def _sequence_like(each: Any, parts: list[Any]) -> Any:
    if hasattr(each, "_make"):
        return each._make(parts)
    if isinstance(each, tuple):
        return tuple.__new__(type(each), parts)
    result = copy.copy(each)
    result[:] = parts
    return result


def _layout(tensor: Tensor) -> Any:
    """The layout of a tensor, all but its values; with its identity if it requires gradients."""
    identity = id(tensor) if tensor.requires_grad else 0
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device, identity


def _is_numeric_array(each: Any) -> bool:
    return isinstance(each, np.ndarray) and each.dtype.type in _ARRAYS


def _is_plain(array: Any) -> bool:
    """True where torch can use the memory of an array."""
    return bool(array.flags.writeable and array.dtype.isnative and all(stride >= 0 for stride in array.strides))
