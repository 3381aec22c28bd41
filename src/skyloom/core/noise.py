"""The noise model: how variance and its correlation pass through linear steps and into sums.

The noise of an image is taken as ``n(x) = sqrt(v(x)) e(x)``: a smooth variance plane ``v`` and stationary noise ``e``
of unit variance with autocorrelation ``rho`` (odd square, 1 in its centre). Everything that adds pixels calls
`sum_variance` or `region_variances`; everything that mixes pixels linearly calls `convolve_correlation` or
`resample_correlation`. ``docs/numbers.md`` derives the equations; ``docs/design/noise.md`` says what they are worth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft

from skyloom.core.image import Image, check_correlation
from skyloom.core.labels import as_labels
from skyloom.core.provenance import step
from skyloom.core.resampling_noise import resample_covariance
from skyloom.errors import InputError, ShapeError
from skyloom.kernels.images.regions import pair_variances

__all__ = [
    "NoiseMeasurement",
    "add_source_poisson",
    "apply_noise",
    "autocorrelate",
    "combine_correlation",
    "combine_measurements",
    "convolve_correlation",
    "gaussian_correlation",
    "lag_covariance",
    "measure_correlation",
    "region_variances",
    "resample_correlation",
    "sum_variance",
    "truncate_correlation",
    "wrapped_correlation",
]

Float = NDArray[np.float64]
DIRECT_RADIUS = 10  # Beyond this kernel radius the FFT of a region's box costs less than its pairs.
LOST_CORRELATION = (
    0.01  # Share of sum |rho| that truncation may lose; it costs half of that in a sum's error.
)


def autocorrelate(kernel: ArrayLike) -> Float:
    """Return ``kernel`` star ``kernel``, of side 2n - 1 for a kernel of side n."""
    array = np.asarray(kernel, dtype=np.float64)
    return convolve_full(array, array[::-1, ::-1])


def convolve_full(first: Float, second: Float) -> Float:
    """Return the full linear convolution of two small arrays."""
    shape = tuple(a + b - 1 for a, b in zip(first.shape, second.shape, strict=True))
    padded = tuple(fft.next_fast_len(size, real=True) for size in shape)
    product = fft.rfft2(first, padded) * fft.rfft2(second, padded)
    full = fft.irfft2(product, padded)[: shape[0], : shape[1]]
    # Rounding of the transform, far below any lag that matters, would otherwise be kept as correlation.
    full[np.abs(full) < 1e-14 * np.abs(full).max()] = 0.0
    return np.asarray(full)


def truncate_correlation(correlation: ArrayLike, lost: float = LOST_CORRELATION) -> Float:
    """Cut a correlation to the smallest odd square that keeps all but ``lost`` of the sum of its absolute values."""
    rho = np.asarray(correlation, dtype=np.float64)
    centre_y, centre_x = rho.shape[0] // 2, rho.shape[1] // 2
    y, x = np.indices(rho.shape)
    ring = np.maximum(np.abs(y - centre_y), np.abs(x - centre_x))
    inside = np.cumsum(np.bincount(ring.ravel(), weights=np.abs(rho).ravel()))
    radius = int(np.searchsorted(inside, (1.0 - lost) * inside[-1]))
    cut = np.zeros((2 * radius + 1, 2 * radius + 1))
    reach_y, reach_x = min(radius, centre_y), min(radius, centre_x)
    cut[radius - reach_y : radius + reach_y + 1, radius - reach_x : radius + reach_x + 1] = rho[
        centre_y - reach_y : centre_y + reach_y + 1, centre_x - reach_x : centre_x + reach_x + 1
    ]
    return np.asarray(cut / cut[radius, radius])


def gaussian_correlation(sigma: float, reach: float | None = None) -> Float:
    """Return the correlation ``rho(d) = exp(-d^2 / (2 sigma^2))`` of noise.

    Parameters
    ----------
    sigma : float
        In pixels. White noise smoothed with a Gaussian is correlated like a Gaussian of sqrt(2) times its width.
    reach : float, optional
        Distance in pixels beyond which there is none. None: the 1 % rule cuts it (`truncate_correlation`).

    Returns
    -------
    (k, k) float64 array
        k odd, 1 in the middle.

    Raises
    ------
    InputError
        When ``sigma`` is not > 0.
    """
    if not 0 < sigma < np.inf:
        raise InputError(f"sigma is {sigma}; expected > 0", field="sigma")
    radius = int(np.ceil(5 * sigma) if reach is None else reach)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    rho = np.exp(-0.5 * (x**2 + y**2) / sigma**2)
    return truncate_correlation(rho) if reach is None else np.where(x**2 + y**2 <= reach**2, rho, 0.0)


def convolve_correlation(kernel: ArrayLike, correlation: ArrayLike | None = None) -> tuple[Float, Float]:
    """Pass noise through a convolution.

    Parameters
    ----------
    kernel : (n, m) array
        Convolution kernel, odd sides.
    correlation : (k, k) array, optional
        Autocorrelation of the noise before; None: white.

    Returns
    -------
    correlation : (j, j) float64 array
        Autocorrelation after: ``(k star k) conv rho``, peak 1, truncated by the 1 % rule.
    variance_kernel : (n, m) float64 array
        The variance after is ``variance_kernel conv variance``. It is ``k . (rho conv k)``, its sum is the noise
        gain (the factor on a uniform variance). Entries that ringing makes negative are set to zero and the rest
        scaled back to the same sum, so that variances stay positive.
    """
    weights = np.asarray(kernel, dtype=np.float64)
    if weights.ndim != 2 or any(size % 2 == 0 for size in weights.shape):
        raise ShapeError(f"the kernel has shape {weights.shape}; expected odd sides", field="kernel")
    spectrum = autocorrelate(weights)
    smeared = weights
    if correlation is not None:
        rho = np.asarray(correlation, dtype=np.float64)
        spectrum = convolve_full(spectrum, rho)
        radius_y, radius_x = rho.shape[0] // 2, rho.shape[1] // 2
        full = convolve_full(weights, rho)
        smeared = full[radius_y : radius_y + weights.shape[0], radius_x : radius_x + weights.shape[1]]
    variance_kernel = weights * smeared
    gain = float(variance_kernel.sum())
    if not gain > 0:
        raise InputError(
            f"the convolution leaves a noise variance of {gain} times the input", field="correlation"
        )
    positive = np.maximum(variance_kernel, 0.0)
    return truncate_correlation(spectrum / gain), positive * (gain / positive.sum())


def resample_correlation(
    method: str, matrix: ArrayLike, correlation: ArrayLike | None = None, phases: ArrayLike | None = None
) -> tuple[Float, float]:
    """Pass noise through a resampling.

    Parameters
    ----------
    method : {"bilinear", "lanczos3", "area"}
        Interpolation kernel h; weights sum to 1 for each output pixel.
    matrix : (2, 2) array
        Step of one output pixel (x, y) in input pixels (x, y).
    correlation : (k, k) array, optional
        Autocorrelation of the noise before; None: white.
    phases : (n, 2) array, optional
        Positions (x, y) of output pixels in the input grid, when only their fractions occur (a pure shift, a
        rational scale); None: all occur alike.

    Returns
    -------
    correlation : (j, j) float64 array
        Autocorrelation after, truncated by the 1 % rule.
    gain : float
        Variance after = gain times the (smoothly interpolated) variance before.

    Notes
    -----
    ``C(d) = sum_m rho(m) (h star h)(M d - m)``, ``gain = C(0)``, ``rho' = C / gain``: the covariance of two output
    pixels d apart, averaged over the sub-pixel phase. The exact variance of single pixels oscillates with the phase;
    put into sums together with a mean correlation it would be wrong by up to 25 %.
    """
    rho = np.ones((1, 1)) if correlation is None else np.asarray(correlation, dtype=np.float64)
    positions = None if phases is None else np.atleast_2d(np.asarray(phases, dtype=np.float64))
    covariance = resample_covariance(method, np.asarray(matrix, dtype=np.float64), rho, positions)
    gain = float(covariance[covariance.shape[0] // 2, covariance.shape[1] // 2])
    if not gain > 0:
        raise InputError(
            f"the resampling leaves a noise variance of {gain} times the input", field="correlation"
        )
    return truncate_correlation(covariance / gain), gain


def combine_correlation(variances: list[float], correlations: list[Float | None]) -> Float | None:
    """Return the correlation of a sum of independent images: the mean of theirs, weighted with typical variances.

    Right where the ratio of the variances is uniform over the image; where it is not, it is right on average.
    """
    if all(correlation is None for correlation in correlations):
        return None
    arrays = [np.ones((1, 1)) if correlation is None else correlation for correlation in correlations]
    radius = max(array.shape[0] // 2 for array in arrays)
    total = np.zeros((2 * radius + 1, 2 * radius + 1))
    for variance, array in zip(variances, arrays, strict=True):
        total += variance * np.pad(array, radius - array.shape[0] // 2)
    return truncate_correlation(total / total[radius, radius])


def sum_variance(variance: ArrayLike, weights: ArrayLike, correlation: ArrayLike | None = None) -> float:
    """Return the variance of ``sum(weights * data)``.

    Parameters
    ----------
    variance : (ny, nx) array
    weights : (ny, nx) array
        Weight of each pixel; 0 where it does not count (its variance is then ignored, even NaN).
    correlation : (k, k) array, optional
        Noise autocorrelation; None: independent pixels.

    Notes
    -----
    ``Var = sum_ij r_i r_j sqrt(v_i v_j) rho(x_i - x_j)``.
    """
    region = np.where(np.asarray(weights) != 0, 0, -1).astype(np.int32)
    return float(region_variances(variance, region, 1, correlation, weights)[0])


def region_variances(
    variance: ArrayLike,
    labels: ArrayLike,
    n_regions: int,
    correlation: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> Float:
    """Return the variance of the (weighted) sum over each region.

    Parameters
    ----------
    variance : (ny, nx) array
    labels : (ny, nx) int array
        Region of each pixel, 0 to ``n_regions - 1``; negative: none.
    n_regions : int
    correlation : (k, k) array, optional
        Noise autocorrelation; None: independent pixels.
    weights : (ny, nx) array, optional
        Weight of each pixel, 1 by default.

    Returns
    -------
    (n_regions,) float64 array

    Notes
    -----
    Pairs of pixels are added directly for narrow correlations; for wide ones the region's bounding box is
    transformed. Both give the same number to rounding.
    """
    regions = as_labels(labels)
    plane = np.asarray(variance)
    if plane.shape != regions.shape:
        raise ShapeError(
            f"labels have shape {regions.shape}; expected {plane.shape}, that of the image", field="labels"
        )
    spread = np.zeros(plane.shape)
    inside = regions >= 0
    spread[inside] = np.sqrt(plane[inside], dtype=np.float64)
    if weights is not None:
        spread[inside] *= np.asarray(weights, dtype=np.float64)[inside]
    if correlation is None:
        return np.asarray(np.bincount(regions[inside], spread[inside] ** 2, n_regions), dtype=np.float64)
    rho = check_correlation(correlation, ndim=2)
    if rho.shape[0] // 2 <= DIRECT_RADIUS:
        return np.asarray(pair_variances(spread, regions, rho, n_regions))
    return _transformed_variances(spread, regions, rho, n_regions)


def _transformed_variances(spread: Float, labels: NDArray[np.int32], rho: Float, n_regions: int) -> Float:
    """Variance of each region's sum by FFT of its bounding box; the transform of rho is kept per padded shape."""
    from scipy.ndimage import find_objects

    radius = rho.shape[0] // 2
    cache: dict[tuple[int, int], NDArray[Any]] = {}
    variances = np.zeros(n_regions)
    for region, box in enumerate(find_objects(labels + 1, n_regions)):
        if box is None:
            continue
        patch = np.where(labels[box] == region, spread[box], 0.0)
        padded = tuple(fft.next_fast_len(size + radius, real=True) for size in patch.shape)
        if padded not in cache:
            cache[padded] = fft.rfft2(wrapped_correlation(rho, padded))
        smeared = fft.irfft2(fft.rfft2(patch, padded) * cache[padded], padded)
        variances[region] = np.sum(patch * smeared[: patch.shape[0], : patch.shape[1]])
    return variances


