"""The light of an image that falls into the fibre of a spectrograph, and the seeing of an image from its stars."""

from __future__ import annotations

from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import QTable
from astropy.wcs import WCS, Sip
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from skyloom.core.geometry import celestial, local_matrix
from skyloom.core.image import Image
from skyloom.core.psf import FWHM_PER_SIGMA, PSF, GaussianPSF, MoffatPSF
from skyloom.core.units import sum_unit
from skyloom.errors import InputError, ShapeError
from skyloom.imaging.measure.regions import sum_apertures
from skyloom.imaging.psfs.convolve import match_psf
from skyloom.imaging.psfs.matching import MatchingKernel, matching_kernel
from skyloom.imaging.psfs.psf import PsfMeasurement, measure_psf
from skyloom.imaging.stars.detection import find_point_sources

__all__ = ["fibre_flux", "measure_seeing"]

Float = NDArray[np.float64]
OBLONG = 1.02  # A circle on the sky is one on the pixels up to this ratio of their sides.
PIXELS_IN_APERTURE = (
    1 / 6
)  # Variance, in pixel areas, that two pixels add: the detector's, and those that are cut.
STEPS = (
    0.88,
    1.0,
    1.14,
)  # About the width of peaks: a PSF that is a tenth too wide hides what is a point source.
WINGS = 3.5  # Exponent of a Moffat that is near enough for any seeing.
ENOUGH_STARS = 3
SMALLEST_WINDOW = 13  # pixels, for the fit of a star


def fibre_flux(
    image: Image,
    position: SkyCoord | ArrayLike,
    diameter: float | u.Quantity | ArrayLike,
    *,
    seeing: float | u.Quantity | PSF | None = None,
) -> QTable:
    """Measure the light of an image within fibres.

    Parameters
    ----------
    image : Image
        With a WCS; with its PSF where a seeing is asked for (`measure_seeing`).
    position : SkyCoord or (2,) or (n, 2) array
        Centres of the fibres; arrays are (ra, dec) in degrees, in the frame of the image.
    diameter : float or Quantity, or (n,) of them
        Of the fibres, in arcsec: the whole width, so that the area is pi (d / 2)^2. 3 arcsec for SDSS, 2 for BOSS.
    seeing : float, Quantity or PSF, optional
        To which the image is smoothed first. A number is a FWHM in arcsec: the image is convolved with a Gaussian whose
        variance is the difference of those of that FWHM and of the image's, so the wings of the PSF stay what they
        are, less what pixels smear in an aperture (1/6 of their area; not where the image would have to be sharper than
        it is). A PSF is matched (`skyloom.imaging.match_psf`). None: as observed.

    Returns
    -------
    QTable
        One row per fibre: ``ra``, ``dec``, ``x``, ``y`` (pixels), ``diameter``, ``area`` that was added (arcsec2),
        ``covered``: that over the area of the fibre; ``flux`` and ``flux_err`` in the unit of the image (of its
        sum), with the correlation of the noise, that of the smoothing included; ``seeing``, the FWHM reached (NaN when
        not known). A fibre off the image has a flux of NaN; one that is partly covered has the flux of that part.

    Raises
    ------
    InputError
        When a diameter is not > 0, the image has no WCS, pixels that are not square, or no PSF although a seeing is
        asked for, or the seeing is sharper than the image.
    ShapeError
        When positions and diameters differ in number.

    Notes
    -----
    The overlap of circle and pixels is exact (`skyloom.core.apertures.circle_overlap`), and the radius in pixels is
    that of the scale at the fibre.
    """
    sky = celestial(image.wcs, "the light in a fibre")
    ra, dec, x, y = _places(sky, position)
    widths = _diameters(diameter, x.size)
    kernel = None if seeing is None else _kernel(image, seeing)
    reached = _reached(image, kernel, seeing)
    margin = 1 if kernel is None else max(kernel.kernel.shape) // 2 + 2
    rows = np.full((x.size, 4), np.nan)
    for row, place in enumerate(zip(x, y, widths, strict=True)):
        rows[row] = _fibre(image, sky, kernel, margin, *place)
    table = QTable({"ra": ra * u.deg, "dec": dec * u.deg, "x": x, "y": y})
    table["diameter"] = widths * u.arcsec
    table["area"] = rows[:, 0] * u.arcsec**2
    table["covered"] = rows[:, 1]
    unit = sum_unit(image.unit)
    table["flux"], table["flux_err"] = rows[:, 2] * unit, rows[:, 3] * unit
    table["seeing"] = np.full(x.size, reached) * u.arcsec
    return table


