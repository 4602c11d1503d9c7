"""The course of a training for TensorBoard: ``pip install "pyrovae[tensorboard]"``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyrovae.errors import InputError

if TYPE_CHECKING:
    from pyrovae.data.datasets import Dataset
    from pyrovae.experiments.run import Run
    from pyrovae.experiments.training import Status

FOLDER = "tensorboard"
HISTOGRAMS = ("kl_by_unit", "activity_by_unit")
# Pictures are drawn for each of the first epochs, then for every tenth.
EVERY_EPOCH, SELDOM = 10, 10


class TensorBoard:
    """A ``track`` of ``train`` that writes scalars, histograms over units and pictures into the folder of the run.

    Args:
        dataset: the dataset whose test images are drawn.

    Raises:
        InputError: where TensorBoard is not installed.
    """

    def __init__(self, dataset: Dataset) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(
                "expected TensorBoard for --tensorboard; it is not installed: pip install 'pyrovae[tensorboard]'"
            ) from error
        self._writer_at = SummaryWriter
        self._dataset = dataset
        self._writer: Any = None

    def __call__(self, status: Status) -> None:
        """Write the record of an epoch that has ended; nothing after a step."""
        if status.record is None:
            return
        if self._writer is None:
            # Records that a killed training wrote after its last checkpoint are written again.
            self._writer = self._writer_at(str(status.run.folder / FOLDER), purge_step=status.record["epoch"])
        self._write(status.record)
        epoch = status.record["epoch"]
        if epoch <= EVERY_EPOCH or epoch % SELDOM == 0:
            self._draw(status.run, epoch)
        self._writer.flush()

    def _write(self, record: dict[str, Any]) -> None:
        import torch

        for name, value in record.items():
            named = value.items() if isinstance(value, dict) else [("", value)]
            for part, each in named:
                tag = f"{name}/{part}" if part else name
                if name in HISTOGRAMS:
                    self._writer.add_histogram(tag, torch.tensor(each), record["epoch"])
                elif isinstance(each, int | float) and name != "epoch":
                    self._writer.add_scalar(tag, each, record["epoch"])
                elif isinstance(each, dict):
                    for threshold, count in each.items():
                        self._writer.add_scalar(f"{tag}/{threshold}", count, record["epoch"])

    def _draw(self, run: Run, epoch: int) -> None:
        import torch

        from pyrovae.experiments.pictures.gallery import draw, drawable, views_of
        from pyrovae.experiments.pictures.kinds import KINDS
        from pyrovae.inference.state import preserved_module

        with preserved_module(run.vae), torch.random.fork_rng(), torch.no_grad():
            views = views_of([run], [self._dataset])
            for name in drawable(views, usual=True):
                if KINDS[name].is_grid:
                    self._writer.add_figure(name, draw(name, views), epoch)
