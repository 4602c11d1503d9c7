"""Compiled graphs that draw the same random numbers as the program."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyrovae.engine.capture import Graph
from pyrovae.engine.compilation import compile_graph, time_to_compile
from pyrovae.engine.partition import without_draws

Run = Callable[[Sequence[Tensor]], Sequence[Tensor | None]]


def compile_with_draws(graph: Graph, inputs: Sequence[Tensor]) -> Run:
    """Compile a graph with inductor; on a CPU random numbers are drawn before it, in the order of the program.

    Raises:
        Exception: of any kind, where inductor cannot compile.
    """
    draw, rest, everything = _parts(graph, inputs)
    run = compile_graph(rest, everything)
    return run if draw is None else lambda inputs: run([*inputs, *draw(inputs)])  # type: ignore[list-item]


def seconds_to_compile(graph: Graph, inputs: Sequence[Tensor]) -> tuple[float, str]:
    """The seconds that ``compile_with_draws`` will take, and what is done in them."""
    return time_to_compile(*_parts(graph, inputs)[1:])


def _parts(graph: Graph, inputs: Sequence[Tensor]) -> tuple[Graph | None, Graph, list[Tensor]]:
    """The draws, the rest, and the inputs of the rest: those of the graph, followed by the drawn numbers."""
    if any(each.device.type != "cpu" for each in (*graph.constants, *inputs)):
        return None, graph, list(inputs)
    draws, rest = without_draws(graph)
    if not draws:
        return None, graph, list(inputs)
    # The lists are shared with the graph: where its tensors move, they move here too.
    draw, after = (Graph(module, graph.constants, graph.sources) for module in (draws, rest))
    with torch.random.fork_rng(devices=[]):
        return draw, after, [*inputs, *(each for each in draw(inputs) if each is not None)]
