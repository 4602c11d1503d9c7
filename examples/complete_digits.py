"""Complete digits from their middle column: a conditional VAE beside a regressor. Doersch (2016), section 5 and figure 8.

The same network twice, once with latents and once with none. The regressor hedges between all digits that have such a column;
the conditional VAE draws one of them at a time, and gives the truth more probability.

python examples/complete_digits.py --epochs 40
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from pyro import poutine

from pyrovae import VAE, CompiledSVI, Dataset, Recipe, build, fit, load_dataset, log_likelihood, plots
from pyrovae.experiments.methods import build_objective, build_optimizer

CONDITIONAL = Recipe(condition="middle-column", latent_sizes=(30,), hidden_sizes=(500,), activation="relu")
REGRESSOR = replace(CONDITIONAL, latent_sizes=())


def train(recipe: Recipe, digits: Dataset, epochs: int) -> VAE:
    vae = build(recipe, digits)
    svi = CompiledSVI(vae.model, vae.guide, build_optimizer(recipe, vae), build_objective(recipe), transform=digits.draw)
    fit(svi, digits.train_batches(recipe.batch_size, drawn=False), epochs=epochs)
    return vae


def main(dataset: str, epochs: int, folder: Path) -> None:
    digits = load_dataset(dataset, condition="middle-column")
    context = digits.contexts["test"]
    vae, regressor = (train(recipe, digits, epochs) for recipe in (CONDITIONAL, REGRESSOR))
    for name, programs, samples in (("conditional VAE", vae, 500), ("regressor", regressor, 1)):
        result = log_likelihood(programs.model, programs.guide, digits.test, samples, context=context)
        print(f"{name}: log p(x | c) = {result.mean:.2f} ± {result.standard_error:.2f} nats per image")

    shown, told = digits.test[:12], context[:12]
    with torch.no_grad():
        drawn = [poutine.trace(vae.model).get_trace(context=told).nodes["x"]["fn"].mean for _ in range(8)]
        hedged = poutine.trace(regressor.model).get_trace(context=told).nodes["x"]["fn"].mean
    columns = torch.stack([digits.condition.pixels(told), *drawn, hedged, shown], 1)
    title = "told, drawn by the conditional VAE, the regressor's mean, and the truth"
    figure = plots.image_grid(columns.flatten(0, 1).numpy(), digits.shape, columns=columns.shape[1], title=title)
    figure.savefig(folder / "completed_digits.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Complete digits from their middle column.")
    parser.add_argument("--dataset", default="mnist-5k")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--folder", type=Path, default=Path())
    arguments = parser.parse_args()
    main(arguments.dataset, arguments.epochs, arguments.folder)
