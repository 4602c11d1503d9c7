"""Gradients without the score, whatever a guide is made of: at the exact posterior nothing is left of them.

The model is z ~ N(0, 1), x | z ~ N(W z + c, r^2 I), or the chain of two latents above it: posterior and evidence are known.
"""

import gc
import weakref

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F
from linear_gaussian import Chain
from pyro.infer.autoguide import AutoIAFNormal, AutoMultivariateNormal, AutoNormal, AutoNormalMessenger, AutoStructured
from torch import nn

from pyrovae.inference.gradients import PathDerivatives
from pyrovae.inference.objectives import ELBO, IWELBO
from pyrovae.inference.svi import CompiledSVI
from pyrovae.inference.weights import log_weights, traces_of

pytestmark = pytest.mark.usefixtures("float64")

X = torch.tensor([[0.5, -1.0, 0.2], [2.0, 0.3, -0.7], [-1.5, 0.8, 0.0]], dtype=torch.float64)
ESTIMATORS = {
    "elbo": ELBO(gradient="sticking_the_landing"),
    "elbo-4": ELBO(4, gradient="sticking_the_landing"),
    "iwelbo-3": IWELBO(3, gradient="doubly_reparameterized"),
}


class FromList(nn.Module):
    """N(features W' + b, s^2) of parameters in a list, which no module's forward touches."""

    def __init__(self, exact):
        super().__init__()
        self.list = nn.ParameterList([exact.weight, exact.bias, exact.log_scale])

    def forward(self, features):
        weight, bias, log_scale = self.list
        return dist.Normal(features @ weight.T + bias, log_scale.exp()).to_event(1)


class FromLayer(nn.Module):
    """The same, of a layer whose weight is used and whose forward is not called."""

    def __init__(self, exact):
        super().__init__()
        self.layer = nn.Linear(exact.weight.shape[1], 1)
        self.layer.weight, self.layer.bias, self.log_scale = exact.weight, exact.bias, exact.log_scale

    def forward(self, features):
        return dist.Normal(F.linear(features, self.layer.weight, self.layer.bias), self.log_scale.exp()).to_event(1)


def from_closure(exact):
    weight, bias, log_scale = (each.detach().requires_grad_() for each in exact.parameters())

    def conditional(features):
        return dist.Normal(features @ weight.T + bias, log_scale.exp()).to_event(1)

    conditional.parameters = lambda: [weight, bias, log_scale]
    return conditional


def from_store(exact):
    def conditional(features):
        name = f"width-{exact.weight.shape[1]}"
        weight, bias = (pyro.param(f"{part}-{name}", getattr(exact, part).detach()) for part in ("weight", "bias"))
        scale = pyro.param(f"scale-{name}", exact.log_scale.detach().exp(), constraint=dist.constraints.positive)
        return dist.Normal(features @ weight.T + bias, scale).to_event(1)

    conditional.parameters = lambda: [p.unconstrained() for p in pyro.get_param_store().values()]
    return conditional


def by_forward(exact):
    def conditional(features):
        return exact.forward(features)

    conditional.parameters = exact.parameters
    return conditional


MADE_OF = {
    "module": lambda exact: exact,
    "list": FromList,
    "layer": FromLayer,
    "closure": from_closure,
    "store": from_store,
    "forward": by_forward,
}


