"""Electron density from the ratios of doublets, with limits where a ratio tells no more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import astropy.units as u
import numpy as np
from astropy.table import QTable
from numpy.typing import NDArray

from skyloom.core.line_fit import LineFit, LineFlag
from skyloom.errors import InputError
from skyloom.spectral.gas.derived import SNR_FLOOR, Covariances, DerivedFlag, empty_table, line_ratio

__all__ = ["DENSITY_RATIOS", "DensityRatio", "electron_density"]

Float = NDArray[np.float64]


class DensityRatio(NamedTuple):
    """Ratio of a doublet against density: ``R = a (b + n) / (c + n)``, n in cm-3 at 10^4 K."""

    above: str
    below: str
    a: float
    b: float
    c: float


DENSITY_RATIOS: Mapping[str, DensityRatio] = {
    "SII": DensityRatio("SII6716", "SII6730", 0.4315, 2107.0, 627.1),
    "OII": DensityRatio("OII3729", "OII3726", 0.3771, 2468.0, 638.4),
}
"""Sanders et al. (2016, 10.3847/0004-637X/816/1/23)."""

PROXAUF_RANGE = (40.0, 1e4)  # cm-3, where the authors call their fit sensitive


def electron_density(
    lines: LineFit | QTable,
    doublet: str = "SII",
    *,
    method: str = "sanders16",
    covariance: Covariances | None = None,
    snr_floor: float = SNR_FLOOR,
) -> QTable:
    """Electron density from the ratio of a doublet.

    Parameters
    ----------
    lines : LineFit or QTable
    doublet : {"SII", "OII"}
        6716 / 6731 or 3729 / 3726.
    method : {"sanders16", "proxauf14"}
        "proxauf14" knows [S II] only.
    covariance, snr_floor
        As for `line_ratio`.

    Returns
    -------
    QTable
        ``id``, ``ratio``, ``ratio_err``, ``density`` (cm-3), ``density_low`` and ``density_high`` (where the ratio is
        one standard deviation higher and lower: the central 68 %), ``flag`` (`DerivedFlag`). Beyond a limit of the
        ratio the density is NaN: LOW_DENSITY leaves ``density_high`` as an upper limit (``density_low`` is 0),
        HIGH_DENSITY leaves ``density_low`` as a lower one (``density_high`` is infinite). Both: the ratio says nothing.

    Notes
    -----
    For an electron temperature of 10^4 K; n goes about as ``sqrt(T / 10^4 K)``. "sanders16":
    ``n = (c R - a b) / (a - R)`` (Sanders et al. 2016, 10.3847/0004-637X/816/1/23). "proxauf14":
    ``log n = 0.0543 tan(-3.0553 R + 2.8506) + 6.98 - 10.6905 R + 9.9186 R^2 - 3.5442 R^3`` (Proxauf, Oettl &
    Kimeswenger 2014, 10.1051/0004-6361/201322581), from 40 to 10^4 cm-3; outside it counts as a limit.
    """
    if doublet not in DENSITY_RATIOS:
        raise InputError(f"doublet is {doublet!r}; expected {' or '.join(DENSITY_RATIOS)}", field="doublet")
    if method not in ("sanders16", "proxauf14") or (method == "proxauf14" and doublet != "SII"):
        raise InputError(
            f"method is {method!r} for {doublet}", field="method",
            remedy="choose 'sanders16' (SII, OII) or 'proxauf14' (SII)",
        )  # fmt: skip
    table, result = empty_table(lines)
    relation = DENSITY_RATIOS[doublet]
    found = line_ratio(lines, [relation.above], [relation.below], covariance=covariance, snr_floor=snr_floor)
    ratio = np.exp(found.log)
    error = ratio * np.sqrt(found.variance)
    lowest, highest = _ratio_limits(relation, method)
    # A ratio that noise has carried beyond what is possible must not make the limit on the density tighter.
    possible = np.clip(ratio, lowest, highest)
    middle, low, high = (
        _density(value, relation, method) for value in (ratio, possible + error, possible - error)
    )
    held = np.zeros(len(table), dtype=bool)
    for key in (relation.above, relation.below):
        if f"{key}_flag" in table.colnames:
            held |= (np.asarray(table[f"{key}_flag"], dtype=np.int64) & int(LineFlag.RATIO_AT_BOUND)) > 0
    flag = found.flag.copy()
    flag[(low == 0) | (held & (ratio > 1))] |= DerivedFlag.LOW_DENSITY
    flag[np.isinf(high) | (held & (ratio < 1))] |= DerivedFlag.HIGH_DENSITY
    low[held & (ratio > 1)], high[held & (ratio < 1)] = 0.0, np.inf
    known = np.isfinite(middle) & (middle > 0) & ~held
    result["ratio"], result["ratio_err"] = ratio * u.one, error * u.one
    result["density"] = np.where(known, middle, np.nan) * u.cm**-3
    result["density_low"], result["density_high"] = low * u.cm**-3, high * u.cm**-3
    result["flag"] = flag
    result.meta |= {"method": method, "doublet": doublet}
    return result


def _ratio_limits(relation: DensityRatio, method: str) -> tuple[float, float]:
    """Return the ratios of the highest and the lowest density that can be told."""
    if method == "sanders16":
        return relation.a, relation.a * relation.b / relation.c
    return _proxauf_ratio(PROXAUF_RANGE[1]), _proxauf_ratio(PROXAUF_RANGE[0])


def _density(ratio: Float, relation: DensityRatio, method: str) -> Float:
    """Density in cm-3; 0 beyond the low-density limit of the ratio, infinite beyond the other, NaN for NaN."""
    lowest, highest = _ratio_limits(relation, method)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # beyond the limits, replaced below
        if method == "sanders16":
            density = (relation.c * ratio - relation.a * relation.b) / (relation.a - ratio)
        else:
            density = _proxauf(ratio)
        return np.where(ratio <= lowest, np.inf, np.where(ratio >= highest, 0.0, density))


def _proxauf(ratio: Float) -> Float:
    bend = 0.0543 * np.tan(-3.0553 * ratio + 2.8506)
    return np.asarray(10.0 ** (bend + 6.98 - 10.6905 * ratio + 9.9186 * ratio**2 - 3.5442 * ratio**3))


def _proxauf_ratio(density: float) -> float:
    """The ratio at which the relation, which falls monotonically between its poles, has this density."""
    low, high = 0.43, 1.44
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if float(_proxauf(np.array(middle))) > density else (low, middle)
    return (low + high) / 2
