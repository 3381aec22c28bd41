"""Extraction of 5000 spectra from a 300 x 300 x 3681 float32 cube, slab by slab; and the measurement of its noise.

    python benchmarks/bench_extract.py [--side N] [--channels N] [--bins N] [--full]

Each measurement is a fresh process with a warm numba cache; CPU time after imports and loading of compiled code. The
slab is extracted as it is; ``--full`` also goes through all 3681 channels as a recipe does, slab after slab, and joins
them. Bandwidth: the time to copy data, variance and mask once, over the time of the extraction.
"""

from __future__ import annotations

import argparse

from measure import run_code

FULL = 3681

SETUP = """
import json, sys, time, tracemalloc
import numpy as np
from scipy.spatial import cKDTree
from skyloom.core.cube import Cube, CubeCorrelation
from skyloom.core.noise import region_variances
from skyloom.spectral.bins.extract import extract_spectra, merge_slabs
from skyloom.spectral.noise.measure import measure_cube_noise
side, n, bins, radius = (int(text) for text in sys.argv[1:5])
generator = np.random.default_rng(1)
y, x = np.indices((side, side))
_, nearest = cKDTree(generator.uniform(0, side, (bins, 2))).query(np.stack([y.ravel(), x.ravel()], axis=1))
labels = nearest.reshape(side, side).astype(np.int32)
data = generator.standard_normal((n, side, side), dtype=np.float32)
variance = generator.uniform(0.5, 2, (n, side, side)).astype(np.float32)
mask = np.zeros(data.shape, bool)
offset = np.arange(-radius, radius + 1)
rho = np.exp(-0.5 * (offset[:, None] ** 2 + offset**2) / 0.85**2)
def slab(first):
    wave = 4750 + 1.25 * np.arange(first, first + n)
    return Cube(data, variance, mask, "1e-20 erg/(s cm2 AA)", None, wave, "air",
                correlation=CubeCorrelation(rho, None))
def memory(function):
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return peak
def best(function):
    times = []
    for _ in range(3):
        start = time.process_time()
        result = function()
        times.append(time.process_time() - start)
    return min(times), result
"""

SLAB = (
    SETUP
    + """
cube = slab(0)
small = Cube(data[:2], variance[:2], mask[:2], cube.unit, None, cube.wave[:2], "air", correlation=cube.correlation)
extract_spectra(small, labels)
cpu, spectra = best(lambda: extract_spectra(cube, labels))
extra = memory(lambda: extract_spectra(cube, labels))
copies = [np.empty_like(plane) for plane in (data, variance, mask)]
def copy():
    for target, plane in zip(copies, (data, variance, mask)):
        np.copyto(target, plane)
copy()
copied, _ = best(copy)
used = np.unique(labels).size
dense = np.searchsorted(np.unique(labels), labels).astype(np.int32)
exact = region_variances(variance[n // 2], dense, used, rho)
sums = np.bincount(dense.ravel(), data[n // 2].ravel().astype(float), used)
error = float(np.abs(spectra.variance[:, n // 2] / exact - 1).max())
flux = float(np.abs(spectra.data[:, n // 2] - sums).max() / np.abs(sums).std())
start = time.process_time()
for plane in variance[:4]:
    region_variances(plane, dense, used, rho)
peer = (time.process_time() - start) / 4 * n
print(json.dumps({"cpu": cpu, "peer": peer, "memory": extra, "result": 9e-6 * spectra.data.size,
                  "cube": 9e-6 * data.size, "copy": copied,
                  "error": error, "flux": flux}))
"""
)

WHOLE = (
    SETUP
    + """
extract_spectra(slab(0), labels)
def whole():
    parts = [extract_spectra(slab(first), labels, workers=2) for first in range(0, 3681 - n + 1, n)]
    return merge_slabs(parts)
start, wall = time.process_time(), time.perf_counter()
spectra = whole()
print(json.dumps({"cpu": time.process_time() - start, "wall": time.perf_counter() - wall,
                  "channels": spectra.shape[1], "memory": memory(whole),
                  "result": 9e-6 * spectra.data.size}))
"""
)

NOISE = (
    SETUP
    + """
cube = slab(0)
measure_cube_noise(Cube(data[:64, :60, :60], variance[:64, :60, :60], mask[:64, :60, :60], cube.unit, None,
                        cube.wave[:64], "air"))
start = time.process_time()
noise = measure_cube_noise(cube)
cpu = time.process_time() - start
extra = memory(lambda: measure_cube_noise(cube))
print(json.dumps({"cpu": cpu, "memory": extra, "windows": len(noise.windows)}))
"""
)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=300)
    parser.add_argument("--channels", type=int, default=400)
    parser.add_argument("--bins", type=int, default=5000)
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    size = (options.side, options.channels, options.bins)
    print(f"{options.side} x {options.side} x {options.channels} voxels, {options.bins} bins")
    for radius in (0, 1, 2, 5):
        found = run_code(SLAB, *size, radius)
        print(
            f"extract, correlation radius {radius}: {found['cpu']:.2f} CPU s"
            f" ({found['cpu'] * FULL / options.channels:.1f} s for {FULL} channels),"
            f" {found['peer'] / found['cpu']:.1f} x faster than plane by plane,"
            f" {found['copy'] / found['cpu']:.0%} of copy bandwidth,"
            f" {found['memory']:.0f} MB at most (the spectra {found['result']:.0f}, the cube {found['cube']:.0f}),"
            f" variances agree to {found['error']:.1e}, sums to {found['flux']:.1e}"
        )
    if options.full:
        found = run_code(WHOLE, *size, 2)
        print(
            f"all slabs, {found['channels']} channels, two threads, joined: {found['cpu']:.1f} CPU s,"
            f" {found['wall']:.1f} s, {found['memory']:.0f} MB (the spectra take {found['result']:.0f} MB)"
        )
    found = run_code(NOISE, *size, 2)
    print(
        f"measure_cube_noise, {found['windows']} windows: {found['cpu']:.2f} CPU s, {found['memory']:.0f} MB more"
    )


if __name__ == "__main__":
    main()
