"""Particles under plates of any depth, and for programs that do not broadcast over a dimension in front: exact evidence.

Statistical checks allow five standard errors of the estimate itself, for seeds that are fixed.
"""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import Chain
from torch import nn

from pyrovae.evaluation.annealing import annealed_log_likelihood
from pyrovae.evaluation.likelihood import log_likelihood
from pyrovae.inference.objectives import ELBO, IWELBO
from pyrovae.inference.svi import CompiledSVI
from pyrovae.inference.warmup import scale_latents
from pyrovae.inference.weights import log_weights

pytestmark = pytest.mark.usefixtures("float64")

NOISE = 0.7
W = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
X = torch.randn(12, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def evidence(x):
    return dist.MultivariateNormal(torch.zeros(5), W @ W.T + NOISE**2 * torch.eye(5)).log_prob(x)


def posterior():
    """Of x: its mean is x times the first, its covariance the second."""
    covariance = (torch.eye(2) + W.T @ W / NOISE**2).inverse()
    return W @ covariance / NOISE**2, covariance


def nested(order):
    """Examples in a plate of their own, outside or inside those of latents and pixels."""
    examples_dim, inner_dim = order

    def rows(values):
        return values if examples_dim == -2 else values.mT

    def model(x):
        with pyro.plate("examples", len(x), dim=examples_dim):
            with pyro.plate("latents", 2, dim=inner_dim):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("pixels", 5, dim=inner_dim):
                pyro.sample("x", dist.Normal(rows(rows(z) @ W.T), NOISE), obs=rows(x))

    def guide(x):
        with pyro.plate("examples", len(x), dim=examples_dim), pyro.plate("latents", 2, dim=inner_dim):
            pyro.sample("z", dist.Normal(rows(x @ posterior()[0]), 0.5))

    return model, guide


def allocated():
    """The same, with the dimensions of the plates left to Pyro, which has the examples innermost."""

    def model(x):
        with pyro.plate("examples", len(x)):
            with pyro.plate("latents", 2):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("pixels", 5):
                pyro.sample("x", dist.Normal((z.mT @ W.T).mT, NOISE), obs=x.T)

    def guide(x):
        with pyro.plate("examples", len(x)), pyro.plate("latents", 2):
            pyro.sample("z", dist.Normal((x @ posterior()[0]).T, 0.5))

    return model, guide


class Stubborn(nn.Module):
    """Linear, of rows alone: as a network of convolutions it takes no more dimensions than it was made for."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight.clone())

    def forward(self, rows):
        if rows.dim() != 2:
            raise RuntimeError(f"expected 2D input (got {rows.dim()}D)")
        return rows @ self.weight.T


class Silent(Stubborn):
    """Linear over the second dimension: with particles in front it is wrong, and says nothing where sizes agree."""

    def forward(self, rows):
        return torch.einsum("bi...,oi->bo...", rows, self.weight)


def stubborn(network=Stubborn):
    decoder = network(W)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.decoder = decoder

        def forward(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(self.decoder(z), NOISE).to_event(1), obs=x)

    class Guide(nn.Module):
        def __init__(self):
            super().__init__()
            mean, covariance = posterior()
            self.encoder = network(mean.T)
            self.scale = nn.Parameter(torch.linalg.cholesky(covariance))

        def forward(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.MultivariateNormal(self.encoder(x), scale_tril=self.scale.tril()))

    return Model(), Guide()


PROGRAMS = {
    "examples outside": lambda: nested((-2, -1)),
    "examples inside": lambda: nested((-1, -2)),
    "allocated": allocated,
    "stubborn": stubborn,
    "silent": lambda: stubborn(Silent),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_everything_that_takes_particles_gives_the_evidence(name):
    model, guide = PROGRAMS[name]()
    torch.manual_seed(0)
    exact = evidence(X)
    with torch.no_grad():
        weights = log_weights(model, guide, X, num_particles=4000)
        single = log_weights(model, guide, X)
        iwelbo = IWELBO(2000).bounds(model, guide, X)
        elbos = torch.stack([ELBO(50).bound(model, guide, X) for _ in range(20)])
    assert weights.shape == (4000, 12)
    assert single.shape == (1, 12)
    error = weights.exp().std(0) / weights.exp().mean(0) / math.sqrt(4000)
    assert ((weights.logsumexp(0) - math.log(4000) - exact).abs() <= 5 * error + 1e-9).all()
    assert ((iwelbo - exact).abs() <= 10 * error + 1e-9).all()
    of_weights = weights.mean(0).sum().item()
    spread = 5 * weights.std(0).sum().item() / math.sqrt(1000)
    assert abs(elbos.mean().item() - of_weights) <= spread + 1e-9
    measured = log_likelihood(model, guide, X, 2000)
    assert ((measured.per_image - exact).abs() <= 5 * measured.standard_error_per_image + 1e-9).all()


@pytest.mark.parametrize("name", ["stubborn", "silent"])
def test_folded_particles_keep_the_estimators_exact(name):
    """At the exact posterior every weight is the evidence, and what is left of the gradients is zero."""
    model, guide = PROGRAMS[name]()
    torch.testing.assert_close(log_weights(model, guide, X, num_particles=3), evidence(X).expand(3, 12))
    for objective in (ELBO(3, gradient="sticking_the_landing"), IWELBO(3, gradient="doubly_reparameterized")):
        bound = objective.bound(model, guide, X)
        gradients = torch.autograd.grad(bound, list(guide.parameters()))
        assert max(each.abs().max() for each in gradients) < 1e-9


def test_folded_gradients_are_those_of_a_program_that_broadcasts():
    """The same noise in the same order: value and gradient of the bound agree, doubly reparameterized ones too."""
    outcomes = []
    for network in (Stubborn, None):
        model, guide = stubborn(Stubborn)
        if network is None:
            model.decoder.forward = lambda rows, net=model.decoder: rows @ net.weight.T
            guide.encoder.forward = lambda rows, net=guide.encoder: rows @ net.weight.T
        with torch.no_grad():
            guide.scale.mul_(1.3)
        torch.manual_seed(2)
        bound = IWELBO(4, gradient="doubly_reparameterized").bound(model, guide, X)
        outcomes.append([bound, *torch.autograd.grad(bound, [*model.parameters(), *guide.parameters()])])
    for ours, theirs in zip(*outcomes, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_captured_steps_with_folded_particles_are_the_eager_ones():
    outcomes = {}
    for engine in ("eager", "graph"):
        model, guide = stubborn()
        parameters = [*model.parameters(), *guide.parameters()]
        svi = CompiledSVI(model, guide, torch.optim.Adam(parameters, lr=0.01), IWELBO(3), engine=engine)
        torch.manual_seed(1)
        outcomes[engine] = [float(svi.step(X)) for _ in range(3)], [each.clone() for each in parameters]
    assert outcomes["eager"][0] == outcomes["graph"][0]
    assert all(map(torch.equal, outcomes["eager"][1], outcomes["graph"][1]))


def test_every_argument_with_a_row_for_each_example_is_folded():
    """x | z, c ~ N(W z + c, r^2 I), with x and c in a dictionary, and a mask by keyword."""
    decoder, (mean, covariance) = Stubborn(W), posterior()
    encoder = Stubborn(mean.T)
    shift = torch.randn(12, 5)
    mask = torch.arange(12) % 3 > 0

    def model(batch, *, counted, scale=NOISE):
        with pyro.plate("data", len(batch["x"])), pyro.poutine.mask(mask=counted):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z) + batch["c"], scale).to_event(1), obs=batch["x"])

    def guide(batch, *, counted):
        with pyro.plate("data", len(batch["x"])), pyro.poutine.mask(mask=counted):
            loc = encoder(batch["x"] - batch["c"])
            pyro.sample("z", dist.MultivariateNormal(loc, covariance))

    weights = log_weights(model, guide, {"x": X + shift, "c": shift}, counted=mask, num_particles=4)
    torch.testing.assert_close(weights, (evidence(X) * mask).expand(4, 12))


def test_programs_are_looked_at_once_for_each_layout_of_their_arguments():
    model, guide = stubborn()
    runs = []
    guide.register_forward_pre_hook(lambda *_: runs.append(None))
    for x in (X, X[:7], X[:2], X):
        log_weights(model, guide, x, num_particles=3)
    looking = len(runs) - 4
    assert looking > 0
    runs.clear()
    log_weights(model, guide, X, num_particles=5)
    assert len(runs) == 1


def test_looking_leaves_no_mark():
    """The generator and the buffers move by the run itself alone."""
    model, guide = stubborn()
    guide.encoder = nn.Sequential(nn.BatchNorm1d(5), guide.encoder)
    states = []
    for _ in range(2):
        torch.manual_seed(1)
        guide.encoder[0].reset_running_stats()
        log_weights(model, guide, X, num_particles=3)
        states.append((torch.rand(()), guide.encoder[0].running_mean.clone(), guide.encoder[0].num_batches_tracked.clone()))
    for first, second in zip(*states, strict=True):
        assert torch.equal(first, second)
    assert int(states[0][2]) == 1


def subsampled():
    model, guide = stubborn()

    def run(program):
        def subsample(x):
            with pyro.plate("data", 1000, subsample=x):
                if program is model:
                    z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                    pyro.sample("x", dist.Normal(model.decoder(z), NOISE).to_event(1), obs=x)
                else:
                    pyro.sample("z", dist.Normal(guide.encoder(x), 0.5).to_event(1))

        return subsample

    return run(model), run(guide)


def around_a_global_latent():
    model, guide = stubborn()

    def with_global(program):
        def run(x):
            pyro.sample("w", dist.Normal(0.0, 1.0))
            program(x)

        return run

    return with_global(model), with_global(guide)


def coupled():
    """Each example is scored by the mean of all of them."""
    model, guide = stubborn()

    def run(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            decoded = model.decoder(z)
            pyro.sample("x", dist.Normal(decoded + decoded.sum(0), NOISE).to_event(1), obs=x)

    return run, guide


REFUSED = {
    subsampled: "plate 'data' draws a subsample",
    around_a_global_latent: "there is no plate of examples around all sites",
    coupled: "site 'x' of the model has other log-densities than with one particle",
}


@pytest.mark.parametrize("programs", REFUSED)
@pytest.mark.parametrize("objective", [ELBO(3), IWELBO(3)], ids=["elbo", "iwelbo"])
def test_programs_that_take_no_particles_are_refused(programs, objective):
    model, guide = programs()
    expected = r"expected programs that take several particles.*In front: RuntimeError: expected 2D input \(got 3D\)"
    with pytest.raises(ValueError, match=f"{expected}.*{REFUSED[programs]}.*or use num_particles=1"):
        objective.loss(model, guide, X)
    assert math.isfinite(ELBO().loss(model, guide, X))


def test_noise_and_flows_without_an_inverse_keep_their_particles_in_front():
    """Their densities cannot be compared by value: a program that runs with particles in front is taken at its word."""
    chain, flow = Chain(1), dist.transforms.Planar(1)

    def guide(x):
        with pyro.plate("data", len(x)):
            features = nn.functional.dropout(x.mean(-1, keepdim=True), 0.5)
            base = dist.Normal(features, 1.0).to_event(1)
            pyro.sample("z1", dist.TransformedDistribution(base, [flow]))

    assert log_weights(chain.model, guide, X[:, :3], num_particles=4).shape == (4, 12)


FREE = 0.7


def batches():
    """The same six rows as a tensor, by keyword, in a dictionary, and as a subsample of the twelve."""
    return {
        "tensor": ((X[:6],), {}),
        "keyword": ((), {"x": X[:6]}),
        "dictionary": (({"x": X[:6], "y": None, "name": "six"},), {}),
        "subsample": ((X,), {}),
        "nested": ((X[:6],), {}),
    }


def programs_of(kind):
    """z ~ N(0, 1) twice and q(z | x) = N(3, 1): the divergence is 9 nats; the other site's is nothing."""

    def run(program, batch=None, x=None):
        x = batch["x"] if isinstance(batch, dict) else batch if x is None else x
        size = {"subsample_size": 6} if kind == "subsample" else {}
        with pyro.plate("data", len(x), dim=-2, **size):
            loc = 3.0 if program == "guide" else 0.0
            if kind == "nested":
                with pyro.plate("latents", 4, dim=-1):
                    pyro.sample("far", dist.Normal(loc / 2, 1.0))
            else:
                pyro.sample("far", dist.Normal(loc, 1.0))
            pyro.sample("near", dist.Normal(0.0, 1.0))

    def named(program):
        def call(batch=None, x=None):
            run(program, batch, x)

        call.analytic_kl = True
        return call

    return named("model"), named("guide")


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("kind", batches())
def test_free_bits_count_the_examples_of_the_plate(kind, particles):
    """4.5 nats an example of the one site, 0.7 free ones of the other: six examples, or twelve that six stand for."""
    args, kwargs = batches()[kind]
    model, guide = programs_of(kind)
    number = 12 if kind == "subsample" else 6
    objective = ELBO(particles, analytic_kl=True, free_bits=FREE)
    assert objective.loss(model, guide, *args, **kwargs) == pytest.approx(number * (4.5 + FREE))
    with scale_latents(0.25):
        assert objective.loss(model, guide, *args, **kwargs) == pytest.approx(number * (4.5 + FREE) / 4)


def test_free_bits_are_none_of_a_masked_example():
    model, guide = programs_of("tensor")
    mask = torch.tensor([[True]] * 4 + [[False]] * 2)
    masked = [pyro.poutine.mask(program, mask=mask) for program in (model, guide)]
    masked[1].analytic_kl = True
    loss = ELBO(free_bits=10.0).loss(*masked, X[:6])
    assert loss == pytest.approx(4 * 20.0)


@pytest.mark.parametrize("name", PROGRAMS)
def test_annealing_takes_the_same_programs(name):
    model, guide = PROGRAMS[name]()
    torch.manual_seed(0)
    result = annealed_log_likelihood(model, guide, X[:4], num_temperatures=30, num_chains=160)
    assert ((result.per_image - evidence(X[:4])).abs() < 0.15).all()
