"""Spectra and templates on the common logarithmic grid that pPXF wants."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from skyloom.core.linelist import convert_medium
from skyloom.core.spectra import Spectra
from skyloom.core.templates import TemplateLibrary
from skyloom.kernels.lines.profiles import SPEED_OF_LIGHT
from skyloom.spectral.axes.resample import resample
from skyloom.spectral.axes.rest_frame import applied_redshift

__all__ = ["LogTemplates", "covered_channels", "log_spectra", "log_templates"]

Float = NDArray[np.float64]
# How far a grid may be from an even one in ln(wavelength), in steps over all of it.
EVEN = 1e-3
# pPXF wants templates that reach this far beyond the spectra and the range of velocities.
REACH = 950.0  # km/s
OVERSAMPLING = 4
MATRIX_REACH = 5.0  # standard deviations


def log_spectra(spectra: Spectra) -> tuple[Spectra, float]:
    """Bring spectra to vacuum and to an even grid in ln(wavelength).

    Returns
    -------
    spectra : Spectra
        With the correlation of the channels that resampling makes; the same arrays where the grid is even already.
    step : float
        In ln(wavelength).
    """
    before = 1.0 + applied_redshift(spectra)
    # Air has its index at the wavelength that was observed.
    wave = convert_medium(spectra.wave * before, spectra.medium, "vacuum") / before  # type: ignore[arg-type]
    in_vacuum = spectra.evolve(wave=wave, medium="vacuum")
    logs = np.log(wave)
    step = float((logs[-1] - logs[0]) / (logs.size - 1))
    if np.max(np.abs(logs - logs[0] - step * np.arange(logs.size))) < EVEN * step:
        return in_vacuum, step
    finest = float(np.min(np.diff(logs)))
    even = resample(in_vacuum, step=finest / np.log(10.0), sampling="log", threads=1)
    return even, finest


def covered_channels(rest: Float, templates: TemplateLibrary, velocity_range: float) -> slice:
    """Return the channels (rest wavelengths in vacuum) that templates reach at any velocity; perhaps none."""
    vacuum = convert_medium(templates.wave[[0, -1]], templates.medium, "vacuum")
    margin = np.exp((velocity_range + REACH) / SPEED_OF_LIGHT)
    return slice(
        int(np.searchsorted(rest, vacuum[0] * margin)), int(np.searchsorted(rest, vacuum[1] / margin))
    )


class LogTemplates(NamedTuple):
    """Templates as pPXF takes them.

    Attributes
    ----------
    wave : (n_wave,) array
        Rest wavelengths in vacuum, A.
    flux : (n_wave, n_templates) array
        Each divided by ``scale``.
    scale : (n_templates,) array
    broader : float
        Share of the wavelengths where the templates are broader than the spectrograph.
    """

    wave: Float
    flux: Float
    scale: Float
    broader: float


def log_templates(
    templates: TemplateLibrary, rest: Float, step: float, lsf: Float, velocity_range: float
) -> LogTemplates:
    """Broaden templates to the line-spread function of spectra, on a grid with their step.

    Parameters
    ----------
    templates : TemplateLibrary
    rest : (n,) array
        Rest wavelengths of the spectra in vacuum, A.
    step : float
        In ln(wavelength).
    lsf : (n,) array
        Standard deviation of the line-spread function of the spectra at ``rest``, in ln(wavelength).
    velocity_range : float
        km/s
    """
    from scipy.interpolate import CubicSpline  # It takes long to load.

    margin = (velocity_range + REACH) / SPEED_OF_LIGHT
    n_margin = int(np.ceil(margin / step))
    logs = np.log(rest[0]) + step * np.arange(-n_margin, rest.size + n_margin)
    vacuum = convert_medium(templates.wave, templates.medium, "vacuum")
    native = np.log(vacuum)
    logs = logs[(logs >= native[0]) & (logs <= native[-1])]
    fine_step = step / OVERSAMPLING
    fine = np.arange(logs[0], logs[-1] + 0.5 * fine_step, fine_step)
    own = np.interp(fine, native, templates.sigma / vacuum)
    squares = np.interp(fine, np.log(rest), lsf) ** 2 - own**2
    flux = CubicSpline(native, templates.flux, axis=1)(fine)
    smooth = _blur(flux.T, np.sqrt(np.maximum(squares, 0.0)) / fine_step, OVERSAMPLING)[: logs.size]
    scale = np.median(np.abs(smooth), axis=0)
    scale[scale == 0] = 1.0
    return LogTemplates(np.exp(logs), smooth / scale, scale, float(np.mean(squares < 0)))


def _blur(values: Float, sigma: Float, every: int) -> Float:
    """Average columns with Gaussians of a width (in rows) that changes from row to row; keep each ``every``-th row."""
    n = len(values)
    rows = np.arange(0, n, every)
    width = np.maximum(sigma[rows], 1e-3)
    reach = int(np.ceil(MATRIX_REACH * width.max())) + 1
    offsets = np.arange(-reach, reach + 1)
    edges = (np.arange(-reach, reach + 2) - 0.5) / width[:, np.newaxis]
    weights = np.diff(ndtr(edges), axis=1)
    weights /= weights.sum(axis=1, keepdims=True)
    out = np.zeros((rows.size, values.shape[1]))
    for offset, column in zip(offsets, weights.T, strict=True):
        out += column[:, np.newaxis] * values[np.clip(rows + offset, 0, n - 1)]
    return out
