"""How much longer a step takes on twice the examples by two processes: one of the measurements of scaling.py, by torchrun.

    torchrun --nproc-per-node 2 benchmarks/scaling_steps.py [--rows 1024] [--rounds 8] [--recipe ladder]

One process with one thread takes steps on its rows alone while the others wait; then each process does so at the same time,
without a word between them, which shows what the machine's memory allows; then all take steps on the whole batch. The rounds
alternate. The efficiency is the median time alone over the median time together.
"""

import argparse
import json
import statistics
import time

import torch
import torch.distributed as dist

from pyrovae import ELBO, RECIPES, CompiledSVI
from pyrovae.data.batches import binarize
from pyrovae.experiments.building import assemble

STEPS = 6


def steps_of(recipe, group):
    torch.manual_seed(0)
    vae = assemble(RECIPES[recipe].replace(likelihood="bernoulli"), (1, 28, 28))
    optimizer = torch.optim.Adam(vae.parameters(), 1e-3, fused=True)
    return CompiledSVI(vae.model, vae.guide, optimizer, ELBO(), engine="compiled", transform=binarize, group=group)


def seconds_of(svi, x):
    # Processes that share batches draw the same random numbers, also after one of them worked alone.
    torch.manual_seed(svi.steps_taken)
    # The first step finds caches that other work has filled.
    svi.step(x)
    seconds = []
    for _ in range(STEPS):
        started = time.perf_counter()
        svi.step(x)
        seconds.append(time.perf_counter() - started)
    # At a few steps plain Pyro runs too.
    return statistics.median(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--recipe", default="ladder")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    size, leads = dist.get_world_size(), dist.get_rank() == 0
    torch.manual_seed(1)
    x = torch.rand(size * asked.rows, 784)
    alone, together = steps_of(asked.recipe, None), steps_of(asked.recipe, dist.group.WORLD)
    seconds = {"alone": [], "side by side": [], "together": []}
    for _ in range(1 + asked.rounds):
        dist.barrier()
        if leads:
            seconds["alone"].append(seconds_of(alone, x[: asked.rows]))
        dist.barrier()
        seconds["side by side"].append(seconds_of(alone, x[: asked.rows]))
        dist.barrier()
        seconds["together"].append(seconds_of(together, x))
    if leads:
        # The first round compiles.
        medians = {name: statistics.median(each[1:]) for name, each in seconds.items()}
        print(json.dumps(medians | {"efficiency": medians["alone"] / medians["together"], "processes": size}))


if __name__ == "__main__":
    main()
