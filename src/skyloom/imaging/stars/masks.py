"""Masks of stars: from a catalogue, from a mask, found as point sources, or because they are saturated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import astropy.units as u
import numpy as np
from astropy.table import QTable, Table
from numpy.typing import NDArray
from scipy import ndimage

from skyloom.core import geometry
from skyloom.core.image import Flag, Image
from skyloom.core.labels import LabelMap
from skyloom.core.provenance import step
from skyloom.core.psf import PSF
from skyloom.errors import InputError, ShapeError
from skyloom.imaging.measure.masks import move_labels
from skyloom.imaging.stars.detection import find_point_sources

__all__ = ["StarMask", "apply_star_mask", "mask_stars"]

Array = NDArray[Any]
Mask = NDArray[np.bool_]
NEIGHBOURS = np.ones((3, 3), dtype=bool)
WING_SHARE, WING_RADIUS = 0.12, 0.2  # Of Hubble's light lies beyond 0.2 arcsec, falling about as r**-3.
PLATEAU = 0.98  # Of the highest pixel: from here on a plateau may be cut off.


@dataclass(frozen=True, slots=True, eq=False)
class StarMask:
    """Which pixels stars cover.

    Parameters
    ----------
    mask : (ny, nx) bool array
        True on stars.
    table : QTable
        One row per star, those outside of the image too: ra, dec (deg), x, y (pixels), radius (arcsec), flux (unit of
        the image summed over pixels; NaN where it was not needed), origin ("catalogue", "detected", "saturated"),
        inside (whether the star covers pixels of the image).
    """

    mask: Mask
    table: QTable

    @property
    def n_pixels(self) -> int:
        """Pixels that are covered."""
        return int(np.count_nonzero(self.mask))


def mask_stars(
    image: Image,
    *,
    catalogue: Table | None = None,
    mask: Mask | LabelMap | None = None,
    detect: bool = False,
    saturation: float | Literal["auto"] | None = None,
    line: Image | None = None,
    zero_point: float | None = None,
    threshold: float = 1.0,
    largest_arcsec: float = 15.0,
    detection: float = 100.0,
) -> StarMask:
    """Mask the stars of an image as far as their light exceeds the noise.

    Parameters
    ----------
    image : Image
        With a WCS; a PSF is needed for radii that the catalogue does not give, for detection and for saturated stars.
    catalogue : Table, optional
        Columns ``ra`` and ``dec`` (degrees unless they have units) and one of ``radius`` (arcsec unless it has a
        unit; or ``radius_arcsec``), ``flux`` (unit of the image, summed over pixels) and ``magnitude`` (with
        ``zero_point``); without any of these, or where it is NaN, the flux is measured on the image.
    mask : (ny, nx) bool array or LabelMap, optional
        Pixels known to be stars; labels >= 0 of a map on any grid.
    detect : bool
        Look for point sources. Compact clusters and unresolved nebulae may be taken for stars: see ``line``.
    saturation : float or "auto", optional
        Level in the unit of the image from which on pixels are saturated; "auto" takes a plateau of at least 10 pixels
        within 2 % of the highest for one. Pixels flagged as near saturation are always taken.
    line : Image, optional
        Excess of the narrow band on the same grid: detected sources with more than a fifth of their light in it are
        nebulae, and stay.
    zero_point : float, optional
        Magnitude of one unit of the image.
    threshold : float
        A star is masked out to where it is fainter than this many sigma of a pixel.
    largest_arcsec : float
        No radius is larger; those of a catalogue are taken as they are.
    detection : float
        Significance from which on point sources are looked for.

    Returns
    -------
    StarMask

    Raises
    ------
    InputError
        When the catalogue lacks positions, a PSF is missing, or nothing says what a star is.
    ShapeError
        When ``mask`` has another shape than the image.

    Notes
    -----
    The light at a distance r is the larger one of the PSF's and of a halo ``f r0 / (2 pi r**3)`` that holds f = 12 % of
    the light beyond r0 = 0.2 arcsec, about what Hubble's cameras scatter.
    """
    if catalogue is None and mask is None and not detect and saturation is None and not _flagged(image).any():
        raise InputError(
            "nothing says where stars are",
            field="stars",
            remedy="give a catalogue, a mask, a saturation level, or detect=True",
        )
    covered = _given(image, mask)
    rows: list[dict[str, Any]] = []
    noise = float(np.sqrt(np.median(image.variance[image.valid]))) if image.valid.any() else np.nan
    limit = threshold * noise
    if catalogue is not None:
        rows += _catalogued(image, catalogue, zero_point, limit, largest_arcsec)
    saturated = _saturated(image, saturation)
    if saturated.any():
        rows += _from_saturated(image, saturated, limit, largest_arcsec)
        # The halo of a star is round; its bleeding columns are not.
        covered |= ndimage.binary_dilation(saturated, NEIGHBOURS, iterations=2)
    if detect:
        x, y, flux = find_point_sources(image, significance=detection, line=line)
        rows += _rows(image, "detected", x, y, _radii(image, flux, limit, largest_arcsec), flux)
    matrix = geometry.pixel_matrix(image.wcs, image.shape)
    for row in rows:
        row["inside"] = _cover(covered, row["x"], row["y"], row["radius"], matrix)
    return StarMask(covered, _table(rows))


def apply_star_mask(image: Image, stars: StarMask | Mask) -> Image:
    """Mask the pixels of stars.

    Parameters
    ----------
    image : Image
    stars : StarMask or (ny, nx) bool array
        On the grid of the image.

    Raises
    ------
    ShapeError
        When the mask has another shape than the image.
    """
    mask = stars.mask if isinstance(stars, StarMask) else np.asarray(stars, dtype=bool)
    number = len(stars.table) if isinstance(stars, StarMask) else None
    if mask.shape != image.shape:
        raise ShapeError(
            f"the mask of the stars has shape {mask.shape}; expected {image.shape}", field="stars"
        )
    record = step("apply_star_mask", stars=number, pixels=int(np.count_nonzero(mask)))
    return image.evolve(record, mask=image.mask | mask)


# --- where stars are -------------------------------------------------------------------------------------


def _given(image: Image, mask: Mask | LabelMap | None) -> Mask:
    """Return the mask that was given on the grid of the image."""
    if mask is None:
        return np.zeros(image.shape, dtype=bool)
    if isinstance(mask, LabelMap):
        return np.asarray(move_labels(mask, image).labels >= 0)
    given = np.array(mask, dtype=bool)
    if given.shape != image.shape:
        raise ShapeError(
            f"the mask of the stars has shape {given.shape}; expected {image.shape}",
            field="mask",
            remedy="give it as a LabelMap with a WCS, which is moved to the grid of the image",
        )
    return given


def _catalogued(
    image: Image, catalogue: Table, zero_point: float | None, limit: float, largest: float
) -> list[dict[str, Any]]:
    """Rows of a catalogue, with radii."""
    for name in ("ra", "dec"):
        if name not in catalogue.colnames:
            raise InputError(
                f"the catalogue of stars has no column {name!r} (but {', '.join(catalogue.colnames)})",
                field="catalogue",
                remedy="name the columns ra, dec, and radius, flux or magnitude",
            )
    ra, dec = _column(catalogue, "ra", u.deg), _column(catalogue, "dec", u.deg)
    wcs = geometry.celestial(image.wcs, "placing stars")
    # Points beyond the horizon of the projection come back as NaN: outside.
    with np.errstate(invalid="ignore"):
        x, y = wcs.all_world2pix(ra, dec, 0, quiet=True)
    radius, flux = np.full(ra.size, np.nan), np.full(ra.size, np.nan)
    for name in ("radius", "radius_arcsec"):
        if name in catalogue.colnames:
            radius = _column(catalogue, name, u.arcsec)
    if "flux" in catalogue.colnames:
        flux = _column(catalogue, "flux", image.unit)
    elif "magnitude" in catalogue.colnames and zero_point is not None:
        flux = 10.0 ** (-0.4 * (_column(catalogue, "magnitude", u.mag) - zero_point))
    unknown = np.flatnonzero(~np.isfinite(radius))
    for index in unknown[~np.isfinite(flux[unknown])]:
        flux[index] = _measured(image, x[index], y[index])
    radius[unknown] = _radii(image, flux[unknown], limit, largest)
    return _rows(image, "catalogue", x, y, radius, flux, ra, dec)


def _column(table: Table, name: str, unit: u.UnitBase) -> Array:
    """Values of a column in a unit; plain numbers are in it already."""
    values = table[name]
    if hasattr(values, "filled"):
        values = values.filled(np.nan)
    known = getattr(values, "unit", None)
    if known == u.dimensionless_unscaled:
        # Readers of text give plain numbers as quantities.
        values, known = values.value, None
    try:
        return np.atleast_1d(np.asarray((u.Quantity(values, known or unit)).to_value(unit), dtype=float))
    except u.UnitConversionError as error:
        raise InputError(f"the column {name} is in {known}; expected {unit}", field=name) from error


def _measured(image: Image, x: float, y: float) -> float:
    """Flux of a star within 2 FWHM over the level around it, unit of the image times pixels; 0 outside."""
    scale = image.pixel_scale
    inner = 2.0 * _psf(image).fwhm / scale
    half = int(np.ceil(2.0 * inner + 1))
    if not (np.isfinite(x) and np.isfinite(y)) or not (
        -half < x < image.shape[1] + half and -half < y < image.shape[0] + half
    ):
        return 0.0
    top, left = max(0, round(y) - half), max(0, round(x) - half)
    box = slice(top, max(0, round(y) + half + 1)), slice(left, max(0, round(x) + half + 1))
    valid = ~image.mask[box]
    rows, columns = np.indices(valid.shape)
    distance = np.hypot(rows + top - y, columns + left - x)
    ring = valid & (distance > 1.5 * inner) & (distance <= 2.0 * inner + 1)
    near = valid & (distance <= inner)
    if not near.any():
        return 0.0
    level = float(np.median(image.data[box][ring])) if ring.any() else 0.0
    return max(0.0, float(np.sum(image.data[box][near] - level)))


def _flagged(image: Image) -> Mask:
    if image.flags is None:
        return np.zeros(image.shape, dtype=bool)
    return np.asarray((image.flags & np.uint16(Flag.NEAR_SATURATED)) != 0)


def _saturated(image: Image, saturation: float | Literal["auto"] | None) -> Mask:
    """Pixels above the level of saturation, or flagged; a single high pixel is a cosmic ray rather than a star."""
    data = np.where(image.mask, -np.inf, image.data)
    if saturation == "auto":
        highest = float(data.max()) if image.valid.any() else np.nan
        above = data >= PLATEAU * highest if highest > 0 else np.zeros(image.shape, dtype=bool)
        labels, n_groups = ndimage.label(above, NEIGHBOURS)
        sizes = np.bincount(labels.ravel(), minlength=n_groups + 1)[1:]
        above &= bool(np.any(sizes >= 10))
    elif saturation is None:
        above = np.zeros(image.shape, dtype=bool)
    else:
        above = data >= saturation
    labels, n_groups = ndimage.label(above | _flagged(image), NEIGHBOURS)
    if not n_groups:
        return np.zeros(image.shape, dtype=bool)
    sizes = np.bincount(labels.ravel(), minlength=n_groups + 1)
    return np.asarray((labels > 0) & (sizes[labels] >= 4))


def _from_saturated(image: Image, saturated: Mask, limit: float, largest: float) -> list[dict[str, Any]]:
    """Rows of saturated stars: centred where the saturated area is widest, as bright as that width tells."""
    labels, n_stars = ndimage.label(saturated, NEIGHBOURS)
    depth = ndimage.distance_transform_edt(saturated)
    index = np.arange(1, n_stars + 1)
    width = ndimage.maximum(depth, labels, index)
    widest = np.where(depth >= width[labels - 1] - 0.5, saturated, False)
    y, x = np.array(ndimage.center_of_mass(widest, labels, index)).T
    level = ndimage.minimum(np.where(image.mask, np.inf, image.data), labels, index)
    flux = _flux_of_plateau(image, np.where(np.isfinite(level), level, 0.0), np.asarray(width))
    return _rows(image, "saturated", x, y, _radii(image, flux, limit, largest), flux)


# --- how far stars reach ---------------------------------------------------------------------------------


def _psf(image: Image) -> PSF:
    if image.psf is None:
        raise InputError(
            "the image has no PSF, so that nothing tells how far a star reaches",
            field="psf",
            remedy="give the radii of the stars, or image.evolve(psf=...)",
        )
    return image.psf


def _profile(image: Image) -> tuple[Array, Array]:
    """Distances (arcsec, ascending) and the share of a star's light per pixel at each, never rising outwards."""
    matrix = image.pixel_matrix
    scale = image.pixel_scale
    psf = _psf(image)
    stamp = psf.render(matrix, 2 * int(np.clip(round(8 * psf.fwhm / scale), 8, 60)) + 1)
    centre = stamp.shape[0] // 2
    rows, columns = np.indices(stamp.shape) - centre
    distance = np.hypot(*np.tensordot(matrix, np.stack([columns, rows]), 1))
    order = np.argsort(distance, axis=None)
    radii, core = distance.ravel()[order], stamp.ravel()[order]
    core = np.maximum.accumulate(core[::-1])[::-1]
    far = np.geomspace(radii[-1] * 1.01, radii[-1] * 1.01 + 100.0, 400)
    radii, core = np.concatenate([radii, far]), np.concatenate([core, np.zeros(far.size)])
    halo = WING_SHARE * WING_RADIUS / (2 * np.pi * np.maximum(radii, WING_RADIUS) ** 3) * image.pixel_area
    return radii, np.maximum(core, halo)


