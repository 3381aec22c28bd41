"""Cube files of any layout, written with astropy, for tests of the readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

SHAPE = (40, 6, 7)
BUNIT = "10**(-20)*erg/s/cm**2/Angstrom"
AXES: dict[str, Any] = {
    "CTYPE1": "RA---TAN",
    "CTYPE2": "DEC--TAN",
    "CUNIT1": "deg",
    "CUNIT2": "deg",
    "CRVAL1": 53.16,
    "CRVAL2": -27.82,
    "CRPIX1": 3.5,
    "CRPIX2": 3.0,
    "CD1_1": -4.12858236376e-05,
    "CD1_2": 3.71739225755e-05,
    "CD2_1": 3.71739225755e-05,
    "CD2_2": 4.12858236376e-05,
    "CTYPE3": "AWAV",
    "CUNIT3": "Angstrom",
    "CRVAL3": 4750.0,
    "CRPIX3": 1.0,
    "CD3_3": 1.25,
}


def cards(drop: tuple[str, ...] = (), **changes: Any) -> fits.Header:
    """Header of a cube: `AXES` and BUNIT, with keywords left out or changed."""
    values = {**AXES, "BUNIT": BUNIT}
    values = {key: value for key, value in values.items() if key not in drop} | changes
    header = fits.Header()
    for key, value in values.items():
        header[key] = value
    return header


def voxels(rng: np.random.Generator, shape: tuple[int, ...] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """Data whose noise has the variance that stands beside it, both float32."""
    variance = (4.0 + rng.random(shape)).astype(np.float32)
    data = (100.0 + np.sqrt(variance) * rng.normal(size=shape)).astype(np.float32)
    return data, variance


def write_cube(
    path: Path,
    planes: dict[str, np.ndarray],
    header: fits.Header | None = None,
    primary: dict[str, Any] | None = None,
) -> Path:
    """Write extensions of these names, all with the same header; PRIMARY goes into the primary HDU."""
    grid = cards() if header is None else header
    start = fits.PrimaryHDU(planes.get("PRIMARY"), grid if "PRIMARY" in planes else None)
    for key, value in (primary or {}).items():
        start.header[key] = value
    hdus = [fits.ImageHDU(plane, grid, name) for name, plane in planes.items() if name != "PRIMARY"]
    fits.HDUList([start, *hdus]).writeto(path, overwrite=True)
    return path


def write_muse(
    path: Path, rng: np.random.Generator, header: fits.Header | None = None, **primary: Any
) -> Path:
    """Write a MUSE cube, DATA and STAT."""
    data, variance = voxels(rng)
    return write_cube(path, {"DATA": data, "STAT": variance}, header, {"INSTRUME": "MUSE", **primary})
