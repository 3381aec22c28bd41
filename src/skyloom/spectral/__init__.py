"""From cubes and spectra to rest frame, signal-to-noise maps, bins, spectra and lines; every function is pure."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Imported at once, not when first used: the function shares the name of its module, and only an import here makes the
# function win, whatever is imported first elsewhere.
from skyloom.spectral.resample import resample

if TYPE_CHECKING:
    from skyloom.spectral.binning import bin_to_snr
    from skyloom.spectral.bins import measure_bins, paint
    from skyloom.spectral.bpt import bpt_classes
    from skyloom.spectral.density import electron_density
    from skyloom.spectral.derived import balmer_extinction, deredden_lines, ew_classes, line_ratio
    from skyloom.spectral.extinction import deredden, extinction_curve
    from skyloom.spectral.extract import extract_spectra
    from skyloom.spectral.linefit import fit_lines
    from skyloom.spectral.maps import line_maps, sum_bins
    from skyloom.spectral.nebular import nebular_cube, nebular_spectra
    from skyloom.spectral.noise import CubeNoise, apply_cube_noise, combine_cube_noise, measure_cube_noise
    from skyloom.spectral.photometry import synthetic_magnitudes
    from skyloom.spectral.prepare import prepare_cube
    from skyloom.spectral.radius import bin_by_radius, elliptical_radius
    from skyloom.spectral.regions import Regions, find_regions
    from skyloom.spectral.rest_frame import to_rest_frame
    from skyloom.spectral.sky_residuals import SKY_RESIDUALS, sky_residual_mask
    from skyloom.spectral.slabs import merge_slabs
    from skyloom.spectral.snr import (
        LineSNR,
        channels_needed,
        continuum_snr,
        first_velocity_map,
        line_snr,
        spectra_line_snr,
    )
    from skyloom.spectral.stellar import fit_continuum
    from skyloom.spectral.synthetic import synthetic_image, synthetic_images
    from skyloom.spectral.transmission import merged_transmission, transmission_weighted

_HOMES = {
    "CubeNoise": "noise",
    "LineSNR": "snr",
    "Regions": "regions",
    "SKY_RESIDUALS": "sky_residuals",
    "apply_cube_noise": "noise",
    "balmer_extinction": "derived",
    "bin_by_radius": "radius",
    "bin_to_snr": "binning",
    "bpt_classes": "bpt",
    "channels_needed": "snr",
    "combine_cube_noise": "noise",
    "continuum_snr": "snr",
    "deredden": "extinction",
    "deredden_lines": "derived",
    "electron_density": "density",
    "elliptical_radius": "radius",
    "ew_classes": "derived",
    "extinction_curve": "extinction",
    "extract_spectra": "extract",
    "find_regions": "regions",
    "first_velocity_map": "snr",
    "fit_continuum": "stellar",
    "fit_lines": "linefit",
    "line_maps": "maps",
    "line_ratio": "derived",
    "line_snr": "snr",
    "measure_bins": "bins",
    "measure_cube_noise": "noise",
    "merge_slabs": "slabs",
    "merged_transmission": "transmission",
    "nebular_cube": "nebular",
    "nebular_spectra": "nebular",
    "paint": "bins",
    "prepare_cube": "prepare",
    "sky_residual_mask": "sky_residuals",
    "spectra_line_snr": "snr",
    "sum_bins": "maps",
    "synthetic_image": "synthetic",
    "synthetic_images": "synthetic",
    "synthetic_magnitudes": "photometry",
    "to_rest_frame": "rest_frame",
    "transmission_weighted": "transmission",
}

__all__ = [
    "SKY_RESIDUALS",
    "CubeNoise",
    "LineSNR",
    "Regions",
    "apply_cube_noise",
    "balmer_extinction",
    "bin_by_radius",
    "bin_to_snr",
    "bpt_classes",
    "channels_needed",
    "combine_cube_noise",
    "continuum_snr",
    "deredden",
    "deredden_lines",
    "electron_density",
    "elliptical_radius",
    "ew_classes",
    "extinction_curve",
    "extract_spectra",
    "find_regions",
    "first_velocity_map",
    "fit_continuum",
    "fit_lines",
    "line_maps",
    "line_ratio",
    "line_snr",
    "measure_bins",
    "measure_cube_noise",
    "merge_slabs",
    "merged_transmission",
    "nebular_cube",
    "nebular_spectra",
    "paint",
    "prepare_cube",
    "resample",
    "sky_residual_mask",
    "spectra_line_snr",
    "sum_bins",
    "synthetic_image",
    "synthetic_images",
    "synthetic_magnitudes",
    "to_rest_frame",
    "transmission_weighted",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"skyloom.spectral.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'skyloom.spectral' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
