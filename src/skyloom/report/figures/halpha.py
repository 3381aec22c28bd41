"""Figures of the quality of Halpha of HST against MUSE: nebulae, maps, noise, power spectra."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import astropy.units as u
import matplotlib as mpl
import numpy as np
from astropy.table import QTable
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from skyloom.core.image import Image
from skyloom.report.figures.axis_text import plain_ticks, unit_text
from skyloom.report.figures.maps import colour_bar, draw_marks, row_of_maps
from skyloom.report.figures.style import (
    ACCENT,
    FAINT,
    FLUX_MAP,
    INK,
    SIGNED_MAP,
    STYLE,
    Float,
    asinh_norm,
    draw_panel,
    titled_figure,
    to_png,
)

__all__ = [
    "comparison_maps",
    "nebula_figure",
    "noise_figure",
    "power_figure",
]

BAND = "#8fa3c8"
ON_DATA: Any = {"frameon": True, "facecolor": "white", "edgecolor": "none", "framealpha": 0.85}
FEWEST = 10  # values of which a histogram says something
SIZE_COLOURS = ("#1b1f2a", "#c2410c", "#2563a8")
SPECTRUM_COLOURS = ("#1b1f2a", "#c2410c", "#2563a8")


# --- nebulae --------------------------------------------------------------------------------------------------------


def nebula_figure(title: str, table: QTable, *, dpi: float = 110.0) -> bytes:
    """Draw fluxes of nebulae in two instruments, their ratio, and the pulls.

    Parameters
    ----------
    title : str
    table : QTable
        Of `skyloom.imaging.measure.comparison.compare_regions`, with a reference.
    dpi : float
        Pixels per inch.

    Returns
    -------
    bytes
        A PNG.
    """
    name = "matched_flux" if "matched_flux" in table.colnames else "flux"
    unit = table["reference_flux"].unit
    columns = ("reference_flux", "reference_flux_err", name, f"{name}_err")
    x, x_err, y, y_err = (table[column].to_value(unit) for column in columns)
    whole = np.asarray(table["whole"])
    with mpl.rc_context(STYLE):
        figure = titled_figure(title, 13.2, 4.3, dpi)
        axes = figure.subplots(1, 3)
        figure.subplots_adjust(left=0.065, right=0.985, bottom=0.14, top=0.84, wspace=0.27)
        _scatter(axes[0], (x, x_err, y, y_err), whole, unit)
        _ratios(axes[1], x, np.asarray(table["ratio"]), np.asarray(table["ratio_err"]), whole, unit)
        _histogram(axes[2], {"nebulae": np.asarray(table["pull"])[whole]}, "HST − MUSE, over its error (σ)")
        axes[2].set_ylabel("share of the nebulae (per σ)")
        return to_png(figure)


def _scatter(axes: Axes, columns: tuple[Float, Float, Float, Float], whole: Any, unit: u.UnitBase) -> None:
    x, x_err, y, y_err = columns
    positive = (x > 0) & (y > 0)
    for chosen, colour, label in (
        (positive & ~whole, FAINT, "cut or masked"),
        (positive & whole, INK, "whole"),
    ):
        if not chosen.any():
            continue
        axes.errorbar(
            x[chosen], y[chosen], _below(y, y_err)[:, chosen], _below(x, x_err)[:, chosen], fmt="o", ms=2.6,
            color=colour, mfc=colour if label == "whole" else "white", mew=0.6, elinewidth=0.6,
            label=f"{label} ({int(chosen.sum())})",
        )  # fmt: skip
    if positive.any():
        both = np.concatenate([x[positive], y[positive]])
        ends = [0.8 * both.min(), 1.25 * both.max()]
        axes.plot(ends, ends, color=ACCENT, lw=0.9, label="equal", zorder=0)
        axes.set_xlim(*ends)
        axes.set_ylim(*ends)
    axes.set_xscale("log")
    axes.set_yscale("log")
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    axes.set_xlabel(f"MUSE ({unit_text(unit)})")
    axes.set_ylabel(f"HST at the PSF of MUSE ({unit_text(unit)})")
    axes.set_title("flux of each nebula", weight="bold")
    _legend(axes, "upper left")


def _below(values: Float, errors: Float) -> Float:
    """Errors down and up; those down end above zero, which a logarithm cannot show."""
    return np.stack([np.minimum(errors, 0.9 * np.abs(values)), errors])


def _ratios(axes: Axes, flux: Float, ratio: Float, error: Float, whole: Any, unit: u.UnitBase) -> None:
    used = whole & np.isfinite(ratio) & (flux > 0)
    axes.set_title("their ratio", weight="bold")
    axes.set_xscale("log")
    plain_ticks(axes.xaxis)
    axes.set_xlabel(f"MUSE ({unit_text(unit)})")
    axes.set_ylabel("HST / MUSE (no unit)")
    if not used.any():
        return
    low, middle, high = np.percentile(ratio[used], [16.0, 50.0, 84.0])
    axes.axhspan(low, high, color=BAND, alpha=0.35, lw=0, label=f"16–84 %: {low:.3f}–{high:.3f}")
    axes.axhline(middle, color=ACCENT, lw=1.0, label=f"median {middle:.4f}")
    axes.axhline(1.0, color=FAINT, lw=0.7, ls=":")
    axes.errorbar(
        flux[used], ratio[used], error[used], fmt="o", ms=2.4, color=INK, ecolor=FAINT, elinewidth=0.4, mew=0
    )
    reach = float(np.clip(4.0 * max(high - middle, middle - low), 0.05, 1.0))
    axes.set_ylim(middle - reach, middle + 1.5 * reach)  # Room for the legend.
    axes.legend(loc="upper left", **ON_DATA)


def _histogram(axes: Axes, pulls: Mapping[str, Float], label: str) -> None:
    """Histograms of pulls, normalised, beside the unit Gaussian that they should be."""
    edges = np.linspace(-5.0, 5.0, 51)
    x = np.linspace(-5.0, 5.0, 201)
    axes.fill_between(
        x, np.exp(-0.5 * x**2) / np.sqrt(2 * np.pi), color=BAND, alpha=0.45, lw=0, label="claimed"
    )
    for (name, values), colour in zip(pulls.items(), SIZE_COLOURS, strict=False):
        known = values[np.isfinite(values)]
        if known.size < FEWEST:
            continue
        width = 2 if known.size < 400 else 1
        counts, bins = np.histogram(np.clip(known, -4.999, 4.999), edges[::width])
        spread = 1.4826 * float(np.median(np.abs(known - np.median(known))))
        axes.stairs(
            counts / (known.size * np.diff(bins)), bins, color=colour, lw=1.1,
            label=f"{name}: {known.size}, scatter {spread:.2f}",
        )  # fmt: skip
    axes.set_xlim(-5, 5)
    axes.set_ylim(0, 1.35 * axes.get_ylim()[1])
    axes.set_xlabel(label)
    axes.set_title("pulls", weight="bold")
    axes.legend(loc="upper left", ncols=2 if len(pulls) > 1 else 1)


def _legend(axes: Axes, place: Literal["upper left", "lower left"]) -> None:
    """Draw a legend where there is something to explain."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc=place, **ON_DATA)


