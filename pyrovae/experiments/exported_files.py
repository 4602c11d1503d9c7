"""The formats of exported functions: torch's own, which torch alone runs, and ONNX, which onnxruntime and others run.

A format makes the bytes of a file and loads them again, so that what is checked is what will be in the file.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyrovae.engine.validation import without_validation
from pyrovae.evaluation.functions import PureFunction
from pyrovae.evaluation.measuring import measuring
from pyrovae.extras import import_extra

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Tensors = dict[str, Tensor]
# The name of the JSON that says what a file is: of a file within a .pt2, and of a property of an ONNX model.
METADATA = "pyrovae.json"


def trace_function(function: PureFunction, example: Tensors) -> ExportedProgram:
    """Trace a function as a graph without Pyro, free in the number of examples B and of samples K.

    Args:
        function: the function.
        example: inputs, of more than one example and sample, and of other numbers of both.
    """
    sizes = {name: torch.export.Dim(name) for name in ("B", "K")}
    shapes = {
        name: {place: sizes[size] for place, size in enumerate(shape) if isinstance(size, str)}
        for name, shape in function.inputs.items()
    }
    with measuring(*function.programs), without_validation(), _quiet():
        # A prior that depends on no example is evaluated in this call, and is a constant of the graph.
        function(example)
        program = torch.export.export(function, (example,), dynamic_shapes=(shapes,), strict=False)
    for name, constant in program.constants.items():
        # Each in memory of its own: parts of a larger tensor would be written with all of it.
        program.constants[name] = constant.detach().clone() if isinstance(constant, Tensor) else constant
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what torch and onnxscript say of their own deprecated parts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def to_torch(program: ExportedProgram, example: Tensors, outputs: list[str], metadata: str) -> bytes:
    """The bytes of a ``.pt2`` file, for ``torch.export.load``."""
    buffer = io.BytesIO()
    with _quiet():
        torch.export.save(program, buffer, extra_files={METADATA: metadata})
    return buffer.getvalue()


def from_torch(content: bytes, outputs: list[str]) -> Callable[[Tensors], Tensors]:
    """The function in a ``.pt2`` file."""
    with _quiet():
        return torch.export.load(io.BytesIO(content)).module()


def to_onnx(program: ExportedProgram, example: Tensors, outputs: list[str], metadata: str) -> bytes:
    """The bytes of an ``.onnx`` file."""
    import_extra("onnxscript", "onnx", "to write ONNX files")
    onnx = import_extra("onnx", "onnx", "to write ONNX files")
    with _quiet():
        exact = program.run_decompositions(EXACT)
        # onnxscript's optimizer takes a constant of 1e-8 for zero; onnxruntime has one of its own.
        how: dict[str, Any] = {"dynamo": True, "verbose": False, "optimize": False}
        made: Any = torch.onnx.export(exact, (example,), input_names=list(example), output_names=outputs, **how)
    model = made.model_proto
    onnx.helper.set_model_props(model, {METADATA: metadata})
    return model.SerializeToString()


def from_onnx(content: bytes, outputs: list[str]) -> Callable[[Tensors], Tensors]:
    """The function in an ``.onnx`` file, as onnxruntime runs it."""
    session = import_extra("onnxruntime", "onnx", "to check ONNX files").InferenceSession(content)

    def run(inputs: Tensors) -> Tensors:
        found = session.run(outputs, {name: each.numpy() for name, each in inputs.items()})
        return {name: torch.from_numpy(each) for name, each in zip(outputs, found, strict=True)}

    return run


def _log_gamma(x: Tensor) -> Tensor:
    r"""The logarithm of the gamma function for x > 0, by Stirling's series at x + 8, to ten digits.

    .. math:: \log \Gamma(x) = \log \Gamma(x + 8) - \sum_{k=0}^7 \log(x + k)

    Abramowitz and Stegun, 6.1.15 and 6.1.41.
    """
    small = x.to(torch.float64)
    y = small + 8
    series = (1 / 12 - (1 / 360 - (1 / 1260 - 1 / 1680 / y**2) / y**2) / y**2) / y
    far = (y - 0.5) * y.log() - y + 0.5 * math.log(2 * math.pi) + series
    below = torch.stack([small + k for k in range(8)]).log().sum(0)
    return (far - below).to(x.dtype)


def _expm1(x: Tensor) -> Tensor:
    """The exponential minus one, which loses no digit near zero."""
    return torch.tanh(x / 2) * (x.exp() + 1)


def _log1p(x: Tensor) -> Tensor:
    """The logarithm of 1 + x, which loses no digit near zero. Goldberg (1991), theorem 4."""
    rounded = 1 + x
    near = rounded == 1
    return torch.where(near, x, rounded.log() * (x / torch.where(near, 1.0, rounded - 1)))


def _softplus(x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """The logarithm of 1 + exp(beta x), by beta, which keeps its digits where it is small; onnxruntime's own does not."""
    scaled = beta * x
    return (scaled.clamp(min=0) + _log1p((-scaled.abs()).exp())) / beta


def _log_sigmoid(x: Tensor) -> Tensor:
    """The logarithm of the sigmoid, which is finite everywhere."""
    return -_softplus(-x)


def _log_sigmoid_forward(x: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithm of the sigmoid, and the buffer that torch keeps for gradients."""
    return _log_sigmoid(x), x.new_zeros(0)


def _sigmoid(x: Tensor) -> Tensor:
    """The sigmoid, which keeps its digits near zero."""
    small = (-x.abs()).exp()
    return torch.where(x < 0, small, 1.0) / (1 + small)


# What ONNX lacks, or onnxruntime computes with fewer digits than torch.
EXACT: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.lgamma.default: _log_gamma,
    torch.ops.aten.expm1.default: _expm1,
    torch.ops.aten.log1p.default: _log1p,
    torch.ops.aten.softplus.default: _softplus,
    torch.ops.aten.log_sigmoid.default: _log_sigmoid,
    torch.ops.aten.log_sigmoid_forward.default: _log_sigmoid_forward,
    torch.ops.aten.sigmoid.default: _sigmoid,
}


@dataclass(frozen=True)
class Format:
    """A format of files.

    Args:
        write: makes the bytes of a file, from a traced function, an example, the names of outputs and JSON that describes it.
        load: makes the function of the bytes and the names of outputs.
    """

    write: Callable[[ExportedProgram, Tensors, list[str], str], bytes]
    load: Callable[[bytes, list[str]], Callable[[Tensors], Tensors]]


FORMATS: dict[str, Format] = {".pt2": Format(to_torch, from_torch), ".onnx": Format(to_onnx, from_onnx)}
