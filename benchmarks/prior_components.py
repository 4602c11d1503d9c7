"""How time and memory of a training step grow with the components of a VampPrior: ratios to 500 of them.

    python benchmarks/prior_components.py [--rounds 10]

A VAE 784-300-300-40, batch 100, engine compiled; contenders interleaved in one process, medians over rounds. Memory is what a
step keeps for its backward pass, parameters left out, counted exactly.
"""

import argparse
import statistics
import time
from dataclasses import replace

import torch

from pyrovae import ELBO, CompiledSVI, Recipe
from pyrovae.experiments.building import assemble

RECIPE = Recipe(likelihood="bernoulli", prior="vamp", latent_sizes=(40,), hidden_sizes=(300,), activation="relu")
COMPONENTS = (500, 1000, 1500)
STEPS = 20


def contender(num_components, x):
    vae = assemble(replace(RECIPE, num_components=num_components), (1, 28, 28))
    svi = CompiledSVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters(), fused=True), ELBO(), engine="compiled")
    return lambda: svi.step(x)


def megabytes(num_components, batch_size):
    """Of distinct memory kept for the backward pass."""
    vae = assemble(replace(RECIPE, num_components=num_components), (1, 28, 28))
    parameters = {parameter.untyped_storage().data_ptr() for parameter in vae.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        ELBO().differentiable_loss(vae.model, vae.guide, torch.rand(batch_size, 784).round())
    return sum(storage.nbytes() for storage in kept.values()) / 1e6


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
    for batch_size in (100, 200, 400):
        sizes = ", ".join(f"{megabytes(number, batch_size):.1f} MB at K = {number}" for number in COMPONENTS)
        print(f"batch {batch_size}: {sizes}")


if __name__ == "__main__":
    main()
