"""Products of fitted lines as files: maps, tables, spectra with their models, and the layout of BETIS.

A file of maps has, after an empty primary HDU, ``BINS`` (the number of each pixel's bin, -1: none); for every line
``{LINE}_FLUX`` and ``{LINE}_FLUX_ERR``, ``_VELOCITY``, ``_SIGMA`` ... with their errors, and ``{LINE}_FLAG``; further
maps and planes of codes under their own names; the tables ``LINES`` (which lines), ``BIN_TABLE`` (redshifts), ``META``
and ``HISTORY``. ``skyloom.read`` makes the `LineMaps` again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import astropy.units as u
import numpy as np
from astropy.table import QTable
from numpy.typing import NDArray

from skyloom.core.continuum import ContinuumFit
from skyloom.core.line_fit import LineFit
from skyloom.core.line_maps import NOT_BINNED, BinValues, LineMaps
from skyloom.core.linelist import Line, LineList
from skyloom.core.spectra import Spectra
from skyloom.errors import FileFormatError, InputError, ShapeError
from skyloom.io.fits import Contents, OwnFile, extensions_of, finished, read_skyloom
from skyloom.io.formats.atomic import atomic_path
from skyloom.io.formats.blocks import Extension, card, encode, text_cards
from skyloom.io.formats.files import FitsFile, open_fits
from skyloom.io.formats.headers import exact_wcs, parse_bunit, unit_text
from skyloom.io.formats.tables import write_columns, write_ecsv
from skyloom.io.products.betis import betis_extensions

__all__ = [
    "LAYOUTS",
    "FittedSpectra",
    "read_fitted_spectra",
    "read_line_maps",
    "sniff",
    "write_fitted_spectra",
    "write_line_maps",
    "write_line_table",
]

Array = NDArray[Any]
LAYOUTS = ("skyloom", "betis")
MOST_COLUMNS = 999  # what FITS allows in a table
TEXT_VALUES = 1_000_000
KIND = "LineMaps"
SHARED_NOTE = (
    "All pixels of one bin share one error: do not add these errors in",
    "quadrature over pixels. Sum whole bins (extension BINS), or use",
    "skyloom.spectral.gas.maps.sum_bins.",
)
PER_NOTES = {
    "bin": "flux of the whole bin in each of its pixels",
    "spaxel_area": "flux of the bin over the number of its pixels",
    "arcsec2": "flux of the bin over its area",
}


# --- maps ------------------------------------------------------------------------------------------------


def write_line_maps(
    maps: LineMaps, path: str | Path, *, layout: str = "skyloom", overwrite: bool = False
) -> Path:
    """Write maps of lines into one FITS file.

    Parameters
    ----------
    maps : LineMaps
        What `skyloom.spectral.gas.maps.line_maps` made, perhaps with tables added.
    path : str or path
        It appears when it is complete.
    layout : {"skyloom", "betis"}
        "skyloom": an extension for each map, described above. "betis": seven extensions, described in
        `skyloom.io.products.betis`.
    overwrite : bool
        Whether an existing file may be replaced.

    Returns
    -------
    path

    Raises
    ------
    InputError
        When the layout is unknown, two maps differ in case only, or the file exists.
    UnitError
        When a unit cannot be written.
    """
    if layout not in LAYOUTS:
        raise InputError(f"layout is {layout!r}; expected one of {', '.join(LAYOUTS)}", field="layout")
    names = [name.upper() for name in (*maps.quantities, *maps.codes)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"maps differ in case only: {', '.join(twice)}", field="maps")
    extensions = betis_extensions(maps) if layout == "betis" else _map_extensions(maps)
    with atomic_path(path, overwrite=overwrite) as temporary, open(temporary, "wb") as stream:
        _write(stream, extensions)
    return Path(path)


def _write(stream: BinaryIO, extensions: Iterable[Extension]) -> None:
    """Write extensions one by one, so that only one plane is in memory at a time."""
    for number, extension in enumerate(extensions):
        if number == 0:
            stream.writelines(encode([extension]))
        else:
            # The first of the two stands for a primary HDU, which there is already.
            stream.writelines(encode([Extension("", None), extension])[3:])


def _map_extensions(maps: LineMaps) -> Iterator[Extension]:
    contents = Contents()
    contents.note("", "type", KIND)
    contents.note("", "wcs", maps.wcs is not None)
    contents.note("", "meta", {key: value for key, value in maps.meta.items() if key != "variance_known"})
    contents.note("", "per", maps.per)
    contents.note("", "medium", maps.medium)
    contents.note("", "names", {"maps": list(maps.quantities), "codes": list(maps.codes)})
    contents.note(
        "", "meanings",
        {name: {str(code): word for code, word in words.items()} for name, words in maps.meanings.items()},
    )  # fmt: skip
    contents.note("", "psf", None if maps.psf is None else maps.psf.describe())
    contents.history += [("", step) for step in maps.history]
    head, *tail = finished(contents, KIND, _tables(maps))
    note = card("FLUXPER", maps.per, PER_NOTES[maps.per]) + card(
        "ERRSHARE", maps.shares_errors, "pixels of one bin share one error"
    )
    yield Extension(head.name, head.data, note + head.header)
    grid = contents.grid(maps.wcs)
    yield Extension("BINS", np.asarray(maps.bins, np.int32), grid)
    for name in maps.quantities:
        yield from _quantity(maps, name, grid)
    for name in maps.codes:
        yield Extension(name.upper(), maps.code_plane(name), _code_cards(maps, name) + grid)
    if maps.correlation is not None:
        yield Extension("CORR", maps.correlation)
    yield from tail


def _quantity(maps: LineMaps, name: str, grid: bytes) -> Iterator[Extension]:
    """Yield the plane of a map and that of its error."""
    item = maps.quantities[name]
    extension = name.upper()
    values = maps.spread(item.values)
    unit = card("BUNIT", unit_text(item.unit)) + _line_cards(maps, name)
    if item.variance is None or name.endswith("_snr"):  # the error of a signal over noise is 1
        yield Extension(extension, values.astype(np.float32), unit + grid)
        return
    error = maps.spread(np.sqrt(item.variance))
    error[~(error > 0)] = np.nan  # an error of zero means that none is known
    partner = card("ERRDATA", f"{extension}_ERR", "extension of the error")
    yield Extension(extension, values.astype(np.float32), unit + partner + grid)
    back = card("SCIDATA", extension, "extension of the values") + card("HDUCLAS3", "RMSE", "one sigma")
    notes = text_cards("COMMENT", SHARED_NOTE) if maps.shares_errors and item.additive else b""
    yield Extension(f"{extension}_ERR", error.astype(np.float32), unit + back + notes + grid)


def _line_cards(maps: LineMaps, name: str) -> bytes:
    key = name.partition("_")[0]
    if key not in maps.lines.keys:
        return b""
    line = maps.lines[key]
    flag = f"{key}_flag"
    cards = card("LINE", key, "name of the line") + card(
        "RESTWAV", line.rest(maps.medium), f"A, in {maps.medium}"  # type: ignore[arg-type]
    )  # fmt: skip
    return cards + (card("QUALDATA", flag.upper(), "extension of the flags") if flag in maps.codes else b"")


def _code_cards(maps: LineMaps, name: str) -> bytes:
    """What the numbers of a plane of flags or classes mean."""
    words = maps.meanings.get(name, {})
    if name.endswith("flag"):
        bits = {**words, NOT_BINNED: "NOT_BINNED"}
        return b"".join(
            card(f"BIT{code.bit_length() - 1:02d}", word, f"{code}") for code, word in sorted(bits.items())
        )
    cards = b"".join(card(f"CODE{code}", word) for code, word in sorted(words.items()))
    return cards + card("NOBIN", NOT_BINNED, "value where no bin was fitted")


def _tables(maps: LineMaps) -> list[Extension]:
    width = max([len(line.key) for line in maps.lines] or [1])
    species = max([len(line.species) for line in maps.lines] or [1])
    lines = np.array(
        [(line.key.encode(), line.rest_vacuum, line.species.encode(), line.kind.encode()) for line in maps.lines],
        dtype=[("KEY", f"S{width}"), ("VACUUM", "f8"), ("SPECIES", f"S{max(1, species)}"), ("KIND", "S10")],
    )  # fmt: skip
    inside = maps.rows >= 0
    numbers = np.full(maps.n_bins, -1, dtype=np.int64)
    numbers[maps.rows[inside]] = maps.bins[inside]
    bins = np.empty(maps.n_bins, dtype=[("ID", "i8"), ("N_PIXELS", "i8"), ("REDSHIFT", "f8")])
    bins["ID"], bins["N_PIXELS"], bins["REDSHIFT"] = numbers, maps.n_pixels, maps.redshift
    return [Extension("LINES", lines), Extension("BIN_TABLE", bins[numbers >= 0])]


def sniff(file: FitsFile) -> bool:
    """Tell whether a file was written by `write_line_maps` in the layout "skyloom"."""
    return str(file[0].header.get("SKYTYPE", "")) == KIND


def read_line_maps(path: str | Path) -> LineMaps:
    """Read the maps that `write_line_maps` wrote in the layout "skyloom"; values have the precision of float32.

    Raises
    ------
    FileFormatError
        When the file is another one, or an extension is missing.
    """
    with open_fits(path) as file:
        if not sniff(file):
            raise FileFormatError("the file holds no maps of lines", source=path)
        own = OwnFile(file)
        notes = own.fields[""]
        bins = own.plane("BINS")
        table = own.hdu("BIN_TABLE").table()
        ids = np.asarray(table["ID"], dtype=np.int64)
        rows, first = _rows_of(bins, ids)
        stretch = 1.0 + float(np.median(np.asarray(table["REDSHIFT"], np.float64)))
        quantities = {name: _read_quantity(own, name, first, stretch) for name in notes["names"]["maps"]}
        codes = {
            name: own.plane(name.upper()).ravel()[first].astype(np.int64) for name in notes["names"]["codes"]
        }
        meanings = {
            name: {int(code): word for code, word in words.items()}
            for name, words in notes["meanings"].items()
        }
        grid = own.hdu("BINS")
        return LineMaps(
            quantities, codes, rows, bins, notes["per"], _read_lines(own), notes["medium"],
            np.asarray(table["REDSHIFT"], np.float64),
            exact_wcs(grid.header, grid.shape) if notes["wcs"] else None,
            own.plane("CORR") if "CORR" in own.planes else None, own.psf(notes["psf"]),
            meanings, notes["meta"], tuple(own.steps.get("", ())),
        )  # fmt: skip


def _rows_of(bins: Array, ids: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Row of each pixel, and a pixel (of the flat plane) of each row."""
    order = np.argsort(ids)
    place = np.clip(np.searchsorted(ids[order], bins), 0, max(ids.size - 1, 0))
    rows = np.where(ids[order][place] == bins, order[place], -1).astype(np.int32)
    first = np.zeros(ids.size, dtype=np.int64)
    flat = np.flatnonzero(rows.ravel() >= 0)[::-1]
    first[rows.ravel()[flat]] = flat
    return rows, first


