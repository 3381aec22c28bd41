"""Fluxes of nebulae in two instruments: CPU and memory beside one mask of the whole image for each nebula.

    python benchmarks/bench_nebulae.py [--side N ...] [--nebulae 1000]

A sharp image (0.04", turned by 25 degrees, correlated noise, six shared errors), a coarse one (0.2") and a label map on
the grid of the coarse one. The steps: labels moved to the sharp grid by WCS, sums with covariance in both, then the
whole comparison. The peer adds up nebula by nebula under a mask of the whole image, without any error; it is timed on
some of them. Each size is a fresh process with a warm numba cache.
"""

from __future__ import annotations

import argparse

from measure import run_code

TARGET_SECONDS = 0.3

RUN = """
import json, resource, sys, time
import numpy as np
from astropy.wcs import WCS
from skyloom.core.image import Image, Mode
from skyloom.core.labels import LabelMap
from skyloom.imaging.measure.comparison import compare_regions
from skyloom.imaging.grids.label_grids import move_labels
from skyloom.imaging.measure.regions import sum_regions

side, count = int(sys.argv[1]), int(sys.argv[2])
unit = "1e-20 erg / (s cm2 arcsec2)"
generator = np.random.default_rng(1)

def grid(size, scale, angle):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [24.2, 15.8], [size / 2 + 0.5] * 2
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs.wcs.cd = np.array([[-c, s], [s, c]]) * scale / 3600
    return wcs

coarse = side // 5
kernel = np.exp(-0.5 * np.arange(-4, 5) ** 2 / 1.5**2)
rho = np.outer(kernel, kernel)
sharp_wcs, coarse_wcs = grid(side, 0.04, 25.0), grid(coarse, 0.2, -8.0)
ramp = np.linspace(-1, 1, side, dtype=np.float32)
modes = tuple(Mode(f"mode {n}", np.broadcast_to(ramp**n, (side, side)).copy(), 1.0) for n in range(6))
data = generator.standard_normal((side, side), dtype=np.float32)
sharp = Image(data, np.ones_like(data), np.zeros(data.shape, bool), unit, sharp_wcs, correlation=rho, modes=modes)
plane = generator.standard_normal((coarse, coarse), dtype=np.float32)
blurred = Image(plane, np.ones_like(plane), np.zeros(plane.shape, bool), unit, coarse_wcs)
values = np.full((coarse, coarse), -1, np.int32)
rows, columns = np.mgrid[-5:6, -5:6]
disc = np.hypot(rows, columns) < 4.5
share = np.sqrt(0.5)
for number, (y, x) in enumerate(generator.uniform(0.5 - share / 2, 0.5 + share / 2, (count, 2)) * coarse, start=1):
    place = np.clip(rows + int(y), 0, coarse - 1)[disc], np.clip(columns + int(x), 0, coarse - 1)[disc]
    values[place] = number
labels = LabelMap(values, coarse_wcs)

def timed(function):
    function()
    return min(_clock(function) for _ in range(2 if side > 4000 else 5))

def _clock(function):
    start = time.process_time()
    function()
    return time.process_time() - start

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
moved = move_labels(labels, sharp)
result = {"side": side, "nebulae": int(np.unique(values[values >= 0]).size)}
result["move"] = timed(lambda: move_labels(labels, sharp))
result["sharp"] = timed(lambda: sum_regions(sharp, moved))
result["coarse"] = timed(lambda: sum_regions(blurred, labels))
result["all"] = timed(lambda: compare_regions(sharp, blurred, labels))
result["over"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20 - before
some = np.unique(values[values >= 0])[:: max(1, count // 20)]
start = time.process_time()
for label in some:
    mask = moved.labels == label
    np.sum(data[mask])
result["peer"] = (time.process_time() - start) / some.size * result["nebulae"]
print(json.dumps(result))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, nargs="+", default=[1600, 8000])
    parser.add_argument("--nebulae", type=int, default=1000)
    arguments = parser.parse_args()
    for side in arguments.side:
        found = run_code(RUN, side, arguments.nebulae)
        target = f"   target {TARGET_SECONDS} s" if side == 1600 else ""
        print(f"{side}x{side}, {found['nebulae']} nebulae, CPU s")
        print(f"  labels moved by WCS                 {found['move']:8.3f}")
        print(f"  sums with covariance, sharp image   {found['sharp']:8.3f}{target}")
        print(f"  sums, coarse image                  {found['coarse']:8.3f}")
        print(f"  whole comparison                    {found['all']:8.3f}{target}")
        print(f"  memory beyond the inputs            {found['over']:8.2f} GB")
        print(f"  peer: one mask each, no errors      {found['peer']:8.3f}")


if __name__ == "__main__":
    main()
