"""Frames of the Sloan Digital Sky Survey with known truth, as its drifting camera takes them.

Frames are made as the camera makes them: the sky and the sources become electrons, electrons become whole data
numbers, and those are calibrated with the sky taken off again. The AB system is exact here: one nanomaggy is
3.631e-6 Jy in every band, without the few hundredths of a magnitude by which the survey's u and z are off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import astropy.units as u
import numpy as np
from astropy.wcs import WCS, Sip
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import map_coordinates

from skyloom.core.image import Image
from skyloom.core.provenance import step
from skyloom.core.psf import PSF, GaussianPSF
from skyloom.errors import InputError
from skyloom.io.sdss.ccd import ccd
from skyloom.mock.hubble.noise import correlated_noise, kernel_correlation
from skyloom.mock.scenes.images import object_images
from skyloom.mock.sdss.field import FIELD_CENTRE, NANOMAGGY, PIXEL, SdssField, sdss_bandpass

__all__ = [
    "EPOCHS",
    "EXPOSURE",
    "ROW_CLOCK",
    "Camera",
    "Epoch",
    "FrameObservation",
    "camera_of",
    "frame_wcs",
    "interpolate_sky",
    "noise_kernel",
    "observe_frame",
]

Float = NDArray[np.float64]
EXPOSURE = 53.907456
"""Exposure time of every row of a drift scan, s."""
ROW_CLOCK = 26322
"""Time from row to row, microseconds."""
DAY = 86400.0
# Pixels per sample of the sky that comes with a frame; its samples begin 8 rows before the frame.
SKY_STEP, SKY_ROWS_BEFORE = 8, 8
# Side of the Gaussian kernel of correlated noise in its standard deviations.
KERNEL_REACH = 4.5


class Camera(NamedTuple):
    """What is typical of a band: nanomaggies per data number, sky in data numbers, order in the drift, seeing."""

    calibration: float
    calibration_ivar: float
    sky: float
    order: int
    fwhm: float
    offset: tuple[float, float]


# Values of run 2820, camera column 3; places of the bands relative to r, in pixels.
_CAMERA = {
    "u": Camera(0.00945858, 0.0872992, 21.6, 2, 1.45, (-2.3, -7.3)),
    "g": Camera(0.00370926, 0.0643525, 73.2, 4, 1.35, (-0.5, -10.6)),
    "r": Camera(0.0049521, 0.166576, 136.9, 0, 1.25, (0.0, 0.0)),
    "i": Camera(0.00655549, 0.352517, 185.9, 1, 1.20, (1.7, -2.7)),
    "z": Camera(0.0351498, 10.0616, 98.9, 3, 1.22, (1.6, -7.0)),
}
BAND_DELAY = 71.66  # s, from one row of CCDs to the next


@dataclass(frozen=True, slots=True)
class Epoch:
    """When and how a field was scanned.

    Parameters
    ----------
    run, camcol, field : int
    tai : float
        Seconds since MJD 0 (TAI) at the reading of row 0 in the r band.
    shift : (float, float)
        Pixels (x, y) by which the field lies off the middle of the frame.
    angle : float
        Degrees by which the frame is turned.
    seeing : float
        Full width at half maximum in units of the band's usual one.
    sky : float
        Brightness of the sky in units of the band's usual one.
    rerun : str
    """

    run: int
    camcol: int
    field: int
    tai: float
    shift: tuple[float, float] = (0.0, 0.0)
    angle: float = 0.0
    seeing: float = 1.0
    sky: float = 1.0
    rerun: str = "301"

    def band_tai(self, band: str) -> float:
        """Return the time (s since MJD 0, TAI) at which row 0 was read in a band."""
        return self.tai + BAND_DELAY * camera_of(band).order


EPOCHS: tuple[Epoch, Epoch] = (
    Epoch(2820, 3, 122, 4515371004.23),
    Epoch(5902, 3, 218, 4637197212.71, (3.37, -2.61), 0.013, 1.12, 1.08),
)
"""Two nights of one field: the second is shifted by a fraction of a pixel, turned, blurred and brighter."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameObservation:
    """A frame, and everything that is in it.

    Parameters
    ----------
    image : Image
        In nanomaggies with the true variance (that of the expected, not of the counted electrons) and correlation.
    truth : (ny, nx) array, nanomaggies
        The scene alone, without noise, in the seeing of the epoch.
    counts : (ny, nx) array, data numbers
        What the camera read out, software bias taken off; whole numbers when the noise is white.
    sky_grid : (n, m) float32 array, data numbers
        The sky, one sample per 8 pixels.
    sky_x, sky_y : (nx,), (ny,) float32 arrays
        Places of the frame's columns and rows on ``sky_grid``.
    calibration : (nx,) float32 array
        Nanomaggies per data number of every column.
    epoch : Epoch
    band : str
    """

    image: Image
    truth: Float
    counts: Float
    sky_grid: NDArray[np.float32]
    sky_x: NDArray[np.float32]
    sky_y: NDArray[np.float32]
    calibration: NDArray[np.float32]
    epoch: Epoch
    band: str


