"""Pure noise has S/N of mean 0 and standard deviation 1, whatever is in the errors; velocities come from data too.

100 x 100 spaxels leave the mean uncertain by 0.01 and the standard deviation by 0.007; the bounds of 0.02 and 0.03 are
those promised to users, so that the seed, not luck, decides: each case was drawn once.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from tests.inputs.snr import LSF, axis, cube_of, line_profile, noise_cube, rotating_disc, uneven_variance

from skyloom.core.linelist import default_lines
from skyloom.errors import AssumptionWarning
from skyloom.spectral.axes.widths import LIGHT
from skyloom.spectral.signal.snr import first_velocity_map, line_snr

HALPHA = default_lines()["Halpha"].rest("air")
KERNELS = {"white": None, "correlated": np.array([1.0, 2.0, 1.0])}
VELOCITY = 150.0 * np.tanh((np.arange(100) - 50) / 20)[np.newaxis, :] * np.ones((100, 1))


def assert_standard(snr):
    values = snr.data[snr.valid]
    assert values.size > 9900
    assert abs(values.mean()) < 0.02
    assert abs(values.std() - 1.0) < 0.03


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("line", ["Halpha", ["NII6548", "Halpha", "NII6583"]])
def test_window_on_noise(name, line, rng):
    assert_standard(line_snr(noise_cube(rng, kernel=KERNELS[name]), line, 0.0).snr)


@pytest.mark.parametrize("name", KERNELS)
def test_window_on_noise_with_a_map_of_redshifts(name, rng):
    assert_standard(line_snr(noise_cube(rng, kernel=KERNELS[name]), "Halpha", VELOCITY / LIGHT).snr)


@pytest.mark.parametrize("name", KERNELS)
def test_matched_on_noise_with_a_given_velocity(name, rng):
    cube = noise_cube(rng, kernel=KERNELS[name])
    assert_standard(line_snr(cube, "Halpha", 0.0, "matched", velocity=VELOCITY).snr)


@pytest.mark.parametrize("name", KERNELS)
def test_matched_on_noise_with_its_own_first_pass(name, rng):
    cube = noise_cube(rng, kernel=KERNELS[name])
    velocity = first_velocity_map(cube, "Halpha", 0.0)
    assert_standard(line_snr(cube, "Halpha", 0.0, "matched", velocity=velocity).snr)


@pytest.mark.parametrize("spread", [0.0, 0.8])
def test_first_pass_leaves_noise_alone_even_where_every_maximum_counts(spread, rng):
    """With the threshold taken away every velocity is a fluctuation, and yet no spaxel sees its own.

    Spatially correlated noise needs its correlation: the hole grows with it.
    """
    shape = (120, 100, 100)
    noise = rng.standard_normal(shape)
    rho = None
    if spread:
        noise = gaussian_filter(noise, (0, spread, spread), mode="wrap")
        noise /= noise.std()
        offset = np.arange(-4, 5)
        run = np.exp(-(offset**2) / (4 * spread**2))
        rho = np.outer(run, run)
    cube = cube_of(noise, np.ones(shape), axis(HALPHA), spatial=rho)
    velocity = first_velocity_map(cube, "Halpha", 0.0, false_alarm=1e6, scales=[2.5])
    assert np.count_nonzero(velocity.flags == 0) > 8000
    snr = line_snr(cube, "Halpha", 0.0, "matched", velocity=velocity).snr
    # A correlation length of sigma 0.8 px leaves one independent spaxel in 4 pi 0.64 = 8: 0.028 for the mean.
    assert abs(snr.data.mean()) < (0.02 if not spread else 0.06)
    assert abs(snr.data.std() - 1.0) < (0.03 if not spread else 0.045)


def test_a_free_maximum_would_not_do(rng):
    """The same filter placed by each spaxel's own best velocity: what the hole is there for."""
    cube = noise_cube(rng, (120, 40, 40), uneven=False)
    trials = [
        line_snr(cube, "Halpha", 0.0, "matched", velocity=v).snr.data for v in np.linspace(-400, 400, 33)
    ]
    assert np.max(trials, axis=0).mean() > 1.2


def test_velocity_map_of_a_disc_reaches_the_ideal_signal_to_noise(rng):
    disc = rotating_disc(rng)
    velocity = first_velocity_map(disc.cube, "Halpha", 0.0)
    ideal = line_snr(disc.truth, "Halpha", 0.0, "matched", velocity=disc.velocity, sigma=disc.sigma).snr.data
    reached = line_snr(disc.truth, "Halpha", 0.0, "matched", velocity=velocity).snr.data
    ratio = reached / ideal
    for low, high in ((0.3, 1.0), (1.0, 3.0), (3.0, 10.0), (10.0, 100.0)):
        here = (ideal > low) & (ideal < high)
        assert here.sum() > 80
        assert np.median(ratio[here]) > 0.95
        assert reached[here].sum() / ideal[here].sum() > 0.93
    assert np.mean(ratio[ideal > 1.0] > 0.9) > 0.9
    window = line_snr(disc.truth, "Halpha", 0.0).snr.data
    assert np.median((window / ideal)[ideal > 1.0]) < 0.7
    # the error of the velocity holds where it is the noise that limits it, not the slope of the field
    pull = (velocity.data - disc.velocity) / np.sqrt(velocity.variance)
    flat = (ideal < 1.0) & (velocity.flags == 0)
    assert 0.6 < np.median(np.abs(pull[flat])) / 0.6745 < 1.8


