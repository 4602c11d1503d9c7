"""A function of a few inputs that vary and of examples that stay, called many times for each of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from pyrovae.engine.capture import Graph, preserved_state
from pyrovae.engine.captured import CapturedFunction
from pyrovae.engine.choice import can_compile, compiling_pays
from pyrovae.engine.compiled import compiled_with_draws
from pyrovae.engine.partition import split

# For fewer calls in all, capturing takes longer than it saves.
FEWEST_CALLS = 20
# The share of a call that compiling saves, measured on two cores.
SAVED_SHARE = 0.5

logger = logging.getLogger(__name__)
Function = Callable[..., Sequence[Tensor]]
Run = Callable[[Sequence[Tensor]], Sequence[Tensor | None]]


class Repeated:
    """A function captured once for each situation that it is called in.

    The part that parameters decide alone is computed once, the part that the examples decide once for each of them, and the
    rest is compiled where enough of it is ahead.

    Args:
        function: of the inputs that vary, then of examples.
        programs: what it runs, whose attributes, closures and globals it may read; the function itself where there are none.
        engine: ``eager``: the function as it is, which need not be one that can be captured; ``graph``: its operations one
            after the other; ``compiled``: these through inductor; ``auto``: whichever is sooner done.

    Raises:
        ValueError: for an unknown engine.
    """

    def __init__(self, function: Function, programs: Sequence[Any] = (), engine: str = "auto") -> None:
        self._function, self._engine = function, engine
        self._captured = CapturedFunction(self._prepared, lambda: list(programs) or [function], engine, logger.info)
        self._version = 0

    def given(self, varying: Sequence[Tensor], examples: Sequence[Tensor], calls_ahead: int) -> Function:
        """The function of the inputs that vary, laid out as ``varying`` is, for some examples.

        Args:
            varying: of the layouts in which they will come.
            examples: to stay.
            calls_ahead: how many calls of such layouts are to come: whether preparing for them is worth its time.

        Raises:
            CaptureError: where the function cannot be captured, and the engine is not to be chosen.
        """
        is_worth_it = self._engine != "auto" or calls_ahead >= FEWEST_CALLS
        call = self._captured.call((*varying, *examples), {}) if is_worth_it else None
        found = None if call is None else self._captured.find(call) or self._captured.learn(call, must=True)
        if found is None:
            return lambda *values: self._function(*values, *examples)
        situation, inputs = found
        # Numbers of programs that keep changing are inputs too, and stay for these examples.
        known = inputs[len(varying) :]
        if situation.payload is None:
            situation.payload = _Parts(situation.graph, len(known), self._engine, self._version)
            situation.on_move.append(situation.payload.parameters_changed)
        situation.payload.update_to(self._version)
        return situation.payload.given(varying, known, calls_ahead)

    def parameters_changed(self) -> None:
        """Compute anew what parameters decide; they are still the same tensors, changed in place."""
        self._version += 1

    def _prepared(self, *inputs: Tensor) -> Function:
        with preserved_state():
            # Pyro looks once at what it is given, with the validation that a graph leaves out.
            self._function(*inputs)
        return self._function


class _Parts:
    """The operations of one situation: what parameters decide, what the examples decide, and the rest."""

    def __init__(self, graph: Graph, num_examples: int, engine: str, version: int) -> None:
        self._of_parameters, rest = split(graph, 0)
        self._version = version
        self.parameters_changed()
        self._of_examples, self._rest = split(Graph(rest, self._values, []), num_examples)
        self._engine = engine
        self._compiled: Run | None = None
        self._settled = False

    def update_to(self, version: int) -> None:
        """Compute anew what parameters decide, where they have changed since."""
        if version != self._version:
            self._version = version
            self.parameters_changed()

    def parameters_changed(self) -> None:
        """Compute anew what parameters decide."""
        self._of_parameters.bind()
        self._values: Any = self._of_parameters([])

    def given(self, varying: Sequence[Tensor], examples: Sequence[Tensor], calls_ahead: int) -> Function:
        """The rest, with what these examples decide."""
        # One compilation serves all examples: what is known of them is its input.
        known: Any = Graph(self._of_examples.module, self._values, [])(examples)
        graph = Graph(self._rest, [], [])
        if not self._settled:
            self._settled = True
            inputs = [*known, *varying]
            if _has_operations(graph) and _is_worth_compiling(graph, inputs, calls_ahead, self._engine):
                self._compiled = compiled_with_draws(graph, inputs)
        run: Run = self._compiled or graph
        return lambda *values: run([*known, *values])  # type: ignore[return-value]


def _has_operations(graph: Graph) -> bool:
    return any(node.op == "call_function" for node in graph.module.graph.nodes)


def _is_worth_compiling(graph: Graph, inputs: list[Tensor], calls_ahead: int, engine: str) -> bool:
    if engine != "auto" or not can_compile(inputs):
        return engine == "compiled"
    return compiling_pays(graph, inputs, calls_ahead, SAVED_SHARE)[0]
