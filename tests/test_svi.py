"""Every engine takes the same steps: the captured graph equals plain Pyro to the last bit."""

import os
import subprocess
import sys
from contextlib import nullcontext

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import RenyiELBO, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO, config_enumerate
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import nn
from torch.distributions import constraints

from pyrovae.data.batches import binarize
from pyrovae.data.conditions import CONDITIONS
from pyrovae.data.datasets import Dataset
from pyrovae.data.protocol import Protocol
from pyrovae.engine import choice, compilation
from pyrovae.engine import matmul_kernels as products
from pyrovae.engine.cache import SharedFolder
from pyrovae.engine.capture import CaptureError, preserved_state
from pyrovae.engine.precision import PRECISIONS, products_in
from pyrovae.experiments.building import build
from pyrovae.experiments.recipe import Recipe
from pyrovae.inference import plans
from pyrovae.inference.health import Health
from pyrovae.inference.objectives import ELBO, IWELBO, OBJECTIVES
from pyrovae.inference.svi import CompiledSVI
from pyrovae.inference.warmup import scale_latents
from pyrovae.programs.architecture import NETWORKS, Architecture
from pyrovae.programs.conditionals import evaluate_conditional, share_conditionals
from pyrovae.programs.guides import GUIDES, VAE
from pyrovae.programs.models import GenerativeModel

X = torch.bernoulli(torch.full((16, 12), 0.4), generator=torch.Generator().manual_seed(0))


def make_vae(family="ladder", depth=2, **options):
    sizes = Architecture(
        shape=(1, 3, 4), latent_sizes=(4, 3, 2)[:depth], hidden_sizes=(8, 7, 6)[:depth], **{"batch_norm": True} | options
    )
    model = GenerativeModel.of(sizes)
    return VAE(model, GUIDES[family].of(model, sizes))


def steps(model, guide, parameters, loss, batches, engine, weight=0.7, **options):
    """Losses, the last gradients, and the parameters after some steps."""
    optim = torch.optim.Adam(parameters, lr=0.01)
    trained = CompiledSVI(model, guide, optim, loss, engine=engine, **options)
    torch.manual_seed(7)
    with scale_latents(weight) if weight else nullcontext():
        losses = [trained.step(batch).item() for batch in batches]
    gradients = [each.grad for each in parameters]
    return losses, gradients, [each.detach().clone() for each in parameters]


def assert_equal_to_the_last_bit(make, loss, batches, **options):
    """``make`` gives model, guide and parameters, always initialised alike."""
    outcomes = [steps(*make(), loss, batches, engine, **options) for engine in ("eager", "graph")]
    assert outcomes[0][0] == outcomes[1][0]
    for ours, theirs in zip(outcomes[0][1] + outcomes[0][2], outcomes[1][1] + outcomes[1][2], strict=True):
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)


CASES = [
    # The deeper ones of all but the ladder take minutes together.
    pytest.param(family, depth, particles, marks=[pytest.mark.hours] if depth > 1 and family != "ladder" else [])
    for family in GUIDES
    for depth, particles in ((1, 1), (2, 3))
]


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(("family", "depth", "particles"), CASES)
def test_graph_equals_eager(family, objective, particles, depth):
    def make():
        torch.manual_seed(3)
        vae = make_vae(family, depth)
        return vae.model, vae.guide, list(vae.parameters())

    assert_equal_to_the_last_bit(make, OBJECTIVES[objective](particles), [X, X[:8], X])


@pytest.mark.parametrize(
    "loss", [Trace_ELBO(), TraceMeanField_ELBO(), ELBO(analytic_kl=True)], ids=lambda each: type(each).__name__
)
def test_graph_equals_eager_with_pyros_objectives(loss):
    def make():
        torch.manual_seed(3)
        vae = make_vae()
        return vae.model, vae.guide, list(vae.parameters())

    assert_equal_to_the_last_bit(make, loss, [X, X])


class Regression(PyroModule):
    """Bayesian linear regression, with a PyroParam for the noise."""

    def __init__(self):
        super().__init__()
        self.linear = PyroModule[nn.Linear](12, 1)
        self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 12]).to_event(2))
        self.noise = PyroParam(torch.tensor(0.5), constraint=constraints.positive)

    def forward(self, x):
        mean = self.linear(x).squeeze(-1)
        with pyro.plate("data", 16 if len(x) == 16 else len(x), subsample=x):
            return pyro.sample("y", dist.Normal(mean, self.noise), obs=x.sum(-1))


