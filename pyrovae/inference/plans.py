"""The way in which steps of a situation are taken: by its graph or by compiled code, with or without the optimizer's step."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from pyrovae.engine.capture import Graph
from pyrovae.engine.captured import Situation
from pyrovae.engine.choice import NO_COMPILER, can_compile, compiling_pays
from pyrovae.engine.compiled import Run, compile_with_draws
from pyrovae.engine.matmul_kernels import products_by
from pyrovae.errors import first_line
from pyrovae.inference.updates import CapturedUpdate, can_be_captured, learning_rates, with_update

# The share of a step that compiling saves, measured on two cores.
SAVED_SHARE = 0.2
MEASURED_STEPS = 5


@dataclass(eq=False)
class Plan:
    """The plan of a situation's steps.

    Args:
        optim: the optimizer, whose step follows the graph or is part of it.
        parameters: the parameters that are trained.
        healthy: a boolean on the device: whether all steps so far were healthy.
        was_healthy: the same before the situation was captured.
        settled: whether the plan is final.
    """

    optim: Any
    parameters: list[Tensor]
    healthy: Tensor
    was_healthy: Tensor
    settled: bool = False
    run: Run = field(default=lambda inputs: [])
    update: CapturedUpdate | None = None
    is_compiled: bool = False
    _seconds: list[float] = field(default_factory=list)
    _least_gain: float = 0.0

    def use_graph(self, situation: Situation) -> None:
        """Run the captured operations one after the other from now on."""
        self.settled, self.run, self.update, self.is_compiled = True, situation.graph, None, False

    def compile(
        self, situation: Situation, inputs: list[Tensor], reason: str, products: dict[str, bool], *, update: bool = True
    ) -> str:
        """Use compiled code from now on, or the graph if it cannot be compiled; return the decision in words.

        Args:
            situation: the situation of the graph.
            inputs: the inputs of the graph.
            reason: the reason for compiling.
            products: the library of each matrix product, where it is known; new choices are added.
            update: whether the optimizer's step may be part of the code.
        """
        self.use_graph(situation)
        graph, everything = situation.graph, inputs
        try:
            if not can_compile([*inputs, *self.parameters]):
                raise RuntimeError(NO_COMPILER)
            captured = None
            if update and can_be_captured(self.optim, self.parameters):
                captured = CapturedUpdate(self.optim)
                graph, everything = self._compilable(situation.graph, inputs)
            with products_by(products):
                self.run = compile_with_draws(graph, everything)
        except Exception as error:  # whatever it is, the graph does the same
            return f"engine graph: {first_line(error)}"
        self.update, self.is_compiled = captured, True
        situation.on_move.append(graph.bind)
        for parameter in self.parameters if captured else ():
            parameter.grad = None
        return f"engine compiled: {reason}"

    def compiling_pays(self, graph: Graph, inputs: list[Tensor], seconds: float, ahead: float | None) -> tuple[bool, str]:
        """Decide whether the steps ahead are worth compiling, and why, by the times of steps that were taken anyway.

        Args:
            graph: the graph that takes the steps.
            inputs: the inputs of the graph.
            seconds: the time of the last step.
            ahead: the number of steps to come; None if unknown: then as much time is expected to come as was spent.
        """
        self._seconds.append(seconds)
        if len(self._seconds) < MEASURED_STEPS:
            return False, ""
        step = min(self._seconds)
        known, ahead = ahead is not None, sum(self._seconds) / step if ahead is None else ahead
        if SAVED_SHARE * step * ahead < self._least_gain:
            return False, ""
        pays, reason = compiling_pays(*self._compilable(graph, inputs), ahead, SAVED_SHARE, step)
        self.settled = pays or known
        # The next decision is made when the gain has doubled.
        self._least_gain = 2 * SAVED_SHARE * step * ahead
        return pays, reason

    def _compilable(self, graph: Graph, inputs: Sequence[Tensor]) -> tuple[Graph, list[Tensor]]:
        """The captured graph, with the optimizer's step where that can be captured, and its inputs."""
        if not can_be_captured(self.optim, self.parameters):
            return graph, list(inputs)
        return with_update(graph, self.parameters, self.optim), [*inputs, *learning_rates(self.optim)]
