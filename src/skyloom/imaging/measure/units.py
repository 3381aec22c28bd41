"""Units of images: counts, flux densities and line fluxes, per pixel or per area, with their variances and modes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import astropy.units as u
import numpy as np
from numpy.typing import NDArray

from skyloom.core.bandpass import AB_ZERO, Bandpass
from skyloom.core.image import Image, Mode
from skyloom.core.provenance import step
from skyloom.core.units import area_unit, parse_unit
from skyloom.errors import InputError, UnitError
from skyloom.imaging.grids.pixel_areas import PixelAreas, pixel_areas

__all__ = ["FLUX_DENSITY", "LINE_BRIGHTNESS", "convert_unit"]

Array = NDArray[Any]
Kind = Literal["rate", "counts", "f_lambda", "f_nu", "line"]

#: Flux density per wavelength and area, scaled so that variances of deep images stay within float32.
FLUX_DENSITY: u.UnitBase = u.Unit("1e-20 erg / (s cm2 AA arcsec2)")
#: Flux of a line per area, scaled likewise.
LINE_BRIGHTNESS: u.UnitBase = u.Unit("1e-20 erg / (s cm2 arcsec2)")
F_LAMBDA = u.erg / u.s / u.cm**2 / u.AA
COUNTS = (u.electron, u.ct, u.DN, u.adu)
BLOCK = 1 << 15  # Pixels converted at a time: their temporaries stay in the cache.
# Modes are errors: where pixel areas vary by less than this, one number serves for their maps.
MODE_ACCURACY = 1e-3
# The power of ten that keeps variances of faint images within float32 stands in the unit.
SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What a unit measures: its kind, the unit without the area, the area it is per, and what is counted."""

    kind: Kind
    flux: u.UnitBase
    area: u.UnitBase | None
    count: u.UnitBase | None = None


def convert_unit(
    image: Image,
    unit: u.UnitBase | str,
    *,
    photflam: float | None = None,
    pivot: float | None = None,
    bandpass: Bandpass | None = None,
) -> Image:
    """Return an image in another unit.

    Parameters
    ----------
    image : Image
    unit : unit or str
        Counts (electron, count, DN) or their rate, a flux density per wavelength or per frequency (Jy, maggies), or a
        line flux; per pixel, or per solid angle (arcsec2, sr, ...). `FLUX_DENSITY` and `LINE_BRIGHTNESS` carry a
        factor of 1e-20 that keeps variances within float32.
    photflam : float, optional
        Flux density in erg s-1 cm-2 A-1 of one count per second; by default ``image.meta["photflam"]``. From an AB
        zero point it is ``bandpass.photflam(zero_point)``.
    pivot : float, optional
        Pivot wavelength in A, which converts flux densities per wavelength into those per frequency; by default that
        of ``bandpass``, then ``image.meta["photplam"]``.
    bandpass : Bandpass, optional
        Of the image.

    Returns
    -------
    Image
        Data times a factor f, variance times f^2, in the precision they had, and modes times f (one f for all of a
        mode where pixel areas vary by less than 0.1 %). Mask, flags, PSF and correlation are those of the image: f is
        the same for neighbouring pixels.

    Raises
    ------
    UnitError
        When the units measure different things, or variances would leave the range of float32.
    InputError
        When PHOTFLAM, the pivot wavelength, the exposure time or the WCS is needed and missing.

    Notes
    -----
    f = (flux of one source unit / flux of one target unit) [/ pixel area | * pixel area], with one count per second =
    PHOTFLAM erg s-1 cm-2 A-1, f_nu = f_lambda pivot^2 / c, counts = rate * ``meta["exposure"]``, and the area of every
    pixel from the whole WCS (`skyloom.imaging.grids.pixel_areas.pixel_areas`). A flux density becomes the flux of a
    line only by the width of the band at the line (`skyloom.core.bandpass.Bandpass.line_width`), so that is refused
    here.
    """
    target = parse_unit(unit)
    source_path = image.meta.get("path")
    before, after = _meaning(image.unit, source_path), _meaning(target, source_path)
    used: dict[str, float] = {}
    factor = _flux_factor(image, before, after, used, photflam, pivot, bandpass)
    if before.area is not None and after.area is not None:
        factor *= after.area.to(before.area)
    areas: PixelAreas | None = None
    side = after.area if before.area is None else before.area
    if side is not None and (before.area is None or after.area is None):
        areas = _areas(image)
        area = areas.mean * u.arcsec.to(u.rad) ** 2 / side.to(u.sr)
        factor = factor / area if before.area is None else factor * area
        used["pixel_area_arcsec2"] = areas.mean
    record = step("convert_unit", unit_before=image.unit, unit=target, factor=factor, **used)
    planes = _scaled(image, factor, areas, divide=before.area is None, target=target)
    return image.evolve(record, unit=_without_pixels(target), **planes)


