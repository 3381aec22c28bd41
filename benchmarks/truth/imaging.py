"""Images: noise is drawn, goes through an operation or several, and sums over boxes are set beside their errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from benchmarks.pulls import image_pulls
from benchmarks.truth import Check, Row, recovered
from skyloom.core.image import Image
from skyloom.core.psf import GaussianPSF
from skyloom.imaging.grids.reproject import reproject
from skyloom.imaging.psfs.convolve import match_psf
from skyloom.mock.hubble.noise import draw_noise, drizzle_kernel, kernel_correlation
from skyloom.mock.scenes.images import sky_wcs

GROUP = "Images: sums of boxes"
CENTRE = (53.1, -27.8)
SIDE, SCALE = 400, 0.06
DRAWS = 16
BOXES = (1, 3, 9, 20)
GAP = 14  # Pixels: beyond the reach of the correlation, so that boxes are independent.
MODEL = 0.04  # What the noise model may be off: one correlation serves a whole image (docs/numbers.md).
NARROW, WIDE = GaussianPSF(0.11), GaussianPSF(0.20)

Chain = Callable[[Image], Image]


def match(image: Image) -> Image:
    return match_psf(image, WIDE)


def turn(image: Image, scale: float = 1.0) -> Image:
    side = round(SIDE / scale)
    return reproject(image, (sky_wcs(CENTRE, (side, side), SCALE * scale, angle=25.0), (side, side)))


CHAINS: dict[str, Chain] = {
    "as observed": lambda image: image,
    "PSF matched": match,
    "turned by 25 degrees (Lanczos-3)": turn,
    "turned, pixels 1.5 times as large (overlap)": partial(turn, scale=1.5),
    "turned, then PSF matched": lambda image: match(turn(image)),
}


def observed(noise: str) -> Iterator[Image]:
    """Draw images of pure noise whose variance grows threefold across them."""
    variance = np.broadcast_to(1.0 + 2.0 * np.arange(SIDE) / SIDE, (SIDE, SIDE))
    kernel = drizzle_kernel(1.5, 0.8) if noise == "drizzled" else np.ones((1, 1))
    wcs = sky_wcs(CENTRE, variance.shape, SCALE)
    correlation = kernel_correlation(kernel) if noise == "drizzled" else None
    for data in draw_noise(variance, kernel, np.random.default_rng(11), DRAWS):
        yield Image(data, variance, None, "electron/s", wcs, psf=NARROW, correlation=correlation)


def sums(noise: str) -> list[Row]:
    """Pulls of sums over boxes after each chain."""
    rows = []
    for name, chain in CHAINS.items():
        products = [chain(image) for image in observed(noise)]
        # What is near the border knows less than the middle.
        margin = round(0.2 * products[0].shape[0])
        for side in BOXES:
            pulls = [image_pulls(product, side, margin=margin, gap=GAP) for product in products]
            told = "pixels" if side == 1 else f"{side} x {side} px"
            tolerance = 0.0 if name == "as observed" else MODEL
            what = f"{noise} noise, {name}, {told}"
            rows.append(recovered(GROUP, what, np.concatenate(pulls), tolerance=tolerance).row())
    return rows


def sky_level() -> list[Row]:
    """A known sky under galaxies with wings."""
    from tests.inputs.sky import KINDS, filtered_noise, galaxy_field, sky_image

    from skyloom.imaging.sky.background import measure_background

    rows = []
    for kind, told in (("acs", "optical"), ("ir", "infra-red")):
        pulls = []
        for number in range(60):
            rng = np.random.default_rng([number, 0])
            light = galaxy_field(rng, kind, faint=0)
            fwhm, grain = KINDS[kind][:2]
            sky = measure_background(sky_image(light + filtered_noise(rng, grain) + 5.0, fwhm=fwhm))
            pulls.append((sky.level - 5.0) / sky.error)
        note = "the systematic part of the error is a bound: pulls are narrower than 1"
        rows.append(
            recovered(
                "Images: sky", f"level under galaxies, {told}", pulls, tolerance=0.5, shift=0.35, note=note
            ).row()
        )
    return rows


def nebulae() -> list[Row]:
    """Fluxes of nebulae in a sharp and a blurred image, and their differences."""
    from scipy import ndimage
    from tests.inputs.quality import BLURRED, quality_scene

    from skyloom.core.image import Mode
    from skyloom.imaging.measure.comparison import compare_regions
    from skyloom.imaging.psfs.psf_fit import match_to

    scene = quality_scene(n_nebulae=36, size=300, noise=False)
    generator = np.random.default_rng(5)
    kernel = np.array([0.25, 0.5, 0.25])
    power = (kernel**2).sum()
    rho = np.convolve(kernel, kernel[::-1]) / power
    truth = compare_regions(scene.sharp, scene.blurred, scene.labels)
    differences, fluxes = [], []
    for _ in range(6):
        grain = generator.normal(size=scene.sharp.shape)
        for axis in (0, 1):
            grain = ndimage.convolve1d(grain, kernel, axis=axis, mode="wrap")
        sharp = scene.sharp.evolve(
            data=scene.sharp.data + 200.0 * grain / power + 5.0 * generator.normal(),
            variance=np.full(scene.sharp.shape, 200.0**2),
            correlation=np.outer(rho, rho),
            modes=(Mode("sky", 1.0, 5.0),),
        )
        noise = 30.0 * generator.normal(size=scene.blurred.shape)
        blurred = scene.blurred.evolve(data=scene.blurred.data + noise)
        table = compare_regions(sharp, blurred, scene.labels, matched=match_to(sharp, blurred, BLURRED))
        whole = np.asarray(table["whole"])
        differences.append(np.asarray(table["pull"])[whole])
        fluxes.append(((table["flux"] - truth["flux"]) / table["flux_err"]).value[whole])
    note = "nebulae of one draw share the error of the sky"
    return [
        recovered("Images: nebulae", what, np.concatenate(pulls), each=1.25, shift=0.1, note=note).row()
        for what, pulls in (("fluxes", fluxes), ("sharp less blurred image", differences))
    ]


CHECKS: dict[str, Check] = {
    "sums of white noise": partial(sums, "white"),
    "sums of drizzled noise": partial(sums, "drizzled"),
    "sky level": sky_level,
    "nebulae": nebulae,
}
