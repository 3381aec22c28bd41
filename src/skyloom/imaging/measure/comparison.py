"""One sky in two images: fluxes region by region, their pulls, and running medians.

Sums are made once over all regions (`skyloom.imaging.measure.regions.sum_regions`); none needs a mask of the whole
image.
"""

from __future__ import annotations

from enum import IntFlag
from typing import Any, NamedTuple

import astropy.units as u
import numpy as np
from astropy.table import QTable
from numpy.typing import NDArray
from scipy import ndimage

from skyloom.core.geometry import celestial, pixel_area, same_grid
from skyloom.core.image import Image
from skyloom.core.labels import LabelMap
from skyloom.errors import InputError, ShapeError
from skyloom.imaging.grids.label_grids import beyond_grid, move_labels
from skyloom.imaging.measure.regions import sum_regions

__all__ = [
    "RegionFlag",
    "RegionStatistics",
    "compare_regions",
    "region_statistics",
    "running_median",
    "scatter_of",
]

Array = NDArray[Any]
Float = NDArray[np.float64]
Mask = NDArray[np.bool_]
LOST_SHARE = 0.02
"""Share of a region under a mask above which its flux is not the whole one."""
MAD_ERROR = 1.17
"""Standard error of a scatter from the median absolute deviation, times sqrt(n), for Gaussian values."""


class RegionFlag(IntFlag):
    """Why the flux of a region is not that of a whole nebula."""

    BORDER = 1
    MASKED = 2
    MASKED_IN_REFERENCE = 4
    NOT_SEEN = 8


# --- regions --------------------------------------------------------------------------------------------------------


def compare_regions(
    image: Image, reference: Image | None, labels: LabelMap, *, matched: Image | None = None
) -> QTable:
    """Add up the light of each region in two images of one sky.

    Parameters
    ----------
    image : Image
        The sharp one; labels are moved to its pixels.
    reference : Image, optional
        The other one.
    labels : LabelMap
        On any grid, with a WCS; usually that of the reference.
    matched : Image, optional
        The sharp image with the PSF of the reference: the light that a wide PSF spreads beyond a region is then missing
        in both. Differences and pulls are of this one if it is given.

    Returns
    -------
    QTable
        One row per label: ``label``; ``ra``, ``dec`` of its centre; ``area``; ``n_pixels`` of the image that were
        added, ``flux``, ``flux_err``; with a reference ``reference_pixels``, ``reference_flux``, its error; with
        a matched image ``matched_flux``, ``matched_flux_err``; then ``difference`` and ``difference_err`` (less the
        reference), ``pull`` (their ratio), ``ratio`` and ``ratio_err`` (over the reference); ``lost_share`` of the
        region that is under the mask of the image, ``flag`` (`RegionFlag` bits) and ``whole``: no flag is set.

    Raises
    ------
    InputError
        When there are no labels, a WCS is missing, or map and image do not overlap.

    Notes
    -----
    The errors of both are taken as independent, those that pixels share included.
    """
    if not np.any(labels.labels >= 0):
        raise InputError("the label map has no labels", field="labels", remedy="0 or less means no region")
    table = _places(labels)
    moved = move_labels(labels, image)
    sums = _aligned(table, sum_regions(image, moved))
    table["n_pixels"], table["flux"], table["flux_err"] = sums["n_pixels"], sums["flux"], sums["flux_err"]
    found = sums["n_pixels"] + sums["n_masked"]
    table["lost_share"] = np.where(found > 0, sums["n_masked"] / np.maximum(found, 1), 1.0)
    flag = np.where(_touching(table, labels, image), int(RegionFlag.BORDER), 0)
    flag |= np.where(table["lost_share"] > LOST_SHARE, int(RegionFlag.MASKED), 0)
    flag |= np.where(sums["n_pixels"] == 0, int(RegionFlag.NOT_SEEN), 0)
    compared = "flux"
    if matched is not None:
        compared = "matched_flux"
        own = _aligned(table, sum_regions(matched, _on_grid(labels, matched)))
        table[compared], table[f"{compared}_err"] = own["flux"], own["flux_err"]
        # Few and large pixels, of which the reference adds all: not one may be missing.
        flag |= np.where((own["n_masked"] > 0) | (own["n_pixels"] == 0), int(RegionFlag.MASKED), 0)
    if reference is not None:
        other = _aligned(table, sum_regions(reference, _on_grid(labels, reference)))
        table["reference_pixels"] = other["n_pixels"]
        for name in ("flux", "flux_err"):
            table[f"reference_{name}"] = other[name].to(table["flux"].unit)
        total = np.maximum(other["n_pixels"] + other["n_masked"], 1)
        lost = (other["n_masked"] > LOST_SHARE * total) | (other["n_pixels"] == 0)
        flag |= np.where(lost, int(RegionFlag.MASKED_IN_REFERENCE), 0)
        _add_differences(table, compared)
    table["flag"] = flag.astype(np.int16)
    table["whole"] = flag == 0
    return _described(table)


