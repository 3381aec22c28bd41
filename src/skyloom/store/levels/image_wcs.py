"""Where the pixels of a coarser level lie on the sky."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.wcs import WCS, DistortionLookupTable, Sip
from numpy.typing import NDArray

from skyloom.errors import InputError

__all__ = ["coarse_wcs"]


def coarse_wcs(wcs: WCS | None, level: int) -> WCS | None:
    """Return the WCS of blocks of ``2^level`` pixels on each axis, the first of which begins at the first pixel.

    Parameters
    ----------
    wcs : astropy.wcs.WCS or None
        Of level 0; with any linear matrix, projection and distortions. Every axis gets coarser, that of wavelength too.
    level : int
        0 or more.

    Notes
    -----
    With ``s = 2^level``: positions count from the corner of the first pixel, at 0.5, so that
    ``CRPIX' = (CRPIX - 0.5) / s + 0.5``; CD, or CDELT, times s. SIP polynomials are pixels as a function of pixels:
    each coefficient times ``s^(p + q - 1)``. Lookup tables of distortions are squeezed and their pixels counted in
    blocks. What is applied in degrees (TPV) stays.

    Raises
    ------
    InputError
        When the level is negative.
    """
    if level < 0:
        raise InputError(f"level is {level}; expected 0 or more", field="level")
    if wcs is None or level == 0:
        return wcs
    side = 2.0**level
    coarse = wcs.deepcopy()
    coarse.wcs.crpix = _position(wcs.wcs.crpix, side)
    if wcs.wcs.has_cd():
        coarse.wcs.cd = np.array(wcs.wcs.cd) * side
    else:
        coarse.wcs.cdelt = np.array(wcs.wcs.cdelt) * side
    if wcs.sip is not None:
        coarse.sip = _coarse_sip(wcs.sip, side)
    for name in ("cpdis1", "cpdis2", "det2im1", "det2im2"):
        setattr(coarse, name, _coarse_table(getattr(wcs, name), side))
    if wcs.pixel_shape is not None:
        coarse.pixel_shape = tuple(-(-size // int(side)) for size in wcs.pixel_shape)
    coarse.wcs.set()
    return coarse


def _position(pixel: Any, side: float) -> NDArray[np.float64]:
    return (np.asarray(pixel, dtype=np.float64) - 0.5) / side + 0.5


def _coarse_sip(sip: Sip, side: float) -> Sip:
    scaled = [_scaled_polynomial(plane, side) for plane in (sip.a, sip.b, sip.ap, sip.bp)]
    return Sip(*scaled, _position(sip.crpix, side))


def _scaled_polynomial(coefficients: Any, side: float) -> NDArray[np.float64] | None:
    if coefficients is None:
        return None
    p, q = np.indices(np.shape(coefficients))
    return np.asarray(coefficients, dtype=np.float64) * side ** (p + q - 1.0)


def _coarse_table(table: DistortionLookupTable | None, side: float) -> DistortionLookupTable | None:
    if table is None:
        return None
    shifts = (np.asarray(table.data, dtype=np.float64) / side).astype(np.float32)
    spacing = tuple(float(step) / side for step in table.cdelt)
    return DistortionLookupTable(
        shifts, tuple(table.crpix), tuple(float(p) for p in _position(table.crval, side)), spacing
    )
