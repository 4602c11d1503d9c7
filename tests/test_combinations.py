"""Every prior x guide x likelihood x depth x context: it builds and trains, or is refused with the reason."""

import itertools
from dataclasses import replace

import pytest
import torch

from pyrovae.data.conditions import CONDITIONS
from pyrovae.data.datasets import Dataset
from pyrovae.data.protocol import Protocol
from pyrovae.errors import InputError
from pyrovae.experiments.building import build
from pyrovae.experiments.recipe import Recipe
from pyrovae.inference.epochs import arguments
from pyrovae.inference.objectives import ELBO
from pyrovae.inference.svi import CompiledSVI
from pyrovae.programs.architecture import NETWORKS
from pyrovae.programs.flows import POSTERIORS
from pyrovae.programs.guides import GUIDES
from pyrovae.programs.likelihoods import LIKELIHOODS
from pyrovae.programs.networks import ACTIVATIONS
from pyrovae.programs.priors import PRIORS

SHAPE = (1, 3, 4)
PROTOCOL = Protocol(dataset="grey", sizes=(32, 0, 32))
GREY = (torch.rand(32, 12, generator=torch.Generator().manual_seed(0)) * 255).round() / 255
LABELS = {"train": torch.arange(32) % 3}
SMALL = Recipe(hidden_layers=1, num_components=5, batch_norm=True, batch_size=32)


def dataset(likelihood="bernoulli", condition="none", missing=False):
    known = () if likelihood == "auto" else LIKELIHOODS[likelihood].values
    kind = next((each for each in ("counts", "mixed") if each in known), "levels")
    stored = {"levels": GREY, "counts": (9 * GREY).round(), "mixed": (3 * GREY).round().clamp(0.0, 2.0)}[kind]
    if kind == "mixed":
        stored[:, 1::5] += 0.5
        stored[:, 3::5] = stored[:, 3::5].clamp(max=1.0)
    if missing:
        stored = stored.masked_fill(torch.rand(stored.shape, generator=torch.Generator().manual_seed(1)) < 0.3, torch.nan)
    binarize = not missing and (likelihood == "auto" or "bits" in known)
    kinds = (
        tuple(("real", "positive", "count", "binary", "category")[place % 5] for place in range(12)) if kind == "mixed" else ()
    )
    names = tuple({"binary": ("0", "1"), "category": ("a", "b", "c")}.get(each, ()) for each in kinds)
    more = {"values": kind, "kinds": kinds, "categories": names, "missing": missing}
    shape = (1, 1, 12) if kind == "mixed" else SHAPE
    data = Dataset("grey", stored, None, stored, LABELS, shape, PROTOCOL, binarize, CONDITIONS[condition](shape, 3), **more)
    return replace(data, values="bits", train=data.train.round()) if missing and "bits" in known else data


def recipe(guide, depth, **settings):
    sizes = {"latent_sizes": (4, 3, 2, 3, 2)[:depth], "hidden_sizes": (8, 7, 6, 5, 4)[: max(depth, 1)]}
    return replace(SMALL, guide=guide, **sizes, **settings)


def trains(chosen):
    """Three steps with a finite loss, and a gradient on every parameter."""
    data = dataset(chosen.likelihood, chosen.condition, chosen.missing)
    vae = build(chosen, data)
    svi = CompiledSVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), ELBO(), engine="eager", transform=data.draw)
    (batch,) = data.train_batches(32, drawn=False).epoch(1)
    reached = dict.fromkeys(dict(vae.named_parameters()), False)
    for _ in range(3):
        assert svi.step(*arguments(batch)).isfinite(), chosen
        for name, parameter in vae.named_parameters():
            reached[name] |= parameter.grad is not None and bool(parameter.grad.isfinite().all() and parameter.grad.any())
    assert not [name for name, moved in reached.items() if not moved], chosen
    return vae


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("prior", PRIORS)
def test_every_combination_trains_or_is_refused(prior, guide, depth):
    for likelihood, condition in itertools.product(LIKELIHOODS, ("none", "label")):
        settings = {"prior": prior, "likelihood": likelihood, "condition": condition}
        if prior == "conditional_gaussian" and condition == "none":
            with pytest.raises(InputError, match=r"expected a condition for the prior 'conditional_gaussian'.*another prior"):
                recipe(guide, depth, **settings)
        elif prior == "vamp" and likelihood in ("poisson", "negative_binomial", "mixed"):
            with pytest.raises(InputError, match=r"expected values in \[0, 1\].* for the prior 'vamp'"):
                build(recipe(guide, depth, **settings), dataset(likelihood, condition))
        elif prior.startswith("vamp") and guide == "bottom_up" and depth > 1:
            with pytest.raises(InputError, match=f"for the prior '{prior}'.*use the guide 'ladder' or 'top_down', or"):
                build(recipe(guide, depth, **settings), dataset(likelihood, condition))
        else:
            trains(recipe(guide, depth, **settings))


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("guide", GUIDES)
def test_every_guide_and_likelihood_train_on_data_with_gaps(guide, likelihood, depth):
    trains(recipe(guide, depth, likelihood=likelihood, missing=True))


