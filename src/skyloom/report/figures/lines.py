"""Maps of fitted lines and of what follows from them: kinematics, dust, classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
from astropy.table import QTable
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from skyloom.core.image import Image
from skyloom.core.line_fit import LineFlag
from skyloom.core.line_maps import LineMaps
from skyloom.report.figures.axis_text import unit_text
from skyloom.report.figures.maps import (
    PANEL,
    colour_bar,
    draw_marks,
    masked,
    robust_range,
    row_of_maps,
)
from skyloom.report.figures.style import (
    ACCENT,
    BAD_PIXEL,
    FAINT,
    FLUX_MAP,
    INK,
    NOISE_MAP,
    SIGNED_MAP,
    STYLE,
    Float,
    asinh_norm,
    clean_frame,
    draw_panel,
    titled_figure,
    to_png,
)
from skyloom.spectral.gas.bpt import DIAGRAMS, kauffmann_2003, kewley_2001, kewley_2006
from skyloom.spectral.gas.derived import EW_CLASSES, EW_EDGES, DerivedFlag

__all__ = ["bpt_diagram", "ew_class_maps", "fitted_line_maps", "quantity_maps", "with_beam"]

CLASS_COLOURS: Mapping[str, str] = {
    "unknown": BAD_PIXEL,
    "star-forming": "#3b6fb6",
    "composite": "#e0a030",
    "AGN": "#c0392b",
    "Seyfert": "#c0392b",
    "LINER": "#2a8f7a",
    "hDIG": "#c0392b",
    "mDIG": "#e0a030",
    "SFc": "#3b6fb6",
}
# What a pixel of the map of flags shows: the first of these that applies.
FLAG_COLOURS: Sequence[tuple[str, int, str]] = (
    ("not covered", int(LineFlag.NOT_COVERED), "#5b6070"),
    ("not converged", int(LineFlag.NOT_CONVERGED), "#c0392b"),
    ("at a bound", int(LineFlag.AT_BOUND), "#e67e5a"),
    ("ratio at its bound", int(LineFlag.RATIO_AT_BOUND), "#e0a030"),
    ("faint (S/N < 3)", int(LineFlag.FAINT), "#c9b3d6"),
    ("kinematics borrowed", int(LineFlag.BORROWED), "#8fa3c8"),
    ("unresolved", int(LineFlag.UNRESOLVED), "#a8c7b5"),
    ("no continuum", int(LineFlag.NO_CONTINUUM), "#f0dfb0"),
    ("tied to another line", int(LineFlag.TIED), "#d7dbe8"),
    ("clean", 0, "#f4f5f8"),
)
NO_KINEMATICS = int(LineFlag.NOT_COVERED | LineFlag.FAINT | LineFlag.BORROWED)


def fitted_line_maps(title: str, maps: LineMaps, line: str, *, dpi: float = 110.0) -> bytes:
    """Draw flux, velocity, dispersion, equivalent width, S/N and flags of a line.

    Parameters
    ----------
    title : str
    maps : LineMaps
    line : str
        Key of the line.
    dpi : float
        Pixels per inch.

    Returns
    -------
    bytes
        A PNG. Velocity and dispersion are shown where the line itself has told them (S/N of at least 3).
    """
    flux, snr = with_beam(maps, maps[f"{line}_flux"]), maps[f"{line}_snr"]
    codes = maps.code_plane(f"{line}_flag")
    hidden = (codes & NO_KINEMATICS) > 0
    velocity, sigma = (_hide(maps[f"{line}_{kind}"], hidden) for kind in ("velocity", "sigma"))
    width = _hide(maps[f"{line}_ew"], (codes & int(LineFlag.NO_CONTINUUM)) > 0)
    panels = (
        ("flux", flux, _flux_norm(flux), FLUX_MAP),
        ("velocity", velocity, _centred(velocity), SIGNED_MAP),
        ("dispersion", sigma, Normalize(0.0, max(robust_range(sigma, 0, 98.0)[1], 1.0)), NOISE_MAP),
        ("equivalent width", width, asinh_norm(3.0, -3.0, max(robust_range(width, 0, 99.5)[1], 10.0)), NOISE_MAP),
        ("signal / noise", snr, asinh_norm(2.0, -3.0, max(robust_range(snr, 0, 99.5)[1], 10.0)), NOISE_MAP),
    )  # fmt: skip
    with mpl.rc_context(STYLE):
        figure, axes = _grid_of_maps(title, flux, dpi)
        for axis, (name, image, norm, colours) in zip(axes, panels, strict=False):
            picture = draw_panel(axis, image, masked(image), None, norm, colours)
            axis.set_title(name, weight="bold")
            per = " per spaxel" if name == "flux" and maps.per == "spaxel_area" else ""
            colour_bar(figure, axis, picture, unit_text(image.unit) + per)
            draw_marks(axis, flux)
        _draw_flags(figure, axes[5], flux, codes, maps.rows < 0)
        return to_png(figure)


def with_beam(maps: LineMaps, image: Image, wavelength: float = 6563.0) -> Image:
    """Give a map of bins, which have no PSF of their own, that of the cube, so that it can be drawn."""
    return image if maps.psf is None or image.psf is not None else image.evolve(psf=maps.psf.at(wavelength))


def _grid_of_maps(title: str, image: Image, dpi: float) -> tuple[Figure, Sequence[Axes]]:
    """Open a figure of two rows of three panels."""
    ny, nx = image.shape
    height = float(np.clip(PANEL * ny / nx, 1.6, 5.0))
    total = 2 * (height + 0.45) + 0.5
    width = 3 * (PANEL + 0.95) + 1.0
    figure = titled_figure(title, width, total, dpi)
    axes = figure.subplots(2, 3).ravel()
    figure.subplots_adjust(
        left=0.012,
        right=1 - 1.45 / width,
        bottom=0.12 / total,
        top=1 - 0.62 / total,
        wspace=0.3,
        hspace=0.45 / height,
    )
    return figure, list(axes)


def _hide(image: Image, where: NDArray[np.bool_]) -> Image:
    return image.evolve(mask=image.mask | where)


def _flux_norm(flux: Image) -> Normalize:
    """Linear to about three errors, so that what is noise looks like noise."""
    peak = robust_range(flux, 0.0, 99.7)[1]
    values = np.sqrt(flux.variance[flux.valid])
    error = float(np.median(values)) if values.size else 1.0
    linear = float(np.clip(3 * error, 1e-3 * abs(peak), 0.3 * abs(peak)) or 1.0)
    return asinh_norm(linear, -linear, max(peak, 5 * linear))


def _centred(velocity: Image) -> Normalize:
    """Symmetric about the middle of what is seen."""
    low, high = robust_range(velocity, 2.0, 98.0)
    half = max(high - low, 1.0) / 2
    return Normalize((low + high) / 2 - half, (low + high) / 2 + half)


def _draw_flags(
    figure: Figure, axes: Axes, frame: Image, codes: NDArray[np.int32], outside: NDArray[np.bool_]
) -> None:
    """One colour for the gravest flag of each pixel, with their share."""
    shown = np.full(codes.shape, len(FLAG_COLOURS) - 1)
    for number in range(len(FLAG_COLOURS) - 2, -1, -1):
        shown[(codes & FLAG_COLOURS[number][1]) > 0] = number
    names = [name for name, _, _ in FLAG_COLOURS]
    picture = _draw_classes(axes, frame, shown, outside, names, [colour for _, _, colour in FLAG_COLOURS])
    # As large as the maps beside it, which have a bar.
    figure.colorbar(picture, ax=axes, fraction=0.046, pad=0.02).ax.set_visible(False)
    axes.set_title("flags", weight="bold")
    draw_marks(axes, frame)


def _draw_classes(
    axes: Axes,
    frame: Image,
    codes: NDArray[Any],
    outside: NDArray[np.bool_],
    names: Sequence[str],
    colours: Sequence[str],
    opacity: Float | None = None,
) -> Any:
    """Show a map of classes with a legend beside it of those that occur, and the share of pixels of each."""
    norm = BoundaryNorm(np.arange(len(names) + 1) - 0.5, len(names))
    plane = np.ma.masked_array(codes, outside)
    colour_map = ListedColormap(list(colours)).with_extremes(bad=BAD_PIXEL)
    picture = axes.imshow(plane, norm=norm, cmap=colour_map, aspect="equal", alpha=opacity)
    clean_frame(axes, frame)
    inside = codes[~outside]
    patches = [
        Patch(
            facecolor=colours[number], edgecolor=FAINT, lw=0.4,
            label=f"{names[number]} ({_percent(np.mean(inside == number))})",
        )
        for number in range(len(names)) if np.any(inside == number)
    ]  # fmt: skip
    axes.legend(
        handles=patches, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0, fontsize=6.5,
        handlelength=1.0, handleheight=1.0, labelspacing=0.35,
    )  # fmt: skip
    return picture


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "< 1 %"


# --- one quantity and its error --------------------------------------------------------------------------


def quantity_maps(
    title: str, image: Image, name: str, *, signed: bool = False, logarithm: bool = False, dpi: float = 110.0
) -> bytes:
    """Draw a derived quantity, such as E(B-V) or electron density, and its error.

    Parameters
    ----------
    title : str
    image : Image
        Its variance may be unknown (``meta["variance_known"]``): then it is drawn alone.
    name : str
        What it is.
    signed : bool
        Whether zero is the middle of the colours.
    logarithm : bool
        Whether the decimal logarithm is drawn, without its error; values that are not positive are left out.
    dpi : float
        Pixels per inch.

    Returns
    -------
    bytes
        A PNG.
    """
    label = unit_text(image.unit)
    if logarithm:
        positive = np.where(image.mask, 1.0, image.data) > 0
        shown = np.log10(np.where(positive & image.valid, image.data, 1.0))
        image = image.evolve(
            data=shown, mask=image.mask | ~positive, meta={**image.meta, "variance_known": False}
        )
        label = f"log10, of {label}"
    low, high = robust_range(image, 1.0, 99.0)
    reach = max(abs(low), abs(high), 1e-6)
    norm = Normalize(-reach, reach) if signed else Normalize(low, max(high, low + 1e-6))
    colours = SIGNED_MAP if signed else NOISE_MAP
    known = bool(image.meta.get("variance_known", True))
    with mpl.rc_context(STYLE):
        figure, axes = row_of_maps(title, image, 2 if known else 1, dpi)
        if not known:
            figure.subplots_adjust(left=0.03, right=0.82)  # room for the bar
        picture = draw_panel(axes[0], image, masked(image), None, norm, colours)
        axes[0].set_title(name, weight="bold")
        colour_bar(figure, axes[0], picture, label)
        draw_marks(axes[0], image)
        if known:
            error = np.ma.masked_array(np.sqrt(np.where(image.mask, 1.0, image.variance)), image.mask)
            values = error.compressed()
            top = float(np.percentile(values, 98.0)) if values.size else 1.0
            picture = draw_panel(axes[1], image, error, None, Normalize(0.0, top), NOISE_MAP)
            axes[1].set_title("its error", weight="bold")
            colour_bar(figure, axes[1], picture, label)
            draw_marks(axes[1], image)
        return to_png(figure)


# --- classes ---------------------------------------------------------------------------------------------


def bpt_diagram(
    title: str, maps: LineMaps, table: QTable, *, name: str | None = None, dpi: float = 110.0
) -> bytes:
    """Draw a diagram of line ratios with its demarcations, and the map of the classes.

    Parameters
    ----------
    title : str
    maps : LineMaps
        To which the table was added.
    table : QTable
        Of `skyloom.spectral.gas.bpt.bpt_classes`.
    name : str, optional
        Of the plane of classes in ``maps``; by default ``BPT_{diagram}_class``.
    dpi : float
        Pixels per inch.

    Returns
    -------
    bytes
        A PNG. Points whose class is uncertain are open; the cross shows the median error.
    """
    diagram = str(table.meta["diagram"])
    chart = DIAGRAMS[diagram]
    frame = with_beam(maps, maps.paint(np.ones(maps.n_bins) * maps.quantities[next(iter(maps))].unit))
    plane = name or f"BPT_{diagram}_class"
    codes = maps.code_plane(plane)
    with mpl.rc_context(STYLE):
        figure, (left, right) = _diagram_and_map(title, frame, dpi)
        _draw_points(left, table, chart.names)
        _draw_curves(left, diagram)
        left.set_xlabel(f"{chart.label} (dex)")
        left.set_ylabel("log [O III] 5007 / Hβ (dex)")
        names = [chart.names[number] for number in range(len(chart.names))]
        outside = (maps.rows < 0) | (codes >= len(names))
        colours = [CLASS_COLOURS[each] for each in names]
        _draw_classes(right, frame, codes, outside, names, colours, _opacity(maps, plane))
        right.set_title("classes (pale: uncertain)", weight="bold")
        draw_marks(right, frame)
        return to_png(figure)


def _diagram_and_map(title: str, frame: Image, dpi: float) -> tuple[Figure, tuple[Axes, Axes]]:
    ny, nx = frame.shape
    width = float(np.clip(3.6 * nx / ny, 2.4, 6.0))
    total = 0.75 + 4.6 + 0.5 + width + 1.75
    figure = titled_figure(title, total, 4.5, dpi)
    left = figure.add_axes((0.75 / total, 0.13, 4.6 / total, 0.73))
    right = figure.add_axes((5.85 / total, 0.08, width / total, 0.78))
    return figure, (left, right)


def _opacity(maps: LineMaps, name: str) -> Float:
    """Paler where the class of a plane is uncertain, by the flags beside it."""
    flags = name.removesuffix("class") + "flag"
    if flags not in maps.codes:
        return np.ones(maps.shape)
    return np.where((maps.code_plane(flags) & int(DerivedFlag.UNCERTAIN)) > 0, 0.45, 1.0)


def _draw_points(axes: Axes, table: QTable, names: Mapping[int, str]) -> None:
    x, y = (np.asarray(table[axis].value) for axis in ("x", "y"))
    known = np.asarray(table["class"]) > 0
    uncertain = (np.asarray(table["flag"]) & int(DerivedFlag.UNCERTAIN)) > 0
    size = float(np.clip(4000.0 / max(known.sum(), 1), 2.0, 22.0))
    for number, name in names.items():
        chosen = known & (np.asarray(table["class"]) == number)
        colour = CLASS_COLOURS[name]
        axes.scatter(x[chosen & ~uncertain], y[chosen & ~uncertain], size, color=colour, lw=0, alpha=0.7)
        hollow = chosen & uncertain
        axes.scatter(x[hollow], y[hollow], size, facecolors="none", edgecolors=colour, lw=0.5, alpha=0.7)
    _set_limits(axes, x[known], y[known])
    if known.any():
        errors = [float(np.median(np.asarray(table[f"{axis}_err"].value)[known])) for axis in ("x", "y")]
        (low, high), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        corner = (low + 0.06 * (high - low) + errors[0], bottom + 0.06 * (top - bottom) + errors[1])
        axes.errorbar(*corner, xerr=errors[0], yerr=errors[1], color=INK, lw=0.9, capsize=1.5)


def _set_limits(axes: Axes, x: Float, y: Float) -> None:
    """Show the points, and enough around them to see the curves."""
    for values, setter, least in ((x, axes.set_xlim, (-1.3, 0.5)), (y, axes.set_ylim, (-1.2, 1.3))):
        low, high = np.percentile(values, [0.5, 99.5]) if values.size else least
        setter(min(least[0], float(low) - 0.1), max(least[1], float(high) + 0.1))


def _draw_curves(axes: Axes, diagram: str) -> None:
    low, high = axes.get_xlim()
    x = np.linspace(low, high, 600)
    bottom = axes.get_ylim()[0]
    if diagram == "NII":
        _draw_curve(axes, x, np.where(x > -1.28, kauffmann_2003(x), np.nan), bottom, "--", "Kauffmann+03")
    limit = kewley_2001(x, diagram)
    _draw_curve(axes, x, limit, bottom, "-", "Kewley+01")
    if diagram != "NII":
        divide = kewley_2006(x, diagram)
        _draw_curve(axes, x, np.where(divide > limit, divide, np.nan), bottom, ":", "Kewley+06")
    axes.legend(loc="upper left", fontsize=7)


def _draw_curve(axes: Axes, x: Float, y: Float, bottom: float, style: str, label: str) -> None:
    shown = np.where(y > bottom - 1.0, y, np.nan)
    axes.plot(x, shown, style, color=INK, lw=1.1, label=label)


def ew_class_maps(
    title: str,
    maps: LineMaps,
    table: QTable,
    *,
    name: str = "EW_class",
    edges: tuple[float, float] = EW_EDGES,
    dpi: float = 110.0,
) -> bytes:
    """Draw how the equivalent widths of Halpha spread over the classes of diffuse gas, and where these lie.

    Parameters
    ----------
    title : str
    maps : LineMaps
        To which the table was added.
    table : QTable
        Of `skyloom.spectral.gas.derived.ew_classes`.
    name : str
        Of the plane of classes in ``maps``.
    edges : (float, float)
        A.
    dpi : float
        Pixels per inch.

    Returns
    -------
    bytes
        A PNG.
    """
    frame = with_beam(maps, maps.paint(np.ones(maps.n_bins) * maps.quantities[next(iter(maps))].unit))
    plane, codes = name, maps.code_plane(name)
    classes, width = np.asarray(table["class"]), np.asarray(table["ew"].value)
    names = [EW_CLASSES[number] for number in range(len(EW_CLASSES))]
    with mpl.rc_context(STYLE):
        figure, (left, right) = _diagram_and_map(title, frame, dpi)
        known = width[classes > 0]
        floor = 0.3
        top = float(max(np.percentile(known, 99.8) if known.size else 100.0, 50.0))
        bins = _width_bins((floor, *edges, top))
        for number in (1, 2, 3):
            values = np.clip(width[classes == number], floor, top)
            left.hist(
                values, bins, color=CLASS_COLOURS[names[number]], label=f"{names[number]} ({values.size})"
            )
        for edge in edges:
            left.axvline(edge, color=ACCENT, lw=0.9)
        left.set_xscale("log")
        ticks = [tick for tick in (0.3, 1, 3, 6, 14, 30, 100, 300, 1000) if tick <= top]
        left.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        left.minorticks_off()
        left.set_ylim(0.0, 1.3 * left.get_ylim()[1])
        left.set_xlabel(f"EW(Hα), at {floor:g} all below (Å)")
        left.set_ylabel("bins (number)")
        left.legend(loc="upper right")
        outside = (maps.rows < 0) | (codes >= len(names))
        colours = [CLASS_COLOURS[each] for each in names]
        _draw_classes(right, frame, codes, outside, names, colours, _opacity(maps, plane))
        right.set_title("classes (pale: uncertain)", weight="bold")
        draw_marks(right, frame)
        return to_png(figure)


def _width_bins(corners: Sequence[float]) -> list[float]:
    """Edges of a histogram, even in the logarithm between the corners, with the corners among them."""
    edges: list[float] = [corners[0]]
    for low, high in pairwise(corners):
        steps = max(2, round(15 * np.log10(high / low)))
        edges += np.geomspace(low, high, steps + 1)[1:].tolist()
    return edges
