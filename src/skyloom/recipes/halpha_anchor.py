"""HST tied to MUSE: where it lies, how much sharper it is, and what its bands and its line must be corrected by.

All of this is done on the grid of MUSE, with the images of HST brought to its PSF, and costs little there.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

import astropy.units as u
import numpy as np
from astropy.table import QTable, vstack
from numpy.typing import NDArray

from skyloom.core.geometry import celestial
from skyloom.core.image import Image
from skyloom.core.linelist import default_lines
from skyloom.core.provenance import step
from skyloom.core.psf import GaussianPSF, MoffatPSF
from skyloom.errors import AssumptionWarning, InputError
from skyloom.imaging.anchor import Anchor, apply_anchor, fit_anchor
from skyloom.imaging.continuum import ContinuumSubtraction, subtract_continuum
from skyloom.imaging.divided import Divided, divide
from skyloom.imaging.line_anchor import LineAnchor, fit_line_anchor
from skyloom.imaging.line_flux import line_flux
from skyloom.imaging.lost_light import add_lost_light, find_lost_light
from skyloom.imaging.photometry import LINE_BRIGHTNESS
from skyloom.imaging.psf_fit import KernelFit, align, fit_kernel, match_to
from skyloom.imaging.ratio_maps import smooth_ratio
from skyloom.imaging.register import Registration, shift_wcs
from skyloom.imaging.reproject import reproject
from skyloom.recipes.halpha_cleaning import Hst, binned
from skyloom.recipes.halpha_inputs import Source
from skyloom.recipes.halpha_muse import MuseSide
from skyloom.recipes.halpha_products import scaled

__all__ = [
    "Alignment",
    "Anchors",
    "align_bands",
    "anchor_bands",
    "anchored",
    "line_ratios",
    "subtract",
    "to_halpha",
]

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
CONTAMINATION = ("NII6583", "Hbeta", "OIII5007")
"""Lines besides Halpha that broad bands between 4500 and 9000 A see; their partners follow."""


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


@dataclass(frozen=True, slots=True)
class Anchors:
    """What was fitted of HST against MUSE.

    Attributes
    ----------
    bands : dict
        Band -> offset and slope; empty when bands are not anchored.
    line : LineAnchor or None
    nii : Image or float
        [NII]6583 over Halpha: a map on the grid of MUSE, or a number.
    ratios : dict
        Line -> flux over Halpha in the whole field.
    reasons : dict
        What was not anchored -> why.
    """

    bands: dict[str, Anchor]
    line: LineAnchor | None
    nii: Image | float
    ratios: dict[str, float]
    reasons: dict[str, str]

    def tables(self) -> dict[str, QTable]:
        """Return the fits as tables."""
        tables = {"bandfit": band_table(self)} if self.bands else {}
        return tables if self.line is None else {**tables, "linefit": line_table(self)}


# --- alignment ------------------------------------------------------------------------------------------------------


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


# --- line and continuum ---------------------------------------------------------------------------------------------


def subtract(
    source: Source, images: Mapping[str, Image], ratios: Mapping[str, float]
) -> ContinuumSubtraction:
    """Take the continuum, as the broad bands have it, off the narrow band; lines inside them are accounted for.

    Parameters
    ----------
    source : Source
    images : mapping of band to Image
    ratios : mapping of line to float
        Relative to Halpha, from `line_ratios`.
    """
    settings = source.config.continuum
    return subtract_continuum(
        images[source.narrow],
        [images[band] for band in source.continua],
        source.curves[source.narrow],
        [source.curves[band] for band in source.continua],
        interpolation=settings.interpolation,
        redshift=None if settings.contamination == "none" else source.redshift,
        line_ratios=None if settings.contamination == "none" else ratios,
        a_v=source.settings.a_v or None,
        outside="extrapolate" if settings.extrapolate else "refuse",
    )


def line_ratios(source: Source, muse: MuseSide | None) -> dict[str, float]:
    """Return fluxes of lines relative to Halpha: of the whole field where MUSE tells, else of the configuration."""
    settings = source.config.continuum
    wanted = CONTAMINATION if settings.contamination in ("auto", "none") else settings.contamination
    ratios = {key: value for key, value in {"NII6583": settings.nii_ratio}.items() if key in wanted}
    if not isinstance(source.config.anchor.nii, str) and "NII6583" in wanted:
        ratios["NII6583"] = source.config.anchor.nii
    if muse is None:
        return ratios
    total = _light(muse.lines["Halpha"])
    for key in wanted:
        if key in muse.lines and total > 0 and (key != "NII6583" or source.config.anchor.nii == "muse"):
            ratios[key] = max(_light(muse.lines[key]) / total, 0.0)
    return ratios


def _light(image: Image) -> float:
    """Return the sum of the usable pixels."""
    return float(np.sum(image.data[image.valid], dtype=np.float64))


def line_sum(source: Source, muse: MuseSide) -> Image:
    """Return the mean flux density that the lines of MUSE make in the narrow band of HST: the sum of F / W."""
    lines = default_lines()
    share = {key: 1.0 / source.line_width(key) for key in ("Halpha", "NII6583", "NII6548")}
    partner = lines["NII6548"].tied
    terms = {"Halpha": share["Halpha"]}
    if "NII6583" in muse.lines:
        # What is tied by atomic physics is one measurement: a weak line of its own would only add noise.
        terms["NII6583"] = share["NII6583"] + (0.0 if partner is None else partner[1]) * share["NII6548"]
    images = [
        scaled(muse.lines[key], value, muse.lines[key].unit / u.AA, "line_share")
        for key, value in terms.items()
    ]
    total = images[0]
    for image in images[1:]:
        mask = total.mask | image.mask
        total = total.evolve(
            step("add_line", line=str(image.meta.get("line", ""))),
            data=np.where(mask, 0.0, total.data + image.data),
            variance=np.where(mask, 1.0, total.variance + image.variance),
            mask=mask,
            modes=(*total.modes, *image.modes),
        )
    return total


def nii_ratio(source: Source, muse: MuseSide) -> Image | float:
    """Return [NII]6583 over Halpha: smoothed from the maps of MUSE, or a number where these do not tell."""
    settings = source.config.anchor
    if settings.nii != "muse":
        return float(settings.nii)
    if "NII6583" not in muse.lines:
        return source.config.continuum.nii_ratio
    try:
        return smooth_ratio(muse.lines["NII6583"], muse.lines["Halpha"])
    except InputError as error:
        ratio = source.config.continuum.nii_ratio
        warnings.warn(f"[NII]/Halpha is taken as {ratio:g}: {error}", AssumptionWarning, stacklevel=2)
        return ratio


def on_grid(ratio: Image | float, target: Image) -> Image | float:
    """Bring a smooth map to another grid; beyond its border its median, with its scatter as the error, is taken."""
    if not isinstance(ratio, Image):
        return ratio
    # A ratio is no flux that pixels share out: like a brightness it stays what it is in smaller pixels.
    bright = ratio.evolve(unit=u.arcsec**-2)
    moved = reproject(bright, target, "bilinear").evolve(unit=ratio.unit)
    if not moved.mask.any():
        return moved
    middle = float(np.median(ratio.data))
    spread = float(np.var(ratio.data)) + float(np.median(ratio.variance))
    return moved.evolve(
        step("fill_outside", value=middle, error=spread**0.5, pixels=int(np.count_nonzero(moved.mask))),
        data=np.where(moved.mask, middle, moved.data).astype(ratio.data.dtype),
        variance=np.where(moved.mask, spread, moved.variance).astype(ratio.variance.dtype),
        mask=np.zeros(moved.shape, dtype=bool),
    )


def to_halpha(source: Source, excess: Image, nii: Image | float) -> Image:
    """Turn an excess into the flux of Halpha, without [NII]."""
    flux = line_flux(excess, source.curves[source.narrow], source.redshift, on_grid(nii, excess))
    return flux.evolve(meta={**flux.meta, "band": "Halpha"}, unit=LINE_BRIGHTNESS)


def held(anchor: Anchor) -> Anchor:
    """Return an anchor whose errors are counted elsewhere: the fit of the line knows what they did to the excess."""
    return replace(anchor, slope_err=0.0, offset_err=0.0, covariance=np.zeros((2, 2)))


def anchored(anchors: Anchors, images: Mapping[str, Image]) -> dict[str, Image]:
    """Bring bands to the scale and the sky of MUSE, as far as this was fitted."""
    return {
        band: apply_anchor(image, held(anchors.bands[band])) if band in anchors.bands else image
        for band, image in images.items()
    }


# --- fits -----------------------------------------------------------------------------------------------------------


def anchor_bands(source: Source, hst: Hst, aligned: Alignment | None, muse: MuseSide | None) -> Anchors:
    """Fit what ties HST to MUSE: each band, then what is left of the narrow band against the lines.

    Raises
    ------
    InputError
        When a band, or the line, does not show the same sky as MUSE.
    """
    settings = source.config.anchor
    if muse is None or aligned is None:
        return Anchors(
            {}, None, line_ratios(source, None).get("NII6583", 0.0), {}, {"all": "there is no MUSE data"}
        )
    stars = hst.stars_on(muse.lines["Halpha"])
    anchors = Anchors({}, None, nii_ratio(source, muse), line_ratios(source, muse), {})
    if settings.method == "none":
        anchors.reasons["all"] = "anchor.method is none"
        return anchors
    for band, image in aligned.matched.items() if settings.bands else ():
        try:
            anchors.bands[band] = fit_anchor(image, muse.bands[band], method=settings.band_method, mask=stars)
        except InputError as error:
            raise error.located(f"{source.name} {band}: HST against MUSE") from None
    if not settings.bands:
        anchors.reasons["bands"] = "anchor.bands is false"
    if not settings.line:
        anchors.reasons["line"] = "anchor.line is false"
        return anchors
    parts = subtract(source, anchored(anchors, aligned.common), anchors.ratios)
    field = "none" if settings.absorption == "none" else settings.absorption
    try:
        line = fit_line_anchor(parts.excess, parts.continuum, line_sum(source, muse), mask=stars, field=field)
    except InputError as error:
        raise error.located(f"{source.name}: Halpha of HST against MUSE") from None
    return replace(anchors, line=line)


def band_table(anchors: Anchors) -> QTable:
    """One row per band that was anchored."""
    rows = []
    for band, anchor in anchors.bands.items():
        row = anchor.table
        row.add_column([band], name="band", index=0)
        middle = np.median(u.Quantity(anchor.points["image"]).value) if len(anchor.points) else np.nan
        light = float(middle) - anchor.offset
        row["offset_share"] = [anchor.offset / light if light else np.nan]
        row["applied"] = [True]
        rows.append(row)
    table = vstack(rows)
    table["offset_share"].info.description = "offset over the median light of the band"
    return table


def line_table(anchors: Anchors) -> QTable:
    """One row per parameter of the line anchor."""
    assert anchors.line is not None
    table = anchors.line.table
    table.remove_column("covariance")
    table.meta = {
        "slope_is": str(anchors.line.meta.get("slope", "")),
        "field": str(anchors.line.meta.get("field", "")),
        "chi_square": anchors.line.chi_square,
        "correlation": anchors.line.correlation,
        "intrinsic_scatter": anchors.line.intrinsic_scatter,
        "n_pixels": anchors.line.n_pixels,
        "n_rejected": anchors.line.n_rejected,
    }
    return table