def _read_quantity(own: OwnFile, name: str, first: NDArray[np.int64], stretch: float) -> BinValues:
    hdu = own.hdu(name.upper())
    error = f"{name.upper()}_ERR"
    variance = np.ones(first.size) if name.endswith("_snr") else None
    if error in own.planes and hdu.header.get("ERRDATA") == error:
        variance = own.plane(error).ravel()[first].astype(np.float64) ** 2
    unit = parse_bunit(str(hdu.header["BUNIT"])) if str(hdu.header["BUNIT"]).strip() else u.one
    additive = name.endswith(("_flux", "_flux_direct", "_upper_limit"))
    rest = hdu.header.get("RESTWAV")
    return BinValues(
        hdu.array().ravel()[first].astype(np.float64), variance, unit, additive,
        None if rest is None else float(rest) * stretch,
    )  # fmt: skip


def _read_lines(own: OwnFile) -> LineList:
    table = own.hdu("LINES").table()
    return LineList(
        tuple(
            Line(
                str(row["KEY"]).strip(), float(row["VACUUM"]), str(row["SPECIES"]).strip(), str(row["KIND"]).strip()  # type: ignore[arg-type]
            )
            for row in table
        )
    )  # fmt: skip


# --- tables ----------------------------------------------------------------------------------------------


