"""The flags of a recipe, which are generated from its fields, and the flags that several commands share."""

import ast
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import click

from pyrovae.errors import InputError, nearest
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.tables import names_in

Command = Callable[..., Any]

root = click.option(
    "--root",
    metavar="FOLDER",
    help="Folder of data files, each dataset in a folder of its name.  [default: $PYROVAE_DATA, else the cache]",
)
mirror = click.option(
    "--mirror",
    metavar="URL",
    help="Address to download missing files from, which may be file:///FOLDER.",
)
device = click.option("--device", metavar="NAME", help="Device: cpu, cuda, cuda:1, ...  [default: a GPU if there is one]")


def _set_threads(context: click.Context, parameter: click.Parameter, value: int | None) -> None:
    if value is not None:
        import torch

        torch.set_num_threads(value)


threads = click.option(
    "--threads",
    type=click.IntRange(min=1),
    expose_value=False,
    callback=_set_threads,
    help="Number of processor threads; of several trainings on one machine, give each a share of the cores.",
)
class_name = click.option(
    "--class",
    "class_name",
    metavar="CLASS",
    default="",
    help="Class of all examples, for a model conditioned on classes.  [default: as in DATA]",
)
seed = click.option(
    "--seed", type=click.IntRange(min=0, max=2**63 - 1), default=0, show_default=True, help="Seed of the random numbers."
)


def output(metavar: str, help: str) -> Callable[..., Any]:
    """The flag of the file that a command writes."""
    return click.option("-o", "--output", metavar=metavar, required=True, type=click.Path(path_type=Path), help=help)


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object alone on standard output.")


engine = click.option(
    "--engine",
    type=click.Choice(names_in("pyrovae.engine.choice:ENGINES")),
    default="auto",
    show_default=True,
    help="Engine of the steps: eager (plain Pyro), graph (captured) or compiled; auto chooses by the expected time.",
)


class Name(click.Choice[str]):
    """A name out of a table; the error for a misspelt name suggests the nearest."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:  # noqa: D102
        return f"{super().get_invalid_choice_message(value, ctx).rstrip('.')}{nearest(str(value), list(self.choices))}"


class CommaSeparated(click.ParamType):
    """A tuple from numbers or names separated by commas; 'none' is an empty one."""

    def __init__(self, number: Callable[[str], Any], name: str) -> None:
        self.number = number
        self.name = name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: D102
        if value == "none":
            return ()
        try:
            return value if isinstance(value, tuple) else tuple(self.number(each) for each in value.split(","))
        except ValueError:
            return self.fail(f"expected numbers separated by commas, as in 64,32,16; got {value!r}", param, ctx)


class KeywordArguments(click.ParamType):
    """A dictionary from the arguments of a call in Python syntax."""

    name = "NAME=VALUE,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: D102
        if isinstance(value, dict):
            return value
        try:
            call: Any = ast.parse(f"f({value})", mode="eval").body
            if call.args or not all(each.arg for each in call.keywords):
                raise ValueError(value)
            return {each.arg: ast.literal_eval(each.value) for each in call.keywords}
        except (ValueError, SyntaxError, AttributeError):
            return self.fail(f"expected arguments as Python writes them, as in 'momentum=0.9'; got {value!r}", param, ctx)


_TYPES: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "tuple[int, ...]": CommaSeparated(int, "N,N,..."),
    "tuple[str, ...]": CommaSeparated(str, "NAME,NAME,..."),
    "Mapping[str, Any]": KeywordArguments(),
}


def recipe_flags(command: Command) -> Command:
    """Add a flag for each field of ``Recipe`` that has one; a flag that is not used has the value None."""
    for each in reversed(fields(Recipe)):
        if each.metadata.get("flag", True):
            command = _flag(each)(command)
    return command


def _flag(each: Field[Any]) -> Callable[[Command], Command]:
    name = each.name.replace("_", "-")
    text = each.metadata["help"]
    if each.type == "bool":
        return click.option(f"--{name}/--no-{name}", default=None, help=text)
    table = each.metadata.get("table")
    kind = Name([*each.metadata.get("also", ()), *names_in(table)]) if table else _TYPES[str(each.type)]
    return click.option(f"--{name}", type=kind, default=None, help=text)


def value_of(name: str, text: str) -> Any:
    """The value of a field of a recipe from the text that its flag takes.

    Raises:
        InputError: for text that is no such value.
    """
    known = {each.name: each for each in fields(Recipe)}
    if name not in known:
        return text
    kind = click.BOOL if known[name].type == "bool" else _TYPES[str(known[name].type)]
    try:
        return click.types.convert_type(kind)(text)
    except click.BadParameter as error:
        raise InputError(f"--vary {name}: {error.message}") from error


def plain(value: Any) -> str:
    """The text of a setting for people."""
    if isinstance(value, dict):
        return ", ".join(f"{name}={plain(each)}" for name, each in value.items())
    if isinstance(value, tuple):
        return ",".join(map(plain, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
