"""Sønderby et al. 2016, Ladder Variational Autoencoders: its tables and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pyrovae.experiments.papers.experiment import Alike, Experiment, InRange, More, Statement
from pyrovae.experiments.published import RECIPES
from pyrovae.experiments.recipe import Recipe

INF = float("inf")
_PAPER = "Sønderby et al. 2016"
_DEPTHS = (1, 2, 3, 4, 5)
_LADDER = RECIPES["ladder"]
_METHODS: dict[str, dict[str, Any]] = {
    "VAE": {"guide": "bottom_up", "batch_norm": False, "warmup_epochs": 0.0},
    "VAE+BN": {"guide": "bottom_up", "warmup_epochs": 0.0},
    "VAE+BN+WU": {"guide": "bottom_up"},
    "LVAE+BN+WU": {},
}


def _layers(depth: int) -> str:
    return "-".join(map(str, _LADDER.latent_sizes[:depth]))


def _name(method: str, depth: int) -> str:
    return f"{method} {_layers(depth)}"


def _grid(base: Recipe) -> Iterator[tuple[str, Recipe]]:
    """The recipes of each method at each depth; with one layer a ladder is the VAE, and is left out."""
    for method, settings in _METHODS.items():
        for depth in _DEPTHS:
            if depth > 1 or method != "LVAE+BN+WU":
                sizes = {"latent_sizes": base.latent_sizes[:depth], "hidden_sizes": base.hidden_sizes[:depth]}
                yield _name(method, depth), base.replace(**sizes, **settings)


_MNIST, _OMNIGLOT = dict(_grid(_LADDER)), dict(_grid(RECIPES["ladder-omniglot"]))
_NORB = {f"NORB {name}": recipe for name, recipe in _grid(RECIPES["ladder-norb"])}
_DEEPEST = {name: recipe for name, recipe in _MNIST.items() if len(recipe.latent_sizes) == 5}
_PLAIN, _NORMALIZED, _WARMED, _LVAE = (_name(method, 5) for method in _METHODS)
_UNNORMALIZED = _name("LVAE+WU", 5)
_TABLE_2 = {
    "VAE": (-111.21, -110.58, -111.26, -111.58, -110.46),
    "VAE+BN": (-105.62, -105.51, -106.09, -105.66, -105.45),
    "VAE+BN+WU": (-104.51, -102.61, -102.52, -102.66, -102.48),
    "LVAE+BN+WU": (None, -102.63, -102.18, -102.21, -102.11),
}
_NORB_TABLE = {
    "VAE": (2741, 2792, 2786, 2689, 2654),
    "VAE+BN": (3198, 3224, 3235, 3201, 3198),
    "VAE+BN+WU": (3338, 3483, 3492, 3482, 3422),
    "LVAE+BN+WU": (None, 3272, 3519, 3449, 3455),
}


def _printed(table: Mapping[str, tuple[float | None, ...]], prefix: str = "") -> dict[str, dict[str, float]]:
    return {
        f"{prefix}{_name(method, depth)}": {"log_likelihood": value}
        for method, values in table.items()
        for depth, value in zip(_DEPTHS, values, strict=True)
        if value is not None
    }


_BY_DEPTH = (
    Statement(
        "without batch norm and warm-up layers beyond the first do not improve the bound: by no more than half a nat",
        tuple(More("elbo", _name("VAE", 1), _name("VAE", depth), by=-0.5) for depth in _DEPTHS[1:]),
    ),
    Statement(
        "with batch norm and warm-up the bound improves up to three layers, and no further: by no more than half a nat",
        (
            *(More("elbo", _name("VAE+BN+WU", depth), _name("VAE+BN+WU", depth - 1)) for depth in (2, 3)),
            *(More("elbo", _name("VAE+BN+WU", 3), _name("VAE+BN+WU", depth), by=-0.5) for depth in (4, 5)),
        ),
    ),
    Statement(
        "a ladder improves with each layer that is added",
        (
            More("elbo", _name("LVAE+BN+WU", 2), _name("VAE+BN+WU", 1)),
            *(More("elbo", _name("LVAE+BN+WU", depth), _name("LVAE+BN+WU", depth - 1)) for depth in (3, 4, 5)),
        ),
        "What the topmost layers add is small, and comes late.",
    ),
    Statement(
        "the ladder of five layers has a tighter bound than the best VAE, of three, and a higher log-likelihood",
        (
            More("elbo", _LVAE, _name("VAE+BN+WU", 3)),
            More("log_likelihood", _LVAE, _name("VAE+BN+WU", 3)),
        ),
    ),
)
_NORB_BEST = f"NORB {_name('LVAE+BN+WU', 3)}"
_BEST_ON_OMNIGLOT = Statement(
    "on OMNIGLOT the ladder of five layers is the best of all",
    tuple(More("log_likelihood", _LVAE, name) for name in _OMNIGLOT if name != _LVAE),
    "Among ladders of three layers and more the paper's own differences are a tenth of a nat.",
)
_BATCHES = "Statistics of batch norm are collected anew on the training images before each figure, as the authors do."

EXPERIMENTS: dict[str, Experiment] = {
    "ladder-vae-figure-2": Experiment(
        shows="the bound of five layers over epochs, for four methods",
        source=f"{_PAPER}, figure 2",
        short_samples=50,
        recipes=_DEEPEST,
        pictures={"learning-curves": ()},
        published={_LVAE: {"elbo": -85.23, "log_likelihood": -82.12}},
        statements=(
            Statement(
                "the ladder improves the bound over the VAEs",
                tuple(More("elbo", _LVAE, name) for name in (_PLAIN, _NORMALIZED, _WARMED)),
            ),
        ),
        remarks=(_BATCHES,),
    ),
    "ladder-vae-figure-3": Experiment(
        shows="bounds on MNIST by depth, for four methods",
        source=f"{_PAPER}, figure 3",
        short_samples=50,
        recipes=_MNIST,
        pictures={"by-depth": (), "learning-curves": tuple(_DEEPEST)},
        published={_LVAE: {"elbo": -85.23, "log_likelihood": -82.12}, _name("VAE+BN+WU", 3): {"elbo": -87.49}},
        statements=_BY_DEPTH,
        remarks=(_BATCHES,),
    ),
    "ladder-vae-figure-4": Experiment(
        shows="the KL of each unit over epochs, by layer, for four methods",
        source=f"{_PAPER}, figure 4",
        short_samples=50,
        recipes=_DEEPEST,
        columns=("log_likelihood", "used_units", "kl_z1", "upper_kl"),
        pictures={"kl-heat-map": ()},
        statements=(
            Statement(
                "without batch norm and warm-up the layers above the second are not trained: below 0.1 nats",
                (InRange("upper_kl", _PLAIN, -INF, 0.1),),
            ),
            Statement("batch norm helps the higher layers", (More("upper_kl", _NORMALIZED, _PLAIN),)),
            Statement("warm-up leaves more units in use", (More("used_units", _WARMED, _NORMALIZED),)),
            Statement(
                "the ladder has the most units in use",
                tuple(More("used_units", _LVAE, name) for name in (_PLAIN, _NORMALIZED, _WARMED)),
            ),
        ),
    ),
    "ladder-vae-figure-5": Experiment(
        shows="the KL of each layer, for four methods",
        source=f"{_PAPER}, figure 5",
        short_samples=50,
        recipes=_DEEPEST,
        columns=("kl_z1", "kl_z2", "kl_z3", "kl_z4", "kl_z5"),
        pictures={"kl-bars": ()},
        statements=(
            Statement(
                "VAEs spend more nats on the lowest layer than the ladder does",
                tuple(More("kl_z1", name, _LVAE) for name in (_PLAIN, _NORMALIZED, _WARMED)),
            ),
            Statement(
                "the ladder spends more on the layers above the second than any VAE",
                tuple(More("upper_kl", _LVAE, name) for name in (_PLAIN, _NORMALIZED, _WARMED)),
            ),
        ),
    ),
    "ladder-vae-figure-6": Experiment(
        shows="principal components of each layer by class, for a VAE and a ladder of five layers",
        source=f"{_PAPER}, figure 6",
        short_samples=50,
        recipes=_DEEPEST,
        columns=("log_likelihood", "upper_kl", "class_purity"),
        pictures={f"projections of {name}": (name,) for name in _DEEPEST},
        statements=(
            Statement(
                "the topmost layer of the ladder tells classes apart, that of the plain VAE does not",
                (More("class_purity", _LVAE, _PLAIN, by=0.1), InRange("class_purity", _PLAIN, -INF, 0.2)),
            ),
        ),
    ),
    "ladder-vae-figure-7": Experiment(
        shows="bounds on MNIST by depth, for four methods, and for a ladder without batch norm",
        source=f"{_PAPER}, figure 7",
        short_samples=50,
        recipes=_MNIST | {_UNNORMALIZED: _LADDER.replace(batch_norm=False)},
        pictures={"by-depth": ()},
        published={_LVAE: {"elbo": -85.23, "log_likelihood": -82.12}, _name("VAE+BN+WU", 3): {"elbo": -87.49}},
        statements=(
            *_BY_DEPTH,
            Statement(
                "a ladder without batch norm does very poorly: ten nats behind",
                (More("elbo", _LVAE, _UNNORMALIZED, by=10.0),),
                "Here the precisions of a ladder without batch norm are kept finite, which the paper's code does not say.",
            ),
        ),
        remarks=(_BATCHES,),
    ),
    "ladder-vae-figure-8": Experiment(
        shows="bounds on OMNIGLOT by depth, for four methods",
        source=f"{_PAPER}, figure 8",
        short_samples=50,
        recipes=_OMNIGLOT,
        pictures={"by-depth": ()},
        published=_printed(_TABLE_2),
        statements=(_BEST_ON_OMNIGLOT,),
        remarks=(_BATCHES,),
    ),
    "ladder-vae-figure-9": Experiment(
        shows="MNIST, its reconstructions, and samples",
        source=f"{_PAPER}, figure 9",
        short_samples=50,
        recipes={_LVAE: _MNIST[_LVAE]},
        pictures={"images": ()},
    ),
    "ladder-vae-figure-10": Experiment(
        shows="OMNIGLOT, its reconstructions, and samples",
        source=f"{_PAPER}, figure 10",
        short_samples=50,
        recipes={_LVAE: _OMNIGLOT[_LVAE]},
        pictures={"images": ()},
    ),
    "ladder-vae-table-1": Experiment(
        shows="log p on MNIST of a ladder of five layers, and of the same fine-tuned",
        source=f"{_PAPER}, table 1",
        short_samples=50,
        recipes={
            _LVAE: _LADDER,
            "fine-tuned": _LADDER.replace(
                stages=(
                    {},
                    *({**stage, "objective": "elbo", "num_averages": 1} for stage in RECIPES["ladder-finetuned"].stages[1:]),
                )
            ),
            "fine-tuned, IW=10": RECIPES["ladder-finetuned"],
        },
        published={
            _LVAE: {"elbo": -85.23, "log_likelihood": -82.12},
            "fine-tuned": {"log_likelihood": -81.84},
            "fine-tuned, IW=10": {"log_likelihood": -81.74},
        },
        statements=(
            Statement("fine-tuning improves the log-likelihood", (More("log_likelihood", "fine-tuned", _LVAE),)),
            Statement(
                "with ten importance samples a little more than with one: less than half a nat",
                (
                    More("log_likelihood", "fine-tuned, IW=10", "fine-tuned"),
                    Alike("log_likelihood", "fine-tuned, IW=10", "fine-tuned", 0.5),
                ),
            ),
        ),
        remarks=(
            _BATCHES,
            "The paper's table also has, of others: VAE + NF -85.10, IWAE of two layers -85.33 and -82.90, VAE + VGP -81.90.",
        ),
    ),
    "ladder-vae-table-2": Experiment(
        shows="log p on OMNIGLOT and on NORB by depth, for four methods",
        source=f"{_PAPER}, table 2",
        short_samples=50,
        recipes=_OMNIGLOT | _NORB,
        published=_printed(_TABLE_2) | _printed(_NORB_TABLE, "NORB "),
        statements=(
            _BEST_ON_OMNIGLOT,
            Statement(
                "on NORB the ladder of three layers is the best of all",
                tuple(More("log_likelihood", _NORB_BEST, name) for name in _NORB if name != _NORB_BEST),
            ),
        ),
        remarks=(_BATCHES,),
    ),
}
