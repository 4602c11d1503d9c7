"""The context in which programs are measured."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyrovae.engine.modules import evaluation_mode, preserved_buffers
from pyrovae.engine.reachable import Reachable
from pyrovae.programs.conditionals import share_constants


@contextmanager
def measuring(*programs: Any) -> Iterator[None]:
    """Measure without gradients, in evaluation mode, with priors that depend on no example evaluated once.

    Afterwards every module that ran, or that ``programs`` reach, is restored, with its buffers.
    """
    reached = Reachable(*programs)
    with preserved_buffers(reached), evaluation_mode(reached), share_constants():
        yield
