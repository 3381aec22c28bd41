"""What is left of a narrow band after its continuum, against the lines another instrument sees: fitted and applied.

Besides a slope and an offset it has a third term, a fraction of the continuum that varies smoothly over the field:
stellar absorption under the line, and what the interpolation of the continuum gets wrong in colour.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import astropy.units as u
import numpy as np
from astropy.table import QTable
from numpy.typing import NDArray

from skyloom.core.image import Image
from skyloom.core.noise import combine_correlation
from skyloom.core.provenance import step
from skyloom.errors import AssumptionWarning, InputError
from skyloom.imaging.anchoring.errors_in_both import (
    NoiseSource,
    Problem,
    Regression,
    block_index,
    block_moments,
    regress,
)
from skyloom.imaging.anchoring.modes import anchor_modes
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
from skyloom.imaging.anchoring.smooth_field import (
    FieldFrame,
    SmoothField,
    choose_prior,
    n_terms,
    total_orders,
)

__all__ = ["LineAnchor", "apply_line_anchor", "fit_line_anchor"]

Array = NDArray[Any]
Float = NDArray[np.float64]
HIGHEST_DEGREE = 6
TRIAL_DEGREE = 2
"""Degree of the first fit, which gives weights and scatter for the one with a prior."""
LOOSEST_SLOPE = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class LineAnchor:
    """``excess = slope * lines + offset + a(x) * continuum``, fitted.

    Parameters
    ----------
    slope, slope_err : float
    offset, offset_err : float
        In ``unit``.
    field : SmoothField
        a(x), a fraction of the continuum: negative where stars absorb.
    parameters : (2 + K,) float64 array
        Slope, offset, coefficients of the field.
    covariance : (2 + K, 2 + K) float64 array
    unit : astropy unit
        That of the excess.
    chi_square : float
        Mean squared residual over the variance of the noise alone, per degree of freedom.
    intrinsic_scatter : float
        Fraction of the lines by which excess and lines differ beyond their noise.
    correlation : float
        Pearson's, of lines and ``excess - a continuum``, over the pixels used.
    n_pixels, n_rejected : int
    points : QTable
        Medians of ``excess - a continuum`` in bins of the lines.
    meta : dict
        ``slope`` ("fitted", or why it was held), ``field`` (how it was fitted), ``scatter_floor``,
        ``continuum_scatter``, ``error_excess``, ``block_side`` (pixels along a side that were averaged first).
    """

    slope: float
    slope_err: float
    offset: float
    offset_err: float
    field: SmoothField
    parameters: Float
    covariance: Float
    unit: u.UnitBase
    chi_square: float
    intrinsic_scatter: float
    correlation: float
    n_pixels: int
    n_rejected: int
    points: QTable
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Names of the parameters."""
        return ["slope", "offset", *self.field.names]

    @property
    def table(self) -> QTable:
        """One row per parameter: ``name``, ``value``, ``error``, ``unit`` and its row of the covariance."""
        table = QTable()
        table["name"] = self.names
        table["value"] = self.parameters
        table["error"] = np.sqrt(np.diag(self.covariance))
        table["unit"] = ["", self.unit.to_string(), *[""] * len(self.field.names)]
        table["covariance"] = self.covariance
        return table


class _Planes(NamedTuple):
    """Pixels of the three images, in the unit of the excess."""

    excess: Float
    lines: Float
    continuum: Float
    sources: tuple[NoiseSource, NoiseSource, NoiseSource]
    features: tuple[Float, Float]
    pixels: Pixels
    shape: tuple[int, int]


