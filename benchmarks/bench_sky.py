"""Sky, masks and noise of the real UDF stamps: level against the published one, box sums against prediction, time.

    python benchmarks/bench_sky.py

CPU times are those of one core with warm caches, per 100 x 100 stamp.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
import sep
from scipy import ndimage

import measure
import skyloom as sl
from skyloom.core.image import Image
from skyloom.core.noise import (
    apply_noise,
    combine_measurements,
    measure_correlation,
    region_variances,
    sum_variance,
)
from skyloom.core.psf import GaussianPSF
from skyloom.errors import RepairWarning
from skyloom.imaging.measure.masks import mask_from_labels
from skyloom.imaging.measure.regions import sum_apertures, sum_regions
from skyloom.imaging.psfs.convolve import match_psf
from skyloom.imaging.psfs.matching import matching_kernel
from skyloom.imaging.sky.background import empty_sky, measure_background, sky_trend, subtract_background
from skyloom.io.segmentation import read_segmentation

DATA = measure.DATA / "hst_udf"
OBJECTS = ("3", "15", "37", "912", "919")
# Gaussian sigma of the PSF in pixels of 0.06", as published with the stars.
BANDS = {
    "f435w": 0.78, "f606w": 0.95, "f775w": 0.87, "f814w": 0.91, "f850lp": 0.85,
    "f105w": 1.47, "f125w": 1.49, "f140w": 1.55, "f160w": 1.56,
}  # fmt: skip
ACS = tuple(BANDS)[:5]
BOXES = (1, 3, 5, 9)
PIXEL = 0.06


def read(name: str, band: str) -> Image:
    stem = DATA / "stamps" / f"{name}_60mas_{band}"
    image = sl.read(f"{stem}_sci.fits", weight=f"{stem}_wht.fits")
    return image.evolve(psf=GaussianPSF.from_sigma(BANDS[band] * PIXEL))


def published(name: str, band: str) -> float:
    digits = "".join(character for character in band if character.isdigit())
    return float((DATA / "sky" / f"sky_{name}_{digits}.txt").read_text())


def cpu(task: Callable[[], object], repeats: int = 30) -> float:
    """Milliseconds of CPU time, the best of three rounds."""
    task()
    rounds = []
    for _ in range(3):
        start = time.process_time()
        for _ in range(repeats):
            task()
        rounds.append((time.process_time() - start) / repeats * 1e3)
    return min(rounds)


def sky_table(images: dict[tuple[str, str], Image]) -> None:
    print("Sky in 1e-5 electron/s per pixel. plain: clipped mean of the sky pixels, wings counted as sky;")
    print(
        "light: of all pixels outside bare 5-sigma detections. (published - ours) / our error in the last column."
    )
    titles = ("published", "ours", "error", "stat", "plain", "light", "sigma")
    print(
        "object band   "
        + "".join(f"{title:>{width}}" for title, width in zip(titles, (10, 8, 7, 6, 8, 8, 7), strict=True))
    )
    deviations: dict[str, list[float]] = {"ACS": [], "infra-red": []}
    for (name, band), image in images.items():
        sky, reference = measure_background(image), published(name, band)
        deviation = (reference - sky.level) / sky.error
        deviations["ACS" if band in ACS else "infra-red"].append(deviation)
        figures = [
            1e5 * value
            for value in (reference, sky.level, sky.error, sky.statistical, sky.plain_level, sky.light_level)
        ]
        print(
            f"{name:>6} {band:7}{figures[0]:10.1f}{figures[1]:8.1f}{figures[2]:7.1f}{figures[3]:6.1f}"
            f"{figures[4]:8.1f}{figures[5]:8.1f}{deviation:7.1f}"
        )
    for group, values in deviations.items():
        size = np.abs(values)
        print(
            f"{group}: within 1, 2, 3 errors {np.mean(size < 1):.2f} {np.mean(size < 2):.2f} {np.mean(size < 3):.2f},"
            f" worst {size.max():.1f}, all those beyond 2 above ours: {all(v > 0 for v in values if abs(v) > 2)}"
        )


def trend_table(images: dict[tuple[str, str], Image]) -> None:
    print(
        "\nSky of the crowded stamp 3 in F140W (1e-5 electron/s) against threshold and growth: counted / fitted wings"
    )
    for row in sky_trend(images["3", "f140w"]):
        print(
            f"  threshold {row['threshold']:3.1f}, grown {row['grow_pixels']:4.1f} px:"
            f" {1e5 * row['plain_level']:7.1f} / {1e5 * row['level']:6.1f}"
        )


def scatter(image: Image, usable: np.ndarray) -> list[float]:
    """Scatter of box sums over the predicted one."""
    normalised = np.zeros(image.shape)
    normalised[usable] = image.data[usable] / np.sqrt(image.variance[usable])
    window = np.lib.stride_tricks.sliding_window_view
    ratios = []
    for side in BOXES:
        complete = window(usable, (side, side)).all(axis=(2, 3))
        sums = window(normalised, (side, side)).sum(axis=(2, 3))[complete]
        predicted = sum_variance(np.ones((side, side)), np.ones((side, side)), image.correlation)
        ratios.append(float(sums.std() / np.sqrt(predicted)) if sums.size > 100 else np.nan)
    return ratios


def box_table(images: dict[tuple[str, str], Image]) -> None:
    print(
        "\nBox sums of empty sky, scatter / prediction, noise measured on the other objects: boxes of",
        *BOXES,
        "px",
    )
    print(
        "band    scale sum rho   native: rms over objects | lowest, highest      matched to F160W: the same"
    )
    target = GaussianPSF.from_sigma(BANDS["f160w"] * PIXEL)
    for band in BANDS:
        skies = {
            name: empty_sky(images[name, band], measure_background(images[name, band])) for name in OBJECTS
        }
        measured = {name: measure_correlation(*skies[name]) for name in OBJECTS}
        kernel = matching_kernel(images["3", band].psf, target, images["3", band].pixel_matrix)
        native, matched = [], []
        for name, (image, sources) in skies.items():
            noise = combine_measurements([measured[other] for other in OBJECTS if other != name])
            known = apply_noise(image, noise)
            smooth = match_psf(known, target, kernel=kernel)
            native.append(scatter(known, ~sources))
            matched.append(scatter(smooth, ndimage.binary_erosion(~sources, iterations=2) & smooth.valid))
        both = combine_measurements(list(measured.values()))
        print(f"{band:7}{both.scale:6.2f}{both.correlation.sum():8.2f}  ", end="")
        for ratios in (np.array(native), np.array(matched)):
            rms = np.sqrt(np.nanmean(ratios**2, axis=0))
            print(
                " ".join(f"{value:5.2f}" for value in rms),
                f"| {np.nanmin(ratios):.2f} {np.nanmax(ratios):.2f}",
                end="     ",
            )
        print()


def time_table(images: dict[tuple[str, str], Image]) -> None:
    print("\nCPU time per 100 x 100 stamp, ms")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RepairWarning)  # How the maps were mended is not what is timed.
        labels = read_segmentation(DATA / "segment_maps" / "udf_mosaic_919_HST_SEGMAP.fits")
    image = images["919", "f160w"]
    sky = measure_background(image)
    noisy = apply_noise(image, measure_correlation(*empty_sky(image, sky)))
    regions = np.where(mask_from_labels(labels, image).inside, 0, -1).astype(np.int32)
    rows = {
        "measure_background (target 4)": lambda: measure_background(image),
        "measure_background, correlation known": lambda: measure_background(noisy),
        "measure_background mesh": lambda: measure_background(image, method="mesh"),
        "subtract_background, background known": lambda: subtract_background(image, sky),
        "measure_correlation": lambda: measure_correlation(*empty_sky(image, sky)),
        "mask_from_labels (target 2)": lambda: mask_from_labels(labels, image),
        "mask_from_labels, dilated": lambda: mask_from_labels(labels, image, dilation_arcsec=0.1),
        "sum_regions": lambda: sum_regions(noisy, regions),
        "sum_apertures, 10 of 5 px": lambda: sum_apertures(
            noisy, np.linspace(10, 90, 10), np.full(10, 50.0), 5.0
        ),
    }
    for name, task in rows.items():
        print(f"  {name:40}{cpu(task):7.2f}")


def region_table() -> None:
    print("\nVariance of sums over 961 blobs of 300 px, CPU ms (target 50-100)")
    y, x = np.mgrid[:700, :700]
    cell = (y - 11) // 22 * 31 + (x - 11) // 22
    near = np.hypot((y - 11) % 22 - 11, (x - 11) % 22 - 11) < 9.8
    inside = near & (y >= 11) & (x >= 11) & (y < 11 + 22 * 31) & (x < 11 + 22 * 31)
    labels = np.where(inside, cell, -1).astype(np.int32)
    variance = np.random.default_rng(1).uniform(0.5, 2.0, labels.shape)
    for radius in (2, 4, 6, 10, 14, 20):
        axis = np.arange(-radius, radius + 1)
        rho = np.exp(-0.5 * np.add.outer(axis**2, axis**2) / (radius / 2.5) ** 2)
        taken = cpu(lambda rho=rho: region_variances(variance, labels, 961, rho), repeats=2)
        print(f"  correlation radius {radius:2d} px {taken:7.0f}")


def mesh_table() -> None:
    print("\nMesh of a 2048 x 2048 float32 image, cells of 64 px")
    generator = np.random.default_rng(2)
    y, x = np.mgrid[:2048, :2048] / 2048
    truth = 10 + 2 * x - y
    data = (truth + generator.normal(size=truth.shape)).astype(np.float32)
    image = Image(data, np.ones_like(data), None, "electron/s", None)
    ours = measure_background(image, method="mesh")
    theirs = sep.Background(data, bw=64, bh=64)
    taken = (
        cpu(lambda: measure_background(image, method="mesh"), repeats=1),
        cpu(lambda: sep.Background(data, bw=64, bh=64).back(), 1),
    )
    error = np.std(ours.map - truth)
    print(
        f"  skyloom {taken[0]:6.0f} ms, rms error {error:.4f} (sources, their wings, errors, histogram too)"
    )
    print(f"  sep     {taken[1]:6.0f} ms, rms error {np.std(theirs.back() - truth):.4f} (the mesh alone)")


def main() -> int:
    if not DATA.is_dir():
        print(f"the folder of real data is absent: {DATA} (set SKYLOOM_DATA)")
        return 0
    images = {(name, band): read(name, band) for name in OBJECTS for band in BANDS}
    sky_table(images)
    trend_table(images)
    box_table(images)
    time_table(images)
    region_table()
    mesh_table()
    return 0


if __name__ == "__main__":
    sys.exit(main())
