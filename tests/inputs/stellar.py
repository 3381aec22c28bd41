"""Stars with known truth for the tests of the stellar continuum: feature-rich populations in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from skyloom.core.linelist import convert_medium
from skyloom.core.spectra import Spectra
from skyloom.core.templates import TemplateLibrary
from skyloom.mock.scenes.templates import SPEED_OF_LIGHT, Populations, populations
from skyloom.spectral.axes.attenuation import attenuation_curve
from skyloom.spectral.axes.grids import pixel_edges

UNIT = "1e-20 erg / (s cm2 AA)"


@cache
def forest_populations(n_age: int = 9, n_metallicity: int = 6, n_lines: int = 260) -> Populations:
    """Populations on a grid of age and metallicity, with a forest of narrow lines as metals make it."""
    rng = np.random.default_rng(11)
    base = populations()
    solar = np.flatnonzero(base.metallicity == 0)
    log_base = np.log10(base.age[solar])
    ages = np.logspace(-2, np.log10(12.0), n_age)
    metals = np.linspace(-1.2, 0.3, n_metallicity)
    age, metallicity = (item.ravel() for item in np.meshgrid(ages, metals, indexing="ij"))
    log_age = np.log10(age)

    def interpolated(values):
        flat = values[solar].reshape(solar.size, -1)
        out = np.stack([np.interp(log_age, log_base, column) for column in flat.T], axis=1)
        return out.reshape(age.size, *values.shape[1:])

    continuum = interpolated(base.continuum)
    # Metal-poor populations are bluer.
    tilt = np.linspace(0.25, -0.15, continuum.shape[1])
    continuum = continuum * (1.0 - np.outer(metallicity, tilt))[:, :, np.newaxis]
    wave = np.sort(rng.uniform(3650.0, 9400.0, n_lines))
    width = rng.uniform(1.5e-4, 5.0e-4, n_lines)
    strength = 0.01 * rng.exponential(1.0, n_lines) * (6000.0 / wave) ** 2
    steepness, slope = rng.uniform(0.2, 0.9, n_lines), rng.uniform(0.2, 1.0, n_lines)
    share = np.exp(np.outer(log_age - 1.0, steepness) + np.outer(metallicity, slope))
    level = Populations(age, metallicity, continuum, wave, width, np.zeros((age.size, n_lines))).evaluate(
        wave
    )
    depth = strength * share * level * 20.0
    base_depth = interpolated(base.line_depth)
    return Populations(
        age, metallicity, continuum, np.concatenate([base.line_wave, wave]),
        np.concatenate([base.line_width, width]), np.concatenate([base_depth, depth], axis=1),
    )  # fmt: skip


@dataclass(frozen=True)
class Stars:
    """Truth of a set of spectra."""

    velocity: np.ndarray
    sigma: np.ndarray
    av: np.ndarray
    weights: np.ndarray
    flux: np.ndarray
    redshift: float


def true_flux(stars: Populations, edges, medium, weights, velocity, sigma, av, redshift, lsf, samples=4):
    """Mean flux density over channels; ``lsf`` is a function of the observed wavelength in A, in the medium."""
    there = np.flatnonzero(weights)
    some = Populations(
        stars.age[there], stars.metallicity[there], stars.continuum[there], stars.line_wave, stars.line_width,
        stars.line_depth[there],
    )  # fmt: skip
    low, width = edges[:-1], np.diff(edges)
    nodes, shares = np.polynomial.legendre.leggauss(samples)
    total = np.zeros(low.size)
    for node, share in zip(nodes, shares, strict=True):
        observed = low + 0.5 * (node + 1.0) * width
        vacuum = convert_medium(observed, medium, "vacuum")
        rest = vacuum / (1.0 + redshift)
        spread = np.hypot(sigma, lsf(observed) / observed * SPEED_OF_LIGHT)
        flux = weights[there] @ some.evaluate(rest / (1.0 + velocity / SPEED_OF_LIGHT), spread)
        total += 0.5 * share * flux * 10 ** (-0.4 * av * attenuation_curve(rest))
    return total


def make_stars(
    n, wave, *, rng, redshift=0.02, medium="vacuum", lsf=lambda wave: np.full(wave.shape, 1.2),
    velocities=(-200.0, 200.0), sigmas=(60.0, 250.0), dust=(0.1, 1.0), stars=None, mixed=4,
) -> Stars:  # fmt: skip
    """Mixtures of a few populations, each with its own kinematics and dust."""
    stars = forest_populations() if stars is None else stars
    edges = pixel_edges(wave)
    velocity, sigma, av = (rng.uniform(*limits, n) for limits in (velocities, sigmas, dust))
    weights = np.zeros((n, len(stars)))
    flux = np.empty((n, wave.size))
    for row in range(n):
        chosen = rng.choice(len(stars), mixed, replace=False)
        weights[row, chosen] = rng.dirichlet(np.ones(mixed))
        flux[row] = true_flux(
            stars, edges, medium, weights[row], velocity[row], sigma[row], av[row], redshift, lsf
        )
    return Stars(velocity, sigma, av, weights, flux, redshift)


def observe(stars: Stars, wave, snr, *, rng, lsf=1.2, medium="vacuum", kernel=None, extra=0.0) -> Spectra:
    """Add noise of a given median S/N per channel; a kernel makes it correlated between channels."""
    n, n_wave = stars.flux.shape
    noise = rng.standard_normal((n, n_wave + 40))
    correlation = None
    if kernel is not None:
        kernel = np.asarray(kernel, float) / np.sqrt(np.sum(np.square(kernel)))
        noise = np.stack([np.convolve(row, kernel, mode="same") for row in noise])
        correlation = np.correlate(kernel, kernel, mode="full")
    spread = np.median(stars.flux, axis=1, keepdims=True) / snr * np.ones(n_wave)
    data = stars.flux + extra + spread * noise[:, 20:-20]
    return Spectra(
        data.astype(np.float32), (spread**2).astype(np.float32), None, UNIT, wave, medium, lsf, correlation
    )


def template_library(
    medium="vacuum", *, stars=None, low=3500.0, high=9600.0, step=0.9, fwhm=2.3
) -> TemplateLibrary:
    """The same populations as a library."""
    stars = forest_populations() if stars is None else stars
    return stars.library(np.arange(low, high, step), medium, fwhm=fwhm)


def mastar_library(data_dir: Path) -> TemplateLibrary:
    """MaStar populations as they are shipped with the data pipeline of MaNGA."""
    from astropy.io import fits

    paths = sorted((data_dir / "ssp/mangadap/mastar_ssp_v1.0").glob("MaStar-SSP-*.fits.gz"))
    flux, age, metallicity, resolution = [], [], [], []
    for path in paths:
        with fits.open(path) as hdus:
            header = hdus[0].header
            flux.append(np.array(hdus[0].data, dtype=np.float64))
            resolution.append(np.array(hdus["SRES"].data, dtype=np.float64))
        age.append(float(path.name.split("-A")[1][:6]))
        metallicity.append(float(path.name.split("-Z")[1][:5]))
    wave = 10 ** (header["CRVAL1"] + header["CDELT1"] * np.arange(header["NAXIS1"]))
    return TemplateLibrary(
        wave, "vacuum", np.array(flux), np.array(age), np.array(metallicity), wave / np.median(resolution, axis=0),
        "MaStar", {"flux_per_mass": True},
    )  # fmt: skip
