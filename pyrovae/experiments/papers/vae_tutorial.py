"""Doersch 2016, Tutorial on Variational Autoencoders: its figures of results, and its appendix."""

from __future__ import annotations

from pyrovae.experiments.papers.experiment import Alike, Experiment, More, Statement
from pyrovae.experiments.published import RECIPES

_PAPER = "Doersch 2016"
_TUTORIAL = RECIPES["tutorial"]

EXPERIMENTS: dict[str, Experiment] = {
    "vae-tutorial-figure-2": Experiment(
        shows="a Gaussian mapped to a ring, and the map learned",
        source=f"{_PAPER}, figure 2",
        compute="pyrovae.experiments.papers.ring:learn_ring",
    ),
    "vae-tutorial-figure-7": Experiment(
        shows="samples of a VAE of MNIST, and the loss by the size of its latent",
        source=f"{_PAPER}, figure 7 and section 4.1",
        recipes={f"{size} units": _TUTORIAL.replace(latent_sizes=(size,)) for size in (2, 4, 10, 30, 100, 1000)},
        columns=("elbo", "active_units"),
        pictures={"samples": ("30 units",), "samples by size": ("2 units", "4 units", "10 units", "1000 units")},
        statements=(
            Statement("fewer than 4 units are noticeably worse", (More("elbo", "4 units", "2 units", by=5.0),)),
            Statement(
                "between 4 and 1,000 units it is insensitive to their number: within ten nats of the loss",
                tuple(Alike("elbo", f"{size} units", "30 units", 10.0) for size in (4, 10, 100, 1000)),
                "The tutorial judged by the look of samples, which says little of nats.",
            ),
        ),
        remarks=("The cross-entropy of grey values is no density of them: the figures are of the loss, not log p.",),
    ),
    "vae-tutorial-figure-8": Experiment(
        shows="digits completed from their middle column by a conditional VAE and by a regressor",
        source=f"{_PAPER}, figure 8",
        recipes={"CVAE": RECIPES["tutorial-cvae"], "regressor": RECIPES["tutorial-regressor"]},
        pictures={"completions": ()},
        statements=(
            Statement(
                "the conditional VAE completes better than a regressor of the same network",
                (More("log_likelihood", "CVAE", "regressor"),),
            ),
        ),
    ),
    "vae-tutorial-appendix-a": Experiment(
        shows="the error of a VAE in one dimension as sigma falls to zero",
        source=f"{_PAPER}, appendix A",
        compute="pyrovae.experiments.papers.one_dimension:falling_divergence",
    ),
}
