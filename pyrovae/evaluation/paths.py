"""The geometric path of annealing from a start distribution to p(x, z), as densities of standardized states."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn

from pyrovae.engine.modules import Program
from pyrovae.engine.repeated import RepeatedFunction
from pyrovae.engine.validation import without_validation
from pyrovae.evaluation.standardized import at_standardized_values, log_densities, standard_value
from pyrovae.evaluation.support import entries_of
from pyrovae.inference.arrangements import Arrangement
from pyrovae.inference.particles import arrangement_of
from pyrovae.inference.plates import sample_sites, subsampling_of
from pyrovae.programs.conditionals import share_conditionals
from pyrovae.programs.models import GenerativeModel

# The start distributions: the guide's q(z | x, c), or the model's own p(z | c).
STARTS = ("guide", "prior")


class Point(NamedTuple):
    """The states of all latents side by side, and the densities and gradients there, in nats.

    Args:
        state: the latents, standardized, ``(K, B, D)``: chain, image, entry.
        log_start: log s of the state ``(K, B)``.
        log_weight: log p(x, z | c) - log s(z) ``(K, B)``: the log importance weight, the same in all coordinates.
        start_gradient: the gradient of ``log_start`` by the state ``(K, B, D)``.
        weight_gradient: the gradient of ``log_weight`` by the state ``(K, B, D)``.
    """

    state: Tensor
    log_start: Tensor
    log_weight: Tensor
    start_gradient: Tensor
    weight_gradient: Tensor

    def log_density(self, temperature: float) -> Tensor:
        """The logarithm of f_b ``(K, B)``."""
        return self.log_start + temperature * self.log_weight

    def gradient(self, temperature: float) -> Tensor:
        """The gradient of ``log_density`` by the state ``(K, B, D)``."""
        return torch.add(self.start_gradient, self.weight_gradient, alpha=temperature)


Density = Callable[[Tensor], Point]


class GeometricPath:
    r"""The unnormalised densities between a start distribution s and the joint density of a model.

    .. math:: \log f_b(z) = (1 - b) \log s(z) + b \log p(x, z | c) = \log s(z) + b \log w(z), \quad 0 \le b \le 1

    All latents form one state, each standardized by the start distribution given the latents drawn before. Gaussian starts are
    then N(0, I) in any hierarchy, and one size of step suits all directions. The densities and their gradients are computed by

    the programs at given values, as one captured graph, in which parts that depend on the data alone are computed once. Neal
    (2001), equation 3.

    Args:
        model: the generative program.
        guide: q(z | x, c).
        start: one of ``STARTS``.

    Raises:
        ValueError: for an unknown start.
    """

    def __init__(self, model: Program, guide: Program, start: str = "guide") -> None:
        if start not in STARTS:
            raise ValueError(f"expected a start out of {', '.join(STARTS)}; got {start!r}")
        self.model, self.guide, self.start = model, guide, start
        self._evaluations: RepeatedFunction | None = None

    def draw(self, rows: Sequence[Tensor], num_chains: int) -> Tensor:
        """Draw states ``(K, B, D)`` from the start distribution, for data ``(B, D)`` followed by contexts ``(B, C)`` if any."""
        place = self._place(rows)
        sites = sorted(drawn_sites(_run(self._first, rows, place, num_chains)).items())
        return flatten_latents(
            [place.by_example(standard_value(site), site["fn"].event_dim, num_chains) for _, site in sites], 2
        )

    def state_of(self, rows: Sequence[Tensor], z: Tensor) -> Tensor:
        """The states ``(B, D)`` of latents side by side ``(B, D)``."""
        place = self._place(rows)
        values: dict[str, Any] = {
            name: place.in_programs(each) for name, each in split_latents(z[None], self._shapes(rows)).items()
        }
        sites: dict[str, Any] = _run(poutine.condition(self._first, data=values), rows, place).nodes
        standard = {name: (standard_value(sites[name]), sites[name]["fn"].event_dim) for name in values}
        return flatten_latents([place.by_example(*each, 1) for each in standard.values()], 2)[0]

    def values_of(self, rows: Sequence[Tensor], state: Tensor) -> dict[str, Tensor]:
        """The latents ``(K, B, *event)`` of states ``(K, B, D)``, by site."""
        place, number = self._place(rows), len(state)
        values = {name: place.in_programs(each) for name, each in split_latents(state, self._shapes(rows)).items()}
        with at_standardized_values(values):
            sites = drawn_sites(_run(self._first, rows, place, number))
        return {name: place.by_example(sites[name]["value"], sites[name]["fn"].event_dim, number) for name in values}

    def density_for(self, rows: Sequence[Tensor], num_chains: int, calls_ahead: int = 0) -> Density:
        """The density for a few images, a function of states ``(K, B, D)``.

        Args:
            rows: the data ``(B, D)``, followed by contexts ``(B, C)`` if any.
            num_chains: the number of chains K.
            calls_ahead: the number of densities to come, of these images and others, which decides whether to compile.

        Raises:
            ValueError: for different latents in model and guide, latents that are not real, and data outside the support of the
                likelihood.
        """
        shapes = self._shapes(rows)
        if self._evaluations is None:
            self._evaluations = RepeatedFunction(partial(self._evaluate, shapes), [self.model, self.guide])
        state = rows[0].new_zeros(num_chains, len(rows[0]), sum(map(math.prod, shapes.values())))
        known = self._evaluations.bind([state], rows, calls_ahead)
        # The captured function needs states of the layout that it was captured with.
        return lambda state: Point(state, *known(state.contiguous()))

    @property
    def _first(self) -> Program:
        """The program that draws from the start distribution."""
        return self.guide if self.start == "guide" else self.model

    def _place(self, rows: Sequence[Tensor]) -> Arrangement:
        """The arrangement of chains and images, that of particles."""
        return arrangement_of(self.model, self.guide if self.start == "guide" else _draws_nothing, tuple(rows), {})

    def _shapes(self, rows: Sequence[Tensor]) -> dict[str, torch.Size]:
        """The shape of each latent of an image, by its site; data that the model cannot have drawn are refused."""
        with torch.random.fork_rng(devices=[]):
            drawn = drawn_sites(poutine.trace(self._first).get_trace(*rows))
        for name, site in drawn.items():
            _refuse_without_inverse(name, site)
        place = self._place(rows)
        traces = [_run(program, rows, place) for program in (self.model, self.guide)]
        traces[0].compute_log_prob()
        model, guide = map(drawn_sites, traces)
        if set(model) != set(guide):
            raise ValueError(f"expected the same latents in model and guide; got {sorted(model)} and {sorted(guide)}")
        if not model:
            raise ValueError("expected latents to anneal; got none: without them log_likelihood is exact, with one sample")
        for name, site in (*model.items(), *guide.items()):
            if entries_of(site["fn"].support) not in (constraints.real, constraints.real_vector):
                raise ValueError(
                    f"expected latents over all real numbers, where gradients lead; site {name!r} is a "
                    f"{type(site['fn']).__name__}: transform it in the programs, or use log_likelihood"
                )
        by_example = {name: place.by_example(site["value"], site["fn"].event_dim, 1) for name, site in sorted(guide.items())}
        return {name: value.shape[2:] for name, value in by_example.items()}

    def _evaluate(self, shapes: dict[str, torch.Size], state: Tensor, *rows: Tensor) -> list[Tensor]:
        """Compute the densities and gradients of a point."""
        with torch.enable_grad(), without_validation():
            state = state.detach().requires_grad_()
            log_start, log_weight = self._densities(split_latents(state, shapes), rows)
            (start_gradient,) = torch.autograd.grad(log_start.sum(), state, retain_graph=True)
            (weight_gradient,) = torch.autograd.grad(log_weight.sum(), state)
        return [log_start.detach(), log_weight.detach(), start_gradient, weight_gradient]

    def _densities(self, values: dict[str, Tensor], rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The log-densities of start and weight, each ``(K, B)``."""
        num_chains, place = len(next(iter(values.values()))), self._place(rows)
        values = {name: place.in_programs(value) for name, value in values.items()}

        def total(terms: Iterable[Tensor]) -> Tensor:
            by_image = (place.by_example(term, 0, num_chains) for term in terms)
            return _total([each.sum(list(range(2, each.dim()))) if each.dim() > 2 else each for each in by_image])

        with share_conditionals():
            with at_standardized_values(values):
                first = _run(self._first, rows, place, num_chains)
            pairs = [log_densities(first.nodes[name], value) for name, value in values.items()]
            log_start, of_latents = (total(terms) for terms in zip(*pairs, strict=True))
            if self.start == "prior":
                return log_start, total(_log_probabilities(first, without=values)) / subsampling_of(first)
            data: dict[str, Any] = {name: first.nodes[name]["value"] for name in values}
            joint = _run(poutine.condition(self.model, data=data), rows, place, num_chains)
        return log_start, (total(_log_probabilities(joint)) - of_latents) / subsampling_of(joint)


