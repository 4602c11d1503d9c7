"""A program that torchrun starts: loss curves of one process beside those of all of them, and refusals, as JSON."""

import json
import sys
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
import torch.distributed
from pyro.infer import Trace_ELBO
from torch import nn

from pyrovae.data.batches import binarize
from pyrovae.engine import collectives
from pyrovae.errors import CaptureError
from pyrovae.experiments.building import assemble
from pyrovae.experiments.published import RECIPES
from pyrovae.inference.clipping import Clipping
from pyrovae.inference.objectives import ELBO, IWELBO
from pyrovae.inference.svi import CompiledSVI
from pyrovae.inference.warmup import scale_latents

STEPS, BATCH = 50, 12
VAE = RECIPES["activity-vae"].replace(latent_sizes=(4,), hidden_sizes=(8,), likelihood="bernoulli")
LADDER = RECIPES["ladder"].replace(latent_sizes=(4, 2), hidden_sizes=(8, 6), likelihood="bernoulli")
CONVOLUTIONS = LADDER.replace(network="convolutional", hidden_sizes=(4, 6))


class Folded(nn.Module):
    """A model and a guide that take particles as more examples only, with dropout."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(20, 6), nn.Dropout(0.3), nn.BatchNorm1d(6))
        self.decoder = nn.Linear(3, 20)

    def model(self, x):
        pyro.module("folded", self)
        with pyro.plate("examples", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 3), 1).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z).reshape(len(x), 20)).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("folded", self)
        with pyro.plate("examples", len(x)):
            loc, scale = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))


def of(recipe):
    return lambda: (lambda vae: (vae.model, vae.guide, vae))(assemble(recipe, (1, 5, 4)))


def folded():
    programs = Folded()
    return programs.model, programs.guide, programs


CASES = {
    "vae": (of(VAE), ELBO(), {}),
    "vae, analytic": (of(VAE), ELBO(analytic_kl=True), {}),
    "vae, importance weighted": (of(VAE), IWELBO(5, gradient="doubly_reparameterized"), {}),
    "ladder with batch norm": (of(LADDER), ELBO(), {}),
    "ladder with batch norm, importance weighted": (of(LADDER), IWELBO(3), {}),
    "ladder with free bits": (of(LADDER), ELBO(free_bits=0.4), {}),
    "ladder, clipped": (of(LADDER), ELBO(), {"clipping": Clipping(20.0, 200.0)}),
    "convolutions": (of(CONVOLUTIONS), ELBO(), {}),
    "pseudo-inputs": (of(VAE.replace(prior="vamp", num_components=5)), ELBO(), {}),
    "flows and dropout": (of(VAE.replace(prior="flow", posterior="flow", flow_transforms=1, dropout=0.2)), IWELBO(2), {}),
    "particles as more examples": (folded, IWELBO(4), {}),
}


def curve(make, loss, options, engine, group):
    """The loss of each of some steps."""
    torch.manual_seed(1)
    pyro.clear_param_store()
    model, guide, module = make()
    x = torch.rand(3 * BATCH, 20)
    svi = CompiledSVI(
        model,
        guide,
        torch.optim.Adam(module.parameters(), 1e-2, fused=True),
        loss,
        engine=engine,
        transform=binarize,
        group=group,
        **options,
    )
    losses = []
    for step in range(STEPS):
        torch.manual_seed(step)
        with scale_latents(min(1.0, (1 + step) / 20)):
            losses.append(float(svi.step(x[step % 3 * BATCH :][:BATCH])))
    assert svi.graphs_kept == (engine != "eager")
    return losses


def with_a_global_latent():
    programs = Folded()

    def with_w(program, loc):
        def run(x):
            pyro.sample("w", dist.Normal(x.new_full((3,), loc), 1).to_event(1))
            program(x)

        return run

    return with_w(programs.model, 0.0), with_w(programs.guide, 2.0), programs


def with_gamma_noise():
    programs = Folded()

    def model(x):
        with pyro.plate("examples", len(x)):
            z = pyro.sample("z", dist.Gamma(x.new_ones(len(x), 3), 1).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=programs.decoder(z)).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("examples", len(x)):
            concentration = programs.encoder(x)[:, :3].exp()
            pyro.sample("z", dist.Gamma(concentration, 1).to_event(1))

    return model, guide, programs


def with_a_subsampled_plate():
    programs = Folded()

    def model(x):
        with pyro.plate("examples", 1000, subsample=torch.arange(len(x))):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 3), 1).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=programs.decoder(z)).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("examples", 1000, subsample=torch.arange(len(x))):
            loc, scale = programs.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))

    return model, guide, programs


class RunningMean(nn.Module):
    """A layer that keeps a mean of its rows."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(20))

    def forward(self, x):
        if self.training:
            self.mean.lerp_(x.mean(0), 0.5)
        return x


def with_statistics_of_rows():
    programs = Folded()
    programs.encoder.insert(0, RunningMean())
    return programs.model, programs.guide, programs


REFUSED = {
    "global latent": with_a_global_latent,
    "gamma noise": with_gamma_noise,
    "subsampled plate": with_a_subsampled_plate,
    "statistics of rows": with_statistics_of_rows,
}


def of_two_sizes(group):
    """The loss of steps of batches of two sizes, in turn, under the engine that chooses by times."""
    torch.manual_seed(1)
    _, _, vae = of(VAE)()
    x = torch.rand(BATCH, 20).round()
    optimizer = torch.optim.Adam(vae.parameters(), 1e-2)
    svi = CompiledSVI(vae.model, vae.guide, optimizer, ELBO(), engine="auto", group=group)
    losses = []
    for step in range(STEPS):
        torch.manual_seed(step)
        losses.append(float(svi.step(x[: BATCH // (1 + step % 2)])))
    return losses


def through_the_backend(group):
    """The loss of steps without shared memory, as on several machines."""
    board = collectives._BOARDS[group.group_name]
    collectives._BOARDS[group.group_name] = group, None
    make, loss, options = CASES["ladder with batch norm"]
    losses = curve(make, loss, options, "graph", group)
    collectives._BOARDS[group.group_name] = board
    return losses


def refusal(make, group):
    """The message by which programs are refused."""
    try:
        curve(make, Trace_ELBO(), {}, "graph", group)
    except CaptureError as error:
        return str(error)
    return "not refused"


def main():
    torch.distributed.init_process_group("gloo")
    group = torch.distributed.group.WORLD
    found = {}
    torch.set_default_dtype(torch.float64)
    for name, (make, loss, options) in CASES.items():
        found[name] = [curve(make, loss, options, "graph", each) for each in (None, group)]
    make, loss, options = CASES["ladder with batch norm"]
    found["through sockets"] = [found["ladder with batch norm"][0], through_the_backend(group)]
    found["batches of two sizes"] = [of_two_sizes(each) for each in (None, group)]
    found["plain Pyro"] = [curve(make, loss, options, "eager", each) for each in (None, group)]
    found["compiled"] = [curve(make, loss, options, *each) for each in (("graph", None), ("compiled", group))]
    torch.set_default_dtype(torch.float32)
    found |= {name: refusal(make, group) for name, make in REFUSED.items()}
    if torch.distributed.get_rank() == 0:
        Path(sys.argv[1]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
