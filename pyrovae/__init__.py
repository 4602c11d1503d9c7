"""Variational autoencoders as honest Pyro programs, measured in a way that can be trusted.

The public names are imported on first use: ``import pyrovae`` and ``pyrovae --help`` do not wait for torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyrovae.data.batches import Batches as Batches
    from pyrovae.data.batches import binarize as binarize
    from pyrovae.data.benchmarks import DATASETS as DATASETS
    from pyrovae.data.datasets import Dataset as Dataset
    from pyrovae.data.loading import load_dataset as load_dataset
    from pyrovae.errors import InputError as InputError
    from pyrovae.evaluation.annealing import AnnealedLikelihood as AnnealedLikelihood
    from pyrovae.evaluation.annealing import BidirectionalBounds as BidirectionalBounds
    from pyrovae.evaluation.annealing import annealed_log_likelihood as annealed_log_likelihood
    from pyrovae.evaluation.annealing import bidirectional_bounds as bidirectional_bounds
    from pyrovae.evaluation.calibration import Calibration as Calibration
    from pyrovae.evaluation.calibration import calibrate as calibrate
    from pyrovae.evaluation.comparison import paired_difference as paired_difference
    from pyrovae.evaluation.diagnosis import diagnose as diagnose
    from pyrovae.evaluation.gaps import inference_gaps as inference_gaps
    from pyrovae.evaluation.latents import active_units as active_units
    from pyrovae.evaluation.latents import activity as activity
    from pyrovae.evaluation.latents import kl_by_layer as kl_by_layer
    from pyrovae.evaluation.latents import kl_by_unit as kl_by_unit
    from pyrovae.evaluation.likelihood import LogLikelihood as LogLikelihood
    from pyrovae.evaluation.likelihood import log_likelihood as log_likelihood
    from pyrovae.evaluation.oddity import oddity as oddity
    from pyrovae.evaluation.posterior import PosteriorDraws as PosteriorDraws
    from pyrovae.evaluation.posterior import hamiltonian_posterior as hamiltonian_posterior
    from pyrovae.evaluation.posterior import resample_posterior as resample_posterior
    from pyrovae.evaluation.ranking import auroc as auroc
    from pyrovae.evaluation.surgery import elbo_surgery as elbo_surgery
    from pyrovae.experiments.building import build as build
    from pyrovae.experiments.comparison import compare as compare
    from pyrovae.experiments.evaluations import Evaluation as Evaluation
    from pyrovae.experiments.papers.reproducing import reproduce as reproduce
    from pyrovae.experiments.papers.table import PAPERS as PAPERS
    from pyrovae.experiments.published import RECIPES as RECIPES
    from pyrovae.experiments.recipe import Recipe as Recipe
    from pyrovae.experiments.run import Run as Run
    from pyrovae.experiments.sweeping.grid import Grid as Grid
    from pyrovae.experiments.sweeping.sweep import sweep as sweep
    from pyrovae.experiments.training import train as train
    from pyrovae.inference.objectives import ELBO as ELBO
    from pyrovae.inference.objectives import IWELBO as IWELBO
    from pyrovae.inference.objectives import RenyiELBO as RenyiELBO
    from pyrovae.inference.registration import register_parameters as register_parameters
    from pyrovae.inference.state import recollect_statistics as recollect_statistics
    from pyrovae.inference.svi import CompiledSVI as CompiledSVI
    from pyrovae.inference.training import fit as fit
    from pyrovae.inference.warmup import linear_warmup as linear_warmup
    from pyrovae.inference.warmup import scale_latents as scale_latents
    from pyrovae.inference.weights import log_weights as log_weights
    from pyrovae.programs.architecture import Architecture as Architecture
    from pyrovae.programs.guides import GUIDES as GUIDES
    from pyrovae.programs.guides import VAE as VAE
    from pyrovae.programs.models import GenerativeModel as GenerativeModel

_MODULES = {
    "data.batches": ("Batches", "binarize"),
    "data.benchmarks": ("DATASETS",),
    "data.datasets": ("Dataset",),
    "data.loading": ("load_dataset",),
    "errors": ("InputError",),
    "evaluation.calibration": ("Calibration", "calibrate"),
    "evaluation.comparison": ("paired_difference",),
    "evaluation.diagnosis": ("diagnose",),
    "evaluation.gaps": ("inference_gaps",),
    "evaluation.latents": ("active_units", "activity", "kl_by_layer", "kl_by_unit"),
    "evaluation.annealing": (
        "AnnealedLikelihood",
        "BidirectionalBounds",
        "annealed_log_likelihood",
        "bidirectional_bounds",
    ),
    "evaluation.likelihood": ("LogLikelihood", "log_likelihood"),
    "evaluation.oddity": ("oddity",),
    "evaluation.ranking": ("auroc",),
    "evaluation.posterior": ("PosteriorDraws", "hamiltonian_posterior", "resample_posterior"),
    "evaluation.surgery": ("elbo_surgery",),
    "inference.objectives": ("ELBO", "IWELBO", "RenyiELBO"),
    "inference.registration": ("register_parameters",),
    "inference.state": ("recollect_statistics",),
    "inference.svi": ("CompiledSVI",),
    "inference.training": ("fit",),
    "inference.weights": ("log_weights",),
    "inference.warmup": ("linear_warmup", "scale_latents"),
    "programs.architecture": ("Architecture",),
    "programs.guides": ("GUIDES", "VAE"),
    "programs.models": ("GenerativeModel",),
    "experiments.papers.reproducing": ("reproduce",),
    "experiments.papers.table": ("PAPERS",),
    "experiments.published": ("RECIPES",),
    "experiments.building": ("build",),
    "experiments.comparison": ("compare",),
    "experiments.evaluations": ("Evaluation",),
    "experiments.run": ("Run",),
    "experiments.sweeping.grid": ("Grid",),
    "experiments.sweeping.sweep": ("sweep",),
    "experiments.training": ("train",),
    "experiments.recipe": ("Recipe",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pyrovae' has no attribute {name!r}")
    return getattr(importlib.import_module(f"pyrovae.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
