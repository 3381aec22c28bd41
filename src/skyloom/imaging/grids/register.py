"""How far one image is displaced against another of the same sky, with the error of that, and the WCS put right.

A masked cross-correlation finds the shift to a pixel. The rest is an instrumental-variable fit: the shift s, the
amplitude a and the level b of ``image(x + s) = a reference(x) + b`` make the residual orthogonal to the gradient of the
reference, to the reference and to a constant. Unlike least squares this is not drawn to the half-pixel shifts at which
interpolation smooths the noise, because the noise of the interpolated image does not enter the instruments.
``docs/design/resampling.md`` has the figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from astropy.wcs import WCS, Sip
from numpy.typing import NDArray
from scipy import fft, ndimage

from skyloom.core.geometry import celestial, same_grid
from skyloom.core.image import Image
from skyloom.core.noise import resample_correlation
from skyloom.core.provenance import step
from skyloom.errors import InputError
from skyloom.imaging.grids.derived import derived_grid
from skyloom.imaging.grids.pixel_map import affine_map
from skyloom.imaging.grids.reproject import reproject, resample_planes

__all__ = ["MODELS", "Registration", "register", "shift_wcs"]

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]
MODELS = ("shift", "shift+rotation")
FEWEST_PIXELS = 200
SIGNIFICANCE = 6.0
"""Least height of the correlation peak, in units of what noise alone scatters."""
AGREEMENT = 0.65
"""Least correlation of the structures in the two images, once their noise is allowed for: fields of unrelated
sources reach 0.61 when their brightest ones are laid over each other, neighbouring bands of galaxies 0.9 to 1."""
INTERPOLATION_ERROR = 0.004
"""Pixels per axis by which Lanczos interpolation of sources of sigma 1.6 px displaces them; part of every error."""
GRADIENT_SIGMA = 1.0
"""Width in pixels of the derivative filter that makes the instruments."""
GRADIENT_REACH = 2.0
"""Half width of that filter in units of its sigma; pixels within it of a masked one are not used."""
SETTLED = 0.03
"""Step, in units of the error, at which the fit has settled."""
STENCIL = 4
"""Pixels beyond the search that interpolation reads."""
STEP = 0.25
"""Half the step of the numerical derivative, in pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """Where the content of an image lies relative to a reference.

    Parameters
    ----------
    shift_x, shift_y : float
        What stands at x in the reference stands at x + shift in the image, in pixels of the reference.
    rotation : float
        Degrees from x to y by which the image is turned about the centre of the reference; 0 unless fitted.
    covariance : (2, 2) or (3, 3) array
        Of (shift_x, shift_y) in pixels, and of the rotation in degrees where it was fitted.
    offset : (2,) array
        The shift on the sky (east, north) in arcsec.
    offset_covariance : (2, 2) array
        In arcsec2.
    correlation : float
        Pearson correlation of the two images after alignment.
    agreement : float
        The same with the noise of both allowed for: 1 for the same structures.
    significance : float
        Peak of the cross-correlation in units of the scatter by noise alone.
    amplitude : float
        Brightness of the image relative to the reference.
    chi_square : float
        Residual over noise, mean of squares. Above 1 it has been multiplied into the covariances.
    n_pixels : int
        Pixels used.
    matrix : (2, 2) array
        Pixel matrix of the reference, arcsec per pixel.
    centre : (2,) array
        Sky position (longitude, latitude in degrees, as the WCS has them) of the centre of the reference.
    """

    shift_x: float
    shift_y: float
    rotation: float
    covariance: Float
    offset: Float
    offset_covariance: Float
    correlation: float
    agreement: float
    significance: float
    amplitude: float
    chi_square: float
    n_pixels: int
    matrix: Float
    centre: Float

    @property
    def shift_error(self) -> tuple[float, float]:
        """Standard errors of shift_x and shift_y in pixels of the reference."""
        return float(np.sqrt(self.covariance[0, 0])), float(np.sqrt(self.covariance[1, 1]))


