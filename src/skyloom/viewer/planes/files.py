"""Which planes a FITS file has: values with the errors, mask and unit that belong to them, found from headers alone.

Products name their planes: ``F814W_SCI`` with ``F814W_VAR`` and ``F814W_MASK``, ``HALPHA_FLUX`` with
``HALPHA_FLUX_ERR``. Files of telescopes have one image and a plane of weights, perhaps in a file beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.errors import InputError
from skyloom.io.cubes.layout import error_kind_of
from skyloom.io.formats.files import FitsFile, Hdu, open_fits
from skyloom.io.formats.headers import parse_bunit, wcs_from_header
from skyloom.viewer.planes.blocks import Pixels

__all__ = ["SMALLEST", "HduPlane", "bins_in", "plane_groups", "shown_unit"]

SMALLEST = 9
"""Pixels along each side of an image; what is smaller is a kernel or a table."""
_SCIENCE = ("SCI", "DATA", "FLUX")
_NO_PLANE = re.compile(
    r"(.*_)?(CORR|CORRSPEC|PSF|LSF|PREDISP\w*|WAVE|MODE\d+|COVAR|RCORREL|GCORREL|ICORREL|ZCORREL)"
)
_MASKS = ("MASK", "DQ")
_LINES = ("FLUX", "VELOCITY", "SIGMA", "EW", "SNR", "FLAG")


@dataclass(frozen=True, slots=True)
class HduPlane:
    """One plane of values in a file, with what belongs to it.

    Attributes
    ----------
    name : str
    data, error, mask : Hdu
    error_kind : str
        "variance", "sigma" or "inverse_variance".
    unit : str
    is_code : bool
        Whether values are numbers of something, which have no mean.
    """

    name: str
    data: Hdu
    error: Hdu | None
    mask: Hdu | None
    error_kind: str
    unit: str
    is_code: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        ny, nx = self.data.shape
        return ny, nx

    @property
    def pixel_bytes(self) -> int:
        """What is read for a pixel."""
        parts = [self.data] + [hdu for hdu in (self.error, self.mask) if hdu is not None]
        return sum(abs(hdu.integer("BITPIX")) // 8 for hdu in parts)

    def wcs(self) -> WCS | None:
        """World coordinates, None where they cannot be read."""
        try:
            return wcs_from_header(self.data.header, self.data.shape)[0]
        except InputError:
            return None

    def read(self, rows: slice, columns: slice) -> Pixels:
        """Return the pixels of a rectangle, reading little more than these."""
        values = _section(self.data, rows, columns)
        bad = None if self.mask is None else _section(self.mask, rows, columns) != 0
        if self.error is None:
            return Pixels(values, None, bad)
        stored = np.asarray(_section(self.error, rows, columns), np.float32)
        if self.error_kind == "sigma":
            return Pixels(values, stored * stored, bad)
        if self.error_kind == "inverse_variance":
            known = stored > 0
            variance = np.divide(1.0, stored, out=np.full(stored.shape, np.nan, np.float32), where=known)
            return Pixels(values, variance, ~known if bad is None else bad | ~known)
        return Pixels(values, stored, bad)


def _section(hdu: Hdu, rows: slice, columns: slice) -> NDArray[np.generic]:
    """Read a rectangle: whole rows in one stretch where most of them is wanted."""
    width = hdu.shape[1]
    if columns.stop - columns.start < width // 2:
        return hdu.section(rows, columns)
    return hdu.section(rows)[:, columns]


def plane_groups(path: Path, weight: Path | None = None) -> list[list[HduPlane]]:
    """Return the planes of a file, those of one shape together, in the order of the file.

    Parameters
    ----------
    path : path
    weight : path, optional
        File with the weights of the only image of the first one.
    """
    with open_fits(path) as file:
        planes = list(_planes(file))
    if weight is not None and len(planes) == 1 and planes[0].error is None:
        planes = [_with_weight(planes[0], weight)]
    groups: dict[tuple[int, int], list[HduPlane]] = {}
    for plane in planes:
        groups.setdefault(plane.shape, []).append(plane)
    return list(groups.values())


def _with_weight(plane: HduPlane, path: Path) -> HduPlane:
    with open_fits(path) as file:
        found = next((hdu for hdu in file if hdu.is_image and hdu.shape == plane.data.shape), None)
    if found is None:
        return plane
    return HduPlane(plane.name, plane.data, found, plane.mask, "inverse_variance", plane.unit, plane.is_code)


def _planes(file: FitsFile) -> Iterable[HduPlane]:
    flat = [hdu for hdu in file if hdu.is_image and len(hdu.shape) == 2 and min(hdu.shape) >= SMALLEST]
    by_name = {hdu.name: hdu for hdu in flat}
    own = "SKYTYPE" in file[0].header
    found: list[HduPlane] = []
    for hdu in flat:
        if _NO_PLANE.fullmatch(hdu.name) or _is_companion(hdu, by_name):
            continue
        if own and hdu.name.rpartition("_")[2] in ("WHT", "VAR", "MASK", "FLAGS", "ERR"):
            continue
        error, kind = _error_of(hdu, by_name)
        mask = _mask_of(hdu, by_name)
        found.append(HduPlane(_label(hdu, file), hdu, error, mask, kind, shown_unit(hdu), _is_code(hdu)))
    return found or [
        HduPlane(_label(hdu, file), hdu, None, None, "", shown_unit(hdu), _is_code(hdu)) for hdu in flat
    ]


def _base(name: str) -> str:
    """What the planes of one image share in their names."""
    head, _, tail = name.rpartition("_")
    return head if tail in _SCIENCE or tail in _MASKS or error_kind_of(name) else name


def _is_companion(hdu: Hdu, by_name: dict[str, Hdu]) -> bool:
    """Tell whether a plane holds errors or the mask of another one."""
    head, _, tail = hdu.name.rpartition("_")
    if not error_kind_of(hdu.name) and tail not in _MASKS:
        return False
    partners = [head] if head else [""]
    partners += [f"{head}_{name}" if head else name for name in _SCIENCE]
    return any(by_name[name].shape == hdu.shape for name in partners if name in by_name and name != hdu.name)


def _error_of(hdu: Hdu, by_name: dict[str, Hdu]) -> tuple[Hdu | None, str]:
    named = str(hdu.header.get("ERRDATA") or "").strip().upper()
    base = _base(hdu.name) if hdu.name.rpartition("_")[2] in _SCIENCE else hdu.name
    candidates = [named, f"{hdu.name}_ERR"]
    prefix = f"{base}_" if base and base not in _SCIENCE else ""
    candidates += [f"{prefix}{suffix}" for suffix in ("VAR", "STAT", "ERR", "ERROR", "RMS", "IVAR", "WHT")]
    for name in candidates:
        other = by_name.get(name)
        if (
            name
            and other is not None
            and other is not hdu
            and other.shape == hdu.shape
            and error_kind_of(name)
        ):
            return other, error_kind_of(name)
    return None, ""


def _mask_of(hdu: Hdu, by_name: dict[str, Hdu]) -> Hdu | None:
    head, _, tail = hdu.name.rpartition("_")
    base = head if tail in _SCIENCE else hdu.name
    for suffix in _MASKS:
        other = by_name.get(f"{base}_{suffix}" if base and base not in _SCIENCE else suffix)
        if other is not None and other is not hdu and other.shape == hdu.shape:
            return other
    return None


def _is_code(hdu: Hdu) -> bool:
    return not hdu.is_float and "BSCALE" not in hdu.header


def _label(hdu: Hdu, file: FitsFile) -> str:
    """Return the name of a plane as it is shown: F814W, HALPHA FLUX."""
    name = hdu.name
    head, _, tail = name.rpartition("_")
    if tail in _SCIENCE and head and tail != "FLUX":
        name = head
    if name in ("", *_SCIENCE):
        band = hdu.header.get("FILTER") or file[0].header.get("FILTER") or ""
        return str(band).strip() or file.path.name.split(".fits")[0]
    return name.replace("_", " ")


def shown_unit(hdu: Hdu) -> str:
    """Return the unit of a plane as people write it, or what the header says where that cannot be read."""
    written = str(hdu.header.get("BUNIT") or "").strip()
    if not written:
        return ""
    try:
        return str(parse_bunit(written).to_string("unicode"))
    except (InputError, ValueError):
        return written


def bins_in(path: Path) -> Hdu | None:
    """Return the plane that says to which bin each pixel belongs, of a file that has one."""
    with open_fits(path) as file:
        kind = file[0].header.get("SKYTYPE")
        for hdu in file:
            is_labels = hdu.name == "BINS" or (kind == "LabelMap" and hdu.name == "SCI")
            if is_labels and hdu.is_image and len(hdu.shape) == 2 and not hdu.is_float:
                return hdu
    return None
