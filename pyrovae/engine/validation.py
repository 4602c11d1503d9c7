"""A context without the validation of Pyro and of torch, which puts back both."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyro
from torch.distributions import Distribution


@contextmanager
def without_validation() -> Iterator[None]:
    """Validate nothing inside; afterwards both settings are as they were.

    ``pyro.validation_enabled`` alone would set torch's to what Pyro's is, and the two can differ: ``torch.compile`` and
    ``import zuko`` turn torch's off for good.
    """
    of_torch = Distribution._validate_args
    try:
        with pyro.validation_enabled(False):
            yield
    finally:
        Distribution.set_default_validate_args(of_torch)
