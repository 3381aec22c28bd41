"""The noise model along wavelength: variance and correlation of sums over channels, and through resampling.

The noise of a spectrum is ``n_i = sqrt(v_i) e_i``: a variance per channel times noise of unit variance with
correlations ``rho[i, j]`` between near channels. They are kept as lags: ``lags[i, k // 2 + d]`` is the correlation of
channel i with channel i + d, zero where i + d is off the axis; a plain (k,) array holds for every channel; None means
independent channels. Unlike the kernel of an image, a band knows each channel, so the variance of a single resampled
channel and of a sum of many are both exact. ``docs/design/spectral_noise.md`` says what was tried.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.core.cube import CubeCorrelation, check_lags
from skyloom.core.noise import LOST_CORRELATION, sum_variance
from skyloom.errors import InputError, ShapeError

__all__ = [
    "cube_sum_variance",
    "lag_bands",
    "measure_lag_covariance",
    "measure_lags",
    "resample_lags",
    "truncate_lags",
    "weighted_sum_variance",
]

Float = NDArray[np.float64]
FEWEST_CHANNELS = 200  # Fewer residuals than this say nothing about their correlation.


def lag_bands(correlation: ArrayLike | None, n_wave: int) -> Float:
    """Return a correlation along wavelength as a band of lags for each channel.

    Parameters
    ----------
    correlation : (k,) or (n_wave, k) array, optional
        Lags; None: independent channels.
    n_wave : int

    Returns
    -------
    (n_wave, k) float64 array
        A copy; lags that reach beyond the ends of the axis are 0.

    Raises
    ------
    ShapeError, InputError
        When it is no correlation of that many channels.
    """
    if correlation is None:
        return np.ones((n_wave, 1))
    lags = check_lags(correlation, n_wave)
    bands = np.tile(lags, (n_wave, 1)) if lags.ndim == 1 else lags.copy()
    radius = bands.shape[1] // 2
    for lag in range(1, radius + 1):
        bands[max(n_wave - lag, 0) :, radius + lag] = 0.0
        bands[:lag, radius - lag] = 0.0
    return bands


def weighted_sum_variance(
    variance: ArrayLike, weights: ArrayLike, correlation: ArrayLike | None = None
) -> Float:
    """Return the variance of ``sum(weights * data)`` over channels.

    Parameters
    ----------
    variance : (..., n_wave) array
    weights : (n_wave,) or (..., n_wave) array
        Weight of each channel; 0 where it does not count (masked: its variance is then ignored, even NaN).
    correlation : (k,) or (n_wave, k) array, optional
        Lags; None: independent channels.

    Returns
    -------
    (...) float64 array

    Notes
    -----
    ``Var = sum_ij w_i w_j sqrt(v_i v_j) rho[i, j]``; of each pair of lags the upper one, ``rho[i, i + d]``, is read.
    """
    values = np.asarray(variance)
    factors = np.asarray(weights, dtype=np.float64)
    if values.ndim == 0 or factors.ndim == 0 or factors.shape[-1] != values.shape[-1]:
        raise ShapeError(
            f"weights have shape {factors.shape}; their last axis must have the {values.shape[-1:]} channels "
            "of the variance",
            field="weights",
        )
    used = np.broadcast_to(factors != 0, np.broadcast_shapes(factors.shape, values.shape))
    spread = np.zeros(used.shape)
    np.sqrt(values, out=spread, where=used, dtype=np.float64)
    spread *= factors
    total = np.asarray(np.sum(spread**2, axis=-1), dtype=np.float64)
    n_wave = values.shape[-1]
    bands = lag_bands(correlation, n_wave)
    radius = bands.shape[1] // 2
    for lag in range(1, min(radius, n_wave - 1) + 1):
        pairs = spread[..., :-lag] * spread[..., lag:]
        total = total + 2.0 * (pairs @ bands[:-lag, radius + lag])
    return total


def cube_sum_variance(
    variance: ArrayLike,
    pixel_weights: ArrayLike,
    channel_weights: ArrayLike,
    correlation: CubeCorrelation | None = None,
) -> float:
    """Return the variance of a sum over pixels and channels of a cube.

    Parameters
    ----------
    variance : (n_wave, ny, nx) array
    pixel_weights : (ny, nx) or (n_wave, ny, nx) array
        Weight of each pixel, the same in all channels or one per voxel; 0 where it does not count.
    channel_weights : (n_wave,) array
    correlation : CubeCorrelation, optional

    Notes
    -----
    The noise is separable: each channel's sum has the variance ``V_c = sum_pq r_p r_q s_cp s_cq rho_xy(p - q)``, and
    the sums of two channels the correlation ``rho_wave``, so ``Var = sum_cd w_c w_d sqrt(V_c V_d) rho_wave[c, d]``.
    Exact where the variance has the same spatial shape in channels that are correlated.
    """
    planes = np.asarray(variance)
    factors = np.asarray(channel_weights, dtype=np.float64)
    if factors.shape != planes.shape[:1]:
        raise ShapeError(
            f"channel weights have shape {factors.shape}; expected {planes.shape[:1]}",
            field="channel_weights",
        )
    weights = np.broadcast_to(np.asarray(pixel_weights, dtype=np.float64), planes.shape)
    spatial, spectral = (None, None) if correlation is None else correlation
    sums = np.zeros(planes.shape[0])
    for channel in np.flatnonzero(factors):
        sums[channel] = sum_variance(planes[channel], weights[channel], spatial)
    return float(weighted_sum_variance(sums, factors, spectral))


def truncate_lags(lags: ArrayLike, lost: float = LOST_CORRELATION) -> Float:
    """Cut lags to the fewest that keep all but ``lost`` of the sum of their absolute values, in every channel.

    Parameters
    ----------
    lags : (k,) or (n_wave, k) array
    lost : float
        Share that may be lost. A share f costs f / 2 in the error of a long sum.

    Returns
    -------
    (j,) or (n_wave, j) float64 array, j <= k
    """
    array = np.asarray(lags, dtype=np.float64)
    radius = array.shape[-1] // 2
    sizes = np.atleast_2d(np.abs(array))
    total = sizes.sum(axis=-1)
    kept = sizes[:, radius].copy()
    reach = 0
    while reach < radius and np.any(kept < (1.0 - lost) * total):
        reach += 1
        kept += sizes[:, radius - reach] + sizes[:, radius + reach]
    return array[..., radius - reach : radius + reach + 1].copy()


def measure_lag_covariance(residual: ArrayLike, used: NDArray[np.bool_], radius: int) -> Float:
    """Measure the autocovariance of noise along wavelength.

    Parameters
    ----------
    residual : (n, n_wave) array
        Noise of n spectra, already divided by ``sqrt(variance)``; what stands where ``used`` is False does not matter.
    used : (n, n_wave) bool array
        True on the channels to use, away from lines and from residuals of the sky.
    radius : int
        Largest lag in channels.

    Returns
    -------
    (2 radius + 1,) float64 array
        Mean product of the pairs of used channels at each lag. The middle is the true variance over the claimed one.

    Raises
    ------
    ShapeError
        When the two arrays differ in shape.
    InputError
        When fewer than 200 channels are used in all.

    Notes
    -----
    The mean of each spectrum is taken off, which lowers every lag by the variance of that mean,
    ``sum_lags pairs C / n^2``; that is added back.
    """
    values, good = np.atleast_2d(np.asarray(residual)), np.atleast_2d(np.asarray(used, dtype=bool))
    if values.shape != good.shape:
        raise ShapeError(f"used has shape {good.shape}; expected {values.shape}", field="used")
    counts = good.sum(axis=1)
    n_used = int(counts.sum())
    if n_used < FEWEST_CHANNELS:
        raise InputError(
            f"only {n_used} channels are left to measure the noise; {FEWEST_CHANNELS} are needed",
            field="used",
            remedy="mask fewer channels, or use more spectra",
        )
    clean = np.where(good, values, 0.0).astype(np.float64)
    clean -= np.where(good, clean.sum(axis=1, keepdims=True) / np.maximum(counts, 1)[:, None], 0.0)
    covariance = np.zeros(2 * radius + 1)
    shares = np.zeros(2 * radius + 1)
    for lag in range(min(radius, values.shape[1] - 1) + 1):
        stop = values.shape[1] - lag
        pairs = np.count_nonzero(good[:, :stop] & good[:, lag:], axis=1)
        if pairs.sum() > 0:
            product = np.einsum("ij,ij->", clean[:, :stop], clean[:, lag:]) / pairs.sum()
            covariance[[radius - lag, radius + lag]] = product
        shares[[radius - lag, radius + lag]] = np.sum(pairs / np.maximum(counts, 1)) / n_used
    remaining = 1.0 - shares.sum()
    if remaining > 0.2:
        covariance += np.sum(shares * covariance) / remaining
    return covariance


def measure_lags(residual: ArrayLike, used: NDArray[np.bool_], radius: int) -> Float:
    """Measure the autocorrelation of noise along wavelength, (2 radius + 1,); see `measure_lag_covariance`."""
    covariance = measure_lag_covariance(residual, used, radius)
    if not covariance[radius] > 0:
        raise InputError("the residuals are all the same; they hold no noise", field="residual")
    return np.asarray(covariance / covariance[radius])


def resample_lags(
    first: NDArray[np.int64], weights: Float, correlation: ArrayLike | None, variance: ArrayLike
) -> Float:
    """Pass correlations along wavelength through a resampling.

    Parameters
    ----------
    first : (n_out,) int array
        First input channel that each output channel takes part of.
    weights : (n_out, m) float64 array
        Weight of input channels ``first`` to ``first + m - 1``; 0 where not used (also beyond the end of the axis).
        Output channels without any weight are independent of all others.
    correlation : (k,) or (n_wave, k) array, optional
        Lags of the input; None: independent.
    variance : (n_wave,) array
        Typical variance of each input channel, on any scale: where it changes within a channel or two (a sky
        line), it decides how much of the noise two output channels share.

    Returns
    -------
    (n_out, j) float64 array
        Band of lags, cut by the 1 % rule.

    Notes
    -----
    ``C = W S R S W^T`` with the band matrix R of the lags and ``S = diag(sqrt(variance))``;
    ``rho[j, k] = C[j, k] / sqrt(C[j, j] C[k, k])``.
    """
    from scipy import sparse

    spread = np.sqrt(np.asarray(variance, dtype=np.float64))
    n_wave, (n_out, taps) = spread.size, weights.shape
    bands = lag_bands(correlation, n_wave)
    radius = bands.shape[1] // 2
    columns = np.minimum(first[:, None] + np.arange(taps), n_wave - 1)
    rows = np.broadcast_to(np.arange(n_out)[:, None], columns.shape)
    matrix = sparse.csr_array((weights.ravel(), (rows.ravel(), columns.ravel())), shape=(n_out, n_wave))
    matrix = matrix @ sparse.diags_array(spread)
    upper = [bands[: n_wave - lag, radius + lag] for lag in range(min(radius, n_wave - 1) + 1)]
    band = sparse.diags_array(
        [*upper, *upper[1:]],
        offsets=[*range(len(upper)), *range(-1, -len(upper), -1)],
        shape=(n_wave, n_wave),
    )
    covariance = (matrix @ band @ matrix.T).tocoo()
    reach = int(np.max(np.abs(covariance.row - covariance.col), initial=0))
    diagonal = covariance.diagonal()
    scale = np.zeros(n_out)
    np.divide(1.0, np.sqrt(diagonal), out=scale, where=diagonal > 0)
    lags = np.zeros((n_out, 2 * reach + 1))
    place = reach + covariance.col - covariance.row
    lags[covariance.row, place] = covariance.data * scale[covariance.row] * scale[covariance.col]
    lags[:, reach] = 1.0
    return truncate_lags(lags)
