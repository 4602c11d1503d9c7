"""The calls of a captured function, and the numbers that are inputs of its graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.scale_messenger import ScaleMessenger
from torch import Tensor

from pyrovae.engine.arguments import Arguments
from pyrovae.engine.guards import Watch, process_settings
from pyrovae.engine.reachable import Place

# A number with more different values than this keeps changing, and becomes an input.
FIXED_VALUES = 2


class Call:
    """A call: its tensors and numbers, with those of scales around it, and the key by which its graph is looked up."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any], also: Any) -> None:
        self.args, self.kwargs = args, kwargs
        self.arguments = Arguments(args, kwargs)
        self.scales = [each for each in _PYRO_STACK if isinstance(each, ScaleMessenger)]
        scales = [each.scale for each in self.scales]
        self.scaling_tensors = [each for each in scales if isinstance(each, Tensor)]
        self.tensors = [*self.arguments.tensors, *self.scaling_tensors]
        self.scaling_numbers = [each for each in scales if not isinstance(each, Tensor)]
        layout = [(each.dtype, each.device) if isinstance(each, Tensor) else None for each in scales]
        self.key = (self.arguments.key, tuple(layout), process_settings(), also)
        self.device = self.tensors[0].device if self.tensors else None


class Numbers:
    """The numbers of calls of one kind, in arguments and in programs, and which of them keep changing."""

    def __init__(self) -> None:
        self._seen: dict[int, set[float]] = {}
        self._seen_places: dict[tuple[int, Any], tuple[Place, set[float]]] = {}
        self.positions: list[int] = []
        self.places: list[Place] = []
        self._fixed: list[float] = []
        self._may_vary = True

    @property
    def varies(self) -> bool:
        """True where any number keeps changing."""
        return bool(self.positions or self.places)

    def stay_fixed(self) -> None:
        """Make no number an input from now on."""
        self._may_vary, self.positions, self.places = False, [], []

    def see(self, call: Call, watches: Sequence[Watch]) -> None:
        """Record the numbers of a call that fits no graph."""
        if not self._may_vary:
            return
        for position, value in enumerate(call.arguments.numbers):
            self._seen.setdefault(position, set()).add(value)
        for watch in watches[:1]:
            for place, old in watch.changed_numbers():
                _, values = self._seen_places.setdefault((id(place.container), place.key), (place, {old}))
                values.add(place.value)
        self.positions = [position for position, values in self._seen.items() if len(values) > FIXED_VALUES]
        self.places = [place for place, values in self._seen_places.values() if len(values) > FIXED_VALUES]

    def with_fixed(self, call: Call) -> Numbers:
        """Return the same choice of inputs, with all other numbers fixed at those of a call."""
        result = Numbers()
        result.positions, result.places = self.positions, self.places
        result._fixed = result._others(call)
        return result

    def inputs(self, call: Call) -> list[float] | None:
        """The numbers that are inputs; None where a fixed number has changed."""
        return self.values(call) if not self._fixed or self._others(call) == self._fixed else None

    def values(self, call: Call) -> list[float]:
        """The numbers that are inputs: in arguments, in programs, and in scales around the call."""
        own = [call.arguments.numbers[position] for position in self.positions] if self.positions else []
        return [*own, *(place.value for place in self.places), *call.scaling_numbers]

    def _others(self, call: Call) -> list[float]:
        return [value for position, value in enumerate(call.arguments.numbers) if position not in self.positions]

    @contextmanager
    def substitute(self, numbers: Sequence[Any], call: Call, tensors: Sequence[Any]) -> Iterator[Any]:
        """Yield a call's arguments with inputs for tensors and numbers; programs and handlers read inputs meanwhile, too."""
        arguments = call.arguments
        given = dict(zip(self.positions, numbers, strict=False))
        own = [given.get(position, value) for position, value in enumerate(arguments.numbers)]
        scales = iter(tensors[len(arguments.tensors) :]), iter(numbers[len(self.positions) + len(self.places) :])
        with ExitStack() as stack:
            for place, number in zip(self.places, numbers[len(self.positions) :], strict=False):
                stack.callback(place.fill, place.value)
                place.fill(number)
            for scale in call.scales:
                stack.callback(setattr, scale, "scale", scale.scale)
                scale.scale = next(scales[0] if isinstance(scale.scale, Tensor) else scales[1])
            yield arguments.substitute(list(tensors), own)
