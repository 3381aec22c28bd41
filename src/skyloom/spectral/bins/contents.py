"""What bins hold, and maps painted with values of bins."""

from __future__ import annotations

from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import QTable
from astropy.wcs import WCS
from numpy.typing import ArrayLike, NDArray

from skyloom.core import geometry
from skyloom.core.image import Image, check_correlation
from skyloom.core.labels import LabelMap, as_labels
from skyloom.core.line_maps import SHARED_ERRORS
from skyloom.core.noise import region_variances
from skyloom.core.provenance import step
from skyloom.core.units import area_unit, sum_unit
from skyloom.errors import InputError, ShapeError

__all__ = ["measure_bins", "paint"]

Array = NDArray[Any]


def measure_bins(
    signal: Image,
    labels: ArrayLike | LabelMap,
    correlation: ArrayLike | None = None,
    *,
    target: float | None = None,
) -> QTable:
    """Measure the bins of a map.

    Parameters
    ----------
    signal : Image
    labels : (ny, nx) int array or LabelMap
        Bin of each pixel; negative: none. Numbers need not be contiguous.
    correlation : (k, k) array, optional
        Noise autocorrelation. None: that of ``signal``.
    target : float, optional
        S/N that bins should reach. None: that of the LabelMap, if it knows one.

    Returns
    -------
    QTable
        A row per bin, by ascending number: ``id``; ``n_pixels`` that are not masked; with a WCS ``area`` (arcsec2, each
        pixel with its own); ``x``, ``y``, the mean position of the pixels, whatever their flux (0: centre of the first
        pixel); with a WCS ``ra``, ``dec``; ``signal``, ``noise`` (in the unit of the map, summed over pixels: times the
        pixel where that unit holds a solid angle, see Notes) and ``snr``; ``flag``: "ok", "single" (one pixel),
        "below target", or "empty" (all pixels masked: NaN).

    Raises
    ------
    ShapeError
        When labels and signal differ in shape.

    Notes
    -----
    ``noise^2 = sum_ij sqrt(v_i v_j) rho(x_i - x_j)``, plain sums over pixels, as `bin_to_snr` makes them: ``snr`` is
    the one that the bins were given. A surface brightness is multiplied by the area of the central
    pixel, the same for all, which leaves ``snr`` as it is. Errors that pixels share (`Image.modes`) are left out.
    """
    regions = as_labels(labels)
    if regions.shape != signal.shape:
        raise ShapeError(
            f"labels have shape {regions.shape}; expected {signal.shape}, the shape of signal", field="labels"
        )
    numbers, dense = _dense(regions)
    dense[signal.mask] = -1
    used = dense >= 0
    member, n_bins = dense[used], numbers.size
    n_pixels = np.bincount(member, minlength=n_bins)
    rho = signal.correlation if correlation is None else check_correlation(correlation, ndim=2)
    # Without any pixel bincount would give integers.
    total = np.bincount(member, signal.data[used].astype(np.float64), n_bins).astype(np.float64)
    noise = np.sqrt(np.maximum(region_variances(signal.variance, dense, n_bins, rho), 0.0))
    empty = n_pixels == 0
    total[empty] = noise[empty] = np.nan
    snr = np.divide(total, noise, out=np.full(n_bins, np.nan), where=noise > 0)
    table = QTable()
    table["id"] = numbers
    table["n_pixels"] = n_pixels
    _place(table, signal, used, member, n_pixels)
    scale, unit = _sum_scale(signal)
    table["signal"] = total * scale * unit
    table["noise"] = noise * scale * unit
    table["snr"] = snr
    table["flag"] = _flags(n_pixels, snr, _target(labels, target))
    return table