def camera_of(band: str) -> Camera:
    """Return what is typical of a band of the camera."""
    if band not in _CAMERA:
        raise InputError(f"{band!r} is no band of the camera", field="band", remedy="use u, g, r, i or z")
    return _CAMERA[band]


def frame_wcs(
    epoch: Epoch,
    band: str,
    shape: tuple[int, int],
    *,
    centre: tuple[float, float] = FIELD_CENTRE,
    sip: bool = False,
) -> WCS:
    """Return the WCS of a frame: x along declination, y along right ascension, as in the stripe on the equator.

    Parameters
    ----------
    epoch, band
    shape : (int, int)
        (ny, nx).
    centre : (float, float)
        Right ascension and declination of the field, degrees.
    sip : bool
        Whether polynomials of second and third order (SIP) of up to about a pixel are added.
    """
    ny, nx = shape
    angle = np.radians(epoch.angle)
    cosine, sine = np.cos(angle), np.sin(angle)
    offset = camera_of(band).offset
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"] if sip else ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crval = centre
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.cd = PIXEL / 3600.0 * np.array([[sine, cosine], [cosine, -sine]])
    wcs.wcs.crpix = [
        nx // 2 + 1 + epoch.shift[0] + offset[0],
        (ny + 1) / 2 + epoch.shift[1] + offset[1],
    ]
    if sip:
        wcs.sip = _distortion(shape, wcs.wcs.crpix)
    wcs.wcs.set()
    return wcs


def _distortion(shape: tuple[int, int], reference: ArrayLike) -> Sip:
    """Return polynomials that shift the corners by about a pixel, and their inverse to first order."""
    half = max(shape) / 2
    a, b = np.zeros((4, 4)), np.zeros((4, 4))
    a[2, 0], a[1, 1], a[0, 2], a[3, 0], a[1, 2] = np.array([0.6, -0.4, 0.3, 0.2, -0.3]) / half ** np.array(
        [2, 2, 2, 3, 3]
    )
    b[2, 0], b[1, 1], b[0, 2], b[0, 3], b[2, 1] = np.array([-0.3, 0.5, 0.4, -0.2, 0.3]) / half ** np.array(
        [2, 2, 2, 3, 3]
    )
    return Sip(a, b, -a, -b, np.asarray(reference))


def noise_kernel(sigma: float) -> Float:
    """Return a Gaussian filter for correlated noise; ``sigma`` in pixels."""
    if not sigma > 0:
        raise InputError(f"sigma is {sigma} pixels; expected > 0", field="correlation")
    reach = int(np.ceil(KERNEL_REACH * sigma))
    profile = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.asarray(np.outer(profile, profile) / profile.sum() ** 2)


