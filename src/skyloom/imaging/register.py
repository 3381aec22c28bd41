"""Registration: how far one image lies off another, with the error of that, and its correction in the WCS.

A cross-correlation finds the shift to a pixel; a least-squares fit of ``a reference(x - s) + b`` refines it. The error
counts the noise of both images with its correlation. Pixels are never resampled: `shift_wcs` corrects the WCS.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.wcs import WCS, Sip
from numpy.typing import NDArray
from scipy import fft

from skyloom.core.geometry import same_grid
from skyloom.core.image import Image
from skyloom.core.noise import sum_variance
from skyloom.core.provenance import step
from skyloom.errors import InputError
from skyloom.imaging.reproject import reproject

__all__ = ["Registration", "register", "shift_wcs"]

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]
LEAST_SIGNIFICANCE = 8.0  # Of the correlation; among a thousand possible shifts noise alone reaches 4.
LARGEST_ERROR = 0.5  # Pixels; a shift known less well is no registration.
SPLINE_REACH = 2  # Pixels around a hole that a cubic spline would colour.
ROUNDS = 20
CONVERGED = 1e-5  # Pixels.


@dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """Where an image lies relative to a reference on the same grid.

    A feature at pixel x of the reference is found at ``R(rotation) (x - c) + c + (shift_x, shift_y)`` of the image, c
    being the centre of the image.

    Parameters
    ----------
    shift_x, shift_y : float
        Pixels.
    rotation : float
        Degrees, from the x towards the y axis; 0 unless it was fitted.
    covariance : (2, 2) or (3, 3) array
        Of (shift_x, shift_y[, rotation]), in pixels and degrees.
    correlation : float
        Correlation coefficient of the two images at that shift.
    significance : float
        The coefficient in units of its scatter for unrelated noise.
    scale : float
        Brightness of the image relative to the reference.
    n_pixels : int
        Pixels compared.
    """

    shift_x: float
    shift_y: float
    rotation: float
    covariance: Float
    correlation: float
    significance: float
    scale: float
    n_pixels: int

    @property
    def shift_errors(self) -> tuple[float, float]:
        """Standard errors of (shift_x, shift_y), pixels."""
        return math.sqrt(self.covariance[0, 0]), math.sqrt(self.covariance[1, 1])


def register(
    image: Image, reference: Image, *, max_shift_arcsec: float = 1.0, rotation: bool = False
) -> Registration:
    """Measure the shift (and rotation) of an image against a reference.

    Parameters
    ----------
    image : Image
    reference : Image
        Of the same PSF, as nearly as the shift is to be trusted; brought to the grid of ``image`` if need be.
    max_shift_arcsec : float
        Larger shifts are not searched.
    rotation : bool
        Whether a small rotation is fitted, too.

    Returns
    -------
    Registration

    Raises
    ------
    InputError
        When the images have no WCS, hardly overlap, or do not resemble each other: the correlation is insignificant,
        its peak lies at the edge of the search, or the shift comes out less well than half a pixel.

    Notes
    -----
    The fit minimises ``sum w (d - a r(x - s) - b)^2`` with ``w = 1 / (v + a^2 v_r)``. With A its design matrix the
    covariance is ``(A^T w A)^-1 A^T w C w A (A^T w A)^-1``, C the correlated covariance of both images. Noise in the
    gradient of the reference is of second order and left out.
    """
    same = reference if _on_one_grid(image, reference) else reproject(reference, image)
    used = image.valid & same.valid
    if np.count_nonzero(used) < 100:
        raise InputError(
            f"image and reference share {np.count_nonzero(used)} usable pixels; 100 are needed",
            field="reference",
            remedy="check that they show the same field",
        )
    reach = max_shift_arcsec / image.pixel_scale
    start = _peak(image, same, used, reach)
    return _refined(image, same, start, reach, rotation)


def _on_one_grid(image: Image, reference: Image) -> bool:
    if image.wcs is None or reference.wcs is None:
        raise InputError(
            "registration needs the WCS of both images", field="wcs", remedy="give the images a WCS"
        )
    return same_grid(image.wcs, image.shape, reference.wcs, reference.shape)


def _contrast(image: Image, used: Mask) -> Float:
    """Data over noise with the mean taken off; 0 where unusable."""
    values = np.zeros(image.shape)
    values[used] = image.data[used] / np.sqrt(image.variance[used], dtype=np.float64)
    values[used] -= values[used].mean()
    return values


def _peak(image: Image, reference: Image, used: Mask, reach: float) -> tuple[int, int]:
    """Return the whole-pixel shift (x, y) of highest cross-correlation."""
    first, second = _contrast(image, used), _contrast(reference, used)
    radius = max(1, math.ceil(reach))
    shape = tuple(fft.next_fast_len(size + radius, real=True) for size in image.shape)
    product = fft.irfft2(fft.rfft2(first, shape) * np.conj(fft.rfft2(second, shape)), shape)
    lags = np.arange(-radius, radius + 1)
    near = product[np.ix_(lags, lags)]
    row, column = np.unravel_index(int(near.argmax()), near.shape)
    return int(lags[column]), int(lags[row])


@dataclass(slots=True)
class _Fit:
    """One round of the fit."""

    residual: Float
    design: Float
    used: Mask
    weight: Float
    model: Float


def _refined(
    image: Image, reference: Image, start: tuple[int, int], reach: float, rotation: bool
) -> Registration:
    from scipy.ndimage import binary_dilation, spline_filter

    holes = (
        binary_dilation(reference.mask, iterations=SPLINE_REACH) if reference.mask.any() else reference.mask
    )
    filled = np.where(reference.mask, np.mean(reference.data[reference.valid]), reference.data)
    spline = spline_filter(filled.astype(np.float64), order=3)
    place = np.array([start[0], start[1], 0.0])
    scale = 1.0
    for _ in range(ROUNDS):
        fit = _round(image, reference, spline, holes, place, scale, rotation)
        normal = (fit.design * fit.weight) @ fit.design.T
        change = np.linalg.solve(normal, (fit.design * fit.weight) @ fit.residual)
        scale = float(change[0])
        # A step further than a pixel leaves the neighbourhood in which the gradient holds.
        moved = np.clip(change[2:] / (scale or 1.0), -1.0, 1.0)
        place[: moved.size] += moved
        if np.abs(moved[:2]).max() < CONVERGED:
            break
    _check_shift(place, reach)
    fit = _round(image, reference, spline, holes, place, scale, rotation)
    return _judged(image, reference, fit, place, scale)


def _round(
    image: Image, reference: Image, spline: Float, holes: Mask, place: Float, scale: float, rotation: bool
) -> _Fit:
    """Evaluate the model and its derivatives at a shift and rotation, for the pixels where it is known."""
    from scipy.ndimage import map_coordinates

    y, x = _source_positions(image.shape, place)
    inside = (x >= 0) & (x <= image.shape[1] - 1) & (y >= 0) & (y <= image.shape[0] - 1)
    covered = map_coordinates(holes.astype(np.float32), [y, x], order=1, mode="constant", cval=1.0) < 1e-3
    used = image.valid & inside & covered
    where = np.array([y[used], x[used]])

    def at(dy: float, dx: float) -> Float:
        offset = np.array([[dy], [dx]])
        return np.asarray(map_coordinates(spline, where + offset, order=3, mode="nearest", prefilter=False))

    model, half = at(0.0, 0.0), 0.05
    along_x = (at(0.0, half) - at(0.0, -half)) / (2 * half)
    along_y = (at(half, 0.0) - at(-half, 0.0)) / (2 * half)
    columns = [model, np.ones_like(model), -along_x, -along_y]
    if rotation:
        centre_y, centre_x = (np.array(image.shape) - 1) / 2
        arm_y, arm_x = where[0] - centre_y, where[1] - centre_x
        columns.append(np.radians(1.0) * (along_x * arm_y - along_y * arm_x))
    variance = image.variance[used] + scale**2 * reference.variance[used]
    # Where the reference has no variance of its own (masked there, usable after the shift) the image's must do.
    weight = 1.0 / np.where(np.isfinite(variance) & (variance > 0), variance, image.variance[used])
    return _Fit(
        image.data[used].astype(np.float64), np.array(columns), used, weight.astype(np.float64), model
    )


def _source_positions(shape: tuple[int, int], place: Float) -> tuple[Float, Float]:
    """Where each pixel (y, x) of the image lies in the reference."""
    centre_y, centre_x = (np.array(shape) - 1) / 2
    y, x = np.indices(shape, dtype=np.float64)
    x, y = x - centre_x - place[0], y - centre_y - place[1]
    cosine, sine = math.cos(math.radians(place[2])), math.sin(math.radians(place[2]))
    return -sine * x + cosine * y + centre_y, cosine * x + sine * y + centre_x


def _check_shift(place: Float, reach: float) -> None:
    if max(abs(place[0]), abs(place[1])) > reach + 0.5:
        raise InputError(
            f"the best shift ({place[0]:.2f}, {place[1]:.2f}) px lies beyond the search of {reach:.1f} px",
            field="max_shift_arcsec",
            remedy="search further, or check that the images show the same field",
        )


def _judged(image: Image, reference: Image, fit: _Fit, place: Float, scale: float) -> Registration:
    """Give the result its errors, and refuse it when the images do not resemble each other."""
    root = np.sqrt(fit.weight)
    first, second = root * fit.residual, root * fit.model
    first, second = first - first.mean(), second - second.mean()
    norm = math.sqrt(float(np.sum(first**2) * np.sum(second**2)))
    correlation = float(np.sum(first * second)) / norm if norm > 0 else 0.0
    significance = correlation * math.sqrt(first.size / _shared_lags(image, reference))
    covariance = _covariance(image, reference, fit, scale)
    error = math.sqrt(max(covariance[0, 0], covariance[1, 1]))
    if not significance >= LEAST_SIGNIFICANCE or not error <= LARGEST_ERROR:
        raise InputError(
            f"the images do not resemble each other: correlation {correlation:.3f} ({significance:.1f} sigma), "
            f"error of the shift {error:.2f} px",
            field="reference",
            remedy="check that they show the same field, at like wavelengths and PSF",
        )
    return Registration(
        float(place[0]),
        float(place[1]),
        float(place[2]),
        covariance,
        correlation,
        significance,
        scale,
        first.size,
    )


def _shared_lags(image: Image, reference: Image) -> float:
    """Pixels that vary as one when two unrelated noise fields are compared: sum of the product of correlations."""
    if image.correlation is None or reference.correlation is None:
        return 1.0
    radius = min(image.correlation.shape[0], reference.correlation.shape[0]) // 2
    cut = [_central(item, radius) for item in (image.correlation, reference.correlation)]
    return max(1.0, float(np.sum(cut[0] * cut[1])))


def _central(array: Float, radius: int) -> Float:
    centre = array.shape[0] // 2
    return array[centre - radius : centre + radius + 1, centre - radius : centre + radius + 1]


def _covariance(image: Image, reference: Image, fit: _Fit, scale: float) -> Float:
    """Covariance of shift (and rotation) with correlated noise in both images."""
    design = fit.design.copy()
    design[2:] *= scale
    inverse = np.linalg.inv((design * fit.weight) @ design.T)
    # Rows: how each parameter responds to each pixel.
    response = inverse @ (design * fit.weight)
    total = np.zeros((len(design) - 2,) * 2)
    for source, factor in ((image, 1.0), (reference, scale)):
        planes = [_plane(row * factor, fit.used & source.valid, fit.used) for row in response[2:]]
        total += _response_covariance(planes, source)
    return total


def _plane(values: Float, kept: Mask, used: Mask) -> Float:
    plane = np.zeros(used.shape)
    plane[used] = values
    plane[~kept] = 0.0
    return plane


def _response_covariance(planes: list[Float], image: Image) -> Float:
    """Covariance of weighted sums, from the variances of the sums and of their pairs."""

    def variance(plane: Float) -> float:
        return sum_variance(image.variance, plane, image.correlation)

    own = [variance(plane) for plane in planes]
    result = np.diag(own)
    for i in range(len(planes)):
        for j in range(i):
            result[i, j] = result[j, i] = 0.5 * (variance(planes[i] + planes[j]) - own[i] - own[j])
    return result


def shift_wcs(image: Image, registration: Registration) -> Image:
    """Return the image with its WCS corrected by a registration; the pixels stay as they are.

    Raises
    ------
    InputError
        When the image has no WCS.
    """
    if image.wcs is None:
        raise InputError("the image has no WCS to correct", field="wcs")
    return image.evolve(
        step(
            "shift_wcs",
            shift_x=registration.shift_x,
            shift_y=registration.shift_y,
            rotation=registration.rotation,
            shift_errors=list(registration.shift_errors),
        ),
        wcs=_moved(image.wcs, image.shape, registration),
    )


def _moved(wcs: WCS, shape: tuple[int, int], registration: Registration) -> WCS:
    angle = math.radians(registration.rotation)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    centre = (np.array(shape[::-1]) + 1.0) / 2.0
    shift = np.array([registration.shift_x, registration.shift_y])

    def moved(point: Any) -> Float:
        return np.asarray(centre + shift + turn @ (np.asarray(point, dtype=np.float64) - centre))

    if registration.rotation and wcs.sip is not None:
        raise InputError(
            "a WCS with SIP distortion cannot be turned",
            field="wcs",
            remedy="register with rotation=False, or reproject the image first",
        )
    result = wcs.deepcopy()
    result.wcs.crpix = moved(wcs.wcs.crpix)
    if wcs.sip is not None:
        result.sip = Sip(wcs.sip.a, wcs.sip.b, wcs.sip.ap, wcs.sip.bp, moved(wcs.sip.crpix))
    if wcs.wcs.has_cd():
        result.wcs.cd = wcs.wcs.cd @ turn.T
    else:
        result.wcs.pc = wcs.wcs.get_pc() @ turn.T
    result.wcs.set()
    return result
