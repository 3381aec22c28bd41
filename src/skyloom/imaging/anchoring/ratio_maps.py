"""The ratio of two maps, smoothed no more than its noise demands, and known everywhere."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import astropy.units as u
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from skyloom.core.image import Image
from skyloom.core.noise import convolve_correlation
from skyloom.core.provenance import step
from skyloom.errors import InputError
from skyloom.imaging.anchoring.pixels import check_grid, convert

__all__ = ["smooth_ratio"]

Array = NDArray[Any]
Float = NDArray[np.float64]
SIGMA = 2.0
"""Width in (binned) pixels of each smoothing; from one scale to the next the pixels double."""
TRUNCATE = 3.0
LEAST = 3.0
"""S/N of the ratio of the whole field below which there is no ratio."""


class _Scale(NamedTuple):
    """Sums over a kernel, and the variances of those sums."""

    numerator: Float
    denominator: Float
    numerator_variance: Float
    denominator_variance: Float


def smooth_ratio(numerator: Image, denominator: Image, *, snr: float = 10.0) -> Image:
    """Return the ratio of two maps, each place averaged over no more than gives it the wanted S/N.

    Parameters
    ----------
    numerator, denominator : Image
        Of one grid and PSF; units that convert into each other.
    snr : float
        Wanted S/N of the ratio.

    Returns
    -------
    Image
        Dimensionless, without masked pixels: where there is no signal it takes the value of ever larger
        surroundings, in the end that of the whole field. Its variance is that of the ratio, its correlation that of
        the smoothing which most of the light has.

    Raises
    ------
    InputError
        When the S/N of the ratio over the whole field is below 3, or ``snr`` is not > 0.
    ShapeError, UnitError
        When grids or units do not fit.

    Notes
    -----
    At each scale the ratio is that of the sums over a Gaussian kernel, never a mean of ratios, less its bias
    ``1 + Var(D) / D^2`` of second order. From coarse to fine it is replaced where the S/N allows, with a soft
    transition. The S/N is judged by ``T = (q N / v_N + D / v_D) / (q^2 / v_N + 1 / v_D)``, the brightness that both
    maps give for the coarser ratio q: its noise is independent of that of the ratio, so that picking by it does not
    prefer ratios that noise made high or low.
    """
    if not 0 < snr < math.inf:
        raise InputError(f"snr is {snr}; expected > 0", field="snr")
    check_grid(numerator, denominator, "denominator")
    below, below_variance = convert(denominator, numerator.unit, "denominator")
    mask = numerator.mask | denominator.mask
    planes = [
        np.where(mask, 0.0, plane).astype(np.float64)
        for plane in (numerator.data, below, numerator.variance, below_variance)
    ]
    correlations = (numerator.correlation, denominator.correlation)
    value, error = _whole_field(planes, correlations)
    ratio, spread = np.full(mask.shape, value), np.full(mask.shape, error)
    levels = _levels(mask.shape)
    shares: dict[int, Float] = {}
    light = np.maximum(planes[1], 0.0)
    for level in [*range(levels, -1, -1), -1]:
        scale = _at_scale(planes, correlations, level)
        ratio, spread, taken = _refine(ratio, spread, scale, snr)
        shares = {key: share * (1.0 - taken) for key, share in shares.items()}
        shares[level] = taken
    weights = {key: float(np.sum(share * light)) for key, share in shares.items()}
    typical = max(weights, key=lambda key: weights[key])
    record = step(
        "smooth_ratio", snr=snr, whole_field=value, whole_field_error=error, typical_sigma=_width(typical)
    )
    kind = numerator.data.dtype
    return numerator.evolve(
        record,
        data=ratio.astype(kind),
        variance=(spread**2).astype(kind),
        mask=np.zeros(mask.shape, dtype=bool),
        unit=u.dimensionless_unscaled,
        correlation=_correlation(typical, numerator.correlation),
        flags=None,
        modes=(),
    )


def _width(level: int) -> float:
    """Sigma in pixels of the kernel of a level; level -1 is the pixel itself."""
    return 0.0 if level < 0 else SIGMA * 2.0 ** (level - 1)


def _levels(shape: tuple[int, ...]) -> int:
    """The last level's kernel is about an eighth of the field wide."""
    return max(0, int(math.log2(max(1.0, min(shape) / 8.0 / SIGMA))) + 1)


def _correlation(level: int, correlation: Float | None) -> Float | None:
    """Correlation of the noise after the kernel of a level (at most 8 pixels wide: beyond, regions see a constant)."""
    sigma = min(_width(level), 8.0)
    return correlation if sigma == 0 else convolve_correlation(_kernel(sigma), correlation)[0]


