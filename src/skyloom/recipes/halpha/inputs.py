"""One object of a ``halpha`` run as its steps see it: its files, its bands, and the images of HST made ready.

What cannot work is found here, before anything is written: files that are not there, bands that are not what the
configuration takes them for, images without light.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from skyloom import io
from skyloom.core.bandpass import Bandpass
from skyloom.core.image import Image
from skyloom.core.linelist import default_lines
from skyloom.core.noise import NoiseMeasurement, add_source_poisson, apply_noise, measure_correlation
from skyloom.core.provenance import step
from skyloom.core.threads import blocks, run_blocks
from skyloom.errors import InputError
from skyloom.imaging.measure.units import FLUX_DENSITY, convert_unit
from skyloom.imaging.sky.background import empty_sky, measure_background
from skyloom.io.bandpass import find_bandpass, read_bandpass
from skyloom.recipes.folder import file_stamp
from skyloom.recipes.halpha.config import BandFiles, BandSettings, HalphaConfig, ObjectFiles, ObjectSettings
from skyloom.recipes.halpha.muse import MuseSide, read_muse_side

__all__ = [
    "Source",
    "Tick",
    "check_inputs",
    "muse_side",
    "open_source",
    "read_band",
    "read_curve",
    "ready_band",
]

Tick = Callable[[str, int, int], None]
"""Told the name of a stage, and how many of its parts are done."""

PIVOT_TOLERANCE = 0.02
"""Relative difference of PHOTPLAM from the pivot of the curve that is no matter of versions of a filter."""
TILE = 512
"""Side in pixels of the piece of an image on which the noise is measured."""
STRIPE = 1 << 20
"""Pixels whose photon noise is worked out at a time."""
REACH = 5
"""Lag in pixels beyond which drizzling does not correlate noise."""
CELL = 24
"""Side in pixels of the cells whose levels are taken off before: galaxies are smooth over them, noise is not."""


@dataclass(frozen=True, slots=True)
class Source:
    """One object: where its images come from, and what is known about it.

    Attributes
    ----------
    name : str
    config : HalphaConfig
    settings : ObjectSettings
    files : ObjectFiles
    curves : dict
        Band -> throughput.
    redshift : float
    folder : Path
        Where its products go.
    tick : callable
        Told how far a step is.
    """

    name: str
    config: HalphaConfig
    settings: ObjectSettings
    files: ObjectFiles
    curves: dict[str, Bandpass]
    redshift: float
    folder: Path
    tick: Tick = field(default=lambda *_: None)

    @property
    def narrow(self) -> str:
        """The band that holds the line."""
        return self.config.narrow.band

    @property
    def continua(self) -> tuple[str, ...]:
        """The bands that hold the continuum."""
        return tuple(self.config.continua)

    @property
    def stamps(self) -> list[Any]:
        """What tells whether the images of HST are still the same."""
        return [file_stamp(path) for path in self.files.hst]

    @property
    def muse_stamps(self) -> list[Any]:
        """The same of the files of MUSE."""
        return [file_stamp(path) for path in self.files.muse]

    def observed(self, line: str) -> float:
        """Return the observed vacuum wavelength of a line, A."""
        return default_lines()[line].rest("vacuum") * (1.0 + self.redshift)

    def line_width(self, line: str) -> float:
        """Return the width in A by which the narrow band turns a line flux into a mean flux density."""
        return self.curves[self.narrow].line_width(self.observed(line))

    def files_of(self, band: str) -> BandFiles:
        """Return the files of a band."""
        return next(item for item in self.files.bands if item.band == band)


def open_source(config: HalphaConfig, name: str, *, tick: Tick = lambda *_: None) -> Source:
    """Find the files and curves of an object, and check what can be checked without reading images.

    Raises
    ------
    InputError
        When a file is missing, or the line lies outside the narrow band.
    """
    files = config.object_files(name)
    other = (files.star_catalogue, files.star_mask, files.labels, files.catalogue)
    for path in (*files.hst, *files.muse, *(item for item in other if item is not None)):
        if not path.is_file():
            raise InputError.missing(path, field=f"a file of object {name}")
    curves = {band: read_curve(band, settings) for band, settings in config.bands.items()}
    redshift = config.redshift_of(name)
    assert redshift is not None  # the configuration requires one
    folder = Path(config.output.directory) / name
    source = Source(name, config, config.objects[name], files, curves, redshift, folder, tick)
    _check_order(source)
    source.line_width("Halpha")
    return source


def check_inputs(config: HalphaConfig) -> None:
    """Raise what is wrong with the only object of a run before its folder is made."""
    names = config.object_names()
    if len(names) == 1:
        open_source(config, names[0])


def read_curve(band: str, settings: BandSettings) -> Bandpass:
    """Read the throughput of a band from its file, or find it in an installed package."""
    given = settings.filter or band
    if Path(given).suffix or "/" in given:
        return read_bandpass(given, name=band)
    return find_bandpass(given)


def muse_side(source: Source) -> MuseSide | None:
    """Read what MUSE saw, or make it of its cube; None where the configuration knows of no MUSE data."""
    if source.config.muse is None:
        return None
    files = source.files
    return read_muse_side(
        source.config.muse,
        source.curves,
        source.redshift,
        cube=files.cube,
        bands=files.muse_bands,
        lines=files.lines,
    )


def _check_order(source: Source) -> None:
    """Refuse a narrow band that is wider than a continuum band: their order was swapped."""
    width = source.curves[source.narrow].rectangular_width
    for band in source.continua:
        if source.curves[band].rectangular_width < width:
            raise InputError(
                f"the continuum band {band} ({source.curves[band].rectangular_width:.0f} A wide) is narrower than"
                f" the narrow band {source.narrow} ({width:.0f} A)",
                field="narrow.band",
                remedy="name the band with the line under 'narrow', and the others under 'continua'",
            )


# --- images ---------------------------------------------------------------------------------------------------------


def read_band(source: Source, band: str) -> Image:
    """Read the image of a band in its own unit, with what the configuration knows better than the header.

    Raises
    ------
    InputError
        When it cannot be read, holds no light, or is the image of another band.
    """
    config, files, settings = source.config, source.files_of(band), source.config.bands[band]
    image = io.read(
        files.image,
        instrument=config.images.instrument,
        weight=files.weight,
        weight_kind=config.images.weight_kind,
        unit=config.images.unit,
    )
    if not isinstance(image, Image):
        raise InputError(f"holds a {type(image).__name__}, not an image", source=files.image)
    known = {"photflam": settings.photflam, "photplam": settings.pivot, "exposure": config.images.exposure}
    known = {key: value for key, value in known.items() if value is not None}
    image = image.evolve(meta={**image.meta, **known, "object": source.name})
    _check_band(source, band, image)
    return image.evolve(meta={**image.meta, "band": band})


def _check_band(source: Source, band: str, image: Image) -> None:
    path, curve = source.files_of(band).image, source.curves[band]
    pivot = image.meta.get("photplam")
    if pivot is not None and abs(pivot / curve.pivot - 1.0) > PIVOT_TOLERANCE:
        raise InputError(
            f"its pivot wavelength is {pivot:.0f} A; that of the curve of {band} is {curve.pivot:.0f} A",
            source=path,
            field="PHOTPLAM",
            remedy="check that the files of the bands, or their curves, are not swapped",
        )
    if not np.any(image.data[image.valid]):
        raise InputError("every usable pixel is zero", source=path, remedy="check how the image was made")


def measure_noise(image: Image) -> tuple[NoiseMeasurement, float]:
    """Measure scale and correlation of the noise on the faintest piece of an image, and the level there.

    Galaxies that fill the image leave no empty sky. On the faintest tile they are faint and smooth: the level of
    small cells is taken off, and what stands out is left out. What correlation is left at lags beyond the reach of
    drizzling is structure, which is as strong at all small lags, and is taken off as well.

    Raises
    ------
    InputError
        When too few pixels are usable.
    """
    tile = _faintest_tile(image)
    sky = measure_background(tile, method="mesh", mesh_arcsec=CELL * image.pixel_scale)
    noise = measure_correlation(*empty_sky(tile, sky), radius=REACH + 1)
    covariance = noise.correlation * noise.scale
    lags = np.abs(np.arange(-REACH - 1, REACH + 2))
    beyond = np.maximum.outer(lags, lags) >= REACH
    covariance -= covariance[beyond].mean()
    covariance[beyond] = 0.0
    scale = float(covariance[REACH + 1, REACH + 1])
    inner = slice(2, -2)
    correlation = covariance[inner, inner] / scale
    level = float(np.median(tile.data[tile.valid]))
    return replace(noise, scale=scale, correlation=(correlation + correlation[::-1, ::-1]) / 2.0), level


def _faintest_tile(image: Image) -> Image:
    ny, nx = image.shape
    best, lowest = (slice(0, ny), slice(0, nx)), np.inf
    for y in range(0, max(ny - TILE // 2, 1), TILE):
        for x in range(0, max(nx - TILE // 2, 1), TILE):
            place = (slice(y, min(y + TILE, ny)), slice(x, min(x + TILE, nx)))
            usable = ~image.mask[place][::4, ::4]
            if np.count_nonzero(usable) < 0.7 * usable.size:
                continue
            level = float(np.median(image.data[place][::4, ::4][usable]))
            if level < lowest:
                best, lowest = place, level
    rows, columns = best
    wcs = image.wcs
    return Image(
        image.data[best],
        image.variance[best],
        image.mask[best],
        image.unit,
        None if wcs is None else wcs[rows, columns],
        psf=image.psf,
    )


def ready_band(source: Source, image: Image) -> Image:
    """Give an image its noise, and bring it to flux density per area.

    Raises
    ------
    InputError
        When its calibration (PHOTFLAM) or exposure time is not known.
    """
    settings, band = source.config.noise, str(image.meta["band"])
    try:
        noise, level = measure_noise(image)
        if not settings.rescale_variance:
            noise = replace(noise, scale=1.0)
        if settings.correlation == "none":
            noise = replace(noise, correlation=np.ones((1, 1)))
        image = apply_noise(image, noise)
        if settings.source_poisson:
            # What the faintest tile holds, sky or galaxy, has its photon noise in what was measured there.
            gain = source.config.images.gain or 1.0
            image = add_photons(image, level, gain * exposure_of(image))
        return convert_unit(image, FLUX_DENSITY, bandpass=source.curves[band])
    except InputError as error:
        raise error.located(source.files_of(band).image) from None


def add_photons(image: Image, level: float, electrons: float) -> Image:
    """Add the photon noise of what exceeds a level, some rows at a time; see `add_source_poisson`."""
    variance = np.empty_like(image.variance)

    def work(rows: slice) -> None:
        # One more row on either side, for the means of 3x3 pixels.
        start, stop = max(rows.start - 1, 0), min(rows.stop + 1, image.shape[0])
        near = slice(start, stop)
        part = Image(
            image.data[near] - image.data.dtype.type(level),
            image.variance[near],
            image.mask[near],
            image.unit,
            None,
            correlation=image.correlation,
        )
        added = add_source_poisson(part, 1.0, electrons).variance
        variance[rows] = added[rows.start - start : rows.stop - start]

    run_blocks(work, blocks(image.shape[0], max(1, STRIPE // image.shape[1])))
    return image.evolve(
        step("add_source_poisson", electrons_per_unit=electrons, above=level), variance=variance
    )


def exposure_of(image: Image) -> float:
    """Return the exposure time of an image, s."""
    exposure = image.meta.get("exposure")
    if not exposure:
        raise InputError(
            "the exposure time is not known",
            source=image.meta.get("path"),
            field="EXPTIME",
            remedy="give images.exposure, or set noise.source_poisson=false",
        )
    return float(exposure)
