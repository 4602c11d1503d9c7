"""The distributions that torch and Pyro lack."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import pyro.distributions as dist
import torch
from pyro.distributions import Independent, TorchDistribution, constraints
from torch import Tensor
from torch.nn.functional import logsigmoid

Expanded = TypeVar("Expanded", bound=TorchDistribution)


def product_of_gaussians(one: Independent, other: Independent) -> Independent:
    r"""The normalised product of two diagonal Gaussians, batch shapes broadcast.

    .. math::
        N(z | m_1, v_1) N(z | m_2, v_2) \propto N(z | (m_1 v_2 + m_2 v_1) / (v_1 + v_2), v_1 v_2 / (v_1 + v_2))

    This is the precision-weighted combination of Sønderby et al. (2016), equations 17 and 18, in variances:
    no reciprocal of a small variance is ever formed.

    >>> import torch
    >>> prior, evidence = dist.Normal(torch.zeros(1), 1.0).to_event(1), dist.Normal(torch.ones(1), 1.0).to_event(1)
    >>> posterior = product_of_gaussians(evidence, prior)
    >>> posterior.mean.item(), round(posterior.variance.item(), 6)
    (0.5, 0.5)
    """
    first, second = one.base_dist, other.base_dist
    total = first.variance + second.variance
    loc = (first.loc * second.variance + second.loc * first.variance) / total
    return dist.Normal(loc, first.scale * second.scale / total.sqrt()).to_event(1)


def gaussian_of(distribution: Any) -> dist.Normal | None:
    """The independent Gaussians of a distribution, of the shape of a value; None for any other distribution."""
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution if isinstance(distribution, dist.Normal) else None


class GaussianMixture(TorchDistribution):
    r"""A mixture of K diagonal Gaussians of equal weight.

    .. math:: p(z) = \frac 1 K \sum_{k=1}^K N(z | m_k, \operatorname{diag} s_k^2)

    The densities of N values cost two matrix products of ``(N, D)`` with ``(D, K)``; no tensor ``(N, K, D)`` is made.

    Args:
        loc: means ``(K, D)``.
        scale: standard deviations ``(K, D)``.

    >>> mixture = GaussianMixture(torch.tensor([[-1.0], [1.0]]), torch.ones(2, 1))
    >>> mixture.log_prob(torch.zeros(5, 1)).shape, mixture.sample((3,)).shape
    (torch.Size([5]), torch.Size([3, 1]))
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "loc": constraints.independent(constraints.real, 2),
        "scale": constraints.independent(constraints.positive, 2),
    }
    support = constraints.real_vector

    def __init__(
        self, loc: Tensor, scale: Tensor, *, batch_shape: Sequence[int] = (), validate_args: bool | None = None
    ) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        super().__init__(torch.Size(batch_shape), self.loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "GaussianMixture":
        """The same mixture, drawn from independently for each entry of the batch."""
        return GaussianMixture(self.loc, self.scale, batch_shape=batch_shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The mean ``(D,)``, expanded to the batch."""
        return self.loc.mean(0).expand(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        """The variance within the components and between them ``(D,)``, expanded to the batch."""
        variance = self.scale.square().mean(0) + self.loc.var(0, correction=0)
        return variance.expand(self.batch_shape + self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Values ``(*, D)`` to log-densities ``(*,)`` in nats."""
        if self._validate_args:
            self._validate_sample(value)
        # Centred values have small squares, which the difference of products needs in float32.
        centre = self.loc.mean(0)
        loc, precision = self.loc - centre, self.scale**-2
        constant = -0.5 * (loc**2 * precision).sum(-1) - self.scale.log().sum(-1) - 0.5 * loc.shape[-1] * math.log(2 * math.pi)
        centred = value - centre
        rows = centred.reshape(-1, loc.shape[-1])
        logits = torch.addmm(constant, rows, (loc * precision).T) - 0.5 * (rows**2) @ precision.T
        return (logits.logsumexp(-1) - math.log(len(loc))).reshape(value.shape[:-1])

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw a component, and from it a value ``(*sample_shape, *batch_shape, D)``."""
        with torch.no_grad():
            shape = self._extended_shape(torch.Size(sample_shape))[:-1]
            component = torch.randint(len(self.loc), shape, device=self.loc.device)
            return torch.normal(self.loc[component], self.scale[component])


class ContinuousBits(dist.ContinuousBernoulli):
    r"""The continuous Bernoulli distribution with a mean that keeps its digits where the probability is near one half.

    .. math:: E[x] = \frac{1}{1 - e^{-\lambda}} - \frac 1 \lambda
        = \frac 1 2 + \frac{\lambda}{12} - \frac{\lambda^3}{720} + \frac{\lambda^5}{30240} - \dots

    Loaiza-Ganem and Cunningham (2019), equation 8, by the logit.

    >>> ContinuousBits(logits=torch.tensor([0.0, 0.004, 2.0])).mean
    tensor([0.5000, 0.5003, 0.6565])
    """

    @property
    def mean(self) -> Tensor:
        """The mean of each value."""
        logits = self.logits
        is_small = logits.abs() < 0.5
        far = torch.where(is_small, 1.0, logits)
        series = 0.5 + logits * (1 / 12 - logits**2 * (1 / 720 - logits**2 * (1 / 30240 - logits**2 / 1209600)))
        return torch.where(is_small, series, -1 / torch.expm1(-far) - 1 / far)


class IndependentBits(Independent):
    r"""The distribution of independent bits by their logits ``(*, D)``: event shape ``(D,)``.

    Without gradients, each logarithm is taken of a product of up to 64 factors, which needs fewer logarithms and stays within
    single precision, since each factor is between one and two:

    .. math:: \log p(x) = \sum_d (x_d l_d - \max(l_d, 0)) - \sum_g \log \prod_{d \in g} (1 + e^{-|l_d|})

    >>> logits, x = torch.linspace(-9, 9, 12), torch.ones(12)
    >>> with torch.no_grad():
    ...     torch.allclose(IndependentBits(logits).log_prob(x), dist.Bernoulli(logits=logits).log_prob(x).sum())
    True
    """

    def __init__(self, logits: Tensor, *, validate_args: bool | None = None) -> None:
        super().__init__(dist.Bernoulli(logits=logits, validate_args=validate_args), 1, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "IndependentBits":
        """The same distribution, drawn from independently for each entry of the batch."""
        logits = self.base_dist.logits.expand((*batch_shape, *self.event_shape))
        return _validating_as(self, IndependentBits(logits, validate_args=False))

    def log_prob(self, value: Tensor) -> Tensor:
        """Bits ``(*, D)`` to log-probabilities ``(*,)`` in nats."""
        if self._validate_args:
            self._validate_sample(value)
        if torch.is_grad_enabled():
            return super().log_prob(value)
        logits = self.base_dist.logits
        factors = (1 + (-logits.abs()).exp()).unflatten(-1, (_group_size(logits.shape[-1]), -1))
        return (value * logits - logits.relu()).sum(-1) - factors.prod(-2).log().sum(-1)


def _validating_as(distribution: TorchDistribution, expanded: Expanded) -> Expanded:
    """Let an expanded distribution validate values as the original one does; its parameters were validated already."""
    expanded._validate_args = distribution._validate_args
    return expanded


def _group_size(count: int) -> int:
    """The size of the products that ``count`` factors form: their number is a multiple of the processor's lanes if possible."""
    return max((size for size in range(1, 65) if count % size == 0), key=lambda size: (count // size % 16 == 0, size))


class GreyBernoulli(dist.Bernoulli):
    r"""A Bernoulli distribution that also scores grey values in [0, 1], by their negative cross-entropy; it draws bits.

    .. math:: x \log y + (1 - x) \log(1 - y)

    This is the expected log-probability of a bit drawn with probability x. It is no density of x: it does not integrate to one.
    """

    support = constraints.unit_interval


class DiscretizedLogistic(TorchDistribution):
    r"""A logistic distribution collected in the 256 grey levels 0, 1/255, ..., 1, the tails in the outer two.

    .. math:: P(x = k/255) = \sigma((k + \tfrac 1 2 - 255 m) / 255 s) - \sigma((k - \tfrac 1 2 - 255 m) / 255 s)

    with :math:`\sigma(-\infty) = 0` below the first level and one above the last: the probabilities sum to one. Salimans et al.
    (2017), equation 2, with one component.

    Args:
        loc: m, of any shape.
        scale: s, of the same shape.

    >>> levels = torch.arange(256) / 255
    >>> round(DiscretizedLogistic(torch.tensor(0.9), torch.tensor(0.3)).log_prob(levels).exp().sum().item(), 5)
    1.0
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.unit_interval

    def __init__(self, loc: Tensor, scale: Tensor, *, validate_args: bool | None = None) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "DiscretizedLogistic":
        """The same distribution, drawn from independently for each entry of the batch."""
        loc, scale = self.loc.expand(batch_shape), self.scale.expand(batch_shape)
        return _validating_as(self, DiscretizedLogistic(loc, scale, validate_args=False))

    @property
    def mean(self) -> Tensor:
        """The exact mean over the levels: one minus the mean of the distribution function below one."""
        steps = (torch.sigmoid(((k + 0.5) / 255 - self.loc) / self.scale) for k in range(255))
        return 1 - sum(steps, torch.zeros_like(self.loc)) / 255

    def log_prob(self, value: Tensor) -> Tensor:
        """Grey levels to log-probabilities in nats."""
        if self._validate_args:
            self._validate_sample(value)
        upper = (value + 0.5 / 255 - self.loc) / self.scale
        lower = (value - 0.5 / 255 - self.loc) / self.scale
        # sigmoid(u) - sigmoid(l) = sigmoid(u) sigmoid(-l) (1 - exp(l - u)), which loses no digit in the tails.
        between = logsigmoid(upper) + logsigmoid(-lower) + torch.log(-torch.expm1(-1 / (255 * self.scale)))
        edged = torch.where(value > 254.5 / 255, logsigmoid(-lower), between)
        return torch.where(value < 0.5 / 255, logsigmoid(upper), edged)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw levels ``(*sample_shape, *batch_shape)``."""
        with torch.no_grad():
            uniform = torch.rand(self._extended_shape(torch.Size(sample_shape)), device=self.loc.device, dtype=self.loc.dtype)
            return ((self.loc + self.scale * uniform.clamp(1e-7, 1 - 1e-7).logit()) * 255).round().clamp(0, 255) / 255