def _radii(image: Image, flux: Array, limit: float, largest: float) -> Array:
    """Distances in arcsec at which stars fall below ``limit``; at least 1.5 FWHM."""
    if not flux.size:
        return flux
    smallest = min(1.5 * _psf(image).fwhm, largest)
    distance, share = _profile(image)
    # Shares fall outwards; the last one that is bright enough is found in the reversed, ascending order.
    needed = np.divide(limit, flux, out=np.full(flux.shape, np.inf), where=flux > 0)
    last = share.size - 1 - np.searchsorted(share[::-1], needed)
    # The centre of a pixel lies up to half a diagonal from where the pixels of the profile are.
    reach = np.where(last >= 0, distance[np.maximum(last, 0)] + 0.71 * image.pixel_scale, 0.0)
    return np.asarray(np.clip(reach, smallest, largest))


def _flux_of_plateau(image: Image, level: Array, width: Array) -> Array:
    """Fluxes of stars that reach ``level`` at a distance of ``width`` pixels."""
    distance, share = _profile(image)
    return np.asarray(level / np.interp(np.maximum(width, 1.0) * image.pixel_scale, distance, share))


def _rows(
    image: Image,
    origin: str,
    x: Iterable[float],
    y: Iterable[float],
    radius: Iterable[float],
    flux: Iterable[float],
    ra: Array | None = None,
    dec: Array | None = None,
) -> list[dict[str, Any]]:
    """Return one dictionary per star."""
    columns, rows = np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float))
    if ra is None or dec is None:
        wcs = geometry.celestial(image.wcs, "placing stars")
        ra, dec = wcs.all_pix2world(columns, rows, 0) if columns.size else (columns, rows)
    names = ("x", "y", "radius", "flux", "ra", "dec")
    return [
        {"origin": origin, **dict(zip(names, map(float, values), strict=True))}
        for values in zip(columns, rows, radius, flux, ra, dec, strict=True)
    ]