def wrapped_correlation(rho: Float, shape: tuple[int, ...]) -> Float:
    """Put the centre of ``rho`` at index (0, 0) of a periodic array; lags beyond half of it fold, which is exact."""
    radius = rho.shape[0] // 2
    rows, columns = ((np.arange(rho.shape[0]) - radius) % size for size in shape)
    wrapped = np.zeros(shape)
    np.add.at(wrapped, np.ix_(rows, columns), rho)
    return wrapped


@dataclass(frozen=True, slots=True, eq=False)
class NoiseMeasurement:
    """What the empty sky says about the noise.

    Parameters
    ----------
    scale : float
        True variance over claimed variance.
    correlation : (k, k) float64 array
        Noise autocorrelation.
    n_pixels : int
        Sky pixels used.
    scale_error : float
        Standard error of ``scale``.
    """

    scale: float
    correlation: Float
    n_pixels: int
    scale_error: float


def measure_correlation(
    image: Image, source_mask: NDArray[np.bool_] | None = None, radius: int = 6
) -> NoiseMeasurement:
    """Measure how far the claimed variance is off, and the autocorrelation of the noise, on the empty sky.

    Parameters
    ----------
    image : Image
    source_mask : (ny, nx) bool array, optional
        True on sources, grown generously.
    radius : int
        Largest lag in pixels.

    Raises
    ------
    InputError
        When fewer than 200 sky pixels are left.

    Notes
    -----
    The normalised residuals ``e = (data - sky) / sqrt(variance)`` of the usable sky pixels are clipped at 4 sigma;
    the product of pairs is averaged per lag (`lag_covariance`). What is left of the sources' wings is correlated over
    many pixels and would be taken for noise: take it off first with `skyloom.imaging.sky.background.empty_sky`, and
    average several cut-outs of a band with `combine_measurements`, since far lags of a single one are uncertain.
    """
    sky = image.valid if source_mask is None else image.valid & ~np.asarray(source_mask, dtype=bool)
    residual = np.zeros(image.shape)
    if sky.any():
        # A sky pedestal divided by an uneven noise map would look like correlated noise.
        level = np.median(image.data[sky])
        residual[sky] = (image.data[sky] - level) / np.sqrt(image.variance[sky], dtype=np.float64)
    for _ in range(5):
        if np.count_nonzero(sky) < 200:
            break
        values = residual[sky]
        centre = np.median(values)
        scatter = 1.4826 * np.median(np.abs(values - centre))
        sky = sky & (np.abs(residual - centre) < 4.0 * scatter)
    n_pixels = int(np.count_nonzero(sky))
    if n_pixels < 200:
        raise InputError(
            f"only {n_pixels} sky pixels are left to measure the noise; 200 are needed",
            field="source_mask",
            remedy="mask fewer pixels, or give the correlation of another image of the same band",
        )
    covariance = lag_covariance(residual, sky, radius)
    scale = float(covariance[radius, radius])
    correlation = covariance / scale
    independent = n_pixels / max(1.0, float(np.sum(correlation**2)))
    return NoiseMeasurement(scale, correlation, n_pixels, float(scale * np.sqrt(2.0 / independent)))


