"""Steps as plain Pyro takes them: of engine eager, and of calls that cannot be captured."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pyrovae.engine.modules import modules_that_run
from pyrovae.engine.reachable import Reachable
from pyrovae.engine.validation import without_validation
from pyrovae.inference.steps import Programs, are_healthy
from pyrovae.inference.supports import Supports, validates

MOST_REMEMBERED = 4096


@dataclass(frozen=True)
class PlainStep:
    """A step that was computed and not applied: its loss and gradients, whether it is healthy, and whether to take it."""

    loss: Tensor
    parameters: Sequence[Tensor]
    gradients: Sequence[Tensor | None]
    healthy: Tensor
    taken: Tensor
    buffers: Sequence[tuple[Tensor, Tensor]]

    @property
    def results(self) -> Sequence[Tensor]:
        """The tensors that decide the step: loss, gradients, and whether to take it."""
        return self.loss, self.healthy, self.taken, *(each for each in self.gradients if each is not None)

    def undo(self) -> None:
        """Restore the buffers."""
        _restore(self.buffers)


class PlainSteps:
    """The steps of plain Pyro; the first of each kind of batch runs with Pyro's validation."""

    def __init__(self) -> None:
        self._unchecked: OrderedDict[Any, set[str]] = OrderedDict()

    def run(
        self, programs: Programs, args: Any, kwargs: Any, kind: Any, parameters_of: Callable[[], list[Tensor]]
    ) -> PlainStep:
        """Compute a step; where it must not be taken, buffers are restored.

        Args:
            programs: the programs of the step.
            args: the positional arguments of the step.
            kwargs: the keyword arguments of the step.
            kind: the key by which a graph of the call would be looked up; None for calls without a key.
            parameters_of: called after the programs ran; returns the parameters to train.
        """
        buffers: list[tuple[Tensor, Tensor]] = []

        def remember(module: nn.Module) -> None:
            buffers.extend((buffer, buffer.clone()) for buffer in module.buffers(recurse=False))

        supports, validation = self._validation(kind)
        try:
            reached = Reachable(programs.model, programs.guide)
            with modules_that_run(remember, lambda *_: None, reached), supports, validation:
                loss = programs.differentiable_loss(args, kwargs)
            parameters = parameters_of()
            gradients = programs.gradients(loss, parameters)
            example = parameters[0] if parameters else torch.zeros(())
            value = torch.as_tensor(loss).detach().to(example.device, example.dtype)
            inside = supports.all_inside() if validates() else []
            with torch.no_grad():
                healthy = are_healthy(value, gradients, inside)
                gradients, taken = programs.clipping(gradients, healthy)
        except Exception:
            _restore(buffers)
            raise
        step = PlainStep(value, parameters, gradients, healthy, taken, buffers)
        if not taken:
            step.undo()
        return step

    def unchecked(self, kind: Any) -> set[str]:
        """The names of sites made with ``validate_args=False``."""
        return self._unchecked.get(kind, set())

    def _validation(self, kind: Any) -> tuple[Supports, Any]:
        """The validation of a step: Pyro's for the first batch of a kind; later only data and results are checked."""
        if not validates():
            return Supports(), nullcontext()
        if kind is not None and kind in self._unchecked:
            return Supports(self._unchecked[kind]), without_validation()
        supports = Supports()
        self._unchecked[kind] = supports.unchecked
        if len(self._unchecked) > MOST_REMEMBERED:
            self._unchecked.popitem(last=False)
        return supports, nullcontext()


def _restore(buffers: Sequence[tuple[Tensor, Tensor]]) -> None:
    with torch.no_grad():
        for buffer, old in buffers:
            buffer.copy_(old)
