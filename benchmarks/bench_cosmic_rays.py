"""Cosmic rays on a mock of 1520 x 1520 pixels: completeness, false pixels, stars, time, beside astroscrappy alone.

python benchmarks/bench_cosmic_rays.py
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from astroscrappy import detect_cosmics
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.inputs.cosmic import EXPOSURE, crowded_field  # noqa: E402

from skyloom.core.image import Image  # noqa: E402
from skyloom.imaging import remove_cosmic_rays  # noqa: E402

STRONG = 5.0  # Sigma of a pixel that a ray must leave to count as missed.


def judge(name: str, task, deposit: np.ndarray, cores: np.ndarray) -> None:
    cpu, wall = time.process_time(), time.perf_counter()
    mask = task()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    strong, free = deposit > STRONG, deposit < 0.1
    away = free & ~ndimage.binary_dilation(~free, np.ones((3, 3)))
    print(
        f"  {name:44}{mask[strong].mean():8.4f}{(mask & free).sum():7d}{(mask & away).sum():7d}"
        f"{(mask & cores & away).sum():7d}{cpu:8.1f}{wall:7.1f}"
    )


def alone(image: Image, **options):
    """Run astroscrappy on electrons, as its manual asks."""
    data = (image.data * EXPOSURE).astype(np.float32)
    variance = (image.variance * EXPOSURE**2).astype(np.float32)
    options = {"invar": variance, "satlevel": np.inf, **options}
    return lambda: detect_cosmics(data, **options)[0]


def main() -> int:
    field = crowded_field()
    cores = field.observation.truth.data * EXPOSURE > 1000.0
    cores = ndimage.binary_dilation(cores, np.ones((3, 3)))
    print(f"1520 x 1520 px, {np.count_nonzero(field.deposit > STRONG)} pixels of rays above {STRONG} sigma")
    print(f"  {'':44}{'complete':>8}{'false':>7}{'away':>7}{'stars':>7}{'CPU s':>8}{'wall':>7}")
    remove_cosmic_rays(field.image.evolve(data=field.image.data[::-1]))  # Compiled before it is timed.
    rates = field.observation.cosmic_rays
    for name, offset in (("whole pixels", None), ("smeared by 0.3, 0.4 px", (0.3, 0.4))):
        rays = rates if offset is None else ndimage.shift(rates, offset, order=1)
        image = field.image.evolve(data=(field.image.data - rates + rays).astype(np.float32))
        deposit = rays / np.sqrt(image.variance)
        print(f"Rays in {name}")
        tasks = {
            "astroscrappy, default noise model": alone(image, invar=None),
            "astroscrappy, variance": alone(image),
            "astroscrappy, variance, full medians": alone(image, sepmed=False),
            "astroscrappy, sigclip 4, sigfrac 0.6": alone(image, sigclip=4.0, sigfrac=0.6),
            "astroscrappy, the same, objlim 2": alone(image, sigclip=4.0, sigfrac=0.6, objlim=2.0),
            "astroscrappy, fsmode convolve": alone(image, fsmode="convolve", psffwhm=2.0),
            "remove_cosmic_rays": lambda image=image: remove_cosmic_rays(image).mask,
            "remove_cosmic_rays, one pass": lambda image=image: remove_cosmic_rays(image, iterations=1).mask,
            "remove_cosmic_rays, no PSF": lambda image=image: remove_cosmic_rays(image.evolve(psf=None)).mask,
            "remove_cosmic_rays, not grown": lambda image=image: remove_cosmic_rays(image, growth=0.0).mask,
        }
        for label, task in tasks.items():
            judge(label, task, deposit, cores)
    return 0


if __name__ == "__main__":
    sys.exit(main())
