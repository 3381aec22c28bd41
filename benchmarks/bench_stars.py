"""PSF matching of the real UDF stars: every band to F160W, encircled energy star by star.

    python benchmarks/bench_stars.py

What is compared. A star's image in a band is matched with the kernel from the PSF of that band to the PSF of F160W,
through `match_psf`, and its encircled energy is compared with that of the SAME star in F160W:
``EE_matched(r) / EE_F160W(r) - 1``, at r = 1, 1.5 ... 6 px, both relative to the light within 12 px. Nothing of the
comparison comes from the models: it asks whether two images of one object agree, which is what photometry needs. Both
images are first shifted to the centre of a pixel (quintic splines), because apertures on pixels depend on the sub-pixel
phase by 3 % at r = 1 px; smaller circles lie inside a pixel and measure its phase alone. Neighbours are replaced by the
point-reflected star.

  leave-one-out   the star took no part in either PSF: median over stars and bands of the largest error over r
  stars used      the star took part in full in both bands; "mean of stars" compares the mean curves of those stars,
                  which is what a kernel can reach; single stars differ from one another by more
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy.ndimage import shift

from measure import DATA
from skyloom.core.apertures import circle_overlap
from skyloom.core.image import Image
from skyloom.errors import AssumptionWarning
from skyloom.imaging.psfs.convolve import match_psf, matching_kernel
from skyloom.imaging.psfs.psf import PsfMeasurement, measure_psf
from skyloom.imaging.psfs.star_stack import stack_stars

BANDS = ("f435w", "f606w", "f775w", "f814w", "f850lp", "f105w", "f125w", "f140w")
TARGET = "f160w"
STARS = ("1", "2", "3", "4", "5")
RADII = np.arange(2, 13) / 2.0
WHOLE = 12.0
Curves = NDArray[np.float64]


@dataclass
class Band:
    """What was found for one band; errors are relative, one row per star, one column per radius."""

    name: str
    measurement: PsfMeasurement
    left_out: Curves
    used: Curves
    mean_used: Curves
    in_full: NDArray[np.bool_]
    residual: float
    noise_gain: float
    milliseconds: float


def read_star(data: Path, star: str, band: str, scale: str = "60mas") -> Image:
    stem = data / "hst_udf" / "psf_stars" / f"{star}_{scale}_{band}"
    with fits.open(f"{stem}_sci.fits") as science, fits.open(f"{stem}_wht.fits") as weights:
        values, weight = science[0].data.astype(np.float32), weights[0].data.astype(np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Dates of these headers are not quite standard.
            wcs = WCS(science[0].header)
    mask = ~(weight > 0) | ~np.isfinite(values)
    variance = np.ones_like(weight)
    np.divide(1.0, weight, out=variance, where=~mask)
    return Image(values, variance, mask, "electron/s", wcs)


def measure(images: list[Image], names: tuple[str, ...]) -> PsfMeasurement:
    with warnings.catch_warnings():
        # Leave-one-out may end with two stars that differ; that is what it is there to find out.
        warnings.simplefilter("ignore", AssumptionWarning)
        return measure_psf(images, names=names)


def without_neighbours(images: list[Image]) -> list[tuple[Image, float, float]]:
    """Sky-subtracted stars with their neighbours replaced by what lies opposite, and their centres."""
    stack = stack_stars(images, None, None, None, None)
    cleaned = []
    for index, image in enumerate(images):
        x, y = float(stack.x[index]), float(stack.y[index])
        half, row, column = stack.side // 2, round(y), round(x)
        bad = np.zeros(image.shape, bool)
        bad[row - half : row + half + 1, column - half : column + half + 1] = ~stack.valid[index]
        values = image.data.astype(np.float64) - stack.sky[index]
        rows, columns = np.nonzero(bad)
        opposite = np.rint(2 * y - rows).astype(int), np.rint(2 * x - columns).astype(int)
        inside = (opposite[0] >= 0) & (opposite[1] >= 0)
        inside &= (opposite[0] < image.shape[0]) & (opposite[1] < image.shape[1])
        replacement = np.zeros(rows.size)
        replacement[inside] = values[opposite[0][inside], opposite[1][inside]]
        values[rows, columns] = replacement
        clean = image.evolve(data=values.astype(np.float32), mask=np.zeros(image.shape, bool))
        cleaned.append((clean, x, y))
    return cleaned


def encircled_energy(image: Image, x: float, y: float) -> Curves:
    values = np.where(image.mask, 0.0, image.data).astype(np.float64)
    column, row = round(x), round(y)
    centred = shift(values, (row - y, column - x), order=5)
    circles = [np.sum(centred * circle_overlap(values.shape, column, row, r)) for r in (*RADII, WHOLE)]
    return np.array(circles[:-1]) / circles[-1]


def evaluate(data: Path = DATA) -> tuple[dict[str, Band], PsfMeasurement]:
    """Match every band, with all stars and with each one left out; return the bands and the target's PSF."""
    targets = [read_star(data, star, TARGET) for star in STARS]
    matrix = targets[0].pixel_matrix
    whole_target = measure(targets, STARS)
    others = [[i for i in range(len(STARS)) if i != left] for left in range(len(STARS))]
    partial_targets = [
        measure([targets[i] for i in kept], tuple(STARS[i] for i in kept)).psf for kept in others
    ]
    truths = np.array([encircled_energy(*star) for star in without_neighbours(targets)])
    bands = {}
    for band in BANDS:
        images = [read_star(data, star, band) for star in STARS]
        start = time.process_time()
        whole = measure(images, STARS)
        milliseconds = 1e3 * (time.process_time() - start)
        kernel = matching_kernel(whole.psf, whole_target.psf, matrix)
        left_out, used = [], []
        for (star, x, y), kept, target in zip(
            without_neighbours(images), others, partial_targets, strict=True
        ):
            source = measure([images[i] for i in kept], tuple(STARS[i] for i in kept)).psf
            left_out.append(encircled_energy(match_psf(star.evolve(psf=source), target), x, y))
            used.append(encircled_energy(match_psf(star, whole_target.psf, kernel=kernel), x, y))
        in_full = whole.core_used & whole_target.core_used
        bands[band] = Band(
            name=band,
            measurement=whole,
            left_out=np.array(left_out) / truths - 1.0,
            used=np.array(used) / truths - 1.0,
            mean_used=np.mean(np.array(used)[in_full], axis=0) / np.mean(truths[in_full], axis=0) - 1.0,
            in_full=in_full,
            residual=kernel.residual,
            noise_gain=kernel.noise_gain,
            milliseconds=milliseconds,
        )
    return bands, whole_target


