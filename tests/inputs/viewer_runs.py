"""A run of the recipe ifs as the viewer meets it, made of its writers alone: four bins of a tiny cube."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

import skyloom as sl
from skyloom.core.cube import Cube, CubeCorrelation
from skyloom.core.labels import LabelMap
from skyloom.core.line_fit import LineFit
from skyloom.core.line_maps import LineMaps
from skyloom.core.linelist import default_lines
from skyloom.core.spectra import Spectra
from skyloom.io.products.line_maps import write_fitted_spectra, write_line_maps, write_line_table
from skyloom.spectral.bins.extract import extract_spectra
from skyloom.spectral.gas.maps import line_maps
from skyloom.spectral.lines.linefit import fit_lines
from tests.grids import tangent_wcs

Z = 0.01
UNIT = "1e-20 erg / (s cm2 Angstrom)"
KERNEL = np.array([[0.02, 0.15, 0.02], [0.15, 1.0, 0.15], [0.02, 0.15, 0.02]])
SPECTRAL = np.array([0.2, 1.0, 0.2])
BLOCK = 3  # Maps of fewer than nine spaxels across are no images to the viewer.
LABELS = np.kron(
    [[0, 0, 1, 1], [0, 2, 2, 1], [3, 2, -1, 1], [3, 3, 3, -1]], np.ones((BLOCK, BLOCK), np.int32)
)
"""Four bins, made of blocks, and two blocks in none."""
SHAPE = LABELS.shape


class TinyRun(NamedTuple):
    """A folder with what a run leaves of an object named "it", and what it was written from."""

    folder: Path
    spectra: Spectra
    fit: LineFit
    maps: LineMaps


def tiny_cube() -> Cube:
    """Lines on a flat continuum that is brighter to the right, with noise that neighbours share."""
    rng = np.random.default_rng(5)
    wave = np.arange(6560.0, 6720.0, 1.25)
    level = 100.0 + 10.0 * (np.arange(SHAPE[1]) // BLOCK)
    data = np.zeros((wave.size, *SHAPE)) + level
    for key, peak in (("NII6548", 60.0), ("Halpha", 600.0), ("NII6583", 180.0)):
        centre = default_lines()[key].rest("air") * (1 + Z)
        data += peak * np.exp(-0.5 * ((wave - centre) / 1.8) ** 2)[:, None, None]
    variance = np.full(data.shape, 25.0) * (1.0 + 0.1 * np.arange(wave.size) / wave.size)[:, None, None]
    data = data + rng.normal(0.0, np.sqrt(variance))
    mask = np.zeros(data.shape, bool)
    mask[3:6, 0, 0] = True  # one spaxel of bin 0, some channels
    mask[20] = True
    return Cube(
        data, variance, mask, UNIT, tangent_wcs(SHAPE, 0.2), wave, "air", lsf=1.1,
        correlation=CubeCorrelation(KERNEL, SPECTRAL), meta={"redshift": Z},
    )  # fmt: skip


def write_tiny_run(cube: Cube, folder: Path) -> TinyRun:
    """The folder that a run leaves of this cube, as far as the viewer looks into it."""
    labels = LabelMap(LABELS, wcs=cube.wcs)
    spectra = extract_spectra(cube, labels)
    spectra = spectra.evolve(meta={**spectra.meta, "sky_residuals": [[6600.0, 6604.0], [7000.0, 7100.0]]})
    fit = fit_lines(spectra, ["NII6548", "Halpha", "NII6583"], Z, threads=1)
    maps = line_maps(fit, labels, per="bin", correlation=KERNEL)
    sl.write(labels, folder / "it_bins.fits")
    sl.write(cube, folder / "it_nebular.fits")
    write_fitted_spectra(folder / "it_fits.fits", spectra, None, fit)
    write_line_table(fit.table, folder / "it_lines.fits")
    write_line_maps(maps, folder / "it_line_maps.fits")
    return TinyRun(folder, spectra, fit, maps)
