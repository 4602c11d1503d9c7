"""Images a second of the importance-sampled log-likelihood, beside the loop over images that everybody writes.

    python benchmarks/evaluation.py --images 200 --rounds 3

* ``VAE``: 784-200-200-50. The loop encodes an image and decodes its 5,000 samples in batches of 100.
* ``ladder``: 64-32-16-8-4. As a share of the fastest matrix product that this machine does.
* ``vamp``: 2 x 300, 40 latents, 500 pseudo-inputs. The loop encodes the pseudo-inputs for each batch of 100 samples.

All run in one process, in turn; medians of the rounds.
"""

import argparse
import json
import math
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from pyrovae import RECIPES, Recipe, log_likelihood, log_weights
from pyrovae.engine.capture import capture
from pyrovae.engine.matmul_kernels import PRODUCTS
from pyrovae.engine.modules import evaluation_mode
from pyrovae.engine.partition import split
from pyrovae.evaluation.sampling import PARTICLES_AT_ONCE
from pyrovae.experiments.building import assemble

SAMPLES, BATCH = 5000, 100
SHAPE = (1, 28, 28)
VAE = Recipe(likelihood="bernoulli")
VAMP = Recipe(likelihood="bernoulli", prior="vamp", latent_sizes=(40,), hidden_sizes=(300,), activation="relu")
LADDER = replace(RECIPES["ladder"], likelihood="bernoulli")
# Products that a decoder of MNIST makes of a few thousand samples.
SIZES = ((2000, 512, 784), (2000, 512, 512), (4000, 256, 784))


def by_image(vae, x):
    """A straightforward loop with the same networks: one image at a time, 5,000 samples in batches of 100."""
    estimates, bounds = [], []
    with torch.no_grad():
        for image in x:
            posterior = vae.guide.encoder(image[None])[0].base_dist
            weights = []
            for _ in range(SAMPLES // BATCH):
                z = posterior.loc + posterior.scale * torch.randn(BATCH, posterior.loc.shape[-1])
                logits = vae.model.likelihood(z).base_dist.logits
                log_x = -F.binary_cross_entropy_with_logits(logits, image.expand(BATCH, -1), reduction="none").sum(1)
                log_q = torch.distributions.Normal(posterior.loc, posterior.scale).log_prob(z).sum(1)
                weights.append(log_x + log_prior(vae.model.prior, z) - log_q)
            estimates.append(torch.cat(weights).logsumexp(0) - math.log(SAMPLES))
            bounds.append(torch.cat(weights).mean())
    return torch.stack(estimates), torch.stack(bounds)


def log_prior(prior, z):
    """As written by hand: all pairs of a sample and a component."""
    if not hasattr(prior, "pseudo_inputs"):
        return torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    components = prior._posterior[0](prior.pseudo_inputs()).base_dist
    log_densities = torch.distributions.Normal(components.loc, components.scale).log_prob(z[:, None]).sum(-1)
    return log_densities.logsumexp(1) - math.log(len(components.loc))


def contenders(x, loop_images):
    made = {name: assemble(recipe, SHAPE).eval() for name, recipe in (("VAE", VAE), ("vamp", VAMP), ("ladder", LADDER))}
    runs = {f"{name}, pyrovae": (vae_run(vae, x), len(x)) for name, vae in made.items()}
    for name in ("VAE", "vamp"):
        runs[f"{name}, loop over images"] = ((lambda vae=made[name]: by_image(vae, x[:loop_images])), loop_images)
    return made, runs


def vae_run(vae, x):
    return lambda: log_likelihood(vae.model, vae.guide, x, SAMPLES)


def operations(vae, x):
    """Of the matrix products for one sample of one image, the encoder's left out."""
    with evaluation_mode():
        graph = capture(lambda rows: [log_weights(vae.model, vae.guide, rows, num_particles=PARTICLES_AT_ONCE)], [x[:BATCH]])
    total = 0
    _, rest = split(graph, 1)
    for node in rest.graph.nodes:
        if node.target in PRODUCTS:
            left, right = node.args[-2:]
            total += 2 * math.prod(left.meta["val"].shape) * right.meta["val"].shape[1]
    return total / (BATCH * PARTICLES_AT_ONCE)


def peak():
    """Operations a second of the best library at hand, on the products of a decoder."""
    best = 0.0
    for rows, inner, columns in SIZES:
        left, right = torch.randn(rows, inner), torch.randn(columns, inner)
        for product in (lambda a, b: a @ b.T, lambda a, b: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")):
            product(left, right)
            for _ in range(30):
                start = time.perf_counter()
                product(left, right)
                best = max(best, 2 * rows * inner * columns / (time.perf_counter() - start))
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--loop-images", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    x = torch.bernoulli(torch.full((arguments.images, 784), 0.13))
    vaes, runs = contenders(x, arguments.loop_images)
    for name in ("VAE", "vamp"):
        ours = runs[f"{name}, pyrovae"][0]().elbo_per_image[:3].float()
        torch.testing.assert_close(by_image(vaes[name], x[:3])[1], ours, rtol=0.01, atol=0)
    rates, peaks = {name: [] for name in runs}, []
    for _ in range(arguments.rounds):
        peaks.append(peak())
        for name, (run, images) in runs.items():
            start = time.perf_counter()
            run()
            rates[name].append(images / (time.perf_counter() - start))
    medians = {name: statistics.median(each) for name, each in rates.items()}
    print("| what | images a second, K = 5000 | against the loop |\n| --- | --- | --- |")
    for name, rate in medians.items():
        loop = medians.get(f"{name.split(',')[0]}, loop over images")
        print(f"| {name} | {rate:.2f} | {f'{rate / loop:.1f}' if loop else ''} |")
    share = medians["ladder, pyrovae"] * SAMPLES * operations(vaes["ladder"], x) / statistics.median(peaks)
    minutes = 10_000 / medians["ladder, pyrovae"] / 60
    print(f"\nladder: {share:.0%} of {statistics.median(peaks) / 1e9:.0f} GFLOP/s; 10,000 images in {minutes:.0f} min")
    if arguments.json:
        arguments.json.write_text(json.dumps(medians | {"ladder_share_of_peak": share}, indent=2))


if __name__ == "__main__":
    main()