def _kernel(sigma: float) -> Float:
    reach = math.ceil(TRUNCATE * sigma)
    profile = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.outer(profile, profile) / profile.sum() ** 2


def _whole_field(planes: list[Float], correlations: tuple[Float | None, Float | None]) -> tuple[float, float]:
    """Ratio of the sums over the field, weighted with the light so that empty sky adds no noise."""
    top, bottom, top_variance, bottom_variance = planes
    weight = np.maximum(gaussian_filter(bottom, SIGMA, mode="constant"), 0.0)
    above, below = float(np.sum(weight * top)), float(np.sum(weight * bottom))
    gains = [1.0 if rho is None else max(float(rho.sum()), 1.0) for rho in correlations]
    variances = [
        gain * float(np.sum(weight**2 * variance))
        for gain, variance in zip(gains, (top_variance, bottom_variance), strict=True)
    ]
    if not (below > 0 and above > 0):
        raise _no_ratio(0.0)
    value = above / below
    error = math.sqrt(variances[0] + value**2 * variances[1]) / below
    if value < LEAST * error:
        raise _no_ratio(value / error)
    return value, error


def _no_ratio(found: float) -> InputError:
    return InputError(
        f"the ratio of the two maps has a S/N of {found:.2g} over the whole field; at least {LEAST:g} is needed",
        field="numerator",
        remedy="give a fixed ratio instead of a map",
    )


def _at_scale(planes: list[Float], correlations: tuple[Float | None, Float | None], level: int) -> _Scale:
    """Average data and propagate variances; pixels are binned first, so that every scale costs alike."""
    if level < 0:
        return _Scale(*planes)
    bins, sigma = max(1, 2 ** (level - 1)), _width(level) / max(1, 2 ** (level - 1))
    shape = planes[0].shape
    smooth: list[Float] = []
    for plane, rho in zip(planes, (None, None, *correlations), strict=True):
        variance = len(smooth) >= 2
        # A kernel's square is a kernel narrower by sqrt(2); its sum is the noise gain.
        width = sigma / math.sqrt(2.0) if variance else sigma
        values = gaussian_filter(
            _bin(plane, bins), width, mode="constant", truncate=TRUNCATE * (1.5 if variance else 1)
        )
        if variance:
            values *= _noise_gain(_width(level), rho)
        smooth.append(_expand(values, shape, bins))
    return _Scale(*smooth)


def _noise_gain(sigma: float, correlation: Float | None) -> float:
    """``sum_d rho(d) (k star k)(d)`` of a Gaussian kernel k."""
    width = math.hypot(sigma, sigma)
    if correlation is None:
        return 1.0 / (2.0 * math.pi * width**2)
    radius = correlation.shape[0] // 2
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    overlap = np.exp(-0.5 * (x**2 + y**2) / width**2) / (2.0 * math.pi * width**2)
    return max(float(np.sum(correlation * overlap)), 1e-3 / (2.0 * math.pi * width**2))


def _bin(plane: Float, bins: int) -> Float:
    """Mean of ``bins`` by ``bins`` pixels, padded with zeros."""
    if bins == 1:
        return plane
    padded = np.pad(plane, [(0, -side % bins) for side in plane.shape])
    ny, nx = (side // bins for side in padded.shape)
    return np.asarray(padded.reshape(ny, bins, nx, bins).mean(axis=(1, 3)))


def _expand(values: Float, shape: tuple[int, ...], bins: int) -> Float:
    """Undo `_bin` by linear interpolation."""
    if bins == 1:
        return values
    large = zoom(values, bins, order=1, mode="nearest", grid_mode=True)
    return np.asarray(large[: shape[0], : shape[1]])


def _refine(ratio: Float, spread: Float, scale: _Scale, snr: float) -> tuple[Float, Float, Float]:
    """Replace the coarser ratio where this scale has the S/N; return ratio, error, and the share replaced."""
    top, bottom, top_variance, bottom_variance = scale
    known = (top_variance > 0) & (bottom_variance > 0) & (bottom > 0) & (top > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        joint = (ratio * top / top_variance + bottom / bottom_variance) / (
            ratio**2 / top_variance + 1.0 / bottom_variance
        )
        reached = joint * ratio / np.sqrt(top_variance + ratio**2 * bottom_variance)
        own = top / bottom / (1.0 + bottom_variance / bottom**2)
        error = np.sqrt(top_variance + own**2 * bottom_variance) / bottom
    place = np.clip(np.where(known, reached, 0.0) / snr - 0.5, 0.0, 1.0)
    taken = place * place * (3.0 - 2.0 * place)
    own, error = np.where(taken > 0, own, 0.0), np.where(taken > 0, error, 0.0)
    return (1.0 - taken) * ratio + taken * own, (1.0 - taken) * spread + taken * error, taken
