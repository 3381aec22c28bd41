"""Every figure of Skyloom; the only module that imports matplotlib.

Functions take plain data or core types and return the bytes of a PNG. Figures are drawn on the Agg canvas without
pyplot, so nothing is shared between calls and worker processes need no display.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import FuncNorm, Normalize, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from numpy.typing import NDArray

from skyloom.core.image import Image

__all__ = [
    "BandRow",
    "GrowthCurve",
    "SkyHistogram",
    "contact_sheet",
    "correlation_maps",
    "growth_curves",
    "sky_histograms",
]

Float = NDArray[np.float64]

FLUX_MAP, NOISE_MAP, SIGNED_MAP = "magma", "viridis", "RdBu_r"
INK, PAPER, FAINT, ACCENT = "#1b1f2a", "#ffffff", "#8a90a0", "#c2410c"
BAD_PIXEL = "#9aa0ab"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
STYLE: Any = {  # a dict[RcKey, Any], whose key type has no public name
    "font.size": 9.0,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "text.color": INK,
    "text.parse_math": False,  # names of objects may hold dollar signs
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "image.origin": "lower",
    "image.interpolation": "nearest",
}


@dataclass(frozen=True, slots=True)
class BandRow:
    """One band of a contact sheet.

    Attributes
    ----------
    band : str
        Its name.
    native : Image
        As it came, sky removed.
    matched : Image
        At the common PSF on the common grid, before the mask.
    region : (ny, nx) bool array, optional
        The pixels of the object on the grid of ``matched``.
    native_region : (ny, nx) bool array, optional
        The same on the grid of ``native``.
    """

    band: str
    native: Image
    matched: Image
    region: NDArray[np.bool_] | None = None
    native_region: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class GrowthCurve:
    """Encircled energy of one band, before and after matching.

    Attributes
    ----------
    name : str
        The band.
    radii : (n,) array
        Arcsec.
    before, after : (n,) array
        Fraction of the light within each radius; ``after`` None where nothing was matched.
    """

    name: str
    radii: Float
    before: Float
    after: Float | None = None


@dataclass(frozen=True, slots=True)
class SkyHistogram:
    """Pixels taken as sky, and the level found in them.

    Attributes
    ----------
    name : str
        The band, or object and band.
    edges, counts : (n + 1,) and (n,) array
        The histogram, edges in ``unit``.
    level, error : float
        Sky and its uncertainty, in ``unit``.
    scatter : float
        Standard deviation of the sky pixels, in ``unit``.
    unit : str
        Unit of the image.
    light_counts : (n,) array, optional
        The same histogram with the outskirts of the sources left in, and
    light_level : float, optional
        the level that would be found then: the difference is the light that must not count as sky.
    other : float, optional
        A level found by someone else, for comparison.
    other_name : str
        Who found it.
    """

    name: str
    edges: Float
    counts: Float
    level: float
    error: float
    scatter: float
    unit: str
    light_counts: Float | None = None
    light_level: float | None = None
    other: float | None = None
    other_name: str = "given"


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _figure(width: float, height: float, dpi: float) -> Figure:
    return Figure(figsize=(width, height), dpi=dpi, facecolor=PAPER)


# --- contact sheet -----------------------------------------------------------------------------------

LEGEND = "outline: the object   dot: FWHM of the PSF   grey: unusable"
LEGEND_STYLE: dict[str, Any] = {"ha": "right", "va": "center", "color": FAINT}


def contact_sheet(title: str, rows: Sequence[BandRow], *, dpi: float = 110.0) -> bytes:
    """Draw one object in all bands: as it came, matched, and the significance of each pixel.

    Parameters
    ----------
    title : str
        Name of the object.
    rows : sequence of BandRow
        The bands, in the order to show them. More than five are set in several blocks side by side.
    dpi : float
        Pixels per inch.

    Returns
    -------
    bytes
        A PNG.

    Notes
    -----
    Native and matched panels of a band share one stretch: surface brightness, arcsinh with the noise of the
    matched image as its linear part. Panels are in their own pixel grids; the compass of a panel says how it lies.
    """
    blocks = 1 if len(rows) <= 5 else 2 if len(rows) <= 12 else 3
    per_block = -(-len(rows) // blocks)
    layout = _SheetLayout(per_block, blocks)
    with mpl.rc_context(STYLE):
        figure = _figure(layout.width, layout.height, dpi)
        figure.text(
            layout.x(layout.margin), layout.y(0.30), title, size=15, weight="bold", ha="left", va="center"
        )
        figure.text(layout.x(layout.width - layout.margin), layout.y(0.30), LEGEND, size=7.5, **LEGEND_STYLE)
        significance = _significance_norm(rows)
        for number, row in enumerate(rows):
            block, line = divmod(number, per_block)
            if line == 0:
                _column_heads(figure, layout, block)
            _draw_row(figure, layout, row, significance, block, line)
        return _png(figure)


@dataclass(frozen=True, slots=True)
class _SheetLayout:
    """Places of the panels, in inches from the top left."""

    lines: int
    blocks: int
    panel: float = 1.62
    gap: float = 0.06
    label: float = 0.60
    bar: float = 0.46
    margin: float = 0.12
    head: float = 0.80

    @property
    def block_width(self) -> float:
        return self.label + 3 * self.panel + 2 * self.gap + 2 * self.bar

    @property
    def width(self) -> float:
        return 2 * self.margin + self.blocks * self.block_width

    @property
    def height(self) -> float:
        return self.head + self.lines * (self.panel + self.gap) + self.margin

    def x(self, inches: float) -> float:
        return inches / self.width

    def y(self, inches: float) -> float:
        return 1.0 - inches / self.height

    def column(self, block: int, column: int) -> float:
        """Left edge of a panel column: the third stands behind the colour bar of the first two."""
        left = self.margin + block * self.block_width + self.label + column * (self.panel + self.gap)
        return left + (self.bar if column == 2 else 0.0)

    def axes(self, figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
        return figure.add_axes((self.x(left), self.y(top + height), width / self.width, height / self.height))


def _column_heads(figure: Figure, layout: _SheetLayout, block: int) -> None:
    for column, text in enumerate(("native", "matched", "signal / noise")):
        middle = layout.column(block, column) + layout.panel / 2
        figure.text(layout.x(middle), layout.y(layout.head - 0.12), text, ha="center", va="center", color=INK)


def _draw_row(
    figure: Figure, layout: _SheetLayout, row: BandRow, significance_norm: Normalize, block: int, line: int
) -> None:
    first = block == line == 0
    top = layout.head + line * (layout.panel + layout.gap)
    native, matched = _surface_brightness(row.native), _surface_brightness(row.matched)
    norm = _flux_norm(native, matched, row.region)
    significance = np.ma.masked_array(row.matched.data / np.sqrt(_positive(row.matched)), row.matched.mask)
    columns = (
        (row.native, native, row.native_region, norm, FLUX_MAP),
        (row.matched, matched, row.region, norm, FLUX_MAP),
        (row.matched, significance, row.region, significance_norm, NOISE_MAP),
    )
    for column, (image, values, region, scale, colours) in enumerate(columns):
        left = layout.column(block, column)
        axes = layout.axes(figure, left, top, layout.panel, layout.panel)
        picture = _draw_panel(axes, image, values, region, scale, colours)
        if column < 2:
            _draw_beam(axes, image)
            if first:
                _draw_compass(axes, image)
        if first:
            _draw_scale_bar(axes, image)
        if column:
            bar = layout.axes(figure, left + layout.panel + 0.05, top + 0.06, 0.07, layout.panel - 0.12)
            colorbar = figure.colorbar(picture, cax=bar)
            ticks = _asinh_ticks(scale, significance=column == 2)
            colorbar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
            colorbar.outline.set_visible(False)  # type: ignore[operator]  # typed as a Spine map
            bar.tick_params(length=2, width=0.6, pad=1.5, labelsize=6.5)
            bar.minorticks_off()
    _label_row(figure, layout, row, block, top)


def _label_row(figure: Figure, layout: _SheetLayout, row: BandRow, block: int, top: float) -> None:
    left = layout.margin + block * layout.block_width
    middle = layout.y(top + layout.panel / 2)
    facts = f'{row.native.pixel_scale:.3g}"/px'
    if row.native.psf is not None:
        facts += f'   FWHM {row.native.psf.fwhm:.2f}"'
    common: dict[str, Any] = {"rotation": 90, "ha": "center", "va": "center"}
    figure.text(layout.x(left + 0.13), middle, row.band.upper(), weight="bold", size=10.5, **common)
    figure.text(layout.x(left + 0.31), middle, facts, size=6.5, color=FAINT, **common)
    figure.text(layout.x(left + 0.47), middle, _brightness_unit(row.matched), size=6.5, color=FAINT, **common)


def _brightness_unit(image: Image) -> str:
    from skyloom.core.units import is_per_area

    unit = image.unit.to_string().replace(" / ", "/")
    return unit if is_per_area(image.unit) else f"{unit} per arcsec²"


def _surface_brightness(image: Image) -> np.ma.MaskedArray[Any, Any]:
    from skyloom.core.units import is_per_area

    area = 1.0 if is_per_area(image.unit) else image.pixel_area
    return np.ma.masked_array(np.asarray(image.data, dtype=np.float64) / area, image.mask)


def _positive(image: Image) -> Float:
    """The variance, with 1 where it is masked and may be anything."""
    return np.where(image.mask, 1.0, np.asarray(image.variance, dtype=np.float64))


def _flux_norm(
    native: np.ma.MaskedArray[Any, Any],
    matched: np.ma.MaskedArray[Any, Any],
    region: NDArray[np.bool_] | None,
) -> Normalize:
    """A stretch that shows the noise and the brightest part of the object alike."""
    values = matched.compressed()
    if values.size == 0:
        return _asinh_norm(1.0, -1.0, 10.0)
    low, middle = np.percentile(values, [16.0, 50.0])
    noise = max(float(middle - low), 1e-30)
    inside = native.compressed() if region is None else matched[region].compressed()
    peak = float(np.percentile(inside, 99.7)) if inside.size else float(values.max())
    return _asinh_norm(2.0 * noise, -3.0 * noise, max(peak, 10.0 * noise))


def _significance_norm(rows: Sequence[BandRow]) -> Normalize:
    """One stretch for all bands, linear within two sigma."""
    peaks = [
        float(np.percentile(values, 99.7))
        for row in rows
        if (values := (row.matched.data / np.sqrt(_positive(row.matched)))[row.matched.valid]).size
    ]
    return _asinh_norm(2.0, -3.0, float(np.clip(max(peaks, default=30.0), 30.0, 1e4)))


def _asinh_norm(linear: float, low: float, high: float) -> Normalize:
    return FuncNorm(
        (lambda value: np.arcsinh(value / linear), lambda value: linear * np.sinh(value)), vmin=low, vmax=high
    )


def _asinh_ticks(norm: Normalize, *, significance: bool) -> list[float]:
    high = float(norm.vmax or 1.0)
    if significance:
        return [-3.0, 0.0, *(tick for tick in (3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3) if tick <= high)]
    decade = 10.0 ** np.floor(np.log10(high))
    top = decade * max(step for step in (1.0, 2.0, 5.0) if step * decade <= high)
    return [
        0.0,
        *(
            float(f"{top * factor:.0e}")
            for factor in (0.01, 0.1, 1.0)
            if top * factor > -float(norm.vmin or 0)
        ),
    ]


def _draw_panel(
    axes: Axes, image: Image, values: Any, region: NDArray[np.bool_] | None, norm: Normalize, colours: str
) -> Any:
    colour_map = mpl.colormaps[colours].with_extremes(bad=BAD_PIXEL)
    picture = axes.imshow(values, norm=norm, cmap=colour_map, aspect="equal")
    if region is not None and region.any() and not region.all():
        axes.contour(region, levels=[0.5], colors="white", linewidths=0.7, alpha=0.9)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_anchor("C")
    for spine in axes.spines.values():
        spine.set_visible(False)
    ny, nx = image.shape
    axes.set_xlim(-0.5, nx - 0.5)
    axes.set_ylim(-0.5, ny - 0.5)
    return picture


def _draw_beam(axes: Axes, image: Image) -> None:
    """Draw the FWHM of the PSF in the lower right corner."""
    if image.psf is None:
        return
    _, nx = image.shape
    width = image.psf.fwhm / image.pixel_scale
    away = 0.04 * nx + width / 2
    axes.add_patch(
        Ellipse((nx - 0.5 - away, -0.5 + away), width, width, facecolor="white", edgecolor="none", alpha=0.9)
    )


def _draw_scale_bar(axes: Axes, image: Image) -> None:
    ny, nx = image.shape
    scale = image.pixel_scale
    choices = [step * 10.0**power for power in range(-2, 5) for step in (1.0, 2.0, 5.0)]
    length = max((choice for choice in choices if choice <= 0.35 * nx * scale), default=choices[0])
    pixels = length / scale
    x, y = 0.05 * nx, 0.06 * ny
    axes.plot([x, x + pixels], [y, y], color="white", lw=1.6, solid_capstyle="butt")
    text = f'{length:g}"' if length < 60 else f"{length / 60:g}'"
    axes.text(x + pixels / 2, y + 0.025 * ny, text, color="white", size=7, ha="center", va="bottom")


def _draw_compass(axes: Axes, image: Image) -> None:
    """Draw the directions of north and east in the upper left corner."""
    if image.wcs is None:
        return
    ny, nx = image.shape
    directions = np.linalg.inv(image.pixel_matrix) @ np.eye(2)
    directions /= np.linalg.norm(directions, axis=0)
    length = 0.13 * min(nx, ny)
    # The corner of the cross lies so that both arms and their letters stay inside the panel.
    arms = 1.55 * length * np.column_stack([directions, [0.0, 0.0]])
    corner_x = 0.03 * nx - arms[0].min()
    corner_y = 0.97 * ny - arms[1].max()
    for (dx, dy), letter in zip(directions.T * length, "EN", strict=True):
        axes.annotate(
            "",
            (corner_x + dx, corner_y + dy),
            (corner_x, corner_y),
            arrowprops={
                "arrowstyle": "-|>",
                "color": "white",
                "lw": 0.8,
                "shrinkA": 0,
                "shrinkB": 0,
                "mutation_scale": 6,
            },
        )
        axes.text(
            corner_x + 1.35 * dx,
            corner_y + 1.35 * dy,
            letter,
            color="white",
            size=6.5,
            ha="center",
            va="center",
        )


# --- sky ---------------------------------------------------------------------------------------------


def sky_histograms(title: str, histograms: Sequence[SkyHistogram], *, dpi: float = 110.0) -> bytes:
    """Draw the pixels taken as sky with the level found in them, one panel per band.

    Parameters
    ----------
    title : str
        What is shown.
    histograms : sequence of SkyHistogram
        The panels.
    dpi : float
        Pixels per inch.

    Returns
    -------
    bytes
        A PNG.
    """
    columns = min(3, len(histograms))
    lines = -(-len(histograms) // columns)
    with mpl.rc_context(STYLE):
        figure = _figure(max(3.5 * columns, 6.0), 2.25 * lines + 0.95, dpi)
        figure.suptitle(title, x=0.02, ha="left", weight="bold", size=12)
        panels = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes, histogram in zip(panels, histograms, strict=False):
            _draw_histogram(axes, histogram)
        for axes in panels[len(histograms) :]:
            axes.set_visible(False)
        handles = {
            label: handle
            for axes in panels
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=3 if columns > 1 else 2)
        figure.tight_layout(rect=(0.01, 0.5 / figure.get_figheight(), 0.99, 0.99), w_pad=2.0)
        return _png(figure)


def _draw_histogram(axes: Axes, histogram: SkyHistogram) -> None:
    edges, counts = np.asarray(histogram.edges), np.asarray(histogram.counts)
    power = int(np.floor(np.log10(max(abs(histogram.scatter), 1e-300))))
    unit = 10.0**power
    if histogram.light_counts is not None:
        axes.stairs(
            histogram.light_counts, edges / unit, color="#8fa3c8", lw=0.8, label="with outskirts of sources"
        )
    axes.stairs(counts, edges / unit, fill=True, color="#c9d3e6", label="sky pixels")
    x = np.linspace(edges[0], edges[-1], 300)
    if histogram.scatter > 0:
        # Scaled to the pixels near the level, so that a tail of unmasked sources does not raise the bell.
        centres = (0.5 * (edges[1:] + edges[:-1]) - histogram.level) / histogram.scatter
        near = np.abs(centres) < 1.5
        height = counts[near].sum() / max(np.exp(-0.5 * centres[near] ** 2).sum(), 1e-30)
        bell = height * np.exp(-0.5 * ((x - histogram.level) / histogram.scatter) ** 2)
        axes.plot(x / unit, bell, color=INK, lw=1.0, label="normal, with its scatter")
    axes.axvspan(
        (histogram.level - histogram.error) / unit,
        (histogram.level + histogram.error) / unit,
        color=ACCENT,
        alpha=0.25,
        lw=0,
    )
    axes.axvline(histogram.level / unit, color=ACCENT, lw=1.4, label="sky and its error")
    if histogram.light_level is not None:
        axes.axvline(histogram.light_level / unit, color="#8fa3c8", lw=1.0, label="its level")
    if histogram.other is not None:
        axes.axvline(histogram.other / unit, color=INK, lw=1.2, ls="--", label=histogram.other_name)
    axes.set_title(histogram.name, weight="bold")
    axes.set_xlabel(f"10{str(power).translate(SUPERSCRIPTS)} {histogram.unit}" if power else histogram.unit)
    if histogram.scatter > 0:
        # Far outliers are few, and would squeeze everything else into the middle.
        low, high = histogram.level - 5.0 * histogram.scatter, histogram.level + 7.0 * histogram.scatter
        axes.set_xlim(max(edges[0], low) / unit, min(edges[-1], high) / unit)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    digits = max(0, -int(np.floor(np.log10(max(histogram.error / unit, 1e-9)))) + 1)
    text = f"{histogram.level / unit:.{digits}f} ± {histogram.error / unit:.{digits}f}"
    axes.text(0.99, 0.97, text, transform=axes.transAxes, ha="right", va="top", color=ACCENT, size=8.5)


# --- PSF ---------------------------------------------------------------------------------------------


def growth_curves(
    title: str,
    curves: Sequence[GrowthCurve],
    target: GrowthCurve,
    *,
    limit: float | None = None,
    dpi: float = 110.0,
) -> bytes:
    """Draw encircled energy before and after matching, and what is left of the difference to the target.

    Parameters
    ----------
    title : str
        What is shown.
    curves : sequence of GrowthCurve
        The bands; colours run in their order.
    target : GrowthCurve
        The PSF that all are matched to (``before``).
    limit : float, optional
        The largest residual that is accepted, drawn as a band.
    dpi : float
        Pixels per inch.

    Returns
    -------
    bytes
        A PNG.
    """
    colours = mpl.colormaps["viridis"](np.linspace(0.0, 0.92, max(len(curves), 2)))
    with mpl.rc_context(STYLE):
        figure = _figure(9.6, 3.7, dpi)
        figure.suptitle(title, x=0.02, ha="left", weight="bold", size=12)
        left, right = figure.subplots(1, 2)
        for curve, colour in zip(curves, colours, strict=False):
            left.plot(curve.radii, curve.before, color=colour, lw=1.1)
            wanted = np.interp(curve.radii, target.radii, target.before)
            right.plot(curve.radii, 100 * (curve.before - wanted), color=colour, lw=0.8, ls=":")
            after = curve.before if curve.after is None else curve.after
            right.plot(curve.radii, 100 * (after - wanted), color=colour, lw=1.5, label=curve.name)
        left.plot(target.radii, target.before, color=ACCENT, lw=2.0, label=f"target: {target.name}")
        left.legend(loc="lower right")
        left.set(xlabel="radius (arcsec)", ylabel="encircled energy", ylim=(0, 1.02))
        left.set_title("before matching")
        if limit is not None:
            right.axhspan(-100 * limit, 100 * limit, color="#e9f2e9", zorder=0)
        right.axhline(0, color=FAINT, lw=0.7)
        right.set_title("minus target: before (dotted) and after (solid)")
        right.set(xlabel="radius (arcsec)", ylabel="difference (% of the light)")
        if curves:
            right.legend(ncols=2, loc="upper right")
        for axes in (left, right):
            axes.set_xlim(0, float(np.max(target.radii)))
        figure.tight_layout(rect=(0, 0, 1, 0.99))
        return _png(figure)


# --- noise -------------------------------------------------------------------------------------------


def correlation_maps(title: str, kernels: Mapping[str, Float | None], *, dpi: float = 110.0) -> bytes:
    """Draw noise autocorrelations, one panel per band.

    Parameters
    ----------
    title : str
        What is shown.
    kernels : mapping
        Name -> (k, k) autocorrelation with 1 in its centre; None for independent pixels.
    dpi : float
        Pixels per inch.

    Returns
    -------
    bytes
        A PNG.

    Notes
    -----
    The number in a panel is the square root of the sum over all lags: by this factor the noise of a large aperture
    exceeds that of independent pixels.
    """
    columns = min(9, len(kernels))
    lines = -(-len(kernels) // columns)
    shown = max((np.shape(kernel)[0] for kernel in kernels.values() if kernel is not None), default=1)
    with mpl.rc_context(STYLE):
        width, height = 1.35 * columns + 0.75, 1.68 * lines + 0.5
        figure = _figure(width, height, dpi)
        figure.suptitle(
            title, x=0.1 / width, y=1 - 0.12 / height, va="top", ha="left", weight="bold", size=12
        )
        panels = figure.subplots(lines, columns, squeeze=False).ravel()
        figure.subplots_adjust(
            left=0.1 / width, right=1 - 0.7 / width, bottom=0.2 / height, top=1 - 0.6 / height, wspace=0.08
        )
        norm = SymLogNorm(0.03, vmin=-1, vmax=1, base=10)
        picture = None
        for axes, (name, kernel) in zip(panels, kernels.items(), strict=False):
            picture = axes.imshow(_framed(kernel, shown), cmap=SIGNED_MAP, norm=norm)
            factor = 1.0 if kernel is None else float(np.sqrt(max(np.sum(kernel), 0.0)))
            axes.set_title(name, weight="bold", size=9, pad=3)
            axes.text(0.5, -0.02, f"×{factor:.2f}", transform=axes.transAxes, ha="center", va="top", size=8)
        for axes in panels:
            axes.set_axis_off()
        if picture is not None:
            place = (1 - 0.6 / width, 0.2 / height, 0.09 / width, 1 - 0.8 / height)
            bar = figure.colorbar(picture, cax=figure.add_axes(place))
            bar.set_ticks([-1, -0.1, 0, 0.1, 1], labels=["-1", "-0.1", "0", "0.1", "1"])
            bar.ax.minorticks_off()
            bar.outline.set_visible(False)  # type: ignore[operator]  # typed as a Spine map
        return _png(figure)


def _framed(kernel: Float | None, size: int) -> Float:
    """Set a kernel into the middle of a square of zeros, so that all panels have one scale."""
    values = np.ones((1, 1)) if kernel is None else np.asarray(kernel)
    pad = (size - values.shape[0]) // 2
    return np.pad(values, pad)
