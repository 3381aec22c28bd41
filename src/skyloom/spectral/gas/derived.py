"""What line fluxes say about the gas: ratios, dust, and the kind of diffuse gas; with errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntFlag
from typing import NamedTuple

import astropy.units as u
import numpy as np
from astropy.table import QTable
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from skyloom.core.line_fit import LineFit, LineFlag
from skyloom.core.linelist import default_lines
from skyloom.errors import InputError
from skyloom.spectral.axes.extinction import extinction_curve

__all__ = [
    "BALMER_RATIO",
    "EW_CLASSES",
    "DerivedFlag",
    "LineRatio",
    "add_classes",
    "balmer_extinction",
    "deredden_lines",
    "empty_table",
    "ew_classes",
    "line_ratio",
]

Float = NDArray[np.float64]
Covariances = Mapping[tuple[str, str], ArrayLike]

BALMER_RATIO = 2.86
"""Halpha over Hbeta, case B, 10^4 K, 100 cm-3 (Osterbrock & Ferland 2006)."""

SNR_FLOOR = 3.0


class DerivedFlag(IntFlag):
    """Why a derived quantity needs care; 0 is a clean one."""

    UNKNOWN = 1  # a line is missing, or its flux is not positive: NaN
    FAINT = 2  # a line has a signal over noise below the floor: errors are rough
    NEGATIVE = 4  # negative extinction, kept with its sign: consistent with none, or another intrinsic ratio
    LOW_DENSITY = 8  # the ratio reaches its low-density limit within its error: only an upper limit
    HIGH_DENSITY = 16  # the ratio reaches its high-density limit within its error: only a lower limit
    UNCERTAIN = 32  # the errors reach across a line between classes
    DOUBTFUL_FIT = 64  # a line's fit is flagged (at a bound, not converged, ratio held)


_DOUBTFUL = LineFlag.AT_BOUND | LineFlag.NOT_CONVERGED | LineFlag.RATIO_AT_BOUND


class LineRatio(NamedTuple):
    """Natural logarithm of a ratio of (sums of) lines, its variance, and why it needs care."""

    log: Float
    variance: Float
    flag: NDArray[np.int64]


def line_ratio(
    lines: LineFit | QTable,
    above: Sequence[str],
    below: Sequence[str],
    *,
    covariance: Covariances | None = None,
    snr_floor: float = SNR_FLOOR,
) -> LineRatio:
    """Return ln(sum of lines above / sum of lines below).

    Parameters
    ----------
    lines : LineFit or QTable
        With ``{line}_flux``, ``_flux_err`` and, optionally, ``_flag``.
    above, below : sequence of str
        Keys of lines; their fluxes are added.
    covariance : mapping of (key, key) to (n,) array, optional
        Covariance of two fluxes, in the unit of the flux squared. Pairs that are not named are independent.
    snr_floor : float
        Below it `DerivedFlag.FAINT` is set.

    Notes
    -----
    With the sums A and B, ``Var = s_A^2 / A^2 + s_B^2 / B^2 - 2 cov(A, B) / (A B)``, to first order: at a signal over
    noise S of one line the mean logarithm is off by ``1 / (2 S^2)``, a tenth of its error at S = 5.
    """
    table = lines.table if isinstance(lines, LineFit) else lines
    keys = (*above, *below)
    missing = [key for key in keys if f"{key}_flux" not in table.colnames]
    n = len(table)
    if missing:
        nothing = np.full(n, np.nan)
        return LineRatio(nothing, nothing.copy(), np.full(n, int(DerivedFlag.UNKNOWN)))
    sums = [_sum(table, part, covariance) for part in (above, below)]
    cross = sum(_covariance(covariance, a, b, n) for a in above for b in below)
    (top, top_variance), (bottom, bottom_variance) = sums
    flag = np.zeros(n, dtype=np.int64)
    with np.errstate(invalid="ignore", divide="ignore"):  # unknown and negative fluxes are flagged below
        faint = (top < snr_floor * np.sqrt(top_variance)) | (bottom < snr_floor * np.sqrt(bottom_variance))
        usable = (top > 0) & (bottom > 0) & (top_variance > 0) & (bottom_variance > 0)
        usable &= np.isfinite(top_variance + bottom_variance)
        log = np.where(usable, np.log(np.where(usable, top / bottom, 1.0)), np.nan)
        variance = top_variance / top**2 + bottom_variance / bottom**2 - 2.0 * cross / (top * bottom)
    flag[faint] |= DerivedFlag.FAINT
    flag[~usable] |= DerivedFlag.UNKNOWN
    for key in keys:
        if f"{key}_flag" in table.colnames:
            bad = (np.asarray(table[f"{key}_flag"], dtype=np.int64) & int(_DOUBTFUL)) > 0
            flag[bad & usable] |= DerivedFlag.DOUBTFUL_FIT
    return LineRatio(log, np.where(usable, np.maximum(variance, 0.0), np.nan), flag)


def _sum(table: QTable, keys: Sequence[str], covariance: Covariances | None) -> tuple[Float, Float]:
    unit = table[f"{keys[0]}_flux"].unit or u.one
    flux = sum(_plain(table, f"{key}_flux", unit) for key in keys)
    variance = sum(_plain(table, f"{key}_flux_err", unit) ** 2 for key in keys)
    for number, first in enumerate(keys):
        for second in keys[number + 1 :]:
            variance = variance + 2.0 * _covariance(covariance, first, second, len(table))
    return np.asarray(flux), np.asarray(variance)


def _plain(table: QTable, column: str, unit: u.UnitBase) -> Float:
    return np.asarray(u.Quantity(table[column]).to_value(unit), dtype=np.float64)


def _covariance(covariance: Covariances | None, first: str, second: str, n: int) -> Float:
    known = covariance or {}
    value = known.get((first, second), known.get((second, first), 0.0))
    return np.broadcast_to(np.asarray(value, dtype=np.float64), (n,))


def empty_table(lines: LineFit | QTable) -> tuple[QTable, QTable]:
    """Return the table of the lines, and a new one of the same bins that knows what flags mean."""
    table = lines.table if isinstance(lines, LineFit) else lines
    ids = np.asarray(table["id"]) if "id" in table.colnames else np.arange(len(table))
    result = QTable({"id": ids})
    result.meta["meanings"] = {"flag": {int(flag): str(flag.name) for flag in DerivedFlag}}
    return table, result


# --- dust ------------------------------------------------------------------------------------------------


def balmer_extinction(
    lines: LineFit | QTable,
    *,
    intrinsic: float = BALMER_RATIO,
    curve: str = "fitzpatrick99",
    r_v: float = 3.1,
    covariance: Covariances | None = None,
    snr_floor: float = SNR_FLOOR,
) -> QTable:
    """Extinction from the Balmer decrement.

    Parameters
    ----------
    lines : LineFit or QTable
        With Halpha and Hbeta.
    intrinsic : float
        Halpha over Hbeta without dust; 2.86 for case B at 10^4 K.
    curve, r_v : str, float
        See `skyloom.spectral.axes.extinction.extinction_curve`; taken at the rest wavelengths.
    covariance : mapping, optional
        See `line_ratio`.
    snr_floor : float

    Returns
    -------
    QTable
        ``id``, ``balmer_ratio``, ``ebv`` and ``av_halpha`` (mag), each with ``_err``; ``flag`` (`DerivedFlag`). A
        negative extinction keeps its sign, so that means over many bins stay right, and is flagged. NaN where a flux
        is not positive.

    Raises
    ------
    InputError
        When ``intrinsic`` is not positive, or the curve is unknown.

    Notes
    -----
    ``E(B-V) = 2.5 / (k_Hbeta - k_Halpha) log10(R / R_0)`` with ``k = R_V A / A_V`` (e.g. Dominguez et al. 2013,
    10.1088/0004-637X/763/2/145), and ``A(Halpha) = k_Halpha E(B-V)``; R_0 of Osterbrock & Ferland (2006,
    Astrophysics of gaseous nebulae, table 4.4). A foreground screen is assumed; the error holds the fluxes' only.
    """
    if not intrinsic > 0:
        raise InputError(f"intrinsic is {intrinsic}; expected a ratio > 0", field="intrinsic")
    _, result = empty_table(lines)
    k_alpha, k_beta = (float(value) for value in _reddening(("Halpha", "Hbeta"), curve, r_v))
    ratio = line_ratio(lines, ["Halpha"], ["Hbeta"], covariance=covariance, snr_floor=snr_floor)
    per_log = 2.5 / np.log(10.0) / (k_beta - k_alpha)
    ebv, error = per_log * (ratio.log - np.log(intrinsic)), per_log * np.sqrt(ratio.variance)
    flag = ratio.flag.copy()
    flag[ebv < 0] |= DerivedFlag.NEGATIVE
    result["balmer_ratio"] = np.exp(ratio.log) * u.one
    result["balmer_ratio_err"] = np.exp(ratio.log) * np.sqrt(ratio.variance) * u.one
    result["ebv"], result["ebv_err"] = ebv * u.mag, error * u.mag
    result["av_halpha"], result["av_halpha_err"] = k_alpha * ebv * u.mag, k_alpha * error * u.mag
    result["flag"] = flag
    result.meta |= {"intrinsic": intrinsic, "curve": curve, "r_v": r_v}
    return result


def _reddening(keys: Sequence[str], curve: str, r_v: float) -> Float:
    """A(line) / E(B-V) at rest."""
    waves = [default_lines()[key].rest_vacuum for key in keys]
    return r_v * extinction_curve(waves, curve, r_v)


def deredden_lines(
    lines: LineFit | QTable,
    keys: Sequence[str] | None = None,
    *,
    negative: str = "signed",
    intrinsic: float = BALMER_RATIO,
    curve: str = "fitzpatrick99",
    r_v: float = 3.1,
    covariance: Covariances | None = None,
    snr_floor: float = SNR_FLOOR,
) -> QTable:
    """Fluxes of lines without the dust that the Balmer decrement shows.

    Parameters
    ----------
    lines : LineFit or QTable
    keys : sequence of str, optional
        By default all lines of the default list that are in the table.
    negative : {"signed", "zero"}
        What a negative extinction does: it makes fluxes fainter, which keeps means unbiased, or nothing.
    intrinsic, curve, r_v, covariance, snr_floor
        As for `balmer_extinction`.

    Returns
    -------
    QTable
        ``id``; ``{line}_flux``, ``_flux_err``, in the unit that they came in; ``ebv``, ``ebv_err``, ``flag``.

    Notes
    -----
    ``F_0 = F (R / R_0)^p`` with ``p = k / (k_Hbeta - k_Halpha)``. The errors know that Halpha and Hbeta stand in R:
    those of ``ln F_0 = ln F + p (ln Halpha - ln Hbeta)`` are added by flux, with the covariances, which makes the error
    of Halpha itself larger and that of Hbeta smaller than if R were an independent number.
    """
    if negative not in ("signed", "zero"):
        raise InputError(f"negative is {negative!r}; expected 'signed' or 'zero'", field="negative")
    table, result = empty_table(lines)
    if keys is None:
        keys = [key for key in default_lines().keys if f"{key}_flux" in table.colnames]
    missing = [key for key in keys if f"{key}_flux" not in table.colnames]
    if missing:
        raise InputError(f"the table has no flux of {', '.join(missing)}", field="keys")
    dust = balmer_extinction(
        lines, intrinsic=intrinsic, curve=curve, r_v=r_v, covariance=covariance, snr_floor=snr_floor
    )
    ebv = np.asarray(dust["ebv"].value)
    applied = np.maximum(ebv, 0.0) if negative == "zero" else ebv
    k_alpha, k_beta = _reddening(("Halpha", "Hbeta"), curve, r_v)
    for key, k in zip(keys, _reddening(keys, curve, r_v) if keys else (), strict=True):
        power = np.where(applied == ebv, k / (k_beta - k_alpha), 0.0)
        unit = table[f"{key}_flux"].unit or u.one
        factor = 10.0 ** (0.4 * k * applied)
        error = _dereddened_error(table, key, power, unit, covariance)
        result[f"{key}_flux"] = _plain(table, f"{key}_flux", unit) * factor * unit
        result[f"{key}_flux_err"] = factor * error * unit
    result["ebv"], result["ebv_err"], result["flag"] = dust["ebv"], dust["ebv_err"], dust["flag"]
    result.meta |= {**dust.meta, "negative": negative}
    return result


def _dereddened_error(
    table: QTable, key: str, power: Float, unit: u.UnitBase, covariance: Covariances | None
) -> Float:
    """Error of F (Halpha / Hbeta)^power over the second factor."""
    flux = _plain(table, f"{key}_flux", unit)
    with np.errstate(invalid="ignore", divide="ignore"):  # where the extinction is unknown, so is the result
        # Change of F_0 with each of the three fluxes that enter.
        slopes: dict[str, Float] = {key: np.ones(flux.size)}
        for name, sign in (("Halpha", 1.0), ("Hbeta", -1.0)):
            slope = sign * power * flux / _plain(table, f"{name}_flux", unit)
            slopes[name] = slopes.get(name, np.zeros(flux.size)) + slope
        names = list(slopes)
        variance = sum((slopes[name] * _plain(table, f"{name}_flux_err", unit)) ** 2 for name in names)
        for number, first in enumerate(names):
            for second in names[number + 1 :]:
                shared = _covariance(covariance, first, second, flux.size)
                variance = variance + 2.0 * slopes[first] * slopes[second] * shared
        return np.sqrt(np.maximum(np.asarray(variance), 0.0))


# --- diffuse gas -----------------------------------------------------------------------------------------

EW_CLASSES: Mapping[int, str] = {0: "unknown", 1: "hDIG", 2: "mDIG", 3: "SFc"}
"""Hot low-mass evolved stars, a mixture, star-forming complexes (Lacerda et al. 2018, 10.1093/mnras/stx3022)."""

EW_EDGES = (3.0, 14.0)  # A


def ew_classes(
    lines: LineFit | QTable, *, edges: tuple[float, float] = EW_EDGES, confidence: float = 0.84
) -> QTable:
    """Tell star-forming complexes from diffuse gas by the equivalent width of Halpha.

    Parameters
    ----------
    lines : LineFit or QTable
        With ``Halpha_ew`` (rest frame, positive in emission).
    edges : (float, float)
        A, between hDIG and mDIG, and between mDIG and SFc.
    confidence : float
        A class of lower probability is flagged UNCERTAIN; 0.84 is one standard deviation away from an edge.

    Returns
    -------
    QTable
        ``id``, ``ew``, ``ew_err``, ``class`` (number, `EW_CLASSES`), ``name``, ``probability`` of that class,
        ``p_hDIG``, ``p_mDIG``, ``p_SFc``, ``flag``.

    Notes
    -----
    hDIG below 3 A, mDIG to 14 A, SFc above (Lacerda et al. 2018, 10.1093/mnras/stx3022). Probabilities are those of
    Gaussian errors.
    """
    table, result = empty_table(lines)
    if "Halpha_ew" not in table.colnames:
        raise InputError("the table has no Halpha_ew", field="lines", remedy="fit Halpha")
    width, error = (_plain(table, f"Halpha_{name}", u.AA) for name in ("ew", "ew_err"))
    known = np.isfinite(width) & (error > 0) & np.isfinite(error)
    if "Halpha_flag" in table.colnames:
        nothing = int(LineFlag.NO_CONTINUUM | LineFlag.NOT_COVERED)
        known &= (np.asarray(table["Halpha_flag"], dtype=np.int64) & nothing) == 0
    spread = np.where(known, error, 1.0)
    steps = [ndtr((edge - np.where(known, width, 0.0)) / spread) for edge in edges]
    chances = np.stack([steps[0], steps[1] - steps[0], 1.0 - steps[1]])
    result["ew"], result["ew_err"] = width * u.AA, error * u.AA
    add_classes(result, chances, known, EW_CLASSES, confidence)
    return result


def add_classes(
    table: QTable,
    chances: Float,
    known: NDArray[np.bool_],
    names: Mapping[int, str],
    confidence: float,
    flag: NDArray[np.int64] | None = None,
) -> None:
    """Add the most probable class to a table, with its probability and those of all classes.

    Parameters
    ----------
    table : QTable
        Gains ``class``, ``name``, ``probability``, ``p_{name}`` and ``flag``.
    chances : (n_classes, n) array
        Probabilities of classes 1 to n_classes.
    known : (n,) bool array
        False: class 0.
    names : mapping of int to str
    confidence : float
        In 0 to 1; see `ew_classes`.
    flag : (n,) int array, optional
        What is known to be wrong already.
    """
    if not 0 <= confidence <= 1:
        raise InputError(f"confidence is {confidence}; expected 0 to 1", field="confidence")
    flags = np.zeros(known.size, dtype=np.int64) if flag is None else flag.copy()
    best = chances.argmax(axis=0) if chances.size else np.zeros(known.size, dtype=np.int64)
    probability = np.where(known, np.take_along_axis(chances, best[np.newaxis], axis=0)[0], np.nan)
    flags[~known] |= DerivedFlag.UNKNOWN
    with np.errstate(invalid="ignore"):  # unknown is not uncertain
        flags[probability < confidence] |= DerivedFlag.UNCERTAIN
    code = np.where(known, best + 1, 0)
    table["class"] = code
    table["name"] = np.array([names[number] for number in range(len(names))])[code]
    table["probability"] = probability * u.one
    for number, chance in enumerate(chances, start=1):
        table[f"p_{names[number]}"] = np.where(known, chance, np.nan) * u.one
    table["flag"] = flags
    table.meta["meanings"]["class"] = dict(names)
