"""``ComputedResult``: the result of an experiment that is computed without run folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyrovae.experiments.papers.outcome import Row
from pyrovae.experiments.papers.verdicts import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ComputedResult:
    """The result of an experiment that is computed without run folders.

    Args:
        columns: the titles of the figures, in order.
        rows: the rows of the table.
        verdicts: the verdicts on the paper's statements.
        pictures: the pictures by name.
        remarks: remarks for the reader.
    """

    columns: Sequence[str]
    rows: Sequence[Row]
    verdicts: Sequence[Verdict]
    pictures: Mapping[str, Figure]
    remarks: Sequence[str] = ()
