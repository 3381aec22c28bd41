"""The contact sheet: one object in all bands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import astropy.units as u
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from skyloom.core.image import Image
from skyloom.report.figures.axis_text import unit_text
from skyloom.report.figures.maps import NO_UNIT
from skyloom.report.figures.style import (
    FAINT,
    FLUX_MAP,
    INK,
    NOISE_MAP,
    STYLE,
    Float,
    asinh_norm,
    asinh_ticks,
    draw_beam,
    draw_compass,
    draw_panel,
    draw_scale_bar,
    new_figure,
    to_png,
)

__all__ = ["BandRow", "contact_sheet"]


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
        figure = new_figure(layout.width, layout.height, dpi)
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
        return to_png(figure)


@dataclass(frozen=True, slots=True)
class _SheetLayout:
    """Places of the panels, in inches from the top left."""

    lines: int
    blocks: int
    panel: float = 1.62
    gap: float = 0.06
    label: float = 0.46
    bar: float = 0.60
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
        picture = draw_panel(axes, image, values, region, scale, colours)
        draw_beam(axes, image)
        draw_compass(axes, image)
        draw_scale_bar(axes, image)
        if column:
            bar = layout.axes(figure, left + layout.panel + 0.05, top + 0.06, 0.07, layout.panel - 0.12)
            colorbar = figure.colorbar(picture, cax=bar)
            ticks = asinh_ticks(scale, significance=column == 2)
            colorbar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
            colorbar.outline.set_visible(False)  # type: ignore[operator]  # typed as a Spine map
            bar.tick_params(length=2, width=0.6, pad=1.5, labelsize=6.5)
            bar.minorticks_off()
            colorbar.set_label(NO_UNIT if column == 2 else _brightness_unit(row.matched), size=6)
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


def _brightness_unit(image: Image) -> str:
    from skyloom.core.units import is_per_area

    return unit_text(image.unit if is_per_area(image.unit) else image.unit / u.arcsec**2)


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
        return asinh_norm(1.0, -1.0, 10.0)
    low, middle = np.percentile(values, [16.0, 50.0])
    noise = max(float(middle - low), 1e-30)
    inside = native.compressed() if region is None else matched[region].compressed()
    peak = float(np.percentile(inside, 99.7)) if inside.size else float(values.max())
    return asinh_norm(2.0 * noise, -3.0 * noise, max(peak, 10.0 * noise))


def _significance_norm(rows: Sequence[BandRow]) -> Normalize:
    """One stretch for all bands, linear within two sigma."""
    peaks = [
        float(np.percentile(values, 99.7))
        for row in rows
        if (values := (row.matched.data / np.sqrt(_positive(row.matched)))[row.matched.valid]).size
    ]
    return asinh_norm(2.0, -3.0, float(np.clip(max(peaks, default=30.0), 30.0, 1e4)))
