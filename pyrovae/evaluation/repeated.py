"""A function of a few inputs that vary and of examples that stay, called many times for each of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from torch import Tensor

from pyrovae.inference.capture import Graph, capture, preserved_state
from pyrovae.inference.compilation import compile_graph, cuda_device, has_compiler, time_to_compile
from pyrovae.inference.folding import fold

MEASURED_CALLS, SAVED_SHARE = 3, 0.5

Function = Callable[..., Sequence[Tensor]]
Run = Callable[[Sequence[Tensor]], Sequence[Tensor | None]]


class Repeated:
    """A captured function, in which what parameters and examples decide alone is computed once for each of them.

    Parameters must not change as long as it lives.

    Args:
        function: of the inputs that vary, then of examples; captured with these.
        varying: as many as vary, of the shapes in which they will come.
        examples: of the shapes in which they will come.

    Raises:
        CaptureError: where the function cannot be captured.
    """

    def __init__(self, function: Function, varying: Sequence[Tensor], examples: Sequence[Tensor]) -> None:
        self._graph = fold(capture(function, [*varying, *examples]))
        self._varying = varying
        self._compiled: Run | None = None
        self._settled = False

    def given(self, examples: Sequence[Tensor], calls_ahead: int, engine: str = "auto") -> Function:
        """The function of what varies; compiled where the engine says so, or is ``auto`` and so many calls are worth it."""
        # One compilation serves all examples: what is known of them is its input.
        rest = fold(self._graph, *examples)
        graph, known = Graph(rest.module, []), rest.constants
        if not self._settled:
            self._settled = True
            inputs = [*known, *self._varying]
            if _is_worth_compiling(graph, inputs, calls_ahead, engine):
                self._compiled = compile_graph(graph, inputs)
        run: Run = self._compiled or graph
        return lambda *varying: run([*known, *varying])  # type: ignore[return-value]


def _is_worth_compiling(graph: Graph, inputs: list[Tensor], calls_ahead: int, engine: str) -> bool:
    if engine != "auto" or not (has_compiler() or cuda_device(inputs)):
        return engine == "compiled"
    return SAVED_SHARE * _seconds(graph, inputs) * calls_ahead > time_to_compile(graph, inputs)[0]


def _seconds(graph: Graph, inputs: list[Tensor]) -> float:
    times = []
    with preserved_state():
        for _ in range(MEASURED_CALLS):
            start = time.perf_counter()
            graph(inputs)
            times.append(time.perf_counter() - start)
    return min(times)
