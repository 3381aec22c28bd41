"""Jobs that bring images to other grids: interpolation and exact overlap, beside the package `reproject`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from astropy.wcs import WCS

from benchmarks.jobs import Contender, Goal, Job, Task
from benchmarks.jobs.imaging import CENTRE, MEGAPIXELS, noise_plane
from benchmarks.pulls import image_pulls, plain_pulls, pull_figures
from skyloom.core.image import Image
from skyloom.mock.scenes.images import sky_wcs

Size = Mapping[str, Any]
Grid = tuple[WCS, tuple[int, int]]
ANGLE = 25.0
SCALES = {"bilinear": (0.04, 0.04), "lanczos3": (0.04, 0.04), "area": (0.04, 0.2)}
BOX = 9
LEVEL = 10.0
SMOOTH = 512  # Side of the field without noise.
WIDTH = 2.5  # Pixels, sigma of the stars in it.


def grids(method: str, side: int) -> tuple[WCS, Grid]:
    """The grid of the input, and one turned by 25 degrees (overlap: five times as coarse, and large enough for all)."""
    fine, coarse = SCALES[method]
    new = side if fine == coarse else int(np.ceil(1.42 * side * fine / coarse)) + 2
    return sky_wcs(CENTRE, (side, side), fine), (sky_wcs(CENTRE, (new, new), coarse, angle=ANGLE), (new, new))


def stars(wcs: WCS, shape: tuple[int, int], area: float, fine: int) -> np.ndarray:
    """Surface brightness of Gaussians on the sky, as means over pixels."""
    source, _ = grids("bilinear", SMOOTH)
    generator = np.random.default_rng(8)
    longitude, latitude = source.all_pix2world(*generator.uniform(0.2 * SMOOTH, 0.8 * SMOOTH, (2, 40)), 0)
    ny, nx = shape
    axes = [(np.arange(size * fine) + 0.5) / fine - 0.5 for size in (nx, ny)]
    x0, y0 = wcs.all_world2pix(longitude, latitude, 0)
    sigma = WIDTH * np.sqrt(0.04**2 / area)
    profiles = (
        np.exp(-0.5 * ((axis[:, None] - place) / sigma) ** 2)
        for axis, place in zip(axes, (x0, y0), strict=True)
    )
    along, across = profiles
    plane = across @ along.T
    return plane.reshape(ny, fine, nx, fine).mean(axis=(1, 3))


def smooth_error(method: str, bring: Callable[[np.ndarray, WCS, Grid], np.ndarray]) -> float:
    """Rms of a field without noise less the truth, over the height of a star."""
    if method == "area":
        return float("nan")
    source, grid = grids(method, SMOOTH)
    data = stars(source, (SMOOTH, SMOOTH), 0.04**2, 1).astype(np.float32)
    truth = stars(*grid, 0.04**2, 1)
    off = bring(data, source, grid) - truth
    bright = truth > 0.01
    return float(np.sqrt(np.nanmean(off[bright] ** 2)))


def field(method: str, side: int) -> np.ndarray:
    data = LEVEL + noise_plane(side, 3)
    if method == "area":
        data[:8], data[-8:], data[:, :8], data[:, -8:] = 0, 0, 0, 0
    return data


def figures(
    method: str, data: np.ndarray, found: np.ndarray, pulls: np.ndarray, error: float
) -> dict[str, float]:
    named = {"rms error": error} if np.isfinite(error) else {}
    if method == "area":
        fine, coarse = SCALES[method]
        total = np.nansum(found, dtype=float) * (coarse / fine) ** 2
        named["flux error"] = abs(float(total / np.sum(data, dtype=float)) - 1)
    return named | pull_figures(pulls)


def inner(found: np.ndarray, share: float = 0.55) -> tuple[slice, slice]:
    """The middle, which all of the input covers."""
    edge = [int(size * (1 - share) / 2) for size in found.shape]
    return slice(edge[0], -edge[0]), slice(edge[1], -edge[1])


def ours(method: str, size: Size) -> Task:
    from skyloom.imaging.grids.reproject import reproject

    side = size["side"]
    data, (wcs, grid) = field(method, side), grids(method, side)
    image = Image(data, np.ones_like(data), None, "MJy / sr", wcs)

    def bring(plane: np.ndarray, source: WCS, target: Grid) -> np.ndarray:
        return reproject(Image(plane, np.ones_like(plane), None, "MJy / sr", source), target, method).data

    def judge(found: Image) -> dict[str, float]:
        middle = inner(found.data)
        # Boxes are summed as they are: a unit per pixel.
        part = Image(
            found.data[middle], found.variance[middle], found.mask[middle], "electron/s",
            sky_wcs(CENTRE, found.data[middle].shape, SCALES[method][1]), correlation=found.correlation,
        )  # fmt: skip
        data_found = np.where(found.mask, np.nan, found.data)
        error = smooth_error(method, bring) if side > 100 else float("nan")
        return figures(method, data, data_found, image_pulls(part, BOX, LEVEL), error)

    return Task(lambda: reproject(image, grid, method), judge, data.size / 1e6)


def peers(method: str, size: Size) -> Task:
    import reproject

    functions = {
        "bilinear": partial(reproject.reproject_interp, order=1),
        "lanczos3": partial(reproject.reproject_adaptive, kernel="gaussian", boundary_mode="strict"),
        "area": partial(reproject.reproject_exact, parallel=False),
    }
    call = functions[method]
    side = size["side"]
    data, (wcs, (target, shape)) = field(method, side), grids(method, side)

    def bring(plane: np.ndarray, source: WCS, grid: Grid) -> np.ndarray:
        return call((plane, source), grid[0], grid[1])[0]

    def judge(found: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
        plane, footprint = found
        middle = inner(plane)
        gain = (0.2 / 0.04) ** -2 if method == "area" else 1.0
        # Errors as they are made where covariance is not carried: those of the input, at the new place.
        pulls = plain_pulls(plane[middle], np.full(plane[middle].shape, gain), BOX, LEVEL)
        light = plane * footprint if method == "area" else plane
        error = smooth_error(method, bring) if side > 100 else float("nan")
        return figures(method, data, light, pulls, error)

    return Task(lambda: call((data, wcs), target, shape), judge, data.size / 1e6)


def job(method: str, peer: str, side: int, goals: tuple[Goal, ...]) -> Job:
    names = {
        "bilinear": "turned by 25 degrees",
        "lanczos3": "turned by 25 degrees",
        "area": "turned by 25 degrees, 0.04 to 0.2 arcsec",
    }
    told = "rms error on stars of sigma 2.5 px over their height; " if method != "area" else ""
    return Job(
        f"reproject {method}",
        f"reproject, {method}, {{side}} x {{side}} float32, {names[method]}: data, variance, mask",
        {"side": side},
        {"side": 100},
        Contender("Skyloom", partial(ours, method)),
        (Contender(f"reproject_{peer}", partial(peers, method), "reproject", "data alone"),),
        item=MEGAPIXELS,
        accuracy=f"{told}pulls of sums of {BOX} x {BOX} px (peers: errors of pixels in quadrature)"
        + ("; flux of the whole image" if method == "area" else ""),
        goals=goals,
    )


JOBS = (
    job(
        "bilinear",
        "interp",
        2048,
        (
            Goal("cpu", 0, 1.5 / 4096**2 * 1e6, "1.5 CPU s for 4096 x 4096"),
            Goal("ratio", 10, np.inf, "10 times reproject_interp"),
        ),
    ),
    job("lanczos3", "adaptive", 1024, (Goal("cpu", 0, 4.0 / 4096**2 * 1e6, "4 CPU s for 4096 x 4096"),)),
    job(
        "area",
        "exact",
        1024,
        (
            Goal("ratio", 15, np.inf, "15 times reproject_exact"),
            Goal("flux error", 0, 1e-6, "flux to 1e-6"),
        ),
    ),
)
