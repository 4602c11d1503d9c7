"""``Computed``: an experiment that is computed without run folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyrovae.experiments.papers.outcome import Row
from pyrovae.experiments.papers.verdicts import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Computed:
    """What was computed.

    Args:
        columns: titles of the figures, in order.
        rows: of the table.
        verdicts: on the paper's statements.
        pictures: by name.
        remarks: what a reader must know.
    """

    columns: Sequence[str]
    rows: Sequence[Row]
    verdicts: Sequence[Verdict]
    pictures: Mapping[str, Figure]
    remarks: Sequence[str] = ()
