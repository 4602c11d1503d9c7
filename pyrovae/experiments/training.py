"""``train``: a recipe's stages one after the other, each epoch measured and recorded, in a folder that survives any death.

What decides the bits of a training is in its folder: the recipe, the engine, and checkpoints. The data of an epoch depend on
the seed and the number of the epoch, the random numbers of a step on the seed and the number of the step, so that a training
that goes on is the one that was never interrupted, to the last bit.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from pyrovae.errors import InputError
from pyrovae.experiments import checkpoints, environment, files
from pyrovae.experiments.beginning import begun, created
from pyrovae.experiments.building import build_optimizer
from pyrovae.experiments.checking import DAMAGE, check_tensors, check_value
from pyrovae.experiments.interruption import Interrupted, Signals
from pyrovae.experiments.measuring import in_one_line
from pyrovae.experiments.memory import memory_for
from pyrovae.experiments.optimizers import load_optimizer, saved_optimizer
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.run import HISTORY, RECIPE, Run
from pyrovae.experiments.tracking import Tracked
from pyrovae.experiments.trials import batches_of, choose_engine, groups_of, num_steps, svi_of

if TYPE_CHECKING:
    from pyrovae.data.datasets import Dataset
    from pyrovae.inference.svi import CompiledSVI
    from pyrovae.inference.training import Epoch
    from pyrovae.programs.guides import VAE

# Of an epoch's batches, statistics are collected anew on these before its bound; on all of them before the last evaluation.
RECOLLECTED_SHARE, FEWEST_RECOLLECTED = 0.1, 4
MEASURING_SEED = 0
CHECKPOINT_SECONDS = 60.0
ON_NAN = ("stop", "skip", "rewind")
# Of one checkpoint, before it is said that it does not help.
MOST_REWINDS = 3

# What a checkpoint holds beside tensors.
VALUES: dict[str, Any] = {
    "position": {"stage": int, "first_epoch": int, "has_ended": bool, "steps": int, "skipped": int, "rewinds": int},
    "progress": {"epochs": int, "steps": int, "loss": float, "examples": int, "seconds": float},
    "svi": {
        **dict.fromkeys(("steps_taken", "steps_skipped", "graph_steps"), int),
        **dict.fromkeys(("is_captured", "is_compiled"), bool),
        "decision": str,
        "products": dict,
    },
    "stopped_early": bool,
    "history_bytes": int,
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Status:
    """How far a training is: after each step, and with a ``record`` after each epoch.

    Args:
        steps: taken so far.
        total_steps: of all stages.
        record: of the epoch that has just ended, as the history has it.
    """

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
    if folder is not None and (Path(folder) / RECIPE).exists():
        run, dataset = begun(Path(folder), recipe, dataset)
    elif recipe is None:
        raise InputError(f"{folder}: expected the folder of a training that was begun; there is none: give a recipe")
    else:
        run, dataset = created(folder, recipe, dataset)
    with files.locked(run.folder):
        training = _Training(run, dataset, engine, track or (lambda status: None), checkpoint_every, on_nan)
        training.train()
    run.vae.eval()
    return run


@dataclass
class _Position:
    """Where a training is.

    Args:
        stage: the number of the stage, from 0.
        first_epoch: epochs trained before the stage.
        has_ended: whether all epochs of the stage are trained; its best weights are not restored yet.
        steps: taken in all.
        skipped: of them that clipping left out by the end of the last epoch.
        rewinds: how often the training was rewound: other random numbers each time.
    """

    stage: int = 0
    first_epoch: int = 0
    has_ended: bool = False
    steps: int = 0
    skipped: int = 0
    rewinds: int = 0


class _Rewind(Exception):  # noqa: N818 - asks for a way, and is no error
    """Go back to the last checkpoint."""


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
    position: _Position = field(default_factory=_Position)

    def _train_stages(self) -> None:
        """Train what is left of the schedule."""
        schedule = self.recipe.schedule
        while self.position.stage < len(schedule):
            stage = schedule[self.position.stage]
            if not self.position.has_ended:
                self._train_stage(stage)
                self.position.has_ended = True
                self.save()
            if self.position.stage + 1 == len(schedule):
                break
            self._restore_best()
            self._begin_stage(self.position.stage + 1)

    def train(self) -> None:
        """Go on from where the folder is, to the end."""
        self._open()
        with Signals() as self.signals, memory_for("a step of the training", "--batch-size", "--num-particles"):
            rewound_to: list[int] = []
            while True:
                try:
                    self._train_stages()
                    break
                except _Rewind:
                    rewound_to.append(self._rewind())
                    if rewound_to.count(rewound_to[-1]) > MOST_REWINDS:
                        raise self._failure("the loss is not finite however often it is rewound") from None
            self._end()
            newest = checkpoints.newest_folder(self.run.folder)
            if self.signals.number is not None and newest is not None:
                # Asked for after the last step.
                raise self._interrupted(self.signals.number, newest)

    @property
    def recipe(self) -> Recipe:
        """That of the run."""
        return self.run.recipe

    @property
    def stage(self) -> Recipe:
        """The stage at hand."""
        return self.recipe.schedule[self.position.stage]

    def _open(self) -> None:
        """Everything that is trained, as the newest checkpoint has it; where there is none, as at the first step."""
        import torch

        from pyrovae.inference.state import MovingAverage

        found = checkpoints.latest(self.run.folder, self.run.num_bytes)
        files.remove_remains(self.run.folder)
        self.engines = self._engines(found)
        self.run.save_recipe()
        self.total_steps = num_steps(self.recipe.schedule, self.dataset)
        self.tracked = Tracked.of(self.run.vae, self.dataset, self.recipe.total_epochs)
        torch.manual_seed(self.recipe.seed)
        self.optimizer = build_optimizer(self.recipe, self.run.vae.train())
        decay = self.recipe.average_decay
        self.average: MovingAverage | None = MovingAverage(self.run.vae, decay) if decay else None
        self.elbo = 0.0
        self.saved_at = time.monotonic()
        self._load(found)

    def _load(self, found: checkpoints.Checkpoint | None) -> None:
        """Be where a checkpoint is."""
        from pyrovae.inference.training import Progress

        if found is None:
            files.truncate(self.run.folder / HISTORY, 0)
            self._begin_stage(0)
            return
        try:
            self._load_parts(found)
        except DAMAGE as error:
            raise InputError(
                f"{self.run.folder}: expected a checkpoint of its recipe; got one that does not fit: {in_one_line(error)}"
            ) from error
        assert isinstance(self.progress, Progress)
        logger.info("going on after step %s of %s", self.position.steps, self.total_steps)

    def _load_parts(self, found: checkpoints.Checkpoint) -> None:
        from pyrovae.inference.training import Progress

        values = found.values
        check_value("state", values, VALUES)
        self.position = _Position(**values["position"])
        if not 0 <= self.position.stage < len(self.recipe.schedule):
            raise ValueError(f"stage {self.position.stage}")
        size = files.synced_size(self.run.folder / HISTORY)
        if values["history_bytes"] > size:
            raise ValueError(f"expected a history of at least {values['history_bytes']:,} bytes; it has {size:,}")
        if self.position.has_ended and values["progress"]["epochs"] - self.position.first_epoch < self.stage.epochs:
            # Ended earlier because of fewer epochs than there are now; or by itself, and then it has ended for good.
            self.position.has_ended = values["stopped_early"]
        check_tensors(found.part("programs"), self.run.vae.state_dict())
        self.run.vae.load_state_dict(found.part("programs"))
        load_optimizer(self.optimizer, found)
        if self.average is not None:
            check_tensors(found.part("average"), self.average.state_dict())
            self.average.load_state_dict(found.part("average"))
        self._prepare_stage()
        if self.stopping is not None:
            check_value("stopping", values["stopping"], {"best_bound": float, "best_epoch": int, "waited": int})
            best = found.part("best")
            check_tensors(best, self.run.vae.state_dict() if best else {})
            self.stopping.load_state_dict(values["stopping"] | {"best": best})
        self.stopped_early = values["stopped_early"]
        self.svi.load_state_dict(values["svi"])
        self.progress = Progress(**values["progress"])
        files.truncate(self.run.folder / HISTORY, int(values["history_bytes"]))

    def _begin_stage(self, number: int) -> None:
        """Be at the start of a stage."""
        from pyrovae.inference.training import Progress

        before = getattr(self, "progress", None)
        epochs = 0 if before is None else before.epochs
        same_graph = number > 0 and any({number - 1, number} <= set(group) for group in groups_of(self.recipe))
        state = self.svi.state_dict() if same_graph else None
        svi = self.svi if same_graph else None
        self.position.stage, self.position.first_epoch, self.position.has_ended = number, epochs, False
        self.progress = Progress(epochs)
        self.stopped_early = False
        self._prepare_stage(svi)
        self.position.skipped = 0 if state is None else state["steps_skipped"]

    def _prepare_stage(self, svi: CompiledSVI | None = None) -> None:
        """What takes the steps of the stage at hand, and what stops them early."""
        from pyrovae.inference.training import EarlyStopping

        stage = self.stage
        (group,) = (number for number, each in enumerate(groups_of(self.recipe)) if self.position.stage in each)
        self.svi = svi or svi_of(self.run.vae, self.optimizer, stage, self.dataset, self.engines[group][0])
        for each in self.optimizer.param_groups:
            each["lr"] = stage.learning_rate
        self.stopping: EarlyStopping | None = None
        if stage.patience:
            self.stopping = EarlyStopping(self.run.vae, lambda: self.elbo, stage.patience, stage.kl_weight)

    def _train_stage(self, stage: Recipe) -> None:
        from pyrovae.inference.training import fit
        from pyrovae.inference.warmup import WARMUPS, scaled

        fit(
            _Steps(self),
            batches_of(stage, self.dataset),
            epochs=stage.epochs,
            start=self.position.first_epoch,
            progress=self.progress,
            seed=stage.seed + self.position.rewinds,
            kl_weight=scaled(WARMUPS[stage.warmup](stage.warmup_epochs), stage.kl_weight),
            on_step=[self._after_step] if self.average is None else [self.average, self._after_step],
            on_epoch=[self._after_epoch],
        )

    def _after_step(self) -> None:
        self.position.steps += 1
        self.track(Status(self.position.steps, self.total_steps))
        if self.signals.number is not None:
            raise self._interrupted(self.signals.number, self.save())
        if time.monotonic() - self.saved_at >= self.checkpoint_every:
            self.save()

    def _interrupted(self, number: int, path: Path) -> Interrupted:
        saved = f"saved after step {self.position.steps} of {self.total_steps} as {path}"
        return Interrupted(number, f"{saved}: go on with 'pyrovae fit --resume {self.run.folder}'")

    def _after_epoch(self, epoch: Epoch) -> bool:
        """An epoch has ended; whether to stop."""
        with self._measured():
            batches = len(batches_of(self.stage, self.dataset))
            recollected(
                self.run.vae, self.stage, self.dataset, epoch.number, max(FEWEST_RECOLLECTED, int(RECOLLECTED_SHARE * batches))
            )
            bounds = self.tracked.bounds(self.stage)
            self.elbo = next(iter(bounds.values()))
            latents = self.tracked.latents(epoch.number)
            self.stopped_early = self.stopping is not None and self.stopping(epoch)
            self.run.save_weights()
        record = self._record(epoch) | bounds | latents
        self.run.record(record | ({"stopped_early": True} if self.stopped_early else {}))
        self.track(Status(self.position.steps, self.total_steps, record))
        return self.stopped_early

    def _record(self, epoch: Epoch) -> dict[str, Any]:
        record: dict[str, Any] = {
            "epoch": epoch.number,
            "loss_nats": epoch.loss - self.dataset.log_jacobian,
            "kl_weight": epoch.kl_weight,
        }
        if len(self.recipe.schedule) > 1:
            record["stage"] = self.position.stage + 1
        if self.svi.clipping.skips:
            taken = self.svi.steps_skipped
            skipped, self.position.skipped = taken - self.position.skipped, taken
            record["steps_skipped"] = skipped
            if skipped == len(batches_of(self.stage, self.dataset)):
                warnings.warn(
                    f"epoch {epoch.number}: all {skipped} steps were left out, their gradients longer than skip_norm "
                    f"{self.stage.skip_norm:g}",
                    stacklevel=2,
                )
        return record | {"seconds": epoch.seconds}

    def _restore_best(self) -> None:
        """A stage has ended: go back to its best weights, where it kept any."""
        if self.stopping is not None and self.stopping.restore() and self.average is not None:
            self.average.restart()

    def _end(self) -> None:
        """All stages have ended: the weights that are to be measured, with the statistics of all training data."""
        import torch

        torch.manual_seed(MEASURING_SEED)
        if self.average is not None:
            self.average.adopt()
        self._restore_best()
        recollected(self.run.vae, self.stage, self.dataset, self.progress.epochs, None)
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

    def save(self) -> Path:
        """Write a checkpoint of everything; return where it is."""
        self.svi.check()
        stopping = None if self.stopping is None else self.stopping.state_dict()
        best = {} if stopping is None else stopping.pop("best")
        average = {} if self.average is None else self.average.state_dict()
        moments, settings = saved_optimizer(self.optimizer)
        parts = {"programs": self.run.vae.state_dict(), "average": average, "best": best, "optimizer": moments}
        values = {
            "position": asdict(self.position),
            "progress": vars(self.progress) | {"loss": float(self.progress.loss)},
            "svi": self.svi.state_dict(),
            "stopping": stopping,
            "stopped_early": self.stopped_early,
            "optimizer": settings,
            "history_bytes": files.synced_size(self.run.folder / HISTORY),
        }
        tensors = {f"{part}.{name}": each for part, named in parts.items() for name, each in named.items()}
        path = checkpoints.save(self.run.folder, checkpoints.Checkpoint(self.position.steps, tensors, values))
        self.saved_at = time.monotonic()
        return path

    def _rewind(self) -> int:
        """Go back to the newest checkpoint; return the steps that it is after."""
        rewinds = self.position.rewinds + 1
        found = checkpoints.latest(self.run.folder, self.run.num_bytes)
        if found is None:
            raise self._failure("the loss is not finite, before any checkpoint")
        self._load(found)
        self.position.rewinds = rewinds
        logger.warning("rewound to step %s: the loss was not finite", self.position.steps)
        return self.position.steps

    def _failure(self, what: str) -> InputError:
        newest = checkpoints.newest_folder(self.run.folder)
        kept = f"{self.run.folder} holds {len(self.run.history)} of {self.recipe.total_epochs} epochs"
        return InputError(
            f"{what}; {kept}{f', and {newest} its last checkpoint' if newest else ''}: try a lower --learning-rate"
        )

    def _engines(self, found: checkpoints.Checkpoint | None) -> list[tuple[str, str]]:
        """The engine of each group of stages, and why: chosen once, since it decides bits."""
        before = self.run.environment
        now = environment.described() | {"device": str(self.dataset.train.device)}
        chosen = before.get("engines")
        if _are_engines(chosen) and len(chosen) == len(groups_of(self.recipe)):
            for difference in environment.differences(before, now):
                warnings.warn(f"bits may differ from an uninterrupted training: {difference}", stacklevel=2)
            self.run.save_environment(device=now["device"])
            return [(str(name), str(reason)) for name, reason in chosen]
        engines = [self._chosen_engine([self.recipe.schedule[number] for number in group]) for group in groups_of(self.recipe)]
        self.run.save_environment(device=now["device"], asked_engine=self.engine, engines=engines, data_root=_data_root())
        return engines

    def _chosen_engine(self, stages: list[Recipe]) -> tuple[str, str]:
        if self.engine != "auto":
            return self.engine, "as asked"
        return choose_engine(self.run.vae, stages, self.dataset)


def _are_engines(chosen: Any) -> TypeGuard[list[tuple[str, str]]]:
    """Whether what an environment.json holds are engines and reasons; what it holds may be anything."""
    from pyrovae.engine.choice import ENGINES

    pairs = isinstance(chosen, list) and all(isinstance(each, list) and len(each) == 2 for each in chosen)
    return pairs and all(name in ENGINES and isinstance(reason, str) for name, reason in chosen)


def recollected(vae: VAE, stage: Recipe, dataset: Dataset, epoch: int, batches: int | None) -> None:
    """Collect the statistics of batch norm anew, on some batches or on all of them."""
    from pyrovae.inference.state import recollect_statistics

    drawn = dataset.train_batches(stage.batch_size, seed=stage.seed)
    recollect_statistics(vae, islice(drawn.epoch(epoch + 1), batches))


class _Steps:
    """The steps of a training, and what becomes of one that fails.

    Args:
        training: whose ``svi`` takes them.
    """

    def __init__(self, training: _Training) -> None:
        self._training = training

    def step(self, *args: Any) -> Any:
        """Take a step; skip it or go back where it fails, as was asked for."""
        import torch

        training = self._training
        try:
            return training.svi.step(*args)
        except FloatingPointError as error:
            if training.on_nan == "skip":
                logger.warning("skipped: %s", error)
                return torch.zeros((), device=training.dataset.train.device)
            if training.on_nan == "rewind":
                raise _Rewind from error
            raise training._failure(str(error)) from error

    def expect(self, steps: int) -> None:
        """The engine is chosen already."""

    def check(self) -> None:
        """As ``CompiledSVI`` does."""
        try:
            self._training.svi.check()
        except FloatingPointError as error:
            raise self._training._failure(str(error)) from error


def _data_root() -> str | None:
    """Where the files of data are looked for first, as a hint for other shells."""
    from pyrovae.data.published_files.sources import DATA_VARIABLE

    root = os.environ.get(DATA_VARIABLE)
    return None if root is None else str(Path(root).absolute())