def regression():
    pyro.clear_param_store()
    torch.manual_seed(3)
    model = Regression()
    guide = AutoNormal(model)
    with preserved_state():
        guide(X)
    return model, guide, [*model.parameters(), *guide.parameters()]


class Schools(nn.Module):
    """A hierarchy in two plates, one of them subsampled, with a mask and a scale."""

    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(4))
        self.log_scale = nn.Parameter(torch.zeros(4))
        self.shared = nn.Parameter(torch.tensor(0.1))

    def model(self, x):
        centre = pyro.sample("centre", dist.Normal(0.0, 1.0))
        with pyro.plate("groups", 4, dim=-2):
            mean = pyro.sample("mean", dist.Normal(centre + self.shared, 1.0))
            with pyro.plate("rows", len(x), subsample_size=8, dim=-1) as rows, pyro.poutine.scale(scale=0.5):
                likelihood = dist.Normal(mean, self.shared.exp()).mask(x[rows, 0] > 0)
                pyro.sample("x", likelihood, obs=x[rows, :4].T)

    def guide(self, x):
        pyro.sample("centre", dist.Normal(self.shared, 0.5))
        with pyro.plate("groups", 4, dim=-2):
            pyro.sample("mean", dist.Normal(self.loc[:, None], self.log_scale.exp()[:, None]))
            with pyro.plate("rows", len(x), subsample_size=8, dim=-1):
                pass


def schools():
    torch.manual_seed(3)
    programs = Schools()
    return programs.model, programs.guide, list(programs.parameters())


def mixture():
    """Two clusters, the discrete assignment summed out, parameters in Pyro's store."""
    pyro.clear_param_store()

    @config_enumerate
    def model(x):
        weight = pyro.param("weight", torch.tensor(0.3), constraint=constraints.unit_interval)
        spread = pyro.sample("spread", dist.LogNormal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            cluster = pyro.sample("cluster", dist.Bernoulli(weight)).long()
            pyro.sample("x", dist.Normal(torch.tensor([-1.0, 2.0])[cluster], spread), obs=x[:, 0])

    def guide(x):
        pyro.sample("spread", dist.LogNormal(pyro.param("loc", torch.tensor(0.2)), 0.3))

    with preserved_state():
        model(X)
        guide(X)
    return model, guide, [value.unconstrained() for _, value in pyro.get_param_store().items()]


OTHERS = {
    "regression": (regression, ELBO()),
    "regression-stock": (regression, Trace_ELBO()),
    "schools": (schools, ELBO()),
    "schools-particles": (schools, Trace_ELBO(3, vectorize_particles=True, max_plate_nesting=2)),
    "mixture": (mixture, TraceEnum_ELBO(max_plate_nesting=1)),
}


@pytest.mark.parametrize("case", OTHERS)
@pytest.mark.filterwarnings("ignore:.*unconstrained.*")
def test_graph_equals_eager_on_programs_that_are_no_vae(case):
    make, loss = OTHERS[case]
    # TraceEnum_ELBO wants one scale for all that it sums over.
    assert_equal_to_the_last_bit(make, loss, [X, X, X], weight=None if isinstance(loss, TraceEnum_ELBO) else 0.7)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    for module in (compilation, products):
        monkeypatch.setattr(module, "user_cache_path", lambda name: tmp_path / name)
    return tmp_path / "pyrovae/compiled"


OPTIMIZERS = {
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01),
    "adam with decay": lambda parameters: torch.optim.Adam(parameters, lr=0.01, weight_decay=0.1, betas=(0.8, 0.9), eps=1e-3),
    "adamw in groups": lambda parameters: torch.optim.AdamW(
        [{"params": parameters[:3], "lr": 0.1}, {"params": parameters[3:]}]
    ),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=1e-4, momentum=0.9),
}


