"""The documentation has every public name, each with a docstring, and its commands and flags are those of the command line."""

import inspect
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
from pyrovae.cli import main

import pyrovae

DOCS = Path(__file__).parent.parent / "docs"
REFERENCE = "\n".join(path.read_text() for path in sorted((DOCS / "reference").glob("*.md")))
MADE = {"_build", "generated", "notebooks"}


def directives(kind):
    return set(re.findall(rf"^\.\. (?:{kind}):: ([\w.]+)", REFERENCE, re.MULTILINE))


MODULES = sorted(directives("automodule"))


@pytest.mark.parametrize("name", pyrovae.__all__)
def test_every_public_name_is_in_the_reference(name):
    assert name in directives("autofunction|autoclass|autoexception|py:data")
    documented = getattr(pyrovae, name)
    # A table is described on its page.
    assert isinstance(documented, dict) or inspect.getdoc(documented)


@pytest.mark.parametrize("name", MODULES)
def test_every_public_part_of_a_module_of_the_reference_has_a_docstring(name):
    module = import_module(name)
    parts = [each for each in vars(module).values() if getattr(each, "__module__", "") == name and hasattr(each, "__name__")]
    undocumented = [each.__name__ for each in parts if not each.__name__.startswith("_") and not each.__doc__]
    assert not undocumented
    assert module.__doc__


def pages():
    return {path: path.read_text() for path in sorted(DOCS.rglob("*.md")) if path.relative_to(DOCS).parts[0] not in MADE}


def test_every_module_that_pages_import_from_is_in_the_reference():
    imported = set(re.findall(r"^from (pyrovae\.[\w.]+) import", "\n".join(pages().values()), re.MULTILINE))
    assert imported <= set(MODULES)


def test_what_is_left_out_of_a_module_is_documented_elsewhere():
    for name, left_out in re.findall(r"automodule:: ([\w.]+)\n   :exclude-members: (.+)", REFERENCE):
        for part in left_out.split(", "):
            assert part in pyrovae.__all__ or part in NOT_FOR_READERS, f"{name}.{part}"


# What the library itself calls between its modules.
NOT_FOR_READERS = {"Steps", "PlannedSteps", "refuse_what_has_no_bounds", "measure_bounds"}


def command_lines():
    """The command lines of each page: those in fences, a line for each command."""
    for path, text in pages().items():
        for kind, block in re.findall(r"^```(.*?)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            for line in re.split(r"\n|&&", block):
                if not kind and line.strip().startswith("pyrovae "):
                    yield pytest.param(line.strip(), id=f"{path.relative_to(DOCS)}: {line.strip()}")


@pytest.mark.parametrize("line", list(command_lines()))
def test_a_command_line_of_a_page_is_one(line):
    _, name, *words = shlex.split(line, comments=True)
    command = main.commands[name]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if word.startswith("-")} <= known
