"""``pyrovae datasets``."""

import click

from pyrovae.data.benchmarks import DATASETS

from .console import show_list


@click.command()
def datasets() -> None:
    """List the datasets that --dataset knows."""
    show_list(("dataset", "what"), [(name, (each.load.__doc__ or "").splitlines()[0]) for name, each in DATASETS.items()])
