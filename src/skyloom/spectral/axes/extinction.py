"""Extinction by dust of the Milky Way, and its removal from observed cubes and spectra."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from skyloom.core.cube import Cube
from skyloom.core.extinction import CURVES, extinction_curve
from skyloom.core.linelist import convert_medium
from skyloom.core.provenance import step
from skyloom.core.spectra import Spectra
from skyloom.errors import InputError
from skyloom.spectral.axes.rest_frame import applied_redshift
from skyloom.spectral.axes.scaling import scale_subject

__all__ = ["CURVES", "deredden", "dereddening_factor", "extinction_curve"]

Subject = TypeVar("Subject", Cube, Spectra)
Float = NDArray[np.float64]
CORRECTING_STEPS = ("deredden", "prepare_cube")


def deredden(
    subject: Subject,
    *,
    av: float | None = None,
    ebv: float | None = None,
    r_v: float = 3.1,
    curve: str = "fitzpatrick99",
    if_corrected: str = "refuse",
) -> Subject:
    """Take out the extinction by the Milky Way.

    Parameters
    ----------
    subject : Cube or Spectra
        In the observed frame or, by ``meta["redshift_applied"]``, in a rest frame: the dust always sees the observed
        wavelengths. Air wavelengths are converted to vacuum.
    av, ebv : float
        A_V, or E(B-V) = A_V / R_V, in magnitudes; exactly one of them.
    r_v : float
        A_V / E(B-V).
    curve : {"fitzpatrick99", "ccm89", "odonnell94"}
        See `extinction_curve`.
    if_corrected : {"refuse", "proceed"}
        What to do when the object says that it has been corrected (by its reader, ``meta["milky_way_corrected"]``, or
        by its history).

    Returns
    -------
    Cube or Spectra
        Data (n_wave, ...) times ``f = 10^(0.4 A)``, variance times f^2; correlations, mask and LSF are the same.
        ``meta["milky_way_corrected"]`` is True.

    Raises
    ------
    InputError
        When not exactly one of ``av`` and ``ebv`` is given, it is negative or not finite, the wavelengths are outside
        the curve's range, or the object was corrected before.
    """
    factor, figures = dereddening_factor(
        subject, av=av, ebv=ebv, r_v=r_v, curve=curve, if_corrected=if_corrected
    )
    meta = {**subject.meta, "milky_way_corrected": True}
    return scale_subject(subject, factor, step("deredden", **figures), meta=meta)


def dereddening_factor(
    subject: Cube | Spectra,
    *,
    av: float | None = None,
    ebv: float | None = None,
    r_v: float = 3.1,
    curve: str = "fitzpatrick99",
    if_corrected: str = "refuse",
) -> tuple[Float, dict[str, Any]]:
    """Return the factor per channel that `deredden` applies, and what its history says."""
    if if_corrected not in ("refuse", "proceed"):
        raise InputError(
            f"if_corrected is {if_corrected!r}; expected 'refuse' or 'proceed'", field="if_corrected"
        )
    magnitudes = _visual_extinction(subject, av, ebv, r_v)
    reason = _why_corrected(subject)
    if reason and if_corrected == "refuse":
        raise InputError(
            f"the extinction of the Milky Way has been taken out already ({reason})",
            field="milky_way_corrected",
            remedy='leave this step out, or say if_corrected="proceed" when you know better',
        )
    observed = subject.wave * (1.0 + applied_redshift(subject))
    vacuum = convert_medium(observed, subject.medium, "vacuum")  # type: ignore[arg-type]  # checked by the object
    curve_values = extinction_curve(vacuum, curve, r_v)
    with np.errstate(
        over="ignore"
    ):  # A factor beyond all numbers is refused where it is applied, with its wavelength.
        factor = 10.0 ** (0.4 * magnitudes * curve_values)
    return factor, {"av": magnitudes, "r_v": float(r_v), "curve": curve}


def _visual_extinction(subject: Cube | Spectra, av: float | None, ebv: float | None, r_v: float) -> float:
    if (av is None) == (ebv is None):
        known = subject.meta.get("ebv")
        hint = "" if known is None else f"; the header says E(B-V) = {known}"
        raise InputError(
            f"{'neither av nor ebv' if av is None else 'both av and ebv'} given; exactly one is needed{hint}",
            field="av",
            remedy="give av, or ebv (= av / r_v)",
        )
    name, value = ("av", av) if ebv is None else ("ebv", ebv)
    if value is None or not (np.isfinite(value) and value >= 0):
        raise InputError(f"{name} is {value}; expected magnitudes >= 0", field=name)
    return float(value) if name == "av" else float(value) * r_v


def _why_corrected(subject: Cube | Spectra) -> str:
    for item in subject.history:
        if item.name in CORRECTING_STEPS and item.parameters.get("av") is not None:
            return f"its history holds {item.name} with A_V = {item.parameters['av']:.4g}"
    return "its file says so" if subject.meta.get("milky_way_corrected") else ""
