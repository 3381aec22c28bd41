"""Time, memory and accuracy of `halpha` on a mock field with known truth.

    python benchmarks/bench_halpha.py [--size 1600] [--directory FOLDER] [--cosmic-rays]

The mock is made once and kept in the folder. The recipe then runs from the command line with all products, without
figures, with a warm numba cache; cosmic rays are looked for when asked for, otherwise the mock has none. Figures of
accuracy compare the products with the truth of the mock, beside their targets.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import QTable

import skyloom as sl
from measure import run_command
from skyloom.core.image import Image
from skyloom.core.labels import LabelMap
from skyloom.imaging import sum_regions
from skyloom.mock.halpha.files import write_halpha_mock

TARGET_SECONDS, TARGET_WALL, TARGET_MEMORY = 5.0, 120.0, 6.0
NAME = "spiral"
FAINT_DISC = 0.02  # Of the largest continuum: what is below counts as faint disc.
BRIGHT_DISC = 0.3


def make_mock(folder: Path, size: int, rays: bool) -> None:
    """Write the mock unless it is there already."""
    start = time.perf_counter()
    if not (folder / "finished").exists():
        write_halpha_mock(
            folder, seed=1, size=size, name=NAME, cosmic_rays=1.0 if rays else 0.0, noise_free=True
        )
        (folder / "finished").touch()
    print(f"mock of {size}x{size} ready after {time.perf_counter() - start:.0f} s")


def run(config: Path, out: Path, rays: bool) -> tuple[float, float, float, str]:
    """Run the command line; return wall and CPU seconds, peak memory (GB) and what it printed."""
    command = ["run", config, "--out", out, "--overwrite", "--set", "output.figures=false"]
    command += [] if rays else ["--set", "cosmic_rays=none"]
    usage, said = run_command(command, accepted=(0, 3))
    return usage.wall, usage.cpu, usage.peak / 1024, said


def print_stages(folder: Path) -> None:
    """Print what each stage took."""
    for name in ("cosmic_rays", "stars", "muse", "alignment", "anchors", "images", "qa"):
        record = json.loads((folder / "stages" / f"{name}.json").read_text())
        size = sum(item[0] for item in record["files"].values()) / 1e6
        print(
            f"    {name:12s} CPU {record['cpu_seconds']:7.2f} s   wall {record['wall_seconds']:7.2f} s   "
            f"files {size:8.1f} MB"
        )


def show(name: str, value: str, target: str) -> None:
    """Print a figure beside its target."""
    print(f"  {name:44s} {value:28s} target {target}")


def pull(values: np.ndarray) -> str:
    """Return mean and standard deviation of pulls, robust against what is not noise."""
    values = values[np.isfinite(values)]
    middle = np.median(values)
    return f"{middle:+.2f}, sd {np.std(values):.2f} (MAD {1.4826 * np.median(np.abs(values - middle)):.2f})"


def judge(mock: Path, folder: Path) -> None:
    """Compare the anchored image with the truth."""
    image = sl.read(folder / f"{NAME}_hst_ha.fits")
    assert isinstance(image, Image)
    with fits.open(mock / "truth" / f"{NAME}_halpha.fits") as hdus:
        plane = next(hdu.data for hdu in hdus if hdu.data is not None)
        truth = plane.astype(np.float64) * image.pixel_area
    judge_nebulae(mock, image, truth)
    judge_disc(mock, image, truth)
    judge_sky(mock, folder)
    for side in (5, 20):
        show(f"pulls of {side}x{side} sums", pull(block_pulls(image, truth, side)), "sd 0.9 to 1.1")


def moved_labels(mock: Path, image: Image) -> LabelMap:
    """Bring the labels of the nebulae to the grid of HST."""
    from skyloom.imaging.measure.masks import move_labels

    labels = sl.read(mock / f"{NAME}_nebulae_mask.fits", instrument="segmentation")
    assert isinstance(labels, LabelMap)
    return move_labels(labels, image)


def judge_nebulae(mock: Path, image: Image, truth: np.ndarray) -> None:
    """Sum nebulae, over the pixels that are usable, in image and truth."""
    labels = moved_labels(mock, image)
    start = time.process_time()
    table = sum_regions(image, labels)
    seconds = time.process_time() - start
    used = (labels.labels >= 0) & image.valid
    total = np.bincount(labels.labels[used], weights=truth[used], minlength=int(labels.labels.max()) + 1)
    true = total[np.asarray(table["label"])]
    flux, error = (np.asarray(getattr(table[key], "value", table[key])) for key in ("flux", "flux_err"))
    good = np.isfinite(flux) & (true > 0)
    flux, error, true = flux[good], error[good], true[good]
    ratio = flux / true
    low, middle, high = np.percentile(ratio, [16, 50, 84])
    show(f"nebula flux / truth ({ratio.size}), median", f"{middle:.4f}", "0.98 to 1.02")
    show("    16-84 %", f"{low:.3f} to {high:.3f}", "0.93 to 1.07")
    faint = true <= np.percentile(true, 100 / 3)
    show("    faintest third, median", f"{np.median(ratio[faint]):.4f}", "0.95 to 1.05")
    show("    pulls", pull((flux - true) / error), "sd 0.9 to 1.1")
    show("    sums with covariance", f"{seconds:.2f} CPU s", "0.3 for 1000")


def judge_disc(mock: Path, image: Image, truth: np.ndarray) -> None:
    """Compare sums over the disc."""
    with fits.open(mock / "truth" / f"{NAME}_f814w.fits") as hdus:
        light = hdus["TRUTH"].data.astype(np.float64)
    from scipy.ndimage import gaussian_filter

    light = gaussian_filter(light, 25.0)
    usable = image.valid
    peak = np.percentile(light, 99.5)
    blocks = {"bright disc": light > BRIGHT_DISC * peak, "faint disc": light < FAINT_DISC * peak}
    for name, where in blocks.items():
        ratios = block_ratios(image.data, truth, usable & where, 40)
        value = f"{np.median(ratios):.4f} ({ratios.size} blocks)" if ratios.size else "none in this field"
        show(f"{name}, median", value, "0.95 to 1.05")
    whole = float(np.sum(image.data[usable], dtype=np.float64) / truth[usable].sum())
    show("sum over the field", f"{whole:.4f}", "0.98 to 1.02")


def block_ratios(data: np.ndarray, truth: np.ndarray, where: np.ndarray, side: int) -> np.ndarray:
    """Return sums of blocks over their truth, where most of a block is wanted."""
    ny, nx = (size // side for size in data.shape)

    def total(plane: np.ndarray) -> np.ndarray:
        cut = np.where(where, plane, 0.0)[: ny * side, : nx * side].astype(np.float64)
        return np.asarray(cut.reshape(ny, side, nx, side).sum(axis=(1, 3)))

    number, flux, true = total(np.ones(data.shape)), total(data), total(truth)
    wanted = number > 0.8 * side**2
    return np.asarray(flux[wanted] / true[wanted])


def block_pulls(image: Image, truth: np.ndarray, side: int) -> np.ndarray:
    """Return residuals of sums of blocks over their errors, correlation and shared errors included."""
    ny, nx = (size // side for size in image.shape)
    rows = np.repeat(np.arange(ny), side)[:, None] * nx + np.repeat(np.arange(nx), side)
    labels = np.full(image.shape, -1, np.int32)
    labels[: ny * side, : nx * side] = rows
    labels[image.mask] = -1
    whole = np.bincount(labels[labels >= 0], minlength=ny * nx) == side**2
    # A few thousand blocks are enough.
    chosen = np.flatnonzero(whole)
    chosen = chosen[:: max(1, chosen.size // 4000)]
    keep = np.zeros(ny * nx + 1, bool)
    keep[chosen] = True
    labels[~keep[labels]] = -1
    table = sum_regions(image, labels)
    used = labels >= 0
    true = np.bincount(labels[used], weights=truth[used], minlength=ny * nx)[np.asarray(table["label"])]
    flux, error = (np.asarray(getattr(table[key], "value", table[key])) for key in ("flux", "flux_err"))
    return np.asarray((flux - true) / error)


def judge_sky(mock: Path, folder: Path) -> None:
    """Compare the sky offsets of the bands with those that were put in."""
    known: dict[str, Any] = QTable.read(mock / "truth.ecsv").meta["sky"]
    table = QTable.read(folder / f"{NAME}_bandfit.ecsv")
    for row in table:
        band = str(row["band"])
        header = fits.getheader(mock / f"{NAME}_{band}_sci.fits")
        if "PHOTFLAM" not in header:
            header = fits.getheader(mock / f"{NAME}_{band}_sci.fits", 1)
        area = abs(header["CD1_1"] * header["CD2_2"] - header["CD1_2"] * header["CD2_1"]) * 3600.0**2
        true = known[band] * header["PHOTFLAM"] * 1e20 / area
        offset, error = (float(getattr(row[key], "value", row[key])) for key in ("offset", "offset_err"))
        show(
            f"sky offset of {band}: pull, ratio",
            f"{(offset - true) / error:+.2f}, {offset / true:.4f} ({abs(true) / error:.0f} sigma)",
            "within 2; 2 % beyond 50 sigma",
        )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=1600)
    parser.add_argument("--directory", type=Path, default=None)
    parser.add_argument("--cosmic-rays", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = options.directory or Path(temporary)
        mock, out = place / f"mock{options.size}{'r' * options.cosmic_rays}", place / f"out{options.size}"
        make_mock(mock, options.size, options.cosmic_rays)
        if options.size <= 2000:
            run(
                mock / "halpha.yaml", out, options.cosmic_rays
            )  # Kernels are compiled, files are in the cache.
        wall, cpu, peak, text = run(mock / "halpha.yaml", out, options.cosmic_rays)
        print(text)
        small, large = options.size == 1600, options.size == 8000
        show("CPU", f"{cpu:.1f} s", f"{TARGET_SECONDS:g} s" if small else "")
        show("wall", f"{wall:.1f} s", f"{TARGET_WALL:g} s" if large else "")
        show("peak memory", f"{peak:.2f} GB", f"{TARGET_MEMORY:g} GB" if large else "")
        print_stages(out / NAME)
        judge(mock, out / NAME)


if __name__ == "__main__":
    main()
