"""Conditional distributions: modules whose forward takes features ``(*, in_features)`` and returns a distribution.

Put a network in front with ``nn.Sequential(network, DiagonalGaussian(...))`` and the whole is a conditional again.
A likelihood is a conditional over the data, entered in ``LIKELIHOODS``; ``values`` says of what it is one: ``bits``, ``levels``
k / 255, other ``grey`` values in [0, 1], ``real`` ones; ``normalized`` whether it is a density at all, and ``discrete``
whether one of levels: a probability, that no density is compared with. Pictures show the mean of the distribution that it
returns. Its parameters are linear in the features through ``readout``, made by ``readout(in_features, number * size)``,
``nn.Linear`` for one; the first ``size`` of them move its mean.

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

from pyrovae.programs.distributions import DiscretizedLogistic, GreyBernoulli, IndependentBits

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
    readout: nn.Module


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
        return dist.Normal(loc, (F.softplus(variance) + MINIMAL_VARIANCE).sqrt()).to_event(1)


class Bernoulli(Likelihood):
    r"""Independent bits whose logits are linear in the features: a likelihood of binary data.

    .. math:: p(x | h) = \prod_d \operatorname{Bernoulli}(x_d | \operatorname{sigmoid}(w_d^\top h + b_d))
    """

    values: ClassVar[tuple[str, ...]] = ("bits",)
    discrete = True

    def __init__(self, in_features: int, size: int, *, readout: Readout = nn.Linear) -> None:
        super().__init__()
        self.readout = readout(in_features, size)

    def forward(self, h: Tensor) -> Independent:
        """Features ``(*, in_features)`` to a distribution of batch shape ``(*,)`` and event shape ``(size,)``."""
        return IndependentBits(self.readout(h))


class CrossEntropy(Bernoulli):
    r"""The cross-entropy of grey values in [0, 1]: a loss, and no density of them.

    .. math:: \sum_d x_d \log y_d + (1 - x_d) \log(1 - y_d), \quad y = \operatorname{sigmoid}(W h + b)

    Doersch (2016), section 4.1. No log-likelihood is reported of what it trains.
    """

    values: ClassVar[tuple[str, ...]] = ("grey", "levels")
    normalized = False
    discrete = False

    def forward(self, h: Tensor) -> Independent:
        """Features ``(*, in_features)`` to a distribution of batch shape ``(*,)`` and event shape ``(size,)``."""
        return GreyBernoulli(logits=self.readout(h)).to_event(1)


class ContinuousBernoulli(Bernoulli):
    r"""Independent values in [0, 1], with the normalising constant that the cross-entropy of grey values lacks.

    .. math:: p(x | h) = \prod_d C(\lambda_d) \lambda_d^{x_d} (1 - \lambda_d)^{1 - x_d}

    Loaiza-Ganem and Cunningham (2019), equation 4.
    """

    values: ClassVar[tuple[str, ...]] = ("grey", "levels")
    discrete = False

    def forward(self, h: Tensor) -> Independent:
        """Features ``(*, in_features)`` to a distribution of batch shape ``(*,)`` and event shape ``(size,)``."""
        return dist.ContinuousBernoulli(logits=self.readout(h)).to_event(1)


class FixedScaleGaussian(Likelihood):
    r"""A Gaussian of a supplied scale, the same for every entry: it weighs the reconstruction against the divergence.

    .. math:: p(x | h) = N(x | W h + b, \sigma^2 I)

    Doersch (2016), section 2.4.3.
    """

    values: ClassVar[tuple[str, ...]] = ("grey", "levels", "real")

    def __init__(self, in_features: int, size: int, *, scale: float = 0.1, readout: Readout = nn.Linear) -> None:
        super().__init__()
        self.readout = readout(in_features, size)
        self.scale = scale

    def forward(self, h: Tensor) -> Independent:
        """Features ``(*, in_features)`` to a distribution of batch shape ``(*,)`` and event shape ``(size,)``."""
        loc = self.readout(h)
        return dist.Normal(loc, torch.full_like(loc, self.scale)).to_event(1)


class BoundedGaussian(Likelihood):
    r"""A Gaussian for values in [0, 1]: a location within the range, a bounded log-variance.

    .. math:: p(x | h) = N(x | \operatorname{sigmoid}(W_1 h + b_1), \exp \tanh(W_2 h + b_2))

    Bettencourt and Craddock, section 2.1.
    """

    values: ClassVar[tuple[str, ...]] = ("grey", "levels")

    def __init__(self, in_features: int, size: int, *, readout: Readout = nn.Linear) -> None:
        super().__init__()
        self.readout = readout(in_features, 2 * size)

    def forward(self, h: Tensor) -> Independent:
        """Features ``(*, in_features)`` to a distribution of batch shape ``(*,)`` and event shape ``(size,)``."""
        loc, log_variance = self.readout(h).chunk(2, dim=-1)
        return dist.Normal(loc.sigmoid(), (0.5 * log_variance.tanh()).exp()).to_event(1)


class DiscretizedLogisticLevels(Likelihood):
    r"""Independent grey levels k / 255 under a logistic distribution, with log-scale between -4.5 and 0.

    .. math:: m = \operatorname{sigmoid}(W_1 h + b_1), \quad \log s = -4.5 \operatorname{sigmoid}(W_2 h + b_2)

    Tomczak and Welling (2018), section 4, for grey images.
    """

    values: ClassVar[tuple[str, ...]] = ("levels",)
    discrete = True

    def __init__(self, in_features: int, size: int, *, readout: Readout = nn.Linear) -> None:
        super().__init__()
        self.readout = readout(in_features, 2 * size)

    def forward(self, h: Tensor) -> Independent:
        """Features ``(*, in_features)`` to a distribution of batch shape ``(*,)`` and event shape ``(size,)``."""
        loc, log_scale = self.readout(h).sigmoid().chunk(2, dim=-1)
        return DiscretizedLogistic(loc, (-4.5 * log_scale).exp()).to_event(1)


def start_at_means(likelihood: Any, means: Tensor) -> None:
    """Set the biases of a likelihood so that features of zero have the means ``(size,)``, as far as biases of +-8 reach."""
    bias, features = likelihood.readout.bias, means.new_zeros(likelihood.readout.in_features)
    lower, upper = torch.full_like(means, -8.0), torch.full_like(means, 8.0)
    with torch.no_grad():
        for _ in range(30):
            middle = (lower + upper) / 2
            bias[: len(means)] = middle
            below = likelihood(features).mean < means
            lower, upper = torch.where(below, middle, lower), torch.where(below, upper, middle)


LIKELIHOODS: dict[str, Any] = {
    "bernoulli": Bernoulli,
    "cross_entropy": CrossEntropy,
    "continuous_bernoulli": ContinuousBernoulli,
    "gaussian": DiagonalGaussian,
    "fixed_scale_gaussian": FixedScaleGaussian,
    "bounded_gaussian": BoundedGaussian,
    "discretized_logistic": DiscretizedLogisticLevels,
}
