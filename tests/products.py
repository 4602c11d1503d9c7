"""Which matrix products run."""

from contextlib import contextmanager

from torch.utils._python_dispatch import TorchDispatchMode

from pyrovae.engine.matmul_kernels import PRODUCTS


@contextmanager
def rows_of_products():
    """A set that gathers how many rows each product within has."""
    rows = set()

    class Watching(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if function in PRODUCTS:
                rows.add(len(result))
            return result

    with Watching():
        yield rows
