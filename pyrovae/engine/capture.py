"""Capture a Pyro loss and its gradients, below the handlers, as one graph of tensor operations.

``capture`` runs the loss once under ``make_fx`` and keeps the operations that reached the tensors. Handlers, traces,
distributions and modules are gone from the graph. Parameters and buffers stay what they are, inputs of it, wherever the
programs keep them: in modules, closures or Pyro's parameter store. In-place updates of buffers (batch norm) are operations
of the graph.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.poutine as poutine
import torch
from pyro.infer import trace_elbo, trace_mean_field_elbo, traceenum_elbo
from pyro.infer.util import Dice
from pyro.poutine.messenger import Messenger
from torch import Tensor, fx, nn
from torch.distributions import Distribution
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode

from pyrovae.engine.modules import Program, preserved_buffers


class CaptureError(ValueError):
    """A program cannot be captured: the message names the site and says what to do."""


@dataclass(frozen=True, eq=False)
class Graph:
    """A captured function: call it with the inputs that vary; parameters and buffers are bound.

    Args:
        module: operations from constants and inputs to a flat list of outputs.
        constants: live parameters, buffers and other tensors that the function found outside its inputs.
    """

    module: fx.GraphModule
    constants: list[Tensor]

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor | None]:
        """The outputs, computed by torch's own kernels, one operation after the other."""
        with torch.no_grad():
            return self.module(*self.constants, *inputs)


def capture(function: Callable[..., Sequence[Tensor | None]], inputs: Sequence[Tensor]) -> Graph:
    """The operations of ``function(*inputs)`` as a graph; buffers and random numbers are as before afterwards.

    Raises:
        CaptureError: where the function reads a value back from a tensor, as control flow that depends on values does.
    """
    sites = _LastSite()
    try:
        with preserved_state(), _nothing_read_back(), pyro.validation_enabled(False), sites:
            module = make_fx(function)(*inputs)
    except RuntimeError as error:
        if "data-dependent" not in str(error) and "value out of a tracing tensor" not in str(error):
            raise
        raise CaptureError(
            f"expected operations that do not depend on values; after site {sites.name!r} the program or its loss reads one "
            "(by if, float, bool or item): express it with torch.where or a mask, or use engine='eager'"
        ) from error
    return Graph(*_lift_constants(module))


def sites_of(model: Program, guide: Program, args: Any, kwargs: Any) -> dict[str, Any]:
    """All sites of a guide and of the model replayed against it, by name, from two runs that leave no mark.

    Raises:
        CaptureError: where the sites differ between the two runs, or a latent of the guide cannot be reparameterized.
    """
    with preserved_state(), torch.no_grad():
        first, second = (_run(model, guide, args, kwargs) for _ in range(2))
    if changed := sorted(set(first) ^ set(second)):
        raise CaptureError(
            f"expected the same sites at every run; {', '.join(map(repr, changed))} came in one run and not in the next: "
            "keep the structure fixed and mask what should not count, or use engine='eager'"
        )
    for name, site in first.items():
        if site["type"] == "sample" and site["in_guide"] and not _is_differentiable(site):
            raise CaptureError(
                f"expected reparameterized latents; site {name!r} of the guide is a {_distribution(site)}, which has no "
                "rsample: sum it out of the model (config_enumerate and TraceEnum_ELBO), or use pyro.infer.SVI"
            )
    return first


def _run(model: Program, guide: Program, args: Any, kwargs: Any) -> dict[str, Any]:
    guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
    return {
        name: dict(site, in_guide=trace is guide_trace)
        for trace in (guide_trace, model_trace)
        for name, site in trace.nodes.items()
        if site["type"] in ("sample", "param") and not (name in guide_trace.nodes and trace is model_trace)
    }


def _is_differentiable(site: Any) -> bool:
    subsampling = type(site["fn"]).__name__ == "_Subsample"
    return subsampling or site["is_observed"] or site["fn"].has_rsample or site["infer"].get("enumerate") is not None


def _distribution(site: Any) -> str:
    distribution = site["fn"]
    return type(getattr(distribution, "base_dist", distribution)).__name__


def _lift_constants(module: fx.GraphModule) -> tuple[fx.GraphModule, list[Tensor]]:
    """Turn the tensors that a graph holds as attributes into inputs in front of the others, each of them once."""
    graph = module.graph
    # Plates leave empty tensors behind, on the CPU, that nothing uses.
    graph.eliminate_dead_code()
    first = next(iter(graph.nodes))
    lifted: dict[Any, tuple[fx.Node, Tensor]] = {}
    for node in [node for node in graph.nodes if node.op == "get_attr"]:
        tensor = getattr(module, node.target)
        key = place(tensor)
        if key not in lifted:
            lifted[key] = (add_placeholder(graph, f"constant_{len(lifted)}", tensor, before=first), tensor.detach())
        node.replace_all_uses_with(lifted[key][0])
        graph.erase_node(node)
    # A fresh module: the old one still holds the tensors as attributes, which compilers would take for inputs.
    return fx.GraphModule(nn.Module(), graph), [tensor for _, tensor in lifted.values()]


def place(tensor: Tensor) -> Any:
    """Equal for two tensors that are the same values in memory, seen in the same way."""
    if not tensor.numel():
        return id(tensor)
    return tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype


def add_placeholder(graph: fx.Graph, name: str, tensor: Tensor, *, before: fx.Node) -> fx.Node:
    """A new input of a graph, laid out as ``tensor`` is."""
    with graph.inserting_before(before):
        node = graph.placeholder(name)
    node.meta["val"] = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    return node


@contextmanager
def preserved_state() -> Iterator[None]:
    """Afterwards the buffers of every module that ran, and the random number generators, are as they were."""
    with preserved_buffers(), torch.random.fork_rng():
        yield


@contextmanager
def _nothing_read_back() -> Iterator[None]:
    """Pyro without its readings of values, none of which matters to a graph.

    Objectives read the loss as a number (adding in double precision, as here) and whether it is finite; distributions
    made with validation check their samples; enumeration asks whether any probability is zero, and leaves those out.
    In a graph they stay in: zero times an infinite cost is then not a number, which a step refuses.
    """
    replacements = {
        "torch_item": lambda value: value.detach().double() if isinstance(value, Tensor) else value,
        "warn_if_nan": lambda value, *_, **__: value,
    }
    with ExitStack() as stack:
        for module in (trace_elbo, trace_mean_field_elbo, traceenum_elbo):
            for name, replacement in replacements.items():
                if name in vars(module):
                    stack.enter_context(_replaced(module, name, replacement))
        stack.enter_context(_replaced(Distribution, "_validate_sample", lambda self, value: None))
        stack.enter_context(_replaced(Dice, "compute_expectation", _none_is_zero(Dice.compute_expectation)))
        stack.enter_context(warnings.catch_warnings())
        # Pyro warns at every run of what it warned of at the first, which ran eagerly.
        warnings.simplefilter("ignore")
        yield


def _none_is_zero(function: Callable[..., Any]) -> Callable[..., Any]:
    class AllAreTrue(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return True if func is Tensor.all else func(*args, **(kwargs or {}))

    def run(*args: Any, **kwargs: Any) -> Any:
        with AllAreTrue():
            return function(*args, **kwargs)

    return run


@contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


class _LastSite(Messenger):
    """Remembers the site that a program came to last."""

    name: str | None = None

    def _pyro_sample(self, msg: Any) -> None:
        self.name = msg["name"]
