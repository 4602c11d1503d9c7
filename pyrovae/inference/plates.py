"""The sites of traces, their plates, and which of these are the plates of the examples."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from pyro.poutine.trace_struct import Trace

Site = Any
PARTICLES = "particles"


def sample_sites(trace: Trace) -> Iterator[Site]:
    """The sites of a trace that were drawn or observed."""
    return (site for site in trace.nodes.values() if site["type"] == "sample")


def plates_of(site: Site) -> dict[str, Any]:
    """The plates around a site that have a dimension, by name, without the plate of the particles."""
    return {frame.name: frame for frame in site["cond_indep_stack"] if frame.vectorized and frame.name != PARTICLES}


def inner_plates(site: Site, *traces: Trace) -> list[Any]:
    """The plates of a site within those of the examples of some traces."""
    examples = examples_of(*traces)
    return [frame for frame in plates_of(site).values() if frame.dim not in examples]


def examples_of(*traces: Trace) -> dict[int, Any]:
    """The plates of the examples, by dimension: those around all sites of all traces."""
    plates = [_common_plates(sites) for trace in traces if (sites := list(sample_sites(trace)))]
    dims = set.intersection(*map(set, plates)) if plates else set()
    return {dim: plates[0][dim] for dim in sorted(dims)}


def subsampling_of(*traces: Trace) -> float:
    """The number of examples that each drawn one stands for: a factor of the bound, not of the weights within."""
    return subsampling(list(examples_of(*traces).values()))


def subsampling(plates: Sequence[Any]) -> float:
    """The number of entries of some plates together that each drawn one stands for."""
    return math.prod(frame.full_size / frame.size for frame in plates if frame.full_size)


def _common_plates(sites: Sequence[Site]) -> dict[int, Any]:
    """The plates around all sites, by name or else by dimension and size, since a plate may be entered under several names."""
    for key in (lambda frame: frame.name, lambda frame: (frame.dim, frame.size)):
        common = set.intersection(*({key(frame) for frame in plates_of(site).values()} for site in sites))
        if common:
            return {frame.dim: frame for frame in plates_of(sites[0]).values() if key(frame) in common}
    return {}
