"""The end of commands: errors that the user can mend are one line."""

import signal
import sys
from typing import Any

import click

from pyrovae.errors import InputError


def interrupt_with(advice: str) -> None:
    """Let Ctrl-C and SIGTERM interrupt the command, which then ends its own processes too, with advice on how to go on."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt(advice)

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)


class OneLineErrors(click.Group):
    """A group of commands that prints errors of the user in one line and exits with 2; a bug keeps its traceback."""

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
            # The interruption of a training, whose state is saved; click turns any other one into an Abort.
            click.echo(f"interrupted: {error}", err=True)
            sys.exit(128 + getattr(error, "number", signal.SIGINT))
        except click.Abort as error:
            cause = error.__cause__ or error.__context__
            click.echo(f"interrupted{f': {cause}' if str(cause or '') else ''}", err=True)
            sys.exit(128 + getattr(cause, "number", signal.SIGINT))
        sys.exit(result if isinstance(result, int) else 0)
