"""Particles: several draws at once; the way in which programs take them is found once and remembered."""

import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from pyrovae.engine.modules import Program
from pyrovae.inference.arrangements import Arrangement, find_arrangement

MOST_KNOWN = 200


def with_particles(
    model: Program, guide: Program, args: Any, kwargs: Any, num_particles: int
) -> tuple[Program, Program, Any, Any]:
    """Return programs and arguments that draw several particles at once; for one particle they stay as they are.

    Raises:
        ValueError: for programs that take no particles, neither in an outermost plate nor as more examples.
    """
    if num_particles == 1:
        return model, guide, args, kwargs
    arrangement = arrangement_of(model, guide, args, kwargs)
    programs, args, kwargs = arrangement.of_particles(num_particles, (model, guide), args, kwargs)
    return programs[0], programs[1], args, kwargs


def arrangement_of(model: Program, guide: Program, args: Any, kwargs: Any) -> Arrangement:
    """The arrangement of particles for two programs, found once for each layout of their arguments.

    Raises:
        ValueError: for programs that take no particles.
    """
    leaves, structure = pytree.tree_flatten((args, kwargs))
    key = model, guide, (str(structure), *map(_layout, leaves))
    return _ARRANGEMENTS.get(key) or _ARRANGEMENTS.add(key, find_arrangement(model, guide, args, kwargs))


class ProgramCache:
    """A cache of facts about programs, kept for as long as they live."""

    def __init__(self) -> None:
        self._known: OrderedDict[Any, Any] = OrderedDict()

    def get(self, key: Sequence[Any]) -> Any:
        """The value for a key of programs and of tuples; None where there is none."""
        return self._known.get(tuple(map(_reference, key)))

    def add(self, key: Sequence[Any], value: Any) -> Any:
        """Keep a value, and return it; nothing is kept for programs that cannot be referred to weakly."""
        references = tuple(map(_reference, key))
        if None not in references:
            self._known[references] = value
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        return value


_ARRANGEMENTS = ProgramCache()


def _reference(program: Any) -> Any:
    """A reference that is equal for the same program, and never for a later one at the same address; None if impossible."""
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
    """A key that is equal for arguments that programs treat alike: flags by value, tensors by all but their sizes."""
    if isinstance(leaf, Tensor):
        return leaf.dim(), leaf.dtype, leaf.device
    return leaf if isinstance(leaf, (bool, str, type(None))) else type(leaf)
