"""What the headers of spectra and cubes of any instrument say: unit, place on the sky, circumstances."""

from __future__ import annotations

from typing import Any

import astropy.units as u
from astropy.wcs import WCS

from skyloom.core.units import parse_unit
from skyloom.errors import UnitError
from skyloom.io.formats.files import Hdu, Header, header_number
from skyloom.io.formats.headers import parse_bunit, wcs_from_header

__all__ = ["celestial_wcs", "observation_meta", "unit_of"]


def unit_of(hdu: Hdu, primary: Header, unit: u.UnitBase | str | None) -> tuple[u.UnitBase, tuple[str, ...]]:
    """Return the unit of an array, as asked or as its header says, and a note where the two differ.

    Raises
    ------
    UnitError
        When there is none, or it cannot be read.
    """
    written = str(hdu.header.get("BUNIT") or primary.get("BUNIT") or "").strip()
    if unit is not None:
        chosen = parse_unit(unit)
        try:
            same = not written or parse_bunit(written) == chosen
        except UnitError:
            same = False
        return chosen, () if same else (f"BUNIT says {written!r}; taken as {chosen}, as asked",)
    if not written:
        raise UnitError(
            "the header says no unit",
            source=hdu.file.path,
            field="BUNIT",
            remedy='pass unit="1e-20 erg/(s cm2 AA)", or what it is',
        )
    return parse_bunit(written), ()


def celestial_wcs(hdu: Hdu) -> tuple[WCS | None, tuple[str, ...]]:
    """Return the two-dimensional WCS of a cube, and what is to be said about it.

    Raises
    ------
    FileFormatError
        When its keywords contradict each other.
    """
    wcs, notes = wcs_from_header(_without_third_axis(hdu.header), hdu.shape[1:])
    if wcs is None:
        kinds = "/".join(str(hdu.header.get(f"CTYPE{axis}") or "-").strip() for axis in (1, 2))
        return None, (f"the header does not place the spaxels on the sky (CTYPE {kinds})",)
    return wcs, tuple(note for note in notes if not note.startswith("RADECSYS"))


def _without_third_axis(header: Header) -> Header:
    """Return the keywords of the first two axes: the wavelengths have been read, and cannot spoil the sky any more."""
    flat = {
        key: value
        for key, value in header.items()
        if not (key[-1:] == "3" or "3_" in key) or key.startswith(("A_", "B_", "AP_", "BP_"))
    }
    if "WCSAXES" in flat:
        flat["WCSAXES"] = 2
    return flat


def observation_meta(primary: Header, header: Header, instrument: str = "") -> dict[str, Any]:
    """Return what headers in general say about an observation.

    Parameters
    ----------
    primary, header : dict
        Of the primary HDU and of the data.
    instrument : str
        Overrules INSTRUME.

    Returns
    -------
    dict
        Only what is known: telescope, instrument, object, exposure (s), mjd, date, frame (SPECSYS).
    """
    meta: dict[str, Any] = {}
    texts = {
        "telescope": "TELESCOP",
        "instrument": "INSTRUME",
        "object": "OBJECT",
        "time": "DATE-OBS",
        "frame": "SPECSYS",
    }
    for name, keyword in texts.items():
        value = next((v for h in (primary, header) if (v := str(h.get(keyword) or "").strip())), "")
        if value:
            meta[name] = value
    if instrument:
        meta["instrument"] = instrument
    for name, keyword in (("exposure", "EXPTIME"), ("mjd", "MJD-OBS")):
        numbers = [header_number(h, keyword) for h in (primary, header)]
        known = [number for number in numbers if number is not None]
        if known:
            meta[name] = known[0]
    return meta
