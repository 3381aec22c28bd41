"""Drizzled images of the Hubble Space Telescope: separate sci and wht files, or one with SCI, WHT and CTX."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import astropy.units as u

from skyloom.core.image import Image
from skyloom.core.linelist import default_lines
from skyloom.errors import AssumptionWarning
from skyloom.io.formats.files import FitsFile, Header, header_number
from skyloom.io.images import assemble, find_image

__all__ = ["band_of", "filter_contradiction", "hst_meta", "read_hst", "sniff"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Imaging filters of each camera, from the instrument handbooks (ACS, WFC3, WFPC2; stsci.edu). A filter that a camera
# does not have shows that the header names the wrong camera.
CAMERA_FILTERS: dict[str, frozenset[str]] = {
    "ACS/WFC": _names("f435w f475w f502n f550m f555w f606w f625w f658n f660n f775w f814w f850lp f892n"),
    "ACS/HRC": _names(
        "f220w f250w f330w f344n f435w f475w f502n f550m f555w f606w f625w f658n f660n f775w f814w f850lp f892n"
    ),
    "WFC3/UVIS": _names(
        "f200lp f218w f225w f275w f280n f300x f336w f343n f350lp f373n f390m f390w f395n f410m f438w f467m f469n f475w"
        " f475x f487n f502n f547m f555w f600lp f606w f621m f625w f631n f645n f656n f657n f658n f665n f673n f680n f689m"
        " f763m f775w f814w f845m f850lp f953n"
    ),
    "WFC3/IR": _names(
        "f098m f105w f110w f125w f126n f127m f128n f130n f132n f139m f140w f153m f160w f164n f167n"
    ),
    "WFPC2": _names(
        "f122m f130lp f160bw f165lp f170w f185w f218w f255w f300w f336w f343n f375n f380w f390n f410m f437n f439w f450w"
        " f467m f469n f487n f502n f547m f555w f569w f588n f606w f622w f631n f656n f658n f673n f675w f702w f785lp f791w"
        " f814w f850lp f953n f1042m"
    ),
}


def sniff(file: FitsFile) -> bool:
    """Tell whether a file is an HST image."""
    image = find_image(file, ("SCI",))
    if image is None:
        return False
    return any(
        str(header.get("TELESCOP", "")).strip().upper() == "HST" for header in (file[0].header, image.header)
    )


def read_hst(
    path: str | Path,
    *,
    weight: str | Path | None = None,
    weight_kind: str = "inverse_variance",
    unit: u.UnitBase | str | None = None,
    band: str | None = None,
) -> Image:
    """Read a drizzled HST image with its weight map.

    Parameters
    ----------
    path : str or path
        The science file, or one with the extensions SCI and WHT.
    weight : str or path, optional
        The weight file; by default the extension WHT of ``path``.
    weight_kind : {"inverse_variance", "rms", "exposure"}
        What the weight map holds; see `skyloom.io.images.read_image`.
    unit : unit or str, optional
        Unit of the data where the header has none, e.g. ``"electron/s"``.
    band : str, optional
        Name of the band where the header does not say, e.g. ``"f814w"``.

    Returns
    -------
    Image
        ``meta`` has, as far as the headers say: telescope, instrument, detector, band, exposure (s), time, mjd,
        photflam, photplam, ccd_gain, path, sha256 and the same of the weight.

    Raises
    ------
    FileFormatError, ShapeError, UnitError, InputError
        See `skyloom.io.images.read_image`.
    """

    def describe(primary: Header, header: Header) -> dict[str, Any]:
        meta = hst_meta(primary, header)
        if band is not None:
            meta["band"] = band
        _warn_of_exposure_weight(primary, header, weight_kind, Path(path))
        return meta

    return assemble(path, weight, weight_kind, unit, describe, "read_hst")


def hst_meta(primary: Header, header: Header) -> dict[str, Any]:
    """Return what the headers say about an observation; the science header is asked before the primary one.

    Parameters
    ----------
    primary, header : dict
        Of the primary HDU and of the science extension (the same one for simple files).

    Returns
    -------
    dict
        Only what is known: texts as written (bands in lower case), numbers as floats.
    """
    headers = (header, primary)
    meta: dict[str, Any] = {}
    for name, keyword in (("telescope", "TELESCOP"), ("instrument", "INSTRUME"), ("detector", "DETECTOR")):
        text = _text(headers, keyword)
        if text:
            meta[name] = text
    band = band_of(headers)
    if band:
        meta["band"] = band
    numbers = {
        # Mosaics of rates carry EXPTIME = 1, and the true sum of their exposures as TEXPTIME.
        "exposure": ("TEXPTIME", "EXPTIME"),
        "photflam": ("PHOTFLAM",),
        "photplam": ("PHOTPLAM",),
        "mjd": ("EXPSTART", "MJD-OBS"),
        "ccd_gain": ("CCDGAIN", "ATODGAIN"),
    }
    for name, keywords in numbers.items():
        value = next(
            (v for key in keywords for h in headers if (v := header_number(h, key)) is not None), None
        )
        if value is not None:
            meta[name] = value
    date, time = _text(headers, "DATE-OBS"), _text(headers, "TIME-OBS")
    if date:
        meta["time"] = f"{date}T{time}" if time and "T" not in date else date
    return meta


def _text(headers: tuple[Header, ...], keyword: str) -> str:
    for header in headers:
        value = header.get(keyword)
        if value is not None and str(value).strip():
            return str(value).strip()
    return ""


def band_of(headers: tuple[Header, ...]) -> str:
    """Return the filter in lower case, whichever keyword holds it; empty when none does."""
    for keyword in ("FILTER", "FILTNAM1", "FILTNAM2", "FILTER1", "FILTER2"):
        name = _text(headers, keyword).lower()
        if name and not name.startswith("clear") and not name.isdigit():
            return name
    return ""


def _camera(instrument: str, detector: str) -> str:
    name = instrument.strip().upper()
    return name if name == "WFPC2" else f"{name}/{detector.strip().upper()}"


def filter_contradiction(instrument: str, detector: str, band: str) -> str | None:
    """Return a sentence when a camera has no such filter; None when it has, or the camera is not known here."""
    camera = _camera(instrument, detector)
    filters = CAMERA_FILTERS.get(camera)
    if filters is None or not band or band.lower() in filters or band.lower().startswith("fq"):
        return None
    if band.lower() in {key.lower() for key in default_lines().keys}:
        return None  # the map of a line, made from images of this camera
    owners = [name for name, known in CAMERA_FILTERS.items() if band.lower() in known]
    hint = f"found on {', '.join(owners)}" if owners else "found on no camera of HST known here"
    return f"the header names the camera {camera}, which has no filter {band.upper()} ({hint})"


def exposure_weight_hint(primary: Header, header: Header) -> str | None:
    """Return a sentence when drizzle's keywords say that the weight map holds exposure times."""
    for candidate in (header, primary):
        scale, exposure = header_number(candidate, "D001WTSC"), header_number(candidate, "D001DEXP")
        if scale is not None and scale == exposure and scale != 1.0:
            return f"drizzle weighted by exposure (D001WTSC = D001DEXP = {scale:g} s)"
    return None


def _warn_of_exposure_weight(primary: Header, header: Header, weight_kind: str, path: Path) -> None:
    hint = exposure_weight_hint(primary, header)
    if hint and weight_kind == "inverse_variance":
        warnings.warn(
            f'{path}: {hint}, but the weight map is read as inverse variance; pass weight_kind="exposure"',
            AssumptionWarning,
            stacklevel=5,
        )
