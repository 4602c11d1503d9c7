"""``pyrovae datasets``: list the datasets, find or fetch their files, and verify them."""

from collections.abc import Iterator
from pathlib import Path

import click

from pyrovae.data.benchmarks import DATASETS, Benchmark
from pyrovae.data.published_files.sources import Source, candidate_folders, files_in, find, is_original, locate

from . import console, options

NAME = click.Choice(list(DATASETS))


@click.group(invoke_without_command=True)
@options.root
@click.pass_context
def datasets(context: click.Context, root: str | None) -> None:
    """List the datasets that --dataset knows; fetch their files, or verify those at hand."""
    context.default_map = {command: {"root": root} for command in ("fetch", "verify")}
    if context.invoked_subcommand is None:
        title = "dataset: description; shape, examples for training / validation / test, licence; folder of its files"
        console.show({name: _facts(each, root) for name, each in DATASETS.items()}, title=title)


@datasets.command()
@click.argument("name", type=NAME)
@options.root
@options.mirror
def fetch(name: str, root: str | None, mirror: str | None) -> None:
    """Download the files of a dataset into the cache, unless they are at hand, and print their paths."""
    for path in fetch_files(name, root, mirror, quiet=False).values():
        click.echo(path)
    if DATASETS[name].source is None:
        console.say(f"{name} ships with a package: there is nothing to fetch")


@datasets.command()
@click.argument("names", nargs=-1, type=NAME, metavar="[NAME]...")
@options.root
@click.pass_context
def verify(context: click.Context, names: tuple[str, ...], root: str | None) -> None:
    """Check the files at hand against the authors' checksums; exit with 1 if any is damaged."""
    damaged = seen = False
    for source in filter(None, (DATASETS[name].source for name in names or DATASETS)):
        at_hand = list(_at_hand(source, root))
        for name, path in at_hand:
            result = is_original(source, name, path)
            damaged, seen = damaged or result is False, True
            click.echo(f"{source.name}: {path}: {_judged(source, result, path)}")
        if names and not at_hand:
            click.echo(f"{source.name}: {_to_fetch(source.name)}")
    if not (names or seen):
        console.say("no file of any dataset is at hand: see 'pyrovae datasets'")
    context.exit(int(damaged))


def fetch_files(name: str, root: str | None, mirror: str | None, *, quiet: bool) -> dict[str, Path]:
    """Find the files of a dataset, or download them with progress shown; none for data that come with a package."""
    source = DATASETS[name].source if name in DATASETS else None
    if source is None:
        return {}
    with console.downloads(quiet=quiet) as progress:
        return locate(source, root, mirror, progress)


def _facts(benchmark: Benchmark, root: str | None) -> str:
    source = benchmark.source
    what = (benchmark.load.__doc__ or "").splitlines()[0]
    shape = " x ".join(map(str, benchmark.shape))
    sizes = " / ".join(f"{size:,}" if size else "none" for size in benchmark.sizes)
    licence = source.licence if source else "that of the package"
    return f"{what}\n{shape}; {sizes}; licence: {licence}\n{_whereabouts(source, root)}"


def _whereabouts(source: Source | None, root: str | None) -> str:
    if source is None:
        return "ships with a package"
    folders = dict.fromkeys(str(path.parent) for path in find(source, root).values())
    unknown = [name for name, checksum in source.checksums.items() if not checksum]
    remark = f" (no published checksum of {', '.join(unknown)})" if unknown else ""
    return (", ".join(folders) or _to_fetch(source.name)) + remark


def _to_fetch(name: str) -> str:
    return f"not found: fetch with 'pyrovae datasets fetch {name}'"


def _at_hand(source: Source, root: str | None) -> Iterator[tuple[str, Path]]:
    for folder in dict.fromkeys(candidate_folders(source, root)):
        yield from files_in(source, folder).items()


def _judged(source: Source, result: bool | None, path: Path) -> str:
    if result is None:
        reason = "no published checksum" if path.name in source.checksums else "decompressed"
        return f"present, unverifiable ({reason})"
    return "verified" if result else f"damaged: delete it, then 'pyrovae datasets fetch {source.name}'"
