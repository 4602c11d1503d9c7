"""A decoder turns a Gaussian into a ring: Doersch (2016), figure 2, with the map and then learned.

The map tears the disc open at the origin. A continuous decoder cannot, and leaves points in the hole; importance weighting,
which forgives the guide its shape, leaves fewer.

python examples/ring.py --epochs 60
"""

import argparse
import math
from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyrovae import ELBO, IWELBO, VAE, Architecture, Batches, CompiledSVI, GenerativeModel, fit, log_likelihood
from pyrovae.programs.conditionals import FixedScaleGaussian
from pyrovae.programs.guides import MeanField


def ring(z: Tensor) -> Tensor:
    """g(z) = z / 10 + z / |z|."""
    return z / 10 + z / z.norm(dim=-1, keepdim=True)


def log_density(x: Tensor) -> Tensor:
    """Of the ring: |z| = 10 (|x| - 1) is Rayleigh, the angle is uniform."""
    radius = x.norm(dim=-1)
    rayleigh = 10 * (radius - 1)
    return (10 * rayleigh / (2 * math.pi * radius)).log() - rayleigh**2 / 2


def train(objective: ELBO | IWELBO, x: Tensor, epochs: int) -> VAE:
    sizes = Architecture(shape=(1, 1, 2), latent_sizes=(2,), hidden_sizes=(100,))
    model = GenerativeModel.of(sizes, partial(FixedScaleGaussian, scale=0.03))
    vae = VAE(model, MeanField.of(model, sizes))
    svi = CompiledSVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters(), lr=1e-3), objective)
    fit(svi, Batches(x, 200), epochs=epochs)
    return vae


def main(epochs: int, folder: Path) -> None:
    torch.manual_seed(0)
    z = torch.randn(20_000, 2)
    x, test = ring(z).split([18_000, 2_000])
    panels = {"z": z[:2000], "g(z) = z / 10 + z / |z|": x[:2000]}
    print(f"log p(x) of the ring's own density: {log_density(test).mean():.3f} nats")
    for name, objective in {"ELBO": ELBO(), "IWELBO, K = 10": IWELBO(10)}.items():
        vae = train(objective, x, epochs)
        result = log_likelihood(vae.model, vae.guide, test, num_samples=500)
        with torch.no_grad():
            panels[f"drawn, trained by {name}"] = vae.model(batch_size=2000)
        print(f"log p(x) of a VAE trained by {name}: {result.mean:.3f} ± {result.standard_error:.3f} nats")

    figure = Figure(figsize=(12, 3.2), layout="constrained", dpi=150)
    for axes, (title, points) in zip(figure.subplots(1, 4), panels.items(), strict=True):
        axes.scatter(*points.T.numpy(), s=1)
        axes.set(title=title, aspect="equal")
    figure.savefig(folder / "ring.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A decoder turns a Gaussian into a ring.")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--folder", type=Path, default=Path())
    arguments = parser.parse_args()
    main(arguments.epochs, arguments.folder)
