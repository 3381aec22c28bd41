"""Templates made ready for a fit: in vacuum, on an even grid in ln(wavelength), as sums of narrow Gaussians."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from skyloom.core.linelist import convert_medium
from skyloom.core.templates import TemplateLibrary
from skyloom.errors import InputError
from skyloom.kernels.lines.profiles import SPEED_OF_LIGHT

__all__ = ["TemplateGrid", "prepare_templates"]

Float = NDArray[np.float64]
BASIS = 0.85  # Standard deviation of the narrow Gaussians in steps: a constant comes out flat to 1e-6.
MARGIN = 96  # Steps added at either end; the response of the filter has died away long before.
COARSEST = 0.95  # Largest step, as a share of the narrowest line-spread function of the data.
FINEST = 10.0  # km/s
LIGHT_WINDOW = (5450.0, 5550.0)  # A: where the light of a population is counted


@dataclass(frozen=True, slots=True, eq=False)
class TemplateGrid:
    """Templates as sums of Gaussians.

    Parameters
    ----------
    start, step : float
        ln(wavelength in vacuum / A) of the first Gaussian, and from one to the next.
    coefficients : (n_grid, n_templates) float64 array
        Of Gaussians with standard deviation ``BASIS * step`` and area ``step``, per unit of ``scale``.
    scale : (n_templates,) array
        What each template was divided by, in its own unit.
    wave, sigma : (m,) arrays
        Vacuum wavelengths, A, that the templates cover, and the standard deviation of their line-spread function in
        ln(wavelength) there.
    light : (n_templates,) array
        Mean flux density of each template (in its unit) in ``light_window``.
    light_window : (float, float)
        A.
    """

    start: float
    step: float
    coefficients: Float
    scale: Float
    wave: Float
    sigma: Float
    light: Float
    light_window: tuple[float, float]

    @property
    def spread(self) -> float:
        """Variance of a narrow Gaussian in steps squared."""
        return BASIS**2


def prepare_templates(library: TemplateLibrary, narrowest: float) -> TemplateGrid:
    """Bring a library into the form that the fit wants.

    Parameters
    ----------
    library : TemplateLibrary
    narrowest : float
        Smallest standard deviation, in ln(wavelength), of the line-spread function of the spectra to be fitted.
        Templates much sharper than that are smoothed to nearly that first, which makes the fit faster.

    Returns
    -------
    TemplateGrid

    Raises
    ------
    InputError
        When the library holds no template, one that is nowhere positive, or fewer than 16 wavelengths.

    Notes
    -----
    With the Gaussian basis ``phi`` of width 0.85 steps, the coefficients are ``T^ / phi^`` in Fourier space. That is
    well conditioned since templates hold next to nothing at the highest frequency of a grid that samples them.
    """
    from scipy.interpolate import CubicSpline  # It takes long to load.

    if len(library) == 0 or library.wave.size < 16:
        raise InputError(
            f"the library {library.name!r} has {len(library)} templates of {library.wave.size} wavelengths; "
            "at least one of 16 is needed",
            field="templates",
        )
    vacuum = convert_medium(library.wave, library.medium, "vacuum")
    logs = np.log(vacuum)
    native = max(float(np.diff(logs).min()), FINEST / SPEED_OF_LIGHT)
    step = max(native, COARSEST * narrowest)
    sigma = library.sigma / vacuum
    smoothing = max(step**2 - float(sigma.min()) ** 2, 0.0) if step > 1.01 * native else 0.0
    scale = np.abs(library.flux).mean(axis=1)
    _check_light(library, scale)
    place = np.arange(logs[0] - MARGIN * step, logs[-1] + (MARGIN + 1) * step, native)
    # Beyond its ends a template goes on as a constant; nothing there is ever used for a fit.
    values = CubicSpline(logs, library.flux / scale[:, np.newaxis], axis=1)(np.clip(place, *logs[[0, -1]]))
    if step > 1.01 * native:
        smooth = _filtered(values, 0.5 * smoothing / native**2)
        coarse = np.arange(place[0], place[-1], step)
        values, place = CubicSpline(place, smooth, axis=1)(coarse), coarse
    else:
        step = native
    coefficients = _filtered(values, -0.5 * BASIS**2)
    window = _light_window(vacuum)
    inside = (vacuum >= window[0]) & (vacuum <= window[1])
    return TemplateGrid(
        float(place[0]), float(step), np.ascontiguousarray(coefficients.T), scale, vacuum,
        np.sqrt(sigma**2 + smoothing), library.flux[:, inside].mean(axis=1), window,
    )  # fmt: skip


def _check_light(library: TemplateLibrary, scale: Float) -> None:
    dark = np.flatnonzero(~(scale > 0) | (library.flux.max(axis=1) <= 0))
    if dark.size:
        raise InputError(
            f"templates {dark.tolist()} of {library.name!r} are nowhere positive", field="templates"
        )


def _filtered(values: Float, exponent: float) -> Float:
    """Multiply by ``exp(-exponent k^2)`` in Fourier space, k in radians per step; mirrored at the ends."""
    n = values.shape[1]
    doubled = np.concatenate([values, values[:, ::-1]], axis=1)
    frequency = 2.0 * np.pi * fft.rfftfreq(2 * n)
    return np.asarray(fft.irfft(fft.rfft(doubled) * np.exp(-exponent * frequency**2), 2 * n)[:, :n])


def _light_window(wave: Float) -> tuple[float, float]:
    """Where light is counted: around 5500 A, or over everything when the templates do not go there."""
    if wave[0] <= LIGHT_WINDOW[0] and wave[-1] >= LIGHT_WINDOW[1]:
        return LIGHT_WINDOW
    return float(wave[0]), float(wave[-1])
