"""How much sooner several processes are done than one: a ratio for each way of using them.

    python benchmarks/scaling.py [--part sweeps --part steps --part shards] [--epochs 150] [--rounds 3] [--json FILE]

A sweep on mnist-5k: members an hour with two workers of one thread each, against one training at a time with two threads; the
one-layer VAE 784-200-200-50 at batch 100, 50 steps an epoch. Rounds of the two take turns, so that what else the machine does
counts for both. Each sweep is a command of its own, from its start to the end of its last member: imports, checkpoints and the
measurement of each member are part of it.

Steps of the five-layer ladder by two processes that share batches, one thread each, 1,024 examples for each process, against
one process with its 1,024: see scaling_steps.py.

The evaluation of a ladder of two layers on the 10,000 test images of mnist by two shards side by side, one thread each, against
one process with one thread: the efficiency is half the ratio of the times. Each is a command of its own too.
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
# Of each image: enough that the start of a process counts for little.
SAMPLES = 2_000


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


def steps(epochs, rounds):
    """Seconds of a step alone and together, by torchrun in one run."""
    script = [str(Path(__file__).with_name("scaling_steps.py")), "--rounds", str(2 * rounds)]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *script]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)


def print_steps(results):
    print("| a step of the ladder | ms |\n| --- | --- |")
    alone, beside = "1,024 examples, one process", "1,024 examples, beside another process that trains for itself"
    for name, rows in (("alone", alone), ("side by side", beside), ("together", "2,048 examples, two processes")):
        print(f"| {rows} | {1000 * results[name]:.0f} |")
    print(f"\nefficiency {results['efficiency']:.2f}")


def seconds_of(*words):
    start = time.perf_counter()
    command = [sys.executable, "-c", "from pyrovae.cli import main; main()", *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def shards(epochs, rounds):
    """Seconds of an evaluation in one process and by two shards, and the efficiency in each round."""
    one, two = [], []
    with tempfile.TemporaryDirectory(dir=".") as folder:
        run = Path(folder) / "run"
        layers = ["--latent-sizes", "32,16", "--hidden-sizes", "256,128"]
        seconds_of("fit", "--dataset", "mnist", "--guide", "ladder", *layers, "--epochs", 1, "--samples", 1, "-o", run)
        for _ in range(rounds):
            measure = ["evaluate", run, "--samples", SAMPLES, "--threads", 1]
            one.append(seconds_of(*measure))
            two.append(seconds_of(*measure, "--shards", 2, "--workers", 2))
    return {"one": one, "two": two, "efficiency": [ours / theirs / 2 for ours, theirs in zip(one, two, strict=True)]}


def print_shards(results):
    print(f"| an evaluation of 10,000 images, {SAMPLES:,} samples each | s |\n| --- | --- |")
    print(f"| one process | {statistics.median(results['one']):.0f} |")
    print(f"| two shards side by side | {statistics.median(results['two']):.0f} |")
    found = results["efficiency"]
    print(f"\nefficiency {statistics.median(found):.2f} ({min(found):.2f} - {max(found):.2f} in {len(found)} rounds)")


PARTS = {"sweeps": (sweeps, print_sweeps), "steps": (steps, print_steps), "shards": (shards, print_shards)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=list(PARTS), action="append", help="one of several; all by default")
    parser.add_argument("--epochs", type=int, default=150, help="of each member")
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
