"""The way in which two programs take several particles at once, found by running them.

Most programs take particles in an outermost plate, and broadcast over it. Others, such as networks of convolutions, take them
as more examples: every example K times, the first particle of all examples first. To find out which fits, both programs are run
on two equal particles, whose log-densities are known from a run with one.
"""

import warnings
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
from pyrovae.engine.validation import without_validation
from pyrovae.inference.plates import PARTICLES, Site, examples_of, plates_of, sample_sites

# Densities of the same values agree within this share of the largest.
TOLERANCE = 1e-3


class Arrangement(NamedTuple):
    """The arrangement of K particles and B examples in the tensors of programs.

    Args:
        nesting: the number of dimensions that the programs' own plates take.
        examples: the dimension of the plate of the examples, below zero.
        folded: the numbers of the arguments that are repeated to take particles as more examples; none where particles are in
            an outermost plate.
    """

    nesting: int
    examples: int = -1
    folded: tuple[int, ...] = ()

    def of_particles(self, number: int, programs: Sequence[Program], args: Any, kwargs: Any) -> tuple[list[Program], Any, Any]:
        """Return programs and arguments that draw ``number`` particles at once."""
        if self.folded:
            return [*programs], *_repeated((args, kwargs), self.folded, number)
        particles = pyro.plate(PARTICLES, number, dim=-1 - self.nesting)
        return [particles(program) for program in programs], args, kwargs

    def by_example(self, value: Tensor, event_dim: int, number: int) -> Tensor:
        """Rearrange a value of ``number`` particles to ``(K, B, *inner, *event)``, with inner plates after the examples."""
        missing = self.nesting + (not self.folded) - (value.dim() - event_dim)
        value = value.reshape(*(1,) * missing, *value.shape)
        if self.folded:
            return value.movedim(self._position, 0).unflatten(0, (number, -1))
        return value.movedim(1 + self._position, 1)

    def in_programs(self, value: Tensor) -> Tensor:
        """Rearrange a value ``(K, B, *inner, *event)`` to the shape that the programs use."""
        return value.flatten(0, 1).movedim(0, self._position) if self.folded else value.movedim(1, 1 + self._position)

    @property
    def _position(self) -> int:
        return self.nesting + self.examples


def find_arrangement(model: Program, guide: Program, args: Any, kwargs: Any) -> Arrangement:
    """Find the arrangement of two programs: try an outermost plate, then more examples, with two equal particles.

    Programs that draw more than their latents have other densities each time, and some flows know only the densities of their
    own draws: then shapes are compared, and values are not.

    Raises:
        ValueError: where neither gives each particle the log-densities of a run with one.
    """
    with _unnoticed():
        alone = _run(model, guide, args, kwargs, {})
        examples = min(examples_of(alone.model, alone.guide), default=-1)
        by_value = _obstacle(alone, partial(_run, model, guide, args, kwargs), lambda value, _: value, True) is None

        def obstacle(arrangement: Arrangement, twice: Callable[[Tensor, int], Tensor]) -> str | None:
            programs, twice_args, twice_kwargs = arrangement.of_particles(2, (model, guide), args, kwargs)
            run = partial(_run, programs[0], programs[1], twice_args, twice_kwargs)
            return _obstacle(alone, run, twice, by_value)

        in_front = Arrangement(alone.nesting, examples)
        why_not_in_front = obstacle(in_front, partial(_in_front, alone.nesting))
        if why_not_in_front is None:
            return in_front
        folded, why_not_more = _arguments_with_rows(alone, pytree.tree_leaves((args, kwargs)))
        more = Arrangement(alone.nesting, examples, folded)
        why_not_more = why_not_more or obstacle(more, partial(_behind, examples))
        if why_not_more is None:
            return more
    raise ValueError(
        "expected programs that take several particles, in front of the examples (K, B, ...) or as more examples (K * B, ...). "
        f"In front: {why_not_in_front}. As more examples: {why_not_more}. Let networks keep the dimensions in front of those "
        "that they read, or use num_particles=1"
    )


class _Run(NamedTuple):
    """A run of guide and model: their traces, and the indices that subsampled plates drew."""

    guide: Trace
    model: Trace
    indices: dict[str, Tensor]

    @property
    def sites(self) -> dict[tuple[str, str], Site]:
        named = {"model": self.model, "guide": self.guide}
        return {(program, site["name"]): site for program, trace in named.items() for site in sample_sites(trace)}

    @property
    def nesting(self) -> int:
        """The number of dimensions that plates take, and log-densities outside of plates."""
        plates = [-frame.dim for site in self.sites.values() for frame in plates_of(site).values()]
        return max((*plates, *(site["log_prob"].dim() for site in self.sites.values())), default=0)


