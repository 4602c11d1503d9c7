"""``pyrovae fit``: load, train, measure, draw, and leave a run folder behind."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from pyrovae.errors import InputError
from pyrovae.recipes import RECIPES, Recipe, build, build_objective, build_optimizer, load_data, recipe_of_guide, short_schedule

from . import console, options
from .evaluate import measure, summary

if TYPE_CHECKING:
    from torch import Tensor

    from pyrovae.data.batches import Batches
    from pyrovae.data.benchmarks import Dataset
    from pyrovae.inference.svi import CompiledSVI
    from pyrovae.inference.training import Epoch
    from pyrovae.programs.guides import VAE
    from pyrovae.runs import Run

TRACKED_IMAGES = 1000
PICTURED_IMAGES = 10


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
    if recipe is None:
        chosen = options.overridden(short_schedule(chosen, len(dataset.train), flags["epochs"]), flags)
    batches = dataset.train_batches(chosen.batch_size, seed=chosen.seed, binarize=False)
    vae = build(chosen, dataset)
    run = Run.create(output or new_folder("runs", f"{chosen.dataset}-{chosen.guide}"), chosen, dataset, vae)
    try:
        if not as_json:
            _announce(run, batches, short=recipe is None)
        decision = _train(run, dataset, batches, engine, quiet=as_json)
    except KeyboardInterrupt:
        console.say(f"{run.folder} holds {len(run.history)} of {chosen.epochs} epochs")
        raise
    except FloatingPointError as error:
        kept = f"{run.folder} holds {len(run.history)} of {chosen.epochs} epochs"
        raise InputError(f"{error}; {kept}: try a lower --learning-rate") from error
    results = measure(run, dataset, samples, quiet=as_json)
    run.save_evaluation(results)
    pictures = _draw(run, dataset)
    if as_json:
        console.print_json(results | {"run": str(run.folder)})
    else:
        trained = f"{len(run.history)} epochs in {console.duration(sum(row['seconds'] for row in run.history))}; {decision}"
        rows = summary(results) | {"training": trained, "pictures": ", ".join(pictures), "run folder": str(run.folder)}
        console.show(rows, title=f"{chosen.guide} on {dataset.name}, {chosen.epochs} epochs")


def _chosen(recipe: str | None, flags: dict[str, Any]) -> Recipe:
    """The recipe with the flags that were given; a short schedule comes later, when the size of the data is known."""
    if recipe is not None:
        return options.overridden(RECIPES[recipe], flags)
    default = Recipe()
    return options.overridden(replace(recipe_of_guide(flags["guide"] or default.guide), dataset=default.dataset), flags)


def _announce(run: Run, batches: Batches, *, short: bool) -> None:
    """What is about to be trained, and how long it will take."""
    recipe = run.recipe
    seconds = _seconds_per_step(run.vae, recipe, batches) * len(batches) * recipe.epochs
    published = "the schedule of minutes" if short else "the schedule of the paper"
    layers = "-".join(map(str, recipe.latent_sizes))
    console.say(f"{recipe.guide} guide, latent layers {layers}, on {run.protocol}: {published}")
    console.say(
        f"{recipe.epochs} epochs of {len(batches)} steps on {batches.images.device}, warm-up {recipe.warmup_epochs:g}; "
        f"at most about {console.duration(seconds)}; writing to {run.folder}"
    )


def _seconds_per_step(vae: VAE, recipe: Recipe, batches: Batches, steps: int = 8) -> float:
    """Measured on a copy, which is thrown away."""
    import torch

    trial = copy.deepcopy(vae)
    with torch.random.fork_rng():
        svi = _svi(trial, recipe, engine="eager")
        first, *rest = islice(batches.epoch(1), steps)
        svi.step(first)
        start = time.perf_counter()
        for batch in rest:
            svi.step(batch)
    return (time.perf_counter() - start) / max(len(rest), 1)


def _svi(vae: VAE, recipe: Recipe, *, engine: str) -> CompiledSVI:
    from pyrovae.inference.steps import binarized
    from pyrovae.inference.svi import CompiledSVI
    from pyrovae.programs.conditionals import LIKELIHOODS

    # Data that are bits already stay as they are.
    transform = binarized if LIKELIHOODS[recipe.likelihood].binary else None
    optimizer, objective = build_optimizer(recipe, vae), build_objective(recipe)
    return CompiledSVI(
        vae.model, vae.guide, optimizer, objective, engine=engine, precision=recipe.precision, transform=transform
    )


def _train(run: Run, dataset: Dataset, batches: Batches, engine: str, *, quiet: bool) -> str:
    """The whole schedule; weights and history are written after every epoch. Returns what the engine was, and why."""
    import torch
    from torch.optim.swa_utils import update_bn

    from pyrovae.inference.training import fit
    from pyrovae.inference.warmup import linear_warmup

    recipe, vae = run.recipe, run.vae
    torch.manual_seed(recipe.seed)
    svi = _svi(vae.train(), recipe, engine=engine)
    svi.expect(recipe.epochs * len(batches))
    with console.meter("training", recipe.epochs * len(batches), "steps", quiet=quiet) as meter, _warnings_in_yellow():
        fit(
            svi,
            console.Watched(batches, meter.advance),
            epochs=recipe.epochs,
            kl_weight=linear_warmup(recipe.warmup_epochs),
            on_epoch=[_saved(run, *_tracked_images(dataset), note=meter.note)],
        )
    update_bn(dataset.train_batches(recipe.batch_size, seed=recipe.seed).epoch(recipe.epochs + 1), vae)
    run.save_weights()
    return svi.decision


def _saved(run: Run, key: str, images: Tensor, *, note: Callable[[str], None]) -> Callable[[Epoch], None]:
    """After each epoch: the true bound on some images, a line of history, the weights."""
    from pyrovae.evaluation.likelihood import log_likelihood

    def save(epoch: Epoch) -> None:
        elbo = log_likelihood(run.vae.model, run.vae.guide, images, num_samples=1).elbo
        run.save_weights()
        run.record(
            {
                "epoch": epoch.number,
                "loss_nats": epoch.loss,
                "kl_weight": epoch.kl_weight,
                "seconds": epoch.seconds,
                f"{key}_nats": elbo,
            }
        )
        note(f"epoch {epoch.number}, {key.replace('_', ' ')} {elbo:.2f} nats per image")

    return save


def _tracked_images(dataset: Dataset) -> tuple[str, Tensor]:
    """The images that the bound is followed on, never those of the test, and what the bound is called in the history."""
    import torch

    if dataset.valid is not None:
        return "valid_elbo", dataset.valid[:TRACKED_IMAGES]
    images = dataset.train[:TRACKED_IMAGES]
    if dataset.binarize:
        images = torch.bernoulli(images, generator=torch.Generator(images.device).manual_seed(0))
    return "train_elbo", images


class _warnings_in_yellow(warnings.catch_warnings):  # noqa: N801 - used as a context
    """Warnings of the library as a line in yellow."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_, **__: console.say(f"warning: {message}", fg="yellow")


