"""The function that every engine runs for a batch: it computes loss, gradients, and whether to take the step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyro.poutine as poutine
import torch
from pyro.infer import TraceEnum_ELBO, TraceTMC_ELBO
from torch import Tensor

from pyrovae.engine.capture import preserved_state
from pyrovae.engine.modules import Program, modules_that_run
from pyrovae.engine.precision import products_in
from pyrovae.engine.reachable import Reachable
from pyrovae.engine.shared_draws import WholeDraws
from pyrovae.engine.shares import Share
from pyrovae.engine.validation import without_validation
from pyrovae.errors import CaptureError
from pyrovae.inference.clipping import Clipping
from pyrovae.inference.supports import Supports

Outputs = Sequence[Tensor | None]
Transform = Callable[..., Any]


@dataclass(frozen=True)
class Programs:
    """The model, guide and loss of a training, with the transform of batches and the clipping of gradients."""

    model: Program
    guide: Program
    loss: Any
    transform: Transform | None = None
    precision: str = "float32"
    clipping: Clipping = field(default_factory=Clipping)

    def arguments(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The arguments that model and guide take."""
        if self.transform is None:
            return args, kwargs
        result = self.transform(*args, **kwargs)
        return (result if isinstance(result, tuple) else (result,)), {}

    def differentiable_loss(self, args: Any, kwargs: Any) -> Any:
        """The loss of a batch, with gradients; a number where no site has gradients."""
        args, kwargs = self.arguments(args, kwargs)
        with products_in(self.precision):
            return self.loss.differentiable_loss(self.model, self.guide, *args, **kwargs)

    def loss_value(self, args: Any, kwargs: Any) -> float:
        """The loss of a batch as a number."""
        args, kwargs = self.arguments(args, kwargs)
        return float(self.loss.loss(self.model, self.guide, *args, **kwargs))

    def gradients(self, loss: Any, parameters: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """The gradients of the loss; None for a parameter that it does not depend on."""
        if not isinstance(loss, Tensor) or not loss.requires_grad or not parameters:
            return [None] * len(parameters)
        gradients = torch.autograd.grad(self.clipping.scale_loss(loss), list(parameters), allow_unused=True)
        return [_laid_out_alike(gradient, parameter) for gradient, parameter in zip(gradients, parameters, strict=True)]


def gradient_step(
    programs: Programs,
    parameters: list[Tensor],
    buffers: list[Tensor],
    healthy: Tensor,
    supports: Supports,
    *,
    looks_at_data: bool,
    share: Share,
    draws: WholeDraws,
) -> Callable[..., Outputs]:
    """Make a function of a batch that returns the loss, whether all steps were healthy, whether to take the step, gradients.

    A step is healthy where loss and gradients are finite and the data are in the support of their sites.

    Args:
        programs: the programs that are trained.
        parameters: the parameters by which the loss is differentiated.
        buffers: the buffers that are restored where the step is not taken.
        healthy: a boolean kept between steps: whether all of them were healthy.
        supports: the handler that checks the data.
        looks_at_data: whether its checks count.
        share: the share of this process, whose rows of the batch the function takes.
        draws: the draws on the whole batch.
    """

    def step(*args: Any, **kwargs: Any) -> Outputs:
        before = [buffer.clone() for buffer in buffers]
        with supports, without_validation(), share.split(draws):
            loss = programs.differentiable_loss(args, kwargs)
        gradients = programs.gradients(loss, parameters)
        inside: Sequence[Tensor] = supports.all_inside() if looks_at_data else []
        with torch.no_grad():
            value = torch.as_tensor(loss, device=healthy.device).detach()
            value = value.to(parameters[0].dtype if parameters else torch.get_default_dtype())
            if share.size > 1:
                value, totals, inside = _over_processes(share, value, gradients, inside)
                gradients = list(map(_laid_out_alike, totals, parameters))
            healthy.logical_and_(are_healthy(value, gradients, inside))
            gradients, taken = programs.clipping(gradients, healthy)
            for buffer, old in zip(buffers, before, strict=True):
                buffer.copy_(torch.where(taken, buffer, old))
        return [value, healthy.clone(), taken, *gradients]

    return step


def _over_processes(
    share: Share, loss: Tensor, gradients: Outputs, inside: Sequence[Tensor]
) -> tuple[Tensor, Outputs, Sequence[Tensor]]:
    """The loss, gradients and checks of the data of all processes together, by one operation between them."""
    outside = torch.stack([each.to(loss.device) for each in inside]).logical_not().any() if inside else torch.zeros_like(loss)
    loss, outside, *totals = share.total([loss, outside.to(loss), *(each for each in gradients if each is not None)])
    rest = iter(totals)
    return loss, [None if each is None else next(rest) for each in gradients], [outside == 0]


def are_healthy(loss: Tensor, gradients: Sequence[Tensor | None], inside: Sequence[Tensor]) -> Tensor:
    """A boolean ``()``, true where loss and gradients are finite and the data ``inside`` their supports."""
    # A sum is finite where its terms are.
    sums = [each.sum().to(loss) for each in gradients if each is not None]
    healthy = torch.stack([loss, *sums]).isfinite().all()
    return healthy & torch.stack([each.to(loss.device) for each in inside]).all() if inside else healthy


def moving_buffers(run: Callable[[], Any], *programs: Any) -> list[Tensor]:
    """The buffers that ``run()`` writes to, in all modules that it calls: mostly statistics of batch norm."""
    moved: list[Tensor] = []

    # Values are compared and not version counters, which batch norm does not advance.
    def values(module: torch.nn.Module) -> list[tuple[Tensor, Tensor]]:
        return [(buffer, buffer.clone()) for buffer in module.buffers(recurse=False)]

    def compare(_: torch.nn.Module, buffers: list[tuple[Tensor, Tensor]]) -> None:
        moved.extend(buffer for buffer, before in buffers if not torch.equal(buffer, before))

    with modules_that_run(values, compare, Reachable(*programs)):
        run()
    return moved


def check_sites(programs: Programs, args: Any, kwargs: Any) -> dict[str, Any]:
    """Check and return all sites of the guide and the replayed model, by name, from two runs without side effects.

    Raises:
        CaptureError: for sites that differ between the runs, and for a latent of the guide that the loss cannot take.
    """
    with preserved_state(programs.model, programs.guide), torch.no_grad():
        args, kwargs = programs.arguments(args, kwargs)
        first, second = (_sites(programs, args, kwargs) for _ in range(2))
    if changed := sorted(set(first) ^ set(second)):
        raise CaptureError(
            f"expected the same sites at every run; {', '.join(map(repr, changed))} came in one run and not in the next: "
            "keep the structure fixed and mask what should not count, or use engine='eager'"
        )
    for name, site in first.items():
        if site["type"] == "sample" and site["in_guide"] and not site["is_observed"]:
            _check_latent(name, site, programs.loss)
    return first


def refuse_sites_without_examples(own: dict[str, Any], whole: dict[str, Any]) -> None:
    """Refuse sites that are the same for some rows as for the whole batch: processes would count them once each.

    Raises:
        CaptureError: for such a site.
    """
    for name, site in own.items():
        # Neither the indices of a plate nor a name for a value has a density.
        counts = hasattr(site.get("fn"), "batch_shape") and not site["infer"].get("_deterministic")
        if counts and name in whole and _shape(site) == _shape(whole[name]):
            raise CaptureError(
                f"expected sites that have a dimension of examples, which processes share; site {name!r} has the shape "
                f"{tuple(_shape(site))} for any number of them: train in one process, or use engine='eager'"
            )


def _shape(site: Any) -> torch.Size:
    return torch.Size([*site["fn"].batch_shape, *site["fn"].event_shape])


def _check_latent(name: str, site: Any, loss: Any) -> None:
    kind = type(getattr(site["fn"], "base_dist", site["fn"])).__name__
    if type(site["fn"]).__name__ == "_Subsample":
        return
    if site["infer"].get("enumerate") is not None:
        if not isinstance(loss, TraceEnum_ELBO | TraceTMC_ELBO):
            raise CaptureError(
                f"expected a loss that sums out what is enumerated; site {name!r} of the guide is, and the loss is a "
                f"{type(loss).__name__}: use TraceEnum_ELBO"
            )
    elif not site["fn"].has_rsample:
        raise CaptureError(
            f"expected reparameterized latents; site {name!r} of the guide is a {kind}, which has no rsample: "
            "sum it out of the model (config_enumerate and TraceEnum_ELBO), or use engine='eager' or pyro.infer.SVI"
        )


def _sites(programs: Programs, args: Any, kwargs: Any) -> dict[str, Any]:
    guide_trace = poutine.trace(programs.guide).get_trace(*args, **kwargs)
    model_trace = poutine.trace(poutine.replay(programs.model, trace=guide_trace)).get_trace(*args, **kwargs)
    return {
        name: dict(site, in_guide=trace is guide_trace)
        for trace in (guide_trace, model_trace)
        for name, site in trace.nodes.items()
        if site["type"] in ("sample", "param") and not (name in guide_trace.nodes and trace is model_trace)
    }


def _laid_out_alike(gradient: Tensor | None, parameter: Tensor) -> Tensor | None:
    """The gradient in its parameter's layout: fused optimizers read memory in order, and are wrong on a transposed gradient."""
    if gradient is None or gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)