def register(
    image: Image, reference: Image, *, max_shift_arcsec: float | None = None, model: str = "shift"
) -> Registration:
    """Measure the displacement of ``image`` against ``reference``.

    Parameters
    ----------
    image, reference : Image
        Of the same sky, of like PSF, in any band that shows the same structures. Where the grids differ the
        image is resampled first.
    max_shift_arcsec : float, optional
        Largest displacement looked for; by default 20 pixels of the reference.
    model : {"shift", "shift+rotation"}

    Returns
    -------
    Registration
        Apply it with `shift_wcs`.

    Raises
    ------
    InputError
        When the images hardly overlap, nothing significant is common to them, the correlation peaks at the edge of
        the search, their structures disagree, or the fit does not settle.

    Notes
    -----
    Masked cross-correlation: Padfield 2012 (10.1109/TIP.2011.2181402). Covariance: ``A^-1 Z' W S W Z A^-T`` with
    instruments Z, weights W, the noise covariance S of both images including its correlation between pixels, and
    the derivative A of ``Z' W residual`` by the parameters.
    """
    if model not in MODELS:
        raise InputError(f"model is {model!r}", field="model", remedy=f"use one of {', '.join(MODELS)}")
    reach = 20.0 if max_shift_arcsec is None else max_shift_arcsec / reference.pixel_scale
    if not reach > 0:
        raise InputError(f"max_shift_arcsec is {max_shift_arcsec}; expected > 0", field="max_shift_arcsec")
    on_grid, margin = image, 0
    if not same_grid(image.wcs, image.shape, reference.wcs, reference.shape):
        # What the image shows beyond the reference comes into it when it is shifted: with a reference of few pixels
        # that is much of what there is.
        margin = int(np.ceil(reach)) + STENCIL
        on_grid = reproject(image, derived_grid(celestial(reference.wcs), reference.shape, margin=margin))
    start, significance = _coarse_shift(on_grid, reference, reach, margin)
    return _registration(_fit(on_grid, reference, model, start, margin), reference, significance)


def shift_wcs(image: Image, registration: Registration) -> Image:
    """Put the WCS of an image right, its pixels untouched.

    Parameters
    ----------
    image : Image
        The one that was registered, or another of the same pointing.
    registration : Registration

    Raises
    ------
    InputError
        When there is no WCS, or a rotation is to be applied to a WCS with distortions.
    """
    if image.wcs is None:
        raise InputError("the image has no WCS to shift", field="wcs")
    to_image = np.linalg.inv(image.pixel_matrix) @ registration.matrix
    shift = to_image @ np.array([registration.shift_x, registration.shift_y])
    wcs = image.wcs.deepcopy()
    if registration.rotation != 0.0:
        turn = to_image @ _turn(np.radians(registration.rotation)) @ np.linalg.inv(to_image)
        _turn_wcs(wcs, turn, image.wcs.wcs_world2pix(*registration.centre, 1))
    wcs.wcs.crpix = np.array(wcs.wcs.crpix) + shift
    if wcs.sip is not None:
        wcs.sip = Sip(wcs.sip.a, wcs.sip.b, wcs.sip.ap, wcs.sip.bp, np.array(wcs.sip.crpix) + shift)
    wcs.wcs.set()
    return image.evolve(
        step(
            "shift_wcs",
            shift_x=float(shift[0]),
            shift_y=float(shift[1]),
            rotation=registration.rotation,
            east_arcsec=float(registration.offset[0]),
            north_arcsec=float(registration.offset[1]),
            error_arcsec=[float(value) for value in np.sqrt(np.diag(registration.offset_covariance))],
            correlation=registration.correlation,
        ),
        wcs=wcs,
    )


def _turn_wcs(wcs: WCS, turn: Float, centre: tuple[float, float]) -> None:
    """Turn the content of a WCS (a copy that may be changed) about a pixel position, counted from 1."""
    if wcs.sip is not None:
        raise InputError(
            "a rotation cannot be put into a WCS with SIP distortions",
            field="wcs",
            remedy='register with model="shift", or reproject the image first',
        )
    middle = np.array([float(value) for value in centre])
    wcs.wcs.crpix = middle + turn @ (np.array(wcs.wcs.crpix) - middle)
    if wcs.wcs.has_cd():
        wcs.wcs.cd = np.array(wcs.wcs.cd) @ np.linalg.inv(turn)
    else:
        # PC acts on pixels before CDELT scales them, as CD does.
        wcs.wcs.pc = np.array(wcs.wcs.get_pc()) @ np.linalg.inv(turn)


