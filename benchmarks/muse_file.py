"""A cube as the pipeline of MUSE writes it, of any size, whose channels are all the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits

AXES = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CTYPE3": "AWAV", "CUNIT3": "Angstrom", "CRVAL3": 4750.0}
AXES |= {"CRPIX3": 1.0, "CD3_3": 1.25, "CD1_1": -5.5e-5, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 5.5e-5}
AXES |= {"BUNIT": "10**(-20)*erg/s/cm**2/Angstrom"}
BAD = 7  # Every so many rows the first spaxel has no value.


def write_cube(path: Path, side: int, channels: int) -> None:
    """Write DATA and STAT of a MUSE cube channel by channel."""
    plane = np.random.default_rng(1).normal(size=(side, side))
    plane[::BAD, 0] = np.nan
    with open(path, "wb") as stream:
        primary = fits.PrimaryHDU()
        primary.header["INSTRUME"] = "MUSE"
        stream.write(primary.header.tostring().encode())
        for name, values in (("DATA", plane), ("STAT", np.ones_like(plane))):
            header = fits.ImageHDU(np.zeros((1, 1, 1), np.float32), fits.Header(AXES), name).header
            header["NAXIS1"], header["NAXIS2"], header["NAXIS3"] = side, side, channels
            stream.write(header.tostring().encode())
            content = values.astype(">f4").tobytes()
            for _ in range(channels):
                stream.write(content)
            stream.write(b"\0" * (-len(content) * channels % 2880))
