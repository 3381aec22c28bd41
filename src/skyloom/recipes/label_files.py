"""Masks and labels that a configuration names: FITS maps, or regions that were drawn in DS9."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.wcs import WCS

from skyloom import io
from skyloom.core.image import Image
from skyloom.core.labels import LabelMap
from skyloom.errors import FileFormatError, InputError
from skyloom.imaging.measure.drawn import label_regions, region_mask
from skyloom.io.ds9_regions import is_region_file, read_regions
from skyloom.io.formats.atomic import atomic_path
from skyloom.io.formats.blocks import Extension, text_cards, write_hdus
from skyloom.io.formats.files import open_fits
from skyloom.io.formats.headers import wcs_cards, wcs_from_header

__all__ = ["Grid", "grid_of", "read_label_file", "read_region_labels", "write_region_mask"]

Grid = tuple[WCS | None, tuple[int, int]]


def read_label_file(path: Path, target: Image | Grid) -> LabelMap:
    """Read a map of labels; from regions of DS9 it is made on the grid of an image.

    Parameters
    ----------
    path : path
        A segmentation map or mask as FITS, or a region file (``.reg``).
    target : Image or (WCS, (ny, nx))
        The grid that regions are painted on; a FITS map keeps its own.

    Raises
    ------
    InputError
        When it is neither.
    """
    if is_region_file(path):
        return read_region_labels(path, target)
    labels = io.read(path, instrument="segmentation")
    if not isinstance(labels, LabelMap):
        raise InputError(f"holds a {type(labels).__name__}, not a map of labels", source=path)
    return labels


def read_region_labels(path: Path, target: Image | Grid) -> LabelMap:
    """Read regions of DS9 as labels on a grid; see `skyloom.imaging.measure.drawn.label_regions`."""
    try:
        labels = label_regions(read_regions(path), target)
    except InputError as error:
        raise error.located(path) from error
    return labels.evolve(meta={**labels.meta, "path": str(path)})


def write_region_mask(path: Path, target: Grid, out: Path, *, overwrite: bool = False) -> int:
    """Write which pixels of a grid lie inside regions of DS9 as a mask, 1 inside; return their number.

    Parameters
    ----------
    path : path
        The region file.
    target : (WCS, (ny, nx))
    out : path
        Extension ``MASK``, uint8: what recipes take for masks of stars.
    overwrite : bool
    """
    try:
        inside = region_mask(read_regions(path), target)
    except InputError as error:
        raise error.located(path) from error
    cards = text_cards("COMMENT", [f"1 = inside the regions of {path.name}, 0 = outside"]) + wcs_cards(
        target[0]
    )
    with atomic_path(out, overwrite=overwrite) as temporary, open(temporary, "wb") as stream:
        write_hdus(stream, [Extension("", None), Extension("MASK", inside.astype(np.uint8), cards)])
    return int(np.count_nonzero(inside))


def grid_of(path: Path) -> Grid:
    """Return the celestial WCS and the shape of the first image, or cube, in a FITS file; its pixels are not read.

    Raises
    ------
    FileFormatError
        When there is none.
    """
    with open_fits(path) as file:
        for hdu in file:
            if hdu.is_image and len(hdu.shape) >= 2:
                wcs, _ = wcs_from_header(hdu.header, hdu.shape)
                ny, nx = hdu.shape[-2:]
                return (None if wcs is None else wcs.celestial), (ny, nx)
    raise FileFormatError("there is no image in this file", source=path)
