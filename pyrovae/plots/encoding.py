"""The files of figures as bytes, the same each time."""

from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
# Metadata without a date, and settings without random numbers.
_UNDATED: dict[str, dict[str, Any]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
_SETTINGS: Any = {"svg.hashsalt": "pyrovae", "svg.fonttype": "none"}


def encode_figure(figure: Figure, kind: str = "png", **options: Any) -> bytes:
    """Encode a figure as the content of a file, without a date.

    Args:
        figure: the figure.
        kind: one of ``FORMATS``. Text in ``svg`` stays text.
        options: options of ``savefig``.
    """
    content = BytesIO()
    with matplotlib.rc_context(_SETTINGS):
        figure.savefig(content, format=kind, metadata=_UNDATED[kind], **options)
    return content.getvalue()