def _dense(labels: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The numbers that occur, ascending, and the map with them counted from 0."""
    numbers, dense = np.unique(labels, return_inverse=True)
    n_negative = int(np.count_nonzero(numbers < 0))
    renumbered = dense.reshape(labels.shape).astype(np.int32) - np.int32(n_negative)
    return numbers[n_negative:], np.maximum(renumbered, np.int32(-1))


def _place(
    table: QTable, signal: Image, used: NDArray[np.bool_], member: NDArray[np.int32], n_pixels: Array
) -> None:
    """Add area and position of the bins."""
    n_bins = n_pixels.size
    rows, columns = np.nonzero(used)
    # Empty bins have no place: 0 / 0 is their NaN.
    with np.errstate(invalid="ignore"):
        y, x = (np.bincount(member, axis, n_bins) / n_pixels for axis in (rows, columns))
    celestial = signal.wcs is not None and signal.wcs.has_celestial
    if celestial:
        areas = geometry.pixel_area_map(signal.wcs, signal.shape)[used]
        table["area"] = np.bincount(member, areas, n_bins) * u.arcsec**2
    table["x"], table["y"] = x, y
    if celestial:
        longitude, latitude = geometry.celestial(signal.wcs).all_pix2world(x, y, 0)
        table["ra"], table["dec"] = longitude * u.deg, latitude * u.deg


def _sum_scale(signal: Image) -> tuple[float, u.UnitBase]:
    """What a plain sum over pixels is multiplied with, and its unit."""
    per = area_unit(signal.unit)
    if per is None or signal.wcs is None:
        return 1.0, signal.unit
    return signal.pixel_area * float((u.arcsec**2).to(per)), sum_unit(signal.unit)


def _target(labels: ArrayLike | LabelMap, target: float | None) -> float | None:
    """The target that was given, or that the labels remember."""
    if target is None and isinstance(labels, LabelMap):
        known = labels.meta.get("target")
        return None if known is None else float(known)
    return target


def _flags(n_pixels: Array, snr: Array, target: float | None) -> NDArray[np.str_]:
    """One word for each bin."""
    flags = np.full(n_pixels.size, "ok", dtype="U12")
    flags[n_pixels == 1] = "single"
    if target is not None:
        # The same sum in another order may differ by rounding.
        flags[snr < target * (1.0 - 1e-9)] = "below target"
    flags[n_pixels == 0] = "empty"
    return flags


def paint(
    values: ArrayLike | u.Quantity,
    labels: ArrayLike | LabelMap,
    *,
    variance: ArrayLike | u.Quantity | None = None,
    wcs: WCS | None = None,
) -> Array | Image:
    """Paint each bin with a value.

    Parameters
    ----------
    values : (n,) array or Quantity
        A value for each number that occurs in ``labels``, in ascending order (the order of `measure_bins`).
    labels : (ny, nx) int array or LabelMap
        Bin of each pixel; negative: none. Numbers need not be contiguous.
    variance : (n,) array or Quantity, optional
        Variance of the values. It is that of a bin's value in each of its pixels; these are not independent, which
        ``meta`` says (``errors_shared_within``) and sums over regions refuse.
    wcs : WCS, optional
        None: that of the labels, if they have one.

    Returns
    -------
    Image or (ny, nx) float64 array
        An Image where there is a WCS or a variance, masked where there is no bin or its value (or variance) is not
        finite; else an array with NaN outside. An Image needs a variance: without one it is 1 everywhere, and
        ``meta`` says ``variance_known: False``.

    Raises
    ------
    ShapeError
        When there are not as many values as bins.
    """
    regions = as_labels(labels)
    numbers, dense = _dense(regions)
    map_wcs = labels.wcs if wcs is None and isinstance(labels, LabelMap) else wcs
    unit = values.unit if isinstance(values, u.Quantity) else u.dimensionless_unscaled
    painted = _paint_plane(values, numbers.size, dense, "values")
    if map_wcs is None and variance is None:
        return painted
    if isinstance(variance, u.Quantity):
        variance = variance.to_value(unit**2)
    spread = (
        np.ones(painted.shape)
        if variance is None
        else _paint_plane(variance, numbers.size, dense, "variance")
    )
    unknown = ~(np.isfinite(painted) & np.isfinite(spread) & (spread > 0))
    history = labels.history if isinstance(labels, LabelMap) else ()
    meta: dict[str, Any] = {"variance_known": variance is not None}
    if np.count_nonzero(dense >= 0) > numbers.size:
        meta[SHARED_ERRORS] = "bins"
    return Image(
        painted,
        spread,
        unknown,
        unit,
        map_wcs,
        meta=meta,
        history=(*history, step("paint", n_bins=int(numbers.size), variance_known=variance is not None)),
    )


def _paint_plane(values: ArrayLike | u.Quantity, n_bins: int, dense: Array, name: str) -> Array:
    """Values of bins on the map, NaN outside."""
    plain = np.asarray(values.value if isinstance(values, u.Quantity) else values)
    if plain.shape != (n_bins,):
        raise ShapeError(
            f"{name} have shape {plain.shape}; expected ({n_bins},), one for each bin", field=name
        )
    if plain.dtype.kind not in "fiub":
        raise InputError(f"{name} have type {plain.dtype}; expected numbers", field=name)
    table = np.append(plain.astype(np.float64), np.nan)
    return np.asarray(table[dense])  # -1 takes the last.