def test_noise_beside_a_disc_stays_noise(rng):
    """Velocities carried over from a galaxy to empty spaxels leave these unbiased."""
    disc = rotating_disc(rng, side=100, scale_length=4.0)
    velocity = first_velocity_map(disc.cube, "Halpha", 0.0)
    difference = disc.cube.evolve(data=disc.cube.data - disc.truth.data)
    snr = line_snr(difference, "Halpha", 0.0, "matched", velocity=velocity).snr.data
    assert abs(snr.mean()) < 0.02
    assert abs(snr.std() - 1.0) < 0.03


def test_correlated_channels_ignored_would_claim_too_much(rng):
    cube = noise_cube(rng, (120, 60, 60), kernel=KERNELS["correlated"])
    claimed = line_snr(cube.evolve(correlation=None), "Halpha", 0.0).snr.data.std()
    assert claimed > 1.3
    assert line_snr(cube, "Halpha", 0.0).snr.data.std() == pytest.approx(1.0, abs=0.04)


@pytest.mark.parametrize("offset", [0.0, 0.2, 0.43, 0.7])
@pytest.mark.parametrize("method", ["window", "matched"])
def test_fluxes_are_right_at_any_fraction_of_a_channel(offset, method):
    wave = axis(HALPHA)
    centre = HALPHA + 1.25 * offset
    width = np.hypot(LSF, centre * 30 / LIGHT)
    shape = (120, 4, 4)
    data = 1000.0 * line_profile(wave, np.full((4, 4), centre), width) + 5.0
    cube = cube_of(data, uneven_variance(shape), wave)
    result = line_snr(
        cube, "Halpha", 0.0, method, velocity=(centre / HALPHA - 1) * LIGHT, sigma=30.0, half_width=5 * width
    )
    np.testing.assert_allclose(result.signal.data, 1000.0, rtol=0.01)


def test_default_window_holds_the_line_within_its_allowance():
    velocity = np.linspace(-200, 200, 16).reshape(4, 4)
    wave = axis(HALPHA)
    width = np.hypot(LSF, HALPHA * 30 / LIGHT)
    data = 1000.0 * line_profile(wave, HALPHA * (1 + velocity / LIGHT), width)
    signal = line_snr(cube_of(data, np.ones(data.shape), wave), "Halpha", 0.0).signal.data
    # At +-200 km/s 3 sigma are left on one side (0.1 %); towards [N II] 6548 the window ends earlier, half-way to it.
    np.testing.assert_allclose(signal, 1000.0, rtol=0.02)
    assert (np.abs(signal / 1000.0 - 1.0) < 0.005).mean() > 0.9


def test_window_flux_does_not_jump_as_the_redshift_varies():
    """A flat-topped line twice as wide as a channel: without fractional channels the sum would jump by 10 %."""
    redshift = np.linspace(0, 1.25 / HALPHA, 100).reshape(10, 10)
    wave = axis(HALPHA)
    width = 1.4
    data = 1000.0 * line_profile(wave, HALPHA * (1 + redshift), width)
    cube = cube_of(data, np.ones(data.shape), wave)
    signal = line_snr(cube, "Halpha", redshift, half_width=1.5 * width).signal.data
    assert np.ptp(signal) / signal.mean() < 0.035
    assert np.abs(np.diff(signal.ravel())).max() / signal.mean() < 0.004


def test_blended_lines_are_told_apart_by_the_matched_filter():
    """[O II] 3726 and 3729 at the resolution of MUSE: each alone, and their sum, for any ratio."""
    known = default_lines()
    first, second = known["OII3726"].rest("air"), known["OII3729"].rest("air")
    wave = axis(first * 1.7, 160)
    width = np.hypot(1.1, first * 1.7 * 40 / LIGHT)
    place = np.full((2, 2), 1.7)
    data = 300 * line_profile(wave, first * place, width) + 400 * line_profile(wave, second * place, width)
    cube = cube_of(data, np.ones(data.shape), wave)
    for line, flux in (("OII3726", 300), ("OII3729", 400), (["OII3726", "OII3729"], 700)):
        signal = line_snr(cube, line, 0.7, "matched", velocity=0.0).signal.data
        np.testing.assert_allclose(signal, flux, rtol=0.01)
    both = line_snr(cube, ["OII3726", "OII3729"], 0.7).signal.data
    np.testing.assert_allclose(both, 700, rtol=0.01)


@pytest.mark.parametrize(("side", "least"), [(0.2, 0.97), (0.35, 0.96), (0.5, 0.78)])
def test_what_diagonal_weights_cost_where_channels_are_correlated(side, least):
    """Weights ignore the correlation: against the best possible ones this much of the S/N is left.

    The best weights live on frequencies where noise that was smoothed has nearly no power, and are only as good as
    the tails of a measured correlation; so they are not used.
    """
    kernel = np.array([side, 1.0, side]) / np.hypot(1.0, side * np.sqrt(2))
    n = 61
    lag = np.correlate(kernel, kernel, "full")
    covariance = sum(lag[k + 2] * np.eye(n, k=k) for k in range(-2, 3))
    profile = line_profile(axis(HALPHA, n), np.array(HALPHA), np.hypot(LSF, HALPHA * 40 / LIGHT))
    best = np.sqrt(profile @ np.linalg.solve(covariance, profile))
    diagonal = (profile @ profile) / np.sqrt(profile @ covariance @ profile)
    assert least < diagonal / best < least + 0.03


def test_peak_on_noise_is_the_warning_it_carries(rng):
    cube = noise_cube(rng, (230, 40, 40), uneven=False)
    with pytest.warns(AssumptionWarning, match="pure noise has a mean S/N of about 2.3"):
        snr = line_snr(cube, "Halpha", 0.0, "peak").snr.data
    assert snr.mean() == pytest.approx(2.3, abs=0.1)
