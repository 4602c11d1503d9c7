"""What a checkpoint costs: its time, and its share of a training that writes one every minute.

    python benchmarks/checkpoints.py [--repeats 10] [--json FILE]

The five-layer ladder with two moments and a moving average (37 MB), the one-layer VAE (5 MB), on the disk of the folder. Behind
it the cost of drawing the noise of each step from the number of the step.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from pyrovae import RECIPES, load_dataset
from pyrovae.experiments.training import CHECKPOINT_SECONDS, _Training, train
from pyrovae.inference.training import _draw_from
from pyrovae.seeds import seed_of

RECIPES_HERE = {
    "ladder": RECIPES["ladder"].replace(dataset="mnist-5k", epochs=1, average_decay=0.999),
    "vae": RECIPES["activity-vae"].replace(dataset="mnist-5k", epochs=1),
}


def seconds_to_save(recipe, repeats, folder):
    """The times of writing a checkpoint after an epoch, and its size in bytes."""
    dataset = load_dataset("mnist-5k")
    run = train(recipe, folder, dataset=dataset, engine="graph")
    training = _Training(run, dataset, "graph", lambda status: None, CHECKPOINT_SECONDS, "stop")
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        path = training.save()
        times.append(time.perf_counter() - start)
    return times, sum(each.stat().st_size for each in path.iterdir())


def seconds_to_seed(repeats=10_000):
    """The time of seeding one step."""
    start = time.perf_counter()
    for step in range(repeats):
        _draw_from(seed_of(0, 1, step))
    return (time.perf_counter() - start) / repeats


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = {}
    for name, recipe in RECIPES_HERE.items():
        with tempfile.TemporaryDirectory(dir=".") as folder:
            times, size = seconds_to_save(recipe, arguments.repeats, Path(folder) / "run")
        middle = statistics.median(times)
        spread, share = f"{min(times) * 1e3:.0f} - {max(times) * 1e3:.0f}", middle / CHECKPOINT_SECONDS
        print(f"{name}: {size / 1e6:.1f} MB in {middle * 1e3:.0f} ms ({spread}), {share:.2%} of a minute")
        results[name] = {"seconds": times, "bytes": size}
    results["seed"] = seconds_to_seed()
    print(f"seeding a step: {results['seed'] * 1e6:.1f} us")
    if arguments.json:
        arguments.json.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