def fit_line_anchor(
    excess: Image,
    continuum: Image,
    lines: Image,
    *,
    mask: NDArray[np.bool_] | None = None,
    field: str | int = "auto",
    slope: float | None = None,
) -> LineAnchor:
    """Fit excess light in a narrow band against lines, with a sky offset and a fraction of the continuum.

    Parameters
    ----------
    excess, continuum : Image
        Narrow band minus continuum, and that continuum, brought to grid and PSF of ``lines``. The variance of the
        excess is that of the narrow band plus that of the continuum.
    lines : Image
        Sum of the lines in the band, as the mean flux density they make there.
    mask : (ny, nx) bool array, optional
        True where pixels must not be used: stars, saturated pixels.
    field : {"auto", "constant", "none"} or int
        Degree of the polynomial a(x); "auto": the sixth, as smooth as the data ask for.
    slope : float, optional
        Hold the slope.

    Returns
    -------
    LineAnchor

    Raises
    ------
    InputError
        When the images do not overlap, do not show the same sky, the continuum is empty, or a value is impossible.
    ShapeError, UnitError
        When grids or units do not fit.

    Warns
    -----
    AssumptionWarning
        When the lines have no dynamic range: the slope is then held at 1.

    Notes
    -----
    `skyloom.imaging.anchoring.errors_in_both` with three sources of noise: that of the narrow band, that of the
    lines, and that of the continuum, which enters the excess with -1 and the third term with a(x): its coefficient in
    the residual is -(1 + a), and its correlation with the third term is allowed for. Bright nebulae and bright
    continuum differ by more than noise: both have an intrinsic scatter proportional to the flux.

    With "auto" the coefficients of order d = i + j > 0 are known to be 0 with a variance ``t^2 g^d``; t and g are those
    of the largest marginal likelihood (restricted: slope, offset and mean are not part of it). What the data do not
    determine stays at 0, and the covariance holds the expected square of what that leaves out, which a degree chosen
    among several does not.
    """
    degree = _parse_field(field)
    if slope is not None and not 0 < slope < math.inf:
        raise InputError(f"slope is {slope}; expected > 0", field="slope")
    planes, excess, lines, side = _collect(excess, continuum, lines, mask)
    frame = FieldFrame.around(excess.wcs, planes.pixels.rows, planes.pixels.columns)
    width = block_width(excess, lines)
    blocks = block_index(planes.pixels.rows, planes.pixels.columns, excess.shape, width)
    meta: dict[str, Any] = {"field": f"degree {degree} as asked" if field != "none" else "none as asked"}
    meta["block_side"] = side
    first = TRIAL_DEGREE if degree is None else degree
    basis = _basis(frame, first, excess, planes.pixels)
    result, slope, meta["slope"] = _fit(planes, basis, blocks, slope)
    if degree is None:
        degree = HIGHEST_DEGREE
        basis = _basis(frame, degree, excess, planes.pixels)
        result, meta["field"] = _fit_smooth(planes, basis, blocks, slope, result)
    return _assemble(planes, frame, degree, basis, result, slope, excess.unit, meta)


def _parse_field(field: str | int) -> int | None:
    """Return the degree, -1 for none, None for auto."""
    named = {"auto": None, "constant": 0, "none": -1}
    if isinstance(field, str) and field in named:
        return named[field]
    if isinstance(field, int) and not isinstance(field, bool) and 0 <= field <= HIGHEST_DEGREE:
        return field
    raise InputError(
        f"field is {field!r}; expected 'auto', 'constant', 'none' or a degree from 0 to {HIGHEST_DEGREE}",
        field="field",
    )


def _collect(
    excess: Image, continuum: Image, lines: Image, mask: NDArray[np.bool_] | None
) -> tuple[_Planes, Image, Image, int]:
    """Return what is fitted; excess and lines as they were averaged; and over blocks of which side."""
    for name, image in (("continuum", continuum), ("lines", lines)):
        check_grid(excess, image, name)
        convert(image, excess.unit, name)
    means, mask, side = gathered({"excess": excess, "continuum": continuum, "lines": lines}, mask)
    excess, continuum, lines = means["excess"], means["continuum"], means["lines"]
    continuum_data, continuum_variance = convert(continuum, excess.unit, "continuum")
    line_data, line_variance = convert(lines, excess.unit, "lines")
    pixels = common_pixels(means, mask)
    used = pixels.used
    narrow_variance = np.maximum(excess.variance - continuum_variance, 0.0)
    sources = tuple(
        NoiseSource(plane[used].astype(np.float64), smooth_values(plane, pixels), correlation, observed)
        for plane, correlation, observed in (
            (narrow_variance, excess.correlation, 1.0),
            (line_variance, lines.correlation, 0.0),
            (continuum_variance, continuum.correlation, -1.0),
        )
    )
    features = tuple(np.maximum(smooth_values(plane, pixels), 0.0) for plane in (line_data, continuum_data))
    planes = _Planes(
        excess.data[used].astype(np.float64),
        line_data[used].astype(np.float64),
        continuum_data[used].astype(np.float64),
        (sources[0], sources[1], sources[2]),
        (features[0], features[1]),
        pixels,
        excess.shape,
    )
    return planes, excess, lines, side


def _basis(frame: FieldFrame, degree: int, image: Image, pixels: Pixels) -> Array:
    """Return the (n, K) basis of the field at the pixels used."""
    size = n_terms(degree)
    empty = SmoothField(frame, degree, np.zeros(size), np.zeros((size, size)))
    assert image.wcs is not None
    grid = empty.grid(image.wcs, image.shape)
    columns = [grid.combine(row)[pixels.used] for row in np.eye(size)]
    return np.stack(columns, axis=1) if columns else np.zeros((pixels.rows.size, 0), dtype=np.float32)


