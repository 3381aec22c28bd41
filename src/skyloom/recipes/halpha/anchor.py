"""HST tied to MUSE: what its bands and its line must be corrected by.

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

from skyloom.core.image import Image
from skyloom.core.linelist import default_lines
from skyloom.core.provenance import step
from skyloom.errors import AssumptionWarning, InputError
from skyloom.imaging.anchoring.anchor import Anchor, apply_anchor, fit_anchor
from skyloom.imaging.anchoring.line_anchor import LineAnchor, fit_line_anchor
from skyloom.imaging.anchoring.ratio_maps import smooth_ratio
from skyloom.imaging.grids.reproject import reproject
from skyloom.imaging.measure.units import LINE_BRIGHTNESS
from skyloom.imaging.narrow_band.continuum import ContinuumSubtraction, subtract_continuum
from skyloom.imaging.narrow_band.line_flux import line_flux
from skyloom.recipes.halpha.alignment import Alignment
from skyloom.recipes.halpha.cleaning import Hst
from skyloom.recipes.halpha.inputs import Source
from skyloom.recipes.halpha.muse import MuseSide
from skyloom.recipes.halpha.products import scaled

__all__ = [
    "Anchors",
    "anchor_bands",
    "anchored",
    "line_ratios",
    "subtract",
    "to_halpha",
]

Mask = NDArray[np.bool_]
CONTAMINATION = ("NII6583", "Hbeta", "OIII5007")
"""Lines besides Halpha that broad bands between 4500 and 9000 A see; their partners follow."""


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
