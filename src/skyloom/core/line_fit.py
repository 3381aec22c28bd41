"""`LineFit`: what a fit of lines found, spectrum by spectrum."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntFlag
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import QTable
from numpy.typing import NDArray

from skyloom.core.display import Shown
from skyloom.core.linelist import LineList
from skyloom.core.provenance import Step
from skyloom.errors import ShapeError

__all__ = ["LineFit", "LineFlag"]

Array = NDArray[Any]


class LineFlag(IntFlag):
    """Why the numbers of a line need care; 0 is a clean measurement."""

    NOT_COVERED = 1  # outside the axis, or its channels are masked: all values are NaN
    BORROWED = 2  # too faint for kinematics of its own; flux measured with those of the strongest group
    AT_BOUND = 4  # velocity or width ended at the limit of what is allowed
    NOT_CONVERGED = 8  # the fit ran out of steps
    UNRESOLVED = 16  # not significantly wider than the instrument: sigma is an upper limit
    RATIO_AT_BOUND = 32  # a bounded flux ratio was held at its bound
    TIED = 64  # flux fixed relative to another line, not an independent measurement
    FAINT = 128  # signal over noise below 3: use the upper limit
    NO_CONTINUUM = 256  # no significant continuum at the line: the equivalent width means nothing
    REJECTED = 512  # a broad component that is not needed: no part of the model, an upper limit only


@dataclass(frozen=True, slots=True, eq=False)
class LineFit(Shown):
    """Lines fitted to n spectra.

    Parameters
    ----------
    table : QTable
        One row per spectrum: ``id``, and for every line ``{key}_flux``, ``_flux_err``, ``_velocity``,
        ``_velocity_err`` (optical, relative to the redshift of the fit), ``_sigma``, ``_sigma_err`` (intrinsic),
        ``_sigma_observed``, ``_sigma_observed_err`` (with the instrument), ``_ew``, ``_ew_err`` (rest frame, positive
        in emission), ``_snr``, ``_upper_limit`` (three standard deviations), ``_flag`` (bits of `LineFlag`),
        ``_flux_direct`` and ``_flux_direct_err`` (sum over the channels of the line); then ``chi2``, ``n_channels``,
        ``n_unknown``, ``chi2_dof``, ``n_components``, and ``flag`` (bits that concern the whole fit). A value is NaN
        where a line was not fitted, never 0. With several components ``_flux`` is their sum, ``_velocity`` and
        ``_sigma`` are those of the strongest, ``_flux_1``, ``_velocity_1``, ... those of each in order of dispersion,
        and ``bic_1``, ... the criterion they compete by. With intervals, ``_flux_lower``, ``_flux_upper`` and so on.
    model : (n, n_wave) float array
        The lines, in ``unit``.
    baseline : (n, n_wave) float array
        The polynomials that were fitted with the lines on top of the continuum, 0 between the segments.
    unit : astropy unit
        Of model and baseline.
    wave : (n_wave,) float64 array
        A.
    medium : {"air", "vacuum"}
    lines : LineList
        What was fitted.
    redshift : (n,) array
        What velocities refer to.
    meta, history
        As for `skyloom.Spectra`.
    """

    table: QTable
    model: Array
    baseline: Array
    unit: u.UnitBase
    wave: NDArray[np.float64]
    medium: str
    lines: LineList
    redshift: NDArray[np.float64]
    meta: dict[str, Any] = field(default_factory=dict)
    history: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        expected = (len(self.table), self.wave.size)
        for name in ("model", "baseline"):
            if getattr(self, name).shape != expected:
                raise ShapeError(
                    f"{name} has shape {getattr(self, name).shape}; expected {expected}", field=name
                )

    def __len__(self) -> int:
        return len(self.table)

    def flags(self, key: str) -> NDArray[np.int64]:
        """(n,) bits of `LineFlag` of a line."""
        return np.asarray(self.table[f"{key}_flag"], dtype=np.int64)

    def evolve(self, step: Step | None = None, **changes: Any) -> LineFit:
        """Return a new fit with ``changes`` made and ``step`` added to the history."""
        if step is not None:
            changes["history"] = (*changes.get("history", self.history), step)
        changed: LineFit = replace(self, **changes)
        return changed
