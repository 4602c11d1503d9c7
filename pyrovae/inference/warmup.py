"""Warm-up: the weight of the latent terms grows from near zero to one while training goes on.

A schedule is a function from the epochs trained so far, counted with fractions and never zero, to a weight above zero.
"""

import math
from collections.abc import Callable
from typing import Any

from pyro.poutine.scale_messenger import ScaleMessenger

Schedule = Callable[[float], float]


class scale_latents(ScaleMessenger):  # noqa: N801 - used as a context, like poutine.scale
    r"""A handler like ``poutine.scale`` for the latent sites alone, in model and guide.

    .. math:: \beta (\log p(z) - \log q(z | x)) + \log p(x | z)

    Used as a context around a loss: ``with scale_latents(0.1): svi.step(x)``. Sønderby et al. (2016), equation 20.

    Raises:
        ValueError: for a weight that is not above zero, as ``poutine.scale`` does.
    """

    def _process_message(self, msg: Any) -> None:
        if msg["type"] == "sample" and not msg["is_observed"]:
            super()._process_message(msg)


def constant(weight: float = 1.0) -> Schedule:
    """A schedule of the same weight throughout; one is the true bound."""
    return lambda epochs: weight


def linear_warmup(warmup_epochs: float) -> Schedule:
    """A schedule whose weight grows in proportion to the steps taken and reaches one after ``warmup_epochs``.

    >>> weight = linear_warmup(10)
    >>> weight(2.5), weight(10), weight(300)
    (0.25, 1.0, 1.0)
    """
    return lambda epochs: min(1.0, epochs / warmup_epochs) if warmup_epochs > 0 else 1.0


def cosine_warmup(warmup_epochs: float) -> Schedule:
    """A schedule whose weight grows slowly at first and at last: half a period of a cosine.

    >>> weight = cosine_warmup(10)
    >>> round(weight(2.5), 3), weight(10), weight(300)
    (0.146, 1.0, 1.0)
    """
    linear = linear_warmup(warmup_epochs)
    return lambda epochs: math.sin(math.pi / 2 * linear(epochs)) ** 2


def cyclical_warmup(period: float) -> Schedule:
    """A schedule whose weight grows in the first half of each period and is one in the second. Fu et al. (2019), equation 6.

    >>> weight = cyclical_warmup(10)
    >>> weight(2.5), weight(7), weight(10), weight(12.5)
    (0.5, 1.0, 1.0, 0.5)
    """
    # The end of a period belongs to it and not to the next one, so that a weight is never zero.
    return lambda epochs: min(1.0, 2 * (epochs % period or period) / period) if period > 0 else 1.0


def scale_schedule(schedule: Schedule, kl_weight: float) -> Schedule:
    """Scale a schedule, so that it ends at a weight other than one: the beta of Higgins et al. (2017), equation 4.

    >>> scale_schedule(linear_warmup(10), 4.0)(5)
    2.0
    """
    return lambda epochs: kl_weight * schedule(epochs)


WARMUPS: dict[str, Callable[[float], Schedule]] = {
    "linear": linear_warmup,
    "cosine": cosine_warmup,
    "cyclical": cyclical_warmup,
}
