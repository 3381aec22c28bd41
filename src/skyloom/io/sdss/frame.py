"""Corrected frames of the SDSS imaging survey, with the errors that follow from how they were taken.

A frame holds calibrated, sky-subtracted values in nanomaggies, and beside them what was done: the calibration of each
column (flat field included) and the sky. With the gain and the dark variance of the CCD (`skyloom.io.sdss.ccd`) the
noise follows, by the recipe of the survey's data model of `frame`::

    counts = data / calibration + sky
    sigma  = calibration sqrt(counts / gain + dark_variance)

The sky is interpolated linearly between the points of a coarse grid, first along rows, then along columns. Pixels are
those of the CCD and their noise is independent. Left out are the rounding of the stored values to ten binary digits (at
most 3 % of the variance, and that only near saturation) and the error of the calibration, which the pixels share.

The camera drifted along the sky while it was read out: row r left the CCD C_OBS microseconds times r after row 0, and
each row had gathered light for EXPTIME before.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from numpy.typing import NDArray

from skyloom.core.image import Flag, Image
from skyloom.core.provenance import step
from skyloom.core.units import parse_unit
from skyloom.errors import InputError, UnitError
from skyloom.io.formats.files import FitsFile, header_number
from skyloom.io.formats.headers import wcs_from_header
from skyloom.io.sdss.frame_file import (
    NEEDED,
    FrameContent,
    grid_places,
    read_content,
    sky_along_rows,
    whole_number,
)
from skyloom.io.sdss.times import SECONDS_PER_DAY, frame_start
from skyloom.kernels.images.sdss_frame import frame_variance

__all__ = [
    "AB_OFFSETS",
    "PIVOT",
    "WAVE_RANGE",
    "FrameErrors",
    "frame_errors",
    "frame_flux_density",
    "read_frame",
    "sniff",
]

Array = NDArray[Any]
Float = NDArray[np.float64]
# Pivot wavelengths in A of the reference response of the camera (Doi et al. 2010, 10.1088/0004-6256/139/4/1628).
PIVOT = {"u": 3589.3, "g": 4701.4, "r": 6177.2, "i": 7496.5, "z": 8904.2}
# Where that response is above 1 % of its peak, in A.
WAVE_RANGE = {
    "u": (3080.0, 4020.0),
    "g": (3800.0, 5540.0),
    "r": (5440.0, 6980.0),
    "i": (6720.0, 8360.0),
    "z": (7940.0, 10700.0),
}
AB_OFFSETS = {"u": -0.04, "g": 0.0, "r": 0.0, "i": 0.0, "z": 0.02}
"""AB magnitude minus the magnitude of the survey, as its web page on flux calibration gives it."""
# Errors of the zero points over the sky, relative (Padmanabhan et al. 2008, 10.1086/524677).
_CALIBRATION_ERROR = {"u": 0.02, "g": 0.01, "r": 0.01, "i": 0.01, "z": 0.01}
_FLUX_UNIT = parse_unit("1e-17 erg/(s cm2 AA)")
_NANOMAGGY = 3.631e-29  # erg/(s cm2 Hz)
_SPEED_OF_LIGHT = 2.99792458e18  # A/s
_TYPICAL = {"NMGY", "C_OBS", "RERUN", "CCDMODE"}


@dataclass(frozen=True, slots=True, eq=False)
class FrameErrors:
    """Every step from a calibrated frame to its errors.

    Attributes
    ----------
    data : (ny, nx) array
        The calibrated, sky-subtracted frame in nmgy.
    sky : (ny, nx) array
        Interpolated sky in counts (data numbers).
    calibration : (nx,) array
        Nanomaggies per count.
    counts : (ny, nx) array
        What the CCD counted, sky included.
    electrons : (ny, nx) array
        The same in electrons.
    sigma_counts, sigma : (ny, nx) arrays
        Standard deviation in counts and in nmgy.
    error_to_signal : (ny, nx) array
        ``sigma / data``; NaN where the value is not positive.
    gain : float
        Electrons per count.
    dark_variance : float
        Squared counts.
    band : str
    """

    data: Array
    sky: Array
    calibration: Array
    counts: Array
    electrons: Array
    sigma_counts: Array
    sigma: Array
    error_to_signal: Array
    gain: float
    dark_variance: float
    band: str


def sniff(file: FitsFile) -> bool:
    """Tell whether a file is a corrected frame of SDSS."""
    hdu = file[0]
    header = hdu.header
    return len(hdu.shape) == 2 and hdu.is_float and header.keys() >= NEEDED and bool(_TYPICAL & header.keys())


def read_frame(path: str | Path) -> Image:
    """Read a corrected frame and derive its errors.

    Parameters
    ----------
    path : str or path
        ``frame-*.fits`` as the survey distributes it, compressed or not.

    Returns
    -------
    Image
        In nmgy per pixel; variance as said at the top of this module, noise independent from pixel to pixel. Values
        that are not finite are masked; pixels with less than no counts get the variance of none and are flagged
        `Flag.NEGATIVE`. ``meta`` has instrument, telescope, band, run, rerun, camcol, field, object, exposure (s),
        gain, dark_variance, wave_range (A), calibration_error (relative, shared by all pixels of a frame and not in
        the variance), and of times (MJD, TAI): time_start and time_stop of the whole frame, and row_time, the middle of
        the exposure of row 0 and the days between rows.

    Raises
    ------
    FileFormatError
        When the file is truncated, lacks an extension, its calibration is not positive and finite everywhere, its times
        contradict each other, or its tables belong to another frame.
    ShapeError
        When calibration or sky do not fit the image.
    InputError
        When run, column or filter are none of the survey, or no value is finite.
    """
    frame = read_content(path)
    variance = np.empty(frame.data.shape, np.float32)
    mask = np.empty(frame.data.shape, bool)
    flags = np.empty(frame.data.shape, np.uint16)
    lower, share = grid_places(frame.y, frame.sky.shape[0])
    masked, negative = frame_variance(
        frame.data,
        frame.calibration,
        sky_along_rows(frame),
        lower,
        share.astype(np.float32),
        frame.ccd.gain,
        frame.ccd.dark_variance,
        variance,
        mask,
        flags,
        np.uint16(Flag.NEGATIVE),
    )
    if masked == mask.size:
        raise InputError("every pixel is NaN or infinite", source=path, remedy="fetch the frame again")
    meta = _meta(frame)
    wcs, notes = _wcs(frame)
    if notes:
        meta["wcs_notes"] = list(notes)
    done = step(
        "read_frame",
        path=str(frame.path),
        sha256=frame.sha256,
        gain=frame.ccd.gain,
        dark_variance=frame.ccd.dark_variance,
        masked=masked,
        negative=negative,
    )
    kept = flags if negative else None
    return Image(frame.data, variance, mask, u.nmgy, wcs, flags=kept, meta=meta, history=(done,))


def frame_errors(path: str | Path) -> FrameErrors:
    """Derive the errors of a corrected frame and keep every step.

    Parameters
    ----------
    path : str or path

    Raises
    ------
    FileFormatError, ShapeError, InputError
        As `read_frame`.
    """
    frame = read_content(path)
    sky = _sky_image(frame)
    counts = frame.data / frame.calibration.astype(np.float64) + sky
    gain, dark_variance = frame.ccd
    sigma_counts = np.sqrt(np.maximum(counts, 0.0) / gain + dark_variance)
    sigma = sigma_counts * frame.calibration
    ratio = np.full(sigma.shape, np.nan)
    np.divide(sigma, frame.data, out=ratio, where=frame.data > 0)
    return FrameErrors(
        frame.data,
        sky,
        frame.calibration,
        counts,
        counts * gain,
        sigma_counts,
        sigma,
        ratio,
        gain,
        dark_variance,
        str(frame.header["FILTER"]).strip(),
    )


def frame_flux_density(image: Image, *, ab_offsets: bool = True) -> Image:
    """Return a frame as flux density per unit wavelength, at the pivot wavelength of its band.

    Parameters
    ----------
    image : Image
        In nanomaggies, with ``meta["band"]``.
    ab_offsets : bool
        Whether to bring the zero points of u and z (-0.04 and +0.02 mag) to the AB system first, of which the survey
        says that its own are off.

    Returns
    -------
    Image
        In 1e-17 erg/(s cm2 AA) per pixel; the variance is multiplied by the square of the factor. One nanomaggy is
        3.631e-6 Jy, and ``f_lambda = f_nu c / pivot^2``.

    Raises
    ------
    UnitError
        When the image is not in nanomaggies.
    InputError
        When its band is none of SDSS.
    """
    if image.unit != u.nmgy:
        raise UnitError(f"the image is in {image.unit}; expected nmgy", field="unit")
    band = str(image.meta.get("band", ""))
    if band not in PIVOT:
        raise InputError(
            f"the band {band!r} is none of SDSS", field="band", remedy="expected u, g, r, i or z"
        )
    offset = AB_OFFSETS[band] if ab_offsets else 0.0
    factor = 1e17 * _NANOMAGGY * _SPEED_OF_LIGHT / PIVOT[band] ** 2 * 10 ** (-0.4 * offset)
    scale = image.data.dtype.type(factor)
    return image.evolve(
        step("frame_flux_density", band=band, pivot=PIVOT[band], ab_offset=offset, factor=factor),
        data=image.data * scale,
        variance=image.variance * scale**2,
        unit=_FLUX_UNIT,
        modes=tuple(mode._replace(sigma=mode.sigma * factor) for mode in image.modes),
    )


def _sky_image(frame: FrameContent) -> Float:
    """Return the sky at every pixel, in counts."""
    rows = sky_along_rows(frame).astype(np.float64)
    lower, share = grid_places(frame.y, rows.shape[0])
    return np.asarray(rows[lower] + share[:, None] * (rows[lower + 1] - rows[lower]))


# ------------------------------------------------------------------------------------------ what the header says


def _wcs(frame: FrameContent) -> tuple[Any, tuple[str, ...]]:
    try:
        return wcs_from_header(frame.header, frame.data.shape)
    except InputError as error:
        raise error.located(frame.path) from None


def _meta(frame: FrameContent) -> dict[str, Any]:
    header, chip = frame.header, frame.ccd
    band = str(header["FILTER"]).strip()
    meta: dict[str, Any] = {
        "instrument": "SDSS",
        "telescope": "SDSS 2.5-M",
        "band": band,
        "run": whole_number(header, "RUN", frame.path),
        "camcol": whole_number(header, "CAMCOL", frame.path),
        "gain": chip.gain,
        "dark_variance": chip.dark_variance,
        "wave_range": list(WAVE_RANGE[band]),
        "calibration_error": _CALIBRATION_ERROR[band],
        "milky_way_corrected": False,
        "path": str(frame.path),
        "sha256": frame.sha256,
    }
    if frame.field is not None:
        meta["field"] = frame.field
    for name, keyword in (("rerun", "RERUN"), ("object", "OBJECT"), ("strip", "STRIP")):
        value = str(header.get(keyword) or "").strip()
        if value:
            meta[name] = value
    for name, keyword in (("exposure", "EXPTIME"), ("nmgy_per_count", "NMGY"), ("stripe", "STRIPE")):
        number = header_number(header, keyword)
        if number is not None:
            meta[name] = int(number) if name == "stripe" else number
    return meta | _times(frame)


def _times(frame: FrameContent) -> dict[str, Any]:
    """Return the times of the frame and of its rows (MJD, TAI), as far as the header tells them."""
    read_out = frame_start(frame.header, frame.path)
    exposure = header_number(frame.header, "EXPTIME")
    if read_out is None or exposure is None:
        return {}
    microseconds = header_number(frame.header, "C_OBS")
    row = 0.0 if microseconds is None else microseconds * 1e-6 / SECONDS_PER_DAY
    light = exposure / SECONDS_PER_DAY
    times: dict[str, Any] = {
        "time_start": read_out - light,
        "time_stop": read_out + (frame.data.shape[0] - 1) * row,
    }
    if microseconds is not None:
        times["row_time"] = [read_out - 0.5 * light, row]
    return times
