"""``train``: train the stages of a recipe, record and measure its epochs, and survive the death of the process at any time.

Everything that decides the bits of a training is in its folder: the recipe, the engine, and checkpoints. The data of an epoch
depend on the seed and the number of the epoch, the random numbers of a step on the seed and the number of the step, so that a
resumed training is the same as an uninterrupted one, to the last bit.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrovae.errors import InputError
from pyrovae.experiments import checkpoints
from pyrovae.experiments.beginning import describe_training
from pyrovae.experiments.environment import busy_warning
from pyrovae.experiments.failing import ON_NAN, Rewind, Steps
from pyrovae.experiments.interruption import Signals, TrainingInterrupted
from pyrovae.experiments.locks import lock_folder
from pyrovae.experiments.memory import memory_for
from pyrovae.experiments.processes import Processes
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.run import Run
from pyrovae.experiments.state import State
from pyrovae.experiments.tracking import TrainingTracker
from pyrovae.experiments.trials import batches_of, engines_of, num_steps

if TYPE_CHECKING:
    from pyrovae.data.datasets import Dataset
    from pyrovae.experiments.checkpoints import Checkpoint
    from pyrovae.inference.training import Epoch
    from pyrovae.programs.guides import VAE

# The share of an epoch's batches on which statistics are collected anew before its bound; all before the last evaluation.
RECOLLECTED_SHARE, FEWEST_RECOLLECTED = 0.1, 4
MEASURING_SEED = 0
CHECKPOINT_SECONDS = 60.0
# The most rewinds to one checkpoint before the training fails.
MOST_REWINDS = 3

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Status:
    """The status of a training after each step, and, with a ``record``, after each epoch.

    Args:
        run: the run that is trained.
        steps: the number of steps taken so far.
        total_steps: the number of steps of all stages.
        record: the record in the history of the epoch that has just ended.
    """

    run: Run
    steps: int
    total_steps: int
    record: dict[str, Any] | None = None


def train(
    recipe: Recipe | None,
    folder: str | Path | None = None,
    *,
    dataset: Dataset | None = None,
    engine: str = "auto",
    track: Callable[[Status], Any] | None = None,
    checkpoint_every: float = CHECKPOINT_SECONDS,
    on_nan: str = "stop",
) -> Run:
    """Train a recipe in a run folder, or resume its training there.

    In the same environment a resumed training is the same as an uninterrupted one, to the last bit: weights, moments, averages
    and history, except for its seconds.

    Processes that torchrun started together share each batch, and take the steps of one process within rounding; their number
    may be another one when a training is resumed. The first of them writes the folder. The programs of all are the same.

    Args:
        recipe: the recipe; None for that of the folder. In a folder that was begun it must be the same, apart from more epochs
            of the last stage.
        folder: the run folder; by default a new one under ``runs``.
        dataset: the dataset, loaded before; by default that of the recipe, which is loaded.
        engine: one of ``ENGINES``; ``auto`` weighs the time of compiling once, before the first step.
        track: called with a ``Status`` after each step and each epoch.
        checkpoint_every: the seconds between two checkpoints.
        on_nan: the response to a loss or gradient that is not finite: ``stop``, ``skip`` the step, or ``rewind`` to the last
            checkpoint and go on with other random numbers.

    Raises:
        InputError: for a recipe that cannot be trained or is not that of the folder, a folder that another process trains in or
            that cannot be written, and a loss that is not finite.
        TrainingInterrupted: after Ctrl-C or SIGTERM, when the state is saved.
    """
    if on_nan not in ON_NAN:
        raise InputError(f"expected on_nan out of {', '.join(ON_NAN)}; got {on_nan!r}")
    processes = Processes()
    with processes.begin(folder, recipe, dataset) as (run, dataset), lock_folder(run.folder):
        if logger.isEnabledFor(logging.INFO):
            for line in describe_training(run, dataset):
                logger.info(line)
            if warning := busy_warning():
                logger.warning(warning)
        training = _Training(run, dataset, engine, track or (lambda status: None), checkpoint_every, on_nan, processes)
        training.train()
    run.vae.eval()
    return replace(run, folder=processes.folder)


@dataclass
class _Training:
    """A running training.

    Args:
        run: the run that is trained.
        dataset: the data.
        engine: the requested engine.
        track: called after each step and epoch.
        checkpoint_every: the seconds between two checkpoints.
        on_nan: one of ``ON_NAN``.
        processes: the processes that share it.
    """

    run: Run
    dataset: Dataset
    engine: str
    track: Callable[[Status], Any]
    checkpoint_every: float
    on_nan: str
    processes: Processes

    def __post_init__(self) -> None:
        found = self._latest()
        self.total_steps = num_steps(self.recipe.schedule, self.dataset)
        self.log_jacobian = self.dataset.log_jacobians(self.dataset.train).mean().item()
        self.tracked = TrainingTracker.of(self.run.vae, self.dataset, self.recipe.total_epochs)
        engines = self.processes.first(lambda: engines_of(self.run, self.dataset, self.engine))
        self.state = State(self.run, self.dataset, engines, self.processes.group)
        self.run.save_recipe()
        self.state.load(found)
        self.saved_at = time.monotonic()

    @property
    def recipe(self) -> Recipe:
        """The recipe of the run."""
        return self.run.recipe

    def _train_stages(self) -> None:
        """Train the rest of the schedule."""
        schedule = self.recipe.schedule
        while self.state.position.stage < len(schedule):
            stage = schedule[self.state.position.stage]
            if not self.state.position.has_ended:
                self._train_stage(stage)
                self.state.position.has_ended = True
                self.save()
            if self.state.position.stage + 1 == len(schedule):
                break
            self.state.restore_best()
            self.state.begin_stage(self.state.position.stage + 1)

    def train(self) -> None:
        """Train from the state of the folder to the end."""
        with Signals() as self.signals, memory_for("a step of the training", "--batch-size", "--num-particles"):
            rewound_to: list[int] = []
            while True:
                try:
                    self._train_stages()
                    break
                except Rewind:
                    rewound_to.append(self._rewind())
                    if rewound_to.count(rewound_to[-1]) > MOST_REWINDS:
                        raise self._failure("the loss is not finite however often it is rewound") from None
            self._end()
            newest = checkpoints.newest_folder(self.run.folder)
            if self.signals.number is not None and newest is not None:
                # The signal came after the last step.
                raise self._interrupted(self.signals.number, newest)

    def _train_stage(self, stage: Recipe) -> None:
        from pyrovae.inference.training import fit
        from pyrovae.inference.warmup import WARMUPS, scale_schedule

        fit(
            Steps(self.state, self.on_nan, self._failure),
            batches_of(stage, self.dataset),
            epochs=stage.epochs,
            start=self.state.position.first_epoch,
            progress=self.state.progress,
            seed=stage.seed + self.state.position.rewinds,
            kl_weight=scale_schedule(WARMUPS[stage.warmup](stage.warmup_epochs), stage.kl_weight),
            on_step=[self._after_step] if self.state.average is None else [self.state.average, self._after_step],
            on_epoch=[self._after_epoch],
        )

    def _after_step(self) -> None:
        self.state.position.steps += 1
        self.state.set_learning_rate()
        self.track(Status(self.run, self.state.position.steps, self.total_steps))
        # The others end when the first one does.
        if self.processes.leads and self.signals.number is not None:
            raise self._interrupted(self.signals.number, self.save())
        if time.monotonic() - self.saved_at >= self.checkpoint_every:
            self.save()

    def _interrupted(self, number: int, path: Path) -> TrainingInterrupted:
        saved = f"saved after step {self.state.position.steps} of {self.total_steps} as {path}"
        return TrainingInterrupted(number, f"{saved}: go on with 'pyrovae fit --resume {self.run.folder}'")

    def _after_epoch(self, epoch: Epoch) -> bool:
        """Record an epoch that has ended, and measure the programs where it is due; returns whether to stop."""
        # Early stopping compares every epoch.
        is_due = self.state.stopping is not None or self.tracked.measures(epoch.number)
        record = self._record(epoch) | (self._measure(epoch) if is_due else {})
        self.run.record(record | ({"stopped_early": True} if self.state.stopped_early else {}))
        self.track(Status(self.run, self.state.position.steps, self.total_steps, record))
        return self.state.stopped_early

    def _measure(self, epoch: Epoch) -> dict[str, Any]:
        """Measure the programs on the tracked images, and keep the weights that are measured."""
        with self._measured():
            batches = len(batches_of(self.state.stage, self.dataset))
            recollect(
                self.run.vae,
                self.state.stage,
                self.dataset,
                epoch.number,
                max(FEWEST_RECOLLECTED, int(RECOLLECTED_SHARE * batches)),
            )
            bounds, latents = self.processes.first(
                lambda: (self.tracked.bounds(self.state.stage), self.tracked.latents(epoch.number))
            )
            self.state.elbo = next(iter(bounds.values()))
            self.state.stopped_early = self.state.stopping is not None and self.state.stopping(epoch)
            self.run.save_weights()
        return bounds | latents

    def _record(self, epoch: Epoch) -> dict[str, Any]:
        record: dict[str, Any] = {
            "epoch": epoch.number,
            "loss_nats": epoch.loss - self.log_jacobian,
            "kl_weight": epoch.kl_weight,
        }
        if len(self.recipe.schedule) > 1:
            record["stage"] = self.state.position.stage + 1
        if self.state.svi.clipping.skips:
            taken = self.state.svi.steps_skipped
            skipped, self.state.position.skipped = taken - self.state.position.skipped, taken
            record["steps_skipped"] = skipped
            if skipped == len(batches_of(self.state.stage, self.dataset)):
                warnings.warn(
                    f"epoch {epoch.number}: all {skipped} steps were left out, their gradients longer than skip_norm "
                    f"{self.state.stage.skip_norm:g}",
                    stacklevel=2,
                )
        return record | {"seconds": epoch.seconds}

    def _end(self) -> None:
        """Save the final weights, which are measured, with the statistics of all training data."""
        import torch

        torch.manual_seed(MEASURING_SEED)
        if self.state.average is not None:
            self.state.average.adopt()
        self.state.restore_best()
        recollect(self.run.vae, self.state.stage, self.dataset, self.state.progress.epochs, None)
        self.run.save_weights()

    @contextmanager
    def _measured(self) -> Iterator[None]:
        """Use the measured weights within the context, with the same random numbers at every epoch, apart from the training's.

        Afterwards the programs are restored, with their statistics of batch norm.
        """
        import torch

        from pyrovae.inference.state import preserved_module

        with preserved_module(self.run.vae), torch.random.fork_rng():
            if self.state.average is not None:
                self.state.average.adopt()
            torch.manual_seed(MEASURING_SEED)
            yield

    def _latest(self) -> Checkpoint | None:
        """The newest checkpoint of the first process, in all of them."""
        found = self.processes.first(lambda: checkpoints.latest(self.run.folder, self.run.num_bytes))
        if found is None or self.processes.leads:
            return found
        # The history of an earlier training is in the first process's folder alone.
        return replace(found, values={**found.values, "history_bytes": 0})

    def save(self) -> Path:
        """Write a checkpoint and return its path."""
        if not self.processes.leads:
            return self.run.folder
        path = checkpoints.save(self.run.folder, self.state.checkpoint())
        self.saved_at = time.monotonic()
        return path

    def _rewind(self) -> int:
        """Go back to the newest checkpoint and return its number of steps."""
        rewinds = self.state.position.rewinds + 1
        found = self._latest()
        if found is None:
            raise self._failure("the loss is not finite, before any checkpoint")
        self.state.load(found)
        self.state.position.rewinds = rewinds
        logger.warning("rewound to step %s: the loss was not finite", self.state.position.steps)
        return self.state.position.steps

    def _failure(self, what: str) -> InputError:
        newest = checkpoints.newest_folder(self.run.folder)
        kept = f"{self.run.folder} holds {len(self.run.history)} of {self.recipe.total_epochs} epochs"
        return InputError(
            f"{what}; {kept}{f', and {newest} its last checkpoint' if newest else ''}: try a lower --learning-rate"
        )


def recollect(vae: VAE, stage: Recipe, dataset: Dataset, epoch: int, batches: int | None) -> None:
    """Collect the statistics of batch norm anew, on some batches or on all of them."""
    from pyrovae.inference.state import recollect_statistics

    drawn = dataset.train_batches(stage.batch_size, seed=stage.seed)
    recollect_statistics(vae, islice(drawn.epoch(epoch + 1), batches))
