"""Seeds made of numbers, so that draws for an epoch or a step depend on these alone and not on earlier draws."""

import numpy as np


def seed_of(*numbers: int) -> int:
    """Make a seed of 32 bits for torch's generators.

    >>> seed_of(0, 1), seed_of(0, 1, 2) != seed_of(0, 1, 3)
    (3964924996, True)
    """
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
