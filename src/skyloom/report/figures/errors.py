"""Where errors come from: every step of a frame, and a spectrum with its error band at every resolution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import FuncNorm, LogNorm, Normalize
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator

from skyloom.core.spectra import Spectra
from skyloom.io.sdss.frame import FrameErrors
from skyloom.report.figures.style import (
    ACCENT,
    BAD_PIXEL,
    FAINT,
    FLUX_MAP,
    INK,
    NOISE_MAP,
    PAPER,
    STYLE,
    Float,
    new_figure,
    to_png,
)

__all__ = ["frame_error_steps", "spectrum_error_levels"]

_SHOWN = 480  # Blocks along the longer side of a frame; more than a panel has pixels would be thrown away.
_BAND = "#f59e0b"
_STEP_WIDTH, _GAP, _LEFT, _RIGHT = 3.3, 0.32, 0.2, 0.3


def frame_error_steps(
    title: str, steps: FrameErrors, *, pull: float | None = None, dpi: float = 110.0
) -> bytes:
    """Draw every step from a calibrated frame to its errors.

    Parameters
    ----------
    title : str
    steps : FrameErrors
    pull : float, optional
        Scatter of the empty sky over the errors, told below the title.
    dpi : float
        Pixels per inch.

    Returns
    -------
    bytes
        A PNG.

    Notes
    -----
    Blocks of pixels are shown by their means, the ratio of error and signal by the median over pixels with light.
    """
    sky, counts, sigma = _blocks(steps.sky), _blocks(steps.counts), _blocks(steps.sigma)
    sigma_counts, ratio = _blocks(steps.sigma_counts), _ratio(steps.error_to_signal)
    panels: list[tuple[str, Any, Normalize | None, str, str]] = [
        ("1  calibrated image", _blocks(steps.data), _about_sky(_blocks(steps.data)), FLUX_MAP, "nmgy"),
        ("2  calibration", steps.calibration, None, "", "nmgy per count"),
        ("3  sky", sky, _range(sky), "cividis", "counts"),
        ("4  counts", counts, _about_sky(counts), FLUX_MAP, "image / calibration + sky"),
        ("5  electrons", counts * steps.gain, _about_sky(counts * steps.gain), FLUX_MAP, "gain × counts"),
        (
            "6  σ of the counts",
            sigma_counts,
            _about_sky(sigma_counts),
            NOISE_MAP,
            "√(counts / gain + dark variance)",
        ),
        ("7  σ of the image", sigma, _about_sky(sigma), NOISE_MAP, "σ × calibration, in nmgy"),
        ("8  σ / image", ratio, LogNorm(0.01, 3.0), f"{NOISE_MAP}_r", "where the image is > 0"),
    ]
    ny, nx = steps.data.shape
    panel_height = _STEP_WIDTH * ny / nx
    width = _LEFT + _RIGHT + 4 * _STEP_WIDTH + 3 * _GAP
    row = panel_height + 0.74
    height = 0.72 + 2 * row
    with mpl.rc_context(STYLE):
        figure = new_figure(width, height, dpi)
        figure.text(_LEFT / width, 1 - 0.12 / height, title, va="top", weight="bold", size=13)
        told = f"gain {steps.gain:g} electrons per count   dark variance {steps.dark_variance:g} counts²"
        if pull is not None:
            told += f"   scatter of the empty sky / σ = {pull:.3f}"
        figure.text(_LEFT / width, 1 - 0.40 / height, told, va="top", size=9, color=FAINT)
        for number, (name, values, norm, colours, unit) in enumerate(panels):
            x = _LEFT + (number % 4) * (_STEP_WIDTH + _GAP)
            y = height - 0.90 - (number // 4) * row - panel_height
            axes = figure.add_axes((x / width, y / height, _STEP_WIDTH / width, panel_height / height))
            axes.set_title(name, pad=4, size=9.5, weight="bold")
            axes.text(1, 1.018, unit, transform=axes.transAxes, ha="right", va="bottom", size=8, color=FAINT)
            if norm is None:
                _draw_calibration(axes, values)
                continue
            picture = axes.imshow(
                values,
                norm=norm,
                cmap=mpl.colormaps[colours].with_extremes(bad=BAD_PIXEL),
                aspect="auto",
            )
            axes.set_axis_off()
            bar = figure.add_axes((x / width, (y - 0.13) / height, _STEP_WIDTH / width, 0.075 / height))
            _colour_bar(figure, picture, bar, norm)
        return to_png(figure)


def _draw_calibration(axes: Axes, calibration: Float) -> None:
    axes.plot(calibration, color=ACCENT, lw=0.8)
    low, high = (float(value) for value in np.percentile(calibration, (0, 100)))
    room = max(high - low, 1e-3 * high)
    # Numbers stand inside, so that the panel keeps the size of the others; the curve leaves them room.
    axes.set_xlim(-0.19 * calibration.size, calibration.size - 1)
    axes.set_ylim(low - 0.22 * room, high + 0.08 * room)
    axes.xaxis.set_major_locator(FixedLocator([0, calibration.size // 2, calibration.size - 1]))
    axes.yaxis.set_major_locator(MaxNLocator(4, prune="both"))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.5g}")
    axes.tick_params(length=0, labelsize=7.5)
    axes.tick_params(axis="y", pad=-4)
    axes.tick_params(axis="x", pad=2)
    for label in axes.get_yticklabels():
        label.set_horizontalalignment("left")
    axes.get_xticklabels()[-1].set_horizontalalignment("right")
    axes.grid(axis="y", color=FAINT, alpha=0.25, lw=0.5)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.text(0.37, -0.012, "column", transform=axes.transAxes, ha="center", va="top", size=7.5, color=FAINT)


def _colour_bar(figure: Any, picture: Any, bar: Axes, norm: Normalize) -> None:
    shown = figure.colorbar(picture, cax=bar, orientation="horizontal", extend="neither")
    shown.outline.set_visible(False)
    ticks = _ticks(norm)
    shown.set_ticks(ticks, labels=[f"{tick:.4g}" for tick in ticks])
    bar.xaxis.set_minor_locator(NullLocator())
    bar.tick_params(length=2, pad=1.5, labelsize=7.5)


def _ticks(norm: Normalize) -> list[float]:
    """Choose round numbers that stand at least an eighth of the bar apart."""
    low, high = float(norm.vmin or 0), float(norm.vmax or 1)
    if isinstance(norm, FuncNorm):
        span = high - low
        choices = [MaxNLocator(5).tick_values(low, low + share * span) for share in (1.0, 0.1, 0.02)]
        candidates = [float(tick) for ticks in choices for tick in ticks]
    elif isinstance(norm, LogNorm):
        candidates = [float(tick) for tick in LogLocator(subs=(1.0, 3.0)).tick_values(low, high)]
    else:
        candidates = [float(tick) for tick in MaxNLocator(4).tick_values(low, high)]
    kept: list[float] = []
    for tick in candidates:
        inside = low <= tick <= high
        if inside and all(abs(float(norm(tick)) - float(norm(other))) > 0.125 for other in kept):
            kept.append(tick)
    return sorted(kept)


def _block_size(shape: tuple[int, ...]) -> int:
    return max(1, -(-max(shape) // _SHOWN))


def _cut(values: Any) -> Any:
    """Return (ny, size, nx, size): the blocks of an array, what does not fill one left out."""
    size = _block_size(values.shape)
    ny, nx = (max(1, extent // size) for extent in values.shape)
    return values[: ny * size, : nx * size].reshape(ny, size, nx, size)


def _blocks(values: Any) -> Any:
    return _cut(np.asarray(values, dtype=np.float64)).mean(axis=(1, 3))


def _ratio(values: Any) -> Any:
    """Return medians over the pixels of each block that have light; NaN where none has."""
    blocks = np.moveaxis(_cut(values), 2, 1)
    flat = np.sort(blocks.reshape(*blocks.shape[:2], -1), axis=-1)
    count = np.isfinite(flat).sum(axis=-1)
    middle = np.maximum(count - 1, 0) // 2
    return np.where(count > 0, np.take_along_axis(flat, middle[..., None], -1)[..., 0], np.nan)


def _range(values: Any) -> Normalize:
    low, high = (float(value) for value in np.nanpercentile(values, (0.5, 99.5)))
    return Normalize(low, high if high > low else low + 1.0)


def _about_sky(values: Any) -> Normalize:
    """Return an arcsinh stretch that begins below the sky and is linear over its scatter: faint light shows, too."""
    sky = float(np.nanmedian(values))
    scatter = 1.4826 * float(np.nanmedian(np.abs(values - sky))) or 1e-3 * abs(sky) or 1.0
    high = max(float(np.nanpercentile(values, 99.9)), sky + 10 * scatter)
    linear = 2.0 * scatter
    return FuncNorm(
        (
            lambda value: np.arcsinh((value - sky) / linear),
            lambda value: sky + linear * np.sinh(value),
        ),
        vmin=sky - 4 * scatter,
        vmax=high,
    )


def spectrum_error_levels(
    title: str, levels: Mapping[str, Spectra], *, note: str = "", dpi: float = 110.0
) -> bytes:
    """Draw one spectrum with its error band at several resolutions, one below the other.

    Parameters
    ----------
    title : str
    levels : mapping
        Name -> spectrum (the first row is shown), finest first.
    note : str
        Told below the title.
    dpi : float
        Pixels per inch.

    Returns
    -------
    bytes
        A PNG.

    Notes
    -----
    The band is one standard deviation to both sides; masked pixels are grey. The right panel shows the errors alone,
    so that what a coarser level gains is seen: where noise is correlated it gains less.
    """
    row, width = 1.42, 14.0
    height = 0.85 + row * len(levels) + 0.45
    first = next(iter(levels.values()))
    good = first.data[0][~first.mask[0]].astype(np.float64)
    low, high = (float(value) for value in np.percentile(good, (0.3, 99.7))) if good.size else (0.0, 1.0)
    room = 0.12 * (high - low) or 1.0
    with mpl.rc_context(STYLE):
        figure = new_figure(width, height, dpi)
        figure.text(0.62 / width, 1 - 0.12 / height, title, va="top", weight="bold", size=13)
        figure.text(0.62 / width, 1 - 0.40 / height, note, va="top", size=9, color=FAINT)
        panels = figure.subplots(
            len(levels), 3, squeeze=False, sharex="col", gridspec_kw={"width_ratios": (2.7, 1.5, 1.1)}
        )
        figure.subplots_adjust(
            left=0.62 / width,
            right=1 - 0.15 / width,
            bottom=0.45 / height,
            top=1 - 0.85 / height,
            wspace=0.12,
            hspace=0.16,
        )
        zoom = _feature(list(levels.values())[min(2, len(levels) - 1)])
        for (left, middle, right), (name, spectrum) in zip(panels, levels.items(), strict=True):
            _draw_flux(left, spectrum, 0.4)
            _draw_flux(middle, spectrum, 0.9)
            _draw_sigma(right, spectrum)
            _name(left, name, float(np.median(np.diff(spectrum.wave))))
            left.set_ylim(low - room, high + room)
            left.axvspan(*zoom, color=FAINT, alpha=0.18, lw=0, zorder=0)
            middle.set_xlim(*zoom)
        for middle, limits in zip(panels[:, 1], [_limits(first, zoom)] * len(levels), strict=True):
            middle.set_ylim(*limits)
        panels[0, 0].set_title(f"flux and ±1σ   ({first.unit.to_string('unicode')})", size=9, pad=4)
        panels[0, 1].set_title("the grey range, enlarged", size=9, pad=4)
        panels[0, 2].set_title("σ", size=9, pad=4)
        for axes in panels[-1]:
            axes.set_xlabel(f"wavelength in {first.medium} (Å)")
            axes.xaxis.set_major_locator(MaxNLocator(8 if axes is panels[-1, 0] else 4))
        for column in (0, 2):
            panels[0, column].set_xlim(float(first.wave[0]), float(first.wave[-1]))
        return to_png(figure)


def _feature(spectrum: Spectra) -> tuple[float, float]:
    """Return a range of 4 % in wavelength about what stands out most from its surroundings."""
    value = np.where(spectrum.mask[0], np.nan, spectrum.data[0].astype(np.float64))
    sigma = np.sqrt(np.where(spectrum.mask[0], np.nan, spectrum.variance[0].astype(np.float64)))
    half = max(3, min(25, value.size // 4))
    windows = np.lib.stride_tricks.sliding_window_view(value, 2 * half + 1)
    whole = np.isfinite(windows).all(axis=1)
    centre = value.size // 2
    if whole.any():
        inner = slice(half, value.size - half)
        deviation = (
            np.abs(value[inner] - np.median(np.where(whole[:, None], windows, 0.0), axis=1)) / sigma[inner]
        )
        centre = half + int(np.argmax(np.where(whole, deviation, -1.0)))
    return float(spectrum.wave[centre] * 0.98), float(spectrum.wave[centre] * 1.02)


def _limits(spectrum: Spectra, zoom: tuple[float, float]) -> tuple[float, float]:
    inside = ~spectrum.mask[0] & (spectrum.wave > zoom[0]) & (spectrum.wave < zoom[1])
    value = spectrum.data[0][inside].astype(np.float64)
    if not value.size:
        return 0.0, 1.0
    sigma = float(np.sqrt(np.median(spectrum.variance[0][inside])))
    low, high = (float(level) for level in np.percentile(value, (0.5, 99.5)))
    return low - 2 * sigma, high + 2 * sigma


def _draw_flux(axes: Axes, spectrum: Spectra, line: float) -> None:
    """Draw a spectrum over its error band; masked pixels are grey."""
    mask, wave = spectrum.mask[0], spectrum.wave
    value = np.where(mask, np.nan, spectrum.data[0].astype(np.float64))
    sigma = np.sqrt(np.where(mask, np.nan, spectrum.variance[0].astype(np.float64)))
    axes.fill_between(wave, value - sigma, value + sigma, color=_BAND, alpha=0.6, lw=0, step="mid")
    axes.step(wave, value, where="mid", color=INK, lw=line)
    covered = np.flatnonzero(~mask)
    if covered.size:
        inner = slice(covered[0], covered[-1] + 1)
        axes.fill_between(
            wave[inner],
            0,
            1,
            where=mask[inner],
            color=BAD_PIXEL,
            alpha=0.3,
            lw=0,
            step="mid",
            transform=axes.get_xaxis_transform(),
        )
    _plain_axes(axes)


def _draw_sigma(axes: Axes, spectrum: Spectra) -> None:
    known = np.sqrt(spectrum.variance[0][~spectrum.mask[0]].astype(np.float64))
    if not known.size:
        return
    sigma = np.sqrt(np.where(spectrum.mask[0], np.nan, spectrum.variance[0].astype(np.float64)))
    axes.step(spectrum.wave, sigma, where="mid", color=ACCENT, lw=0.6)
    axes.set_ylim(0, 1.3 * float(np.percentile(known, 96)))
    _label(axes, 0.98, f"median {np.median(known):.3g}", "right")
    _plain_axes(axes)


def _plain_axes(axes: Axes) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.grid(color=FAINT, alpha=0.2, lw=0.5)
    axes.set_axisbelow(True)


def _name(axes: Axes, name: str, pixel: float) -> None:
    _label(axes, 0.008, f"{name},  {pixel:.3g} Å per pixel", "left")


def _label(axes: Axes, x: float, text: str, side: str) -> None:
    box = {"facecolor": PAPER, "alpha": 0.85, "edgecolor": "none", "pad": 1.5}
    axes.text(x, 0.95, text, transform=axes.transAxes, ha=side, va="top", size=8, weight="bold", bbox=box)
