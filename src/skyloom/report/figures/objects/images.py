"""Images: value, error, signal over noise and mask, with what a map needs to be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import astropy.units as u
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from skyloom.core.image import Image
from skyloom.errors import InputError
from skyloom.report.figures.ifs import colour_bar, draw_marks
from skyloom.report.figures.objects.figure import bare, open_figure, unit_label
from skyloom.report.figures.style import BAD_PIXEL, FLUX_MAP, INK, NOISE_MAP, SIGNED_MAP, STYLE, asinh_norm

__all__ = ["LAYERS", "STRETCHES", "draw_map", "image_figure"]

Limits = tuple[float, float]
LAYERS = ("value", "error", "snr", "mask")
STRETCHES = ("asinh", "linear", "log")
MOST_PIXELS = 900  # of a side that are drawn; more are averaged
PANEL = 3.6  # inches


def image_figure(
    image: Image,
    layer: str | Sequence[str] | None = None,
    *,
    stretch: str | None = None,
    limits: Limits | None = None,
    title: str | None = None,
) -> Figure:
    """Draw layers of an image side by side.

    Parameters
    ----------
    image : Image
    layer : {"value", "error", "snr", "mask"} or several of them, optional
        By default value, error and mask.
    stretch : {"asinh", "linear", "log"}, optional
        Of values and S/N; errors are linear. By default asinh, linear within two errors; velocities are linear.
    limits : (float, float), optional
        Of the colours of the first layer, in its unit.
    title : str, optional
        By default the band.

    Returns
    -------
    matplotlib.figure.Figure
        Unusable pixels are grey. Compass, scale bar and the FWHM of the PSF stand in the first panel, where there are
        world coordinates and a PSF.

    Raises
    ------
    InputError
        When a layer or the stretch is unknown, or the limits are no range.
    """
    layers = (layer,) if isinstance(layer, str) else tuple(layer or ("value", "error", "mask"))
    check_options(layers, stretch, limits)
    ny, nx = image.shape
    height = float(np.clip(PANEL * ny / nx, 1.4, 6.0))
    with mpl.rc_context(STYLE):
        figure = open_figure(len(layers) * (PANEL + 0.9), height + 0.5)
        figure.suptitle(title if title is not None else _title(image), x=0.01, ha="left", weight="bold")
        panels = np.ravel(figure.subplots(1, len(layers), squeeze=False))
        for number, (axes, name) in enumerate(zip(panels, layers, strict=True)):
            draw_map(axes, image, name, stretch=stretch, limits=None if number else limits)
            axes.set_title(TITLES[name])
            if number == 0:
                draw_marks(axes, image)
    return figure


TITLES = {"value": "value", "error": "error (1σ)", "snr": "signal / noise", "mask": "mask"}


def check_options(layers: Sequence[str], stretch: str | None, limits: Limits | None) -> None:
    """Raise unless the options of a plot are known ones."""
    for name in layers:
        if name not in LAYERS:
            raise InputError(f"layer is {name!r}", field="layer", remedy=f"use one of {', '.join(LAYERS)}")
    if stretch is not None and stretch not in STRETCHES:
        raise InputError(
            f"stretch is {stretch!r}", field="stretch", remedy=f"use one of {', '.join(STRETCHES)}"
        )
    if limits is not None and not (len(limits) == 2 and limits[0] < limits[1]):
        raise InputError(f"limits are {limits}", field="limits", remedy="give (lowest, highest)")


def _title(image: Image) -> str:
    known = (image.meta.get(name) for name in ("object", "instrument", "band"))
    return " ".join(str(text) for text in known if isinstance(text, str)) or "Image"


def draw_map(
    axes: Axes, image: Image, layer: str, *, stretch: str | None = None, limits: Limits | None = None
) -> Any:
    """Show one layer of an image with its colour bar; return the picture."""
    step = max(1, -(-max(image.shape) // MOST_PIXELS))
    values = layer_values(image, layer, step)
    ny, nx = image.shape
    # Whole blocks may reach over the border of the image; the limits of the axes cut them.
    extent = (-0.5, step * values.shape[1] - 0.5, -0.5, step * values.shape[0] - 0.5)
    figure: Any = axes.get_figure()
    if layer == "mask":
        colours: Any = ListedColormap(["#f4f5f8", INK])
        norm: Normalize = Normalize(0.0, 1.0)
    else:
        speed = layer == "value" and image.unit.is_equivalent(u.km / u.s)
        norm = _norm(values, layer, "linear" if speed and stretch is None else stretch, limits)
        name = SIGNED_MAP if speed else FLUX_MAP if layer == "value" else NOISE_MAP
        colours = mpl.colormaps[name].with_extremes(bad=BAD_PIXEL)
    picture = axes.imshow(values, norm=norm, cmap=colours, aspect="equal", extent=extent)
    bare(axes)
    axes.set_xlim(-0.5, nx - 0.5)
    axes.set_ylim(-0.5, ny - 0.5)
    if layer == "mask":
        bar = figure.colorbar(picture, ax=axes, fraction=0.046, pad=0.02, ticks=[0.25, 0.75])
        bar.set_ticklabels([f"usable\n{100 * float(np.mean(~image.mask)):.3g} %", "masked"], size=7)
        bar.outline.set_visible(False)
    else:
        colour_bar(figure, axes, picture, "S/N" if layer == "snr" else unit_label(image.unit))
    return picture


def layer_values(image: Image, layer: str, step: int = 1) -> np.ma.MaskedArray[Any, Any]:
    """Return a layer, averaged over the usable pixels of blocks of ``step`` pixels."""
    if layer == "mask":
        return np.ma.masked_array(block_mean(image.mask.astype(np.float32), None, step) > 0.5)
    value = block_mean(image.data, image.mask, step)
    if layer == "value":
        return value
    # The error of a pixel, not that of the mean over a block: what the numbers of the file say.
    variance = block_mean(image.variance, image.mask, step)
    error = np.ma.sqrt(variance)
    return error if layer == "error" else value / error


def block_mean(
    values: NDArray[Any], mask: NDArray[np.bool_] | None, step: int
) -> np.ma.MaskedArray[Any, Any]:
    """Average the usable pixels of square blocks; a block without any is masked."""
    if step == 1:
        return np.ma.masked_array(
            np.asarray(values, dtype=np.float64), np.ma.nomask if mask is None else mask
        )
    ny, nx = values.shape
    rows, columns = np.arange(0, ny, step), np.arange(0, nx, step)
    usable = np.ones(values.shape, bool) if mask is None else ~mask
    shown = np.where(usable, values, 0.0)
    total = np.add.reduceat(np.add.reduceat(shown, rows, axis=0, dtype=np.float64), columns, axis=1)
    count = np.add.reduceat(np.add.reduceat(usable, rows, axis=0, dtype=np.int64), columns, axis=1)
    return np.ma.masked_array(total / np.maximum(count, 1), count == 0)


def _norm(
    values: np.ma.MaskedArray[Any, Any], layer: str, stretch: str | None, limits: Limits | None
) -> Normalize:
    """Return a stretch that shows noise and source alike."""
    known = values.compressed()
    if known.size == 0:
        return Normalize(0.0, 1.0)
    low, middle, high = (float(value) for value in np.percentile(known, [0.5, 16.0, 99.7]))
    centre = float(np.median(known))
    if layer == "error" or stretch == "linear":
        bottom, top = limits or (low, high)
        return Normalize(bottom, top if top > bottom else bottom + max(abs(bottom), 1.0) * 1e-3)
    scatter = max(centre - middle, 1e-6 * max(abs(low), abs(high)), 1e-300)
    if stretch == "log":
        bottom, top = limits or (max(low, 1e-4 * high), high)
        if bottom <= 0 or top <= bottom:
            raise InputError(
                f"a logarithm cannot show {bottom:g} to {top:g}", field="stretch", remedy="use asinh"
            )
        return LogNorm(bottom, top)
    bottom, top = limits or (min(low, centre - 3 * scatter), max(high, centre + 5 * scatter))
    return asinh_norm(2.0 * scatter, bottom, top) if top > 0 else Normalize(bottom, top)
