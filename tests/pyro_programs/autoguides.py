"""Every guide of ``pyro.infer.autoguide`` on one model, or on a mixture where it needs one."""

from functools import partial

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate
from pyro.infer import autoguide as guides

from pyro_programs.parts import pairs, two_clusters


def regression(x, y):
    """A vector, a positive number and a probability, and a point that only depends on them."""
    weight = pyro.sample("weight", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    noise = pyro.sample("noise", dist.LogNormal(0.0, 1.0))
    share = pyro.sample("share", dist.Beta(2.0, 2.0))
    pyro.deterministic("doubled", 2 * weight)
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.StudentT(5.0, share * ((x * weight).sum(-1)), noise), obs=y)


def guided(make):
    """The regression with the guide that ``make`` makes of it."""
    return regression, make(regression), pairs(), Trace_ELBO()


def flow():
    make = partial(dist.transforms.iterated, 2, dist.transforms.planar)
    return guided(partial(guides.AutoNormalizingFlow, init_transform_fn=make))


def inverse_autoregressive():
    return guided(partial(guides.AutoIAFNormal, hidden_dim=[8], num_transforms=2))


def spline():
    """Pyro's spline through AutoNormalizingFlow."""
    make = partial(dist.transforms.spline_autoregressive, hidden_dims=[8], count_bins=4)
    return guided(partial(guides.AutoNormalizingFlow, init_transform_fn=make))


def structured():
    """Some sites by a normal distribution, one by a point, with a dependency of one on another."""
    return guided(
        partial(
            guides.AutoStructured,
            conditionals={"weight": "mvn", "noise": "normal", "share": "delta"},
            dependencies={"noise": {"weight": "linear"}},
        )
    )


def list_of_guides():
    """One guide for each part of the model."""
    guide = guides.AutoGuideList(regression)
    guide.append(guides.AutoDiagonalNormal(poutine.block(regression, expose=["weight"])))
    guide.append(guides.AutoDelta(poutine.block(regression, expose=["noise", "share"])))
    return regression, guide, pairs(), Trace_ELBO()


def by_hand():
    """A guide of one's own as a part of a list."""

    def share(x, y):
        value = pyro.param("share_loc", torch.tensor(0.4), constraint=dist.constraints.unit_interval)
        pyro.sample("share", dist.Delta(value))

    guide = guides.AutoGuideList(regression)
    guide.append(guides.AutoNormal(poutine.block(regression, hide=["share"])))
    guide.append(share)
    return regression, guide, pairs(), Trace_ELBO()


def discrete():
    """A probability for each row's cluster, summed out, beside a point for the rest."""

    def model(x):
        locs = pyro.sample("locs", dist.Normal(torch.zeros(2), 10.0).to_event(1))
        with pyro.plate("data", len(x)):
            cluster = pyro.sample("cluster", dist.Categorical(torch.ones(2) / 2))
            pyro.sample("x", dist.Normal(torch.where(cluster > 0, locs[..., 1], locs[..., 0]), 1.0), obs=x[:, 0])

    enumerated = config_enumerate(model)
    guide = guides.AutoGuideList(enumerated)
    guide.append(guides.AutoDiagonalNormal(poutine.block(enumerated, expose=["locs"])))
    guide.append(guides.AutoDiscreteParallel(poutine.block(enumerated, expose=["cluster"])))
    return enumerated, guide, [(x,) for (x,) in two_clusters()[:3]], TraceEnum_ELBO(max_plate_nesting=1)