def _turn(angle: float) -> Float:
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine], [sine, cosine]])


def _centred(image: Image) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the data about their median in units of their scatter, 0 where masked, and where they are usable."""
    valid = image.valid
    values = image.data[valid].astype(np.float64)
    if values.size < FEWEST_PIXELS:
        raise InputError(
            f"only {values.size} usable pixels are left for a registration; {FEWEST_PIXELS} are needed",
            field="mask",
        )
    values -= np.median(values)
    plane = np.zeros(image.shape, np.float32)
    plane[valid] = values / max(float(values.std()), np.finfo(np.float64).tiny)
    return plane, valid.astype(np.float32)


def _coarse_shift(image: Image, reference: Image, reach: float, margin: int) -> tuple[Float, float]:
    """Return the whole-pixel shift (x, y) of the highest masked correlation within ``reach``, and its significance.

    Pixel (x, y) of the reference is (x + margin, y + margin) of the image.
    """
    first, first_valid = _centred(image)
    second, second_valid = _centred(reference)
    radius = min(int(np.ceil(reach)) + 1, min(reference.shape) - 1)
    shape = tuple(fft.next_fast_len(side + radius, real=True) for side in image.shape)
    lags = np.arange(-radius, radius + 1)
    forward = [fft.rfft2(plane, shape) for plane in (first, first_valid, first**2)]
    backward = [np.conj(fft.rfft2(plane, shape)) for plane in (second, second_valid, second**2)]

    def correlate(one: int, two: int) -> Float:
        full = fft.irfft2(forward[one] * backward[two], shape)
        return np.asarray(full[np.ix_(lags + margin, lags + margin)], dtype=np.float64)

    count = np.rint(correlate(1, 1))
    energy = np.maximum(correlate(2, 1), 0.0) * np.maximum(correlate(1, 2), 0.0)
    usable = (count >= max(FEWEST_PIXELS, 0.1 * count.max())) & (energy > 0.0)
    ratio = np.full(count.shape, -np.inf)
    np.divide(correlate(0, 0), np.sqrt(energy), out=ratio, where=usable)
    if not usable.any():
        raise InputError(
            "image and reference hardly overlap", field="wcs", remedy="choose images of the same sky"
        )
    row, column = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
    significance = float(ratio[row, column] * np.sqrt(count[row, column] / _correlated(image, reference)))
    if significance < SIGNIFICANCE:
        raise InputError(
            f"nothing common stands out: the correlation peaks at {ratio[row, column]:.3f}, {significance:.1f} times "
            f"the scatter of noise (needed: {SIGNIFICANCE:.0f})",
            remedy="choose images that show the same sources, or smooth them",
        )
    if max(abs(lags[row]), abs(lags[column])) >= radius:
        raise InputError(
            f"the correlation still rises at the edge of the search, {radius} pixels away",
            field="max_shift_arcsec",
            remedy="widen it, or check that both images show the same sky",
        )
    return np.array([lags[column], lags[row]], dtype=np.float64), significance


def _correlated(image: Image, reference: Image) -> float:
    """Sum of the product of both noise correlations: how many pixels of the two share one independent value."""
    if image.correlation is None or reference.correlation is None:
        return 1.0
    first, second = image.correlation, reference.correlation
    cut = min(first.shape[0], second.shape[0])
    inner = [
        rho[(rho.shape[0] - cut) // 2 :, (rho.shape[1] - cut) // 2 :][:cut, :cut] for rho in (first, second)
    ]
    return max(1.0, float(np.sum(inner[0] * inner[1])))


class _Solution(NamedTuple):
    """A settled fit: shift x, shift y and, where fitted, the angle in radians, with all that belongs to them."""

    place: Float
    covariance: Float
    amplitude: float
    chi_square: float
    correlation: float
    agreement: float
    n_pixels: int


class _Sample(NamedTuple):
    data: Float
    variance: Float
    valid: Mask


def _sample(image: Image, place: Float, shape: tuple[int, int], margin: int) -> _Sample:
    """Read the image where the content of the reference's pixels stands."""
    centre = np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2])
    turn = _turn(float(place[2])) if place.size > 2 else np.eye(2)
    chart = affine_map(turn, centre + place[:2] + margin - turn @ centre, shape)
    planes = resample_planes(image, chart, shape, "lanczos3", 1.0, per_pixel=False)
    return _Sample(planes.data.astype(np.float64), planes.variance.astype(np.float64), ~planes.mask)


