"""What belongs to the process is as it was after every call, also where torch's validation and Pyro's differ.

``torch.compile``, used once, and ``import zuko`` turn torch's off for good.
"""

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import settings
from torch import nn
from torch.distributions import Distribution

from pyrovae.evaluation.annealing import annealed_log_likelihood
from pyrovae.evaluation.gaps import inference_gaps
from pyrovae.evaluation.latents import activity, kl_by_unit
from pyrovae.evaluation.likelihood import log_likelihood
from pyrovae.inference.objectives import ELBO, IWELBO
from pyrovae.inference.svi import CompiledSVI


class Pair(nn.Module):
    """One latent under one Gaussian, as two methods of one module."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(2, 1)
        self.decoder = nn.Linear(1, 2)

    def model(self, x):
        with pyro.plate("batch", len(x)):
            z = pyro.sample("z1", dist.Normal(torch.zeros(1), torch.ones(1)).expand([len(x), 1]).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("batch", len(x)):
            pyro.sample("z1", dist.Normal(self.encoder(x), torch.ones(1)).to_event(1))


def steps(pair, x, engine, **objective):
    loss = IWELBO(3, **objective) if objective else ELBO()
    svi = CompiledSVI(pair.model, pair.guide, torch.optim.Adam(pair.parameters()), loss=loss, engine=engine)
    for batch in (x, x, x, x * torch.inf, x):
        try:
            svi.step(batch)
            svi.check()
        except (FloatingPointError, ValueError):
            pass
    svi.evaluate_loss(x)


CALLS = {
    "steps of engine eager": lambda pair, x: steps(pair, x, "eager"),
    "steps of engine graph": lambda pair, x: steps(pair, x, "graph"),
    "steps of engine compiled": lambda pair, x: steps(pair, x, "compiled"),
    "steps without the score": lambda pair, x: steps(pair, x, "graph", gradient="doubly_reparameterized"),
    "log_likelihood": lambda pair, x: log_likelihood(pair.model, pair.guide, x, num_samples=4),
    "annealed_log_likelihood": lambda pair, x: annealed_log_likelihood(
        pair.model, pair.guide, x, num_temperatures=4, num_chains=2, num_leapfrog=2
    ),
    "inference_gaps": lambda pair, x: inference_gaps(pair.model, pair.guide, x, num_samples=2, num_steps=2),
    "activity": lambda pair, x: activity(pair.guide, x),
    "kl_by_unit": lambda pair, x: kl_by_unit(pair.model, pair.guide, x),
}


@pytest.mark.filterwarnings("ignore:Encountered NaN:UserWarning")
@pytest.mark.parametrize("of_torch", [True, False])
@pytest.mark.parametrize("of_pyro", [True, False])
@pytest.mark.parametrize("call", CALLS)
def test_settings_are_as_they_were(call, of_pyro, of_torch):
    pyro.enable_validation(of_pyro)
    Distribution.set_default_validate_args(of_torch)
    before = settings()
    try:
        CALLS[call](Pair(), torch.randn(4, 2))
        assert settings() == before
    finally:
        pyro.enable_validation(True)