def _obstacle(
    alone: _Run, run: Callable[[Mapping[str, Tensor]], _Run], twice: Callable[[Tensor, int], Tensor], by_value: bool
) -> str | None:
    """The reason why a run does not have the log-densities of one particle ``twice``; None where it has."""
    # Where the guide draws a latent, its value is the guide's.
    latents = {name: site for (_, name), site in alone.sites.items() if not site["is_observed"]}
    values = {name: twice(site["value"], site["fn"].event_dim) for name, site in latents.items()} if by_value else {}
    try:
        sites = run(values | alone.indices).sites
    except Exception as error:
        # Any error of a program with particles is a reason.
        return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
    if set(sites) != set(alone.sites):
        return f"there are other sites, {sorted({name for _, name in set(sites) ^ set(alone.sites)})}"
    for (program, name), site in sites.items():
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
    """Repeat a value twice, in a dimension before those of the plates."""
    missing = nesting - (value.dim() - event_dim)
    return torch.stack(2 * [value.reshape(*(1,) * missing, *value.shape)])


def _behind(dim: int, value: Tensor, event_dim: int) -> Tensor:
    """Repeat a value twice, one after the other in the dimension of the examples."""
    return torch.cat([value, value], dim - event_dim)


def _arguments_with_rows(alone: _Run, leaves: Sequence[Any]) -> tuple[tuple[int, ...], str | None]:
    """The numbers of the arguments with a row for each example, and the reason why they cannot be repeated, or None."""
    # Among several plates around all sites, the outermost is that of the examples.
    plates = examples_of(alone.model, alone.guide)
    if not plates:
        return (), "there is no plate of examples around all sites"
    for frame in (frame for site in alone.sites.values() for frame in plates_of(site).values()):
        if frame.full_size not in (None, frame.size):
            return (), f"plate {frame.name!r} draws a subsample, and would not draw one for each particle"
    size = plates[min(plates)].size
    rows = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == size]
    return tuple(rows), None if rows else f"no argument is a tensor with a row for each of {size} examples"


def _repeated(arguments: Any, folded: Sequence[int], number: int) -> Any:
    """Return the same arguments, with the rows of some repeated ``number`` times."""
    leaves, structure = pytree.tree_flatten(arguments)
    for place in folded:
        leaves[place] = leaves[place].repeat(number, *(1,) * (leaves[place].dim() - 1))
    return pytree.tree_unflatten(leaves, structure)


def _run(model: Program, guide: Program, args: Any, kwargs: Any, values: Mapping[str, Tensor]) -> _Run:
    guide_trace = poutine.trace(_At(values)(guide)).get_trace(*args, **kwargs)
    model_trace = poutine.trace(poutine.replay(_At(values)(model), trace=guide_trace)).get_trace(*args, **kwargs)
    drawn = {site["name"]: site for trace in (model_trace, guide_trace) for site in sample_sites(trace)}
    indices = {name: site["value"] for name, site in drawn.items() if _draws_a_subsample(site)}
    run = _Run(prune_subsample_sites(guide_trace), prune_subsample_sites(model_trace), indices)
    for trace in (run.guide, run.model):
        trace.compute_log_prob()
    return run


def _draws_a_subsample(site: Site) -> bool:
    # Every plate has such a site, though most of them draw all of their entries.
    return type(site["fn"]).__name__ == "_Subsample" and site["fn"].subsample_size not in (None, site["fn"].size)


class _At(Messenger):
    """A handler that runs a program at given values of its latents."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._values = values

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"] and msg["name"] in self._values:
            msg["value"], msg["done"] = self._values[msg["name"]], True


@contextmanager
def _unnoticed() -> Iterator[None]:
    """Run programs without side effects on graphs, generators and buffers, hidden from handlers around."""
    with ExitStack() as stack:
        stack.enter_context(_disable_current_modes())
        stack.enter_context(torch.random.fork_rng())
        stack.enter_context(preserved_buffers())
        stack.enter_context(evaluation_mode())
        stack.enter_context(poutine.block())
        stack.enter_context(without_validation())
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield
