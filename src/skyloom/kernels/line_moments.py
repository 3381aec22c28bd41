"""Fluxes of lines by adding up channels, with everything else that was fitted taken off."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from skyloom.kernels.line_profiles import add_profile

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
    centre, sigma, flux : (n, n_lines)
        Of the fit; the model of the line itself is added to the residual again.
    result, result_variance : (n, n_lines)
        Filled; NaN where a channel of the window is masked or the line was not fitted.
    """
    reach = lags.shape[1] // 2
    n_wave = edges.size - 1
    ones = np.ones(n_wave)
    for row in range(first, last):
        for line in range(centre.shape[1]):
            result[row, line], result_variance[row, line] = np.nan, np.nan
            middle, width = centre[row, line], WIDTHS * sigma[row, line]
            if not (width > 0.0):
                continue
            low, high = (
                int(np.searchsorted(edges, middle - width)) - 1,
                int(np.searchsorted(edges, middle + width)),
            )
            if low < 0 or high > n_wave or mask[row, low:high].any():
                continue
            own, unused = np.zeros(high - low), np.zeros(high - low)
            add_profile(
                edges,
                ones,
                low,
                high,
                low,
                middle,
                sigma[row, line],
                flux[row, line],
                0.0,
                0.0,
                own,
                unused,
                unused,
            )
            total, noise = 0.0, 0.0
            for i in range(low, high):
                step = edges[i + 1] - edges[i]
                total += (residual[row, i] + own[i - low]) * step
                for j in range(max(low, i - reach), min(high, i + reach + 1)):
                    pair = np.sqrt(variance[row, i] * variance[row, j]) * lags[i, reach + j - i]
                    noise += step * (edges[j + 1] - edges[j]) * pair
            result[row, line] = total
            result_variance[row, line] = max(noise, 0.0)
