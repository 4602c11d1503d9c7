"""Take out of a captured graph what it would compute again at every call."""

from typing import Any

import torch
from torch import fx, nn

from pyrovae.engine.capture import Graph


def split(graph: Graph, num_known: int) -> tuple[Graph, fx.GraphModule]:
    """In two: what its constants and its last inputs decide, and the rest, whose first inputs are the outputs of the former.

    Parameters are among the constants: where they change, the first part is to run again. Random numbers, and what follows from
    them, are in the rest. A graph that writes to its tensors, but for filling new ones with random numbers, is all rest.
    """
    nodes = list(graph.module.graph.nodes)
    placeholders = [node for node in nodes if node.op == "placeholder"]
    inputs = placeholders[len(graph.constants) :]
    varying = set(inputs[: len(inputs) - num_known])
    decided = _decided(nodes, set(placeholders) - varying)
    handed_on = [node for node in decided if any(user not in decided for user in node.users)]
    before = fx.Graph()
    copies = {node: before.placeholder(node.name) for node in placeholders if node not in varying}
    for node in decided:
        if node not in copies:
            copies[node] = before.node_copy(node, copies.__getitem__)
    before.output([copies[node] for node in handed_on])
    return Graph(fx.GraphModule(nn.Module(), before), graph.constants), _rest(nodes, decided, handed_on)


def _decided(nodes: list[fx.Node], known: set[fx.Node]) -> dict[fx.Node, None]:
    """What follows from known placeholders alone, in the order of the graph."""
    fixed = not any(_writes(node) and not _is_random(node) for node in nodes)
    decided: dict[fx.Node, None] = {}
    for node in nodes:
        if node in known or (fixed and _is_fixed(node) and all(each in decided for each in node.all_input_nodes)):
            decided[node] = None
    return decided


def _rest(nodes: list[fx.Node], decided: dict[fx.Node, None], handed_on: list[fx.Node]) -> fx.GraphModule:
    """The operations that are left, the values that they use in front."""
    rest = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for number, node in enumerate(handed_on):
        copies[node] = rest.placeholder(f"constant_{number}")
        copies[node].meta["val"] = node.meta["val"]
    for node in nodes:
        if node not in decided:
            copies[node] = rest.node_copy(node, copies.__getitem__)
    return fx.GraphModule(nn.Module(), rest)


def _is_fixed(node: fx.Node) -> bool:
    """Neither drawn nor a place that draws are written to."""
    return node.op == "call_function" and not _is_random(node) and not any(_writes(user) for user in node.users)


def _is_random(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _writes(node: fx.Node) -> bool:
    schema: Any = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable
