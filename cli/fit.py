"""``pyrovae fit``: load, train, measure, draw, and leave a run folder behind."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyrovae.errors import InputError
from pyrovae.recipes import (
    RECIPES,
    build,
    build_objective,
    build_optimizer,
    load_data,
    recipe_of_guide,
    resolved,
    short_schedule,
)
from pyrovae.settings import Recipe

from . import console, options
from .evaluate import measure, summary
from .pictures import draw

if TYPE_CHECKING:
    from torch import Tensor

    from pyrovae.data.batches import Batches
    from pyrovae.data.datasets import Dataset
    from pyrovae.inference.svi import CompiledSVI
    from pyrovae.inference.training import Epoch
    from pyrovae.programs.guides import VAE
    from pyrovae.runs import Run

TRACKED_IMAGES = 1000


@click.command()
@click.option("--recipe", type=click.Choice(list(RECIPES)), help="A paper's whole training: see 'pyrovae recipes'.")
@options.recipe_flags
@click.option("--samples", type=click.IntRange(min=1), default=500, show_default=True, help="Samples per test image.")
@options.engine
@options.root
@options.device
@click.option("--output", metavar="FOLDER", help="A new folder for the run.  [default: runs/DATASET-GUIDE-N]")
@options.as_json
def fit(
    recipe: str | None,
    samples: int,
    engine: str,
    root: str | None,
    device: str | None,
    output: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Train a VAE, measure it on the test set, draw what it learned.

    --recipe NAME is a paper's whole training. Without it, --guide NAME takes the guide's published architecture with a
    schedule of minutes, on mnist-5k unless --dataset says otherwise. Each setting below replaces the recipe's.
    """
    from pyrovae.runs import Run, new_folder

    chosen = _chosen(recipe, flags)
    place = options.torch_device(device)
    dataset = load_data(chosen, root).to(place)
    chosen = resolved(chosen, dataset)
    if recipe is None:
        chosen = options.overridden(short_schedule(chosen, len(dataset.train), flags["epochs"]), flags)
    # A path is kept whole, so that the run finds its data from elsewhere.
    chosen = replace(chosen, dataset=dataset.name)
    batches = dataset.train_batches(chosen.batch_size, seed=chosen.seed, drawn=False)
    # What is refused is refused before anything is written.
    build_objective(chosen)
    if chosen.patience and dataset.valid is None:
        raise InputError(
            f"expected validation images for patience; {chosen.dataset!r} has none: use another dataset, or none of it"
        )
    vae = build(chosen, dataset)
    run = Run.create(output or new_folder("runs", f"{Path(chosen.dataset).stem}-{_kind(chosen)}"), chosen, dataset, vae)
    try:
        if not as_json:
            _announce(run, dataset, batches, short=recipe is None)
        decision = _train(run, dataset, batches, engine, quiet=as_json)
    except KeyboardInterrupt:
        console.say(f"{run.folder} holds {len(run.history)} of {chosen.epochs} epochs")
        raise
    except FloatingPointError as error:
        kept = f"{run.folder} holds {len(run.history)} of {chosen.epochs} epochs"
        raise InputError(f"{error}; {kept}: try a lower --learning-rate") from error
    results = measure(run, dataset, samples, quiet=as_json)
    run.save_evaluation(results)
    pictures = draw(run, dataset)
    if as_json:
        console.print_json(results | {"run": str(run.folder)})
    else:
        early = ", stopped early" if run.history[-1].get("stopped_early") else ""
        trained = (
            f"{len(run.history)} epochs{early} in {console.duration(sum(row['seconds'] for row in run.history))}; {decision}"
        )
        rows = summary(results) | {"training": trained, "pictures": ", ".join(pictures), "run folder": str(run.folder)}
        console.show(rows, title=f"{_kind(chosen)} on {dataset.name}, {chosen.epochs} epochs")


def _chosen(recipe: str | None, flags: dict[str, Any]) -> Recipe:
    """The recipe with the flags that were given; a short schedule comes later, when the size of the data is known."""
    if recipe is not None:
        return options.overridden(RECIPES[recipe], flags)
    default = Recipe()
    return options.overridden(replace(recipe_of_guide(flags["guide"] or default.guide), dataset=default.dataset), flags)


def _kind(recipe: Recipe) -> str:
    return recipe.guide if recipe.latent_sizes else "regressor"


def _announce(run: Run, dataset: Dataset, batches: Batches, *, short: bool) -> None:
    """What is about to be trained, and how long it will take."""
    recipe = run.recipe
    seconds = _seconds_per_step(run.vae, recipe, dataset, batches) * len(batches) * recipe.epochs
    published = "the schedule of minutes" if short else "the schedule of the paper"
    layers = "-".join(map(str, recipe.latent_sizes))
    what = f"{recipe.guide} guide, latent layers {layers}" if layers else "regressor, which has no latent"
    if dataset.found:
        console.say(f"{dataset.found}; likelihood {recipe.likelihood}")
    console.say(f"{what}, on {run.protocol}: {published}")
    console.say(
        f"{recipe.epochs} epochs of {len(batches)} steps on {batches.images.device}, warm-up {recipe.warmup_epochs:g}; "
        f"about {console.duration(seconds)} or less; writing to {run.folder}"
    )