def measure_seeing(
    image: Image, *, guess: float | None = None, most: int = 30, significance: float = 100.0, **options: Any
) -> PsfMeasurement:
    """Measure the PSF of an image from the stars that are found in it.

    Parameters
    ----------
    image : Image
        With a WCS.
    guess : float, optional
        FWHM in arcsec to look for stars with; by default the image's PSF, or else the commonest width of the
        brightest peaks, of which stars are the most alike.
    most : int
        How many stars are used, the brightest first.
    significance : float
        Least significance of a star.
    **options
        For `skyloom.imaging.measure_psf`; its ``model`` is "moffat" by default.

    Returns
    -------
    PsfMeasurement
        ``psf``, which ``image.evolve(psf=...)`` gives to the image: its ``fwhm`` is the seeing. That of Gaussian fits
        to each star, ``fwhm`` with its error, is some per cent larger where the PSF has wings.

    Raises
    ------
    InputError
        When fewer than three stars are found.
    """
    if guess is None and image.psf is not None:
        trials: list[PSF] = [image.psf]
    else:
        width = _width_of_peaks(image, significance) if guess is None else guess
        trials = [MoffatPSF(width * part, beta=WINGS) for part in STEPS]
    found = [find_point_sources(image.evolve_checked(psf=psf), significance=significance) for psf in trials]
    x, y, flux = max(found, key=lambda stars: stars[0].size)
    half = SMALLEST_WINDOW // 2 + 1
    inside = (np.minimum(x, y) > half) & (x < image.shape[1] - 1 - half) & (y < image.shape[0] - 1 - half)
    order = np.flatnonzero(inside)[np.argsort(-flux[inside])][:most]
    if order.size < ENOUGH_STARS:
        raise InputError(
            f"{order.size} stars of {significance:g} sigma were found; at least {ENOUGH_STARS} tell the seeing",
            source=image.meta.get("path"),
            field="image",
            remedy="pass guess= near the seeing, a lower significance, or give the image its PSF",
        )
    settings = {"model": "moffat", **options}
    return measure_psf(image, positions=np.stack([x[order], y[order]], axis=1), **settings)


def _width_of_peaks(image: Image, significance: float) -> float:
    """FWHM in arcsec of peaks by the bend of the logarithm at the top; the mode of half samples."""
    level = float(np.median(image.data[image.valid])) if image.valid.any() else 0.0
    data = np.where(image.mask, -np.inf, image.data - level)
    top = (data == ndimage.maximum_filter(data, 5)) & image.valid
    top[[0, -1]] = top[:, [0, -1]] = False
    rows, columns = np.nonzero(top)
    # A point source of that significance stands out by at least a fifth of it in its highest pixel.
    bright = data[rows, columns] > 0.2 * significance * np.sqrt(image.variance[rows, columns])
    rows, columns = rows[bright], columns[bright]
    cross = [data[rows + i, columns + j] for i, j in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))]
    usable = np.min(cross, axis=0, initial=np.inf) > 0
    middle, *sides = (np.log(part[usable]) for part in cross)
    bend = 4.0 * middle - sum(sides)
    widths = np.sort(FWHM_PER_SIGMA * np.sqrt(2.0 / bend[bend > 0])) * image.pixel_scale
    if widths.size < ENOUGH_STARS:
        raise InputError(
            f"{widths.size} peaks of {significance:g} sigma were found; at least {ENOUGH_STARS} tell the seeing",
            source=image.meta.get("path"),
            field="image",
            remedy="pass guess= near the seeing, a lower significance, or give the image its PSF",
        )
    while widths.size > ENOUGH_STARS:
        half = (widths.size + 1) // 2
        start = int(np.argmin(np.log(widths[half - 1 :] / widths[: widths.size - half + 1])))
        widths = widths[start : start + half]
    return float(np.median(widths))


def _places(sky: WCS, position: SkyCoord | ArrayLike) -> tuple[Float, Float, Float, Float]:
    if not isinstance(position, SkyCoord):
        degrees = np.atleast_2d(np.asarray(position, dtype=np.float64))
        if degrees.ndim != 2 or degrees.shape[1] != 2:
            raise ShapeError(
                f"the position has shape {np.shape(position)}; expected (ra, dec) or (n, 2)", field="position"
            )
        ra, dec = degrees.T
        x, y = sky.all_world2pix(ra, dec, 0, quiet=True)
        return ra, dec, np.asarray(x), np.asarray(y)
    coordinates = position.ravel() if position.shape else position.reshape(1)
    x, y = sky.world_to_pixel(coordinates)
    return coordinates.icrs.ra.deg, coordinates.icrs.dec.deg, np.asarray(x), np.asarray(y)