# --- maps -----------------------------------------------------------------------------------------------------------


def comparison_maps(title: str, image: Image, reference: Image, *, dpi: float = 110.0) -> bytes:
    """Draw HST at the PSF of MUSE, MUSE, their difference over its error, and their ratio where it means something.

    Parameters
    ----------
    title : str
    image, reference : Image
        On one grid, in one unit, with one PSF.
    dpi : float
        Pixels per inch.

    Returns
    -------
    bytes
        A PNG.
    """
    mask = image.mask | reference.mask
    first, second = (np.where(mask, 0.0, item.data.astype(np.float64)) for item in (image, reference))
    error = np.sqrt(np.where(mask, 1.0, _total_variance(image) + _total_variance(reference)))
    strong = second > 5.0 * np.sqrt(np.where(mask, 1.0, _total_variance(reference)))
    strong &= second > 5.0 * np.sqrt(np.where(mask, 1.0, _total_variance(image)))
    values = second[~mask]
    noise = float(np.median(error[~mask])) if values.size else 1.0
    peak = max(float(np.percentile(values, 99.7)) if values.size else 1.0, 10.0 * noise)
    norm = asinh_norm(2.0 * noise, -3.0 * noise, peak)
    unit = unit_text(image.unit)
    ratio = np.ma.masked_array(first / np.where(strong, second, 1.0), mask | ~strong)
    panels: tuple[tuple[str, Any, Normalize, str, str], ...] = (
        ("HST at the PSF of MUSE", np.ma.masked_array(first, mask), norm, FLUX_MAP, unit),
        ("MUSE", np.ma.masked_array(second, mask), norm, FLUX_MAP, unit),
        (
            "difference / error",
            np.ma.masked_array((first - second) / error, mask),
            Normalize(-5, 5),
            SIGNED_MAP,
            "σ",
        ),
        ("HST / MUSE, above 5 σ", ratio, Normalize(0.8, 1.2), SIGNED_MAP, ""),
    )
    with mpl.rc_context(STYLE):
        figure, axes = row_of_maps(title, image, len(panels), dpi)
        for axis, (name, plane, scale, colours, label) in zip(axes, panels, strict=True):
            picture = draw_panel(axis, image, plane, None, scale, colours)
            axis.set_title(name, weight="bold")
            colour_bar(figure, axis, picture, label)
            draw_marks(axis, image)
        return to_png(figure)


def _total_variance(image: Image) -> NDArray[Any]:
    """Variance of single pixels, shared errors in."""
    total = image.variance.astype(np.float64)
    for mode in image.modes:
        total = total + np.square(np.asarray(mode.map, dtype=np.float64) * mode.sigma)
    return np.asarray(total)


# --- noise ----------------------------------------------------------------------------------------------------------