def _seconds_per_step(vae: VAE, recipe: Recipe, dataset: Dataset, batches: Batches, steps: int = 8) -> float:
    """Measured on a copy, which is thrown away."""
    import torch

    from pyrovae.inference.training import arguments

    trial = copy.deepcopy(vae)
    with torch.random.fork_rng():
        svi = _svi(trial, recipe, dataset, engine="eager")
        first, *rest = islice(batches.epoch(1), steps)
        svi.step(*arguments(first))
        start = time.perf_counter()
        for batch in rest:
            svi.step(*arguments(batch))
    return (time.perf_counter() - start) / max(len(rest), 1)


def _svi(vae: VAE, recipe: Recipe, dataset: Dataset, *, engine: str) -> CompiledSVI:
    from pyrovae.inference.svi import CompiledSVI

    optimizer, objective = build_optimizer(recipe, vae), build_objective(recipe)
    return CompiledSVI(
        vae.model, vae.guide, optimizer, objective, engine=engine, precision=recipe.precision, transform=dataset.draw
    )


def _train(run: Run, dataset: Dataset, batches: Batches, engine: str, *, quiet: bool) -> str:
    """The whole schedule; weights and history are written after every epoch. Returns what the engine was, and why."""
    import torch

    from pyrovae.inference.training import fit, recollect_statistics
    from pyrovae.inference.warmup import WARMUPS, scaled

    recipe, vae = run.recipe, run.vae
    torch.manual_seed(recipe.seed)
    svi = _svi(vae.train(), recipe, dataset, engine=engine)
    svi.expect(recipe.epochs * len(batches))
    with console.meter("training", recipe.epochs * len(batches), "steps", quiet=quiet) as meter, _warnings_in_yellow():
        recorder = _Recorder(run, dataset, meter.note)
        fit(
            svi,
            console.Watched(batches, meter.advance),
            epochs=recipe.epochs,
            kl_weight=scaled(WARMUPS[recipe.warmup](recipe.warmup_epochs), recipe.kl_weight),
            on_epoch=[recorder],
        )
    if recorder.stopping is not None:
        recorder.stopping.restore()
    recollect_statistics(vae, dataset.train_batches(recipe.batch_size, seed=recipe.seed).epoch(recipe.epochs + 1))
    run.save_weights()
    return svi.decision


class _Recorder:
    """After each epoch: the true bound on some images, a line of history, the weights; says when to stop early."""

    def __init__(self, run: Run, dataset: Dataset, note: Callable[[str], None]) -> None:
        from pyrovae.inference.training import EarlyStopping

        self.run, self.note = run, note
        self.key, self.images, self.context = _tracked(dataset)
        self.log_jacobian = dataset.log_jacobian
        self.elbo = 0.0
        patience = run.recipe.patience
        self.stopping = EarlyStopping(run.vae, lambda: self.elbo, patience, run.recipe.kl_weight) if patience else None

    def __call__(self, epoch: Epoch) -> bool:
        from pyrovae.evaluation.likelihood import log_likelihood

        model, guide = self.run.vae.model, self.run.vae.guide
        self.elbo = log_likelihood(model, guide, self.images, num_samples=1, context=self.context).elbo + self.log_jacobian
        stop = self.stopping is not None and self.stopping(epoch)
        self.run.save_weights()
        record = {"epoch": epoch.number, "loss_nats": epoch.loss, "kl_weight": epoch.kl_weight, "seconds": epoch.seconds}
        self.run.record(record | {f"{self.key}_nats": self.elbo} | ({"stopped_early": True} if stop else {}))
        self.note(f"epoch {epoch.number}, {self.key.replace('_', ' ')} {self.elbo:.2f} nats per image")
        return stop


def _tracked(dataset: Dataset) -> tuple[str, Tensor, Tensor | None]:
    """What the bound is called in the history, and the images that it is followed on, never those of the test; contexts."""
    import torch

    if dataset.valid is not None:
        contexts = dataset.contexts.get("valid")
        return "valid_elbo", dataset.valid[:TRACKED_IMAGES], None if contexts is None else contexts[:TRACKED_IMAGES]
    generator = torch.Generator(dataset.train.device).manual_seed(0)
    drawn = dataset.draw_train(slice(TRACKED_IMAGES), generator=generator)
    return ("train_elbo", *drawn) if isinstance(drawn, tuple) else ("train_elbo", drawn, None)


class _warnings_in_yellow(warnings.catch_warnings):  # noqa: N801 - used as a context
    """Warnings of the library as a line in yellow."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_, **__: console.say(f"warning: {message}", fg="yellow")
