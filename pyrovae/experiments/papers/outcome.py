"""``Outcome``: the results of an experiment as one record, which is written and read only here, and as Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pyrovae.errors import InputError, in_one_line
from pyrovae.experiments import files
from pyrovae.experiments.checking import DAMAGE
from pyrovae.experiments.papers.verdicts import Verdict

OUTCOME = "outcome.json"
FORMAT = 1
# A smaller standard error of a count is not shown: no unit is near the threshold.
NO_DOUBT = 1e-3


@dataclass(frozen=True)
class Figure:
    """A figure of a row.

    Args:
        value: our figure.
        standard_error: the standard error of our figure.
        published: the figure of the paper, or None.
    """

    value: float
    standard_error: float
    published: float | None = None

    def __str__(self) -> str:
        error = f" ± {self.standard_error:.2g}" if self.standard_error >= NO_DOUBT else ""
        if not error and float(self.value).is_integer():
            return f"{self.value:g}"
        return f"{self.value:.1e}{error}" if 0 < abs(self.value) < 0.01 else f"{self.value:.2f}{error}"


@dataclass(frozen=True)
class Row:
    """A training in the table.

    Args:
        name: the name of the training.
        runs: the names of its run folders, one for each seed.
        epochs: the number of epochs trained.
        figures: the figures by the title of the column.
        differs: differences from the paper.
        protocol: the protocol of its data, with the hash.
        seconds: the time of training and measuring, of all seeds together.
    """

    name: str
    runs: Sequence[str]
    epochs: int
    figures: Mapping[str, Figure]
    differs: Sequence[str]
    protocol: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The results of an experiment.

    Args:
        experiment: the name in ``PAPERS``.
        shows: what it shows, in a line.
        source: the paper, and the number of the table or figure.
        epochs: the epochs of the shortest training.
        full: whether all trainings are there and have the paper's epochs.
        seeds: the number of trainings of each recipe.
        num_samples: the number of importance samples for each image.
        columns: the titles of the figures, in order.
        rows: the trainings.
        missing: trainings that could not be made, with the reason.
        verdicts: the verdicts on the paper's statements.
        remarks: remarks for the reader.
        pictures: the names of the files of pictures.
        environment: versions, device, threads.
        seconds: the time of all training and measuring.
        key: a hash of all that the outcome depends on.
        folder: the folder; it is not written.
    """

    experiment: str
    shows: str
    source: str
    epochs: int
    full: bool
    seeds: int
    num_samples: int
    columns: Sequence[str]
    rows: Sequence[Row]
    missing: Mapping[str, str]
    verdicts: Sequence[Verdict]
    remarks: Sequence[str]
    pictures: Sequence[str]
    environment: Mapping[str, Any]
    seconds: float
    key: str
    folder: Path | None = None

    def __str__(self) -> str:
        return self.markdown()

    def as_dict(self) -> dict[str, Any]:
        """The fields as a dictionary, to be written as JSON."""
        values = asdict(self)
        del values["folder"]
        return {"format": FORMAT, **values}

    def save(self) -> None:
        """Write the record and the tables into the folder."""
        assert self.folder is not None
        files.write_file(self.folder / "table.md", self.markdown().encode())
        files.write_file(self.folder / "table.csv", self.csv().encode())
        files.write_json(self.folder / OUTCOME, self.as_dict())

    @classmethod
    def load(cls, path: Path) -> Outcome:
        """Read a record that ``save`` wrote.

        Raises:
            InputError: for a record that is missing or damaged.
        """
        try:
            values = files.read_json(path)
            if values.pop("format") != FORMAT:
                raise ValueError("a record of another version of pyrovae")
            rows = [
                Row(**{**row, "figures": {title: Figure(**each) for title, each in row["figures"].items()}})
                for row in values["rows"]
            ]
            verdicts = [Verdict(**{**each, "evidence": tuple(each["evidence"])}) for each in values["verdicts"]]
            return cls(**{**values, "rows": rows, "verdicts": verdicts}, folder=path.parent)
        except DAMAGE as error:
            raise InputError(f"{path}: expected an outcome of 'pyrovae reproduce'; got {in_one_line(error)}") from error

    @property
    def schedule(self) -> str:
        """The schedule of the trainings in words."""
        if not self.num_samples:
            return "computed, without trainings of the paper"
        whole = "the paper's whole schedule" if self.full else "a shortened or partial schedule"
        seeds = f"{self.seeds} seeds" if self.seeds > 1 else "one seed"
        return f"{whole}, {seeds}, K = {self.num_samples:,}"

    @property
    def doubt(self) -> str:
        """The meaning of ± and of the intervals in words."""
        if not self.num_samples:
            return "± is a standard error over test points"
        trainings = "and over seeds" if self.seeds > 1 else "not over trainings, which other seeds would show"
        return f"± is a standard error over test images, {trainings}; so are the intervals"

    @property
    def command(self) -> str:
        """The command that makes the outcome again."""
        if not self.num_samples:
            return f"pyrovae reproduce {self.experiment}"
        length = "--full" if self.full else f"--epochs {self.epochs}"
        return f"pyrovae reproduce {self.experiment} {length} --seeds {self.seeds} --samples {self.num_samples}"

    @property
    def left_out(self) -> dict[str, list[str]]:
        """The missing trainings by the reason."""
        reasons: dict[str, list[str]] = {}
        for name, reason in self.missing.items():
            reasons.setdefault(reason, []).append(name)
        return reasons

    @property
    def table(self) -> tuple[list[str], list[list[str]]]:
        """The header and the rows of the table: our figures, the published ones, and the differences."""
        printed = [title for title in self.columns if any(_published(row, title) is not None for row in self.rows)]
        header = ["training", "epochs"]
        for title in self.columns:
            header += [title, "published", "difference"] if title in printed else [title]
        return [*header, "protocol"], [[*self._cells(row, printed)] for row in self.rows]

    def _cells(self, row: Row, printed: Sequence[str]) -> Iterator[str]:
        yield row.name
        yield f"{row.epochs:,}"
        for title in self.columns:
            figure = row.figures.get(title)
            yield "" if figure is None else str(figure)
            if title in printed:
                published = _published(row, title)
                yield "" if published is None else f"{published:.2f}"
                # Figures on other images are not compared.
                elsewhere = any("other images" in each for each in row.differs)
                yield "" if published is None or figure is None or elsewhere else f"{figure.value - published:+.2f}"
        yield "; ".join(row.differs) or ("same protocol" if row.runs else row.protocol)

    def markdown(self) -> str:
        """The table, the statements and the remarks in Markdown."""
        return "\n".join([f"# {self.experiment}: {self.shows}", "", *self.body()]) + "\n"

    def body(self) -> Iterator[str]:
        """The lines of the Markdown without its title."""
        yield f"{self.source}. {self.schedule[0].upper()}{self.schedule[1:]}; {self.doubt}. `{self.command}`"
        if self.rows:
            yield ""
            yield from markdown_table(*self.table)
        if self.verdicts:
            yield ""
            yield from markdown_table(
                ["the paper says", "here", "because"],
                [[each.says, each.verdict, "; ".join(filter(None, (*each.evidence, each.reason)))] for each in self.verdicts],
            )
        for reason, names in self.left_out.items():
            yield ""
            yield f"Left out: {', '.join(names)}: {reason}"
        for remark in self.remarks:
            yield ""
            yield remark

    def csv(self) -> str:
        """The table as CSV: a line for each training and quantity."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("training", "epochs", "quantity", "value", "standard_error", "published", "protocol", "differs"))
        for row in self.rows:
            for title, each in row.figures.items():
                published = "" if each.published is None else each.published
                doubt = (each.value, each.standard_error, published)
                writer.writerow((row.name, row.epochs, title, *doubt, row.protocol, "; ".join(row.differs)))
        return text.getvalue()


def _published(row: Row, title: str) -> float | None:
    figure = row.figures.get(title)
    return None if figure is None or figure.published is None or math.isnan(figure.published) else figure.published


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table in Markdown."""
    for cells in (header, ["---"] * len(header), *rows):
        yield f"| {' | '.join(map(_escaped, cells))} |"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
