"""A context without the validation of Pyro and torch."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyro
from torch.distributions import Distribution


@contextmanager
def without_validation() -> Iterator[None]:
    """Turn the validation of Pyro and torch off within the context; afterwards both settings are as before.

    ``pyro.validation_enabled`` alone would set torch's validation to Pyro's, and the two can differ: ``torch.compile`` and
    ``import zuko`` turn off torch's for good.
    """
    of_torch = Distribution._validate_args
    try:
        with pyro.validation_enabled(False):
            yield
    finally:
        Distribution.set_default_validate_args(of_torch)
