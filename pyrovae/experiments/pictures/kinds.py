"""``KINDS``: every picture of runs, with what it shows, how to read it, and what it needs.

``KINDS[name].draw(views)`` draws it. A new picture is a function in this folder and a line in the table: the command line, the
report and the tests read it from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyrovae.experiments.pictures import courses, drawings, needs
from pyrovae.experiments.pictures.needs import Need, anything
from pyrovae.experiments.pictures.views import View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Draw = Callable[[Sequence[View]], "Figure"]


@dataclass(frozen=True)
class Kind:
    """A picture of one run or of several.

    Args:
        draw: the function from the views of runs that meet all needs to the figure.
        shows: what it shows, in a line.
        reading: how to read it, in a sentence or two.
        source: the paper with such figures.
        needs: the needs that each run must meet.
        together: the need that all these runs must meet together.
        is_grid: whether it consists of images, for which vector files are no better.
        is_usual: whether ``fit`` draws it.
    """

    draw: Draw
    shows: str
    reading: str
    source: str
    needs: tuple[Need, ...]
    together: Callable[[Sequence[View]], str] = anything
    is_grid: bool = False
    is_usual: bool = False


_LADDER, _ACTIVITY, _PROJECT = "Sønderby et al. 2016", "Bettencourt and Craddock", "VAE with a VampPrior, project"

KINDS: dict[str, Kind] = {
    "learning-curves": Kind(
        courses.learning_curves,
        "the bound that was trained at every epoch, and the weight of the latent terms",
        "Higher is better. A dashed line far above its solid one shows a model that learns its training images by heart.",
        f"{_ACTIVITY}, figures 2.1 to 2.5; {_LADDER}, figure 3",
        (needs.a_bound_at_every_epoch,),
        is_usual=True,
    ),
    "active-units": Kind(
        courses.active_units,
        "how many latent units are active at every epoch",
        "A unit is active where its posterior mean varies over images by more than a threshold. Other units carry nothing.",
        f"{_ACTIVITY}, figures 3.1 and 3.2",
        (needs.units_at_every_epoch("activity_by_unit", "activity"),),
        is_usual=True,
    ),
    "activity-heat-map": Kind(
        courses.activity_heat_map,
        "the activity of each latent unit at every epoch",
        "A row is a unit. Units that darken are given up; a unit that was given up seldom comes back.",
        f"{_ACTIVITY}, figure 3.3",
        (needs.units_at_every_epoch("activity_by_unit", "activity"),),
    ),
    "kl-heat-map": Kind(
        courses.divergence_heat_map,
        "the KL of each latent unit at every epoch, a panel for each layer",
        "A row is a unit. A dark unit costs nothing and says nothing: its posterior is its prior. Under a mixture as "
        "prior no unit of the top layer has a KL of its own.",
        f"{_LADDER}, figure 4",
        (needs.a_divergence_of_units, needs.units_at_every_epoch("kl_by_unit", "KL")),
        is_usual=True,
    ),
    "kl-bars": Kind(
        courses.divergence_bars,
        "the KL of each layer on the test images",
        "The nats per image that each layer spends. A layer near zero is not used.",
        f"{_LADDER}, figure 5",
        (needs.latents, needs.an_evaluation),
    ),
    "by-depth": Kind(
        courses.by_depth,
        "bound and log-likelihood by the number of latent layers",
        "Intervals are two standard errors over test images. Higher is better.",
        f"{_LADDER}, figures 3, 7 and 8",
        (needs.latents, needs.an_evaluation),
        needs.different_depths,
    ),
    "projections": Kind(
        drawings.projections,
        "draws of each layer's posterior along two principal components, by class",
        "Classes that lie apart are distinguished by the layer, though no class was used in the training. The share of each "
        "component in the variance is in brackets.",
        f"{_LADDER}, figure 6",
        (needs.latents,),
        needs.of_one_kind,
    ),
    "encodings": Kind(
        drawings.encodings,
        "where test images lie in a latent space of two units, by class",
        "Classes that lie over each other are mistaken for each other when they are reconstructed.",
        f"{_ACTIVITY}, figure 4.2",
        (needs.a_plane_of_latents,),
        needs.of_one_kind,
    ),
    "manifold": Kind(
        drawings.manifold,
        "images at the points of a lattice over a latent space of two units",
        "The points are equal quantiles of the prior: all images stand for the same share of it.",
        f"{_ACTIVITY}, figure 4.3",
        (needs.images, needs.a_plane_of_latents, needs.a_standard_normal_prior, needs.no_condition),
        needs.of_one_kind,
        is_grid=True,
    ),
    "reconstructions": Kind(
        drawings.reconstructions,
        "test images and their reconstructions",
        "The means of p(x | z) at one draw of the posterior. Details that are lost here are not in the latent.",
        f"{_ACTIVITY}, figure 4.1",
        (needs.images, needs.latents),
        needs.of_one_kind,
        is_grid=True,
        is_usual=True,
    ),
    "samples": Kind(
        drawings.samples,
        "images that the model draws",
        "The means of p(x | z) at draws of the prior. No image of the data has been used.",
        "Doersch 2016, figure 7",
        (needs.images, needs.no_condition),
        needs.of_one_kind,
        is_grid=True,
        is_usual=True,
    ),
    "images": Kind(
        drawings.images,
        "data, reconstructions and samples side by side",
        "A model whose reconstructions are good and whose samples are not has a prior that does not fit its posteriors.",
        f"{_PROJECT}, figure 8; {_LADDER}, figures 9 and 10",
        (needs.images, needs.latents, needs.no_condition),
        is_grid=True,
    ),
    "by-components": Kind(
        courses.by_components,
        "the log-likelihood by the number of pseudo-inputs",
        "Intervals are two standard errors over test images. Higher is better.",
        f"{_PROJECT}, figure 5",
        (needs.a_prior_of_pseudo_inputs, needs.values_of_each_image("log_likelihood")),
        needs.different_numbers_of_components,
    ),
    "log-likelihoods": Kind(
        courses.log_likelihoods,
        "the log-likelihood of each test image",
        "Further right is better. Dashed lines are the means; the tail to the left holds the images that are unlikely.",
        f"{_PROJECT}, figure 6",
        (needs.values_of_each_image("log_likelihood"),),
        needs.comparable,
        is_usual=True,
    ),
    "pseudo-inputs": Kind(
        drawings.pseudo_inputs,
        "the pseudo-inputs that the prior is a mixture over",
        "The prior is the mean of their posteriors. They look like typical images where they have found groups in the data.",
        f"{_PROJECT}, figure 7",
        (needs.images, needs.a_prior_of_pseudo_inputs),
        needs.of_one_kind,
        is_grid=True,
        is_usual=True,
    ),
    "completions": Kind(
        drawings.completions,
        "the context of a conditional model, its draws, and the image",
        "A column is an image. Draws that differ show what the model does not know; a regressor blurs it.",
        "Doersch 2016, figure 8",
        (needs.images, needs.a_condition),
        needs.of_one_kind,
        is_grid=True,
        is_usual=True,
    ),
    "interpolations": Kind(
        drawings.interpolations,
        "from one test image to another through the latent space",
        "Each step should look like data. Ghosts of both images at once mean that the space between them is empty.",
        "ours",
        (needs.images, needs.latents, needs.no_condition),
        needs.of_one_kind,
        is_grid=True,
    ),
    "traversals": Kind(
        drawings.traversals,
        "one latent unit moved over its range",
        "All other units of its layer and the layers above are those of an image, the layers below are at their means. Numbers "
        "are standard deviations of the unit over test images. A row that does not change is a unit that does nothing.",
        "ours",
        (needs.images, needs.latents),
        needs.of_one_kind,
        is_grid=True,
    ),
    "layers": Kind(
        drawings.layers,
        "what each layer decides",
        "The layers above the one drawn are those of the image, the ones below are at their means. A row that does not vary "
        "leaves nothing for that layer to decide.",
        "ours",
        (needs.images, needs.several_layers),
        needs.of_one_kind,
        is_grid=True,
    ),
    "sampled-curve": Kind(
        courses.sampled_curve,
        "the importance-sampled bound against the number of samples, with annealed bounds",
        "A curve that still rises at its end is a figure that is too low. The band holds log p(x) as far as images that the "
        "model drew are like the test images.",
        "ours",
        (needs.several_samples, needs.values_of_each_image("log_likelihood")),
    ),
    "tail-shapes": Kind(
        courses.tail_shapes,
        "how heavy the tails of the importance weights of each test image are",
        "Images above the line may be estimated too low, by an amount that the samples do not show.",
        "ours",
        (needs.several_samples, needs.values_of_each_image("pareto_k")),
    ),
    "extremes": Kind(
        drawings.extremes,
        "the test images that the model finds most and least likely",
        "The lowest are images that the model does not expect: unusual images, or a poor model.",
        "ours",
        (needs.images, needs.values_of_each_image("log_likelihood")),
        needs.of_one_kind,
        is_grid=True,
        is_usual=True,
    ),
}
