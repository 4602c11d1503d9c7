"""A function of a few inputs that vary and of examples that stay, called many times for each of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pyrovae.engine.capture import CaptureError, Graph, capture, preserved_state
from pyrovae.engine.choice import ENGINES
from pyrovae.engine.compilation import compile_graph, cuda_device, has_compiler, time_to_compile
from pyrovae.engine.partition import split

# For fewer calls in all, capturing takes longer than it saves.
FEWEST_CALLS = 20
MEASURED_CALLS, SAVED_SHARE = 3, 0.5

Function = Callable[..., Sequence[Tensor]]
Run = Callable[[Sequence[Tensor]], Sequence[Tensor | None]]


class Repeated:
    """A function that is captured once for each layout of what it is called with.

    What parameters decide alone is computed once, what the examples decide once for each of them, and the rest is compiled
    where enough of it is ahead.

    Args:
        function: of the inputs that vary, then of examples.
        engine: ``eager``: the function as it is, which need not be one that can be captured; ``graph``: its operations one
            after the other; ``compiled``: these through inductor; ``auto``: whichever is sooner done.

    Raises:
        ValueError: for an unknown engine.
    """

    def __init__(self, function: Function, engine: str = "auto") -> None:
        if engine not in ENGINES:
            raise ValueError(f"expected an engine out of {', '.join(ENGINES)}; got {engine!r}")
        self._function, self._engine = function, engine
        self._captured: dict[Any, _Captured | None] = {}

    def given(self, varying: Sequence[Tensor], examples: Sequence[Tensor], calls_ahead: int) -> Function:
        """The function of what varies, laid out as ``varying`` is, for some examples.

        Args:
            varying: of the layouts in which they will come.
            examples: to stay.
            calls_ahead: how many calls of such layouts are to come: whether preparing for them is worth its time.

        Raises:
            CaptureError: where the function cannot be captured, and the engine is not to be chosen.
        """
        key = tuple((each.shape, each.stride(), each.dtype, each.device) for each in (*varying, *examples))
        if key not in self._captured:
            self._captured[key] = self._capture(varying, examples, calls_ahead)
        captured = self._captured[key]
        if captured is None:
            return lambda *values: self._function(*values, *examples)
        return captured.given(varying, examples, calls_ahead)

    def parameters_changed(self) -> None:
        """What was computed of parameters is out of date; they are still the same tensors, changed in place."""
        for captured in self._captured.values():
            if captured is not None:
                captured.parameters_changed()

    def _capture(self, varying: Sequence[Tensor], examples: Sequence[Tensor], calls_ahead: int) -> _Captured | None:
        if self._engine == "eager" or (self._engine == "auto" and calls_ahead < FEWEST_CALLS):
            return None
        with preserved_state():
            # Pyro looks once at what it is given, with the validation that a graph leaves out.
            self._function(*varying, *examples)
        # A tensor that is both, or comes twice, is as many inputs.
        inputs = [each.clone() for each in (*varying, *examples)]
        try:
            graph = capture(self._function, inputs)
        except CaptureError:
            if self._engine != "auto":
                raise
            return None
        return _Captured(graph, len(examples), self._engine)


class _Captured:
    """The operations of one layout: what parameters decide, what the examples decide, and the rest."""

    def __init__(self, graph: Graph, num_examples: int, engine: str) -> None:
        self._of_parameters, rest = split(graph, 0)
        self.parameters_changed()
        self._of_examples, self._rest = split(Graph(rest, self._values), num_examples)
        self._engine = engine
        self._compiled: Run | None = None
        self._settled = False

    def parameters_changed(self) -> None:
        """Compute anew what parameters decide."""
        self._values: Any = self._of_parameters([])

    def given(self, varying: Sequence[Tensor], examples: Sequence[Tensor], calls_ahead: int) -> Function:
        """The rest, with what these examples decide."""
        # One compilation serves all examples: what is known of them is its input.
        known: Any = Graph(self._of_examples.module, self._values)(examples)
        graph = Graph(self._rest, [])
        if not self._settled:
            self._settled = True
            inputs = [*known, *varying]
            if _has_operations(graph) and _is_worth_compiling(graph, inputs, calls_ahead, self._engine):
                self._compiled = compile_graph(graph, inputs)
        run: Run = self._compiled or graph
        return lambda *values: run([*known, *values])  # type: ignore[return-value]


def _has_operations(graph: Graph) -> bool:
    return any(node.op == "call_function" for node in graph.module.graph.nodes)


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
            if (device := cuda_device(inputs)) is not None:
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - start)
    return min(times)