def _problem(planes: _Planes, basis: Array, slope: float | None) -> Problem:
    """The linear problem: slope (unless held), offset, field."""
    first = 0 if slope is not None else 1
    narrow, line, continuum = planes.sources
    ones = np.ones((planes.excess.size, 1))
    parts = [planes.lines[:, None]] if slope is None else []
    columns = np.concatenate([*parts, ones, basis * planes.continuum[:, None]], axis=1)
    line = line._replace(columns=(0, 1)) if slope is None else line._replace(observed=-slope)
    continuum = continuum._replace(columns=(first + 1, first + 1 + basis.shape[1]), basis=basis)
    observed = planes.excess if slope is None else planes.excess - slope * planes.lines
    pixels = planes.pixels
    return Problem(
        observed,
        columns,
        (narrow, line, continuum),
        planes.features,
        pixels.rows,
        pixels.columns,
        planes.shape,
    )


def _fit(
    planes: _Planes, basis: Array, blocks: Array, slope: float | None
) -> tuple[Regression, float | None, str]:
    """Fit; a slope that cannot be told is held at 1. Returns the fit, the slope if held, and what to say."""
    if basis.shape[1] and not np.any(planes.continuum != 0):
        raise InputError(
            "the continuum is zero everywhere: no fraction of it can be fitted",
            field="continuum",
            remedy="check the continuum bands, or fit with field='none'",
        )
    if slope is not None:
        return _regress(planes, basis, blocks, slope), slope, f"held at {slope:g} as asked"
    try:
        result = _regress(planes, basis, blocks, None)
    except InputError:
        result = None
    if result is not None:
        error = math.sqrt(result.covariance[0, 0])
        if error < LOOSEST_SLOPE * abs(result.parameters[0]):
            if not result.parameters[0] > 0:
                raise InputError(
                    f"the excess falls where the lines rise (slope {result.parameters[0]:.3g} +- {error:.2g}): they do "
                    "not show the same sky",
                    field="lines",
                    remedy="check the order of the bands, the units and the registration",
                )
            return result, None, "fitted"
    warnings.warn(
        "the slope of the line anchor cannot be told from these images (no lines beyond their noise); it is held at 1",
        AssumptionWarning,
        stacklevel=3,
    )
    said = "held at 1: the lines have no dynamic range beyond their noise"
    return _regress(planes, basis, blocks, 1.0), 1.0, said


def _fit_smooth(
    planes: _Planes, basis: Array, blocks: Array, slope: float | None, start: Regression
) -> tuple[Regression, str]:
    """Fit all orders of the field with a prior on their size, which the data choose."""
    problem = _problem(planes, basis, slope)
    before = problem.columns.shape[1] - basis.shape[1]
    orders = np.concatenate([np.zeros(before, dtype=int), total_orders(HIGHEST_DEGREE)])
    dependence = start.dependence * float(np.mean(start.excess)) ** 2
    one = np.zeros(problem.observed.size, dtype=np.intp)
    matrices, vectors = block_moments(problem, start.weights, start.slopes, one, 1)
    prior, size, ratio = choose_prior(matrices[0] / dependence, vectors[0] / dependence, orders)
    problem = problem._replace(prior=prior, dependence=dependence)
    result = regress(problem, blocks, _groups(before, basis.shape[1]), start)
    said = f"order d of variance ({size:.2g})^2 {ratio:.2g}^d, by marginal likelihood"
    return result, said


def _groups(before: int, size: int) -> NDArray[np.intp]:
    return np.concatenate([np.arange(before), np.full(size, before)]).astype(np.intp)


def _regress(planes: _Planes, basis: Array, blocks: Array, slope: float | None) -> Regression:
    before = 1 if slope is not None else 2
    return regress(_problem(planes, basis, slope), blocks, _groups(before, basis.shape[1]))


def _assemble(
    planes: _Planes,
    frame: FieldFrame,
    degree: int,
    basis: Array,
    result: Regression,
    slope: float | None,
    unit: u.UnitBase,
    meta: dict[str, Any],
) -> LineAnchor:
    parameters, covariance = result.parameters, result.covariance
    excess_errors = result.excess
    if slope is not None:
        parameters = np.concatenate([[slope], parameters])
        covariance = np.pad(covariance, ((1, 0), (1, 0)))
        excess_errors = np.concatenate([[1.0], excess_errors])
    corrected = planes.excess - (basis @ parameters[2:]) * planes.continuum
    used = result.used
    meta["scatter_floor"] = float(result.scatter[0])
    meta["continuum_scatter"] = float(result.scatter[2])
    meta["error_excess"] = [float(value) for value in excess_errors]
    ranged = np.ptp(planes.lines[used]) > 0
    return LineAnchor(
        slope=float(parameters[0]),
        slope_err=math.sqrt(covariance[0, 0]),
        offset=float(parameters[1]),
        offset_err=math.sqrt(covariance[1, 1]),
        field=SmoothField(frame, degree, parameters[2:], covariance[2:, 2:]),
        parameters=parameters,
        covariance=covariance,
        unit=unit,
        chi_square=result.chi_square,
        intrinsic_scatter=float(result.scatter[1] / parameters[0]),
        correlation=float(np.corrcoef(planes.lines[used], corrected[used])[0, 1]) if ranged else math.nan,
        n_pixels=used.size,
        n_rejected=int(used.size - np.count_nonzero(used)),
        points=binned_medians(planes.lines, corrected, used, unit),
        meta=meta,
    )


