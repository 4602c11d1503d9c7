"""The names in the table of a family, without importing the family."""

import ast
import importlib.util
from typing import Any


def names_in(table: str) -> list[str]:
    """Read the names in a family's table, ``module:TABLE``, from its source, since importing the module may import torch."""
    module, variable = table.split(":")
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    with open(spec.origin, encoding="utf-8") as source:
        for node in ast.parse(source.read()).body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and ast.unparse(_target(node)) == variable:
                names: Any = node.value.keys if isinstance(node.value, ast.Dict) else node.value
                return [ast.literal_eval(name) for name in getattr(names, "elts", names)]
    raise LookupError(table)


def _target(node: ast.Assign | ast.AnnAssign) -> ast.expr:
    return node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