def trained_with(optimizer, engine, objective=None, count=4, **options):
    """Losses, and whatever training moves, after steps under a schedule of the learning rate."""
    torch.manual_seed(3)
    vae = make_vae(hidden_layers=1)
    optim = OPTIMIZERS[optimizer](list(vae.parameters()))
    schedule = torch.optim.lr_scheduler.ExponentialLR(optim, 0.5)
    trained = CompiledSVI(vae.model, vae.guide, optim, objective or ELBO(), engine=engine, **options)
    torch.manual_seed(7)
    losses = []
    for _ in range(count):
        losses.append(trained.step(X).item())
        schedule.step()
    moments = [value for state in optim.state.values() for value in state.values() if value is not None]
    return losses, [*vae.parameters(), *vae.buffers(), *moments]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "objective"),
    [("adam", ELBO()), ("adam", IWELBO(4)), ("adam with decay", ELBO()), ("adamw in groups", ELBO()), ("sgd", ELBO())],
)
def test_compiled_agrees_with_eager_and_is_kept(optimizer, objective, cache):
    expected, state = trained_with(optimizer, "eager", objective)
    for _ in range(2):  # compiled, then loaded
        losses, moved = trained_with(optimizer, "compiled", objective)
        assert losses == pytest.approx(expected, rel=1e-5)
        for number, (ours, theirs) in enumerate(zip(moved, state, strict=True)):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-3, msg=lambda m, number=number: f"{number}: {m}")
    assert len(list(cache.iterdir())) == 1


@pytest.mark.slow
def test_settings_that_change_while_training_are_honoured(cache):
    def outcome(engine):
        torch.manual_seed(3)
        vae = make_vae("mean_field", 1)
        optim = torch.optim.Adam(vae.parameters(), lr=0.01)
        trained = CompiledSVI(vae.model, vae.guide, optim, ELBO(), engine=engine)
        torch.manual_seed(7)
        for beta in (0.9, 0.9, 0.5, 0.2):
            optim.param_groups[0]["betas"] = (beta, 0.999)
            trained.step(X)
        return trained.decision, list(vae.parameters())

    (_, expected), (decision, parameters) = outcome("eager"), outcome("compiled")
    assert decision == "engine compiled: without the optimizer, whose settings change while it trains"
    for ours, theirs in zip(parameters, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("engine", ["eager", "graph"])
def test_gradients_are_laid_out_as_their_parameters(engine):
    weight = nn.Parameter(torch.randn(4, 12))

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal((weight.T * torch.ones(12, 4)).sum(), 1.0), obs=x[:, 0])

    CompiledSVI(model, lambda x: None, torch.optim.Adam([weight], fused=True), ELBO(), engine=engine).step(X)
    assert weight.grad.stride() == weight.stride()