@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_trains(network, activation, guide):
    for condition, hidden_layers in (("none", 1), ("label", 2)):
        settings = {"network": network, "activation": activation, "condition": condition, "initialization": "he"}
        trains(replace(recipe(guide, 2, **settings), hidden_layers=hidden_layers))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("guide", GUIDES)
def test_every_perceptron_trains(guide, activation):
    """Layer norm, residual layers, dropout and a guide of its own depth, with every posterior."""
    parts = {"layer_norm": True, "residual_layers": True, "dropout": 0.3, "encoder_layers": 3, "batch_norm": False}
    for posterior, number in itertools.product(POSTERIORS, (1, 2)):
        settings = parts | {"activation": activation, "initialization": "he", "posterior": posterior, "hidden_layers": number}
        trains(replace(recipe(guide, 2), **settings))


@pytest.mark.parametrize("condition", [name for name in CONDITIONS if name != "none"])
def test_every_condition_trains_with_and_without_latents(condition):
    for depth in (0, 1, 2):
        vae = trains(recipe("mean_field", depth, condition=condition))
        assert vae.model.depth == depth
        assert vae.model(context=torch.rand(5, dataset(condition=condition).condition.size)).shape == (5, 12)


def test_a_model_asks_for_the_context_that_it_was_made_for():
    conditional, plain = trains(recipe("ladder", 1, condition="label")).model, trains(recipe("ladder", 1)).model
    with pytest.raises(ValueError, match="expected a context of 3 entries for each row; got none: give context="):
        conditional(batch_size=2)
    with pytest.raises(ValueError, match="expected a context of 0 entries for each row; got 3"):
        plain(GREY, torch.zeros(32, 3))


def test_skip_connections_reach_the_data_from_every_layer():
    vae = trains(recipe("top_down", 2, prior="vamp", skip_connections=True))
    assert vae.model.likelihood[0][0].in_features == 4 + 3


def test_a_recipe_and_its_data_have_the_same_condition():
    with pytest.raises(InputError, match=r"expected data under the condition 'label' of the recipe.*load_dataset\('grey'"):
        build(recipe("ladder", 1, condition="label"), dataset())
    with pytest.raises(InputError, match="expected data under the condition 'label' of the recipe"):
        build(recipe("ladder", 1, condition="label"), dataset(condition="left-half"))


def test_a_regressor_is_refused_without_a_condition_and_with_a_guide():
    with pytest.raises(InputError, match="expected a condition for a regressor, which has no latent; got none"):
        recipe("mean_field", 0)
    for settings in ({"guide": "ladder"}, {"prior": "vamp"}, {"objective": "iwelbo"}, {"skip_connections": True}):
        with pytest.raises(InputError, match="expected none but the defaults for guide, prior, objective, skip_connections"):
            recipe(**{"guide": "mean_field", "depth": 0, "condition": "label"} | settings)


def test_settings_of_perceptrons_are_refused_of_convolutions():
    for settings in (
        {"layer_norm": True, "batch_norm": False},
        {"residual_layers": True, "hidden_layers": 2},
        {"dropout": 0.1},
    ):
        with pytest.raises(
            InputError, match=r"expected the network 'mlp' with .*; got 'convolutional', whose blocks have none"
        ):
            replace(recipe("ladder", 2), network="convolutional", **settings)
    with pytest.raises(InputError, match="expected one normalization; got batch norm and layer norm"):
        replace(recipe("ladder", 2), layer_norm=True)
    with pytest.raises(InputError, match="expected at least 2 hidden layers with residual_layers"):
        replace(recipe("ladder", 2), residual_layers=True)


def test_settings_of_pseudo_inputs_are_refused_where_there_are_none_or_too_few_images():
    with pytest.raises(InputError, match="expected the prior 'vamp' with pseudo-inputs that are trained; got 'mixture'"):
        recipe("ladder", 1, prior="mixture", pseudo_inputs="images")
    with pytest.raises(InputError, match=r"expected at most as many components as the 32 training images.*; got 33"):
        build(recipe("ladder", 1, prior="vamp_data", num_components=33), dataset())
