"""Whether steps were taken: losses and gradients finite, data within the support of their site."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from pyrovae.inference.blame import PendingStep

# Losses are read together on an accelerator, where every reading waits for the device.
UNREAD_STEPS = 100


class Health:
    """A truth value on each device, which the first step that fails makes false, and the steps since it was read."""

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
        """Whether to read now."""
        return loss.device.type == "cpu" or len(self._unread) == UNREAD_STEPS

    def first_failed(self, healthy: Tensor, replayed: Callable[[PendingStep], Exception]) -> tuple[PendingStep, int] | None:
        """The first step that failed since the last reading and the number of those after it; begin anew.

        Args:
            healthy: the truth value of their device.
            replayed: from a step to what it raises when it is replayed.
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
