"""Fill gaps of new examples by a run."""

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
from pyrovae.experiments.new_examples import Note, new_examples

if TYPE_CHECKING:
    from pyrovae.data.preparation import Preparation
    from pyrovae.experiments.folder import RunFolder
    from pyrovae.programs.models import GenerativeModel

# The number of steps of chains of a model whose guide was trained without gaps.
UNSEEN_STEPS = 100
COLOURS = 3


def impute_blocks(
    run: RunFolder,
    source: Any,
    *,
    mask: Any = None,
    class_name: str = "",
    draws: int = 10,
    num_samples: int = 1000,
    num_steps: int | None = None,
    seed: int = 0,
    note: Note = print,
) -> Iterator[tuple[Sequence[Any], np.ndarray]]:
    """Fill the gaps of examples; yields names of examples and fillings ``(M, N, ...)``, in original units, block by block.

    Args:
        run: a trained model.
        source: a path, a DataFrame or an array: see ``blocks_of``; NaN stands for a gap.
        mask: further entries to fill, for all examples or for each: an array, or the path of an array or an image.
        class_name: the class of all examples, for a model conditioned on classes and data without them.
        draws: the number of fillings M of each example.
        num_samples: the number of importance samples that fillings are chosen from.
        num_steps: the number of steps of each filling's chain; by default 0 for a model that was trained with ``missing``, and
            100 for another one, whose guide was trained without gaps.
        seed: the seed of the random numbers.
        note: called with each remark for the user.

    Raises:
        InputError: for a regressor, a model conditioned on pixels, and examples or a mask that it cannot take.
    """
    if run.recipe.condition not in ("none", "label") or not run.recipe.latent_sizes:
        raise InputError(
            f"{run.folder}: expected a model with latents and without a condition on pixels; this one is another: train one"
        )
    steps = (0 if run.recipe.missing else UNSEEN_STEPS) if num_steps is None else num_steps
    hidden, start = None if mask is None else read_mask(mask, run.required_preparation), 0
    for each in new_examples(run, source, seed, note, class_name, missing=True):
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
        # Bits of grey levels are brought to the scale of grey levels.
        white = 255.0 if run.required_preparation.values == "levels" and run.required_preparation.binarize != "no" else 1.0
        original = np.stack([white * run.required_preparation.restore(one) for one in filled])
        # Observed entries stay as they are, to the last digit.
        known = known.reshape(original.shape[1:])
        yield each.block.names, np.where(np.isnan(known), original, known)
    if hidden is not None and len(hidden) not in (1, start):
        raise InputError(f"expected a mask for all examples or for each; got {len(hidden)} for {start}")


@contextmanager
def _gaps_allowed(run: RunFolder) -> Iterator[tuple[GenerativeModel, Any]]:
    """Let programs take gaps: the model scores observed entries, and a guide trained without gaps sees zeros for them."""
    model, guide, before = run.vae.model, run.vae.guide, run.vae.model.incomplete
    # A gap in a positive column, whose logarithm must exist, is seen as the column's geometric mean.
    seen = torch.tensor([float(kind == "positive") for kind in run.required_preparation.kinds] or [0.0])
    model.incomplete = True
    try:
        yield model, guide if before else lambda x, *context: guide(torch.where(x.isnan(), seen.to(x), x), *context)
    finally:
        model.incomplete = before


def read_mask(mask: Any, preparation: Preparation) -> np.ndarray:
    """Read a mask: True for the entries to fill, where it is not zero, for all examples ``(1, D)`` or for each ``(N, D)``.

    Args:
        mask: an array of a shape of examples, or the path of an ``.npy`` file or an image.
        preparation: the preparation of the training data.

    Raises:
        InputError: for a file that cannot be read, and for a size other than that of examples.
    """
    if isinstance(mask, str | Path):
        path = Path(mask).expanduser()
        if not path.is_file():
            raise InputError(f"{path}: expected an .npy file or an image; there is none: name another")
        # The transparency of an image hides nothing.
        is_array = path.suffix.lower() == ".npy"
        array = read_npy(path).arrays["all"] if is_array else stack_images(path.parent, [path])[0][:COLOURS].any(0)
    else:
        array = np.asarray(mask)
    channels, height, width = preparation.shape
    if array.shape[-3:] == (height, width, channels) != preparation.shape:
        array = np.moveaxis(array, -1, -3)
    is_whole = array.shape[-3:] == preparation.shape
    if array.ndim in (2, 3) and array.shape[-2:] == (height, width) and not is_whole and not preparation.is_table:
        # One mask for all channels, of all examples or of each.
        array = np.broadcast_to(array[..., None, :, :], (*array.shape[:-2], *preparation.shape))
    fits = array.shape[-3:] == preparation.shape or array.shape[-1:] == (preparation.size,)
    if not fits or array.ndim > 4 or not array.size:
        raise InputError(
            f"expected a mask of {' x '.join(map(str, preparation.shape))} entries, or one for each example; got {array.shape}"
        )
    return np.asarray(array != 0).reshape(-1, preparation.size)