def exact_guide(chain, kind):
    """The posterior of a chain of one or two latents, top down, and the parameters that it is made of."""
    heads = [MADE_OF[kind](chain.posterior(chain.depth)), *(MADE_OF[kind](chain.downward(1)) for _ in range(chain.depth - 1))]

    def guide(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample(f"z{chain.depth}", heads[0](x))
            if chain.depth == 2:
                pyro.sample("z1", heads[1](torch.cat([x.expand(*z.shape[:-1], 3), z], -1)))

    return guide, lambda: [each for head in heads for each in head.parameters()]


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("kind", MADE_OF)
def test_at_the_exact_posterior_the_gradient_is_zero_whatever_keeps_the_parameters(kind, depth, estimator):
    chain = Chain(depth)
    guide, parameters = exact_guide(chain, kind)
    objective = ESTIMATORS[estimator]
    bound = objective.bound(chain.model, guide, X)
    assert bound.item() == pytest.approx(chain.evidence(X).sum().item(), abs=1e-10)
    gradients = torch.autograd.grad(bound, list(parameters()), allow_unused=True)
    assert all(each is None or each.abs().max() < 1e-9 for each in gradients)
    noisy = ELBO() if isinstance(objective, ELBO) else IWELBO(3)
    moving = torch.autograd.grad(noisy.bound(chain.model, guide, X), list(parameters()))
    assert max(each.abs().max() for each in moving) > 0.1


class Noisy(nn.Module):
    """A guide of two latents over features that are dropped at random, behind batch norm, called by forward alone or not."""

    def __init__(self, *, by_forward=False):
        super().__init__()
        self.by_forward = by_forward
        self.norm = nn.BatchNorm1d(3)
        self.top, self.below = nn.Linear(3, 2), nn.Linear(4, 2)

    def forward(self, x):
        features = F.dropout(self.norm.forward(x) if self.by_forward else self.norm(x), 0.5)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z2", self.gaussian(self.top(features)))
            rest = F.dropout(features, 0.5).expand(*z.shape[:-1], 3)
            pyro.sample("z1", self.gaussian(self.below(torch.cat([rest, z], -1))))

    @staticmethod
    def gaussian(h):
        loc, scale = h.chunk(2, -1)
        return dist.Normal(loc, F.softplus(scale)).to_event(1)


def total_and_score(model, guide, x):
    """The plain gradient of the bound, and that of log q at the values drawn, by a program run twice with the same noise."""
    parameters = list(guide.parameters())
    torch.manual_seed(1)
    total = torch.autograd.grad(ELBO().bound(model, guide, x), parameters)
    torch.manual_seed(1)
    drawn = pyro.poutine.trace(guide).get_trace(x)

    class At(pyro.poutine.messenger.Messenger):
        def _pyro_post_sample(self, msg):
            msg["value"] = drawn.nodes[msg["name"]]["value"].detach()

    torch.manual_seed(1)
    with pyro.poutine.trace() as trace, At():
        guide(x)
    score = sum(
        site["fn"].log_prob(drawn.nodes[name]["value"].detach()).sum()
        for name, site in trace.trace.nodes.items()
        if name in ("z1", "z2")
    )
    return total, torch.autograd.grad(score, parameters)


def test_a_guide_that_draws_more_than_its_latents_runs_once():
    """Its value is that of the plain bound, its gradient that less the score under the same masks; statistics move once."""
    torch.manual_seed(0)
    chain, guide, x = Chain(2), Noisy(by_forward=True), torch.randn(6, 3)
    total, score = total_and_score(chain.model, guide, x)
    counted = int(guide.norm.num_batches_tracked)
    torch.manual_seed(1)
    plain = ELBO().bound(chain.model, guide, x)
    torch.manual_seed(1)
    bound = ELBO(gradient="sticking_the_landing").bound(chain.model, guide, x)
    assert bound.item() == plain.item()
    # log q enters the bound with a minus: the bound without the score is the bound and the score.
    for each, whole, of_score in zip(torch.autograd.grad(bound, list(guide.parameters())), total, score, strict=True):
        torch.testing.assert_close(each, whole + of_score)
    guide.norm.num_batches_tracked.zero_()
    ELBO(gradient="sticking_the_landing").bound(chain.model, guide, x)
    assert counted > 0
    assert int(guide.norm.num_batches_tracked) == 1


@pytest.mark.parametrize("estimator", ["elbo-4", "iwelbo-3"])
def test_a_captured_step_is_the_eager_one_where_a_guide_draws_more_than_its_latents(estimator):
    x, outcomes = torch.randn(6, 3), {}
    for engine in ("eager", "graph"):
        torch.manual_seed(0)
        chain, guide = Chain(2), Noisy()
        parameters = [*chain.model.parameters(), *guide.parameters()]
        svi = CompiledSVI(chain.model, guide, torch.optim.Adam(parameters), ESTIMATORS[estimator], engine=engine)
        torch.manual_seed(1)
        losses = [float(svi.step(x)) for _ in range(3)]
        outcomes[engine] = losses, [each.clone() for each in (*parameters, *guide.buffers())]
    assert outcomes["eager"][0] == outcomes["graph"][0]
    assert all(map(torch.equal, outcomes["eager"][1], outcomes["graph"][1]))


def two_latents(x):
    """z ~ N(0, I) and x ~ N(z A + c, r^2 I), all examples in one plate of data."""
    weight = torch.tensor([[1.0, -0.5, 0.3], [0.2, 0.8, -0.4]], dtype=torch.float64)
    z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(z @ weight, 0.7).to_event(1), obs=x)


def test_autoguides_keep_their_path_alone():
    """The exact posterior as AutoMultivariateNormal, whose latents are slices of one that it draws."""
    weight = torch.tensor([[1.0, -0.5, 0.3], [0.2, 0.8, -0.4]])
    covariance = (torch.eye(2) + len(X) * weight @ weight.T / 0.7**2).inverse()
    guide = AutoMultivariateNormal(two_latents)
    guide(X)
    scale = torch.linalg.cholesky(covariance)
    with torch.no_grad():
        guide.loc.copy_(covariance @ weight @ X.sum(0) / 0.7**2)
        guide.scale = scale.diagonal()
        guide.scale_tril = scale / scale.diagonal()[:, None]
    bound = ELBO(gradient="sticking_the_landing").bound(two_latents, guide, X)
    gradients = torch.autograd.grad(bound, list(guide.parameters()))
    assert max(each.abs().max() for each in gradients) < 1e-9


