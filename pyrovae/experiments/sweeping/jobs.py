"""A member's training as a value that can be sent to another process."""

from __future__ import annotations

import logging
import traceback
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyrovae.errors import InputError
from pyrovae.experiments.comparison import recipe_in
from pyrovae.experiments.devices import torch_device
from pyrovae.experiments.locks import OccupiedError, wait_for
from pyrovae.experiments.papers.members import measured_samples
from pyrovae.experiments.sweeping.grid import Member

logger = logging.getLogger(__name__)


class Requeued(ABC):
    """A job that goes on where it was when it is called again."""

    @abstractmethod
    def __call__(self) -> str:
        """Return why it failed, in one line, or an empty text."""

    def checkpoint(self, *arguments: Any) -> Any:
        """Submit the same again: what submitit does where the cluster stops a job before its end."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, *arguments)


def reason_of(error: Exception) -> str:
    """The type and the message of an error, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


@dataclass(frozen=True)
class Job(Requeued):
    """Train and measure a member; called again it goes on where it was.

    Args:
        member: what is trained, and where.
        num_samples: importance samples for each test image.
        engine: of the steps.
        threads: of this training.
        device: of the machine where it runs: "cpu", "cuda", ...; None for a GPU if there is one.
        root: where to look for data files first.
        mirror: an address to download from.
    """

    member: Member
    num_samples: int
    engine: str
    threads: int
    device: str | None
    root: str | None = None
    mirror: str | None = None

    @property
    def is_done(self) -> bool:
        """True where the run is whole, of this recipe, and measured by as many samples."""
        return self._is_of_this_recipe and measured_samples(self.member.folder) >= (
            self.num_samples if self.member.recipe.latent_sizes else 1
        )

    def __call__(self) -> str:
        """Return why it failed, in one line, or an empty text; the traceback of a bug is kept in the folder."""
        if self.is_done:
            return ""
        try:
            self._run()
        except OccupiedError as error:
            # Another sweep trains it, or a process that was given up is about to end.
            logger.warning("%s: it is waited for", error)
            wait_for(self.member.folder)
            return self()
        except InputError as error:
            return " ".join(str(error).split())
        except Exception as error:
            with suppress(OSError):
                self._traceback.write_text(traceback.format_exc())
            return f"{reason_of(error)} (see {self._traceback.name})"
        self._traceback.unlink(missing_ok=True)
        return ""

    @property
    def _traceback(self) -> Path:
        """The file of the traceback of a bug, beside the run folder: the folder is to hold a run and nothing else."""
        return self.member.folder.parent / f"{self.member.folder.name}.error.txt"

    @property
    def _is_of_this_recipe(self) -> bool:
        """True where the folder holds the recipe of the member, but for what the data decide."""
        try:
            found = recipe_in(self.member.folder)
        except InputError:
            return False
        # The data fill in what a recipe leaves to them, and write their path whole.
        decided = {name for name in ("likelihood", "binarization") if getattr(self.member.recipe, name) == "auto"}
        differing = set(found.differences(self.member.recipe)) - decided
        same_data = Path(found.dataset).name == Path(self.member.recipe.dataset).name
        return differing <= {"dataset"} and same_data

    def _run(self) -> None:
        import torch

        from pyrovae.experiments.building import load_data
        from pyrovae.experiments.training import train

        torch.set_num_threads(self.threads)
        recipe, folder = self.member.recipe, self.member.folder
        dataset = load_data(recipe, self.root, self.mirror).to(torch_device(self.device))
        train(recipe, folder, dataset=dataset, engine=self.engine).evaluate(self.num_samples, dataset=dataset)
