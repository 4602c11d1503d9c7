"""Latents in units of the distribution that they are drawn from: coordinates in which a hierarchy has no narrow valleys."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import Independent
from pyro.poutine.messenger import Messenger
from torch import Tensor


class standardized(Messenger):  # noqa: N801 - used as a context, like a poutine
    r"""Gives each latent of a program the value that its standardized value stands for.

    .. math:: z_l = m_l + s_l u_l

    Mean m and standard deviation s are those of the site's distribution, given what was drawn before it; of one that has none,
    zero and one. Where it is Gaussian, u is its noise: the non-centred form of the program. Neal (2011), section 4.1.

    Args:
        values: u by site, in the shape of the site's values.
    """

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._values = values

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self._values:
            mean, spread = moments(msg["fn"])
            msg["value"], msg["done"] = mean + spread * self._values[msg["name"]], True


def standard_value(site: Mapping[str, Any]) -> Tensor:
    """The u that stands for a site's value, of its shape."""
    mean, spread = moments(site["fn"])
    return (site["value"] - mean) / spread


def log_densities(site: Mapping[str, Any], standard: Tensor) -> tuple[Tensor, Tensor]:
    """Of u and of the value that it stands for, under the site's distribution: each ``(K, B)``, in nats."""
    fn = site["fn"]
    events = tuple(range(-fn.event_dim, 0))
    _, spread = moments(fn)
    volume = spread.log().expand_as(standard).sum(events)
    if _gaussian(fn) is not None:
        # As a function of u alone: no gradient takes the way through the networks and back, where it would cancel.
        log_density = (-0.5 * standard.square() - 0.5 * math.log(2 * math.pi)).sum(events)
        return log_density, log_density - volume
    log_density = fn.log_prob(site["value"])
    return log_density + volume, log_density


def moments(fn: Any) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, in the shape of a value; zero and one of a distribution that has none."""
    if (gaussian := _gaussian(fn)) is not None:
        return gaussian.loc, gaussian.scale
    try:
        return fn.mean, fn.variance.sqrt()
    except NotImplementedError:
        return torch.zeros(()), torch.ones(())


def _gaussian(fn: Any) -> dist.Normal | None:
    """The independent Gaussians that a distribution consists of; None of any other."""
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return fn if isinstance(fn, dist.Normal) else None
