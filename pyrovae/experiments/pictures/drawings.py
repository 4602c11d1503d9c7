"""Pictures of images drawn by programs, and of the places of images in the latent space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pyrovae.experiments.pictures.views import SCATTERED, SHOWN, View
from pyrovae.plots import embeddings
from pyrovae.plots.images import image_panels, image_rows
from pyrovae.programs.priors import VampPrior

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 20
TRAVERSED, STEPS, DEVIATIONS = 8, 9, 3.0


def reconstructions(views: Sequence[View]) -> Figure:
    """Draw test images, and beneath them the reconstructions of each run."""
    first = views[0]
    rows = {"test images": first.test[0].cpu().numpy()}
    rows |= {view.name if len(views) > 1 else "reconstructed": view.reconstruct(*view.test) for view in views}
    return image_rows(rows, first.run.shape)


def samples(views: Sequence[View]) -> Figure:
    """Draw samples of each run: the means of p(x | z) at draws of the prior."""
    panels = {view.name if len(views) > 1 else "samples": view.decode({}, rows=SHOWN**2) for view in views}
    return image_panels({"": panels}, {"": views[0].run.shape}, columns=SHOWN)


def images(views: Sequence[View]) -> Figure:
    """Draw data, reconstructions and samples side by side, a row for each run."""
    rows, shapes = {}, {}
    for view in views:
        x, context = view.some_images(36)
        name = view.name if len(views) > 1 else ""
        shapes[name] = view.run.shape
        rows[name] = {
            "data": x.cpu().numpy(),
            "reconstructions": view.reconstruct(x, context),
            "samples": view.decode({}, rows=36),
        }
    return image_panels(rows, shapes, columns=6)


def completions(views: Sequence[View]) -> Figure:
    """Draw the context of an image, draws given this context, and the image: a column for each image."""
    first = views[0]
    x, context = first.test
    condition = first.dataset.condition
    assert context is not None
    assert condition is not None
    rows: dict[str, Any] = {"context": condition.pixels(context).cpu().numpy()}
    for view in views:
        if view.run.recipe.latent_sizes:
            drawn = 1 if len(views) > 3 else 4
            rows |= {f"{view.name} {number}": view.decode({}, context) for number in range(1, drawn + 1)}
        else:
            rows[view.name] = view.decode({}, context)
    rows["truth"] = x.cpu().numpy()
    return image_rows(rows, first.run.shape, title="context, draws (means of p(x | z, c)), and truth")


def pseudo_inputs(views: Sequence[View]) -> Figure:
    """Draw the pseudo-inputs of the prior."""
    panels = {}
    for view in views:
        pixels = int(np.prod(view.run.shape))
        prior = view.run.vae.model.prior
        assert isinstance(prior, VampPrior)
        inputs = prior.pseudo_inputs()[: SHOWN**2, :pixels]
        panels[view.name if len(views) > 1 else "pseudo-inputs"] = inputs.detach().cpu().numpy()
    return image_panels({"": panels}, {"": views[0].run.shape}, columns=SHOWN)


def projections(views: Sequence[View]) -> Figure:
    """Plot draws of each layer of the guide along two principal components, by class."""
    points = {view.name: _points(view) for view in views}
    return embeddings.projections(points, views[0].classes(SCATTERED))


def encodings(views: Sequence[View]) -> Figure:
    """Plot draws of a latent of two units, by class."""
    return embeddings.encodings({view.name: _points(view)["z1"] for view in views}, views[0].classes(SCATTERED))


def _points(view: View) -> dict[str, Any]:
    drawn = view.posterior(*view.some_images(SCATTERED))
    return {layer: drawn[layer].double().cpu().numpy() for layer in reversed(view.layers)}


def manifold(views: Sequence[View]) -> Figure:
    """Draw images at the points of a lattice over a latent of two units."""
    panels = {}
    for view in views:
        points = torch.tensor(embeddings.lattice(SIDE)[0], dtype=torch.float32, device=view.dataset.test.device)
        panels[view.name] = view.decode({"z1": points})
    return embeddings.manifold(panels, views[0].run.shape)


def interpolations(views: Sequence[View]) -> Figure:
    """Draw the way from one test image to another through the latents of both, in equal steps, all layers together."""
    rows = {}
    for view in views:
        x, context = view.some_images(6)
        latents = view.posterior(x, context)
        weights = torch.linspace(0, 1, STEPS, device=x.device)[:, None]
        for one, other in ((0, 1), (2, 3), (4, 5)):
            if other >= len(x):
                continue
            between = {name: torch.lerp(each[one], each[other], weights) for name, each in latents.items()}
            contexts = None if context is None else context[one].expand(STEPS, -1)
            drawn = view.decode(between, contexts)
            ends = x[[one, other]].cpu().numpy()
            rows[f"{view.name}, {one + 1} to {other + 1}"] = np.concatenate([ends[:1], drawn, ends[1:]])
    above = ["image", *(f"{share:.0%}" for share in np.linspace(0, 1, STEPS)), "image"]
    return image_rows(rows, views[0].run.shape, above=above)


def traversals(views: Sequence[View]) -> Figure:
    """Draw an image while one latent unit moves over its range, with lower layers at their means; most active units first."""
    rows = {}
    for view in views:
        x, context = view.some_images(SCATTERED // 4)
        latents = view.posterior(x, context)
        base = {name: each[:1] for name, each in latents.items()}
        contexts = None if context is None else context[:1].expand(STEPS, -1)
        steps = torch.linspace(-DEVIATIONS, DEVIATIONS, STEPS, device=x.device)
        for layer, unit in _most_active(view, max(2, TRAVERSED // len(views))):
            spread = latents[layer][:, unit]
            moved = base[layer].repeat(STEPS, 1)
            moved[:, unit] = spread.mean() + steps * spread.std()
            above = view.layers[: view.layers.index(layer)]
            given = {name: base[name].expand(STEPS, -1) for name in above} | {layer: moved}
            name = f"{layer}, unit {unit + 1}"
            rows[name if len(views) == 1 else f"{view.name}: {name}"] = view.decode(given, contexts, at_means=True)
    above = [f"{each:+.1f}" for each in np.linspace(-DEVIATIONS, DEVIATIONS, STEPS)]
    return image_rows(rows, views[0].run.shape, above=above)


def _most_active(view: View, number: int) -> list[tuple[str, int]]:
    found = [(value, layer, unit) for layer, each in view.activity.items() for unit, value in enumerate(each.tolist())]
    return [(layer, unit) for _, layer, unit in sorted(found, key=lambda each: -each[0])[:number]]


def layers(views: Sequence[View]) -> Figure:
    """Draw one layer at a time: higher layers are those of an image, lower layers are at their means."""
    rows = {}
    for view in views:
        x, context = view.some_images(1)
        latents = view.posterior(x, context)
        contexts = None if context is None else context.expand(STEPS, -1)
        for number, layer in enumerate(view.layers):
            kept = {name: latents[name].expand(STEPS, -1) for name in view.layers[:number]}
            drawn = view.draw_layer(layer, kept, contexts, STEPS)
            images = view.decode(kept | {layer: drawn}, contexts, at_means=True)
            own = view.decode({**kept, layer: latents[layer].expand(STEPS, -1)}, contexts, at_means=True)[:1]
            name = f"{layer} drawn" if len(views) == 1 else f"{view.name}: {layer} drawn"
            rows[name] = np.concatenate([x.cpu().numpy(), own, images])
    above = ["image", "its own", *([""] * STEPS)]
    return image_rows(rows, views[0].run.shape, above=above)


def extremes(views: Sequence[View]) -> Figure:
    """Draw the test images of the highest and of the lowest log-likelihood."""
    rows, after = {}, {}
    for view in views:
        assert view.evaluation is not None
        values = view.evaluation.per_image["log_likelihood"]
        # Values that are not finite have no order.
        order = np.argsort(values, kind="stable")
        order = order[np.isfinite(values[order])]
        for name, places in (("highest", order[::-1][:SHOWN]), ("lowest", order[:SHOWN])):
            title = name if len(views) == 1 else f"{view.name}: {name}"
            rows[title] = view.rows(torch.tensor(places.copy(), device=view.dataset.test.device))[0].cpu().numpy()
            after[title] = [f"{values[place]:.0f}" for place in places]
    return image_rows(rows, views[0].run.shape, title="log p(x) of each image, in nats", after=after)
