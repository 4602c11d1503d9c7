"""Particles: several draws at once, by programs of which it is remembered how they take them."""

import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from pyrovae.engine.modules import Program
from pyrovae.inference.arrangements import Arrangement, found_arrangement

MOST_KNOWN = 200


def with_particles(
    model: Program, guide: Program, args: Any, kwargs: Any, num_particles: int
) -> tuple[Program, Program, Any, Any]:
    """Programs and arguments that draw so many particles at once; one particle needs nothing.

    Raises:
        ValueError: where the programs take no particles, neither in front nor as more examples.
    """
    if num_particles == 1:
        return model, guide, args, kwargs
    arrangement = arrangement_of(model, guide, args, kwargs)
    programs, args, kwargs = arrangement.of_particles(num_particles, (model, guide), args, kwargs)
    return programs[0], programs[1], args, kwargs


def arrangement_of(model: Program, guide: Program, args: Any, kwargs: Any) -> Arrangement:
    """How two programs take particles: found out once for each layout of their arguments.

    Raises:
        ValueError: where they do not.
    """
    leaves, structure = pytree.tree_flatten((args, kwargs))
    key = model, guide, (str(structure), *map(_layout, leaves))
    return _ARRANGEMENTS.get(key) or _ARRANGEMENTS.add(key, found_arrangement(model, guide, args, kwargs))


class ProgramCache:
    """Keeps what was found out about programs, for as long as they live."""

    def __init__(self) -> None:
        self._known: OrderedDict[Any, Any] = OrderedDict()

    def get(self, key: Sequence[Any]) -> Any:
        """What is known of programs, and of what else is in the key, a tuple; None where nothing is."""
        return self._known.get(tuple(map(_reference, key)))

    def add(self, key: Sequence[Any], value: Any) -> Any:
        """Keep a value, and return it; nothing can be kept of programs that have no weak reference."""
        references = tuple(map(_reference, key))
        if None not in references:
            self._known[references] = value
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        return value


_ARRANGEMENTS = ProgramCache()


def _reference(program: Any) -> Any:
    """Equal for the same program, and never for another one in the same place in memory; None where there is none such."""
    if isinstance(program, tuple):
        return program
    method = getattr(program, "__func__", None)
    try:
        reference = weakref.ref(program if method is None else program.__self__)
        hash(reference)
    except TypeError:
        return None
    return reference, method


def _layout(leaf: Any) -> Any:
    """What is alike in arguments that programs treat alike: flags by value, tensors by everything but their sizes."""
    if isinstance(leaf, Tensor):
        return leaf.dim(), leaf.dtype, leaf.device
    return leaf if isinstance(leaf, (bool, str, type(None))) else type(leaf)
