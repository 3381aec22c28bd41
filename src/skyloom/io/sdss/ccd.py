"""Gain and dark variance of the thirty CCDs of the SDSS camera.

The headers of corrected frames do not tell them. They are the tables "gain" and "darkVariance" of the page `frame` of
the SDSS data model (data.sdss.org/datamodel/files/BOSS_PHOTOOBJ/frames/RERUN/RUN/CAMCOL/frame.html); the camera is that
of Gunn et al. 1998, 10.1086/300645. A few CCDs changed in the course of the survey, at the run given here.
"""

from __future__ import annotations

from typing import NamedTuple

from skyloom.errors import InputError

__all__ = ["BANDS", "Ccd", "ccd"]

BANDS = ("u", "g", "r", "i", "z")
"""The bands of the camera, blue to red."""

# Electrons per data number, one row per camera column, one number per band; and what differs before a run.
_GAIN = {
    1: (1.62, 3.32, 4.71, 5.165, 4.745),
    2: (1.825, 3.855, 4.6, 6.565, 5.155),
    3: (1.59, 3.845, 4.72, 4.86, 4.885),
    4: (1.6, 3.995, 4.76, 4.885, 4.775),
    5: (1.47, 4.05, 4.725, 4.64, 3.48),
    6: (2.17, 4.035, 4.895, 4.76, 4.69),
}
_GAIN_CHANGE = 1100
_GAIN_BEFORE = {(2, "u"): 1.595}
# Variance of the dark current and the read-out together, in squared data numbers.
_DARK_VARIANCE = {
    1: (9.61, 15.6025, 1.8225, 7.84, 0.81),
    2: (12.6025, 1.44, 1.00, 6.25, 1.0),
    3: (8.7025, 1.3225, 1.3225, 4.6225, 1.0),
    4: (12.6025, 1.96, 1.3225, 7.5625, 12.6025),
    5: (9.3025, 1.1025, 0.81, 7.84, 2.1025),
    6: (7.0225, 1.8225, 0.9025, 5.0625, 1.21),
}
_DARK_CHANGE = 1500
_DARK_BEFORE = {(2, "i"): 5.76, (4, "i"): 6.25, (4, "z"): 9.61, (5, "z"): 1.8225}


class Ccd(NamedTuple):
    """What the noise of a CCD is made of.

    Parameters
    ----------
    gain : float
        Electrons per data number.
    dark_variance : float
        Variance of read-out and dark current, in squared data numbers.
    """

    gain: float
    dark_variance: float


def ccd(run: int, camcol: int, band: str) -> Ccd:
    """Return gain and dark variance of the CCD that took a frame.

    Parameters
    ----------
    run : int
        Number of the imaging run, above 0.
    camcol : int
        Column of the camera, 1 to 6.
    band : {"u", "g", "r", "i", "z"}

    Raises
    ------
    InputError
        When there is no such CCD.
    """
    if band not in BANDS:
        raise InputError(
            f"{band!r} is no band of the SDSS camera", field="FILTER", remedy="expected u, g, r, i or z"
        )
    if camcol not in _GAIN:
        raise InputError(
            f"{camcol!r} is no column of the SDSS camera", field="CAMCOL", remedy="expected 1 to 6"
        )
    if run < 1:
        raise InputError(f"{run!r} is no run of the SDSS camera", field="RUN", remedy="expected a number > 0")
    place = BANDS.index(band)
    gain, dark_variance = _GAIN[camcol][place], _DARK_VARIANCE[camcol][place]
    if run < _GAIN_CHANGE:
        gain = _GAIN_BEFORE.get((camcol, band), gain)
    if run < _DARK_CHANGE:
        dark_variance = _DARK_BEFORE.get((camcol, band), dark_variance)
    return Ccd(gain, dark_variance)
