"""The page of an ``Explorer`` on this machine alone: a server on the loopback interface, behind a random token.

Every request is refused with 403 that does not carry the token, that names another host than this server (a name that was made
to point here) or that a page of another origin sends; and so is every address but the four that there are.
"""

from __future__ import annotations

import logging
import secrets
import socket
from importlib import resources
from typing import TYPE_CHECKING, Any

from pyrovae.errors import InputError
from pyrovae.extras import import_extra

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from pyrovae.experiments.exploring.explorer import Explorer

HOST, MOST_BYTES = "127.0.0.1", 2**22
PAGES = {
    "/": ("explorer.html", "text/html"),
    "/explorer.js": ("explorer.js", "text/javascript"),
    "/explorer.css": ("explorer.css", "text/css"),
}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}

logger = logging.getLogger(__name__)


class Server:
    """A server of one explorer, on a port of the loopback interface that is free, or on a given one.

    Args:
        explorer: what answers.
        port: where to listen; zero for any that is free.

    Raises:
        InputError: where the extra ``explore`` is not installed, and for a port that is taken.
    """

    def __init__(self, explorer: Explorer, port: int = 0) -> None:
        for package in ("starlette", "uvicorn"):
            import_extra(package, "explore", "for the page")
        self.explorer, self.token = explorer, secrets.token_urlsafe(24)
        self.socket = _listening(port)
        self.port = self.socket.getsockname()[1]

    @property
    def address(self) -> str:
        """The address of the page, token included."""
        return f"http://{HOST}:{self.port}/?token={self.token}"

    def run(self) -> None:
        """Serve until Ctrl-C."""
        import uvicorn

        settings = uvicorn.Config(self.application(), log_level="critical", access_log=False, lifespan="off")
        uvicorn.Server(settings).run(sockets=[self.socket])

    def application(self) -> Starlette:
        """The pages, and the answers to questions."""
        from starlette.applications import Starlette
        from starlette.routing import Route

        return Starlette(routes=[Route("/{path:path}", self._respond, methods=["GET", "POST"])])

    async def _respond(self, request: Request) -> Response:
        from starlette.responses import JSONResponse, PlainTextResponse, Response

        if not self._is_allowed(request):
            return PlainTextResponse("refused", 403, headers=HEADERS)
        if request.method == "GET":
            name, kind = PAGES[request.url.path]
            text = (resources.files(__package__) / name).read_text("utf-8").replace("TOKEN", self.token)
            return Response(text, media_type=kind, headers=HEADERS)
        try:
            return JSONResponse(await self._answer(request), headers=HEADERS)
        except InputError as error:
            return JSONResponse({"error": str(error)}, 400, headers=HEADERS)
        except Exception as error:
            logger.exception("a question was not answered")
            return JSONResponse({"error": fault(error)}, 500, headers=HEADERS)

    def _is_allowed(self, request: Request) -> bool:
        """True where a request comes from the page itself, for an address that exists."""
        hosts = [f"{name}:{self.port}" for name in (HOST, "localhost")]
        token = request.headers.get("x-token") or request.query_params.get("token") or ""
        origin = request.headers.get("origin")
        exists = request.url.path in PAGES if request.method == "GET" else request.url.path == "/ask"
        return (
            exists
            and secrets.compare_digest(token.encode(), self.token.encode())
            and request.headers.get("host") in hosts
            and (origin is None or origin in [f"http://{host}" for host in hosts])
        )

    async def _answer(self, request: Request) -> dict[str, Any]:
        """The answer to a question in JSON; one at a time, beside the loop that serves.

        Raises:
            InputError: for what is no question.
        """
        from json import loads

        from starlette.concurrency import run_in_threadpool

        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MOST_BYTES:
                raise InputError(f"expected a question of at most {MOST_BYTES:,} bytes; got more")
        try:
            asked = loads(body)
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict) or not isinstance(asked.get("question"), str):
            raise InputError('expected a question in JSON, {"question": NAME, ...}; got something else')
        return await run_in_threadpool(self.explorer.answer, asked["question"], asked)


def fault(error: Exception) -> str:
    """A line on an error that nobody has foreseen."""
    return f"this is a fault of pyrovae: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _listening(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
        listening.listen(16)
    except OSError as error:
        listening.close()
        raise InputError(f"expected a free port; {port} is not ({error.strerror}): name another, --port 0 finds one") from error
    return listening
