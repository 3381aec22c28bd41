"""Reading a MUSE cube of 300 x 300 x 3681: whole, in slabs, a line's channels, and its inspection.

    python benchmarks/bench_read_cube.py [--side N] [--channels N] [--directory DIR]

Every job is a fresh process with warm caches (numba, and the file in memory where it fits); the clock is CPU time. The
peer is astropy with the conversion to native byte order and the mask that every user has to make.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from measure import run_code
from muse_file import write_cube

SETUP = """
import json, resource, sys, time
import numpy as np
path = sys.argv[1]
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
def timed(function):
    best = np.inf
    for _ in range(3):
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return best
"""
OPEN = (
    SETUP
    + "from skyloom.io.cubes.files import open_cube\ncube = open_cube(path)\ncube.read(slice(0, 2))\nbase = peak()\n"
)
REPORT = 'print(json.dumps({"time": timed(job), "peak": peak() - base}))\n'
RAW = """
base = peak()
def job():
    buffer = bytearray(2**22)
    with open(path, "rb", buffering=0) as stream:
        while stream.readinto(buffer):
            pass
"""
PEER = """
from astropy.io import fits
base = peak()
def job():
    with fits.open(path) as hdus:
        data, variance = (np.asarray(hdus[name].data, dtype=np.float32) for name in ("DATA", "STAT"))
    mask = ~(np.isfinite(data) & np.isfinite(variance) & (variance > 0))
"""
JOBS = {
    "every byte into one buffer": SETUP + RAW,
    "whole": OPEN + "def job():\n    cube.read()\n",
    "in slabs of 64 MB": OPEN + "def job():\n    for slab in cube.slabs(2**26):\n        cube.read(slab)\n",
    "100 channels": OPEN + "def job():\n    cube.read(slice(1000, 1100))\n",
    "30 rows": OPEN + "def job():\n    cube.read(slice(None), slice(100, 130))\n",
    "inspection": SETUP
    + "from skyloom.io.inspection.inspect import inspect\nbase = peak()\ndef job():\n    inspect(path)\n",
    "peer: astropy, whole": SETUP + PEER,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=300)
    parser.add_argument("--channels", type=int, default=3681)
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        path = Path(folder) / "cube.fits"
        write_cube(path, options.side, options.channels)
        size = path.stat().st_size / 1e9
        print(f"{options.channels} x {options.side} x {options.side}, DATA and STAT: {size:.2f} GB")
        for name, code in JOBS.items():
            figures = run_code(code + REPORT, path)
            print(f"  {name:28s} {figures['time']:7.2f} s CPU, peak {figures['peak']:5.2f} GB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
