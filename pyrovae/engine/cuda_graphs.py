"""A function on a CUDA device recorded once as a CUDA graph, and replayed: one launch for all of its kernels."""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyrovae.engine.capture import untouched

Function = Callable[[Sequence[Tensor]], Sequence[Tensor | None]]
WARM_UP_CALLS = 3


class Recorded:
    """Calls a function of tensors by replaying what its first call recorded; random numbers are new at every replay.

    Inputs are copied to where the recording reads them, and outputs away from where it writes them. Where recording fails the
    function is called as it is from then on, with a warning that says why.

    Args:
        function: from tensors on one device to tensors on it; always for inputs of the same shapes.
        state: tensors that the function may write in place; recording leaves them as they were.
        device: where all of them are.
    """

    def __init__(self, function: Function, state: Sequence[Tensor], device: torch.device) -> None:
        self._function, self._state, self._device = function, state, device
        self._graph: torch.cuda.CUDAGraph | None = None
        self._tried = False

    def __call__(self, inputs: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """The outputs for these inputs."""
        if not self._tried:
            self._tried = True
            untouched_generators = torch.random.fork_rng(devices=[self._device])
            with torch.cuda.device(self._device), untouched(self._state), untouched_generators:
                self._record(inputs)
        if self._graph is None:
            return self._function(inputs)
        with torch.cuda.device(self._device):
            for place, value in zip(self._inputs, inputs, strict=True):
                place.copy_(value)
            self._graph.replay()
            return [None if each is None else each.clone() for each in self._outputs]

    def _record(self, inputs: Sequence[Tensor]) -> None:
        self._inputs = [each.clone() for each in inputs]
        # Kernels are chosen and memory is laid out before, on a stream of its own, as recording demands.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_CALLS):
                self._function(self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._outputs = self._function(self._inputs)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            warnings.warn(f"the compiled step runs without a CUDA graph, which could not be recorded: {reason}", stacklevel=4)
        else:
            self._graph = graph
