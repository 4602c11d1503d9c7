"""Conditional distributions: modules whose forward takes features ``(*, in_features)`` and returns a distribution.

Put a network in front with ``nn.Sequential(network, DiagonalGaussian(...))`` and the whole is a conditional again.
A likelihood is a conditional over the data; pictures show the mean of the distribution that it returns.
"""

import pyro.distributions as dist
import torch.nn.functional as F
from pyro.distributions import Independent
from torch import Tensor, nn

from pyrovae.programs.networks import linear

# A scale never reaches zero, so that log-densities and their gradients stay finite when softplus underflows.
MINIMAL_VARIANCE = 1e-8


class DiagonalGaussian(nn.Module):
    r"""A Gaussian whose location and variance are read off the features.

    .. math:: p(z | h) = N(z | W_1 h + b_1, \operatorname{softplus}(W_2 h + b_2))

    The two linear maps are one matrix product. Sønderby et al. (2016), equations 11 and 12.
    """

    def __init__(self, in_features: int, size: int) -> None:
        super().__init__()
        self.loc_and_variance = linear(in_features, 2 * size)

    def forward(self, h: Tensor) -> Independent:
        """Features ``(*, in_features)`` to a distribution of batch shape ``(*,)`` and event shape ``(size,)``."""
        loc, variance = self.loc_and_variance(h).chunk(2, dim=-1)
        return dist.Normal(loc, (F.softplus(variance) + MINIMAL_VARIANCE).sqrt()).to_event(1)


class Bernoulli(nn.Module):
    r"""Independent bits whose logits are linear in the features: a likelihood of binary data.

    .. math:: p(x | h) = \prod_d \operatorname{Bernoulli}(x_d | \operatorname{sigmoid}(w_d^\top h + b_d))
    """

    def __init__(self, in_features: int, size: int) -> None:
        super().__init__()
        self.logits = linear(in_features, size)

    def forward(self, h: Tensor) -> Independent:
        """Features ``(*, in_features)`` to a distribution of batch shape ``(*,)`` and event shape ``(size,)``."""
        return dist.Bernoulli(logits=self.logits(h)).to_event(1)
