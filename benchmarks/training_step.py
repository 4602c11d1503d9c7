"""How long a training step takes: contenders interleaved in one process, medians over rounds.

    pip install -e ".[bench]"
    python benchmarks/training_step.py [--models vae ladder iwae] [--rounds 12] [--json times.json]

Ratios are against hand-written eager PyTorch with fused Adam. A contender's steps in a round run together, behind two that
are not counted: in one process thread pools and caches change hands.
"""

import argparse
import json
import platform
import statistics
import time
from dataclasses import replace
from pathlib import Path

import handwritten
import pyro
import torch
from pyro.infer import RenyiELBO, Trace_ELBO
from rich.console import Console
from rich.table import Table

from pyrovae import ELBO, IWELBO, RECIPES, CompiledSVI, register_parameters
from pyrovae.experiments.building import assemble

MODELS = {
    "vae": {"recipe": "activity-vae", "batch": 100, "particles": 1, "hand": handwritten.VAE},
    "ladder": {"recipe": "ladder", "batch": 256, "particles": 1, "hand": handwritten.Ladder},
    "iwae": {"recipe": "activity-vae", "batch": 100, "particles": 10, "hand": lambda: handwritten.VAE(10)},
}
STEPS = {"vae": 60, "ladder": 12, "iwae": 12}
BASELINE = "hand-written, eager"


def adam(module):
    return torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)


def by_hand(module, x, compiled):
    optimizer = adam(module)
    loss_of = torch.compile(module) if compiled else module

    def step():
        optimizer.zero_grad()
        loss = loss_of(x)
        loss.backward()
        optimizer.step()
        return loss

    return step


def stock(vae, x, particles):
    loss = Trace_ELBO() if particles == 1 else RenyiELBO(0, particles, max_plate_nesting=1, vectorize_particles=True)
    svi = pyro.infer.SVI(register_parameters(vae.model), register_parameters(vae.guide), pyro.optim.Adam({"lr": 1e-3}), loss)
    return lambda: svi.step(x)


def ours(vae, x, particles, engine, precision):
    objective = ELBO() if particles == 1 else IWELBO(particles)
    svi = CompiledSVI(vae.model, vae.guide, adam(vae), objective, engine=engine, precision=precision)
    return lambda: svi.step(x)


def contenders(name):
    model = MODELS[name]
    x = torch.bernoulli(torch.full((model["batch"], 784), 0.13))
    vae = lambda: assemble(replace(RECIPES[model["recipe"]], likelihood="bernoulli"), (1, 28, 28))  # noqa: E731
    particles = model["particles"]
    made = {
        BASELINE: lambda: by_hand(model["hand"](), x, compiled=False),
        "hand-written, torch.compile": lambda: by_hand(model["hand"](), x, compiled=True),
        "stock pyro.infer.SVI": lambda: stock(vae(), x, particles),
        "NumPyro, jitted SVI.update": lambda: numpyro_step(name, x, particles),
    }
    for engine in ("eager", "graph", "compiled"):
        for precision in ("float32", "bfloat16"):
            made[f"CompiledSVI {engine} {precision}"] = lambda e=engine, p=precision: ours(vae(), x, particles, e, p)
    return {label: make() for label, make in made.items()}


def numpyro_step(name, x, particles):
    import numpyro_programs

    programs = numpyro_programs.ladder_programs() if name == "ladder" else numpyro_programs.vae_programs()
    return numpyro_programs.stepper(programs, x.numpy(), particles)


def measure(steps, rounds, count):
    times = {label: [] for label in steps}
    for _ in range(rounds):
        for label, step in steps.items():
            step(), step()
            start = time.perf_counter()
            for _ in range(count):
                step()
            times[label].append((time.perf_counter() - start) / count)
    return times


def products(name):
    """Floating-point operations of the matrix products of a step, counted on the hand-written model."""
    from torch.utils.flop_counter import FlopCounterMode

    model = MODELS[name]
    module = model["hand"]()
    with FlopCounterMode(display=False) as counter:
        module(torch.zeros(model["batch"], 784)).backward()
    return counter.get_total_flops()


def peak():
    """The machine's float32 matrix-product rate by the better of torch's two libraries, in GFLOP/s, at 1024 x 1024 x 1024."""
    a = torch.randn(1024, 1024)
    multiply = {"mm": lambda: torch.mm(a, a)}
    if torch.backends.mkldnn.is_available():
        multiply["oneDNN"] = lambda: torch.ops.mkldnn._linear_pointwise(a, a, None, "none", [], "")
    rates = {}
    for library, product in multiply.items():
        seconds = min(statistics.median(measure({"": product}, 5, 5)[""]) for _ in range(3))
        rates[library] = 2 * 1024**3 / seconds / 1e9
    return rates


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rates = peak()
    best = max(rates.values())
    results = {"machine": f"{platform.machine()}, {torch.get_num_threads()} threads", "torch": torch.__version__, "peak": rates}
    console = Console(width=120)
    console.print(f"float32 matrix products, GFLOP/s: {', '.join(f'{k} {v:.0f}' for k, v in rates.items())}")
    for name in arguments.models:
        times = measure(contenders(name), arguments.rounds, STEPS[name])
        flops = products(name)
        base = statistics.median(times[BASELINE])
        table = Table(
            "contender", "ms", "quartiles", "ratio", "GFLOP/s", "of peak", title=f"{name}, {flops / 1e9:.2f} GFLOP a step"
        )
        for label, values in times.items():
            low, middle, high = statistics.quantiles(values, n=4)
            rate = flops / middle / 1e9
            spread = f"{low * 1e3:.2f} - {high * 1e3:.2f}"
            table.add_row(label, f"{middle * 1e3:.2f}", spread, f"{middle / base:.2f}", f"{rate:.0f}", f"{rate / best:.0%}")
        console.print(table)
        results[name] = {"seconds": times, "flops": flops}
    if arguments.json:
        arguments.json.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
