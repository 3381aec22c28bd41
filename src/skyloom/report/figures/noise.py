"""The correlation of the noise."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.colors import SymLogNorm

from skyloom.report.figures.style import SIGNED_MAP, STYLE, Float, titled_figure, to_png

__all__ = ["correlation_maps"]


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
        width, height = max(1.35 * columns + 0.9, 4.2), 1.68 * lines + 0.5
        figure = titled_figure(f"{title}, lags up to {shown // 2} px", width, height, dpi)
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
            bar.set_label("correlation (no unit)", size=7.5)
            bar.outline.set_visible(False)  # type: ignore[operator]  # typed as a Spine map
        return to_png(figure)


def _framed(kernel: Float | None, size: int) -> Float:
    """Set a kernel into the middle of a square of zeros, so that all panels have one scale."""
    values = np.ones((1, 1)) if kernel is None else np.asarray(kernel)
    pad = (size - values.shape[0]) // 2
    return np.pad(values, pad)
