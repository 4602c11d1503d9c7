"""The kinds of programs that users of Pyro bring: every engine takes the steps of ``pyro.infer.SVI``, or refuses by name."""

import inspect
import warnings
from functools import cache, partial
from itertools import islice
from pathlib import Path

import pyro
import pytest
import torch
from pyro.infer import (
    SVI,
    JitTrace_ELBO,
    Predictive,
    RenyiELBO,
    ReweightedWakeSleep,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceTailAdaptive_ELBO,
    config_enumerate,
)
from pyro_programs import PROGRAMS
from pyro_programs.discrete import SemiSupervised, partly_labelled
from torch import nn

from pyrovae.engine.capture import CaptureError
from pyrovae.inference.svi import CompiledSVI

pytestmark = pytest.mark.filterwarnings("ignore:.*(torch.jit|unconstrained|TraceEnum_ELBO found no sample sites)")


REFUSED = [name for name, program in PROGRAMS.items() if program.refused]
CAPTURED = [name for name in PROGRAMS if name not in REFUSED]
COMPILED = ["tutorial", "mixture", "cholesky"]


def marked(*, slow, hours):
    """All programs, with a mark on those that take long."""
    marks = dict.fromkeys(hours, pytest.mark.hours) | dict.fromkeys(slow, pytest.mark.slow)
    return [pytest.param(name, marks=marks.get(name, ())) for name in PROGRAMS]


def trained(name, engine, steps=4):
    """Losses, all that training moves, and samples of ``Predictive`` afterwards; ``None`` stands for stock Pyro."""
    program = PROGRAMS[name]
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    model, guide, batches, loss = program.make()
    # Adam makes whole steps of the rounding of gradients that are zero, unless it adds more than that.
    optim = pyro.optim.Adam({"lr": 0.01, "eps": 1e-3})
    svi = SVI(model, guide, optim, loss) if engine is None else CompiledSVI(model, guide, optim, loss, engine=engine)
    pyro.set_rng_seed(1)
    losses = []
    for batch in islice(batches, steps):
        losses.append(torch.as_tensor(svi.step(*batch)).float().item())
    moved = {**dict(pyro.get_param_store().named_parameters()), **buffers(model, guide)}
    moved = {key: value.detach().clone() for key, value in moved.items()}
    return losses, moved, predicted(model, guide, batch) if program.predicts else {}


def buffers(*programs):
    """Those of the modules that programs are, are methods of, or close over."""
    found = {}
    for program in programs:
        program = inspect.unwrap(program)
        held = inspect.getclosurevars(program).nonlocals.values() if inspect.isfunction(program) else []
        for holder in (program, getattr(program, "__self__", None), *held):
            if isinstance(holder, nn.Module):
                found.update({f"{type(holder).__name__}.{name}": each for name, each in holder.named_buffers()})
    return found


def predicted(model, guide, batch):
    pyro.set_rng_seed(2)
    return {name: value.detach() for name, value in Predictive(model, guide=guide, num_samples=2)(*batch).items()}


@cache
def stock(name, steps=4):
    return trained(name, None, steps)


def assert_equal(ours, theirs, **tolerances):
    losses, *tensors = ours
    assert losses == pytest.approx(theirs[0], rel=tolerances.get("rtol", 0), abs=tolerances.get("atol", 0))
    for mine, reference in zip(tensors, theirs[1:], strict=True):
        assert mine.keys() == reference.keys()
        for name, value in reference.items():
            torch.testing.assert_close(
                mine[name],
                value,
                **tolerances or {"rtol": 0, "atol": 0},
                equal_nan=True,
                msg=lambda m, name=name: f"{name}: {m}",
            )


@pytest.mark.parametrize("name", PROGRAMS)
def test_stock_pyro_trains_it_on_batches_that_differ(name):
    losses, moved, _ = stock(name)
    assert len(set(losses)) > 1
    assert moved


@pytest.mark.parametrize("name", PROGRAMS)
def test_eager_equals_stock_pyro(name):
    assert_equal(trained(name, "eager"), stock(name))


