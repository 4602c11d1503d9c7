"""Docstrings begin with an imperative or a head noun, so that the first line makes sense without the code."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "pyrovae").rglob("*.py"), *(ROOT / "cli").glob("*.py")])
# Words that refer to what stands elsewhere, or begin a clause without its main one.
FORBIDDEN = (
    *("What", "Whatever", "Of", "How", "Whether", "Where", "When", "Why", "Which", "Who", "Whose", "As", "So", "If", "Within"),
    *(
        "Those",
        "These",
        "That",
        "This",
        "It",
        "Its",
        "They",
        "Their",
        "Some",
        "Each",
        "Both",
        "One",
        "All",
        "Others",
        "The same",
    ),
    *("By", "In", "On", "With", "From", "To", "Over", "After", "Behind", "Beside", "Neither", "Not", "Only"),
)
OPENING = re.compile(rf"(?:{'|'.join(FORBIDDEN)})\b(?!-)")
# A definite noun phrase may begin with these words.
ALLOWED = re.compile(r"The same \w+")


def docstrings(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), getattr(node, "name", "module"), text.splitlines()[0]


def is_refused(line):
    return bool(OPENING.match(line)) and not ALLOWED.match(line)


@pytest.mark.parametrize(
    ("line", "refused"),
    [
        ("What a person sees.", True),
        ("Of all images.", True),
        ("Whether examples are rows of a table.", True),
        ("The same.", True),
        ("The same programs on a device.", False),
        ("Return the number of classes.", False),
        ("The number of classes.", False),
        ("One-hot classes.", False),
    ],
)
def test_openings_are_distinguished(line, refused):
    assert is_refused(line) == refused


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_first_lines_of_docstrings_make_sense_alone(path):
    wrong = [f"{path.relative_to(ROOT)}:{line}: {name}: {first}" for line, name, first in docstrings(path) if is_refused(first)]
    assert not wrong, "begin with an imperative or a head noun:\n" + "\n".join(wrong)
