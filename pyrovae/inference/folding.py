"""Compute once what a captured graph would compute again at every call."""

from typing import Any

import torch
from torch import Tensor, fx, nn

from pyrovae.inference.capture import Graph


def fold(graph: Graph, *known: Tensor) -> Graph:
    """The graph as a function of its first inputs alone: the last ones are known, and what depends on no other is computed now.

    Parameters count as known: they must not change as long as the folded graph is used. Random numbers stay in the graph. A
    graph that writes to its tensors, but for filling new ones with random numbers, keeps all its operations.
    """
    nodes = list(graph.module.graph.nodes)
    placeholders = [node for node in nodes if node.op == "placeholder"]
    first_known = len(placeholders) - len(known)
    values: dict[fx.Node, Any] = dict(zip(placeholders, graph.constants, strict=False))
    values |= zip(placeholders[first_known:], known, strict=True)
    if not any(_writes(node) and not _is_random(node) for node in nodes):
        _compute(nodes, values)
    return _rest(nodes, values)


def _compute(nodes: list[fx.Node], values: dict[fx.Node, Any]) -> None:
    """Add the values of all operations on known values alone."""
    with torch.no_grad():
        for node in nodes:
            if _is_fixed(node) and all(each in values for each in node.all_input_nodes):
                target: Any = node.target
                values[node] = target(*fx.map_arg(node.args, values.get), **fx.map_arg(node.kwargs, values.get))


def _rest(nodes: list[fx.Node], values: dict[fx.Node, Any]) -> Graph:
    """The operations that are left, the values that they use as constants in front."""
    rest = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    constants: list[Tensor] = []
    for node in nodes:
        if node in values and any(user not in values for user in node.users):
            copies[node] = rest.placeholder(f"constant_{len(constants)}")
            copies[node].meta["val"] = values[node].to("meta")
            constants.append(values[node])
    for node in nodes:
        if node not in values:
            copies[node] = rest.node_copy(node, copies.__getitem__)
    return Graph(fx.GraphModule(nn.Module(), rest), constants)


def _is_fixed(node: fx.Node) -> bool:
    """Neither drawn nor a place that draws are written to."""
    return node.op == "call_function" and not _is_random(node) and not any(_writes(user) for user in node.users)


def _is_random(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _writes(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable
