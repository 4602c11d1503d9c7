"""A trained run on a table of a million rows: rows a second, and the most memory that the process took.

    python benchmarks/using.py --rows 1000000

A table of 10 columns (amounts, counts, words and numbers) as CSV; a run of 5 latents, trained on its first 20,000 rows. Each
command is a process of its own, as people call it, on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

TRAINED = 20_000
BLOCK = 100_000


def table(rows, seed):
    """Customers of two kinds."""
    generator = np.random.default_rng(seed)
    often = generator.random(rows) < 0.4
    columns = {f"measure_{number}": generator.normal(often * number, 1.0) for number in range(5)}
    columns |= {f"amount_{number}": np.exp(generator.normal(often + number, 0.7)) for number in range(2)}
    columns |= {"visits": generator.poisson(np.where(often, 12, 2)), "member": generator.random(rows) < 0.3 + 0.5 * often}
    return pd.DataFrame(columns | {"city": generator.choice(["Lima", "Oslo", "Rome"], rows)})


def write(path, rows):
    """A CSV file, block by block."""
    for start in range(0, rows, BLOCK):
        part = table(min(BLOCK, rows - start), start)
        part.to_csv(path, mode="a", header=not start, index=False)


def timed(*command):
    """Seconds and the largest resident size in bytes of a command."""
    start = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(process.stderr.read().decode())
    return time.perf_counter() - start, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--samples", type=int, default=10, help="importance samples of each row")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pyrovae = Path(sys.executable).with_name("pyrovae")
    with tempfile.TemporaryDirectory() as folder:
        first, whole, run = Path(folder, "first.csv"), Path(folder, "whole.csv"), Path(folder, "run")
        write(first, TRAINED)
        write(whole, arguments.rows)
        sizes = ("--latent-sizes", 5, "--hidden-sizes", 64, "--epochs", 3, "--samples", 5)
        timed(pyrovae, "fit", "--dataset", first, *sizes, "--output", run, "--threads", 1)
        scored = ("score", run, whole, "-o", Path(folder, "scores.csv"), "--samples", arguments.samples)
        for command in (("encode", run, whole, "-o", Path(folder, "z.csv")), scored):
            seconds, memory = timed(pyrovae, *command, "--threads", 1)
            rate = {"rows_per_second": round(arguments.rows / seconds), "seconds": round(seconds, 1)}
            print(
                json.dumps({"command": command[0], "rows": arguments.rows, **rate, "gigabytes": round(memory / 1e9, 2)}),
                flush=True,
            )


if __name__ == "__main__":
    main()
