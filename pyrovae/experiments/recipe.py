"""A recipe: a whole training as plain values, checked by themselves and together.

Importing this does not import torch: the command line reads flags and defaults off ``Recipe`` without waiting for it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pyrovae.errors import InputError, nearest
from pyrovae.experiments.values import check_range, check_type, listed

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MOST_OF_A_FILE = 2**20
# No paper has more.
MOST_STAGES = 1000


def _setting(default: Any, help: str, **metadata: Any) -> Any:
    if isinstance(default, dict):
        return field(default_factory=dict, metadata={"help": help, **metadata})
    return field(default=default, metadata={"help": help, **metadata})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training, resolved. Each field is a flag of ``pyrovae fit``; ``table`` names the family that a name is looked up in.

    Raises:
        InputError: for values that make no sense, by themselves or together.
    """

    dataset: str = _setting(
        "mnist-5k",
        "Data to train on: one of 'pyrovae datasets', torchvision:NAME, or a path: .npz, .npy, .csv, .parquet, images.",
    )
    validation: bool = _setting(False, "Hold images out of training for validation where the authors held out none.")
    binarization: str = _setting("auto", "How grey values become bits.", table="pyrovae.data.datasets:BINARIZATIONS")
    split_seed: int = _setting(0, "Of the split of data that come without one.", limits={"minimum": 0, "maximum": 2**63})
    label: str = _setting("", "Column of a table that holds the classes: it is not modelled.")
    drop: tuple[str, ...] = _setting((), "Columns of a table to leave out, separated by commas.", limits={"empty": True})
    columns: tuple[str, ...] = _setting(
        (),
        "Kinds of columns of a table, as in 'age=count,city=category,*=real': real, positive, count, binary, category.",
        limits={"empty": True},
    )
    missing: bool = _setting(False, "Train on data with gaps: the bound is that of the entries that are there.")
    guide: str = _setting("mean_field", "Variational family q(z | x).", table="pyrovae.programs.guides:GUIDES")
    prior: str = _setting("standard_normal", "Prior of the top latent layer.", table="pyrovae.programs.priors:PRIORS")
    likelihood: str = _setting(
        "auto",
        "Density of the data: of bits, of grey values in [0, 1] or of real ones; 'auto' is what suits them.",
        table="pyrovae.programs.likelihoods:LIKELIHOODS",
        also=("auto",),
    )
    likelihood_scale: float = _setting(0.1, "Standard deviation of a 'fixed_scale_gaussian'.")
    condition: str = _setting(
        "none", "What the model is told of each image that it draws.", table="pyrovae.data.conditions:CONDITIONS"
    )
    num_components: int = _setting(500, "Gaussians in a mixture, mixture of posteriors included.")
    pseudo_inputs: str = _setting(
        "noise", "What those of 'vamp' start from: noise, or training images.", table="pyrovae.programs.priors:STARTS"
    )
    latent_sizes: tuple[int, ...] = _setting(
        (50,), "Size of each latent layer, from the data upwards; 'none' for a regressor.", limits={"empty": True}
    )
    hidden_sizes: tuple[int, ...] = _setting((200,), "Width of the networks below each latent layer, from the data upwards.")
    skip_connections: bool = _setting(False, "The data depend on every latent layer, not on the bottom one alone.")
    network: str = _setting("mlp", "What stands next to the data.", table="pyrovae.programs.architecture:NETWORKS")
    hidden_layers: int = _setting(2, "Hidden layers in each network; blocks at each size of an image.")
    activation: str = _setting("softplus", "Nonlinearity of the networks.", table="pyrovae.programs.networks:ACTIVATIONS")
    batch_norm: bool = _setting(False, "Normalise over the batch before each nonlinearity.")
    initialization: str = _setting(
        "glorot", "Of the weights of linear layers and convolutions.", table="pyrovae.programs.networks:INITIALIZATIONS"
    )
    output_bias: bool = _setting(False, "Start the likelihood at the mean of each pixel, as far as its features are zero.")
    objective: str = _setting("elbo", "Bound to maximise.", table="pyrovae.inference.objectives:OBJECTIVES")
    num_particles: int = _setting(1, "Samples of the latents per image and step.")
    num_averages: int = _setting(1, "Estimates of the bound that are averaged, each of its own samples (not elbo).")
    alpha: float = _setting(0.0, "Order of the bound 'renyi'.", limits={"minimum": -math.inf})
    gradient: str = _setting(
        "reparameterized", "Estimator of the guide's gradient.", table="pyrovae.inference.gradients:GRADIENTS"
    )
    free_bits: float = _setting(0.0, "Nats of each layer that cost nothing (elbo only).", limits={"minimum": 0})
    analytic_kl: bool = _setting(False, "Divergences in closed form where the guide allows it (elbo only).")
    epochs: int = _setting(300, "Times that all training images are seen.")
    patience: int = _setting(
        0, "Epochs without a better validation bound before training stops; 0 for never.", limits={"minimum": 0}
    )
    warmup_epochs: float = _setting(
        0.0, "Epochs over which the weight of the latent terms grows to one.", limits={"minimum": 0}
    )
    warmup: str = _setting(
        "linear", "How that weight grows; cyclical: anew in each such period.", table="pyrovae.inference.warmup:WARMUPS"
    )
    kl_weight: float = _setting(1.0, "Weight of the latent terms that warm-up ends at: beta. One is the true bound.")
    batch_size: int = _setting(100, "Images in a step.")
    optimizer: str = _setting("Adam", "Any of torch.optim, of the mean loss per image.")
    optimizer_arguments: Mapping[str, Any] = _setting(
        {}, "Its other arguments, as Python writes them: 'betas=(0.9, 0.9), eps=1e-4'."
    )
    learning_rate: float = _setting(1e-3, "Its step size.")
    clip_norm: float = _setting(
        0.0, "Norm that a longer gradient of the mean loss per image is cut to; 0 for never.", limits={"minimum": 0}
    )
    skip_norm: float = _setting(
        0.0, "Norm of that gradient above which a step is left out; 0 for never.", limits={"minimum": 0}
    )
    average_decay: float = _setting(
        0.0,
        "Decay at each step of the moving average of the weights, which is then measured in their place; 0 for none.",
        limits={"minimum": 0, "maximum": 1},
    )
    precision: str = _setting(
        "float32", "Of matrix products; parameters stay in float32.", table="pyrovae.engine.precision:PRECISIONS"
    )
    stages: tuple[Mapping[str, Any], ...] = _setting(
        (), "Trainings one after the other, each by what it changes.", limits={"empty": True}, flag=False
    )
    seed: int = _setting(0, "Of initialisation, shuffling, binarization and sampling.", limits={"minimum": 0, "maximum": 2**63})

    def __post_init__(self) -> None:
        for each in fields(self):
            check_type(each.name, getattr(self, each.name), str(each.type))
            check_range(each.name, getattr(self, each.name), **each.metadata.get("limits", {}))
        if self.batch_norm and self.batch_size == 1:
            raise InputError("expected batches of at least 2 images for batch norm; got batch size 1: use --no-batch-norm")
        if max(len(self.latent_sizes), 1) != len(self.hidden_sizes):
            raise InputError(
                f"expected one hidden size for each latent layer, and one for a regressor; got latent sizes "
                f"{listed(self.latent_sizes)} and hidden sizes {listed(self.hidden_sizes)}: give as many of both"
            )
        for name in ("analytic_kl", "free_bits"):
            if getattr(self, name) and self.objective != "elbo":
                raise InputError(
                    f"expected the objective 'elbo' with {name}; got {self.objective!r}, which is an average over "
                    "weights and has no divergence in it: leave one of the two out"
                )
        if self.num_averages > 1 and self.objective == "elbo":
            raise InputError(
                "expected another objective than 'elbo' with num_averages: use num_particles, which it averages over"
            )
        if self.alpha and self.objective != "renyi":
            raise InputError(f"expected the objective 'renyi' with alpha; got {self.objective!r}: leave one of the two out")
        self._check_condition()
        self._check_stages()

    def _check_condition(self) -> None:
        if not self.latent_sizes and self.condition == "none":
            raise InputError(
                "expected a condition for a regressor, which has no latent; got none: give latent sizes, or a condition"
            )
        without_latents = {"guide": "mean_field", "prior": "standard_normal", "objective": "elbo", "skip_connections": False}
        if not self.latent_sizes and any(getattr(self, name) != value for name, value in without_latents.items()):
            raise InputError(
                f"expected none but the defaults for {', '.join(without_latents)} of a regressor, which has no latent; got "
                f"{', '.join(str(getattr(self, name)) for name in without_latents)}: give latent sizes"
            )
        if self.missing and self.condition != "none":
            raise InputError(f"expected no condition with missing entries; got {self.condition!r}: leave one of the two out")
        if self.pseudo_inputs != "noise" and self.prior != "vamp":
            raise InputError(
                f"expected the prior 'vamp' with pseudo-inputs that are trained; got {self.prior!r}: leave one out"
            )
        if self.prior == "conditional_gaussian" and self.condition == "none":
            raise InputError(
                "expected a condition for the prior 'conditional_gaussian'; got none: give --condition, or another prior"
            )

    def _check_stages(self) -> None:
        if len(self.stages) > MOST_STAGES:
            raise InputError(f"expected at most {MOST_STAGES:,} stages; got {len(self.stages):,}")
        for stage in self.stages:
            if unknown := sorted(set(stage) - set(STAGE_SETTINGS)):
                raise InputError(f"expected stages that change {', '.join(STAGE_SETTINGS)}; got {', '.join(unknown)}")
            replace(self, stages=(), **stage)

    @property
    def schedule(self) -> tuple[Recipe, ...]:
        """A recipe without stages for each stage, in turn.

        >>> recipe = Recipe(epochs=10, stages=({}, {"epochs": 5, "learning_rate": 1e-4}))
        >>> [(stage.epochs, stage.learning_rate) for stage in recipe.schedule]
        [(10, 0.001), (5, 0.0001)]
        """
        return tuple(replace(self, stages=(), **stage) for stage in self.stages) or (self,)

    @property
    def total_epochs(self) -> int:
        """Of all stages together."""
        return sum(stage.epochs for stage in self.schedule)

    def replace(self, **values: Any) -> Recipe:
        """The same with other settings, in every stage; the arguments of one optimizer are none of another.

        >>> Recipe().replace(epochs=20, guide="ladder").epochs
        20
        """
        _refuse_unknown(values, "a recipe with keys")
        if values.get("optimizer", self.optimizer) != self.optimizer:
            values = {"optimizer_arguments": {}, **values}
        stages = tuple({name: value for name, value in stage.items() if name not in values} for stage in self.stages)
        return replace(self, **{"stages": stages, **values})

    def differences(self, other: Recipe) -> dict[str, tuple[Any, Any]]:
        """The settings that differ, and their values here and there.

        >>> Recipe(epochs=10).differences(Recipe(epochs=20))
        {'epochs': (10, 20)}
        """
        pairs = {each.name: (getattr(self, each.name), getattr(other, each.name)) for each in fields(self)}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The recipe of ``asdict``, as JSON gives it back.

        Raises:
            InputError: for keys that are no settings, and for values that make no sense.
        """
        _refuse_unknown(values, "a recipe with keys")
        return cls(**{key: _immutable(value) for key, value in values.items()})

    @classmethod
    def from_toml(cls, path: str | Path) -> Recipe:
        """The recipe that a file of TOML holds: keys are settings, what it leaves out has its default.

        Raises:
            InputError: for what is no such file, keys that are no settings, and for values that make no sense.
        """
        return cls().replace(**settings_in(path))

    def to_toml(self) -> str:
        """The settings that differ from the defaults, as ``from_toml`` reads them.

        >>> print(Recipe(guide="ladder", epochs=20).to_toml(), end="")
        guide = "ladder"
        epochs = 20
        """
        import tomli_w

        return tomli_w.dumps({name: _mutable(value) for name, (value, _) in self.differences(Recipe()).items()})


def settings_in(path: str | Path, also: Sequence[str] = ()) -> dict[str, Any]:
    """The settings in a file of TOML.

    Args:
        path: the file.
        also: keys that it may have beside the settings of a recipe.

    Raises:
        InputError: for what is no such file, and keys that are no settings.
    """
    try:
        content = Path(path).read_bytes()
        if len(content) > MOST_OF_A_FILE:
            raise ValueError(f"{len(content):,} bytes, which no recipe has")
        values = {key: _immutable(value) for key, value in tomllib.loads(content.decode()).items()}
    except (OSError, ValueError, RecursionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: expected a recipe as TOML; got {reason[:200]}") from error
    _refuse_unknown({key: value for key, value in values.items() if key not in also}, f"{path}: a recipe with keys")
    return values


def _refuse_unknown(values: Mapping[str, Any], what: str) -> None:
    known = [each.name for each in fields(Recipe)]
    for name in sorted(set(values) - set(known)):
        near = nearest(name, known) or f", out of {', '.join(known)}"
        raise InputError(f"expected {what} that it has; got {name[:100]!r}{near}")


# What steps are made of; programs, data and the optimizer's kind and state stay what they are from stage to stage.
STAGE_SETTINGS = (
    "objective",
    "num_particles",
    "num_averages",
    "alpha",
    "gradient",
    "free_bits",
    "analytic_kl",
    "epochs",
    "patience",
    "warmup_epochs",
    "warmup",
    "kl_weight",
    "batch_size",
    "learning_rate",
    "clip_norm",
    "skip_norm",
)


def _mutable(value: Any) -> Any:
    """Tuples as lists, at any depth."""
    if isinstance(value, Mapping):
        return {key: _mutable(each) for key, each in value.items()}
    return list(map(_mutable, value)) if isinstance(value, tuple) else value


def _immutable(value: Any) -> Any:
    """Lists, which JSON makes of tuples, as tuples again, at any depth."""
    if isinstance(value, dict):
        return {key: _immutable(each) for key, each in value.items()}
    return tuple(map(_immutable, value)) if isinstance(value, list) else value
