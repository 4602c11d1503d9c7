"""A trained run at work on new examples: encoded, reconstructed, scored, and drawn; each block of a stream as a table.

Densities, reconstructions and samples are in the original units: what the data of the training went through is part of the
run, and is applied to whatever comes later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas
import torch

from pyrovae.data.user_files.streaming import Block, blocks_of
from pyrovae.errors import InputError
from pyrovae.evaluation import using
from pyrovae.evaluation.imputation import impute
from pyrovae.seeds import seed_of

if TYPE_CHECKING:
    from torch import Tensor

    from pyrovae.data.datasets import Dataset
    from pyrovae.experiments.folder import RunFolder

# Of the run's own validation images, or test images, that percentiles are among.
REFERENCES, FEWEST_REFERENCES = 1000, 30
Note = Callable[[str], Any]


def encoded(
    run: RunFolder, source: Any, *, layer: str = "", num_samples: int = 10, draws: int = 0, seed: int = 0, note: Note = print
) -> Iterator[pandas.DataFrame]:
    """Mean and standard deviation of each latent of each example, or draws of it; rows keep their order and names.

    Args:
        run: the trained model.
        source: a path, a DataFrame or an array: see ``blocks_of``.
        layer: one layer alone.
        num_samples: of the layers that others depend on.
        draws: of the latents, in place of their moments.
        seed: of all that is drawn.
        note: called with what a reader must know.

    Raises:
        InputError: for a layer that there is none, a regressor, a conditional model, and examples that it cannot take.
    """
    layers = [f"z{number}" for number in range(1, len(run.recipe.latent_sizes) + 1)]
    if not layers:
        raise InputError(f"{run.folder}: expected latents; a regressor has none")
    if layer and layer not in layers:
        raise InputError(f"{run.folder}: expected a layer out of {', '.join(layers)}; got {layer!r}")
    guide = run.vae.guide
    for block, x in _prepared(run, source, seed, note):
        if draws:
            values = {name: list(each) for name, each in using.draw_latents(guide, x, draws).items()}
            titles = {name: [f"draw_{number}" for number in range(1, draws + 1)] for name in values}
        else:
            values = {name: list(each) for name, each in using.encode(guide, x, num_samples=num_samples).items()}
            titles = {name: ["mean", "std"] for name in values}
        columns = {
            f"{name}_{unit + 1}_{title}": each[:, unit].cpu().numpy()
            for name in layers
            if layer in ("", name)
            for unit in range(values[name][0].shape[1])
            for title, each in zip(titles[name], values[name], strict=True)
        }
        yield pandas.DataFrame(columns, index=pandas.Index(list(block.names), name="row"))


def scored(
    run: RunFolder, source: Any, reference: Dataset | None = None, *, num_samples: int = 100, seed: int = 0, note: Note = print
) -> Iterator[pandas.DataFrame]:
    """What a model says of each example, in nats: of tables in their original units, of images as the model sees them.

    ``log_likelihood`` with ``standard_error``, ``elbo``, ``rate``, ``distortion``, ``pareto_k``; with a reference also
    ``percentile``, the share of its examples that are less likely; and of tables ``oddest``, the column that is furthest below
    what it is in the reference, with how many standard deviations.

    Args:
        run: the trained model.
        source: a path, a DataFrame or an array: see ``blocks_of``.
        reference: the run's own data.
        num_samples: importance samples for each example.
        seed: of these.
        note: called with what a reader must know.

    Raises:
        InputError: for a loss that is no density, a conditional model, and examples that it cannot take.
    """
    from pyrovae.programs.likelihoods import LIKELIHOODS

    if not LIKELIHOODS[run.recipe.likelihood].normalized:
        raise InputError(f"{run.folder}: expected a likelihood that is a density; {run.recipe.likelihood!r} is a loss")
    preparation, model, guide = run.prepared, run.vae.model, run.vae.guide
    shift = preparation.log_jacobian
    known = None
    if reference is not None:
        run.check_data(reference)
        held_out = reference.test if reference.valid is None else reference.valid
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            known = using.score(model, guide, held_out[:REFERENCES], num_samples=num_samples)
        if len(held_out) < FEWEST_REFERENCES:
            note(f"percentiles are among {len(held_out)} examples alone")
    for block, x in _prepared(run, source, seed, note):
        found = using.score(model, guide, x, num_samples=num_samples)
        columns: dict[str, Any] = {
            "log_likelihood": found.log_likelihood + shift,
            "standard_error": found.standard_error,
            "elbo": found.elbo + shift,
            "rate": found.rate,
            "distortion": found.distortion - shift,
            "pareto_k": found.pareto_k,
        }
        if known is not None:
            among = known.log_likelihood.sort().values
            columns["percentile"] = 100 * torch.searchsorted(among, found.log_likelihood.contiguous()) / len(among)
            if preparation.is_table and known.by_entry is not None and found.by_entry is not None:
                away = (found.by_entry - known.by_entry.mean(0)) / known.by_entry.std(0)
                names = preparation.columns or [str(number + 1) for number in range(preparation.size)]
                columns["oddest"] = [names[place] for place in away.argmin(1).tolist()]
                columns["oddest_by"] = -away.min(1).values
        plain = {name: each if isinstance(each, list) else each.cpu().numpy() for name, each in columns.items()}
        yield pandas.DataFrame(plain, index=pandas.Index(list(block.names), name="row"))


def reconstructed(
    run: RunFolder, source: Any, *, seed: int = 0, note: Note = print
) -> Iterator[tuple[Sequence[Any], np.ndarray]]:
    """Names and reconstructions of examples: the means of p(x | z) at a draw of the guide, in original units.

    Args:
        run: the trained model.
        source: a path, a DataFrame or an array: see ``blocks_of``.
        seed: of the draw.
        note: called with what a reader must know.

    Raises:
        InputError: for a regressor, a conditional model, and examples that it cannot take.
    """
    if not run.recipe.latent_sizes:
        raise InputError(f"{run.folder}: expected latents; a regressor has none")
    for block, x in _prepared(run, source, seed, note):
        yield block.names, run.prepared.restored(using.reconstruct(run.vae.model, run.vae.guide, x))


def imputed(
    run: RunFolder,
    source: Any,
    *,
    draws: int = 10,
    num_samples: int = 1000,
    num_steps: int = 0,
    seed: int = 0,
    note: Note = print,
) -> Iterator[tuple[Sequence[Any], np.ndarray]]:
    """Names of examples, and fillings of what is missing in them ``(M, N, ...)``, in original units.

    Args:
        run: a model that was trained with ``missing``.
        source: a path, a DataFrame or an array: see ``blocks_of``.
        draws: M, fillings of each example.
        num_samples: importance samples that they are chosen from.
        num_steps: of the chain that each goes on as.
        seed: of all that is drawn.
        note: called with what a reader must know.

    Raises:
        InputError: for a model that was trained without gaps, and examples that it cannot take.
    """
    if not run.recipe.missing or not run.recipe.latent_sizes:
        raise InputError(
            f"{run.folder}: expected a model with latents that was trained with --missing; this one was not: train one"
        )
    preparation, sizes = run.prepared, {"num_draws": draws, "num_samples": num_samples, "num_steps": num_steps}
    for block, x in _prepared(run, source, seed, note):
        filled = impute(run.vae.model, run.vae.guide, x, **sizes)
        original = np.stack([preparation.restored(each) for each in filled])
        known = np.asarray(block.values, np.float64).reshape(original.shape[1:])
        # What was there stays as it was, to the last digit.
        yield block.names, np.where(np.isnan(known), original, known)


def drawn(run: RunFolder, number: int, *, means: bool = False, temperature: float = 1.0, seed: int = 0) -> np.ndarray:
    """Examples that a model draws, in original units: a table ``(N, D)``, images ``(N, C, H, W)``.

    Args:
        run: the trained model.
        number: N.
        means: of p(x | z) in place of draws of x.
        temperature: of the latents: their standard deviations are multiplied by it.
        seed: of all that is drawn.

    Raises:
        InputError: for a conditional model, and a temperature of latents that are no Gaussians.
    """
    _refuse_conditional(run)
    if number < 1 or not temperature > 0:
        raise InputError(f"expected at least one example and a temperature above zero; got {number} and {temperature}")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            x = using.sample(run.vae.model, number, means=means, temperature=temperature)
        except using.TemperatureError as error:
            raise InputError(f"{run.folder}: {str(error).splitlines()[0]}") from error
    return run.prepared.restored(x)


def _prepared(run: RunFolder, source: Any, seed: int, note: Note) -> Iterator[tuple[Block, Tensor]]:
    """Blocks of examples, and these as programs take them; random numbers are those of the seed, block by block."""
    _refuse_conditional(run)
    preparation = run.prepared
    device = next(iter(run.vae.parameters())).device
    count = 0
    with torch.random.fork_rng():
        for number, block in enumerate(blocks_of(source, preparation, note)):
            x = preparation.applied(block.values, seed=seed_of(seed, number, 0)).to(device)
            torch.manual_seed(seed_of(seed, number, 1))
            count += len(x)
            if len(x):
                yield block, x
    if not count:
        raise InputError("expected at least one example; got none")


def _refuse_conditional(run: RunFolder) -> None:
    if run.recipe.condition != "none":
        raise InputError(f"{run.folder}: expected a model of whole examples; this one is told {run.recipe.condition!r} of each")
