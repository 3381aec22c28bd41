"""Planes of Hubble's stamps and segmentation maps as files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.mock.hubble.bands import Band

__all__ = ["write_labels", "write_plane"]

Float = NDArray[np.float64]


def write_plane(
    path: Path, data: Float, band: Band, wcs: WCS, kind: str, *, known: Mapping[str, Any] | None = None
) -> None:
    """Write one plane with the keywords of the archive's stamps, which lack the photometric zero point.

    Parameters
    ----------
    path : Path
    data : (ny, nx) array
    band : Band
    wcs : astropy.wcs.WCS
    kind : {"SCI", "WHT"}
    known : mapping, optional
        Further keywords, and others instead of those of the archive.
    """
    header = wcs.to_header()
    matrix = wcs.pixel_scale_matrix
    for key in ("PC1_1", "PC1_2", "PC2_1", "PC2_2", "CDELT1", "CDELT2", "CUNIT1", "CUNIT2"):
        header.remove(key, ignore_missing=True)
    for row in (0, 1):
        for column in (0, 1):
            header[f"CD{row + 1}_{column + 1}"] = matrix[row, column]
    infrared = band.detector_scale > 0.1
    header["TELESCOP"] = ("HST", "imitated")
    header["INSTRUME"] = "WFC3" if infrared else "ACS"
    header["DETECTOR"] = "IR" if infrared else "WFC"
    header["FILTER"] = band.name
    header["FILETYPE"] = kind
    header["BUNIT"] = "ELECTRONS/S"
    header["EXPTIME"] = 1.0
    header["TEXPTIME"] = band.exposure
    header.update(known or {})
    fits.PrimaryHDU(data.astype(np.float32), header).writeto(path, overwrite=True)


def write_labels(path: Path, labels: NDArray[Any], wcs: WCS) -> None:
    """Write a segmentation map."""
    primary = fits.PrimaryHDU()
    fits.HDUList([primary, fits.ImageHDU(labels, wcs.to_header(), "DATA")]).writeto(path, overwrite=True)
