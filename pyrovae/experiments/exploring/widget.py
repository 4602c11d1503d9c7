"""The page of an ``Explorer`` as a widget of notebooks, by anywidget's contract."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

from pyrovae.errors import InputError
from pyrovae.experiments.exploring.server import fault
from pyrovae.extras import import_extra

if TYPE_CHECKING:
    from pyrovae.experiments.exploring.explorer import Explorer


def widget(explorer: Explorer) -> Any:
    """A widget that shows the page; its trait ``latents`` holds those that are decoded just now, by layer.

    Raises:
        InputError: where the extra ``explore`` is not installed.
    """
    import_extra("anywidget", "explore", "for the widget")
    import anywidget
    import traitlets

    files = resources.files(__package__)

    class ExplorerWidget(anywidget.AnyWidget):
        """The page; messages are questions and answers."""

        _esm = (files / "explorer.js").read_text("utf-8")
        _css = (files / "explorer.css").read_text("utf-8")
        latents = traitlets.Dict().tag(sync=True)

        def __init__(self) -> None:
            super().__init__()
            self.on_msg(self._ask)

        def _ask(self, _: Any, asked: Any, buffers: Any) -> None:
            try:
                answer = explorer.answer(str(asked.get("question")), asked)
            except InputError as error:
                answer = {"error": str(error)}
            except Exception as error:
                # The page waits for an answer.
                answer = {"error": fault(error)}
            self.send({"id": asked.get("id"), "answer": answer})

    return ExplorerWidget()
