"""What continuum subtraction must know about its bands: wavelengths, weights, dust of the Milky Way, order, PSF."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import astropy.units as u
import numpy as np

from skyloom.core.bandpass import Bandpass
from skyloom.core.extinction import extinction_curve
from skyloom.core.geometry import same_grid
from skyloom.core.image import Image
from skyloom.core.units import is_per_area, parse_unit, sum_unit
from skyloom.errors import AssumptionWarning, InputError, ShapeError, UnitError

__all__ = ["BandSet", "band_set", "check_images", "extinction_factors"]

PER_WAVELENGTH = u.erg / u.s / u.cm**2 / u.AA
SAME_PIVOT = 0.02  # Headers and curves of one filter agree to 0.5 %; those of two filters hardly ever to 2 %.


@dataclass(frozen=True, slots=True)
class BandSet:
    """The bands of a subtraction, the narrow one first.

    Parameters
    ----------
    names : tuple of str
    pivots : tuple of float
        In A.
    bandpasses : tuple of Bandpass or None
        None where only the pivot is known.
    weights : tuple of float
        Of each continuum, sum 1: linear interpolation at the narrow pivot.
    """

    names: tuple[str, ...]
    pivots: tuple[float, ...]
    bandpasses: tuple[Bandpass | None, ...]
    weights: tuple[float, ...]


def check_images(images: Sequence[Image]) -> None:
    """Raise unless all images have one grid and one unit, that of a flux density per wavelength.

    Raises
    ------
    ShapeError, UnitError, InputError
    """
    narrow, *continua = images
    if len(continua) not in (1, 2):
        raise InputError(f"{len(continua)} continuum images given; expected 1 or 2", field="continua")
    density = sum_unit(narrow.unit) if is_per_area(narrow.unit) else narrow.unit
    if not density.is_equivalent(PER_WAVELENGTH):
        raise UnitError(
            f"the narrow band is in {narrow.unit}; expected a flux density per wavelength",
            field="unit",
            remedy="convert all images first (convert_unit)",
        )
    for number, image in enumerate(continua, start=1):
        where = f"continuum {number}"
        if parse_unit(image.unit) != narrow.unit:
            raise UnitError(
                f"{where} is in {image.unit}, the narrow band in {narrow.unit}",
                field="unit",
                remedy="convert all images to one flux density (convert_unit)",
            )
        if image.shape != narrow.shape:
            raise ShapeError(
                f"{where} has shape {image.shape}, the narrow band {narrow.shape}", field="continua"
            )
        if (image.wcs is None) != (narrow.wcs is None) or (
            image.wcs is not None
            and image.wcs is not narrow.wcs
            and not same_grid(narrow.wcs, narrow.shape, image.wcs, image.shape)
        ):
            raise InputError(
                f"{where} lies on another pixel grid than the narrow band",
                field="wcs",
                remedy="bring it there first (reproject)",
            )


def band_set(
    images: Sequence[Image], bands: Sequence[Bandpass | float | None], outside: str, slope: float
) -> BandSet:
    """Find names, pivot wavelengths and weights.

    Raises
    ------
    InputError
        When a pivot wavelength is unknown, image and band do not belong together, or the narrow band does not lie
        between the continua and ``outside`` is "refuse".
    """
    if len(bands) != len(images):
        raise InputError(
            f"{len(bands) - 1} continuum bands given for {len(images) - 1} images", field="bands"
        )
    if outside not in ("refuse", "extrapolate"):
        raise InputError(f"outside is {outside!r}; expected 'refuse' or 'extrapolate'", field="outside")
    if not np.isfinite(slope):
        raise InputError(f"slope is {slope}; expected a number", field="slope")
    names = tuple(
        _name(image, band, number) for number, (image, band) in enumerate(zip(images, bands, strict=True))
    )
    _check_names(images, names, bands)
    pivots = tuple(_pivot(*item) for item in zip(images, bands, names, strict=True))
    curves = tuple(band if isinstance(band, Bandpass) else None for band in bands)
    if len(pivots) == 2:
        return BandSet(names, pivots, curves, (1.0,))
    first, second = pivots[1:]
    if first == second:
        raise InputError(
            f"{names[1]} and {names[2]} have the same pivot wavelength, {first:.1f} A",
            field="bands",
            remedy="give one of them only",
        )
    red = (pivots[0] - first) / (second - first)
    if not 0 <= red <= 1:
        text = (
            f"the pivot of {names[0]}, {pivots[0]:.1f} A, does not lie between those of {names[1]}, {first:.1f} A, and "
            f"{names[2]}, {second:.1f} A"
        )
        if outside == "refuse":
            raise InputError(
                text,
                field="bands",
                remedy='check the order of the images and bands, or extrapolate with outside="extrapolate"',
            )
        warnings.warn(f"{text}: the continuum is extrapolated", AssumptionWarning, stacklevel=4)
    return BandSet(names, pivots, curves, (1.0 - red, red))


def extinction_factors(
    images: Sequence[Image],
    bands: BandSet,
    *,
    a_v: float | None,
    ebv: float | None,
    r_v: float,
    curve: str,
) -> tuple[tuple[float, ...], float | None]:
    """Return what the dust of the Milky Way makes the light of each band multiplied with, and its A_V.

    Raises
    ------
    InputError
        When an image was corrected before, some are corrected and others not, both ``a_v`` and ``ebv`` are given, or
        either is not a number >= 0.
    """
    states = [image.meta.get("milky_way_corrected") for image in images]
    if a_v is not None and ebv is not None:
        raise InputError(
            "both a_v and ebv given; at most one is needed", field="a_v", remedy="ebv = a_v / r_v"
        )
    if a_v is None and ebv is None:
        if any(states) and any(state is not None and not state for state in states):
            listed = ", ".join(
                f"{name}: {bool(state)}" for name, state in zip(bands.names, states, strict=True)
            )
            raise InputError(
                f"the extinction of the Milky Way has been taken out of some images only ({listed})",
                field="milky_way_corrected",
                remedy="correct all of them or none",
            )
        return (1.0,) * len(images), None
    field, value = ("a_v", a_v) if ebv is None else ("ebv", ebv)
    if value is None or not 0 <= value < np.inf:
        raise InputError(f"{field} is {value}; expected magnitudes >= 0", field=field)
    for name, state in zip(bands.names, states, strict=True):
        if state:
            raise InputError(
                "the extinction of the Milky Way has been taken out already",
                source=name,
                field="milky_way_corrected",
                remedy=f"leave {field} out",
            )
    visual = float(value) * (1.0 if field == "a_v" else r_v)
    curve_values = np.atleast_1d(extinction_curve(np.array(bands.pivots), curve, r_v))
    return tuple(float(10 ** (0.4 * visual * item)) for item in curve_values), visual


def check_psfs(images: Sequence[Image], names: Sequence[str], tolerance: float) -> str:
    """Return what is wrong with the widths of the PSFs, in words; empty where they agree or are unknown."""
    known = [
        (name, image.psf.fwhm) for name, image in zip(names, images, strict=True) if image.psf is not None
    ]
    if len(known) < 2:
        return ""
    widths = [width for _, width in known]
    if max(widths) <= (1.0 + tolerance) * min(widths):
        return ""
    listed = ", ".join(f'{name} {width:.3f}"' for name, width in known)
    return f"the PSFs differ by {max(widths) / min(widths) - 1:.0%} ({listed})"


def _name(image: Image, band: Bandpass | float | None, number: int) -> str:
    default = "narrow band" if number == 0 else f"continuum {number}"
    curve = band.name if isinstance(band, Bandpass) else ""
    return str(image.meta.get("band") or curve or default)


def _check_names(
    images: Sequence[Image], names: Sequence[str], bands: Sequence[Bandpass | float | None]
) -> None:
    """Raise when an image bears the name of another image's band."""
    curves = [band.name.lower() if isinstance(band, Bandpass) else "" for band in bands]
    for number, (image, curve) in enumerate(zip(images, curves, strict=True)):
        own = str(image.meta.get("band", "")).lower()
        if own and curve and own != curve and own in curves:
            raise InputError(
                f"the image of {names[number]} was given the band {curve}",
                field="bands",
                remedy="give images and bands in the same order",
            )


def _pivot(image: Image, band: Bandpass | float | None, name: str) -> float:
    header = image.meta.get("photplam")
    known = None if header is None else float(header)
    given = band.pivot if isinstance(band, Bandpass) else band
    value = known if given is None else float(given)
    if value is None:
        raise InputError(
            "its pivot wavelength is not known",
            source=name,
            field="bands",
            remedy='give its Bandpass, its pivot wavelength in A, or meta["photplam"]',
        )
    if not 0 < value < np.inf:
        raise InputError(f"the pivot wavelength is {value} A; expected > 0", source=name, field="bands")
    if known is not None and abs(value / known - 1.0) > SAME_PIVOT:
        raise InputError(
            f"the band given for it has its pivot at {value:.1f} A, its header (PHOTPLAM) says {known:.1f} A",
            source=name,
            field="bands",
            remedy="check the order of images and bands, and the unit of the curve",
        )
    return value
