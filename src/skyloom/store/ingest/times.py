"""When something was observed: from what a reader knows, or from the time keywords of a header."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC
from typing import Any, NamedTuple

import erfa
import numpy as np

from skyloom.errors import FileFormatError
from skyloom.io.formats.cards import Header, header_number

__all__ = ["Span", "times_of"]

SECONDS = 86400.0
MJD_ZERO = 2400000.5
J2000 = 51544.0
MOST_APART = 1.0  # Days: MJD-OBS may be the middle and DATE-OBS the night.
_SCALES = {
    "UTC": "utc",
    "UT": "utc",
    "UT1": "utc",
    "GMT": "utc",
    "TAI": "tai",
    "TT": "tt",
    "TDT": "tt",
    "ET": "tt",
}
_SCALES |= {"TDB": "tdb", "TCB": "tcb", "TCG": "tcg"}
_OLD_DATE = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{2})")


class Span(NamedTuple):
    """Start and end of an observation, MJD in TAI, NaN where it is not known; and the exposure time in s."""

    start: float
    stop: float
    exposure: float

    def utc(self) -> tuple[float, float]:
        """Return start and end as MJD in UTC."""
        known = np.isfinite((self.start, self.stop))
        moments = np.where(known, (self.start, self.stop), J2000)
        # What astropy.time does, too, in fifty times as long.
        days, fractions = erfa.taiutc(MJD_ZERO, moments)
        start, stop = np.where(known, (days - MJD_ZERO) + fractions, np.nan).tolist()
        return start, stop


def times_of(meta: Mapping[str, Any], headers: tuple[Header, ...]) -> Span:
    """Return when something was observed.

    Parameters
    ----------
    meta : mapping
        Of the observation; ``time_start`` and ``time_stop`` (MJD in TAI) and ``exposure`` (s) go before headers.
    headers : tuple of dict
        The first one that has a keyword is believed.

    Raises
    ------
    FileFormatError
        When DATE-OBS is the only time and cannot be read, contradicts MJD-OBS, or TIMESYS is unknown.

    Notes
    -----
    Headers: EXPSTART and EXPEND, MJD-BEG and MJD-END, MJD-OBS, DATE-OBS (with TIME-OBS), in the scale TIMESYS, which
    is UTC where it is absent (Rots et al. 2015, 10.1051/0004-6361/201424653).
    """
    exposure = _number(meta.get("exposure"))
    if not exposure >= 0:
        exposure = _first(headers, "TEXPTIME", "EXPTIME")
    start, stop = _number(meta.get("time_start")), _number(meta.get("time_stop"))
    if math.isnan(start):
        scale = _scale(headers)
        start, stop = (_converted(value, scale, "tai") for value in _header_times(headers))
    if math.isnan(stop) and not math.isnan(start):
        stop = start + (exposure / SECONDS if exposure > 0 else 0.0)
    return Span(start, stop, exposure)


def _header_times(headers: tuple[Header, ...]) -> tuple[float, float]:
    """Return start and end in the scale of the header."""
    date = _date(headers)
    for first, last in (("EXPSTART", "EXPEND"), ("MJD-BEG", "MJD-END"), ("MJD-OBS", "")):
        start = _first(headers, first)
        if math.isnan(start):
            continue
        if isinstance(date, float) and abs(date - start) > MOST_APART:
            raise FileFormatError(
                f"DATE-OBS is MJD {date:.5f}, {first} is {start:.5f}",
                field="DATE-OBS",
                remedy="correct the one that is wrong",
            )
        return start, _first(headers, last)
    if isinstance(date, str):
        raise FileFormatError(
            f"{date!r} is no date", field="DATE-OBS", remedy="write it as YYYY-MM-DDThh:mm:ss"
        )
    return date, np.nan


def _date(headers: tuple[Header, ...]) -> float | str:
    """Return DATE-OBS as MJD, NaN where it is absent, its text where it is no date."""
    for header in headers:
        date, clock = (str(header.get(key) or "").strip() for key in ("DATE-OBS", "TIME-OBS"))
        if not date:
            continue
        old = _OLD_DATE.fullmatch(date)
        if old:
            # The form before 2000: day, month and year of the century.
            date = f"19{old[3]}-{int(old[2]):02d}-{int(old[1]):02d}"
        text = f"{date}T{clock}" if clock and "T" not in date else date
        return _parsed(text)
    return np.nan


def _parsed(text: str) -> float | str:
    from datetime import datetime

    try:
        # Leap seconds (23:59:60) are beyond datetime, and astropy takes a millisecond for each of the others.
        moment = datetime.fromisoformat(text.rstrip("Z"))
    except ValueError:
        return _parsed_slowly(text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return 40587.0 + moment.timestamp() / SECONDS


def _parsed_slowly(text: str) -> float | str:
    from astropy.time import Time

    try:
        return float(Time(text, format="isot" if "T" in text else "iso", scale="utc").mjd)
    except ValueError:
        return text


def _scale(headers: tuple[Header, ...]) -> str:
    for header in headers:
        written = str(header.get("TIMESYS") or "").strip().upper()
        if written:
            name = written.partition("(")[0]
            if name not in _SCALES:
                raise FileFormatError(
                    f"{written!r} is no known time scale",
                    field="TIMESYS",
                    remedy=f"known: {', '.join(_SCALES)}",
                )
            return _SCALES[name]
    return "utc"


def _converted(mjd: float, scale: str, wanted: str) -> float:
    """Return an MJD in another time scale."""
    if not math.isfinite(mjd) or scale == wanted:
        return mjd
    from astropy.time import Time

    return float(getattr(Time(mjd, format="mjd", scale=scale), wanted).mjd)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _first(headers: tuple[Header, ...], *keywords: str) -> float:
    """Return the first of the keywords that any header has."""
    for keyword in keywords:
        for header in headers:
            value = header_number(header, keyword) if keyword else None
            if value is not None:
                return value
    return math.nan
