"""``pyro.infer.SVI`` on a captured graph."""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Any

import pyro.poutine as poutine
import torch
from pyro.optim import PyroOptim
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor

from pyrovae.engine.calls import Call
from pyrovae.engine.capture import Graph, preserved_state
from pyrovae.engine.captured import CapturedFunction, Situation
from pyrovae.engine.choice import check_engine
from pyrovae.engine.modules import Program, preserved_buffers
from pyrovae.engine.precision import PRECISIONS
from pyrovae.engine.reachable import Reachable
from pyrovae.engine.shares import Share
from pyrovae.engine.validation import without_validation
from pyrovae.inference.blame import PendingStep, blame
from pyrovae.inference.clipping import Clipping
from pyrovae.inference.health import Health
from pyrovae.inference.optimizers import check_optimizer, held_parameters, take_step, trained_parameters
from pyrovae.inference.plain import PlainStep, PlainSteps
from pyrovae.inference.plans import Plan
from pyrovae.inference.spot_checks import check_buffers, is_due, spot_check
from pyrovae.inference.steps import (
    Programs,
    Transform,
    check_sites,
    gradient_step,
    moving_buffers,
    refuse_sites_without_examples,
)
from pyrovae.inference.supports import Supports, validates

if TYPE_CHECKING:
    import torch.distributed as dist


