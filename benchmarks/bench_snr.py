"""S/N of lines: what pure noise gives, what a velocity map is worth on a rotating disc, and what it all costs.

    python benchmarks/bench_snr.py [--side N] [--channels N] [--draws N]

Run it from the root of the project: the scenes are those of the tests. Costs are CPU seconds with a warm numba cache,
beside the time that reading the data and variance of the whole cube takes at the speed of copying; what
`bench_prepare.py` measures is the rest frame, dereddening and this together.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.inputs.snr import LSF, noise_cube, rotating_disc

from measure import best_cpu
from skyloom.core.cube import Cube
from skyloom.errors import AssumptionWarning
from skyloom.spectral.signal.snr import channels_needed, continuum_snr, first_velocity_map, line_snr

CORRELATED = np.array([1.0, 2.0, 1.0])


def measure_noise(draws: int) -> None:
    """Mean and standard deviation of the S/N of pure noise, and what bins of 8 x 8 spaxels would claim."""
    print("pure noise, 100 x 100 spaxels, uneven variance; target: mean within 0.02 of 0, sd 1.00 +- 0.03")
    print(f"{'':34s}{'mean':>8s}{'sd':>8s}{'largest bin':>13s}")
    for name, kernel in (("white", None), ("correlated (lag one 0.67)", CORRELATED)):
        rows: dict[str, list[list[float]]] = {}
        for seed in range(draws):
            cube = noise_cube(np.random.default_rng(seed), (230, 100, 100), kernel=kernel)
            velocity = 150.0 * np.tanh((np.arange(100) - 50) / 20)[np.newaxis, :] * np.ones((100, 1))
            first = first_velocity_map(cube, "Halpha", 0.0)
            for method, options in {
                "window": {},
                "window, a map": {"velocity": velocity},
                "matched, given velocity": {"method": "matched", "velocity": velocity},
                "matched, first pass": {"method": "matched", "velocity": first},
            }.items():
                rows.setdefault(method, []).append(_figures(line_snr(cube, "Halpha", 0.0, **options)))
            rows.setdefault("peak (published definition)", []).append(_figures(_peak(cube)))
        for method, figures in rows.items():
            mean = np.mean(figures, axis=0)
            print(f"{name[:5]:6s}{method:28s}{mean[0]:8.3f}{mean[1]:8.3f}{np.max(figures, axis=0)[2]:13.1f}")
    even = noise_cube(np.random.default_rng(0), (230, 100, 100), uneven=False)
    mean, spread, largest = _figures(_peak(even))
    print(f"{'even':6s}{'peak (published definition)':28s}{mean:8.3f}{spread:8.3f}{largest:13.1f}")


def _figures(result) -> list[float]:
    snr = result.snr.data
    blocks = (10, 10, 10, 10)
    signal = result.signal.data.reshape(blocks).sum(axis=(1, 3))
    claimed = signal / np.sqrt(result.signal.variance.reshape(blocks).sum(axis=(1, 3)))
    return [float(snr.mean()), float(snr.std()), float(np.abs(claimed).max())]


def _peak(cube: Cube):
    with warnings.catch_warnings():
        # the warning is what this table is about
        warnings.simplefilter("ignore", AssumptionWarning)
        return line_snr(cube, "Halpha", 0.0, "peak")


def measure_disc() -> None:
    """Share of the ideal S/N that each method reaches on a disc that rotates with +-200 km/s."""
    print("\nrotating disc, +-200 km/s: S/N over that of the matched filter with true velocity and width")
    print(
        f"{'ideal S/N':>12s}{'spaxels':>9s}{'first pass':>12s}{'worst 10 %':>12s}{'window':>9s}{'one velocity':>14s}"
    )
    disc = rotating_disc(np.random.default_rng(20240229))
    velocity = first_velocity_map(disc.cube, "Halpha", 0.0)
    ideal = line_snr(disc.truth, "Halpha", 0.0, "matched", velocity=disc.velocity, sigma=disc.sigma).snr.data
    reached = line_snr(disc.truth, "Halpha", 0.0, "matched", velocity=velocity).snr.data / ideal
    window = line_snr(disc.truth, "Halpha", 0.0).snr.data / ideal
    single = line_snr(disc.truth, "Halpha", 0.0, "matched", velocity=0.0).snr.data / ideal
    for low, high in ((0.1, 0.5), (0.5, 1), (1, 3), (3, 10), (10, 100)):
        here = (ideal >= low) & (ideal < high)
        print(
            f"{low:6.1f}-{high:<5.1f}{here.sum():9d}{np.median(reached[here]):12.3f}"
            f"{np.percentile(reached[here], 10):12.3f}{np.median(window[here]):9.3f}{np.median(single[here]):14.3f}"
        )
    print("target: first pass >= 0.90")


def measure_cost(side: int, channels: int) -> None:
    """CPU seconds of each call on one cube of float32."""
    rng = np.random.default_rng(1)
    wave = 4750.0 + 1.25 * np.arange(channels)
    shape = (channels, side, side)
    data = rng.standard_normal(shape, dtype=np.float32)
    line = 0.5 * (wave[0] + wave[-1])
    mask = np.zeros(shape, bool)
    cube = Cube(data, np.ones_like(data), mask, "1e-20 erg/(s cm2 AA)", None, wave, "air", lsf=LSF)
    run = channels_needed(wave, "air", line, 0.0, lsf=LSF)
    part = slice(run.start, run.stop)
    touched = data[part].nbytes * 2 + mask[part].nbytes
    target = np.empty_like(data)
    copy = best_cpu(lambda: np.copyto(target, data))
    bandwidth = 2 * data.nbytes / copy
    print(f"\ncost, {side} x {side} x {channels} float32; memory is copied at {bandwidth / 1e9:.1f} GB/s")
    print(f"window reads {touched / 1e6:.1f} MB: {touched / bandwidth * 1e3:.2f} ms at that speed")
    velocity = 200.0 * np.sin(np.arange(side) / 15.0)[np.newaxis, :] * np.ones((side, 1))
    spoilt = cube.evolve(mask=mask | (rng.random(shape) < 0.002))
    print(f"{'':44s}{'ms':>9s}{'% of reading the whole cube':>30s}")
    for name, call in {
        "window": lambda: line_snr(cube, line, 0.0),
        "window, 0.2 % of the voxels masked": lambda: line_snr(spoilt, line, 0.0),
        "window, a redshift per spaxel": lambda: line_snr(cube, line, 0.0, velocity=velocity),
        "matched, a velocity per spaxel": lambda: line_snr(cube, line, 0.0, "matched", velocity=velocity),
        "first velocity map": lambda: first_velocity_map(cube, line, 0.0),
        "peak": lambda: _peak_of(cube, line),
        "continuum, cubic in 100 A": lambda: continuum_snr(cube, (line - 50, line + 50)),
    }.items():
        spent = best_cpu(call)
        print(f"{name:44s}{spent * 1e3:9.2f}{100 * spent / copy:30.1f}")


def _peak_of(cube: Cube, line: float):
    with warnings.catch_warnings():
        # its cost is measured, not its S/N
        warnings.simplefilter("ignore", AssumptionWarning)
        return line_snr(cube, line, 0.0, "peak")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=100)
    parser.add_argument("--channels", type=int, default=3600)
    parser.add_argument("--draws", type=int, default=4)
    options = parser.parse_args()
    measure_noise(options.draws)
    measure_disc()
    measure_cost(options.side, options.channels)


if __name__ == "__main__":
    main()