def write_line_table(
    table: QTable, path: str | Path, name: str = "LINES", *, most_values: int = TEXT_VALUES
) -> tuple[Path, ...]:
    """Write a table of lines as FITS, for TOPCAT, and as ECSV, which is text.

    Parameters
    ----------
    table : QTable
        Of a `LineFit`, or of derived quantities.
    path : str or path
        Of the FITS file; the other one has the ending ``.ecsv``. Older files are replaced.
    name : str
        EXTNAME. FITS allows 999 columns: longer tables go on in ``{name}2``, each part with the column ``id``.
    most_values : int
        Tables of more numbers than this are written as FITS only: text would take minutes and gigabytes.

    Returns
    -------
    paths
    """
    path = Path(path)
    rest = [column for column in table.colnames if column != "id"]
    first = ["id"] if "id" in table.colnames else []
    step = MOST_COLUMNS - len(first)
    parts = [[*first, *rest[start : start + step]] for start in range(0, max(len(rest), 1), step)]
    origin = card("ORIGIN", "Skyloom", "software that wrote this file")
    with atomic_path(path, overwrite=True) as temporary, open(temporary, "wb") as stream:
        _write(stream, [Extension("", None, origin)])
        for number, part in enumerate(parts, start=1):
            write_columns(stream, table, name if number == 1 else f"{name}{number}", part)
    if len(table) * len(table.colnames) > most_values:
        return (path,)
    return path, write_ecsv(table, path.with_suffix(".ecsv"))


