"""The images of a ``halpha`` run, made one after the other and written as they are made: large ones are many GB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.table import QTable
from astropy.wcs import WCS

from skyloom.core.image import Image, Mode
from skyloom.core.provenance import step
from skyloom.core.threads import blocks, run_blocks
from skyloom.imaging.anchoring.anchor import anchor_by_difference, anchor_by_ratio
from skyloom.imaging.anchoring.line_anchor import apply_line_anchor
from skyloom.imaging.grids.register import shift_wcs
from skyloom.imaging.grids.reproject import reproject
from skyloom.imaging.measure.units import convert_unit
from skyloom.imaging.repair.negatives import repair_negatives
from skyloom.imaging.repair.white_noise import add_white_noise
from skyloom.imaging.sky.background import measure_background, subtract_background
from skyloom.imaging.sky.constant import Background
from skyloom.recipes.halpha.alignment import Alignment
from skyloom.recipes.halpha.anchor import Anchors, anchored, subtract, to_halpha
from skyloom.recipes.halpha.cleaning import Hst, binned
from skyloom.recipes.halpha.inputs import Source
from skyloom.recipes.halpha.muse import MuseSide
from skyloom.recipes.halpha.products import (
    STRIPE,
    Writer,
    deviation,
    luminosity,
    per_pixel,
    scaled,
    star_formation,
)

__all__ = ["Images", "make_images"]

Grid = tuple[WCS, tuple[int, int]]
SKY_PIXEL = 8
"""Side in pixels of the blocks over which the sky is looked for where there is no MUSE: faint wings show in them."""
SIGNIFICANT = 3.0
"""Least S/N of smoothed HST where it is divided by."""
MODE_PIXELS, FEWEST_MODES = 256_000_000, 4
"""Pixels of all maps of shared errors together (1 GB), but never fewer maps than this."""


@dataclass(frozen=True, slots=True)
class Images:
    """The images that were written: their figures and their files."""

    table: QTable
    paths: Sequence[Path]


def make_images(
    source: Source, hst: Hst, muse: MuseSide | None, aligned: Alignment | None, anchors: Anchors
) -> Images:
    """Make and write all images of an object: first by the headers of HST alone, then tied to MUSE."""
    with Writer(source) as writer:
        final = tied_or_not(source, writer, hst, muse, aligned, anchors)
        source.tick("images", 2, 3)
        write_final(source, writer, final)
        return Images(writer.table(), writer.paths)


def tied_or_not(
    source: Source,
    writer: Writer,
    hst: Hst,
    muse: MuseSide | None,
    aligned: Alignment | None,
    anchors: Anchors,
) -> Image:
    """Write the images on the way; return the last one. Nothing else of their size is left when it returns."""
    bands = {band: placed(hst.release(band), aligned) for band in source.config.bands}
    halpha = headers_only(source, writer, bands, aligned, anchors, hst)
    if muse is None or aligned is None:
        return halpha
    assert halpha.wcs is not None
    grid = halpha.wcs, halpha.shape
    if source.config.anchor.method == "fit":
        del halpha
        compare_with_muse(source, writer, muse, aligned, anchors, grid)
        tied = fitted(source, bands, anchors)
    else:
        bands.clear()
        compared = compare_with_muse(source, writer, muse, aligned, anchors, grid)
        if source.config.anchor.method == "none":
            return halpha
        tied = tied_by_pixel(source, (halpha, *compared))
        del halpha, compared
    return without_stars_and_written(source, writer, tied, anchors, hst)


def placed(image: Image, aligned: Alignment | None) -> Image:
    """Shift an image onto MUSE, where that was asked for."""
    if aligned is None or aligned.registration is None:
        return image
    return shift_wcs(image, aligned.registration)


def headers_only(
    source: Source,
    writer: Writer,
    bands: dict[str, Image],
    aligned: Alignment | None,
    anchors: Anchors,
    hst: Hst,
) -> Image:
    """Write narrow band less continuum as the headers calibrate it, and the line that comes of it; return the line."""
    unit = hst.unit
    parts = subtract(source, bands, anchors.ratios)
    dust = parts.extinction[0]
    for kind, image in (("cont_raw", parts.continuum), ("halpha_raw", parts.excess)):
        seen = image if dust == 1.0 else scaled(image, 1.0 / dust, image.unit, "redden")
        writer.write(kind, convert_unit(seen, unit))
        del seen
    excess = parts.excess
    del parts, image
    source.tick("images", 1, 3)
    excess = less_sky(source, excess, aligned, anchors)
    reason = anchors.reasons.get("all", "not yet: see _anchored")
    halpha = without_stars(to_halpha(source, excess, anchors.nii), hst)
    halpha = halpha.evolve(step("halpha", anchored=False, reason=reason))
    writer.write("halpha", halpha)
    return halpha


def less_sky(source: Source, excess: Image, aligned: Alignment | None, anchors: Anchors) -> Image:
    """Take the sky off that HST has left; it is looked for in large pixels, in which faint light shows."""
    method = source.config.background.method
    if method == "none":
        return excess
    if method == "mesh":
        return subtract_background(excess, method="mesh", mesh_arcsec=source.config.background.mesh_arcsec)
    if aligned is not None:
        coarse = subtract(source, aligned.common, anchors.ratios).excess
    else:
        coarse = binned(excess, max(1, min(SKY_PIXEL, min(excess.shape) // 32)))
    return subtract_level(excess, measure_background(coarse))


def subtract_level(excess: Image, sky: Background) -> Image:
    """Take a level off that was measured on another version of the image."""
    return excess.evolve(
        step("subtract_background", **sky.describe()),
        data=excess.data - excess.data.dtype.type(sky.level),
        modes=(*excess.modes, Mode("sky", 1.0, sky.error)) if sky.error > 0 else excess.modes,
    )


def without_stars(image: Image, hst: Hst) -> Image:
    """Mask the stars."""
    if hst.stars is None:
        return image
    return image.evolve(
        step("mask_stars", pixels=int(np.count_nonzero(hst.stars))), mask=image.mask | hst.stars
    )


# --- MUSE -----------------------------------------------------------------------------------------------------------


def compare_with_muse(
    source: Source, writer: Writer, muse: MuseSide, aligned: Alignment, anchors: Anchors, grid: Grid
) -> tuple[Image, Image]:
    """Write the line of MUSE and that of HST at its resolution, both on the grid of HST, their ratio and difference."""
    line = muse.lines["Halpha"]
    writer.write("musehalpha", line)
    if isinstance(anchors.nii, Image):
        writer.write("nii_ratio", anchors.nii)
    parts = subtract(source, aligned.common, anchors.ratios)
    excess = parts.excess
    if source.config.background.method != "none":
        excess = subtract_level(excess, measure_background(excess))
    smoothed = reproject(to_halpha(source, excess.evolve(modes=()), anchors.nii), grid)
    writer.write("halpha_smoothed", smoothed)
    regridded = reproject(line, grid)
    writer.write("musehalpha_regrid", regridded)
    writer.write("hstmuseratio", divided(regridded, smoothed))
    writer.write("hstmusediff", difference(regridded, smoothed))
    return smoothed, regridded


def divided(above: Image, below: Image) -> Image:
    """Return the ratio of two images, masked where the lower one is not significant; errors to first order."""
    data, variance, mask = np.zeros_like(above.data), np.ones_like(above.data), above.mask | below.mask

    def work(rows: slice) -> None:
        hidden = mask[rows]
        noise = np.sqrt(np.where(hidden, 1.0, below.variance[rows]))
        hidden |= ~(below.data[rows] > SIGNIFICANT * noise)
        lower = np.where(hidden, 1.0, below.data[rows])
        ratio = np.where(hidden, 0.0, above.data[rows] / lower)
        data[rows] = ratio
        errors = (above.variance[rows] + ratio**2 * below.variance[rows]) / lower**2
        variance[rows] = np.where(hidden, 1.0, errors)

    run_blocks(work, blocks(mask.shape[0], max(1, STRIPE // mask.shape[1])))
    return above.evolve(
        step("ratio", of="MUSE over smoothed HST", least_significance=SIGNIFICANT),
        data=data,
        variance=variance,
        mask=mask,
        unit=u.dimensionless_unscaled,
        flags=None,
        modes=(),
    )


def difference(first: Image, second: Image) -> Image:
    """Return the difference of two images of one unit."""
    mask = first.mask | second.mask
    data, variance = first.data - second.data, first.variance + second.variance
    data[mask], variance[mask] = 0.0, 1.0
    return first.evolve(
        step("difference", of="MUSE less smoothed HST"),
        data=data,
        variance=variance.astype(data.dtype, copy=False),
        mask=mask,
        flags=None,
        modes=(),
    )


def tied_by_pixel(source: Source, images: tuple[Image, Image, Image]) -> Image:
    """Return Halpha tied to MUSE pixel by pixel: by the ratio or the difference of both at the resolution of MUSE."""
    if source.config.anchor.method == "ratio":
        return anchor_by_ratio(*images)
    return anchor_by_difference(*images)


def without_stars_and_written(
    source: Source, writer: Writer, tied: Image, anchors: Anchors, hst: Hst
) -> Image:
    """Mask the stars of the anchored image, say how it was tied, write it and return it."""
    method = source.config.anchor.method
    applied = [*anchors.bands, *(["line"] if anchors.line is not None else [])] if method == "fit" else []
    result = without_stars(tied, hst).evolve(
        step("halpha", anchored=True, method=method, applied=applied, not_applied=anchors.reasons)
    )
    writer.write("anchored", result)
    return result


def fitted(source: Source, bands: dict[str, Image], anchors: Anchors) -> Image:
    """Apply what was fitted to bands and line."""
    for band in list(bands):
        # One at a time: a large image is half a GB.
        bands |= anchored(anchors, {band: bands[band].evolve(modes=())})
    parts = subtract(source, bands, anchors.ratios)
    bands.clear()
    excess = parts.excess
    if anchors.line is not None:
        excess = apply_line_anchor(
            excess, parts.continuum, anchors.line, max_modes=most_modes(source, excess.data.size)
        )
    del parts
    return to_halpha(source, excess, anchors.nii)


def most_modes(source: Source, pixels: int) -> int:
    """Return how many maps of shared errors are kept: as configured, fewer on images so large that they fill the disk.

    Those that are kept stand for the others, whose share the history tells.
    """
    return min(source.config.anchor.max_modes, max(FEWEST_MODES, MODE_PIXELS // pixels))


# --- what comes last ------------------------------------------------------------------------------------------------


def write_final(source: Source, writer: Writer, final: Image) -> None:
    """Write what is made of the last image: without negatives, with noise, per pixel, errors, physical units."""
    config = source.config
    tied = writer.has("anchored")
    if tied:
        settings = config.negatives
        positive = repair_negatives(
            final, thresholds=settings.thresholds, kernel_arcsec=settings.kernel_arcsec
        )
        writer.write("anchored_intnegs", positive)
        if config.white_noise is not None:
            noise = config.white_noise
            writer.write("anchored_intnegs_wnoise", add_white_noise(positive, noise.sigma, seed=noise.seed))
            del positive
            writer.write("anchored_wnoise", add_white_noise(final, noise.sigma, seed=noise.seed))
        else:
            del positive
    writer.write("hst_ha_as2", final)
    distance = source.settings.distance_mpc
    if distance is not None:
        writer.write("sfr", star_formation(final, distance))
    pixels = per_pixel(final)
    del final
    writer.write("hst_ha", pixels)
    writer.write("hst_ha_err", deviation(pixels))
    if distance is not None:
        writer.write("luminosity", luminosity(pixels, distance))