def _places(labels: LabelMap) -> QTable:
    """Labels, centres and areas of regions."""
    wcs = celestial(labels.wcs, "the comparison of regions")
    rows, columns = np.nonzero(labels.labels >= 0)
    ids, member = np.unique(labels.labels[rows, columns], return_inverse=True)
    member = member.ravel()
    size = np.bincount(member)
    x, y = (np.bincount(member, weights=values) / size for values in (columns, rows))
    world = wcs.all_pix2world(x, y, 0)
    table = QTable()
    table["label"] = ids.astype(np.int32)
    table["ra"] = world[wcs.wcs.lng] * u.deg
    table["dec"] = world[wcs.wcs.lat] * u.deg
    table["area"] = size * pixel_area(wcs, labels.shape) * u.arcsec**2
    return table


def _aligned(table: QTable, sums: QTable) -> QTable:
    """Bring sums to the rows of a table; labels that are not among them were not seen."""
    place = np.searchsorted(sums["label"], table["label"])
    place = np.minimum(place, max(len(sums) - 1, 0))
    result = QTable()
    known = np.asarray(sums["label"][place] == table["label"]) if len(sums) else np.zeros(len(table), bool)
    for name in ("n_pixels", "n_masked"):
        result[name] = np.where(known, sums[name][place], 0) if len(sums) else np.zeros(len(table), int)
    for name in ("flux", "flux_err"):
        unit = sums[name].unit
        values = sums[name].value[place] if len(sums) else np.nan
        result[name] = np.where(known, values, np.nan) * unit
    return result


def _on_grid(labels: LabelMap, image: Image) -> LabelMap:
    """Return labels on the pixels of an image: as they are where that is the same grid."""
    alike = labels.wcs is not None and image.wcs is not None
    if alike and same_grid(labels.wcs, labels.shape, image.wcs, image.shape):  # type: ignore[arg-type]
        return labels
    return move_labels(labels, image)


def _touching(table: QTable, labels: LabelMap, image: Image) -> Mask:
    """Tell which regions reach the border of the label map or of the image."""
    outside = beyond_grid(labels, image)
    outside[[0, -1], :] = True
    outside[:, [0, -1]] = True
    # A pixel of the map whose centre lies inside may still reach beyond the border.
    outside = ndimage.binary_dilation(outside, np.ones((3, 3), bool))
    cut = np.unique(labels.labels[outside])
    return np.isin(np.asarray(table["label"]), cut)


def _add_differences(table: QTable, compared: str) -> None:
    flux, error = table[compared], table[f"{compared}_err"]
    other, other_error = table["reference_flux"], table["reference_flux_err"]
    table["difference"] = flux - other
    table["difference_err"] = np.sqrt(error**2 + other_error**2)
    with np.errstate(divide="ignore", invalid="ignore"):  # Regions without light have no ratio: NaN.
        table["pull"] = (table["difference"] / table["difference_err"]).to_value(u.one)
        ratio = (flux / other).to_value(u.one)
        relative = np.hypot((error / other).to_value(u.one), ratio * (other_error / other).to_value(u.one))
    table["ratio"] = np.where(other.value > 0, ratio, np.nan)
    table["ratio_err"] = np.where(other.value > 0, relative, np.nan)


_COLUMNS = {
    "label": "number in the label map",
    "ra": "of the centre of the region",
    "dec": "of the centre of the region",
    "area": "of the region in the label map",
    "n_pixels": "pixels of the image that were added",
    "flux": "in the image, at its own resolution",
    "flux_err": "standard error, correlation and shared errors in",
    "lost_share": "of the region, under the mask of the image",
    "matched_flux": "of the image with the PSF of the reference",
    "reference_flux": "in the reference",
    "reference_pixels": "pixels of the reference that were added",
    "difference": "image less reference, at the same PSF",
    "difference_err": "standard error of the difference",
    "pull": "difference over its error",
    "ratio": "image over reference, at the same PSF",
    "ratio_err": "standard error of the ratio",
    "flag": "1 border, 2 masked, 4 masked in reference, 8 unseen",
    "whole": "no flag is set",
}


def _described(table: QTable) -> QTable:
    for name, text in _COLUMNS.items():
        if name in table.colnames:
            table[name].info.description = text
    return table