def _cover(mask: Mask, x: float, y: float, radius: float, matrix: Array) -> bool:
    """Set the pixels of ``mask`` within ``radius`` arcsec of a place; tell whether there were any."""
    if not np.isfinite([x, y, radius]).all():
        return False
    reach = int(np.ceil(radius / np.sqrt(np.linalg.eigvalsh(matrix.T @ matrix)[0]))) + 1
    ny, nx = mask.shape
    if not (-reach <= x < nx + reach and -reach <= y < ny + reach):
        return False
    top, left = max(0, round(y) - reach), max(0, round(x) - reach)
    box = slice(top, max(0, round(y) + reach + 1)), slice(left, max(0, round(x) + reach + 1))
    rows, columns = np.indices(mask[box].shape)
    sky = np.tensordot(matrix, np.stack([columns + left - x, rows + top - y]), 1)
    near = np.hypot(*sky) <= radius
    mask[box] |= near
    return bool(near.any())


def _table(rows: list[dict[str, Any]]) -> QTable:
    """Make the table of stars."""
    table = QTable()
    for name, unit in (("ra", u.deg), ("dec", u.deg), ("x", u.pix), ("y", u.pix), ("radius", u.arcsec)):
        table[name] = np.array([row[name] for row in rows], dtype=float) * unit
    table["flux"] = np.array([row["flux"] for row in rows], dtype=float)
    table["origin"] = np.array([row["origin"] for row in rows], dtype="U9")
    table["inside"] = np.array([row["inside"] for row in rows], dtype=bool)
    return table
