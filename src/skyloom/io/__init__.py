"""Files to core types and back: one reader per instrument, and a lossless FITS form of Skyloom's own."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skyloom.io.bandpass import find_bandpass, read_bandpass, sdss_bandpasses
    from skyloom.io.cubes.files import CubeFile, open_cube
    from skyloom.io.cubes.layout import GenericLayout
    from skyloom.io.cubes.manga import read_manga
    from skyloom.io.cubes.pmas import read_pmas
    from skyloom.io.ds9_regions import read_regions, write_regions
    from skyloom.io.fits import read_product, write, write_product
    from skyloom.io.hst import read_hst
    from skyloom.io.products.bin_files import read_map_file, write_map_file
    from skyloom.io.products.resampled import write_resampled
    from skyloom.io.psf import read_psf
    from skyloom.io.registry import read, register_reader
    from skyloom.io.segmentation import read_segmentation
    from skyloom.io.table_files import read_table, write_table

_HOMES = {
    "CubeFile": "skyloom.io.cubes.files",
    "GenericLayout": "skyloom.io.cubes.layout",
    "find_bandpass": "skyloom.io.bandpass",
    "open_cube": "skyloom.io.cubes.files",
    "read": "skyloom.io.registry",
    "register_reader": "skyloom.io.registry",
    "write": "skyloom.io.fits",
    "write_product": "skyloom.io.fits",
    "read_product": "skyloom.io.fits",
    "read_regions": "skyloom.io.ds9_regions",
    "write_regions": "skyloom.io.ds9_regions",
    "read_table": "skyloom.io.table_files",
    "write_table": "skyloom.io.table_files",
    "read_bandpass": "skyloom.io.bandpass",
    "sdss_bandpasses": "skyloom.io.bandpass",
    "read_hst": "skyloom.io.hst",
    "read_manga": "skyloom.io.cubes.manga",
    "read_map_file": "skyloom.io.products.bin_files",
    "read_pmas": "skyloom.io.cubes.pmas",
    "read_psf": "skyloom.io.psf",
    "read_segmentation": "skyloom.io.segmentation",
    "write_map_file": "skyloom.io.products.bin_files",
    "write_resampled": "skyloom.io.products.resampled",
}

__all__ = [
    "CubeFile",
    "GenericLayout",
    "find_bandpass",
    "open_cube",
    "read",
    "read_bandpass",
    "read_hst",
    "read_manga",
    "read_map_file",
    "read_pmas",
    "read_product",
    "read_psf",
    "read_regions",
    "read_segmentation",
    "read_table",
    "register_reader",
    "sdss_bandpasses",
    "write",
    "write_map_file",
    "write_product",
    "write_regions",
    "write_resampled",
    "write_table",
]


def __getattr__(name: str) -> Any:
    # Nothing that reads files is imported before a file is read: the command line starts without it.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'skyloom.io' has no attribute {name!r}")
