"""Rest frame, dereddening and the window S/N of H alpha for a 100 x 100 x 3600 float32 cube, beside plain copying.

    python benchmarks/bench_prepare.py [--side N] [--channels N] [--no-peer]

Each storage is measured in a fresh process. The memory bandwidth is that of ``numpy.copyto`` between the arrays of the
same process, measured in turn with the chain (bytes read plus bytes written over time); the chain is charged with the
bytes it cannot avoid: data and variance read and written, the mask read, and the channels of the line's windows read
once more. The peer is a loop over spaxels with whole-array arithmetic on each spectrum.
"""

from __future__ import annotations

import argparse
import sys

from measure import run_code

BANDWIDTH_TARGET = 0.60
MEMORY_TARGET = 1.5
ACCURACY_TARGET = 1e-6

SETUP = """
import json, resource, sys, time
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from skyloom.core.cube import Cube, CubeCorrelation
from skyloom.spectral.axes.extinction import extinction_curve
from skyloom.core.linelist import air_to_vacuum
from skyloom.spectral.axes.prepare import prepare_cube
from skyloom.spectral.signal.snr import line_snr
side, n_wave, storage = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
Z, AV, LINE = 0.0185, 0.32, "Halpha"
wave = 4750.0 + 1.25 * np.arange(n_wave)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
def build(shape):
    rng = np.random.default_rng(1)
    data = rng.standard_normal(shape, dtype=np.float32)
    variance, mask = np.empty(shape, np.float32), np.empty(shape, bool)
    variance[:], mask[:] = 1.0, False
    return data, variance, mask
def cube_of(data, variance, mask):
    unit = "1e-20 erg/(s cm2 AA)"
    return Cube(data, variance, mask, unit, None, wave, "air", lsf=1.1, correlation=CubeCorrelation(None, None))
def chain(cube):
    rest = prepare_cube(cube, redshift=Z, av=AV, storage=storage)
    return rest, line_snr(rest, LINE, 0.0)
chain(cube_of(*build((n_wave, 8, 8))))
base = peak()
planes = build((n_wave, side, side))
voxels = planes[0].size
"""

OURS = (
    SETUP
    + """
places = [(0, 0), (side // 2, 3), (side - 1, side - 1)]
before = {place: tuple(plane[:, place[0], place[1]].astype(float) for plane in planes[:2]) for place in places}
rest, maps = chain(cube_of(*planes))
figures = {"peak": (peak() - base) / (9 * voxels)}
factor = (1 + Z) * 10 ** (0.4 * AV * extinction_curve(air_to_vacuum(wave)))
error = 0.0
for (y, x), (data, variance) in before.items():
    for channel in range(n_wave):
        exact = data[channel] * factor[channel], variance[channel] * factor[channel] ** 2
        reached = rest.data[channel, y, x], rest.variance[channel, y, x]
        error = max(error, *(abs(r / e - 1) for r, e in zip(reached, exact)))
figures["error"] = error
figures["snr_mean"] = float(np.mean(maps.snr.data))
from skyloom.spectral.signal.snr import channels_needed
window = channels_needed(rest.wave, "air", LINE, 0.0, lsf=1.1)
touched = 17 * voxels + 9 * (window.stop - window.start) * side * side
figures["window"] = window.stop - window.start
del rest, maps
target = np.empty_like(planes[0])
target[:] = 0
parts = [slice(start, start + 60) for start in range(0, n_wave, 60)]
def copy():
    np.copyto(target, planes[0])
def copy_threads():
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda part: np.copyto(target[part], planes[0][part]), parts))
def copy_new():
    return planes[0].copy(), planes[1].copy()
def timed(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start
best = {"copy": [], "copy2": [], "copy_new": [], "prepare": [], "chain": []}
for _ in range(9):
    best["copy"].append(timed(copy))
    best["copy2"].append(timed(copy_threads))
    best["copy_new"].append(timed(copy_new))
    cube = cube_of(*planes)
    best["prepare"].append(timed(lambda: prepare_cube(cube, redshift=Z, av=AV, storage=storage)))
    cube = cube_of(*planes)
    best["chain"].append(timed(chain, cube))
figures["check"] = min(timed(cube_of, *planes) for _ in range(5))
moved = {
    "copy": 8 * voxels, "copy2": 8 * voxels, "copy_new": 16 * voxels, "prepare": 17 * voxels, "chain": touched
}
for name, volume in moved.items():
    figures[name + "_time"] = min(best[name])
    figures[name] = volume / min(best[name]) / 1e9
print(json.dumps(figures))
"""
)