def apply_line_anchor(
    excess: Image, continuum: Image, anchor: LineAnchor, *, max_modes: int | None = None
) -> Image:
    """Bring the excess to the scale of the lines: ``(excess - offset - a(x) continuum) / slope``.

    Parameters
    ----------
    excess, continuum : Image
        Narrow band minus continuum, and that continuum, of one grid (any: that of the sharper instrument).
    anchor : LineAnchor
    max_modes : int, optional
        Most maps of shared errors. None: 16, fewer on images so large that they would take more than 1 GB.

    Returns
    -------
    Image
        In ``anchor.unit``. The errors of the anchor are its only modes: a sky level or a scale that was off before
        is off in the fit too and is taken out by it, so the modes of the input are dropped.

    Raises
    ------
    InputError, ShapeError, UnitError
        When grids or units do not fit, or ``max_modes`` is below 1.

    Notes
    -----
    With E = N - C the result is (N - (1 + a) C - offset) / slope, so that of ``Var(E) = Var(N) + Var(C)``

        Var = [Var(E) + (2 a + a^2) Var(C)] / slope^2

    remains, with the correlation mixed alike. The modes are the eigenvectors of the mean outer product of the
    derivatives by the parameters over blocks of the field, relative to the variance of the block; as many are kept as
    hold 99.5 % of the variance of such sums; the history says what is not held (`mode_variance_left_out`), and those
    kept are enlarged to stand for it.
    """
    if max_modes is not None and max_modes < 1:
        raise InputError(f"max_modes is {max_modes}; expected >= 1", field="max_modes")
    check_grid(excess, continuum, "continuum")
    data, variance = convert(excess, anchor.unit, "excess")
    continuum_data, continuum_variance = convert(continuum, anchor.unit, "continuum")
    mask = excess.mask | continuum.mask
    kind = data.dtype.type
    if anchor.field.degree >= 0:
        assert excess.wcs is not None
        fraction = anchor.field.on(excess.wcs, excess.shape)
    else:
        fraction = np.zeros(excess.shape, dtype=np.float32)
    added = (2.0 + fraction) * fraction
    # What lies under the mask may overflow; it is overwritten below.
    with np.errstate(invalid="ignore", over="ignore"):
        anchored = (data - kind(anchor.offset) - fraction * continuum_data) / kind(anchor.slope)
        # The narrow band's own noise stays, whatever the two planes say.
        shared = np.minimum(continuum_variance, variance)
        added *= shared
        total = (variance + added) / kind(anchor.slope**2)
    correlation = _mixed_correlation(excess, continuum, variance, added, mask)
    anchored[mask], total[mask] = 0.0, 1.0
    modes, left_out = anchor_modes(
        anchored, (total, correlation), continuum_data, mask, excess.wcs, anchor, max_modes
    )
    record = step(
        "apply_line_anchor",
        slope=anchor.slope,
        slope_err=anchor.slope_err,
        slope_is=anchor.meta.get("slope", "fitted"),
        offset=anchor.offset,
        offset_err=anchor.offset_err,
        unit=anchor.unit.to_string(),
        field=anchor.meta.get("field", ""),
        field_coefficients=anchor.field.coefficients,
        modes=len(modes),
        mode_variance_left_out=left_out,
        modes_taken_out=[mode.name for mode in (*excess.modes, *continuum.modes)],
    )
    return excess.evolve(
        record,
        data=anchored.astype(excess.data.dtype, copy=False),
        variance=total.astype(excess.variance.dtype, copy=False),
        mask=mask,
        unit=anchor.unit,
        correlation=correlation,
        modes=modes,
    )


def _mixed_correlation(
    excess: Image, continuum: Image, variance: Array, added: Array, mask: NDArray[np.bool_]
) -> Float | None:
    if continuum.correlation is excess.correlation:
        return excess.correlation
    sample = ~mask[::7, ::7]
    if not sample.any():
        return excess.correlation
    typical = [float(np.median(plane[::7, ::7][sample])) for plane in (variance, added)]
    return combine_correlation(typical, [excess.correlation, continuum.correlation])
