"""`reproject` on a 4096 x 4096 float32 image: data, variance and mask, beside the peer's data alone.

    python benchmarks/bench_reproject.py [--side N] [--no-peer]

Every job is a fresh process with a warm numba cache; the clock (CPU time) starts after imports, after the loading of
the compiled code and after the making of the input. The peer is the package `reproject`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import time

import numpy as np
from astropy.wcs import WCS, Sip

from skyloom.core.image import Image
from skyloom.core.psf import GaussianPSF
from skyloom.imaging.grids.pixel_map import pixel_map
from skyloom.imaging.grids.reproject import reproject

# Job: target of CPU seconds, peer that does the same to the data alone, target of the ratio.
JOBS = {
    "bilinear, 25 degrees": (1.5, "peer bilinear", 10.0),
    "lanczos3, 25 degrees": (4.0, None, None),
    "area, 0.04 to 0.2 arcsec": (None, "peer exact", 15.0),
    "area, 0.04 to 0.2 arcsec, 25 degrees": (None, "peer exact, 25 degrees", 15.0),
    "area, 25 degrees": (None, None, None),
    "auto, distorted (SIP), 25 degrees": (4.0, None, None),
    "stamp 100 x 100, lanczos3": (0.003, None, None),
    "stamp 100 x 100, area": (0.003, None, None),
    "positions, TAN": (None, None, None),
    "positions, SIP": (None, None, None),
}


def tangent_wcs(side, scale, rotation=0.0, sip=False):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"] if sip else ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [53.1, -27.8], [(side + 1) / 2, (side + 1) / 2]
    c, s = np.cos(np.radians(rotation)), np.sin(np.radians(rotation))
    wcs.wcs.cd = scale / 3600 * np.array([[-c, s], [s, c]])
    if sip:
        a, b = np.zeros((4, 4)), np.zeros((4, 4))
        a[2, 0], a[1, 1], a[0, 2], a[3, 0], a[1, 2] = 8e-6, -5e-6, 2e-6, 3e-10, -2e-10
        b[2, 0], b[1, 1], b[0, 2], b[0, 3], b[2, 1] = -2e-6, 6e-6, -7e-6, 2e-10, -3e-10
        wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    wcs.wcs.set()
    return wcs


def make_image(side, scale=0.04, sip=False, border=0):
    rng = np.random.default_rng(1)
    data = rng.standard_normal((side, side), dtype=np.float32) + np.float32(10.0)
    mask = rng.random((side, side)) < 1e-3
    if border:
        data[:border], data[-border:], data[:, :border], data[:, -border:] = 0, 0, 0, 0
        mask[:] = False
    variance = np.ones((side, side), np.float32)
    return Image(data, variance, mask, "electron/s", tangent_wcs(side, scale, 0.0, sip), psf=GaussianPSF(0.1))


def measure(function, repeat=1):
    start = time.process_time()
    for _ in range(repeat):
        result = function()
    return (time.process_time() - start) / repeat, result


def run_ours(job, side):
    sip = "SIP" in job
    turn = 25.0 if "25 degrees" in job else 0.0
    method = job.split(",")[0]
    coarse = "0.2 arcsec" in job
    image = make_image(side, sip=sip, border=8 if coarse else 0)
    new = int(np.ceil(side / 5 * (1.4 if turn else 1.0))) + 2 if coarse else side
    target = (tangent_wcs(new, 0.2 if coarse else 0.04, turn), (new, new))
    small = image.evolve(
        data=image.data[:99, :99].copy(),
        variance=image.variance[:99, :99].copy(),
        mask=image.mask[:99, :99].copy(),
    )
    reproject(small, (tangent_wcs(side, 0.04, 1.0), (99, 99)), method)
    seconds, result = measure(lambda: reproject(image, target, method))
    found = {"cpu": seconds, "usable": float(result.valid.mean())}
    if coarse:
        total = float(np.sum(image.data, dtype=np.float64))
        found["flux error"] = abs(float(np.nansum(result.data, dtype=np.float64)) / total - 1.0)
    return found


def run_stamp(job, _side):
    method = job.split()[-1]
    image = make_image(100, 0.06)
    target = (tangent_wcs(100, 0.06, 0.2), (100, 100))
    reproject(image, target, method)
    seconds, _ = measure(lambda: reproject(image, target, method), 50)
    # The correlation of a new geometry is not in the cache.
    fresh = [(tangent_wcs(100, 0.06, 0.2 + 0.01 * k), (100, 100)) for k in range(1, 11)]
    start = time.process_time()
    for other in fresh:
        reproject(image, other, method)
    return {"cpu": seconds, "new geometry": (time.process_time() - start) / len(fresh)}


def run_positions(job, side):
    sip = "SIP" in job
    source, target = tangent_wcs(side, 0.05, 0.0, sip), tangent_wcs(side, 0.05, 25.0)
    seconds, chart = measure(lambda: pixel_map(source, (side, side), target, (side, side)))
    x, y = np.random.default_rng(2).uniform(0, side - 1, (2, 20000))
    sky = target.all_pix2world(x, y, 0)
    true_x, true_y = (
        source.all_world2pix(*sky, 0, tolerance=1e-10, maxiter=100) if sip else source.wcs_world2pix(*sky, 0)
    )
    seen = (true_x > 0) & (true_x < side) & (true_y > 0) & (true_y < side)
    found_x, found_y, _ = chart.positions(x, y)
    error = np.hypot(found_x - true_x, found_y - true_y)[seen].max()
    return {"cpu": seconds, "error px": float(error), "nodes": chart.coefficients.shape[1] + 1}


def run_peer(job, side):
    import reproject as peer

    image = make_image(side)
    turn = 25.0 if "25 degrees" in job or "bilinear" in job else 0.0
    if "bilinear" in job:
        target = tangent_wcs(side, 0.04, turn)
        seconds, _ = measure(
            lambda: peer.reproject_interp((image.data, image.wcs), target, (side, side), order=1)
        )
    else:
        new = int(np.ceil(side / 5 * (1.4 if turn else 1.0))) + 2
        target = tangent_wcs(new, 0.2, turn)
        seconds, _ = measure(
            lambda: peer.reproject_exact((image.data, image.wcs), target, (new, new), parallel=False)
        )
    return {"cpu": seconds}


def run_job(job, side):
    if job.startswith("peer"):
        found = run_peer(job, side)
    elif job.startswith("stamp"):
        found = run_stamp(job, side)
    elif job.startswith("positions"):
        found = run_positions(job, side)
    else:
        found = run_ours(job, side)
    found["peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(found))


def in_fresh_process(job, side):
    command = [sys.executable, __file__, "--job", job, "--side", str(side)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--job")
    arguments = parser.parse_args()
    if arguments.job:
        run_job(arguments.job, arguments.side)
        return
    peers = not arguments.no_peer and importlib.util.find_spec("reproject") is not None
    for job, (limit, peer, ratio) in JOBS.items():
        in_fresh_process(job, min(arguments.side, 256))  # fills numba's cache
        found = in_fresh_process(job, arguments.side)
        extra = ", ".join(f"{key} {value:.3g}" for key, value in found.items() if key != "cpu")
        print(f"{job:38s} {found['cpu']:8.4f} CPU s" + (f" (target {limit})" if limit else "") + f"; {extra}")
        if peer and peers:
            theirs = in_fresh_process(peer, arguments.side)
            print(
                f"    {peer:34s} {theirs['cpu']:8.2f} CPU s, peak MB {theirs['peak MB']:.0f}; "
                f"ratio {theirs['cpu'] / found['cpu']:.1f} (target {ratio:.0f})"
            )


if __name__ == "__main__":
    main()
