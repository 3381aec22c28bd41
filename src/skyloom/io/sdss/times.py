"""Times in the headers of SDSS: seconds of TAI since MJD 0, dates in TAI, and nights."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import Any

from skyloom.errors import FileFormatError
from skyloom.io.formats.cards import Header, header_number

__all__ = ["SECONDS_PER_DAY", "frame_start", "mjd_of_date", "spectrum_times"]

SECONDS_PER_DAY = 86400.0
_MJD_ZERO = dt.date(1858, 11, 17)
# The imaging camera was used from May 1998 to November 2009, the spectrographs from 1999 on; MJD.
_CAMERA_LIFE = (50900.0, 55200.0)
# TAIHMS is rounded to hundredths of a second, in early runs to whole seconds.
_TOLERANCE = 1.5
# A night of the survey with number N lasts from N - 0.3 to N + 0.7 in MJD: it begins in the afternoon at Apache Point.
_NIGHT = (-0.3, 0.7)


def mjd_of_date(date: str, clock: str = "") -> float:
    """Return the MJD of a date ``YYYY-MM-DD`` (also with ``Thh:mm:ss``) or, of early runs, ``DD/MM/YY``.

    Parameters
    ----------
    date : str
    clock : str
        Time ``hh:mm:ss.ss``, where the date has none.

    Raises
    ------
    ValueError
        When there is no such date or time.
    """
    day, _, inside = date.strip().partition("T")
    old = re.fullmatch(r"(\d\d)/(\d\d)/(\d\d)", day)
    if old:
        year = int(old[3])
        place = dt.date(year + (1900 if year >= 50 else 2000), int(old[2]), int(old[1]))
    else:
        place = dt.date.fromisoformat(day)
    parts = re.fullmatch(r"(\d{1,2}):(\d{1,2}):(\d{1,2}(?:\.\d*)?)", (inside or clock).strip() or "0:0:0")
    if parts is None or int(parts[1]) > 23 or int(parts[2]) > 59 or float(parts[3]) >= 61:
        raise ValueError(f"{inside or clock!r} is no time of day")
    seconds = 3600 * int(parts[1]) + 60 * int(parts[2]) + float(parts[3])
    return (place - _MJD_ZERO).days + seconds / SECONDS_PER_DAY


def frame_start(header: Header, path: Path) -> float | None:
    """Return when row 0 of a frame was read out (MJD, TAI), None where the header does not tell.

    Raises
    ------
    FileFormatError
        When DATE-OBS and TAIHMS are no date, contradict TAI, or the camera was not in use then.
    """
    seconds = header_number(header, "TAI")
    tai = None if seconds is None else seconds / SECONDS_PER_DAY
    date = str(header.get("DATE-OBS") or "").strip()
    clock = str(header.get("TAIHMS") or "").strip()
    dated = None
    if date and (clock or "T" in date):
        try:
            dated = mjd_of_date(date, clock)
        except ValueError as error:
            raise _wrong(f"{date} {clock} is no time ({error})", path) from None
    if tai is not None and dated is not None and abs(tai - dated) * SECONDS_PER_DAY > _TOLERANCE:
        raise _wrong(
            f"{date} {clock} contradicts TAI, which is {abs(tai - dated) * SECONDS_PER_DAY:.6g} s"
            f" {'later' if tai > dated else 'earlier'}",
            path,
        )
    start = tai if tai is not None else dated
    if start is not None and not _CAMERA_LIFE[0] < start < _CAMERA_LIFE[1]:
        shown = f"{date} {clock}".strip() or f"TAI {seconds}"
        raise _wrong(f"{shown}: the camera of SDSS was not in use then", path)
    return start


def _wrong(message: str, path: Path) -> FileFormatError:
    return FileFormatError(
        message, source=path, field="DATE-OBS", remedy="fetch the file again, or correct its header"
    )


def spectrum_times(header: Header, exposures: list[tuple[float, float]], path: Path) -> dict[str, Any]:
    """Return when a coadded spectrum was taken (MJD, TAI).

    Parameters
    ----------
    header : dict
        Of the primary HDU.
    exposures : list of (begin, end)
        In seconds of TAI, of the single exposures where the file holds them.
    path : path

    Returns
    -------
    dict
        time_start, time_stop, and time_from, which says how they are known: the exposures, the header, or (as most
        files keep no more) the nights of MJDLIST. Empty where nothing is known. TAI of a coadd is a mean over
        exposures, perhaps of several nights, and so no time of any of them.

    Raises
    ------
    FileFormatError
        When the mean time lies outside the nights.
    """
    begin, end = header_number(header, "TAI-BEG"), header_number(header, "TAI-END")
    nights = [int(text) for text in re.findall(r"\d{5}", str(header.get("MJDLIST") or ""))]
    if not nights and header_number(header, "MJD") is not None:
        nights = [int(header_number(header, "MJD") or 0)]
    mean = header_number(header, "TAI")
    _check_nights(nights, mean, path)
    if exposures:
        first, last, source = min(e[0] for e in exposures), max(e[1] for e in exposures), "exposures"
    elif begin is not None and end is not None and end > begin:
        first, last, source = begin, end, "header"
    elif nights:
        first, last = ((night + shift) * SECONDS_PER_DAY for night, shift in _night_span(nights))
        source = "nights"
    else:
        return {}
    return {"time_start": first / SECONDS_PER_DAY, "time_stop": last / SECONDS_PER_DAY, "time_from": source}


def _night_span(nights: list[int]) -> tuple[tuple[int, float], tuple[int, float]]:
    return (min(nights), _NIGHT[0]), (max(nights), _NIGHT[1])


def _check_nights(nights: list[int], mean: float | None, path: Path) -> None:
    if not nights or mean is None:
        return
    if not min(nights) + _NIGHT[0] < mean / SECONDS_PER_DAY < max(nights) + _NIGHT[1]:
        raise FileFormatError(
            f"the mean time of the exposures is MJD {mean / SECONDS_PER_DAY:.3f}, outside the nights"
            f" {', '.join(map(str, nights))}",
            source=path,
            field="TAI",
            remedy="fetch the file again, or correct its header",
        )
