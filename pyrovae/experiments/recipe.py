"""``Recipe``: a whole training as plain values, which are checked one by one and together.

Importing this does not import torch: the command line takes flags and defaults from ``Recipe`` without waiting for it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pyrovae.errors import InputError, nearest
from pyrovae.experiments.values import check_range, check_type, join_values

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MOST_OF_A_FILE = 2**20
# The most stages; no paper has more.
MOST_STAGES = 1000


def _setting(default: Any, help: str, **metadata: Any) -> Any:
    if isinstance(default, dict):
        return field(default_factory=dict, metadata={"help": help, **metadata})
    return field(default=default, metadata={"help": help, **metadata})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The recipe of a training. Each field is a flag of ``pyrovae fit``; ``table`` is the family in which a name is looked up.

    Raises:
        InputError: for values that are invalid, alone or together.
    """

    dataset: str = _setting(
        "mnist-5k",
        "Data to train on: one of 'pyrovae datasets', torchvision:NAME, or a path: .npz, .npy, .csv, .parquet, images.",
    )
    validation: bool = _setting(False, "Hold images out of training for validation where the authors held out none.")
    binarization: str = _setting("auto", "Way in which grey values become bits.", table="pyrovae.data.datasets:BINARIZATIONS")
    split_seed: int = _setting(0, "Seed of the split, for data that come without one.", limits={"minimum": 0, "maximum": 2**63})
    label: str = _setting("", "Column of a table that holds the classes, which is not modelled.")
    drop: tuple[str, ...] = _setting((), "Columns of a table to leave out, separated by commas.", limits={"empty": True})
    columns: tuple[str, ...] = _setting(
        (),
        "Kinds of columns of a table, as in 'age=count,city=category,*=real': real, positive, count, binary, category.",
        limits={"empty": True},
    )
    missing: bool = _setting(False, "Train on data with gaps: the bound is that of the observed entries.")
    guide: str = _setting("mean_field", "Variational family q(z | x).", table="pyrovae.programs.guides:GUIDES")
    prior: str = _setting("standard_normal", "Prior of the top latent layer.", table="pyrovae.programs.priors:PRIORS")
    likelihood: str = _setting(
        "auto",
        "Density of the data: of bits, grey values in [0, 1], real values, counts or mixed columns; 'auto': as suits the data.",
        table="pyrovae.programs.likelihoods:LIKELIHOODS",
        also=("auto",),
    )
    likelihood_scale: float = _setting(0.1, "Standard deviation of the likelihood 'fixed_scale_gaussian'.")
    condition: str = _setting(
        "none", "Part of each image, or its class, that the model observes.", table="pyrovae.data.conditions:CONDITIONS"
    )
    num_components: int = _setting(500, "Number of Gaussians in a prior that is a mixture.")
    pseudo_inputs: str = _setting(
        "noise", "Start of the pseudo-inputs of the prior 'vamp'.", table="pyrovae.programs.priors:STARTS"
    )
    latent_sizes: tuple[int, ...] = _setting(
        (50,), "Size of each latent layer, from the data upwards; 'none' for a regressor.", limits={"empty": True}
    )
    hidden_sizes: tuple[int, ...] = _setting((200,), "Width of the networks below each latent layer, from the data upwards.")
    skip_connections: bool = _setting(False, "Let the data depend on every latent layer, not only on the bottom one.")
    network: str = _setting("mlp", "Kind of the networks next to the data.", table="pyrovae.programs.architecture:NETWORKS")
    hidden_layers: int = _setting(
        2, "Hidden layers in each network; in convolutional networks, blocks at each size of the image."
    )
    activation: str = _setting("softplus", "Nonlinearity of the networks.", table="pyrovae.programs.networks:ACTIVATIONS")
    batch_norm: bool = _setting(False, "Normalise over the batch before each nonlinearity.")
    initialization: str = _setting(
        "glorot",
        "Initialization of the weights of linear layers and convolutions.",
        table="pyrovae.programs.networks:INITIALIZATIONS",
    )
    output_bias: bool = _setting(False, "Start the bias of the likelihood at the mean of each pixel.")
    objective: str = _setting("elbo", "Bound to maximise.", table="pyrovae.inference.objectives:OBJECTIVES")
    num_particles: int = _setting(1, "Samples of the latents per image and step.")
    num_averages: int = _setting(1, "Estimates of the bound that are averaged, each with its own samples (not for elbo).")
    alpha: float = _setting(0.0, "Order of the bound 'renyi'.", limits={"minimum": -math.inf})
    gradient: str = _setting(
        "reparameterized", "Estimator of the guide's gradient.", table="pyrovae.inference.gradients:GRADIENTS"
    )
    free_bits: float = _setting(0.0, "Nats of each latent layer that cost nothing (elbo only).", limits={"minimum": 0})
    analytic_kl: bool = _setting(False, "Compute divergences in closed form where the guide allows it (elbo only).")
    epochs: int = _setting(300, "Number of passes over the training images.")
    patience: int = _setting(
        0, "Epochs without a better validation bound before training stops; 0 for never.", limits={"minimum": 0}
    )
    warmup_epochs: float = _setting(
        0.0, "Epochs over which the weight of the latent terms grows to one.", limits={"minimum": 0}
    )
    warmup: str = _setting(
        "linear",
        "Shape of the warm-up of the latent terms' weight; cyclical: anew in each period of warm-up epochs.",
        table="pyrovae.inference.warmup:WARMUPS",
    )
    kl_weight: float = _setting(1.0, "Weight of the latent terms at the end of warm-up, beta; one gives the true bound.")
    batch_size: int = _setting(100, "Number of images in a step.")
    optimizer: str = _setting("Adam", "Optimizer of torch.optim, for the mean loss per image.")
    optimizer_arguments: Mapping[str, Any] = _setting(
        {}, "Other arguments of the optimizer, in Python syntax: 'betas=(0.9, 0.9), eps=1e-4'."
    )
    learning_rate: float = _setting(1e-3, "Step size of the optimizer.")
    clip_norm: float = _setting(
        0.0, "Norm to which longer gradients of the mean loss per image are clipped; 0 for never.", limits={"minimum": 0}
    )
    skip_norm: float = _setting(0.0, "Norm of the gradient above which a step is left out; 0 for never.", limits={"minimum": 0})
    average_decay: float = _setting(
        0.0,
        "Decay per step of a moving average of the weights, which is measured in their place; 0 for no average.",
        limits={"minimum": 0, "maximum": 1},
    )
    precision: str = _setting(
        "float32",
        "Precision of matrix products; parameters stay in float32.",
        table="pyrovae.engine.precision:PRECISIONS",
    )
    stages: tuple[Mapping[str, Any], ...] = _setting(
        (), "Trainings one after the other, each by the settings that it changes.", limits={"empty": True}, flag=False
    )
    seed: int = _setting(
        0, "Seed of initialisation, shuffling, binarization and sampling.", limits={"minimum": 0, "maximum": 2**63}
    )

    def __post_init__(self) -> None:
        for each in fields(self):
            check_type(each.name, getattr(self, each.name), str(each.type))
            check_range(each.name, getattr(self, each.name), **each.metadata.get("limits", {}))
        if self.batch_norm and self.batch_size == 1:
            raise InputError("expected batches of at least 2 images for batch norm; got batch size 1: use --no-batch-norm")
        if max(len(self.latent_sizes), 1) != len(self.hidden_sizes):
            raise InputError(
                f"expected one hidden size for each latent layer, and one for a regressor; got latent sizes "
                f"{join_values(self.latent_sizes)} and hidden sizes {join_values(self.hidden_sizes)}: give as many of both"
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
        """The epochs of all stages together."""
        return sum(stage.epochs for stage in self.schedule)

    def replace(self, **values: Any) -> Recipe:
        """Return the recipe with other settings, in every stage; another optimizer drops the arguments of the old one.

        >>> Recipe().replace(epochs=20, guide="ladder").epochs
        20
        """
        _refuse_unknown(values, "a recipe with keys")
        if values.get("optimizer", self.optimizer) != self.optimizer:
            values = {"optimizer_arguments": {}, **values}
        stages = tuple({name: value for name, value in stage.items() if name not in values} for stage in self.stages)
        return replace(self, **{"stages": stages, **values})

    def differences(self, other: Recipe) -> dict[str, tuple[Any, Any]]:
        """The settings in which another recipe differs, with both values.

        >>> Recipe(epochs=10).differences(Recipe(epochs=20))
        {'epochs': (10, 20)}
        """
        pairs = {each.name: (getattr(self, each.name), getattr(other, each.name)) for each in fields(self)}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Make a recipe from the dictionary of ``asdict``, as read back from JSON.

        Raises:
            InputError: for keys that are no settings, and for invalid values.
        """
        _refuse_unknown(values, "a recipe with keys")
        return cls(**{key: _immutable(value) for key, value in values.items()})

    @classmethod
    def from_toml(cls, path: str | Path) -> Recipe:
        """Read a recipe from a file of TOML: keys are settings, others have their defaults.

        Raises:
            InputError: for a file that is no TOML, keys that are no settings, and invalid values.
        """
        return cls().replace(**settings_in(path))

    def to_toml(self) -> str:
        """Write the settings that differ from the defaults as TOML for ``from_toml``.

        >>> print(Recipe(guide="ladder", epochs=20).to_toml(), end="")
        guide = "ladder"
        epochs = 20
        """
        import tomli_w

        return tomli_w.dumps({name: _mutable(value) for name, (value, _) in self.differences(Recipe()).items()})


def settings_in(path: str | Path, also: Sequence[str] = ()) -> dict[str, Any]:
    """Read the settings in a file of TOML.

    Args:
        path: the file.
        also: keys that it may have beside the settings of a recipe.

    Raises:
        InputError: for a file that is no TOML, and keys that are no settings.
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


# The settings that a stage may change; programs, data and the optimizer's kind and state stay the same from stage to stage.
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
    """Turn tuples into lists, at any depth."""
    if isinstance(value, Mapping):
        return {key: _mutable(each) for key, each in value.items()}
    return list(map(_mutable, value)) if isinstance(value, tuple) else value


def _immutable(value: Any) -> Any:
    """Turn lists, which JSON makes of tuples, into tuples again, at any depth."""
    if isinstance(value, dict):
        return {key: _immutable(each) for key, each in value.items()}
    return tuple(map(_immutable, value)) if isinstance(value, list) else value
