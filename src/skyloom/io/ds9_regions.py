"""Region files of DS9: circles, ellipses, boxes, polygons, annuli and points, read and written.

Frames image, fk5 (J2000), icrs and galactic; include and exclude (``-``); sexagesimal numbers and degrees; sizes with
``"``, ``'``, ``d``, ``r``, ``p`` or none. What DS9 writes as a comment (text, compass, composite) is no region and
left out; any other shape is an error that names its line: a mask that lacks a region looks like any other.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import astropy.units as u
import numpy as np
from astropy.coordinates import Angle

from skyloom.core.drawn_regions import SHAPES, DrawnRegion
from skyloom.errors import FileFormatError, InputError
from skyloom.io.formats.atomic import atomic_path

__all__ = ["is_region_file", "parse_regions", "read_regions", "region_text", "write_regions"]

_FRAMES = {"image": "image", "fk5": "fk5", "j2000": "fk5", "icrs": "icrs", "galactic": "galactic"}
_OTHER_FRAMES = frozenset(
    {"physical", "fk4", "b1950", "ecliptic", "detector", "amplifier", "linear", "wcs", "tile"}
)
_NAMES = {shape: shape for shape in SHAPES} | {"rotbox": "box"}
_COMMAND = re.compile(r"([-+!]?)\s*([A-Za-z]\w*)\s*\(?\s*([^()]*?)\s*\)?\s*$")
_TEXT = re.compile(r"""\btext\s*=\s*(?:\{([^}]*)\}|"([^"]*)"|'([^']*)')""")
_INCLUDE = re.compile(r"\binclude\s*=\s*([01])")
_SIZE_UNITS = {'"': 1.0, "'": 60.0, "d": 3600.0, "r": float(np.degrees(1.0)) * 3600.0}  # in arcsec
HEADER = "# Region file format: DS9 version 4.1"
PROPERTIES = 'global color=green dashlist=8 3 width=1 font="helvetica 10 normal roman" select=1 fixed=0'


class _Command(NamedTuple):
    """One drawing command, cut into words."""

    sign: str
    shape: str
    words: list[str]
    comment: str


def is_region_file(path: str | Path) -> bool:
    """Tell whether a file is meant to be a region file: by its suffix, or by what DS9 writes into its first line."""
    place = Path(path)
    if place.suffix.lower() == ".reg":
        return True
    try:
        with place.open("rb") as stream:
            return stream.read(24).startswith(b"# Region file format")
    except OSError:
        return False


def read_regions(path: str | Path, *, only: Collection[str] | None = None) -> list[DrawnRegion]:
    """Read a region file of DS9.

    Parameters
    ----------
    path : str or path
    only : collection of str, optional
        Shapes that are wanted; all others, known or not, are left out.

    Returns
    -------
    list of DrawnRegion
        In the order of the file; an annulus of several rings is several annuli.

    Raises
    ------
    InputError
        When there is no such file.
    FileFormatError
        When it is no region file, or has something that cannot be read; the field names the line.
    """
    source = Path(path)
    if not source.is_file():
        raise InputError.missing(source, field="regions")
    try:
        text = source.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FileFormatError(
            "is no text", source=source, remedy="give a region file of DS9 (.reg)"
        ) from error
    return parse_regions(text, source=source, only=only)


def parse_regions(
    text: str, *, source: str | Path | None = None, only: Collection[str] | None = None
) -> list[DrawnRegion]:
    """Return the regions in a text; see `read_regions`."""
    found: list[DrawnRegion] = []
    frame: str | None = None
    included = True
    for number, line in enumerate(text.splitlines(), start=1):
        plain, _, comment = line.strip().partition("#")
        if plain.strip().lower().startswith("global"):
            included = _included(plain + comment, included)
            continue
        try:
            for word in filter(None, (part.strip() for part in plain.split(";"))):
                if word.lower() in _FRAMES or word.lower() in _OTHER_FRAMES:
                    frame = word.lower()
                    continue
                command = _command(word, comment)
                if only is not None and command.shape not in only:
                    continue
                found += _regions(command, frame, included)
        except (InputError, ValueError, u.UnitsError) as error:
            raise _located(error, source, number) from error
    return found


def _located(error: Exception, source: str | Path | None, number: int) -> FileFormatError:
    """Return an error that names the line, whatever kind it was of."""
    if isinstance(error, InputError):
        return FileFormatError(error.message, source=source, field=f"line {number}", remedy=error.remedy)
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return FileFormatError(
        f"cannot be read: {reason}",
        source=source,
        field=f"line {number}",
        remedy='expected a line like circle(150.1,2.2,3")',
    )


def _included(text: str, default: bool) -> bool:
    match = _INCLUDE.search(text)
    return default if match is None else match[1] == "1"


def _command(word: str, comment: str) -> _Command:
    match = _COMMAND.match(word)
    if match is None:
        raise InputError(f"{word!r} is no region", remedy="expected shape(numbers), such as circle(10,20,3)")
    sign, name, rest = match.groups()
    return _Command(sign, _NAMES.get(name.lower(), name.lower()), re.split(r"[,\s]+", rest), comment)


