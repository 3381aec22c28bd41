"""Diagrams of line ratios: what ionises the gas, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.table import QTable
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from skyloom.core.line_fit import LineFit
from skyloom.errors import InputError
from skyloom.spectral.gas.derived import SNR_FLOOR, Covariances, DerivedFlag, add_classes, line_ratio

__all__ = [
    "DIAGRAMS",
    "Diagram",
    "bpt_classes",
    "kauffmann_2003",
    "kewley_2001",
    "kewley_2006",
]

Float = NDArray[np.float64]
REACH, NODES = 4.5, 91  # standard deviations and points of the quadrature along x
ROWS = 4096  # points of the diagram at a time


def _hyperbola(x: ArrayLike, slope: float, pole: float, level: float) -> Float:
    place = np.asarray(x, dtype=np.float64)
    left = place < pole
    return np.where(left, slope / np.where(left, place - pole, -1.0) + level, -np.inf)


def kauffmann_2003(x: ArrayLike) -> Float:
    """Return the log [O III]/Hbeta that star formation stays below at x = log [N II]/Halpha.

    ``0.61 / (x - 0.05) + 1.3``, -inf right of 0.05 (Kauffmann et al. 2003, 10.1111/j.1365-2966.2003.07154.x).
    """
    return _hyperbola(x, 0.61, 0.05, 1.3)


def kewley_2001(x: ArrayLike, diagram: str = "NII") -> Float:
    """Return the log [O III]/Hbeta of the theoretical limit of starbursts, -inf right of its pole.

    ``0.61 / (x - 0.47) + 1.19`` for [N II], ``0.72 / (x - 0.32) + 1.30`` for [S II], ``0.73 / (x + 0.59) + 1.33`` for
    [O I] (Kewley et al. 2001, 10.1086/321545).
    """
    curves = {"NII": (0.61, 0.47, 1.19), "SII": (0.72, 0.32, 1.30), "OI": (0.73, -0.59, 1.33)}
    return _hyperbola(x, *curves[_checked(diagram)])


def kewley_2006(x: ArrayLike, diagram: str = "SII") -> Float:
    """Return the log [O III]/Hbeta of the line between Seyferts (above) and LINERs.

    ``1.89 x + 0.76`` for [S II], ``1.18 x + 1.30`` for [O I] (Kewley et al. 2006, 10.1111/j.1365-2966.2006.10859.x).
    """
    lines = {"SII": (1.89, 0.76), "OI": (1.18, 1.30)}
    if diagram not in lines:
        raise InputError(f"the diagram {diagram!r} has no such line; SII and OI have", field="diagram")
    slope, level = lines[diagram]
    return np.asarray(slope * np.asarray(x, dtype=np.float64) + level)


def _checked(diagram: str) -> str:
    if diagram not in ("NII", "SII", "OI"):
        raise InputError(f"diagram is {diagram!r}; expected 'NII', 'SII' or 'OI'", field="diagram")
    return diagram


@dataclass(frozen=True, slots=True)
class Diagram:
    """A diagram of log [O III]/Hbeta (y) against the log ratio x of ``lines`` to Halpha.

    ``regions`` gives, for each class, the range of y at x: (low, high), empty where high <= low.
    """

    lines: tuple[str, ...]
    label: str
    names: Mapping[int, str]
    regions: Callable[[Float], list[tuple[Float, Float]]]


def _nitrogen(x: Float) -> list[tuple[Float, Float]]:
    top = kewley_2001(x, "NII")
    # Left of x = -1.28, where the empirical curve rises above the theoretical one, nothing is composite.
    bottom = np.minimum(kauffmann_2003(x), top)
    everything = np.full(x.shape, np.inf)
    return [(-everything, bottom), (bottom, top), (top, everything)]


def _with_liners(diagram: str) -> Callable[[Float], list[tuple[Float, Float]]]:
    def regions(x: Float) -> list[tuple[Float, Float]]:
        limit, divide = kewley_2001(x, diagram), kewley_2006(x, diagram)
        everything = np.full(x.shape, np.inf)
        return [(-everything, limit), (np.maximum(limit, divide), everything), (limit, divide)]

    return regions


_ACTIVE = {0: "unknown", 1: "star-forming", 2: "Seyfert", 3: "LINER"}
DIAGRAMS: Mapping[str, Diagram] = {
    "NII": Diagram(
        ("NII6583",), "log [N II] 6583 / Hα",
        {0: "unknown", 1: "star-forming", 2: "composite", 3: "AGN"}, _nitrogen,
    ),
    "SII": Diagram(("SII6716", "SII6730"), "log [S II] 6716+6731 / Hα", _ACTIVE, _with_liners("SII")),
    "OI": Diagram(("OI6300",), "log [O I] 6300 / Hα", _ACTIVE, _with_liners("OI")),
}  # fmt: skip


def bpt_classes(
    lines: LineFit | QTable,
    diagram: str = "NII",
    *,
    confidence: float = 0.84,
    snr_floor: float = SNR_FLOOR,
    covariance: Covariances | None = None,
) -> QTable:
    """Tell what ionises the gas, from a diagram of Baldwin, Phillips & Terlevich (1981, 10.1086/130766).

    Parameters
    ----------
    lines : LineFit or QTable
        With Halpha, Hbeta, OIII5007, and NII6583, SII6716 and SII6730, or OI6300.
    diagram : {"NII", "SII", "OI"}
    confidence : float
        A class of lower probability is flagged UNCERTAIN: the errors reach across a line.
    snr_floor : float
        A row with a line (or sum of lines) below stays "unknown".
    covariance : mapping, optional
        See `skyloom.spectral.gas.derived.line_ratio`.

    Returns
    -------
    QTable
        ``id``, ``x``, ``x_err``, ``y``, ``y_err`` (dex), ``class`` (number, `DIAGRAMS`), ``name``, ``probability`` of
        that class, ``p_{name}`` of all, ``flag`` (`skyloom.spectral.gas.derived.DerivedFlag`).

    Notes
    -----
    "NII": star-forming below `kauffmann_2003`, AGN above `kewley_2001`, composite between. "SII", "OI": star-forming
    below `kewley_2001`, above it Seyfert or LINER by `kewley_2006`. The probability of a class is the integral of the
    Gaussian of the two logarithms over its region.
    """
    chart = DIAGRAMS[_checked(diagram)]
    table = lines.table if isinstance(lines, LineFit) else lines
    x = line_ratio(lines, chart.lines, ["Halpha"], covariance=covariance, snr_floor=snr_floor)
    y = line_ratio(lines, ["OIII5007"], ["Hbeta"], covariance=covariance, snr_floor=snr_floor)
    flag = x.flag | y.flag
    known = (flag & int(DerivedFlag.UNKNOWN | DerivedFlag.FAINT)) == 0
    dex = 1.0 / np.log(10.0)
    result = QTable({"id": np.asarray(table["id"]) if "id" in table.colnames else np.arange(len(table))})
    result.meta["meanings"] = {"flag": {int(each): str(each.name) for each in DerivedFlag}}
    for name, ratio in (("x", x), ("y", y)):
        result[name] = ratio.log * dex * u.dex
        result[f"{name}_err"] = np.sqrt(ratio.variance) * dex * u.dex
    shared = _shared(table, chart.lines, covariance) * dex**2
    chances = np.zeros((3, len(table)))
    rows = np.flatnonzero(known)
    for first in range(0, rows.size, ROWS):
        some = rows[first : first + ROWS]
        chances[:, some] = _chances(
            chart, x.log[some] * dex, y.log[some] * dex, x.variance[some] * dex**2, y.variance[some] * dex**2,
            shared[some],
        )  # fmt: skip
    add_classes(result, chances, known, chart.names, confidence, flag)
    result.meta |= {"diagram": diagram, "confidence": confidence, "snr_floor": snr_floor}
    return result


def _shared(table: QTable, above: tuple[str, ...], covariance: Covariances | None) -> Float:
    """Covariance of the natural logarithms of the two ratios."""
    total = np.zeros(len(table))
    if not covariance:
        return total
    first = {**dict.fromkeys(above, 1.0), "Halpha": -1.0}
    second = {"OIII5007": 1.0, "Hbeta": -1.0}
    known = {**covariance, **{(b, a): value for (a, b), value in covariance.items()}}
    flux = {key: np.asarray(table[f"{key}_flux"].value) for key in (*first, *second)}
    flux_above = np.sum([flux[key] for key in above], axis=0)
    for a, sign in first.items():
        for b, other in second.items():
            level = flux_above if a in above else flux[a]
            total += sign * other * np.asarray(known.get((a, b), 0.0)) / (level * flux[b])
    return total


def _chances(chart: Diagram, x: Float, y: Float, var_x: Float, var_y: Float, cov: Float) -> Float:
    """(n_classes, n) integrals of the Gaussians: along y exactly, along x by the trapezium rule on a fine grid."""
    node = np.linspace(-REACH, REACH, NODES)
    weight = np.exp(-0.5 * node**2)
    weight /= weight.sum()
    spread = np.sqrt(var_x)
    points = x[:, np.newaxis] + spread[:, np.newaxis] * node
    # y for a given x: its mean moves with x, its variance shrinks.
    slope = np.divide(cov, spread, out=np.zeros(cov.size), where=spread > 0)
    centre = y[:, np.newaxis] + slope[:, np.newaxis] * node
    left = np.sqrt(np.maximum(var_y - slope**2, 1e-12))[:, np.newaxis]
    chances = []
    for low, high in chart.regions(points):
        inside = ndtr((high - centre) / left) - ndtr((np.minimum(low, high) - centre) / left)
        chances.append(np.clip(inside, 0.0, 1.0) @ weight)
    return np.array(chances)
