"""Maps, bins and spectra of integral-field cubes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from astropy.table import QTable
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from numpy.typing import NDArray

from skyloom.core.image import Image
from skyloom.core.labels import LabelMap
from skyloom.core.psf import PSF
from skyloom.core.spectra import Spectra
from skyloom.report.figures.axis_text import unit_text
from skyloom.report.figures.maps import colour_bar, draw_marks, masked, robust_range, row_of_maps
from skyloom.report.figures.style import (
    ACCENT,
    FAINT,
    FLUX_MAP,
    INK,
    NOISE_MAP,
    SIGNED_MAP,
    STYLE,
    Float,
    asinh_norm,
    draw_panel,
    titled_figure,
    to_png,
)

__all__ = ["bin_maps", "bin_spectra", "cube_noise", "line_maps", "velocity_map"]


def line_maps(title: str, signal: Image, noise: Image, snr: Image, *, dpi: float = 110.0) -> bytes:
    """Draw signal, noise and signal over noise of a line.

    Parameters
    ----------
    title : str
        Object and line.
    signal, noise, snr : Image
        On one grid; unusable pixels are grey.
    dpi : float
        Pixels per inch.

    Returns
    -------
    bytes
        A PNG.
    """
    scatter = robust_range(noise, 50.0, 50.0)[1]
    peak = max(robust_range(signal, 0.0, 99.5)[1], 10 * scatter)
    top = max(robust_range(snr, 0.0, 99.5)[1], 10.0)
    low, high = robust_range(noise, 1.0, 99.0)
    panels = (
        ("signal", signal, asinh_norm(2 * scatter, -3 * scatter, peak), FLUX_MAP),
        ("noise", noise, Normalize(low, high), NOISE_MAP),
        ("signal / noise", snr, asinh_norm(2.0, -3.0, top), NOISE_MAP),
    )
    with mpl.rc_context(STYLE):
        figure, axes = row_of_maps(title, signal, len(panels), dpi)
        for axis, (name, image, norm, colours) in zip(axes, panels, strict=True):
            picture = draw_panel(axis, image, masked(image), None, norm, colours)
            axis.set_title(name, weight="bold")
            colour_bar(figure, axis, picture, unit_text(image.unit))
            draw_marks(axis, image)
        return to_png(figure)


def velocity_map(title: str, velocity: Image, *, dpi: float = 110.0) -> bytes:
    """Draw a velocity map and its error, the velocities centred on their median.

    Parameters
    ----------
    title : str
    velocity : Image
        km/s; the error is the square root of its variance.
    dpi : float
        Pixels per inch.

    Returns
    -------
    bytes
        A PNG.
    """
    low, high = robust_range(velocity, 1.0, 99.0)
    half = max(high - low, 1.0) / 2
    middle = (low + high) / 2
    error = np.ma.masked_array(np.sqrt(np.where(velocity.mask, 1.0, velocity.variance)), velocity.mask)
    with mpl.rc_context(STYLE):
        figure, (left, right) = row_of_maps(title, velocity, 2, dpi)
        norm = Normalize(middle - half, middle + half)
        picture = draw_panel(left, velocity, masked(velocity), None, norm, SIGNED_MAP)
        left.set_title("velocity", weight="bold")
        colour_bar(figure, left, picture, unit_text(velocity.unit))
        draw_marks(left, velocity)
        values = error.compressed()
        norm = Normalize(0.0, float(np.percentile(values, 99.0)) if values.size else 1.0)
        picture = draw_panel(right, velocity, error, None, norm, NOISE_MAP)
        right.set_title("its error", weight="bold")
        colour_bar(figure, right, picture, unit_text(velocity.unit))
        draw_marks(right, velocity)
        return to_png(figure)


# --- bins --------------------------------------------------------------------------------------------


def bin_maps(
    title: str,
    labels: LabelMap,
    table: QTable,
    target: float | None,
    *,
    psf: PSF | None = None,
    dpi: float = 110.0,
) -> bytes:
    """Draw the bins, the signal over noise that each reaches, and how that spreads about the target.

    Parameters
    ----------
    title : str
    labels : LabelMap
    table : QTable
        With ``id``, ``snr`` and ``n_pixels`` of every bin.
    target : float or None
        The signal over noise that the bins were made for; None where they were made for something else.
    psf : PSF, optional
        Its FWHM is drawn.
    dpi : float
        Pixels per inch.

    Returns
    -------
    bytes
        A PNG.
    """
    ids, snr = np.asarray(table["id"]), np.asarray(table["snr"], dtype=np.float64)
    frame = _frame(labels, psf)
    with mpl.rc_context(STYLE):
        figure, (left, middle, right) = row_of_maps(title, frame, 3, dpi)
        patchwork = np.ma.masked_array(_patchwork(labels.labels), labels.labels < 0)
        draw_panel(left, frame, patchwork, None, Normalize(0, _COLOURS.N - 1), _COLOURS)
        left.set_gid("patchwork")  # The colours mean nothing, and have no bar.
        _outline(left, labels.labels)
        left.set_title(f"{ids.size} bins", weight="bold")
        draw_marks(left, frame)
        values = np.ma.masked_array(_spread(labels.labels, ids, snr), labels.labels < 0)
        usable = snr[np.isfinite(snr)]
        top = max(float(np.percentile(usable, 99.0)) if usable.size else 1.0, 1.5 * (target or 0.0))
        picture = draw_panel(middle, frame, values, None, Normalize(0.0, top), NOISE_MAP)
        middle.set_title("signal / noise of the bins", weight="bold")
        colour_bar(figure, middle, picture, "")
        draw_marks(middle, frame)
        _draw_spread(right, snr, np.asarray(table["n_pixels"]), target)
        return to_png(figure)


# Neighbours differ in colour because their labels do not come in the order of the colours.
_COLOURS = ListedColormap(
    ["#d7dbe8", "#8fa3c8", "#f0cfa8", "#a8c7b5", "#c9b3d6", "#e6a48c", "#b9c98a", "#7f8fa8"], "bins"
)


def _patchwork(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    scattered = labels.astype(np.int64) * 2654435761 % 4294967296
    return scattered >> 29


def _outline(axes: Axes, labels: NDArray[np.int32]) -> None:
    """Draw the borders between bins, as long as there is room for them."""
    ny, nx = labels.shape
    if max(ny, nx) > 250:
        return
    columns = [(x + 0.5, x + 0.5, y - 0.5, y + 0.5) for y, x in np.argwhere(np.diff(labels, axis=1) != 0)]
    rows = [(x - 0.5, x + 0.5, y + 0.5, y + 0.5) for y, x in np.argwhere(np.diff(labels, axis=0) != 0)]
    lines = np.array(columns + rows).reshape(-1, 4)
    axes.plot(lines[:, :2].T, lines[:, 2:].T, color="white", lw=0.5)


def _draw_spread(axes: Axes, snr: Float, n_pixels: NDArray[Any], target: float | None) -> None:
    """Histogram of the signal over noise of bins, in units of the target if there is one, single pixels apart."""
    known = np.isfinite(snr)
    end = 3.0 * target if target is not None else 1.05 * max(float(np.max(snr[known], initial=0.0)), 1.0)
    unit = 1.0 if target is None else target
    edges: list[float] = np.linspace(0.0, end / unit, 61).tolist()
    ratio = np.clip(snr[known] / unit, 0.0, 0.9997 * edges[-1])
    several = n_pixels[known] > 1
    axes.set_anchor("C")
    axes.hist(ratio[several], edges, color="#8fa3c8", label=f"several pixels ({int(several.sum())})")
    axes.hist(
        ratio[~several], edges, histtype="step", color=INK, label=f"one pixel ({int((~several).sum())})"
    )
    if target is not None:
        axes.axvline(1.0, color=ACCENT, lw=1.4, label="target")
    axes.set_xlabel("signal / noise (no unit)" if target is None else "signal / noise over target (no unit)")
    axes.set_ylabel("bins (number)")
    axes.set_xlim(0.0, edges[-1])
    if int(np.histogram(ratio, edges)[0].max(initial=0)) > 200:
        axes.set_yscale("log")
    axes.legend(loc="upper right")


def _spread(labels: NDArray[np.int32], ids: NDArray[Any], values: Float) -> Float:
    """Values of bins on the map of labels, NaN elsewhere."""
    table = np.full(int(max(labels.max(initial=0), ids.max(initial=0))) + 2, np.nan)
    table[ids] = values
    return np.asarray(table[np.where(labels < 0, table.size - 1, labels)])


def _frame(labels: LabelMap, psf: PSF | None) -> Image:
    """An image on the grid of the labels, for the marks of a map."""
    zeros = np.zeros(labels.shape, dtype=np.float32)
    return Image(zeros, zeros + 1, labels.labels < 0, "", labels.wcs, psf=psf)


# --- spectra -----------------------------------------------------------------------------------------


def bin_spectra(
    title: str,
    spectra: Spectra,
    rows: Sequence[int],
    names: Sequence[str],
    *,
    marks: Mapping[str, float] | None = None,
    shaded: Sequence[tuple[float, float]] = (),
    dpi: float = 110.0,
) -> bytes:
    """Draw spectra with the band of their errors, one below the other.

    Parameters
    ----------
    title : str
    spectra : Spectra
    rows : sequence of int
        Which of them.
    names : sequence of str
        What stands beside each.
    marks : mapping, optional
        Name of a line -> wavelength in A, on the axis of the spectra.
    shaded : sequence of (float, float)
        Ranges in A that are not to be trusted, such as residuals of the sky.
    dpi : float
        Pixels per inch.

    Returns
    -------
    bytes
        A PNG.
    """
    with mpl.rc_context(STYLE):
        figure = titled_figure(title, 11.0, 0.85 + 1.7 * len(rows), dpi)
        panels = figure.subplots(len(rows), 1, squeeze=False, sharex=True).ravel()
        for axes, row, name in zip(panels, rows, names, strict=True):
            _draw_spectrum(axes, spectra, row, name, shaded)
        _mark_lines(list(panels), marks or {}, spectra.wave)
        figure.supylabel(f"flux density ({unit_text(spectra.unit)})", size=8)
        panels[-1].set_xlabel(f"wavelength in {spectra.medium} (Å)")
        top = 0.99 if not marks else 0.97
        figure.tight_layout(rect=(0.0, 0.0, 1.0, top), h_pad=0.4)
        return to_png(figure)


def _mark_lines(panels: Sequence[Axes], marks: Mapping[str, float], wave: Float) -> None:
    """A thin rule at each line, and its name on top where there is room for it."""
    apart = 0.008 * (wave[-1] - wave[0])
    labelled: list[float] = []
    for key, wavelength in marks.items():
        if not wave[0] < wavelength < wave[-1]:
            continue
        for axes in panels:
            axes.axvline(wavelength, color=ACCENT, lw=0.6, alpha=0.5, zorder=0)
        if all(abs(wavelength - other) > apart for other in labelled):
            labelled.append(wavelength)
            panels[0].text(
                wavelength, 1.02, key, transform=panels[0].get_xaxis_transform(), rotation=90,
                size=6.5, color=ACCENT, ha="center", va="bottom",
            )  # fmt: skip


def _draw_spectrum(
    axes: Axes, spectra: Spectra, row: int, name: str, shaded: Sequence[tuple[float, float]]
) -> None:
    unusable = spectra.mask[row]
    values = np.where(unusable, np.nan, spectra.data[row].astype(np.float64))
    error = np.sqrt(np.where(unusable, np.nan, spectra.variance[row].astype(np.float64)))
    for low, high in shaded:
        axes.axvspan(low, high, color="#eceef3", lw=0, zorder=0)
    axes.fill_between(
        spectra.wave, values - error, values + error, step="mid", color="#8fa3c8", alpha=0.6, lw=0
    )
    axes.step(spectra.wave, values, where="mid", color=INK, lw=0.6)
    axes.axhline(0.0, color=FAINT, lw=0.5)
    axes.set_xlim(spectra.wave[0], spectra.wave[-1])
    inside = values[np.isfinite(values)]
    if inside.size:
        low, high = np.percentile(inside, [0.3, 99.7])
        room = 0.25 * max(high - low, float(np.nanmedian(error)))
        axes.set_ylim(low - room, high + 2 * room)
    axes.text(0.005, 0.93, name, transform=axes.transAxes, ha="left", va="top", weight="bold", size=8.5)


# --- noise -------------------------------------------------------------------------------------------


def cube_noise(
    title: str,
    wave: Float,
    scale: Float | float,
    spatial: Float | None,
    spectral: Float | None,
    *,
    dpi: float = 110.0,
) -> bytes:
    """Draw what was found about the noise of a cube.

    Parameters
    ----------
    title : str
    wave : (n_wave,) array
        A.
    scale : float or (n_wave,) array
        True over claimed variance.
    spatial : (k, k) array or None
        Autocorrelation between spaxels.
    spectral : (k,) array or None
        Autocorrelation between channels.
    dpi : float
        Pixels per inch.

    Returns
    -------
    bytes
        A PNG.
    """
    with mpl.rc_context(STYLE):
        figure = titled_figure(title, 10.0, 3.0, dpi)
        left, middle, right = figure.subplots(1, 3, width_ratios=(2.2, 1.2, 1.2))
        left.plot(wave, np.sqrt(np.broadcast_to(scale, np.shape(wave))), color=INK, lw=1.2)
        left.axhline(1.0, color=ACCENT, lw=0.8)
        left.set(xlabel="wavelength (Å)", ylabel="true over claimed noise (no unit)")
        left.set_ylim(0.0, max(1.5, 1.2 * float(np.sqrt(np.max(scale)))))
        kernel = np.ones((1, 1)) if spatial is None else np.asarray(spatial)
        reach = kernel.shape[0] // 2
        extent = (-reach - 0.5, reach + 0.5, -reach - 0.5, reach + 0.5)
        picture = middle.imshow(kernel, cmap=SIGNED_MAP, vmin=-1, vmax=1, extent=extent)
        middle.set(title="between spaxels", xlabel="lag (px)", ylabel="lag (px)")
        colour_bar(figure, middle, picture, "correlation (no unit)")
        lags = np.ones(1) if spectral is None else np.asarray(spectral)
        lags = lags[lags.shape[0] // 2] if lags.ndim == 2 else lags
        half = lags.size // 2
        right.bar(np.arange(-half, half + 1), lags, width=0.8, color="#8fa3c8")
        right.axhline(0.0, color=FAINT, lw=0.7)
        right.set(title="between channels", xlabel="lag (channels)", ylabel="correlation (no unit)")
        right.set_ylim(min(-0.2, float(lags.min())), 1.05)
        figure.tight_layout(rect=(0.0, 0.0, 1.0, 0.98))
        return to_png(figure)
