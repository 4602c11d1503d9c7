"""Gradient variance and cost of the estimators: a table, and JSON.

    python benchmarks/estimators.py [--epochs 5] [--repeats 100] [--json FILE]

A VAE 784-200-200-50 trained by ELBO for a few epochs on mnist-5k, so that gradients are neither those of the start nor zero.
For one batch of 100 images: the signal-to-noise ratio of the guide's gradient (root of the sum of squared means over the sum of
variances over repeated draws, the means' own variance taken off), and milliseconds of a compiled step, interleaved.
"""

import argparse
import copy
import json
import statistics
import time
from pathlib import Path

import torch

from pyrovae import ELBO, IWELBO, CompiledSVI, Recipe, build, fit, load_dataset

PARTICLES = (1, 10, 50)
ROUNDS, STEPS = 5, 5


def objectives():
    for size in PARTICLES:
        yield f"ELBO, {size} samples", ELBO(size)
        yield f"ELBO, {size} samples, sticking the landing", ELBO(size, gradient="sticking_the_landing")
        if size > 1:
            yield f"IWELBO, K = {size}", IWELBO(size)
            yield f"IWELBO, K = {size}, doubly reparameterized", IWELBO(size, gradient="doubly_reparameterized")


def signal_to_noise(vae, objective, x, repeats):
    parameters = list(vae.guide.parameters())
    total = [torch.zeros_like(each) for each in parameters]
    squares = [torch.zeros_like(each) for each in parameters]
    for _ in range(repeats):
        loss = objective.differentiable_loss(vae.model, vae.guide, x)
        for gradient, sum_, sum_of_squares in zip(torch.autograd.grad(loss, parameters), total, squares, strict=True):
            sum_ += gradient
            sum_of_squares += gradient**2
    variance = sum(((b - a**2 / repeats) / (repeats - 1)).sum().item() for a, b in zip(total, squares, strict=True))
    signal = sum((a**2).sum().item() for a in total) / repeats**2 - variance / repeats
    return (max(signal, 0.0) / variance) ** 0.5, variance


def timer(vae, objective, x):
    trained = copy.deepcopy(vae)
    svi = CompiledSVI(
        trained.model, trained.guide, torch.optim.Adam(trained.parameters(), fused=True), objective, engine="compiled"
    )
    for _ in range(3):
        svi.step(x)

    def milliseconds():
        start = time.perf_counter()
        for _ in range(STEPS):
            svi.step(x)
        return (time.perf_counter() - start) / STEPS * 1e3

    return milliseconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    digits = load_dataset("mnist-5k")
    vae = build(Recipe(), digits)
    batches = digits.train_batches(100)
    fit(
        CompiledSVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters(), lr=1e-3), ELBO()), batches, epochs=arguments.epochs
    )
    x = next(batches.epoch(99))
    rows = {}
    for name, objective in objectives():
        ratio, variance = signal_to_noise(vae, objective, x, arguments.repeats)
        rows[name] = {"signal_to_noise": ratio, "variance": variance}
    timers = {name: timer(vae, objective, x) for name, objective in objectives()}
    times = {name: [] for name in timers}
    for _ in range(ROUNDS):
        for name, milliseconds in timers.items():
            times[name].append(milliseconds())
    print("| estimator | signal to noise | variance | ms |\n| --- | --- | --- | --- |")
    for name, row in rows.items():
        row["milliseconds"] = statistics.median(times[name])
        print(f"| {name} | {row['signal_to_noise']:.3f} | {row['variance']:.4g} | {row['milliseconds']:.2f} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
