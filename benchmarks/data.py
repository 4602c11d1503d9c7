"""Time to the first batch, and how fast batches come: a table, and JSON.

    python benchmarks/data.py [--dataset mnist] [--repeats 5] [--json FILE]

Beside them the fastest training step of the one-layer VAE 784-200-200-50 at batch 100: what it consumes in images a second.
All in processor time of one thread, so that what else the machine does counts little; files are in the system's cache. Batches
are served as to ``CompiledSVI``, which draws the bits in its graph; and from a memory-mapped file of the same images.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pyrovae import RECIPES, CompiledSVI, build, load_dataset
from pyrovae.data.user_files import datasets as own
from pyrovae.experiments.methods import build_objective, build_optimizer

BATCH_SIZE = 100
STEPS = 200


def seconds(run, repeats):
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times)


def serve(dataset, **options):
    for _ in dataset.train_batches(BATCH_SIZE, **options).epoch(1):
        pass


def consumed(dataset, repeats):
    """Images a second of a compiled training step, the batch at hand."""
    recipe = replace(RECIPES["activity-vae"], dataset=dataset.name)
    vae = build(recipe, dataset)
    svi = CompiledSVI(
        vae.model, vae.guide, build_optimizer(recipe, vae), build_objective(recipe), engine="compiled", transform=dataset.draw
    )
    batch = next(dataset.train_batches(BATCH_SIZE, drawn=False).epoch(1))
    for _ in range(3):
        svi.step(batch)

    def train():
        for _ in range(STEPS):
            svi.step(batch)

    return STEPS * BATCH_SIZE / seconds(train, repeats)


def from_disk(dataset, folder):
    """The same images as bytes in a file that is left where it is."""
    path = Path(folder) / "images.npy"
    np.save(path, (dataset.train * 255).round().byte().reshape(-1, *dataset.shape).numpy())
    own.LOADED_BYTES = 0
    return load_dataset(path)


def measured(name, repeats):
    load_dataset(name)  # imports
    first = seconds(lambda: next(load_dataset(name).train_batches(BATCH_SIZE).epoch(1)), repeats)
    dataset = load_dataset(name)
    rates = {
        "train_batches, as stored": len(dataset.train) / seconds(lambda: serve(dataset, drawn=False), repeats),
        "train_batches, bits drawn": len(dataset.train) / seconds(lambda: serve(dataset), repeats),
        "a compiled training step": consumed(dataset, repeats),
    }
    with tempfile.TemporaryDirectory() as folder:
        mapped = from_disk(dataset, folder)
        rates["train_batches, memory-mapped bytes"] = len(mapped.train) / seconds(lambda: serve(mapped), repeats)
    return {"seconds_to_first_batch": first, "images_per_second": rates}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = measured(options.dataset, options.repeats)
    print(f"{options.dataset} from disk to the first batch: {results['seconds_to_first_batch']:.2f} s\n")
    print(f"torch {torch.__version__}, one thread\n")
    print("| batches of 100 | images/s |\n| --- | --- |")
    for what, rate in results["images_per_second"].items():
        print(f"| {what} | {rate:,.0f} |")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
