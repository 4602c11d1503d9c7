"""The command line: ``pyrovae fit``, ``evaluate``, ``compare``, ``bounds``, ``recipes`` and ``datasets``, one file each.

These files put the library's parts together and add none of their own. They import torch inside the commands, where work
starts, so that help and refusals come at once.
"""

import signal
import sys
from typing import Any

import click

from pyrovae.errors import InputError

from .bounds import bounds
from .compare import compare
from .datasets import datasets
from .evaluate import evaluate
from .fit import fit
from .recipes import recipes


class OneLineErrors(click.Group):
    """Prints what the user can mend in one line and exits with 2; a bug of ours keeps its traceback."""

    def main(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102
        try:
            result = super().main(*args, **kwargs | {"standalone_mode": False})
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(2)
        except (click.ClickException, InputError) as error:
            message = error.format_message() if isinstance(error, click.ClickException) else str(error)
            click.echo(f"error: {' '.join(message.split())}", err=True)
            sys.exit(2)
        except KeyboardInterrupt as error:
            # Of a training, whose state is saved; click makes any other one an Abort.
            click.echo(f"interrupted: {error}", err=True)
            sys.exit(128 + getattr(error, "number", signal.SIGINT))
        except click.Abort as error:
            cause = error.__cause__ or error.__context__
            click.echo(f"interrupted{f': {cause}' if str(cause or '') else ''}", err=True)
            sys.exit(128 + getattr(cause, "number", signal.SIGINT))
        sys.exit(result if isinstance(result, int) else 0)


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="pyrovae")
def main() -> None:
    """Variational autoencoders as Pyro programs: trained, measured and drawn."""


for command in (fit, evaluate, compare, bounds, recipes, datasets):
    main.add_command(command)
