"""Settings of a recipe that contradict each other, each refused with the way out.

Importing this does not import torch.
"""

from __future__ import annotations

from typing import Any

from pyrovae.errors import InputError
from pyrovae.experiments.values import join_values

# The settings that a model without latents has no use for, with their defaults.
OF_LATENTS = {
    "guide": "mean_field",
    "prior": "standard_normal",
    "objective": "elbo",
    "skip_connections": False,
    "posterior": "gaussian",
    "encoder_layers": 0,
    "dropout": 0.0,
    "encoder_weight_decay": 0.0,
}


def refuse_contradictions(recipe: Any) -> None:
    """Refuse settings of a ``Recipe`` that make no sense together.

    Raises:
        InputError: for the first contradiction.
    """
    for refuse in (_sizes, _networks, _objective, _condition, _pseudo_inputs, _flows):
        refuse(recipe)


def _sizes(recipe: Any) -> None:
    if max(len(recipe.latent_sizes), 1) != len(recipe.hidden_sizes):
        raise InputError(
            f"expected one hidden size for each latent layer, and one for a regressor; got latent sizes "
            f"{join_values(recipe.latent_sizes)} and hidden sizes {join_values(recipe.hidden_sizes)}: give as many of both"
        )


def _networks(recipe: Any) -> None:
    if recipe.batch_norm and recipe.batch_size == 1:
        raise InputError("expected batches of at least 2 images for batch norm; got batch size 1: use --no-batch-norm")
    if recipe.batch_norm and recipe.layer_norm:
        raise InputError("expected one normalization; got batch norm and layer norm: leave one of the two out")
    for name in ("layer_norm", "residual_layers", "dropout"):
        if getattr(recipe, name) and recipe.network != "mlp":
            raise InputError(
                f"expected the network 'mlp' with {name}; got {recipe.network!r}, whose blocks have none: leave one out"
            )
    if recipe.residual_layers and max(recipe.hidden_layers, recipe.encoder_layers) < 2:
        raise InputError(
            "expected at least 2 hidden layers with residual_layers, since the first changes the width; got 1: use "
            "--hidden-layers 2, or --no-residual-layers"
        )


def _objective(recipe: Any) -> None:
    for name in ("analytic_kl", "free_bits"):
        if getattr(recipe, name) and recipe.objective != "elbo":
            raise InputError(
                f"expected the objective 'elbo' with {name}; got {recipe.objective!r}, which is an average over "
                "weights and has no divergence in it: leave one of the two out"
            )
    if recipe.num_averages > 1 and recipe.objective == "elbo":
        raise InputError("expected another objective than 'elbo' with num_averages: use num_particles, which it averages over")
    if recipe.alpha and recipe.objective != "renyi":
        raise InputError(f"expected the objective 'renyi' with alpha; got {recipe.objective!r}: leave one of the two out")


def _condition(recipe: Any) -> None:
    if not recipe.latent_sizes and recipe.condition == "none":
        raise InputError(
            "expected a condition for a regressor, which has no latent; got none: give latent sizes, or a condition"
        )
    if not recipe.latent_sizes and any(getattr(recipe, name) != value for name, value in OF_LATENTS.items()):
        raise InputError(
            f"expected none but the defaults for {', '.join(OF_LATENTS)} of a regressor, which has no latent; got "
            f"{', '.join(str(getattr(recipe, name)) for name in OF_LATENTS)}: give latent sizes"
        )
    if recipe.missing and recipe.condition != "none":
        raise InputError(f"expected no condition with missing entries; got {recipe.condition!r}: leave one of the two out")
    if recipe.prior == "conditional_gaussian" and recipe.condition == "none":
        raise InputError(
            "expected a condition for the prior 'conditional_gaussian'; got none: give --condition, or another prior"
        )


def _pseudo_inputs(recipe: Any) -> None:
    if recipe.pseudo_inputs != "noise" and recipe.prior != "vamp":
        raise InputError(f"expected the prior 'vamp' with pseudo-inputs that are trained; got {recipe.prior!r}: leave one out")


def _flows(recipe: Any) -> None:
    if "flow" not in (recipe.prior, recipe.posterior):
        for name, default in (("flow", "coupling"), ("flow_transforms", 3)):
            if (value := getattr(recipe, name)) != default:
                raise InputError(
                    f"expected a prior or a posterior 'flow' with {name}; got {value!r} and neither: use --prior flow, or "
                    "leave it out"
                )
    elif recipe.posterior == "flow" and recipe.prior.startswith("vamp"):
        raise InputError(
            f"expected the posterior 'gaussian' for the prior {recipe.prior!r}, a mixture of the guide's Gaussians; got "
            "'flow': use the prior 'flow' or 'mixture', or the posterior 'gaussian'"
        )
    elif recipe.posterior == "flow" and recipe.analytic_kl:
        raise InputError(
            "expected the posterior 'gaussian' with analytic_kl; got 'flow', whose divergence has no closed form: use "
            "--no-analytic-kl, or the posterior 'gaussian'"
        )
