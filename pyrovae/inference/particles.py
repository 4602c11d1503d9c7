"""Particles: how two programs are run for several draws at once.

Most programs take the particles in a plate in front of all others, and broadcast over it. One that does not, as a network of
convolutions, takes them as more examples: every example K times, the first particle of all examples first. Which of the
two fits is found by running both programs on two particles that are alike, whose log-densities are known from one.
"""

import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes

from pyrovae.engine.modules import Program, evaluation_mode, preserved_buffers
from pyrovae.inference.plates import PARTICLES, Site, examples_of, plates_of, sample_sites

# Densities of the same values agree within this share of the largest.
TOLERANCE = 1e-3
MOST_KNOWN = 200


class Arrangement(NamedTuple):
    """How programs take particles.

    Args:
        nesting: the number of dimensions that their own plates take.
        folded: which of the arguments, by number, are repeated to take the particles as more examples; none where the
            particles stand in a plate in front.
    """

    nesting: int
    folded: tuple[int, ...] = ()


def with_particles(
    model: Program, guide: Program, args: Any, kwargs: Any, num_particles: int
) -> tuple[Program, Program, Any, Any]:
    """Programs and arguments that draw so many particles at once; one particle needs nothing.

    Raises:
        ValueError: where the programs take no particles, neither in front nor as more examples.
    """
    if num_particles == 1:
        return model, guide, args, kwargs
    arrangement = arrangement_of(model, guide, args, kwargs)
    if arrangement.folded:
        return model, guide, *repeated((args, kwargs), arrangement.folded, num_particles)
    particles = pyro.plate(PARTICLES, num_particles, dim=-1 - arrangement.nesting)
    return particles(model), particles(guide), args, kwargs


def arrangement_of(model: Program, guide: Program, args: Any, kwargs: Any) -> Arrangement:
    """How two programs take particles: found once for each layout of their arguments.

    Raises:
        ValueError: where they do not.
    """
    leaves, structure = pytree.tree_flatten((args, kwargs))
    key = model, guide, (str(structure), *map(_layout, leaves))
    return _ARRANGEMENTS.get(key) or _ARRANGEMENTS.add(key, _found(model, guide, args, kwargs))


def repeated(arguments: Any, folded: Sequence[int], number: int) -> Any:
    """The same arguments, some of them by number with their rows that many times over."""
    leaves, structure = pytree.tree_flatten(arguments)
    for place in folded:
        leaves[place] = leaves[place].repeat(number, *(1,) * (leaves[place].dim() - 1))
    return pytree.tree_unflatten(leaves, structure)


class ProgramCache:
    """Keeps what was found out about programs, for as long as they live."""

    def __init__(self) -> None:
        self._known: OrderedDict[Any, Any] = OrderedDict()

    def get(self, key: Sequence[Any]) -> Any:
        """What is known of programs, and of what else is in the key, a tuple; None where nothing is."""
        return self._known.get(tuple(map(_reference, key)))

    def add(self, key: Sequence[Any], value: Any) -> Any:
        """Keep a value, and return it; nothing can be kept of programs that have no weak reference."""
        references = tuple(map(_reference, key))
        if None not in references:
            self._known[references] = value
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        return value


_ARRANGEMENTS = ProgramCache()


def _reference(program: Any) -> Any:
    """Equal for the same program, and never for another one in the same place in memory; None where there is none such."""
    if isinstance(program, tuple):
        return program
    method = getattr(program, "__func__", None)
    try:
        reference = weakref.ref(program if method is None else program.__self__)
        hash(reference)
    except TypeError:
        return None
    return reference, method


def _layout(leaf: Any) -> Any:
    """What is alike in arguments that programs treat alike: flags by value, tensors by everything but their sizes."""
    if isinstance(leaf, Tensor):
        return leaf.dim(), leaf.dtype, leaf.device
    return leaf if isinstance(leaf, (bool, str, type(None))) else type(leaf)


class _Run(NamedTuple):
    """The sites of guide and model in one run of both, and the indices that subsampled plates drew."""

    guide: Trace
    model: Trace
    indices: dict[str, Tensor]

    @property
    def sites(self) -> dict[tuple[str, str], Site]:
        named = {"model": self.model, "guide": self.guide}
        return {(program, site["name"]): site for program, trace in named.items() for site in sample_sites(trace)}


