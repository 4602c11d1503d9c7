"""The choice of the library that multiplies the matrices of a compiled graph, timed once per shape on this machine.

On some processors oneDNN multiplies single-precision matrices twice as fast as the library of ``torch.mm``, on others no
faster, and small products are faster by ``torch.mm``. Both give the same result within rounding.
"""

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from platformdirs import user_cache_path
from torch import Tensor, fx

from pyrovae.engine.cache import SharedFolder, limit_in_bytes, processor

aten = torch.ops.aten
Layout = tuple[tuple[int, ...], tuple[int, ...]]
PRODUCTS = (aten.mm.default, aten.addmm.default)
ROUNDS = 15
# Floating-point operations above which oneDNN is the faster one on some processors, and hardly slower on the others.
LARGE_PRODUCT = 3e7
MARGIN = 0.95  # oneDNN must gain more than the noise of timing
# The limits of the answers that are kept: bytes for all machines, and the number for one machine.
LIMIT, MOST_ANSWERS = 2**24, 10_000

# An operator of our own, which inductor leaves as it is: for oneDNN's operator it would copy the transposed operands.
_library = torch.library.Library("pyrovae", "FRAGMENT")
_library.define("linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor")


@torch.library.impl(_library, "linear", "CPU")
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@torch.library.register_fake("pyrovae::linear")
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


# The choices of a training, by the layout of the operands.
_chosen: ContextVar[dict[str, bool] | None] = ContextVar("chosen", default=None)
_by_size: ContextVar[bool] = ContextVar("by_size", default=False)


@contextmanager
def products_by(choices: dict[str, bool]) -> Iterator[None]:
    """Use the choices of ``choices``, by the layout of the operands, within the context; new choices are added to them.

    The libraries round differently: a training that is resumed on another machine has the same bits by the same choices.
    """
    token = _chosen.set(choices)
    try:
        yield
    finally:
        _chosen.reset(token)


@contextmanager
def products_by_size() -> Iterator[None]:
    """Choose by the size of a product alone within the context, so that all machines choose alike, at any time."""
    token = _by_size.set(True)
    try:
        yield
    finally:
        _by_size.reset(token)


def with_fastest_products(module: fx.GraphModule, *, timed: bool = True) -> fx.GraphModule | None:
    """Copy a captured graph so that the faster library computes each single-precision product on the CPU.

    None where ``timed`` is false and some product was never timed.
    """
    module = copy.deepcopy(module)
    if not torch.backends.mkldnn.is_available():
        return module
    products = [node for node in module.graph.nodes if node.target in PRODUCTS and _is_single_precision_on_cpu(node)]
    if _by_size.get():
        for node in filter(_is_large, products):
            _take_by_onednn(module.graph, node)
    else:
        answers = _Answers(SharedFolder(user_cache_path("pyrovae") / "products", min(LIMIT, limit_in_bytes())))
        layouts = {node: [_layout(operand) for operand in node.args] for node in products}
        if not timed and not all(answers.knows(*each) for each in layouts.values()):
            return None
        for node, operands in layouts.items():
            if answers.prefer_onednn(*operands):
                _take_by_onednn(module.graph, node)
        answers.save()
    module.recompile()
    return module


def _is_large(product: fx.Node) -> bool:
    (_, inner), _ = _layout(product.args[-2])
    return 2 * product.meta["val"].numel() * inner > LARGE_PRODUCT


def _take_by_onednn(graph: fx.Graph, node: fx.Node) -> None:
    *bias, x, weight = node.args
    with graph.inserting_before(node):
        transposed = graph.call_function(aten.t.default, (weight,))
        product = graph.call_function(torch.ops.pyrovae.linear.default, (x, transposed, bias[0] if bias else None))
    node.replace_all_uses_with(product)
    graph.erase_node(node)


def _is_single_precision_on_cpu(node: fx.Node) -> bool:
    value = node.meta["val"]
    return bool(value.dtype == torch.float32 and value.device.type == "cpu" and not node.kwargs)


def _layout(node: Any) -> Layout:
    return tuple(node.meta["val"].shape), tuple(node.meta["val"].stride())


def machine() -> tuple[Any, ...]:
    """The facts on which, beside shapes, the speed of a product on the CPU and its compiled code depend."""
    return torch.__version__, torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), processor()


def machine_key() -> str:
    """The name of a file for what was measured on this machine."""
    return hashlib.sha256(repr(machine()).encode()).hexdigest()[:32]


class _Answers:
    """The faster of two libraries by the layout of the operands; kept between processes, separately for each machine.

    Args:
        folder: the folder in which the answers are kept.
    """

    def __init__(self, folder: SharedFolder) -> None:
        self._folder = folder
        self._name = f"{machine_key()}.json"
        chosen = _chosen.get()
        self._chosen: dict[str, bool] = {} if chosen is None else chosen
        self._known, self._new = self._kept() | self._chosen, dict[str, bool]()

    def knows(self, *layouts: Layout) -> bool:
        return repr(layouts) in self._known

    def prefer_onednn(self, *layouts: Layout) -> bool:
        key = repr(layouts)
        if key not in self._known:
            operands = [_ones(*layout) for layout in layouts]
            *bias, x, weight = operands
            usual, onednn = _seconds(
                lambda: aten.addmm.default(*operands) if bias else aten.mm.default(*operands),
                lambda: torch.ops.pyrovae.linear(x, weight.t(), bias[0] if bias else None),
            )
            self._known[key] = self._new[key] = onednn < MARGIN * usual
        self._chosen[key] = self._known[key]
        return self._known[key]

    def save(self) -> None:
        """Save new answers together with those that other processes have saved meanwhile, up to a limit."""
        if self._new:
            answers = list((self._kept() | self._new).items())[-MOST_ANSWERS:]
            self._folder.write(self._name, json.dumps(dict(answers)).encode())

    def _kept(self) -> dict[str, bool]:
        try:
            kept = json.loads(self._folder.read(self._name) or b"{}")
        except ValueError:
            return {}
        return {key: bool(answer) for key, answer in kept.items()} if isinstance(kept, dict) else {}


def _ones(shape: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """A tensor of ones of any layout; not of random numbers, since a compilation must not draw from the user's generator."""
    extent = 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    return torch.ones(extent).as_strided(shape, stride)


def _seconds(*products: Callable[[], Tensor]) -> list[float]:
    """The best time of each product, over rounds in turn: disturbances only make products slower, and affect all alike."""
    best = [math.inf] * len(products)
    for _ in range(ROUNDS):
        for number, product in enumerate(products):
            product()
            start = time.perf_counter()
            product()
            best[number] = min(best[number], time.perf_counter() - start)
    return best
