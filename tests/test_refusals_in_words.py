"""Programs and data that cannot be measured are refused in words: what was expected, what came, the way out."""

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as transforms
import pytest
import torch
from linear_gaussian import Chain
from torch.utils.data import DataLoader

from pyrovae.data.rows import Rows
from pyrovae.evaluation.annealing import annealed_log_likelihood, bidirectional_bounds
from pyrovae.evaluation.comparison import paired_difference
from pyrovae.evaluation.gaps import inference_gaps
from pyrovae.evaluation.latents import activity, kl_by_layer, kl_by_unit
from pyrovae.evaluation.likelihood import log_likelihood
from pyrovae.evaluation.surgery import elbo_surgery

ENCODER, DECODER = torch.nn.Linear(6, 4), torch.nn.Linear(2, 6)
X = torch.randn(16, 6)
FEW = {"num_temperatures": 2, "num_chains": 1}


def model(x, decoder=DECODER):
    with pyro.plate("n", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)


def guide(x, *flow):
    out = ENCODER(x)
    base = dist.Normal(out[:, :2], out[:, 2:].exp()).to_event(1)
    with pyro.plate("n", len(x)):
        pyro.sample("z", dist.TransformedDistribution(base, list(flow)) if flow else base)


def flowing(flow):
    return lambda x: guide(x, flow)


def drawing(x=None, *, batch_size=1):
    with pyro.plate("n", batch_size if x is None else len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        return pyro.sample("pixels", dist.Normal(DECODER(z), 1.0).to_event(1), obs=x)


def without_latents(x):
    with pyro.plate("n", len(x)):
        pyro.sample("x", dist.Normal(x * 0, 1.0).to_event(1), obs=x)


def nothing(x):
    pass


def chain():
    return Chain(2).model


INVERSE = r"expected a density at any value, since chains move; site 'z' is a \w+ by \w*{}, which knows it for its own draws"
MODEL = r"expected a GenerativeModel, which says .* got {}: compose one .* or use log_weights and kl_by_layer"
REFUSED = {
    "annealed, planar flow": (
        lambda: annealed_log_likelihood(model, flowing(transforms.planar(2)), X[:2], **FEW),
        INVERSE.format("Planar") + r".*: use start='prior'.*or log_likelihood",
    ),
    "annealed, radial flow": (
        lambda: annealed_log_likelihood(model, flowing(transforms.radial(2)), X[:2], **FEW),
        INVERSE.format("Radial"),
    ),
    "annealed, no latents": (
        lambda: annealed_log_likelihood(without_latents, nothing, X[:2], **FEW),
        "expected latents to anneal; got none: without them log_likelihood is exact",
    ),
    "bounds, model of its own": (
        lambda: bidirectional_bounds(model, guide, 2, **FEW),
        r"expected a model that draws data when it is called with batch_size= alone, as GenerativeModel does; got one with "
        r"missing a required argument: 'x': write model\(x=None, context=None, \*, batch_size=1\), or use annealed",
    ),
    "bounds, another name for the data": (
        lambda: bidirectional_bounds(drawing, guide, 2, **FEW),
        r"expected a model that draws its data at a site 'x' when it is given none; it drew \['pixels', 'z'\]: name",
    ),
    "bounds, a context that the model does not take": (
        lambda: bidirectional_bounds(drawing, guide, context=X, **FEW),
        "expected a model that draws data when it is called with context= alone",
    ),
    "surgery, programs of one's own": (lambda: elbo_surgery(model, guide, X), MODEL.format("model")),
    "surgery, guide of one's own": (
        lambda: elbo_surgery(chain(), guide, torch.randn(4, 3)),
        "expected a guide that says by top_posterior what q.z_L . x. is, one of GUIDES; got guide: give it that attribute",
    ),
    "activity at locations, flow": (
        lambda: activity(flowing(transforms.affine_coupling(2)), X, num_samples=None),
        "expected latents whose means are known; site 'z' of the guide is a TransformedDistribution, .* give num_samples",
    ),
    "gaps, no latents": (
        lambda: inference_gaps(without_latents, nothing, X, num_samples=2, num_steps=1),
        "expected a guide with latents to refine; got none: without them the bound is log p.x., and has no gap",
    ),
    "gaps, flow": (
        lambda: inference_gaps(model, flowing(transforms.planar(2)), X, num_samples=2, num_steps=1),
        "expected a guide of Gaussian latents to refine; site 'z' is drawn from TransformedDistribution",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_program_that_cannot_be_measured_so_is_refused_in_words(name):
    measure, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        measure()


TAKERS = {
    "log_likelihood": lambda x: log_likelihood(model, guide, x, 2),
    "annealed_log_likelihood": lambda x: annealed_log_likelihood(model, guide, x, **FEW),
    "inference_gaps": lambda x: inference_gaps(model, guide, x, num_samples=2, num_steps=1),
    "kl_by_layer": lambda x: kl_by_layer(model, guide, x),
    "kl_by_unit": lambda x: kl_by_unit(model, guide, x),
    "activity": lambda x: activity(guide, x),
}


@pytest.mark.parametrize("name", TAKERS)
@pytest.mark.parametrize(
    ("x", "got"),
    [
        (X.numpy(), "a ndarray"),
        ([X, X], "a list"),
        (DataLoader(X, 4), "a DataLoader"),
        (torch.tensor(1.0), r"a tensor of shape \(\)"),
    ],
    ids=["array", "list", "loader", "scalar"],
)
def test_data_that_are_no_tensor_of_rows_are_refused_in_words(name, x, got):
    with pytest.raises(ValueError, match=f"expected a tensor x with an example in each row; got {got}: torch.as_tensor makes"):
        TAKERS[name](x)


def test_a_context_that_is_no_tensor_is_refused_in_words():
    with pytest.raises(ValueError, match="expected a tensor context with an example in each row; got a list"):
        log_likelihood(model, guide, X, 2, context=[0] * 16)


def test_what_the_words_point_to_works():
    """Annealing from the prior beside a planar flow, and from a flow with an inverse; rows that stay on disk; lists."""
    torch.manual_seed(0)
    few = X[:2]
    for start, flow in (("prior", transforms.planar(2)), ("guide", transforms.affine_coupling(2))):
        assert annealed_log_likelihood(model, flowing(flow), few, start=start, **FEW).mean < 0
    stored = Rows(few.numpy(), np.arange(2), np.float32(0), np.float32(1))
    assert annealed_log_likelihood(model, guide, stored, **FEW).mean < 0
    assert paired_difference([1.0, 3.0], torch.tensor([0.0, 1.0])).mean == 1.5