def _found(model: Program, guide: Program, args: Any, kwargs: Any) -> Arrangement:
    """Try both ways on two particles alike.

    What draws more than its latents has other densities each time, and some flows know those of their own draws alone: then
    shapes are compared, and values are not.
    """
    with _unnoticed():
        alone = _run(model, guide, args, kwargs, {})
        nesting = max((-frame.dim for site in alone.sites.values() for frame in plates_of(site).values()), default=0)
        by_value = _obstacle(alone, partial(_run, model, guide, args, kwargs), lambda value, _: value, True) is None
        particles = pyro.plate(PARTICLES, 2, dim=-1 - nesting)
        run = partial(_run, particles(model), particles(guide), args, kwargs)
        in_front = _obstacle(alone, run, partial(_in_front, nesting), by_value)
        if in_front is None:
            return Arrangement(nesting)
        dim, folded, as_more = _examples(alone, pytree.tree_leaves((args, kwargs)))
        if as_more is None:
            run = partial(_run, model, guide, *repeated((args, kwargs), folded, 2))
            as_more = _obstacle(alone, run, partial(_behind, dim), by_value)
    if as_more is None:
        return Arrangement(nesting, folded)
    raise ValueError(
        "expected programs that take several particles, in front of the examples (K, B, ...) or as more examples (K * B, ...). "
        f"In front: {in_front}. As more examples: {as_more}. Let networks keep the dimensions in front of those that they "
        "read, or use num_particles=1"
    )


def _obstacle(
    alone: _Run, run: Callable[[Mapping[str, Tensor]], _Run], twice: Callable[[Tensor, int], Tensor], by_value: bool
) -> str | None:
    """Why a run has not the log-densities of one particle ``twice``; None where it has."""
    # Where the guide draws a latent, its value is the guide's.
    latents = {name: site for (_, name), site in alone.sites.items() if not site["is_observed"]}
    values = {name: twice(site["value"], site["fn"].event_dim) for name, site in latents.items()} if by_value else {}
    try:
        got = run(values | alone.indices).sites
    except Exception as error:
        # Whatever a program says to particles is an answer.
        return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
    if set(got) != set(alone.sites):
        return f"there are other sites, {sorted({site for _, site in set(got) ^ set(alone.sites)})}"
    for (program, name), site in got.items():
        expected = twice(alone.sites[program, name]["log_prob"], 0)
        if site["log_prob"].shape != expected.shape:
            shapes = f"{tuple(site['log_prob'].shape)}, and not {tuple(expected.shape)}"
            return f"site {name!r} of the {program} has log-densities of shape {shapes}"
        if by_value and not _agree(site["log_prob"], expected):
            return f"site {name!r} of the {program} has other log-densities than with one particle"
    return None


def _agree(got: Tensor, expected: Tensor) -> bool:
    finite = expected[expected.isfinite()]
    largest = finite.abs().max().item() if len(finite) else 0.0
    return torch.allclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE * largest, equal_nan=True)


def _in_front(nesting: int, value: Tensor, event_dim: int) -> Tensor:
    """Twice the same, in a dimension in front of those of the plates."""
    missing = nesting - (value.dim() - event_dim)
    return torch.stack(2 * [value.reshape(*(1,) * missing, *value.shape)])


def _behind(dim: int, value: Tensor, event_dim: int) -> Tensor:
    """Twice the same, one behind the other in the dimension of the examples."""
    return torch.cat([value, value], dim - event_dim)


def _examples(alone: _Run, leaves: Sequence[Any]) -> tuple[int, tuple[int, ...], str | None]:
    """The dimension of the examples, which arguments have one row for each, and why they cannot be repeated."""
    plates = examples_of(alone.model, alone.guide)
    if not plates:
        return 0, (), "there is no plate of examples around all sites"
    for site in alone.sites.values():
        for frame in plates_of(site).values():
            if frame.full_size not in (None, frame.size):
                return 0, (), f"plate {frame.name!r} draws a subsample, and would draw no larger one for more examples"
    # The outermost of them; what else all sites have in common stays within.
    dim = min(plates)
    size = plates[dim].size
    folded = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == size]
    return dim, tuple(folded), None if folded else f"no argument is a tensor with a row for each of {size} examples"


def _run(model: Program, guide: Program, args: Any, kwargs: Any, values: Mapping[str, Tensor]) -> _Run:
    guide_trace = poutine.trace(_At(values)(guide)).get_trace(*args, **kwargs)
    model_trace = poutine.trace(poutine.replay(_At(values)(model), trace=guide_trace)).get_trace(*args, **kwargs)
    drawn = [*sample_sites(model_trace), *sample_sites(guide_trace)]
    indices = {site["name"]: site["value"] for site in drawn if type(site["fn"]).__name__ == "_Subsample"}
    run = _Run(prune_subsample_sites(guide_trace), prune_subsample_sites(model_trace), indices)
    for trace in (run.guide, run.model):
        trace.compute_log_prob()
    return run


class _At(Messenger):
    """Runs a program at given values of its latents."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._values = values

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"] and msg["name"] in self._values:
            msg["value"], msg["done"] = self._values[msg["name"]], True


@contextmanager
def _unnoticed() -> Iterator[None]:
    """Runs of programs that leave no mark: in no graph, on no generator, in no buffer, and hidden from handlers around."""
    with ExitStack() as stack:
        stack.enter_context(_disable_current_modes())
        stack.enter_context(torch.random.fork_rng())
        stack.enter_context(preserved_buffers())
        stack.enter_context(evaluation_mode())
        stack.enter_context(poutine.block())
        stack.enter_context(pyro.validation_enabled(False))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield
