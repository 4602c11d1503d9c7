"""Split a captured graph into the part that parameters decide, the part that examples decide, and the draws."""

from typing import Any

import torch
from torch import fx, nn

from pyrovae.engine.capture import LAYOUTS, Graph, is_random, writes

aten = torch.ops.aten
# The most operations that are taken out of a graph together with the draw that depends on them.
MOST_BEFORE_A_DRAW = 12
PRODUCTS = (aten.mm.default, aten.addmm.default, aten.bmm.default, aten.convolution.default)


def split(graph: Graph, num_known: int) -> tuple[Graph, fx.GraphModule]:
    """Split a graph in two: what its constants and last inputs decide, and the rest, which takes the former's outputs first.

    Parameters are among the constants: after they change, the first part must run again. Random numbers, and what depends on
    them, are in the rest. A graph that writes to its tensors, except to fill new ones with random numbers, is all rest.
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
    """The nodes that depend on known placeholders alone, in the order of the graph."""
    fixed = not any(writes(node) and not is_random(node) for node in nodes)
    decided: dict[fx.Node, None] = {}
    for node in nodes:
        if node in known or (fixed and _is_fixed(node) and all(each in decided for each in node.all_input_nodes)):
            decided[node] = None
    return decided


def _rest(nodes: list[fx.Node], decided: dict[fx.Node, None], handed_on: list[fx.Node]) -> fx.GraphModule:
    """The graph of the other operations; the values that they use from the first part are its first inputs."""
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
    """True for an operation that neither draws nor makes a tensor that draws are written to."""
    return node.op == "call_function" and not is_random(node) and not any(writes(user) for user in node.users)


def without_draws(graph: Graph) -> tuple[fx.GraphModule | None, fx.GraphModule]:
    """Split a graph in two: the draws, from the same placeholders, and the rest, whose last inputs are the drawn numbers.

    A compiler drops draws that are not used, and draws in an order of its own. Outside of its graph, operations draw in the
    order of the program. A draw that depends on many other operations stays in the rest, with all draws after it.

    Returns:
        The draws, or None if there are none; and the rest.
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
    """A draw and the operations that it depends on; None where these are many, are products, or write to shared tensors."""
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
    """The graph of all other operations, with the drawn numbers after the other inputs."""
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
    """The variant of an in-place operation that returns its result: inputs of a graph must not be written to."""
    name, overload = node.target._schema.name.split("::")[-1], node.target._overloadname  # type: ignore[union-attr]
    return getattr(getattr(aten, name.removesuffix("_")), overload)
