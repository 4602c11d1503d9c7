"""The state of a training: everything that a checkpoint holds."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from pyrovae.errors import InputError, in_one_line
from pyrovae.experiments import files
from pyrovae.experiments.checking import DAMAGE, check_tensors, check_value
from pyrovae.experiments.checkpoints import Checkpoint
from pyrovae.experiments.folder import HISTORY
from pyrovae.experiments.methods import build_learning_rates, build_optimizer
from pyrovae.experiments.optimizers import load_optimizer, optimizer_state
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.run import Run
from pyrovae.experiments.trials import batches_of, groups_of, num_steps, svi_of

if TYPE_CHECKING:
    import torch.distributed as dist

    from pyrovae.data.datasets import Dataset
    from pyrovae.inference.state import MovingAverage
    from pyrovae.inference.svi import CompiledSVI

# The kinds of the values of a checkpoint beside its tensors.
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


@dataclass
class Position:
    """The position of a training.

    Args:
        stage: the number of the stage, from 0.
        first_epoch: the number of epochs trained before the stage.
        has_ended: whether all epochs of the stage are trained, while its best weights are not restored yet.
        steps: the number of steps taken in all.
        skipped: the number of steps that clipping left out by the end of the last epoch.
        rewinds: the number of times that the training was rewound, with other random numbers each time.
    """

    stage: int = 0
    first_epoch: int = 0
    has_ended: bool = False
    steps: int = 0
    skipped: int = 0
    rewinds: int = 0


class State:
    """The state of a training: the programs, the optimizer, and the position.

    Args:
        run: the run whose programs are trained.
        dataset: the data that they are trained on.
        engines: the engine of each group of stages, with the reason.
        group: the processes that share each batch.
    """

    def __init__(
        self, run: Run, dataset: Dataset, engines: list[tuple[str, str]], group: dist.ProcessGroup | None = None
    ) -> None:
        self.run, self.dataset, self.engines, self.group = run, dataset, engines, group
        self.position = Position()
        self.optimizer = build_optimizer(self.recipe, run.vae.train())
        self.average: MovingAverage | None = None
        # The last true bound, by which training stops early.
        self.elbo = 0.0

    @property
    def recipe(self) -> Recipe:
        """The recipe of the run."""
        return self.run.recipe

    @property
    def stage(self) -> Recipe:
        """The recipe of the current stage."""
        return self.recipe.schedule[self.position.stage]

    def load(self, found: Checkpoint | None) -> None:
        """Load a checkpoint; without one, start at the first step."""
        if found is None:
            files.truncate(self.run.folder / HISTORY, 0)
            self.begin_stage(0)
            return
        try:
            self._load_parts(found)
        except DAMAGE as error:
            raise InputError(
                f"{self.run.folder}: expected a checkpoint of its recipe; got one that does not fit: {in_one_line(error)}"
            ) from error
        logger.info("going on after step %s of %s", self.position.steps, num_steps(self.recipe.schedule, self.dataset))

    def _load_parts(self, found: Checkpoint) -> None:
        from pyrovae.inference.training import Progress

        values = found.values
        check_value("state", values, VALUES)
        self.position = Position(**values["position"])
        if not 0 <= self.position.stage < len(self.recipe.schedule):
            raise ValueError(f"stage {self.position.stage}")
        size = files.synced_size(self.run.folder / HISTORY)
        if values["history_bytes"] > size:
            raise ValueError(f"expected a history of at least {values['history_bytes']:,} bytes; it has {size:,}")
        if self.position.has_ended and values["progress"]["epochs"] - self.position.first_epoch < self.stage.epochs:
            # It ended because the recipe had fewer epochs, and goes on; or it stopped early, and has ended for good.
            self.position.has_ended = values["stopped_early"]
        check_tensors(found.part("programs"), self.run.vae.state_dict())
        self.run.vae.load_state_dict(found.part("programs"))
        load_optimizer(self.optimizer, found)
        self._prepare_stage()
        if self.average is not None:
            check_tensors(found.part("average"), self.average.state_dict())
            self.average.load_state_dict(found.part("average"))
        if self.stopping is not None:
            check_value("stopping", values["stopping"], {"best_bound": float, "best_epoch": int, "waited": int})
            best = found.part("best")
            check_tensors(best, self.run.vae.state_dict() if best else {})
            self.stopping.load_state_dict(values["stopping"] | {"best": best})
        self.stopped_early = values["stopped_early"]
        self.svi.load_state_dict(values["svi"])
        self.progress = Progress(**values["progress"])
        self.set_learning_rate()
        files.truncate(self.run.folder / HISTORY, int(values["history_bytes"]))

    def begin_stage(self, number: int) -> None:
        """Go to the start of a stage."""
        from pyrovae.inference.training import Progress

        epochs = self.progress.epochs if number else 0
        same_graph = number > 0 and any({number - 1, number} <= set(group) for group in groups_of(self.recipe))
        self.position = replace(self.position, stage=number, first_epoch=epochs, has_ended=False)
        self.progress, self.stopped_early = Progress(epochs), False
        self._prepare_stage(self.svi if same_graph else None)
        self.set_learning_rate()
        self.position.skipped = self.svi.steps_skipped

    def _prepare_stage(self, svi: CompiledSVI | None = None) -> None:
        """Prepare the steps of the current stage, its average, its learning rates, and its early stopping."""
        from pyrovae.inference.state import MovingAverage
        from pyrovae.inference.training import EarlyStopping

        stage = self.stage
        (group,) = (number for number, each in enumerate(groups_of(self.recipe)) if self.position.stage in each)
        self.svi = svi or svi_of(self.run.vae, self.optimizer, stage, self.dataset, self.engines[group][0], self.group)
        if stage.average_decay != (0.0 if self.average is None else self.average.decay):
            self.average = MovingAverage(self.run.vae, stage.average_decay) if stage.average_decay else None
        self.steps_per_epoch = len(batches_of(stage, self.dataset))
        self.learning_rates = build_learning_rates(stage, stage.epochs * self.steps_per_epoch)
        self.stopping: EarlyStopping | None = None
        if stage.patience:
            self.stopping = EarlyStopping(self.run.vae, lambda: self.elbo, stage.patience, stage.kl_weight)

    def set_learning_rate(self) -> None:
        """Set the learning rate of the next step."""
        epochs = self.progress.epochs - self.position.first_epoch
        rate = self.learning_rates(epochs * self.steps_per_epoch + self.progress.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def restore_best(self) -> None:
        """Go back to the best weights of a stage that has ended, if it kept any."""
        if self.stopping is not None and self.stopping.restore() and self.average is not None:
            self.average.restart()

    def checkpoint(self) -> Checkpoint:
        """Make a checkpoint of the whole state, for ``load``."""
        self.svi.check()
        stopping = None if self.stopping is None else self.stopping.state_dict()
        best = {} if stopping is None else stopping.pop("best")
        average = {} if self.average is None else self.average.state_dict()
        moments, settings = optimizer_state(self.optimizer)
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
        return Checkpoint(self.position.steps, tensors, values)
