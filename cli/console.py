"""The output for people: progress on standard error, results on standard output."""

import json
import logging
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from pyrovae.experiments.summaries import duration

if TYPE_CHECKING:
    from pyrovae.experiments.training import Status

T = TypeVar("T")
PLAIN_LINES = 20


def say(message: str, **style: Any) -> None:
    """Print a line on standard error, with colours only on a terminal."""
    click.secho(message, err=True, **style)


def show(rows: Mapping[str, str], title: str) -> None:
    """Print a table of two columns on standard output."""
    table = Table(title=escape(title), show_header=False, title_justify="left")
    for name, value in rows.items():
        # Text in brackets is a hash or part of a path, and no style.
        table.add_row(name, escape(value))
    # Without a terminal the table is so wide that no path is broken.
    console = Console()
    Console(width=console.width if console.is_terminal else 160).print(table)


def show_list(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table with a header on standard output."""
    table = Table(*columns)
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console()
    Console(width=console.width if console.is_terminal else 160).print(table)


def print_json(results: Mapping[str, Any]) -> None:
    """Print one JSON object alone on standard output."""
    click.echo(json.dumps(results))


def warn(remark: str) -> None:
    """Show a remark of the library as a warning."""
    say(f"warning: {remark}", fg="yellow")


def say_written(output: Path, rows: int, as_json: bool) -> None:
    """Say which file was written."""
    if as_json:
        print_json({"output": str(output), "rows": rows})
    else:
        click.echo(output)


class Meter:
    """A counter of units of work: ``advance`` after each, ``note`` for a remark."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = 0
        self.start = time.monotonic()
        self.before = 0

    def begin(self, done: int) -> None:
        """Start after the units that were done before."""
        self.done = self.before = done

    @property
    def rate(self) -> float:
        """The units a second so far."""
        return (self.done - self.before) / max(time.monotonic() - self.start, 1e-9)

    def advance(self) -> None:
        """Count one more unit."""
        self.done += 1

    def note(self, text: str) -> None:
        """Take a remark; this meter shows none."""


class Bar(Meter):
    """A progress bar, for terminals."""

    def __init__(self, label: str, total: int, unit: str, progress: Progress) -> None:
        super().__init__(label, total, unit)
        self.progress = progress
        self.task = progress.add_task(label, total=total, note="", rate="")

    def begin(self, done: int) -> None:
        """Start after the units that were done before."""
        super().begin(done)
        self.progress.update(self.task, completed=done)

    def advance(self) -> None:
        """Count one more unit."""
        super().advance()
        self.progress.update(self.task, advance=1, rate=f"{self.rate:.1f} {self.unit}/s")

    def note(self, text: str) -> None:
        """Show a remark beside the bar."""
        self.progress.update(self.task, note=text)


class Lines(Meter):
    """A meter that prints a plain line after each twentieth of the work, for logs."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        super().__init__(label, total, unit)
        self.printed = 0
        self.text = ""

    def begin(self, done: int) -> None:
        """Start after the units that were done before."""
        super().begin(done)
        self.printed = done * PLAIN_LINES // self.total

    def advance(self) -> None:
        """Count one more unit, and print a line if it is due."""
        super().advance()
        if self.done * PLAIN_LINES // self.total > self.printed or self.done == self.total:
            self.printed = self.done * PLAIN_LINES // self.total
            left = (self.total - self.done) / self.rate
            say(
                f"{self.label}: {self.done}/{self.total} {self.unit}, {self.rate:.1f} {self.unit}/s, "
                f"{duration(left)} left{', ' if self.text else ''}{self.text}"
            )

    def note(self, text: str) -> None:
        """Keep a remark for the next line."""
        self.text = text


@contextmanager
def meter(label: str, total: int, unit: str, *, quiet: bool) -> Iterator[Meter]:
    """Show a meter: a bar on a terminal, plain lines elsewhere, nothing if quiet."""
    console = Console(stderr=True)
    if quiet:
        yield Meter(label, total, unit)
    elif not console.is_terminal:
        yield Lines(label, total, unit)
    else:
        columns = [
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"),
        ]
        columns += [TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}")]
        with Progress(*columns, console=console) as progress:
            yield Bar(label, total, unit, progress)


class Downloads:
    """A plain line for each file that is downloaded, for logs."""

    def __init__(self) -> None:
        self.files: dict[str, Any] = {}

    def __call__(self, name: str, done: int, total: int | None) -> None:
        """Print a line for a file whose download begins."""
        if name not in self.files:
            self.files[name] = total
            say(f"downloading {name}{f', {decimal(total)}' if total else ''}")


class DownloadBars(Downloads):
    """A progress bar for each file that is downloaded, for terminals; nothing is shown before the first."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress = progress

    def __call__(self, name: str, done: int, total: int | None) -> None:
        """Show the progress of a file."""
        self.progress.start()
        if name not in self.files:
            self.files[name] = self.progress.add_task(name, total=total)
        self.progress.update(TaskID(self.files[name]), completed=done, total=total)


@contextmanager
def downloads(*, quiet: bool) -> Iterator[Callable[[str, int, int | None], None] | None]:
    """Yield the function to call as files arrive: it shows bars on a terminal, lines elsewhere; None if quiet."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield None if quiet else Downloads()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=console)
    try:
        yield DownloadBars(progress)
    finally:
        progress.stop()


@contextmanager
def training(*others: "Callable[[Status], None]", quiet: bool) -> "Iterator[Callable[[Status], None]]":
    """Yield the ``track`` of a training: it shows a meter of steps with the last epoch's bound, and calls ``others``."""
    with ExitStack() as stack:
        meters: list[Meter] = []

        def track(status: "Status") -> None:
            for other in others:
                other(status)
            if not meters:
                meters.append(stack.enter_context(meter("training", status.total_steps, "steps", quiet=quiet)))
                meters[0].begin(status.steps - 1)
            if status.record is None:
                meters[0].advance()
            else:
                bounds = ((key, value) for key, value in status.record.items() if key.endswith("elbo_nats"))
                bound, nats = next(bounds, ("loss_nats", status.record["loss_nats"]))
                name = bound.removesuffix("_nats").replace("_", " ")
                meters[0].note(f"epoch {status.record['epoch']}, {name} {nats:.2f} nats")

        yield track


def once(line: str) -> "Callable[[Status], None]":
    """Return a ``track`` that prints a line at the first step, when nothing is refused any more."""
    left = [line]

    def track(status: "Status") -> None:
        while left:
            say(left.pop())

    return track


class _Lines(logging.Handler):
    """A handler that prints the messages of the library, warnings in yellow."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            say(f"warning: {record.getMessage()}", fg="yellow")
        else:
            say(record.getMessage())


@contextmanager
def log_to_console(*, quiet: bool, silent: bool = False) -> Iterator[None]:
    """Print log messages of the library within the context, only warnings if quiet, and nothing at all if silent."""
    handler, logger = _Lines(), logging.getLogger("pyrovae.experiments")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.CRITICAL if silent else logging.WARNING if quiet else logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if silent else "always", UserWarning)
            warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}", fg="yellow")
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def advance_each(items: Iterable[T], advance: Callable[[], None]) -> Iterator[T]:
    """Yield the items, and advance a meter after each."""
    for item in items:
        yield item
        advance()


def progress_track(label: str, unit: str, *, quiet: bool) -> Callable[[Sequence[T]], Iterator[T]]:
    """Return the ``track`` of functions that measure: it wraps a sequence and shows its progress by a meter."""

    def track(parts: Sequence[T]) -> Iterator[T]:
        with meter(label, len(parts), unit, quiet=quiet) as showing:
            yield from advance_each(parts, showing.advance)

    return track
