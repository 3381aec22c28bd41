"""Fits of lines: maps of a line, or data, model and residual of one spectrum."""

from __future__ import annotations

from typing import Any

import astropy.units as u
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from skyloom.core.labels import LabelMap
from skyloom.core.line_fit import LineFit
from skyloom.core.spectra import Spectra
from skyloom.errors import InputError
from skyloom.report.figures.ifs import draw_marks
from skyloom.report.figures.objects.figure import open_figure, unit_label
from skyloom.report.figures.objects.images import draw_map
from skyloom.report.figures.objects.spectra import (
    draw_spectrum,
    line_places,
    mark_lines,
    wave_limits,
    wave_slice,
)
from skyloom.report.figures.style import ACCENT, FAINT, INK, STYLE
from skyloom.spectral.gas.maps import line_maps

__all__ = ["line_fit_figure"]

PANEL = 3.3  # inches
MAPS = ("flux", "velocity", "sigma", "snr")


def line_fit_figure(
    fit: LineFit,
    row: int = 0,
    *,
    labels: LabelMap | None = None,
    line: str | None = None,
    spectra: Spectra | None = None,
    continuum: NDArray[Any] | None = None,
    limits: tuple[float, float] | None = None,
    title: str | None = None,
) -> Figure:
    """Draw the maps of a line where labels are given, else the fit of a spectrum.

    Parameters
    ----------
    fit : LineFit
    row : int
        Which spectrum; of no meaning for maps.
    labels : LabelMap, optional
        The bins that the spectra are of.
    line : str, optional
        Of the maps; by default the one that is measured in most bins.
    spectra : Spectra, optional
        That were fitted: with them there are data and residual, without them the model alone.
    continuum : (n, n_wave) array or ContinuumFit, optional
        That was taken off before the lines were fitted.
    limits : (float, float), optional
        Wavelengths, A.
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        When the row or the line does not exist, or spectra are not those that were fitted.
    """
    if labels is not None:
        return _maps(fit, labels, line, title)
    if not -len(fit) <= row < len(fit):
        raise InputError(f"there is no row {row}", field="row", remedy=f"there are rows 0 to {len(fit) - 1}")
    if spectra is not None and spectra.shape != fit.model.shape:
        raise InputError(
            f"the spectra have shape {spectra.shape}; expected {fit.model.shape}, that of the fit",
            field="spectra",
        )
    return _spectrum(fit, row, spectra, getattr(continuum, "model", continuum), limits, title)


def _maps(fit: LineFit, labels: LabelMap, line: str | None, title: str | None) -> Figure:
    chosen = line or best_line(fit)
    if chosen not in fit.lines:
        known = ", ".join(fit.lines.keys)
        raise InputError(f"no line {chosen} was fitted", field="line", remedy=f"use one of {known}")
    maps = line_maps(fit, labels)
    ny, nx = labels.shape
    height = float(np.clip(PANEL * ny / nx, 1.4, 5.5))
    with mpl.rc_context(STYLE):
        figure = open_figure(len(MAPS) * (PANEL + 0.8), height + 0.5)
        figure.suptitle(title or chosen, x=0.01, ha="left", weight="bold")
        for number, (axes, name) in enumerate(zip(figure.subplots(1, len(MAPS)), MAPS, strict=True)):
            image = maps[f"{chosen}_{name}"]
            draw_map(axes, image, "value", stretch="linear" if name == "sigma" else None)
            axes.set_title({"sigma": "dispersion", "snr": "signal / noise"}.get(name, name))
            if number == 0:
                draw_marks(axes, image)
    return figure


def best_line(fit: LineFit) -> str:
    """Return the line that is measured in most spectra; of several, the one with the highest median S/N."""
    snr = {key: np.asarray(u.Quantity(fit.table[f"{key}_snr"]).value, dtype=float) for key in fit.lines.keys}
    score = {key: (int(np.sum(values > 3)), _middle(values)) for key, values in snr.items()}
    return max(score, key=lambda key: score[key])


def _middle(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else -np.inf


def _spectrum(
    fit: LineFit,
    row: int,
    spectra: Spectra | None,
    continuum: NDArray[Any] | None,
    limits: tuple[float, float] | None,
    title: str | None,
) -> Figure:
    part = wave_slice(fit.wave, limits)
    wave, plane = fit.wave[part], (row, part)
    below = np.asarray(fit.baseline[plane], dtype=np.float64)
    if continuum is not None:
        below = below + np.asarray(continuum[plane], dtype=np.float64)
    model = below + np.asarray(fit.model[plane], dtype=np.float64)
    with mpl.rc_context(STYLE):
        figure = open_figure(8.6, 4.0)
        number = int(np.asarray(fit.table["id"])[row]) if "id" in fit.table.colnames else row
        figure.suptitle(title or f"row {row}, bin {number}", x=0.01, ha="left", weight="bold")
        rows = 1 if spectra is None else 2
        panels = figure.subplots(rows, 1, sharex=True, squeeze=False, height_ratios=[3.0, 1.0][:rows])
        upper, lower = panels[0, 0], panels[-1, 0]
        if spectra is not None:
            mask = spectra.mask[plane]
            draw_spectrum(upper, wave, spectra.data[plane], spectra.variance[plane], mask)
            error = np.sqrt(np.where(mask, np.nan, spectra.variance[plane]))
            residual = (np.where(mask, np.nan, spectra.data[plane]) - model) / error
            lower.axhspan(-1, 1, color="#eceef3", lw=0, zorder=0)
            lower.step(wave, np.clip(residual, -6, 6), where="mid", color=INK, lw=0.6)
            lower.set_ylim(-5.5, 5.5)
            lower.set_ylabel("residual / σ")
        upper.plot(wave, below, color=FAINT, lw=0.9, label="below the lines")
        upper.plot(wave, model, color=ACCENT, lw=0.9, label="model")
        upper.set_xlim(*wave_limits(wave))
        upper.legend(loc="upper left")
        mark_lines(upper, line_places(fit.lines, fit.medium, float(fit.redshift[row])), wave)
        upper.set_ylabel(unit_label(fit.unit))
        lower.set_xlabel(f"wavelength in {fit.medium} (Å)")
    return figure
