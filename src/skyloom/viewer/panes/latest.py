"""Work that only its latest request matters of: not started before a pause, done aside, dropped when it is stale."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from bokeh.document import Document

__all__ = ["Latest"]

Answer = TypeVar("Answer")
PAUSE = 50
"""Milliseconds without another request before one is worked on."""
_POOL = ThreadPoolExecutor(2, "view")
"""Readers of all pages: more would only wait for the same disk."""


class Latest(Generic[Answer]):
    """One kind of work for a page.

    Parameters
    ----------
    document : bokeh Document
    done : callable
        Takes the answer, in the thread of the document.
    failed : callable
        Takes the exception instead.
    """

    def __init__(
        self, document: Document, done: Callable[[Answer], None], failed: Callable[[Exception], None]
    ) -> None:
        self._document = document
        self._done, self._failed = done, failed
        self._work: Callable[[], Answer] | None = None
        self._timer: Any = None
        self._is_busy = False

    def ask(self, work: Callable[[], Answer], pause: int = PAUSE) -> None:
        """Do ``work`` after a pause, instead of what was asked for before and is not done yet."""
        self._work = work
        if self._timer is not None:
            self._document.remove_timeout_callback(self._timer)
        self._timer = self._document.add_timeout_callback(self._start, pause)

    def _start(self) -> None:
        self._timer = None
        if self._is_busy or self._work is None:
            return
        work, self._work = self._work, None
        self._is_busy = True
        _POOL.submit(work).add_done_callback(self._hand_over)

    def _hand_over(self, future: Future[Answer]) -> None:
        """In the thread of the work: let the document's own take the answer."""
        self._document.add_next_tick_callback(lambda: self._finish(future))

    def _finish(self, future: Future[Answer]) -> None:
        self._is_busy = False
        if self._work is not None:
            # Something else has been asked for meanwhile; if its pause is not over, the timer starts it.
            if self._timer is None:
                self._start()
            return
        error = future.exception()
        if error is None:
            self._done(future.result())
        elif isinstance(error, Exception):
            self._failed(error)
