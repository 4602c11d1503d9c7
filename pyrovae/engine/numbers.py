"""Python numbers that change from call to call, as inputs of a captured graph.

While a program is captured, it reads a ``Number`` in place of a float: it computes as the float would, in double precision, and
combines with tensors as a float does, in their type. Comparisons are answered for the current number; the graph is used again
only for numbers that give the same answers.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pyrovae.errors import CaptureError

Expression = Callable[[Sequence[float]], float]


class Assumptions:
    """The answers to the comparisons that a program made with its numbers."""

    def __init__(self, numbers: Sequence[float]) -> None:
        self.numbers = list(numbers)
        self._answers: list[tuple[Expression, Any]] = []

    def answer(self, expression: Expression) -> Any:
        """Answer a comparison for the current numbers, and remember the answer."""
        self._answers.append((expression, expression(self.numbers)))
        return self._answers[-1][1]

    def hold(self, numbers: Sequence[float]) -> bool:
        """True where other numbers give the same answers."""
        return all(expression(numbers) == answer for expression, answer in self._answers)


class Number:
    """A float that is an input of a graph.

    Args:
        tensor: its value ``()`` in double precision.
        expression: the function from the values of all inputs to its value.
        assumptions: the record of comparisons.
    """

    def __init__(self, tensor: Tensor, expression: Expression, assumptions: Assumptions) -> None:
        self._tensor, self._expression, self._assumptions = tensor, expression, assumptions

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Take part in an operation of tensors, in their type, as a float does."""
        args, kwargs = with_tensors(args, kwargs or {})
        return func(*args, **kwargs)

    def _computed(self, operation: Callable[..., Any], other: Any, *, swapped: bool = False) -> Any:
        if isinstance(other, Tensor):
            return operation(other, self) if swapped else getattr(torch, _TORCH_NAMES[operation])(self, other)
        if not isinstance(other, int | float | Number):
            return NotImplemented
        if operation is operator.mul and not isinstance(other, Number) and other == 1:
            return self
        mine, theirs = self._expression, other._expression if isinstance(other, Number) else lambda _: other
        value = other._tensor if isinstance(other, Number) else other
        first, second, tensors = (theirs, mine, (value, self._tensor)) if swapped else (mine, theirs, (self._tensor, value))
        return Number(operation(*tensors), lambda numbers: operation(first(numbers), second(numbers)), self._assumptions)

    def _compared(self, operation: Callable[..., Any], other: Any) -> Any:
        if isinstance(other, Tensor):
            return operation(in_type_of(self, other), other)
        if not isinstance(other, int | float | Number):
            return NotImplemented
        mine, theirs = self._expression, other._expression if isinstance(other, Number) else lambda _: other
        return self._assumptions.answer(lambda numbers: operation(mine(numbers), theirs(numbers)))

    def _applied(self, operation: Callable[[Any], Any]) -> "Number":
        mine = self._expression
        return Number(operation(self._tensor), lambda numbers: operation(mine(numbers)), self._assumptions)

    def __neg__(self) -> "Number":
        return self._applied(operator.neg)

    def __pos__(self) -> "Number":
        return self

    def __abs__(self) -> "Number":
        return self._applied(operator.abs)

    def __bool__(self) -> bool:
        mine = self._expression
        return bool(self._assumptions.answer(lambda numbers: bool(mine(numbers))))

    def __hash__(self) -> int:
        return id(self)

    def _refused(self, *_: Any) -> Any:
        raise CaptureError(
            "expected a number that changes from call to call to be added, multiplied or compared; the program needs its value "
            "itself (by int, float, math or text): pass it as a tensor"
        )

    __float__ = __int__ = __index__ = __complex__ = __round__ = __format__ = __str__ = _refused


_TORCH_NAMES = {
    operator.add: "add",
    operator.sub: "sub",
    operator.mul: "mul",
    operator.truediv: "true_divide",
    operator.pow: "pow",
}


def _arithmetic(operation: Callable[..., Any], *, swapped: bool) -> Callable[[Number, Any], Any]:
    return lambda self, other: self._computed(operation, other, swapped=swapped)


def _comparison(operation: Callable[..., Any]) -> Callable[[Number, Any], Any]:
    return lambda self, other: self._compared(operation, other)


for _operation in _TORCH_NAMES:
    setattr(Number, f"__{_operation.__name__}__", _arithmetic(_operation, swapped=False))
    setattr(Number, f"__r{_operation.__name__}__", _arithmetic(_operation, swapped=True))
for _operation in (operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne):
    setattr(Number, f"__{_operation.__name__}__", _comparison(_operation))


def numbers_as_inputs(values: Sequence[float], tensors: Sequence[Tensor]) -> tuple[list[Number], Assumptions]:
    """Make numbers of these values, which stand for these tensors in a graph."""
    assumptions = Assumptions(values)
    return [Number(t, operator.itemgetter(place), assumptions) for place, t in enumerate(tensors)], assumptions


def with_tensors(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Replace the numbers among an operation's arguments by tensors, in the type of the other tensors."""
    leaves, structure = pytree.tree_flatten((args, kwargs))
    others = [each for each in leaves if isinstance(each, Tensor)]
    return pytree.tree_unflatten(
        [in_type_of(each, *others) if isinstance(each, Number) else each for each in leaves], structure
    )


def in_type_of(number: Number, *others: Tensor) -> Tensor:
    """The number as a tensor ``()``, in the type that a float would take beside the other tensors."""
    kinds = [each.dtype for each in others if each.dtype.is_floating_point or each.dtype.is_complex]
    sized = [each.dtype for each in others if each.dim() and (each.dtype.is_floating_point or each.dtype.is_complex)]
    dtype = torch.get_default_dtype()
    for position, each in enumerate(sized or kinds):
        dtype = each if position == 0 else torch.promote_types(dtype, each)
    device = next((each.device for each in others), number._tensor.device)
    return number._tensor.to(device=device, dtype=dtype)
