"""Which rows have a text: a table of 64-bit numbers made of the texts, sorted, beside the rows they belong to.

A text is looked up by its number, and compared with those of the few rows that have this number. So neither the texts
need to be in memory nor their order be known, and millions are sorted in a second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.store.search.polygons import spans

__all__ = ["NameTable", "text_keys"]

Array = NDArray[Any]
Int = NDArray[np.int64]
Key = NDArray[np.uint64]

_STEP = 0x9E3779B97F4A7C15
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_PIECE = 1 << 16


def text_keys(texts: Array) -> Key:
    """Return a number for each of the texts, which are bytes; the same text has the same one in columns of any width.

    Words of 8 bytes are mixed with their place (the finaliser of SplitMix64; Steele, Lea & Flood 2014,
    DOI 10.1145/2660193.2660195) and put together by exclusive or.
    """
    keys = np.zeros(texts.size, np.uint64)
    n_words = -(-texts.dtype.itemsize // 8)
    for first in range(0, texts.size, _PIECE):
        own = np.zeros((min(_PIECE, texts.size - first), n_words), np.uint64)
        padded = texts[first : first + _PIECE].astype(f"S{8 * n_words}")
        words = padded.view(np.uint64).reshape(own.shape)
        for place in range(n_words):
            word = words[:, place]
            # Without the padding, which is wider in some columns than in others.
            own[:, place] = np.where(word == 0, word, _mixed(word + np.uint64(_STEP * (place + 1) % 2**64)))
        keys[first : first + _PIECE] = np.bitwise_xor.reduce(own, axis=1)
    return keys


def _mixed(word: Key) -> Key:
    word = (word ^ (word >> np.uint64(30))) * _FIRST
    word = (word ^ (word >> np.uint64(27))) * _SECOND
    return word ^ (word >> np.uint64(31))


class NameTable(NamedTuple):
    """Texts of rows, findable.

    Parameters
    ----------
    keys : (n,) uint64 array
        What `text_keys` gives, ascending.
    rows : (n,) integer array
        Row of each.
    """

    keys: Key
    rows: NDArray[np.integer[Any]]

    @classmethod
    def of(cls, texts: Array) -> NameTable:
        """Make the table of a column of bytes."""
        keys = text_keys(texts)
        order = np.argsort(keys, kind="stable")
        return cls(keys[order], order.astype(np.int32 if order.size < 2**31 else np.int64))

    def first_of(self, wanted: Array, texts: Callable[[Int], Array]) -> Int:
        """Return for each of the wanted bytes a row that has it; -1 where there is none.

        Parameters
        ----------
        wanted : (m,) bytes array
        texts : callable
            Gives the texts of rows.
        """
        asked, rows = self._candidates(wanted)
        found = np.full(wanted.size, -1, np.int64)
        if rows.size:
            same = texts(rows) == wanted[asked]
            # The first of several rows is to remain.
            found[asked[same][::-1]] = rows[same][::-1]
        return found

    def all_of(self, wanted: Array, texts: Callable[[Int], Array]) -> Int:
        """Return all rows that have one of the wanted bytes, ascending."""
        asked, rows = self._candidates(wanted)
        return np.unique(rows[texts(rows) == wanted[asked]]) if rows.size else rows

    def _candidates(self, wanted: Array) -> tuple[Int, Int]:
        """Return rows whose numbers are wanted, and which of the wanted ones."""
        keys = text_keys(wanted)
        first, last = (np.searchsorted(self.keys, keys, side=side) for side in ("left", "right"))
        asked = np.repeat(np.arange(keys.size), last - first)
        return asked, np.asarray(self.rows[spans(first, last)], dtype=np.int64)
