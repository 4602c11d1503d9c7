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

from pyrovae.errors import InputError, first_line, nearest
from pyrovae.experiments.contradictions import refuse_contradictions
from pyrovae.experiments.values import check_range, check_type

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
    posterior: str = _setting(
        "gaussian", "Distribution of each latent layer under the guide.", table="pyrovae.programs.flows:POSTERIORS"
    )
    encoder_layers: int = _setting(
        0, "Hidden layers in each network of the guide; 0 for as many as in the model.", limits={"minimum": 0}
    )
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
    flow: str = _setting(
        "coupling",
        "Order in which a normalizing flow maps its entries: two halves, or one after the other.",
        table="pyrovae.programs.flows:FLOWS",
    )
    flow_transforms: int = _setting(3, "Number of maps in a normalizing flow.")
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
    layer_norm: bool = _setting(False, "Normalise over the features of each example before each nonlinearity.")
    residual_layers: bool = _setting(False, "Add hidden layers of perceptrons after the first to their input.")
    dropout: float = _setting(
        0.0,
        "Probability with which a hidden feature of the guide is left out in training.",
        limits={"minimum": 0, "maximum": 1},
    )
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
    learning_rate_schedule: str = _setting(
        "constant",
        "Course of the learning rate over the steps of a stage.",
        table="pyrovae.inference.learning_rates:LEARNING_RATES",
    )
    learning_rate_warmup: int = _setting(
        0, "Steps of each stage over which the learning rate grows to its value.", limits={"minimum": 0}
    )
    encoder_weight_decay: float = _setting(
        0.0, "Weight decay of the optimizer for the guide's parameters alone.", limits={"minimum": 0}
    )
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
        refuse_contradictions(self)
        self._check_stages()

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
        raise InputError(f"{path}: expected a recipe as TOML; got {first_line(error)[:200]}") from error
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
    "learning_rate_schedule",
    "learning_rate_warmup",
    "clip_norm",
    "skip_norm",
    "average_decay",
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
