"""Functions on a CUDA device that are recorded once as a CUDA graph and replayed: one launch for all kernels."""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyrovae.engine.capture import preserved_tensors
from pyrovae.errors import first_line

Function = Callable[[Sequence[Tensor]], Sequence[Tensor | None]]
WARM_UP_CALLS = 3


class CudaGraphFunction:
    """A function of tensors that replays the kernels of its first call; random numbers are new at every replay.

    Inputs are copied to the memory that the recording reads, and outputs from the memory that it writes. Where recording fails,
    the function is called as it is from then on, with a warning that says why.

    Args:
        function: from tensors to tensors on one device; inputs always have the same shapes.
        state: tensors that the function may write in place; recording leaves them as they were.
        device: the device of all tensors.
    """

    def __init__(self, function: Function, state: Sequence[Tensor], device: torch.device) -> None:
        self._function, self._state, self._device = function, state, device
        self._graph: torch.cuda.CUDAGraph | None = None
        self._tried = False

    def __call__(self, inputs: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """Compute the outputs for these inputs."""
        if not self._tried:
            self._tried = True
            untouched_generators = torch.random.fork_rng(devices=[self._device])
            with torch.cuda.device(self._device), preserved_tensors(self._state), untouched_generators:
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
        # Recording requires that kernels are chosen and memory is laid out before, on another stream.
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
            # Until another recording ends, no generator of the device could draw.
            with torch.cuda.graph(torch.cuda.CUDAGraph()):
                torch.zeros((), device=self._device)
            # What ends the recording fails too, and says nothing of the cause.
            reason = first_line(error.__context__ or error)
            warnings.warn(f"the compiled step runs without a CUDA graph, which could not be recorded: {reason}", stacklevel=4)
        else:
            self._graph = graph
