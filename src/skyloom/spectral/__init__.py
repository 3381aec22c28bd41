"""From cubes and spectra to rest frame, signal-to-noise maps, bins, spectra and lines; every function is pure."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Imported at once, not when first used: the function shares the name of its module, and only an import here makes the
# function win, whatever is imported first elsewhere.
from skyloom.spectral.axes.resample import resample

if TYPE_CHECKING:
    from skyloom.spectral.axes.extinction import deredden, extinction_curve
    from skyloom.spectral.axes.prepare import prepare_cube
    from skyloom.spectral.axes.rest_frame import to_rest_frame
    from skyloom.spectral.axes.slabs import merge_slabs
    from skyloom.spectral.bands.photometry import synthetic_magnitudes
    from skyloom.spectral.bands.synthetic import synthetic_image, synthetic_images
    from skyloom.spectral.bands.transmission import merged_transmission, transmission_weighted
    from skyloom.spectral.bins.binning import bin_to_snr
    from skyloom.spectral.bins.contents import measure_bins, paint
    from skyloom.spectral.bins.extract import extract_spectra
    from skyloom.spectral.bins.radius import bin_by_radius, elliptical_radius
    from skyloom.spectral.bins.regions import Regions, find_regions
    from skyloom.spectral.gas.bpt import bpt_classes
    from skyloom.spectral.gas.density import electron_density
    from skyloom.spectral.gas.derived import balmer_extinction, deredden_lines, ew_classes, line_ratio
    from skyloom.spectral.gas.maps import line_maps, sum_bins
    from skyloom.spectral.gas.nebular import nebular_cube, nebular_spectra
    from skyloom.spectral.lines.linefit import fit_lines
    from skyloom.spectral.noise.measure import (
        CubeNoise,
        apply_cube_noise,
        combine_cube_noise,
        measure_cube_noise,
    )
    from skyloom.spectral.noise.sky_residuals import SKY_RESIDUALS, sky_residual_mask
    from skyloom.spectral.signal.snr import (
        LineSNR,
        channels_needed,
        continuum_snr,
        first_velocity_map,
        line_snr,
        spectra_line_snr,
    )
    from skyloom.spectral.stellar.fit import fit_continuum

_HOMES = {
    "CubeNoise": "noise.measure",
    "LineSNR": "signal.snr",
    "Regions": "bins.regions",
    "SKY_RESIDUALS": "noise.sky_residuals",
    "apply_cube_noise": "noise.measure",
    "balmer_extinction": "gas.derived",
    "bin_by_radius": "bins.radius",
    "bin_to_snr": "bins.binning",
    "bpt_classes": "gas.bpt",
    "channels_needed": "signal.snr",
    "combine_cube_noise": "noise.measure",
    "continuum_snr": "signal.snr",
    "deredden": "axes.extinction",
    "deredden_lines": "gas.derived",
    "electron_density": "gas.density",
    "elliptical_radius": "bins.radius",
    "ew_classes": "gas.derived",
    "extinction_curve": "axes.extinction",
    "extract_spectra": "bins.extract",
    "find_regions": "bins.regions",
    "first_velocity_map": "signal.snr",
    "fit_continuum": "stellar.fit",
    "fit_lines": "lines.linefit",
    "line_maps": "gas.maps",
    "line_ratio": "gas.derived",
    "line_snr": "signal.snr",
    "measure_bins": "bins.contents",
    "measure_cube_noise": "noise.measure",
    "merge_slabs": "axes.slabs",
    "merged_transmission": "bands.transmission",
    "nebular_cube": "gas.nebular",
    "nebular_spectra": "gas.nebular",
    "paint": "bins.contents",
    "prepare_cube": "axes.prepare",
    "sky_residual_mask": "noise.sky_residuals",
    "spectra_line_snr": "signal.snr",
    "sum_bins": "gas.maps",
    "synthetic_image": "bands.synthetic",
    "synthetic_images": "bands.synthetic",
    "synthetic_magnitudes": "bands.photometry",
    "to_rest_frame": "axes.rest_frame",
    "transmission_weighted": "bands.transmission",
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