def _mean_images(trace: Any) -> Tensor:
    return trace.nodes["x"]["fn"].mean


def _draw(run: Run, dataset: Dataset) -> list[str]:
    """Reconstructions, samples and the course of the bound."""
    import torch
    from pyro import poutine

    from pyrovae import plots
    from pyrovae.inference.capture import evaluation_mode
    from pyrovae.programs.priors import VampPrior

    model, guide = run.vae.model, run.vae.guide
    spread = torch.linspace(0, len(dataset.test) - 1, PICTURED_IMAGES).long()
    originals = dataset.test[spread.to(dataset.test.device)]
    with evaluation_mode():
        posterior = poutine.trace(guide).get_trace(originals)
        reconstructed = poutine.trace(poutine.replay(model, trace=posterior)).get_trace(originals)
        drawn = poutine.trace(model).get_trace(batch_size=PICTURED_IMAGES**2)
    means, samples = (_mean_images(trace).cpu().numpy() for trace in (reconstructed, drawn))
    bound = next(key for key in run.history[-1] if key.endswith("elbo_nats"))
    figures = {
        "reconstructions": plots.reconstructions(originals.cpu().numpy(), means, run.shape),
        "samples": plots.image_grid(samples, run.shape, columns=PICTURED_IMAGES, title="samples (means of p(x|z))"),
        "bound": plots.training_curve(run.history, bound),
    }
    if isinstance(model.prior, VampPrior):
        pseudo_inputs = model.prior.pseudo_inputs().detach()[: PICTURED_IMAGES**2].cpu().numpy()
        figures["pseudo_inputs"] = plots.image_grid(pseudo_inputs, run.shape, columns=PICTURED_IMAGES, title="pseudo-inputs")
    return [run.save_figure(name, figure).name for name, figure in figures.items()]
