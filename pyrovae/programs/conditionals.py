"""Conditional distributions: modules whose forward takes features ``(*, in_features)`` and returns a distribution.

Put a network in front with ``nn.Sequential(network, DiagonalGaussian(...))`` and the whole is a conditional again.
Programs ask for a conditional through ``given``, an effect of its own: a handler sees when model and guide ask for the same.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.distributions import Independent
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import effectful
from torch import Tensor, nn

# A scale never reaches zero, so that log-densities and their gradients stay finite when softplus underflows.
MINIMAL_VARIANCE = 1e-8

Readout = Callable[[int, int], nn.Module]


@effectful(type="conditional")
def given(conditional: nn.Module, value: Tensor | None) -> Independent:
    """The distribution of a conditional given a value ``(*, in_features)``; of a prior, given a context or nothing."""
    return conditional(value)


class share_conditionals(Messenger):  # noqa: N801 - used as a context, like a poutine
    """Evaluates each conditional once for the same tensor, though model and guide both ask, as a ladder's do.

    A tensor is the same if it is the same object, as it is where the model is replayed against the guide. Lives as long as
    one such pair of runs: parameters must not change meanwhile.
    """

    def __enter__(self) -> "share_conditionals":
        self._known: dict[tuple[int, int], tuple[Any, Independent]] = {}
        return super().__enter__()

    def _pyro_conditional(self, msg: Any) -> None:
        if (known := self._known.get(self._key(msg))) is not None:
            msg["value"], msg["done"] = known[1], True

    def _pyro_post_conditional(self, msg: Any) -> None:
        # The arguments are kept too: an id is taken only as long as its object lives.
        self._known[self._key(msg)] = (msg["args"], msg["value"])

    @staticmethod
    def _key(msg: Any) -> tuple[int, int]:
        conditional, value = msg["args"]
        return id(conditional), id(value)


class share_constants(Messenger):  # noqa: N801 - used as a context, like a poutine
    """Evaluates each prior that depends on no example once, for as long as the context lasts: parameters must not change in it.

    A distribution without a batch depends on none. A mixture of posteriors encodes its pseudo-inputs once for a whole test set.
    """

    # What a graph that is captured within holds of it.
    is_the_same_at_every_call = True

    def __enter__(self) -> "share_constants":
        self._known: dict[int, tuple[nn.Module, Independent]] = {}
        return super().__enter__()

    def _pyro_conditional(self, msg: Any) -> None:
        if (known := self._known.get(id(msg["args"][0]))) is not None:
            msg["value"], msg["done"] = known[1], True

    def _pyro_post_conditional(self, msg: Any) -> None:
        if not msg["value"].batch_shape:
            self._known[id(msg["args"][0])] = (msg["args"][0], msg["value"])


class Likelihood(nn.Module):
    """What every likelihood says of itself, beside its ``forward``."""

    values: ClassVar[tuple[str, ...]] = ()
    normalized: ClassVar[bool] = True
    discrete: ClassVar[bool] = False
    # Of a bias that features of zero get their mean by.
    largest_bias: ClassVar[float] = 8.0
    readout: Any

    def start_at_means(self, means: Tensor) -> None:
        """Set the biases so that features of zero have the means ``(size,)``, as far as the largest bias reaches."""
        bias, features = self.readout.bias, means.new_zeros(self.readout.in_features)
        lower, upper = torch.full_like(means, -self.largest_bias), torch.full_like(means, self.largest_bias)
        with torch.no_grad():
            for _ in range(30):
                middle = (lower + upper) / 2
                bias[: len(means)] = middle
                below = self(features).mean < means
                lower, upper = torch.where(below, middle, lower), torch.where(below, upper, middle)


class DiagonalGaussian(Likelihood):
    r"""A Gaussian whose location and variance are read off the features.

    .. math:: p(z | h) = N(z | W_1 h + b_1, \operatorname{softplus}(W_2 h + b_2))

    The two linear maps are one matrix product. Sønderby et al. (2016), equations 11 and 12.
    """

    values: ClassVar[tuple[str, ...]] = ("grey", "levels", "real")

    def __init__(self, in_features: int, size: int, *, readout: Readout = nn.Linear) -> None:
        super().__init__()
        self.readout = readout(in_features, 2 * size)

    def forward(self, h: Tensor) -> Independent:
        """Features ``(*, in_features)`` to a distribution of batch shape ``(*,)`` and event shape ``(size,)``."""
        loc, variance = self.readout(h).chunk(2, dim=-1)
        return dist.Normal(loc, scale_of(variance)).to_event(1)


def scale_of(variance: Tensor) -> Tensor:
    """The standard deviation whose square is the softplus of a parameter."""
    return (F.softplus(variance) + MINIMAL_VARIANCE).sqrt()