def lag_covariance(residual: ArrayLike, used: NDArray[np.bool_], radius: int) -> Float:
    """Measure the autocovariance of noise for each lag.

    Parameters
    ----------
    residual : (ny, nx) array
        Noise with any mean; what stands where ``used`` is False does not matter.
    used : (ny, nx) bool array
        True on the pixels to use.
    radius : int
        Largest lag, in pixels.

    Returns
    -------
    (2 radius + 1, 2 radius + 1) float64 array
        Mean product of the pairs of used pixels at each lag. Taking the mean off correlated pixels lowers every lag
        by the variance of that mean, ``sum_lags pairs C / n^2``; it is added back.
    """
    n_pixels = int(np.count_nonzero(used))
    values = np.asarray(residual, dtype=np.float64)
    centred = np.where(used, values - values[used].mean(), 0.0)
    shape = tuple(fft.next_fast_len(size + radius, real=True) for size in centred.shape)
    lags = np.arange(-radius, radius + 1)
    cut = np.ix_(lags, lags)
    sums = fft.irfft2(np.abs(fft.rfft2(centred, shape)) ** 2, shape)[cut]
    pairs = np.rint(fft.irfft2(np.abs(fft.rfft2(np.asarray(used, dtype=np.float64), shape)) ** 2, shape)[cut])
    covariance = np.zeros_like(sums)
    np.divide(sums, pairs, out=covariance, where=pairs > 0)
    remaining = 1.0 - pairs.sum() / n_pixels**2
    if remaining > 0.2:
        covariance += np.sum(pairs * covariance) / n_pixels**2 / remaining
    return np.asarray(covariance)


