"""Pictures: from arrays to a matplotlib ``Figure``. No function opens a window, writes a file or changes a setting.

The public names are imported on first use: the command line reads the formats of files without waiting for matplotlib.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyrovae.plots.calibration import IntervalCoverage as IntervalCoverage
    from pyrovae.plots.calibration import RankHistograms as RankHistograms
    from pyrovae.plots.calibration import coverage_by_unit as coverage_by_unit
    from pyrovae.plots.calibration import rank_histograms as rank_histograms
    from pyrovae.plots.curves import Course as Course
    from pyrovae.plots.curves import Measurement as Measurement
    from pyrovae.plots.curves import counts_over_epochs as counts_over_epochs
    from pyrovae.plots.curves import learning_curves as learning_curves
    from pyrovae.plots.curves import measurements_over as measurements_over
    from pyrovae.plots.embeddings import encodings as encodings
    from pyrovae.plots.embeddings import lattice as lattice
    from pyrovae.plots.embeddings import manifold as manifold
    from pyrovae.plots.embeddings import principal_components as principal_components
    from pyrovae.plots.embeddings import projections as projections
    from pyrovae.plots.encoding import FORMATS as FORMATS
    from pyrovae.plots.encoding import encode_figure as encode_figure
    from pyrovae.plots.images import image_grid as image_grid
    from pyrovae.plots.images import image_panels as image_panels
    from pyrovae.plots.images import image_rows as image_rows
    from pyrovae.plots.likelihoods import SampledCurve as SampledCurve
    from pyrovae.plots.likelihoods import histogram as histogram
    from pyrovae.plots.likelihoods import sampled_curves as sampled_curves
    from pyrovae.plots.likelihoods import tail_shapes as tail_shapes
    from pyrovae.plots.units import UnitCourse as UnitCourse
    from pyrovae.plots.units import divergence_bars as divergence_bars
    from pyrovae.plots.units import unit_heat_maps as unit_heat_maps

_MODULES = {
    "calibration": (
        "IntervalCoverage",
        "RankHistograms",
        "coverage_by_unit",
        "rank_histograms",
    ),
    "curves": (
        "Course",
        "Measurement",
        "counts_over_epochs",
        "learning_curves",
        "measurements_over",
    ),
    "embeddings": (
        "encodings",
        "lattice",
        "manifold",
        "principal_components",
        "projections",
    ),
    "encoding": (
        "FORMATS",
        "encode_figure",
    ),
    "images": (
        "image_grid",
        "image_panels",
        "image_rows",
    ),
    "likelihoods": (
        "SampledCurve",
        "histogram",
        "sampled_curves",
        "tail_shapes",
    ),
    "units": (
        "UnitCourse",
        "divergence_bars",
        "unit_heat_maps",
    ),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pyrovae.plots' has no attribute {name!r}")
    return getattr(importlib.import_module(f"pyrovae.plots.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