def _instruments(reference: Image, with_rotation: bool) -> tuple[list[Float], Mask]:
    """Return the reference's gradients by the parameters, the reference and a constant, and where they are clean."""
    values = np.where(reference.mask, np.median(reference.data[reference.valid]), reference.data).astype(
        np.float64
    )
    options = {"sigma": GRADIENT_SIGMA, "truncate": GRADIENT_REACH, "mode": "nearest"}
    along_x = ndimage.gaussian_filter(values, order=(0, 1), **options)
    along_y = ndimage.gaussian_filter(values, order=(1, 0), **options)
    reach = int(GRADIENT_REACH * GRADIENT_SIGMA + 0.5)
    touched = ndimage.maximum_filter(
        reference.mask.astype(np.uint8), size=2 * reach + 1, mode="constant", cval=1
    )
    instruments = [along_x, along_y]
    if with_rotation:
        y, x = np.indices(reference.shape, dtype=np.float64)
        instruments.append((x - x.mean()) * along_y - (y - y.mean()) * along_x)
    return [*instruments, values, np.ones(reference.shape)], touched == 0


def _fit(image: Image, reference: Image, model: str, start: Float, margin: int) -> _Solution:
    """Solve for the shift (and rotation), the amplitude and the level."""
    with_rotation = model == "shift+rotation"
    instruments, clean = _instruments(reference, with_rotation)
    place = np.append(start, 0.0) if with_rotation else start.copy()
    steps = np.full(place.size, STEP)
    steps[2:] = STEP / (0.25 * max(reference.shape))
    amplitude, kept = 1.0, clean
    for iteration in range(30):
        here = _sample(image, place, reference.shape, margin)
        sides = [
            (
                _sample(image, place + offset, reference.shape, margin),
                _sample(image, place - offset, reference.shape, margin),
            )
            for offset in np.diag(steps)
        ]
        used = clean & here.valid
        for after, before in sides:
            used &= after.valid & before.valid
        if iteration > 2:
            # Masked pixels come and go with the sub-pixel shift, and the answer would swing between two sets.
            used &= kept
        kept = used
        if np.count_nonzero(used) < FEWEST_PIXELS:
            raise InputError("too few usable pixels are common to image and reference", field="mask")
        weight = 1.0 / (here.variance[used] + amplitude**2 * reference.variance[used])
        weighed = np.stack([plane[used] * weight for plane in instruments])
        slopes = [
            -(after.data[used] - before.data[used]) / (2.0 * size)
            for (after, before), size in zip(sides, steps, strict=True)
        ]
        light = reference.data[used].astype(np.float64)
        design = np.stack([*slopes, light, np.ones_like(light)])
        system = _system(weighed, design, reference.variance[used])
        solution = np.linalg.solve(system, weighed @ here.data[used])
        change, amplitude = solution[: place.size], float(solution[place.size])
        limited = change * min(1.0, 1.0 / max(1e-12, float(np.abs(change[:2]).max())))
        place = place + limited
        if np.abs(place[:2] - start).max() > 2.0 or amplitude <= 0.0:
            break
        scatter = np.sqrt(np.abs(np.diag(np.linalg.inv(system))))[: place.size]
        if iteration and np.all(np.abs(limited) < np.maximum(1e-5 * steps / STEP, SETTLED * scatter)):
            residual = here.data[used] - solution[-2] * light - solution[-1]
            return _judged(image, reference, place, (used, weighed, design, residual), amplitude, here)
    raise InputError(
        "the registration does not settle near the peak of the correlation",
        remedy="check that both images show the same structures with like PSFs",
    )


def _system(weighed: Float, design: Float, variance: NDArray[np.floating]) -> Float:
    """Normal matrix, freed of what the reference's noise adds where the reference is multiplied with itself.

    Left in, it would draw the amplitude towards 0 and leave sources in the residual.
    """
    system = weighed @ design.T
    weight = weighed[-1]  # the constant instrument
    system[-2, -2] -= float(np.sum(weight * variance))
    return np.asarray(system)


