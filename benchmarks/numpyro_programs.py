"""The benchmark's models in NumPyro, stepped by a jitted ``SVI.update``; batch norm by the statistics of the batch."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from handwritten import LADDER
from jax import random
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.elbo import RenyiELBO


def linear(name, h, size, bias=True):
    def init(key):
        bound = (6 / (h.shape[-1] + size)) ** 0.5
        return random.uniform(key, (h.shape[-1], size), minval=-bound, maxval=bound)

    out = h @ numpyro.param(f"{name}.weight", init)
    return out + numpyro.param(f"{name}.bias", jnp.zeros(size)) if bias else out


def dense(name, h, widths, activation, batch_norm):
    for i, width in enumerate(widths):
        h = linear(f"{name}.{i}", h, width, bias=not batch_norm)
        if batch_norm:
            mean, variance = h.mean(0), h.var(0)
            scale, shift = (
                numpyro.param(f"{name}.{i}.{p}", v) for p, v in (("scale", jnp.ones(width)), ("shift", jnp.zeros(width)))
            )
            h = (h - mean) / jnp.sqrt(variance + 1e-5) * scale + shift
        h = activation(h)
    return h


def gaussian(name, h, size):
    loc, raw = jnp.split(linear(name, h, 2 * size), 2, -1)
    return dist.Normal(loc, jnp.sqrt(jax.nn.softplus(raw) + 1e-8)).to_event(1)


def vae_programs():
    def model(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z1", dist.Normal(jnp.zeros(50), 1.0).to_event(1))
            h = dense("decoder", z, (200, 200), jax.nn.softplus, False)
            numpyro.sample("x", dist.Bernoulli(logits=linear("logits", h, 784)).to_event(1), obs=x)

    def guide(x):
        with numpyro.plate("data", len(x)):
            numpyro.sample("z1", gaussian("head", dense("encoder", x, (200, 200), jax.nn.softplus, False), 50))

    return model, guide


def ladder_programs():
    sizes, widths = LADDER
    leaky = lambda h: jax.nn.leaky_relu(h, 0.1)  # noqa: E731

    def conditional(layer, z):
        return gaussian(f"down.{layer}.head", dense(f"down.{layer}", z, (widths[layer + 1],) * 2, leaky, True), sizes[layer])

    def model(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z5", dist.Normal(jnp.zeros(4), 1.0).to_event(1))
            for layer in reversed(range(4)):
                z = numpyro.sample(f"z{layer + 1}", conditional(layer, z))
            h = dense("decoder", z, (512, 512), leaky, True)
            numpyro.sample("x", dist.Bernoulli(logits=linear("logits", h, 784)).to_event(1), obs=x)

    def guide(x):
        evidence, h = [], x
        for layer in range(5):
            h = dense(f"up.{layer}", h, (widths[layer],) * 2, leaky, True)
            evidence.append(gaussian(f"head.{layer}", h, sizes[layer]))
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z5", evidence[-1])
            for layer in reversed(range(4)):
                one, other = evidence[layer].base_dist, conditional(layer, z).base_dist
                v1, v2 = one.scale**2, other.scale**2
                loc = (one.loc * v2 + other.loc * v1) / (v1 + v2)
                z = numpyro.sample(f"z{layer + 1}", dist.Normal(loc, one.scale * other.scale / jnp.sqrt(v1 + v2)).to_event(1))

    return model, guide


def stepper(programs, x, particles=1):
    """A function that takes one step and waits for it."""
    loss = Trace_ELBO() if particles == 1 else RenyiELBO(alpha=0, num_particles=particles)
    svi = SVI(*programs, numpyro.optim.Adam(1e-3), loss)
    batch = jnp.asarray(x)
    state = svi.init(random.PRNGKey(0), batch)
    update = jax.jit(svi.update)

    def step():
        nonlocal state
        state, value = update(state, batch)
        return value.block_until_ready()

    return step
