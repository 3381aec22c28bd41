"""What a run of the recipe ifs has left about the bins of an object, read row by row."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from numpy.typing import NDArray

from skyloom.core.linelist import Line, LineList, default_lines
from skyloom.errors import FileFormatError
from skyloom.io.fits import OwnFile
from skyloom.io.formats.files import open_fits
from skyloom.io.formats.hdu import Hdu
from skyloom.io.formats.headers import parse_bunit
from skyloom.viewer.protocols import Float

__all__ = ["BinFiles", "Readable", "TableColumns", "bins_prefix"]

Array = NDArray[Any]
Readable = Callable[[Path], bool]
FITTED, PLAIN = "_fits.fits", "_spectra.fits"
BLOCK_BYTES = 1 << 25  # Of a plane that are in memory at a time.
FEW_ROWS = 16  # So many are read one by one, more with what lies between them.


def bins_prefix(path: Path, may_read: Readable = Path.is_file) -> Path | None:
    """Return what the names of the products of a run begin with, for the folder of an object or a file in it.

    None where there are no spectra of bins beside the file, or they may not be read.
    """
    if path.is_dir():
        for ending in (FITTED, PLAIN):
            found = sorted(filter(may_read, path.glob(f"*{ending}")))
            if found:
                return found[0].with_name(found[0].name.removesuffix(ending))
        return None
    stem = path.name.partition(".")[0]
    while stem:
        prefix = path.with_name(stem)
        if any(may_read(Path(f"{prefix}{ending}")) for ending in (FITTED, PLAIN)):
            return prefix
        stem = stem.rpartition("_")[0]
    return None


class TableColumns:
    """The numbers of a table of a product, row by row, in the units of their columns.

    Parameters
    ----------
    path : path
        Of a FITS file whose tables have a column ``id``, one after the other where they have many columns.
    """

    def __init__(self, path: Path) -> None:
        self.units: dict[str, str] = {}
        self._values: dict[str, Array] = {}
        with open_fits(path) as file:
            for hdu in file.hdus[1:]:
                header = hdu.header
                names = [str(header[f"TTYPE{n}"]) for n in range(1, hdu.integer("TFIELDS", 0) + 1)]
                for number, name in enumerate(names, start=1):
                    self.units.setdefault(name, str(header.get(f"TUNIT{number}", "")))
                self._values |= hdu.columns(*(name for name in names if name not in self._values))
        if "id" not in self._values:
            raise FileFormatError("the table has no column id", source=path)
        self.ids = np.asarray(self._values["id"], dtype=np.int64)

    def row(self, number: int) -> dict[str, Any]:
        """Return the numbers of a bin by column; empty where the table does not have it."""
        found = np.flatnonzero(self.ids == number)
        return {name: values[found[0]] for name, values in self._values.items()} if found.size else {}

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""
        return tuple(self._values)


class BinFiles:
    """The products of one object: which bin each pixel belongs to, spectra, models, tables.

    Parameters
    ----------
    prefix : path
        What all names begin with; see `bins_prefix`.
    may_read : callable
        Tells of each file beside the first whether it is there and may be read.

    Attributes
    ----------
    wave : (n_wave,) array, A
    medium : str
    unit : astropy unit
    meta : dict
        Of the spectra.
    ids : (n,) int array
        Bin of each row.
    sizes : (n,) int array
        Spaxels of each bin, 0 where that is not known.
    """

    def __init__(self, prefix: Path, may_read: Readable = Path.is_file) -> None:
        self.prefix = prefix
        self._may_read = may_read
        path = self.file(FITTED[1:]) or self.file(PLAIN[1:])
        if path is None:
            raise FileFormatError("there are no spectra of bins", source=prefix.parent)
        with open_fits(path) as file:
            own = OwnFile(file)
            notes = own.fields[""]
            self._planes: dict[str, Hdu] = {hdu.name: hdu for hdu in file if len(hdu.shape) == 2}
            self.wave = np.asarray(own.plane("WAVE"), dtype=np.float64)
            self.unit = parse_bunit(str(own.hdu("SCI").header["BUNIT"]))
            lsf = own.value(notes["lsf"])
        self.medium, self.meta = str(notes["medium"]), dict(notes["meta"])
        self._lsf = None if lsf is None else np.asarray(lsf, dtype=np.float64)
        n = self._planes["SCI"].shape[0]
        self.ids = np.asarray(self.meta.get("labels", np.arange(n)), dtype=np.int64)
        self.sizes = np.asarray(self.meta.get("n_pixels", np.zeros(n)), dtype=np.int64)

    def file(self, name: str) -> Path | None:
        """Return the path of a product, such as ``lines.fits``, where there is one."""
        path = Path(f"{self.prefix}_{name}")
        return path if self._may_read(path) else None

    def has(self, plane: str) -> bool:
        """Tell whether there is a plane, such as CONTINUUM."""
        return plane in self._planes

    def rows(self, plane: str, rows: Array, channels: slice = slice(None)) -> Float:
        """Return some rows of a plane, (k, n_channels); no more than these, or what lies between them, is read."""
        hdu = self._planes[plane]
        if rows.size <= FEW_ROWS:
            parts = [hdu.section(slice(int(row), int(row) + 1))[:, channels] for row in rows]
            return np.concatenate(parts).astype(np.float64)
        first, last = int(rows.min()), int(rows.max()) + 1
        return hdu.section(slice(first, last), channels)[rows - first].astype(np.float64)

    def blocks(self, rows: Array) -> list[slice]:
        """Return ranges of channels so that the rows of a plane, with what lies between, stay small in memory."""
        span = rows.size if rows.size <= FEW_ROWS else int(np.ptp(rows)) + 1
        step = max(1, BLOCK_BYTES // (8 * span))
        return [slice(start, min(start + step, self.wave.size)) for start in range(0, self.wave.size, step)]

    def lsf_at(self, row: int, wave: float) -> float:
        """Return the standard deviation of the line-spread function of a row, A; NaN where it is not known."""
        if self._lsf is None:
            return float("nan")
        width = self._lsf[row] if self._lsf.ndim == 2 else self._lsf
        return float(width if width.ndim == 0 else np.interp(wave, self.wave, width))

    @cached_property
    def labels(self) -> NDArray[np.int32] | None:
        """(ny, nx) bin of each pixel."""
        path = self.file("bins.fits")
        if path is None:
            return None
        with open_fits(path) as file:
            return np.asarray(file["SCI"].array(), dtype=np.int32)

    @cached_property
    def correlation(self) -> Float | None:
        """Autocorrelation of the noise of pixels that the errors of the bins were made with."""
        for name, extension in (("noise.fits", "SPATIAL"), ("line_maps.fits", "CORR")):
            path = self.file(name)
            if path is None:
                continue
            with open_fits(path) as file:
                for hdu in file:
                    if hdu.name == extension:
                        return np.asarray(hdu.array(), dtype=np.float64)
        return None

    @cached_property
    def lines(self) -> TableColumns | None:
        """The table of lines."""
        path = self.file("lines.fits")
        return None if path is None else TableColumns(path)

    @cached_property
    def stars(self) -> TableColumns | None:
        """The table of stars."""
        path = self.file("stars.fits")
        return None if path is None else TableColumns(path)

    @cached_property
    def line_list(self) -> LineList:
        """The lines that were fitted, with their wavelengths."""
        path = self.file("line_maps.fits")
        if path is not None:
            with open_fits(path) as file:
                table = file["LINES"].table()
                return LineList(
                    tuple(
                        Line(str(row["KEY"]).strip(), float(row["VACUUM"]), str(row["SPECIES"]).strip())
                        for row in table
                    )
                )
        fitted = () if self.lines is None else self.lines.names
        return LineList(tuple(line for line in default_lines() if f"{line.key}_flux" in fitted))

    @property
    def redshift(self) -> float | None:
        """What velocities refer to."""
        value = self.meta.get("redshift")
        return None if value is None else float(value)

    @property
    def flux_unit(self) -> u.UnitBase:
        """Unit of the flux of a line."""
        return self.unit * u.AA