def _regions(command: _Command, frame: str | None, included: bool) -> Iterator[DrawnRegion]:
    """Yield what a command draws: one region, or the rings of an annulus."""
    shape, words = command.shape, command.words
    if shape not in SHAPES:
        raise InputError(
            f"{shape!r} cannot be used as an area", remedy=f"draw it as one of {', '.join(SHAPES)}"
        )
    if frame is None or frame in _OTHER_FRAMES:
        raise InputError(
            f"{shape} in the frame {frame}" if frame else f"{shape} before any frame is named",
            remedy="save the regions in image, fk5, icrs or galactic coordinates",
        )
    known: Any = _FRAMES[frame]
    n_points = len(words) // 2 if shape == "polygon" else 1
    if len(words) < 2 or (shape == "polygon" and len(words) % 2):
        raise InputError(f"{shape} has {len(words)} numbers", remedy="expected pairs of coordinates")
    points = [_place(words[2 * i], words[2 * i + 1], known) for i in range(n_points)]
    rest = [] if shape == "polygon" else words[2:]
    sizes, unit, angle = _sizes(shape, rest, known)
    match = _TEXT.search(command.comment)
    text = "" if match is None else next(part for part in match.groups() if part is not None)
    include = _included(command.comment, included) if not command.sign else command.sign == "+"
    for ring in sizes:
        yield DrawnRegion(shape, known, np.array(points), ring, unit, angle, include, text)


def _place(first: str, second: str, frame: str) -> tuple[float, float]:
    """Return a position: degrees, or pixels counted from 0."""
    if frame == "image":
        return float(first.rstrip("ip")) - 1.0, float(second.rstrip("ip")) - 1.0
    return _degrees(first, u.deg if frame == "galactic" else u.hourangle), _degrees(second, u.deg)


def _degrees(text: str, sexagesimal: u.UnitBase) -> float:
    """Return an angle in degrees; with colons it is in ``sexagesimal`` units."""
    try:
        return float(text)
    except ValueError:
        pass
    if re.fullmatch(r"[-+]?[\d.]+(?:[eE][-+]?\d+)?[dr]", text):
        value = float(text[:-1])
        return value if text[-1] == "d" else float(np.degrees(value))
    return float(Angle(text, sexagesimal if ":" in text else u.deg).deg)


def _sizes(shape: str, words: list[str], frame: str) -> tuple[list[tuple[float, ...]], Any, float]:
    """Return the sizes of each ring, their unit and the angle."""
    turned = shape in ("ellipse", "box")
    count = SHAPES[shape]
    fits = (
        len(words) >= 2 if shape == "annulus" else len(words) in ((count, count + 1) if turned else (count,))
    )
    if not fits:
        rings = " (elliptical rings are not read)" if turned and len(words) > count + 1 else ""
        raise InputError(
            f"{shape} has {len(words) + 2} numbers{rings}",
            remedy=f"expected a position, {count} sizes{' and an angle' if turned else ''}",
        )
    angle = _degrees(words[count], u.deg) if turned and len(words) > count else 0.0
    values = [_size(word, frame) for word in (words if shape == "annulus" else words[:count])]
    units = {unit for _, unit in values}
    if len(units) > 1:
        raise InputError(f"{shape} mixes pixels and angles", remedy="give all its sizes in one unit")
    numbers = [value for value, _ in values]
    unit = units.pop() if units else "arcsec"
    if shape == "annulus":
        return list(pairwise(numbers)), unit, 0.0
    return [tuple(numbers)], unit, angle


def _size(word: str, frame: str) -> tuple[float, str]:
    """Return a size in arcsec or pixels; plain numbers are pixels in images and degrees on the sky."""
    if word[-1:] in _SIZE_UNITS:
        return float(word[:-1]) * _SIZE_UNITS[word[-1]], "arcsec"
    if word[-1:] in ("p", "i"):
        return float(word[:-1]), "pixel"
    return (float(word), "pixel") if frame == "image" else (3600.0 * float(word), "arcsec")


# --- writing -----------------------------------------------------------------------------------------


def write_regions(regions: Iterable[DrawnRegion], path: str | Path, *, overwrite: bool = False) -> Path:
    """Write regions as a file that DS9 opens; return its path.

    Raises
    ------
    InputError
        When the file exists.
    """
    lines = [HEADER, PROPERTIES]
    frame = ""
    for region in regions:
        if region.frame != frame:
            frame = region.frame
            lines.append(frame)
        lines.append(region_text(region))
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Path(path)


def region_text(region: DrawnRegion) -> str:
    """Return a region as a line of a region file, without its frame."""
    image = region.frame == "image"
    # 1e-9 deg are 4e-6 arcsec: less than a pixel of any instrument can show.
    points = [f"{value + 1.0:.6f}" if image else f"{value:.9f}" for value in region.points.ravel()]
    mark = '"' if region.size_unit == "arcsec" else ("" if image else "p")
    sizes = [f"{size:.9g}{mark}" for size in region.sizes]
    angle = [f"{region.angle:.9g}"] if region.shape in ("ellipse", "box") else []
    line = f"{'' if region.include else '-'}{region.shape}({','.join([*points, *sizes, *angle])})"
    return f"{line} # text={_quoted(region.text)}" if region.text else line


def _quoted(text: str) -> str:
    flat = " ".join(text.split())
    for first, last in ("{}", '""', "''"):
        if last not in flat and first not in flat:
            return f"{first}{flat}{last}"
    return "{" + flat.replace("{", "(").replace("}", ")") + "}"
