"""Spectra: rows with their errors, unusable ranges and the names of lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from skyloom.core.linelist import LineList, default_lines
from skyloom.core.spectra import Spectra
from skyloom.errors import InputError
from skyloom.report.figures.objects.figure import open_figure, unit_label
from skyloom.report.figures.style import ACCENT, FAINT, INK, STYLE, Float

__all__ = ["Lines", "draw_spectrum", "line_places", "mark_lines", "spectra_figure"]

Lines = str | Sequence[str] | Mapping[str, float] | LineList
BAND, GAP = "#c4cfe4", "#eceef3"
MOST_ROWS = 20


def spectra_figure(
    spectra: Spectra,
    rows: int | Sequence[int] | None = None,
    *,
    lines: Lines | None = None,
    redshift: float = 0.0,
    limits: tuple[float, float] | None = None,
    title: str | None = None,
) -> Figure:
    """Draw spectra below each other, with a band of one sigma.

    Parameters
    ----------
    spectra : Spectra
    rows : int or several, optional
        By default the first four.
    lines : "default", keys of lines, mapping of name to wavelength, or LineList, optional
        What to name; rest wavelengths in the medium of the spectra.
    redshift : float
        Of the lines.
    limits : (float, float), optional
        Wavelengths, A.
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure
        Unusable ranges are grey.

    Raises
    ------
    InputError
        When a row or a line does not exist, or nothing lies between the limits.
    """
    n = len(spectra.data)
    chosen = list(range(min(n, 4))) if rows is None else np.atleast_1d(rows).astype(int).tolist()
    for row in chosen:
        if not -n <= row < n:
            raise InputError(f"there is no row {row}", field="rows", remedy=f"there are rows 0 to {n - 1}")
    if len(chosen) > MOST_ROWS:
        raise InputError(
            f"{len(chosen)} rows are too many", field="rows", remedy=f"choose at most {MOST_ROWS}"
        )
    part = wave_slice(spectra.wave, limits)
    labels = spectra.meta.get("labels")
    with mpl.rc_context(STYLE):
        figure = open_figure(8.6, 0.7 + 1.9 * max(len(chosen), 1))
        figure.suptitle(title or _title(spectra), x=0.01, ha="left", weight="bold")
        panels = np.ravel(figure.subplots(max(len(chosen), 1), 1, sharex=True, squeeze=False))
        places = line_places(lines, spectra.medium, redshift)
        for number, (axes, row) in enumerate(zip(panels, chosen, strict=False)):
            plane = (row, part)
            draw_spectrum(
                axes, spectra.wave[part], spectra.data[plane], spectra.variance[plane], spectra.mask[plane]
            )
            named = isinstance(labels, (list, tuple, np.ndarray)) and len(labels) == n
            name = f"row {row}" + (f", bin {labels[row]}" if named and labels is not None else "")
            axes.text(0.005, 0.96, name, transform=axes.transAxes, size=8, va="top")
            mark_lines(axes, places, spectra.wave[part], named=number == 0)
        panels[-1].set_xlabel(f"wavelength in {spectra.medium} (Å)")
        figure.supylabel(unit_label(spectra.unit), size=8)
    return figure


def _title(spectra: Spectra) -> str:
    known = (spectra.meta.get(name) for name in ("object", "instrument"))
    return " ".join(str(text) for text in known if isinstance(text, str)) or "Spectra"


def wave_slice(wave: Float, limits: tuple[float, float] | None) -> slice:
    """Return the channels between two wavelengths."""
    if limits is None:
        return slice(0, wave.size)
    first, last = (int(place) for place in np.searchsorted(wave, limits))
    if last - first < 2:
        raise InputError(
            f"fewer than two channels lie between {limits[0]:g} and {limits[1]:g} A",
            field="limits",
            remedy=f"the axis reaches from {wave[0]:.6g} to {wave[-1]:.6g} A",
        )
    return slice(first, last)


def draw_spectrum(
    axes: Axes, wave: Float, values: NDArray[Any], variance: NDArray[Any], mask: NDArray[np.bool_]
) -> None:
    """Draw a spectrum with its error band; where it is unusable there is a grey range and no value."""
    flux = np.where(mask, np.nan, values).astype(np.float64)
    error = np.sqrt(np.where(mask, np.nan, variance)).astype(np.float64)
    axes.fill_between(wave, flux - error, flux + error, step="mid", color=BAND, lw=0)
    axes.step(wave, flux, where="mid", color=INK, lw=0.7)
    for low, high in masked_ranges(wave, mask):
        axes.axvspan(low, high, color=GAP, lw=0, zorder=0)
    axes.axhline(0.0, color=FAINT, lw=0.4)
    axes.set_xlim(*wave_limits(wave))
    known = flux[np.isfinite(flux)]
    if known.size:
        low, high = (float(value) for value in np.percentile(known, [0.3, 99.9]))
        room = (high - low) or max(abs(high), 1.0)
        axes.set_ylim(min(low - 0.1 * room, 0.0), high + 0.25 * room)


def wave_limits(wave: Float) -> tuple[float, float]:
    """Return the outer edges of the first and the last channel, in A."""
    if wave.size < 2:
        return float(wave[0]) - 0.5, float(wave[0]) + 0.5
    return float(1.5 * wave[0] - 0.5 * wave[1]), float(1.5 * wave[-1] - 0.5 * wave[-2])


def masked_ranges(wave: Float, mask: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Return the edges of unusable ranges, in A."""
    low, high = wave_limits(wave)
    edges = np.concatenate([[low], 0.5 * (wave[1:] + wave[:-1]), [high]])
    change = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(float(edges[a]), float(edges[b])) for a, b in zip(change[::2], change[1::2], strict=True)]


def line_places(lines: Lines | None, medium: str, redshift: float) -> list[tuple[str, float]]:
    """Return names of lines and where they are seen.

    Raises
    ------
    InputError
        When a line is not in the list.
    """
    if lines is None:
        return []
    if isinstance(lines, Mapping):
        return [(str(name), float(wave) * (1 + redshift)) for name, wave in lines.items()]
    if isinstance(lines, LineList):
        chosen: Iterable[Any] = lines
    else:
        known = default_lines()
        chosen = known if lines == "default" else known.select([lines] if isinstance(lines, str) else lines)
    return [(line.key, line.rest(medium) * (1 + redshift)) for line in chosen]  # type: ignore[arg-type]


def mark_lines(axes: Axes, places: Sequence[tuple[str, float]], wave: Float, *, named: bool = True) -> None:
    """Mark lines by dotted verticals, with their names above."""
    for name, place in places:
        if wave[0] < place < wave[-1]:
            axes.axvline(place, color=ACCENT, lw=0.5, ls=":", zorder=0)
            if named:
                axes.text(
                    place, 0.97, name, transform=axes.get_xaxis_transform(), rotation=90, size=6, color=ACCENT,
                    ha="right", va="top",
                )  # fmt: skip
