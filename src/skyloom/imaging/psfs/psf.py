"""The PSF of an image from its stars: Gaussian, Moffat or sampled, outliers rejected by name, with uncertainties."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import QTable
from numpy.typing import ArrayLike, NDArray

from skyloom.core.image import Image
from skyloom.core.psf import PSF, GaussianPSF, MoffatPSF, SampledPSF
from skyloom.errors import AssumptionWarning, InputError, ShapeError
from skyloom.imaging.psfs.profile_fits import ProfileFits, fit_profiles
from skyloom.imaging.psfs.star_stack import (
    StarStack,
    combine,
    curves_of_growth,
    radius_grid,
    rescale,
    stack_stars,
)

__all__ = ["PsfMeasurement", "measure_psf"]

Array = NDArray[Any]
Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
MODELS = ("sampled", "gaussian", "moffat")
# Share of the light by which a star may leave the others, for 2, 3, and more others: few agree by chance.
TOLERATED = {2: 0.05, 3: 0.03}
TOLERATED_MANY = 0.02
TOLERATED_ELLIPTICITY = 0.2
BROADENED = 0.06  # Deficit of central light beyond which a bright star's core counts as broadened.
LEAST_SNR = 10.0


@dataclass(frozen=True, eq=False)
class PsfMeasurement:
    """A PSF and the stars it came from.

    Parameters
    ----------
    psf : PSF
        The PSF, on the sky.
    model : {"sampled", "gaussian", "moffat"}
    names : tuple of str
        The n stars, in the order given.
    reasons : tuple of str
        Why a star was rejected, or used for its wings only; empty for those used in full.
    used, core_used : (n,) bool arrays
        Stars that entered the PSF; those of them whose cores did.
    fwhm, fwhm_error : float
        Full width at half maximum of Gaussian fits to the cores (pixels taken out), mean over the stars and its
        error from their scatter, in arcsec; the error is NaN with a single star.
    radii : (m,) array
        arcsec.
    curve, curve_scatter : (m,) arrays
        Fraction of the light within ``radii`` of that within ``radius_norm``: mean over the used stars, and the
        standard deviation between them (NaN with a single star).
    curves : (n, m) array
        The same for every star; holes and excluded cores are filled with the mean star.
    radius_norm : float
        arcsec.
    columns : dict
        Columns of `stars`.
    """

    psf: PSF
    model: str
    names: tuple[str, ...]
    reasons: tuple[str, ...]
    used: Bool
    core_used: Bool
    fwhm: float
    fwhm_error: float
    radii: Float
    curve: Float
    curve_scatter: Float
    curves: Float
    radius_norm: float
    columns: dict[str, Any] = field(repr=False)

    @property
    def rejected(self) -> tuple[str, ...]:
        """Names of the stars that were not used."""
        return tuple(name for name, used in zip(self.names, self.used, strict=True) if not used)

    @property
    def stars(self) -> QTable:
        """One row per star: name, x, y, flux, snr, sky, fwhm, axis_ratio, position_angle, deviation, used, reason."""
        return QTable(
            {
                "name": list(self.names),
                **self.columns,
                "used": self.used,
                "core_used": self.core_used,
                "reason": list(self.reasons),
            }
        )


def measure_psf(
    stars: Image | Sequence[Image],
    *,
    positions: ArrayLike | SkyCoord | None = None,
    names: Sequence[str] | None = None,
    model: str = "sampled",
    size: int | None = None,
    clip: float = 4.0,
    saturation: float | None = None,
    exclude: Sequence[str] = (),
    matrix: ArrayLike | None = None,
) -> PsfMeasurement:
    """Measure the PSF from stars.

    Parameters
    ----------
    stars : Image or sequence of Image
        Cut-outs with a star near the middle, or one image with ``positions``. All on pixels of the same size.
    positions : (n, 2) array or SkyCoord, optional
        Pixel coordinates (x, y; 0 is the centre of the first pixel) of the stars in a single image, good to 3 pixels.
    names : sequence of str, optional
        By default "1", "2", ...
    model : {"sampled", "gaussian", "moffat"}
        "sampled": the mean of the stars, registered to a fraction of a pixel; the others are fitted to that mean.
    size : int, optional
        Side of the sampled PSF, odd; by default the largest that fits into the cut-outs, at most 25 FWHM.
    clip : float
        A star is rejected when its curve of growth leaves the median of the other stars by more than ``clip`` times
        their scatter and by more than 2 % of the light, at any radius.
    saturation : float, optional
        Level, in the unit of the images, from which on pixels are not believed. Such cores, and those flagged
        ``NEAR_SATURATED`` or masked, are left out; the star's wings are used.
    exclude : sequence of str
        Names of stars to leave out from the start, for instance those rejected in another band.
    matrix : (2, 2) array, optional
        Pixel offset (x, y) to sky offset (east, north), arcsec per pixel; by default from the WCS.

    Returns
    -------
    PsfMeasurement

    Raises
    ------
    InputError
        When there are no stars, none is usable, or their pixels differ in size.

    Warns
    -----
    AssumptionWarning
        When one star is left, which gives no uncertainty, or two that disagree, of which neither can be blamed.

    Notes
    -----
    Bright stars whose cores are broader than those of two or more fainter, agreeing stars are taken as saturated or
    bled and used for their wings only: charge that spills over into the next pixels leaves the sum intact and no flag.
    """
    images, places, labels = _gather(stars, positions, names)
    if model not in MODELS:
        raise InputError(f"model is {model!r}; expected one of {', '.join(MODELS)}", field="model")
    if size is not None and (size < 9 or size % 2 == 0):
        raise ShapeError(f"size is {size}; expected an odd number of at least 9 pixels", field="size")
    pixels = _common_matrix(images, matrix)
    stack = stack_stars(images, places, size, saturation, images[0].correlation)
    reasons = _unusable(stack, labels, exclude)
    if all(reasons):
        raise InputError(
            "none of the stars is usable: "
            + "; ".join(f"{n}: {r}" for n, r in zip(labels, reasons, strict=True)),
            field="stars",
        )
    core_radius = 1.3 * stack.width
    core_used = _trusted_cores(stack, reasons, core_radius)
    radii, curves, deviation = _reject(stack, reasons, clip, images[0].correlation)
    used = np.array([not reason for reason in reasons])
    for index in np.nonzero(used & ~core_used)[0]:
        reasons[index] = _core_reason(bool(stack.saturated[index]))
    core_used &= used
    _warn_few(int(used.sum()), deviation[used], labels, used)
    array = combine(stack, used, core_used if core_used.any() else used, core_radius)
    scale = float(np.sqrt(abs(np.linalg.det(pixels))))
    chosen = core_used if core_used.any() else used
    fwhm, fwhm_error = _mean_and_error(stack.fits.fwhm[chosen] * scale)
    few = np.count_nonzero(used) < 2
    return PsfMeasurement(
        psf=_fitted_psf(array, model, pixels, stack.width),
        model=model,
        names=tuple(labels),
        reasons=tuple(reasons),
        used=used,
        core_used=core_used,
        fwhm=fwhm,
        fwhm_error=fwhm_error,
        radii=radii * scale,
        curve=curves[used].mean(axis=0),
        curve_scatter=np.full(radii.size, np.nan) if few else curves[used].std(axis=0, ddof=1),
        curves=curves,
        radius_norm=stack.radius_norm * scale,
        columns=_columns(stack, pixels, deviation, images[0].unit),
    )


# --- input -----------------------------------------------------------------------------------------------


def _gather(
    stars: Image | Sequence[Image], positions: ArrayLike | SkyCoord | None, names: Sequence[str] | None
) -> tuple[list[Image], Float | None, list[str]]:
    """Return one image per star, the positions in it, and the names."""
    places: Float | None = None
    if isinstance(stars, Image):
        if positions is None:
            images = [stars]
        else:
            if isinstance(positions, SkyCoord):
                if stars.wcs is None:
                    raise InputError("sky positions need an image with a WCS", field="positions")
                positions = np.transpose(np.atleast_2d(stars.wcs.celestial.world_to_pixel(positions)))
            places = np.asarray(positions, dtype=np.float64).reshape(-1, 2)
            inside = np.all((places > 0) & (places < np.array(stars.shape[::-1]) - 1), axis=1)
            if not inside.all():
                raise InputError(
                    f"position {places[~inside][0].tolist()} lies outside the image of shape {stars.shape}",
                    field="positions",
                )
            images = [stars] * len(places)
    else:
        images = list(stars)
        if positions is not None:
            raise InputError(
                "positions belong to a single image, not to a list of cut-outs", field="positions"
            )
    if not images:
        raise InputError(
            "the list of stars is empty", field="stars", remedy="give cut-outs or positions of stars"
        )
    labels = [str(name) for name in names] if names is not None else [str(i + 1) for i in range(len(images))]
    if len(labels) != len(images):
        raise ShapeError(f"{len(labels)} names for {len(images)} stars", field="names")
    small = [label for label, image in zip(labels, images, strict=True) if min(image.shape) < 13]
    if small:
        raise ShapeError(f"the cut-out of star {small[0]} is smaller than 13 pixels", field="stars")
    return images, places, labels


def _common_matrix(images: list[Image], matrix: ArrayLike | None) -> Float:
    if matrix is not None:
        return np.asarray(matrix, dtype=np.float64)
    first = images[0].pixel_matrix
    scale = np.sqrt(abs(np.linalg.det(first)))
    for image in images[1:]:
        if image is not images[0] and np.abs(image.pixel_matrix - first).max() > 1e-3 * scale:
            raise InputError(
                f"the stars have pixels of unlike size or orientation: {first.round(5).tolist()} and "
                f"{image.pixel_matrix.round(5).tolist()} arcsec",
                field="stars",
            )
    return first


# --- which stars to believe ------------------------------------------------------------------------------


def _unusable(stack: StarStack, labels: list[str], exclude: Sequence[str]) -> list[str]:
    """Return a reason for each star that cannot be used at all, an empty string for the others."""
    unknown = sorted(set(map(str, exclude)) - set(labels))
    if unknown:
        raise InputError(
            f"exclude names {unknown[0]!r}, which is not among the stars {labels}", field="exclude"
        )
    snr = _signal_to_noise(stack)
    reasons = []
    for index, label in enumerate(labels):
        if label in set(map(str, exclude)):
            reasons.append("excluded by the caller")
        elif not stack.flux[index] > 0:
            reasons.append("no flux above the sky")
        elif not snr[index] >= LEAST_SNR:
            reasons.append(f"signal to noise {snr[index]:.1f}, below {LEAST_SNR:g}")
        elif not stack.fits.converged[index]:
            reasons.append("no profile could be fitted")
        else:
            reasons.append("")
    return reasons


def _signal_to_noise(stack: StarStack) -> Float:
    """Flux over the noise of an aperture of 1.5 FWHM radius."""
    area = np.pi * (1.5 * stack.width) ** 2
    return np.asarray(stack.flux / (stack.noise * np.sqrt(area)))


def _trusted_cores(stack: StarStack, reasons: list[str], core_radius: float) -> Bool:
    """Find stars whose cores are saturated or broadened, leave those pixels out and scale all stars anew."""
    inner = curves_of_growth(stack, np.array([0.5 * stack.width, core_radius, 1.5 * core_radius]))
    concentration, outer = inner[:, 0] / inner[:, 1], inner[:, 2]
    usable = np.array([not reason for reason in reasons])
    trusted = usable & ~stack.saturated
    for index in np.argsort(stack.flux):
        fainter = trusted & (stack.flux < stack.flux[index])
        if not trusted[index] or np.count_nonzero(fainter) < 2:
            continue
        reference = concentration[fainter]
        centre = float(np.median(reference))
        limit = max(BROADENED, 3.0 * float(np.std(reference, ddof=1)) / centre)
        broader = concentration[index] < (1.0 - limit) * centre
        # Spilled charge stays within the core; light that is missing farther out as well belongs to a galaxy.
        same_total = abs(outer[index] - float(np.median(outer[fainter]))) < TOLERATED_MANY
        trusted[index] = not (broader and same_total)
    untrusted = usable & ~trusted
    if untrusted.any() and trusted.any():
        inside = radius_grid(stack.side) <= core_radius
        stack.valid[untrusted] &= ~inside
        rescale(stack)
        return trusted
    return usable


def _core_reason(saturated: bool) -> str:
    return (
        "wings only: core saturated" if saturated else "wings only: core broader than those of fainter stars"
    )


def _reject(
    stack: StarStack, reasons: list[str], clip: float, correlation: Float | None
) -> tuple[Float, Float, Float]:
    """Reject outliers one by one; return radii (pixels), curves of growth and the largest deviation of each star.

    Each star is judged against the others only, so that an outlier does not hide in the scatter that it makes; the
    worst goes, the rest are judged again. Of two stars neither can be called the outlier.
    """
    radii = _curve_radii(stack)
    curves = curves_of_growth(stack, radii)
    errors = _curve_errors(stack, radii, curves, correlation)
    shapes = _ellipticities(stack.fits)
    n = len(reasons)
    deviation = np.full(n, np.nan)
    while True:
        used = np.array([not reason for reason in reasons])
        scores = np.zeros(n)
        verdicts = [""] * n
        for index in range(n):
            others = used.copy()
            others[index] = False
            if np.count_nonzero(others) < 2:
                continue
            scores[index], deviation[index], verdicts[index] = _judge(
                index, others, radii, curves, errors, shapes, clip
            )
        candidates = np.where(used, scores, 0.0)
        worst = int(np.argmax(candidates))
        if candidates[worst] <= 1.0:
            if np.count_nonzero(used) == 2:
                first, second = np.nonzero(used)[0]
                deviation[used] = np.abs(curves[first] - curves[second]).max()
            return radii, curves, deviation
        reasons[worst] = verdicts[worst]
        rescale(stack, np.array([not reason for reason in reasons]))
        curves = curves_of_growth(stack, radii)


def _judge(
    index: int, others: Bool, radii: Float, curves: Float, errors: Float, shapes: Float, clip: float
) -> tuple[float, float, str]:
    """Return score (> 1: outlier), deviation of the curve of growth, and the reason in words."""
    count = int(np.count_nonzero(others))
    enlarge = clip * np.sqrt(1.0 + 1.0 / count)
    typical = _middle(curves[others])
    scatter = np.sqrt(np.sum((curves[others] - typical) ** 2, axis=0) / (count - 1))
    difference = curves[index] - typical
    natural = np.maximum(enlarge * scatter, TOLERATED.get(count, TOLERATED_MANY))
    score = np.abs(difference) / np.hypot(natural, clip * errors[index])
    at = int(np.argmax(score))
    words = f"light within {radii[at]:.2g} px differs by {100 * difference[at]:+.1f} % from that of the other stars"
    middle = _middle(shapes[others])
    spread = np.sqrt(np.sum((shapes[others] - middle) ** 2) / (2 * count - 2))
    departure = float(np.hypot(*(shapes[index] - middle)))
    ellipticity = departure / max(enlarge * spread, TOLERATED_ELLIPTICITY)
    worst = float(np.abs(difference).max())
    if ellipticity > score[at]:
        return ellipticity, worst, f"ellipticity differs by {departure:.2f} from that of the other stars"
    return float(score[at]), worst, words


def _middle(rows: Float) -> Float:
    """Median along the first axis (`numpy.median` takes longer than all the rest on so few numbers)."""
    ordered = np.sort(rows, axis=0)
    return 0.5 * (ordered[(len(rows) - 1) // 2] + ordered[len(rows) // 2])


def _curve_radii(stack: StarStack) -> Float:
    """Radii in pixels, from one pixel on, in half pixels, then in steps of 15 %, up to the normalisation."""
    near = np.arange(2, 13) / 2.0
    far = 6.0 * 1.15 ** np.arange(1, 20)
    radii = np.concatenate([near, np.rint(2.0 * far) / 2.0])
    return np.unique(radii[radii < 0.95 * stack.radius_norm])


def _curve_errors(stack: StarStack, radii: Float, curves: Float, correlation: Float | None) -> Float:
    """Errors of the curves of growth from the noise of the pixels and of the sky level."""
    area, whole = np.pi * radii**2, np.pi * stack.radius_norm**2
    spread = 1.0 if correlation is None else float(np.maximum(correlation.sum(), 1.0))
    pixel = (stack.noise / stack.flux)[:, np.newaxis]
    level = np.nan_to_num(stack.sky_error / stack.flux)[:, np.newaxis]
    # F(r) / F(R): pixels within r count 1 - c, those between r and R count c.
    noise = spread * pixel**2 * ((1.0 - curves) ** 2 * area + curves**2 * (whole - area))
    return np.sqrt(noise + (level * (area - curves * whole)) ** 2)


def _ellipticities(fits: ProfileFits) -> Float:
    """Return (n, 2) ellipticity components of the Gaussian fits, (xx - yy, 2 xy) / (xx + yy)."""
    covariance = fits.pixel_covariance()
    total = covariance[:, 0, 0] + covariance[:, 1, 1]
    components = covariance[:, 0, 0] - covariance[:, 1, 1], 2.0 * covariance[:, 0, 1]
    return np.stack(components, axis=1) / total[:, np.newaxis]


def _warn_few(count: int, deviation: Float, labels: list[str], used: Bool) -> None:
    kept = [label for label, use in zip(labels, used, strict=True) if use]
    if count == 1:
        warnings.warn(
            f"the PSF comes from a single star ({kept[0]}): its uncertainty is unknown",
            AssumptionWarning,
            stacklevel=3,
        )
    elif count == 2 and deviation.max() > TOLERATED[2]:
        warnings.warn(
            f"stars {kept[0]} and {kept[1]} differ by {100 * deviation.max():.1f} % of the light; with two stars "
            "neither can be called the outlier",
            AssumptionWarning,
            stacklevel=3,
        )


# --- result ----------------------------------------------------------------------------------------------


def _mean_and_error(values: Float) -> tuple[float, float]:
    error = float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else float("nan")
    return float(values.mean()), error


def _fitted_psf(array: Float, model: str, matrix: Float, width: float) -> PSF:
    """Return the sampled PSF, or the profile fitted to it."""
    if model == "sampled":
        return SampledPSF(array, matrix)
    half = int(np.clip(round((1.1 if model == "gaussian" else 3.0) * width) + 1, 3, array.shape[0] // 2))
    centre = array.shape[0] // 2
    window = array[centre - half : centre + half + 1, centre - half : centre + half + 1][np.newaxis]
    fit = fit_profiles(window, np.ones_like(window), np.ones(window.shape, bool), profile=model)
    on_sky = GaussianPSF.from_covariance(matrix @ fit.pixel_covariance()[0] @ matrix.T)
    if model == "gaussian":
        return on_sky
    return MoffatPSF(on_sky.fwhm, float(fit.beta[0]), on_sky.axis_ratio, on_sky.position_angle)


def _columns(stack: StarStack, matrix: Float, deviation: Float, unit: u.UnitBase) -> dict[str, Any]:
    scale = float(np.sqrt(abs(np.linalg.det(matrix))))
    fits = stack.fits
    covariance = matrix @ fits.pixel_covariance() @ matrix.T
    values, vectors = np.linalg.eigh(covariance)
    return {
        "x": stack.x,
        "y": stack.y,
        "x_err": fits.x_error,
        "y_err": fits.y_error,
        "flux": stack.flux * unit,
        "snr": _signal_to_noise(stack),
        "sky": stack.sky * unit,
        "sky_err": stack.sky_error * unit,
        "fwhm": fits.fwhm * scale * u.arcsec,
        "fwhm_err": fits.fwhm_error * scale * u.arcsec,
        "axis_ratio": np.sqrt(values[:, 0] / values[:, 1]),
        "position_angle": np.degrees(np.arctan2(vectors[:, 0, 1], vectors[:, 1, 1])) % 180.0 * u.deg,
        "deviation": deviation,
    }
