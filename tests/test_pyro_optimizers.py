"""Every optimizer and scheduler of torch and of ``pyro.optim``: each engine takes the steps that stock Pyro takes."""

import warnings

import pyro
import pyro.distributions as dist
import pyro.optim
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn
from torch.optim import lr_scheduler

from pyrovae.engine.capture import CaptureError
from pyrovae.inference.svi import CompiledSVI

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore:.*EPOCH_DEPRECATION|.*epoch parameter")
X = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
BATCHES = [X, X.flip(0) + 1, X * 2, X - 1]

PYRO_OPTIMIZERS = {name: {"lr": 0.01} for name in pyro.optim.__all__ if name[0] != "_" and not name.endswith("LR")}
for name in (
    "PyroOptim", "PyroLRScheduler", "LRScheduler", "ReduceLROnPlateau", "CosineAnnealingWarmRestarts",  # no optimizers
    "HorovodOptimizer",  # wraps one, for many machines
    "ChainedScheduler",
    "SparseAdam",  # wants sparse gradients, of which Pyro's densities have none
):  # fmt: skip
    PYRO_OPTIMIZERS.pop(name, None)
PYRO_OPTIMIZERS["ClippedAdam"] = {"lr": 0.1, "lrd": 0.5, "clip_norm": 0.01, "weight_decay": 0.1}
PYRO_OPTIMIZERS["SGD"] = {"lr": 1e-3, "momentum": 0.9, "nesterov": True}
PYRO_OPTIMIZERS["AdagradRMSProp"] = {"eta": 0.1}

SCHEDULERS = {
    "LambdaLR": {"lr_lambda": lambda step: 0.5**step},
    "MultiplicativeLR": {"lr_lambda": lambda step: 0.5},
    "StepLR": {"step_size": 2, "gamma": 0.1},
    "MultiStepLR": {"milestones": [1, 3], "gamma": 0.1},
    "ConstantLR": {"total_iters": 2},
    "LinearLR": {"total_iters": 3},
    "ExponentialLR": {"gamma": 0.3},
    "PolynomialLR": {"total_iters": 3},
    "CosineAnnealingLR": {"T_max": 3},
    "CosineAnnealingWarmRestarts": {"T_0": 2},
    "CyclicLR": {"base_lr": 1e-4, "max_lr": 0.1, "step_size_up": 2, "cycle_momentum": True},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": 10},
    "ReduceLROnPlateau": {"patience": 0, "factor": 0.1},
}


