"""The progress of experiments: what is at hand, and the approximate time of the rest on this machine; reads no data."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pyrovae.data.benchmarks import DATASETS
from pyrovae.errors import InputError
from pyrovae.experiments.comparison import recipe_in
from pyrovae.experiments.evaluations import Evaluation
from pyrovae.experiments.papers.experiment import SUBSTITUTES
from pyrovae.experiments.papers.members import RUNS
from pyrovae.experiments.papers.planning import MINUTES, plan_in, plans_beside
from pyrovae.experiments.papers.schedules import shorten_recipe
from pyrovae.experiments.papers.table import PAPERS
from pyrovae.experiments.papers.writing import known_outcome
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.summaries import duration

# The forward pass, and twice that for the backward pass; a multiplication and an addition each.
OPERATIONS_PER_WEIGHT = 6
TIMED_STEPS = 20


@dataclass(frozen=True)
class Progress:
    """The progress of an experiment.

    Args:
        shows: what it shows, in a line.
        trainings: the number of trainings that it needs.
        done: the number of those that are trained and measured.
        is_made: whether its table is made.
        full_seconds: the approximate time of the paper's whole schedule here, one training after the other, without measuring.
    """

    shows: str
    trainings: int
    done: int
    is_made: bool
    full_seconds: float

    @property
    def at_hand(self) -> str:
        """The parts that are there, in words."""
        made = "made" if self.is_made else "not made"
        return f"{made}, {self.done} of {self.trainings} trainings" if self.trainings else made

    @property
    def time_left(self) -> str:
        """The approximate time of the rest of the default schedule, in words."""
        if self.is_made:
            return "nothing"
        share = 1 - self.done / self.trainings if self.trainings else 0.05
        return f"about {duration(60 * math.ceil(MINUTES * share)) if share else 'a minute'}"

    @property
    def full_time(self) -> str:
        """The approximate time of the paper's whole schedule, in words."""
        return f"about {duration(60 * math.ceil(self.full_seconds / 60))}" if self.trainings else ""

    def as_dict(self) -> dict[str, Any]:
        """The fields as a dictionary."""
        return asdict(self)


def progress_of(name: str, folder: Path, speed: float) -> Progress:
    """Find the progress of an experiment in a folder.

    Args:
        name: a name of ``PAPERS``.
        folder: the folder of the experiment, with its runs beside it.
        speed: the speed of this machine: see ``speed_here``.
    """
    experiment = PAPERS[name]
    recipes, done = list(experiment.recipes.values()), 0
    try:
        own = plan_in(folder)
    except InputError:
        own = None
    if recipes:
        finished = _finished(folder.parent / RUNS)
        plans = [own] if own else list(plans_beside(folder))
        shares = {plan.epochs / PAPERS[plan.experiment].epochs for plan in plans if _has_recipes(plan.experiment)}
        done = max((sum(_is_among(shorten_recipe(each, share), finished) for each in recipes) for share in shares), default=0)
    known = known_outcome(folder)
    is_made = known is not None and not known.missing and (own is None or known.epochs == own.epochs or not recipes)
    seconds = sum(operations(recipe) for recipe in recipes) / speed
    return Progress(experiment.shows, len(recipes), done, is_made, seconds)


def _has_recipes(name: str) -> bool:
    return name in PAPERS and bool(PAPERS[name].recipes)


def _finished(runs: Path) -> list[Recipe]:
    """The recipes of the runs that were trained and measured."""
    found = []
    for folder in sorted(runs.glob("*")):
        try:
            recipe, evaluation = recipe_in(folder), Evaluation.load(folder)
        except InputError:
            continue
        if evaluation.epochs == recipe.total_epochs:
            found.append(recipe)
    return found


def _is_among(recipe: Recipe, finished: list[Recipe]) -> bool:
    """True where a run has this recipe, apart from settings that are left to the data and from substitutes for data."""
    names = {recipe.dataset, SUBSTITUTES.get(recipe.dataset, recipe.dataset)}
    return any(
        each.dataset in names and not replace(each, dataset=recipe.dataset, likelihood=recipe.likelihood).differences(recipe)
        for each in finished
    )


def speed_here() -> float:
    """Measure the operations a second of a plain training step of the size of a ladder's lowest layer."""
    import torch
    from torch import nn

    layers = nn.Sequential(nn.Linear(784, 512), nn.LeakyReLU(0.1), nn.Linear(512, 512), nn.LeakyReLU(0.1), nn.Linear(512, 784))
    optimizer = torch.optim.Adam(layers.parameters())
    x = torch.rand(256, 784, generator=torch.Generator().manual_seed(0))
    weights = sum(each.numel() for each in layers.parameters())
    seconds = []
    for _ in range(TIMED_STEPS):
        start = time.perf_counter()
        optimizer.zero_grad()
        nn.functional.mse_loss(layers(x), x).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    return OPERATIONS_PER_WEIGHT * weights * len(x) / min(seconds[1:])


def operations(recipe: Recipe) -> float:
    """The approximate number of operations of a training's matrix products."""
    known = DATASETS[recipe.dataset]
    pixels, images = math.prod(known.shape), known.sizes[0]
    encoder, decoder = _weights(recipe, pixels)
    total = 0.0
    for stage in recipe.schedule:
        samples = stage.num_particles * stage.num_averages
        per_image = encoder + samples * decoder
        if recipe.prior == "vamp":
            per_image += encoder * recipe.num_components / stage.batch_size
        total += OPERATIONS_PER_WEIGHT * stage.epochs * images * per_image
    return total


def _weights(recipe: Recipe, pixels: int) -> tuple[float, float]:
    """The numbers of weights of the networks towards the latents, and towards the data."""
    encoder = decoder = 0.0
    below = pixels
    for hidden, latent in zip(recipe.hidden_sizes, recipe.latent_sizes or (0,), strict=True):
        inner = (recipe.hidden_layers - 1) * hidden**2
        of_guide = ((recipe.encoder_layers or recipe.hidden_layers) - 1) * hidden**2
        encoder += below * hidden + of_guide + 2 * hidden * latent
        decoder += latent * hidden + inner + hidden * below
        below = hidden if recipe.guide == "ladder" else latent
    return encoder, decoder
