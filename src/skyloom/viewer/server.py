"""The viewer on HTTP: for this machine alone, at an address that nobody can guess, and with nothing from elsewhere.

What is refused before any page sees it: an address without the token, a Host other than this machine's (a page of
another site can make its own name point here), and an Origin other than the viewer's own. A policy in every answer
keeps the browser from asking anybody else for anything.
"""

from __future__ import annotations

import logging
import secrets
import webbrowser
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.document import Document
from bokeh.resources import Resources
from bokeh.server.server import BaseServer
from bokeh.server.tornado import BokehTornado
from bokeh.server.views.static_handler import StaticHandler
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.ioloop import IOLoop
from tornado.web import ErrorHandler, OutputTransform, RedirectHandler

from skyloom.core.serving import Server, listen
from skyloom.viewer.page import fill_page
from skyloom.viewer.shelf import Shelf

__all__ = ["ViewServer", "serve"]

HOST = "127.0.0.1"
"""Never another one: whoever reaches the viewer reads the files."""
LARGEST_MESSAGE = 64 << 20
"""Bytes that a browser may send at once, such as a saved view."""
UNUSED = 60_000
"""Milliseconds after which a closed page is forgotten; a reload makes a new one."""


def serve(
    path: str | Path,
    *,
    port: int = 0,
    open_browser: bool = True,
    announce: Callable[[str], object] = str,
) -> None:
    """Show a folder of results, a file or a store in the browser, until the process is interrupted.

    Parameters
    ----------
    path : str or path
        A results directory, a product, image or cube file, or a store.
    port : int
        0: any that is free.
    open_browser : bool
        Whether to open the page in the browser of the desktop.
    announce : callable
        Called with the address, token included, as soon as requests are answered.

    Raises
    ------
    InputError
        When the path holds nothing to look at, or the port cannot be listened on.
    """
    server = ViewServer(path, port=port)

    def started(address: str) -> None:
        announce(address)
        if open_browser:
            # Some browsers answer only when they are closed. What a browser is started with is seen by every user of
            # the machine: it is not the address itself, but one that leads there once.
            Thread(target=webbrowser.open, args=(server.invitation(),), daemon=True).start()

    server.run(started)


class ViewServer(Server):
    """The viewer of one path: in a thread as a context manager, or by `run`.

    Parameters
    ----------
    path : str or path
    port : int
        0: any that is free.

    Attributes
    ----------
    address : str
        Of the page, token included.

    Raises
    ------
    InputError
        As `serve`.
    """

    def __init__(self, path: str | Path, *, port: int = 0) -> None:
        self.shelf = Shelf(path)
        super().__init__()
        self._socket = listen(HOST, port)
        self.port: int = self._socket.getsockname()[1]
        self.token = secrets.token_urlsafe(24)
        self.address = f"http://{HOST}:{self.port}/{self.token}/"
        self._invitations: set[str] = set()

    def invitation(self) -> str:
        """Return an address that leads to the page once, whoever asks for it first."""
        word = secrets.token_urlsafe(24)
        self._invitations.add(word)
        return f"http://{HOST}:{self.port}/{word}"

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        application = _Guarded(self.shelf, self.port, self.token, self._invitations)
        http = HTTPServer(application, max_buffer_size=LARGEST_MESSAGE)
        http.add_socket(self._socket)
        server = BaseServer(IOLoop.current(), application, http)
        server.start()
        try:
            yield
        finally:
            server.stop()
            await http.close_all_connections()
            self.shelf.close()


class _Guarded(BokehTornado):
    """Bokeh's application behind the token, for requests that were meant for it."""

    def __init__(self, shelf: Shelf, port: int, token: str, invitations: set[str]) -> None:
        self._hosts = {f"{HOST}:{port}", f"localhost:{port}"}
        self._token, self._invitations = token, invitations
        self._components = ["bokeh", "bokeh-widgets"]
        if shelf.first("store") is not None:
            self._components.append("bokeh-tables")

        def make(document: Document) -> None:
            fill_page(document, shelf)

        super().__init__(
            {"/": Application(FunctionHandler(make))},
            prefix=token,
            extra_websocket_origins=sorted(self._hosts),
            use_index=False,
            # What a browser sends is not needed to make a page, and would be kept in its token.
            include_headers=[],
            include_cookies=[],
            unused_session_lifetime_milliseconds=UNUSED,
            websocket_max_message_size_bytes=LARGEST_MESSAGE,
            log_function=_log_request,
            transforms=[partial(_Policy, sorted(self._hosts))],
        )

    def resources(self, absolute_url: str | bool | None = None) -> Resources:  # noqa: ARG002  # as Bokeh calls it
        """Return where scripts come from: here, whatever Bokeh is set to; those for formulas and WebGL stay away."""
        return Resources(
            mode="server",
            root_url=f"/{self._token}",
            path_versioner=StaticHandler.append_version,
            components=self._components,
        )

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        """Find what answers a request; one that was not meant for this page finds nothing."""
        if self._is_foreign(request):
            return self.get_handler_delegate(request, ErrorHandler, {"status_code": 404})
        word = request.path.removeprefix("/")
        if word in self._invitations:
            self._invitations.remove(word)
            page = {"url": f"/{self._token}/", "permanent": False}
            return self.get_handler_delegate(request, RedirectHandler, page)
        first = request.path.split("/", 2)[1:2]
        if not first or not secrets.compare_digest(first[0].encode(), self._token.encode()):
            return self.get_handler_delegate(request, ErrorHandler, {"status_code": 404})
        return super().find_handler(request, **kwargs)

    def _is_foreign(self, request: HTTPServerRequest) -> bool:
        """Tell a request for another machine, or from a page of another one."""
        origins = request.headers.get_list("Origin")
        allowed = {f"http://{host}" for host in self._hosts}
        return request.headers.get("Host", "").lower() not in self._hosts or any(
            origin.lower() not in allowed for origin in origins
        )


class _Policy(OutputTransform):
    """Adds to every answer what the browser must not do with it."""

    def __init__(self, hosts: Iterable[str], request: HTTPServerRequest) -> None:
        super().__init__(request)
        sockets = " ".join(f"ws://{host}" for host in hosts)
        # Bokeh makes its callbacks of text, hence 'unsafe-eval'; the text comes from here.
        self._policy = (
            "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline';"
            f" img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' {sockets};"
            " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )

    def transform_first_chunk(
        self,
        status_code: int,
        headers: HTTPHeaders,
        chunk: bytes,
        finishing: bool,  # noqa: ARG002  # as tornado calls it
    ) -> tuple[int, HTTPHeaders, bytes]:
        headers["Content-Security-Policy"] = self._policy
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Referrer-Policy"] = "no-referrer"
        headers["Cross-Origin-Resource-Policy"] = "same-origin"
        headers["Server"] = "Skyloom"
        return status_code, headers, chunk


def _log_request(handler: Any) -> None:
    request = handler.request
    _log.info("%d %s", handler.get_status(), request.method)


_log = logging.getLogger(__name__)
