"""The context in which programs are measured."""

from collections.abc import Iterator
from contextlib import contextmanager

from pyrovae.engine.modules import evaluation_mode, preserved_buffers
from pyrovae.programs.conditionals import share_constants


@contextmanager
def measuring() -> Iterator[None]:
    """Within, nothing is trained: no gradients, evaluation mode, no buffer that moves, and priors without a batch shared.

    Afterwards every module that ran is as it was, buffers included.
    """
    with preserved_buffers(), evaluation_mode(), share_constants():
        yield
