"""A captured function that draws, split by what its operations depend on.

What depends on parameters alone is computed once for all data (the components of a VampPrior), what depends on the data once
for all draws (the encoder), and only what depends on chance at every draw. Compilers call it hoisting out of a loop.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from pyrovae.inference.capture import Graph

PARAMETERS, DATA, CHANCE = range(3)


@dataclass(frozen=True, eq=False)
class Part:
    """The operations of one kind.

    Args:
        graph: from parameters (bound) and what earlier parts hand on, in the order of ``takes``, to what it hands on itself.
        takes: names of values of inputs and earlier parts.
        gives: names of its outputs.
    """

    graph: Graph
    takes: list[str]
    gives: list[str]

    def add_to(self, values: dict[str, Any]) -> None:
        """Compute its outputs from the values so far, and put them beside these."""
        outputs = self.graph([values[name] for name in self.takes])
        values.update(zip(self.gives, outputs, strict=True))


def split(graph: Graph) -> tuple[list[str], list[Part]]:
    """A captured function as three parts to be run in turn, and the names of its inputs and then of its outputs.

    The random numbers are drawn in the order of the whole: run one after the other, the parts compute what the whole does.
    """
    nodes = list(graph.module.graph.nodes)
    placeholders = [node for node in nodes if node.op == "placeholder"]
    bound = dict(zip(placeholders, graph.constants, strict=False))
    kinds: dict[fx.Node, int] = {}
    for node in nodes:
        if node.op == "placeholder":
            kinds[node] = PARAMETERS if node in bound else DATA
        elif node.op != "output":
            kinds[node] = CHANCE if _draws(node) else max((kinds[each] for each in node.all_input_nodes), default=PARAMETERS)
    parts = [_part(nodes, kinds, kind, bound) for kind in (PARAMETERS, DATA, CHANCE)]
    return [node.name for node in placeholders if node not in bound], parts


def outputs_of(graph: Graph) -> list[str]:
    """The names of what a captured function returns."""
    output = next(reversed(graph.module.graph.nodes))
    return [node.name for node in output.args[0]]


def _draws(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _part(nodes: Sequence[fx.Node], kinds: dict[fx.Node, int], kind: int, bound: dict[fx.Node, Tensor]) -> Part:
    own = [node for node in nodes if node.op == "call_function" and kinds[node] == kind]
    members = set(own)
    gives = [node for node in own if any(user not in members for user in node.users)]
    taken = dict.fromkeys(each for node in own for each in node.all_input_nodes if each not in members)
    constants, handed = [each for each in taken if each in bound], [each for each in taken if each not in bound]
    graph, copies = fx.Graph(), {}
    for node in (*constants, *handed):
        copies[node] = graph.placeholder(node.name)
        copies[node].meta = dict(node.meta)
    for node in own:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output([copies[node] for node in gives])
    module = fx.GraphModule(torch.nn.Module(), graph)
    return Part(Graph(module, [bound[each] for each in constants]), [n.name for n in handed], [n.name for n in gives])