PEER = (
    SETUP
    + """
vacuum = air_to_vacuum(wave)
rest = wave / (1 + Z)
line = np.abs(rest - 6562.8) < 12
sides = (np.abs(rest - 6562.8) > 20) & (np.abs(rest - 6562.8) < 50)
curve = extinction_curve(vacuum)
start = time.perf_counter()
out, spread = np.zeros_like(planes[0]), np.zeros_like(planes[1])
signal, noise = np.zeros((side, side)), np.zeros((side, side))
for y in range(side):
    for x in range(side):
        flux, error = planes[0][:, y, x].copy(), np.sqrt(planes[1][:, y, x])
        flux = flux * (1 + Z) * 10 ** (0.4 * AV * curve)
        error = error * (1 + Z) * 10 ** (0.4 * AV * curve)
        out[:, y, x], spread[:, y, x] = flux, error**2
        signal[y, x] = np.sum(flux[line] - np.mean(flux[sides])) * 1.25 / (1 + Z)
        noise[y, x] = np.sqrt(np.sum(error[line] ** 2))
print(json.dumps({"time": time.perf_counter() - start, "peak": (peak() - base) / (9 * voxels)}))
"""
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=100)
    parser.add_argument("--channels", type=int, default=3600)
    parser.add_argument("--no-peer", action="store_true", help="leave the loop over spaxels out")
    options = parser.parse_args()
    size = options.side, options.channels
    print(f"rest frame + dereddening + window S/N, {size[1]} x {size[0]} x {size[0]} float32")
    failed, ours = False, {}
    for storage in ("reuse", "new"):
        ours = run_code(OURS, *size, storage)
        share = ours["chain"] / max(ours["copy"], ours["copy2"])
        print(f'  storage="{storage}"')
        print(
            f"    copy, 1 thread / 2 threads     {ours['copy']:5.1f} / {ours['copy2']:5.1f} GB/s; into fresh arrays "
            f"{ours['copy_new']:.1f} GB/s"
        )
        print(f"    rest frame + dereddening       {ours['prepare']:5.1f} GB/s, {ours['prepare_time']:.3f} s")
        print(
            f"    with the window S/N            {ours['chain']:5.1f} GB/s, {ours['chain_time']:.3f} s, "
            f"{share:.0%} of the faster copy (target {BANDWIDTH_TARGET:.0%}), "
            f"{ours['chain'] / ours['copy_new']:.0%} of that into fresh arrays; {ours['window']:.0f} channels"
        )
        print(f"    validation of a new cube       {ours['check']:.3f} s")
        print(
            f"    peak memory                    {ours['peak']:.2f} cubes (target {MEMORY_TARGET}, "
            'storage="reuse")'
        )
        print(f"    largest relative error         {ours['error']:.1e} (target {ACCURACY_TARGET:.0e})")
        failed |= ours["error"] > ACCURACY_TARGET
        if storage == "reuse":
            failed |= share < BANDWIDTH_TARGET or ours["peak"] > MEMORY_TARGET
    if not options.no_peer:
        peer = run_code(PEER, *size, "new")
        print(
            f"  loop over spaxels                {peer['time']:.2f} s, peak {peer['peak']:.2f} cubes: "
            f"{peer['time'] / ours['chain_time']:.0f} times the time"
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
