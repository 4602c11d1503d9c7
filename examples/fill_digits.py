"""Fill the lower half of digits, by a model that has seen whole ones and upper halves. Mattei and Frellsen (2018, 2019).

Half of the training digits have no lower half: the bound that is maximised is that of what is there. Latents of a new upper
half are drawn from the guide and chosen by their weights. Under such draws the truth has a probability too,
log p(lower | upper), which is never said too high in expectation.

python examples/fill_digits.py --epochs 100
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from pyrovae import Recipe, Run, load_dataset, plots, train
from pyrovae.evaluation.imputation import log_density_of_missing

SHAPE = (1, 28, 28)
LOWER = torch.arange(784) >= 392


def trained(epochs: int, folder: Path) -> Run:
    digits = load_dataset("mnist-5k", binarization="threshold")
    gapped = digits.train.clone()
    gapped[::2] = gapped[::2].masked_fill(LOWER, torch.nan)
    parts = {"train": gapped, "valid": digits.valid, "test": digits.test}
    np.savez(folder / "gapped_digits.npz", **{name: each.reshape(-1, 28, 28).numpy() for name, each in parts.items()})
    recipe = Recipe(dataset=str(folder / "gapped_digits.npz"), missing=True, epochs=epochs, objective="iwelbo", num_particles=5)
    return train(recipe, folder / "filling")


def main(epochs: int, number: int, folder: Path) -> None:
    run = trained(epochs, folder)
    truth = run.dataset().test[:number]
    upper = truth.masked_fill(LOWER, torch.nan)
    filled = run.impute(upper.reshape(-1, *SHAPE).numpy(), draws=100)

    given = log_density_of_missing(run.vae.model, run.vae.guide, upper, truth)
    print(f"log p(lower half | upper half) = {given.mean():.2f} ± {given.std() / number**0.5:.2f} nats per image")
    means = run.dataset().train[:, LOWER].nanmean(0).clamp(1e-3, 1 - 1e-3)
    alone = torch.distributions.Bernoulli(means).log_prob(truth[:, LOWER]).sum(1)
    print(f"under the means of the pixels: {alone.mean():.2f} ± {alone.std() / number**0.5:.2f}")

    told = torch.where(LOWER, 0.5, truth).numpy()[:, None]
    fillings = filled[:8].reshape(8, number, -1).transpose(1, 0, 2)
    columns = np.concatenate([told, fillings, truth.numpy()[:, None]], 1)[:12]
    title = "told, eight fillings of the lower half, and the truth"
    figure = plots.image_grid(columns.reshape(-1, 784), SHAPE, columns=columns.shape[1], title=title)
    figure.savefig(folder / "filled_digits.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Fill the lower half of digits.")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--number", type=int, default=100, help="of test digits")
    parser.add_argument("--folder", type=Path, default=Path())
    arguments = parser.parse_args()
    main(arguments.epochs, arguments.number, arguments.folder)
