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
    """An object with the ``step`` of ``pyro.infer.SVI``, which takes a batch and returns its loss."""

    def step(self, *args: Any) -> Tensor | float: ...  # noqa: D102


@runtime_checkable
class PlannedSteps(Steps, Protocol):
    """Steps whose number can be announced and whose health can be checked, as those of ``CompiledSVI``."""

    def expect(self, steps: int) -> None: ...  # noqa: D102

    def check(self) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class Epoch:
    """The record of an epoch that has ended.

    Args:
        number: the number of the epoch, 1 for the first.
        loss: the minimised loss, as a mean over the examples, in nats; no bound where ``kl_weight`` is below one.
        kl_weight: the weight of the latent terms at the last step.
        seconds: the time of the epoch.
    """

    number: int
    loss: float
    kl_weight: float
    seconds: float


@dataclass
class Progress:
    """The progress of a training, from which ``fit`` continues and which it updates after every step.

    Args:
        epochs: the number of epochs that have ended.
        steps: the number of steps taken in the next epoch.
        loss: the loss of these steps, in nats, summed over their examples.
        examples: the number of examples in these steps.
        seconds: the time of these steps.
    """

    epochs: int = 0
    steps: int = 0
    loss: Tensor | float = 0.0
    examples: int = 0
    seconds: float = 0.0


class EarlyStopping:
    """A callback for ``fit`` that stops a training whose bound has not grown for some epochs, and keeps the best weights.

    The bound should be the true bound on validation data. Epochs in which the weight of the latent terms is below its final
    value do not count: the bound is not trained yet.

    Args:
        module: the module whose weights are kept.
        bound: called after each epoch; returns the bound in nats.
        patience: the number of epochs without a better bound after which training stops.
        kl_weight: the weight at the end of warm-up.

    Raises:
        ValueError: for a patience below one.
    """

    def __init__(self, module: nn.Module, bound: Callable[[], float], patience: int, kl_weight: float = 1.0) -> None:
        if patience < 1:
            raise ValueError(f"expected a patience of at least one epoch; got {patience}")
        self.module, self.bound, self.patience, self.kl_weight = module, bound, patience, kl_weight
        self.best_bound, self.best_epoch, self._waited = -math.inf, 0, 0
        self._best: dict[str, Tensor] = {}

    def __call__(self, epoch: Epoch) -> bool:
        """Return True to stop after this epoch."""
        if epoch.kl_weight < self.kl_weight:
            return False
        bound = self.bound()
        self._waited += 1
        if bound > self.best_bound:
            self.best_bound, self.best_epoch, self._waited = bound, epoch.number, 0
            self._best = {name: value.clone() for name, value in self.module.state_dict().items()}
        return self._waited >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """The state on which the next answers depend: numbers, and under ``best`` the best weights."""
        return {"best_bound": self.best_bound, "best_epoch": self.best_epoch, "waited": self._waited, "best": dict(self._best)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the state of another training."""
        self.best_bound, self.best_epoch, self._waited = state["best_bound"], state["best_epoch"], state["waited"]
        self._best = dict(state["best"])

    def restore(self) -> bool:
        """Go back to the best weights; returns whether there are any."""
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
        svi: the object that takes the steps: ``CompiledSVI`` or ``pyro.infer.SVI``.
        batches: ``Batches``, a ``DataLoader`` or a list of batches. A batch that is a tuple or a list is several arguments of
            the programs, any other batch is one; ``CompiledSVI(transform=lambda x, y: x)`` leaves out labels.
        epochs: the number of epochs.
        start: the number of epochs trained before, which numbers of epochs continue from.
        progress: the progress to continue from, in the middle of these epochs; it is updated.
        seed: draw the random numbers of each step from this seed and the number of the step alone, so that a training that
            goes on draws what an uninterrupted one would have drawn; by default from torch's generator as it is.
        steps_ahead: the number of steps to come, in this call and after it, by which an engine is chosen; by default those of
            this call.
        kl_weight: schedule of the weight of the latent terms, from epochs trained here (with fractions) to a weight; one by
            default.
        on_step: functions that are called after each step, such as a ``MovingAverage``.
        on_epoch: functions that are called with each ended ``Epoch``, to save, evaluate, show progress or stop early.

    Returns:
        Every ended epoch; its mean loss counts the examples of a batch by the length of its first tensor.

    Raises:
        ValueError: for an object that does not give batches, gives an unknown number of them, or none.

    Warns:
        UserWarning: for a schedule that does not reach one by the end of training, so that the true bound is never trained.
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
        # A list first, so that every callback is called, also after one that stops the training.
        answers = [on_end(history[-1]) for on_end in on_epoch]
        if any(answer is True for answer in answers):
            break
    return history


def _draw_from(seed: int) -> None:
    """Seed the generators that steps draw from.

    ``torch.manual_seed`` would record the stack at each call while CUDA is not initialized, which takes a millisecond a step.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
