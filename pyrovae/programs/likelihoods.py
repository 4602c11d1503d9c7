"""Likelihoods: conditional distributions of the data, entered in ``LIKELIHOODS``.

Its ``values`` are the kinds of data that a likelihood is for: ``bits``, ``levels`` k / 255, other ``grey`` values in [0, 1],
``real`` ones, ``counts``, or ``mixed``: columns of several kinds. ``normalized`` says whether it is a density or probability at
all, and ``discrete`` whether it is a probability, which cannot be compared with a density. Pictures show the mean of the
distribution that it returns. Its parameters are linear in the features through ``readout``, a module made by
``readout(in_features, number * size)``, by default ``nn.Linear``; the first ``size`` of them move the mean, except for mixed
columns.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.distributions import Independent
from torch import Tensor, nn

from pyrovae.programs.columns import ByColumn, Columns
from pyrovae.programs.conditionals import DiagonalGaussian, Likelihood, Readout, scale_of
from pyrovae.programs.distributions import ContinuousBits, DiscretizedLogistic, GreyBernoulli, IndependentBits

# The largest logarithm of a mean: larger counts are not exact in single precision.
LARGEST_LOG_MEAN = 17.0
# The least dispersion a of a negative binomial of variance m + a m^2: close to a Poisson distribution, exact to four digits.
LEAST_DISPERSION = 1e-3


class Bernoulli(Likelihood):
    r"""The likelihood of binary data: independent bits whose logits are linear in the features.

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
    r"""The cross-entropy of grey values in [0, 1]: a loss, and no density.

    .. math:: \sum_d x_d \log y_d + (1 - x_d) \log(1 - y_d), \quad y = \operatorname{sigmoid}(W h + b)

    Doersch (2016), section 4.1. No log-likelihood is reported of models that it trains.
    """

    values: ClassVar[tuple[str, ...]] = ("grey", "levels")
    normalized = False
    discrete = False

    def forward(self, h: Tensor) -> Independent:
        """Features ``(*, in_features)`` to a distribution of batch shape ``(*,)`` and event shape ``(size,)``."""
        return GreyBernoulli(logits=self.readout(h)).to_event(1)


class ContinuousBernoulli(Bernoulli):
    r"""The density of independent values in [0, 1], with the normalising constant that the cross-entropy of grey values lacks.

    .. math:: p(x | h) = \prod_d C(\lambda_d) \lambda_d^{x_d} (1 - \lambda_d)^{1 - x_d}

    Loaiza-Ganem and Cunningham (2019), equation 4.
    """

    values: ClassVar[tuple[str, ...]] = ("grey", "levels")
    discrete = False

    def forward(self, h: Tensor) -> Independent:
        """Features ``(*, in_features)`` to a distribution of batch shape ``(*,)`` and event shape ``(size,)``."""
        return ContinuousBits(logits=self.readout(h)).to_event(1)


class FixedScaleGaussian(Likelihood):
    r"""A Gaussian whose scale is given, the same for every entry: it weighs the reconstruction against the divergence.

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
    r"""The probability of independent grey levels k / 255 under logistic distributions, with log-scales between -4.5 and 0.

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


class Poisson(Likelihood):
    r"""The likelihood of independent counts, whose log-means are linear in the features.

    .. math:: p(x | h) = \prod_d \operatorname{Poisson}(x_d | \exp(w_d^\top h + b_d))
    """

    values: ClassVar[tuple[str, ...]] = ("counts",)
    discrete = True
    largest_bias = LARGEST_LOG_MEAN

    def __init__(self, in_features: int, size: int, *, readout: Readout = nn.Linear) -> None:
        super().__init__()
        self.readout = readout(in_features, size)

    def forward(self, h: Tensor) -> Independent:
        """Features ``(*, in_features)`` to a distribution of batch shape ``(*,)`` and event shape ``(size,)``."""
        return dist.Poisson(_mean_of(self.readout(h))).to_event(1)


class NegativeBinomial(Likelihood):
    r"""The likelihood of independent counts that vary more than under a Poisson distribution.

    .. math:: E[x_d] = m_d = \exp(w_d^\top h + b_d), \quad \operatorname{Var}[x_d] = m_d + a_d m_d^2, \quad
        a_d = \operatorname{softplus}(v_d^\top h + c_d)
    """

    values: ClassVar[tuple[str, ...]] = ("counts",)
    discrete = True
    largest_bias = LARGEST_LOG_MEAN

    def __init__(self, in_features: int, size: int, *, readout: Readout = nn.Linear) -> None:
        super().__init__()
        self.readout = readout(in_features, 2 * size)

    def forward(self, h: Tensor) -> Independent:
        """Features ``(*, in_features)`` to a distribution of batch shape ``(*,)`` and event shape ``(size,)``."""
        return _dispersed(*self.readout(h).chunk(2, -1)).to_event(1)


