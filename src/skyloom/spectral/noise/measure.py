"""What the voxels of a cube say about its noise: how far the claimed variance is off, and how it is correlated.

`measure_cube_noise` compares the scatter of line-free voxels about a smooth continuum with the variance plane, and
measures the correlation of neighbouring spaxels and channels; `apply_cube_noise` gives a cube what was measured.
``docs/design/cube_noise.md`` says how, and what it is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.core.cube import Cube, CubeCorrelation
from skyloom.core.noise import autocorrelate, truncate_correlation
from skyloom.core.provenance import step
from skyloom.core.spectral_noise import truncate_lags
from skyloom.core.threads import run_blocks
from skyloom.errors import InputError, ShapeError
from skyloom.spectral.noise.windows import MIN_CHANNELS, MIN_SPAXELS, WindowLags, measure_window

__all__ = [
    "CubeNoise",
    "apply_cube_noise",
    "combine_cube_noise",
    "manga_sum_factor",
    "measure_cube_noise",
]

Float = NDArray[np.float64]
DEFAULT_RADIUS = 7
DEFAULT_SPECTRAL_RADIUS = 5
DEFAULT_WINDOW = 64
LEAST_SHARE = 0.25  # The lags to solve for may number so many of the spaxels.
MANY_SPAXELS = 20_000  # With 64 channels these give each lag to 0.002; more only cost time.
TILE = 40
KNIGHT = 2  # Tiles are taken like this many columns on in every next row, not one below the other.
SIGNIFICANT = 3.0
SHORTEST_STRUCTURE = 4  # Within fewer spaxels noise and structure cannot be told apart.
LEAST_SCALE = 1e-6  # Rounding of float32 scatters like this.
MIN_WINDOWS = 6  # Fewer say nothing about how the scale runs with wavelength.
MAX_AMPLIFICATION = 3.0  # Of errors by solving for the lags; 64 channels in a row and lags up to 5 give 2.3.


@dataclass(frozen=True, slots=True, eq=False)
class CubeNoise:
    """The noise of a cube as measured.

    Parameters
    ----------
    scale, scale_error : float
        True variance over claimed variance, over all that was measured, and its standard error.
    spatial : (k, k) float64 array
        Autocorrelation across the field, cut where it is no longer significant and by the 1 % rule.
    spatial_error : float
        Standard error of each of its lags.
    spectral : (m,) float64 array
        Autocorrelation along wavelength, cut likewise.
    spectral_error : float
    structure : float
        Share of the variance of the residuals that spaxels have in common at the largest lag: what the spectra of the
        object left behind. It is taken off from scale and correlation.
    wave, scales, scale_errors : (n,) float64 arrays
        True variance over claimed variance in each window of channels: mean wavelength in A, value, error.
    n_voxels, n_channels : int
        What was used.
    windows : tuple of WindowLags
        The sums that all of this follows from, for `combine_cube_noise`.
    """

    scale: float
    scale_error: float
    spatial: Float
    spatial_error: float
    spectral: Float
    spectral_error: float
    structure: float
    wave: Float
    scales: Float
    scale_errors: Float
    n_voxels: int
    n_channels: int
    windows: tuple[WindowLags, ...] = field(default=(), repr=False)

    def scale_at(self, wave: ArrayLike) -> Float:
        """Return true over claimed variance at wavelengths in A.

        A polynomial through ``scales`` of degree 0, 1 or 2, whichever the Bayesian information criterion prefers
        (degree 0 is ``scale``); beyond the first and last window the value there holds.
        """
        place = np.asarray(wave, dtype=np.float64)
        chosen = np.full(place.shape, self.scale)
        n = self.wave.size
        if n < MIN_WINDOWS:
            return chosen
        weight = 1.0 / self.scale_errors
        middle, half = self.wave.mean(), np.ptp(self.wave) / 2
        inside = (np.clip(place, self.wave.min(), self.wave.max()) - middle) / half
        best = _criterion(weight * (self.scales - self.scale), 1)
        for degree in (1, 2):
            fit = np.polyfit((self.wave - middle) / half, self.scales, degree, w=weight)
            rest = self.scales - np.polyval(fit, (self.wave - middle) / half)
            criterion = _criterion(weight * rest, degree + 1)
            if criterion < best:
                best, chosen = criterion, np.asarray(np.polyval(fit, inside))
        # Never far below what any window found, however the polynomial bends between them.
        return np.maximum(chosen, 0.5 * self.scales.min())

    @property
    def correlation(self) -> CubeCorrelation:
        """Both correlations as a cube carries them; None where neighbours are independent."""
        return CubeCorrelation(
            self.spatial if self.spatial.size > 1 else None, self.spectral if self.spectral.size > 1 else None
        )


def _criterion(rest: Float, n_parameters: int) -> float:
    """Bayesian information criterion, the size of the errors unknown."""
    return float(rest.size * np.log(np.mean(rest**2)) + n_parameters * np.log(rest.size))


def measure_cube_noise(
    cube: Cube,
    *,
    line_free: ArrayLike | None = None,
    spaxels: ArrayLike | None = None,
    radius: int = DEFAULT_RADIUS,
    spectral_radius: int = DEFAULT_SPECTRAL_RADIUS,
    window: int = DEFAULT_WINDOW,
    workers: int = 1,
) -> CubeNoise:
    """Measure true over claimed variance and the correlation of the noise.

    Parameters
    ----------
    cube : Cube
        Whole, or a slab of channels; some hundred channels in a few slabs are enough (`combine_cube_noise`).
    line_free : (n_wave,) bool array, optional
        Channels to use, away from emission lines and from residuals of the sky. None: all. Channels that stand out
        by their scatter are left out in any case.
    spaxels : (ny, nx) bool array, optional
        Spaxels to use. None: all. Those that stand out by their scatter are left out in any case, and of more than
        40000 some tiles are taken.
    radius, spectral_radius : int
        Largest lags, in spaxels and channels. Correlations must have vanished there. In small fields the spatial
        radius is reduced until the lags to solve for number at most a quarter of the spaxels.
    window : int
        Channels over which a polynomial of degree 3 must follow the continuum.
    workers : int
        Threads, one window each.

    Returns
    -------
    CubeNoise

    Raises
    ------
    ShapeError
        When ``line_free`` or ``spaxels`` do not fit the cube.
    InputError
        When no window has 20 usable channels on 30 usable spaxels, or the residuals hold no noise.

    Notes
    -----
    With e the normalised residuals, the sum of products at lag l is ``S_l = sum_m R_lm C_m`` on average: R follows
    from the projections that took continuum and common spectra off, and the covariances C solve this system. So
    neither the variance nor the correlation that the high-pass filter takes away has to be guessed.
    """
    n_wave, ny, nx = cube.shape
    channels = _check_selection("line_free", line_free, (n_wave,))
    field_of_view = _check_selection("spaxels", spaxels, (ny, nx))
    for name, value, least in (
        ("radius", radius, 0),
        ("spectral_radius", spectral_radius, 0),
        ("window", window, MIN_CHANNELS),
        ("workers", workers, 1),
    ):
        if value < least:
            raise InputError(f"{name} is {value}; expected at least {least}", field=name)
    field_of_view = _thin_out(field_of_view)
    reach = _affordable_radius(min(radius, (min(ny, nx) - 1) // 2), int(field_of_view.sum()))
    edges = np.linspace(0, n_wave, max(1, round(n_wave / window)) + 1).astype(int).tolist()

    def measure(part: slice) -> WindowLags | None:
        return measure_window(cube, part, channels, field_of_view, reach, spectral_radius)

    found = run_blocks(measure, map(slice, edges[:-1], edges[1:]), workers)
    windows = tuple(each for each in found if each is not None)
    if not windows:
        raise InputError(
            f"no window of the {n_wave} channels has {MIN_CHANNELS} line-free channels on {MIN_SPAXELS} spaxels",
            field="cube",
            remedy="allow more channels or spaxels, or give the correlation and leave the variance as it is",
        )
    return _solve(windows)


def _check_selection(name: str, selection: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    if selection is None:
        return np.ones(shape, bool)
    chosen = np.asarray(selection, dtype=bool)
    if chosen.shape != shape:
        raise ShapeError(f"{name} has shape {chosen.shape}; expected {shape}, that of the cube", field=name)
    return chosen


def _thin_out(spaxels: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep one tile in some of a large field: neighbours stay together, and all of the field is seen."""
    step_over = int(np.count_nonzero(spaxels)) // MANY_SPAXELS
    if step_over < 2:
        return spaxels
    y, x = np.indices(spaxels.shape) // TILE
    return np.asarray(spaxels & ((y * KNIGHT + x) % step_over == 0))


