"""Maps and band images that analysis pipelines make of MUSE cubes.

A ``*_MAPS.fits`` file (Emsellem et al. 2022, 10.1051/0004-6361/202141727) has one two-dimensional extension per map,
``HA6562_FLUX``, ``HA6562_VEL``, ``V_STARS`` ..., and one with its standard deviation: ``HA6562_FLUX_ERR``,
``FORM_ERR_V_STARS``. Band images (in Jy, or a flux density) have the image and its errors, DATA and STAT.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from numpy.typing import NDArray

from skyloom.core.image import Image
from skyloom.core.provenance import step
from skyloom.core.units import parse_unit
from skyloom.errors import AssumptionWarning, FileFormatError, InputError, RepairWarning, ShapeError
from skyloom.io.cubes.layout import error_kind_of
from skyloom.io.cubes.observation import observation_meta
from skyloom.io.formats.files import FitsFile, Hdu, Header, open_fits
from skyloom.io.formats.headers import parse_bunit, wcs_from_header
from skyloom.io.images import assemble, find_image

__all__ = ["map_names", "read_muse_image", "read_muse_maps", "sniff", "sniff_image"]

Array = NDArray[Any]

# Patterns of the name of the errors of a map X, the ones that hold more of the error first.
_ERROR_PATTERNS = ("{}_ERR", "ERR_{}", "FORM_ERR_{}", "{}_ERROR", "E_{}")
# Line fluxes are named by species and wavelength: HA6562_FLUX.
_LINE_MAP = re.compile(r"[A-Z]+\d{4,5}[A-Z]?_(?:FLUX|VEL|SIGMA)")
_KINEMATIC = re.compile(r"(?:^|_)(?:VEL|SIGMA|V)(?:$|_STARS)")


def sniff(file: FitsFile) -> bool:
    """Tell whether a file has maps of emission lines with their errors, one extension each."""
    names = {hdu.name for hdu in file if hdu.is_image and len(hdu.shape) == 2}
    return any(_LINE_MAP.fullmatch(name) and _error_name(name, names) for name in names)


def map_names(file: FitsFile) -> dict[str, str]:
    """Return the extensions that are maps with errors, and the extension of the errors of each."""
    names = {hdu.name: hdu.shape for hdu in file if hdu.is_image and len(hdu.shape) == 2}
    errors = {name: _error_name(name, set(names)) for name in names}
    return {name: error for name, error in errors.items() if error}


def _error_name(name: str, names: set[str]) -> str:
    return next((found for pattern in _ERROR_PATTERNS if (found := pattern.format(name)) in names), "")


def read_muse_maps(
    path: str | Path,
    *,
    names: Sequence[str] | None = None,
    units: dict[str, u.UnitBase | str] | None = None,
) -> dict[str, Image]:
    """Read maps with their errors from a file of an analysis pipeline.

    Parameters
    ----------
    path : str or path
    names : sequence of str, optional
        Extensions to read, e.g. ``["HA6562_FLUX"]``; by default every map that has errors.
    units : dict, optional
        Units of maps whose header has none, by name of the extension.

    Returns
    -------
    dict of str to Image
        By name of the extension, in the order of the file. The variance is the square of the error map; pixels
        without a finite value or a positive error are masked. ``meta["name"]`` is the name.

    Raises
    ------
    FileFormatError
        When a map that was asked for is not there or has no errors; the message lists those that have.
    ShapeError
        When a map and its errors differ in shape.
    UnitError
        When a unit cannot be read.
    """
    with open_fits(path) as file:
        known = map_names(file)
        chosen = list(known) if names is None else [name.upper() for name in names]
        for name in chosen:
            if name not in known:
                raise FileFormatError(
                    f"there is no map {name!r} with errors",
                    source=path,
                    field=name,
                    remedy=f"known: {', '.join(known) or 'none'}",
                )
        if not chosen:
            raise FileFormatError("there are no maps with errors in this file", source=path)
        said = {key.upper(): value for key, value in (units or {}).items()}
        try:
            return {name: _map(file, file[name], file[known[name]], said.get(name)) for name in chosen}
        except InputError as error:
            raise error.located(path) from None


def _map(file: FitsFile, hdu: Hdu, error: Hdu, unit: u.UnitBase | str | None) -> Image:
    if hdu.shape != error.shape:
        raise ShapeError(
            f"{hdu.name} has shape {hdu.shape}, its errors {error.name} have {error.shape}", field=hdu.name
        )
    data, sigma = (np.asarray(part.array()) for part in (hdu, error))
    if data.dtype.kind != "f":
        data = data.astype(np.float64)
    variance = np.square(sigma, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        negative = int(np.count_nonzero(sigma < 0))
        usable = np.isfinite(data) & (sigma > 0) & np.isfinite(variance)
    if negative:
        warnings.warn(
            f"{file.path}: {negative} pixels of {error.name} are negative; masked",
            RepairWarning,
            stacklevel=5,
        )
    wcs, _ = wcs_from_header(hdu.header, hdu.shape)
    meta = observation_meta(file[0].header, hdu.header) | {
        "instrument": "MUSE",
        "name": hdu.name,
        "path": str(file.path),
        "sha256": file.sha256,
        "error_extension": error.name,
    }
    done = step("read_muse_maps", path=str(file.path), sha256=file.sha256, map=hdu.name, errors=error.name)
    chosen = _unit(file.path, hdu, unit)
    limits = np.finfo(np.float32)
    fits_float = (
        not usable.any() or 1e4 * limits.tiny < variance[usable].min() <= variance[usable].max() < limits.max
    )
    if data.dtype == np.float32 and fits_float:
        variance = variance.astype(np.float32)
    return Image(data, variance, ~usable, chosen, wcs, meta=meta, history=(done,))


def _unit(path: Path, hdu: Hdu, unit: u.UnitBase | str | None) -> u.UnitBase:
    if unit is not None:
        return parse_unit(unit)
    written = str(hdu.header.get("BUNIT") or "").strip()
    if written:
        return parse_bunit(written)
    if _KINEMATIC.search(hdu.name):
        assumed: u.UnitBase = u.km / u.s
    elif hdu.name.endswith("_FLUX"):
        assumed = u.Unit("1e-20 erg / (s cm2)")
    else:
        return u.dimensionless_unscaled
    warnings.warn(
        f"{path}: {hdu.name} has no unit (BUNIT); taken as {assumed}", AssumptionWarning, stacklevel=6
    )
    return assumed


# -------------------------------------------------------------------------------------------- band images


def sniff_image(file: FitsFile) -> bool:
    """Tell whether a file has an image that was made of a MUSE cube, with its errors."""
    hdu = find_image(file, ("DATA",))
    if hdu is None or hdu.name != "DATA" or any(hdu.is_image and len(hdu.shape) == 3 for hdu in file):
        return False
    headers = (file[0].header, hdu.header)
    return any(str(header.get("INSTRUME") or "").strip().upper() == "MUSE" for header in headers)


def read_muse_image(
    path: str | Path,
    *,
    weight: str | Path | None = None,
    weight_kind: str | None = None,
    unit: u.UnitBase | str | None = None,
    band: str | None = None,
) -> Image:
    """Read an image that was made of a MUSE cube, e.g. through the response of a filter, in Jy.

    Parameters
    ----------
    path : str or path
    weight : str or path, optional
        File of the errors; by default the extension STAT (a variance) or ERR (a standard deviation).
    weight_kind : {"variance", "rms", "inverse_variance", "exposure"}, optional
        What the errors are; by default what the name of the extension promises.
    unit : unit or str, optional
        Needed where the header has none.
    band : str, optional
        Name of the band where the header does not say.

    Raises
    ------
    FileFormatError, ShapeError, UnitError, InputError
        See `skyloom.io.images.read_image`.
    """
    if weight_kind is None:
        with open_fits(weight if weight is not None else path) as file:
            kinds = {error_kind_of(hdu.name) for hdu in file if hdu.is_image and len(hdu.shape) == 2} - {""}
        weight_kind = next(iter(kinds)) if len(kinds) == 1 else "variance"

    def describe(primary: Header, header: Header) -> dict[str, Any]:
        meta = observation_meta(primary, header) | {"instrument": "MUSE"}
        found = band or str(header.get("FILTER") or primary.get("FILTER") or "").strip()
        return meta | ({"band": found.lower()} if found else {})

    kind = "rms" if weight_kind == "sigma" else weight_kind
    return assemble(path, weight, kind, unit, describe, "read_muse_image")
