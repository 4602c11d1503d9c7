"""Gaps of new examples, filled in by a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pyrovae.data.user_files.arrays import read_npy
from pyrovae.data.user_files.images import stack_images
from pyrovae.errors import InputError
from pyrovae.evaluation.imputation import impute
from pyrovae.experiments.new_examples import Note, prepared

if TYPE_CHECKING:
    from pyrovae.data.preparation import Preparation
    from pyrovae.experiments.folder import RunFolder
    from pyrovae.programs.models import GenerativeModel

# Of the chains of a model whose guide has seen no gaps.
UNSEEN_STEPS = 100


def imputed(
    run: RunFolder,
    source: Any,
    *,
    mask: Any = None,
    given: str = "",
    draws: int = 10,
    num_samples: int = 1000,
    num_steps: int | None = None,
    seed: int = 0,
    note: Note = print,
) -> Iterator[tuple[Sequence[Any], np.ndarray]]:
    """Names of examples, and fillings of what is missing in them ``(M, N, ...)``, in original units.

    Args:
        run: a trained model.
        source: a path, a DataFrame or an array: see ``blocks_of``; what is not a number in it is missing.
        mask: what is missing beside it, for all examples alike or for each: an array, or the path of one or of an image.
        given: the class of all examples, of a model that is told classes and data without them.
        draws: M, fillings of each example.
        num_samples: importance samples that they are chosen from.
        num_steps: of the chain that each goes on as; by default none of a model that was trained with ``missing``, and 100 of
            another, whose guide has never seen gaps.
        seed: of all that is drawn.
        note: called with what a reader must know.

    Raises:
        InputError: for a regressor, a model that is told pixels, and examples or a mask that it cannot take.
    """
    if run.recipe.condition not in ("none", "label") or not run.recipe.latent_sizes:
        raise InputError(
            f"{run.folder}: expected a model with latents that is told a class or nothing; this one is another: train one"
        )
    steps = (0 if run.recipe.missing else UNSEEN_STEPS) if num_steps is None else num_steps
    hidden, start = None if mask is None else read_mask(mask, run.prepared), 0
    for each in prepared(run, source, seed, note, given, missing=True):
        known: np.ndarray = np.asarray(each.block.values, np.float64).reshape(len(each.x), -1)
        if hidden is not None:
            rows = hidden if len(hidden) == 1 else hidden[start : start + len(known)]
            if len(hidden) > 1 and len(rows) != len(known):
                raise InputError(f"expected a mask for all examples or for each; got {len(hidden)} for more of them")
            known = np.where(rows, np.nan, known)
        start += len(known)
        x = each.x.masked_fill(torch.from_numpy(np.isnan(known)).to(each.x.device), torch.nan)
        with _gaps_allowed(run) as (model, guide):
            filled = impute(model, guide, x, num_draws=draws, num_samples=num_samples, num_steps=steps, context=each.context)
        # Bits of grey levels are on the scale of these.
        white = 255.0 if run.prepared.values == "levels" and run.prepared.binarize != "no" else 1.0
        original = np.stack([white * run.prepared.restore(one) for one in filled])
        # What was there stays as it was, to the last digit.
        known = known.reshape(original.shape[1:])
        yield each.block.names, np.where(np.isnan(known), original, known)
    if hidden is not None and len(hidden) not in (1, start):
        raise InputError(f"expected a mask for all examples or for each; got {len(hidden)} for {start}")


@contextmanager
def _gaps_allowed(run: RunFolder) -> Iterator[tuple[GenerativeModel, Any]]:
    """Programs that take gaps: a model scores what is there, and a guide that has never seen any takes them for zeros."""
    model, guide, before = run.vae.model, run.vae.guide, run.vae.model.incomplete
    # Nothing below zero has a logarithm: a gap in a positive column is seen as its geometric mean.
    seen = torch.tensor([float(kind == "positive") for kind in run.prepared.kinds] or [0.0])
    model.incomplete = True
    try:
        yield model, guide if before else lambda x, *told: guide(torch.where(x.isnan(), seen.to(x), x), *told)
    finally:
        model.incomplete = before


def read_mask(mask: Any, preparation: Preparation) -> np.ndarray:
    """The entries that a mask hides, where it is not zero: of all examples alike ``(1, D)``, or of each ``(N, D)``.

    Args:
        mask: an array of any shape that examples have, or the path of an ``.npy`` file or of an image.
        preparation: of the training.

    Raises:
        InputError: for what cannot be read, and for another size than examples have.
    """
    if isinstance(mask, str | Path):
        path = Path(mask).expanduser()
        if not path.is_file():
            raise InputError(f"{path}: expected an .npy file or an image; there is none: name another")
        array = read_npy(path).arrays["all"] if path.suffix.lower() == ".npy" else stack_images(path.parent, [path])[0].any(0)
    else:
        array = np.asarray(mask)
    channels, height, width = preparation.shape
    if array.shape[-3:] == (height, width, channels) != preparation.shape:
        array = np.moveaxis(array, -1, -3)
    if array.shape == (height, width):
        array = np.broadcast_to(array, preparation.shape)
    if array.size % preparation.size or not array.size:
        raise InputError(
            f"expected a mask of {' x '.join(map(str, preparation.shape))} entries, or one for each example; got {array.shape}"
        )
    return np.asarray(array != 0).reshape(-1, preparation.size)
