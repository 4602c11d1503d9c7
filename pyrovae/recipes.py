"""Recipes: a whole training as plain values, one for each published experiment.

This is the only place that translates a recipe into programs; library classes take ordinary arguments and never see one.
Importing it does not import torch: the command line reads flags and defaults off ``Recipe`` without waiting for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from pyrovae.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from pyrovae.data.benchmarks import Dataset
    from pyrovae.inference.objectives import Objective
    from pyrovae.programs.guides import VAE


def _setting(default: Any, help: str, **metadata: Any) -> Any:
    return field(default=default, metadata={"help": help, **metadata})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training, resolved. Each field is a flag of ``pyrovae fit``; ``table`` names the family that a name is looked up in.

    Raises:
        InputError: for values that make no sense, by themselves or together.
    """

    dataset: str = _setting("mnist-5k", "Data to train on.", table="pyrovae.data.benchmarks:DATASETS")
    guide: str = _setting("mean_field", "Variational family q(z | x).", table="pyrovae.programs.guides:GUIDES")
    prior: str = _setting("standard_normal", "Prior of the top latent layer.", table="pyrovae.programs.priors:PRIORS")
    likelihood: str = _setting(
        "bernoulli",
        "Density of the data: of bits, or of grey values in [0, 1].",
        table="pyrovae.programs.conditionals:LIKELIHOODS",
    )
    num_components: int = _setting(500, "Gaussians in a mixture, mixture of posteriors included.")
    latent_sizes: tuple[int, ...] = _setting((50,), "Size of each latent layer, from the data upwards.")
    hidden_sizes: tuple[int, ...] = _setting((200,), "Width of the networks below each latent layer, from the data upwards.")
    skip_connections: bool = _setting(False, "The data depend on every latent layer, not on the bottom one alone.")
    hidden_layers: int = _setting(2, "Hidden layers in each network.")
    activation: str = _setting("softplus", "Nonlinearity of the networks.", table="pyrovae.programs.networks:ACTIVATIONS")
    batch_norm: bool = _setting(False, "Normalise over the batch before each nonlinearity.")
    initialization: str = _setting(
        "glorot", "Of the weights of linear layers.", table="pyrovae.programs.networks:INITIALIZATIONS"
    )
    objective: str = _setting("elbo", "Bound to maximise.", table="pyrovae.inference.objectives:OBJECTIVES")
    num_particles: int = _setting(1, "Samples of the latents per image and step.")
    analytic_kl: bool = _setting(False, "Divergences in closed form where the guide allows it (elbo only).")
    epochs: int = _setting(300, "Times that all training images are seen.")
    warmup_epochs: float = _setting(
        0.0, "Epochs over which the weight of the latent terms grows to one.", limits={"minimum": 0}
    )
    batch_size: int = _setting(100, "Images in a step.")
    learning_rate: float = _setting(1e-3, "Step size of Adam.")
    adam_betas: tuple[float, ...] = _setting((0.9, 0.999), "Decay rates of Adam's two moments.")
    adam_epsilon: float = _setting(1e-8, "Added to Adam's denominator, on the scale of the mean loss per image.")
    precision: str = _setting(
        "float32", "Of matrix products; parameters stay in float32.", table="pyrovae.inference.precision:PRECISIONS"
    )
    seed: int = _setting(0, "Of initialisation, shuffling, binarization and sampling.", limits={"minimum": 0, "maximum": 2**63})

    def __post_init__(self) -> None:
        for each in fields(self):
            _check_type(each.name, getattr(self, each.name), str(each.type))
            _check_range(each.name, getattr(self, each.name), **each.metadata.get("limits", {}))
        if self.batch_norm and self.batch_size == 1:
            raise InputError("expected batches of at least 2 images for batch norm; got batch size 1: use --no-batch-norm")
        if len(self.latent_sizes) != len(self.hidden_sizes):
            raise InputError(
                f"expected one hidden size for each latent layer; got latent sizes {_listed(self.latent_sizes)} and "
                f"hidden sizes {_listed(self.hidden_sizes)}: give as many of both"
            )
        if len(self.adam_betas) != 2 or not all(0 <= beta < 1 for beta in self.adam_betas):
            raise InputError(f"expected two of adam betas from 0 to below 1; got {_listed(self.adam_betas)}")
        if self.analytic_kl and self.objective != "elbo":
            raise InputError(
                f"expected the objective 'elbo' with analytic_kl; got {self.objective!r}, which is an average over "
                "weights and has no divergence in it: leave one of the two out"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The recipe of ``asdict``, as JSON gives it back; unknown keys are refused."""
        known = {each.name for each in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise InputError(f"expected a recipe with keys out of {', '.join(sorted(known))}; got {', '.join(unknown)}")
        plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        return cls(**plain)


_TYPES: dict[str, Any] = {"str": str, "bool": bool, "int": int, "float": (int, float)}


def _check_type(name: str, value: Any, annotation: str) -> None:
    inner = annotation.removeprefix("tuple[").removesuffix(", ...]")
    values = value if isinstance(value, tuple) else (value,)
    whole = isinstance(value, tuple) == (inner != annotation)
    if not whole or not all(isinstance(each, _TYPES[inner]) and (inner == "bool") == isinstance(each, bool) for each in values):
        raise InputError(f"expected {name.replace('_', ' ')} as {annotation}; got {value!r}")


def _check_range(name: str, value: Any, minimum: float | None = None, maximum: float = math.inf) -> None:
    """Numbers are positive, or at least ``minimum`` where one is given, and below ``maximum``."""
    values = value if isinstance(value, tuple) else (value,)
    if name == "adam_betas" or any(isinstance(each, str | bool) for each in values):
        return
    bad = [each for each in values if not (each > 0 if minimum is None else each >= minimum) or not each < maximum]
    if bad or not values:
        bound = "above zero" if minimum is None else f"of at least {minimum}"
        limit = "" if maximum == math.inf else f" and below {maximum}"
        raise InputError(f"expected {name.replace('_', ' ')} {bound}{limit}; got {_listed(values)}")


def _listed(values: tuple[Any, ...]) -> str:
    return ", ".join(map(str, values)) or "nothing"


_LADDER = Recipe(
    dataset="mnist",
    guide="ladder",
    latent_sizes=(64, 32, 16, 8, 4),
    hidden_sizes=(512, 256, 128, 64, 32),
    activation="leaky_relu",
    batch_norm=True,
    # The paper does not say. After 20 epochs torch's own is ahead of Glorot's by 0.6 nats.
    initialization="torch",
    epochs=2000,
    warmup_epochs=200,
    batch_size=256,
)
_ACTIVITY = Recipe(dataset="mnist", adam_betas=(0.9, 0.9), adam_epsilon=1e-4)

# The first recipe of a guide is the one whose architecture ``--guide`` alone takes.
RECIPES: dict[str, Recipe] = {
    "ladder": _LADDER,
    "ladder-bottom-up": replace(_LADDER, guide="bottom_up"),
    "activity-vae": _ACTIVITY,
    "activity-iwae": replace(_ACTIVITY, objective="iwelbo", num_particles=5),
}

# Where each recipe comes from, and what it reached there (nats per image).
PUBLISHED: dict[str, tuple[str, str]] = {
    "ladder": ("Sønderby et al. 2016, section 3: LVAE+BN+WU, 5 layers", "MNIST L_1 -85.23, L_5000 -82.12"),
    "ladder-bottom-up": ("Sønderby et al. 2016, section 3: VAE+BN+WU, 5 layers", "MNIST L_5000, best depth, -82.74"),
    "activity-vae": ("Bettencourt and Craddock, section 2: vanilla VAE", "no number; about 10 active units"),
    "activity-iwae": ("Bettencourt and Craddock, section 2.4: K = 5", "no number; a better bound than the VAE's"),
}

SHORT_SCHEDULE_STEPS = 2000


def short_schedule(recipe: Recipe, num_images: int, epochs: int | None = None) -> Recipe:
    """The same training within minutes: about 2,000 steps unless told otherwise, half of them warm-up where there is any."""
    if epochs is None:
        epochs = math.ceil(SHORT_SCHEDULE_STEPS / max(1, num_images // recipe.batch_size))
    return replace(recipe, epochs=epochs, warmup_epochs=epochs // 2 if recipe.warmup_epochs else 0)


def recipe_of_guide(guide: str) -> Recipe:
    """The published architecture of a guide."""
    return next((recipe for recipe in RECIPES.values() if recipe.guide == guide), replace(Recipe(), guide=guide))


def assemble(recipe: Recipe, data_size: int, images: Tensor | None = None) -> VAE:
    """The programs of a recipe over rows of ``data_size`` pixels, freshly initialised from torch's global generator.

    Args:
        recipe: what to build.
        data_size: pixels in a row.
        images: training images ``(N, D)`` for a prior that is made of some; without them its weights are to be loaded.

    Raises:
        InputError: for a name that does not exist, and a prior that makes no sense with the guide.
    """
    from torch import nn

    from pyrovae.programs.architecture import Architecture
    from pyrovae.programs.conditionals import LIKELIHOODS
    from pyrovae.programs.guides import GUIDES, VAE
    from pyrovae.programs.models import GenerativeModel
    from pyrovae.programs.networks import ACTIVATIONS, INITIALIZATIONS
    from pyrovae.programs.priors import PRIORS, PriorSettings

    architecture = Architecture(
        data_size=data_size,
        latent_sizes=recipe.latent_sizes,
        hidden_sizes=recipe.hidden_sizes,
        hidden_layers=recipe.hidden_layers,
        activation=_look_up(ACTIVATIONS, "activation", recipe.activation),
        batch_norm=recipe.batch_norm,
    )
    model = GenerativeModel.of(
        architecture, _look_up(LIKELIHOODS, "likelihood", recipe.likelihood), skip_connections=recipe.skip_connections
    )
    guide = _look_up(GUIDES, "guide", recipe.guide).of(model, architecture)
    prior = _look_up(PRIORS, "prior", recipe.prior)
    if recipe.prior.startswith("vamp") and guide.top_posterior is None:
        raise InputError(
            f"expected a guide whose q(z_L | x) is a density in closed form for the prior {recipe.prior!r}; in a "
            f"{recipe.guide!r} hierarchy of {len(recipe.latent_sizes)} layers it is an integral over the layers below: "
            "use the guide 'ladder' or 'top_down', or one layer"
        )
    settings = PriorSettings(num_components=recipe.num_components, posterior=guide.top_posterior, images=images)
    model.prior = prior.of(architecture, settings)
    vae = VAE(model, guide)
    initialize = _look_up(INITIALIZATIONS, "initialization", recipe.initialization)
    for layer in vae.modules():
        if isinstance(layer, nn.Linear):
            initialize(layer)
    return vae


def load_data(recipe: Recipe, root: str | None = None) -> Dataset:
    """The dataset of a recipe, as bits or in grey, whichever its likelihood is a density of.

    Raises:
        InputError: as ``load_dataset`` does, and for a density of grey values on data that come as bits alone.
    """
    from pyrovae.data.benchmarks import load_dataset
    from pyrovae.programs.conditionals import LIKELIHOODS

    binary = _look_up(LIKELIHOODS, "likelihood", recipe.likelihood).binary
    return load_dataset(recipe.dataset, root, binarize=binary)


def build(recipe: Recipe, dataset: Dataset) -> VAE:
    """The model and guide of a recipe for a dataset, initialised with the recipe's seed.

    Raises:
        InputError: for names that do not exist, and for an analytic divergence where the guide does not allow it.
    """
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        vae = assemble(recipe, math.prod(dataset.shape), dataset.train).to(dataset.train.device)
    if recipe.analytic_kl and not vae.guide.analytic_kl:
        raise InputError(
            f"expected a guide that allows analytic_kl; got {recipe.guide!r} with {len(recipe.latent_sizes)} layers, where a "
            "divergence in closed form is not the bound's: use --no-analytic-kl, or another guide"
        )
    return vae


def build_objective(recipe: Recipe) -> Objective:
    """The objective of a recipe."""
    from pyrovae.inference.objectives import OBJECTIVES

    options = {"analytic_kl": True} if recipe.analytic_kl else {}
    return _look_up(OBJECTIVES, "objective", recipe.objective)(recipe.num_particles, **options)


def build_optimizer(recipe: Recipe, vae: nn.Module) -> torch.optim.Optimizer:
    """Adam with the recipe's settings, one fused kernel."""
    import torch

    # Objectives sum over the batch where the papers average, which Adam sees only beside its epsilon.
    epsilon = recipe.adam_epsilon * recipe.batch_size
    beta1, beta2 = recipe.adam_betas
    return torch.optim.Adam(vae.parameters(), lr=recipe.learning_rate, betas=(beta1, beta2), eps=epsilon, fused=True)


def _look_up(table: Mapping[str, Any], family: str, name: str) -> Any:
    if name not in table:
        raise InputError(f"expected a {family} out of {', '.join(table)}; got {name!r}")
    return table[name]
