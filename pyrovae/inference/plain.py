"""A step as plain Pyro takes it: engine eager, and what is left to it."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyrovae.engine.arguments import Arguments
from pyrovae.engine.modules import modules_that_run
from pyrovae.errors import CaptureError
from pyrovae.inference.steps import Programs, Supports, are_healthy, validates

MOST_REMEMBERED = 4096


@dataclass(frozen=True)
class PlainStep:
    """A step that was computed and not applied: its loss, its gradients, whether it is healthy and to be taken."""

    loss: Tensor
    parameters: Sequence[Tensor]
    gradients: Sequence[Tensor | None]
    healthy: Tensor
    taken: Tensor


class PlainSteps:
    """Computes steps one by one, each kind of batch with Pyro's validation at first."""

    def __init__(self) -> None:
        self._validated: set[Any] = set()

    def run(self, programs: Programs, args: Any, kwargs: Any, parameters_of: Callable[[], list[Tensor]]) -> PlainStep:
        """Compute a step; where it is not to be taken, buffers are as before."""
        buffers: list[tuple[Tensor, Tensor]] = []

        def remember(module: nn.Module) -> None:
            buffers.extend((buffer, buffer.clone()) for buffer in module.buffers(recurse=False))

        try:
            with (
                modules_that_run(remember, lambda *_: None, programs.model, programs.guide),
                Supports() as supports,
                self._validation(args, kwargs),
            ):
                loss = programs.differentiable_loss(args, kwargs)
            parameters = parameters_of()
            gradients = programs.gradients(loss, parameters)
            kind = parameters[0] if parameters else torch.zeros(())
            value = torch.as_tensor(loss).detach().to(kind.device, kind.dtype)
            with torch.no_grad():
                healthy = are_healthy(value, gradients, supports if validates() else None)
                gradients, taken = programs.clipping(gradients, healthy)
        except Exception:
            _restore(buffers)
            raise
        if not taken:
            _restore(buffers)
        return PlainStep(value, parameters, gradients, healthy, taken)

    def _validation(self, args: Any, kwargs: Any) -> Any:
        """Pyro's own for the first batch of a kind; later ones are looked at for their data and their results alone."""
        try:
            key = Arguments(args, kwargs).key
        except CaptureError:
            return nullcontext()
        if key in self._validated:
            return pyro.validation_enabled(False)
        if len(self._validated) == MOST_REMEMBERED:
            self._validated.clear()
        self._validated.add(key)
        return nullcontext()


def _restore(buffers: Sequence[tuple[Tensor, Tensor]]) -> None:
    with torch.no_grad():
        for buffer, old in buffers:
            buffer.copy_(old)
