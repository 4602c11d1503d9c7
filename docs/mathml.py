"""Formulas as MathML, which browsers draw by themselves: no script is loaded from anywhere."""

import re
from html import escape
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

# Of functions, where no bracket follows.
NAMES = re.compile(r"(<m[io]>(?:log|exp|max|min)</m[io]>)(?!<mo[^>]*>&#x00028;)")


def add_mathml(app: Any) -> None:
    """Add the renderer ``mathml`` to a Sphinx application."""
    app.add_html_math_renderer(
        "mathml", inline_renderers=(_inline, None), block_renderers=(_block, None)
    )


def _inline(writer: Any, node: Any) -> None:
    writer.body.append(f'<span class="math">{_mathml(node.astext(), "inline")}</span>')
    raise nodes.SkipNode


def _block(writer: Any, node: Any) -> None:
    writer.body.append(f'<div class="math">{_mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def _mathml(latex: str, display: str) -> str:
    """A formula, with a thin space after the names of functions, which the converter leaves out."""
    made = NAMES.sub(
        r'\1<mspace width="0.17em"/>', convert(latex.strip(), display=display)
    )
    return made.replace("<math ", f'<math aria-label="{escape(latex.strip())}" ', 1)
