"""What a file is called in the store and where it lies on the sky, from its headers alone."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from skyloom.core.geometry import celestial
from skyloom.errors import SkyloomError
from skyloom.io.formats.cards import Header, header_number
from skyloom.io.formats.files import FitsFile, Hdu, open_fits
from skyloom.io.formats.headers import wcs_from_header
from skyloom.io.formats.plain_json import from_json

__all__ = ["Source", "base_name", "header_text", "locate"]

HEADER_BYTES = 64 * 2880  # Decompressed at first; headers of images fit.
_POSITIONS = (("PLUG_RA", "PLUG_DEC"), ("RA_TARG", "DEC_TARG"), ("RA", "DEC"), ("OBJRA", "OBJDEC"))
# The sky drifts over the filters one after the other, two frames apart; FRAME counts them, fields count those of r.
_FRAMES_LATE = {"r": 0, "i": 2, "u": 4, "z": 6, "g": 8}


class Source(NamedTuple):
    """A file that is to be stored."""

    path: str
    name: str
    """Without the folder."""
    digest: str
    """SHA-256 of the file as it is on the disk."""
    size: int
    """Bytes on the disk."""
    base: str
    """What the names of its observations begin with."""
    ra: float
    """deg, ICRS; NaN where the headers do not say."""
    dec: float
    n_pixels: int
    """Numbers in its arrays and tables, about."""
    modified: int
    """When it was written last, ns."""
    cell: int = -1
    """HEALPix cell of that position, as in the column ``healpix``; -1 where it is not known."""


def locate(path: str | Path) -> Source:
    """Find out what is needed to sort a file into the store, without reading its pixels.

    Raises
    ------
    FileFormatError
        When there is no such file, or it is no FITS file.
    """
    place = Path(path)
    with _headers_of(place) as file:
        base = base_name(place.name, file[0].header)
        n_pixels = sum(hdu.size for hdu in file) // 4
        ra, dec = _position(file)
        state = place.stat()
        return Source(
            str(path),
            _readable(place.name),
            file.sha256,
            state.st_size,
            base,
            ra,
            dec,
            n_pixels,
            state.st_mtime_ns,
        )


def _readable(name: str) -> str:
    """Return the name of a file as text: names on a disk may hold bytes that are none."""
    return name.encode("utf-8", "backslashreplace").decode()


@contextmanager
def _headers_of(path: Path) -> Iterator[FitsFile]:
    """Open a file for its headers; of a compressed one, as much is decompressed as the first header needs."""
    with open_fits(path, whole=False, at_first=HEADER_BYTES) as file:
        if file.content is file.raw or file[0].shape:
            yield file
            return
    # Where the first header holds no image, positions stand further behind.
    with open_fits(path, whole=False) as file:
        yield file


def _position(file: FitsFile) -> tuple[float, float]:
    """Return the centre of the first image on the sky, or the position that the first header tells."""
    primary = file[0].header
    if not any(hdu.is_image and len(hdu.shape) >= 2 for hdu in file):
        return _told_position(primary)
    for hdu in file:
        if hdu.is_image and len(hdu.shape) in (2, 3) and "CTYPE1" in hdu.header:
            try:
                found = _centre(hdu)
            except SkyloomError:
                # Told by the reader, with the file and the keyword.
                continue
            if found is not None:
                return found
    return _own_position(file) if "SKYTYPE" in primary else _told_position(primary)


def _centre(hdu: Hdu) -> tuple[float, float] | None:
    wcs, _ = wcs_from_header(hdu.header, hdu.shape)
    if wcs is None:
        return None
    ny, nx = hdu.shape[-2:]
    sky = celestial(wcs)
    ra, dec = sky.all_pix2world([(nx - 1) / 2], [(ny - 1) / 2], 0)
    ra, dec = float(ra[0]), float(dec[0])
    is_equatorial = str(sky.wcs.lngtyp).strip() == "RA"
    return (ra % 360.0, dec) if is_equatorial and math.isfinite(ra + dec) and abs(dec) <= 90 else None


def _own_position(file: FitsFile) -> tuple[float, float]:
    """Return where spectra lie that Skyloom has written, the first of several."""
    try:
        table = file["META"].columns("FIELD", "VALUE")
        texts = dict(zip(table["FIELD"].tolist(), table["VALUE"].tolist(), strict=True))
        meta = from_json(texts[b"meta"].decode("ascii"))
        ra, dec = (float(np.ravel(meta[key])[0]) for key in ("ra", "dec"))
    except (SkyloomError, KeyError, ValueError, TypeError, IndexError):
        # Not told, or told by the reader what is wrong.
        return np.nan, np.nan
    return (ra % 360.0, dec) if math.isfinite(ra) and abs(dec) <= 90 else (np.nan, np.nan)


def _told_position(header: Header) -> tuple[float, float]:
    for keys in _POSITIONS:
        ra, dec = (header_number(header, key) for key in keys)
        if ra is not None and dec is not None and abs(dec) <= 90:
            return ra % 360.0, dec
    return np.nan, np.nan


def base_name(name: str, header: Header) -> str:
    """Return what the names of a file's observations begin with.

    Frames and spectra of SDSS are called by their numbers, so that they have one name whatever the file is called; all
    others by the name of the file.

    Parameters
    ----------
    name : str
        Of the file, without folders.
    header : dict
        Of the primary HDU.
    """
    if str(header.get("ORIGIN", "")).strip() == "SDSS":
        numbers = [header_number(header, key) for key in ("RUN", "CAMCOL", "FRAME")]
        band = str(header.get("FILTER") or "").strip()
        if None not in numbers and band in _FRAMES_LATE:
            run, camcol, frame = (int(number) for number in numbers if number is not None)
            return f"sdss-{run:06d}-{camcol}-{frame - _FRAMES_LATE[band]:04d}-{band}"
    if str(header.get("TELESCOP", "")).startswith("SDSS"):
        numbers = [header_number(header, key) for key in ("PLATEID", "MJD", "FIBERID")]
        if None not in numbers:
            plate, mjd, fibre = (int(number) for number in numbers if number is not None)
            return f"sdss-{plate:04d}-{mjd}-{fibre:04d}"
    stem = name
    for suffix in (".gz", ".bz2", ".fits", ".fit", ".fts"):
        stem = stem.removesuffix(suffix)
    return re.sub(r"[^A-Za-z0-9+\-._]+", "_", stem).strip("_") or "observation"


def header_text(file: FitsFile) -> str:
    """Return the original header, one card per line: the primary one, and that of the image where it is another.

    Parameters
    ----------
    file : FitsFile
        Whose headers have been read.
    """
    chosen = [file[0]]
    if not file[0].shape:
        chosen += [hdu for hdu in file.hdus[1:] if hdu.is_image and hdu.shape][:1]
    return "\n".join(line for hdu in chosen for line in _cards(hdu))


def _cards(hdu: Hdu) -> Iterator[str]:
    text = hdu.cards.decode("latin-1")
    for start in range(0, len(text), 80):
        card = text[start : start + 80].rstrip()
        if card:
            yield card
        if card == "END":
            return
