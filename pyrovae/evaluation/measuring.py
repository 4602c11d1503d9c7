"""The context in which programs are measured."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyrovae.engine.modules import evaluation_mode, preserved_buffers
from pyrovae.programs.conditionals import share_constants


@contextmanager
def measuring(*programs: Any) -> Iterator[None]:
    """Measure without gradients, in evaluation mode, with priors that depend on no example evaluated once.

    Afterwards every module that ran, or that ``programs`` reach, is restored, with its buffers.
    """
    with preserved_buffers(*programs), evaluation_mode(*programs), share_constants():
        yield