def observe_frame(
    field: SdssField,
    epoch: Epoch,
    band: str,
    shape: tuple[int, int] = (372, 512),
    *,
    correlation: float = 0.0,
    sip: bool = False,
    wcs: WCS | None = None,
    psf: PSF | None = None,
    truth: Float | None = None,
    n_dead: int = 0,
    seed: int | np.random.Generator,
) -> FrameObservation:
    """Observe a field in one band.

    Parameters
    ----------
    field : SdssField
    epoch : Epoch
    band : {"u", "g", "r", "i", "z"}
    shape : (int, int)
        (ny, nx); genuine frames have (1489, 2048).
    correlation : float
        Standard deviation in pixels of the Gaussian that the noise has been filtered with; 0: independent pixels.
        Correlated noise keeps the variance of each pixel, but the data numbers are no longer whole.
    sip : bool
        Whether the WCS has distortions.
    wcs : WCS, optional
        Instead of that of `frame_wcs`.
    psf : PSF, optional
        Instead of a round Gaussian of the band's and the epoch's seeing.
    truth : (ny, nx) array, optional
        Noise-free light in nanomaggies that is known already; by default painted from the field.
    n_dead : int
        Pixels without a value: NaN and masked.
    seed : int or numpy.random.Generator
        The same seed gives the same frame.

    Notes
    -----
    The variance is calibration^2 (counts / gain + dark variance + 1/12), the counts those expected: the frame data
    model of the survey, and the rounding to whole data numbers.
    """
    generator = np.random.default_rng(seed)
    camera, chip = camera_of(band), ccd(epoch.run, epoch.camcol, band)
    place = frame_wcs(epoch, band, shape, centre=field.scene.centre, sip=sip) if wcs is None else wcs
    blur = GaussianPSF(camera.fwhm * epoch.seeing) if psf is None else psf
    if truth is None:
        curve = sdss_bandpass(band)
        truth = object_images(field.scene, curve, place, shape, blur)[0] / curve.photflam(NANOMAGGY)
    calibration = _calibration(camera, shape[1], generator)
    grid, sky_x, sky_y = _sky(camera.sky * epoch.sky, shape, generator)
    sky = interpolate_sky(grid, sky_x, sky_y)
    expected = truth / calibration + sky
    rounding = 0.0 if correlation else 1 / 12
    variance = expected / chip.gain + chip.dark_variance + rounding
    kernel = noise_kernel(correlation) if correlation else None
    if kernel is None:
        electrons = generator.poisson(chip.gain * expected)
        counts = np.rint(
            electrons / chip.gain + np.sqrt(chip.dark_variance) * generator.standard_normal(shape)
        )
    else:
        counts = expected + correlated_noise(variance, kernel, generator)
    dead = np.zeros(shape, dtype=bool)
    dead.ravel()[generator.choice(dead.size, n_dead, replace=False)] = True
    data = np.where(dead, np.nan, (counts - sky) * calibration).astype(np.float32)
    image = Image(
        data,
        variance * calibration.astype(np.float64) ** 2,
        dead,
        u.Unit("nmgy"),
        place,
        psf=blur,
        correlation=None if kernel is None else kernel_correlation(kernel),
        meta=_meta(epoch, band, shape[0]),
        history=(step("observe_frame", band=band, run=epoch.run, correlation=correlation),),
    )
    return FrameObservation(image, truth, counts, grid, sky_x, sky_y, calibration, epoch, band)


def _calibration(camera: Camera, nx: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """Return nanomaggies per data number along a row: smooth, constant within a few per mille."""
    x = np.linspace(-1.0, 1.0, nx)
    slope, bend = 1e-3 * generator.standard_normal(2)
    return np.asarray(camera.calibration * (1.0 + slope * x + bend * (x**2 - 1 / 3)), dtype=np.float32)


def _sky(
    level: float, shape: tuple[int, int], generator: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return a smooth sky with one sample per 8 pixels, and the places of columns and rows on it."""
    ny, nx = shape
    x = ((np.arange(nx) + 0.5) / SKY_STEP - 0.5).astype(np.float32)
    y = ((np.arange(ny) + SKY_ROWS_BEFORE + 0.5) / SKY_STEP - 0.5).astype(np.float32)
    n_x, n_y = -(-nx // SKY_STEP), -(-(ny + 2 * SKY_ROWS_BEFORE) // SKY_STEP)
    waves = generator.uniform(0.5, 2.0, 2)
    rows, columns = np.linspace(0, waves[0], n_y)[:, np.newaxis], np.linspace(0, waves[1], n_x)
    ripple = np.sin(2 * np.pi * rows) + np.cos(2 * np.pi * columns)
    return (level * (1.0 + 1e-3 * ripple)).astype(np.float32), x, y


def interpolate_sky(grid: ArrayLike, x: ArrayLike, y: ArrayLike) -> Float:
    """Return the sky of every pixel: bilinear in ``grid``, constant beyond its edges; (len(y), len(x))."""
    rows, columns = np.meshgrid(np.asarray(y, np.float64), np.asarray(x, np.float64), indexing="ij")
    return np.asarray(map_coordinates(np.asarray(grid, np.float64), (rows, columns), order=1, mode="nearest"))


def _meta(epoch: Epoch, band: str, ny: int) -> dict[str, Any]:
    """Return what the reader of frames finds out too; the middle of row r's exposure is row_time[0] + r row_time[1]."""
    chip, tai = ccd(epoch.run, epoch.camcol, band), epoch.band_tai(band)
    return {
        "instrument": "SDSS",
        "band": band,
        "run": epoch.run,
        "camcol": epoch.camcol,
        "field": epoch.field,
        "rerun": epoch.rerun,
        "exposure": EXPOSURE,
        "time_start": (tai - EXPOSURE) / DAY,
        "time_stop": (tai + (ny - 1) * ROW_CLOCK * 1e-6) / DAY,
        "row_time": ((tai - EXPOSURE / 2) / DAY, ROW_CLOCK * 1e-6 / DAY),
        "gain": chip.gain,
        "dark_variance": chip.dark_variance,
    }