@pytest.mark.parametrize("preferred", [True, False])
def test_products_of_either_library_agree(preferred, monkeypatch, cache):
    monkeypatch.setattr(products._Answers, "prefer_onednn", lambda self, *layouts: preferred)
    vae = make_vae(batch_norm=False)
    trained = trainer(vae)
    situation, inputs = trained._learn(trained._function.call((X,), {}))
    chosen = products.with_fastest_products(situation.graph.module)
    assert any(node.target in products.PRODUCTS for node in chosen.graph.nodes) is not preferred
    outcomes = []
    for module in (situation.graph.module, chosen):
        torch.manual_seed(2)
        outcomes.append(
            [each for each in module(*situation.graph.constants, *inputs) if each is not None and each.is_floating_point()]
        )
    for ours, theirs in zip(*outcomes, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_products_are_timed_once(tmp_path):
    first = products._Answers(SharedFolder(tmp_path / "products", 2**20))
    layouts = ((8,), (0,)), ((16, 4), (4, 1)), ((4, 8), (1, 4))
    answer = first.prefer_onednn(*layouts)
    first.save()
    again = products._Answers(SharedFolder(tmp_path / "products", 2**20))
    assert again._known == first._known
    assert again.prefer_onednn(*layouts) == answer
    assert len(again._known) == 1


@pytest.mark.slow
def test_a_damaged_compiled_graph_is_compiled_anew(cache):
    vae = make_vae("mean_field", 1)
    make = (vae.model, vae.guide, list(vae.parameters()))
    steps(*make, ELBO(), [X], "compiled")
    (kept,) = cache.iterdir()
    kept.write_bytes(b"damaged")
    steps(*make, ELBO(), [X], "compiled")
    assert kept.stat().st_size > 1000


@pytest.mark.slow
def test_bfloat16_products_equal_in_both_engines_and_are_close_to_float32():
    def make():
        torch.manual_seed(3)
        vae = make_vae()
        return vae.model, vae.guide, list(vae.parameters())

    assert_equal_to_the_last_bit(make, ELBO(), [X] * 3, precision="bfloat16")
    exact, rounded = (steps(*make(), ELBO(), [X] * 3, "graph", precision=precision) for precision in PRECISIONS)
    assert rounded[0] == pytest.approx(exact[0], rel=0.01)
    assert rounded[0] != exact[0]
    assert all(each.dtype == torch.float32 for each in rounded[1] + rounded[2])


def test_bfloat16_rounds_products_and_nothing_else():
    a, b = torch.randn(5, 7, requires_grad=True), torch.randn(7, 3)
    with products_in("bfloat16"):
        product = a @ b
        density = dist.Normal(a, 1.0).log_prob(torch.ones(())).sum()
        (gradient,) = torch.autograd.grad(product.sum(), a)
    assert torch.equal(product, (a.bfloat16() @ b.bfloat16()).float())
    assert torch.equal(gradient, (torch.ones(5, 3).bfloat16() @ b.bfloat16().T).float())
    assert torch.equal(density, dist.Normal(a, 1.0).log_prob(torch.ones(())).sum())


def trainer(vae, loss=None, engine="graph", **options):
    return CompiledSVI(
        vae.model, vae.guide, torch.optim.Adam(vae.parameters(), lr=0.01), loss or ELBO(), engine=engine, **options
    )


def test_each_shape_is_captured_once_and_kept():
    trained = trainer(make_vae())
    for batch in (X, X[:5], X, X[:5]):
        trained.step(batch)
    assert trained.graphs_kept == 2


def test_the_mode_of_the_modules_is_part_of_the_graph():
    vae = make_vae()
    trained = trainer(vae)
    trained.step(X)
    statistics = vae.guide.encoder.networks[0][1].running_mean
    vae.eval()
    before = statistics.clone()
    trained.step(X)
    assert torch.equal(statistics, before)
    vae.train()
    trained.step(X)
    assert not torch.equal(statistics, before)


def test_capturing_leaves_buffers_and_noise_as_they_were():
    vae = make_vae()
    torch.manual_seed(5)
    trained = trainer(vae)
    trained._learn(trained._function.call((X,), {}))
    norm = vae.guide.encoder.networks[0][1]
    assert norm.running_mean.abs().sum() == 0
    assert norm.num_batches_tracked == 0
    after = torch.randn(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.randn(1))


def test_pyro_optimizers_train_modules_and_the_store():
    model, guide, parameters = mixture()
    before = [each.detach().clone() for each in parameters]
    trained = CompiledSVI(model, guide, pyro.optim.Adam({"lr": 0.05}), TraceEnum_ELBO(max_plate_nesting=1), engine="graph")
    losses = [trained.step(X).item() for _ in range(60)]
    assert sum(losses[-10:]) < sum(losses[:10])
    assert all(not torch.equal(old, new) for old, new in zip(before, parameters, strict=True))
    vae = make_vae()
    weights = [each.detach().clone() for each in vae.parameters()]
    CompiledSVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.05}), ELBO(), engine="graph").step(X)
    assert all(not torch.equal(old, new) for old, new in zip(weights, vae.parameters(), strict=True))


def test_several_inputs_and_keywords():
    vae = make_vae("mean_field", 1)

    def model(x, y, *, factor):
        with pyro.poutine.scale(scale=factor):
            vae.model(x * y)

    def guide(x, y, *, factor):
        vae.guide(x * y)

    trained = CompiledSVI(model, guide, torch.optim.Adam(vae.parameters()), ELBO(), engine="graph")
    losses = []
    for factor in (1.0, 2.0):
        torch.manual_seed(1)
        losses.append(trained.step(X, X, factor=factor).item())
    assert trained.graphs_kept == 2
    assert losses[1] > losses[0]


