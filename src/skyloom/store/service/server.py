"""The service on HTTP: requests in one thread, the work on them in others."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.web import Application, RequestHandler

from skyloom.core.serving import Server, listen
from skyloom.errors import FileFormatError, InputError
from skyloom.store.service import documents
from skyloom.store.service.links import LINKS_TYPE, links
from skyloom.store.service.obscore import FITS_FORMAT, Places
from skyloom.store.service.pages import root_page
from skyloom.store.service.parameters import Parameters, ServiceError
from skyloom.store.service.sia2 import FORMATS, answer
from skyloom.store.service.snapshot import Snapshot
from skyloom.store.service.soda import cutout, fits_bytes, read_request

__all__ = ["StoreServer", "is_loopback"]

_log = logging.getLogger("skyloom.store.service")
THREADS = 4
MOST_BYTES = 256_000_000
"""Of a cut-out, if not asked otherwise."""
MOST_ROWS = 100_000
"""Of a response, if not asked otherwise."""
BODY = 1 << 20
"""Bytes of a request; longer ones are refused."""
PIECE = 1 << 20
"""Bytes that are sent at a time."""
PATIENCE = 60.0
"""Seconds that a connection may be silent."""
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


class StoreServer(Server):
    """A store, answering SIA 2.0 and SODA 1.0 requests: in a thread as a context manager, or by `run`.

    Parameters
    ----------
    store : str or path
        A folder, or a packed file.
    host : str
        The address to listen on; others than those of this machine let everybody read the store.
    port : int
        0: any that is free.
    most_bytes : int
        Size of the largest cut-out.
    most_rows : int
        Rows of the longest response.
    base_url : str, optional
        The address as clients see it, where that is another one (behind a proxy).

    Attributes
    ----------
    address : str
        Of the service, once it runs.

    Raises
    ------
    InputError
        When there is no such store, or the address cannot be listened on.

    Examples
    --------
    >>> with StoreServer("sky") as server:  # doctest: +SKIP
    ...     found = pyvo.dal.SIA2Service(f"{server.address}/sia2").search(pos=(38.3, -0.13, 0.1))
    """

    def __init__(
        self,
        store: str | Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        most_bytes: int = MOST_BYTES,
        most_rows: int = MOST_ROWS,
        base_url: str | None = None,
    ) -> None:
        for name, value in (("most_bytes", most_bytes), ("most_rows", most_rows)):
            if value < 1:
                raise InputError(f"{name} is {value}; expected 1 or more", field=name)
        super().__init__()
        self.snapshot = Snapshot(store)
        self.host = host
        self.most_bytes = most_bytes
        self.most_rows = most_rows
        self.base_url = None if base_url is None else base_url.rstrip("/")
        name = _NOT_IN_NAMES.sub("-", Path(store).resolve().stem) or "store"
        self.publisher = f"ivo://skyloom.store/{name}?"
        self.since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        try:
            self._socket = listen(host, port)
        except InputError:
            self.snapshot.close()
            raise
        self.port: int = self._socket.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        self.address = self.base_url or f"http://{shown}:{self.port}"
        self.pool = ThreadPoolExecutor(THREADS, "serve")

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        server = HTTPServer(
            self._application(),
            max_body_size=BODY,
            max_buffer_size=BODY,
            idle_connection_timeout=PATIENCE,
            body_timeout=PATIENCE,
        )
        server.add_socket(self._socket)
        try:
            yield
        finally:
            server.stop()
            await server.close_all_connections()
            self.pool.shutdown(cancel_futures=True)
            self.snapshot.close()

    def _application(self) -> Application:
        folder = r"/+(?:sia2/+|soda/+|datalink/+)?"
        options = {"server": self}
        return Application(
            [
                (r"/*", _Root, options),
                (folder + r"capabilities/*", _Capabilities, options),
                (folder + r"availability/*", _Availability, options),
                (folder + r"tables/*", _Tables, options),
                (r"/+sia2/+query/*", _Query, options),
                (r"/+soda/+sync/*", _Soda, options),
                (r"/+datalink/+links/*", _Links, options),
            ],
            default_handler_class=_Nothing,
            default_handler_args=options,
            log_function=_log_request,
        )


def is_loopback(host: str) -> bool:
    """Tell whether an address is reached from this machine alone."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _log_request(handler: RequestHandler) -> None:
    request = handler.request
    milliseconds = 1000.0 * request.request_time()
    _log.info("%d %s %s %.1f ms", handler.get_status(), request.method, request.path, milliseconds)


# --- answers --------------------------------------------------------------------------------------------------------


