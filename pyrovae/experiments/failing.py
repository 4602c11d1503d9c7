"""What becomes of a step whose loss or gradient is not finite: an end, the next step, or the last checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from pyrovae.errors import InputError
from pyrovae.experiments.state import State

ON_NAN = ("stop", "skip", "rewind")

logger = logging.getLogger(__name__)


class Rewind(Exception):  # noqa: N818 - asks for a way, and is no error
    """Go back to the last checkpoint."""


class Steps:
    """The steps of a training, in the place of its ``CompiledSVI``.

    Args:
        state: whose ``svi`` takes them.
        on_nan: one of ``ON_NAN``.
        failure: from a message to the error that ends the training.
    """

    def __init__(self, state: State, on_nan: str, failure: Callable[[str], InputError]) -> None:
        self._state, self._on_nan, self._failure = state, on_nan, failure

    def step(self, *args: Any) -> Any:
        """Take a step; skip it or go back where it fails, as was asked for."""
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
        """The engine is chosen already."""

    def check(self) -> None:
        """As ``CompiledSVI`` does."""
        try:
            self._state.svi.check()
        except FloatingPointError as error:
            raise self._failure(str(error)) from error
