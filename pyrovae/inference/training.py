"""The training loop."""

import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from pyrovae.inference.svi import CompiledSVI
from pyrovae.inference.warmup import Schedule, constant, scale_latents


class Steps(Protocol):
    """Anything with the ``step`` of ``pyro.infer.SVI``: takes a batch, returns its loss."""

    def step(self, *args: Any) -> Tensor | float: ...  # noqa: D102


class Epochs(Protocol):
    """Anything that serves an epoch in batches whose number is known, as ``Batches`` does."""

    batch_size: int

    def __len__(self) -> int: ...

    def epoch(self, number: int) -> Iterator[Any]: ...  # noqa: D102


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


def arguments(batch: Any) -> tuple[Any, ...]:
    """A batch as the arguments of the programs: a tensor is one, a tuple is several."""
    return batch if isinstance(batch, tuple) else (batch,)


def recollect_statistics(programs: nn.Module, batches: Iterable[Any]) -> None:
    """Set the statistics of batch norm to those of whole data under the weights as they are, as ``update_bn`` does.

    Running averages lag behind; published figures of ladders come after this. Sønderby et al. (2016), section 3.

    Args:
        programs: a ``VAE``, called with each batch.
        batches: all training data, in batches as ``fit`` takes them.
    """
    # ``update_bn`` passes on the first entry of a list alone.
    update_bn(([arguments(batch)] for batch in batches), _Spread(programs).train(programs.training))


class _Spread(nn.Module):
    """A module called with its arguments in one tuple."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, args: tuple[Any, ...]) -> Any:
        return self.module(*args)


class MovingAverage:
    r"""A callback for the steps of ``fit`` that keeps the exponential moving average of a module's parameters.

    .. math:: \bar\theta_t = d \, \bar\theta_{t-1} + (1 - d) \, \theta_t, \quad \bar\theta_1 = \theta_1

    Args:
        module: whose parameters are averaged.
        decay: d, from 0 to below 1.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module = module
        self._average = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(decay))

    def __call__(self) -> None:
        """Take in the parameters as they are."""
        self._average.update_parameters(self._module)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Within, the module has the averaged parameters; afterwards those that it trains, and buffers as they were."""
        trained = [value.detach().clone() for value in (*self._module.parameters(), *self._module.buffers())]
        self.adopt()
        try:
            yield
        finally:
            _assign((*self._module.parameters(), *self._module.buffers()), trained)

    def adopt(self) -> None:
        """Give the module the averaged parameters."""
        _assign(tuple(self._module.parameters()), list(self._average.module.parameters()))

    def restart(self) -> None:
        """Begin anew with the parameters as they are."""
        self._average.n_averaged.zero_()
        self()


def _assign(places: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for place, value in zip(places, values, strict=True):
            place.copy_(value)


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

    def restore(self) -> bool:
        """Go back to the best weights; whether there are any."""
        if self._best:
            self.module.load_state_dict(self._best)
        return bool(self._best)


def fit(
    svi: Steps,
    batches: Epochs,
    *,
    epochs: int,
    start: int = 0,
    kl_weight: Schedule | None = None,
    on_step: Sequence[Callable[[], Any]] = (),
    on_epoch: Sequence[Callable[[Epoch], Any]] = (),
) -> list[Epoch]:
    """Train for a number of epochs; stop after one where any of ``on_epoch`` returns True.

    A training in stages is one call after the other, each with the ``start`` that the one before ended at.

    Args:
        svi: takes the steps.
        batches: serves the data.
        epochs: how many times all data are seen.
        start: epochs trained before, which the numbers of these go on from.
        kl_weight: schedule of the weight of the latent terms, from epochs trained here (with fractions) to a weight; one by
            default.
        on_step: called after each step: a ``MovingAverage``.
        on_epoch: called in turn with each ended ``Epoch``: saving, evaluating, showing progress, stopping early.

    Warns:
        UserWarning: where the schedule has not reached one when training ends, so that no true bound was ever trained.
    """
    kl_weight = kl_weight or constant(1.0)
    if kl_weight(epochs) < 1:
        warnings.warn(
            f"the weight of the latent terms ends at {kl_weight(epochs):.2f}, below one: the true bound is never trained; "
            "train for more epochs or warm up for fewer",
            stacklevel=2,
        )
    history = []
    for number in range(start + 1, start + epochs + 1):
        began = time.perf_counter()
        losses: Tensor | float = 0.0
        weight = 1.0
        for step, batch in enumerate(batches.epoch(number), start=1):
            weight = kl_weight(number - start - 1 + step / len(batches))
            with scale_latents(weight):
                losses = losses + svi.step(*arguments(batch))
            for callback in on_step:
                callback()
        # Read once per epoch: on an accelerator every reading waits for the device.
        if isinstance(svi, CompiledSVI):
            svi.check()
        loss = float(losses) / (len(batches) * batches.batch_size)
        history.append(Epoch(number, loss, weight, time.perf_counter() - began))
        # A list first: every callback is called, also after one that says stop.
        answers = [on_end(history[-1]) for on_end in on_epoch]
        if any(answer is True for answer in answers):
            break
    return history
