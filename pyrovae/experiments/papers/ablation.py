"""The ablation of a ladder of five layers, part by part: a table of our own, since none is published for perceptrons."""

from __future__ import annotations

from typing import Any

from pyrovae.experiments.papers.experiment import Experiment, More, Statement
from pyrovae.experiments.published import RECIPES

_PLAIN = RECIPES["ladder"].replace(epochs=100, warmup_epochs=20.0)
_OPEN: dict[str, Any] = {"activation": "gate", "skip_connections": True, "average_decay": 0.9995}
_WEIGHTED: dict[str, Any] = {"epochs": 20, "warmup_epochs": 0.0, "objective": "iwelbo", "num_particles": 5}
_PARTS: dict[str, dict[str, Any]] = {
    "flow prior": {"prior": "flow"},
    "VampPrior": {"prior": "vamp"},
    "flow posteriors": {"posterior": "flow"},
    "one layer": {"latent_sizes": (64,), "hidden_sizes": (512,)},
    "two layers": {"latent_sizes": (64, 32), "hidden_sizes": (512, 256)},
    "residual top-down guide": {"guide": "residual_top_down"},
    "gates": {"activation": "gate"},
    "residual layers": {"residual_layers": True},
    "no batch norm": {"batch_norm": False},
    "layer norm": {"batch_norm": False, "layer_norm": True},
    "skip connections": {"skip_connections": True},
    "averaged weights": {"average_decay": 0.9995},
    "cosine": {"learning_rate_schedule": "cosine"},
    "dropout": {"dropout": 0.1},
    "free bits": {"free_bits": 0.5},
    "IWELBO, K = 5, in the last fifth": {"stages": ({"epochs": 80}, _WEIGHTED)},
    "no batch norm, IWELBO": {"batch_norm": False, "stages": ({"epochs": 80}, _WEIGHTED)},
    "the same, doubly reparameterized": {
        "batch_norm": False,
        "stages": ({"epochs": 80}, {**_WEIGHTED, "gradient": "doubly_reparameterized"}),
    },
    "gates, skip connections, average": _OPEN,
    "these with a flow prior and cosine": {**_OPEN, "prior": "flow", "learning_rate_schedule": "cosine"},
}

_WHY = {
    "layer norm": "Few units carry information, as in a ladder without any normalization; batch norm keeps them in use.",
}
# What a row is compared with, if not the plain ladder.
_AGAINST = {"no batch norm, IWELBO": "no batch norm", "the same, doubly reparameterized": "no batch norm, IWELBO"}


def _statement(name: str) -> Statement:
    other = _AGAINST.get(name, "plain")
    than = f"'{other}'" if name in _AGAINST else "the plain ladder"
    return Statement(f"{name}: a higher log p than {than}", (More("log_likelihood", name, other),), _WHY.get(name, ""))


EXPERIMENTS: dict[str, Experiment] = {
    "pyrovae-ablation": Experiment(
        shows="what each part adds to a ladder of five layers, after 100 epochs",
        source="pyrovae",
        recipes={"plain": _PLAIN, **{name: _PLAIN.replace(**changed) for name, changed in _PARTS.items()}},
        columns=("elbo", "log_likelihood", "used_units", "seconds_per_epoch"),
        statements=tuple(map(_statement, _PARTS)),
        num_samples=500,
        remarks=(
            "Each row changes one part of the plain ladder, but for the last four.",
            "An average holds the weights of about 2,000 steps, of a shorter training those of its last ninth.",
        ),
    ),
}