class MixedColumns(Likelihood):
    r"""The likelihood of a table's columns, each under a distribution of its kind, independent given the features.

    Real columns are Gaussian, positive ones log-normal, counts negative binomial, binary ones Bernoulli, categories
    categorical: the log-densities of the first two kinds and the log-probabilities of the others add up.

    Args:
        in_features: the number of features.
        size: the number of columns.
        columns: the kinds of the columns.
        readout: the function or class that makes the linear map.
    """

    values: ClassVar[tuple[str, ...]] = ("mixed",)
    absent: Tensor
    order: Tensor

    def __init__(self, in_features: int, size: int, *, columns: Columns, readout: Readout = nn.Linear) -> None:
        super().__init__()
        largest = max(columns.num_categories)
        per_column = {"real": 2, "positive": 2, "count": 2, "binary": 1, "category": largest}
        self._numbers = {kind: per_column[kind] for kind in columns.places}
        self._sizes = [self._numbers[kind] * len(places) for kind, places in columns.places.items()]
        self.readout = readout(in_features, sum(self._sizes))
        self.register_buffer("order", torch.tensor(columns.order), persistent=False)
        # The mask of categories that a column lacks, where another has more.
        numbers = torch.tensor([columns.num_categories[place] for place in columns.places.get("category", ())])
        self.register_buffer("absent", torch.arange(largest) >= numbers[:, None], persistent=False)
        self._places = columns.places

    def forward(self, h: Tensor) -> Independent:
        """Features ``(*, in_features)`` to a distribution of batch shape ``(*,)`` and event shape ``(size,)``."""
        groups = self.readout(h).split(self._sizes, -1)
        parts = [self._part(kind, group) for kind, group in zip(self._numbers, groups, strict=True)]
        return ByColumn(parts, self.order).to_event(1)

    def _part(self, kind: str, parameters: Tensor) -> Any:
        """The distribution of all columns of a kind, of batch shape ``(*, columns)``."""
        each: Sequence[Tensor] = parameters.chunk(self._numbers[kind], -1)
        if kind == "real":
            return dist.Normal(each[0], scale_of(each[1]))
        if kind == "positive":
            return dist.LogNormal(each[0], scale_of(each[1]))
        if kind == "count":
            return _dispersed(each[0], each[1])
        if kind == "binary":
            return dist.Bernoulli(logits=each[0])
        return dist.Categorical(logits=torch.stack(list(each), -1).masked_fill(self.absent, -torch.inf))

    def start_at_means(self, means: Tensor) -> None:
        """Set the biases of counts and bits so that features of zero have the means ``(size,)``."""
        place, bias = 0, self.readout.bias
        with torch.no_grad():
            for (kind, columns), size in zip(self._places.items(), self._sizes, strict=True):
                own = means[list(columns)]
                if kind in ("count", "binary"):
                    start = own.clamp(min=1e-3).log() if kind == "count" else own.clamp(1e-3, 1 - 1e-3).logit()
                    bias[place : place + len(columns)] = start
                place += size


def _mean_of(logarithm: Tensor) -> Tensor:
    return logarithm.clamp(max=LARGEST_LOG_MEAN).exp()


def _dispersed(log_mean: Tensor, dispersion: Tensor) -> Any:
    """A negative binomial with mean m and variance m + a m^2, where the dispersion a is the softplus of a parameter."""
    total = 1 / (F.softplus(dispersion) + LEAST_DISPERSION)
    return dist.NegativeBinomial(total, logits=log_mean.clamp(max=LARGEST_LOG_MEAN) - total.log())


LIKELIHOODS: dict[str, Any] = {
    "bernoulli": Bernoulli,
    "cross_entropy": CrossEntropy,
    "continuous_bernoulli": ContinuousBernoulli,
    "gaussian": DiagonalGaussian,
    "fixed_scale_gaussian": FixedScaleGaussian,
    "bounded_gaussian": BoundedGaussian,
    "discretized_logistic": DiscretizedLogisticLevels,
    "poisson": Poisson,
    "negative_binomial": NegativeBinomial,
    "mixed": MixedColumns,
}
