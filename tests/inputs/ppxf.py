"""Spectra of known stellar populations, made by direct integration on a fine grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from skyloom.core.linelist import convert_medium
from skyloom.core.spectra import Spectra
from skyloom.core.templates import TemplateLibrary
from skyloom.spectral.axes.attenuation import attenuation_curve

Float = NDArray[np.float64]
C = 299792.458
FINE = 5e-5  # in ln(wavelength): 15 km/s


def library(n: int = 4, fwhm: float = 1.6, low: float = 4300.0, high: float = 6300.0) -> TemplateLibrary:
    """Templates with a hundred random absorption lines of the given width, whose depths change with age."""
    rng = np.random.default_rng(11)
    wave = np.arange(low, high, 0.6)
    centres = rng.uniform(low, high, 160)
    flux = []
    for number in range(n):
        depth = rng.uniform(0.02, 0.35, centres.size)
        lines = np.exp(-0.5 * ((wave - centres[:, np.newaxis]) / (fwhm / 2.3548)) ** 2)
        flux.append((wave / 5000.0) ** (number - 1.5) * (1.0 - np.clip(depth @ lines, 0, 0.9)))
    return TemplateLibrary(
        wave, "vacuum", np.array(flux), np.geomspace(0.1, 10.0, n), np.linspace(-0.4, 0.2, n), fwhm, "lines",
        {"flux_per_mass": True},
    )  # fmt: skip


def observed(
    templates: TemplateLibrary,
    weights: Float,
    wave: Float,
    *,
    medium: str = "air",
    lsf: float = 1.1,
    redshift: float = 0.02,
    velocity: float = 0.0,
    sigma: float = 100.0,
    av: float = 0.0,
    snr: float = 50.0,
    n: int = 1,
    seed: int = 3,
) -> tuple[Spectra, Float]:
    """Return n spectra with independent noise, and the noise-free flux (n_wave,).

    The light moves by (1 + z)(1 + v/c), is broadened by the stars in ln(wavelength), by the spectrograph in A, and
    averaged over each pixel; ``lsf`` is the width of the sampled values, pixels included.
    """
    vacuum = convert_medium(templates.wave, templates.medium, "vacuum")
    total = (weights @ templates.flux) * 10.0 ** (-0.4 * av * attenuation_curve(vacuum, "calzetti00"))
    logs = np.arange(np.log(vacuum[0]), np.log(vacuum[-1]), FINE)
    source = np.interp(np.exp(logs), vacuum, total)
    where = np.log(convert_medium(wave, medium, "vacuum")) - np.log((1 + redshift) * (1 + velocity / C))
    own = np.interp(np.exp(where), vacuum, templates.sigma / vacuum)
    pixels = np.gradient(where)
    wide = np.sqrt((sigma / C) ** 2 + (lsf / wave) ** 2 - own**2 - pixels**2 / 12.0)
    flux = np.empty(wave.size)
    for channel, (centre, width, pixel) in enumerate(zip(where, wide, pixels, strict=True)):
        near = slice(*np.searchsorted(logs, [centre - 6 * width - pixel, centre + 6 * width + pixel]))
        distance = logs[near] - centre
        kernel = ndtr((distance + 0.5 * pixel) / width) - ndtr((distance - 0.5 * pixel) / width)
        flux[channel] = kernel @ source[near] / kernel.sum() / (1 + redshift)
    noise = np.median(flux) / snr
    rng = np.random.default_rng(seed)
    data = flux + noise * rng.standard_normal((n, wave.size))
    spectra = Spectra(
        data,
        np.full(data.shape, noise**2),
        np.zeros(data.shape, bool),
        "1e-17 erg / (s cm2 AA)",
        wave,
        medium,
        lsf,
    )
    return spectra, flux
