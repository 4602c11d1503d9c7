"""``pyro.infer.SVI`` on a captured graph."""

import itertools
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyro
import pyro.poutine as poutine
import torch
from pyro.optim import PyroOptim
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.scale_messenger import ScaleMessenger
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pyrovae.inference.capture import CaptureError, Graph, capture, preserved_buffers, preserved_state, sites_of
from pyrovae.inference.compilation import compile_graph, has_compiler, is_compiled
from pyrovae.inference.objectives import Program
from pyrovae.inference.precision import PRECISIONS, products_in

Outputs = Sequence[Tensor | None]
Function = Callable[..., Outputs]

ENGINES = ("auto", "eager", "graph", "compiled")

# What compiling costs and brings, measured on two cores: seconds per operation of the graph, and the share of a step saved.
COMPILE_SECONDS, COMPILE_SECONDS_PER_NODE, LOAD_SECONDS, SAVED_SHARE = 3.0, 0.009, 2.0, 0.2
MEASURED_STEPS = 5


class CompiledSVI:
    """Stochastic variational inference with the handlers compiled away; used like ``pyro.infer.SVI``.

    The loss and its gradients are captured once per shape of the data as one graph of tensor operations, in which
    nothing is left of Pyro. All engines take the same steps:

    * ``eager``: plain Pyro, the reference;
    * ``graph``: the captured operations, one after the other: equal to eager to the last bit, loss and gradients, for one seed;
    * ``compiled``: the captured graph through inductor, with the same random numbers on a CPU; equal within rounding;
    * ``auto``: ``graph`` until the steps ahead are worth the time of compiling; ``decision`` says what was chosen and why.

    Effects around a step apply to it: under ``scale_latents(weight)`` the weight is an input of the graph.

    Args:
        model: the generative program: a module or any callable with Pyro primitives.
        guide: the variational program.
        optim: a torch optimizer, which trains its own parameters; or a ``pyro.optim`` one, which trains those of modules
            and of the parameter store.
        loss: any ``pyro.infer.ELBO`` with ``differentiable_loss``.
        engine: one of ``ENGINES``.
        precision: ``bfloat16`` multiplies matrices in it; parameters, samples and log-densities stay in float32.

    Raises:
        ValueError: for an unknown engine or precision, or a loss without ``differentiable_loss``.
        CaptureError: at the first step, before anything is trained, where a program cannot be captured.
        FloatingPointError: where a loss is not finite; the step is not applied.
    """

    def __init__(
        self,
        model: Program,
        guide: Program,
        optim: torch.optim.Optimizer | PyroOptim,
        loss: Any,
        *,
        engine: str = "auto",
        precision: str = "float32",
    ) -> None:
        for name, value, known in (("engine", engine, ENGINES), ("precision", precision, PRECISIONS)):
            if value not in known:
                raise ValueError(f"expected an {name} out of {', '.join(known)}; got {value!r}".replace("an p", "a p"))
        if not callable(getattr(loss, "differentiable_loss", None)):
            raise ValueError(
                f"expected a loss with differentiable_loss; {type(loss).__name__} has none: "
                "use ELBO or IWELBO of pyrovae, or Trace_ELBO or TraceEnum_ELBO of Pyro"
            )
        self.model, self.guide, self.optim, self.loss = model, guide, optim, loss
        self.engine, self.precision = engine, precision
        self.decision = f"engine {engine}: as asked"
        self.steps_taken = 0
        self._steps_ahead: int | None = None
        self._plans: dict[Any, _Plan] = {}

    def expect(self, steps: int) -> None:
        """Tell ``auto`` how many steps are to come; untold, it compiles once it has spent as long as compiling takes."""
        self._steps_ahead = steps

    def step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Take one gradient step; return the loss in nats, summed over the batch, still on the device."""
        inputs, plan = self._prepare(args, kwargs)
        noise = torch.get_rng_state()
        start = time.perf_counter()
        loss, *gradients = plan.run(inputs)
        assert loss is not None
        if not loss.isfinite():
            raise FloatingPointError(self._explain(loss, noise, args, kwargs))
        for parameter, gradient in zip(plan.parameters, gradients, strict=True):
            parameter.grad = gradient
        if isinstance(self.optim, PyroOptim):
            self.optim(plan.parameters)
        else:
            self.optim.step()
        self.steps_taken += 1
        if self.engine == "auto":
            self._reconsider(plan, inputs, time.perf_counter() - start)
        return loss

    def evaluate_loss(self, *args: Any, **kwargs: Any) -> float:
        """The loss in nats, summed over the batch, without a step: neither parameters nor buffers move."""
        with torch.no_grad(), preserved_buffers():
            return float(self.loss.loss(self.model, self.guide, *args, **kwargs))

    def _prepare(self, args: Any, kwargs: Any) -> tuple[list[Tensor], "_Plan"]:
        """The inputs of the graph that fits them; a new one where none does yet."""
        scales = _outer_scales()
        leaves, structure = pytree.tree_flatten((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        others = tuple(None if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        layout = tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in tensors)
        modes = tuple(module.training for module in _modules(self.model, self.guide))
        key = (layout, repr(others), str(structure), len(scales), modes)
        inputs = [torch.as_tensor(scale.scale, dtype=torch.float64) for scale in scales] + tensors
        if key not in self._plans:
            self._plans[key] = self._plan(args, kwargs, leaves, structure, inputs)
        return inputs, self._plans[key]

    def _plan(self, args: Any, kwargs: Any, leaves: list[Any], structure: Any, inputs: list[Tensor]) -> "_Plan":
        """Check the programs on this batch, and make what the engine runs."""
        _refuse_other_handlers()
        sites = sites_of(self.model, self.guide, args, kwargs)
        parameters = self._parameters(sites)
        with preserved_state(), pyro.validation_enabled(True):
            self.evaluate_loss(*args, **kwargs)
        function = self._function(parameters, leaves, structure)
        if self.engine == "eager":
            return _Plan(parameters, lambda inputs: function(*inputs))
        graph = capture(function, inputs)
        plan = _Plan(parameters, graph, graph)
        if self.engine == "compiled":
            self._compile(plan, inputs, "as asked")
        return plan

    def _parameters(self, sites: dict[str, Any]) -> list[Tensor]:
        if not isinstance(self.optim, PyroOptim):
            return [each for group in self.optim.param_groups for each in group["params"] if each.requires_grad]
        stored = [site["value"].unconstrained() for site in sites.values() if site["type"] == "param"]
        owned = [parameter for module in _modules(self.model, self.guide) for parameter in module.parameters(recurse=False)]
        unique = {id(parameter): parameter for parameter in (*stored, *owned) if parameter.requires_grad}
        if not unique:
            raise ValueError("expected parameters to train; model and guide have none in modules or in the parameter store")
        return list(unique.values())

    def _function(self, parameters: list[Tensor], leaves: list[Any], structure: Any) -> Function:
        """From scales and tensor arguments to the loss and its gradients: what every engine runs."""

        def loss_and_gradients(*inputs: Tensor) -> Outputs:
            scales = _outer_scales()
            before: list[Any] = [scale.scale for scale in scales]
            given = iter(inputs[len(scales) :])
            args, kwargs = pytree.tree_unflatten(
                [next(given) if isinstance(leaf, Tensor) else leaf for leaf in leaves], structure
            )
            try:
                for scale, weight in zip(scales, inputs, strict=False):
                    scale.scale = weight
                with products_in(self.precision), pyro.validation_enabled(False):
                    loss = self.loss.differentiable_loss(self.model, self.guide, *args, **kwargs)
                    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            finally:
                for scale, old in zip(scales, before, strict=True):
                    scale.scale = old
            return [loss.detach().to(parameters[0].dtype), *gradients]

        return loss_and_gradients

    def _reconsider(self, plan: "_Plan", inputs: list[Tensor], seconds: float) -> None:
        """Compile a graph where the steps ahead are worth it; measured on steps that were taken anyway."""
        if plan.settled or plan.graph is None:
            return
        plan.seconds.append(seconds)
        if len(plan.seconds) < MEASURED_STEPS:
            return
        step = min(plan.seconds)
        ahead = sum(plan.seconds) / step if self._steps_ahead is None else self._steps_ahead - self.steps_taken
        kept = is_compiled(plan.graph, inputs)
        cost = LOAD_SECONDS if kept else COMPILE_SECONDS + COMPILE_SECONDS_PER_NODE * len(plan.graph.module.graph.nodes)
        gain = SAVED_SHARE * step * ahead
        reason = (
            f"{ahead:.0f} steps of {step * 1e3:.1f} ms, of which compiling would save about {gain:.0f} s, "
            f"against {cost:.0f} s to {'load what an earlier process compiled' if kept else 'compile'}"
        )
        if gain > cost:
            self._compile(plan, inputs, reason)
        elif self._steps_ahead is not None:
            plan.settled = True
            self.decision = f"engine graph: {reason}"

    def _compile(self, plan: "_Plan", inputs: list[Tensor], reason: str) -> None:
        assert plan.graph is not None
        plan.settled = True
        if has_compiler() or inputs[-1].device.type != "cpu":
            plan.run = compile_graph(plan.graph, inputs)
            self.decision = f"engine compiled: {reason}"
        else:
            self.decision = "engine graph: there is no C++ compiler (g++ or clang++), which engine compiled needs"
            warnings.warn(self.decision, stacklevel=2)

    def _explain(self, loss: Tensor, noise: Tensor, args: Any, kwargs: Any) -> str:
        """Replay the step with the same noise, and find the first site that is not finite."""
        with preserved_state(), torch.no_grad(), pyro.validation_enabled(False):
            torch.set_rng_state(noise)
            guide_trace = poutine.trace(self.guide).get_trace(*args, **kwargs)
            model_trace = poutine.trace(poutine.replay(self.model, trace=guide_trace)).get_trace(*args, **kwargs)
            for program, trace in (("guide", guide_trace), ("model", model_trace)):
                trace.compute_log_prob()
                for name, site in trace.nodes.items():
                    if site["type"] == "sample" and not torch.as_tensor(site["log_prob"]).isfinite().all():
                        where = f"the first site whose log-density is not finite is {name!r} of the {program}"
                        return f"step {self.steps_taken + 1}: the loss is {loss.item()}; {where}; the step was not applied"
        where = "every site's log-density is finite when the step is replayed"
        return f"step {self.steps_taken + 1}: the loss is {loss.item()}; {where}; the step was not applied"


@dataclass
class _Plan:
    """What a shape of the data is trained with."""

    parameters: list[Tensor]
    run: Callable[[Sequence[Tensor]], Outputs]
    graph: Graph | None = None
    settled: bool = False
    seconds: list[float] = field(default_factory=list)


def _outer_scales() -> list[ScaleMessenger]:
    """The scales around the step, which become inputs of the graph."""
    return [handler for handler in _PYRO_STACK if isinstance(handler, ScaleMessenger)]


def _refuse_other_handlers() -> None:
    for handler in _PYRO_STACK:
        if not isinstance(handler, ScaleMessenger):
            raise CaptureError(
                f"expected no handlers around a step but poutine.scale and scale_latents; got {type(handler).__name__}: "
                "put it around the model or the guide instead"
            )


def _modules(*programs: Program) -> list[nn.Module]:
    return [module for program in programs if isinstance(program, nn.Module) for module in program.modules()]


_instances = itertools.count()


def registered(program: nn.Module) -> Callable[..., Any]:
    """Make a program fit for stock ``pyro.infer.SVI``: wrap the model and the guide each.

    Stock SVI trains what stands in the parameter store, and trains nothing, in silence, where a module did not register.
    Each call registers under a name of its own, so that two models in one process never share parameters.
    """
    name = f"{type(program).__name__}-{next(_instances)}"

    def run(*args: Any, **kwargs: Any) -> Any:
        pyro.module(name, program)
        return program(*args, **kwargs)

    run.__wrapped__ = program  # type: ignore[attr-defined]
    return run
