"""Latents standardized by the distribution that they are drawn from: coordinates without narrow valleys."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pyro.distributions.util import scale_and_mask, sum_rightmost
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyrovae.programs.distributions import gaussian_of
from pyrovae.programs.flows import NormalizingFlow


class at_standardized_values(Messenger):  # noqa: N801 - used as a context, like a poutine
    r"""A handler that sets the latents of a program by their standardized values.

    .. math:: z_l = m_l + s_l u_l

    Mean m and standard deviation s are those of the site's distribution given earlier draws, or zero and one where it has none.
    Where it is Gaussian, or a normalizing flow, u is its noise: the non-centred form of the program. Neal (2011), section 4.1.

    Args:
        values: the standardized values u by site, in the shape of the site's values.
    """

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._values = values

    def _pyro_sample(self, msg: Any) -> None:
        if (standard := self._values.get(msg["name"])) is not None:
            msg["value"], msg["done"] = _value_of(msg["fn"], standard)[0], True


def standard_value(site: Mapping[str, Any]) -> Tensor:
    """The standardized value u of a site, of the shape of its value."""
    if isinstance(flow := site["fn"], NormalizingFlow):
        return flow.noise_of(site["value"])[0]
    mean, spread = _moments(site["fn"], site["value"])
    return (site["value"] - mean) / spread


def log_densities(site: Mapping[str, Any], standard: Tensor) -> tuple[Tensor, Tensor]:
    """The log-density of u, and that of the value in the program, each ``(K, B)``, in nats.

    The latter has the scale and the mask of the handlers around the site.
    """
    fn = site["fn"]
    _, volume = _value_of(fn, standard)
    if gaussian_of(fn) is not None or isinstance(fn, NormalizingFlow):
        # As a function of u alone, so that gradients do not go through the networks, where they would cancel.
        log_density = sum_rightmost(-0.5 * standard.square() - 0.5 * math.log(2 * math.pi), fn.event_dim)
    else:
        log_density = fn.log_prob(site["value"]) + volume
    return log_density, scale_and_mask(log_density - volume, site["scale"], site["mask"])


def _value_of(fn: Any, standard: Tensor) -> tuple[Tensor, Tensor]:
    """The value of a standardized one, and the logarithm of the volume that it takes up by that of the latter."""
    if isinstance(fn, NormalizingFlow):
        return fn.value_of(standard)
    mean, spread = _moments(fn, standard)
    return mean + spread * standard, sum_rightmost(spread.log().expand_as(standard), fn.event_dim)


def _moments(fn: Any, value: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and standard deviation of each entry of a value; zero and one where there are none."""
    if (gaussian := gaussian_of(fn)) is not None:
        return gaussian.loc, gaussian.scale
    try:
        mean, spread = fn.mean, fn.variance.sqrt()
    except NotImplementedError:
        mean = spread = value.new_full((), math.nan)
    usable = mean.isfinite() & spread.isfinite() & (spread > 0)
    return mean.where(usable, mean.new_zeros(())), spread.where(usable, spread.new_ones(()))
