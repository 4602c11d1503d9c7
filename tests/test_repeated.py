"""What is computed once, and what at every call."""

import pytest
import torch

from pyrovae.evaluation.repeated import FEWEST_CALLS, Repeated
from pyrovae.inference.capture import CaptureError, capture
from pyrovae.inference.folding import fold

pytestmark = pytest.mark.usefixtures("float64")


def test_a_folded_graph_computes_the_same_with_less():
    weight, z, x = torch.randn(4, 4), torch.randn(3, 4), torch.randn(3, 4)

    def function(z, x):
        return [torch.tanh(z + (x @ weight).exp() @ weight), torch.rand_like(x) + (x @ weight)]

    graph = capture(function, [z, x])
    folded = fold(graph, x)
    torch.manual_seed(2)
    expected = graph([z, x])
    torch.manual_seed(2)
    torch.testing.assert_close(folded([z]), expected)
    operations = [node.target for node in folded.module.graph.nodes if node.op == "call_function"]
    assert torch.ops.aten.mm.default not in operations
    assert torch.ops.aten.rand_like.default in operations, "random numbers are to be drawn at every call"


def test_a_graph_that_writes_to_its_tensors_is_not_folded():
    z, x = torch.randn(3), torch.randn(3)
    folded = fold(capture(lambda z, x: [(2 * x).add_(z)], [z, x]), x)
    for _ in range(2):
        torch.testing.assert_close(folded([z])[0], 2 * x + z)


def test_what_is_given_is_computed_once_and_what_varies_at_every_call():
    """For each of two examples, before and after a parameter has changed; the graph's products are those of what varies."""
    weight, calls = torch.nn.Parameter(torch.randn(4, 4)), []

    def function(z, x):
        calls.append(len(z))
        return [torch.tanh(z + torch.exp(x @ weight)) @ weight]

    examples, z = torch.randn(2, 3, 4), torch.randn(3, 4)
    repeated = Repeated(function, "graph")
    for _ in range(2):
        for x in examples:
            given = repeated.given([z], [x], 100)
            for varying in (z, -z):
                torch.testing.assert_close(given(varying)[0], torch.tanh(varying + torch.exp(x @ weight)) @ weight)
        with torch.no_grad():
            weight += 1
        repeated.parameters_changed()
    assert calls == [3, 3], "once as it is, once captured"


def test_a_function_is_captured_for_each_shape():
    repeated = Repeated(lambda z, x: [z + x], "graph")
    for size in (2, 3):
        x = torch.ones(size)
        assert repeated.given([x], [x], 100)(x)[0].tolist() == [2.0] * size


def reads_values(z, x):
    return [z if x.sum() > 0 else -z]


def test_what_cannot_be_captured_is_called_as_it_is_where_the_engine_is_free():
    x = torch.ones(2)
    for engine in ("auto", "eager"):
        assert Repeated(reads_values, engine).given([x], [-x], 100)(x)[0].tolist() == [-1.0, -1.0]
    with pytest.raises(CaptureError, match="expected operations that do not depend on values"):
        Repeated(reads_values, "graph").given([x], [x], 100)


def test_for_a_few_calls_nothing_is_captured():
    calls = []
    repeated = Repeated(lambda z: calls.append(1) or [2 * z])
    for _ in range(FEWEST_CALLS - 1):
        repeated.given([torch.ones(2)], [], FEWEST_CALLS - 1)(torch.ones(2))
    assert len(calls) == FEWEST_CALLS - 1


def test_an_unknown_engine_is_refused():
    with pytest.raises(ValueError, match="expected an engine out of auto, eager, graph, compiled; got 'turbo'"):
        Repeated(reads_values, "turbo")