def _areas(image: Image) -> PixelAreas:
    try:
        return pixel_areas(image.wcs, image.shape)
    except InputError as error:
        if "path" not in image.meta:
            raise
        raise error.located(image.meta["path"]) from error


# --------------------------------------------------------------------------------------------- meaning of units


def _without_pixels(unit: u.UnitBase) -> u.UnitBase:
    """Drop a "per pixel", which is what no area means."""
    for base, power in zip(unit.bases, unit.powers, strict=True):
        if base == u.pix and power == -1:
            return unit * u.pix
    return unit


def _meaning(unit: u.UnitBase, source: Any) -> _Meaning:
    plain = _without_pixels(unit)
    area = area_unit(plain)
    flux = plain if area is None else plain * area
    for count in COUNTS:
        if flux.is_equivalent(count):
            return _Meaning("counts", flux, area, count)
        if flux.is_equivalent(count / u.s):
            return _Meaning("rate", flux, area, count)
    if flux.is_equivalent(F_LAMBDA):
        return _Meaning("f_lambda", flux, area)
    if flux.is_equivalent(u.Jy) or flux.is_equivalent(u.mgy):
        return _Meaning("f_nu", flux, area)
    if flux.is_equivalent(u.erg / u.s / u.cm**2):
        return _Meaning("line", flux, area)
    raise UnitError(
        f"the unit {str(unit) or 'dimensionless'!r} is neither counts, a flux density nor a line flux",
        source=source,
        field="unit",
        remedy='say what the image holds, e.g. unit="electron/s" when it is read',
    )


def _flux_factor(
    image: Image,
    before: _Meaning,
    after: _Meaning,
    used: dict[str, float],
    photflam: float | None,
    pivot: float | None,
    bandpass: Bandpass | None,
) -> float:
    """Return what one unit of ``before`` is in units of ``after``, areas aside; note in ``used`` what went into it."""
    if "line" in (before.kind, after.kind) and before.kind != after.kind:
        raise UnitError(
            f"{image.unit} and the unit asked for differ by the width of a band: one is a line flux",
            source=image.meta.get("path"),
            field="unit",
            remedy="multiply the flux density with Bandpass.line_width at the wavelength of the line",
        )
    counted = (before.count is not None, after.count is not None)
    if all(counted) and before.count != after.count:
        raise UnitError(
            f"{before.count} and {after.count} differ by the gain",
            source=image.meta.get("path"),
            field="unit",
            remedy=f"multiply the image by the gain, or stay with {before.count}",
        )
    if before.kind == after.kind:
        return _to(before.flux, after.flux)

    def flux_density(meaning: _Meaning) -> float:
        """One unit in erg s-1 cm-2 A-1; in counts per second where both are counts."""
        if meaning.count is None:
            if meaning.kind == "f_lambda":
                return float(meaning.flux.to(F_LAMBDA))
            used.setdefault("pivot", _pivot(image, pivot, bandpass))
            jansky = _to(meaning.flux, u.Jy)
            return float((jansky * u.Jy).to_value(F_LAMBDA, u.spectral_density(used["pivot"] * u.AA)))
        if meaning.kind == "counts":
            used.setdefault("exposure", _known(image, None, "exposure", "exposure", "EXPTIME", "s"))
            rate = float(meaning.flux.to(meaning.count)) / used["exposure"]
        else:
            rate = float(meaning.flux.to(meaning.count / u.s))
        if all(counted):
            return rate
        used.setdefault(
            "photflam", _known(image, photflam, "photflam", "photflam", "PHOTFLAM", str(F_LAMBDA))
        )
        return rate * used["photflam"]

    return flux_density(before) / flux_density(after)


def _to(source: u.UnitBase, target: u.UnitBase) -> float:
    """Return one ``source`` in units of ``target``; AB maggies are 3631 Jy."""
    zero_point = u.zero_point_flux(AB_ZERO * 1e23 * u.Jy)
    return float((1.0 * source).to_value(target, zero_point))


