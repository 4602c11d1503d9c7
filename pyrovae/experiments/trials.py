"""The steps of a recipe, and trials of a few steps on a copy of the programs: their time, and the choice of an engine."""

from __future__ import annotations

import copy
import math
import os
import time
import warnings
from collections.abc import Iterable
from itertools import chain, groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from pyrovae.experiments import environment
from pyrovae.experiments.methods import build_clipping, build_objective, build_optimizer
from pyrovae.experiments.recipe import STAGE_SETTINGS, Recipe
from pyrovae.experiments.run import Run

if TYPE_CHECKING:
    import torch
    import torch.distributed as dist

    from pyrovae.data.batches import Batches
    from pyrovae.data.datasets import Dataset
    from pyrovae.inference.svi import CompiledSVI
    from pyrovae.programs.guides import VAE

TRIED_STEPS = 7
# Settings of a stage that are inputs of its graph, or belong to the loop around it.
NO_PART_OF_A_GRAPH = (
    "epochs",
    "patience",
    "warmup_epochs",
    "warmup",
    "kl_weight",
    "learning_rate",
    "learning_rate_schedule",
    "learning_rate_warmup",
    "average_decay",
)


def batches_of(stage: Recipe, dataset: Dataset) -> Batches:
    """The batches of a stage as stored; they are drawn in the graph."""
    return dataset.train_batches(stage.batch_size, seed=stage.seed, drawn=False)


def num_steps(stages: Iterable[Recipe], dataset: Dataset) -> int:
    """The number of steps of stages together."""
    return sum(stage.epochs * len(batches_of(stage, dataset)) for stage in stages)


def groups_of(recipe: Recipe) -> list[list[int]]:
    """The numbers of consecutive stages that one graph serves: only numbers that are its inputs change between them."""
    same_graph = [name for name in STAGE_SETTINGS if name not in NO_PART_OF_A_GRAPH]
    numbered = enumerate(recipe.schedule)
    groups = groupby(numbered, key=lambda each: [getattr(each[1], name) for name in same_graph])
    return [[number for number, _ in group] for _, group in groups]


def choose_engine(vae: VAE, stages: list[Recipe], dataset: Dataset) -> tuple[str, str]:
    """Choose the engine that is done first with stages that share a graph, by a few steps on a copy; returns the reason too."""
    import torch

    trial, stage = copy.deepcopy(vae).train(), stages[0]
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        svi = svi_of(trial, build_optimizer(stage, trial), stage, dataset, engine="auto")
        svi.expect(num_steps(stages, dataset))
        torch.manual_seed(stage.seed)
        try:
            _take_steps(svi, batches_of(stage, dataset))
        except (FloatingPointError, ValueError):
            # The training will raise the same error.
            return "graph", "its first steps fail"
    name, _, reason = svi.decision.removeprefix("engine ").partition(": ")
    return name, f"auto: {reason}"


def expected_seconds(vae: VAE, recipe: Recipe, dataset: Dataset) -> float:
    """The expected time of the training without compilation, from a few steps on a copy of the programs.

    NaN where these steps fail, as those of the training will.
    """
    import torch

    total = 0.0
    for group in groups_of(recipe):
        stages = [recipe.schedule[number] for number in group]
        trial = copy.deepcopy(vae).train()
        with torch.random.fork_rng():
            svi = svi_of(trial, build_optimizer(stages[0], trial), stages[0], dataset, engine="eager")
            try:
                total += _take_steps(svi, batches_of(stages[0], dataset)) * num_steps(stages, dataset)
            except (FloatingPointError, ValueError):
                return math.nan
    return total


def _take_steps(svi: CompiledSVI, batches: Batches) -> float:
    """Take some steps and return the seconds of the fastest, without the first."""
    from pyrovae.inference.epochs import arguments

    seconds = []
    for batch in islice(chain.from_iterable(map(batches.epoch, range(1, 1 + TRIED_STEPS))), TRIED_STEPS):
        start = time.perf_counter()
        svi.step(*arguments(batch))
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def svi_of(
    vae: VAE,
    optimizer: torch.optim.Optimizer,
    stage: Recipe,
    dataset: Dataset,
    engine: str,
    group: dist.ProcessGroup | None = None,
) -> CompiledSVI:
    """Make the ``CompiledSVI`` of a stage."""
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
        group=group,
    )


def engines_of(run: Run, dataset: Dataset, engine: str) -> list[tuple[str, str]]:
    """The engine of each group of stages with the reason: it is chosen once and kept, since it decides bits."""
    before = run.environment
    now = environment.describe_environment() | {"device": str(dataset.train.device)}
    chosen = before.get("engines")
    if _are_engines(chosen) and len(chosen) == len(groups_of(run.recipe)):
        for difference in environment.differences(before, now):
            warnings.warn(f"bits may differ from an uninterrupted training: {difference}", stacklevel=2)
        run.save_environment(device=now["device"])
        return [(str(name), str(reason)) for name, reason in chosen]
    engines = [
        (engine, "as asked")
        if engine != "auto"
        else choose_engine(run.vae, [run.recipe.schedule[each] for each in group], dataset)
        for group in groups_of(run.recipe)
    ]
    run.save_environment(device=now["device"], asked_engine=engine, engines=engines, data_root=_data_root())
    return engines


def _are_engines(chosen: Any) -> TypeGuard[list[tuple[str, str]]]:
    """True where a value of environment.json, which may be anything, holds engines and reasons."""
    from pyrovae.engine.choice import ENGINES

    pairs = isinstance(chosen, list) and all(isinstance(each, list) and len(each) == 2 for each in chosen)
    return pairs and all(name in ENGINES and isinstance(reason, str) for name, reason in chosen)


def _data_root() -> str | None:
    """The folder that data files are looked for in first, as a hint for other shells."""
    from pyrovae.data.published_files.sources import DATA_VARIABLE

    root = os.environ.get(DATA_VARIABLE)
    return None if root is None else str(Path(root).absolute())
