"""The pictures of a trained VAE: reconstructions, samples, and the course of its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrovae.errors import InputError
from pyrovae.experiments.measuring import Evaluation, file_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from pyrovae.data.datasets import Dataset
    from pyrovae.programs.guides import VAE

PICTURED_IMAGES = 10
Shape = tuple[int, int, int]


def pictures_of(vae: VAE, history: Sequence[Mapping[str, Any]], shape: Shape, dataset: Dataset) -> dict[str, Figure]:
    """Reconstructions, samples and the course of the bound, by name; what a prior or a condition adds.

    Of a table, whose rows are no images, the course of the bound alone.
    """
    from pyrovae import plots
    from pyrovae.engine.modules import evaluation_mode

    figures = {}
    if history:
        # Whatever a folder holds: a history of other keys has no curve.
        bound = next((key for key in history[-1] if key.endswith("elbo_nats")), None)
        if bound is not None and all(bound in row for row in history):
            figures["bound"] = plots.training_curve(history, bound)
    if shape[1] > 1:
        with evaluation_mode():
            figures |= _reconstructions(vae, shape, dataset) | _pseudo_inputs(vae, shape)
            figures |= _samples(vae, shape) if dataset.condition is None else _completions(vae, shape, dataset)
    if history and history[-1].get("kl_by_layer"):
        figures["activity"] = plots.activity_curves(history)
    return figures


def histogram_of(folder: Path, own: str, other: str = "") -> dict[str, Figure]:
    """The log-likelihoods in the last evaluation, with those of another dataset over them, by name.

    Args:
        folder: of the run.
        own: the name of its dataset.
        other: the name of another dataset.
    """
    from pyrovae import plots

    values = {}
    for dataset in dict.fromkeys(("", other)):
        # One without values for each image is left out: a loss that is no density, an evaluation that was never made.
        with suppress(InputError, KeyError):
            # The folders of a path are nobody's matter.
            values[Path(dataset or own).name] = Evaluation.load(folder, dataset).per_image["log_likelihood"]
    name = f"histogram-{file_name(other)}" if other else "histogram"
    return {name: plots.histogram(values)} if values else {}


def _shown(dataset: Dataset) -> tuple[Tensor, Tensor | None]:
    """A few test images, spread over the set, and their contexts."""
    import torch

    chosen = torch.linspace(0, len(dataset.test) - 1, PICTURED_IMAGES, device=dataset.test.device).long()
    contexts = dataset.contexts.get("test")
    return dataset.test[chosen], None if contexts is None else contexts[chosen]


def _means(trace: Any) -> Tensor:
    return trace.nodes["x"]["fn"].mean


def _reconstructions(vae: VAE, shape: Shape, dataset: Dataset) -> dict[str, Figure]:
    from pyro import poutine

    from pyrovae import plots

    originals, context = _shown(dataset)
    posterior = poutine.trace(vae.guide).get_trace(originals, context)
    means = _means(poutine.trace(poutine.replay(vae.model, trace=posterior)).get_trace(originals, context))
    return {"reconstructions": plots.reconstructions(originals.cpu().numpy(), means.cpu().numpy(), shape)}


def _samples(vae: VAE, shape: Shape) -> dict[str, Figure]:
    from pyro import poutine

    from pyrovae import plots

    drawn = _means(poutine.trace(vae.model).get_trace(batch_size=PICTURED_IMAGES**2)).cpu().numpy()
    title = "samples (means of p(x|z))"
    return {"samples": plots.image_grid(drawn, shape, columns=PICTURED_IMAGES, title=title)}


def _completions(vae: VAE, shape: Shape, dataset: Dataset) -> dict[str, Figure]:
    from pyro import poutine

    from pyrovae import plots

    originals, context = _shown(dataset)
    assert context is not None
    assert dataset.condition is not None
    repeated = context.repeat_interleave(PICTURED_IMAGES - 2, 0)
    drawn = vae.model.completed(_means(poutine.trace(vae.model).get_trace(context=repeated)), repeated)
    drawn = drawn.reshape(len(context), -1, drawn.shape[-1])
    rows = (each.cpu().numpy() for each in (dataset.condition.pictured(context), drawn, originals))
    return {"completions": plots.completions(*rows, shape=shape)}


def _pseudo_inputs(vae: VAE, shape: Shape) -> dict[str, Figure]:
    from pyrovae import plots
    from pyrovae.programs.priors import VampPrior

    prior = vae.model.prior
    if not isinstance(prior, VampPrior):
        return {}
    pixels = shape[0] * shape[1] * shape[2]
    images = prior.pseudo_inputs()[: PICTURED_IMAGES**2, :pixels].cpu().numpy()
    return {"pseudo_inputs": plots.image_grid(images, shape, columns=PICTURED_IMAGES, title="pseudo-inputs")}