def largest(errors: Curves) -> Any:
    return np.abs(errors).max(axis=-1)


def summary(bands: dict[str, Band]) -> dict[str, float]:
    """The figures that count, as fractions."""
    left_out = np.concatenate([largest(band.left_out) for band in bands.values()])
    single = np.concatenate([largest(band.used[band.in_full]) for band in bands.values()])
    every = np.concatenate([np.abs(band.used[band.in_full]).ravel() for band in bands.values()])
    return {
        "leave-one-out, median": float(np.median(left_out)),
        "stars used, worst mean of stars": float(max(largest(band.mean_used) for band in bands.values())),
        "stars used, median of single stars": float(np.median(single)),
        "stars used, worst single star": float(single.max()),
        "stars used, share of radii within 2 %": float(np.mean(every <= 0.02)),
    }


def verdicts(measurement: PsfMeasurement) -> str:
    pairs = zip(measurement.names, measurement.reasons, strict=True)
    return "; ".join(f"{name}: {reason}" for name, reason in pairs if reason) or "all stars used in full"


def main() -> int:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    if not (DATA / "hst_udf").is_dir():
        print(f"the folder of real data is absent: {DATA}")
        return 0
    bands, target = evaluate()
    print(
        "largest error of the encircled energy at 1-6 px, in %; () = rejected, [] = wings only, in either band"
    )
    columns = f"{'leave-one-out, star 1-5':<38}{'all stars, star 1-5':<38}"
    print(f"{'band':<8}{columns}{'mean':>6}{'kernel':>8}{'gain':>7}{'ms':>6}")
    for band in bands.values():
        rejected = ~(band.measurement.used & target.used)

        def cells(errors: Curves, rejected=rejected, in_full=band.in_full) -> str:
            marks = [
                ("(", ")") if out else (" ", " ") if full else ("[", "]")
                for out, full in zip(rejected, in_full, strict=True)
            ]
            return "".join(
                f"{left}{100 * error:4.1f}{right} "
                for (left, right), error in zip(marks, largest(errors), strict=True)
            )

        print(
            f"{band.name:<8}{cells(band.left_out):<38}{cells(band.used):<38}{100 * largest(band.mean_used):6.2f}"
            f"{100 * band.residual:8.2f}{band.noise_gain:7.3f}{band.milliseconds:6.1f}"
        )
    for name, measurement in [*((b.name, b.measurement) for b in bands.values()), (TARGET, target)]:
        print(
            f'  {name:<7} FWHM {measurement.fwhm:.4f} +- {measurement.fwhm_error:.4f}"  {verdicts(measurement)}'
        )
    for name, figure in summary(bands).items():
        print(f"  {name:<40} {100 * figure:6.2f} %")
    figures = summary(bands)
    good = figures["leave-one-out, median"] <= 0.05 and figures["stars used, worst mean of stars"] <= 0.02
    return int(not (good and "1" in target.rejected))


if __name__ == "__main__":
    sys.exit(main())
