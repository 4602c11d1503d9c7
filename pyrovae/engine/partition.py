"""Parts of a captured graph: what parameters decide, what the examples decide, and what is drawn."""

from typing import Any

import torch
from torch import fx, nn

from pyrovae.engine.capture import LAYOUTS, Graph, is_random, writes

aten = torch.ops.aten
# A draw is taken out of a graph with the few cheap operations that it depends on.
MOST_BEFORE_A_DRAW = 12
PRODUCTS = (aten.mm.default, aten.addmm.default, aten.bmm.default, aten.convolution.default)


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
    return Graph(fx.GraphModule(nn.Module(), before), graph.constants, graph.sources), _rest(nodes, decided, handed_on)


def _decided(nodes: list[fx.Node], known: set[fx.Node]) -> dict[fx.Node, None]:
    """What follows from known placeholders alone, in the order of the graph."""
    fixed = not any(writes(node) and not is_random(node) for node in nodes)
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
    return node.op == "call_function" and not is_random(node) and not any(writes(user) for user in node.users)


def without_draws(graph: Graph) -> tuple[fx.GraphModule | None, fx.GraphModule]:
    """In two: what is drawn, from the same placeholders, and the rest, which takes what was drawn as its last inputs.

    A compiler drops what is drawn and not used, and draws in an order of its own. Outside its graph, operations draw in the
    order of the program. A draw that depends on much that the graph computes stays in the rest, with all draws after
    it.

    Returns:
        The draws, None where there are none; and the rest.
    """
    nodes = list(graph.module.graph.nodes)
    random = [node for node in nodes if is_random(node)]
    needed: dict[fx.Node, None] = {}
    taken: list[fx.Node] = []
    for node in random:
        before = _before_a_draw(node)
        if before is None:
            break
        needed.update(before)
        taken.append(node)
    draws = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        if node.op == "placeholder":
            copies[node] = draws.placeholder(node.name)
        elif node in needed:
            copies[node] = _copied_draw(draws, node, copies)
    if not taken:
        return None, graph.module
    handed_on = [node for node in taken if any(user not in needed for user in node.users)]
    draws.output([copies[node] for node in handed_on])
    return fx.GraphModule(nn.Module(), draws), _after_draws(nodes, taken, handed_on)


def _before_a_draw(draw: fx.Node) -> dict[fx.Node, None] | None:
    """A draw and the operations that it depends on; None where these are many, are products, or write to what others read."""
    found: dict[fx.Node, None] = {}
    waiting = [draw]
    while waiting:
        node = waiting.pop()
        if node in found or node.op == "placeholder":
            continue
        found[node] = None
        if node.target in PRODUCTS or len(found) > MOST_BEFORE_A_DRAW or (writes(node) and not _writes_to_new(node)):
            return None
        if node is not draw and any(writes(user) and user not in found for user in node.users):
            return None
        waiting.extend([] if node.target in LAYOUTS else node.all_input_nodes)
    return found


def _writes_to_new(node: fx.Node) -> bool:
    target = node.args[0]
    return (
        isinstance(target, fx.Node) and target.op == "call_function" and target.target in (*LAYOUTS, aten.empty.memory_format)
    )


def _copied_draw(draws: fx.Graph, node: fx.Node, copies: dict[fx.Node, fx.Node]) -> fx.Node:
    if node.target not in LAYOUTS:
        return draws.node_copy(node, copies.__getitem__)
    value = node.all_input_nodes[0].meta["val"]
    layout = draws.call_function(
        aten.empty_strided.default,
        (list(value.shape), list(value.stride())),
        {"dtype": value.dtype, "device": value.device},
    )
    return draws.node_copy(node, lambda _: layout)


def _after_draws(nodes: list[fx.Node], taken: list[fx.Node], handed_on: list[fx.Node]) -> fx.GraphModule:
    """All other operations; what was drawn stands behind the other inputs."""
    rest = fx.Graph()
    copies = {node: rest.node_copy(node) for node in nodes if node.op == "placeholder"}
    for number, node in enumerate(handed_on):
        copies[node] = rest.placeholder(f"drawn_{number}")
        copies[node].meta["val"] = node.meta["val"]
    for node in nodes:
        if node.op != "placeholder" and node not in taken:
            copies[node] = rest.node_copy(node, copies.__getitem__)
            if writes(node) and node.args[0] in handed_on:
                copies[node].target = _without_writing(node)
    rest.eliminate_dead_code(lambda node: node.op in ("placeholder", "output") or is_random(node) or writes(node))
    return fx.GraphModule(nn.Module(), rest)


def _without_writing(node: fx.Node) -> Any:
    """The operation that returns what another writes to its first argument: an input is not to be written to."""
    name, overload = node.target._schema.name.split("::")[-1], node.target._overloadname  # type: ignore[union-attr]
    return getattr(getattr(aten, name.removesuffix("_")), overload)
