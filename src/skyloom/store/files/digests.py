"""Digests of what is stored: of the content, not of how it is laid out, compressed, or where it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from skyloom.errors import InputError
from skyloom.io.formats.plain_json import to_json
from skyloom.store.files.stored_form import StoredLevel
from skyloom.store.schema import COLUMNS

__all__ = ["column_value", "digest_of_part", "observation_digest"]

_NOT_CONTENT = frozenset({"source", "version", "digest", "access_estsize"})
"""Columns that tell where an observation came from, and who stored it when."""
_CONTENT = tuple(sorted(COLUMNS.keys() - _NOT_CONTENT))
_NOT_CONTENT_OF_NOTE = frozenset({"history", "meta"})
_MISSING: dict[str, Any] = {"f": np.nan, "i": -1, "s": ""}


def column_value(name: str, value: Any) -> Any:
    """Return a value as the column ``name`` holds it: text, int or float; None is NaN, -1 or an empty text.

    Raises
    ------
    InputError
        When the value is not of the column's kind.
    """
    kind = COLUMNS[name].kind
    if value is None:
        return _MISSING[kind[0]]
    if type(value) is float and kind == "f8":
        return value
    try:
        if kind == "str":
            # HDF5 fills texts up with zero bytes; names of files may be no UTF-8.
            return str(value).replace("\0", " ").encode("utf-8", "backslashreplace").decode().rstrip()
        return np.dtype(kind).type(value).item()
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{value!r} is no value of kind {kind}", field=name) from error


def observation_digest(columns: Mapping[str, Any], header: str, levels: Mapping[str, StoredLevel]) -> str:
    """Return the SHA-256 of one observation: its columns, header, planes, wavelengths and notes.

    Left out are the name of the source file, the size of it, the version of Skyloom, and the history.

    Parameters
    ----------
    columns : mapping
        Values as `column_value` returns them.
    header : str
    levels : mapping
        Name of a level (``"0"``, ``"native"``) -> its stored form.
    """
    total = hashlib.sha256()
    lines = []
    for name in _CONTENT:
        value = columns[name]
        # hex() has every digit of a float.
        lines.append(f"{name}={value.hex() if isinstance(value, float) else value}\n")
    total.update("".join([*lines, header]).encode())
    # Most levels share one meta: its text is made once.
    texts: dict[int, bytes] = {}
    for name in sorted(levels):
        total.update(f"\nlevel {name}\n".encode())
        meta = levels[name].note["meta"]
        if id(meta) not in texts:
            texts[id(meta)] = _one_text({key: meta[key] for key in meta if key != "path"}).encode()
        total.update(texts[id(meta)])
        _add_level(total, levels[name])
    return total.hexdigest()


def _add_level(total: Any, level: StoredLevel) -> None:
    note = {key: value for key, value in level.note.items() if key not in _NOT_CONTENT_OF_NOTE}
    total.update(_one_text(note).encode())
    for name in sorted(level.planes):
        plane = np.ascontiguousarray(level.planes[name])
        total.update(_title(name, plane.dtype, plane.shape))
        total.update(plane)


@lru_cache(maxsize=256)
def _title(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    return f"\n{name} {dtype.str} {shape}\n".encode()


def _one_text(value: Any) -> str:
    """Return one text for equal values, whatever the order of keys; it need not be read again."""
    try:
        return json.dumps(value, sort_keys=True, default=_plain_text)
    except TypeError:
        # Keys that are no text, or of several types.
        return to_json(value, "note")


def _plain_text(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else to_json(value, "note")


def digest_of_part(digests: Iterable[tuple[str, str]]) -> str:
    """Return the digest of a part from (obs_id, digest) of its observations, in whatever order."""
    text = "".join(f"{obs_id} {digest}\n" for obs_id, digest in sorted(digests))
    return hashlib.sha256(text.encode()).hexdigest()
