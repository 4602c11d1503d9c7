"""What is computed once, and what at every call."""

import math

import pytest
import torch
from products import rows_of_products

from pyrovae.engine import captured
from pyrovae.engine.capture import CaptureError, capture
from pyrovae.engine.choice import compiling_pays_by_count
from pyrovae.engine.compiled import compile_with_draws, seconds_to_compile
from pyrovae.engine.matmul_kernels import products_by_size, with_fastest_products
from pyrovae.engine.partition import split
from pyrovae.engine.repeated import FEWEST_CALLS, RepeatedFunction
from pyrovae.evaluation.gaps import GapEstimator
from pyrovae.evaluation.paths import GeometricPath
from pyrovae.evaluation.sampling import WeightSampler
from pyrovae.programs.architecture import Architecture
from pyrovae.programs.guides import GUIDES
from pyrovae.programs.models import GenerativeModel

pytestmark = pytest.mark.usefixtures("float64")


def test_two_parts_compute_the_same_as_the_whole():
    weight, z, x = torch.randn(4, 4), torch.randn(3, 4), torch.randn(5, 4)

    def function(z, x):
        return [torch.tanh(z + (x @ weight).exp()[:3] @ weight), torch.rand_like(x) + (x @ weight)]

    graph = capture(function, [z, x])
    before, rest = split(graph, 1)
    torch.manual_seed(2)
    expected = graph([z, x])
    torch.manual_seed(2)
    with rows_of_products() as rows:
        known = before([x])
    assert rows == {5, 3}
    with rows_of_products() as rows:
        torch.testing.assert_close(rest(*known, z), expected)
    assert not rows
    assert torch.ops.aten.rand_like.default in {node.target for node in rest.graph.nodes}, "to be drawn at every call"


def test_a_graph_that_writes_to_its_tensors_is_all_rest():
    z, x = torch.randn(3), torch.randn(3)
    before, rest = split(capture(lambda z, x: [(2 * x).add_(z)], [z, x]), 1)
    assert all(node.op != "call_function" for node in before.module.graph.nodes)
    known = before([x])
    for _ in range(2):
        torch.testing.assert_close(rest(*known, z)[0], 2 * x + z)


def test_what_is_given_is_computed_once_and_what_varies_at_every_call():
    """For each of two examples, before and after a parameter has changed; each with products of as many rows as itself."""
    weight, calls = torch.nn.Parameter(torch.randn(4, 4)), []

    def function(z, x):
        calls.append(len(z))
        of_parameters, of_examples = weight @ weight, x @ weight
        return [torch.tanh(z @ weight + of_examples.sum(0)) @ of_parameters]

    examples, z = torch.randn(2, 5, 4), torch.randn(3, 4)
    repeated = RepeatedFunction(function, engine="graph")
    with rows_of_products():
        repeated.bind([z], [examples[0]], 100)
    for products_of_parameters in (set(), {4}):
        for number, x in enumerate(examples):
            with rows_of_products() as rows:
                given = repeated.bind([z], [x], 100)
            assert rows == ({5} | products_of_parameters if number == 0 else {5})
            for varying in (z, -z):
                with rows_of_products() as rows:
                    result = given(varying)[0]
                assert rows == {3}
                torch.testing.assert_close(result, function(varying, x)[0])
                calls.pop()
        with torch.no_grad():
            weight += 1
        repeated.refresh_parameters()
    assert calls == [3, 3], "once as it is, once captured"


def test_a_function_is_captured_for_each_layout():
    x = torch.randn(4, 4)
    repeated = RepeatedFunction(lambda z, x: [z + x.reshape(-1).sum()], engine="graph")
    for example in (x, x.T, x.float(), x[:2]):
        varying = torch.ones(2, dtype=example.dtype)
        torch.testing.assert_close(repeated.bind([varying], [example], 100)(varying)[0], varying + example.sum())


def test_a_tensor_that_is_both_example_and_input_may_vary():
    x = torch.ones(2)
    assert RepeatedFunction(lambda z, x: [z + x.exp()], engine="graph").bind([x], [x], 100)(0 * x)[0].tolist() == [math.e] * 2


