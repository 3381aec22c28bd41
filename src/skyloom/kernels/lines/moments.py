"""Fluxes of lines by adding up channels, with everything else that was fitted taken off."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from skyloom.kernels.lines.profiles import add_profile

Float = NDArray[np.float64]
WIDTHS = 3.0  # Standard deviations on either side that are added up.


@numba.njit(cache=True, nogil=True, error_model="numpy")
def direct_fluxes(
    edges: Float, residual: NDArray[np.float32], variance: NDArray[np.float32], mask: NDArray[np.bool_], lags: Float,
    centre: Float, sigma: Float, flux: Float, first: int, last: int, result: Float, result_variance: Float,
) -> None:  # fmt: skip
    """Add up the channels within three standard deviations of each line, for spectra first ... last - 1.

    Parameters
    ----------
    residual : (n, n_wave)
        Spectra without continuum, baseline and model of the lines.
    lags : (n_wave, k)
        Correlation between channels.
    centre, sigma, flux : (n, n_lines, n_components)
        Of the fit, NaN where there is no such component; the model of the line itself is added to the residual again.
    result, result_variance : (n, n_lines)
        Filled; NaN where a channel of the window is masked or the line was not fitted.
    """
    reach = lags.shape[1] // 2
    ones = np.ones(edges.size - 1)
    for row in range(first, last):
        for line in range(centre.shape[1]):
            result[row, line], result_variance[row, line] = np.nan, np.nan
            low, high = _window(edges, centre[row, line], sigma[row, line])
            if low < 0 or high > ones.size or low >= high or mask[row, low:high].any():
                continue
            own, unused = np.zeros(high - low), np.zeros(high - low)
            for part in range(centre.shape[2]):
                if sigma[row, line, part] > 0.0 and not np.isnan(flux[row, line, part]):
                    add_profile(
                        edges, ones, low, high, low, centre[row, line, part], sigma[row, line, part],
                        flux[row, line, part], 0.0, 0.0, own, unused, unused,
                    )  # fmt: skip
            total, noise = 0.0, 0.0
            for i in range(low, high):
                step = edges[i + 1] - edges[i]
                total += (residual[row, i] + own[i - low]) * step
                for j in range(max(low, i - reach), min(high, i + reach + 1)):
                    pair = np.sqrt(variance[row, i] * variance[row, j]) * lags[i, reach + j - i]
                    noise += step * (edges[j + 1] - edges[j]) * pair
            result[row, line] = total
            result_variance[row, line] = max(noise, 0.0)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _window(edges: Float, centre: Float, sigma: Float) -> tuple[int, int]:
    """Channels of a line with all its components, -1 first when they begin before the axis; empty without a line."""
    start, stop = np.inf, -np.inf
    for part in range(centre.size):
        if sigma[part] > 0.0:
            start = min(start, centre[part] - WIDTHS * sigma[part])
            stop = max(stop, centre[part] + WIDTHS * sigma[part])
    if not start < stop:
        return 0, 0
    return int(np.searchsorted(edges, start)) - 1, int(np.searchsorted(edges, stop))
