"""`Contents`: a store that is open: its table, its conditions, and each observation at each level."""

from __future__ import annotations

import difflib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from astropy.table import QTable
from numpy.typing import ArrayLike, NDArray

from skyloom.core.cube import Cube
from skyloom.core.display import Shown
from skyloom.core.image import Image
from skyloom.core.provenance import Step
from skyloom.core.psf import PSF
from skyloom.core.spectra import Spectra
from skyloom.errors import FileFormatError, InputError
from skyloom.store.cutouts import cutout_window
from skyloom.store.files.folder import read_settings
from skyloom.store.files.manifest import Manifest
from skyloom.store.files.master import catalogue_of_part, read_catalogue
from skyloom.store.files.part_reader import PartReader
from skyloom.store.schema import COLUMNS
from skyloom.store.search.index import KINDS, SkyIndex

if TYPE_CHECKING:
    from skyloom.core.bandpass import Bandpass
    from skyloom.store.search.polygons import Polygons
    from skyloom.store.search.regions import Region

__all__ = ["Contents", "plural", "unit_of"]

COMPARED = 1 << 16
"""Names that one which is not there is compared with."""
OPEN_PARTS = 16
"""Files that are kept open."""


class Contents(Shown):
    """What is in a store, or in a packed file of one, as it was when it was opened or `refresh` was called last.

    Parameters
    ----------
    path : str or path
        Of the folder, or the packed file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._readers: OrderedDict[str, PartReader] = OrderedDict()
        self._lock = Lock()
        self._psfs: dict[str, PSF] = {}
        self.is_packed = self.path.is_file()
        self.settings = None if self.is_packed else read_settings(self.path)
        self.refresh()

    def refresh(self) -> None:
        """See what has been stored since."""
        self._close_readers()
        self._psfs.clear()
        if self.is_packed:
            reader = PartReader(self.path)
            self._readers[""] = reader
            self.manifest = Manifest()
            self._catalogue = catalogue_of_part(reader)
        else:
            self.manifest = Manifest.read(self.path)
            self._catalogue = read_catalogue(self.path, self.manifest)
        self._index = self._catalogue.index

    def close(self) -> None:
        """Close all files."""
        self._close_readers()
        self._catalogue.close()

    def _close_readers(self) -> None:
        while self._readers:
            self._readers.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._catalogue)

    def __repr__(self) -> str:
        kinds = self._kinds()
        counts = ", ".join(f"{n} {kind if n == 1 else plural(kind)}" for kind, n in kinds.items() if n)
        return f"<{type(self).__name__} {self.path}: {counts or 'empty'}>"

    def _kinds(self) -> dict[str, int]:
        return {kind: int(np.count_nonzero(self._index.kind.equals([kind]))) for kind in KINDS}

    def search(self, **where: Any) -> NDArray[np.int64]:
        """Return the rows of the observations that fulfil all conditions.

        See `skyloom.store.search.index.SkyIndex.search`.
        """
        try:
            return self._index.search(**where)
        except TypeError as error:
            if "unexpected keyword" not in str(error):
                raise
            raise InputError(
                f"unknown condition: {error}",
                field="where",
                remedy="use some of cone, box, moc, time, wave, band, resolution, level, kind",
            ) from error

    def observations(self, **where: Any) -> QTable:
        """Return the table (all columns of `skyloom.store.schema.COLUMNS`) of what fulfils all conditions.

        Parameters
        ----------
        **where
            ``cone=((ra, dec), radius)``, ``box=(ra_min, ra_max, dec_min, dec_max)``, ``moc=``, ``time=(start, stop)``,
            ``wave=(shortest, longest)``, ``band=``, ``resolution=``, ``level=``, ``kind=``; see
            `skyloom.store.search.index.SkyIndex.search`.
        """
        return self.table(self.search(**where))

    def images(self, **where: Any) -> QTable:
        """Return the table of images; conditions as for `observations`."""
        return self.observations(**where, kind="image")

    def spectra(self, **where: Any) -> QTable:
        """Return the table of spectra; conditions as for `observations`."""
        return self.observations(**where, kind="spectrum")

    def cubes(self, **where: Any) -> QTable:
        """Return the table of cubes; conditions as for `observations`."""
        return self.observations(**where, kind="cube")

    def table(self, rows: ArrayLike, names: Iterable[str] | None = None) -> QTable:
        """Return columns of some rows, with units."""
        table = QTable()
        for name in COLUMNS if names is None else names:
            values = self._catalogue.column(name, rows)
            unit = COLUMNS[name].unit
            table[name] = values << unit_of(unit) if unit else values
            table[name].info.description = COLUMNS[name].description
        return table

    @property
    def index(self) -> SkyIndex:
        """What searches need of all observations, in memory; its rows are those of `search` and `table`."""
        return self._index

    def column(self, name: str, rows: ArrayLike | None = None) -> NDArray[Any]:
        """Return a column, or some rows of it, as a plain array; texts as bytes."""
        return self._catalogue.raw(name, rows)

    def touching(self, region: Region) -> NDArray[np.int64]:
        """Return the rows whose footprint touches a region; see `skyloom.store.search.regions`."""
        return self._index.touching(region)

    def near(self, region: Region) -> int:
        """Return how many observations `touching` looks at for a region."""
        return int(self._index.candidates(region).size)

    def outlines(self, rows: ArrayLike) -> Polygons:
        """Return the outlines of some rows; without vertices where they are round."""
        return self._index.polygons.take(rows)

    def rows_named(self, obs_ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the rows of observations; -1 where there is none of the name."""
        return self._catalogue.rows_named(obs_ids)

    def row(self, obs_id: str) -> int:
        """Return the row of an observation.

        Raises
        ------
        InputError
            When there is none of this name, with those most like it.
        """
        row = int(self._catalogue.rows_named([str(obs_id)])[0])
        if row >= 0:
            return row
        some = np.arange(min(len(self), COMPARED))
        near = difflib.get_close_matches(str(obs_id), self._catalogue.column("obs_id", some).tolist(), 3, 0.5)
        remedy = f"did you mean {', '.join(near)}?" if near else "look for it with 'observations'"
        raise InputError(
            f"there is no observation {obs_id!r}", source=self.path, field="obs_id", remedy=remedy
        )

    def part_of(self, row: int) -> tuple[PartReader, int]:
        """Return the open file that an observation is in, and its number there."""
        return self._reader(row)

    def cutout(
        self,
        obs_id: str,
        center: Any = None,
        size: Any = None,
        level: int = 0,
        *,
        pixel: Any = None,
        channels: slice | None = None,
    ) -> Image | Cube:
        """Return an image or a cube at a level, or a window of it.

        Parameters
        ----------
        obs_id : str
        center : SkyCoord or (ra, dec), optional
            Numbers are deg. None: the middle of the image.
        size : int, angle, or a pair (y, x) of them, optional
            Numbers are pixels of the level. None: the whole image.
        level : int
            Level z has pixels 2^z times as large.
        pixel : (x, y), optional
            The centre as a pixel of the level, counted from 0, instead of ``center``.
        channels : slice, optional
            Of a cube.

        Returns
        -------
        Image or Cube
            With WCS, correlation, PSF, shared errors and history. Pixels beyond the edge are NaN and masked.

        Raises
        ------
        InputError
            When there is no such observation or level, it is a spectrum, or the window cannot be understood.
        """
        reader, number = self._reader(self.row(obs_id))
        whole_shape = reader.shape(number, level)
        wcs = reader.wcs(number, level) if size is not None or center is not None else None
        window = cutout_window(wcs, (whole_shape[-2], whole_shape[-1]), center, size, pixel)
        if len(whole_shape) == 3:
            return reader.cube(number, level, window, channels)
        return reader.image(number, level, window)

    def spectrum(
        self,
        obs_id: str,
        level: int = 0,
        grid: str | None = None,
        *,
        transmission: bool | str | Mapping[str, Bandpass] = False,
    ) -> Spectra:
        """Return a spectrum, as `Spectra` of one row.

        Parameters
        ----------
        obs_id : str
        level : int
        grid : {"native", "common"}, optional
            None: native at level 0, common above.
        transmission : bool, str or mapping of name to Bandpass
            Multiply with the transmission of filters, at each wavelength that of the most transparent one: of the
            bands of SDSS named by their letters (True: "ugriz"), or of those given; see
            `skyloom.spectral.transmission_weighted`.
        """
        reader, number = self._reader(self.row(obs_id))
        if reader.kind(number) != "spectrum":
            raise InputError(
                f"{obs_id} is no spectrum but of the kind {reader.kind(number)}",
                field="obs_id",
                remedy="use cutout",
            )
        found = reader.spectrum(number, level, grid)
        if transmission is False:
            return found
        from skyloom.store.photometry import weighted

        return weighted(found, transmission)

    def psf(self, obs_id: str) -> PSF:
        """Return the PSF of an image; measured from its stars at level 0, once, if it was stored without one."""
        if obs_id not in self._psfs:
            from skyloom.imaging.measure.fibre import measure_seeing

            reader, number = self._reader(self.row(obs_id))
            image = reader.image(number, 0)
            self._psfs[obs_id] = measure_seeing(image).psf if image.psf is None else image.psf
        return self._psfs[obs_id]

    def header(self, obs_id: str) -> str:
        """Return the original header of the file of an observation, one card per line."""
        reader, number = self._reader(self.row(obs_id))
        return reader.header(number)

    def history(self, obs_id: str) -> tuple[Step, ...]:
        """Return what was done to an observation before it was stored (level 0), oldest first."""
        reader, number = self._reader(self.row(obs_id))
        kind = reader.kind(number)
        if kind == "spectrum":
            return reader.spectrum(number).history
        corner = slice(0, 1), slice(0, 1)
        return (reader.image if kind == "image" else reader.cube)(number, 0, corner).history

    def bands_of(self, rows: ArrayLike) -> list[str]:
        """Return the bands of some rows, from memory."""
        band = self._index.band
        return [band.values[code] for code in band.codes[np.asarray(rows, dtype=np.int64)].tolist()]

    def reader_of(self, row: int) -> tuple[PartReader, int]:
        """Return the file of a row, opened, and the number of the observation in it."""
        return self._reader(row)

    def _reader(self, row: int) -> tuple[PartReader, int]:
        """Return the file of an observation, opened, and the number of the observation in it."""
        name = self._catalogue.names[int(self._catalogue.part[row])]
        with self._lock:
            reader = self._readers.get(name)
            if reader is None:
                reader = self._readers[name] = PartReader(self.path / name)
                if len(self._readers) > OPEN_PARTS:
                    # Another thread may be reading from it: it closes itself with its last user.
                    self._readers.popitem(last=False)
            else:
                self._readers.move_to_end(name)
        number = int(self._catalogue.row[row])
        expected = self._catalogue.raw("obs_id", [row])[0].decode()
        if number >= len(reader) or reader.obs_ids[number] != expected:
            raise FileFormatError(
                f"the part does not hold {expected} where the index says",
                source=reader.path,
                remedy="look at it with 'skyloom store verify'",
            )
        return reader, number


def plural(kind: str) -> str:
    """Return the name of several observations of a kind."""
    return {"spectrum": "spectra"}.get(kind, f"{kind}s")


def unit_of(text: str) -> Any:
    """Return a unit of astropy, which is imported here."""
    import astropy.units as u

    return u.Unit(text)