def program():
    """A decoder without a bias: Muon takes matrices alone."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    decoder = nn.Linear(2, 6, bias=False)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.1 * x[:, :2], 0.5).to_event(1))

    return model, guide, decoder.weight


def with_pyro(make, engine):
    """Losses, weights and rates of learning of ``pyro.infer.SVI``, or of an engine."""
    model, guide, weight = program()
    optim = make()
    svi = (
        SVI(model, guide, optim, Trace_ELBO())
        if engine is None
        else CompiledSVI(model, guide, optim, Trace_ELBO(), engine=engine)
    )
    pyro.set_rng_seed(1)
    seen = []
    for x in BATCHES:
        loss = float(svi.step(x))
        if isinstance(optim, pyro.optim.PyroLRScheduler):
            plateau = optim.pt_scheduler_constructor is lr_scheduler.ReduceLROnPlateau
            optim.step(loss) if plateau else optim.step()
        seen.append((loss, weight.detach().clone()))
    return seen


def with_torch(make, engine):
    """The same with an optimizer of torch's, against plain Pyro's loss followed by ``backward``."""
    model, guide, weight = program()
    optim, scheduler = make([weight])
    loss = Trace_ELBO()
    svi = None if engine is None else CompiledSVI(model, guide, optim, loss, engine=engine)
    pyro.set_rng_seed(1)
    seen = []
    for x in BATCHES:
        if svi is None:
            optim.zero_grad()
            value = loss.differentiable_loss(model, guide, x)
            value.backward()
            optim.step()
        else:
            value = svi.step(x)
        if scheduler is not None:
            scheduler.step(value.item()) if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) else scheduler.step()
        seen.append((value.item(), weight.detach().clone()))
    return seen


def assert_alike(train, make, engine):
    """To the last bit, or within rounding where it is compiled."""
    tolerances = {"rtol": 1e-4, "atol": 1e-5} if engine == "compiled" else {"rtol": 0, "atol": 0}
    for number, (ours, theirs) in enumerate(zip(train(make, engine), train(make, None), strict=True)):
        assert ours[0] == pytest.approx(theirs[0], rel=max(tolerances["rtol"], 1e-7)), number
        torch.testing.assert_close(ours[1], theirs[1], **tolerances, msg=lambda m, n=number: f"step {n}: {m}")


ENGINES = ["graph", pytest.param("compiled", marks=pytest.mark.hours)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", PYRO_OPTIMIZERS)
def test_optimizers_of_pyro(name, engine):
    assert_alike(with_pyro, lambda: getattr(pyro.optim, name)(dict(PYRO_OPTIMIZERS[name])), engine)


@pytest.mark.parametrize("engine", ["eager", "auto"])
@pytest.mark.parametrize("name", ["ClippedAdam", "Adam", "SGD"])
def test_momentum_goes_on_where_a_step_has_no_gradient(name, engine):
    """Stock SVI leaves zeros behind; under a mask of everything a loss has no gradient at all."""
    ends = []
    for each in (engine, None):
        model, guide, weight = program()
        optim = getattr(pyro.optim, name)(dict(PYRO_OPTIMIZERS[name]))
        arguments = {} if each is None else {"engine": each}
        svi = (SVI if each is None else CompiledSVI)(model, guide, optim, Trace_ELBO(), **arguments)
        pyro.set_rng_seed(1)
        svi.step(X)
        before = weight.detach().clone()
        with warnings.catch_warnings(), pyro.poutine.mask(mask=False):
            # That the mask is not captured.
            warnings.simplefilter("ignore")
            svi.step(X)
        assert not torch.equal(weight, before)
        ends.append(weight.detach().clone())
    assert torch.equal(*ends)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_of_pyro(name, engine):
    def make():
        settings = {"optimizer": torch.optim.SGD, "optim_args": {"lr": 1e-3, "momentum": 0.9}}
        return getattr(pyro.optim, name)(settings | SCHEDULERS[name])

    assert_alike(with_pyro, make, engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_clipping_and_rates_of_each_parameter(engine):
    seen = []

    def rates(name):
        seen.append(name)
        return {"lr": 0.1}

    assert_alike(with_pyro, lambda: pyro.optim.Adam(rates, clip_args={"clip_norm": 0.5, "clip_value": 0.2}), engine)
    assert set(seen) == {"decoder.weight"}


TORCH_OPTIMIZERS = {
    name: {"lr": 0.01}
    for name, each in vars(torch.optim).items()
    if isinstance(each, type) and name not in ("Optimizer", "LBFGS", "SparseAdam")
} | {"SGD": {"lr": 1e-3, "momentum": 0.9}, "Adam": {"lr": 0.01, "amsgrad": True}}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", TORCH_OPTIMIZERS)
def test_optimizers_of_torch(name, engine):
    assert_alike(with_torch, lambda weights: (getattr(torch.optim, name)(weights, **TORCH_OPTIMIZERS[name]), None), engine)


def in_turn(optim):
    first, second = lr_scheduler.ConstantLR(optim, total_iters=2), lr_scheduler.ExponentialLR(optim, 0.5)
    return lr_scheduler.SequentialLR(optim, [first, second], milestones=[2])


TORCH_SCHEDULERS = {
    **{name: lambda optim, name=name: getattr(lr_scheduler, name)(optim, **SCHEDULERS[name]) for name in SCHEDULERS},
    "SequentialLR": in_turn,
    "ChainedScheduler": lambda optim: lr_scheduler.ChainedScheduler([lr_scheduler.ExponentialLR(optim, 0.5)]),
    "SWALR": lambda optim: torch.optim.swa_utils.SWALR(optim, swa_lr=0.05, anneal_epochs=3),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", TORCH_SCHEDULERS)
def test_schedulers_of_torch(name, engine):
    def make(weights):
        optim = torch.optim.Adam(weights, lr=0.01)
        return optim, TORCH_SCHEDULERS[name](optim)

    assert_alike(with_torch, make, engine)


def test_the_tables_name_every_optimizer_and_scheduler():
    known = {"LRScheduler", "_LRScheduler", "PyroOptim", "PyroLRScheduler", "HorovodOptimizer", "SparseAdam"}
    # These take the schedulers of an optimizer, which pyro.optim makes later.
    known |= {"SequentialLR", "ChainedScheduler"}
    assert set(pyro.optim.__all__) == known | set(PYRO_OPTIMIZERS) | set(SCHEDULERS)
    assert set(lr_scheduler.__all__) - {"LRScheduler"} <= set(TORCH_SCHEDULERS)


def test_an_optimizer_that_asks_for_the_loss_again_is_refused():
    model, guide, weight = program()
    with pytest.raises(ValueError, match=r"LBFGS.*(closure|loss).*Adam"):
        CompiledSVI(model, guide, torch.optim.LBFGS([weight]), Trace_ELBO()).step(X)


def test_optimizers_for_several_sites_at_once_are_refused():
    model, guide, _ = program()
    optim = pyro.optim.multi.MixedMultiOptimizer([(["decoder$$$weight"], pyro.optim.Adam({}))])
    with pytest.raises((ValueError, TypeError, CaptureError), match=r"expected .*optimizer.*got MixedMultiOptimizer"):
        CompiledSVI(model, guide, optim, Trace_ELBO()).step(X)
