"""A figure as bytes, the same each time."""

from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
# What would be a date, or drawn at random.
_UNDATED: dict[str, dict[str, Any]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
_SETTINGS: Any = {"svg.hashsalt": "pyrovae", "svg.fonttype": "none"}


def encoded(figure: Figure, kind: str = "png", **options: Any) -> bytes:
    """The content of a file of a figure, without a date.

    Args:
        figure: to be written.
        kind: one of ``FORMATS``. Text in ``svg`` stays text.
        options: of ``savefig``.
    """
    content = BytesIO()
    with matplotlib.rc_context(_SETTINGS):
        figure.savefig(content, format=kind, metadata=_UNDATED[kind], **options)
    return content.getvalue()
