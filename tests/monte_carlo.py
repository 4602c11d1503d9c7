"""How far a mean of samples may be from the truth."""

import math


def five_standard_errors(samples):
    """Of their mean: beyond it by chance once in 1.7 million."""
    return 5 * samples.std().item() / math.sqrt(samples.numel())
