"""The device of a name, on the machine where it is asked for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pyrovae.errors import InputError, first_line

if TYPE_CHECKING:
    import torch


def torch_device(name: str | None) -> torch.device:
    """The device of a name, or the best one at hand.

    Raises:
        InputError: for a device that is not on this machine.
    """
    import torch

    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        # Of several processes on one machine each has a GPU of its own.
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    try:
        chosen = torch.device(name)
        torch.zeros(1, device=chosen).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            f"--device: expected a device of this machine, cpu for one; got {name!r} ({first_line(error)})"
        ) from error
    return chosen
