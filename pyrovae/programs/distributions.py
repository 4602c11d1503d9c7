"""Distributions that torch and Pyro lack."""

import pyro.distributions as dist
from pyro.distributions import Independent


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
