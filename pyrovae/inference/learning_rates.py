"""Learning rates that change while training goes on: shares of a largest rate, by the share of the steps that is taken.

A course is a function from the share of the steps taken, from 0 to below 1, to a share of the largest rate.
"""

import math
from collections.abc import Callable

LearningRates = Callable[[int], float]
Course = Callable[[float], float]


def constant_rate(taken: float) -> float:
    """The largest rate throughout."""
    return 1.0


def cosine_decay(taken: float) -> float:
    """Half a period of a cosine, from one to zero. Loshchilov and Hutter (2017), equation 5, without restarts.

    >>> cosine_decay(0.0), round(cosine_decay(0.5), 3), round(cosine_decay(0.75), 3)
    (1.0, 0.5, 0.146)
    """
    return (1 + math.cos(math.pi * taken)) / 2


def linear_decay(taken: float) -> float:
    """The share of the steps that are left.

    >>> linear_decay(0.25)
    0.75
    """
    return 1 - taken


def step_decay(taken: float) -> float:
    """A tenth after half of the steps, and a hundredth after three quarters. He et al. (2016), section 4.2.

    >>> step_decay(0.49), step_decay(0.5), step_decay(0.75)
    (1.0, 0.1, 0.01)
    """
    return 0.01 if taken >= 0.75 else 0.1 if taken >= 0.5 else 1.0


def scheduled(largest: float, course: Course, num_steps: int, warmup_steps: int = 0) -> LearningRates:
    """The learning rate of each step, by the number of steps taken before it.

    Args:
        largest: the rate that the course is a share of.
        course: one of ``LEARNING_RATES``.
        num_steps: the number of steps that the course is for.
        warmup_steps: the steps over which the rate also grows in proportion to their number.

    >>> rate = scheduled(0.1, linear_decay, 10, warmup_steps=2)
    >>> [round(rate(step), 3) for step in (0, 1, 2, 9)]
    [0.05, 0.09, 0.08, 0.01]
    """

    def rate(taken: int) -> float:
        grown = min(1.0, (taken + 1) / warmup_steps) if warmup_steps else 1.0
        return largest * grown * course(taken / num_steps)

    return rate


LEARNING_RATES: dict[str, Course] = {
    "constant": constant_rate,
    "cosine": cosine_decay,
    "linear": linear_decay,
    "step": step_decay,
}
