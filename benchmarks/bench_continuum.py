"""`subtract_continuum` on float32 images, beside the same in plain numpy: CPU, memory, accuracy.

    python benchmarks/bench_continuum.py [--side N ...] [--no-peer]

Data, variance and mask of a narrow band and two continua. Each measurement is a fresh process with a warm numba cache.
"over" is the memory that a run needs beyond its inputs, in planes of float32; the results alone (two images with
variance, one mask) are 4.25. The peer is what one writes without the library: float64, no line light, no correlation.
"""

from __future__ import annotations

import argparse
import sys

from measure import run_code

SETUP = """
import json, resource, sys, time
import numpy as np
side, kind = int(sys.argv[1]), sys.argv[2]
generator = np.random.default_rng(1)
line = np.linspace(-1, 1, side, dtype=np.float32)
planes = [generator.standard_normal((side, side), dtype=np.float32) for _ in range(3)]
# Row by row, so that no temporary plane hides what is measured.
for plane, colour in zip(planes, (0.8, 1.0, 0.6)):
    for row, y in zip(plane, line):
        row += np.float32(colour) * (np.float32(0.2) + 30 * np.exp(-np.hypot(line, y) / np.float32(0.2)))
errors = [np.full((side, side), value, np.float32) for value in (1.0, 1.0, 1.0)]
masks = [np.zeros((side, side), bool) for _ in range(3)]
for plane, mask in zip(planes, masks):
    mask[generator.integers(0, side, side), generator.integers(0, side, side)] = True
    plane[mask] = np.nan
weights = 0.55, 0.45
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
def reference(rows, kind):
    n, b, r = (plane[rows].astype(float) for plane in planes)
    w1, w2 = weights
    return n - w1 * b - w2 * r
"""

OURS = (
    SETUP
    + """
from astropy.wcs import WCS
from skyloom.core.bandpass import Bandpass
from skyloom.core.image import Image
from skyloom.imaging.narrow_band.continuum import subtract_continuum
wcs = WCS(naxis=2)
wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [53.0, -27.0]
wcs.wcs.crpix, wcs.wcs.cdelt = [1.0, 1.0], [-0.04 / 3600, 0.04 / 3600]
unit = "1e-20 erg / (s cm2 AA arcsec2)"
images = [Image(*each, unit, wcs) for each in zip(planes, errors, masks)]
bands = [Bandpass.tophat(*box) for box in ((6580.0, 80.0), (5400.0, 1300.0), (8000.0, 1600.0))]
# The pivots that make the weights of the peer.
pivots = 6450.0, (5550.0, 6450.0 + 0.55 / 0.45 * 900.0)
options = {"interpolation": "log" if kind == "log" else "linear"}
if kind == "map":
    ratio = np.full((side, side), 0.4, np.float32)
    options |= {"redshift": 0.002, "line_ratios": {"NII6583": ratio}}
    pivots = bands[0], bands[1:]
warm = [Image(*(plane[:9, :9] for plane in each), unit, wcs) for each in zip(planes, errors, masks)]
if kind == "map":
    warm_options = options | {"line_ratios": {"NII6583": ratio[:9, :9]}}
else:
    warm_options = options
subtract_continuum(warm[0], warm[1:], *pivots, **warm_options)
before = peak()
start, wall = time.process_time(), time.perf_counter()
found = subtract_continuum(images[0], images[1:], *pivots, **options)
cpu, wall = time.process_time() - start, time.perf_counter() - wall
over = peak() - before
error = float("nan")
if kind == "linear":
    cut = slice(0, 200)
    difference = found.excess.data[cut] - reference(cut, kind)
    error = float(np.nanmax(np.abs(difference)))
print(json.dumps({"cpu": cpu, "wall": wall, "over": over, "error": error}))
"""
)

PEER = (
    SETUP
    + """
before = peak()
start = time.process_time()
w1, w2 = weights
n, b, r = (plane.astype(float) for plane in planes)
vn, vb, vr = (plane.astype(float) for plane in errors)
mask = masks[0] | masks[1] | masks[2]
with np.errstate(invalid="ignore"):
    if kind == "log":
        level = 10 ** (w1 * np.log10(b) + w2 * np.log10(r))
        spread = level**2 * (w1**2 * vb / b**2 + w2**2 * vr / r**2)
    else:
        level = w1 * b + w2 * r
        spread = w1**2 * vb + w2**2 * vr
excess, variance = np.where(mask, np.nan, n - level), np.where(mask, np.nan, vn + spread)
lost = float(np.mean(~np.isfinite(excess) & ~mask))
print(json.dumps({"cpu": time.process_time() - start, "wall": 0, "over": peak() - before, "lost": lost}))
"""
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, nargs="+", default=[1600, 4096])
    parser.add_argument("--no-peer", action="store_true", help="leave plain numpy out")
    options = parser.parse_args()
    for side in options.side:
        print(f"subtract_continuum, {side}^2 float32, one plane is {side * side * 4 / 2**20:.0f} MB")
        for kind in ("linear", "log", "map"):
            ours = run_code(OURS, side, kind)
            planes = ours["over"] / (side * side * 4 / 2**20)
            name = {"map": "linear, map of line ratios"}.get(kind, kind)
            accuracy = f"   largest error {ours['error']:.1e}" if ours["error"] == ours["error"] else ""
            print(
                f"  {name:<27} {ours['cpu']:6.3f} CPU s  {ours['wall']:6.3f} s   {ours['over']:5.0f} MB over "
                f"= {planes:.1f} planes{accuracy}"
            )
            if kind != "map" and not options.no_peer:
                peer = run_code(PEER, side, kind)
                print(
                    f"  {'  plain numpy':<27} {peer['cpu']:6.3f} CPU s  {'':>8}   {peer['over']:5.0f} MB over: "
                    f"{peer['cpu'] / ours['cpu']:.1f} times the CPU, {peer['over'] / max(1, ours['over']):.1f} times "
                    f"the memory, {peer['lost']:.0%} of the pixels without a value"
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
