"""How much of each experiment is at hand, and about how long the rest takes on this machine; without reading any data."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pyrovae.data.benchmarks import DATASETS
from pyrovae.errors import InputError
from pyrovae.experiments.comparison import recipe_in
from pyrovae.experiments.measuring import Evaluation
from pyrovae.experiments.papers.experiment import SUBSTITUTES
from pyrovae.experiments.papers.members import RUNS
from pyrovae.experiments.papers.planning import MINUTES, plan_in, plans_beside
from pyrovae.experiments.papers.schedules import shortened
from pyrovae.experiments.papers.table import PAPERS
from pyrovae.experiments.papers.writing import known_outcome
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.summaries import duration

# Forward, and twice that backward; a multiplication and an addition each.
OPERATIONS_PER_WEIGHT = 6
TIMED_STEPS = 20


@dataclass(frozen=True)
class Progress:
    """How far an experiment is.

    Args:
        shows: what it shows.
        trainings: that it needs.
        done: of them, trained and measured.
        is_made: whether its table is.
        full_seconds: about what the paper's whole schedule takes here, one training after the other, measuring left out.
    """

    shows: str
    trainings: int
    done: int
    is_made: bool
    full_seconds: float

    @property
    def at_hand(self) -> str:
        """In words, what is there."""
        made = "made" if self.is_made else "not made"
        return f"{made}, {self.done} of {self.trainings} trainings" if self.trainings else made

    @property
    def left(self) -> str:
        """In words, about how long the rest of the default schedule takes."""
        if self.is_made:
            return "nothing"
        share = 1 - self.done / self.trainings if self.trainings else 0.05
        return f"about {duration(60 * math.ceil(MINUTES * share)) if share else 'a minute'}"

    @property
    def whole(self) -> str:
        """In words, about how long the whole schedule takes."""
        return f"about {duration(60 * math.ceil(self.full_seconds / 60))}" if self.trainings else ""

    def as_dict(self) -> dict[str, Any]:
        """The values."""
        return asdict(self)


def progress_of(name: str, folder: Path, speed: float) -> Progress:
    """How far an experiment is in a folder.

    Args:
        name: of ``PAPERS``.
        folder: of the experiment, with its runs beside it.
        speed: of this machine: see ``speed_here``.
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
        done = max((sum(_is_among(shortened(each, share), finished) for each in recipes) for share in shares), default=0)
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
    """Whether a run has this recipe, but for what is left to the data, and for data that stand in for others."""
    names = {recipe.dataset, SUBSTITUTES.get(recipe.dataset, recipe.dataset)}
    return any(
        each.dataset in names and not replace(each, dataset=recipe.dataset, likelihood=recipe.likelihood).differences(recipe)
        for each in finished
    )


def speed_here() -> float:
    """Operations a second of a plain training step of the size of a ladder's lowest layer, measured now."""
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
    """About how many operations the products of a training take."""
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
    """The weights of the networks towards the latents, and of those towards the data."""
    encoder = decoder = 0.0
    below = pixels
    for hidden, latent in zip(recipe.hidden_sizes, recipe.latent_sizes or (0,), strict=True):
        inner = (recipe.hidden_layers - 1) * hidden**2
        encoder += below * hidden + inner + 2 * hidden * latent
        decoder += latent * hidden + inner + hidden * below
        below = hidden if recipe.guide == "ladder" else latent
    return encoder, decoder
