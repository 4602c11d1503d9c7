"""Checks that observed data are in the supports of their sites, exactly where Pyro's validation would check them."""

from collections.abc import Iterable
from typing import Any

import torch
from pyro.distributions import Independent, Unit
from pyro.distributions.torch_distribution import ExpandedDistribution, MaskedDistribution
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Distribution

# Wrappers that pass a value on to another distribution and validate nothing themselves.
TRANSPARENT = (Independent, torch.distributions.Independent, MaskedDistribution, ExpandedDistribution)


class Supports(Messenger):
    """A handler that checks whether observed values are in the supports of their sites.

    Args:
        unchecked: the names of sites made with ``validate_args=False``, which Pyro does not check either; None to find them,
            while Pyro's validation is on.
    """

    def __init__(self, unchecked: Iterable[str] | None = None) -> None:
        super().__init__()
        self._finds_out = unchecked is None
        self.unchecked: set[str] = set(unchecked or ())
        self._inside: list[Tensor] = []

    def all_inside(self) -> list[Tensor]:
        """A boolean ``()`` for each site since the last call: whether all its values are in the support."""
        inside, self._inside = self._inside, []
        return inside

    def _pyro_post_sample(self, msg: Any) -> None:
        if self._finds_out and not getattr(scored_by(msg["fn"]), "_validate_args", True):
            self.unchecked.add(msg["name"])
        if msg["name"] not in self.unchecked and (inside := inside_support(msg)) is not None:
            self._inside.append(inside.all())


def inside_support(site: Any) -> Tensor | None:
    """The mask of observed values that are in the support of their site; None for sites that Pyro would not check."""
    fn = site["fn"]
    if not site["is_observed"] or isinstance(fn, Unit) or not isinstance(fn, Distribution) or site["mask"] is False:
        return None
    try:
        support: Any = fn.support
        return torch.as_tensor(support.check(site["value"]))
    except NotImplementedError:
        return None


def scored_by(fn: Any) -> Any:
    """The distribution within wrappers that validates a value."""
    while isinstance(fn, TRANSPARENT):
        fn = fn.base_dist
    return fn


def validates() -> bool:
    """True where Pyro's validation of data is on."""
    return bool(Distribution._validate_args)
