"""The handling of steps whose loss or gradient is not finite: stop, skip the step, or go back to the last checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from pyrovae.errors import InputError
from pyrovae.experiments.state import State

ON_NAN = ("stop", "skip", "rewind")

logger = logging.getLogger(__name__)


class Rewind(Exception):  # noqa: N818 - asks for a way, and is no error
    """A request to go back to the last checkpoint."""


class Steps:
    """The steps of a training, in the place of its ``CompiledSVI``.

    Args:
        state: the state whose ``svi`` takes the steps.
        on_nan: one of ``ON_NAN``.
        failure: the function from a message to the error that ends the training.
    """

    def __init__(self, state: State, on_nan: str, failure: Callable[[str], InputError]) -> None:
        self._state, self._on_nan, self._failure = state, on_nan, failure

    def step(self, *args: Any) -> Any:
        """Take a step; where it fails, stop, skip it or go back, by ``on_nan``."""
        import torch

        try:
            return self._state.svi.step(*args)
        except FloatingPointError as error:
            if self._on_nan == "skip":
                logger.warning("skipped: %s", error)
                return torch.zeros((), device=self._state.dataset.train.device)
            if self._on_nan == "rewind":
                raise Rewind from error
            raise self._failure(str(error)) from error

    def expect(self, steps: int) -> None:
        """Do nothing: the engine is already chosen."""

    def check(self) -> None:
        """Check that all steps so far were healthy, as ``CompiledSVI`` does."""
        try:
            self._state.svi.check()
        except FloatingPointError as error:
            raise self._failure(str(error)) from error
