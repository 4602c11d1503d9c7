"""Whether observed data lie in the supports of their sites, looked at where Pyro's validation would, and at no other place."""

from collections.abc import Iterable
from typing import Any

import torch
from pyro.distributions import Independent, Unit
from pyro.distributions.torch_distribution import ExpandedDistribution, MaskedDistribution
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Distribution

# They hand a value on to what is inside, and validate nothing themselves.
TRANSPARENT = (Independent, torch.distributions.Independent, MaskedDistribution, ExpandedDistribution)


class Supports(Messenger):
    """Looks whether observed values are in the supports of their sites.

    Args:
        unchecked: names of sites made with ``validate_args=False``, which Pyro does not look at either; where they are None,
            validation is on, and they are found out.
    """

    def __init__(self, unchecked: Iterable[str] | None = None) -> None:
        super().__init__()
        self._finds_out = unchecked is None
        self.unchecked: set[str] = set(unchecked or ())
        self._inside: list[Tensor] = []

    def all_inside(self) -> list[Tensor]:
        """Whether all values of each site ``()`` are in its support, of the sites that were met since this was last asked."""
        inside, self._inside = self._inside, []
        return inside

    def _pyro_post_sample(self, msg: Any) -> None:
        if self._finds_out and not getattr(scored_by(msg["fn"]), "_validate_args", True):
            self.unchecked.add(msg["name"])
        if msg["name"] not in self.unchecked and (inside := inside_support(msg)) is not None:
            self._inside.append(inside.all())


def inside_support(site: Any) -> Tensor | None:
    """Whether each observed value is in the support of its site; None where nobody asks."""
    fn = site["fn"]
    if not site["is_observed"] or isinstance(fn, Unit) or not isinstance(fn, Distribution) or site["mask"] is False:
        return None
    try:
        support: Any = fn.support
        return torch.as_tensor(support.check(site["value"]))
    except NotImplementedError:
        return None


def scored_by(fn: Any) -> Any:
    """The distribution that looks at a value, of one that hands values on."""
    while isinstance(fn, TRANSPARENT):
        fn = fn.base_dist
    return fn


def validates() -> bool:
    """Whether Pyro's validation is on, which looks at the data."""
    return bool(Distribution._validate_args)
