"""`ContinuumFit`: the stellar continuum of spectra, and what it says about the stars."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntFlag
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import QTable
from numpy.typing import NDArray

from skyloom.core.provenance import Step
from skyloom.core.units import parse_unit
from skyloom.errors import InputError, ShapeError

__all__ = ["MOST_MODES", "ContinuumFit", "ContinuumFlag"]

Array = NDArray[Any]
Float = NDArray[np.float64]
MOST_MODES = 4
WEIGHT_KINDS = ("coefficient", "light", "mass")


class ContinuumFlag(IntFlag):
    """Why a continuum needs care; 0 is a clean fit."""

    NO_DATA = 1  # too few usable channels: every value is NaN
    NOT_COVERED = 2  # the templates do not reach the spectrum at this redshift: every value is NaN
    NEGATIVE = 4  # no template with a positive weight lowers chi square: the model is 0, kinematics are NaN
    LOW_SNR = 8  # too faint for kinematics: velocity and dispersion were held at their start values
    NOT_CONVERGED = 16  # the fit ran out of steps
    VELOCITY_AT_BOUND = 32  # the velocity ended at the limit of what is allowed
    SIGMA_AT_BOUND = 64  # the dispersion ended at its upper limit
    UNRESOLVED = 128  # the dispersion is not significantly above zero
    AV_AT_BOUND = 256  # the attenuation ended at a limit
    TEMPLATES_BROADER = 512  # the templates are broader than the spectrograph in part of the range
    PARTLY_COVERED = 1024  # part of the spectrum lies beyond the templates; no model there (NaN)
    MANY_CLIPPED = 2048  # more than a twentieth of the channels were clipped as outliers
    FAILED = 4096  # the back end gave no result: every value is NaN


UNUSABLE = ContinuumFlag.NO_DATA | ContinuumFlag.NOT_COVERED | ContinuumFlag.FAILED


@dataclass(frozen=True, slots=True, eq=False)
class ContinuumFit:
    """Stellar continua fitted to n spectra.

    Parameters
    ----------
    model : (n, n_wave) float array
        Continuum in ``unit``; NaN where there is none.
    variance : (n, n_wave) float array
        Of the model, channel by channel, in ``unit**2``.
    unit : astropy unit or str
    wave : (n_wave,) float64 array
        A.
    medium : {"air", "vacuum"}
    redshift : (n,) array
        What velocities refer to.
    weights : (n, n_templates) array
        Of the templates, of the kind that ``weight_kind`` names.
    velocity, velocity_err, sigma, sigma_err : (n,) arrays
        km/s; optical velocity relative to ``redshift``, dispersion without the instrument.
    av, av_err : (n,) arrays
        Attenuation A_V, mag.
    chi2_dof : (n,) array
        Chi square per degree of freedom of the channels that were used.
    snr : (n,) array
        Median signal over noise per used channel.
    flags : (n,) int array
        Bits of `ContinuumFlag`.
    reasons : tuple of n str
        What the flags mean for each spectrum; empty for a clean fit.
    age, metallicity : (n_templates,) arrays
        Gyr and [M/H] of the templates.
    templates : str
        Name of the library.
    backend : str
        What made the fit.
    modes : (n, m, n_wave) float array, optional
        Leading shared errors of the model in ``unit``, one standard deviation each, m <= 4: a line whose flux is
        ``sum a_i d_i`` gains the variance ``sum_m (a . mode_m)^2``.
    weight_kind : {"coefficient", "light", "mass"}
        "coefficient": the model is ``weights @ templates`` (broadened, attenuated).
    light_fractions, mass_fractions : (n, n_templates) array, optional
        Each row adds up to 1, or is NaN.
    n_used : (n,) int array, optional
        Channels that entered the fit.
    meta, history
        As for `skyloom.Spectra`.

    Raises
    ------
    ShapeError
        When the arrays do not fit together.
    InputError
        When there are more than four modes, or the kind of the weights is unknown.
    """

    model: Array
    variance: Array
    unit: u.UnitBase
    wave: Float
    medium: str
    redshift: Float
    weights: Float
    velocity: Float
    velocity_err: Float
    sigma: Float
    sigma_err: Float
    av: Float
    av_err: Float
    chi2_dof: Float
    snr: Float
    flags: NDArray[np.int64]
    reasons: tuple[str, ...]
    age: Float
    metallicity: Float
    templates: str
    backend: str
    modes: Array | None = None
    weight_kind: str = "coefficient"
    light_fractions: Float | None = None
    mass_fractions: Float | None = None
    n_used: NDArray[np.int64] | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    history: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "unit", parse_unit(self.unit))
        object.__setattr__(self, "reasons", tuple(self.reasons))
        n, n_templates = self.model.shape[0], self.age.size
        expected: dict[str, tuple[int, ...]] = {
            **dict.fromkeys(("model", "variance"), (n, self.wave.size)),
            **dict.fromkeys(("weights", "light_fractions", "mass_fractions"), (n, n_templates)),
            **dict.fromkeys(("redshift", "velocity", "velocity_err", "sigma", "sigma_err"), (n,)),
            **dict.fromkeys(("av", "av_err", "chi2_dof", "snr", "flags", "n_used"), (n,)),
            "metallicity": (n_templates,),
        }
        for name, shape in expected.items():
            values = getattr(self, name)
            if values is not None and values.shape != shape:
                raise ShapeError(f"{name} has shape {values.shape}; expected {shape}", field=name)
        if len(self.reasons) != n:
            raise ShapeError(f"{len(self.reasons)} reasons for {n} spectra", field="reasons")
        if self.modes is not None:
            if self.modes.ndim != 3 or self.modes.shape[::2] != (n, self.wave.size):
                raise ShapeError(
                    f"modes have shape {self.modes.shape}; expected ({n}, m, {self.wave.size})", field="modes"
                )
            if self.modes.shape[1] > MOST_MODES:
                raise InputError(f"{self.modes.shape[1]} modes; at most {MOST_MODES}", field="modes")
        if self.weight_kind not in WEIGHT_KINDS:
            raise InputError(
                f"weight_kind is {self.weight_kind!r}; expected one of {', '.join(WEIGHT_KINDS)}",
                field="weight_kind",
            )

    def __len__(self) -> int:
        return int(self.model.shape[0])

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(n,) True where there is a model."""
        return np.asarray((self.flags & int(UNUSABLE)) == 0)

    @property
    def mean_age(self) -> Float:
        """(n,) mean of log10(age/yr), weighted by light."""
        return _mean(self.light_fractions, np.log10(self.age) + 9.0, len(self))

    @property
    def mean_age_mass(self) -> Float:
        """(n,) mean of log10(age/yr), weighted by mass."""
        return _mean(self.mass_fractions, np.log10(self.age) + 9.0, len(self))

    @property
    def mean_metallicity(self) -> Float:
        """(n,) mean of [M/H], weighted by light."""
        return _mean(self.light_fractions, self.metallicity, len(self))

    @property
    def mean_metallicity_mass(self) -> Float:
        """(n,) mean of [M/H], weighted by mass."""
        return _mean(self.mass_fractions, self.metallicity, len(self))

    @property
    def table(self) -> QTable:
        """One row per spectrum: ``id``, kinematics, attenuation, quality, means of the population, flag and reason."""
        kms, dex = u.km / u.s, u.dex()
        columns: dict[str, Any] = {
            "id": np.asarray(self.meta.get("labels", np.arange(len(self)))),
            "redshift": self.redshift * u.one,
            "velocity": self.velocity * kms,
            "velocity_err": self.velocity_err * kms,
            "sigma": self.sigma * kms,
            "sigma_err": self.sigma_err * kms,
            "av": self.av * u.mag,
            "av_err": self.av_err * u.mag,
            "chi2_dof": self.chi2_dof * u.one,
            "snr": self.snr * u.one,
            "log_age_light": self.mean_age * dex,
            "log_age_mass": self.mean_age_mass * dex,
            "metallicity_light": self.mean_metallicity * dex,
            "metallicity_mass": self.mean_metallicity_mass * dex,
            "flag": self.flags,
            "reason": np.array(self.reasons, dtype=str),
        }
        if self.n_used is not None:
            columns["n_used"] = self.n_used
        return QTable(columns)

    def evolve(self, step: Step | None = None, **changes: Any) -> ContinuumFit:
        """Return a new fit with ``changes`` made and ``step`` added to the history."""
        if step is not None:
            changes["history"] = (*changes.get("history", self.history), step)
        changed: ContinuumFit = replace(self, **changes)
        return changed


def _mean(fractions: Float | None, values: Float, n: int) -> Float:
    if fractions is None:
        return np.full(n, np.nan)
    return np.asarray(fractions @ values, dtype=np.float64)
