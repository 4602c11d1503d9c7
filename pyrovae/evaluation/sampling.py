"""Log-weights of many samples for a few examples at a time: the work of importance sampling, and nothing else.

The programs are captured once as one graph, and what is known is folded: the components of a prior are evaluated once for all
examples, the encoder once for all samples of an example, and the rest is compiled where enough of it is ahead.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pyrovae.evaluation.repeated import Repeated
from pyrovae.inference.capture import CaptureError, preserved_state
from pyrovae.inference.modules import Program, evaluation_mode
from pyrovae.inference.svi import ENGINES
from pyrovae.inference.weights import log_weights
from pyrovae.programs.conditionals import share_constants

# Samples are drawn in rounds of this many, however many are asked for: on a CPU figures depend on the seed alone.
PARTICLES_AT_ONCE = 20
# Below so many samples in all, capturing takes longer than it saves.
FEWEST_SAMPLES = 200

Weights = Callable[..., Sequence[Tensor]]


class WeightSampler:
    """Draws log-weights of a model under a guide, which must not be trained meanwhile.

    Args:
        model: the generative program.
        guide: the proposal.
        samples_ahead: how many are to come, for all chunks of examples together: whether preparing for them is worth its time.
        engine: ``eager``: plain Pyro, which also takes programs that cannot be captured; ``graph``: the captured operations one
            after the other; ``compiled``: these through inductor; ``auto``: whichever is sooner done.

    Raises:
        ValueError: for an unknown engine.
        CaptureError: where a program cannot be captured, and the engine is not to be chosen.
    """

    def __init__(self, model: Program, guide: Program, samples_ahead: int = 0, engine: str = "auto") -> None:
        if engine not in ENGINES:
            raise ValueError(f"expected an engine out of {', '.join(ENGINES)}; got {engine!r}")
        self._model, self._guide, self._engine = model, guide, engine
        self._samples_ahead = samples_ahead
        self._captured: dict[Any, Repeated | None] = {}

    def __call__(self, args: Sequence[Tensor], num_samples: int) -> Tensor:
        """Weights ``(num_samples, B)`` for data ``(B, D)``, and contexts ``(B, C)`` behind them where there are any."""
        at_once = min(num_samples, PARTICLES_AT_ONCE)
        with evaluation_mode(), share_constants():
            draw = self._round(args, at_once)
            weights = torch.cat([draw()[0] for _ in range(-(-num_samples // at_once))])
        self._samples_ahead -= num_samples
        return weights[:num_samples]

    def _round(self, args: Sequence[Tensor], at_once: int) -> Weights:
        def weights(*args: Tensor) -> list[Tensor]:
            return [log_weights(self._model, self._guide, *args, num_particles=at_once)]

        key = at_once, *(each.shape for each in args)
        if key not in self._captured:
            self._captured[key] = self._capture(weights, args)
        captured = self._captured[key]
        if captured is None:
            return lambda: weights(*args)
        return captured.given(args, self._samples_ahead // at_once, self._engine)

    def _capture(self, weights: Weights, args: Sequence[Tensor]) -> Repeated | None:
        if self._engine == "eager" or (self._engine == "auto" and self._samples_ahead < FEWEST_SAMPLES):
            return None
        with preserved_state():
            # Pyro looks once at what it is given, with the validation that a graph leaves out.
            log_weights(self._model, self._guide, *args)
        try:
            return Repeated(weights, [], args)
        except CaptureError:
            if self._engine != "auto":
                raise
            return None
