"""Functions of a few inputs that vary and of examples that stay the same for many calls."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from pyrovae.engine.capture import Graph, preserved_state
from pyrovae.engine.captured import CapturedFunction
from pyrovae.engine.choice import can_compile, compiling_pays_by_count
from pyrovae.engine.compiled import compile_with_draws
from pyrovae.engine.matmul_kernels import products_by_size
from pyrovae.engine.partition import split

# For fewer calls, capturing takes longer than it saves.
FEWEST_CALLS = 20

logger = logging.getLogger(__name__)
Function = Callable[..., Sequence[Tensor]]
Run = Callable[[Sequence[Tensor]], Sequence[Tensor | None]]


class RepeatedFunction:
    """A function of varying inputs and fixed examples, captured once for each situation.

    The part that depends on parameters alone is computed once, the part that depends on examples once for each set of examples,
    and the rest is compiled where enough calls are to come.

    Args:
        function: the function of the inputs that vary, then of the examples.
        programs: the objects that it runs, whose attributes, closures and globals it may read; by default the function itself.
        engine: ``eager``: the function as it is, which need not be capturable; ``graph``: its operations one after the other;
            ``compiled``: its operations through inductor; ``auto``: the engine that is expected to be done first. Times are
            not measured, so that the same calls have the same bits.

    Raises:
        ValueError: for an unknown engine.
    """

    def __init__(self, function: Function, programs: Sequence[Any] = (), engine: str = "auto") -> None:
        self._function, self._engine = function, engine
        self._captured = CapturedFunction(self._prepared, lambda: list(programs) or [function], engine, logger.info)
        self._version = 0

    def bind(self, varying: Sequence[Tensor], examples: Sequence[Tensor], calls_ahead: int) -> Function:
        """Return the function of the inputs that vary, with the layouts of ``varying``, for some examples.

        Args:
            varying: inputs of the layouts that will come.
            examples: the examples that stay the same.
            calls_ahead: the number of such calls to come, which decides whether capturing and compiling are worth their time.

        Raises:
            CaptureError: for a function that cannot be captured, unless the engine is ``auto`` or ``eager``.
        """
        is_worth_it = self._engine != "auto" or calls_ahead >= FEWEST_CALLS
        call = self._captured.call((*varying, *examples), {}) if is_worth_it else None
        found = None if call is None else self._captured.find(call) or self._captured.learn(call, must=True)
        if found is None:
            return lambda *values: self._function(*values, *examples)
        situation, inputs = found
        # Numbers of programs that keep changing are inputs too, and stay the same for these examples.
        known = inputs[len(varying) :]
        if situation.payload is None:
            situation.payload = _Parts(situation.graph, len(known), self._engine, self._version)
            situation.on_move.append(situation.payload.refresh_parameters)
        situation.payload.update_to(self._version)
        return situation.payload.bind(varying, known, calls_ahead)

    def refresh_parameters(self) -> None:
        """Compute the part that depends on parameters anew, after they changed in place."""
        self._version += 1

    def _prepared(self, *inputs: Tensor) -> Function:
        with preserved_state():
            # One run as plain Pyro, with the validation that a graph leaves out.
            self._function(*inputs)
        return self._function


class _Parts:
    """The operations of one situation: the part that parameters decide, the part that examples decide, and the rest."""

    def __init__(self, graph: Graph, num_examples: int, engine: str, version: int) -> None:
        self._of_parameters, rest = split(graph, 0)
        self._version = version
        self.refresh_parameters()
        self._of_examples, self._rest = split(Graph(rest, self._values, []), num_examples)
        self._engine = engine
        self._compiled: Run | None = None
        self._settled = False

    def update_to(self, version: int) -> None:
        """Compute the part that depends on parameters anew if they have changed since."""
        if version != self._version:
            self._version = version
            self.refresh_parameters()

    def refresh_parameters(self) -> None:
        """Compute the part that depends on parameters anew."""
        self._of_parameters.bind()
        self._values: Any = self._of_parameters([])

    def bind(self, varying: Sequence[Tensor], examples: Sequence[Tensor], calls_ahead: int) -> Function:
        """Return the rest as a function, with the part that depends on these examples computed."""
        # One compilation serves all examples: the part that depends on them is an input of it.
        known: Any = Graph(self._of_examples.module, self._values, [])(examples)
        graph = Graph(self._rest, [], [])
        if not self._settled:
            self._settled = True
            inputs = [*known, *varying]
            if _has_operations(graph) and _is_worth_compiling(graph, inputs, calls_ahead, self._engine):
                with products_by_size():
                    self._compiled = compile_with_draws(graph, inputs)
        run: Run = self._compiled or graph
        return lambda *values: run([*known, *values])  # type: ignore[return-value]


def _has_operations(graph: Graph) -> bool:
    return any(node.op == "call_function" for node in graph.module.graph.nodes)


def _is_worth_compiling(graph: Graph, inputs: list[Tensor], calls_ahead: int, engine: str) -> bool:
    if engine != "auto" or not can_compile(inputs):
        return engine == "compiled"
    return compiling_pays_by_count(graph, inputs, calls_ahead)
