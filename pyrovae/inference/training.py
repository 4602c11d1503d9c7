"""The training loop."""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pyrovae.inference.epochs import Epochs, Loader, arguments, batches_of, num_batches, num_examples
from pyrovae.inference.warmup import Schedule, constant, scale_latents
from pyrovae.seeds import seed_of


class Steps(Protocol):
    """Anything with the ``step`` of ``pyro.infer.SVI``: takes a batch, returns its loss."""

    def step(self, *args: Any) -> Tensor | float: ...  # noqa: D102


@runtime_checkable
class PlannedSteps(Steps, Protocol):
    """Steps that are told how many are to come, and looked after at the end of an epoch, as those of ``CompiledSVI``."""

    def expect(self, steps: int) -> None: ...  # noqa: D102

    def check(self) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class Epoch:
    """What is known when an epoch ends.

    Args:
        number: 1 for the first.
        loss: mean over the examples of the loss that was minimised, in nats; no bound where ``kl_weight`` is below one.
        kl_weight: the weight of the latent terms at the last step.
        seconds: spent on it.
    """

    number: int
    loss: float
    kl_weight: float
    seconds: float


@dataclass
class Progress:
    """How far a training is: what ``fit`` goes on from, and keeps up to date after every step.

    Args:
        epochs: that have ended.
        steps: taken in the epoch after them.
        loss: of these steps, in nats, summed over their examples.
        examples: seen in these steps.
        seconds: spent on these steps.
    """

    epochs: int = 0
    steps: int = 0
    loss: Tensor | float = 0.0
    examples: int = 0
    seconds: float = 0.0


class EarlyStopping:
    """A callback for ``fit`` that says stop where a bound has not grown for some epochs, and keeps the best weights.

    What is watched is to be the true bound on validation data. Epochs in which the weight of the latent terms is below that of
    the last one count for nothing: a bound is not trained yet.

    Args:
        module: whose weights are kept.
        bound: measured after each epoch, in nats.
        patience: epochs without a better bound before training stops.
        kl_weight: that warm-up ends at.

    Raises:
        ValueError: for no patience.
    """

    def __init__(self, module: nn.Module, bound: Callable[[], float], patience: int, kl_weight: float = 1.0) -> None:
        if patience < 1:
            raise ValueError(f"expected a patience of at least one epoch; got {patience}")
        self.module, self.bound, self.patience, self.kl_weight = module, bound, patience, kl_weight
        self.best_bound, self.best_epoch, self._waited = -math.inf, 0, 0
        self._best: dict[str, Tensor] = {}

    def __call__(self, epoch: Epoch) -> bool:
        """Whether to stop after this epoch."""
        if epoch.kl_weight < self.kl_weight:
            return False
        bound = self.bound()
        self._waited += 1
        if bound > self.best_bound:
            self.best_bound, self.best_epoch, self._waited = bound, epoch.number, 0
            self._best = {name: value.clone() for name, value in self.module.state_dict().items()}
        return self._waited >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """What the next answers depend on: numbers, and under ``best`` the best weights."""
        return {"best_bound": self.best_bound, "best_epoch": self.best_epoch, "waited": self._waited, "best": dict(self._best)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another one was."""
        self.best_bound, self.best_epoch, self._waited = state["best_bound"], state["best_epoch"], state["waited"]
        self._best = dict(state["best"])

    def restore(self) -> bool:
        """Go back to the best weights; whether there are any."""
        if self._best:
            self.module.load_state_dict(self._best)
        return bool(self._best)


def fit(
    svi: Steps,
    batches: Epochs | Loader,
    *,
    epochs: int,
    start: int = 0,
    progress: Progress | None = None,
    seed: int | None = None,
    steps_ahead: int | None = None,
    kl_weight: Schedule | None = None,
    on_step: Sequence[Callable[[], Any]] = (),
    on_epoch: Sequence[Callable[[Epoch], Any]] = (),
) -> list[Epoch]:
    """Train for a number of epochs; stop after one where any of ``on_epoch`` returns True.

    A training in stages is one call after the other, each with the ``start`` that the one before ended at.

    Args:
        svi: takes the steps: ``CompiledSVI`` or ``pyro.infer.SVI``.
        batches: ``Batches``, a ``DataLoader`` or a list of batches. A batch that is a tuple or a list is several arguments of
            the programs, any other one; ``CompiledSVI(transform=lambda x, y: x)`` leaves out labels that they do not take.
        epochs: how many times all data are seen.
        start: epochs trained before, which the numbers of these go on from.
        progress: where to go on, in the middle of these epochs; it is kept up to date.
        seed: draw the random numbers of each step from this seed and the number of the step alone, so that a training that
            goes on draws what an uninterrupted one would have drawn; by default from torch's generator as it is.
        steps_ahead: steps that are to come, in this call and after it, by which an engine is chosen; those of this call by
            default.
        kl_weight: schedule of the weight of the latent terms, from epochs trained here (with fractions) to a weight; one by
            default.
        on_step: called after each step: a ``MovingAverage``.
        on_epoch: called in turn with each ended ``Epoch``: saving, evaluating, showing progress, stopping early.

    Returns:
        Every ended epoch; its mean loss counts the examples of a batch by the length of its first tensor.

    Raises:
        ValueError: for what does not serve batches, not a known number of them, or none.

    Warns:
        UserWarning: where the schedule has not reached one when training ends, so that no true bound was ever trained.
    """
    kl_weight, steps_per_epoch = kl_weight or constant(1.0), num_batches(batches)
    if kl_weight(epochs) < 1:
        warnings.warn(
            f"the weight of the latent terms ends at {kl_weight(epochs):.2f}, below one: the true bound is never trained; "
            "train for more epochs or warm up for fewer",
            stacklevel=2,
        )
    if isinstance(svi, PlannedSteps):
        svi.expect(epochs * steps_per_epoch if steps_ahead is None else steps_ahead)
    progress = Progress(start) if progress is None else progress
    history = []
    for number in range(progress.epochs + 1, start + epochs + 1):
        began = time.perf_counter() - progress.seconds
        for batch in islice(batches_of(batches, number), progress.steps, None):
            step = progress.steps + 1
            if seed is not None:
                _draw_from(seed_of(seed, number, step))
            with scale_latents(kl_weight(number - start - 1 + step / steps_per_epoch)):
                progress.loss = progress.loss + svi.step(*arguments(batch))
            progress.steps, progress.examples = step, progress.examples + num_examples(batch)
            progress.seconds = time.perf_counter() - began
            for callback in on_step:
                callback()
        if not progress.examples:
            raise ValueError("expected at least one batch in an epoch; got none: smaller batches, or drop_last=False")
        # Read once per epoch: on an accelerator every reading waits for the device.
        if isinstance(svi, PlannedSteps):
            svi.check()
        loss, weight = (
            float(progress.loss) / progress.examples,
            kl_weight(number - start - 1 + progress.steps / steps_per_epoch),
        )
        history.append(Epoch(number, loss, weight, progress.seconds))
        vars(progress).update(vars(Progress(number)))
        # A list first: every callback is called, also after one that says stop.
        answers = [on_end(history[-1]) for on_end in on_epoch]
        if any(answer is True for answer in answers):
            break
    return history


def _draw_from(seed: int) -> None:
    """Seed the generators that steps draw from.

    ``torch.manual_seed`` would keep a trace of the stack at each call, for a CUDA that is not there yet: a millisecond a step.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
