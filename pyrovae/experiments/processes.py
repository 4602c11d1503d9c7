"""The processes of one training, as torchrun starts them: the first one writes the run folder, the others only compute.

Every process goes through the same training in a folder of its own, that of the others a temporary one. What depends on time or
on the folder, such as the choice of an engine, a checkpoint and an early stop, is decided by the first process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pyrovae.errors import InputError, LostProcessError, in_one_line
from pyrovae.experiments.beginning import begin
from pyrovae.experiments.launch import launched_number
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.run import Run

if TYPE_CHECKING:
    import torch.distributed as dist

    from pyrovae.data.datasets import Dataset

T = TypeVar("T")
# What the errors of gloo, whose types say nothing, have in common where the other side is gone.
LOST_CONNECTION = ("connection closed", "connection reset", "connection refused", "broken pipe", "timed out waiting")


class Processes:
    """The processes that share a training: those that torchrun started together with this one, or this one alone."""

    def __init__(self) -> None:
        self.number, self.size = launched_number()
        self.folder = Path()
        self.group: dist.ProcessGroup | None = None
        if self.size > 1:
            import torch
            import torch.distributed as dist

            if not dist.is_initialized():
                dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
            self.group = dist.group.WORLD

    @property
    def leads(self) -> bool:
        """True for the process that writes the run folder."""
        return self.number == 0

    def first(self, compute: Callable[[], T]) -> T:
        """Compute a value in the first process, and return it in all of them."""
        from pyrovae.engine.shares import Share

        value = compute() if self.leads else None
        return Share(self.group).first(value)

    @contextmanager
    def begin(self, folder: str | Path | None, recipe: Recipe | None, dataset: Dataset | None) -> Iterator[tuple[Run, Dataset]]:
        """Begin or go on with a training, as ``beginning.begin``; a process that does not lead has a temporary folder.

        Raises:
            InputError: as ``beginning.begin``, and for a batch that the processes cannot share evenly.
        """
        if recipe is not None:
            self._refuse_uneven(recipe)
        with self._ending_together():
            if self.leads:
                run, dataset = begin(folder, recipe, dataset)
                self._refuse_uneven(run.recipe)
                self.first(lambda: (run.folder, run.recipe))
                self.folder = run.folder
                yield run, dataset
                return
            self.folder, recipe = self.first(lambda: (Path(), Recipe()))
            with tempfile.TemporaryDirectory() as scratch:
                yield begin(Path(scratch) / "run", recipe, dataset)

    @contextmanager
    def _ending_together(self) -> Iterator[None]:
        """Say what a lost connection to another process means."""
        try:
            yield
        except RuntimeError as error:
            lost = isinstance(error, LostProcessError) or any(words in str(error).lower() for words in LOST_CONNECTION)
            if self.size == 1 or not lost:
                raise
            resume = f": go on from the last checkpoint with 'fit --resume {self.folder}', by any number of processes"
            raise InputError(
                f"process {self.number} of {self.size} ends, since another process of its training has ended "
                f"({in_one_line(error)}){resume if self.folder.name else ''}"
            ) from error

    def _refuse_uneven(self, recipe: Recipe) -> None:
        for stage in recipe.schedule:
            if stage.batch_size % self.size:
                even = stage.batch_size // self.size * self.size or self.size
                raise InputError(
                    f"expected a batch that {self.size} processes can share evenly; got a batch size of {stage.batch_size}: "
                    f"use --batch-size {even}, or another number of processes"
                )
