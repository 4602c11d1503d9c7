"""Log-weights of many samples for a few examples at a time: the work of importance sampling, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyrovae.engine.modules import Program
from pyrovae.engine.repeated import Repeated
from pyrovae.evaluation.measuring import measuring
from pyrovae.inference.weights import log_weights

# Samples are drawn in rounds of this many, however many are asked for: on a CPU figures depend on the seed alone.
PARTICLES_AT_ONCE = 20


def gathered(draw: Callable[[], Sequence[Tensor]], num_samples: int, at_once: int) -> Tensor:
    """Exactly so many weights ``(num_samples, B)``, from draws of ``at_once`` of them."""
    return torch.cat([draw()[0] for _ in range(num_rounds(num_samples, at_once))])[:num_samples]


def num_rounds(num_samples: int, at_once: int) -> int:
    """How many draws they take."""
    return -(-num_samples // at_once)


class WeightSampler:
    """Draws log-weights of a model under a guide, which must not be trained meanwhile.

    The components of a prior are evaluated once for all examples, the encoder once for all samples of an example.

    Args:
        model: the generative program.
        guide: the proposal.
        samples_ahead: how many are to come, for all chunks of examples together: whether preparing for them is worth its time.
        engine: one of those of ``Repeated``.

    Raises:
        ValueError: for an unknown engine.
    """

    def __init__(self, model: Program, guide: Program, samples_ahead: int = 0, engine: str = "auto") -> None:
        self._model, self._guide = model, guide
        self._samples_ahead = samples_ahead
        self._engine = engine
        self._rounds: dict[int, Repeated] = {}

    def __call__(self, args: Sequence[Tensor], num_samples: int) -> Tensor:
        """Weights ``(num_samples, B)`` for data ``(B, D)``, and contexts ``(B, C)`` behind them where there are any.

        Raises:
            CaptureError: where a program cannot be captured, and the engine is not to be chosen.
        """
        at_once = min(num_samples, PARTICLES_AT_ONCE)
        with measuring(self._model, self._guide):
            draw = self._round(at_once).given([], args, self._samples_ahead // at_once)
            weights = gathered(draw, num_samples, at_once)
        self._samples_ahead -= num_samples
        return weights

    def _round(self, at_once: int) -> Repeated:
        def weights(*args: Tensor) -> list[Tensor]:
            return [log_weights(self._model, self._guide, *args, num_particles=at_once)]

        if at_once not in self._rounds:
            self._rounds[at_once] = Repeated(weights, [self._model, self._guide], self._engine)
        return self._rounds[at_once]
