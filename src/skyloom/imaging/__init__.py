"""Operations on images: pure, carrying variance, correlation, mask, PSF and history from `Image` to `Image`."""

# Imported at once, not when first used: four functions (convolve, line_flux, register, reproject) share the name of
# their module, and only an import here makes the function win, whatever is imported first elsewhere.
from skyloom.imaging.anchor import Anchor, anchor_by_difference, anchor_by_ratio, apply_anchor, fit_anchor
from skyloom.imaging.background import Background, measure_background, subtract_background
from skyloom.imaging.continuum import ContinuumSubtraction, subtract_continuum
from skyloom.imaging.convolve import convolve, match_psf
from skyloom.imaging.cosmic_rays import CosmicRays, remove_cosmic_rays
from skyloom.imaging.fibre import fibre_flux, measure_seeing
from skyloom.imaging.line_anchor import LineAnchor, apply_line_anchor, fit_line_anchor
from skyloom.imaging.line_flux import line_flux
from skyloom.imaging.line_model import LineModel, checkerboard, fit_line_model
from skyloom.imaging.lost_flux import estimate_lost_flux
from skyloom.imaging.masks import ObjectMask, apply_object_mask, mask_from_labels
from skyloom.imaging.matching import MatchingKernel, matching_kernel
from skyloom.imaging.negatives import repair_negatives
from skyloom.imaging.photometry import FLUX_DENSITY, LINE_BRIGHTNESS, convert_unit
from skyloom.imaging.psf import PsfMeasurement, measure_psf
from skyloom.imaging.psf_fit import KernelFit, align, fit_kernel, match_to
from skyloom.imaging.ratio_maps import smooth_ratio
from skyloom.imaging.regions import sum_regions
from skyloom.imaging.register import Registration, register, shift_wcs
from skyloom.imaging.reproject import pixel_variance, reproject
from skyloom.imaging.smooth_field import SmoothField
from skyloom.imaging.sources import detect_sources
from skyloom.imaging.stars import StarMask, apply_star_mask, mask_stars
from skyloom.imaging.white_noise import add_white_noise

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
    "line_flux",
    "mask_from_labels",
    "mask_stars",
    "match_psf",
    "match_to",
    "matching_kernel",
    "measure_background",
    "measure_psf",
    "measure_seeing",
    "pixel_variance",
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
