"""Exports as FITS: tables that TOPCAT opens, and images, cubes and spectra with WCS, variance and mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skyloom._version import __version__
from skyloom.core.units import parse_unit
from skyloom.errors import InputError
from skyloom.io.fits import write
from skyloom.io.formats.atomic import atomic_path
from skyloom.io.formats.blocks import Extension, card, text_cards, write_hdus, write_table
from skyloom.io.formats.headers import unit_text
from skyloom.store.export.fields import Field, Progress, Rows, TableStream, expanded

if TYPE_CHECKING:
    from skyloom.store.contents import Contents

__all__ = ["write_fits_stream", "write_objects"]


def write_fits_stream(stream: TableStream, path: str | Path, *, overwrite: bool = False) -> int:
    """Write a table as the first extension of a FITS file, block by block; return how many rows there are.

    Units stand in TUNITn, UCDs in TUCDn, descriptions in TCOMMn, the value for nothing in TNULLn; DATASUM and CHECKSUM
    are those of the file. Text beyond ASCII is escaped.

    Raises
    ------
    InputError
        When the file exists, or its folder does not.
    """
    dtype = np.dtype([(column.name, _stored(column)) for column in stream.fields])
    with atomic_path(path, overwrite=overwrite) as temporary, temporary.open("w+b") as file:
        write_hdus(file, [Extension("", None, card("CREATOR", f"Skyloom {__version__}"))])
        parts = _parts(stream, dtype)
        return write_table(file, stream.name.upper(), dtype, None, parts, _cards(stream))


def _stored(column: Field) -> np.dtype[Any]:
    kind = np.dtype(column.kind)
    if kind.kind == "U":
        # Each letter may become \\uXXXX, at most ten.
        return np.dtype(f"S{kind.itemsize // 4 * 6}")
    # FITS has no signed bytes.
    return np.dtype("i2") if kind == np.int8 else kind


def _parts(stream: TableStream, dtype: np.dtype[Any]) -> Iterator[Rows]:
    for block in stream.blocks:
        rows = np.empty(len(block), dtype)
        for column in stream.fields:
            values = expanded(column, block[column.name])
            if values.dtype.kind == "U":
                values = np.char.encode(values, "ascii", "backslashreplace")
            rows[column.name] = values
        yield rows


def _cards(stream: TableStream) -> bytes:
    cards = b""
    for number, column in enumerate(stream.fields, start=1):
        if column.unit:
            cards += card(f"TUNIT{number}", unit_text(parse_unit(column.unit)))
        if column.ucd:
            cards += card(f"TUCD{number}", column.ucd)
        if column.null is not None:
            cards += card(f"TNULL{number}", column.null)
        cards += card(f"TCOMM{number}", column.description)
        if column.system in ("TAI", "UTC"):
            # Readers take times without a scale for UTC: more than half a minute off.
            cards += card(f"TCTYP{number}", column.system) + card(f"TCUNI{number}", "d")
    systems = {column.system for column in stream.fields}
    if "TAI" in systems:
        cards += card("TIMESYS", "TAI") + card("MJDREF", 0.0)
    if "ICRS" in systems:
        cards += card("RADESYS", "ICRS")
    cards += b"".join(card(name.upper(), value) for name, value in stream.notes.items())
    return cards + text_cards("COMMENT", wrap(stream.description, 72))


def write_objects(
    store: Contents,
    rows: NDArray[np.int64] | Sequence[int],
    folder: str | Path,
    *,
    level: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Write images, cubes and spectra as FITS files of Skyloom, which `skyloom.read` gives back without loss.

    Parameters
    ----------
    store : Contents
    rows : array of int
        Observations, as `Contents.search` returns them.
    folder : str or path
        Of the files, named after their observations; or, of a single observation, a name that ends with ``.fits``.
    level : int
    overwrite : bool
        Whether existing files may be replaced.
    progress : callable, optional

    Returns
    -------
    list of path
        SCI, VAR, MASK and what else is known: correlation, PSF, flags, history, and the WCS.

    Raises
    ------
    InputError
        When nothing is selected, a file exists, or an observation has no such level.
    """
    chosen = np.asarray(rows, dtype=np.int64)
    if not chosen.size:
        raise InputError("nothing is selected", field="where", remedy="see what 'observations' finds")
    table = store.table(chosen, ("obs_id", "dataproduct_type"))
    names, kinds = ([str(value) for value in table[name]] for name in ("obs_id", "dataproduct_type"))
    paths = _paths(Path(folder), names)
    taken = [path for path in paths if path.exists()]
    if taken and not overwrite:
        raise InputError(
            f"{len(taken)} of the files exist already",
            source=taken[0],
            remedy="choose another name, or overwrite it (overwrite=True, --overwrite)",
        )
    for done, (name, kind, path) in enumerate(zip(names, kinds, paths, strict=True), start=1):
        found = store.spectrum(name, level) if kind == "spectrum" else store.cutout(name, level=level)
        write(found, path, overwrite=overwrite)
        if progress is not None:
            progress(name, done, len(names))
    return paths


def _paths(target: Path, names: Sequence[str]) -> list[Path]:
    if target.suffix.lower() in (".fits", ".fit"):
        if len(names) > 1:
            raise InputError(
                f"{len(names)} observations do not fit into one file", source=target, remedy="name a folder"
            )
        return [target]
    if target.exists() and not target.is_dir():
        raise InputError("this is no folder", source=target, remedy="name a folder for the files")
    target.mkdir(parents=True, exist_ok=True)
    return [target / f"{name}.fits" for name in names]
