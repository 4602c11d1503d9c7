"""The pictures that ``pyrovae fit`` leaves in a run folder."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from pyrovae.data.datasets import Dataset
    from pyrovae.runs import Run

PICTURED_IMAGES = 10


def draw(run: Run, dataset: Dataset) -> list[str]:
    """Reconstructions, samples and the course of the bound; what a prior or a condition adds. Returns the files' names.

    Of a table, whose rows are no images, the course of the bound alone.
    """
    from pyrovae import plots
    from pyrovae.engine.modules import evaluation_mode

    bound = next(key for key in run.history[-1] if key.endswith("elbo_nats"))
    figures = {"bound": plots.training_curve(run.history, bound)}
    is_table = run.shape[1] == 1
    if not is_table:
        with evaluation_mode():
            figures |= _reconstructions(run, dataset) | _pseudo_inputs(run)
            figures |= _samples(run) if dataset.condition is None else _completions(run, dataset)
    if run.history[-1].get("kl_by_layer"):
        figures["activity"] = plots.activity_curves(run.history)
    return [run.save_figure(name, figure).name for name, figure in figures.items()] + draw_histogram(run)


def draw_histogram(run: Run, other: str = "") -> list[str]:
    """Of the log-likelihoods in the last evaluation, with those of another dataset over them. Returns the file's name."""
    from pyrovae import plots
    from pyrovae.errors import InputError
    from pyrovae.runs import Evaluation

    values = {}
    for dataset in dict.fromkeys(("", other)):
        # One without values for each image is left out: a loss that is no density, an evaluation that was never made.
        with suppress(InputError, KeyError):
            values[dataset or run.recipe.dataset] = Evaluation.load(run.folder, dataset).per_image["log_likelihood"]
    name = f"histogram-{Path(other).stem}" if other else "histogram"
    return [run.save_figure(name, plots.histogram(values)).name] if values else []


def _shown(dataset: Dataset) -> tuple[Tensor, Tensor | None]:
    """A few test images, spread over the set, and their contexts."""
    import torch

    chosen = torch.linspace(0, len(dataset.test) - 1, PICTURED_IMAGES, device=dataset.test.device).long()
    contexts = dataset.contexts.get("test")
    return dataset.test[chosen], None if contexts is None else contexts[chosen]


def _means(trace: Any) -> Tensor:
    return trace.nodes["x"]["fn"].mean


def _reconstructions(run: Run, dataset: Dataset) -> dict[str, Figure]:
    from pyro import poutine

    from pyrovae import plots

    originals, context = _shown(dataset)
    posterior = poutine.trace(run.vae.guide).get_trace(originals, context)
    means = _means(poutine.trace(poutine.replay(run.vae.model, trace=posterior)).get_trace(originals, context))
    return {"reconstructions": plots.reconstructions(originals.cpu().numpy(), means.cpu().numpy(), run.shape)}


def _samples(run: Run) -> dict[str, Figure]:
    from pyro import poutine

    from pyrovae import plots

    drawn = _means(poutine.trace(run.vae.model).get_trace(batch_size=PICTURED_IMAGES**2)).cpu().numpy()
    title = "samples (means of p(x|z))"
    return {"samples": plots.image_grid(drawn, run.shape, columns=PICTURED_IMAGES, title=title)}


def _completions(run: Run, dataset: Dataset) -> dict[str, Figure]:
    from pyro import poutine

    from pyrovae import plots

    originals, context = _shown(dataset)
    assert context is not None
    assert dataset.condition is not None
    repeated = context.repeat_interleave(PICTURED_IMAGES - 2, 0)
    drawn = run.vae.model.completed(_means(poutine.trace(run.vae.model).get_trace(context=repeated)), repeated)
    drawn = drawn.reshape(len(context), -1, drawn.shape[-1])
    rows = (each.cpu().numpy() for each in (dataset.condition.pictured(context), drawn, originals))
    return {"completions": plots.completions(*rows, shape=run.shape)}


def _pseudo_inputs(run: Run) -> dict[str, Figure]:
    from pyrovae import plots
    from pyrovae.programs.priors import VampPrior

    prior = run.vae.model.prior
    if not isinstance(prior, VampPrior):
        return {}
    pixels = run.shape[0] * run.shape[1] * run.shape[2]
    images = prior.pseudo_inputs()[: PICTURED_IMAGES**2, :pixels].cpu().numpy()
    return {"pseudo_inputs": plots.image_grid(images, run.shape, columns=PICTURED_IMAGES, title="pseudo-inputs")}
