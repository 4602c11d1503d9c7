"""The kinds of programs that users of Pyro bring: every engine takes the steps of ``pyro.infer.SVI``, or refuses by name."""

import inspect
import warnings
from functools import cache
from itertools import islice

import pyro
import pytest
import torch
from pyro.infer import SVI, Predictive
from pyro_programs import PROGRAMS
from torch import nn

from pyrovae.engine.capture import CaptureError
from pyrovae.inference.svi import CompiledSVI

pytestmark = pytest.mark.filterwarnings("ignore:.*(torch.jit|unconstrained|Found vars in model but not guide)")


def trained(name, engine, steps=4):
    """Losses, all that training moves, and samples of ``Predictive`` afterwards; ``None`` stands for stock Pyro."""
    program = PROGRAMS[name]
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    model, guide, batches, loss = program.make()
    optim = pyro.optim.Adam({"lr": 0.01})
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
                mine[name], value, **tolerances or {"rtol": 0, "atol": 0}, equal_nan=True, msg=lambda m, name=name: f"{name}: {m}"
            )


@pytest.mark.parametrize("name", PROGRAMS)
def test_stock_pyro_trains_it_on_batches_that_differ(name):
    losses, moved, _ = stock(name)
    assert len(set(losses)) > 1
    assert moved


@pytest.mark.parametrize("name", PROGRAMS)
def test_eager_equals_stock_pyro(name):
    assert_equal(trained(name, "eager"), stock(name))


@pytest.mark.parametrize("name", PROGRAMS)
def test_graph_equals_stock_pyro_or_refuses_at_the_first_step(name):
    if PROGRAMS[name].refused is None:
        assert_equal(trained(name, "graph"), stock(name))
        return
    with pytest.raises(CaptureError, match=PROGRAMS[name].refused):
        trained(name, "graph", steps=1)


@pytest.mark.parametrize("name", PROGRAMS)
def test_auto_never_raises(name):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert_equal(trained(name, "auto"), stock(name))
    ours = [str(each.message) for each in caught if "engine" in str(each.message)]
    assert len(ours) == (PROGRAMS[name].refused is not None), ours
