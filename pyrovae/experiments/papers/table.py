"""``PAPERS``: every table and figure of the papers, by name, PAPER-figure-N and PAPER-table-N, and two tables of our own.

Importing this does not import torch.
"""

from __future__ import annotations

from pyrovae.errors import InputError, nearest
from pyrovae.experiments.papers import ablation, best, iwae, ladder_vae, latent_activity, vae_tutorial, vampprior_project
from pyrovae.experiments.papers.experiment import Experiment

PAPERS: dict[str, Experiment] = {
    **latent_activity.EXPERIMENTS,
    **vampprior_project.EXPERIMENTS,
    **ladder_vae.EXPERIMENTS,
    **vae_tutorial.EXPERIMENTS,
    **iwae.EXPERIMENTS,
    **ablation.EXPERIMENTS,
    **best.EXPERIMENTS,
}


def experiment_named(name: str) -> Experiment:
    """Find an experiment by its name.

    Raises:
        InputError: for an unknown name; it names the nearest.
    """
    if name not in PAPERS:
        near = nearest(name, PAPERS) or ": see 'pyrovae reproduce'"
        raise InputError(f"expected a table or a figure of a paper; got {name!r}{near}")
    return PAPERS[name]
