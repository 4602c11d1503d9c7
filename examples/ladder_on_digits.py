"""Train a small ladder VAE with the library alone, and look at what each layer holds.

python examples/ladder_on_digits.py --epochs 100
"""

import argparse
from pathlib import Path

import pyro
import torch

from pyrovae import (
    ELBO,
    RECIPES,
    CompiledSVI,
    build,
    fit,
    kl_by_layer,
    linear_warmup,
    load_dataset,
    log_likelihood,
    plots,
    recollect_statistics,
)


def main(epochs: int, folder: Path) -> None:
    digits = load_dataset("mnist-5k")
    vae = build(RECIPES["ladder"], digits)
    svi = CompiledSVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters(), lr=1e-3), loss=ELBO())
    batches = digits.train_batches(256)
    fit(
        svi,
        batches,
        epochs=epochs,
        kl_weight=linear_warmup(epochs / 2),
        on_epoch=[lambda epoch: print(f"epoch {epoch.number}: loss {epoch.loss:.1f} nats per image")],
    )
    recollect_statistics(vae, batches.epoch(epochs + 1))

    result = log_likelihood(vae.model, vae.guide, digits.test, num_samples=100)
    print(f"log p(x) = {result.mean:.2f} ± {result.standard_error:.2f} nats, ELBO {result.elbo:.2f}")
    print({layer: round(nats, 2) for layer, nats in kl_by_layer(vae.model, vae.guide, digits.test).items()})

    # Hold the top layer fixed and draw the rest: what the ten images of a row have in common is what z5 says.
    vae.eval()
    top = vae.model.prior().sample((8,)).repeat_interleave(10, 0)
    with torch.no_grad():
        trace = pyro.poutine.trace(pyro.poutine.condition(vae.model, {"z5": top})).get_trace(batch_size=80)
    figure = plots.image_grid(trace.nodes["x"]["fn"].mean.numpy(), digits.shape, columns=10, title="one z5 a row")
    figure.savefig(folder / "one_top_layer_a_row.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--folder", type=Path, default=Path())
    arguments = parser.parse_args()
    main(arguments.epochs, arguments.folder)
