"""The engines that run a captured function, and the cost model of ``engine="auto"``."""

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from pyrovae.engine.capture import Graph, preserved_state
from pyrovae.engine.compilation import cuda_device, has_compiler, time_to_compile_anew
from pyrovae.engine.compiled import seconds_to_compile

ENGINES = ("auto", "eager", "graph", "compiled")
NO_COMPILER = "there is no C++ compiler (g++ or clang++), which engine compiled needs"
MEASURED_CALLS = 3
# What compiling saves: seconds for each operation and for each element that operations write, measured on products, activations
# and densities of measured networks; on two cores, and on a GPU, where starting a kernel takes most of the time.
SAVED_SECONDS, SAVED_SECONDS_ELSEWHERE = {"cpu": (3e-6, 1e-9)}, (8e-6, 4e-12)


def check_engine(engine: str) -> None:
    """Refuse an unknown engine.

    Raises:
        ValueError: for a name that is not in ``ENGINES``.
    """
    if engine not in ENGINES:
        raise ValueError(f"expected an engine out of {', '.join(ENGINES)}; got {engine!r}")


def can_compile(tensors: Sequence[Tensor]) -> bool:
    """True where there is a compiler for the device of these tensors."""
    return has_compiler() or any(each.device.type != "cpu" for each in tensors)


def compiling_pays(
    graph: Graph, inputs: Sequence[Tensor], calls_ahead: float, saved_share: float, seconds: float | None = None
) -> tuple[bool, str]:
    """Decide whether the calls ahead are worth the time of compiling; returns the reason in words, too.

    Args:
        graph: the graph to be called.
        inputs: its inputs.
        calls_ahead: the number of calls to come.
        saved_share: the share of a call that compiling saves, as measured on such graphs.
        seconds: the time of a call; measured here if None.
    """
    seconds = _seconds(graph, inputs) if seconds is None else seconds
    cost, task = seconds_to_compile(graph, inputs)
    gain = saved_share * seconds * calls_ahead
    calls = f"{calls_ahead:.0f} calls of {seconds * 1e3:.1f} ms"
    return gain > cost, f"{calls}, of which compiling would save about {gain:.0f} s, against {cost:.0f} s to {task}"


def compiling_pays_by_count(graph: Graph, inputs: Sequence[Tensor], calls_ahead: float) -> bool:
    """Decide whether to compile from the numbers of calls, operations and elements alone.

    Compiled code rounds differently: a decision by measured times or kept code would change figures from call to call.
    """
    device = next((each.device.type for each in (*graph.constants, *inputs) if each.device.type != "cpu"), "cpu")
    of_operation, of_element = SAVED_SECONDS.get(device, SAVED_SECONDS_ELSEWHERE)
    written = [node.meta.get("val") for node in graph.module.graph.nodes if not getattr(node.target, "is_view", True)]
    tensors = [each for value in written for each in (value if isinstance(value, list | tuple) else [value])]
    elements = sum(each.numel() for each in tensors if isinstance(each, Tensor))
    return calls_ahead * (of_operation * len(written) + of_element * elements) > time_to_compile_anew(graph)


def _seconds(graph: Graph, inputs: Sequence[Tensor]) -> float:
    times = []
    with preserved_state():
        for _ in range(MEASURED_CALLS):
            start = time.perf_counter()
            graph(inputs)
            if (device := cuda_device(inputs)) is not None:
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - start)
    return min(times)
