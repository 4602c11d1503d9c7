"""The state of a module beside its training: preserved while it is measured, averaged over steps, statistics collected anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from pyrovae.inference.epochs import arguments


@contextmanager
def preserved_module(module: nn.Module) -> Iterator[None]:
    """Restore parameters, buffers and the mode of every part after the context: the same tensors, with the same values.

    Measuring between steps happens in this context: a ``VampPrior`` depends on statistics of batch norm, so that a changed
    statistic would change the next step.
    """
    places = [(part, part.training, dict(part._parameters), dict(part._buffers)) for part in module.modules()]
    values = [(each, each.detach().clone()) for each in (*module.parameters(), *module.buffers())]
    try:
        yield
    finally:
        for part, training, parameters, buffers in places:
            part.training = training
            part._parameters.update(parameters)
            part._buffers.update(buffers)
        with torch.no_grad():
            for place, value in values:
                place.copy_(value)


def recollect_statistics(programs: nn.Module, batches: Iterable[Any]) -> None:
    """Set the statistics of batch norm to those of the whole data under the current weights, as ``update_bn`` does.

    Running averages lag behind; published figures of ladders were measured after this. Sønderby et al. (2016), section 3. No
    other buffer and no mode changes.

    Args:
        programs: a ``VAE``, called with each batch.
        batches: all training data, in batches as ``fit`` takes them.

    Raises:
        ValueError: for no batch.
    """
    remaining = iter(batches)
    if (first := next(remaining, None)) is None:
        raise ValueError("expected at least one batch to collect the statistics of batch norm from; got none")
    norms = [part for part in programs.modules() if isinstance(part, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    try:
        with preserved_module(programs):
            # ``update_bn`` passes on only the first entry of a list.
            update_bn(([arguments(batch)] for batch in chain([first], remaining)), _Spread(programs))
            collected = [_statistics(norm) for norm in norms]
    finally:
        # After an error ``update_bn`` does not restore the momenta.
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    for norm, statistics in zip(norms, collected, strict=True):
        for name, value in statistics.items():
            getattr(norm, name).copy_(value)


def _statistics(norm: _BatchNorm) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in norm.named_buffers(recurse=False)}


class _Spread(nn.Module):
    """A wrapper of a module that is called with its arguments in one tuple."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def train(self, mode: bool = True) -> _Spread:
        # What is measured afterwards has no dropout.
        super().train(mode)
        for part in self.modules():
            if isinstance(part, _DropoutNd):
                part.eval()
        return self

    def forward(self, args: tuple[Any, ...]) -> Any:
        return self.module(*args)


class MovingAverage:
    r"""A callback for the steps of ``fit`` that keeps the exponential moving average of a module's parameters.

    .. math:: \bar\theta_t = d_t \, \bar\theta_{t-1} + (1 - d_t) \, \theta_t, \quad d_t = \min(d, t / (t + 9)), \quad
        \bar\theta_1 = \theta_1

    Early averages are those of about the last ninth of the steps, so that a short training is not held to its first weights.

    Args:
        module: the module whose parameters are averaged.
        decay: d, from 0 to below 1.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module, self.decay = module, decay
        # Counted here, since reading a count on a GPU would wait for it.
        self._steps = 0
        self._average = AveragedModel(module, multi_avg_fn=self._add)

    def __call__(self) -> None:
        """Add the current parameters to the average."""
        self._steps += 1
        self._average.update_parameters(self._module)

    def _add(self, averages: Any, parameters: Any, num_averaged: Any) -> None:
        decay = min(self.decay, self._steps / (self._steps + 9))
        get_ema_multi_avg_fn(decay)(averages, parameters, num_averaged)

    @contextmanager
    def averaged_parameters(self) -> Iterator[None]:
        """Give the module the averaged parameters within the context; afterwards parameters and buffers are restored."""
        with preserved_module(self._module):
            self.adopt()
            yield

    def adopt(self) -> None:
        """Give the module the averaged parameters."""
        with torch.no_grad():
            for place, value in zip(self._module.parameters(), self._average.module.parameters(), strict=True):
                place.copy_(value)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages, and the number of steps in them."""
        return self._average.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from the state of another average."""
        self._average.load_state_dict(state)
        self._steps = int(state["n_averaged"])

    def restart(self) -> None:
        """Start anew with the current parameters."""
        self._steps = 0
        self._average.n_averaged.zero_()
        self()
