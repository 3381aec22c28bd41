"""What a corrected frame of SDSS holds, checked: the image, its calibration, its sky, and which CCD took it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import astropy.units as u
import numpy as np
from numpy.typing import NDArray

from skyloom.errors import FileFormatError, InputError, ShapeError, UnitError
from skyloom.io.formats.files import FitsFile, Header, header_number, open_fits
from skyloom.io.formats.headers import parse_bunit
from skyloom.io.sdss.ccd import Ccd, ccd

__all__ = ["NEEDED", "FrameContent", "grid_places", "read_content", "sky_along_rows", "whole_number"]

Float = NDArray[np.float64]
NEEDED = {"RUN", "CAMCOL", "FILTER"}
# So many frames after that of r does each row of the camera see a field.
_FRAMES_LATER = {"r": 0, "i": 2, "u": 4, "z": 6, "g": 8}


class FrameContent(NamedTuple):
    """What a file holds, checked.

    Parameters
    ----------
    path : path
    data : (ny, nx) float32 array
        Nanomaggies, sky subtracted.
    header : dict
    calibration : (nx,) float32 array
        Nanomaggies per count, flat field included.
    sky : (n_sky, m_sky) float32 array
        In counts, on a coarse grid.
    x, y : (nx,) and (ny,) arrays
        Where the columns and rows of the frame lie on that grid.
    ccd : Ccd
    field : int or None
    sha256 : str
    """

    path: Path
    data: NDArray[np.float32]
    header: Header
    calibration: NDArray[np.float32]
    sky: NDArray[np.float32]
    x: Float
    y: Float
    ccd: Ccd
    field: int | None
    sha256: str


def read_content(path: str | Path) -> FrameContent:
    """Read a frame.

    Raises
    ------
    FileFormatError, ShapeError, UnitError, InputError
        See `skyloom.io.sdss.frame.read_frame`.
    """
    with open_fits(path) as file:
        header = file[0].header
        if len(file[0].shape) != 2 or not header.keys() >= NEEDED:
            missing = sorted(NEEDED - header.keys())
            raise FileFormatError(
                f"this is no corrected frame ({', '.join(missing) or 'no image'} missing)",
                source=path,
                remedy="give a file frame-*.fits of SDSS",
            )
        _check_unit(file)
        chip = _ccd(file)
        field = _field(file)
        data = np.ascontiguousarray(file[0].array(), dtype=np.float32)
        calibration = _calibration(file, data.shape[1])
        sky, x, y = _sky(file, data.shape)
        return FrameContent(file.path, data, header, calibration, sky, x, y, chip, field, file.sha256)


def _check_unit(file: FitsFile) -> None:
    written = str(file[0].header.get("BUNIT") or "").strip()
    if written and parse_bunit(written) != u.nmgy:
        raise UnitError(f"the frame is in {written!r}; expected nanomaggies", source=file.path, field="BUNIT")


def whole_number(header: Header, keyword: str, path: Path) -> int:
    """Return a keyword that must be a whole number.

    Raises
    ------
    FileFormatError
        When it is none.
    """
    value = header_number(header, keyword)
    if value is None or value != int(value):
        raise FileFormatError(
            f"{header.get(keyword)!r} is no whole number",
            source=path,
            field=keyword,
            remedy="fetch the frame again",
        )
    return int(value)


def _ccd(file: FitsFile) -> Ccd:
    header = file[0].header
    run, camcol = (whole_number(header, keyword, file.path) for keyword in ("RUN", "CAMCOL"))
    try:
        return ccd(run, camcol, str(header["FILTER"]).strip())
    except InputError as error:
        raise error.located(file.path) from None


def _field(file: FitsFile) -> int | None:
    """Return the number of the field, after checking that the table of the astrometry is of this frame.

    FRAME is another number: each row of the camera counts the same piece of sky later.
    """
    header = file[0].header
    named: dict[str, Any] = {}
    if len(file) > 3 and str(file[3].structure.get("XTENSION", "")).strip() == "BINTABLE":
        named = file[3].columns("RUN", "CAMCOL", "FILTER", "FIELD")
    values = {name: column.flat[0] for name, column in named.items() if column.size}
    for keyword in ("RUN", "CAMCOL", "FILTER"):
        if keyword not in values:
            continue
        value = values[keyword]
        shown = value.decode("latin-1").strip() if isinstance(value, bytes) else str(int(value))
        if shown != str(header[keyword]).strip():
            raise FileFormatError(
                f"the header says {str(header[keyword]).strip()}, the table of the astrometry {shown}",
                source=file.path,
                field=keyword,
                remedy="the parts of this file belong to different frames: fetch it again",
            )
    if "FIELD" in values:
        return int(values["FIELD"])
    number = header_number(header, "FRAME")
    return None if number is None else int(number) - _FRAMES_LATER[str(header["FILTER"]).strip()]


def _calibration(file: FitsFile, nx: int) -> NDArray[np.float32]:
    if len(file) < 2 or not file[1].is_image or len(file[1].shape) != 1:
        raise FileFormatError(
            "the extension with the calibration vector is missing",
            source=file.path,
            field="extension 1",
            remedy="without it the errors cannot be derived: fetch the frame again",
        )
    calibration = np.ascontiguousarray(file[1].array(), dtype=np.float32)
    if calibration.shape != (nx,):
        raise ShapeError(
            f"the calibration vector has shape {calibration.shape}; expected ({nx},)",
            source=file.path,
            field="extension 1",
        )
    bad = ~((calibration > 0) & (calibration < np.inf))
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise FileFormatError(
            f"the calibration of {int(bad.sum())} columns is not positive and finite"
            f" ({calibration[first]} in column {first})",
            source=file.path,
            field="extension 1",
            remedy="fetch the frame again",
        )
    return calibration


def _sky(file: FitsFile, shape: tuple[int, ...]) -> tuple[NDArray[np.float32], Float, Float]:
    """Return the sky on its coarse grid, and where the columns and rows of the frame lie on it."""
    found = {}
    if len(file) > 2 and str(file[2].structure.get("XTENSION", "")).strip() == "BINTABLE":
        found = file[2].columns("ALLSKY", "XINTERP", "YINTERP")
    missing = [name for name in ("ALLSKY", "XINTERP", "YINTERP") if name not in found]
    if missing:
        raise FileFormatError(
            f"the table of the sky is missing ({', '.join(missing)})",
            source=file.path,
            field="extension 2",
            remedy="without it the errors cannot be derived: fetch the frame again",
        )
    sky, x, y = (
        found[name][0] if len(found[name]) else found[name] for name in ("ALLSKY", "XINTERP", "YINTERP")
    )
    if sky.ndim != 2 or min(sky.shape) < 2:
        raise ShapeError(f"ALLSKY has shape {sky.shape}", source=file.path, field="ALLSKY")
    for name, places, size in (("XINTERP", x, shape[1]), ("YINTERP", y, shape[0])):
        if places.shape != (size,):
            raise ShapeError(
                f"{name} has shape {places.shape}; expected ({size},)", source=file.path, field=name
            )
    for name, values in (("ALLSKY", sky), ("XINTERP", x), ("YINTERP", y)):
        if not np.isfinite(values).all():
            raise FileFormatError(f"{name} has values that are not finite", source=file.path, field=name)
    return sky.astype(np.float32), x.astype(np.float64), y.astype(np.float64)


def grid_places(positions: Float, size: int) -> tuple[NDArray[np.int64], Float]:
    """Return the grid point below each position and the share of the way to the next, held inside the grid."""
    inside = np.clip(positions, 0.0, size - 1.0)
    lower = np.minimum(inside.astype(np.int64), size - 2)
    return lower, inside - lower


def sky_along_rows(frame: FrameContent) -> NDArray[np.float32]:
    """Return the coarse sky interpolated to the columns of the frame: (n_sky, nx)."""
    lower, share = grid_places(frame.x, frame.sky.shape[1])
    weight = share.astype(np.float32)
    first = frame.sky[:, lower]
    return np.asarray(first + weight * (frame.sky[:, lower + 1] - first))
