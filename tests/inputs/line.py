"""Tables of lines with known truth, and bins to paint them with."""

from __future__ import annotations

import astropy.units as u
import numpy as np
from astropy.table import QTable
from astropy.wcs import WCS

from skyloom.core.labels import LabelMap
from skyloom.core.line_fit import LineFit
from skyloom.core.linelist import default_lines

UNIT = u.Unit("1e-20 erg / (s cm2 AA)")
KEYS = ("Hbeta", "OIII5007", "OI6300", "NII6548", "Halpha", "NII6583", "SII6716", "SII6730")


def sky_wcs(scale: float = 0.2) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crpix = [3.0, 4.0]
    wcs.wcs.crval = [150.0, -30.0]
    wcs.wcs.cdelt = [-scale / 3600, scale / 3600]
    wcs.wcs.set()
    return wcs


def six_bins() -> LabelMap:
    """Numbers with gaps, in no order of place: 12 is one pixel, 31, the last, lies in the corner."""
    labels = np.full((8, 10), -1, dtype=np.int32)
    labels[0:3, 0:4] = 20
    labels[0:3, 4:7] = 3
    labels[3:6, 0:5] = 8
    labels[3:6, 5:7] = 7
    labels[6, 0] = 12
    labels[6:8, 8:10] = 31
    labels[0, 9] = -2
    return LabelMap(labels, sky_wcs())


def spaxels(shape: tuple[int, int] = (5, 6)) -> LabelMap:
    labels = np.arange(shape[0] * shape[1], dtype=np.int32).reshape(shape)
    labels[0, 0] = -1
    return LabelMap(labels, sky_wcs())


def table_of_lines(
    fluxes: dict[str, np.ndarray], errors: dict[str, np.ndarray], ids: np.ndarray | None = None
) -> QTable:
    """A table as `fit_lines` makes it."""
    n = next(iter(fluxes.values())).size
    table = QTable({"id": np.arange(n) if ids is None else ids})
    for key, flux in fluxes.items():
        error = np.broadcast_to(errors[key], flux.shape)
        columns = {
            "flux": flux * (UNIT * u.AA), "flux_err": error * (UNIT * u.AA),
            "velocity": (10.0 + np.arange(n)) * u.km / u.s, "velocity_err": np.full(n, 3.0) * u.km / u.s,
            "sigma": np.full(n, 60.0) * u.km / u.s, "sigma_err": np.full(n, 4.0) * u.km / u.s,
            "sigma_observed": np.full(n, 80.0) * u.km / u.s, "sigma_observed_err": np.full(n, 2.0) * u.km / u.s,
            "ew": flux / 10.0 * u.AA, "ew_err": error / 10.0 * u.AA, "snr": flux / error * u.one,
            "upper_limit": (np.maximum(flux, 0) + 3 * error) * (UNIT * u.AA),
            "flux_direct": 1.01 * flux * (UNIT * u.AA), "flux_direct_err": 1.2 * error * (UNIT * u.AA),
        }  # fmt: skip
        for name, values in columns.items():
            table[f"{key}_{name}"] = values
        table[f"{key}_flag"] = np.zeros(n, dtype=np.int64)
    table["chi2"], table["n_channels"], table["n_unknown"] = np.full(n, 95.0), np.full(n, 105), np.full(n, 5)
    return table


def fit_of(table: QTable, keys: tuple[str, ...], wave: np.ndarray | None = None, **meta: object) -> LineFit:
    axis = np.arange(4750.0, 6850.0, 50.0) if wave is None else wave
    n = len(table)
    zeros = np.zeros((n, axis.size), np.float32)
    return LineFit(
        table, zeros, zeros.copy(), UNIT, axis, "air", default_lines().select(keys), np.zeros(n), dict(meta)
    )


def simple_fit(ids: np.ndarray, keys: tuple[str, ...] = KEYS, **meta: object) -> LineFit:
    """Fluxes of 100 (1 + row) times the number of the line, errors of a tenth of it."""
    n = ids.size
    fluxes = {key: 100.0 * (number + 1) * (1.0 + np.arange(n)) for number, key in enumerate(keys)}
    return fit_of(
        table_of_lines(fluxes, {key: 0.1 * flux for key, flux in fluxes.items()}, ids), keys, **meta
    )
