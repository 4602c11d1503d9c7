"""Every picture that pyrovae draws, of small models trained on five thousand digits within some minutes.

    python examples/gallery.py [FOLDER] [--epochs 40] [--samples 500] [--format png]

A second call trains nothing again: each run goes on where it is.
"""

import argparse
from pathlib import Path

from pyrovae import Recipe, Run, train
from pyrovae.experiments.pictures.gallery import save_picture, views_of
from pyrovae.experiments.pictures.kinds import KINDS

SMALL = Recipe(dataset="mnist-5k", validation=True, latent_sizes=(20,), learning_rate=2e-3)
LAYERED = SMALL.replace(guide="ladder", batch_norm=True, activation="leaky_relu")
MIXED = SMALL.replace(prior="vamp", pseudo_inputs="images")
CONDITIONAL = SMALL.replace(condition="middle-column")
RECIPES = {
    "plane": SMALL.replace(latent_sizes=(2,)),
    "vae": SMALL,
    "iwae": SMALL.replace(objective="iwelbo", num_particles=5),
    "ladder-1": LAYERED.replace(warmup_epochs=10.0),
    "ladder-2": LAYERED.replace(latent_sizes=(20, 10), hidden_sizes=(200, 100), warmup_epochs=10.0),
    "ladder-3": LAYERED.replace(latent_sizes=(20, 10, 5), hidden_sizes=(200, 100, 50), warmup_epochs=10.0),
    "vamp-20": MIXED.replace(num_components=20),
    "vamp-100": MIXED.replace(num_components=100),
    "vamp-500": MIXED.replace(num_components=500),
    "cvae": CONDITIONAL,
    "regressor": CONDITIONAL.replace(latent_sizes=(), hidden_sizes=(200,)),
}
# Pictures of other runs than the one ladder of three layers.
RUNS = {
    "learning-curves": ("vae", "iwae", "ladder-3"),
    "active-units": ("vae", "iwae", "ladder-1"),
    "activity-heat-map": ("vae", "iwae", "ladder-1"),
    "kl-bars": ("ladder-1", "ladder-2", "ladder-3"),
    "by-depth": ("ladder-1", "ladder-2", "ladder-3"),
    "encodings": ("plane",),
    "manifold": ("plane",),
    "reconstructions": ("plane", "vae"),
    "samples": ("vae", "vamp-500"),
    "images": ("vae", "vamp-500"),
    "by-components": ("vamp-20", "vamp-100", "vamp-500"),
    "log-likelihoods": ("vae", "vamp-500", "ladder-3"),
    "pseudo-inputs": ("vamp-500",),
    "completions": ("cvae", "regressor"),
    "interpolations": ("vae",),
    "traversals": ("vae",),
    "sampled-curve": ("vae", "ladder-3"),
    "tail-shapes": ("vae", "ladder-3"),
}


def trained(name: str, folder: Path, epochs: int, samples: int) -> Run:
    """A run of the gallery, measured."""
    run = train(RECIPES[name].replace(epochs=epochs), folder / name)
    print(run.evaluate(num_samples=samples))
    return run


def main(folder: Path, epochs: int, samples: int, format: str) -> None:
    """Train, measure and draw."""
    runs = {name: trained(name, folder, epochs, samples) for name in RECIPES}
    for name in RUNS["sampled-curve"]:
        runs[name].bounds(20, num_temperatures=100, num_samples=samples)
    for kind in KINDS:
        chosen = [runs[name] for name in RUNS.get(kind, ("ladder-3",))]
        print(save_picture(kind, views_of(chosen), folder / "gallery", format))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs/gallery"))
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--format", default="png")
    arguments = parser.parse_args()
    main(arguments.folder, arguments.epochs, arguments.samples, arguments.format)
