"""Open run folders and the data to measure them on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pyrovae.errors import InputError
from pyrovae.experiments.devices import torch_device

from . import console

if TYPE_CHECKING:
    from pyrovae.data.datasets import Dataset
    from pyrovae.experiments.pictures.views import View
    from pyrovae.experiments.run import Run


def open_run(folder: str, device: str | None) -> Run:
    """Open a run folder, with its programs on a device."""
    from pyrovae.experiments.run import Run

    run = Run.load(folder)
    run.vae.to(torch_device(device))
    return run


def reference_of(run: Run, root: str | None, mirror: str | None, device: str | None, purpose: str) -> Dataset | None:
    """The run's own data; a warning, and None, where they are not at hand."""
    try:
        return run.dataset(root=root, mirror=mirror).to(torch_device(device))
    except InputError as error:
        console.warn(f"no {purpose}: {error}")
        return None


def open_run_and_data(
    folder: str, root: str | None, mirror: str | None, device: str | None, *, other: str | None = None, quiet: bool
) -> tuple[Run, Dataset]:
    """Open a run, and its own data or another dataset of images of the same shape, both on the device.

    Raises:
        InputError: for a folder that is no run, data other than those it was trained on, and images that it cannot take.
    """
    run = _opened(folder)
    return run, _data_of(run, other, root, mirror, device, quiet=quiet)


def open_run_and_contexts(
    folder: str, root: str | None, mirror: str | None, device: str | None, *, quiet: bool
) -> tuple[Run, Dataset | None]:
    """Open a run on the device, and its own data where its model is conditional, since these hold its contexts.

    Raises:
        InputError: as ``open_run_and_data``.
    """
    run = _opened(folder)
    run.vae.to(torch_device(device))
    return run, _data_of(run, None, root, mirror, device, quiet=quiet) if run.condition else None


def _opened(folder: str) -> Run:
    from pyrovae.experiments.run import Run

    run = Run.load(folder)
    if not run.is_whole:
        epochs = f"{len(run.history)} of {run.recipe.total_epochs} epochs"
        console.say(f"warning: the training was interrupted after {epochs}", fg="yellow")
    return run


def _data_of(run: Run, other: str | None, root: str | None, mirror: str | None, device: str | None, *, quiet: bool) -> Dataset:
    with console.downloads(quiet=quiet) as progress:
        dataset = run.dataset(other, root=root, mirror=mirror, progress=progress)
    return dataset.to(torch_device(device))


def views_of_runs(folders: Iterable[str], root: str | None, mirror: str | None, device: str | None) -> list[View]:
    """Open runs for pictures; a warning is printed for each run that cannot be opened, and for data that cannot be found.

    Raises:
        InputError: where no run can be opened.
    """
    from pyrovae.experiments.pictures.gallery import views_of
    from pyrovae.experiments.run import Run

    runs, datasets = [], []
    for folder in folders:
        try:
            run = Run.load(folder)
        except InputError as error:
            console.say(f"warning: {error}", fg="yellow")
            continue
        dataset = None
        try:
            dataset = _data_of(run, None, root, mirror, device, quiet=False)
        except InputError as error:
            console.say(f"warning: {error}", fg="yellow")
        runs.append(run)
        datasets.append(dataset)
    if not runs:
        raise InputError("expected run folders; none of these can be opened")
    return views_of(runs, datasets)