@pytest.mark.slow
@pytest.mark.parametrize("steps", [3, pytest.param(4, marks=pytest.mark.hours)])
@pytest.mark.parametrize("name", PROGRAMS)
def test_graph_equals_stock_pyro_or_refuses_at_the_first_step(name, steps):
    """The fourth batch is smaller, a graph of its own."""
    if PROGRAMS[name].refused is None:
        assert_equal(trained(name, "graph", steps), stock(name, steps))
        return
    with pytest.raises(CaptureError, match=PROGRAMS[name].refused):
        trained(name, "graph", steps=1)


@pytest.mark.parametrize("name", marked(slow=COMPILED, hours=set(CAPTURED) - set(COMPILED)))
def test_auto_never_raises(name):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert_equal(trained(name, "auto"), stock(name))
    ours = [str(each.message) for each in caught if "engine" in str(each.message)]
    assert len(ours) == (name in REFUSED), ours


@pytest.mark.parametrize("name", marked(slow=COMPILED, hours=set(CAPTURED) - set(COMPILED)))
def test_compiled_agrees_with_stock_pyro_or_refuses_at_the_first_step(name):
    """It compiles from the second step on; where it cannot, it runs the graph and says so once."""
    if name in REFUSED:
        with pytest.raises(CaptureError, match=PROGRAMS[name].refused):
            trained(name, "compiled", steps=1)
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert_equal(trained(name, "compiled"), stock(name), rtol=1e-3, atol=2e-3)
    ours = [str(each.message) for each in caught if "engine" in str(each.message)]
    assert len(ours) == (not PROGRAMS[name].compiles), ours


@pytest.mark.parametrize("engine", ["graph", "auto"])
def test_a_semi_supervised_vae_takes_both_its_losses_with_one_optimizer(engine):
    """As in Pyro's example: each batch is a step of the bound and one of the classifier."""

    def outcome(make):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        vae, optim = SemiSupervised(), pyro.optim.Adam({"lr": 0.01})
        bound = make(
            vae.model, config_enumerate(vae.guide, "parallel", expand=True), optim, TraceEnum_ELBO(max_plate_nesting=1)
        )
        auxiliary = make(vae.model_classify, vae.guide_classify, optim, Trace_ELBO())
        pyro.set_rng_seed(1)
        losses = [float(svi.step(*batch)) for batch in partly_labelled() for svi in (bound, auxiliary)]
        return losses, {name: value.detach().clone() for name, value in vae.named_parameters()}

    assert_equal(outcome(partial(CompiledSVI, engine=engine)), outcome(SVI))


@pytest.mark.parametrize(
    "loss",
    [
        RenyiELBO(num_particles=2),
        TraceGraph_ELBO(),
        ReweightedWakeSleep(),
        JitTrace_ELBO(),
        TraceTailAdaptive_ELBO(2, vectorize_particles=True, max_plate_nesting=1),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_losses_that_are_refused_are_named(loss):
    model, guide, batches, _ = PROGRAMS["tutorial"].make()
    with pytest.raises(ValueError, match=f"{type(loss).__name__}.*(use|ELBO)"):
        CompiledSVI(model, guide, pyro.optim.Adam({}), loss, engine="graph").step(*batches[0])


def table():
    """The rows of the table for users, by kind."""
    page = (Path(__file__).parents[1] / "docs/programs.md").read_text()
    lines = page[page.index("| kind |") :].split("\n\n")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {kind: cells for kind, *cells in rows[2:]}


def test_the_table_for_users_names_these_programs_and_what_becomes_of_them():
    expected = {}
    for program in PROGRAMS.values():
        graph = "yes" if program.refused is None else "refused"
        expected[program.kind] = ["yes", graph, graph if program.compiles else "as graph"]
    assert {kind: cells[:3] for kind, cells in table().items()} == expected
    assert len(expected) == len(PROGRAMS)


def test_the_table_for_users_says_what_to_do_about_the_others():
    for kind, (*engines, remedy) in table().items():
        assert remedy or engines == ["yes"] * 3, kind
