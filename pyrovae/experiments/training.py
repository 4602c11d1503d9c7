"""``train``: a recipe's stages one after the other, each epoch measured and recorded, in a folder that survives any death.

What decides the bits of a training is in its folder: the recipe, the engine, and checkpoints. The data of an epoch depend on
the seed and the number of the epoch, the random numbers of a step on the seed and the number of the step, so that a training
that goes on is the one that was never interrupted, to the last bit.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrovae.errors import InputError
from pyrovae.experiments import checkpoints
from pyrovae.experiments.beginning import announced, begin
from pyrovae.experiments.environment import busy
from pyrovae.experiments.failing import ON_NAN, Rewind, Steps
from pyrovae.experiments.interruption import Interrupted, Signals
from pyrovae.experiments.locks import locked
from pyrovae.experiments.memory import memory_for
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.run import Run
from pyrovae.experiments.state import State
from pyrovae.experiments.tracking import Tracked
from pyrovae.experiments.trials import batches_of, engines_of, num_steps

if TYPE_CHECKING:
    from pyrovae.data.datasets import Dataset
    from pyrovae.inference.training import Epoch
    from pyrovae.programs.guides import VAE

# Of an epoch's batches, statistics are collected anew on these before its bound; on all of them before the last evaluation.
RECOLLECTED_SHARE, FEWEST_RECOLLECTED = 0.1, 4
MEASURING_SEED = 0
CHECKPOINT_SECONDS = 60.0
# Of one checkpoint, before it is said that it does not help.
MOST_REWINDS = 3

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Status:
    """How far a training is: after each step, and with a ``record`` after each epoch.

    Args:
        run: that is trained.
        steps: taken so far.
        total_steps: of all stages.
        record: of the epoch that has just ended, as the history has it.
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
    """Train what a recipe says, or go on with it where it was begun; leave a run folder behind.

    In the same environment a training that was interrupted and gone on with is the one that was not, to the last bit: weights,
    moments, averages and history, but for its seconds.

    Args:
        recipe: of the training; None goes on with that of the folder. Where the folder was begun it must be the same one, but
            for more epochs of the last stage.
        folder: of the run; a new one under ``runs`` by default.
        dataset: loaded before; by default that of the recipe, from wherever its files are.
        engine: one of ``ENGINES``; ``auto`` weighs the time of compiling once, before the first step.
        track: called with a ``Status`` after each step and each epoch.
        checkpoint_every: seconds between two checkpoints.
        on_nan: what follows a loss or a gradient that is not finite: ``stop``, ``skip`` the step, or ``rewind`` to the last
            checkpoint and go on with other random numbers.

    Raises:
        InputError: for what cannot be trained, another recipe than that of the folder, a folder that another process trains
            in or that cannot be written, and a loss that is not finite.
        Interrupted: where Ctrl-C or SIGTERM asked for it: the state is saved.
    """
    if on_nan not in ON_NAN:
        raise InputError(f"expected on_nan out of {', '.join(ON_NAN)}; got {on_nan!r}")
    run, dataset = begin(folder, recipe, dataset)
    with locked(run.folder):
        if logger.isEnabledFor(logging.INFO):
            for line in announced(run, dataset):
                logger.info(line)
            if warning := busy():
                logger.warning(warning)
        training = _Training(run, dataset, engine, track or (lambda status: None), checkpoint_every, on_nan)
        training.train()
    run.vae.eval()
    return run


