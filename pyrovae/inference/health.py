"""The health of steps: whether losses and gradients are finite, and data in the support of their site."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from pyrovae.inference.blame import PendingStep

# On an accelerator, where every reading waits for the device, this many losses are read together.
UNREAD_STEPS = 100


class Health:
    """The health of the steps so far, as a truth value on each device, and the steps since it was read."""

    def __init__(self) -> None:
        self._on: dict[torch.device, Tensor] = {}
        self._unread: list[PendingStep] = []

    def on(self, device: torch.device) -> Tensor:
        """The truth value on a device; no step is applied while it is false."""
        return self._on.setdefault(device, torch.ones((), dtype=torch.bool, device=device))

    def values(self) -> Iterable[Tensor]:
        """The truth values of all devices."""
        return self._on.values()

    def add(self, step: PendingStep) -> None:
        """Remember a step until its truth value is read."""
        self._unread.append(step)

    def is_due(self, loss: Tensor) -> bool:
        """True where the truth value must be read now."""
        return loss.device.type == "cpu" or len(self._unread) == UNREAD_STEPS

    def first_failed(self, healthy: Tensor, replayed: Callable[[PendingStep], Exception]) -> tuple[PendingStep, int] | None:
        """The first step that failed since the last reading, and the number of steps after it; starts anew.

        Args:
            healthy: the truth value of the steps' device.
            replayed: the function from a step to the error of its replay.
        """
        taken, self._unread = self._unread, []
        if healthy:
            return None
        for state in self._on.values():
            state.fill_(True)
        first = next((number for number, each in enumerate(taken) if not each.loss.isfinite()), None)
        if first is None:
            errors = (str(replayed(step)) for step in taken)
            first = next((number for number, error in enumerate(errors) if "when replayed" not in error), len(taken) - 1)
        return taken[first], len(taken) - first - 1
