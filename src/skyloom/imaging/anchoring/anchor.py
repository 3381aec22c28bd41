"""The flux scale and sky level of an image from another instrument's: fitted with their errors, and applied."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import QTable
from numpy.typing import NDArray

from skyloom.core.image import Image, Mode
from skyloom.core.provenance import step
from skyloom.errors import AssumptionWarning, InputError
from skyloom.imaging.anchoring.binned import binned_fit
from skyloom.imaging.anchoring.errors_in_both import NoiseSource, Problem, Regression, block_index, regress
from skyloom.imaging.anchoring.pixels import (
    Pixels,
    binned_medians,
    block_width,
    check_grid,
    common_pixels,
    convert,
    gathered,
    smooth_values,
)
from skyloom.imaging.anchoring.pixelwise import anchor_by_difference, anchor_by_ratio

__all__ = ["METHODS", "Anchor", "anchor_by_difference", "anchor_by_ratio", "apply_anchor", "fit_anchor"]

Array = NDArray[Any]
Float = NDArray[np.float64]
METHODS = ("errors_in_both", "binned")
RANGE = 10.0  # Variance of the reference over that of its noise from which on it has structure.
LOOSEST_SLOPE = 0.25
"""Relative error of the slope above which the reference has no dynamic range to speak of."""


@dataclass(frozen=True, slots=True, eq=False)
class Anchor:
    """``image = slope * reference + offset``, fitted.

    Parameters
    ----------
    method : str
        "errors_in_both" or "binned".
    slope, slope_err : float
    offset, offset_err : float
        In ``unit``.
    covariance : (2, 2) float64 array
        Of (slope, offset).
    unit : astropy unit
        That of the image.
    chi_square : float
        Mean squared residual over the variance of the noise alone, per degree of freedom.
    intrinsic_scatter : float
        Fraction of the reference by which the images differ beyond their noise.
    correlation : float
        Pearson's, of the pixels used.
    n_pixels, n_rejected : int
        Pixels, or blocks of them, that were fitted, and those of them that were rejected as outliers.
    points : QTable
        Medians in bins of the reference, for a figure: ``reference``, ``image``, ``scatter``, ``n_pixels``.
    meta : dict
        ``slope`` ("fitted", or why it was held), ``scatter_floor`` (in ``unit``), ``error_excess`` (by how much the
        scatter between blocks enlarged the two errors), ``block_side`` (pixels along a side that were averaged
        first; 1: none).
    """

    method: str
    slope: float
    slope_err: float
    offset: float
    offset_err: float
    covariance: Float
    unit: u.UnitBase
    chi_square: float
    intrinsic_scatter: float
    correlation: float
    n_pixels: int
    n_rejected: int
    points: QTable
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def table(self) -> QTable:
        """One row: the fit as plain columns."""
        table = QTable()
        table["method"] = [self.method]
        table["slope"], table["slope_err"] = [self.slope], [self.slope_err]
        table["offset"] = [self.offset] * self.unit
        table["offset_err"] = [self.offset_err] * self.unit
        table["slope_offset_covariance"] = [float(self.covariance[0, 1])] * self.unit
        for name in ("chi_square", "intrinsic_scatter", "correlation", "n_pixels", "n_rejected"):
            table[name] = [getattr(self, name)]
        table["slope_is"] = [str(self.meta.get("slope", "fitted"))]
        return table


def fit_anchor(
    image: Image,
    reference: Image,
    *,
    method: str = "errors_in_both",
    mask: NDArray[np.bool_] | None = None,
    slope: float | None = None,
) -> Anchor:
    """Fit the scale and the sky level of an image against a reference of the same grid and PSF.

    Parameters
    ----------
    image, reference : Image
        Units that convert into each other. Their correlations are used.
    method : {"errors_in_both", "binned"}
        Robust fit with the errors of both, or the line through medians in bins of the reference that existing
        pipelines use (blind to the reference's noise: its slope is too flat when that matters).
    mask : (ny, nx) bool array, optional
        True where pixels must not be used: stars, saturated pixels.
    slope : float, optional
        Hold the slope and fit the offset only.

    Returns
    -------
    Anchor

    Raises
    ------
    InputError
        When the images do not overlap, do not show the same sky (slope not above 0, or nothing of the reference in
        the image), or a value is impossible.
    ShapeError, UnitError
        When grids or units do not fit.

    Warns
    -----
    AssumptionWarning
        When the reference has no dynamic range: the slope is then held at 1.

    Notes
    -----
    Slope and offset are of one fit, and belong together. Equations: `skyloom.imaging.anchoring.errors_in_both`. The
    pixels differ by the noise of both images and by an intrinsic scatter (a floor and a fraction of the reference,
    estimated from the residuals), so that bright pixels, where PSFs and bands never match fully, do not rule the fit.
    The covariance knows the noise correlation of both images, and is enlarged to the scatter between blocks of several
    PSFs where that is larger. See Deming (1943); York et al. (2004, 10.1119/1.1632486); Akritas & Bershady (1996,
    10.1086/177901).

    Images of more than 60 000 pixels are first averaged over blocks of up to 0.75 FWHM of their PSF.
    """
    if method not in METHODS:
        raise InputError(f"method is {method!r}; expected one of {METHODS}", field="method")
    if slope is not None and not 0 < slope < math.inf:
        raise InputError(f"slope is {slope}; expected > 0", field="slope")
    check_grid(image, reference, "reference")
    convert(reference, image.unit, "reference")
    pixels = common_pixels({"image": image, "reference": reference}, mask)
    shared = _shared_errors(reference, pixels.used, float(reference.unit.to(image.unit)))
    means, mask, side = gathered({"image": image, "reference": reference}, mask)
    image, reference = means["image"], means["reference"]
    data, variance = convert(reference, image.unit, "reference")
    pixels = common_pixels(means, mask)
    planes = (image.data, image.variance, data, variance)
    correlations = (image.correlation, reference.correlation)
    blocks = block_index(pixels.rows, pixels.columns, image.shape, block_width(image, reference))
    if method == "binned":
        fitted = binned_fit(image.data[pixels.used], data[pixels.used], blocks, slope)
        values: dict[str, Any] = {"parameters": fitted[0], "covariance": fitted[1]}
        values["meta"] = {"slope": "fitted" if slope is None else f"held at {slope:g} as asked"}
        values |= _binned_quality(planes, pixels, fitted[0])
    else:
        values = _fit(planes, correlations, pixels, blocks, slope)
    parameters, covariance = values.pop("parameters"), values.pop("covariance")
    moved = parameters[0] * shared
    if slope is not None:
        moved = np.stack([np.zeros(len(shared)), moved @ [np.mean(data[pixels.used]), 1.0]], axis=1)
    covariance = covariance + moved.T @ moved
    values["meta"]["block_side"] = side
    used = values.pop("used")
    x, y = data[pixels.used].astype(np.float64), image.data[pixels.used].astype(np.float64)
    return Anchor(
        method=method,
        slope=float(parameters[0]),
        slope_err=math.sqrt(covariance[0, 0]),
        offset=float(parameters[1]),
        offset_err=math.sqrt(covariance[1, 1]),
        covariance=covariance,
        unit=image.unit,
        correlation=_pearson(x[used], y[used]),
        n_pixels=used.size,
        n_rejected=int(used.size - np.count_nonzero(used)),
        points=binned_medians(x, y, used, image.unit),
        **values,
    )


def _shared_errors(reference: Image, used: Array, factor: float) -> Float:
    """(n_modes, 2) how far each shared error of the reference, at one sigma, moves slope and offset (for slope 1)."""
    if not reference.modes:
        return np.zeros((0, 2))
    values = reference.data[used].astype(np.float64) * factor
    design = np.stack([values, np.ones(values.size)], axis=1)
    normal = np.linalg.pinv(design.T @ design)
    maps = (
        np.broadcast_to(np.asarray(mode.map, dtype=np.float64), reference.shape) for mode in reference.modes
    )
    sums = np.stack([design.T @ pattern[used] for pattern in maps])
    sigmas = np.array([mode.sigma * factor for mode in reference.modes])
    return np.asarray(-sigmas[:, np.newaxis] * (sums @ normal))


def _fit(
    planes: tuple[Array, ...],
    correlations: tuple[Float | None, Float | None],
    pixels: Pixels,
    blocks: Array,
    slope: float | None,
) -> dict[str, Any]:
    """Fit with the errors of both; a slope that cannot be told is held at 1."""
    problem = _problem(planes, correlations, pixels, slope)
    said = "fitted" if slope is None else f"held at {slope:g} as asked"
    try:
        result = regress(problem, blocks)
    except InputError:
        if slope is not None:
            raise
        result = None
    if slope is None and (result is None or not _is_determined(result.parameters, result.covariance)):
        _refuse_unlike(planes, pixels, result)
        said = "held at 1: the reference has no dynamic range beyond its noise"
        warnings.warn(
            "the slope of the anchor cannot be told from these images (the reference is flat within its noise); it is "
            "held at 1 and only the offset is fitted",
            AssumptionWarning,
            stacklevel=3,
        )
        slope = 1.0
        result = regress(_problem(planes, correlations, pixels, slope), blocks)
    assert result is not None
    parameters, covariance = result.parameters, result.covariance
    excess = [float(value) for value in result.excess]
    if slope is not None:
        parameters, excess = np.array([slope, parameters[0]]), [1.0, *excess]
        covariance = np.array([[0.0, 0.0], [0.0, covariance[0, 0]]])
    if not parameters[0] > 0:
        raise InputError(
            f"the image falls where the reference rises (slope {parameters[0]:.3g} +- {covariance[0, 0] ** 0.5:.2g}): "
            "they do not show the same sky",
            field="reference",
            remedy="check the order of the bands, the units and the registration",
        )
    return {
        "parameters": parameters,
        "covariance": covariance,
        "chi_square": result.chi_square,
        "intrinsic_scatter": float(result.scatter[1] / parameters[0]),
        "used": result.used,
        "meta": {"slope": said, "scatter_floor": float(result.scatter[0]), "error_excess": excess},
    }


def _problem(
    planes: tuple[Array, ...],
    correlations: tuple[Float | None, Float | None],
    pixels: Pixels,
    slope: float | None,
) -> Problem:
    data, variance, other, other_variance = planes
    used = pixels.used
    y, x = data[used].astype(np.float64), other[used].astype(np.float64)
    columns = np.ones((y.size, 1)) if slope is not None else np.stack([x, np.ones(y.size)], axis=1)
    if slope is not None:
        y = y - slope * x
    own = NoiseSource(
        variance[used].astype(np.float64), smooth_values(variance, pixels), correlations[0], 1.0
    )
    theirs = NoiseSource(
        other_variance[used].astype(np.float64),
        smooth_values(other_variance, pixels),
        correlations[1],
        0.0 if slope is None else -slope,
        (0, 1) if slope is None else (0, 0),
    )
    bright = np.maximum(smooth_values(other, pixels), 0.0)
    return Problem(y, columns, (own, theirs), (bright,), pixels.rows, pixels.columns, data.shape)


def _refuse_unlike(planes: tuple[Array, ...], pixels: Pixels, result: Regression | None) -> None:
    """Raise when the reference has structure of which the image, well enough known, shows nothing."""
    image, _, reference, variance = (plane[pixels.used].astype(np.float64) for plane in planes)
    if np.var(reference) < RANGE * np.mean(variance):
        return
    slope, error = (0.0, 0.0) if result is None else (result.parameters[0], result.covariance[0, 0] ** 0.5)
    flat = not np.ptp(image) > 0
    if flat or (result is not None and abs(slope) < 3.0 * error and abs(slope - 1.0) > 5.0 * error):
        raise InputError(
            f"the image shows nothing of the reference (slope {slope:.3g} +- {error:.2g})",
            field="image",
            remedy="check that it holds data, its unit and its place on the sky",
        )


def _is_determined(parameters: Float, covariance: Float) -> bool:
    return bool(
        np.all(np.isfinite(covariance))
        and covariance[0, 0] > 0
        and math.sqrt(covariance[0, 0]) < LOOSEST_SLOPE * abs(parameters[0])
    )


def _binned_quality(planes: tuple[Array, ...], pixels: Pixels, parameters: Float) -> dict[str, Any]:
    """Figures of the binned fit that the other method gets from its own."""
    y, y_variance, x, x_variance = (plane[pixels.used].astype(np.float64) for plane in planes)
    residual = y - parameters[0] * x - parameters[1]
    noise = y_variance + parameters[0] ** 2 * x_variance
    used = np.ones(y.size, dtype=bool)
    return {"chi_square": float(np.mean(residual**2 / noise)), "intrinsic_scatter": math.nan, "used": used}


def _pearson(x: Float, y: Float) -> float:
    if not (np.ptp(x) > 0 and np.ptp(y) > 0):
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])


def apply_anchor(image: Image, anchor: Anchor) -> Image:
    """Bring an image to the scale and the sky of the reference: ``(image - offset) / slope``.

    Parameters
    ----------
    image : Image
        Of the unit of the anchor, or one that converts to it; any grid, any PSF.
    anchor : Anchor

    Returns
    -------
    Image
        Variance over slope**2, modes over slope, and the errors of the anchor as two modes.

    Raises
    ------
    UnitError
        When the units do not fit.

    Notes
    -----
    The result r is off by ``-(d_offset + r d_slope) / slope``. With ``b = cov(slope, offset) / var(slope)`` these
    are two independent errors: a map ``(r + b) / slope`` of sigma ``slope_err``, and a number ``1 / slope`` of sigma
    ``(var(offset) - b cov)^1/2``, which is the whole covariance.
    """
    data, variance = convert(image, anchor.unit, "image")
    kind = data.dtype.type
    scaled = (data - kind(anchor.offset)) / kind(anchor.slope)
    variance = variance / kind(anchor.slope**2)
    modes = [mode._replace(map=mode.map / kind(anchor.slope)) for mode in image.modes]
    factor = float(image.unit.to(anchor.unit))
    if factor != 1.0:
        modes = [mode._replace(sigma=mode.sigma * factor) for mode in modes]
    (slope_variance, shared), (_, offset_variance) = anchor.covariance
    ratio = shared / slope_variance if slope_variance > 0 else 0.0
    if slope_variance > 0:
        pattern = np.where(image.mask, 0.0, (scaled + ratio) / anchor.slope).astype(np.float32)
        modes.append(Mode("anchor_slope", pattern, math.sqrt(slope_variance)))
    level = math.sqrt(max(offset_variance - ratio * shared, 0.0))
    if level > 0:
        modes.append(Mode("anchor_offset", 1.0 / anchor.slope, level))
    record = step(
        "apply_anchor",
        method=anchor.method,
        slope=anchor.slope,
        slope_err=anchor.slope_err,
        offset=anchor.offset,
        offset_err=anchor.offset_err,
        slope_is=anchor.meta.get("slope", "fitted"),
        unit=anchor.unit.to_string(),
    )
    return image.evolve(record, data=scaled, variance=variance, unit=anchor.unit, modes=tuple(modes))
