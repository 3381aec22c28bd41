"""Small files in the layout of SDSS, written with astropy; each argument spoils or changes one thing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits

TAI = 4515371004.23  # 2001-12-18 05:43:24.23


def frame_hdus(ny=32, nx=48, *, seed=1, band="r", gain=4.72, dark=1.3225, level=137.0):
    """Return the extensions of a frame of run 2820, column 3: integer counts, calibrated as the survey does."""
    random = np.random.default_rng(seed)
    calibration = np.linspace(0.00500, 0.00495, nx).astype(np.float32)
    sky = (level + 0.1 * np.arange(6)[:, None] + 0.05 * np.arange(8)).astype(np.float32)
    x = (np.arange(nx) * 8 / nx - 0.4375).astype(np.float32)
    y = (np.arange(ny) * 5.5 / ny + 0.25).astype(np.float32)
    image = sky_by_hand(sky, x, y)
    counts = random.poisson(image * gain) / gain + random.normal(0, np.sqrt(dark), image.shape)
    data = ((counts - image) * calibration).astype(np.float32)
    header = fits.Header()
    for key, value in {
        "TAI": TAI,
        "DATE-OBS": "2001-12-18",
        "TAIHMS": "05:43:24.22",
        "TIMESYS": "TAI",
        "RUN": 2820,
        "FRAME": 122,
        "EXPTIME": "53.907456",
        "CCDMODE": "DRIFT",
        "C_OBS": 26322,
        "BUNIT": "nanomaggy",
        "FILTER": band,
        "CAMCOL": 3,
        "RADECSYS": "ICRS",
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRPIX1": 25.0,
        "CRPIX2": 17.0,
        "CRVAL1": 38.33,
        "CRVAL2": -0.107,
        "CD1_1": 2e-08,
        "CD1_2": 0.00011,
        "CD2_1": 0.00011,
        "CD2_2": 1e-09,
        "NMGY": 0.00495,
        "RERUN": "301",
    }.items():
        header[key] = value
    sky_columns = [
        fits.Column("ALLSKY", f"{sky.size}E", dim="(8,6)", array=sky[None]),
        fits.Column("XINTERP", f"{nx}E", array=x[None]),
        fits.Column("YINTERP", f"{ny}E", array=y[None]),
    ]
    astrometry = [
        fits.Column("RUN", "J", array=[2820]),
        fits.Column("CAMCOL", "J", array=[3]),
        fits.Column("FILTER", "1A", array=[band]),
        fits.Column("FIELD", "J", array=[122]),
    ]
    return [
        fits.PrimaryHDU(data, header),
        fits.ImageHDU(calibration),
        fits.BinTableHDU.from_columns(sky_columns),
        fits.BinTableHDU.from_columns(astrometry),
    ]


def sky_by_hand(sky, x, y):
    """Interpolate pixel by pixel, bilinearly, the ends held."""
    out = np.empty((y.size, x.size))
    for row in range(y.size):
        for column in range(x.size):
            v = min(max(float(y[row]), 0.0), sky.shape[0] - 1.0)
            h = min(max(float(x[column]), 0.0), sky.shape[1] - 1.0)
            j, i = min(int(v), sky.shape[0] - 2), min(int(h), sky.shape[1] - 2)
            a, b = v - j, h - i
            out[row, column] = (1 - a) * ((1 - b) * sky[j, i] + b * sky[j, i + 1]) + a * (
                (1 - b) * sky[j + 1, i] + b * sky[j + 1, i + 1]
            )
    return out


def spectrum_hdus(n=400, *, first=35800, seed=1, plate=3126, run2d="104", instrument="SDSS", exposures=()):
    """Return the extensions of a coadded spectrum."""
    random = np.random.default_rng(seed)
    places = first + np.arange(n)
    sigma = np.linspace(2.0, 1.0, n)
    columns = [
        fits.Column("flux", "E", array=20 + random.normal(0, sigma)),
        fits.Column("loglam", "E", array=places * 1e-4),
        fits.Column("ivar", "E", array=1 / sigma**2),
        fits.Column("and_mask", "J", array=np.zeros(n, np.int32)),
        fits.Column("or_mask", "J", array=np.zeros(n, np.int32)),
        fits.Column("wdisp", "E", array=np.full(n, 0.95)),
        fits.Column("sky", "E", array=np.ones(n)),
        fits.Column("model", "E", array=np.full(n, 20.0)),
    ]
    header = fits.Header()
    for key, value in {
        "TAI": 54803.51 * 86400,
        "MJD": 54804,
        "MJDLIST": "54803 54804",
        "EXPTIME": 10804.0,
        "RA": 39.0031,
        "DEC": 0.0,
        "PLUG_RA": 38.301802,
        "PLUG_DEC": -0.13391571,
        "PLATEID": plate,
        "FIBERID": 211,
        "COEFF0": (first - 6) * 1e-4,
        "COEFF1": 1e-4,
        "BUNIT": "1E-17 erg/cm^2/s/Ang",
    }.items():
        header[key] = value
    named = [
        fits.Column("Z", "E", array=[0.25]),
        fits.Column("CLASS", "6A", array=["GALAXY"]),
        fits.Column("SPECTROFLUX", "5E", array=[[1, 2, 3, 4, 5]]),
    ]
    if run2d:
        named.append(fits.Column("RUN2D", "7A", array=[run2d]))
    if instrument:
        named.append(fits.Column("INSTRUMENT", "4A", array=[instrument]))
    single = []
    for begin, end in exposures:
        table = fits.BinTableHDU.from_columns([fits.Column("flux", "E", array=np.ones(3))])
        table.header["TAI-BEG"], table.header["TAI-END"] = begin, end
        single.append(table)
    return [
        fits.PrimaryHDU(header=header),
        fits.BinTableHDU.from_columns(columns, name="COADD"),
        fits.BinTableHDU.from_columns(named, name="SPECOBJ"),
        *single,
    ]


def write(path: Path, hdus) -> Path:
    """Write extensions as one file."""
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return path
