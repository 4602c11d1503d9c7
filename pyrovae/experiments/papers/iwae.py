"""Burda et al. 2016, Importance Weighted Autoencoders: its table."""

from __future__ import annotations

from pyrovae.experiments.papers.experiment import Experiment, More, Statement
from pyrovae.experiments.published import RECIPES

_PAPER = "Burda et al. 2016"
_LAYERS = {"1 layer": RECIPES["iwae-1"], "2 layers": RECIPES["iwae-2"]}
_VAE = {"1 layer": (-86.76, -86.47, -86.35), "2 layers": (-85.33, -85.01, -84.78)}
_IWAE = {"1 layer": (-85.54, -84.78), "2 layers": (-83.89, -82.90)}

EXPERIMENTS: dict[str, Experiment] = {
    "iwae-table-1": Experiment(
        shows="log p by depth and number of samples, for a VAE and an importance-weighted one",
        source=f"{_PAPER}, table 1",
        recipes={
            **{
                f"VAE {layers}, K = {samples}": recipe.replace(objective="elbo", num_particles=samples)
                for layers, recipe in _LAYERS.items()
                for samples in (1, 5, 50)
            },
            **{
                f"IWAE {layers}, K = {samples}": recipe.replace(num_particles=samples)
                for layers, recipe in _LAYERS.items()
                for samples in (5, 50)
            },
        },
        columns=("elbo", "log_likelihood", "active_units_0.01"),
        published={
            **{
                f"VAE {layers}, K = {samples}": {"log_likelihood": value}
                for layers, values in _VAE.items()
                for samples, value in zip((1, 5, 50), values, strict=True)
            },
            **{
                f"IWAE {layers}, K = {samples}": {"log_likelihood": value}
                for layers, values in _IWAE.items()
                for samples, value in zip((5, 50), values, strict=True)
            },
        },
        quoted=True,
        statements=(
            Statement(
                "importance weighting improves with K, at both depths",
                tuple(
                    claim
                    for layers in _LAYERS
                    for claim in (
                        More("log_likelihood", f"IWAE {layers}, K = 5", f"VAE {layers}, K = 1"),
                        More("log_likelihood", f"IWAE {layers}, K = 50", f"IWAE {layers}, K = 5"),
                    )
                ),
            ),
            Statement(
                "importance weighting is better than a VAE whose bound is averaged over as many samples",
                tuple(
                    More("log_likelihood", f"IWAE {layers}, K = {samples}", f"VAE {layers}, K = {samples}")
                    for layers in _LAYERS
                    for samples in (5, 50)
                ),
            ),
            Statement(
                "importance weighting leaves more units active",
                tuple(More("active_units_0.01", f"IWAE {layers}, K = 50", f"VAE {layers}, K = 1") for layers in _LAYERS),
            ),
        ),
    ),
}
