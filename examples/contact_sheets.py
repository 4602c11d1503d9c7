"""A hundred training images of each dataset whose files are at hand, drawn at random: are they upright, and ink not paper?

python examples/contact_sheets.py mnist caltech101-silhouettes
"""

import argparse
from pathlib import Path

import torch

from pyrovae import DATASETS
from pyrovae.data.datasets import Options
from pyrovae.data.published_files.sources import find
from pyrovae.plots import image_grid


def main(names: list[str], root: Path | None, folder: Path) -> None:
    at_hand = [name for name, each in DATASETS.items() if each.source is None or find(each.source, root)]
    for name in names or at_hand:
        dataset = DATASETS[name](Options(root=root))
        rows = torch.randperm(len(dataset.train), generator=torch.Generator().manual_seed(0))[:100]
        image_grid(dataset.train[rows].numpy(), dataset.shape, columns=10, title=str(name)).savefig(folder / f"{name}.png")
        print(f"{name}.png: {dataset.protocol}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A hundred images of each dataset.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="datasets; all whose files are at hand by default")
    parser.add_argument("--root", type=Path, help="where the data files are; else $PYROVAE_DATA, else the cache")
    parser.add_argument("--folder", type=Path, default=Path())
    arguments = parser.parse_args()
    main(arguments.names, arguments.root, arguments.folder)