def _judged(
    image: Image,
    reference: Image,
    place: Float,
    fitted: tuple[Mask, Float, Float, Float],
    amplitude: float,
    here: _Sample,
) -> _Solution:
    """Attach covariance, chi square and correlation to a settled place."""
    used, weighed, design, residual = fitted
    phases = place[np.newaxis, :2] if place.size == 2 else None
    rho, gain = resample_correlation("lanczos3", np.eye(2), image.correlation, phases)
    scatter = gain * here.variance
    inner = _noise_form(weighed, used, scatter, rho)
    inner += amplitude**2 * _noise_form(weighed, used, reference.variance, reference.correlation)
    inverse = np.linalg.inv(_system(weighed, design, reference.variance[used]))
    total = scatter[used] + amplitude**2 * reference.variance[used]
    chi_square = float(np.mean(residual**2 / total))
    covariance = (inverse @ inner @ inverse.T) * max(1.0, chi_square)
    light = reference.data[used].astype(np.float64)
    correlation = float(np.corrcoef(here.data[used], light)[0, 1])
    shares = [
        max(1e-3, 1.0 - float(noise.mean()) / float(values.var()))
        for noise, values in ((scatter[used], here.data[used]), (reference.variance[used], light))
    ]
    agreement = min(1.0, correlation / float(np.sqrt(shares[0] * shares[1])))
    n = place.size
    return _Solution(
        place, covariance[:n, :n], amplitude, chi_square, correlation, agreement, int(np.count_nonzero(used))
    )


def _noise_form(weighed: Float, used: Mask, variance: NDArray[np.floating], rho: Float | None) -> Float:
    """Covariance of the sums ``weighed @ noise`` for noise of a variance plane and a correlation."""
    spread = weighed * np.sqrt(variance[used].astype(np.float64))
    if rho is None:
        return np.asarray(spread @ spread.T)
    smeared = np.empty_like(spread)
    shape = tuple(fft.next_fast_len(side + rho.shape[0] - 1, real=True) for side in used.shape)
    kernel = fft.rfft2(rho, shape)
    radius = rho.shape[0] // 2
    for row, values in zip(smeared, spread, strict=True):
        plane = np.zeros(used.shape)
        plane[used] = values
        full = fft.irfft2(fft.rfft2(plane, shape) * kernel, shape)
        row[:] = full[radius : radius + used.shape[0], radius : radius + used.shape[1]][used]
    form = smeared @ spread.T
    return np.asarray(0.5 * (form + form.T))


def _registration(solution: _Solution, reference: Image, significance: float) -> Registration:
    """Judge a solution and express it on the sky."""
    errors = np.sqrt(np.diag(solution.covariance)[:2])
    if solution.agreement < AGREEMENT or not errors.max() < 0.5:
        raise InputError(
            f"the structures of image and reference do not agree: correlation {solution.correlation:.3f} "
            f"({solution.agreement:.2f} with the noise allowed for, needed {AGREEMENT}), errors of the shift "
            f"{errors[0]:.2f}, {errors[1]:.2f} pixels",
            remedy="register images of neighbouring bands with matched PSFs",
        )
    covariance = solution.covariance.copy()
    covariance[[0, 1], [0, 1]] += INTERPOLATION_ERROR**2
    covariance[2:] = np.degrees(covariance[2:])
    covariance[:, 2:] = np.degrees(covariance[:, 2:])
    matrix = reference.pixel_matrix
    ny, nx = reference.shape
    rotation = float(np.degrees(solution.place[2])) if solution.place.size > 2 else 0.0
    return Registration(
        float(solution.place[0]),
        float(solution.place[1]),
        rotation,
        covariance,
        matrix @ solution.place[:2],
        matrix @ covariance[:2, :2] @ matrix.T,
        solution.correlation,
        solution.agreement,
        significance,
        solution.amplitude,
        solution.chi_square,
        solution.n_pixels,
        matrix,
        np.array(celestial(reference.wcs).all_pix2world((nx - 1) / 2, (ny - 1) / 2, 0), dtype=np.float64),
    )
