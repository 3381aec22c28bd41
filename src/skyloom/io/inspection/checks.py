"""What is suspicious in a FITS file: each check is a function from what was read to sentences for people."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import astropy.units as u
import numpy as np
from numpy.typing import NDArray

from skyloom.errors import UnitError
from skyloom.io.cubes.layout import error_kind_of
from skyloom.io.formats.files import FitsFile, Hdu, Header
from skyloom.io.formats.headers import parse_bunit
from skyloom.io.hst import exposure_weight_hint, filter_contradiction
from skyloom.io.inspection.scatter import PLAUSIBLE, best_kind

__all__ = [
    "ErrorPlane",
    "Problem",
    "claimed_errors",
    "file_problems",
    "find_error_plane",
    "header_problems",
    "main_problems",
    "plane_problems",
]

Array = NDArray[Any]

_SEVERITIES = ("error", "warning", "note")
# The kinds of errors in words for people.
_WORDS = {"variance": "variance", "sigma": "standard deviation", "inverse_variance": "inverse variance"}
_KINDS_OF_WORDS = {words: kind for kind, words in _WORDS.items()}
_POWER_OF_UNIT = {"variance": 2, "standard deviation": 1, "inverse variance": -2}


@dataclass(frozen=True, slots=True)
class Problem:
    """Something suspicious.

    Attributes
    ----------
    severity : {"error", "warning", "note"}
        error: unusable as it is; warning: probably wrong; note: worth knowing.
    where : str
        Extension or keyword.
    message : str
    """

    severity: str
    where: str
    message: str

    @property
    def rank(self) -> int:
        """0 for the gravest."""
        return _SEVERITIES.index(self.severity)


@dataclass(frozen=True, slots=True)
class ErrorPlane:
    """The errors that belong to the main array of a file.

    Attributes
    ----------
    name : str
        Extension.
    claimed : str
        What its name says: variance, standard deviation or inverse variance.
    found : str
        What fits the scatter of the data best; empty when that cannot be told.
    ratio : float
        Scatter of the data over the claimed error, in standard deviations; NaN when it cannot be measured.
    """

    name: str
    claimed: str
    found: str
    ratio: float

    def describe(self) -> str:
        """Return one line for people."""
        text = f"{self.name}, {self.claimed} by its name"
        if np.isfinite(self.ratio):
            text += f"; the data scatter by {self.ratio:.3g} of it"
        return text


def claimed_errors(name: str) -> str:
    """Return what the name of an extension promises (F814W_VAR: variance), empty when it is no plane of errors."""
    return _WORDS.get(error_kind_of(name), "")


def file_problems(file: FitsFile) -> list[Problem]:
    """Tell what is wrong with the file as such."""
    return [Problem("error", "file", file.truncation().message)] if file.missing_bytes else []


# ------------------------------------------------------------------------------------------------ headers


def header_problems(primary: Header, header: Header, meta: dict[str, Any]) -> list[Problem]:
    """Tell what contradicts itself in the headers of an observation.

    Parameters
    ----------
    primary, header : dict
        Of the primary HDU and of the main extension.
    meta : dict
        What `skyloom.io.hst.hst_meta` made of them.
    """
    problems = []
    instrument, detector = str(meta.get("instrument", "")), str(meta.get("detector", ""))
    contradiction = filter_contradiction(instrument, detector, str(meta.get("band", "")))
    if contradiction:
        problems.append(Problem("warning", "INSTRUME", contradiction))
    hint = exposure_weight_hint(primary, header)
    if hint:
        problems.append(Problem("warning", "WHT", f'{hint}: read it with weight_kind="exposure"'))
    if (
        str(meta.get("telescope", "")).upper() == "HST"
        and "photflam" not in meta
        and header.get("FILETYPE") != "WHT"
    ):
        problems.append(Problem("note", "PHOTFLAM", "absent: counts cannot be turned into fluxes"))
    for keywords in (primary, header):
        problems += _exposure_problems(keywords, header) + _date_problems(keywords)
        if "RADECSYS" in keywords:
            problems.append(Problem("note", "RADECSYS", "the old name of RADESYS: read as such"))
    return problems


def _exposure_problems(keywords: Header, header: Header) -> list[Problem]:
    value = keywords.get("EXPTIME")
    if isinstance(value, str):
        return [Problem("note", "EXPTIME", f"is the text {value!r}; read as a number where it is one")]
    if value == 1.0 and re.search(r"/\s*S|S\^?-1|CPS", str(header.get("BUNIT") or "").upper()):
        return [Problem("note", "EXPTIME", "is 1 s in an image of rates: hardly the true exposure")]
    return []


def _date_problems(keywords: Header) -> list[Problem]:
    problems = []
    for keyword in ("DATE-OBS", "DATE-BEG"):
        value = keywords.get(keyword)
        if isinstance(value, str) and value and not _is_date(value):
            problems.append(Problem("note", keyword, f"{value!r} is not a date of the FITS standard"))
    return problems


def _is_date(text: str) -> bool:
    return bool(re.fullmatch(r"[+-]?\d{4,5}-\d\d-\d\d(T\d\d:\d\d:\d\d(\.\d*)?Z?)?", text.strip()))


# ------------------------------------------------------------------------------------------------- planes


def main_problems(header: Header, label: str, kind: str, placed: bool) -> list[Problem]:
    """Tell what the main array of a file lacks.

    Parameters
    ----------
    header : dict
    label, kind : str
        Its name and what it is, as in `skyloom.io.inspection.inspect.HduSummary`.
    placed : bool
        Whether it has a WCS.
    """
    problems = []
    if kind in ("image", "cube", "labels") and not placed:
        problems.append(Problem("warning", label, "no world coordinates"))
    if kind in ("image", "cube", "spectra", "spectrum"):
        problems += _unit_problems(header, label)
    return problems


def plane_problems(hdu: Hdu, label: str, kind: str, array: Array) -> list[Problem]:
    """Tell what is wrong with the values of one array; ``label`` and ``kind`` as for `main_problems`."""
    problems = []
    bad = int(np.count_nonzero(~np.isfinite(array))) if array.dtype.kind == "f" else 0
    if bad == array.size:
        problems.append(Problem("error", label, "every value is NaN or infinite"))
    elif bad:
        severity = "warning" if bad > 0.5 * array.size else "note"
        problems.append(
            Problem(severity, label, f"{bad} values ({100 * bad / array.size:.3g} %) are NaN or infinite")
        )
    if kind == "weight" or (claimed_errors(hdu.name) and kind != "mask"):
        problems += _weight_problems(array, label)
    if "BLANK" in hdu.header and hdu.is_float:
        problems.append(Problem("note", label, "BLANK has no meaning for floats"))
    return problems


def _unit_problems(header: Header, label: str) -> list[Problem]:
    written = str(header.get("BUNIT") or "").strip()
    if not written:
        return [Problem("warning", label, 'no unit (BUNIT); pass unit="..." when reading it')]
    try:
        parse_bunit(written)
    except UnitError as error:
        return [Problem("warning", label, error.message)]
    return []


def _weight_problems(array: Array, label: str) -> list[Problem]:
    problems = []
    with np.errstate(invalid="ignore"):
        negative, positive = int(np.count_nonzero(array < 0)), int(np.count_nonzero(array > 0))
    if not positive:
        problems.append(Problem("error", label, "no value is positive: no pixel has a known error"))
    if negative:
        problems.append(
            Problem("warning", label, f"{negative} values are negative; they are masked when read")
        )
    return problems


# ------------------------------------------------------------------------------------------------- errors


def find_error_plane(
    file: FitsFile, main: int, kind: str, arrays: dict[int, Array], stretch: int | None = None
) -> tuple[ErrorPlane | None, list[Problem]]:
    """Find the errors of the main array, and compare them with the scatter of its values.

    Parameters
    ----------
    file : FitsFile
    main : int
        Number of the main extension.
    kind : str
        What it is.
    arrays : dict
        Number -> array of every extension that could be read.
    stretch : int, optional
        How many channels of a sampled cube are neighbours.

    Returns
    -------
    plane : ErrorPlane or None
    problems : list of Problem
    """
    data = arrays.get(main)
    if data is None or data.dtype.kind != "f":
        return None, _sibling_note(file, kind)
    for number, hdu in enumerate(file):
        claimed = claimed_errors(hdu.name)
        if claimed and number in arrays and arrays[number].shape == data.shape and number != main:
            axis = {"image": None, "cube": 0}.get(kind, -1)
            found, ratios = best_kind(data, arrays[number], axis=axis, stretch=stretch)
            ratio = ratios[_KINDS_OF_WORDS[claimed]]
            plane = ErrorPlane(hdu.name, claimed, _WORDS.get(found, ""), ratio)
            return plane, _error_problems(plane) + _error_unit_problems(plane, file[main].header, hdu.header)
    return None, _sibling_note(file, kind)


def _sibling_note(file: FitsFile, kind: str) -> list[Problem]:
    if kind not in ("image", "cube", "spectra"):
        return []
    sibling = file.path.with_name(file.path.name.replace("_sci", "_wht"))
    if sibling != file.path and sibling.exists():
        return [Problem("note", "errors", f"not in this file; perhaps in {sibling.name}")]
    return [Problem("note", "errors", "no plane of errors found")]


def _error_problems(plane: ErrorPlane) -> list[Problem]:
    if not np.isfinite(plane.ratio) or 1 / PLAUSIBLE < plane.ratio < PLAUSIBLE:
        return []
    message = f"its name says {plane.claimed}, but the data scatter by {plane.ratio:.3g} of that"
    if plane.found and plane.found != plane.claimed:
        message += f"; it looks like the {plane.found}"
    return [Problem("warning", plane.name, message)]


def _error_unit_problems(plane: ErrorPlane, header: Header, error_header: Header) -> list[Problem]:
    written = [str(keywords.get("BUNIT") or "").strip() for keywords in (header, error_header)]
    if not all(written):
        return []
    try:
        unit, error_unit = (parse_bunit(text) for text in written)
    except UnitError:
        return []  # said by `plane_problems` already
    expected: u.UnitBase = unit ** _POWER_OF_UNIT[plane.claimed]
    if error_unit == expected:
        return []
    if plane.name == "STAT" and plane.found == "variance":
        # Pipelines of MUSE have always written it so; nothing is wrong with the numbers.
        message = f"holds the variance, though its unit is {written[1]!r}"
        return [Problem("note", plane.name, message)]
    message = f"its unit is {written[1]!r}; the {plane.claimed} of {written[0]!r} has another"
    return [Problem("warning", plane.name, message)]
