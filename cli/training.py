"""The training of ``pyrovae fit``: a recipe's stages one after the other, each epoch measured and recorded."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

from pyrovae.recipes import build_clipping, build_objective, build_optimizer
from pyrovae.settings import STAGE_SETTINGS, Recipe

from . import console
from .tracking import Tracked

if TYPE_CHECKING:
    import torch

    from pyrovae.data.batches import Batches
    from pyrovae.data.datasets import Dataset
    from pyrovae.inference.state import MovingAverage
    from pyrovae.inference.svi import CompiledSVI
    from pyrovae.inference.training import EarlyStopping, Epoch
    from pyrovae.programs.guides import VAE
    from pyrovae.runs import Run

# Of an epoch's batches, statistics are collected anew on these before its bound; on all of them before the last evaluation.
RECOLLECTED_SHARE, FEWEST_RECOLLECTED = 0.1, 4
MEASURED_STEPS = 8
MEASURING_SEED = 0
# Of a stage: inputs of its graph, or of the loop around it.
NO_PART_OF_A_GRAPH = ("epochs", "patience", "warmup_epochs", "warmup", "kl_weight", "learning_rate")


def batches_of(stage: Recipe, dataset: Dataset) -> Batches:
    """The batches of a stage as stored; they are drawn in the graph."""
    return dataset.train_batches(stage.batch_size, seed=stage.seed, drawn=False)


def num_steps(stages: Iterable[Recipe], dataset: Dataset) -> int:
    """Of stages together."""
    return sum(stage.epochs * len(batches_of(stage, dataset)) for stage in stages)


def expected_seconds(vae: VAE, recipe: Recipe, dataset: Dataset) -> float:
    """How long the training takes without compilation, from a few steps of each kind on a copy that is thrown away."""
    return sum(_seconds_per_step(vae, stages[0], dataset) * num_steps(stages, dataset) for stages in _alike(recipe))


def train(run: Run, dataset: Dataset, engine: str, *, quiet: bool) -> str:
    """All stages; weights and history are written after every epoch. Returns what the engine was, and why."""
    import torch

    recipe, vae = run.recipe, run.vae
    torch.manual_seed(recipe.seed)
    optimizer = build_optimizer(recipe, vae.train())
    number, decision = 0, ""
    with console.meter("training", num_steps(recipe.schedule, dataset), "steps", quiet=quiet) as meter, _warnings_in_yellow():
        recorder = _Recorder(run, dataset, meter.note)
        for stages in _alike(recipe):
            svi = _svi(vae, optimizer, stages[0], dataset, engine)
            for place, stage in enumerate(stages):
                number += 1
                recorder.begin(stage, number, svi)
                for group in optimizer.param_groups:
                    group["lr"] = stage.learning_rate
                _train_stage(svi, stage, batches_of(stage, dataset), num_steps(stages[place:], dataset), recorder, meter)
            decision = svi.decision
    recorder.end()
    return decision


def _alike(recipe: Recipe) -> Iterator[list[Recipe]]:
    """Consecutive stages that one captured graph serves: only numbers that are its inputs change between them."""
    same_graph = [name for name in STAGE_SETTINGS if name not in NO_PART_OF_A_GRAPH]
    for _, stages in groupby(recipe.schedule, key=lambda stage: [getattr(stage, name) for name in same_graph]):
        yield list(stages)


def _train_stage(
    svi: CompiledSVI, stage: Recipe, batches: Batches, steps_ahead: int, recorder: _Recorder, meter: console.Meter
) -> None:
    from pyrovae.inference.training import fit
    from pyrovae.inference.warmup import WARMUPS, scaled

    fit(
        svi,
        console.Watched(batches, meter.advance),
        epochs=stage.epochs,
        start=recorder.epochs,
        steps_ahead=steps_ahead,
        kl_weight=scaled(WARMUPS[stage.warmup](stage.warmup_epochs), stage.kl_weight),
        on_step=[] if recorder.average is None else [recorder.average],
        on_epoch=[recorder],
    )
    recorder.restore()


def _svi(vae: VAE, optimizer: torch.optim.Optimizer, stage: Recipe, dataset: Dataset, engine: str) -> CompiledSVI:
    from pyrovae.inference.svi import CompiledSVI

    return CompiledSVI(
        vae.model,
        vae.guide,
        optimizer,
        build_objective(stage),
        engine=engine,
        precision=stage.precision,
        transform=dataset.draw,
        clipping=build_clipping(stage),
    )


def _seconds_per_step(vae: VAE, stage: Recipe, dataset: Dataset) -> float:
    import torch

    from pyrovae.inference.epochs import arguments

    trial = copy.deepcopy(vae)
    with torch.random.fork_rng():
        svi = _svi(trial, build_optimizer(stage, trial), stage, dataset, engine="eager")
        first, *rest = islice(batches_of(stage, dataset).epoch(1), MEASURED_STEPS)
        svi.step(*arguments(first))
        start = time.perf_counter()
        for batch in rest:
            svi.step(*arguments(batch))
    return (time.perf_counter() - start) / max(len(rest), 1)


class _Recorder:
    """After each epoch: the true bound on some images, a line of history, the weights; says when to stop early.

    What is measured and saved are the averaged weights where the recipe asks for them, with statistics of batch norm to match.
    """

    def __init__(self, run: Run, dataset: Dataset, note: Callable[[str], None]) -> None:
        from pyrovae.inference.state import MovingAverage

        self.run, self.dataset, self.note = run, dataset, note
        self.tracked = Tracked.of(run.vae, dataset, run.recipe.total_epochs)
        self.epochs, self.number, self.skipped = 0, 0, 0
        self.elbo = 0.0
        self.latents: dict[str, Any] = {}
        self.stopping: EarlyStopping | None = None
        decay = run.recipe.average_decay
        self.average: MovingAverage | None = MovingAverage(run.vae, decay) if decay else None

    def begin(self, stage: Recipe, number: int, svi: CompiledSVI) -> None:
        """A stage begins, the ``number``-th."""
        from pyrovae.inference.training import EarlyStopping

        self.stage, self.number, self.svi, self.skipped = stage, number, svi, svi.steps_skipped
        self.stopping = None
        if stage.patience:
            self.stopping = EarlyStopping(self.run.vae, lambda: self.elbo, stage.patience, stage.kl_weight)

    def __call__(self, epoch: Epoch) -> bool:
        """An epoch has ended; whether to stop."""
        self.epochs = epoch.number
        with self._measured():
            batches = len(batches_of(self.stage, self.dataset))
            self._recollect(max(FEWEST_RECOLLECTED, int(RECOLLECTED_SHARE * batches)))
            self.elbo = self.tracked.elbo() + self.dataset.log_jacobian
            self.latents = self.tracked.latents(epoch.number)
            stop = self.stopping is not None and self.stopping(epoch)
            self.run.save_weights()
        self.run.record(self._record(epoch) | ({"stopped_early": True} if stop else {}))
        self.note(f"epoch {epoch.number}, {self.tracked.key.replace('_', ' ')} {self.elbo:.2f} nats per image")
        return stop

    def restore(self) -> None:
        """The stage has ended: go back to its best weights, where it kept any."""
        if self.stopping is not None and self.stopping.restore() and self.average is not None:
            self.average.restart()

    def end(self) -> None:
        """All stages have ended: the weights that are to be measured, with the statistics of all training data."""
        if self.average is not None:
            self.average.adopt()
        self.restore()
        self._recollect(None)
        self.run.save_weights()

    @contextmanager
    def _measured(self) -> Iterator[None]:
        """Within, the weights that are measured; the same random numbers at every epoch, and none of those of the training.

        Afterwards the programs are as the training left them, statistics of batch norm included.
        """
        import torch

        from pyrovae.inference.state import preserved_module

        with preserved_module(self.run.vae), torch.random.fork_rng():
            if self.average is not None:
                self.average.adopt()
            torch.manual_seed(MEASURING_SEED)
            yield

    def _recollect(self, batches: int | None) -> None:
        from pyrovae.inference.state import recollect_statistics

        drawn = self.dataset.train_batches(self.stage.batch_size, seed=self.stage.seed)
        recollect_statistics(self.run.vae, islice(drawn.epoch(self.epochs + 1), batches))

    def _record(self, epoch: Epoch) -> dict[str, Any]:
        record: dict[str, Any] = {
            "epoch": epoch.number,
            "loss_nats": epoch.loss - self.dataset.log_jacobian,
            "kl_weight": epoch.kl_weight,
        }
        if len(self.run.recipe.schedule) > 1:
            record["stage"] = self.number
        if self.svi.clipping.skips:
            skipped, self.skipped = self.svi.steps_skipped - self.skipped, self.svi.steps_skipped
            record["steps_skipped"] = skipped
            if skipped == len(batches_of(self.stage, self.dataset)):
                warnings.warn(
                    f"epoch {epoch.number}: all {skipped} steps were left out, their gradients longer than skip_norm "
                    f"{self.stage.skip_norm:g}",
                    stacklevel=2,
                )
        return record | {"seconds": epoch.seconds, f"{self.tracked.key}_nats": self.elbo} | self.latents


class _warnings_in_yellow(warnings.catch_warnings):  # noqa: N801 - used as a context
    """Warnings of the library as a line in yellow."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_, **__: console.say(f"warning: {message}", fg="yellow")
