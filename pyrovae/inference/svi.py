"""``pyro.infer.SVI`` on a captured graph."""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from pyro.optim import PyroOptim
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pyrovae.engine.capture import Graph, capture, preserved_state, sites_of
from pyrovae.engine.choice import ENGINES
from pyrovae.engine.compilation import compile_graph, has_compiler, time_to_compile
from pyrovae.engine.modules import Program, preserved_buffers
from pyrovae.engine.precision import PRECISIONS
from pyrovae.inference.clipping import Clipping
from pyrovae.inference.steps import (
    Outputs,
    Programs,
    Taken,
    Transform,
    blame,
    loss_and_gradients,
    moving_buffers,
    outer_scales,
    refuse_other_handlers,
)
from pyrovae.inference.updates import can_be_captured, fixed_settings, learning_rates, scalar, with_update

# The share of a step that compiling saves, measured on two cores.
SAVED_SHARE = 0.2
MEASURED_STEPS = 5
# Losses are read together on an accelerator, where every reading waits for the device.
UNREAD_STEPS = 100


class CompiledSVI:
    """Stochastic variational inference with the handlers compiled away; used like ``pyro.infer.SVI``.

    The loss and its gradients are captured once per shape of the data as one graph of tensor operations, in which
    nothing is left of Pyro. All engines take the same steps:

    * ``eager``: plain Pyro, the reference;
    * ``graph``: the captured operations, one after the other: equal to eager to the last bit, loss and gradients, for one seed;
    * ``compiled``: from the second step on the captured graph through inductor, with the step of Adam or AdamW in it and the
      same random numbers on a CPU; on a CUDA device recorded as a CUDA graph (with Adam's step in it where Adam is ``fused``);
      equal within rounding, but parameters have no ``grad`` afterwards;
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
        transform: from the arguments of a step to those of model and guide (one, or a tuple), inside the graph: ``binarized``.
        clipping: of the gradients, and which steps to leave out; none by default, of the loss summed over the batch.

    Raises:
        ValueError: for an unknown engine or precision, or a loss without ``differentiable_loss``.
        CaptureError: at the first step, before anything is trained, where a program cannot be captured.
        FloatingPointError: where a loss is not finite: at that step, or on an accelerator at the next ``check``; neither
            that step nor any behind it was applied.
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
        transform: Transform | None = None,
        clipping: Clipping | None = None,
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
        self.clipping = clipping or Clipping()
        self._skipped: Tensor | int = 0
        self._programs = Programs(model, guide, loss, transform)
        self._steps_ahead: int | None = None
        self._plans: dict[Any, _Plan] = {}
        self._healthy: dict[torch.device, Tensor] = {}
        self._unread: list[Taken] = []
        if isinstance(optim, torch.optim.Optimizer):
            # A compiled step holds the moments that it was compiled with.
            optim.register_load_state_dict_post_hook(lambda _: self._plans.clear())

    def expect(self, steps: int) -> None:
        """Tell ``auto`` how many steps are to come; untold, it compiles once it has spent as long as compiling takes."""
        self._steps_ahead = steps

    def step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Take one gradient step; return the loss in nats, summed over the batch, still on the device."""
        inputs, plan = self._prepare(args, kwargs)
        noise = torch.get_rng_state()
        start = time.perf_counter()
        if plan.settings is not None and plan.settings != fixed_settings(self.optim):
            self._compile(plan, inputs, "without the optimizer, whose settings change while it trains", update=False)
        rates = [] if plan.settings is None else learning_rates(self.optim)
        loss, healthy, taken, *gradients = plan.run([*inputs, *rates])
        assert loss is not None
        assert healthy is not None
        assert taken is not None
        self.steps_taken += 1
        self._unread.append(Taken(args, kwargs, loss, noise))
        if plan.settings is None or self._reads_now(loss):
            self._check(healthy)
        if self.clipping.skips:
            self._skipped = taken.logical_not() + self._skipped
        if plan.settings is None and (not self.clipping.skips or taken):
            self._update(plan.parameters, gradients)
            if not plan.settled:
                self._reconsider(plan, inputs, time.perf_counter() - start)
        return loss

    def check(self) -> None:
        """Read whether all losses so far were finite: done at every step on a CPU, every hundredth on an accelerator.

        Raises:
            FloatingPointError: where one was not; parameters, moments and buffers are as they were before it.
        """
        for healthy in self._healthy.values():
            self._check(healthy)

    @property
    def steps_skipped(self) -> int:
        """How many steps so far ``clipping`` left out."""
        return int(self._skipped)

    def evaluate_loss(self, *args: Any, **kwargs: Any) -> float:
        """The loss in nats, summed over the batch, without a step: neither parameters nor buffers move."""
        with torch.no_grad(), preserved_buffers():
            return self._programs.loss_value(args, kwargs)

    def _prepare(self, args: Any, kwargs: Any) -> tuple[list[Tensor], "_Plan"]:
        """The inputs of the graph that fits them; a new one where none does yet."""
        scales = outer_scales()
        leaves, structure = pytree.tree_flatten((args, kwargs))
        tensors = [leaf.contiguous() for leaf in leaves if isinstance(leaf, Tensor)]
        others = tuple(None if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        layout = tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in tensors)
        modes = tuple(module.training for module in _modules(self.model, self.guide))
        key = (layout, repr(others), str(structure), len(scales), modes)
        device = tensors[0].device if tensors else None
        inputs = [scalar(scale.scale, torch.float64, device) for scale in scales] + tensors
        if key not in self._plans:
            self._plans[key] = self._plan(args, kwargs, inputs)
        return inputs, self._plans[key]

    def _plan(self, args: Any, kwargs: Any, inputs: list[Tensor]) -> "_Plan":
        """Check the programs on this batch, and capture what the engine runs."""
        refuse_other_handlers()
        with preserved_state(), torch.no_grad():
            sites = sites_of(self.model, self.guide, *self._programs.served(args, kwargs))
        parameters = self._parameters(sites)
        device = parameters[0].device
        healthy = self._healthy.setdefault(device, torch.ones((), dtype=torch.bool, device=device))
        with preserved_state(), torch.no_grad(), pyro.validation_enabled(True):
            buffers = moving_buffers(lambda: self._programs.loss_value(args, kwargs))
        function = loss_and_gradients(
            self._programs, parameters, buffers, healthy, (args, kwargs), self.precision, self.clipping
        )
        if self.engine == "eager":
            return _Plan(parameters, lambda inputs: function(*inputs), settled=True)
        graph = capture(function, inputs)
        healthy.fill_(True)
        return _Plan(parameters, graph, graph, settled=self.engine == "graph")

    def _parameters(self, sites: dict[str, Any]) -> list[Tensor]:
        if not isinstance(self.optim, PyroOptim):
            return [each for group in self.optim.param_groups for each in group["params"] if each.requires_grad]
        stored = [site["value"].unconstrained() for site in sites.values() if site["type"] == "param"]
        owned = [parameter for module in _modules(self.model, self.guide) for parameter in module.parameters(recurse=False)]
        unique = {id(parameter): parameter for parameter in (*stored, *owned) if parameter.requires_grad}
        if not unique:
            raise ValueError("expected parameters to train; model and guide have none in modules or in the parameter store")
        return list(unique.values())

    def _update(self, parameters: list[Tensor], gradients: Sequence[Tensor | None]) -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        if isinstance(self.optim, PyroOptim):
            self.optim(parameters)
        else:
            self.optim.step()

    def _reconsider(self, plan: "_Plan", inputs: list[Tensor], seconds: float) -> None:
        """Compile a graph where the steps ahead are worth it; measured on steps that were taken anyway."""
        assert plan.graph is not None
        if self.engine == "compiled":
            self._compile(plan, inputs, "as asked")
            return
        plan.seconds.append(seconds)
        if len(plan.seconds) < MEASURED_STEPS:
            return
        if plan.cost is None:
            plan.cost, plan.what = time_to_compile(*self._compilable(plan, inputs)[:2])
        step = min(plan.seconds)
        ahead = sum(plan.seconds) / step if self._steps_ahead is None else self._steps_ahead - self.steps_taken
        gain = SAVED_SHARE * step * ahead
        reason = (
            f"{ahead:.0f} steps of {step * 1e3:.1f} ms, of which compiling would save about {gain:.0f} s, "
            f"against {plan.cost:.0f} s to {plan.what}"
        )
        if gain > plan.cost:
            self._compile(plan, inputs, reason)
        elif self._steps_ahead is not None:
            plan.settled = True
            self.decision = f"engine graph: {reason}"

    def _compilable(self, plan: "_Plan", inputs: list[Tensor]) -> tuple[Graph, list[Tensor], list[dict[str, Any]] | None]:
        """The captured graph, with the optimizer's step where that can be captured; its inputs; the settings it holds."""
        assert plan.graph is not None
        if not can_be_captured(self.optim, plan.parameters):
            return plan.graph, inputs, None
        graph = with_update(plan.graph, plan.parameters, self.optim)
        return graph, [*inputs, *learning_rates(self.optim)], fixed_settings(self.optim)

    def _compile(self, plan: "_Plan", inputs: list[Tensor], reason: str, *, update: bool = True) -> None:
        assert plan.graph is not None
        plan.settled = True
        if not has_compiler() and plan.parameters[0].device.type == "cpu":
            self.decision = "engine graph: there is no C++ compiler (g++ or clang++), which engine compiled needs"
            warnings.warn(self.decision, stacklevel=2)
            return
        graph, everything, plan.settings = self._compilable(plan, inputs) if update else (plan.graph, inputs, None)
        plan.run = compile_graph(graph, everything)
        self.decision = f"engine compiled: {reason}"
        if plan.settings is not None:
            for parameter in plan.parameters:
                parameter.grad = None

    def _reads_now(self, loss: Tensor) -> bool:
        return loss.device.type == "cpu" or len(self._unread) == UNREAD_STEPS

    def _check(self, healthy: Tensor) -> None:
        taken, self._unread = self._unread, []
        if healthy:
            return
        for state in self._healthy.values():
            state.fill_(True)
        first = next(number for number, each in enumerate(taken) if not each.loss.isfinite())
        self.steps_taken -= len(taken) - first
        raise FloatingPointError(blame(self._programs, taken[first], self.steps_taken + 1))


@dataclass
class _Plan:
    """What a shape of the data is trained with; ``settings`` are the optimizer's where its step is part of ``run``."""

    parameters: list[Tensor]
    run: Callable[[Sequence[Tensor]], Outputs]
    graph: Graph | None = None
    settled: bool = False
    settings: list[dict[str, Any]] | None = None
    seconds: list[float] = field(default_factory=list)
    cost: float | None = None
    what: str = ""


def _modules(*programs: Program) -> list[nn.Module]:
    return [module for program in programs if isinstance(program, nn.Module) for module in program.modules()]
