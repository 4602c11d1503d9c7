"""Bettencourt and Craddock, Variational Auto Encoder Latent Space Activity and Visualization: its figures."""

from __future__ import annotations

from pyrovae.experiments.papers.experiment import Alike, Experiment, InRange, More, Statement
from pyrovae.experiments.published import RECIPES
from pyrovae.experiments.recipe import Recipe

INF = float("inf")
_PAPER = "Bettencourt and Craddock"
_VAE, _WEIGHTED = RECIPES["activity-vae"], RECIPES["activity-iwae"]
_SIZES = {f"{size} units": _WEIGHTED.replace(latent_sizes=(size,)) for size in (2, 5, 10, 20, 50, 100)}
_METHODS = {
    "VAE": _VAE,
    "IW": _WEIGHTED,
    "IW+BN": RECIPES["activity-batch-norm"],
    "IW+WU": RECIPES["activity-warmup"],
}
_BOUNDS = ("elbo", "log_likelihood", "active_units")
_SHORT = "Few epochs: a method that slows the start, as warm-up does, has not had its time."


def _methods(*names: str) -> dict[str, Recipe]:
    return {name: _METHODS[name] for name in names}


EXPERIMENTS: dict[str, Experiment] = {
    "latent-activity-figure-2.1": Experiment(
        shows="the bound under a Bernoulli and under a Gaussian decoder",
        source=f"{_PAPER}, figure 2.1",
        recipes={"Bernoulli": _VAE, "Gaussian": RECIPES["activity-gaussian"]},
        pictures={"learning-curves": ()},
        statements=(
            Statement(
                "the Bernoulli decoder learns a much tighter bound than the Gaussian one",
                (More("elbo", "Bernoulli", "Gaussian"),),
            ),
        ),
        differs={"Gaussian": "a density of grey values; the paper trains it on binary digits"},
        remarks=(
            "The two are no figures of one thing: the bound on a probability of bits, and on a density of grey values. The log-"
            "variance of the Gaussian is a tanh, so that no bound of it can pass -784/2 (log(2 pi) - 1) = -328.5 nats.",
        ),
    ),
    "latent-activity-figure-2.2": Experiment(
        shows="the bound with five importance-weighted samples and with one",
        source=f"{_PAPER}, figure 2.2",
        recipes=_methods("VAE", "IW"),
        columns=_BOUNDS,
        pictures={"learning-curves": ()},
        statements=(Statement("importance weighting with K = 5 improves the model", (More("log_likelihood", "IW", "VAE"),)),),
    ),
    "latent-activity-figure-2.3": Experiment(
        shows="the bound with batch norm and without",
        source=f"{_PAPER}, figure 2.3",
        recipes=_methods("IW", "IW+BN"),
        columns=_BOUNDS,
        pictures={"learning-curves": ()},
        statements=(
            Statement(
                "batch norm makes a shallow VAE worse",
                (More("log_likelihood", "IW", "IW+BN"),),
                "Here statistics are collected anew under the final weights before measuring; the paper does not say which it "
                "measured with. Batch norm also speeds up the first epochs.",
            ),
        ),
    ),
    "latent-activity-figure-2.4": Experiment(
        shows="the bound with warm-up and without",
        source=f"{_PAPER}, figure 2.4",
        recipes=_methods("IW", "IW+WU"),
        columns=_BOUNDS,
        pictures={"learning-curves": ()},
        statements=(
            Statement(
                "with warm-up a VAE comes to the same log-likelihood as without: within a nat",
                (Alike("log_likelihood", "IW", "IW+WU", 1.0),),
                _SHORT,
            ),
        ),
    ),
    "latent-activity-figure-2.5": Experiment(
        shows="the bound by the size of the latent",
        source=f"{_PAPER}, figure 2.5",
        recipes=_SIZES,
        columns=_BOUNDS,
        pictures={"learning-curves": ()},
        statements=(
            Statement(
                "models of 2 or 5 units are not trained as successfully as larger ones",
                (More("log_likelihood", "5 units", "2 units"), More("log_likelihood", "10 units", "5 units")),
            ),
            Statement(
                "all models of 10 units or more come to the same log-likelihood: within a nat",
                tuple(Alike("log_likelihood", f"{size} units", "10 units", 1.0) for size in (20, 50, 100)),
                "Log p is a finer measure than curves on the paper's axis; more units may still gain nats.",
            ),
        ),
    ),
    "latent-activity-figure-3.1": Experiment(
        shows="active units over epochs by method",
        source=f"{_PAPER}, figure 3.1",
        recipes=_METHODS,
        columns=("log_likelihood", "active_units", "active_units_0.01", "early_active_units"),
        pictures={"active-units": ()},
        differs={"": "one training each unless --seeds; the paper averages several"},
        statements=(
            Statement(
                "importance weighting smooths the early pruning, and so do batch norm and warm-up",
                (
                    More("early_active_units", "IW", "VAE"),
                    More("early_active_units", "IW+BN", "IW"),
                    More("early_active_units", "IW+WU", "IW"),
                ),
            ),
            Statement(
                "importance weighting comes to fewer active units than the plain VAE",
                (More("active_units", "VAE", "IW"),),
                "Importance weighting asks less of the guide and leaves more units in use, as Burda et al. (2016) report.",
            ),
            Statement("batch norm comes to more active units", (More("active_units", "IW+BN", "IW"),)),
            Statement(
                "warm-up does not change how many units are active in the end: within 2",
                (Alike("active_units", "IW+WU", "IW", 2.0),),
                _SHORT,
            ),
        ),
    ),
    "latent-activity-figure-3.2": Experiment(
        shows="active units over epochs by the size of the latent",
        source=f"{_PAPER}, figure 3.2",
        recipes=_SIZES,
        columns=("log_likelihood", "active_units", "active_units_0.01"),
        pictures={"active-units": ()},
        statements=(
            Statement(
                "latents of fewer than ten units are never pruned",
                (InRange("active_units", "2 units", 2, 2), InRange("active_units", "5 units", 5, 5)),
            ),
            Statement(
                "latents of more than ten units are pruned to about ten: 8 to 12",
                tuple(InRange("active_units", f"{size} units", 8, 12) for size in (20, 50, 100)),
                "Which units are called active depends on the threshold, and how many there are on the schedule.",
            ),
        ),
    ),
    "latent-activity-figure-3.3": Experiment(
        shows="heat maps of each unit's activity over epochs, by method",
        source=f"{_PAPER}, figure 3.3",
        recipes=_METHODS,
        columns=("active_units", "idle_kl"),
        pictures={"activity-heat-map": ()},
        statements=(
            Statement(
                "with importance weighting, batch norm and warm-up units below the threshold still contribute: above 0.1 nats",
                tuple(InRange("idle_kl", name, 0.1, INF) for name in ("IW", "IW+BN", "IW+WU")),
                "What such a unit costs is small, and may be nothing at all.",
            ),
        ),
    ),
    "latent-activity-figure-4.1": Experiment(
        shows="reconstructions by 2 units and by 50",
        source=f"{_PAPER}, section 4.1 (captioned figure 4.2)",
        recipes={name: _SIZES[name] for name in ("2 units", "50 units")},
        pictures={"reconstructions": ()},
        statements=(
            Statement("50 units represent test images better than 2", (More("log_likelihood", "50 units", "2 units"),)),
        ),
    ),
    "latent-activity-figure-4.2": Experiment(
        shows="where classes lie in a latent space of 2 units",
        source=f"{_PAPER}, section 4.2 (captioned figure 4.3)",
        recipes={"2 units": _SIZES["2 units"]},
        columns=("log_likelihood", "purity_of_1", "purity_of_7", "purity_of_2", "purity_of_3"),
        pictures={"encodings": ()},
        statements=(
            Statement(
                "the classes 1 and 7 lie apart from the others: most neighbours are of their class",
                (InRange("purity_of_1", "2 units", 0.5, INF), InRange("purity_of_7", "2 units", 0.5, INF)),
            ),
            Statement(
                "the classes 2 and 3 do not: fewer than half of the neighbours are of their class",
                (InRange("purity_of_2", "2 units", -INF, 0.5), InRange("purity_of_3", "2 units", -INF, 0.5)),
                "Which classes get a place of their own differs from training to training.",
            ),
        ),
    ),
    "latent-activity-figure-4.3": Experiment(
        shows="what lies at the points of a lattice over 2 units",
        source=f"{_PAPER}, section 4.3 (its figure 4.1)",
        recipes={"2 units": _SIZES["2 units"]},
        pictures={"manifold": ()},
    ),
}
