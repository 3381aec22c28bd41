"""Point-spread functions stored as images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from skyloom.core.geometry import pixel_matrix
from skyloom.core.psf import SampledPSF, square_matrix
from skyloom.errors import FileFormatError, InputError
from skyloom.io.formats.files import open_fits
from skyloom.io.formats.headers import wcs_from_header
from skyloom.io.images import find_image

__all__ = ["read_psf"]


def read_psf(path: str | Path, *, pixel_scale: float | None = None) -> SampledPSF:
    """Read a PSF that is stored as an image; it needs neither unit nor weights.

    Parameters
    ----------
    path : str or path
        FITS file; the extension PSF (or SCI, DATA), or else the first two-dimensional image: an odd square with the
        source in its central pixel. NaN counts as zero.
    pixel_scale : float, optional
        In arcsec, north up; needed where the header has no WCS.

    Raises
    ------
    FileFormatError
        When the file is missing, truncated or holds no image.
    InputError
        When the image is no odd square, its brightest pixel is not the central one, or its pixels have no size.
    """
    with open_fits(path) as file:
        hdu = find_image(file, ("PSF", "SCI", "DATA"))
        if hdu is None:
            raise FileFormatError("there is no two-dimensional image in this file", source=path)
        array = np.nan_to_num(hdu.array().astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        wcs, _ = wcs_from_header(hdu.header, array.shape)
    ny, nx = array.shape
    brightest = np.unravel_index(np.argmax(array), array.shape)
    if ny != nx or ny % 2 == 0 or brightest != (ny // 2, nx // 2):
        raise InputError(
            f"a PSF must be an odd square with the source in its central pixel; found shape {array.shape} with the"
            f" brightest pixel at {tuple(int(index) for index in brightest)}",
            source=path,
            remedy="give it as the image of a star to measure_psf, which centres it",
        )
    if pixel_scale is None and wcs is None:
        raise InputError(
            "the header does not say how large the pixels are", source=path, remedy="pass pixel_scale=..."
        )
    matrix = square_matrix(pixel_scale) if pixel_scale is not None else pixel_matrix(wcs, (ny, nx))
    return SampledPSF(array, matrix)