def noise_figure(title: str, pulls: Mapping[int, Float], table: QTable, *, dpi: float = 110.0) -> bytes:
    """Draw what empty regions say of the errors: pulls of boxes, and scatter over claimed error against their size.

    Parameters
    ----------
    title : str
    pulls : mapping of int to array
    table : QTable
        Both of `skyloom.imaging.measure.empty_regions.EmptyRegions`.
    dpi : float
        Pixels per inch.

    Returns
    -------
    bytes
        A PNG.
    """
    with mpl.rc_context(STYLE):
        figure = titled_figure(title, 9.4, 4.2, dpi)
        first, second = figure.subplots(1, 2, width_ratios=(1.5, 1.0))
        figure.subplots_adjust(left=0.075, right=0.985, bottom=0.14, top=0.84, wspace=0.25)
        named = {f"{size}×{size} px": values for size, values in pulls.items()}
        _histogram(first, named, "sum over a box, less those beside it, over its claimed error (σ)")
        first.set_ylabel("share of the boxes (per σ)")
        table = table[np.asarray(table["n_boxes"]) >= FEWEST]
        size = table["size"].value
        second.axhspan(0.9, 1.1, color=BAND, alpha=0.35, lw=0, label="within 10 %")
        second.axhline(1.0, color=FAINT, lw=0.7, ls=":")
        second.errorbar(size, table["ratio"], table["ratio_err"], fmt="o", ms=4, color=INK, elinewidth=0.9)
        second.set_xscale("log")
        second.set_xticks(size, [f"{value:g}" for value in size])
        second.minorticks_off()
        if len(table):
            second.set_xlim(0.6 * size.min(), 1.7 * size.max())
        known = np.asarray(table["ratio"])[np.isfinite(table["ratio"])]
        second.set_ylim(known.min(initial=0.8) - 0.1, known.max(initial=1.2) + 0.1)
        second.set_xlabel("side of the box (px)")
        second.set_ylabel("scatter / claimed (no unit)")
        second.set_title("errors of sums", weight="bold")
        second.legend(loc="upper left")
        return to_png(figure)


# --- power spectra --------------------------------------------------------------------------------------------------


def power_figure(title: str, spectra: Mapping[str, tuple[QTable, float]], *, dpi: float = 110.0) -> bytes:
    """Draw power spectra, with the noise that is claimed, and the widths of the PSFs.

    Parameters
    ----------
    title : str
    spectra : mapping of str to (QTable, float)
        Name -> table of `skyloom.imaging.measure.power_spectrum.PowerSpectrum`, and the FWHM of the PSF in arcsec.
    dpi : float
        Pixels per inch.

    Returns
    -------
    bytes
        A PNG.
    """
    with mpl.rc_context(STYLE):
        figure = titled_figure(title, 7.6, 5.2, dpi)
        axes = figure.subplots()
        figure.subplots_adjust(left=0.11, right=0.97, bottom=0.115, top=0.82)
        lowest, highest = np.inf, 0.0
        for (name, (table, fwhm)), colour in zip(spectra.items(), SPECTRUM_COLOURS, strict=False):
            x, power, error, noise = (
                table[key].value for key in ("frequency", "power", "power_err", "noise")
            )
            axes.fill_between(
                x, np.maximum(power - error, 0.02 * power), power + error, color=colour, alpha=0.2, lw=0
            )
            axes.plot(x, power, color=colour, lw=1.3, label=name)
            axes.plot(x, noise, color=colour, lw=0.9, ls="--", label=f"{name}: noise, claimed")
            if np.isfinite(fwhm) and fwhm > 0:
                axes.axvline(1.0 / fwhm, color=colour, lw=0.8, ls=":")
                axes.text(
                    1.0 / fwhm, 0.985, f' 1 / FWHM, {fwhm:.2g}" ', color=colour, size=7, rotation=90, va="top",
                    ha="right", transform=axes.get_xaxis_transform(),
                )  # fmt: skip
            lowest = min(lowest, float(np.min(power)))
            highest = max(highest, float(np.max(power)))
            unit = table["power"].unit
        axes.set_xscale("log")
        axes.set_yscale("log")
        if highest > 0:
            axes.set_ylim(0.002 * lowest, 3.0 * highest)
            axes.set_ylabel(f"power ({unit_text(unit)})")
        else:
            axes.yaxis.set_visible(False)  # There is nothing that has a unit.
        plain_ticks(axes.xaxis)
        plain_ticks(axes.yaxis)
        axes.set_xlabel("spatial frequency (cycles per arcsec)")
        scales = axes.secondary_xaxis("top", functions=(_inverse, _inverse))
        scales.set_xlabel("scale (arcsec)")
        scales.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        _legend(axes, "lower left")
        return to_png(figure)


def _inverse(values: Any) -> Any:
    """1 / x, which is its own inverse; matplotlib asks for it at 0, too."""
    values = np.asarray(values, dtype=np.float64)
    return 1.0 / np.where(values == 0, 1e-30, values)
