"""The log-weights of many samples, for a few examples at a time: the work of importance sampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyrovae.engine.modules import Program
from pyrovae.engine.repeated import RepeatedFunction
from pyrovae.evaluation.measuring import measuring
from pyrovae.inference.weights import log_weights

# Samples are drawn in rounds of this many, whatever their number: on a CPU figures depend on the seed alone.
PARTICLES_AT_ONCE = 20


def draw_weights(draw: Callable[[], Sequence[Tensor]], num_samples: int, at_once: int) -> Tensor:
    """Draw exactly ``num_samples`` weights ``(num_samples, B)``, in rounds of ``at_once``."""
    return torch.cat([draw()[0] for _ in range(num_rounds(num_samples, at_once))])[:num_samples]


def num_rounds(num_samples: int, at_once: int) -> int:
    """The number of rounds for ``num_samples`` samples."""
    return -(-num_samples // at_once)


class WeightSampler:
    """A sampler of log-weights of a model under a guide, which must not be trained meanwhile.

    The components of a prior are computed once for all examples, the encoder once for all samples of an example.

    Args:
        model: the generative program.
        guide: the proposal.
        samples_ahead: the number of samples to come in all calls together, which decides whether to capture and compile.
        engine: one of the engines of ``RepeatedFunction``.

    Raises:
        ValueError: for an unknown engine.
    """

    def __init__(self, model: Program, guide: Program, samples_ahead: int = 0, engine: str = "auto") -> None:
        self._model, self._guide = model, guide
        self._samples_ahead = samples_ahead
        self._engine = engine
        self._rounds: dict[int, RepeatedFunction] = {}

    def __call__(self, args: Sequence[Tensor], num_samples: int) -> Tensor:
        """Draw weights ``(num_samples, B)`` for data ``(B, D)``, followed by contexts ``(B, C)`` if any.

        Raises:
            CaptureError: for a program that cannot be captured, unless the engine is ``auto`` or ``eager``.
        """
        at_once = min(num_samples, PARTICLES_AT_ONCE)
        with measuring(self._model, self._guide):
            draw = self._round(at_once).bind([], args, self._samples_ahead // at_once)
            return draw_weights(draw, num_samples, at_once)

    def _round(self, at_once: int) -> RepeatedFunction:
        def weights(*args: Tensor) -> list[Tensor]:
            return [log_weights(self._model, self._guide, *args, num_particles=at_once)]

        if at_once not in self._rounds:
            self._rounds[at_once] = RepeatedFunction(weights, [self._model, self._guide], self._engine)
        return self._rounds[at_once]