def _diameters(diameter: float | u.Quantity | ArrayLike, number: int) -> Float:
    value = diameter.to_value(u.arcsec) if isinstance(diameter, u.Quantity) else diameter
    widths = np.atleast_1d(np.asarray(value, dtype=np.float64))
    if widths.ndim != 1 or widths.size not in (1, number):
        raise ShapeError(f"{widths.size} diameters for {number} positions", field="diameter")
    if not (np.all(widths > 0) and np.all(np.isfinite(widths))):
        raise InputError(f"a diameter is {widths.min()} arcsec; expected > 0", field="diameter")
    return np.array(np.broadcast_to(widths, (number,)))


def _kernel(image: Image, seeing: float | u.Quantity | PSF) -> MatchingKernel:
    if image.psf is None:
        raise InputError(
            "the image has no PSF to start from",
            source=image.meta.get("path"),
            field="psf",
            remedy="measure it: image.evolve(psf=measure_seeing(image).psf)",
        )
    if isinstance(seeing, PSF):
        return matching_kernel(image.psf, seeing, image.pixel_matrix)
    # The difference of two Gaussians broadens the core as asked and leaves wings alone: no deconvolution.
    source = image.psf if isinstance(image.psf, GaussianPSF) else GaussianPSF(image.psf.fwhm)
    target = GaussianPSF(seeing)
    sharper = target.covariance - PIXELS_IN_APERTURE * image.pixel_area * np.eye(2)
    if np.linalg.eigvalsh(sharper - source.covariance)[0] > 0:
        target = GaussianPSF.from_covariance(sharper)
    return matching_kernel(source, target, image.pixel_matrix)


def _reached(image: Image, kernel: MatchingKernel | None, seeing: float | u.Quantity | PSF | None) -> float:
    if kernel is None or seeing is None:
        return np.nan if image.psf is None else image.psf.fwhm
    return seeing.fwhm if isinstance(seeing, PSF) else GaussianPSF(seeing).fwhm


def _fibre(
    image: Image, sky: WCS, kernel: MatchingKernel | None, margin: int, x: float, y: float, diameter: float
) -> tuple[float, float, float, float]:
    """Area in arcsec2, its share of the fibre, flux and error of one fibre."""
    nothing = 0.0, 0.0, np.nan, np.nan
    if not (np.isfinite(x) and np.isfinite(y)):
        return nothing
    matrix = local_matrix(sky, x, y)
    sides = np.linalg.svd(matrix, compute_uv=False)
    if sides[0] > OBLONG * sides[1]:
        raise InputError(
            f"pixels are {sides[0]:.4f} x {sides[1]:.4f} arcsec; a fibre is a circle on square ones only",
            source=image.meta.get("path"),
            field="wcs",
            remedy="reproject the image onto square pixels",
        )
    pixel = float(abs(np.linalg.det(matrix)))
    radius = 0.5 * diameter / np.sqrt(pixel)
    reach = int(np.ceil(radius)) + margin
    ny, nx = image.shape
    rows = slice(max(0, round(y) - reach), max(0, min(ny, round(y) + reach + 1)))
    columns = slice(max(0, round(x) - reach), max(0, min(nx, round(x) + reach + 1)))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return nothing
    stamp = _window(image, rows, columns)
    if stamp.mask.all():
        return nothing
    if kernel is not None:
        stamp = match_psf(stamp, kernel.psf, kernel=kernel)
    found = sum_apertures(stamp, x - columns.start, y - rows.start, radius)[0]
    area = float(found["area"]) * pixel
    share = area / (np.pi * (0.5 * diameter) ** 2)
    return area, share, float(found["flux"].value), float(found["flux_err"].value)


def _window(image: Image, rows: slice, columns: slice) -> Image:
    """Cut out a window of an image with all that belongs to it."""
    box = rows, columns
    wcs = celestial(image.wcs).deepcopy()
    corner = [columns.start, rows.start]
    wcs.wcs.crpix = np.array(wcs.wcs.crpix) - corner
    if wcs.sip is not None:
        wcs.sip = Sip(wcs.sip.a, wcs.sip.b, wcs.sip.ap, wcs.sip.bp, np.array(wcs.sip.crpix) - corner)
    wcs.wcs.set()
    modes = tuple(
        mode._replace(map=mode.map[box]) if isinstance(mode.map, np.ndarray) and mode.map.ndim else mode
        for mode in image.modes
    )
    return image.evolve(
        data=image.data[box],
        variance=image.variance[box],
        mask=image.mask[box],
        flags=None if image.flags is None else image.flags[box],
        modes=modes,
        wcs=wcs,
    )
