"""How much sooner several processes are done than one: a ratio for each way of using them.

    python benchmarks/scaling.py [--epochs 8] [--rounds 3] [--json FILE]

A sweep on mnist-5k: members an hour with two workers of one thread each, against one training at a time with two threads; the
one-layer VAE 784-200-200-50 at batch 100, 50 steps an epoch. Rounds of the two take turns, so that what else the machine does
counts for both. Each sweep is a command of its own, from its start to the end of its last member: imports, checkpoints and the
measurement of each member are part of it.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MEMBERS = 4


def seconds_of_a_sweep(epochs, workers, threads):
    """The time of a sweep over seeds, as its command takes it."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        what = ["--recipe", "activity-vae", "--dataset", "mnist-5k", "--epochs", epochs, "--seeds", MEMBERS, "--samples", 1]
        how = ["--engine", "graph", "--device", "cpu", "--workers", workers, "--threads", threads, "-o", Path(folder) / "s"]
        command = [sys.executable, "-c", "from pyrovae.cli import main; main()", "sweep", *what, *how]
        start = time.perf_counter()
        subprocess.run([str(each) for each in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return time.perf_counter() - start


def sweeps(epochs, rounds):
    """Members an hour of each way, their ratio in each round, and the medians."""
    ways = {"2 workers, 1 thread each": (2, 1), "1 training, 2 threads": (1, 2)}
    found = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (workers, threads) in ways.items():
            found[name].append(MEMBERS * 3600 / seconds_of_a_sweep(epochs, workers, threads))
    side_by_side, alone = found.values()
    return {"members_per_hour": found, "ratio": [ours / theirs for ours, theirs in zip(side_by_side, alone, strict=True)]}


def print_sweeps(results):
    print("| a sweep | members an hour |\n| --- | --- |")
    for name, rates in results["members_per_hour"].items():
        print(f"| {name} | {statistics.median(rates):.0f} |")
    ratios = results["ratio"]
    print(f"\nratio {statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f} in {len(ratios)} rounds)")


PARTS = {"sweeps": (sweeps, print_sweeps)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=list(PARTS), action="append", help="one of several; all by default")
    parser.add_argument("--epochs", type=int, default=8, help="of each member")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = {}
    for name in options.part or PARTS:
        measure, show = PARTS[name]
        results[name] = measure(options.epochs, options.rounds)
        show(results[name])
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