def _pivot(image: Image, pivot: float | None, bandpass: Bandpass | None) -> float:
    """Return the pivot wavelength in A, from the best of three places."""
    if pivot is None and bandpass is not None:
        header = image.meta.get("photplam")
        if header is not None and abs(bandpass.pivot / header - 1.0) > 0.02:
            raise InputError(
                f"PHOTPLAM is {header:.1f} A, but the band {bandpass.name or 'given'} has its pivot at "
                f"{bandpass.pivot:.1f} A",
                source=image.meta.get("path"),
                field='meta["photplam"]',
                remedy="give the curve of the image's own filter (are two bands swapped?)",
            )
        return bandpass.pivot
    return _known(image, pivot, "pivot", "photplam", "PHOTPLAM", "A")


def _known(image: Image, value: float | None, argument: str, key: str, keyword: str, unit: str) -> float:
    """Return a number from the caller or from ``image.meta``, or say how to give it."""
    found = image.meta.get(key) if value is None else value
    remedy = (
        f"add {keyword} to the header or set image.meta[{key!r}]"
        if argument == key == "exposure"
        else f"pass {argument}=... ({unit}), or add {keyword} to the header"
    )
    if found is None:
        raise InputError(
            f"converting {image.unit} needs {keyword}, which is not known",
            source=image.meta.get("path"),
            field=keyword,
            remedy=remedy,
        )
    try:
        number = float(found)
    except (TypeError, ValueError):
        number = np.nan
    if not 0 < number < np.inf:
        raise InputError(
            f"{keyword} is {found}; expected a number > 0",
            source=image.meta.get("path"),
            field=keyword,
            remedy=remedy,
        )
    return number


# ------------------------------------------------------------------------------------------------------- scaling


def _scaled(
    image: Image, factor: float, areas: PixelAreas | None, *, divide: bool, target: u.UnitBase
) -> dict[str, Any]:
    """Return data, variance and modes times ``factor``, and the relative area of each pixel where it varies."""
    varying = areas if areas is not None and not areas.constant else None
    if varying is None and factor == 1.0:
        return {}
    data, variance = np.empty_like(image.data), np.empty_like(image.variance)
    keep = varying is None or varying.spread < MODE_ACCURACY
    maps = [None if keep else np.empty(image.shape, _mode_type(mode, image)) for mode in image.modes]
    ny, nx = image.shape
    rows = max(1, BLOCK // max(1, nx))
    change: Any = np.float64(factor)
    for start in range(0, ny, rows):
        block = slice(start, min(start + rows, ny))
        if varying is not None:
            relative = 1.0 / varying.relative(block) if divide else varying.relative(block)
            _scale_modes(image.modes, maps, relative, block)
            change = relative * factor
        # What leaves the range of float32 in these products is refused in the next line.
        with np.errstate(over="ignore", under="ignore"):
            np.multiply(image.data[block], change, out=data[block], casting="same_kind")
            np.multiply(image.variance[block], change**2, out=variance[block], casting="same_kind")
        _refuse_overflow(variance[block], image.mask[block], image, target)
    modes = tuple(
        Mode(mode.name, mode.map if plane is None else plane, mode.sigma * factor)
        for mode, plane in zip(image.modes, maps, strict=True)
    )
    return {"data": data, "variance": variance, "modes": modes}


def _scale_modes(
    modes: tuple[Mode, ...], maps: list[Array | None], relative: NDArray[np.float64], block: slice
) -> None:
    for mode, plane in zip(modes, maps, strict=True):
        if plane is not None:
            values = np.asarray(mode.map)
            np.multiply(
                values[block] if values.ndim else values, relative, out=plane[block], casting="same_kind"
            )


def _mode_type(mode: Mode, image: Image) -> np.dtype[Any]:
    kind = np.asarray(mode.map).dtype
    return kind if np.ndim(mode.map) and kind.kind == "f" else image.data.dtype


def _refuse_overflow(variance: Array, mask: NDArray[np.bool_], image: Image, target: u.UnitBase) -> None:
    """Raise when float32 variances of usable pixels became too small or too large to have digits."""
    if variance.dtype != np.float32:
        return
    lost = (variance < SMALLEST) | (variance > LARGEST)
    lost &= ~mask
    if lost.any():
        raise UnitError(
            f"in the unit {target} variances leave the range of float32 ({variance[lost][0]:g})",
            source=image.meta.get("path"),
            field="unit",
            remedy="put a power of ten into the unit, as in '1e-20 erg / (s cm2 AA arcsec2)', or use float64 planes",
        )
