"""Capture a Pyro loss and its gradients, below the handlers, as one graph of tensor operations.

``capture`` runs the loss once under ``make_fx`` and keeps the operations on tensors. The graph contains no handlers, traces,
distributions or modules. Parameters and buffers are inputs of the graph, wherever programs keep them: in modules, closures or
Pyro's parameter store. In-place updates of buffers (batch norm) are operations of the graph.
"""

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

from pyrovae.engine.modules import preserved_buffers
from pyrovae.engine.reachable import Reachable, is_library
from pyrovae.engine.tracing import ShapesOfValues, has_shape_of_values, without_reading_values
from pyrovae.engine.validation import without_validation
from pyrovae.errors import CaptureError, LostProcessError, first_line

aten = torch.ops.aten
# Operations that use only the layout of a tensor, not its values.
LAYOUTS = {
    getattr(aten, name).default
    for name in ("empty_like", "zeros_like", "ones_like", "rand_like", "randn_like", "full_like", "new_empty", "new_zeros")
}
# Words in torch's errors where it cannot trace, each with its cause and the remedy.
KNOWN_CAUSES = {
    "workspace": "nn.LSTM cannot be traced on a CPU: use nn.GRU or nn.LSTMCell, torch.backends.mkldnn.flags(enabled=False) "
    "around the training",
    "dynamo": "the program calls what torch.compile made: leave torch.compile out, since the engine compiles the whole program",
    "Generator": "the program draws from a generator of its own: leave it out, torch's own is seeded by torch.manual_seed",
}


@dataclass(frozen=True, eq=False)
class Graph:
    """A captured function: call it with the inputs that vary; parameters and buffers are bound.

    Args:
        module: the operations from constants and inputs to a flat list of outputs.
        constants: the values of parameters, buffers and other tensors that the function uses and that are no inputs.
        sources: the live tensors with these values.
    """

    module: fx.GraphModule
    constants: list[Tensor]
    sources: list[Tensor]

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor | None]:
        """Compute the outputs by torch's own kernels, one operation after the other."""
        with torch.no_grad():
            return self.module(*self.constants, *inputs)

    def rehearse(self, inputs: Sequence[Tensor]) -> list[Tensor | None]:
        """Compute the outputs without side effects on tensors and random number generators."""
        with preserved_tensors(self.constants), torch.random.fork_rng():
            return self(inputs)

    def bind(self) -> None:
        """Bind the values of the sources anew, after they have moved to other memory."""
        self.constants[:] = [each.detach() for each in self.sources]


def capture(function: Callable[..., Sequence[Tensor | None]], inputs: Sequence[Tensor], programs: Sequence[Any] = ()) -> Graph:
    """Capture the operations of ``function(*inputs)`` as a graph; afterwards buffers and random numbers are as before.

    A tensor that the function finds outside of its inputs, but in the memory of an input, is that input. Tensors that
    ``programs`` reach are restored, even where they are not written to by a module's ``forward``.

    Raises:
        CaptureError: for a function that reads a value from a tensor, as control flow that depends on values does, or that
            calls operations that cannot be traced.
    """
    sites, shapes = _LastSite(), ShapesOfValues()
    try:
        with preserved_state(*programs), without_reading_values(shapes), without_validation(), sites:
            module = make_fx(function)(*inputs)
        _refuse_shapes_of_values(module.graph, shapes)
    except LostProcessError:
        raise
    except CaptureError as error:
        raise CaptureError(f"{first_line(error)}{_where(error, sites.name)}") from error
    except Exception as error:
        raise CaptureError(reason_of(error) + _where(error, sites.name)) from error
    return _bound(module, inputs)


def _refuse_shapes_of_values(graph: fx.Graph, shapes: ShapesOfValues) -> None:
    """Refuse shapes that depend on the values of inputs, parameters or draws; shapes that depend on constants are allowed."""
    nodes = [node for node in graph.nodes if node.op == "call_function" and has_shape_of_values(node.target, _values(node))]
    for node, frame in zip(nodes, shapes.frames, strict=False):
        if any(map(_depends_on_values, _deciding(node))):
            name = node.target._schema.name.split("::")[-1]
            error = CaptureError(
                "expected operations whose shapes do not depend on values; the program calls "
                f"{name} (as by indexing with a boolean mask): use torch.where or a mask, or engine='eager'"
            )
            raise error.with_traceback(_traceback_of(frame))


def _deciding(node: fx.Node) -> list[fx.Node]:
    """The inputs of a node whose values decide the shape of its result."""
    if node.target is aten.index.Tensor:
        return [each for each in node.args[1] if isinstance(each, fx.Node)]  # type: ignore[union-attr]
    return node.all_input_nodes


def _values(node: fx.Node) -> Any:
    return fx.node.map_arg(node.args, lambda each: each.meta["val"])


def _depends_on_values(node: fx.Node) -> bool:
    """True where a node depends on the values of inputs or parameters, or on draws."""
    seen, waiting = set[fx.Node](), [node]
    while waiting:
        each = waiting.pop()
        tensor = getattr(each.graph.owning_module, str(each.target)) if each.op == "get_attr" else None
        if each.op == "placeholder" or is_random(each) or (tensor is not None and tensor.requires_grad):
            return True
        if each not in seen:
            seen.add(each)
            waiting.extend([] if each.target in LAYOUTS else each.all_input_nodes)
    return False


def _traceback_of(frame: FrameType) -> TracebackType | None:
    """The traceback of the calls that led to a frame, as an error raised there would have it."""
    result, each = None, frame
    while each is not None:
        result = TracebackType(result, each, each.f_lasti, each.f_lineno)
        each = each.f_back  # type: ignore[assignment]
    return result