def test_where_nothing_is_left_to_compute_nothing_is_compiled():
    x = torch.ones(2)
    assert RepeatedFunction(lambda x: [x.exp()], engine="compiled").bind([], [x], 100)()[0].tolist() == [math.e] * 2


def reads_values(z, x):
    return [z if x.sum() > 0 else -z]


def test_what_cannot_be_captured_is_called_as_it_is_where_the_engine_is_free():
    x = torch.ones(2)
    for engine in ("auto", "eager"):
        assert RepeatedFunction(reads_values, engine=engine).bind([x], [-x], 100)(x)[0].tolist() == [-1.0, -1.0]
    with pytest.raises(CaptureError, match="expected operations that do not depend on values"):
        RepeatedFunction(reads_values, engine="graph").bind([x], [x], 100)


def test_for_a_few_calls_nothing_is_captured():
    calls = []
    repeated = RepeatedFunction(lambda z: calls.append(1) or [2 * z])
    for _ in range(FEWEST_CALLS - 1):
        repeated.bind([torch.ones(2)], [], FEWEST_CALLS - 1)(torch.ones(2))
    assert len(calls) == FEWEST_CALLS - 1


def test_what_is_compiled_depends_on_counts_alone(home):
    """Neither on times nor on what earlier processes compiled or timed: bits would depend on them."""
    x = torch.randn(100, 100)
    graph = capture(lambda x: [torch.tanh(x).exp().sum(1)], [x])
    before = [compiling_pays_by_count(graph, [x], calls) for calls in (1, 10, 10**6)]
    assert before == [False, False, True]
    compile_with_draws(graph, [x])
    assert seconds_to_compile(graph, [x])[1] == "load what an earlier process compiled"
    assert [compiling_pays_by_count(graph, [x], calls) for calls in (1, 10, 10**6)] == before


def test_large_products_are_computed_by_onednn_whatever_the_machine(home):
    large, small = torch.randn(2000, 200, dtype=torch.float32), torch.randn(20, 200, dtype=torch.float32)
    weight = torch.randn(200, 200, dtype=torch.float32)
    with products_by_size():
        module = with_fastest_products(capture(lambda x, z: [x @ weight, z @ weight], [large, small]).module)
    targets = {
        node.target: node.meta["val"].shape[0] for node in module.graph.nodes if node.target is torch.ops.aten.mm.default
    }
    assert targets == {torch.ops.aten.mm.default: 20}
    assert not (home / "products").exists(), "nothing is timed"
    torch.testing.assert_close(module(weight, large, small), [large @ weight, small @ weight], rtol=1e-3, atol=1e-4)


def test_an_unknown_engine_is_refused():
    with pytest.raises(ValueError, match="expected an engine out of auto, eager, graph, compiled; got 'turbo'"):
        RepeatedFunction(reads_values, engine="turbo")


def gaps_of(model, guide):
    return GapEstimator(model, guide, num_samples=20, num_steps=2, learning_rate=0.1, times=10, engine="graph")


def weights_of(model, guide):
    sampler = WeightSampler(model, guide, samples_ahead=1000, engine="graph")
    return lambda rows: sampler(rows, 20)


def densities_of(model, guide):
    path = GeometricPath(model, guide)
    return lambda rows: path.density_for(rows, 2, calls_ahead=FEWEST_CALLS)(path.draw(rows, 2))


@pytest.mark.parametrize(("measure", "functions"), [(gaps_of, 2), (weights_of, 1), (densities_of, 1)])
def test_what_measures_examples_again_is_captured_once(measure, functions, monkeypatch):
    """Programs in training mode, with batch norm; three sets of examples."""
    sizes = Architecture(shape=(1, 2, 3), latent_sizes=(4, 2), hidden_sizes=(8, 6), batch_norm=True)
    model = GenerativeModel.of(sizes)
    measured, graphs = measure(model, GUIDES["ladder"].of(model, sizes)), []
    monkeypatch.setattr(captured, "capture", lambda *args: graphs.append(capture(*args)) or graphs[-1])
    for rows in torch.bernoulli(torch.full((3, 5, 6), 0.5)):
        measured([rows])
    assert len(graphs) == functions
