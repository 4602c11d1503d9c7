"""Find the site, row or parameter at which a step failed: the step is replayed as it was, site by site."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor

from pyrovae.engine.capture import preserved_state
from pyrovae.engine.reachable import Reachable
from pyrovae.engine.validation import without_validation
from pyrovae.inference.steps import Programs
from pyrovae.inference.supports import inside_support, scored_by, validates


@dataclass(frozen=True)
class PendingStep:
    """A step whose health was not read yet, with all that is needed to replay it.

    Args:
        args: the positional arguments of the step.
        kwargs: the keyword arguments of the step.
        loss: the loss of the step, in nats.
        noise: the state of torch's generator before the step.
        parameters: the parameters by which the loss was differentiated.
        handlers: the handlers around the step.
    """

    args: Any
    kwargs: Any
    loss: Tensor
    noise: Tensor
    parameters: Sequence[Tensor]
    handlers: Sequence[Any]


def blame(programs: Programs, step: PendingStep, number: int, unchecked: Collection[str] = ()) -> Exception:
    """Replay a step with the same noise, and name the first site, row or parameter at fault.

    Args:
        programs: the programs of the step.
        step: the step to be replayed.
        number: the number of the step.
        unchecked: the names of sites whose data are not validated.

    Returns:
        ``ValueError`` for data outside the support of their site, else ``FloatingPointError``.
    """
    sites = _Sites()
    with preserved_state(programs.model, programs.guide), without_validation(), _under(step.handlers), sites:
        torch.set_rng_state(step.noise)
        loss = programs.differentiable_loss(step.args, step.kwargs)
        gradients = programs.gradients(loss, step.parameters)
    start, end = f"step {number}: the loss is {step.loss.item():.6g}", "the step was not applied"
    for site in [each for each in sites.found if validates() and each["name"] not in unchecked]:
        if (inside := inside_support(site)) is not None and not inside.all():
            return ValueError(
                f"step {number}: expected data in the support of site {site['name']!r}, "
                f"a {type(scored_by(site['fn'])).__name__} "
                f"with support {site['fn'].support}; {_row(site, inside)} is not in it; {end}"
            )
    for site in sites.found:
        finite = torch.as_tensor(site["fn"].log_prob(site["value"])).isfinite()
        if not finite.all():
            where = f"the first site whose log-density is not finite is {site['name']!r} of the {site['program']}"
            return FloatingPointError(f"{start}; {where}, at {_row(site, finite)}; {end}")
    if not step.loss.isfinite():
        return FloatingPointError(f"{start}; every site's log-density is finite when the step is replayed; {end}")
    names = _names(programs)
    bad = [p for p, g in zip(step.parameters, gradients, strict=True) if g is not None and not g.isfinite().all()]
    which = f"its gradient by {names.get(bad[0], 'a parameter')} is not" if bad else "a gradient was not, and is when replayed"
    return FloatingPointError(f"{start}, which is finite; {which}; {end}")


class _Sites(Messenger):
    """A handler that remembers the drawn and observed sites, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, Any]] = []

    def _pyro_post_sample(self, msg: Any) -> None:
        if type(msg["fn"]).__name__ == "_Subsample" or not hasattr(msg["fn"], "log_prob"):
            return
        is_models = msg["is_observed"] or any(site["name"] == msg["name"] for site in self.found)
        kept = {key: msg[key] for key in ("name", "fn", "value", "is_observed", "mask", "cond_indep_stack")}
        self.found.append(kept | {"program": "model" if is_models else "guide"})


class _under:  # noqa: N801 - used as a context
    """Run under the handlers that were around a step."""

    def __init__(self, handlers: Sequence[Any]) -> None:
        self._handlers = handlers

    def __enter__(self) -> None:
        self._before = list(_PYRO_STACK)
        _PYRO_STACK[:] = self._handlers

    def __exit__(self, *_: Any) -> None:
        _PYRO_STACK[:] = self._before


def _row(site: Any, good: Tensor) -> str:
    """The place of the first bad entry in words, by the plates of its site."""
    bad = ~good
    index = bad.nonzero()[0].tolist() if bad.dim() else []
    plates = [frame for frame in site["cond_indep_stack"] if frame.vectorized and frame.name != "particles"]
    events = bad.dim() - (bad.dim() if site["fn"].batch_shape == bad.shape else len(site["fn"].batch_shape))
    names = [
        f"row {index[frame.dim - events]} of plate {frame.name!r}" for frame in plates if -frame.dim + events <= len(index)
    ]
    return ", ".join(names) or "its only value"


def _names(programs: Programs) -> dict[Tensor, str]:
    """The name of each parameter, as its owner has it."""
    store = pyro.get_param_store()
    names = {value: f"{name!r} of the parameter store" for name, value in store._params.items()}
    for module in reversed(Reachable(programs.model, programs.guide).modules):
        names |= {value: f"{name!r} of {type(module).__name__}" for name, value in module.named_parameters()}
    return names
