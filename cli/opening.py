"""A run folder and the data that it is to be measured on, for the commands that measure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pyrovae.errors import InputError

from . import console, options
from .datasets import fetched

if TYPE_CHECKING:
    from pyrovae.data.datasets import Dataset
    from pyrovae.runs import Run


def opened(
    folder: str, root: str | None, mirror: str | None, device: str | None, *, other: str | None = None, quiet: bool
) -> tuple[Run, Dataset]:
    """A run, and its own data or another dataset of images of the same shape, both on the device.

    Raises:
        InputError: for a folder that is no run, data that are not what it was trained on, and images that it cannot take.
    """
    from pyrovae.runs import Run

    run = Run.load(folder)
    if not run.is_whole:
        epochs = f"{len(run.history)} of {run.recipe.total_epochs} epochs"
        console.say(f"warning: the training was interrupted after {epochs}", fg="yellow")
    fetched(other or run.recipe.dataset, root, mirror, quiet=quiet)
    dataset = _load(run, other, root, mirror).to(options.torch_device(device))
    run.vae.to(dataset.test.device)
    return run, dataset


def _load(run: Run, other: str | None, root: str | None, mirror: str | None) -> Dataset:
    """The run's own dataset, or another of images of the same shape, as its likelihood takes them and under its condition."""
    from pyrovae.recipes import load_data, resolved

    recipe = run.recipe if other is None else replace(run.recipe, dataset=other)
    dataset = load_data(recipe, root, mirror)
    if other is None:
        run.check_data(dataset)
    # The same data under another name are the run's own.
    if dataset.protocol.hash == run.protocol_hash:
        return dataset
    resolved(recipe, dataset)
    if dataset.values == "real":
        raise InputError(
            f"expected bits or grey values in other data; {other!r} holds real ones, standardised by statistics of their own: "
            "put both into one .npz file, as train and test"
        )
    if dataset.shape != run.shape:
        raise InputError(
            f"expected images of shape {run.shape}, as {run.recipe.dataset!r} has; got {dataset.shape} of {other!r}"
        )
    size = dataset.condition.size if dataset.condition else 0
    if size != run.vae.model.context_size:
        raise InputError(
            f"expected contexts of {run.vae.model.context_size} entries under the condition {recipe.condition!r}; "
            f"got {size} of {other!r}"
        )
    return dataset