# --- spectra and their models ----------------------------------------------------------------------------


class FittedSpectra(NamedTuple):
    """Spectra with what was fitted to them, all (n, n_wave) and in one unit; None: not in the file."""

    spectra: Spectra
    continuum: Array | None
    continuum_variance: Array | None
    lines: Array | None
    baseline: Array | None

    @property
    def model(self) -> Array:
        """Sum of all that was fitted."""
        parts = [part for part in (self.continuum, self.lines, self.baseline) if part is not None]
        return np.asarray(sum(parts, np.zeros(self.spectra.shape, self.spectra.data.dtype)))


_PARTS: Mapping[str, str] = {
    "CONTINUUM": "stellar continuum",
    "CONTINUUM_VAR": "variance of the continuum, channel by channel",
    "LINES": "fitted lines",
    "BASELINE": "polynomials fitted with the lines, on top of the continuum",
}


def write_fitted_spectra(
    path: str | Path,
    spectra: Spectra,
    continuum: ContinuumFit | None = None,
    lines: LineFit | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write spectra and everything that was fitted to them into one file.

    Parameters
    ----------
    path : str or path
    spectra : Spectra
        n spectra. ``skyloom.read`` gives them back, whatever else is in the file.
    continuum : ContinuumFit, optional
    lines : LineFit, optional
    overwrite : bool

    Returns
    -------
    path

    Notes
    -----
    Extensions: ``SCI`` (the spectra), ``VAR``, ``MASK``, ``WAVE`` and the rest of `skyloom.write`; then ``CONTINUUM``,
    ``CONTINUUM_VAR``, ``LINES`` and ``BASELINE``, each (n, n_wave) and in the unit of the spectra; ``BIN_TABLE`` with
    the number of each row's bin. The model is CONTINUUM + LINES + BASELINE; the nebular spectrum is SCI - CONTINUUM.

    Raises
    ------
    ShapeError
        When the fits belong to other spectra.
    """
    planes: dict[str, Array] = {}
    if continuum is not None:
        planes |= {"CONTINUUM": continuum.model, "CONTINUUM_VAR": continuum.variance}
    if lines is not None:
        planes |= {"LINES": lines.model, "BASELINE": lines.baseline}
    extra = []
    for name, plane in planes.items():
        if plane.shape != spectra.shape:
            raise ShapeError(f"{name} has shape {plane.shape}; expected {spectra.shape}", field=name.lower())
        unit = unit_text(spectra.unit**2 if name.endswith("_VAR") else spectra.unit)
        cards = card("BUNIT", unit) + text_cards("COMMENT", [_PARTS[name]])
        extra.append(Extension(name, plane.astype(np.float32, copy=False), cards))
    rows = np.empty(len(spectra.data), dtype=[("ROW", "i8"), ("ID", "i8")])
    rows["ROW"] = np.arange(rows.size)
    rows["ID"] = np.asarray(spectra.meta.get("labels", rows["ROW"]), dtype=np.int64)
    extra.append(Extension("BIN_TABLE", rows))
    *own, meta, history = extensions_of(spectra)
    with atomic_path(path, overwrite=overwrite) as temporary, open(temporary, "wb") as stream:
        _write(stream, (*own, *extra, meta, history))
    return Path(path)


def read_fitted_spectra(path: str | Path) -> FittedSpectra:
    """Read what `write_fitted_spectra` wrote.

    Raises
    ------
    FileFormatError
        When the file holds no spectra.
    """
    spectra = read_skyloom(path)
    if not isinstance(spectra, Spectra):
        raise FileFormatError(f"the file holds {type(spectra).__name__}, no Spectra", source=path)
    with open_fits(path) as file:
        planes = {hdu.name: hdu.array() for hdu in file if hdu.name in _PARTS}
    return FittedSpectra(spectra, *(planes.get(name) for name in _PARTS))
