"""HST laid onto MUSE: where it lies, how much sharper it is, and its bands on the grid of MUSE with the PSF of MUSE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from astropy.table import QTable
from numpy.typing import NDArray

from skyloom.core.geometry import celestial
from skyloom.core.image import Image
from skyloom.core.psf import GaussianPSF, MoffatPSF
from skyloom.errors import InputError
from skyloom.imaging.grids.divided import Divided, divide
from skyloom.imaging.grids.register import Registration, shift_wcs
from skyloom.imaging.psfs.lost_light import add_lost_light, find_lost_light
from skyloom.imaging.psfs.psf_fit import KernelFit, align, fit_kernel, match_to
from skyloom.recipes.halpha.cleaning import Hst, binned
from skyloom.recipes.halpha.inputs import Source
from skyloom.recipes.halpha.muse import MuseSide

__all__ = ["Alignment", "align_bands"]

Mask = NDArray[np.bool_]
SAME_WIDTH = 0.02
"""Relative difference of the kernels of two bands below which one serves for both."""
WINDOW = 320
"""Pixels of MUSE along a side on which shifts and kernels are measured."""
BRIGHT = 30.0
"""S/N up to which a pixel makes a window better."""
COARSE = 0.45
"""Largest pixel of HST, in those of MUSE, with which a shift is measured."""
USUAL_WIDTH = 4.0
"""Of the kernel, in pixels of MUSE, before it was fitted."""
WIDEST = 5.0
"""FWHM of the kernel around the field of MUSE from which HST is taken along."""
MARGINS = (12, 48)
"""The same in pixels of MUSE, at least and at most."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """The bands of HST on the grid of MUSE.

    Attributes
    ----------
    matched : dict
        Band -> image with the PSF that MUSE has in this band.
    common : dict
        The same with the PSF that MUSE has at the line.
    registration : Registration or None
        Where HST lies relative to MUSE; None when it was not measured.
    table : QTable
        A row per band: shift, kernel, errors.
    """

    matched: dict[str, Image]
    common: dict[str, Image]
    registration: Registration | None
    table: QTable


def align_bands(source: Source, hst: Hst, muse: MuseSide | None) -> Alignment | None:
    """Find where HST lies relative to MUSE and how much sharper it is, and bring its bands to MUSE.

    Parameters
    ----------
    source : Source
    hst : Hst
    muse : MuseSide or None
        Without it there is nothing to do.

    Raises
    ------
    InputError
        When HST and MUSE do not overlap, or do not show the same.
    """
    if muse is None:
        return None
    images = {band: hst.ready(band) for band in source.config.bands}
    stars = hst.stars_on(muse.lines["Halpha"])
    for band, image in images.items():
        muse.require_overlap(image, f"HST in {band}")
    found, measured, kernel = measure_registration(source, images, muse, stars)
    if found is not None and source.config.registration.apply:
        images = {band: shift_wcs(image, found) for band, image in images.items()}
    parts = {}
    for number, band in enumerate(list(images)):
        source.tick("alignment", number, len(images))
        grid = muse.bands[band]
        # Averaged once, for the fit of the kernel and for all that is convolved after it.
        parts[band] = divide(images.pop(band), celestial(grid.wcs), grid.shape, margin_of(kernel, grid))
    kernels = fit_kernels(source, parts, muse, stars, kernel)
    matched, common = {}, {}
    narrow = kernels[source.narrow]
    for band, divided in parts.items():
        matched[band] = match_to(divided, muse.bands[band], kernels[band])
        same = abs(width(kernels[band]) / width(narrow) - 1.0) < SAME_WIDTH
        common[band] = matched[band] if same else match_to(divided, muse.bands[band], narrow)
        divided.forget()
    if stars is not None:
        complete_stars(matched, common, muse, kernels, narrow, stars)
    table = alignment_table(source, found, measured, kernels, muse)
    return Alignment(matched, common, found if source.config.registration.apply else None, table)


Kernel = KernelFit | GaussianPSF | MoffatPSF


def margin_of(kernel: Kernel | None, grid: Image) -> int:
    """Return the pixels around a grid from which kernels like this one take light, with something to spare."""
    seen = WIDEST * (USUAL_WIDTH * grid.pixel_scale if kernel is None else width(kernel)) / grid.pixel_scale
    return int(np.clip(np.ceil(seen), *MARGINS))


def complete_stars(
    matched: dict[str, Image],
    common: dict[str, Image],
    muse: MuseSide,
    kernels: Mapping[str, Kernel],
    narrow: Kernel,
    stars: Mask,
) -> None:
    """Give saturated stars back the wings that HST has lost, or they would lower every level that is fitted."""
    for band, kernel in kernels.items():
        psf = kernel.psf if isinstance(kernel, KernelFit) else kernel
        lost = find_lost_light(matched[band], muse.bands[band], stars, psf)
        shared = common[band] is matched[band]
        matched[band] = add_lost_light(matched[band], lost, psf)
        other = narrow.psf if isinstance(narrow, KernelFit) else narrow
        common[band] = matched[band] if shared else add_lost_light(common[band], lost, other)


def measure_registration(
    source: Source, images: Mapping[str, Image], muse: MuseSide, stars: Mask | None
) -> tuple[Registration | None, str, Kernel | None]:
    """Measure where HST lies, tell in which band, and with which kernel.

    Nebulae are best, and all bands are drizzled alike.
    """
    config = source.config
    assert config.muse is not None
    if config.registration.method == "none":
        return None, "", muse_psf(source)
    first: InputError | None = None
    for band in dict.fromkeys((source.narrow, best_band(muse))):
        reference, mask = window(muse.bands[band], stars)
        # Shifts do not need pixels that are much smaller than those of MUSE, and large images cost.
        side = max(1, int(COARSE * reference.pixel_scale / images[band].pixel_scale))
        reach = config.registration.max_shift_arcsec + MARGINS[1] * reference.pixel_scale
        try:
            found, kernel = align(
                binned(part_around(images[band], reference, reach), side),
                reference,
                model=config.muse.model,
                mask=mask,
                max_shift_arcsec=config.registration.max_shift_arcsec,
                start=muse_psf(source),
            )
        except InputError as error:
            first = first or error.located(f"{source.name} {band}: HST against MUSE")
            continue
        return found, band, kernel
    assert first is not None
    raise first


def part_around(image: Image, reference: Image, reach: float) -> Image:
    """Cut out of a large image what lies within ``reach`` arcsec of another; one with distortions stays whole."""
    if image.wcs is None or reference.wcs is None or image.wcs.sip is not None:
        return image
    ny, nx = reference.shape
    x, y = np.array([-0.5, nx - 0.5, nx - 0.5, -0.5]), np.array([-0.5, -0.5, ny - 0.5, ny - 0.5])
    corners = image.wcs.all_world2pix(*reference.wcs.all_pix2world(x, y, 0), 0)
    extra = reach / image.pixel_scale + 2.0
    place = tuple(
        slice(int(np.clip(axis.min() - extra, 0, side)), int(np.clip(axis.max() + extra, 0, side)))
        for axis, side in zip(corners[::-1], image.shape, strict=True)
    )
    if any(part.stop - part.start < 2 for part in place):
        return image
    planes = {name: getattr(image, name)[place] for name in ("data", "variance", "mask")}
    return image.evolve(wcs=image.wcs[place], flags=None, modes=(), **planes)


def fit_kernels(
    source: Source,
    images: Mapping[str, Divided],
    muse: MuseSide,
    stars: Mask | None,
    kernel: Kernel | None = None,
) -> dict[str, Kernel]:
    """Fit the kernel of each band that makes HST look like MUSE, unless the PSF of MUSE is declared.

    ``kernel``: of another fit, to start from.
    """
    assert source.config.muse is not None
    declared = muse_psf(source)
    kernels: dict[str, Kernel] = {}
    start = kernel.psf if isinstance(kernel, KernelFit) else kernel
    for band in dict.fromkeys((best_band(muse), *images)):
        if declared is not None:
            kernels[band] = declared
            continue
        reference, mask = window(muse.bands[band], stars)
        try:
            fit = fit_kernel(images[band], reference, model=source.config.muse.model, mask=mask, start=start)
        except InputError as error:
            raise error.located(f"{source.name} {band}: HST against MUSE") from None
        kernels[band], start = fit, fit.psf
    return {band: kernels[band] for band in images}


def best_band(muse: MuseSide) -> str:
    """Return the band in which MUSE has the highest S/N per pixel."""

    def quality(band: str) -> float:
        image = muse.bands[band]
        return float(np.median(image.data[image.valid] / np.sqrt(image.variance[image.valid])))

    return max(muse.bands, key=quality)


def window(image: Image, stars: Mask | None) -> tuple[Image, Mask | None]:
    """Cut out the brightest part of a large field: more pixels make shifts and kernels no better, only slower."""
    ny, nx = image.shape
    if max(ny, nx) <= WINDOW:
        return image, stars
    blocked = image.mask if stars is None else image.mask | stars
    noise = np.sqrt(np.where(blocked, 1.0, image.variance))
    light = np.where(blocked, 0.0, np.minimum(image.data / noise, BRIGHT)).astype(np.float64)
    sums = np.pad(light.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    height, breadth = min(ny, WINDOW), min(nx, WINDOW)
    whole = (
        sums[height:, breadth:]
        - sums[:-height, breadth:]
        - sums[height:, :-breadth]
        + sums[:-height, :-breadth]
    )
    y, x = np.unravel_index(int(np.argmax(whole)), whole.shape)
    place = (slice(int(y), int(y) + height), slice(int(x), int(x) + breadth))
    assert image.wcs is not None
    cut = Image(
        image.data[place],
        image.variance[place],
        image.mask[place],
        image.unit,
        image.wcs[place],
        psf=image.psf,
        correlation=image.correlation,
        meta=image.meta,
        history=image.history,
    )
    return cut, None if stars is None else stars[place]


def muse_psf(source: Source) -> GaussianPSF | MoffatPSF | None:
    """Return the PSF of MUSE as the configuration declares it; None: it is fitted."""
    muse = source.config.muse
    if muse is None or muse.psf == "fit":
        return None
    return GaussianPSF(muse.psf.fwhm) if muse.psf.beta is None else MoffatPSF(muse.psf.fwhm, muse.psf.beta)


def width(kernel: Kernel) -> float:
    """Return the FWHM of a kernel, arcsec."""
    return float(kernel.fwhm)


def alignment_table(
    source: Source, found: Registration | None, measured: str, kernels: Mapping[str, Kernel], muse: MuseSide
) -> QTable:
    """List the shift and the kernel of each band; a band's shift is what its kernel has left of the common one."""
    rows = []
    applied = found is not None and source.config.registration.apply
    for band, kernel in kernels.items():
        offset, variance = np.full(2, np.nan), np.full(2, np.nan)
        if found is not None:
            offset, variance = found.offset.copy(), np.diag(found.offset_covariance).copy()
        fitted = kernel if isinstance(kernel, KernelFit) else None
        if fitted is not None and found is not None:
            matrix = muse.bands[band].pixel_matrix
            rest = matrix @ fitted.shift
            offset = offset + rest if applied else rest
            variance = matrix**2 @ fitted.shift_err**2 + (variance if band == measured else 0.0)
        rows.append(
            {
                "band": band,
                "east": offset[0],
                "east_err": float(np.sqrt(variance[0])),
                "north": offset[1],
                "north_err": float(np.sqrt(variance[1])),
                "applied_east": found.offset[0] if applied and found is not None else 0.0,
                "applied_north": found.offset[1] if applied and found is not None else 0.0,
                "measured": band == measured,
                "fwhm": width(kernel),
                "fwhm_err": np.nan if fitted is None else fitted.fwhm_err,
                "beta": float(getattr(kernel, "beta", np.nan)),
                "beta_err": np.nan if fitted is None else fitted.beta_err,
                "slope": np.nan if fitted is None else fitted.slope,
                "correlation": np.nan if fitted is None else fitted.correlation,
                "agreement": np.nan if fitted is None else fitted.agreement,
                "chi_square": np.nan if fitted is None else fitted.chi_square,
            }
        )
    table = QTable(rows=rows)
    for name in (
        "east",
        "east_err",
        "north",
        "north_err",
        "applied_east",
        "applied_north",
        "fwhm",
        "fwhm_err",
    ):
        table[name].unit = "arcsec"
    table["east"].info.description = "where the content of HST lies east of that of MUSE"
    table["applied_east"].info.description = "the shift that was taken off all bands alike"
    table["measured"].info.description = "whether the common shift was measured in this band"
    table["fwhm"].info.description = "of the kernel that makes HST look like MUSE"
    table["correlation"].info.description = "of matched HST with MUSE"
    return table
