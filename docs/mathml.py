"""Formulas as MathML, which browsers draw by themselves: no script is loaded from anywhere."""

from html import escape
from typing import Any

from latex2mathml.converter import convert


def add_mathml(app: Any) -> None:
    """Add the renderer ``mathml`` to a Sphinx application."""
    app.add_html_math_renderer("mathml", inline_renderers=(_inline, None), block_renderers=(_block, None))


def _inline(writer: Any, node: Any) -> None:
    writer.body.append(f'<span class="math">{_mathml(node.astext(), "inline")}</span>')
    from docutils import nodes

    raise nodes.SkipNode


def _block(writer: Any, node: Any) -> None:
    writer.body.append(f'<div class="math">{_mathml(node.astext(), "block")}</div>')
    from docutils import nodes

    raise nodes.SkipNode


def _mathml(latex: str, display: str) -> str:
    return convert(latex.strip(), display=display).replace("<math ", f'<math aria-label="{escape(latex.strip())}" ', 1)
