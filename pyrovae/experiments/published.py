"""The published trainings, and our best: the recipe of each, its paper, and where the paper states each setting.

Importing this does not import torch: the command line lists recipes without waiting for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pyrovae.experiments.best import BEST, CHOSEN
from pyrovae.experiments.recipe import Recipe

_LADDER = Recipe(
    dataset="mnist",
    guide="ladder",
    latent_sizes=(64, 32, 16, 8, 4),
    hidden_sizes=(512, 256, 128, 64, 32),
    activation="leaky_relu",
    batch_norm=True,
    initialization="torch",
    epochs=2000,
    warmup_epochs=200,
    batch_size=256,
)
_FINE_TUNING = tuple(
    {
        "objective": "iwelbo",
        "num_particles": 10,
        "num_averages": 10,
        "warmup_epochs": 0.0,
        "epochs": 200,
        "learning_rate": 1e-3 * 0.75**decays,
    }
    for decays in range(10)
)
_ACTIVITY = Recipe(dataset="mnist", optimizer_arguments={"betas": (0.9, 0.9), "eps": 1e-4})
_WEIGHTED_ACTIVITY = replace(_ACTIVITY, objective="iwelbo", num_particles=5)
_PROJECT = Recipe(
    dataset="static-mnist",
    latent_sizes=(40,),
    hidden_sizes=(300,),
    activation="relu",
    optimizer_arguments={"eps": 1e-7},
    epochs=1000,
)
_VAMPPRIOR = replace(
    _PROJECT,
    activation="gate",
    initialization="he",
    learning_rate=5e-4,
    optimizer_arguments={},
    epochs=2000,
    warmup_epochs=100.0,
    patience=50,
    prior="vamp",
)
_TUTORIAL = Recipe(
    dataset="mnist",
    likelihood="cross_entropy",
    latent_sizes=(30,),
    hidden_sizes=(500,),
    hidden_layers=3,
    activation="relu",
    epochs=100,
)
_COMPLETION = Recipe(
    dataset="mnist", condition="middle-column", latent_sizes=(30,), hidden_sizes=(500,), activation="relu", epochs=30
)
_IWAE = Recipe(
    dataset="mnist",
    activation="tanh",
    output_bias=True,
    objective="iwelbo",
    num_particles=50,
    batch_size=20,
    optimizer_arguments={"eps": 1e-4},
    stages=tuple({"epochs": 3**i, "learning_rate": 1e-3 * 10 ** (-i / 7)} for i in range(8)),
)

# ``--guide`` without ``--recipe`` takes the architecture of the first recipe of a guide.
RECIPES: dict[str, Recipe] = {
    "ladder": _LADDER,
    "ladder-finetuned": replace(_LADDER, stages=({}, *_FINE_TUNING)),
    "ladder-bottom-up": replace(_LADDER, guide="bottom_up"),
    "ladder-omniglot": replace(_LADDER, dataset="omniglot", epochs=1500),
    "ladder-norb": replace(_LADDER, dataset="small-norb", likelihood="gaussian", activation="tanh"),
    "activity-vae": _ACTIVITY,
    "activity-gaussian": replace(_ACTIVITY, likelihood="bounded_gaussian"),
    "activity-iwae": _WEIGHTED_ACTIVITY,
    "activity-warmup": replace(_WEIGHTED_ACTIVITY, warmup_epochs=100.0),
    "activity-batch-norm": replace(_WEIGHTED_ACTIVITY, batch_norm=True),
    "vampprior-project": replace(_PROJECT, prior="vamp"),
    "vampprior-project-data": replace(_PROJECT, prior="vamp_data"),
    "vampprior-project-standard": _PROJECT,
    "vampprior": _VAMPPRIOR,
    "vampprior-hvae": replace(
        _VAMPPRIOR, guide="top_down", latent_sizes=(40, 40), hidden_sizes=(300, 300), skip_connections=True
    ),
    "tutorial": _TUTORIAL,
    "tutorial-cvae": _COMPLETION,
    "tutorial-regressor": replace(_COMPLETION, latent_sizes=()),
    "iwae-1": _IWAE,
    "iwae-2": replace(_IWAE, guide="bottom_up", latent_sizes=(100, 50), hidden_sizes=(200, 100)),
    **BEST,
}


@dataclass(frozen=True)
class Publication:
    """The publication of a recipe.

    Args:
        paper: the paper and its section.
        figure: the published result, in nats per image; ``quoted`` where it was read elsewhere than in the paper.
        says: the place in the paper of each setting that differs from the default, or that it is not stated.
        log_likelihoods: the results that are log-likelihoods of whole test sets: by the name of the dataset, the value and the
            number of importance samples.
    """

    paper: str
    figure: str
    says: Mapping[str, str]
    log_likelihoods: Mapping[str, tuple[float, int]] = field(default_factory=dict)


_LADDER_SAYS = {
    "dataset": "section 3",
    "guide": "section 2.2, equations 13 to 19",
    "likelihood": "section 3",
    "latent_sizes": "section 3",
    "hidden_sizes": "section 3",
    "activation": "section 3",
    "batch_norm": "section 1, figure 3",
    "initialization": "not said; torch's own is 0.6 nats ahead of Glorot's after 20 epochs",
    "epochs": "section 3",
    "warmup_epochs": "section 3",
    "batch_size": "section 3",
    "stages": "section 3: 2000 epochs more, learning rate x 0.75 every 200, 10 Monte Carlo and 10 importance samples",
}
_ACTIVITY_SAYS = {
    "dataset": "section 2.1",
    "likelihood": "section 2.3.1",
    "optimizer_arguments": "section 2.1",
    "objective": "section 2.4; kept for what follows it",
    "num_particles": "section 2.4",
    "warmup_epochs": "section 2.6",
    "batch_norm": "section 2.5",
}
_PROJECT_SAYS = {
    "dataset": "section 2, figure 4",
    "prior": "section 1.1.3",
    "latent_sizes": "section 2",
    "hidden_sizes": "section 2",
    "activation": "not said",
    "optimizer_arguments": "section 2: the defaults of keras.optimizers.Adam",
    "epochs": "section 2",
}
_VAMPPRIOR_SAYS = {
    "dataset": "table 1",
    "guide": "section 4",
    "prior": "section 2",
    "latent_sizes": "section 5.1 (quoted)",
    "hidden_sizes": "section 5.1 (quoted)",
    "skip_connections": "section 4: the data depend on both layers",
    "activation": "section 5.1 (quoted)",
    "initialization": "section 5.1 (quoted)",
    "learning_rate": "section 5.1 (quoted)",
    "epochs": "the authors' code: 2000 at most (quoted)",
    "patience": "section 5.1 (quoted)",
    "warmup_epochs": "section 5.1 (quoted)",
}
_TUTORIAL_SAYS = {
    "dataset": "section 4.1",
    "likelihood": "section 4.1: sigmoid cross-entropy",
    "condition": "section 5",
    "latent_sizes": "not said for MNIST; 30 as in Caffe's autoencoder, which section 4.1 adapts; the regressor has none",
    "hidden_sizes": "not said; Caffe's autoencoder narrows from 1000 by 500 to 250",
    "hidden_layers": "section 4.1: as in Caffe's autoencoder",
    "activation": "section 4.1",
    "epochs": "not said",
}
_IWAE_SAYS = {
    "dataset": "section 5.1 (quoted)",
    "guide": "section 5.1 (quoted)",
    "latent_sizes": "section 5.1 (quoted)",
    "hidden_sizes": "section 5.1 (quoted)",
    "activation": "section 5.1 (quoted)",
    "output_bias": "the authors' code (quoted)",
    "objective": "equation 8 (quoted)",
    "num_particles": "section 5.1: 1, 5 and 50 (quoted)",
    "batch_size": "section 5.1 (quoted)",
    "optimizer_arguments": "section 5.1 (quoted)",
    "stages": "section 5.1: 3^i passes at 0.001 x 10^(-i/7), i = 0 ... 7 (quoted)",
}
_NORB_FIGURE = "NORB log p 3455 (a density of grey values)"
_PROJECT_FIGURES = "static MNIST {}, Fashion-MNIST {}, Frey Faces {}, Caltech {}"


def _project_likelihoods(*values: float) -> dict[str, tuple[float, int]]:
    """The log-likelihoods on the four datasets of the project, each with 500 samples."""
    datasets = ("static-mnist", "fashion-mnist", "freyfaces", "caltech101-silhouettes")
    return {dataset: (value, 500) for dataset, value in zip(datasets, values, strict=True)}


PUBLISHED: dict[str, Publication] = {
    "ladder": Publication(
        "Sønderby et al. 2016: LVAE+BN+WU", "MNIST L_1 -85.23, L_5000 -82.12", _LADDER_SAYS, {"mnist": (-82.12, 5000)}
    ),
    "ladder-finetuned": Publication(
        "Sønderby et al. 2016: LVAE, fine-tuned", "MNIST L_5000 -81.74", _LADDER_SAYS, {"mnist": (-81.74, 5000)}
    ),
    "ladder-bottom-up": Publication(
        "Sønderby et al. 2016: VAE+BN+WU", "MNIST L_5000 -82.74, at 3 layers", _LADDER_SAYS, {"mnist": (-82.74, 5000)}
    ),
    "ladder-omniglot": Publication(
        "Sønderby et al. 2016, table 2: LVAE+BN+WU", "OMNIGLOT L_5000 -102.11", _LADDER_SAYS, {"omniglot": (-102.11, 5000)}
    ),
    "ladder-norb": Publication("Sønderby et al. 2016, table 2: LVAE+BN+WU", _NORB_FIGURE, _LADDER_SAYS),
    "activity-vae": Publication("Bettencourt and Craddock: vanilla", "about 10 active units", _ACTIVITY_SAYS),
    "activity-gaussian": Publication("Bettencourt and Craddock: Gaussian decoder", "a far lower bound", _ACTIVITY_SAYS),
    "activity-iwae": Publication("Bettencourt and Craddock: K = 5", "a better bound than vanilla", _ACTIVITY_SAYS),
    "activity-warmup": Publication("Bettencourt and Craddock: warm-up", "the bound of K = 5", _ACTIVITY_SAYS),
    "activity-batch-norm": Publication("Bettencourt and Craddock: batch norm", "a worse bound than K = 5", _ACTIVITY_SAYS),
    "vampprior-project": Publication(
        "VAE with a VampPrior, project: VP",
        _PROJECT_FIGURES.format(-88.72, -231.94, -2257.76, -135.15),
        _PROJECT_SAYS,
        _project_likelihoods(-88.72, -231.94, -2257.76, -135.15),
    ),
    "vampprior-project-data": Publication(
        "VAE with a VampPrior, project: VP data",
        _PROJECT_FIGURES.format(-90.85, -232.79, -2286.52, -142.02),
        _PROJECT_SAYS,
        _project_likelihoods(-90.85, -232.79, -2286.52, -142.02),
    ),
    "vampprior-project-standard": Publication(
        "VAE with a VampPrior, project: SG",
        _PROJECT_FIGURES.format(-93.08, -235.32, -2281.16, -137.32),
        _PROJECT_SAYS,
        _project_likelihoods(-93.08, -235.32, -2281.16, -137.32),
    ),
    "vampprior": Publication(
        "Tomczak and Welling 2018, table 1: VAE",
        "static MNIST log p -85.57, dynamic -82.38 (quoted)",
        _VAMPPRIOR_SAYS,
        {"static-mnist": (-85.57, 5000), "mnist": (-82.38, 5000)},
    ),
    "vampprior-hvae": Publication(
        "Tomczak and Welling 2018, table 1: HVAE",
        "static MNIST log p -83.19, dynamic -81.24 (quoted)",
        _VAMPPRIOR_SAYS,
        {"static-mnist": (-83.19, 5000), "mnist": (-81.24, 5000)},
    ),
    "tutorial": Publication("Doersch 2016, section 4.1 and figure 7", "no number", _TUTORIAL_SAYS),
    "tutorial-cvae": Publication("Doersch 2016, section 5 and figure 8", "no number", _TUTORIAL_SAYS),
    "tutorial-regressor": Publication("Doersch 2016, section 5 and figure 8", "no number", _TUTORIAL_SAYS),
    "iwae-1": Publication(
        "Burda et al. 2016, table 1: one layer",
        "MNIST L_5000 -84.78; K = 5: -85.54; VAE: -86.76 (quoted)",
        _IWAE_SAYS,
        {"mnist": (-84.78, 5000)},
    ),
    "iwae-2": Publication(
        "Burda et al. 2016, table 1: two layers",
        "MNIST L_5000 -82.90; K = 5: -83.89; VAE: -85.33 (quoted)",
        _IWAE_SAYS,
        {"mnist": (-82.90, 5000)},
    ),
    **{name: Publication("pyrovae: pyrovae-best", "see 'pyrovae reproduce'", says) for name, says in CHOSEN.items()},
}
