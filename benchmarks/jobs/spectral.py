"""Jobs on cubes and spectra: S/N of a line, bins, their spectra, other axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.jobs import Contender, Goal, Job, Task
from benchmarks.pulls import pull_figures
from skyloom.core.cube import Cube, CubeCorrelation
from skyloom.core.noise import region_variances
from skyloom.core.spectra import Spectra

Size = Mapping[str, Any]
UNIT = "1e-20 erg/(s cm2 AA)"
TARGET = 10.0
SPAXELS = 0.6  # Pixels: sigma of the filter that correlates spaxels.

# ------------------------------------------------------------------------------------------------ S/N of a line


def empty_cube(size: Size) -> Cube:
    from tests.inputs.snr import noise_cube

    kernel = np.array([1.0, 2.0, 1.0])
    return noise_cube(np.random.default_rng(1), (size["channels"], size["side"], size["side"]), kernel=kernel)


def snr_ours(size: Size) -> Task:
    from skyloom.spectral.signal.snr import line_snr

    cube = empty_cube(size)

    def judge(found: Any) -> dict[str, float]:
        return pull_figures(found.snr.data, "S/N")

    return Task(lambda: line_snr(cube, "Halpha", 0.0), judge)


def snr_numpy(size: Size) -> Task:
    cube = empty_cube(size)
    rest = 6562.8
    line = np.abs(cube.wave - rest) < 12
    sides = (np.abs(cube.wave - rest) > 20) & (np.abs(cube.wave - rest) < 50)

    def measure() -> np.ndarray:
        signal = np.sum(cube.data[line] - np.mean(cube.data[sides], axis=0), axis=0)
        return signal / np.sqrt(np.sum(cube.variance[line], axis=0))

    return Task(measure, lambda found: pull_figures(found, "S/N"))


def snr_specutils(size: Size) -> Task:
    import astropy.units as u
    from astropy.nddata import VarianceUncertainty
    from specutils import SpectralRegion, Spectrum
    from specutils.manipulation import extract_region

    cube = empty_cube(size)
    unit = u.Unit("1e-20 erg/(s cm2 AA)")
    spectrum = Spectrum(
        flux=np.moveaxis(cube.data, 0, -1) * unit,
        spectral_axis=cube.wave * u.AA,
        uncertainty=VarianceUncertainty(np.moveaxis(cube.variance, 0, -1) * unit**2),
    )
    centre = 6562.8

    def region(low: float, high: float) -> SpectralRegion:
        return SpectralRegion((centre + low) * u.AA, (centre + high) * u.AA)

    def measure() -> Any:
        sides = [extract_region(spectrum, region(*ends)).flux for ends in ((-50, -20), (20, 50))]
        level = np.mean(np.concatenate(sides, axis=-1), axis=-1)
        inside = extract_region(spectrum, region(-12, 12))
        # Its own line_flux adds up all spaxels.
        flux = np.sum(inside.flux - level[..., None], axis=-1)
        return flux / np.sqrt(np.sum(inside.uncertainty.quantity, axis=-1))

    return Task(measure, lambda found: pull_figures(found.to_value(""), "S/N"))


# ------------------------------------------------------------------------------------------------ bins


def galaxy(size: Size) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from tests.inputs.binning import add_noise, disc_and_blobs, gaussian_correlation

    truth, variance = disc_and_blobs(size["side"])
    return add_noise(truth, variance, 1, SPAXELS), variance, gaussian_correlation(SPAXELS)


def judged_bins(size: Size) -> Any:
    signal, variance, rho = galaxy(size)

    def judge(found: Any) -> dict[str, float]:
        labels = np.asarray(found, dtype=np.int32)
        n_bins = int(labels.max()) + 1
        inside = labels >= 0
        total = np.bincount(labels[inside], signal[inside], n_bins)
        snr = total / np.sqrt(region_variances(variance, labels, n_bins, rho))
        several = np.bincount(labels[inside]) > 1
        return {
            "reach": float(np.mean(snr >= TARGET * (1 - 1e-9))),
            "median": float(np.median(snr[several]) / TARGET),
            "scatter": float(np.std(snr[several]) / TARGET),
            "bins": float(n_bins),
        }

    return judge


def bins_ours(size: Size) -> Task:
    from skyloom.spectral.bins.binning import bin_to_snr

    signal, variance, rho = galaxy(size)
    return Task(lambda: bin_to_snr(signal, variance, TARGET, correlation=rho), judged_bins(size))


def bins_of_blocks(size: Size) -> Task:
    """Square blocks, all of the smallest size at which a half of them reaches the target."""
    signal, variance, _ = galaxy(size)
    side = size["side"]
    rows, columns = np.indices(signal.shape)

    def block() -> np.ndarray:
        for step in range(1, side):
            labels = rows // step * -(-side // step) + columns // step
            total, spread = (np.bincount(labels.ravel(), plane.ravel()) for plane in (signal, variance))
            if np.median(total / np.sqrt(spread)) >= TARGET:
                break
        return labels

    return Task(block, judged_bins(size))


def bins_vorbin(size: Size) -> Task:
    from vorbin.voronoi_2d_binning import voronoi_2d_binning

    signal, variance, _ = galaxy(size)
    y, x = (axis.ravel().astype(float) for axis in np.indices(signal.shape))
    noise = np.sqrt(variance).ravel()
    return Task(
        lambda: voronoi_2d_binning(x, y, signal.ravel(), noise, TARGET, plot=False, quiet=True)[0].reshape(
            signal.shape
        ),
        judged_bins(size),
    )


def bins_powerbin(size: Size) -> Task:
    from powerbin import PowerBin

    signal, variance, _ = galaxy(size)
    places = np.column_stack([axis.ravel().astype(float) for axis in np.indices(signal.shape)[::-1]])
    values, noise = signal.ravel(), variance.ravel()

    def capacity(index: np.ndarray) -> float:
        return max(float(values[index].sum()), 0.0) ** 2 / float(noise[index].sum())

    return Task(
        lambda: PowerBin(places, capacity, TARGET**2, verbose=0).bin_num.reshape(signal.shape),
        judged_bins(size),
    )


# ------------------------------------------------------------------------------------------------ spectra of bins


def binned_noise(size: Size) -> tuple[Cube, np.ndarray]:
    from scipy.spatial import cKDTree
    from tests.oracles.extract import correlated_noise

    shape = (size["channels"], size["side"], size["side"])
    generator = np.random.default_rng(1)
    noise, rho, lags = correlated_noise(generator, shape, SPAXELS, 0.5)
    ramp = np.exp(np.linspace(-1, 1, size["side"], dtype=np.float32))
    variance = np.broadcast_to(ramp, shape).astype(np.float32)
    data = (noise * np.sqrt(variance)).astype(np.float32)
    y, x = np.indices(shape[1:])
    places = generator.uniform(0, size["side"], (size["bins"], 2))
    labels = cKDTree(places).query(np.stack([y.ravel(), x.ravel()], axis=1))[1].reshape(shape[1:])
    labels = np.unique(labels, return_inverse=True)[1].reshape(shape[1:]).astype(np.int32)
    wave = 4750 + 1.25 * np.arange(shape[0])
    return Cube(data, variance, None, UNIT, None, wave, "air", correlation=CubeCorrelation(rho, lags)), labels


def extract_ours(size: Size) -> Task:
    from skyloom.spectral.bins.extract import extract_spectra

    cube, labels = binned_noise(size)
    return Task(
        lambda: extract_spectra(cube, labels),
        lambda found: pull_figures(found.data / np.sqrt(found.variance)),
    )


def extract_numpy(size: Size) -> Task:
    cube, labels = binned_noise(size)
    flat, n_bins = labels.ravel(), int(labels.max()) + 1

    def extract() -> tuple[np.ndarray, np.ndarray]:
        planes = ((cube.data, cube.variance), range(cube.data.shape[0]))
        return tuple(
            np.array([np.bincount(flat, plane[channel].ravel(), n_bins) for channel in planes[1]])
            for plane in planes[0]
        )

    return Task(extract, lambda found: pull_figures(found[0] / np.sqrt(found[1])))


# ------------------------------------------------------------------------------------------------ other axes


def noisy_spectra(size: Size) -> Spectra:
    generator = np.random.default_rng(2)
    wave = 4750 + 1.25 * np.arange(size["channels"])
    variance = np.broadcast_to(np.linspace(1, 3, wave.size, dtype=np.float32), (size["n"], wave.size))
    data = 20 + generator.standard_normal(variance.shape, dtype=np.float32) * np.sqrt(variance)
    return Spectra(data.astype(np.float32), variance.copy(), None, UNIT, wave, "air")


def summed_pulls(data: np.ndarray, variance: np.ndarray, lags: Any, width: int = 5) -> np.ndarray:
    """Pulls of sums over neighbouring channels away from the ends, less the level of 20."""
    from skyloom.core.spectral_noise import lag_bands, weighted_sum_variance

    bands = lag_bands(lags, data.shape[1])
    found = []
    for start in range(20, data.shape[1] - 20 - width, 4 * width):
        part = slice(start, start + width)
        spread = weighted_sum_variance(variance[:, part], np.ones(width), bands[part])
        found.append((data[:, part] - 20.0).sum(axis=1) / np.sqrt(spread))
    return np.concatenate(found)


def resample_ours(size: Size) -> Task:
    from skyloom.spectral.axes.resample import resample

    spectra = noisy_spectra(size)

    def judge(found: Spectra) -> dict[str, float]:
        return pull_figures(summed_pulls(found.data, found.variance, found.correlation))

    return Task(lambda: resample(spectra, step=1.0, threads=1), judge, size["n"])


def resample_specutils(size: Size) -> Task:
    import astropy.units as u
    from astropy.nddata import InverseVariance
    from specutils import Spectrum
    from specutils.manipulation import FluxConservingResampler

    spectra = noisy_spectra(size)
    axis = np.arange(spectra.wave[0], spectra.wave[-1], 1.0) * u.AA
    given = [
        Spectrum(
            flux=row * u.ct,
            spectral_axis=spectra.wave * u.AA,
            uncertainty=InverseVariance(1 / spread / u.ct**2),
        )
        for row, spread in zip(spectra.data[: size["peers"]], spectra.variance, strict=False)
    ]

    def judge(found: list[Any]) -> dict[str, float]:
        data = np.array([one.flux.value for one in found])
        variance = np.array([1 / one.uncertainty.array for one in found])
        return pull_figures(summed_pulls(data, variance, None))

    return Task(lambda: [FluxConservingResampler()(one, axis) for one in given], judge, len(given))


JOBS = (
    Job(
        "line_snr",
        "S/N of Halpha in a window, {side} x {side} spaxels, {channels} channels, channels correlated by 0.67",
        {"side": 100, "channels": 230},
        {"side": 12, "channels": 120},
        Contender("Skyloom", snr_ours),
        (
            Contender("plain numpy", snr_numpy, note="one window"),
            Contender("specutils", snr_specutils, "specutils", "one window"),
        ),
        accuracy="mean and sd of the S/N of pure noise: 0 and 1 are right",
        goals=(
            Goal("S/N mean", -0.02, 0.02, "mean within 0.02"),
            Goal("S/N sd", 0.97, 1.03, "sd 1.00 +- 0.03"),
        ),
    ),
    Job(
        "bin_to_snr",
        "bins of S/N 10 of a disc with HII regions, {side} x {side} spaxels, neighbours correlated",
        {"side": 300},
        {"side": 40},
        Contender("Skyloom", bins_ours),
        (
            Contender("square blocks, numpy", bins_of_blocks, note="all of one size"),
            Contender("vorbin", bins_vorbin, "vorbin", "no covariance"),
            Contender("powerbin", bins_powerbin, "powerbin", "no covariance"),
        ),
        accuracy="share of bins that reach the target in their true S/N; over the target: median and scatter of bins "
        "of several spaxels",
        goals=(Goal("cpu", 0, 1.0, "1 CPU s for 300 x 300"),),
    ),
    Job(
        "extract_spectra",
        "spectra of {bins} bins, {side} x {side} spaxels, {channels} channels, neighbours correlated",
        {"side": 200, "channels": 100, "bins": 1500},
        {"side": 20, "channels": 8, "bins": 20},
        Contender("Skyloom", extract_ours),
        (Contender("numpy bincount", extract_numpy, note="no covariance"),),
        accuracy="pulls of the channels of all bins, pure noise",
    ),
    Job(
        "resample",
        "{n} spectra of {channels} channels from 1.25 to 1 A",
        {"n": 500, "channels": 3681, "peers": 8},
        {"n": 3, "channels": 200, "peers": 2},
        Contender("Skyloom", resample_ours),
        (Contender("specutils FluxConserving", resample_specutils, "specutils"),),
        item="spectrum",
        accuracy="pulls of sums of 5 channels",
        goals=(Goal("pull sd", 0.97, 1.03, "sd 1.00 +- 0.03"),),
    ),
)
