"""Replacements of functions of Pyro and torch while a program is traced, so that no value is read from a tensor."""

from __future__ import annotations

import numbers
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

import numpy as np
import torch
from pyro.infer.util import Dice
from pyro.primitives import plate
from torch import Tensor
from torch.distributions import Distribution
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from pyrovae.engine.numbers import Number, with_tensors
from pyrovae.errors import CaptureError

aten = torch.ops.aten


@contextmanager
def without_reading_values(shapes: ShapesOfValues) -> Iterator[None]:
    """Run Pyro without its own readings of values, which a graph does not need; refuse readings by programs.

    Objectives read the loss as a number (adding in double precision, as here) and check that it is finite; distributions made
    with validation check their samples; enumeration leaves out probabilities of zero. In a graph these stay in: zero times an
    infinite cost is then NaN, which a step refuses.

    Args:
        shapes: the record of operations whose shapes the caller must check.
    """
    replacements = {
        "torch_item": lambda value: value.detach().double() if isinstance(value, Tensor) else value,
        "warn_if_nan": lambda value, *_, **__: value,
        # Checked when the programs ran as plain Pyro, with the validation that a graph leaves out.
        "_get_common_scale": lambda scales: scales[0],
    }
    with ExitStack() as stack:
        for module in [each for name, each in sys.modules.items() if name.startswith("pyro.infer")]:
            for name, replacement in replacements.items():
                if name in vars(module):
                    stack.enter_context(_replaced(module, name, replacement))
        stack.enter_context(_replaced(Distribution, "_validate_sample", lambda self, value: None))
        stack.enter_context(_replaced(Dice, "compute_expectation", _none_is_zero(Dice.compute_expectation)))
        stack.enter_context(_replaced(plate, "__iter__", _iterate_over_numbers(plate.__iter__)))
        stack.enter_context(warnings.catch_warnings())
        # Pyro would repeat the warnings of the first run, which was eager.
        warnings.simplefilter("ignore")
        stack.enter_context(shapes)
        stack.enter_context(_Functions())
        yield


class _Functions(TorchFunctionMode):
    """A mode that makes traceable operations of torch's functions that read values, or take numbers or arrays."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.numpy, Tensor.tolist, Tensor.__array__):
            raise CaptureError(
                f"expected operations of torch; the program takes a tensor out of it by {func.__name__}: "
                "use torch's own operations, or engine='eager'"
            )
        if func is torch.nn.functional.one_hot and _num_classes(args, kwargs) > 0:
            return _one_hot(kwargs.get("tensor", args[0] if args else None), _num_classes(args, kwargs))
        if any(isinstance(each, Number | InputArray) for each in pytree.tree_leaves((args, kwargs))):
            return _with_inputs(func, args, kwargs)
        return func(*args, **kwargs)


class ShapesOfValues(TorchDispatchMode):
    """A mode that records the frame of each operation whose result has a shape that depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[FrameType] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if has_shape_of_values(func, args):
            self.frames.append(sys._getframe(1))
        return func(*args, **(kwargs or {}))


def has_shape_of_values(func: Any, args: Any) -> bool:
    """True where the shape of an operation's result depends on values, as in indexing by a mask."""
    if func is aten.index.Tensor:
        return any(each is not None and each.dtype in (torch.bool, torch.uint8) for each in args[1])
    return torch.Tag.dynamic_output_shape in getattr(func, "tags", ())


def _num_classes(args: Any, kwargs: Any) -> int:
    return int(kwargs.get("num_classes", args[1] if len(args) > 1 else -1))


def _one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """Compute what torch's ``one_hot`` does, without its check of the smallest and largest label."""
    bits = torch.zeros(*labels.shape, num_classes, dtype=torch.int64, device=labels.device)
    return bits.scatter_(-1, labels[..., None], 1)


def _with_inputs(func: Any, args: Any, kwargs: Any) -> Any:
    args, kwargs = pytree.tree_map_only(InputArray, torch.from_numpy, (args, kwargs))
    if func in (torch.tensor, torch.as_tensor, torch.asarray) and isinstance(args[0], Tensor | Number):
        args, kwargs = with_tensors(args, kwargs)
        return args[0].to(kwargs.get("device"), kwargs.get("dtype", args[0].dtype), copy=func is torch.tensor)
    if func is torch.full:
        return torch.empty(*args[:1], **kwargs).fill_(with_tensors(args[1:], {})[0][0])
    args, kwargs = with_tensors(args, kwargs)
    return func(*args, **kwargs)


class InputArray(np.ndarray):
    """A numpy array that is an input of a graph: torch may use its memory, but numpy may not compute with it."""

    def __getitem__(self, key: Any) -> Any:
        """Return a view."""
        result = super().__getitem__(key)
        return result if isinstance(result, np.ndarray) and np.may_share_memory(result, self) else self._refused()

    def _refused(self, *_: Any, **__: Any) -> Any:
        raise CaptureError(
            "expected arrays of numpy to be handed to torch as they are; the program computes with one in numpy: "
            "call torch.from_numpy on it first, or use engine='eager'"
        )

    __array_ufunc__ = __array_function__ = astype = copy = item = tolist = tobytes = __iter__ = _refused
    __float__ = __int__ = __bool__ = sum = mean = max = min = _refused


def _iterate_over_numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make the iteration over a plate without subsampling count in Python, without reading indices from a tensor."""

    def run(self: Any) -> Any:
        if self.subsample_size == self.size:
            self._indices = range(self.size)
        if not isinstance(self._indices, range) and not isinstance(next(iter(self._indices)), numbers.Number):
            raise CaptureError(
                f"expected plates whose indices are known; the program goes through the subsampled plate {self.name!r} "
                "one by one: use it as a context, with pyro.plate(...) as indices:, or engine='eager'"
            )
        return function(self)

    return run


def _none_is_zero(function: Callable[..., Any]) -> Callable[..., Any]:
    class AllAreTrue(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return True if func is Tensor.all else func(*args, **(kwargs or {}))

    def run(*args: Any, **kwargs: Any) -> Any:
        with AllAreTrue():
            return function(*args, **kwargs)

    return run


@contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
