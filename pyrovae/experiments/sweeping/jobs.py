"""A member's training as a value that can be sent to another process."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Any

from pyrovae.errors import InputError
from pyrovae.experiments import files
from pyrovae.experiments.papers.members import measured_samples
from pyrovae.experiments.sweeping.grid import Member

TRACEBACK = "error.txt"


@dataclass(frozen=True)
class Job:
    """Train and measure a member; called again it goes on where it was.

    Args:
        member: what is trained, and where.
        num_samples: importance samples for each test image.
        engine: of the steps.
        threads: of this training.
        device: where it runs: "cpu", "cuda", ...
        root: where to look for data files first.
        mirror: an address to download from.
    """

    member: Member
    num_samples: int
    engine: str
    threads: int
    device: str
    root: str | None = None
    mirror: str | None = None

    @property
    def is_done(self) -> bool:
        """True where the run is whole and measured by as many samples."""
        return measured_samples(self.member.folder) >= (self.num_samples if self.member.recipe.latent_sizes else 1)

    def __call__(self) -> str:
        """Return why it failed, in one line, or an empty text; the traceback of a bug is kept in the folder."""
        if self.is_done:
            return ""
        try:
            self._run()
        except InputError as error:
            return " ".join(str(error).split())
        except Exception as error:
            with files.writing(self.member.folder):
                self.member.folder.mkdir(parents=True, exist_ok=True)
                (self.member.folder / TRACEBACK).write_text(traceback.format_exc())
            return f"{type(error).__name__}: {' '.join(str(error).split())[:200]} (see {TRACEBACK} in its folder)"
        return ""

    def _run(self) -> None:
        import torch

        from pyrovae.experiments.building import load_data
        from pyrovae.experiments.training import train

        torch.set_num_threads(self.threads)
        recipe, folder = self.member.recipe, self.member.folder
        dataset = load_data(recipe, self.root, self.mirror).to(self.device)
        train(recipe, folder, dataset=dataset, engine=self.engine).evaluate(self.num_samples, dataset=dataset)

    def checkpoint(self, *arguments: Any) -> Any:
        """Submit the same again: what submitit does where the cluster stops a job before its end."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, *arguments)