class _Handler(RequestHandler):
    """What all answers share: GET, HEAD and POST mean the same, errors are texts."""

    SUPPORTED_METHODS = ("GET", "HEAD", "POST")

    def initialize(self, server: StoreServer) -> None:
        self.server = server

    def set_default_headers(self) -> None:
        self.set_header("Server", "Skyloom")
        self.set_header("X-Content-Type-Options", "nosniff")

    def prepare(self) -> None:
        """Refuse what a page of another site has sent a browser for, by a name of its own for this machine."""
        host = self.request.host
        name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
        strange = not _HOST.fullmatch(host) or (
            self.server.base_url is None and is_loopback(self.server.host) and not is_loopback(name)
        )
        if strange:
            raise ServiceError("this service has another address", status=421)

    @property
    def places(self) -> Places:
        base = self.server.base_url or f"{self.request.protocol}://{self.request.host}"
        return Places(base, self.server.publisher)

    def parameters(self) -> Parameters:
        return Parameters(self.request.arguments)

    async def aside(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Do work in another thread, so that other requests are answered meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self.server.pool, work, *arguments)

    def answer(self) -> Awaitable[None]:
        raise ServiceError("there is nothing", status=404)

    async def get(self) -> None:
        await self.answer()

    async def head(self) -> None:
        await self.answer()

    async def post(self) -> None:
        await self.answer()

    def compute_etag(self) -> None:
        """Nothing is kept by clients: a store grows."""

    def tell(self, body: bytes, media: str) -> None:
        self.set_header("Content-Type", media)
        self.finish(body)

    def write_error(self, status_code: int, **more: Any) -> None:
        error = (more.get("exc_info") or (None, None, None))[1]
        self._tell_error(_as_service_error(error, status_code))

    def _tell_error(self, error: ServiceError) -> None:
        self.set_status(error.status)
        self.tell(f"{error.text}\n".encode(), "text/plain; charset=utf-8")

    def log_exception(self, kind: Any, value: Any, trace: Any) -> None:
        # What a client did wrong is no matter for the log of the server.
        if _as_service_error(value).status >= 500:
            super().log_exception(kind, value, trace)


def _as_service_error(error: BaseException | None, status: int = 500) -> ServiceError:
    """Return what a client may know of an error: nothing of files and folders."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, InputError) and not isinstance(error, FileFormatError):
        return ServiceError(error.message)
    if status in (404, 405):
        return ServiceError("there is nothing" if status == 404 else "use GET or POST", status=status)
    if 400 <= status < 500:
        return ServiceError("the request cannot be understood", status=status)
    return ServiceError("the service has failed; its log says why", "Error", 500)


class _Nothing(_Handler):
    async def answer(self) -> None:
        raise ServiceError(f"there is nothing; the service is described at {self.places.base}/", status=404)


class _Root(_Handler):
    async def answer(self) -> None:
        def page() -> bytes:
            return root_page(self.server.snapshot.store, self.places)

        self.tell(await self.aside(page), "text/html; charset=utf-8")


class _Capabilities(_Handler):
    async def answer(self) -> None:
        self.tell(documents.capabilities(self.places), "text/xml")


class _Availability(_Handler):
    async def answer(self) -> None:
        self.tell(documents.availability(self.server.since, "a store of observations"), "text/xml")


class _Tables(_Handler):
    async def answer(self) -> None:
        self.tell(documents.tables(), "text/xml")


class _Query(_Handler):
    async def answer(self) -> None:
        server, places = self.server, self.places
        parameters = self.parameters()
        found = await self.aside(lambda: answer(server.snapshot.store, parameters, places, server.most_rows))
        self.tell(found.body, found.media)

    def _tell_error(self, error: ServiceError) -> None:
        given = self.request.arguments.items()
        asked = [value for name, values in given if name.upper() == "RESPONSEFORMAT" for value in values]
        forms = {FORMATS.get(value.decode(errors="replace").strip().lower(), "votable") for value in asked}
        self.set_status(error.status)
        if not forms or "votable" in forms:
            self.tell(documents.error_document(error.fault), documents.VOTABLE_TYPE)
        else:
            self.tell(f"{error.fault}\n".encode(), "text/plain; charset=utf-8")


class _Links(_Handler):
    async def answer(self) -> None:
        server, places = self.server, self.places
        parameters = self.parameters()
        body = await self.aside(lambda: links(server.snapshot.store, parameters, places))
        self.tell(body, LINKS_TYPE)


class _Soda(_Handler):
    async def answer(self) -> None:
        server = self.server
        request = read_request(self.parameters(), self.places)

        def work() -> tuple[memoryview, str] | None:
            try:
                found = cutout(server.snapshot.store, request, server.most_bytes)
            except FileFormatError:
                # Perhaps it has been replaced since the store was opened.
                found = cutout(server.snapshot.anew(), request, server.most_bytes)
            return None if found is None else (fits_bytes(found.subject), found.name)

        made = await self.aside(work)
        if made is None:
            self.set_status(204)
            await self.finish()
            return
        content, name = made
        self.set_header("Content-Type", FITS_FORMAT)
        self.set_header("Content-Length", str(len(content)))
        self.set_header("Content-Disposition", f'attachment; filename="{name}"')
        with suppress(StreamClosedError):
            # A client that has gone does not want the rest.
            for start in range(0, len(content) if self.request.method != "HEAD" else 0, PIECE):
                self.write(bytes(content[start : start + PIECE]))
                await self.flush()
            await self.finish()