def combine_measurements(measurements: list[NoiseMeasurement]) -> NoiseMeasurement:
    """Return the pixel-weighted mean of several measurements of the same band.

    Raises
    ------
    InputError
        When there is none.
    """
    if not measurements:
        raise InputError("no noise measurement to combine")
    weights = np.array([item.n_pixels for item in measurements], dtype=np.float64)
    radius = max(item.correlation.shape[0] // 2 for item in measurements)
    covariances = [
        item.scale * np.pad(item.correlation, radius - item.correlation.shape[0] // 2)
        for item in measurements
    ]
    covariance = np.average(covariances, axis=0, weights=weights)
    scale = float(covariance[radius, radius])
    error = float(
        np.sqrt(np.sum((weights * [item.scale_error for item in measurements]) ** 2)) / weights.sum()
    )
    return NoiseMeasurement(scale, covariance / scale, int(weights.sum()), error)


def apply_noise(image: Image, measurement: NoiseMeasurement) -> Image:
    """Return ``image`` with its variance rescaled and its correlation set to what was measured."""
    return image.evolve(
        step(
            "apply_noise",
            variance_scale=measurement.scale,
            variance_scale_error=measurement.scale_error,
            sky_pixels=measurement.n_pixels,
            correlation_sum=float(measurement.correlation.sum()),
        ),
        variance=(image.variance * image.variance.dtype.type(measurement.scale)),
        correlation=measurement.correlation,
    )


def add_source_poisson(image: Image, gain: float, exposure: float) -> Image:
    """Add the photon noise of sources to a variance that holds the background only.

    Parameters
    ----------
    image : Image
        Sky-subtracted.
    gain : float
        Electrons per unit of ``data`` times second: 1 for electron / s; the gain for DN / s.
    exposure : float
        Exposure time in s.

    Notes
    -----
    A source of f electron/s adds f / exposure to the variance of a sum. In correlated (drizzled) images a single
    pixel's share of that is smaller by ``sum(rho)``, so that sums come out right. The signal is the mean of 3x3
    usable pixels, and never below zero, so that noise does not feed its own variance.

    Raises
    ------
    InputError
        When gain or exposure is not > 0.
    """
    from scipy.ndimage import uniform_filter

    for name, value in (("gain", gain), ("exposure", exposure)):
        if not value > 0:
            raise InputError(f"{name} is {value}; expected > 0", field=name)
    valid = image.valid.astype(image.data.dtype)
    signal = uniform_filter(np.where(image.mask, 0.0, image.data), 3, mode="constant")
    share = uniform_filter(valid, 3, mode="constant")
    mean = np.divide(signal, share, out=np.zeros_like(signal), where=share > 0)
    spread = 1.0 if image.correlation is None else float(image.correlation.sum())
    added = np.maximum(mean, 0.0) / (gain * exposure * spread)
    return image.evolve(
        step("add_source_poisson", gain=gain, exposure=exposure),
        variance=image.variance + added.astype(image.variance.dtype),
    )
