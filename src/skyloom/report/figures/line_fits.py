"""Spectra with everything that was fitted to them, around the lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from skyloom.core.continuum import ContinuumFit
from skyloom.core.line_fit import LineFit
from skyloom.core.spectra import Spectra
from skyloom.report.figures.axis_text import unit_text
from skyloom.report.figures.style import ACCENT, FAINT, INK, STYLE, Float, titled_figure, to_png

__all__ = ["fit_gallery"]

STARS, MODEL = "#2a8f7a", ACCENT
REACH = 45.0  # A on either side of the lines of a window
# Windows that tell most about a fit, those first.
FAMILIES = (
    ("Halpha", "NII6548", "NII6583"),
    ("Hbeta", "OIII4959", "OIII5007"),
    ("SII6716", "SII6730"),
    ("OII3726", "OII3729"),
    ("OI6300", "OI6363"),
    ("NaD5889", "NaD5895"),
)
MOST_WINDOWS = 3


def fit_gallery(
    title: str,
    spectra: Spectra,
    fit: LineFit,
    rows: Sequence[int],
    names: Sequence[str],
    *,
    continuum: ContinuumFit | None = None,
    windows: Sequence[tuple[float, float]] | None = None,
    dpi: float = 110.0,
) -> bytes:
    """Draw spectra around their lines, with the continuum, the whole model, and the residual over its error.

    Parameters
    ----------
    title : str
    spectra : Spectra
    fit : LineFit
        Of these spectra.
    rows : sequence of int
        Which of them.
    names : sequence of str
        What stands beside each.
    continuum : ContinuumFit, optional
        That was taken off before the lines were fitted.
    windows : sequence of (float, float), optional
        Rest wavelengths in A, in the medium of the spectra; by default around the strongest families of lines.
    dpi : float
        Pixels per inch.

    Returns
    -------
    bytes
        A PNG.
    """
    ranges = list(windows) if windows is not None else _windows(fit)
    with mpl.rc_context(STYLE):
        figure = titled_figure(title, 1.0 + 3.9 * max(len(ranges), 1), 0.9 + 2.25 * len(rows), dpi)
        heights = [3.2, 1.0, 0.8] * len(rows)
        grid = figure.add_gridspec(
            3 * len(rows), max(len(ranges), 1), height_ratios=heights[: 3 * len(rows)], hspace=0.06, wspace=0.16,
            left=0.62 / figure.get_figwidth(), right=0.99, bottom=0.42 / figure.get_figheight() - 0.02,
            top=1 - 0.5 / figure.get_figheight(),
        )  # fmt: skip
        for number, (row, name) in enumerate(zip(rows, names, strict=True)):
            for column, window in enumerate(ranges):
                upper = figure.add_subplot(grid[3 * number, column])
                lower = figure.add_subplot(grid[3 * number + 1, column], sharex=upper)
                _draw_window(upper, lower, spectra, fit, continuum, row, window)
                upper.tick_params(labelbottom=False)
                if column == 0:
                    upper.set_title(name, weight="bold", size=8.5, pad=3)
                    lower.set_ylabel("residual (σ)", size=7)
                if number == 0 and column == len(ranges) - 1:
                    upper.legend(loc="upper right", fontsize=6.5, handlelength=1.4)
                if number == len(rows) - 1:
                    lower.set_xlabel(f"wavelength in {spectra.medium} (Å)", size=8)
        figure.supylabel(f"flux density ({unit_text(spectra.unit)})", size=8, x=0.004)
        return to_png(figure)


def _windows(fit: LineFit) -> list[tuple[float, float]]:
    found = []
    for family in FAMILIES:
        waves = [fit.lines[key].rest(fit.medium) for key in family if key in fit.lines]  # type: ignore[arg-type]
        seen = [wave for wave in waves if _on_axis(fit, wave)]
        if seen:
            found.append((min(seen) - REACH, max(seen) + REACH))
    if not found:
        waves = [line.rest(fit.medium) for line in fit.lines]  # type: ignore[arg-type]
        found = [(wave - REACH, wave + REACH) for wave in waves if _on_axis(fit, wave)]
    return sorted(found[:MOST_WINDOWS])


def _on_axis(fit: LineFit, wave: float) -> bool:
    observed = wave * (1.0 + float(np.median(fit.redshift)))
    return bool(fit.wave[0] < observed < fit.wave[-1])


def _draw_window(
    upper: Axes,
    lower: Axes,
    spectra: Spectra,
    fit: LineFit,
    continuum: ContinuumFit | None,
    row: int,
    window: tuple[float, float],
) -> None:
    stretch = 1.0 + float(fit.redshift[row])
    first, last = np.searchsorted(spectra.wave, np.asarray(window) * stretch)
    part = slice(int(first), max(int(last), int(first) + 2))
    wave = spectra.wave[part]
    unusable = spectra.mask[row, part]
    values = np.where(unusable, np.nan, _plane(spectra.data, row, part))
    error = np.sqrt(np.where(unusable, np.nan, _plane(spectra.variance, row, part)))
    lines, baseline = _plane(fit.model, row, part), _plane(fit.baseline, row, part)
    # Without a continuum nothing was fitted between the segments of the lines.
    nothing = np.where((lines == 0) & (baseline == 0), np.nan, 0.0)
    stars = nothing if continuum is None else _plane(continuum.model, row, part)
    below = stars + baseline
    model = below + lines
    upper.fill_between(wave, values - error, values + error, step="mid", color="#c4cfe4", lw=0)
    upper.step(wave, values, where="mid", color=INK, lw=0.6, label="spectrum")
    if continuum is not None:
        upper.plot(wave, stars, color=STARS, lw=0.9, label="stars")
    upper.plot(wave, below, color=MODEL, lw=0.7, ls=":", label="below the lines")
    upper.plot(wave, model, color=MODEL, lw=0.9, label="model")
    for line in fit.lines:
        place = line.rest(fit.medium) * stretch  # type: ignore[arg-type]
        if wave[0] < place < wave[-1]:
            upper.axvline(place, color=FAINT, lw=0.5, ls=":", zorder=0)
            upper.text(
                place, 0.985, line.key, transform=upper.get_xaxis_transform(), rotation=90, size=5.5, color=FAINT,
                ha="right", va="top",
            )  # fmt: skip
    _set_limits(upper, values, model, error)
    _draw_residual(lower, wave, (values - model) / error)


def _plane(array: NDArray[Any], row: int, part: slice) -> Float:
    return np.asarray(array[row, part], dtype=np.float64)


def _set_limits(axes: Axes, values: Float, model: Float, error: Float) -> None:
    shown = np.concatenate([values[np.isfinite(values)], model[np.isfinite(model)]])
    if not shown.size:
        return
    low, high = float(np.percentile(shown, 0.5)), float(shown.max())
    typical = 3 * float(np.nanmedian(error)) if np.isfinite(error).any() else 0.0
    room = max(high - low, typical) or max(abs(high), 1.0)
    axes.set_ylim(low - 0.12 * room, high + 0.38 * room)


def _draw_residual(axes: Axes, wave: Float, residual: Float) -> None:
    axes.axhspan(-1, 1, color="#eceef3", lw=0, zorder=0)
    axes.axhline(0.0, color=FAINT, lw=0.5)
    axes.step(wave, np.clip(residual, -6, 6), where="mid", color=INK, lw=0.5)
    axes.set_ylim(-5, 5)
    axes.set_yticks([-3, 3])
    axes.set_xlim(wave[0], wave[-1])
    axes.tick_params(labelsize=7)
