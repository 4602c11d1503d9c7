"""Conditional distributions: modules whose forward takes features ``(*, in_features)`` and returns a distribution.

With a network in front, ``nn.Sequential(network, DiagonalGaussian(...))`` is a conditional again. Programs evaluate them by
``evaluate_conditional``, an effect of Pyro: a handler can see when model and guide evaluate the same conditional.
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
def evaluate_conditional(conditional: nn.Module, value: Tensor | None) -> Independent:
    """Return the distribution of a conditional given a value ``(*, in_features)``; of a prior, given a context or None."""
    return conditional(value)


class share_conditionals(Messenger):  # noqa: N801 - used as a context, like a poutine
    """Evaluate each conditional once for the same tensor, though model and guide both need it, as with a ladder.

    Tensors are the same if they are the same object, as they are where the model is replayed against the guide. The context
    lasts for one such pair of runs: parameters must not change meanwhile.
    """

    def __enter__(self) -> "share_conditionals":
        self._known: dict[tuple[int, int], tuple[Any, Independent]] = {}
        return super().__enter__()

    def _pyro_conditional(self, msg: Any) -> None:
        if (known := self._known.get(self._key(msg))) is not None:
            msg["value"], msg["done"] = known[1], True

    def _pyro_post_conditional(self, msg: Any) -> None:
        # The arguments are kept too, since an id is unique only as long as its object lives.
        self._known[self._key(msg)] = (msg["args"], msg["value"])

    @staticmethod
    def _key(msg: Any) -> tuple[int, int]:
        conditional, value = msg["args"]
        return id(conditional), id(value)


class share_constants(Messenger):  # noqa: N801 - used as a context, like a poutine
    """Evaluate each prior that depends on no example only once while the context lasts: parameters must not change in it.

    A distribution without a batch shape depends on no example. For instance, a VampPrior encodes its pseudo-inputs once for a
    whole test set.
    """

    # A graph that is captured within the context holds its effect.
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
    """The base of likelihoods: the attributes that each declares beside its ``forward``."""

    values: ClassVar[tuple[str, ...]] = ()
    normalized: ClassVar[bool] = True
    discrete: ClassVar[bool] = False
    # The largest bias that ``start_at_means`` sets.
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
