"""What every engine runs for a batch: one function of tensors, from the data to the loss and its gradients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.poutine as poutine
import torch
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.scale_messenger import ScaleMessenger
from torch import Tensor
from torch.utils import _pytree as pytree

from pyrovae.engine.capture import CaptureError, preserved_state
from pyrovae.engine.modules import Program, modules_that_run
from pyrovae.engine.precision import products_in
from pyrovae.inference.clipping import Clipping

Outputs = Sequence[Tensor | None]
Function = Callable[..., Outputs]
Transform = Callable[..., Any]


@dataclass(frozen=True)
class Programs:
    """Model, guide and loss, and what is done to a batch before they see it."""

    model: Program
    guide: Program
    loss: Any
    transform: Transform | None = None

    def served(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The arguments that model and guide take."""
        if self.transform is None:
            return args, kwargs
        result = self.transform(*args, **kwargs)
        return (result if isinstance(result, tuple) else (result,)), {}

    def differentiable_loss(self, args: Any, kwargs: Any) -> Tensor:
        """The loss of a batch, with gradients."""
        args, kwargs = self.served(args, kwargs)
        return self.loss.differentiable_loss(self.model, self.guide, *args, **kwargs)

    def loss_value(self, args: Any, kwargs: Any) -> float:
        """The loss of a batch as a number."""
        args, kwargs = self.served(args, kwargs)
        return float(self.loss.loss(self.model, self.guide, *args, **kwargs))


def moving_buffers(run: Callable[[], Any]) -> list[Tensor]:
    """The buffers that ``run()`` writes to, of all modules that it calls: statistics of batch norm, mostly."""
    moved: list[Tensor] = []

    # Values, not version counters: batch norm writes its statistics below them.
    def values(module: torch.nn.Module) -> list[tuple[Tensor, Tensor]]:
        return [(buffer, buffer.clone()) for buffer in module.buffers(recurse=False)]

    def compare(_: torch.nn.Module, buffers: list[tuple[Tensor, Tensor]]) -> None:
        moved.extend(buffer for buffer, before in buffers if not torch.equal(buffer, before))

    with modules_that_run(values, compare):
        run()
    return moved


def loss_and_gradients(
    programs: Programs,
    parameters: list[Tensor],
    buffers: list[Tensor],
    healthy: Tensor,
    arguments: Any,
    precision: str,
    clipping: Clipping,
) -> Function:
    """From scales and tensor arguments to the loss, whether all so far were finite, whether to take the step, and gradients.

    Args:
        programs: what is trained.
        parameters: by which the loss is differentiated.
        buffers: stay as they are where the step is not taken.
        healthy: a boolean kept between steps, whether all losses were finite.
        arguments: ``(args, kwargs)``, whose tensors are replaced by those that the function is given.
        precision: of the matrix products.
        clipping: what becomes of the gradients.
    """
    leaves, structure = pytree.tree_flatten(arguments)

    def function(*inputs: Tensor) -> Outputs:
        scales = outer_scales()
        given = iter(inputs[len(scales) :])
        args, kwargs = pytree.tree_unflatten([next(given) if isinstance(leaf, Tensor) else leaf for leaf in leaves], structure)
        before = [buffer.clone() for buffer in buffers]
        weights: list[Any] = [scale.scale for scale in scales]
        try:
            for scale, weight in zip(scales, inputs, strict=False):
                scale.scale = weight
            with products_in(precision), pyro.validation_enabled(False):
                loss = programs.differentiable_loss(args, kwargs)
                gradients = torch.autograd.grad(clipping.scaled(loss), parameters, allow_unused=True)
        finally:
            for scale, old in zip(scales, weights, strict=True):
                scale.scale = old
        loss = loss.detach().to(parameters[0].dtype)
        with torch.no_grad():
            healthy.logical_and_(loss.isfinite())
            clipped, taken = clipping(gradients, healthy)
            for buffer, old in zip(buffers, before, strict=True):
                buffer.copy_(torch.where(taken, buffer, old))
        return [loss, healthy.clone(), taken, *map(_laid_out_alike, clipped, parameters)]

    return function


@dataclass(frozen=True)
class Taken:
    """A step whose loss was not read yet, and what replays it."""

    args: Any
    kwargs: Any
    loss: Tensor
    noise: Tensor


def blame(programs: Programs, step: Taken, number: int) -> str:
    """Replay a step with the same noise, and name the first site that is not finite."""
    start = f"step {number}: the loss is {step.loss.item()}"
    with preserved_state(), torch.no_grad(), pyro.validation_enabled(False):
        torch.set_rng_state(step.noise)
        args, kwargs = programs.served(step.args, step.kwargs)
        guide_trace = poutine.trace(programs.guide).get_trace(*args, **kwargs)
        model_trace = poutine.trace(poutine.replay(programs.model, trace=guide_trace)).get_trace(*args, **kwargs)
        for program, trace in (("guide", guide_trace), ("model", model_trace)):
            trace.compute_log_prob()
            for name, site in trace.nodes.items():
                if site["type"] == "sample" and not torch.as_tensor(site["log_prob"]).isfinite().all():
                    where = f"the first site whose log-density is not finite is {name!r} of the {program}"
                    return f"{start}; {where}; the step was not applied"
    return f"{start}; every site's log-density is finite when the step is replayed; the step was not applied"


def _laid_out_alike(gradient: Tensor | None, parameter: Tensor) -> Tensor | None:
    """As ``backward`` stores it: fused optimizers read memory in order, and are silently wrong on a transposed gradient."""
    if gradient is None or gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def outer_scales() -> list[ScaleMessenger]:
    """The scales around a step, which become inputs of the graph."""
    return [handler for handler in _PYRO_STACK if isinstance(handler, ScaleMessenger)]


def refuse_other_handlers() -> None:
    """Raise ``CaptureError`` where a step stands under a handler that no graph could hold."""
    for handler in _PYRO_STACK:
        if not isinstance(handler, ScaleMessenger):
            raise CaptureError(
                f"expected no handlers around a step but poutine.scale and scale_latents; got {type(handler).__name__}: "
                "put it around the model or the guide instead"
            )