class RegionStatistics(NamedTuple):
    """How the fluxes of regions compare.

    Attributes
    ----------
    n_regions, n_whole : int
        All, and those that were compared.
    ratio, ratio_err : float
        Median of the ratio, and its standard error.
    low, high : float
        16th and 84th percentile of the ratio.
    faint_ratio, faint_ratio_err : float
        Of the faintest third.
    pull_median, pull_scatter, pull_scatter_err : float
        Median of the pulls, and their scatter (median absolute deviation times 1.4826).
    """

    n_regions: int
    n_whole: int
    ratio: float
    ratio_err: float
    low: float
    high: float
    faint_ratio: float
    faint_ratio_err: float
    pull_median: float
    pull_scatter: float
    pull_scatter_err: float


def region_statistics(table: QTable) -> RegionStatistics:
    """Return medians and scatters of a table of `compare_regions`, over regions that are whole; NaN for what is not."""
    used = np.asarray(table["whole"]) & np.isfinite(table["ratio"])
    ratio, pull = np.asarray(table["ratio"])[used], np.asarray(table["pull"])[used]
    n = int(used.sum())
    nan = float("nan")
    if n == 0:
        return RegionStatistics(len(table), 0, *[nan] * 9)
    order = np.argsort(table["reference_flux"].value[used])
    faint = ratio[order[: max(1, n // 3)]]
    low, middle, high = (float(value) for value in np.percentile(ratio, [16.0, 50.0, 84.0]))
    spread = scatter_of(pull)
    return RegionStatistics(
        len(table),
        n,
        middle,
        _median_error(ratio),
        low,
        high,
        float(np.median(faint)),
        _median_error(faint),
        float(np.median(pull)),
        spread,
        float(spread * MAD_ERROR / np.sqrt(n)),
    )


def scatter_of(values: Array) -> float:
    """Return the median absolute deviation from the median, times 1.4826: the standard deviation of Gaussian values."""
    if values.size == 0:
        return float("nan")
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def _median_error(values: Float) -> float:
    """Standard error of a median: 1.2533 sigma / sqrt(n)."""
    return 1.2533 * scatter_of(values) / float(np.sqrt(max(values.size, 1)))


# --- pixels ---------------------------------------------------------------------------------------------------------


def running_median(
    image: Image, reference: Image, *, bins: int = 24, mask: Mask | None = None, fewest: int = 20
) -> QTable:
    """Return the median of an image, and the range of 68 % of its pixels, in bins of a reference on the same grid.

    Parameters
    ----------
    image, reference : Image
        Units that convert into each other.
    bins : int
        With equal numbers of pixels up to the brightest tenth, then with equal steps of the logarithm.
    mask : (ny, nx) bool array, optional
        True where pixels must not be used.
    fewest : int
        Bins with fewer pixels are left out.

    Returns
    -------
    QTable
        ``reference``, ``median``, ``low`` (16 %), ``high`` (84 %), in the unit of the image; ``n_pixels``.

    Raises
    ------
    ShapeError
        When the images differ in shape.
    """
    if image.shape != reference.shape:
        raise ShapeError(
            f"the image has shape {image.shape}; expected {reference.shape}, that of the reference"
        )
    used = image.valid & reference.valid
    if mask is not None:
        used &= ~mask
    along = reference.data[used].astype(np.float64) * float(reference.unit.to(image.unit))
    values = image.data[used].astype(np.float64)
    rows = []
    if along.size >= fewest:
        edges = _median_edges(along, bins)
        member = np.digitize(along, edges[1:-1])
        for number in range(edges.size - 1):
            inside = member == number
            if np.count_nonzero(inside) >= fewest:
                spread = np.percentile(values[inside], [50.0, 16.0, 84.0])
                rows.append((float(np.median(along[inside])), *spread, int(inside.sum())))
    columns = np.array(rows, dtype=np.float64).reshape(-1, 5)
    table = QTable()
    for number, name in enumerate(("reference", "median", "low", "high")):
        table[name] = columns[:, number] * image.unit
    table["n_pixels"] = columns[:, 4].astype(np.int64)
    return table


def _median_edges(values: Float, bins: int) -> Float:
    """Edges of bins: quantiles, and logarithmic ones above the brightest tenth, of which quantiles see little."""
    many = max(2, 2 * bins // 3)
    quantiles = np.quantile(values, np.linspace(0.0, 0.9, many + 1))
    top, bright = float(quantiles[-1]), float(values.max())
    if top > 0 and bright > top:
        quantiles = np.concatenate([quantiles, np.geomspace(top, bright, bins - many + 1)[1:]])
    return np.unique(quantiles)
