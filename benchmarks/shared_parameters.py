r"""Gradient variance in the parameters that a ladder shares with its model, by estimator: a table.

    python benchmarks/shared_parameters.py RUN [--repeats 200]

RUN is a trained ladder. Written out in formulas rather than by pyrovae's objectives, which one estimator is no part of: that of
Bauer and Mnih (2021) for hierarchies,

    sum_k (w_k d/dz_l [log q(z_l) - log p(z_l)] + w_k (1 - w_k) d log w_k / dz_l) dT_p/dtheta

with w the normalised weights, T_p the reparameterized draw of p(z_l | z_{l+1}) that equals z_l, and the last derivative that of
log w with all that is drawn below z_l. For 32 test images, in float64, with batch norm as when measuring: variances over draws
against those of the plain gradient, summed over parameters, and the squared distance of the means against what these
variances explain, which is about 1 for estimators of the same gradient.
"""

import argparse

import torch

from pyrovae import Run
from pyrovae.experiments.building import load_data
from pyrovae.programs.distributions import product_of_gaussians

IMAGES = 32


class Ladder:
    """A trained ladder's densities as functions of the latents, the same as its programs make."""

    def __init__(self, run):
        self.model, self.guide = run.vae.model.double().eval(), run.vae.guide.double().eval()
        self.x = torch.bernoulli(load_data(run.recipe).test[:IMAGES].double())
        self.own, self.shared = list(self.guide.parameters()), list(self.model.conditionals.parameters())

    def draw(self, size, given=None):
        """The latents by layer, drawn or as given, and the densities q and p of each, and p(x | z)."""
        evidence, depth = self.guide.encoder(self.x), self.model.depth
        q, p, z = {depth: evidence[-1]}, {depth: self.model.prior(None)}, {}
        for layer in range(depth, 0, -1):
            if layer < depth:
                p[layer] = self.model.conditionals[layer - 1](z[layer + 1])
                q[layer] = product_of_gaussians(evidence[layer - 1], p[layer])
            z[layer] = q[layer].rsample((size,) if layer == depth else ()) if given is None else given[layer]
        return z, q, p, self.model.likelihood(z[1])

    def terms(self, z, q, p, likelihood):
        """The densities log p(x | z), and log p and log q of each layer, (K, B)."""
        log_p, log_q = ({layer: each[layer].log_prob(z[layer]) for layer in z} for each in (p, q))
        return likelihood.log_prob(self.x), log_p, log_q

    def gradients(self, size):
        """The gradient of one draw by each estimator, for the guide's own parameters and for the shared ones."""
        z, q, p, likelihood = self.draw(size)
        log_x, log_p, log_q = self.terms(z, q, p, likelihood)
        log_weights = log_x + sum(log_p.values()) - sum(log_q.values())
        w = log_weights.softmax(0).detach()
        fixed = {layer: each.detach().requires_grad_() for layer, each in z.items()}
        values = list(fixed.values())
        _, q_fixed, p_fixed, likelihood_fixed = self.draw(size, fixed)
        x_fixed, p_log, q_log = self.terms(fixed, q_fixed, p_fixed, likelihood_fixed)
        slopes = dict(zip(fixed, by((x_fixed + sum(p_log.values()) - sum(q_log.values())).sum(), values), strict=True))
        path = sum(((w**2)[..., None] * slopes[layer] * z[layer]).sum() for layer in z)
        # The derivative by a layer with all that is drawn below it.
        drawn = sum((slopes[layer] * z[layer]).sum() for layer in z)
        whole = dict(zip(z, by(drawn, list(z.values())), strict=True))
        moved = 0.0
        for layer in list(z)[1:]:
            of_q, of_p = (by(each[layer].sum(), [fixed[layer]])[0] for each in (q_log, p_log))
            loc, scale = p_fixed[layer].base_dist.loc, p_fixed[layer].base_dist.scale
            redrawn = loc + scale * ((fixed[layer] - loc) / scale).detach()
            slope = w[..., None] * (of_q - of_p) + (w * (1 - w))[..., None] * whole[layer]
            moved = moved + (slope.detach() * redrawn).sum()
        both = [*self.own, *self.shared]
        plain = by(log_weights.logsumexp(0).sum(), both)
        paths, at = by(path, both), len(self.own)
        of_model = by((w * sum(p_log.values())).sum(), self.shared)
        generalized = by(moved, self.shared)
        return {
            "plain": (plain[:at], plain[at:]),
            "doubly reparameterized": (paths[:at], plus(paths[at:], of_model)),
            "generalized": (paths[:at], plus(paths[at:], generalized)),
        }


def by(value, parameters):
    """The derivatives of a value, zeros where it does not depend on a parameter."""
    found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(each) if one is None else one.detach() for each, one in zip(parameters, found, strict=True)]


def plus(some, others):
    return [one + other for one, other in zip(some, others, strict=True)]


def moments(ladder, size, repeats):
    """The means and variances over draws, by estimator, of own and of shared parameters: two vectors each."""
    draws = {}
    for _ in range(repeats):
        for name, parts in ladder.gradients(size).items():
            for part, gradients in zip(("own", "shared"), parts, strict=True):
                vector = torch.cat([each.flatten() for each in gradients])
                total, squares = draws.setdefault((name, part), (torch.zeros_like(vector), torch.zeros_like(vector)))
                total += vector
                squares += vector**2
    return {key: (a / repeats, (b / repeats - (a / repeats) ** 2)) for key, (a, b) in draws.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--repeats", type=int, default=200)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    ladder = Ladder(Run.load(arguments.run))
    print("| estimator | K | parameters | variance / plain | distance of means |\n| --- | --- | --- | --- | --- |")
    for size in (1, 5):
        found = moments(ladder, size, arguments.repeats)
        for (name, part), (mean, variance) in found.items():
            plain_mean, plain_variance = found["plain", part]
            distance = ((mean - plain_mean) ** 2).sum() / ((variance + plain_variance).sum() / arguments.repeats)
            print(f"| {name} | {size} | {part} | {variance.sum() / plain_variance.sum():.3g} | {distance:.2f} |")


if __name__ == "__main__":
    main()
