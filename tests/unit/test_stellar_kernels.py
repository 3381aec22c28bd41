"""Broadening, the grid of templates and non-negative least squares against slow twins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from skyloom.core.templates import TemplateLibrary
from skyloom.errors import InputError
from skyloom.kernels.stellar.broadening import Channels, broaden, broaden_slopes, fill_taps, tap_space
from skyloom.kernels.stellar.nnls import gram, solve_nonnegative
from skyloom.mock.scenes.templates import SPEED_OF_LIGHT, populations
from skyloom.spectral.axes.attenuation import attenuation_curve
from skyloom.spectral.axes.grids import pixel_edges
from skyloom.spectral.stellar.template_grid import prepare_templates
from tests.oracles.stellar import broadened


def channels_of(grid, wave, lsf, redshift=0.0):
    """Vacuum channels on a grid of templates."""
    edges = np.log(pixel_edges(wave))
    centre = 0.5 * (edges[1:] + edges[:-1]) - np.log1p(redshift)
    extra = (lsf / wave) ** 2 - np.interp(np.exp(centre), grid.wave, grid.sigma) ** 2
    return Channels(
        (centre - grid.start) / grid.step, np.diff(edges) / grid.step, extra / grid.step**2, grid.spread, grid.step
    )  # fmt: skip


def at(grid, channels, velocity, squared):
    """Broadened templates (n_wave, n), and the taps that made them."""
    taps = tap_space(channels, squared, len(grid.coefficients))
    fill_taps(channels, velocity, squared, len(grid.coefficients), taps)
    out = np.empty((channels.place.size, grid.coefficients.shape[1]))
    broaden(taps, grid.coefficients, out)
    return out, taps


@pytest.mark.parametrize("axis", ["linear, 0.9 A", "log, 69 km/s", "fine, smoothed first"])
@pytest.mark.parametrize(("velocity", "sigma"), [(0.0, 0.0), (130.0, 60.0), (-220.0, 260.0)])
def test_broadened_templates_are_those_of_direct_sums(axis, velocity, sigma):
    template_wave, narrowest = {
        "linear, 0.9 A": (np.arange(4700.0, 5700.0, 0.9), 0.0),
        "log, 69 km/s": (4700.0 * np.exp(np.arange(860) * 69.0 / SPEED_OF_LIGHT), 0.0),
        "fine, smoothed first": (np.arange(4700.0, 5700.0, 0.3), 45.0 / SPEED_OF_LIGHT),
    }[axis]
    fwhm = 1.0 if axis.startswith("fine") else 2.4
    library = populations().library(template_wave, fwhm=fwhm)
    grid = prepare_templates(library, narrowest)
    wave = np.arange(4850.0, 5600.0, 1.25)
    lsf = 1.15 + 0.1 * (wave - 4850.0) / 1000.0
    out, _ = at(grid, channels_of(grid, wave, lsf, 0.004), velocity, sigma**2)
    # The analytic templates have features of 75 km/s; the pixels of the coarser axes resolve them to 3e-4.
    expected = broadened(library, pixel_edges(wave), "vacuum", 0.004, velocity, sigma, lsf)
    np.testing.assert_allclose(out * grid.scale, expected, rtol=3e-4 if sigma < 100 else 3e-5)


def test_wide_channels_are_averages_not_samples():
    library = populations().library(np.arange(4700.0, 5700.0, 0.9), fwhm=2.0)
    grid = prepare_templates(library, 0.0)
    wave = np.arange(4850.0, 5550.0, 9.0)  # ten times wider than the lines
    lsf = np.full(wave.size, 1.0)
    out, _ = at(grid, channels_of(grid, wave, lsf), 40.0, 30.0**2)
    expected = broadened(library, pixel_edges(wave), "vacuum", 0.0, 40.0, 30.0, lsf, samples=40)
    # The mean over ln(wavelength) is not that over wavelength, by the square of 9 A / 5000 A times the slope.
    np.testing.assert_allclose(out * grid.scale, expected, rtol=1e-4)


def test_derivatives_are_those_of_differences():
    library = populations().library(np.arange(4700.0, 5700.0, 0.9), fwhm=2.0)
    grid = prepare_templates(library, 0.0)
    wave = np.arange(4850.0, 5550.0, 1.25)
    channels = channels_of(grid, wave, np.full(wave.size, 1.3))
    _, taps = at(grid, channels, 90.0, 140.0**2)
    for template in range(len(library)):
        slopes = np.empty((2, wave.size))
        coefficients = np.ascontiguousarray(grid.coefficients[:, template])
        broaden_slopes(channels, taps, coefficients, 90.0, 140.0**2, slopes)
        for layer, change in ((0, (8.0, 0.0)), (1, (0.0, 2500.0))):
            high, _ = at(grid, channels, 90.0 + change[0], 140.0**2 + change[1])
            low, _ = at(grid, channels, 90.0 - change[0], 140.0**2 - change[1])
            difference = (high - low)[:, template] / (2 * sum(change))
            np.testing.assert_allclose(slopes[layer], difference, atol=0.004 * np.abs(difference).max())


def test_a_constant_template_stays_constant():
    wave = np.arange(4700.0, 5700.0, 0.9)
    library = TemplateLibrary(wave, "vacuum", np.ones((1, wave.size)), np.ones(1), np.zeros(1), 2.4)
    grid = prepare_templates(library, 0.0)
    channel_wave = np.arange(4800.0, 5600.0, 1.3)
    out, _ = at(grid, channels_of(grid, channel_wave, np.full(channel_wave.size, 1.02)), 0.0, 0.0)
    np.testing.assert_allclose(out, 1.0, atol=5e-6)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(3, 30), size=st.integers(1, 14), warm=st.booleans())
def test_nonnegative_solution_is_that_of_the_dense_problem(seed, n, size, warm):
    rng = np.random.default_rng(seed)
    columns, values = rng.normal(0.4, 1.0, (n, size)), rng.normal(0.3, 1.0, n)
    matrix, vector, solution = np.empty((size, size)), np.empty(size), np.empty(size)
    gram(columns, size, values, matrix, vector)
    passive = rng.random(size) < 0.5 if warm else np.zeros(size, bool)
    assert solve_nonnegative(matrix, vector, size, size, passive, solution)
    assert np.all(solution >= 0)
    np.testing.assert_array_equal(passive, solution > 0)
    _, norm = nnls(columns, values)
    assert np.linalg.norm(columns @ solution - values) == pytest.approx(norm, rel=1e-6, abs=1e-6)


def test_unknowns_free_in_sign_may_be_negative():
    rng = np.random.default_rng(3)
    columns = rng.normal(0.2, 1.0, (60, 7))
    values = columns @ np.array([0.5, 0.0, 1.0, 0.0, 0.2, -2.0, 3.0]) + 0.01 * rng.standard_normal(60)
    matrix, vector, solution = np.empty((7, 7)), np.empty(7), np.empty(7)
    gram(columns, 7, values, matrix, vector)
    assert solve_nonnegative(matrix, vector, 7, 5, np.zeros(7, bool), solution)
    doubled = np.concatenate([columns, -columns[:, 5:]], axis=1)
    slow, _ = nnls(doubled, values)
    np.testing.assert_allclose(solution[:5], slow[:5], atol=1e-8)
    np.testing.assert_allclose(solution[5:], slow[5:7] - slow[7:], atol=1e-8)


def test_twin_templates_do_not_trap_the_solver():
    rng = np.random.default_rng(4)
    one = rng.random(50)
    columns = np.stack([one, one, 2 * one, rng.random(50)], axis=1)
    matrix, vector, solution = np.empty((4, 4)), np.empty(4), np.empty(4)
    gram(columns, 4, one + 0.1, matrix, vector)
    assert solve_nonnegative(matrix, vector, 4, 4, np.ones(4, bool), solution)
    _, norm = nnls(columns, one + 0.1)
    assert np.linalg.norm(columns @ solution - one - 0.1) == pytest.approx(norm, rel=1e-9)


def test_attenuation_of_calzetti_at_known_places():
    # k(5500 A) = 4.05 by definition, and the two branches meet at 6300 A to a hundredth.
    assert attenuation_curve([5500.0])[0] == pytest.approx(1.0, abs=2e-3)
    below, above = attenuation_curve([6299.999, 6300.001])
    assert below == pytest.approx(above, abs=0.012)
    assert attenuation_curve([1500.0])[0] == pytest.approx(10.3 / 4.05, abs=0.03)
    np.testing.assert_allclose(attenuation_curve([5494.5], "ccm89"), 1.0, atol=2e-3)
    with pytest.raises(InputError, match="'calzetti'; expected one of calzetti00, fitzpatrick99"):
        attenuation_curve([5500.0], "calzetti")
    with pytest.raises(InputError, match="defined from 1200 to 22000"):
        attenuation_curve([900.0])


def test_dark_and_empty_libraries_are_refused():
    wave = np.arange(4000.0, 5000.0)
    flux = np.ones((3, wave.size))
    flux[1] = 0
    library = TemplateLibrary(wave, "air", flux, np.ones(3), np.zeros(3), 2.0, "mine")
    with pytest.raises(InputError, match=r"templates \[1\] of 'mine' are nowhere positive"):
        prepare_templates(library, 0.0)
    with pytest.raises(InputError, match="3 templates of 5 wavelengths"):
        prepare_templates(library.evolve(wave=wave[:5], flux=np.ones((3, 5)), fwhm=2.0), 0.0)