def test_a_shared_conditional_is_evaluated_once():
    calls = []

    class Counted(nn.Identity):
        def forward(self, value):
            calls.append(value)
            return dist.Normal(value, 1.0)

    conditional, value = Counted(), torch.zeros(3)
    with share_conditionals():
        first, second, third = (
            evaluate_conditional(conditional, value),
            evaluate_conditional(conditional, value),
            evaluate_conditional(conditional, value.clone()),
        )
    assert first is second
    assert third is not first
    assert len(calls) == 2
    assert evaluate_conditional(conditional, value) is not first, "nothing is kept outside"


def poisoned(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z1", dist.Normal(torch.zeros(len(x), 4), 1.0).to_event(1))
        pyro.sample("fine", dist.Normal(z.sum(-1), 1.0), obs=x[:, 0])
        pyro.sample("x", dist.Normal(x.sum(-1) / x[:, 0], 1.0), obs=x[:, 0])


@pytest.mark.parametrize(("engine", "unread"), [("eager", 1), ("graph", 1), ("compiled", 1), ("compiled", 3)])
def test_a_loss_that_is_not_finite_names_step_and_site_and_changes_nothing(engine, unread, monkeypatch, cache):
    vae = make_vae("mean_field", 1)
    optim = torch.optim.Adam(vae.parameters())
    trained = CompiledSVI(poisoned, vae.guide, optim, ELBO(), engine=engine)
    good, bad = X.clamp(min=0.1), X.clamp(min=0.1)
    bad[3, 0] = 0
    for _ in range(3):
        trained.step(good)
    before = [each.detach().clone() for each in everything(vae, optim)]
    if unread > 1:  # as on an accelerator
        monkeypatch.setattr(Health, "is_due", lambda self, loss: len(self._unread) == unread)
    message = "step 4: the loss is (inf|nan).*the first site whose log-density is not finite is 'x' of the model"
    for batch in (bad, good, good)[: unread - 1]:
        trained.step(batch)
    with pytest.raises(FloatingPointError, match=message):
        trained.step(bad if unread == 1 else good)
    assert all(torch.equal(old, new) for old, new in zip(before, everything(vae, optim), strict=True))
    trained.step(good)
    trained.check()
    assert trained.steps_taken == 4
    assert not all(torch.equal(old, new) for old, new in zip(before, everything(vae, optim), strict=True))


def everything(vae, optim):
    """All that a step may move."""
    return [*vae.parameters(), *vae.buffers(), *(value for state in optim.state.values() for value in state.values())]


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_conditional_convolutional_programs_are_captured_with_what_they_are_told(network, cache):
    """Images and labels in; bits, context, forward and backward inside the graph."""
    classes = {"train": torch.arange(len(X)) % 3}
    protocol = Protocol(dataset="grey", sizes=(len(X), 0, len(X)))
    data = Dataset("grey", X * 0.8, None, X, classes, (1, 3, 4), protocol, True, CONDITIONS["label"]((1, 3, 4), 3))
    settings = {"network": network, "condition": "label", "prior": "conditional_gaussian", "batch_norm": True}
    chosen = Recipe(latent_sizes=(3, 2), hidden_sizes=(6, 5), guide="ladder", hidden_layers=1, activation="gate", **settings)
    labels, outcomes = classes["train"], {}
    for engine in ("eager", "graph", "compiled") if network == "mlp" else ("eager", "graph"):
        vae = build(chosen, data)
        optim = torch.optim.Adam(vae.parameters(), lr=0.01)
        svi = CompiledSVI(vae.model, vae.guide, optim, ELBO(), engine=engine, transform=data.draw)
        torch.manual_seed(7)
        outcomes[engine] = [svi.step(data.train, labels).item() for _ in range(4)]
    assert outcomes["eager"] == outcomes["graph"]
    assert outcomes.get("compiled", outcomes["eager"]) == pytest.approx(outcomes["eager"], rel=1e-3)


def test_a_transform_is_part_of_the_graph(cache):
    grey = torch.full((400, 12), 0.25)
    seen = []

    class Watched(ELBO):
        def bound(self, model, guide, x):
            seen.append(x.detach().clone())
            return super().bound(model, guide, x)

    def outcome(engine):
        torch.manual_seed(3)
        vae = make_vae("mean_field", 1)
        torch.manual_seed(7)
        trained = CompiledSVI(
            vae.model, vae.guide, torch.optim.Adam(vae.parameters()), Watched(), engine=engine, transform=binarize
        )
        return [trained.step(grey).item() for _ in range(3)]

    losses = outcome("eager")
    assert set(seen[-1].unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(seen[-1], seen[-2])
    # 4,800 bits: eight standard errors of their mean
    assert abs(seen[-1].mean().item() - 0.25) < 8 * (0.25 * 0.75 / 4800) ** 0.5
    assert outcome("graph") == losses
    assert outcome("compiled") == pytest.approx(losses, rel=1e-5)


def refused_latent():
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z1", dist.Poisson(torch.ones(len(x), 4)).to_event(1))

    return guide, "site 'z1' of the guide is a Poisson, which has no rsample"


def refused_branch():
    def guide(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z1", dist.Normal(torch.zeros(len(x), 4), 1.0).to_event(1))
            if z.sum() > 1e6:
                raise AssertionError

    return guide, "the program or its loss reads one.*after site 'z1', at line [0-9]+ of .*test_svi.py"


def refused_sites():
    count = iter(range(100))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z1", dist.Normal(torch.zeros(len(x), 4), 1.0).to_event(1))
            pyro.sample(f"extra_{next(count)}", dist.Normal(torch.zeros(len(x)), 1.0), infer={"is_auxiliary": True})

    return guide, "expected the same sites at every run; 'extra_[0-9]', 'extra_[0-9]' came in one run and not in the next"


@pytest.mark.parametrize("case", [refused_latent, refused_branch, refused_sites], ids=lambda case: case.__name__)
def test_what_cannot_be_captured_is_refused_before_anything_is_trained(case):
    guide, message = case()
    model = make_vae("mean_field", 1).model
    before = [each.detach().clone() for each in model.parameters()]
    trained = CompiledSVI(model, guide, torch.optim.Adam(model.parameters()), ELBO(), engine="graph")
    with pytest.raises(ValueError, match=message):
        trained.step(X)
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_other_handlers_around_a_step_are_refused():
    with (
        pyro.poutine.condition(data={}),
        pytest.raises(CaptureError, match="got ConditionMessenger: put them around the model"),
    ):
        trainer(make_vae()).step(X)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "fast"}, "expected an engine out of auto, eager, graph, compiled; got 'fast'"),
        ({"precision": "int8"}, "expected a precision out of float32, bfloat16; got 'int8'"),
        ({"loss": RenyiELBO()}, "expected a loss with differentiable_loss; RenyiELBO has none"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        trainer(make_vae(), **options)


def test_programs_without_parameters_are_refused():
    def program(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))

    with pytest.raises(ValueError, match="expected parameters to train"):
        CompiledSVI(program, program, pyro.optim.Adam({}), ELBO()).step(X)


@pytest.mark.slow
def test_auto_weighs_the_steps_ahead(monkeypatch, cache):
    def decided(steps_ahead):
        trained = trainer(make_vae("mean_field", 1), engine="auto")
        trained.expect(steps_ahead)
        for _ in range(1 + plans.MEASURED_STEPS):  # the first is plain Pyro's
            trained.step(X)
        return trained.decision

    assert decided(10).startswith("engine graph: ")
    assert "against" in decided(10)
    assert decided(10**9).startswith("engine compiled: ")
    assert "to load what an earlier process compiled" in decided(10**9)


def test_without_a_compiler_the_graph_serves(monkeypatch):
    monkeypatch.setattr(choice, "has_compiler", lambda: False)
    trained = trainer(make_vae("mean_field", 1), engine="compiled")
    with pytest.warns(UserWarning, match="there is no C\\+\\+ compiler"):
        trained.step(X)
    trained.step(X)
    assert trained.decision == "engine graph: there is no C++ compiler (g++ or clang++), which engine compiled needs"


def test_no_compiler_is_seen(tmp_path):
    code = "from pyrovae.engine.compilation import has_compiler; print(has_compiler())"
    environment = os.environ | {"PATH": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.stdout.strip() == "False"
