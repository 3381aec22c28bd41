"""Bins of S/N 10 on a disc with HII blobs: time, memory, evenness, floor, and what a fresh noise draw says.

    python benchmarks/bench_binning.py [--sides 300 1000] [--no-peers]

Each measurement is a fresh process with a warm numba cache; the clock (CPU time) starts after the imports and the
loading of the compiled code. Peers (vorbin, powerbin) run where they are installed, on the smaller fields only: their
licences do not allow this project to depend on them.

"all >= target": bins that are not flagged remainders. Evenness (median, sd about the mean, rms about 1) is that of
S/N over target for bins of several pixels; where single pixels have an S/N of 7 to 10 a pair of them has 10 to 14
whatever the method, which is why the rms about 1 is never 0. "fresh": S/N of an independent noise realisation over
that claimed.
"""

from __future__ import annotations

import argparse
import importlib.util

from measure import run_code

CPU_TARGETS = {300: 1.0, 1000: 15.0}
TARGET = 10.0

SETUP = """
import json, resource, sys, time
import numpy as np
side, sigma = int(sys.argv[1]), float(sys.argv[2])
from tests.inputs.binning import add_noise, disc_and_blobs, gaussian_correlation
from skyloom.core.noise import region_variances
from skyloom.kernels.bins.voronoi_cells import label_pieces
truth, variance = disc_and_blobs(side)
signal, fresh = (add_noise(truth, variance, seed, sigma) for seed in (1, 2))
rho = gaussian_correlation(sigma) if sigma else None

def report(cpu, numbers, remainder, rho):
    n_bins = int(numbers.max()) + 1
    n_pixels = np.bincount(numbers.ravel(), minlength=n_bins)
    total, again = (np.bincount(numbers.ravel(), plane.ravel(), n_bins) for plane in (signal, fresh))
    ratio = total / np.sqrt(region_variances(variance, numbers, n_bins, rho)) / 10.0
    kept = np.ones(n_bins, bool)
    kept[remainder] = False
    several = kept & (n_pixels > 1)
    y, x = (axis.ravel() for axis in np.indices(numbers.shape))
    member = numbers.ravel()
    mean_y, mean_x = (np.bincount(member, axis, n_bins) / n_pixels for axis in (y, x))
    moment = np.bincount(member, (y - mean_y[member]) ** 2 + (x - mean_x[member]) ** 2, n_bins) / n_pixels
    # Second moment of a disc of the same area over that of the bin (pixels have an extent of their own: + 1/6).
    roundness = (n_pixels / (2 * np.pi)) / (moment + 1 / 6)
    print(json.dumps({
        "cpu": cpu, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - base,
        "bins": n_bins, "several": int(several.sum()), "remainder": len(remainder),
        "minimum": float(ratio[kept].min()), "median": float(np.median(ratio[several])),
        "sd": float(ratio[several].std()), "rms": float(np.sqrt(np.mean((ratio[several] - 1) ** 2))),
        "below": float(np.mean(ratio[kept] < 1 - 1e-9)), "pieces": int(label_pieces(numbers)[1]),
        "roundness": float(np.median(roundness[several & (n_pixels > 5)])),
        "fresh": float(np.mean(again[several] / total[several])),
        "fresh_all": float(np.mean(again[kept] / total[kept])),
    }))
"""

OURS = (
    SETUP
    + """
from skyloom.spectral.bins.binning import bin_to_snr
method, known = sys.argv[3], sys.argv[4] == "known"
small, spread = disc_and_blobs(60)
bin_to_snr(add_noise(small, spread, 1), spread, 10.0, method, correlation=rho)
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
start = time.process_time()
labels = bin_to_snr(signal, variance, 10.0, method, correlation=rho if known else None)
cpu = time.process_time() - start
report(cpu, np.asarray(labels), labels.meta["remainder"] if known or rho is None else [], rho)
"""
)

PEERS = {
    "vorbin": """
from vorbin.voronoi_2d_binning import voronoi_2d_binning
y, x = (axis.ravel().astype(float) for axis in np.indices(signal.shape))
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
start = time.process_time()
numbers = voronoi_2d_binning(x, y, signal.ravel(), np.sqrt(variance).ravel(), 10.0, plot=False, quiet=True)[0]
""",
    "powerbin": """
from powerbin import PowerBin
y, x = (axis.ravel().astype(float) for axis in np.indices(signal.shape))
values, noise = signal.ravel(), variance.ravel()
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
start = time.process_time()
def capacity(index):
    return max(values[index].sum(), 0.0) ** 2 / noise[index].sum()
numbers = PowerBin(np.column_stack([x, y]), capacity, 100.0, verbose=0).bin_num
""",
}
PEER_END = """
cpu = time.process_time() - start
report(cpu, np.asarray(numbers, dtype=np.int32).reshape(signal.shape), [], rho)
"""


def line(name: str, side: int, found: dict[str, float]) -> str:
    """One row of the table."""
    return (
        f"{name:24s} {side:5d} {found['cpu']:7.2f} {found['peak']:6.0f} {found['bins']:6d} {found['several']:6d}"
        f" {found['remainder']:4d} {found['minimum']:6.3f} {found['median']:6.3f} {found['sd']:6.3f}"
        f" {found['rms']:6.3f} {100 * found['below']:6.1f} {found['pieces'] == found['bins']!s:>5s}"
        f" {found['roundness']:6.2f} {found['fresh']:6.3f} {found['fresh_all']:6.3f}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sides", type=int, nargs="+", default=[300, 1000])
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    print(
        f"{'method':24s} {'side':>5s} {'CPU s':>7s} {'MB':>6s} {'bins':>6s} {'multi':>6s} {'rem':>4s} {'min':>6s}"
        f" {'median':>6s} {'sd':>6s} {'rms':>6s} {'% < 1':>6s} {'conn':>5s} {'round':>6s} {'fresh':>6s} {'(all)':>6s}"
    )
    for side in options.sides:
        for method in ("voronoi", "quadtree"):
            found = run_code(OURS, side, 0.0, method, "known")
            print(line(method, side, found), flush=True)
            if method == "voronoi" and side in CPU_TARGETS:
                print(
                    f"{'':24s} target {CPU_TARGETS[side]:g} CPU s: {found['cpu'] / CPU_TARGETS[side]:.2f} of it"
                )
        if side <= 300:
            print(
                line("voronoi, sigma 0.6 px", side, run_code(OURS, side, 0.6, "voronoi", "known")), flush=True
            )
            print(
                line("  correlation ignored", side, run_code(OURS, side, 0.6, "voronoi", "ignored")),
                flush=True,
            )
            print(f"{'':24s} (its S/N over target is the true one; it claims 1 or more)")
        for peer, code in PEERS.items():
            if options.no_peers or side > 300 or importlib.util.find_spec(peer) is None:
                continue
            print(line(peer, side, run_code(SETUP + code + PEER_END, side, 0.0)), flush=True)


if __name__ == "__main__":
    main()
