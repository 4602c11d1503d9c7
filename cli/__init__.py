"""The command line: a file for each command but ``pack`` and ``unpack``, which share one.

These files only combine parts of the library. They import torch inside the commands, so that help and refusals come at once.
"""

import click

from pyrovae.errors import InputError
from pyrovae.experiments.launch import launched_number

from .bounds import bounds
from .calibrate import calibrate
from .compare import compare
from .compress import compress, decompress
from .datasets import datasets
from .detect import detect
from .diagnose import diagnose
from .evaluate import evaluate
from .explore import explore
from .export import export
from .fit import fit
from .pack import pack, unpack
from .plot import plot
from .recipes import recipes
from .refusals import OneLineErrors
from .report import report
from .reproduce import reproduce
from .sweep import sweep
from .using import encode, impute, reconstruct, sample, score


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="pyrovae")
@click.pass_context
def main(context: click.Context) -> None:
    """Variational autoencoders as Pyro programs: trained, measured and drawn."""
    _, size = launched_number()
    if size > 1 and context.invoked_subcommand != "fit":
        raise InputError(
            f"expected one process for {context.invoked_subcommand!r}; torchrun started {size}, of which only 'fit' makes use: "
            f"call it as pyrovae {context.invoked_subcommand}"
        )


_USING = (encode, score, reconstruct, sample, impute)
for command in (
    fit,
    evaluate,
    compare,
    bounds,
    calibrate,
    plot,
    report,
    explore,
    sweep,
    reproduce,
    *_USING,
    compress,
    decompress,
    detect,
    diagnose,
    export,
    pack,
    unpack,
    recipes,
    datasets,
):
    main.add_command(command)
