"""What a person sees: progress on standard error, results on standard output."""

import json
import logging
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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
    """A line on standard error; colours only where it is a terminal."""
    click.secho(message, err=True, **style)


def show(rows: Mapping[str, str], title: str) -> None:
    """A table of two columns on standard output."""
    table = Table(title=escape(title), show_header=False, title_justify="left")
    for name, value in rows.items():
        # What stands in brackets is a hash or part of a path, and no style.
        table.add_row(name, escape(value))
    # Wide enough off a terminal that no path is ever broken.
    console = Console()
    Console(width=console.width if console.is_terminal else 160).print(table)


def show_list(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table with a header on standard output."""
    table = Table(*columns)
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console()
    Console(width=console.width if console.is_terminal else 160).print(table)


def print_json(results: Mapping[str, Any]) -> None:
    """One JSON object, alone on standard output."""
    click.echo(json.dumps(results))


class Meter:
    """Counts steps of work; ``advance`` after each, ``note`` with what is known by now."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = 0
        self.start = time.monotonic()
        self.before = 0

    def begin(self, done: int) -> None:
        """So many units were done before."""
        self.done = self.before = done

    @property
    def rate(self) -> float:
        """Units a second so far."""
        return (self.done - self.before) / max(time.monotonic() - self.start, 1e-9)

    def advance(self) -> None:
        """One more unit is done."""
        self.done += 1

    def note(self, text: str) -> None:
        """What is known by now."""


class Bar(Meter):
    """A progress bar, for terminals."""

    def __init__(self, label: str, total: int, unit: str, progress: Progress) -> None:
        super().__init__(label, total, unit)
        self.progress = progress
        self.task = progress.add_task(label, total=total, note="", rate="")

    def begin(self, done: int) -> None:
        """So many units were done before."""
        super().begin(done)
        self.progress.update(self.task, completed=done)

    def advance(self) -> None:
        """One more unit is done."""
        super().advance()
        self.progress.update(self.task, advance=1, rate=f"{self.rate:.1f} {self.unit}/s")

    def note(self, text: str) -> None:
        """What is known by now, beside the bar."""
        self.progress.update(self.task, note=text)


class Lines(Meter):
    """A plain line each twentieth of the way, for logs."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        super().__init__(label, total, unit)
        self.printed = 0
        self.text = ""

    def begin(self, done: int) -> None:
        """So many units were done before."""
        super().begin(done)
        self.printed = done * PLAIN_LINES // self.total

    def advance(self) -> None:
        """One more unit is done; say so if it is time."""
        super().advance()
        if self.done * PLAIN_LINES // self.total > self.printed or self.done == self.total:
            self.printed = self.done * PLAIN_LINES // self.total
            left = (self.total - self.done) / self.rate
            say(
                f"{self.label}: {self.done}/{self.total} {self.unit}, {self.rate:.1f} {self.unit}/s, "
                f"{duration(left)} left{', ' if self.text else ''}{self.text}"
            )

    def note(self, text: str) -> None:
        """What is known by now, for the next line."""
        self.text = text


@contextmanager
def meter(label: str, total: int, unit: str, *, quiet: bool) -> Iterator[Meter]:
    """A bar on a terminal, plain lines elsewhere, nothing where quiet."""
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
        """So much of a file has arrived."""
        if name not in self.files:
            self.files[name] = total
            say(f"downloading {name}{f', {decimal(total)}' if total else ''}")


class DownloadBars(Downloads):
    """A progress bar for each, for terminals; nothing appears before the first."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress = progress

    def __call__(self, name: str, done: int, total: int | None) -> None:
        """So much of a file has arrived."""
        self.progress.start()
        if name not in self.files:
            self.files[name] = self.progress.add_task(name, total=total)
        self.progress.update(TaskID(self.files[name]), completed=done, total=total)


@contextmanager
def downloads(*, quiet: bool) -> Iterator[Callable[[str, int, int | None], None] | None]:
    """What is to be told of each download: bars on a terminal, lines elsewhere; None where quiet."""
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
    """What is to be told of each step of a training: others, and a meter of the steps with the last epoch's bound beside it."""
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
                bound, nats = next((key, value) for key, value in status.record.items() if key.endswith("elbo_nats"))
                name = bound.removesuffix("_nats").replace("_", " ")
                meters[0].note(f"epoch {status.record['epoch']}, {name} {nats:.2f} nats")

        yield track


def once(line: str) -> "Callable[[Status], None]":
    """Return a ``track`` that says a line at the first step, after whatever is refused before."""
    left = [line]

    def track(status: "Status") -> None:
        while left:
            say(left.pop())

    return track


class _Lines(logging.Handler):
    """Prints what the library has to say, in yellow where it is a warning."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            say(f"warning: {record.getMessage()}", fg="yellow")
        else:
            say(record.getMessage())


@contextmanager
def logged(*, quiet: bool) -> Iterator[None]:
    """Within, warnings of the library are lines in yellow, and so is what it logs."""
    handler, logger = _Lines(), logging.getLogger("pyrovae.experiments")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}", fg="yellow")
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def tracked(items: Iterable[T], advance: Callable[[], None]) -> Iterator[T]:
    """The items, advancing a meter after each."""
    for item in items:
        yield item
        advance()


def metered(label: str, unit: str, *, quiet: bool) -> Callable[[Sequence[T]], Iterator[T]]:
    """What wraps a sequence so that a meter shows how far it is: the ``track`` of functions that measure."""

    def track(parts: Sequence[T]) -> Iterator[T]:
        with meter(label, len(parts), unit, quiet=quiet) as showing:
            yield from tracked(parts, showing.advance)

    return track
