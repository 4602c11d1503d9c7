"""Spot checks: plain Pyro computes the loss of some steps too, before they are taken, to find changes that no guard can see."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.engine.capture import Graph, preserved_state, preserved_tensors
from pyrovae.engine.validation import without_validation
from pyrovae.errors import CaptureError
from pyrovae.inference.steps import Programs

# Steps 2, 4, 8, ..., 512, and then every thousandth.
LAST_DOUBLING, PERIOD = 512, 1000
# The tolerance relative to the loss: both sides draw the same numbers and add them in the same order.
TOLERANCE = 1e-4
UNSEEN = "cannot be seen from outside (a file, a random number of Python's, an attribute of an object that it looks up)"

SHARED = (
    "Processes can share a loss that is a sum over examples, without latents outside their plate and without subsampling, of "
    "the same batch with the same random numbers in each process: train others in one process"
)


def is_due(step: int) -> bool:
    """True for a step, counted from 1, that is checked."""
    return (1 < step <= LAST_DOUBLING and not step & (step - 1)) or step % PERIOD == 0


def spot_check(
    programs: Programs, graph: Graph, args: Any, kwargs: Any, inputs: Sequence[Tensor], number: int, num_processes: int
) -> None:
    """Compare the graph's loss with plain Pyro's under the same noise, without side effects.

    Where processes share the batch, plain Pyro computes the whole of it in each.

    Raises:
        CaptureError: for losses that differ by more than rounding.
    """
    with preserved_state(programs.model, programs.guide), _other_generators(), without_validation():
        loss = programs.differentiable_loss(args, kwargs)
    right = float(loss.detach() if isinstance(loss, Tensor) else loss)
    ours = float(graph.rehearse(inputs)[0])  # type: ignore[arg-type]
    if abs(ours - right) > TOLERANCE * max(1.0, abs(right)):
        if num_processes > 1:
            raise CaptureError(
                f"step {number}: expected the loss of the whole batch, {right:.6g}, as the sum over {num_processes} processes; "
                f"it is {ours:.6g}. {SHARED}"
            )
        raise CaptureError(
            f"step {number}: expected the loss of plain Pyro, {right:.6g}; the captured graph has {ours:.6g}, since the "
            f"program reads what changed since it was captured and {UNSEEN}: pass it as an argument, keep it in a tensor, or "
            "use engine='eager'. Steps since the last check may be wrong; this one was not taken"
        )


def check_buffers(
    programs: Programs, graph: Graph, args: Any, kwargs: Any, inputs: Sequence[Tensor], buffers: Sequence[Tensor]
) -> None:
    """Check that a step of a process leaves the buffers that plain Pyro leaves on the whole batch, without side effects.

    Raises:
        CaptureError: for a buffer that differs by more than rounding.
    """
    after: list[list[Tensor]] = []
    for run in (lambda: programs.differentiable_loss(args, kwargs), lambda: graph(inputs)):
        with preserved_tensors([*buffers, *graph.constants]), preserved_state(programs.model, programs.guide):
            with _other_generators(), without_validation():
                run()
            after.append([buffer.clone() for buffer in buffers])
    for right, ours in zip(*after, strict=True):
        if not torch.allclose(ours.double(), right.double(), rtol=1e-3, atol=1e-5, equal_nan=True):
            raise CaptureError(
                "expected buffers that are the same for one process's rows as for the whole batch; the program writes "
                "statistics of its rows to one: use batch norm, whose statistics processes share, or train in one process"
            )


@contextmanager
def _other_generators() -> Iterator[None]:
    """Restore the generators of Python and numpy."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
