"""What a ``halpha`` run leaves behind for an object: images by their names, each with errors, history and settings."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import QTable, Table

from skyloom.core.image import Flag, Image, Mode
from skyloom.core.provenance import step
from skyloom.core.threads import blocks, run_blocks
from skyloom.io.fits import write
from skyloom.io.formats.headers import unit_text
from skyloom.io.formats.tables import write_ecsv, write_fits_table
from skyloom.recipes.config import resolved_yaml
from skyloom.recipes.halpha.inputs import Source
from skyloom.report.model import StepRecord

__all__ = [
    "DESCRIPTIONS",
    "ObjectProduct",
    "Writer",
    "deviation",
    "luminosity",
    "per_pixel",
    "star_formation",
    "write_tables",
]

Record = dict[str, Any]
LUMINOSITY_UNIT = u.Unit("1e30 erg / s")
STAR_FORMATION_UNIT = u.Unit("solMass / (yr kpc2)")
STAR_FORMATION_PER_LUMINOSITY = 10.0**-41.27
"""Solar masses per year for one erg/s of Halpha without extinction: Kennicutt & Evans 2012
(10.1146/annurev-astro-081811-125610), after Murphy et al. 2011 and Hao et al. 2011."""
SAMPLE = 200_000
"""Pixels from which medians in the table of products are taken: they hold to 0.3 % of the scatter."""
STRIPE = 1 << 18
"""Pixels worked on at a time, so that nothing as large as an image is made on the way."""

DESCRIPTIONS: dict[str, str] = {
    "halpha_raw": "narrow band less continuum, calibrated by headers alone, in the unit of the narrow image",
    "cont_raw": "the continuum below the line, in the unit of the narrow image",
    "halpha": "the same as a line, sky and [NII] taken off, calibrated by headers alone",
    "musehalpha": "Halpha as MUSE has it, on its own grid",
    "musehalpha_regrid": "the same on the grid of HST",
    "halpha_smoothed": "_halpha with the PSF of MUSE, on the grid of HST",
    "hstmuseratio": "MUSE over smoothed HST",
    "hstmusediff": "MUSE less smoothed HST",
    "anchored": "Halpha of HST tied to MUSE, per area",
    "anchored_intnegs": "the same, negative outliers interpolated (flagged)",
    "anchored_wnoise": "_anchored with white noise added",
    "anchored_intnegs_wnoise": "_anchored_intnegs with white noise added",
    "hst_ha": "Halpha of HST, flux per pixel",
    "hst_ha_err": "its standard deviation",
    "hst_ha_as2": "Halpha of HST per arcsec2",
    "luminosity": "luminosity per pixel, not corrected for extinction within the galaxy",
    "sfr": "surface density of star formation (Kennicutt & Evans 2012), not corrected for extinction likewise",
    "nii_ratio": "[NII]6583 over Halpha as smoothed from MUSE, with its error",
    "starmask": "pixels of stars, masked in all products",
    "matched": "bands of HST with the PSF and on the grid of MUSE",
    "muse": "bands and lines of MUSE as they were used",
    "alignment": "shift of each band and kernel to the PSF of MUSE, with errors",
    "bandfit": "offset and slope of each band against MUSE, with errors",
    "linefit": "offset, slope and stellar absorption of the line, with errors",
    "products": "figures of every image: unit, median, masked and flagged pixels",
}


@dataclass(frozen=True, slots=True)
class ObjectProduct:
    """What was made of one object.

    Attributes
    ----------
    name : str
    files : tuple of Path
    kept : bool
        Whether an earlier run had done all of it.
    record : dict
        Figures for the checks and the report.
    tables : mapping of title to QTable
    notes : tuple of str
        What had to be assumed or repaired.
    steps : tuple of StepRecord
        What each stage took.
    checks : tuple
        What the quality analysis has judged.
    failures : tuple of (str, str)
        What of it could not be done, and why.
    """

    name: str
    files: tuple[Path, ...]
    kept: bool
    record: Record
    tables: Mapping[str, QTable] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    steps: tuple[StepRecord, ...] = ()
    checks: tuple[Any, ...] = ()
    failures: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Writer:
    """Writes images as they are made, so that none has to be kept, and notes their figures.

    While an image goes to the disk the next one is made; a third has to wait. Use it in a ``with`` statement, at the
    end of which all are written.

    Attributes
    ----------
    source : Source
    paths : list of Path
    rows : list of dict
        Figures of each image that is written.
    """

    source: Source
    paths: list[Path] = field(default_factory=list)
    rows: list[Record] = field(default_factory=list)
    _config: str = ""
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    _underway: Future[None] | None = None

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            self._thread.shutdown()

    def wait(self) -> None:
        """Wait until all is written; raise what writing has raised."""
        if self._underway is not None:
            self._underway.result()
        self._underway = None

    def has(self, kind: str) -> bool:
        """Tell whether an image was given to be written."""
        return self._path(kind) in self.paths

    def _path(self, kind: str) -> Path:
        return self.source.folder / f"{self.source.name}_{kind}.fits"

    def write(self, kind: str, image: Image) -> Path:
        """Write an image as ``{object}_{kind}.fits``, with the resolved configuration."""
        source = self.source
        if not self._config:
            self._config = resolved_yaml(source.config.only(source.name))
        path = self._path(kind)
        modes = image.modes if source.config.output.modes else ()
        known = {"product": kind, "description": DESCRIPTIONS.get(kind, ""), "config": self._config}
        self.wait()
        self.paths.append(path)
        self._underway = self._thread.submit(
            self._write, kind, image.evolve(meta={**image.meta, **known}, modes=modes), path, len(image.modes)
        )
        return path

    def _write(self, kind: str, image: Image, path: Path, n_modes: int) -> None:
        write(image, path, overwrite=True)
        self.rows.append({"product": kind, **figures(image), "n_modes": n_modes})

    def table(self) -> QTable:
        """Return the figures of all images that were written."""
        self.wait()
        table = QTable(rows=self.rows)
        for name, text in _COLUMNS.items():
            table[name].info.description = text
        return table


_COLUMNS = {
    "product": "name of the image",
    "unit": "of its values",
    "n_pixels": "usable pixels",
    "n_masked": "pixels that must not be used",
    "n_flagged": "usable pixels with a flag",
    "n_cosmic_rays": "usable pixels repaired after a cosmic ray",
    "n_negative": "usable pixels whose negative value was replaced",
    "median": "of the usable pixels",
    "scatter": "their median absolute deviation times 1.4826",
    "median_error": "median standard deviation claimed",
    "n_modes": "shared errors",
}


def figures(image: Image) -> Record:
    """Return figures of an image; medians of very large ones are those of a regular sample."""
    stride = max(1, int(np.sqrt(image.data.size / SAMPLE)))
    sample = (slice(None, None, stride), slice(None, None, stride))
    used = ~image.mask[sample]
    values, errors = image.data[sample][used], image.variance[sample][used]
    middle = float(np.median(values)) if values.size else np.nan
    flags = image.flags
    counts = [0, 0, 0]
    for rows in () if flags is None else blocks(image.shape[0], max(1, STRIPE // image.shape[1])):
        assert flags is not None
        usable = flags[rows][(flags[rows] != 0) & ~image.mask[rows]]
        for place, bits in enumerate((0xFFFF, int(Flag.REPAIRED_COSMIC_RAY), int(Flag.NEGATIVE))):
            counts[place] += int(np.count_nonzero(usable & bits))
    masked = int(np.count_nonzero(image.mask))
    return {
        "unit": unit_text(image.unit),
        "n_pixels": image.mask.size - masked,
        "n_masked": masked,
        "n_flagged": counts[0],
        "n_cosmic_rays": counts[1],
        "n_negative": counts[2],
        "median": middle,
        "scatter": 1.4826 * float(np.median(np.abs(values - middle))) if values.size else np.nan,
        "median_error": float(np.sqrt(np.median(errors))) if errors.size else np.nan,
        "n_modes": len(image.modes),
    }


def write_tables(source: Source, tables: Mapping[str, Table]) -> list[Path]:
    """Write tables as ``{object}_{kind}.ecsv`` and ``.fits``."""
    paths: list[Path] = []
    for kind, table in tables.items():
        place = source.folder / f"{source.name}_{kind}"
        paths.append(write_ecsv(table, place.with_suffix(".ecsv")))
        paths.append(write_fits_table(table, place.with_suffix(".fits"), kind.upper()))
    return paths


# --- images made of others ------------------------------------------------------------------------------------------


def scaled(image: Image, factor: float, unit: u.UnitBase, name: str, **parameters: Any) -> Image:
    """Multiply an image, with all its errors, by a number, and give it a unit."""
    kind = image.data.dtype.type
    return image.evolve(
        step(name, factor=factor, **parameters),
        data=image.data * kind(factor),
        variance=image.variance * kind(factor) ** 2,
        modes=tuple(Mode(mode.name, mode.map, mode.sigma * factor) for mode in image.modes),
        unit=unit,
    )


def per_pixel(image: Image, unit: u.UnitBase | str = "1e-20 erg / (s cm2)") -> Image:
    """Turn a surface brightness into flux per pixel, with the area of each from the WCS."""
    from skyloom.imaging.measure.units import convert_unit

    return convert_unit(image, unit)


def deviation(image: Image) -> Image:
    """Return the standard deviation of each pixel as data, shared errors included.

    Its own variance is not known: it is set to a hundredth of its square, and said in the history.
    """
    sigma, variance = (np.empty(image.shape, np.float32) for _ in range(2))

    def work(rows: slice) -> None:
        total = image.variance[rows].astype(np.float32)
        for mode in image.modes:
            values = np.asarray(mode.map, dtype=np.float32)
            total += np.square((values[rows] if values.ndim else values) * np.float32(mode.sigma))
        total[image.mask[rows]] = 0.0
        np.sqrt(total, out=sigma[rows])
        np.multiply(total, np.float32(0.01), out=variance[rows])
        variance[rows][image.mask[rows]] = np.nan

    run_blocks(work, blocks(image.shape[0], max(1, STRIPE // image.shape[1])))
    return Image(
        sigma,
        variance,
        image.mask,
        image.unit,
        image.wcs,
        psf=image.psf,
        flags=image.flags,
        meta=image.meta,
        history=(*image.history, step("deviation", of="hst_ha", own_relative_error=0.1)),
    )


def luminosity(image: Image, distance_mpc: float) -> Image:
    """Return the luminosity per pixel of a flux per pixel: L = 4 pi d^2 F."""
    sphere = 4.0 * np.pi * (distance_mpc * u.Mpc) ** 2
    factor = float((image.unit * sphere).to(LUMINOSITY_UNIT).value)
    return scaled(image, factor, LUMINOSITY_UNIT, "luminosity", distance_mpc=distance_mpc)


def star_formation(image: Image, distance_mpc: float) -> Image:
    """Return the surface density of star formation of a line's surface brightness.

    log10(SFR / (Msun/yr)) = log10(L / (erg/s)) - 41.27 (Kennicutt & Evans 2012, 10.1146/annurev-astro-081811-125610):
    L per area is 4 pi (arcsec per radian)^2 times the surface brightness, whatever the distance.
    """
    sphere = 4.0 * np.pi * u.rad**2
    per_area = (image.unit * sphere).to(u.erg / u.s / u.kpc**2)
    factor = float(per_area.value) * STAR_FORMATION_PER_LUMINOSITY
    return scaled(image, factor, STAR_FORMATION_UNIT, "star_formation", distance_mpc=distance_mpc)
