"""The values of distributions as functions of standard normal noise, and programs that draw by them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import Independent, MaskedDistribution
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyrovae.programs.columns import ByColumn
from pyrovae.programs.distributions import DiscretizedLogistic, GaussianMixture
from pyrovae.programs.flows import NormalizingFlow


class NoQuantileError(ValueError):
    """An error for a distribution whose values are not known as a function of noise."""


def value_of(distribution: Any, noise: Tensor) -> Tensor:
    r"""The value of a distribution that standard normal noise stands for: a draw, if the noise is one.

    .. math:: z = \mu + \sigma \odot u, \quad x = F^{-1}(\Phi(u))

    Args:
        distribution: one of the families in ``VALUES``, its batch and event of any shape.
        noise: the noise u of the shape of a value; for a ``GaussianMixture`` ``(*, 1 + D)``, of which the first entry chooses
            the component.

    Raises:
        NoQuantileError: for any other distribution, such as one of counts, whose quantiles have no closed form.
    """
    while isinstance(distribution, Independent | MaskedDistribution):
        distribution = distribution.base_dist
    for family, value in VALUES.items():
        if isinstance(distribution, family):
            return value(distribution, noise)
    kind = type(distribution).__name__
    raise NoQuantileError(f"expected a distribution whose quantiles have a closed form; got a {kind}: draw from it itself")


def noise_size(distribution: Any) -> int:
    """The number of entries of noise for a value of event shape ``(D,)``: D, and one more for a mixture."""
    return int(distribution.event_shape.numel()) + isinstance(distribution, GaussianMixture)


class explicit_noise(Messenger):  # noqa: N801 - used as a context, like a poutine
    """A handler that gives each site named in ``noise`` the value that the noise stands for, and draws nothing there.

    Args:
        noise: standard normal noise by site, with any leading dimensions that broadcast against the batch.

    Raises:
        NoQuantileError: for a site that has no ``value_of``.
    """

    def __init__(self, noise: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.noise = noise

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.noise and not msg["is_observed"]:
            msg["value"], msg["done"] = value_of(msg["fn"], self.noise[msg["name"]]), True


class at_mean(Messenger):  # noqa: N801 - used as a context, like a poutine
    """A handler that gives a site its mean, where no other handler has given it a value, and draws nothing there.

    Args:
        name: the name of the site.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] == self.name and not msg["done"]:
            msg["value"], msg["done"] = msg["fn"].mean, True


def _probability(noise: Tensor) -> Tensor:
    """The standard normal distribution function. It is of ``erf`` alone, which every runtime has."""
    return 0.5 * (1 + torch.erf(noise / math.sqrt(2)))


def _of_gaussian(gaussian: dist.Normal, noise: Tensor) -> Tensor:
    return gaussian.loc + gaussian.scale * noise


def _of_continuous_bits(bits: dist.ContinuousBernoulli, noise: Tensor) -> Tensor:
    r"""The quantile, by the logit: torch's own ``icdf`` loses half of its digits where the probability is near one half.

    .. math:: F^{-1}(p) = \frac{1}{\lambda} \log(1 + p \, (e^\lambda - 1))
    """
    positive, size = bits.logits > 0, bits.logits.abs().clamp(min=1e-6)
    # Of a positive logit, one minus the value is that of the negative one: nothing overflows.
    value = -torch.log1p(_probability(torch.where(positive, -noise, noise)) * torch.expm1(-size)) / size
    return torch.where(positive, 1 - value, value)


def _of_mixture(mixture: GaussianMixture, noise: Tensor) -> Tensor:
    number = len(mixture.loc)
    component = (_probability(noise[..., 0]) * number).long().clamp(max=number - 1)
    return mixture.loc[component] + mixture.scale[component] * noise[..., 1:]


def _of_logistic_levels(logistic: DiscretizedLogistic, noise: Tensor) -> Tensor:
    # As ``DiscretizedLogistic.sample`` draws.
    logits = _probability(noise).clamp(1e-7, 1 - 1e-7).logit()
    return ((logistic.loc + logistic.scale * logits) * 255).round().clamp(0, 255) / 255


def _of_categories(categorical: dist.Categorical, noise: Tensor) -> Tensor:
    below = categorical.probs.cumsum(-1)
    # The last sum is one up to rounding: no category beyond the last is ever chosen.
    return (_probability(noise)[..., None] * below[..., -1:] > below).sum(-1)


# A subclass stands before its base.
VALUES: dict[type, Callable[[Any, Tensor], Tensor]] = {
    dist.Normal: _of_gaussian,
    dist.LogNormal: lambda each, noise: _of_gaussian(each, noise).exp(),
    dist.Bernoulli: lambda each, noise: (_probability(noise) < each.probs).to(noise.dtype),
    dist.ContinuousBernoulli: _of_continuous_bits,
    dist.Categorical: _of_categories,
    DiscretizedLogistic: _of_logistic_levels,
    GaussianMixture: _of_mixture,
    NormalizingFlow: lambda each, noise: each.draw(noise),
    ByColumn: lambda each, noise: each.apply(value_of, noise),
}
