"""Cubes: white light and one spectrum."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from skyloom.core.cube import Cube
from skyloom.core.image import Image
from skyloom.errors import InputError
from skyloom.report.figures.ifs import draw_marks
from skyloom.report.figures.objects.figure import open_figure, unit_label
from skyloom.report.figures.objects.images import Limits, check_options, draw_map
from skyloom.report.figures.objects.spectra import Lines, draw_spectrum, line_places, mark_lines
from skyloom.report.figures.style import STYLE

__all__ = ["cube_figure", "white_light"]

MOST_VOXELS = 2e8  # that white light is made of; of larger cubes every second, third ... channel


def cube_figure(
    cube: Cube,
    x: int | None = None,
    y: int | None = None,
    *,
    lines: Lines | None = None,
    redshift: float = 0.0,
    stretch: str | None = None,
    limits: Limits | None = None,
    title: str | None = None,
) -> Figure:
    """Draw the white light of a cube and the spectrum of a spaxel.

    Parameters
    ----------
    cube : Cube
    x, y : int, optional
        The spaxel, counted from 0; by default the central one.
    lines, redshift
        Lines to name; see `skyloom.report.figures.objects.spectra.spectra_figure`.
    stretch : {"asinh", "linear", "log"}, optional
    limits : (float, float), optional
        Of the white light, in the unit of the cube.
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        When the spaxel does not exist, or an option is unknown.
    """
    check_options((), stretch, limits)
    _, ny, nx = cube.shape
    column, row = nx // 2 if x is None else int(x), ny // 2 if y is None else int(y)
    if not (0 <= column < nx and 0 <= row < ny):
        raise InputError(
            f"there is no spaxel x={column}, y={row}", field="x", remedy=f"x < {nx} and y < {ny}, from 0"
        )
    light, share = white_light(cube, MOST_VOXELS)
    with mpl.rc_context(STYLE):
        figure = open_figure(11.0, 3.9)
        known = (cube.meta.get(name) for name in ("object", "instrument"))
        found = " ".join(str(text) for text in known if isinstance(text, str))
        figure.suptitle(title or found or "Cube", x=0.01, ha="left", weight="bold")
        left, right = figure.subplots(1, 2, width_ratios=[1.0, 1.75])
        draw_map(left, light, "value", stretch=stretch, limits=limits)
        left.set_title("mean of all channels" if share == 1 else f"mean of every {share}. channel")
        draw_marks(left, light)
        # Black around white: seen on the brightest spaxel and on the sky.
        left.plot([column], [row], "s", mfc="none", mec="black", ms=8, mew=2.6)
        left.plot([column], [row], "s", mfc="none", mec="white", ms=8, mew=1.2)
        spaxel = (slice(None), row, column)
        draw_spectrum(right, cube.wave, cube.data[spaxel], cube.variance[spaxel], cube.mask[spaxel])
        mark_lines(right, line_places(lines, cube.medium, redshift), cube.wave)
        right.set_title(f"spaxel x={column}, y={row}")
        right.set_xlabel(f"wavelength in {cube.medium} (Å)")
        right.set_ylabel(unit_label(cube.unit))
    return figure


def white_light(cube: Cube, most_voxels: float, step: int = 1) -> tuple[Image, int]:
    """Return the mean over channels of a cube, and of which n-th channels it is.

    Parameters
    ----------
    cube : Cube
    most_voxels : float
        As many are read at most.
    step : int
        Of the spaxels, every n-th is taken along both axes.

    Notes
    -----
    A picture to find one's way: its errors count voxels as independent.
    """
    n_wave, ny, nx = (len(range(0, size, by)) for size, by in zip(cube.shape, (1, step, step), strict=True))
    share = max(1, int(np.ceil(n_wave * ny * nx / most_voxels)))
    total, spread = np.zeros((ny, nx)), np.zeros((ny, nx))
    count = np.zeros((ny, nx), dtype=np.int64)
    for channel in range(0, cube.shape[0], share):
        plane: Any = (channel, slice(None, None, step), slice(None, None, step))
        usable: NDArray[np.bool_] = ~cube.mask[plane]
        np.add(total, cube.data[plane], out=total, where=usable)
        np.add(spread, cube.variance[plane], out=spread, where=usable)
        count += usable
    empty = count == 0
    number = np.maximum(count, 1)
    variance = np.where(empty, 1.0, spread / number**2)
    wcs = cube.wcs if cube.wcs is None or cube.wcs.naxis == 2 else cube.wcs.celestial
    light = Image(total / number, variance, empty, cube.unit, wcs if step == 1 else None)
    return light, share