def reason_of(error: Exception) -> str:
    """The reason why a program cannot be captured, and the way out, from an error of torch."""
    message = str(error).strip()
    if "data-dependent" in message or "value out of a tracing tensor" in message:
        return (
            "expected operations that do not depend on values; the program or its loss reads one (by if, float, bool, item, or "
            "lengths of packed sequences): express it with torch.where or a mask, or use engine='eager'"
        )
    known = next((advice for words, advice in KNOWN_CAUSES.items() if words in message), None)
    if known is not None:
        return f"expected operations that can be traced; {known}, or use engine='eager'"
    return f"expected operations that can be traced; torch says {type(error).__name__}: {first_line(error)}: use engine='eager'"


def _where(error: Exception, site: str | None) -> str:
    """The line of the user's code that raised an error, and the site before it, in words."""
    frames = [each for each in traceback.walk_tb(error.__traceback__) if not is_library(each[0].f_globals.get("__name__"))]
    line = f"at line {frames[-1][1]} of {frames[-1][0].f_code.co_filename}" if frames else ""
    after = f"after site {site!r}" if site is not None else "before the first site"
    return f" ({', '.join(filter(None, (after, line)))})"


def _bound(module: fx.GraphModule, inputs: Sequence[Tensor]) -> Graph:
    """Turn the tensors that a graph holds as attributes into inputs before the others, each of them once."""
    graph = module.graph
    # Plates leave unused empty tensors, on the CPU, which go; draws that are not used stay, since they move the generator.
    graph.eliminate_dead_code(_is_needed)
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    first = next(iter(graph.nodes))
    lifted: dict[Any, tuple[fx.Node, Tensor]] = {}
    for node in [node for node in graph.nodes if node.op == "get_attr"]:
        tensor = getattr(module, node.target)
        if (owner := _input_that_holds(tensor, inputs)) is not None:
            _replace_by_view(graph, node, placeholders[owner], tensor, inputs[owner])
            continue
        key = memory_key(tensor)
        if key not in lifted:
            lifted[key] = (add_placeholder(graph, f"constant_{len(lifted)}", tensor, before=first), tensor)
        node.replace_all_uses_with(lifted[key][0])
        graph.erase_node(node)
    sources = [tensor for _, tensor in lifted.values()]
    # A new module: the old one still holds the tensors as attributes, which compilers would take for inputs.
    return Graph(fx.GraphModule(nn.Module(), graph), [each.detach() for each in sources], sources)


def _input_that_holds(tensor: Tensor, inputs: Sequence[Tensor]) -> int | None:
    """The number of the input in whose memory a tensor is: a numpy array is seen through another tensor than the input."""
    for number, each in enumerate(inputs):
        start, end = each.data_ptr(), each.data_ptr() + each.untyped_storage().nbytes()
        if each.device == tensor.device and tensor.numel() and start and start <= tensor.data_ptr() < end:
            return number
    return None


def _replace_by_view(graph: fx.Graph, node: fx.Node, placeholder: fx.Node, tensor: Tensor, whole: Tensor) -> None:
    offset = (tensor.data_ptr() - whole.data_ptr()) // tensor.element_size()
    with graph.inserting_before(node):
        view = graph.call_function(
            torch.ops.aten.as_strided.default, (placeholder, list(tensor.shape), list(tensor.stride()), offset)
        )
    view.meta["val"] = tensor
    node.replace_all_uses_with(view)
    graph.erase_node(node)


def is_random(node: fx.Node) -> bool:
    """True for an operation that draws from a random number generator."""
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _is_needed(node: fx.Node) -> bool:
    return node.op in ("placeholder", "output") or is_random(node) or writes(node) or _checks(node)


def _checks(node: fx.Node) -> bool:
    """True for an operation that returns nothing: it only raises errors, as for a matrix that is not positive definite."""
    schema: Any = getattr(node.target, "_schema", None)
    return schema is not None and not schema.returns


def writes(node: fx.Node) -> bool:
    """True for an operation that writes to one of its arguments."""
    schema: Any = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def memory_key(tensor: Tensor) -> Any:
    """A key that is equal for two tensors with the same memory and layout."""
    if not tensor.numel():
        return id(tensor)
    return tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype


def add_placeholder(graph: fx.Graph, name: str, tensor: Tensor, *, before: fx.Node) -> fx.Node:
    """Add an input to a graph, with the layout of ``tensor``."""
    with graph.inserting_before(before):
        node = graph.placeholder(name)
    node.meta["val"] = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    return node


@contextmanager
def preserved_state(*programs: Any) -> Iterator[None]:
    """Leave the buffers of every module that runs, and torch's random number generators, as they were.

    Modules that ``programs`` reach are restored also where their ``forward`` is called directly.
    """
    with preserved_buffers(Reachable(*programs)), torch.random.fork_rng():
        yield


@contextmanager
def preserved_tensors(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Restore tensors after the context, whatever was written to them."""
    # Expanded tensors have no values of their own, and cannot be written to.
    written = [each for each in tensors if each.numel() and 0 not in each.stride()]
    before = [each.clone() for each in written]
    try:
        yield
    finally:
        with torch.no_grad():
            for each, old in zip(written, before, strict=True):
                each.copy_(old)


class _LastSite(Messenger):
    """A handler that remembers the last site of a program."""

    name: str | None = None

    def _pyro_sample(self, msg: Any) -> None:
        self.name = msg["name"]