def _affordable_radius(radius: int, n_spaxels: int) -> int:
    """Reduce the radius until the patterns that are taken off leave every lag measurable."""
    while radius > 0 and (2 * radius + 1) ** 2 > LEAST_SHARE * n_spaxels:
        radius -= 1
    return max(radius, 0)


def combine_cube_noise(measurements: Sequence[CubeNoise]) -> CubeNoise:
    """Combine measurements of several slabs (or of several cubes with the same noise) into one.

    Raises
    ------
    InputError
        When there is none, one does not carry its windows, or their radii differ.
    """
    if not measurements or any(not each.windows for each in measurements):
        raise InputError(
            "there are no measurements to combine, or they carry no windows", field="measurements"
        )
    windows = [window for each in measurements for window in each.windows]
    sizes = {(each.spatial_sums.shape[0] // 2, each.spectral_sums.size - 1) for each in windows}
    if len(sizes) > 1:
        raise InputError(
            f"the measurements have different radii (spatial, spectral): {sorted(sizes)}",
            field="measurements",
            remedy="measure all with the same radius",
        )
    return _solve(tuple(sorted(windows, key=lambda each: each.wave)))


def _solve(windows: tuple[WindowLags, ...]) -> CubeNoise:
    """Covariances before the projections, from the sums of products after them."""
    measured = _solve_spatial(windows)
    kept = [_kept_share(each, measured) for each in windows]
    expected = [share * each.spectral_response for share, each in zip(kept, windows, strict=True)]
    sums = np.array([each.spectral_sums for each in windows])
    n_voxels = np.array([each.n_voxels for each in windows])
    covariance = _solve_spectral(np.sum(expected, axis=0), sums.sum(axis=0), int(n_voxels.sum()))
    lags = np.concatenate([covariance[:0:-1], covariance]) / covariance[0]
    first = np.array([response[0, : covariance.size] for response in expected])
    scales = sums[:, 0] / (first @ covariance / covariance[0])
    middle = measured.shape[0] // 2
    n_pairs = np.array([n_voxels.sum(), np.sum([each.spatial_pairs[middle, middle] for each in windows])])
    error, spatial_error = np.sqrt(np.sum(measured**2) * np.sum(lags**2) / n_pairs).tolist()
    rho, structure = _take_off_structure(measured, spatial_error)
    spatial, spectral = _cut_spatial(rho, spatial_error), _cut_spectral(lags, error)
    relative = np.sqrt(2.0 * np.sum(spatial**2) * np.sum(spectral**2))
    scale, scales = float(covariance[0] * (1.0 - structure)), scales * (1.0 - structure)
    return CubeNoise(
        scale=scale,
        scale_error=float(scale * relative / np.sqrt(n_voxels.sum())),
        spatial=spatial,
        spatial_error=spatial_error,
        spectral=spectral,
        spectral_error=error,
        structure=structure,
        wave=np.array([each.wave for each in windows]),
        scales=scales,
        scale_errors=scales * relative / np.sqrt(n_voxels),
        n_voxels=int(n_voxels.sum()),
        n_channels=sum(each.n_channels for each in windows),
        windows=windows,
    )


def _take_off_structure(rho: Float, error: float) -> tuple[Float, float]:
    """Take off what spaxels still have in common at the largest lag, and return its share of the variance.

    Noise of neighbours has ended there; what stellar features and sky residuals leave has not, and would add up to a
    wrong variance of large sums.
    """
    radius = rho.shape[0] // 2
    if radius < SHORTEST_STRUCTURE:
        return rho, 0.0
    level, uncertainty = _ring_mean(rho, error, radius)
    if level < SIGNIFICANT * uncertainty:
        return rho, 0.0
    return (rho - level) / (1.0 - level), level


def _solve_spatial(windows: tuple[WindowLags, ...]) -> Float:
    """Autocorrelation across the field, before the patterns were taken off."""
    sums = np.sum([each.spatial_sums for each in windows], axis=0)
    response = np.diag(np.sum([each.spatial_pairs for each in windows], axis=0).ravel())
    for each in windows:
        flat = each.pattern_lags.reshape(-1, sums.size)
        response -= each.n_planes * (flat.T @ flat)
    covariance = np.linalg.lstsq(response, sums.ravel(), rcond=None)[0].reshape(sums.shape)
    centre = covariance[sums.shape[0] // 2, sums.shape[1] // 2]
    _check_scatter(float(centre))
    return np.asarray((covariance + covariance[::-1, ::-1]) / (2.0 * centre))


def _solve_spectral(response: Float, sums: Float, n_voxels: int) -> Float:
    """Covariances at lag 0, 1, ... before the projections: as many as the channels tell apart.

    In a short run of channels a correlation over several of them looks like the polynomial that was taken off. What
    is left there of lines or continuum would be taken for large negative covariances, and sums for less than no noise.
    """
    for size in range(sums.size, 0, -1):
        part = response[:size, :size]
        weakest = float(np.linalg.svd(part, compute_uv=False)[-1])
        if size > 1 and weakest * MAX_AMPLIFICATION < n_voxels:
            continue
        covariance = np.asarray(np.linalg.lstsq(part, sums[:size], rcond=None)[0], dtype=np.float64)
        _check_scatter(float(covariance[0]))
        if _is_covariance(covariance):
            break
    return covariance


def _is_covariance(lags: Float) -> bool:
    """Tell whether no sum of channels gets a variance below zero: the spectrum of the noise is positive."""
    phases = np.outer(np.linspace(0.0, np.pi, 16 * lags.size), np.arange(1, lags.size))
    return bool(np.all(lags[0] + 2.0 * np.cos(phases) @ lags[1:] > 0))


def _check_scatter(scale: float) -> None:
    if not scale > LEAST_SCALE:
        raise InputError(
            f"the voxels scatter by {np.sqrt(max(scale, 0.0)):.3g} of their errors about a smooth spectrum: no noise",
            field="data",
            remedy="check that data and errors belong together",
        )


def _kept_share(window: WindowLags, rho: Float) -> float:
    """Share of the variance that is left after the patterns were taken off."""
    return 1.0 - float(np.sum(window.pattern_lags * rho)) / window.n_spaxels


def _cut_spatial(rho: Float, error: float) -> Float:
    """Cut a measured correlation at the last ring that is significant, then by the 1 % rule."""
    radius = rho.shape[0] // 2
    reach = 0
    for distance in range(1, radius + 1):
        mean, uncertainty = _ring_mean(rho, error, distance)
        if abs(mean) > SIGNIFICANT * uncertainty:
            reach = distance
    inside = slice(radius - reach, radius + reach + 1)
    return truncate_correlation(rho[inside, inside])


def _ring_mean(rho: Float, error: float, distance: int) -> tuple[float, float]:
    """Mean of the lags at one distance, and its standard error.

    The lags are not measured independently: ``N cov(C_d, C_e) = A(d - e) + A(d + e)`` with A the autocorrelation of
    rho (Bartlett's formula), and ``error**2 = A(0) / N``.
    """
    radius = rho.shape[0] // 2
    lags = np.argwhere(np.maximum(*np.abs(np.indices(rho.shape) - radius)) == distance) - radius
    spread = autocorrelate(rho)
    y, x = (lags[:, None, axis] - lags[None, :, axis] + 2 * radius for axis in (0, 1))
    covariance = 2.0 * spread[y, x] / spread[2 * radius, 2 * radius]
    values = rho[lags[:, 0] + radius, lags[:, 1] + radius]
    return float(values.mean()), float(error * np.sqrt(max(covariance.mean(), 0.0)))


def _cut_spectral(lags: Float, error: float) -> Float:
    """Cut measured lags at the last that is significant, then by the 1 % rule."""
    radius = lags.size // 2
    significant = np.flatnonzero(np.abs(lags[radius:]) > SIGNIFICANT * error)
    reach = int(significant[-1])
    return truncate_lags(lags[radius - reach : radius + reach + 1])


def apply_cube_noise(cube: Cube, noise: CubeNoise) -> Cube:
    """Return ``cube`` with its variance rescaled and its correlation set to what was measured.

    Parameters
    ----------
    cube : Cube
        Whole, or any slab of channels.
    noise : CubeNoise
        Its `CubeNoise.scale_at` multiplies the variance channel by channel.

    Returns
    -------
    Cube
    """
    scale = noise.scale_at(cube.wave).astype(cube.variance.dtype)
    # Whatever lies under the mask may overflow; usable variances are scaled by about one.
    with np.errstate(over="ignore", invalid="ignore"):
        variance = cube.variance * scale[:, None, None]
    record = step(
        "apply_cube_noise",
        variance_scale=noise.scale,
        variance_scale_error=noise.scale_error,
        variance_scale_range=[float(scale.min()), float(scale.max())],
        spatial_correlation_sum=float(noise.spatial.sum()),
        spectral_correlation_sum=float(noise.spectral.sum()),
        n_voxels=noise.n_voxels,
    )
    return cube.evolve_checked(record, variance=variance, correlation=noise.correlation)


def manga_sum_factor(n_spaxels: ArrayLike) -> Float:
    """Return the true error of a sum over ``n_spaxels`` of a MaNGA cube over that for independent spaxels.

    ``1 + 1.62 log10(n)`` up to 100 spaxels, 4.2 beyond: Law et al. (2016), 10.3847/0004-6256/152/4/83, section 9.3.
    A calibration on compact bins; for other shapes and for any other instrument use a correlation
    (`skyloom.core.noise.gaussian_correlation`, `measure_cube_noise`).
    """
    number = np.asarray(n_spaxels, dtype=np.float64)
    return np.where(number > 100, 4.2, 1.0 + 1.62 * np.log10(np.maximum(number, 1.0)))
