"""`Store`: what a store holds, found by place, time and wavelength, and given back as images, cubes and spectra."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.table import QTable

from skyloom.core.cube import Cube
from skyloom.core.image import Image
from skyloom.core.spectra import Spectra
from skyloom.errors import FileFormatError, InputError
from skyloom.store.contents import Contents, plural, unit_of
from skyloom.store.cutouts import cutout_window, pixel_of
from skyloom.store.files.folder import make_folder
from skyloom.store.schema import StoreSettings
from skyloom.store.search.links import images_of
from skyloom.store.stack import stack_images, stack_spectra

if TYPE_CHECKING:
    from astropy.units import Quantity
    from mocpy import MOC

    from skyloom.core.bandpass import Bandpass
    from skyloom.spectral.bands.photometry import PhotometricSystem
    from skyloom.store.dense.cube import DenseSummary
    from skyloom.store.export import ExportResult
    from skyloom.store.ingest.run import IngestResult
    from skyloom.store.ingest.update import UpdateResult

__all__ = ["Store", "create", "open"]

MOC_ORDER = 12
"""Of the map of coverage, if not asked otherwise: cells of 52 arcsec."""


def create(path: str | Path, settings: StoreSettings | None = None, **options: Any) -> Store:
    """Make an empty store.

    Parameters
    ----------
    path : str or path
        A folder that does not exist yet, or is empty.
    settings : StoreSettings, optional
    **options
        Fields of `StoreSettings`, instead of ``settings``: ``levels=3``, ``compression="quantised"`` ...

    Raises
    ------
    InputError
        When there is something already, or an option is unknown.
    """
    if settings is not None and options:
        raise InputError(
            "both settings and single options are given", field="settings", remedy="give one of them"
        )
    try:
        chosen = settings or StoreSettings(**options)
    except TypeError as error:
        known = ", ".join(StoreSettings().describe())
        raise InputError(
            f"unknown option: {error}", field="settings", remedy=f"use some of {known}"
        ) from error
    make_folder(path, chosen)
    return Store(path)


def open(path: str | Path) -> Store:  # noqa: A001  # as in sl.store.open(path)
    """Open a store, or a packed file of one, for reading.

    Raises
    ------
    FileFormatError
        When there is none, or it is damaged.
    """
    place = Path(path)
    if place.is_file():
        import h5py

        if not h5py.is_hdf5(place):
            raise FileFormatError(
                "this file is no store",
                source=path,
                remedy="give the folder of a store, or a file that 'skyloom store pack' wrote",
            )
    return Store(path)


class Store(Contents):
    """A store as it was when it was opened (or `refresh` was called last); made by `create` and `open`.

    Attributes
    ----------
    path : path
        Its folder, or the packed file.
    settings : StoreSettings or None
        None for a packed file.
    """

    def moc(self, order: int = MOC_ORDER, **where: Any) -> MOC:
        """Return the map of what is covered (by what fulfils the conditions) as a multi-order coverage map.

        Parameters
        ----------
        order : int
            Finest HEALPix order; cells that are touched count.
        """
        from astropy import units as u
        from astropy.coordinates import Latitude, Longitude
        from mocpy import MOC

        rows = self.search(**where)
        columns = self._index.columns
        rows = rows[columns["healpix"][rows] >= 0]
        sizes = self._index.polygons.sizes_of(rows)
        round_ones = rows[sizes == 0]
        covered = MOC.new_empty(order)
        if round_ones.size:
            places = (
                Longitude(columns["s_ra"][round_ones], u.deg),
                Latitude(columns["s_dec"][round_ones], u.deg),
            )
            radii = np.maximum(np.nan_to_num(columns["radius"][round_ones]), 1e-6) * u.deg
            covered = MOC.from_cones(*places, radius=radii, max_depth=order, union_strategy="large_cones")
        outlines = self._index.polygons.take(rows[sizes > 0])
        # Images of several bands and epochs share their outline.
        seen: set[bytes] = set()
        pieces = []
        for first, last in zip(outlines.start[:-1], outlines.start[1:], strict=True):
            ra, dec = outlines.ra[first:last] % 360.0, outlines.dec[first:last]
            key = np.round(np.concatenate([ra, dec]), 4).tobytes()
            if key not in seen:
                seen.add(key)
                pieces.append(MOC.from_polygon(Longitude(ra, u.deg), Latitude(dec, u.deg), max_depth=order))
        return covered.union(*pieces) if pieces else covered

    def photometry(
        self,
        obs: str | Sequence[str] | QTable | None = None,
        bands: str | Mapping[str, Bandpass] = "ugriz",
        system: PhotometricSystem = "AB",
        **where: Any,
    ) -> QTable:
        """Measure spectra through filters: fluxes, AB and asinh magnitudes; see `skyloom.store.photometry`.

        Parameters
        ----------
        obs : obs_id, list of them or table with that column, optional
            None: the spectra that fulfil the conditions ``where``, as for `observations`.
        bands : str or mapping of name to Bandpass
            Letters of bands of SDSS, or curves.
        system : {"AB", "SDSS"}
            Zero points.
        """
        from skyloom.store.photometry import spectra_table

        names = self._named(obs, where if obs is not None else {**where, "kind": "spectrum"})
        return spectra_table(((name, self.spectrum(name)) for name in names), bands, system)

    def fibre_photometry(
        self,
        obs_id: str,
        *,
        seeing: float | Quantity | str | None = None,
        diameter: float | Quantity | None = None,
        band: str | Sequence[str] | None = None,
        bandpasses: Mapping[str, Bandpass] | None = None,
    ) -> QTable:
        """Measure what the linked images see in the fibre of a spectrum, beside the spectrum through their filters.

        See `skyloom.store.photometry.fibre_photometry` for the parameters and the table.
        """
        from skyloom.store.photometry import fibre_photometry

        return fibre_photometry(
            self, obs_id, seeing=seeing, diameter=diameter, band=band, bandpasses=bandpasses
        )

    def stack(
        self,
        obs: Sequence[str] | QTable | None = None,
        *,
        center: Any = None,
        size: Any = None,
        level: int = 0,
        grid: Any = None,
        weights: str = "observation",
        **where: Any,
    ) -> Image | Spectra:
        """Average images, or spectra, weighted by their inverse variance, with the error of the mean.

        Parameters
        ----------
        obs : list of obs_id or table with that column, optional
            None: what fulfils the conditions ``where``.
        center, size : optional
            Of images: cut-outs on the grid of the first image that covers the centre; see `cutout`.
        level : int
        grid : (WCS, (ny, nx)), optional
            Of images: their common grid, instead of that of the first.
        weights : {"observation", "pixel"}
            See `skyloom.store.stack`.
        **where
            Conditions as for `observations`.

        Raises
        ------
        InputError
            When nothing is found, images come with spectra or cubes, or bands differ.
        """
        names = self._named(obs, where)
        rows = np.array([self.row(name) for name in names], dtype=np.int64)
        kinds = {str(kind) for kind in self._catalogue.column("dataproduct_type", rows)}
        if kinds == {"spectrum"}:
            # Level 0 too: only the common grid is the same for all.
            return stack_spectra([self.spectrum(name, level, "common") for name in names], weights=weights)
        if kinds != {"image"}:
            raise InputError(
                f"these observations are of the kinds {sorted(kinds)}",
                field="obs",
                remedy="average images, or spectra",
            )
        bands = sorted({str(band) for band in self._catalogue.column("band", rows)})
        if len(bands) > 1:
            raise InputError(f"the images are of the bands {bands}", field="band", remedy="choose one band")
        return stack_images(self._on_grid(names, center, size, level, grid), grid, weights=weights)

    def _named(self, obs: Sequence[str] | QTable | None, where: dict[str, Any]) -> list[str]:
        if obs is None:
            found = self._catalogue.column("obs_id", self.search(**where))
        elif where:
            raise InputError(
                "both observations and conditions are given", field="obs", remedy="give one of them"
            )
        else:
            found = np.atleast_1d(np.asarray(obs["obs_id"] if isinstance(obs, QTable) else obs))
        names = sorted({str(name) for name in found})
        if not names:
            raise InputError("nothing fulfils the conditions", field="obs")
        return names

    def _on_grid(self, names: Sequence[str], center: Any, size: Any, level: int, grid: Any) -> list[Image]:
        """Return cut-outs of images with enough around them to be reprojected."""
        images: list[Image] = []
        for name in names:
            if size is None:
                image = self.cutout(name, level=level)
            else:
                # Without a centre: the middle of the first image, as a place on the sky for all.
                center = _middle(self.cutout(names[0], level=level)) if center is None else center
                try:
                    image = self._cutout_with_margin(
                        name, center, size, level, margin=bool(images) or grid is not None
                    )
                except InputError as error:
                    if error.field != "center":
                        raise
                    # So far from the place that its projection does not reach there.
                    continue
            if isinstance(image, Image) and not image.mask.all():
                images.append(image)
        if not images:
            raise InputError("no image has a usable pixel there", field="center")
        return images

    def _cutout_with_margin(
        self, name: str, center: Any, size: Any, level: int, margin: bool
    ) -> Image | Cube:
        reader, number = self._reader(self.row(name))
        shape = reader.shape(number, level)[-2:]
        window = cutout_window(reader.wcs(number, level), (shape[0], shape[1]), center, size)
        if margin and window is not None:
            # A turned grid reaches farther by the root of 2, an interpolation by 3 pixels.
            pads = [int(np.ceil(0.25 * (part.stop - part.start))) + 4 for part in window]
            window = (
                slice(window[0].start - pads[0], window[0].stop + pads[0]),
                slice(window[1].start - pads[1], window[1].stop + pads[1]),
            )
        return reader.image(number, level, window)

    def links(self, obs_id: str) -> QTable:
        """Return the images and cubes that cover a spectrum.

        Parameters
        ----------
        obs_id : str
            Of a spectrum.

        Returns
        -------
        QTable
            ``obs_id`` and ``band`` of each image, the pixel ``x, y`` (level 0, counted from 0) in which the spectrum
            lies, the ``time`` of that pixel (MJD, TAI: of its row for drift scans, else the middle of the exposure) and
            the ``distance`` from the centre of the image.
        """
        row = self.row(obs_id)
        columns = self._index.columns
        if self._index.kind.values[self._index.kind.codes[row]] != "spectrum":
            raise InputError(f"{obs_id} is no spectrum", field="obs_id", remedy="name a spectrum")
        found = images_of(self._index, row)
        place = float(columns["s_ra"][row]), float(columns["s_dec"][row])
        table = self.table(found, ("obs_id", "dataproduct_type", "band"))
        pixels = [self._pixel_and_time(int(image), place) for image in found]
        x, y, time = np.array(pixels, dtype=np.float64).reshape(-1, 3).T
        table["x"], table["y"] = x, y
        table["time"] = time << unit_of("d")
        from skyloom.store.search.sphere import angles, unit_vectors

        centres = unit_vectors(columns["s_ra"][found], columns["s_dec"][found])
        table["distance"] = np.degrees(angles(centres, unit_vectors(*place))) * 3600.0 << unit_of("arcsec")
        return table

    def _pixel_and_time(self, row: int, place: tuple[float, float]) -> tuple[float, float, float]:
        reader, number = self._reader(row)
        x, y = pixel_of(reader.wcs(number, 0), place)
        columns = self._index.columns
        time = 0.5 * float(columns["t_start"][row] + columns["t_stop"][row])
        if reader.kind(number) == "image":
            near = (
                slice(int(np.floor(y)), int(np.floor(y)) + 1),
                slice(int(np.floor(x)), int(np.floor(x)) + 1),
            )
            drift = reader.image(number, 0, near).meta.get("row_time")
            if drift is not None:
                time = float(drift[0]) + (y - np.floor(y)) * float(drift[1])
        return x, y, time

    def cutouts(
        self, obs_id: str, size: Any, level: int = 0, *, band: str | None = None
    ) -> dict[str, Image | Cube]:
        """Return cut-outs around a spectrum from all images that cover it, by the ``obs_id`` of the image."""
        row = self.row(obs_id)
        place = float(self._index.columns["s_ra"][row]), float(self._index.columns["s_dec"][row])
        rows = images_of(self._index, row)
        names, bands = (self._catalogue.column(name, rows) for name in ("obs_id", "band"))
        return {
            str(name): self.cutout(str(name), place, size, level)
            for name, own in zip(names, bands, strict=True)
            if band is None or own == band
        }

    def failures(self) -> QTable:
        """Return what could not be stored: ``source``, ``reason``, ``digest`` of the file."""
        rows = self.manifest.failures
        columns = zip(*rows, strict=True) if rows else ((), (), ())
        names = ("source", "reason", "digest")
        return QTable(
            {name: np.array(values, dtype=str) for name, values in zip(names, columns, strict=True)}
        )

    def info(self) -> dict[str, Any]:
        """Return plain figures: counts, bands, time range, size on disk, settings."""
        columns = self._index.columns
        begin, end = columns["t_start"], columns["t_stop"]
        known = np.isfinite(begin) & np.isfinite(end)
        size = (
            self.path.stat().st_size
            if self.is_packed
            else sum(part.bytes for part in self.manifest.visible_parts)
        )
        bands, counts = np.unique(self._index.band.codes, return_counts=True)
        named = {self._index.band.values[code]: int(n) for code, n in zip(bands, counts, strict=True)}
        return {
            "path": str(self.path),
            "observations": len(self),
            **{plural(kind): n for kind, n in self._kinds().items()},
            "bands": {band: n for band, n in sorted(named.items()) if band},
            "time": [float(begin[known].min()), float(end[known].max())] if known.any() else None,
            "parts": max(len(self.manifest.visible_parts), int(self.is_packed)),
            "bytes": size,
            "failures": len(self.manifest.failures),
            "settings": None if self.settings is None else self.settings.describe(),
        }

    def verify(self) -> QTable:
        """Compare all that is stored with its digests; see `skyloom.store.files.verify.verify`."""
        from skyloom.store.files.verify import verify

        return verify(self.path)

    def pack(self, out: str | Path, **options: Any) -> Path:
        """Write the store into one file; see `skyloom.store.files.pack.pack`."""
        from skyloom.store.files.pack import pack

        pack(self.path, out, **options)
        return Path(out)

    def dense_cube(self, out: str | Path, targets: Any = None, **options: Any) -> DenseSummary:
        """Write images and spectra of many targets as arrays for machine learning.

        See `skyloom.store.dense.cube.build_dense_cube` for the parameters.
        """
        from skyloom.store.dense.cube import build_dense_cube

        return build_dense_cube(self, out, targets, **options)

    def export(self, out: str | Path, what: str = "observations", **options: Any) -> ExportResult:
        """Write tables, voxels, images or spectra for other programs; see `skyloom.store.export.export`."""
        from skyloom.store.export import export

        return export(self, out, what, **options)

    def ingest(self, paths: Iterable[str | Path] = (), **options: Any) -> IngestResult:
        """Store files, and see them; see `skyloom.store.ingest.run.ingest`."""
        from skyloom.store.ingest.run import ingest

        if self.is_packed:
            raise InputError(
                "a packed file cannot be added to", source=self.path, remedy="ingest into a store"
            )
        try:
            return ingest(self.path, paths, **options)
        finally:
            self.refresh()

    def update(
        self, part: str, paths: str | Path | Iterable[str | Path] = (), **options: Any
    ) -> UpdateResult | tuple[DenseSummary, ...]:
        """Do one part again, leave the others as they are, and see the result.

        Parameters
        ----------
        part : {"metadata", "images", "spectra", "links", "dense"}
            See `skyloom.store.ingest.update.update`; ``dense``: dense cubes, each from what it tells of itself.
        paths : path or iterable of paths
            Of images and spectra: where their sources are. Of ``dense``: the files of the cubes.
        **options
            As for `skyloom.store.ingest.update.update`, or `skyloom.store.dense.cube.rebuild_dense_cube`.

        Returns
        -------
        UpdateResult, or a DenseSummary for each dense cube
        """
        from skyloom.store.ingest.update import update

        given = (paths,) if isinstance(paths, (str, Path)) else tuple(paths)
        if part == "dense":
            from skyloom.store.dense.cube import rebuild_dense_cube

            if not given:
                raise InputError("no dense cube is given", field="paths", remedy="name its file")
            return tuple(rebuild_dense_cube(self, cube, **options) for cube in given)
        try:
            return update(self.path, part, given, **options)
        finally:
            self.refresh()


def _middle(image: Image | Cube) -> tuple[float, float]:
    from skyloom.store.ingest.footprint import footprint_of

    place = footprint_of(image.wcs, image.data.shape[-2:])
    return place.ra, place.dec
