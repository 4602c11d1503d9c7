"""A function of tensors that is captured once for each situation in which it is called; every call looks its graph up.

The situation is all that the function can see and that is no tensor value: the arguments without their values, handlers around
the call, settings of the process, whatever else programs read, and which tensors they are bound to. A new situation is
captured; one that cannot be captured is refused at that call.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.scale_messenger import ScaleMessenger
from torch import Tensor, nn

from pyrovae.engine.arguments import Arguments
from pyrovae.engine.calls import Call, Numbers
from pyrovae.engine.capture import Graph, capture, reason_of
from pyrovae.engine.choice import check_engine
from pyrovae.engine.guards import StoreWatch, TensorWatch, Watch
from pyrovae.engine.modules import modules_that_run
from pyrovae.engine.numbers import Assumptions, numbers_as_inputs
from pyrovae.engine.reachable import Place, Reachable
from pyrovae.engine.tracing import InputArray
from pyrovae.errors import CaptureError, LostProcessError

MOST_KEPT = 32
# Under auto, a graph that was used within this many calls is not dropped for another: plain Pyro runs that one.
RECENTLY = 1000
MOST_REMEMBERED = 4096

Outputs = Sequence[Tensor | None]
Function = Callable[..., Outputs]
Prepare = Callable[..., Function]


class Situation:
    """A graph, and the conditions under which it may be used.

    Args:
        graph: the graph, whose inputs are tensors, then numbers.
        arguments: the arguments that it was captured with.
        watch: the watch over the places that programs read.
        store: the watch over the parameters that programs ask Pyro's store for.
        tensors: the watch over the tensors that the graph is bound to.
        numbers: the numbers of the arguments, fixed or inputs.
        assumptions: the assumptions on the numbers that are inputs.
    """

    def __init__(
        self,
        graph: Graph,
        arguments: Arguments,
        watch: Watch,
        store: StoreWatch,
        tensors: TensorWatch,
        numbers: Numbers,
        assumptions: Assumptions,
    ) -> None:
        self.graph, self.arguments = graph, arguments
        self.watch, self.store, self.tensors = watch, store, tensors
        self.numbers, self.assumptions = numbers, assumptions
        self.last_call = 0
        # An object of the caller's: a step, or parts of the graph.
        self.payload: Any = None
        # Functions that are called after the tensors that the graph is bound to have moved.
        self.on_move: list[Callable[[], Any]] = [graph.bind]

    def inputs(self, call: Call) -> list[Tensor] | None:
        """The inputs of the graph for a call; None where the graph was captured in another situation."""
        numbers = self.numbers.inputs(call)
        if numbers is None or not self.watch.holds() or not self.store.holds() or not self.assumptions.hold(numbers):
            return None
        if not self.tensors.holds():
            if not self.tensors.accept_move():
                return None
            for function in self.on_move:
                function()
        return [*call.tensors, *(torch.full((), each, dtype=torch.float64, device=call.device) for each in numbers)]


class CapturedFunction:
    """A function that is captured for each situation; finds the graph of a call.

    Args:
        prepare: called with the arguments of a call in a new situation; checks them, and returns the function of the same
            arguments that is to be captured.
        programs: returns the objects that the function runs, whose attributes, closures and globals it may read.
        engine: one of ``ENGINES``; under ``auto`` plain Pyro runs calls that cannot be captured or are not worth it.
        tell: called once with each reason for leaving calls to plain Pyro.

    Raises:
        ValueError: for an unknown engine.
    """

    def __init__(
        self, prepare: Prepare, programs: Callable[[], Sequence[Any]], engine: str, tell: Callable[[str], Any]
    ) -> None:
        check_engine(engine)
        self._tell = tell
        self._prepare, self._programs, self._engine = prepare, programs, engine
        self._kept: dict[Any, list[Situation]] = {}
        self._numbers: OrderedDict[Any, Numbers] = OrderedDict()
        self._refused: OrderedDict[Any, str] = OrderedDict()
        self._calls, self._capture_seconds, self._plain_since = 0, 0.0, 0.0
        self._warned: set[str] = set()

    @property
    def situations(self) -> list[Situation]:
        """The situations that are kept."""
        return [each for situations in self._kept.values() for each in situations]

    @property
    def graphs_kept(self) -> int:
        """The number of graphs that are kept."""
        return len(self.situations)

    def forget(self) -> None:
        """Drop all graphs."""
        self._kept.clear()

    def call(self, args: Any, kwargs: Any, also: Any = ()) -> Call | None:
        """Make a call to be looked up; None where it cannot be, and the function must run as it is.

        Args:
            args: positional arguments of the call.
            kwargs: keyword arguments of the call.
            also: further parts of the situation.

        Raises:
            CaptureError: for arguments that cannot be compared, unless the engine is ``auto``.
        """
        if self._engine == "eager":
            return None
        try:
            return Call(args, kwargs, also)
        except CaptureError as error:
            self._leave(error)
            return None

    def find(self, call: Call) -> tuple[Situation, list[Tensor]] | None:
        """Find the situation of a call and the inputs of its graph; None where it was not captured."""
        self._calls += 1
        for situation in self._kept.get(call.key, ()):
            inputs = situation.inputs(call)
            if inputs is not None:
                situation.last_call = self._calls
                return situation, inputs
        return None

    def learn(
        self, call: Call, *, must: bool = False, check: Callable[[Graph, list[Tensor]], Any] | None = None
    ) -> tuple[Situation, list[Tensor]] | None:
        """Capture the situation of a call; None where that is not worth it, or the call is left to plain Pyro.

        Args:
            call: a call that was not found.
            must: under ``auto``, capture a situation at its first call rather than at its second.
            check: called with the new graph and its inputs; a ``CaptureError`` refuses the graph.

        Raises:
            CaptureError: for a call that cannot be captured, unless the engine is ``auto``.
        """
        is_first, seen = not self._numbers, call.key in self._numbers
        numbers = _remembered(self._numbers, call.key, Numbers)
        watches = [each.watch for each in self._kept.get(call.key, ())]
        if self._engine == "auto":
            if call.key in self._refused:
                return None
            if not (must or is_first) and (not seen or self._plain_since < self._capture_seconds):
                numbers.see(call, watches)
                return None
        if not self._make_room():
            return None
        numbers.see(call, watches)
        start = time.perf_counter()
        try:
            situation = self._captured_with_numbers(call, numbers)
            self._capture_seconds, self._plain_since = time.perf_counter() - start, 0.0
            inputs = situation.inputs(call)
            if inputs is None:
                raise CaptureError(
                    "expected a program that reads the same at every call; what it reads changed while it was captured: "
                    "keep what changes in tensors or arguments, or use engine='eager'"
                )
            if check is not None:
                check(situation.graph, inputs)
        except CaptureError as error:
            _remembered(self._refused, call.key, str)
            self._leave(error)
            return None
        self._kept.setdefault(call.key, []).insert(0, situation)
        situation.last_call = self._calls
        return situation, inputs

    def note_plain_run(self, seconds: float) -> None:
        """Record the time of a call without a graph: capturing may take as much as such calls together."""
        self._plain_since += seconds

    def _captured_with_numbers(self, call: Call, numbers: Numbers) -> Situation:
        """Capture with changing numbers as inputs, or, where the program needs their values, with all numbers fixed."""
        if numbers.varies:
            try:
                return self._capture(call, numbers)
            except CaptureError as error:
                self._warn(f"each value of a number that keeps changing is captured as a graph of its own: {error}")
                numbers.stay_fixed()
        return self._capture(call, numbers)

    def _capture(self, call: Call, numbers: Numbers) -> Situation:
        if handlers := [type(each).__name__ for each in _PYRO_STACK if not _is_captured(each)]:
            raise CaptureError(
                f"expected no handlers around a step but poutine.scale and scale_latents; got {', '.join(handlers)}: "
                "put them around the model or the guide instead, or use engine='eager'"
            )
        met: list[nn.Module] = []
        names = _ParameterNames()
        with modules_that_run(met.append, lambda *_: None), names:
            function = self._prepare(*call.args, **call.kwargs)
        reachable = Reachable(*self._programs(), *met)
        before = Watch(reachable)
        fixed = numbers.with_fixed(call)
        example = [each if each.requires_grad else each.clone() for each in call.tensors]
        # Each array shares the memory of its input, by which the graph finds the input.
        are_arrays = [*call.arguments.are_arrays, *(False for _ in call.scaling_tensors)]
        arrays = [each.numpy().view(InputArray) if array else None for each, array in zip(example, are_arrays, strict=True)]
        values = fixed.values(call)
        scalars = [torch.full((), each, dtype=torch.float64, device=call.device) for each in values]
        found: list[Assumptions] = []

        def flat(*inputs: Tensor) -> Outputs:
            given = inputs[len(example) :]
            tensors = [each if array is None else array for each, array in zip(inputs, arrays, strict=False)]
            varying, assumptions = numbers_as_inputs(values, given)
            found[:] = [assumptions]
            with fixed.substitute(varying, call, tensors) as (args, kwargs):
                return function(*args, **kwargs)

        graph = capture(flat, [*example, *scalars], [*self._programs(), *met])
        try:
            graph.rehearse([*example, *scalars])
        except LostProcessError:
            raise
        except Exception as error:  # what was traced cannot always be run
            raise CaptureError(reason_of(error)) from error
        _refuse_what_is_written(before.changes(), graph, before)
        watch, store = Watch(reachable, fixed.places, before.grown_collections()), StoreWatch(names.found)
        return Situation(graph, call.arguments, watch, store, TensorWatch(graph.sources), fixed, found[0])

    def _make_room(self) -> bool:
        if self.graphs_kept < MOST_KEPT:
            return True
        oldest = min(self.situations, key=lambda each: each.last_call)
        advice = f"{MOST_KEPT} graphs are kept, and another kind of call came: pad batches to a few sizes, with a mask"
        if self._engine == "auto" and self._calls - oldest.last_call < RECENTLY:
            self._warn(f"{advice}; it runs as plain Pyro")
            return False
        if self._engine != "auto":
            self._warn(f"{advice}; the least recently used graph is dropped")
        for situations in self._kept.values():
            if oldest in situations:
                situations.remove(oldest)
        return True

    def _leave(self, error: CaptureError) -> None:
        """Leave a call to plain Pyro under ``auto``; raise under any other engine."""
        if self._engine != "auto":
            raise error
        self._warn(f"left to plain Pyro: {error}")

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            self._tell(message)


def _is_captured(handler: Any) -> bool:
    """True where a graph has the effect of a handler around the call: a scale is an input, or the effect never changes."""
    return isinstance(handler, ScaleMessenger) or getattr(handler, "is_the_same_at_every_call", False)


class _ParameterNames(Messenger):
    """A handler that remembers the names of Pyro's parameters that programs ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, None] = {}

    def _pyro_param(self, msg: Any) -> None:
        self.found[msg["name"]] = None


def _refuse_what_is_written(written: Sequence[Place], graph: Graph, before: Watch) -> None:
    """Refuse programs that keep state between calls anywhere but in buffers that they write in place."""
    for place in written:
        if place.is_users or before.was_one_of(place, graph.sources):
            raise CaptureError(
                f"expected programs that assign nothing while they run; {place.name} is another after each run, "
                "which a graph would not do: return it, write to a buffer in place, or use engine='eager'"
            )


def _remembered(memory: OrderedDict[Any, Any], key: Any, make: Callable[[], Any]) -> Any:
    """Return an entry of a bounded memory; make it if it is missing."""
    if key not in memory:
        memory[key] = make()
        if len(memory) > MOST_REMEMBERED:
            memory.popitem(last=False)
    memory.move_to_end(key)
    return memory[key]
