"""Guards: the conditions beside its arguments under which a captured graph may be used, checked at every call.

A check builds a few lists, almost wholly in C, and compares them with those of the capture: some microseconds.
"""

from collections.abc import Iterable, Sequence
from operator import getitem
from types import CellType
from typing import Any

import pyro
import torch
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor
from torch.distributions import Distribution

from pyrovae.engine.reachable import SCALARS, Place, Reachable

_data_ptr, _requires_grad = Tensor.data_ptr, Tensor.requires_grad.__get__  # type: ignore[attr-defined]


def process_settings() -> tuple[Any, ...]:
    """The settings of the process that operations depend on: types of numbers, modes, validation, handlers."""
    return (
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.is_autocast_enabled("cuda"),
        torch._C._get_deterministic_algorithms(),
        torch._C._get_mkldnn_enabled(),
        torch._C._len_torch_function_stack(),
        torch._C._len_torch_dispatch_stack(),
        Distribution._validate_args,
        torch.get_num_threads(),
        tuple(map(type, _PYRO_STACK)),
    )


class Watch:
    """The places that programs can read, with their contents at the capture.

    Numbers, strings and the like are compared by value; other objects by identity; collections also by length.

    Args:
        reachable: the objects that programs can reach.
        without: places whose contents may change, inputs of the graph among them.
        growing: collections that programs add to, as to a log.
    """

    def __init__(self, reachable: Reachable, without: Iterable[Place] = (), growing: Iterable[Any] = ()) -> None:
        left_out, logs = {(id(place.container), place.key) for place in without}, {*map(id, growing)}
        self._places = [
            each
            for each in reachable.places
            if (id(each.container), each.key) not in left_out and id(each.container) not in logs
        ]
        self._seen = [each.value for each in self._places]
        self._reachable = reachable  # keeps objects alive that are compared by identity
        by_value = [isinstance(value, SCALARS) for value in self._seen]
        numbers = [place for place, scalar in zip(self._places, by_value, strict=True) if scalar]
        objects = [place for place, scalar in zip(self._places, by_value, strict=True) if not scalar]
        self._values, self._value_cells = _columns(numbers)
        self._objects, self._object_cells = _columns(objects)
        written = {id(place.container) for place in without}
        self._collections = _unique(p.container for p in self._places if id(p.container) not in written and _is_sized(p))
        self._expected = self._look()

    def holds(self) -> bool:
        """True where nothing has changed."""
        return self._look() == self._expected

    def changes(self) -> list[Place]:
        """The places whose contents have changed."""
        return [place for place, old in zip(self._places, self._seen, strict=True) if not _is_same(place, old)]

    def grown_collections(self) -> list[Any]:
        """The collections whose lengths have changed."""
        lengths = self._expected[0] if self._expected else []
        return [each for each, length in zip(self._collections, lengths, strict=False) if len(each) != length]

    def changed_numbers(self) -> list[tuple[Place, float]]:
        """The places whose numbers have changed, with their numbers at the capture."""
        pairs = zip(self._places, self._seen, strict=True)
        numbers = [(place, old) for place, old in pairs if type(old) in (int, float) and not _is_same(place, old)]
        return [(place, old) for place, old in numbers if type(place.value) in (int, float)]

    def was_one_of(self, place: Place, tensors: Sequence[Tensor]) -> bool:
        """True where a place held one of these tensors."""
        old = next(old for each, old in zip(self._places, self._seen, strict=True) if each is place)
        return any(old is tensor for tensor in tensors)

    def _look(self) -> Any:
        try:
            return (
                [*map(len, self._collections)],
                [*map(getitem, *self._values)],
                [*map(id, map(getitem, *self._objects))],
                [cell.cell_contents for cell in self._value_cells],
                [id(cell.cell_contents) for cell in self._object_cells],
            )
        except (KeyError, IndexError, ValueError):
            return None


class TensorWatch:
    """The live tensors that a graph is bound to: which require gradients, and where their values are."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = list(tensors)
        self._layouts, self._expected = self._layout(), self._look()

    def holds(self) -> bool:
        """True where each tensor requires gradients as before and its values are in the same memory."""
        return self._look() == self._expected

    def accept_move(self) -> bool:
        """Accept values in other memory if they have the same layout and sharing; returns whether they have."""
        if self._layout() != self._layouts:
            return False
        self._expected = self._look()
        return True

    def _look(self) -> Any:
        return [*map(_requires_grad, self._tensors)], [*map(_data_ptr, self._tensors)]

    def _layout(self) -> Any:
        first: dict[Any, int] = {}
        shared = [first.setdefault(_memory(each), number) for number, each in enumerate(self._tensors)]
        return shared, [(t.shape, t.stride(), t.dtype, t.device, t.requires_grad) for t in self._tensors]


class StoreWatch:
    """The tensors of Pyro's parameter store that programs ask for by name."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = list(names)
        self._expected = self._look()

    def holds(self) -> bool:
        """True where the store still holds the same tensors."""
        return not self._names or self._look() == self._expected

    def _look(self) -> list[int]:
        return [*map(id, map(pyro.get_param_store()._params.get, self._names))]


def _memory(tensor: Tensor) -> Any:
    return tensor.untyped_storage().data_ptr() or id(tensor)


def _is_same(place: Place, old: Any) -> bool:
    try:
        value = place.value
    except (KeyError, IndexError, ValueError):
        return False
    return value is old or (isinstance(old, SCALARS) and type(value) is type(old) and value == old)


def _is_sized(place: Place) -> bool:
    # The lengths of globals, which many programs share, do not count; a cell has no length.
    return not isinstance(place.container, CellType) and "__builtins__" not in place.container


def _unique(values: Iterable[Any]) -> list[Any]:
    return list({id(each): each for each in values}.values())


def _columns(places: Sequence[Place]) -> tuple[tuple[list[Any], list[Any]], list[CellType]]:
    """The containers and the keys of all watched entries, and the watched cells."""
    cells = [place.container for place in places if isinstance(place.container, CellType)]
    entries = [place for place in places if not isinstance(place.container, CellType)]
    return ([place.container for place in entries], [place.key for place in entries]), cells