class CompiledSVI:
    """Stochastic variational inference with the handlers compiled away; used like ``pyro.infer.SVI``.

    The loss and its gradients are captured once for each situation as one graph of tensor operations, without any part of Pyro.
    The situation is all that programs can see and that is no tensor value: shapes and types of the data, other arguments, modes
    of modules, attributes, which parameters there are and which of them require gradients; it is looked up at every step. For
    some steps plain Pyro computes the loss too, before the step is taken. All engines take the same steps:

    * ``eager``: plain Pyro, the reference;
    * ``graph``: the captured operations, one after the other: equal to eager to the last bit, loss and gradients, for one seed;
    * ``compiled``: from the second step on the captured graph through inductor, with the step of Adam or AdamW in it; on a CUDA
      device recorded as a CUDA graph (with Adam's step in it where Adam is ``fused``); equal within rounding, but parameters
      have no ``grad`` afterwards. On a CPU random numbers are those of plain Pyro, but where two or more draws depend
      on what networks computed (as Gamma and Dirichlet latents do): others there, of the same distribution;
    * ``auto``: ``graph`` until the steps ahead are worth the time of compiling, and plain Pyro for what cannot be captured,
      with one warning; ``decision`` says what was chosen and why.

    Effects around a step apply to it: under ``scale_latents(weight)`` the weight is an input of the graph.

    Args:
        model: the generative program: a module or any callable with Pyro primitives.
        guide: the variational program.
        optim: a torch optimizer, which trains its own parameters; or a ``pyro.optim`` one, which trains those of modules
            and of the parameter store.
        loss: any ``pyro.infer.ELBO`` with ``differentiable_loss``.
        engine: one of ``ENGINES``.
        precision: ``bfloat16`` multiplies matrices in it; parameters, samples and log-densities stay in float32.
        transform: function from the arguments of a step to those of model and guide (one, or a tuple), inside the graph, for
            example ``binarize``.
        clipping: the clipping of gradients of the loss summed over the batch; none by default.
        group: the processes that share each batch, as of ``torch.distributed``: all take the same steps, those of one process
            within rounding. Each process calls ``step`` with the whole batch, and computes its rows of it; plain Pyro, as under
            ``eager``, computes all of it in each.

    Raises:
        ValueError: for an unknown engine or precision, and a loss or an optimizer that takes no single gradient; at a
            step whose data are outside the support of their site.
        CaptureError: at the step that cannot be captured, unless the engine is ``auto`` or ``eager``; or where a spot check
            finds another loss than plain Pyro's.
        FloatingPointError: where a loss or a gradient is not finite: at that step, or on an accelerator at the next ``check``;
            neither that step nor any after it was applied.
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
        group: dist.ProcessGroup | None = None,
    ) -> None:
        check_engine(engine)
        if precision not in PRECISIONS:
            raise ValueError(f"expected a precision out of {', '.join(PRECISIONS)}; got {precision!r}")
        _check_loss(loss)
        check_optimizer(optim)
        self.model, self.guide, self.optim, self.loss = model, guide, optim, loss
        self.engine, self.precision, self.transform = engine, precision, transform
        self.decision = f"engine {engine}: as asked" if engine != "auto" else "engine auto: no step was taken yet"
        self.steps_taken = 0
        self._share = Share(group)
        self._whole: tuple[Any, Any] | None = None
        self._moving: list[Tensor] = []
        self.clipping = clipping or Clipping()
        self._skipped: Tensor | int = 0
        self._function = CapturedFunction(
            self._prepare, lambda: [self.model, self.guide, self.loss, self.transform], engine, _warn
        )
        self._plain = PlainSteps()
        self._graph_steps = 0
        self._steps_ahead: int | None = None
        self._health = Health()
        self._prepared: Plan | None = None
        self._unchecked: set[str] = set()
        self._products: dict[str, bool] = {}
        self._resumed: dict[str, Any] | None = None

    def expect(self, steps: int) -> None:
        """Tell ``auto`` the number of steps to come; without it, it compiles after as much time as compiling takes."""
        self._steps_ahead = self.steps_taken + steps

    def step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Take one gradient step; return the loss in nats, summed over the batch, still on the device."""
        if self._whole is None:
            self._share.copy_noise()
        self._whole = args, kwargs
        noise = torch.get_rng_state()
        start = time.perf_counter()
        own_args, own_kwargs = self._share.rows(args, kwargs)
        call = self._function.call(own_args, own_kwargs, self._identities())
        found = None if call is None else self._function.find(call)
        if found is None and call is not None and self._resumed is not None:
            found = self._go_on(args, kwargs, call, noise)
        if found is None:
            return self._plain_step(args, kwargs, call, noise, start)
        situation, inputs = found
        plan: Plan = situation.payload
        self._graph_steps += 1
        if is_due(self._graph_steps):
            self._spot_check(situation, args, kwargs, inputs)
        if plan.update is not None and not plan.update.holds():
            self._compile(situation, inputs, "without the optimizer, whose settings change while it trains", update=False)
        loss, healthy, taken, *gradients = plan.run(inputs if plan.update is None else [*inputs, *plan.update.rates])
        assert loss is not None
        assert healthy is not None
        assert taken is not None
        self.steps_taken += 1
        self._health.add(PendingStep(args, kwargs, loss, noise, plan.parameters, tuple(_PYRO_STACK)))
        if plan.update is None or self._health.is_due(loss):
            self._read(healthy)
        if self.clipping.skips:
            self._skipped = taken.logical_not() + self._skipped
        if plan.update is None and (not self.clipping.skips or taken):
            take_step(self.optim, plan.parameters, gradients)
            if not plan.settled:
                self._reconsider(situation, inputs, time.perf_counter() - start)
        return loss

    def check(self) -> None:
        """Check that all steps so far were healthy: done at every step on a CPU, at every hundredth on an accelerator.

        Raises:
            FloatingPointError: for a step that was not; parameters, moments and buffers are as before it.
            ValueError: for data outside the support of their site.
        """
        for healthy in self._health.values():
            self._read(healthy)

    def state_dict(self) -> dict[str, Any]:
        """The state on which the next step depends, beside programs, optimizer and random numbers, as plain values.

        It is complete for steps that are all of one kind, as those of ``fit`` on ``Batches``.
        """
        if self._resumed is not None:
            # No step was taken since the state was loaded.
            return dict(self._resumed)
        plans: list[Plan] = [each.payload for each in self._function.situations]
        return {
            "steps_taken": self.steps_taken,
            "steps_skipped": self.steps_skipped,
            "graph_steps": self._graph_steps,
            "is_captured": bool(plans),
            "is_compiled": any(plan.is_compiled for plan in plans),
            "decision": self.decision,
            "products": dict(self._products),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the state of another training: the next step is captured or compiled as its next step would have been.

        Programs and the optimizer must have their state before.
        """
        self.steps_taken, self._skipped = state["steps_taken"], state["steps_skipped"]
        self._graph_steps, self._products = state["graph_steps"], dict(state["products"])
        self.decision = state["decision"]
        self._resumed = dict(state) if state["is_captured"] else None

    @property
    def steps_skipped(self) -> int:
        """The number of steps so far that ``clipping`` left out."""
        return int(self._skipped)

    @property
    def graphs_kept(self) -> int:
        """The number of graphs that are kept, one for each situation."""
        return self._function.graphs_kept

    def evaluate_loss(self, *args: Any, **kwargs: Any) -> float:
        """The loss in nats, summed over the batch, without a step: parameters and buffers stay as they are."""
        with torch.no_grad(), preserved_buffers(Reachable(self.model, self.guide)):
            return self._programs().loss_value(args, kwargs)

    def _programs(self) -> Programs:
        return Programs(self.model, self.guide, self.loss, self.transform, self.precision, self.clipping)

    def _identities(self) -> tuple[Any, ...]:
        """The identities of the programs, objective and parameters of a step, for which a graph is captured."""
        parts = self.model, self.guide, self.loss, self.transform, self.optim
        return (*map(id, parts), self.precision, self.clipping, *map(id, held_parameters(self.optim)))

    def _learn(self, call: Call, *, must: bool = False) -> tuple[Situation, list[Tensor]] | None:
        """Capture the situation of a call, where it is worth it."""
        self._prepared = None
        try:
            # Processes capture at the same call, whatever the times that each measures.
            is_shared = self._share.size > 1
            found = self._function.learn(call, must=must or is_shared, check=self._check_share if is_shared else None)
        finally:
            if self._prepared is not None:
                # Tracing ran the function once, which wrote its truth value.
                self._prepared.healthy.copy_(self._prepared.was_healthy)
        if found is not None:
            assert self._prepared is not None
            found[0].payload, self._prepared.run = self._prepared, found[0].graph
        return found

    def _go_on(self, args: Any, kwargs: Any, call: Call, noise: Tensor) -> tuple[Situation, list[Tensor]] | None:
        """The situation of the first call after ``load_state_dict``, whose step already uses the graph."""
        assert self._resumed is not None
        state, self._resumed = self._resumed, None
        # Programs that set something up in their first run do so here, without a step.
        step = self._plain_run(args, kwargs, call.key)
        self._share.copy_from_first(step.parameters)
        step.undo()
        self._unchecked = self._plain.unchecked(call.key)
        found = self._learn(call, must=True)
        torch.set_rng_state(noise)
        if found is not None and state["is_compiled"]:
            self._compile(*found, state["decision"].partition(": ")[2])
        return found

    def _prepare(self, *args: Any, **kwargs: Any) -> Any:
        """Check the programs on this batch, and return the function to be captured."""
        programs = self._programs()
        sites = check_sites(programs, args, kwargs)
        if self._share.size > 1 and self._whole is not None:
            refuse_sites_without_examples(sites, check_sites(programs, *self._whole))
        parameters = trained_parameters(self.optim, sites, self.model, self.guide)
        with preserved_state(self.model, self.guide), torch.no_grad():
            self._moving = buffers = moving_buffers(lambda: programs.loss_value(args, kwargs), self.model, self.guide)
        device = parameters[0].device if parameters else torch.get_default_device()
        healthy = self._health.on(device)
        was_healthy = healthy.clone() if self._prepared is None else self._prepared.was_healthy
        self._prepared = Plan(self.optim, parameters, healthy, was_healthy, settled=self.engine == "graph")
        supports = Supports(self._unchecked)
        draws = self._share.draws_of(lambda whole, named: programs.loss_value(whole, named), *self._whole or ((), {}))
        parts = programs, parameters, buffers, healthy, supports
        return gradient_step(*parts, looks_at_data=validates(), share=self._share, draws=draws)

    def _plain_step(self, args: Any, kwargs: Any, call: Call | None, noise: Tensor, start: float) -> Tensor:
        """Take a step as plain Pyro does: the first of each situation, and those that are not captured.

        Programs that set something up in their first run do so here, with the random numbers of plain Pyro.
        """
        kind = None if call is None else call.key
        try:
            step = self._plain_run(args, kwargs, kind)
        except ValueError:
            # Where Pyro's validation raises, the step is repeated without it, for an error that names step, site and row.
            torch.set_rng_state(noise)
            with without_validation():
                step = self._plain_run(args, kwargs, kind)
            if step.healthy:
                step.undo()
                raise
        self._unchecked = self._plain.unchecked(kind)
        if not step.healthy:
            failed = PendingStep(args, kwargs, step.loss, noise, step.parameters, tuple(_PYRO_STACK))
            raise blame(self._programs(), failed, self.steps_taken + 1, self._unchecked)
        self._share.copy_from_first([*step.parameters, *step.results])
        self.steps_taken += 1
        seconds = self._share.first(time.perf_counter() - start)
        try:
            found = None if call is None else self._learn(call)
        except Exception:
            step.undo()
            torch.set_rng_state(noise)
            self.steps_taken -= 1
            raise
        if self.clipping.skips:
            self._skipped = step.taken.logical_not() + self._skipped
        if step.taken:
            take_step(self.optim, step.parameters, step.gradients)
        self._decide(found, seconds, taken=bool(step.taken))
        return step.loss

    def _plain_run(self, args: Any, kwargs: Any, kind: Any) -> PlainStep:
        programs = self.model, self.guide
        with poutine.trace(param_only=True) as asked:
            return self._plain.run(
                self._programs(), args, kwargs, kind, lambda: trained_parameters(self.optim, asked.trace.nodes, *programs)
            )

    def _decide(self, found: tuple[Situation, list[Tensor]] | None, seconds: float, *, taken: bool) -> None:
        """Decide how later calls of this kind run, and compile where the engine is ``compiled``."""
        if found is None:
            self._function.note_plain_run(seconds)
            if self.engine == "auto":
                self.decision = "engine eager: this kind of call is not captured"
        elif self.engine == "compiled" and taken:
            self._compile(*found, "as asked")
        elif self.engine == "auto":
            self.decision = "engine graph: until compiling is known to be worth its time"

    def _compile(self, situation: Situation, inputs: list[Tensor], reason: str, *, update: bool = True) -> None:
        self.decision = situation.payload.compile(situation, inputs, reason, self._products, update=update)
        if not self._share.all_of(situation.payload.is_compiled) and situation.payload.is_compiled:
            situation.payload.use_graph(situation)
            self.decision = "engine graph: another process cannot compile it"
        if not situation.payload.is_compiled:
            warnings.warn(self.decision, stacklevel=4)

    def _reconsider(self, situation: Situation, inputs: list[Tensor], seconds: float) -> None:
        """Compile a graph where the engine is ``compiled`` or the steps ahead are worth it."""
        if self.engine == "compiled":
            self._compile(situation, inputs, "as asked")
            return
        plan: Plan = situation.payload
        ahead = None if self._steps_ahead is None else self._steps_ahead - self.steps_taken
        seconds = self._share.first(seconds)
        pays, reason = self._share.first(plan.compiling_pays(situation.graph, inputs, seconds, ahead))
        # Decided by the first process for all.
        plan.settled = bool(reason) and (pays or ahead is not None)
        if pays:
            self._compile(situation, inputs, reason)
        elif plan.settled:
            self.decision = f"engine graph: {reason}"

    def _check_share(self, graph: Graph, inputs: list[Tensor]) -> None:
        """Check that the processes together do what one does with the whole batch."""
        assert self._whole is not None
        check_buffers(self._programs(), graph, *self._whole, inputs, self._moving)
        spot_check(self._programs(), graph, *self._whole, inputs, self.steps_taken, self._share.size)

    def _read(self, healthy: Tensor) -> None:
        """Raise the error of the first step since the last reading that was not applied, if there is one."""
        found = self._health.first_failed(healthy, lambda step: blame(self._programs(), step, 0, self._unchecked))
        if found is not None:
            failed, steps_after = found
            self.steps_taken -= steps_after + 1
            raise blame(self._programs(), failed, self.steps_taken + 1, self._unchecked)

    def _spot_check(self, situation: Situation, args: Any, kwargs: Any, inputs: list[Tensor]) -> None:
        try:
            spot_check(self._programs(), situation.graph, args, kwargs, inputs, self.steps_taken + 1, self._share.size)
        except Exception:
            self._function.forget()
            raise


def _warn(message: str) -> None:
    # The level of the user's line that took the step.
    warnings.warn(message, stacklevel=8)


def _check_loss(loss: Any) -> None:
    name = type(loss).__name__
    if name.startswith("Jit"):
        raise ValueError(f"expected a loss that is not compiled yet; {name} traces programs by itself: use {name[3:]}")
    if not callable(getattr(loss, "differentiable_loss", None)) or name == "TraceTailAdaptive_ELBO":
        raise ValueError(
            f"expected a loss with differentiable_loss; {name} has none: "
            "use ELBO or IWELBO of pyrovae, or Trace_ELBO or TraceEnum_ELBO of Pyro"
        )
