"""Measured defects of existing pipelines, and costs, that the stellar fit must not repeat."""

from __future__ import annotations

import numpy as np

from skyloom.kernels.stellar.nnls import gram, solve_nonnegative
from skyloom.spectral.stellar.fit import fit_continuum
from tests.inputs.stellar import make_stars, observe, template_library

Z = 0.01


def test_native_pixels_have_the_chi_square_that_interpolated_ones_lose():
    """Flux and errors interpolated to 1 A: chi2/dof 0.625 and too wide lines. Here nothing is interpolated."""
    wave = 4800.0 + 1.25 * np.arange(900)
    rng = np.random.default_rng(21)
    stars = make_stars(24, wave, rng=rng, redshift=Z)
    spectra = observe(stars, wave, 40.0, rng=rng)
    fit = fit_continuum(spectra, template_library(low=4500.0, high=6200.0), redshift=Z)
    n = fit.n_used.sum()
    assert abs(np.average(fit.chi2_dof, weights=fit.n_used) - 1.0) < 3 * np.sqrt(2 / n) + 0.01
    pulls = (fit.sigma - stars.sigma) / fit.sigma_err
    assert abs(pulls.mean()) < 3 / np.sqrt(24)


def test_the_gram_matrix_gives_the_same_weights_as_the_dense_problem():
    """One NNLS takes 6.9 ms dense and 1.2 ms from a factor of the Gram matrix, with the same solution."""
    from scipy.optimize import nnls

    wave = 4800.0 + 1.25 * np.arange(900)
    library = template_library(low=4500.0, high=6200.0)
    columns = np.stack([np.interp(wave, library.wave, flux) for flux in library.flux], axis=1)
    rng = np.random.default_rng(22)
    values = columns @ rng.dirichlet(np.full(len(library), 0.1)) + 0.02 * rng.standard_normal(wave.size)
    size = columns.shape[1]
    matrix, vector, solution = np.empty((size, size)), np.empty(size), np.empty(size)
    gram(columns, size, values, matrix, vector)
    assert solve_nonnegative(matrix, vector, size, size, np.zeros(size, bool), solution)
    dense, _ = nnls(columns, values)
    np.testing.assert_allclose(solution, dense, atol=1e-6)


def test_logarithmic_axes_are_not_taken_for_linear_ones():
    """MaNGA's axis is even in ln(wavelength); its pixels grow threefold along it."""
    wave = 4800.0 * np.exp(np.arange(1200) * 69.0 / 299792.458)
    rng = np.random.default_rng(23)
    stars = make_stars(10, wave, rng=rng, redshift=Z, lsf=lambda w: 1.1 + 0.2 * (w - 4800) / 1500)
    lsf = 1.1 + 0.2 * (wave - 4800) / 1500
    spectra = observe(stars, wave, 60.0, rng=rng, lsf=lsf)
    fit = fit_continuum(spectra, template_library(low=4400.0, high=6500.0), redshift=Z)
    assert abs(np.mean((fit.velocity - stars.velocity) / fit.velocity_err)) < 3 / np.sqrt(10)
    assert abs(np.mean((fit.sigma - stars.sigma) / fit.sigma_err)) < 3 / np.sqrt(10)
    assert np.mean(fit.chi2_dof) < 1.05