def simulate(model: Program, batch_size: int, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Draw data ``(B, D)`` from a model; returns their latents side by side ``(B, D)`` too, sorted by site.

    Arguments and errors are those of ``simulate_by_site``.
    """
    x, latents = simulate_by_site(model, batch_size, context)
    return x, flatten_latents([each for _, each in sorted(latents.items())], 1)


def simulate_by_site(model: Program, batch_size: int, context: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """Draw data ``(B, D)`` from a model; returns their latents by site too, which are samples of the posterior.

    With contexts ``(B, C)`` one image is drawn for each, else ``batch_size`` images.

    Raises:
        ValueError: for a model that does not draw data at a site ``x`` when it is called with these arguments alone.
    """
    arguments = {"batch_size": batch_size} if context is None else {"context": context}
    _refuse_other_arguments(model, arguments)
    sites = drawn_sites(prune_subsample_sites(poutine.trace(model).get_trace(**arguments)))
    if "x" not in sites:
        raise ValueError(
            f"expected a model that draws its data at a site 'x' when it is given none; it drew {sorted(sites)}: name that "
            "site so, or use annealed_log_likelihood on data of your own"
        )
    x = sites.pop("x")["value"]
    # The guide must see the observed pixels as they are in the context.
    x = model.complete(x, context) if isinstance(model, GenerativeModel) else x
    return x, {name: site["value"] for name, site in sites.items()}


def _draws_nothing(*_: Any, **__: Any) -> None:
    """Draw nothing: the guide of a path that starts at the prior."""


def _refuse_other_arguments(model: Program, arguments: Mapping[str, Any]) -> None:
    try:
        inspect.signature(model.forward if isinstance(model, nn.Module) else model).bind(**arguments)
    except TypeError as error:
        called = ", ".join(f"{name}=" for name in arguments)
        raise ValueError(
            f"expected a model that draws data when it is called with {called} alone, as GenerativeModel does; got one with "
            f"{error}: write model(x=None, context=None, *, batch_size=1), or use annealed_log_likelihood on data of your own"
        ) from None


def _refuse_without_inverse(name: str, site: Mapping[str, Any]) -> None:
    """Refuse a distribution that cannot be evaluated at values that it has not drawn, to which chains move."""
    try:
        site["fn"].log_prob(site["value"].clone())
    except (NotImplementedError, KeyError):
        transforms = [type(each).__name__ for each in getattr(site["fn"], "transforms", ())]
        raise ValueError(
            f"expected a density at any value, since chains move; site {name!r} is a {type(site['fn']).__name__} by "
            f"{', '.join(transforms) or 'a transform'}, which knows it for its own draws alone: use start='prior' where that "
            "is the guide's, a flow with an inverse (affine_coupling, spline), or log_likelihood"
        ) from None


def _run(program: Program, rows: Sequence[Tensor], place: Arrangement, num_chains: int = 1) -> Trace:
    """Trace a program with ``num_chains`` chains, in their arrangement."""
    (program,), args, kwargs = place.of_particles(num_chains, [program], tuple(rows), {})
    return prune_subsample_sites(poutine.trace(program).get_trace(*args, **kwargs))


def _log_probabilities(trace: Trace, without: Iterable[str] = ()) -> list[Tensor]:
    """The log-probabilities of all sites but some, each ``(K, B)``."""
    trace.compute_log_prob()
    return [site["log_prob"] for site in sample_sites(trace) if site["name"] not in without]


def _total(terms: Sequence[Tensor]) -> Tensor:
    first, *others = terms
    return sum(others, first)


def drawn_sites(trace: Trace) -> dict[str, Any]:
    """The sites that were drawn, by name."""
    return {site["name"]: site for site in sample_sites(trace) if not site["is_observed"]}


def flatten_latents(values: Iterable[Tensor], batch_dims: int) -> Tensor:
    """Put values ``(*batch, *event)`` side by side ``(*batch, D)``."""
    return torch.cat([value.reshape(*value.shape[:batch_dims], -1) for value in values], -1)


def split_latents(z: Tensor, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Split z ``(K, B, D)`` into the values ``(K, B, *event)`` of each latent."""
    parts = z.split([math.prod(shape) for shape in shapes.values()], -1)
    return {name: part.reshape(*z.shape[:-1], *shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
