"""Every figure of Skyloom; the only package that imports matplotlib.

Functions take plain data or core types and return the bytes of a PNG. Figures are drawn on the Agg canvas without
pyplot, so nothing is shared between calls and worker processes need no display.
"""

from __future__ import annotations

from skyloom.report.figures.errors import frame_error_steps, spectrum_error_levels
from skyloom.report.figures.ifs import bin_maps, bin_spectra, cube_noise, line_maps, velocity_map
from skyloom.report.figures.line_fits import fit_gallery
from skyloom.report.figures.line_model import line_model_panels
from skyloom.report.figures.lines import bpt_diagram, ew_class_maps, fitted_line_maps, quantity_maps
from skyloom.report.figures.noise import correlation_maps
from skyloom.report.figures.psf import GrowthCurve, growth_curves
from skyloom.report.figures.sheet import BandRow, contact_sheet
from skyloom.report.figures.sky import SkyHistogram, sky_histograms

__all__ = [
    "BandRow",
    "GrowthCurve",
    "SkyHistogram",
    "bin_maps",
    "bin_spectra",
    "bpt_diagram",
    "contact_sheet",
    "correlation_maps",
    "cube_noise",
    "ew_class_maps",
    "fit_gallery",
    "fitted_line_maps",
    "frame_error_steps",
    "growth_curves",
    "line_maps",
    "line_model_panels",
    "quantity_maps",
    "sky_histograms",
    "spectrum_error_levels",
    "velocity_map",
]
