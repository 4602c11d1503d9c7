"""How the time of a training step grows with the components of a VampPrior: ratios to 500 of them.

    python benchmarks/prior_components.py [--rounds 10]

A VAE 784-300-300-40, batch 100, engine compiled; contenders interleaved in one process, medians over rounds.
"""

import argparse
import statistics
import time
from dataclasses import replace

import torch

from pyrovae import ELBO, CompiledSVI, Recipe
from pyrovae.recipes import assemble

RECIPE = Recipe(prior="vamp", latent_sizes=(40,), hidden_sizes=(300,), activation="relu")
COMPONENTS = (500, 1000, 1500)
STEPS = 20


def contender(num_components, x):
    vae = assemble(replace(RECIPE, num_components=num_components), 784)
    svi = CompiledSVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters(), fused=True), ELBO(), engine="compiled")
    return lambda: svi.step(x)


def milliseconds(step):
    for _ in range(2):
        step()
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    return (time.perf_counter() - start) / STEPS * 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    x = torch.bernoulli(torch.full((100, 784), 0.13))
    steps = {number: contender(number, x) for number in COMPONENTS}
    times = {number: [] for number in COMPONENTS}
    for _ in range(rounds):
        for number, step in steps.items():
            times[number].append(milliseconds(step))
    medians = {number: statistics.median(each) for number, each in times.items()}
    for number, median in medians.items():
        print(f"K = {number}: {median:.2f} ms, {median / medians[COMPONENTS[0]]:.2f} x")


if __name__ == "__main__":
    main()
