"""The store that is served: opened once, and opened anew when something has been stored."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from threading import Lock

from skyloom.errors import InputError
from skyloom.store.files.manifest import MANIFEST_NAME
from skyloom.store.query import Store

__all__ = ["Snapshot"]

_log = logging.getLogger("skyloom.store.service")
SHARE = 20.0
"""Times that opening takes, before the store is opened again."""


class Snapshot:
    """A store as of late; each request keeps the one it began with.

    Parameters
    ----------
    path : str or path
        Of a folder, or a packed file.

    Raises
    ------
    FileFormatError
        When there is no store.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = Lock()
        self._state = self._look()
        self._next = 0.0
        self._store = self._open()

    def _look(self) -> tuple[int, int, int] | None:
        """Return what changes when something is stored; None before anything is."""
        try:
            found = os.stat(self.path if self.path.is_file() else self.path / MANIFEST_NAME)
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _open(self) -> Store:
        begin = time.monotonic()
        store = Store(self.path)
        now = time.monotonic()
        # While files are stored, each part is news: opening must not take all the time.
        self._next = now + SHARE * (now - begin)
        return store

    @property
    def store(self) -> Store:
        """The store; for threads that may wait for it to be opened."""
        with self._lock:
            if time.monotonic() < self._next:
                return self._store
            state = self._look()
            if state == self._state:
                return self._store
            try:
                # The old one closes itself with the last request that reads from it.
                self._store, self._state = self._open(), state
            except (InputError, OSError) as error:
                self._next = time.monotonic() + 1.0
                _log.warning("the store has changed and cannot be opened; served as it was: %s", error)
            return self._store

    def anew(self) -> Store:
        """Return the store as it is now, for requests that met a file that has been replaced."""
        with self._lock:
            self._next, self._state = 0.0, None
        return self.store

    def close(self) -> None:
        """Close the files of the store."""
        with self._lock:
            self._store.close()
