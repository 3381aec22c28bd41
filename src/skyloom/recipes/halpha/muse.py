"""What MUSE saw: images in the bands of HST, and maps of emission lines, on one grid and in one unit.

Band images are made of a cube, or are given ready-made; maps of lines come from a file of an analysis pipeline or of
the recipe ``ifs``, or are fitted to the cube.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skyloom.core.bandpass import Bandpass
from skyloom.core.geometry import celestial, same_grid
from skyloom.core.image import Image
from skyloom.core.line_maps import SHARED_ERRORS, LineMaps
from skyloom.core.linelist import default_lines
from skyloom.core.provenance import step
from skyloom.core.psf import PSF, GaussianPSF, MoffatPSF
from skyloom.errors import AssumptionWarning, InputError, SkyloomError, UnitError
from skyloom.imaging.grids.reproject import reproject
from skyloom.imaging.measure.units import FLUX_DENSITY, LINE_BRIGHTNESS, convert_unit
from skyloom.io.cubes.files import open_cube
from skyloom.io.cubes.muse_maps import map_names, read_muse_image, read_muse_maps
from skyloom.io.formats.files import open_fits
from skyloom.io.products import line_maps as own_maps
from skyloom.recipes.halpha.config import LineFiles, MuseSettings

if TYPE_CHECKING:
    from skyloom.recipes.halpha.muse_cube import MuseCube

__all__ = ["DEFAULT_EXTENSIONS", "MuseSide", "read_muse_side"]

DEFAULT_EXTENSIONS = {
    "Hbeta": "HB4861_FLUX",
    "OIII4959": "OIII4958_FLUX",
    "OIII5007": "OIII5006_FLUX",
    "NII6548": "NII6548_FLUX",
    "Halpha": "HA6562_FLUX",
    "NII6583": "NII6583_FLUX",
    "SII6716": "SII6716_FLUX",
    "SII6731": "SII6730_FLUX",
}
"""Extensions of the maps of PHANGS-MUSE, by the keys of the list of lines."""

TOLERANCE = 0.01  # pixels that two grids may be apart and still be the same
OVERLAP_STEP = 4  # Pixels of MUSE between places that are looked for in it.
MOST_SHARE = 3.0  # No line can hold this many times the light of the band that it lies in.
BRIGHT = 5.0  # S/N of the pixels that are compared.


@dataclass(frozen=True, slots=True, eq=False)
class MuseSide:
    """Images of MUSE on one grid.

    Parameters
    ----------
    bands : dict of str to Image
        By band of HST, mean flux densities in 1e-20 erg / (s cm2 AA arcsec2).
    lines : dict of str to Image
        By key of the line list, ``Halpha`` always among them, in 1e-20 erg / (s cm2 arcsec2).
    psf : PSF or None
        As configured, or as the files tell it; None: not known.
    meta : dict
        ``sources``: where bands and lines come from; ``notes``: what was assumed.
    """

    bands: dict[str, Image]
    lines: dict[str, Image]
    psf: PSF | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def require_overlap(self, image: Image, name: str = "HST") -> None:
        """Raise unless usable pixels of MUSE lie on usable pixels of an image of ``name``.

        Raises
        ------
        InputError
            When none does; the message says how far the centres are apart.
        """
        band = next(iter(self.bands.values()))
        grids = [celestial(one.wcs) for one in (band, image)]
        step = max(1, round(OVERLAP_STEP * band.pixel_scale / image.pixel_scale))
        if not image.valid[::step, ::step].any():
            step = 1
        y, x = (step * place for place in np.nonzero(image.valid[::step, ::step]))
        # From the distorted grid to the plain one: the inverse of a distortion diverges far from its image.
        where = np.array(grids[0].wcs_world2pix(*grids[1].all_pix2world(x, y, 0), 0))
        ny, nx = band.shape
        with np.errstate(invalid="ignore"):  # What lies beyond the horizon of the projection has no place.
            inside = (where > -0.5).all(axis=0) & (where[0] < nx - 0.5) & (where[1] < ny - 0.5)
        column, row = np.rint(where[:, inside]).astype(int)
        if band.valid[row, column].any():
            return
        centres = [
            grid.pixel_to_world((one.shape[1] - 1) / 2, (one.shape[0] - 1) / 2)
            for grid, one in zip(grids, (band, image), strict=True)
        ]
        raise InputError(
            f"MUSE and {name} do not overlap: their centres are {centres[0].separation(centres[1]).arcsec:.1f} arcsec"
            " apart",
            source=image.meta.get("path"),
            remedy="check that the files show the same object, and their WCS",
        )


def read_muse_side(
    settings: MuseSettings,
    curves: Mapping[str, Bandpass],
    redshift: float,
    *,
    cube: str | Path | None = None,
    bands: Mapping[str, str | Path] | None = None,
    lines: str | Path | None = None,
    threads: int | None = None,
) -> MuseSide:
    """Read what MUSE saw.

    Parameters
    ----------
    settings : MuseSettings
        How; the files themselves are given below, their patterns filled in.
    curves : mapping of str to Bandpass
        Throughputs of the bands of HST that images are wanted in, the narrow one first.
    redshift : float
        Of the object as observed: lines are expected at rest wavelength (vacuum) times 1 + redshift.
    cube, lines : path, optional
        The cube, and the file of line maps.
    bands : mapping of str to path, optional
        Ready-made images; they win over those made of a cube.
    threads : int, optional

    Returns
    -------
    MuseSide
        All on the grid of the image in the narrow band. What lies on other grids is resampled with its variance and
        correlation, with a note; errors that pixels of a bin share become larger ones of independent pixels, whose
        sum over the bin has the error of the bin.

    Raises
    ------
    InputError, FileFormatError, UnitError
        When a file cannot be read, a map is not what it should be (another unit, no usable pixel, more light than
        the band that it lies in), maps do not overlap, or lines are to be fitted without templates.
    """
    notes: list[str] = []
    opened = _opened(settings, cube, redshift, threads, wanted=not bands or settings.lines == "fit")
    if bands:
        images = {band: _band_image(Path(bands[band]), band, curve) for band, curve in curves.items()}
    elif opened is not None:
        from skyloom.spectral.bands.synthetic import synthetic_images

        made = synthetic_images(opened, curves, minimum_coverage=settings.minimum_coverage, workers=threads)
        images = {band: _converted(image, cube, f"band {band}") for band, image in made.items()}
    else:
        raise InputError("there is neither a cube nor images in the bands", field="muse.bands")
    if settings.lines == "fit":
        if opened is None:
            raise InputError(
                "lines can be fitted to a cube only", field="muse.lines", remedy="give muse.cube"
            )
        from skyloom.recipes.halpha.muse_cube import fit_line_maps

        maps = fit_line_maps(opened, settings.continuum)
    else:
        assert isinstance(settings.lines, LineFiles)  # the configuration requires one of both
        maps = _line_images(settings.lines, Path(lines or settings.lines.file), notes)
    images, maps = _on_one_grid(images, maps, next(iter(curves)), notes)
    for name, image in (images | maps).items():
        if not image.valid.any():
            raise InputError(f"no pixel of {name} is usable", source=image.meta.get("path"))
    _check_light(images[next(iter(curves))], maps["Halpha"], next(iter(curves.values())), redshift)
    for note in notes:
        warnings.warn(note, AssumptionWarning, stacklevel=2)
    sources = {
        "bands": {band: str(bands[band]) for band in curves} if bands else f"synthetic: {cube}",
        "lines": f"fitted: {cube}" if settings.lines == "fit" else str(lines or settings.lines.file),  # type: ignore[union-attr]
    }
    first = images[next(iter(curves))]
    meta = {"instrument": "MUSE", "redshift": redshift, "sources": sources, "notes": notes}
    return MuseSide(images, maps, _declared(settings) or first.psf, meta)


def _opened(
    settings: MuseSettings, path: str | Path | None, redshift: float, threads: int | None, *, wanted: bool
) -> MuseCube | None:
    """Open the cube where something is made of it; what cannot be fitted is said before its noise is measured."""
    if path is None or not wanted:
        return None
    # What works on spectra takes long to load, and most runs have images and maps ready.
    from skyloom.recipes.halpha.muse_cube import MuseCube, check_fit

    file = open_cube(path)
    if settings.lines == "fit":
        check_fit(file, redshift, settings.continuum)
    return MuseCube(file, redshift, threads=threads)


def _declared(settings: MuseSettings) -> PSF | None:
    """The PSF that the configuration tells; never what a name of a file may suggest."""
    given = settings.psf
    if isinstance(given, str):
        return None
    return GaussianPSF(given.fwhm) if given.beta is None else MoffatPSF(given.fwhm, given.beta)


# --- bands ----------------------------------------------------------------------------------------------------------


def _band_image(path: Path, band: str, curve: Bandpass) -> Image:
    image = read_muse_image(path, band=band)
    try:
        converted = convert_unit(image, FLUX_DENSITY, bandpass=curve)
    except SkyloomError as error:
        raise UnitError(
            f"the image in {band} is in {image.unit}: {error}",
            source=path,
            field="BUNIT",
            remedy="give an image in Jy or in a flux density, such as erg / (s cm2 Angstrom)",
        ) from error
    return converted.evolve(meta={**converted.meta, "band": band})


def _converted(image: Image, path: str | Path | None, what: str) -> Image:
    try:
        return convert_unit(image, FLUX_DENSITY)
    except SkyloomError as error:
        raise UnitError(
            f"{what}: the cube is in {image.unit}: {error}", source=path, field="BUNIT"
        ) from error


# --- lines ----------------------------------------------------------------------------------------------------------


def _line_images(settings: LineFiles, path: Path, notes: list[str]) -> dict[str, Image]:
    """Read maps of lines by the keys of the line list."""
    with open_fits(path) as file:
        own = own_maps.sniff(file)
        present = [] if own else list(map_names(file))
    found = _own_lines(settings, path, notes) if own else _survey_lines(settings, path, present)
    return {key: _line_brightness(image, path, key) for key, image in found.items()}


def _survey_lines(settings: LineFiles, path: Path, present: list[str]) -> dict[str, Image]:
    chosen = {key: name for key, name in DEFAULT_EXTENSIONS.items() if name in present}
    chosen |= {key: name.upper() for key, name in settings.extensions.items()}
    if "Halpha" not in chosen:
        raise InputError(
            f"there is no map {DEFAULT_EXTENSIONS['Halpha']} with errors",
            source=path,
            field="muse.lines",
            remedy=f"name the map of Halpha, lines: {{Halpha: ...}}; known: {', '.join(present) or 'none'}",
        )
    units = {} if settings.unit is None else dict.fromkeys(chosen.values(), settings.unit)
    read = read_muse_maps(path, names=list(chosen.values()), units=dict(units))
    return {key: read[name] for key, name in chosen.items()}


def _own_lines(settings: LineFiles, path: Path, notes: list[str]) -> dict[str, Image]:
    """Maps of the recipe ``ifs``, also those of bins."""
    maps = own_maps.read_line_maps(path)
    by_name = {name.upper(): name for name in maps}
    chosen = {key: f"{key}_flux".upper() for key in default_lines().keys if f"{key}_flux".upper() in by_name}
    chosen |= {key: name.upper() for key, name in settings.extensions.items()}
    wanted = [*chosen.values()] if "Halpha" in chosen else ["HALPHA_FLUX", *chosen.values()]
    missing = [name for name in wanted if name not in by_name]
    if missing:
        raise InputError(
            f"there is no map {missing[0]}",
            source=path,
            field="muse.lines",
            remedy=f"known: {', '.join(name for name in by_name if name.endswith('_FLUX'))}",
        )
    if maps.per == "bin":
        raise UnitError(
            "the fluxes are those of whole bins, repeated in each of their pixels",
            source=path,
            field="muse.lines",
            remedy="write the maps with maps: {per: spaxel_area} or {per: arcsec2}",
        )
    if maps.shares_errors:
        notes.append(
            f"{path}: pixels of a bin share their flux and its error; their light is spread evenly over the bin, and"
            " they are taken for independent with a variance that gives sums over bins their error"
        )
    return {key: _independent(maps, by_name[name], path) for key, name in chosen.items()}


def _independent(maps: LineMaps, name: str, path: Path) -> Image:
    """Make pixels that share the error of their bin independent, the error of a sum over the bin kept.

    n pixels with the same error s have a sum with the error n s; independent ones need sqrt(n) s each.
    """
    image = maps[name]
    image = image.evolve(meta={**image.meta, "path": str(path)})
    if SHARED_ERRORS not in image.meta:
        return image
    number = maps.spread(maps.n_pixels.astype(np.float64))
    meta = {key: value for key, value in image.meta.items() if key != SHARED_ERRORS}
    return image.evolve(
        step("unshare_errors", note="variance times the pixels of the bin"),
        variance=np.where(
            image.mask, image.variance, image.variance * np.where(np.isfinite(number), number, 1.0)
        ),
        meta=meta,
    )


def _line_brightness(image: Image, path: Path, key: str) -> Image:
    """Bring a map to flux per area, or say that it is no map of fluxes."""
    try:
        converted = convert_unit(image, LINE_BRIGHTNESS)
    except SkyloomError as error:
        raise UnitError(
            f"the map of {key} ({image.meta.get('name', image.meta.get('map', key))}) is in"
            f" {str(image.unit) or 'no unit'}; expected the flux of a line, in erg / (s cm2) per pixel or per area",
            source=path,
            field="muse.lines",
            remedy="name the map of its flux, or say its unit, lines: {file: ..., unit: 1e-20 erg / (s cm2)}",
        ) from error
    return converted.evolve(meta={**converted.meta, "line": key})


# --- what both have to agree in -------------------------------------------------------------------------------------


def _on_one_grid(
    bands: dict[str, Image], lines: dict[str, Image], reference: str, notes: list[str]
) -> tuple[dict[str, Image], dict[str, Image]]:
    """Resample what is not on the grid of the narrow band."""
    target = bands[reference]
    moved: list[str] = []

    def settle(name: str, image: Image) -> Image:
        if image.wcs is None or target.wcs is None:
            raise InputError(f"{name} has no WCS", source=image.meta.get("path"), field="wcs")
        if same_grid(image.wcs, image.shape, target.wcs, target.shape, TOLERANCE):
            return image
        moved.append(name)
        try:
            return reproject(image, target)
        except InputError as error:
            raise InputError(
                f"{name} does not lie on the image of MUSE in {reference}: {error}",
                source=image.meta.get("path"),
                field="muse",
                remedy="give maps and images of the same field",
            ) from error

    settled = [{name: settle(name, image) for name, image in group.items()} for group in (bands, lines)]
    if moved:
        notes.append(
            f"MUSE: {', '.join(moved)} lie on another grid than {reference}; resampled, with their variance and"
            " correlation"
        )
    return settled[0], settled[1]


def _check_light(narrow: Image, halpha: Image, curve: Bandpass, redshift: float) -> None:
    """Refuse a map of Halpha with far more light than the band that it lies in: a power of ten of its unit is wrong."""
    width = curve.line_width(default_lines()["Halpha"].rest("vacuum") * (1.0 + redshift))
    with np.errstate(invalid="ignore"):
        bright = narrow.valid & halpha.valid
        bright &= narrow.data > BRIGHT * np.sqrt(narrow.variance)
        bright &= halpha.data > BRIGHT * np.sqrt(halpha.variance)
    if not bright.any():
        return
    share = float(np.sum(halpha.data[bright], dtype=float) / width / np.sum(narrow.data[bright], dtype=float))
    if share > MOST_SHARE:
        raise UnitError(
            f"the map of Halpha holds {share:.3g} times the light of the narrow band that it lies in",
            source=halpha.meta.get("path"),
            field="muse.lines.unit",
            remedy="check its unit: a factor such as 1e-20 is missing, or the band images have one too many",
        )
