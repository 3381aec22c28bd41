"""S/N of a continuum: level and scatter about a polynomial, and what the errors say the scatter should be."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.core.cube import Cube
from skyloom.core.threads import blocks, run_blocks
from skyloom.errors import InputError
from skyloom.kernels.signal.scatter import measure_scatter
from skyloom.spectral.axes.widths import channel_edges
from skyloom.spectral.signal.functional import Channels, cut_channels
from skyloom.spectral.signal.line_maps import LineSNR, snr_images

__all__ = ["continuum_snr", "side_scatter"]

Float = NDArray[np.float64]
MOST_DEGREE = 8
BLOCK = 1024  # Spaxels per task; a fit costs more than a sum.


def continuum_snr(
    cube: Cube,
    window: tuple[float, float],
    *,
    degree: int = 3,
    redshift: float = 0.0,
    scale: ArrayLike | None = None,
    exclude: ArrayLike | None = None,
    coverage: float = 0.5,
    workers: int | None = None,
) -> LineSNR:
    """Measure the S/N per channel of the continuum in a window, by a polynomial through it.

    Parameters
    ----------
    cube : Cube
    window : (low, high)
        A, in ``cube.medium``; in the rest frame when ``redshift`` is given, else on the axis of the cube.
    degree : int
        Of the polynomial; 3 as in existing pipelines.
    redshift : float
    scale, exclude, workers
        As for `line_snr`.
    coverage : float
        Least share of the window on usable channels; spaxels with less are masked.

    Returns
    -------
    LineSNR
        ``signal``: mean of the polynomial over the window, in ``cube.unit``. ``noise``: standard deviation of a
        single channel about the polynomial, with the degrees of freedom of the fit taken off. ``snr``: their
        ratio, per channel. ``noise_claimed``: what variance and spectral correlation of the cube expect
        ``noise`` to be. The variance of ``signal`` is ``noise**2``, that of one channel: it makes
        ``snr`` the S/N per channel; the mean itself is better known.

    Raises
    ------
    InputError
        When the window does not lie on the axis, has too few channels, or no spaxel is usable.

    Notes
    -----
    With residuals r of a fit to n channels by p coefficients: ``noise^2 = sum r^2 / (n - p)`` and
    ``noise_claimed^2 = tr[(I - H) C] / (n - p)`` with H the hat matrix and C the claimed covariance.
    Absorption lines in the window count as noise.
    """
    low, high = (float(value) * (1.0 + redshift) for value in window)
    edges = channel_edges(cube.wave)
    if not (edges[0] <= low < high <= edges[-1]):
        raise InputError(
            f"the window runs from {low:.1f} to {high:.1f} A; the axis covers {edges[0]:.1f} to {edges[-1]:.1f} A",
            field="window",
            remedy="give (low, high) inside the axis",
        )
    if not 0 <= degree <= MOST_DEGREE:
        raise InputError(f"degree is {degree}; expected 0 to {MOST_DEGREE}", field="degree")
    start = max(0, int(np.searchsorted(edges, low, "right")) - 1)
    stop = int(np.searchsorted(edges, high, "left"))
    if stop - start < degree + 3:
        raise InputError(
            f"the window {low:.1f}-{high:.1f} A has {stop - start} channels, too few for degree {degree}",
            field="window",
            remedy="widen it or lower the degree",
        )
    channels = cut_channels(cube, slice(start, stop), scale=scale, exclude=exclude)
    level, squares, expected, count = _scatter(
        channels, np.array([[low, high]]), np.ones(1), degree, coverage, workers, np.ones(stop - start)
    )
    freedom = np.maximum(count - degree - 1.0, 1e-9)
    good = (count > degree + 1.5) & (squares > 0) & np.isfinite(level + squares)
    if not good.any():
        raise InputError(
            f"no spaxel has enough usable channels between {low:.1f} and {high:.1f} A",
            field="window",
            remedy="check the mask, or lower coverage",
        )
    parameters = {
        "method": "continuum",
        "window": f"{low:.2f}-{high:.2f} A",
        "degree": degree,
        "coverage": coverage,
    }
    return snr_images(
        cube, level, np.sqrt(squares / freedom), good, cube.unit, parameters, count=freedom,
        wavelength=0.5 * (low + high), claimed=np.sqrt(np.maximum(expected, 0.0) / freedom),
    )  # fmt: skip


def side_scatter(
    channels: Channels, sides: Float, stretch: Float, degree: int, coverage: float, workers: int | None
) -> tuple[Float, Float]:
    """Return the measured over the expected variance in continuum windows, and the number of their channels.

    The ratio is of ``sum r^2 / c`` about the polynomial of the continuum to what variance and correlation expect; the
    number is 0 where it cannot be told.
    """
    _, squares, expected, count = _scatter(
        channels, sides, stretch, degree, coverage, workers, channels.common
    )
    good = (count > 0) & (expected > 0)
    return np.where(good, squares / np.where(good, expected, 1.0), np.nan), np.where(good, count, 0.0)


def _scatter(
    channels: Channels,
    windows: Float,
    stretch: Float,
    degree: int,
    coverage: float,
    workers: int | None,
    common: Float,
) -> tuple[Float, Float, Float, Float]:
    m = channels.data.shape[1]
    planes = tuple(np.empty(m) for _ in range(4))
    level, squares, expected, count = planes

    def run(part: slice) -> None:
        measure_scatter(
            channels.data, channels.variance, channels.mask, channels.opened, channels.scale, channels.lags,
            channels.edges, common, np.ascontiguousarray(stretch), windows, degree, coverage, part.start,
            part.stop, *planes,
        )  # fmt: skip

    run_blocks(run, blocks(m, BLOCK), workers)
    return level, squares, expected, count
