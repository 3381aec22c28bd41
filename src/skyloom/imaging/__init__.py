"""Operations on images: pure, carrying variance, correlation, mask, PSF and history from `Image` to `Image`."""

# Imported at once, not when first used: four functions (convolve, line_flux, register, reproject) share the name of
# their module, and only an import here makes the function win, whatever is imported first elsewhere.
from skyloom.imaging.anchoring.anchor import (
    Anchor,
    anchor_by_difference,
    anchor_by_ratio,
    apply_anchor,
    fit_anchor,
)
from skyloom.imaging.anchoring.line_anchor import LineAnchor, apply_line_anchor, fit_line_anchor
from skyloom.imaging.anchoring.ratio_maps import smooth_ratio
from skyloom.imaging.anchoring.smooth_field import SmoothField
from skyloom.imaging.grids.register import Registration, register, shift_wcs
from skyloom.imaging.grids.reproject import pixel_variance, reproject
from skyloom.imaging.line_models.line_model import LineModel, checkerboard, fit_line_model
from skyloom.imaging.measure.drawn import label_regions, region_mask
from skyloom.imaging.measure.fibre import fibre_flux, measure_seeing
from skyloom.imaging.measure.masks import ObjectMask, apply_object_mask, mask_from_labels
from skyloom.imaging.measure.outlines import aperture_regions, outline_regions
from skyloom.imaging.measure.regions import sum_regions
from skyloom.imaging.measure.units import FLUX_DENSITY, LINE_BRIGHTNESS, convert_unit
from skyloom.imaging.narrow_band.continuum import ContinuumSubtraction, subtract_continuum
from skyloom.imaging.narrow_band.line_flux import line_flux
from skyloom.imaging.psfs.convolve import convolve, match_psf
from skyloom.imaging.psfs.lost_flux import estimate_lost_flux
from skyloom.imaging.psfs.matching import MatchingKernel, matching_kernel
from skyloom.imaging.psfs.psf import PsfMeasurement, measure_psf
from skyloom.imaging.psfs.psf_fit import KernelFit, align, fit_kernel, match_to
from skyloom.imaging.repair.cosmic_rays import CosmicRays, remove_cosmic_rays
from skyloom.imaging.repair.negatives import repair_negatives
from skyloom.imaging.repair.white_noise import add_white_noise
from skyloom.imaging.sky.background import Background, measure_background, subtract_background
from skyloom.imaging.sky.sources import detect_sources
from skyloom.imaging.stars.masks import StarMask, apply_star_mask, mask_stars

__all__ = [
    "FLUX_DENSITY",
    "LINE_BRIGHTNESS",
    "Anchor",
    "Background",
    "ContinuumSubtraction",
    "CosmicRays",
    "KernelFit",
    "LineAnchor",
    "LineModel",
    "MatchingKernel",
    "ObjectMask",
    "PsfMeasurement",
    "Registration",
    "SmoothField",
    "StarMask",
    "add_white_noise",
    "align",
    "anchor_by_difference",
    "anchor_by_ratio",
    "aperture_regions",
    "apply_anchor",
    "apply_line_anchor",
    "apply_object_mask",
    "apply_star_mask",
    "checkerboard",
    "convert_unit",
    "convolve",
    "detect_sources",
    "estimate_lost_flux",
    "fibre_flux",
    "fit_anchor",
    "fit_kernel",
    "fit_line_anchor",
    "fit_line_model",
    "label_regions",
    "line_flux",
    "mask_from_labels",
    "mask_stars",
    "match_psf",
    "match_to",
    "matching_kernel",
    "measure_background",
    "measure_psf",
    "measure_seeing",
    "outline_regions",
    "pixel_variance",
    "region_mask",
    "register",
    "remove_cosmic_rays",
    "repair_negatives",
    "reproject",
    "shift_wcs",
    "smooth_ratio",
    "subtract_background",
    "subtract_continuum",
    "sum_regions",
]
