"""Areas under the ROC curve of scores of odd examples: images of another kind, and the run's own images inverted.

    python benchmarks/detection.py RUN [RUN ...] [--images 1000] [--also RUN2 ...] [--json FILE]

Each run is measured on test images of its own data, which are normal, and of each other data set, which are odd: all are
binarised as those of the training were. Inverted images are 1 - x. Regret takes most of the time.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import pandas
import torch

from pyrovae import Run
from pyrovae.experiments.detecting import aurocs, reference_likelihoods, scores_of

DATASETS = ("mnist", "fashion-mnist", "omniglot-28")


def some_of(images, number, seed=0):
    """The images ``(number, D)`` of a test set that the seed chooses."""
    return images[torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:number]]


def kinds_of(run, number):
    """The odd images by name."""
    kinds = {f"inverted {run.recipe.dataset}": 1 - some_of(run.dataset().test, number, seed=1)}
    return kinds | {name: some_of(run.dataset(name).test, number) for name in DATASETS if name != run.recipe.dataset}


def table_of(run, x, also, arguments):
    """The scores of some images."""
    torch.manual_seed(0)
    typical = reference_likelihoods(run, run.dataset(), arguments.samples, 0)
    found = scores_of(run, x, None, typical, also, num_samples=arguments.samples, num_steps=arguments.steps)
    return pandas.DataFrame({name: each.cpu().numpy() for name, each in found.items()})


def areas_of(folder, arguments):
    """The areas by kind of odd image and score, with their differences from that of -log p(x)."""
    run, also = Run.load(folder), [Run.load(each) for each in arguments.also]
    normal = table_of(run, some_of(run.dataset().test, arguments.images), also, arguments)
    return {kind: aurocs(table_of(run, x, also, arguments), normal) for kind, x in kinds_of(run, arguments.images).items()}


def markdown(areas):
    """A table of areas with their intervals: a row for each kind, a column for each score."""
    scores = list(next(iter(areas.values())))
    lines = ["| odd images | " + " | ".join(scores) + " |", "| --- |" + " --- |" * len(scores)]
    lines += [f"| {kind} | " + " | ".join(str(area) for area, _ in found.values()) + " |" for kind, found in areas.items()]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--also", nargs="*", default=[])
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = {}
    for folder in arguments.runs:
        areas = areas_of(folder, arguments)
        print(f"\n{folder}, {arguments.images} images of each kind\n\n{markdown(areas)}")
        results[folder] = {
            kind: {score: {"auroc": asdict(area), "difference": asdict(gain)} for score, (area, gain) in found.items()}
            for kind, found in areas.items()
        }
    if arguments.json:
        arguments.json.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
