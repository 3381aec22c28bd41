"""Servers on this machine: a socket, and a loop that answers until it is told to end."""

from __future__ import annotations

import asyncio
import signal
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from threading import Event, Thread
from typing import Self

from skyloom.errors import InputError

__all__ = ["Server", "listen"]


def listen(host: str, port: int) -> socket.socket:
    """Open a socket that waits for connections.

    Parameters
    ----------
    host : str
        Name or address.
    port : int
        0: any that is free.

    Raises
    ------
    InputError
        When that is not possible.
    """
    try:
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.create_server(place[:2], family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        raise InputError(
            f"cannot listen on {host}, port {port}: {error}",
            field="--port",
            remedy="use another port, or 0 for any that is free",
        ) from error
    opened.setblocking(False)
    return opened


class Server(ABC):
    """Something that answers requests: in a thread as a context manager, or by `run`.

    Attributes
    ----------
    address : str
        Told to those who wait for its start.
    """

    address: str

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._ready = Event()
        self._thread: Thread | None = None

    @abstractmethod
    def _answering(self) -> AbstractAsyncContextManager[None]:
        """Answer requests as long as the context is open."""

    def run(self, started: Callable[[str], object] = str) -> None:
        """Answer requests until the process is interrupted or told to end.

        Parameters
        ----------
        started : callable, optional
            Called with the address as soon as requests are answered.
        """
        with suppress(KeyboardInterrupt):
            asyncio.run(self._serve(started, in_main_thread=True))

    def start(self) -> Self:
        """Begin to answer, in a thread; `stop` ends it."""
        work = partial(asyncio.run, self._serve(str, in_main_thread=False))
        self._thread = Thread(target=work, name="serve", daemon=True)
        self._thread.start()
        self._ready.wait()
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop answering; requests that are being answered are cut off."""
        if self._loop is not None and self._stopping is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stopping.set)
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    async def _serve(self, started: Callable[[str], object], in_main_thread: bool) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        if in_main_thread:
            # Loops of some systems take no signals; there KeyboardInterrupt ends the run.
            with suppress(NotImplementedError):
                for number in (signal.SIGINT, signal.SIGTERM):
                    self._loop.add_signal_handler(number, self._stopping.set)
        try:
            async with self._answering():
                started(self.address)
                self._ready.set()
                await self._stopping.wait()
        finally:
            # Whoever waits for the start of what has failed shall not wait for ever.
            self._ready.set()
