"""Cubes and spectra: noise is drawn, and sums of channels and spaxels are set beside their errors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.truth import Check, Row, recovered
from skyloom.core.cube import Cube, CubeCorrelation
from skyloom.core.noise import region_variances
from skyloom.core.spectra import Spectra
from skyloom.core.spectral_noise import lag_bands, weighted_sum_variance
from skyloom.spectral.axes.extinction import deredden
from skyloom.spectral.axes.resample import resample
from skyloom.spectral.axes.rest_frame import to_rest_frame

UNIT = "1e-20 erg/(s cm2 AA)"
N_SPECTRA, N_WAVE = 600, 400
WIDTHS = (1, 5, 50)
Operation = Callable[[Spectra], Spectra]
OPERATIONS: dict[str, Operation] = {
    "1.25 to 1 A": lambda spectra: resample(spectra, step=1.0),
    "to a logarithmic axis": lambda spectra: resample(spectra, step=1e-4, sampling="log"),
    "rest frame, dust, 1 A": lambda spectra: resample(
        deredden(to_rest_frame(spectra, 0.0885), av=0.5), step=1.0
    ),
    "resampled twice": lambda spectra: resample(resample(spectra, step=0.9), step=1.3),
}
KERNELS = {"white": [1.0], "correlated": [1.0, 2.0, 1.0]}


def noise_of(taps: list[float], n: int, n_wave: int, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
    """White noise filtered along wavelength, of variance 1, and its lags."""
    kernel = np.asarray(taps) / np.linalg.norm(taps)
    white = np.random.default_rng(seed).normal(size=(n, n_wave + kernel.size - 1))
    noise = sum(weight * white[:, i : i + n_wave] for i, weight in enumerate(kernel))
    return np.asarray(noise), None if kernel.size == 1 else np.convolve(kernel, kernel[::-1])


def sum_pulls(spectra: Spectra, width: int, gap: int = 4) -> np.ndarray:
    """Pulls of sums over neighbouring channels, with a gap between them that makes them independent."""
    bands = lag_bands(spectra.correlation, spectra.wave.size)
    found = []
    for start in range(0, spectra.wave.size - width + 1, width + gap):
        part = slice(start, start + width)
        spread = weighted_sum_variance(spectra.variance[:, part], np.ones(width), bands[part])
        good = spectra.valid[:, part].all(axis=1)
        found.append((spectra.data[:, part].sum(axis=1) / np.sqrt(spread))[good])
    return np.concatenate(found)


def resampled() -> list[Row]:
    """Sums of channels after other axes."""
    rows = []
    wave = 4750.0 + 1.25 * np.arange(N_WAVE)
    variance = np.linspace(1.0, 3.0, N_WAVE) * (1 + 15 * np.exp(-0.5 * ((wave - wave[200]) / 1.5) ** 2))
    for kind, taps in KERNELS.items():
        noise, lags = noise_of(taps, N_SPECTRA, N_WAVE, 11)
        planes = noise * np.sqrt(variance), np.broadcast_to(variance, noise.shape).copy()
        spectra = Spectra(*planes, None, UNIT, wave, "air", correlation=lags)
        for name, operation in OPERATIONS.items():
            found = operation(spectra)
            for width in WIDTHS:
                what = f"{kind} noise, {name}, {width} px"
                rows.append(recovered("Spectra: sums of channels", what, sum_pulls(found, width)).row())
    return rows


def extracted() -> list[Row]:
    """Spectra of bins of a cube whose spaxels and channels are correlated."""
    from scipy.spatial import cKDTree
    from tests.oracles.extract import correlated_noise

    from skyloom.spectral.bins.extract import extract_spectra

    shape = (200, 96, 96)
    generator = np.random.default_rng(31)
    noise, rho, lags = correlated_noise(generator, shape, 0.6, 0.5)
    y, x = np.indices(shape[1:])
    variance = np.exp(1.1 * (x / 48 - 1)) * (1 + 0.5 * np.sin(np.arange(shape[0]) / 20))[:, None, None]
    planes = (plane.astype(np.float32) for plane in (noise * np.sqrt(variance), variance))
    wave = 4750 + 1.25 * np.arange(shape[0])
    cube = Cube(*planes, None, UNIT, None, wave, "air", correlation=CubeCorrelation(rho, lags))
    # How many pulls count as one: the squared correlation of channels, and that of single spaxels.
    along, across = float(np.sum(lags**2)), float(np.sum(rho**2))
    rows = []
    for size in (1, 9, 50):
        places = generator.uniform(0, 96, (round(96 * 96 / size), 2))
        labels = cKDTree(places).query(np.stack([y.ravel(), x.ravel()], axis=1))[1].reshape(96, 96)
        if size == 1:
            labels = np.arange(96 * 96).reshape(96, 96)
        spectra = extract_spectra(cube, np.unique(labels, return_inverse=True)[1].reshape(96, 96))
        each = along * (across if size == 1 else 1.3)
        pulls = spectra.data / np.sqrt(spectra.variance)
        what = f"bins of about {size} spaxels" if size > 1 else "single spaxels"
        rows.append(recovered("Cubes: spectra of bins", what, pulls, each=each).row())
    return rows


def binned() -> list[Row]:
    """Fresh noise in bins that were made on another draw, over the noise that they claim."""
    from tests.inputs.binning import add_noise, disc_and_blobs, gaussian_correlation

    from skyloom.spectral.bins.binning import bin_to_snr

    truth, variance = disc_and_blobs(90)
    rho = gaussian_correlation(0.6, 3)
    numbers = np.asarray(bin_to_snr(add_noise(truth, variance, 1, 0.6), variance, 10.0, correlation=rho))
    n_bins = int(numbers.max()) + 1
    claimed = np.sqrt(region_variances(variance, numbers, n_bins, rho))
    several = np.bincount(numbers.ravel()) > 3
    sums = [
        np.bincount(numbers.ravel(), (add_noise(truth, variance, 100 + seed, 0.6) - truth).ravel())[several]
        for seed in range(60)
    ]
    return [
        recovered(
            "Cubes: bins of equal S/N", "fresh noise in bins", np.array(sums) / claimed[several], each=1.5
        ).row()
    ]


def line_maps() -> list[Row]:
    """The S/N of a line where there is none."""
    from tests.inputs.snr import noise_cube

    from skyloom.spectral.signal.snr import first_velocity_map, line_snr

    rows = []
    for kind, taps in KERNELS.items():
        kernel = None if len(taps) == 1 else np.array(taps)
        cube = noise_cube(np.random.default_rng(3), (230, 100, 100), kernel=kernel)
        first = first_velocity_map(cube, "Halpha", 0.0)
        for name, snr in {
            "window": line_snr(cube, "Halpha", 0.0),
            "matched filter, velocities of a first pass": line_snr(
                cube, "Halpha", 0.0, "matched", velocity=first
            ),
        }.items():
            what = f"{kind} noise, {name}"
            rows.append(recovered("Cubes: S/N of a line that is not there", what, snr.snr.data).row())
    return rows


CHECKS: dict[str, Check] = {
    "resampled spectra": resampled,
    "spectra of bins": extracted,
    "bins": binned,
    "line maps": line_maps,
}
