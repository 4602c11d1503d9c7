"""Build the method of a training from a recipe: its objective, optimizer, clipping, learning rates.

Importing this does not import torch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pyrovae.errors import InputError
from pyrovae.experiments.building import look_up
from pyrovae.experiments.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from pyrovae.data.datasets import Dataset
    from pyrovae.inference.clipping import Clipping
    from pyrovae.inference.learning_rates import LearningRates
    from pyrovae.inference.objectives import Objective
    from pyrovae.programs.guides import VAE


def refuse_what_cannot_be_trained(recipe: Recipe, dataset: Dataset, vae: VAE) -> None:
    """Refuse settings that a training would refuse later, before anything is written.

    Raises:
        InputError: for settings that do not fit the data.
    """
    build_optimizer(recipe, vae)
    for stage in recipe.schedule:
        build_objective(stage)
        batches = dataset.train_batches(stage.batch_size, seed=stage.seed)
        build_learning_rates(stage, stage.epochs * len(batches))
        if stage.patience and dataset.valid is None:
            raise InputError(
                f"expected validation images for patience; {recipe.dataset!r} has none: use --validation, or --patience 0"
            )


def build_objective(recipe: Recipe) -> Objective:
    """Build the objective of a recipe.

    Raises:
        InputError: for a gradient that does not fit the objective, or the networks.
    """
    from pyrovae.inference.objectives import OBJECTIVES

    if recipe.gradient == "doubly_reparameterized" and recipe.batch_norm:
        raise InputError(
            "expected no batch norm with the gradient 'doubly_reparameterized', which is right only where the log-weight of an "
            "example depends on no other example: use --no-batch-norm, or the gradient 'reparameterized'"
        )
    weighed = {"num_averages": recipe.num_averages}
    options: dict[str, dict[str, Any]] = {
        "elbo": {"analytic_kl": recipe.analytic_kl, "free_bits": recipe.free_bits},
        "iwelbo": weighed,
        "renyi": weighed | {"alpha": recipe.alpha},
    }
    objective = look_up(OBJECTIVES, "objective", recipe.objective)
    try:
        return objective(recipe.num_particles, gradient=recipe.gradient, **options[recipe.objective])
    except ValueError as error:
        raise InputError(str(error)) from error


def build_optimizer(recipe: Recipe, vae: VAE) -> torch.optim.Optimizer:
    """Build the optimizer of a recipe, for gradients of the mean loss per image; Adam is one fused kernel.

    With weight decay for the guide alone, its parameters are a group of their own.

    Raises:
        InputError: for a name that torch does not have, an optimizer that cannot take plain steps, and for unknown arguments.
    """
    import torch

    # LBFGS evaluates the loss itself, and SparseAdam takes only sparse gradients.
    known = {
        name: each
        for name, each in sorted(vars(torch.optim).items())
        if isinstance(each, type) and name not in ("Optimizer", "LBFGS", "SparseAdam")
    }
    if reserved := sorted({"lr", "fused", "foreach", "capturable", "maximize"} & set(recipe.optimizer_arguments)):
        raise InputError(
            f"expected arguments that no other setting has and no engine chooses; got {', '.join(reserved)}: the step size is "
            "the learning rate, --learning-rate"
        )
    fused = {"fused": True} if recipe.optimizer in ("Adam", "AdamW") else {}
    arguments = {"lr": recipe.learning_rate, **fused, **recipe.optimizer_arguments}
    parameters: Any = vae.parameters()
    if recipe.encoder_weight_decay:
        of_guide = {"params": list(vae.guide.parameters()), "weight_decay": recipe.encoder_weight_decay}
        # AdamW decays everything that is not told otherwise.
        of_model = {"weight_decay": recipe.optimizer_arguments.get("weight_decay", 0.0)}
        parameters = [{"params": list(vae.model.parameters()), **of_model}, of_guide]
    try:
        optimizer = look_up(known, "torch optimizer", recipe.optimizer)(parameters, **arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"expected arguments of torch.optim.{recipe.optimizer}; got {dict(recipe.optimizer_arguments)} ({error})"
        ) from error
    # torch takes groups with settings that an optimizer does not have, and ignores them.
    if recipe.encoder_weight_decay and "weight_decay" not in optimizer.defaults:
        raise InputError(
            f"expected an optimizer with weight decay for encoder_weight_decay; got {recipe.optimizer}: use Adam or AdamW"
        )
    if recipe.optimizer == "Rprop" and any(each.learning_rate_warmup or _is_scheduled(each) for each in recipe.schedule):
        raise InputError("expected an optimizer whose steps follow the learning rate; Rprop reads it once: use Adam, say")
    return optimizer


def _is_scheduled(stage: Recipe) -> bool:
    return stage.learning_rate_schedule != "constant"


def build_clipping(recipe: Recipe) -> Clipping:
    """Build the clipping of a recipe, for gradients of the mean loss per image."""
    from pyrovae.inference.clipping import Clipping

    return Clipping(recipe.clip_norm or math.inf, recipe.skip_norm or math.inf, 1 / recipe.batch_size)


def build_learning_rates(recipe: Recipe, num_steps: int) -> LearningRates:
    """Build the course of the learning rate of a recipe over a number of steps.

    Raises:
        InputError: for a warm-up that is longer than the training.
    """
    from pyrovae.inference.learning_rates import LEARNING_RATES, scheduled

    if recipe.learning_rate_warmup > num_steps:
        raise InputError(
            f"expected a warm-up of the learning rate within the {num_steps} steps of its stage; got "
            f"{recipe.learning_rate_warmup}: use fewer, or more epochs"
        )
    course = look_up(LEARNING_RATES, "learning-rate schedule", recipe.learning_rate_schedule)
    return scheduled(recipe.learning_rate, course, num_steps, recipe.learning_rate_warmup)