def mean_gradient(objective, model, guide, x, number):
    gradients = []
    for _ in range(number):
        gradients.append(
            torch.cat([g.flatten() for g in torch.autograd.grad(objective.bound(model, guide, x), list(guide.parameters()))])
        )
    gradients = torch.stack(gradients)
    return gradients.mean(0), gradients.std(0) / number**0.5


@pytest.mark.slow
@pytest.mark.parametrize("autoguide", [AutoNormal, AutoIAFNormal])
def test_the_expected_gradient_is_that_of_the_bound(autoguide):
    """Within five standard errors of each entry; a flow's density is evaluated through its inverse."""
    torch.manual_seed(0)
    guide = autoguide(two_latents)
    guide(X)
    plain, error = mean_gradient(ELBO(), two_latents, guide, X, 400)
    path, its_error = mean_gradient(ELBO(gradient="sticking_the_landing"), two_latents, guide, X, 400)
    assert ((plain - path).abs() <= 5 * (error.square() + its_error.square()).sqrt() + 1e-12).all()
    assert (plain.abs() > 5 * error).any()


class Forgetful(dist.Normal):
    """A density that is estimated anew each time."""

    def log_prob(self, value):
        return super().log_prob(value) + 0.1 * self.loc * torch.randn(())


def drawn_from(make):
    loc = nn.Parameter(torch.zeros(1))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z1", make(loc + 0.1, x))

    return guide


def computed(loc, x):
    """A latent computed by hand, whose density comes with it."""
    noise = torch.randn(len(x), 1)
    density = dist.Normal(loc, 0.5).log_prob(loc + 0.5 * noise).sum(-1)
    return dist.Delta(loc + 0.5 * noise, density, event_dim=1)


REFUSED = {
    "forgetful": (lambda loc, x: Forgetful(loc, 1.0).expand([len(x), 1]).to_event(1), "site 'z1'.*is not the same function"),
    "computed": (computed, "site 'z1' of the guide is a Delta whose log_density depends on parameters"),
    "planar": (
        lambda loc, x: dist.TransformedDistribution(
            dist.Normal(loc.expand(len(x), 1), 1.0).to_event(1), [dist.transforms.Planar(1)]
        ),
        "site 'z1' of the guide is a TransformedDistribution that cannot",
    ),
}


@pytest.mark.parametrize("estimator", ["elbo", "iwelbo-3"])
@pytest.mark.parametrize("case", REFUSED)
def test_densities_whose_score_cannot_be_told_are_refused(case, estimator):
    """At the first batch, with gradients or without, and as captured programs too."""
    make, message = REFUSED[case]
    chain, guide, objective = Chain(1), drawn_from(make), ESTIMATORS[estimator]
    with pytest.raises(ValueError, match=message):
        objective.loss(chain.model, guide, X)
    with pytest.raises(ValueError, match=message):
        objective.differentiable_loss(chain.model, drawn_from(make), X)
    parameters = guide.__closure__[0].cell_contents, guide.__closure__[1].cell_contents
    parameter = next(each for each in parameters if isinstance(each, nn.Parameter))
    svi = CompiledSVI(chain.model, drawn_from(make), torch.optim.Adam([parameter]), objective, engine="graph")
    with pytest.raises(ValueError, match=message):
        svi.step(X)


def test_a_structured_autoguide_is_refused():
    guide = AutoStructured(two_latents, conditionals="normal")
    with pytest.raises(ValueError, match="is a Delta whose log_density depends on parameters"):
        ELBO(gradient="sticking_the_landing").loss(two_latents, guide, X)


def test_a_guide_inside_the_model_is_refused():
    with pytest.raises(ValueError, match="program of its own; AutoNormalMessenger runs inside the model"):
        ELBO(gradient="sticking_the_landing").loss(two_latents, AutoNormalMessenger(two_latents), X)


def test_what_an_estimate_held_is_freed_with_it():
    """No node of a graph refers back to the graph: nothing waits for a collection of garbage."""
    chain = Chain(2)
    guide, _ = exact_guide(chain, "list")
    paths = PathDerivatives(weighted=True)
    model_trace, guide_trace = traces_of(chain.model, guide, (X,), {}, 3, paths)
    paths.weigh_by(torch.ones(3, 3))
    (model_trace.log_prob_sum() - guide_trace.log_prob_sum()).backward()
    held = weakref.ref(paths)
    gc.disable()
    try:
        del paths, model_trace, guide_trace
        assert held() is None
    finally:
        gc.enable()


def test_weights_are_the_same_with_the_estimator():
    chain = Chain(2)
    guide, _ = exact_guide(chain, "list")
    torch.manual_seed(1)
    weights = log_weights(chain.model, guide, X, num_particles=3)
    torch.manual_seed(1)
    bounds = IWELBO(3, gradient="doubly_reparameterized").bounds(chain.model, guide, X)
    torch.testing.assert_close(bounds, weights.logsumexp(0) - torch.log(torch.tensor(3.0)))
