"""What Skyloom makes of a cube: the part of an inspection that needs more than one extension."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skyloom.core.psf import FWHM_PER_SIGMA
from skyloom.core.units import is_per_area
from skyloom.errors import InputError, SkyloomWarning
from skyloom.io.cubes.files import CubeFile, open_cube
from skyloom.io.inspection.checks import Problem
from skyloom.io.registry import layout_function

__all__ = ["CubeSummary", "cube_lines", "summarise_cube"]

Float = NDArray[np.float64]

_SAMPLES = 24  # channels, of which the masked fraction is taken
_SAMPLE_BYTES = 2**26


@dataclass(frozen=True, slots=True)
class CubeSummary:
    """A cube as its reader sees it.

    Attributes
    ----------
    shape : (n_wave, ny, nx)
    wave : (float, float)
        First and last wavelength, in A.
    step : str
        Of the wavelengths, for people.
    medium, unit : str
    per_area : bool
        Whether the unit is a surface brightness.
    error_kind : str
        As what the errors are read.
    masked : float
        Fraction of unusable voxels, from a sample of channels.
    lsf : (float, float) or None
        Least and greatest full width at half maximum of the line-spread function, in A; NaN where it is per voxel.
    psf : str
    correlation : str
        Whether and how far the noise of neighbours is known to be correlated.
    milky_way_corrected : bool or None
        None: the headers do not say.
    redshift, ebv : float or None
    """

    shape: tuple[int, int, int]
    wave: tuple[float, float]
    step: str
    medium: str
    unit: str
    per_area: bool
    error_kind: str
    masked: float
    lsf: tuple[float, float] | None
    psf: str
    correlation: str
    milky_way_corrected: bool | None
    redshift: float | None
    ebv: float | None


def summarise_cube(path: Path, reader: str) -> tuple[CubeSummary | None, list[Problem]]:
    """Open a cube as `skyloom.read` would, and tell what it is; a few channels are read.

    Parameters
    ----------
    path : path
    reader : str
        Name of the reader.

    Returns
    -------
    summary : CubeSummary or None
        None when it cannot be opened (the problems say why), or its reader takes files whole.
    problems : list of Problem
        What reading it would warn of.
    """
    if layout_function(reader, path) is None:
        return None, []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SkyloomWarning)
        try:
            cube = open_cube(path, instrument=reader)
            masked = _masked_fraction(cube)
        except InputError as error:
            message = f"{error.message}; {error.remedy}" if error.remedy else error.message
            return None, [Problem("warning", "reading", f"as it is: {message}")]
    notes = {str(item.message).removeprefix(f"{path}: ") for item in caught}
    # Errors that contradict the scatter of the data are found by inspection itself.
    problems = [Problem("note", "reading", note) for note in sorted(notes) if "it looks like" not in note]
    if masked == 1.0:
        problems.append(Problem("error", "reading", "no voxel of the sampled channels is usable"))
    elif masked > 0.5:
        problems.append(Problem("note", "reading", f"{100 * masked:.3g} % of the voxels are masked"))
    return _summary(cube, masked), problems


def _summary(cube: CubeFile, masked: float) -> CubeSummary:
    meta = cube.meta
    return CubeSummary(
        cube.shape,
        (float(cube.wave[0]), float(cube.wave[-1])),
        _step_text(cube.wave),
        cube.medium,
        cube.unit.to_string(),
        is_per_area(cube.unit),
        cube.layout.error_kind.replace("_", " "),
        masked,
        _widths(cube),
        "" if cube.psf is None else f"{cube.psf.describe()['type']} of FWHM {cube.psf.fwhm:.3g} arcsec",
        _correlation_text(cube),
        meta.get("milky_way_corrected"),
        meta.get("redshift"),
        meta.get("ebv"),
    )


def _masked_fraction(cube: CubeFile) -> float:
    n_wave, ny, nx = cube.shape
    count = int(np.clip(_SAMPLE_BYTES // max(1, 9 * ny * nx), 1, _SAMPLES))
    channels = np.unique(((np.arange(count) + 0.5) * n_wave / count).astype(int))
    masked = [np.count_nonzero(cube.read(slice(c, c + 1)).mask) for c in channels.tolist()]
    return float(sum(masked)) / (len(masked) * ny * nx)


def _step_text(wave: Float) -> str:
    if wave.size < 2:
        return "one channel"
    steps = np.diff(wave)
    if np.ptp(steps) < 1e-4 * steps.mean():
        return f"{steps.mean():.6g} A"
    ratios = np.diff(np.log10(wave))
    if np.ptp(ratios) < 1e-3 * ratios.mean():
        return f"{ratios.mean():.6g} dex ({steps[0]:.4g} to {steps[-1]:.4g} A)"
    return f"{steps.min():.4g} to {steps.max():.4g} A"


def _widths(cube: CubeFile) -> tuple[float, float] | None:
    if isinstance(cube.layout.lsf, int):
        return (float("nan"), float("nan"))
    if cube.lsf is None:
        return None
    widths = FWHM_PER_SIGMA * np.atleast_1d(cube.lsf)
    return float(np.min(widths)), float(np.max(widths))


def _correlation_text(cube: CubeFile) -> str:
    if cube.correlation is None:
        return "not known"
    spatial, spectral = cube.correlation
    parts = []
    if spatial is not None:
        parts.append(f"over {spatial.shape[0]} x {spatial.shape[1]} spaxels")
    if spectral is not None:
        parts.append(f"over {spectral.shape[-1]} channels")
    return ", ".join(parts) or "none"


def cube_lines(summary: CubeSummary) -> list[str]:
    """Return a summary as lines for people."""
    corrected = {True: "corrected", False: "not corrected", None: "not known whether corrected"}
    first, last = summary.wave
    size = " x ".join(str(length) for length in summary.shape)
    kind = "surface brightness" if summary.per_area else "flux per spaxel"
    lines = [
        f"cube {size}: {first:.6g} .. {last:.6g} A in {summary.medium}, step {summary.step}",
        f"{kind} in {summary.unit}, errors read as {summary.error_kind}, {100 * summary.masked:.3g} % masked",
        f"noise of neighbours: {summary.correlation}; extinction of the Milky Way:"
        f" {corrected[summary.milky_way_corrected]}",
    ]
    if summary.lsf is not None:
        widths = "per voxel" if np.isnan(summary.lsf[0]) else "{:.3g} .. {:.3g} A".format(*summary.lsf)
        lines.append(f"line-spread function: FWHM {widths}")
    if summary.psf:
        lines.append(f"PSF: {summary.psf}")
    known = [("redshift", summary.redshift), ("E(B-V)", summary.ebv)]
    if any(value is not None for _, value in known):
        lines.append(", ".join(f"{name} {value:.5g}" for name, value in known if value is not None))
    return lines
