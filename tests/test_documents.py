"""The documentation has every public name, each with a docstring, and every page is found from another one."""

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

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


def test_every_module_that_pages_import_from_is_in_the_reference():
    pages = [path.read_text() for path in DOCS.rglob("*.md") if path.relative_to(DOCS).parts[0] not in MADE]
    imported = set(re.findall(r"^from (pyrovae\.[\w.]+) import", "\n".join(pages), re.MULTILINE))
    assert imported <= set(MODULES)


def test_what_is_left_out_of_a_module_is_documented_elsewhere():
    for name, left_out in re.findall(r"automodule:: ([\w.]+)\n   :exclude-members: (.+)", REFERENCE):
        for part in left_out.split(", "):
            assert part in pyrovae.__all__ or part in NOT_FOR_READERS, f"{name}.{part}"


# What the library itself calls between its modules.
NOT_FOR_READERS = {"Steps", "PlannedSteps", "refuse_what_has_no_bounds", "bounded"}