@dataclass
class _Training:
    """A training at work in its folder.

    Args:
        run: whose folder it is.
        dataset: it trains on.
        engine: that was asked for.
        track: told of each step and epoch.
        checkpoint_every: seconds between two checkpoints.
        on_nan: one of ``ON_NAN``.
    """

    run: Run
    dataset: Dataset
    engine: str
    track: Callable[[Status], Any]
    checkpoint_every: float
    on_nan: str

    def __post_init__(self) -> None:
        found = checkpoints.latest(self.run.folder, self.run.num_bytes)
        self.total_steps = num_steps(self.recipe.schedule, self.dataset)
        self.log_jacobian = self.dataset.log_jacobians(self.dataset.train).mean().item()
        self.tracked = Tracked.of(self.run.vae, self.dataset, self.recipe.total_epochs)
        self.state = State(self.run, self.dataset, engines_of(self.run, self.dataset, self.engine))
        self.run.save_recipe()
        self.state.load(found)
        self.saved_at = time.monotonic()

    @property
    def recipe(self) -> Recipe:
        """That of the run."""
        return self.run.recipe

    def _train_stages(self) -> None:
        """Train what is left of the schedule."""
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
        """Go on from where the folder is, to the end."""
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
                # Asked for after the last step.
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
        self.track(Status(self.run, self.state.position.steps, self.total_steps))
        if self.signals.number is not None:
            raise self._interrupted(self.signals.number, self.save())
        if time.monotonic() - self.saved_at >= self.checkpoint_every:
            self.save()

    def _interrupted(self, number: int, path: Path) -> Interrupted:
        saved = f"saved after step {self.state.position.steps} of {self.total_steps} as {path}"
        return Interrupted(number, f"{saved}: go on with 'pyrovae fit --resume {self.run.folder}'")

    def _after_epoch(self, epoch: Epoch) -> bool:
        """An epoch has ended; whether to stop."""
        with self._measured():
            batches = len(batches_of(self.state.stage, self.dataset))
            recollected(
                self.run.vae,
                self.state.stage,
                self.dataset,
                epoch.number,
                max(FEWEST_RECOLLECTED, int(RECOLLECTED_SHARE * batches)),
            )
            bounds = self.tracked.bounds(self.state.stage)
            self.state.elbo = next(iter(bounds.values()))
            latents = self.tracked.latents(epoch.number)
            self.state.stopped_early = self.state.stopping is not None and self.state.stopping(epoch)
            self.run.save_weights()
        record = self._record(epoch) | bounds | latents
        self.run.record(record | ({"stopped_early": True} if self.state.stopped_early else {}))
        self.track(Status(self.run, self.state.position.steps, self.total_steps, record))
        return self.state.stopped_early

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
        """All stages have ended: the weights that are to be measured, with the statistics of all training data."""
        import torch

        torch.manual_seed(MEASURING_SEED)
        if self.state.average is not None:
            self.state.average.adopt()
        self.state.restore_best()
        recollected(self.run.vae, self.state.stage, self.dataset, self.state.progress.epochs, None)
        self.run.save_weights()

    @contextmanager
    def _measured(self) -> Iterator[None]:
        """Within, the weights that are measured; the same random numbers at every epoch, and none of those of the training.

        Afterwards the programs are as the training left them, statistics of batch norm included.
        """
        import torch

        from pyrovae.inference.state import preserved_module

        with preserved_module(self.run.vae), torch.random.fork_rng():
            if self.state.average is not None:
                self.state.average.adopt()
            torch.manual_seed(MEASURING_SEED)
            yield

    def save(self) -> Path:
        """Write a checkpoint of everything; return where it is."""
        path = checkpoints.save(self.run.folder, self.state.checkpoint())
        self.saved_at = time.monotonic()
        return path

    def _rewind(self) -> int:
        """Go back to the newest checkpoint; return the steps that it is after."""
        rewinds = self.state.position.rewinds + 1
        found = checkpoints.latest(self.run.folder, self.run.num_bytes)
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


def recollected(vae: VAE, stage: Recipe, dataset: Dataset, epoch: int, batches: int | None) -> None:
    """Collect the statistics of batch norm anew, on some batches or on all of them."""
    from pyrovae.inference.state import recollect_statistics

    drawn = dataset.train_batches(stage.batch_size, seed=stage.seed)
    recollect_statistics(vae, islice(drawn.epoch(epoch + 1), batches))
