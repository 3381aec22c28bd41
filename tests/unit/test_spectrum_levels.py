"""Spectra on the common grid of a store and at coarser levels, beside explicit operators on a dense covariance."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest

from skyloom.core.image import Flag, Mode
from skyloom.core.linelist import air_to_vacuum, vacuum_to_air
from skyloom.core.spectra import Spectra
from skyloom.core.spectral_noise import weighted_sum_variance
from skyloom.errors import ShapeError
from skyloom.spectral.axes.grids import pixel_edges
from skyloom.spectral.axes.resample import resample
from skyloom.store.levels.common_grid import common_wave, level_edges, on_common_grid, rows
from skyloom.store.levels.spectra import spectrum_levels
from skyloom.store.schema import CommonGrid, StoreSettings
from tests.oracles.spectral_pyramid import (
    coarser,
    correlation_of,
    dense_correlation,
    log_edges,
    on_grid,
    random_bands,
    resampling_operator,
)
from tests.spectral_invariants import check_spectral_invariants, make_spectra

UNIT = "1e-17 erg/(s cm2 AA)"
GRID = CommonGrid(5000.0, 5060.0)
SETTINGS = StoreSettings(common_grid=GRID, levels=4)
STEP = GRID.step
LAGS = np.array([0.1, 0.4, 1.0, 0.4, 0.1])


def first_pixel():
    return round(float(np.log10(common_wave(GRID)[0])) / STEP)


def waves(kind):
    """Grids that lie otherwise: SDSS's own, moved by part of a pixel, finer, coarser, linear, beyond the ends."""
    start = first_pixel()
    return {
        "aligned": 10 ** (STEP * (start + 4 + np.arange(40))),
        "aligned, longer": 10 ** (STEP * (start - 7 + np.arange(70))),
        "shifted": 10 ** (STEP * (start + 3.3 + np.arange(41))),
        "fine": 5004.0 + 0.4 * np.arange(110),
        "coarse": 4990.0 + 2.9 * np.arange(27),
        "linear": 5003.0 + 1.25 * np.arange(40),
    }[kind]


def make(wave, correlation=None, seed=1, *, masked=True, **more):
    rng = np.random.default_rng(seed)
    variance = rng.uniform(0.5, 2.0, wave.size)
    variance[wave.size // 2] = 40.0
    data = rng.normal(5, 1, wave.size)
    mask = np.zeros(wave.size, bool)
    if masked:
        mask[[5, 6, 7, wave.size // 2 + 3]] = True
        data[mask], variance[mask] = np.nan, -1.0
    more = {"medium": "vacuum", **more}
    return Spectra(data[None], variance[None], mask[None], UNIT, wave, correlation=correlation, **more)


KINDS = ["aligned", "aligned, longer", "shifted", "fine", "coarse", "linear"]


@pytest.mark.parametrize("medium", ["vacuum", "air"])
@pytest.mark.parametrize("noise", ["white", "lags", "bands"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_level_is_what_explicit_operators_make_of_it(kind, noise, medium):
    wave = waves(kind)
    correlation = {"white": None, "lags": LAGS, "bands": random_bands(wave.size, 2)}[noise]
    if medium == "air":
        wave = vacuum_to_air(wave)
    spectrum = make(wave, correlation, medium=medium)
    native, levels = spectrum_levels(spectrum, SETTINGS)
    source, target = pixel_edges(wave), log_edges(STEP, first_pixel(), common_wave(GRID).size)
    scale = np.ones(wave.size)
    if medium == "air":
        scale = np.diff(source) / np.diff(air_to_vacuum(source))
        source = air_to_vacuum(source)
    elif kind.startswith("aligned"):
        # Neighbours touch by what rounding leaves of 1e-12 pixels, which the operator must not see as an overlap.
        source = log_edges(STEP, round(float(np.log10(wave[0]) / STEP)), wave.size)
    operator = resampling_operator(source, target)
    single = native.subject
    data, covariance, mask = on_grid(
        single.data[0].astype(float), single.variance[0].astype(float), single.mask[0], correlation, operator, scale
    )  # fmt: skip
    assert 1 <= mask.sum() < mask.size - 10
    for number, level in enumerate(levels):
        values, expected, hidden, counts = coarser(data, covariance, mask, np.diff(target), number)
        check_level(level, values, expected, hidden, counts)


def check_level(level, values, covariance, hidden, counts):
    subject = level.subject
    good = ~hidden
    assert subject.data.dtype == subject.variance.dtype == np.float32
    np.testing.assert_array_equal(subject.mask[0], hidden)
    np.testing.assert_array_equal(level.n_good[0], counts)
    assert np.isnan(subject.data[0][hidden]).all()
    np.testing.assert_allclose(subject.data[0][good], values[good], rtol=1e-6)
    np.testing.assert_allclose(subject.variance[0][good], np.diag(covariance)[good], rtol=2e-6)
    found = dense_correlation(subject.correlation, hidden.size)
    for i in np.flatnonzero(good):
        for j in np.flatnonzero(good):
            # Half of 1 % of a long sum's variance may be left out.
            assert abs(found[i, j] - correlation_of(covariance, i, j)) < 5e-3
    for width in (1, 5, 50):
        for start in range(0, hidden.size, width):
            weights = np.zeros(hidden.size)
            weights[start : start + width] = good[start : start + width]
            variance = weighted_sum_variance(subject.variance[0], weights, subject.correlation)
            assert variance == pytest.approx(weights @ covariance @ weights, rel=5e-3)
    if subject.correlation is not None:
        assert np.abs(subject.correlation[:, subject.correlation.shape[1] // 2] - 1).max() == 0
        reached = np.abs(subject.correlation).max(axis=0)
        assert reached[0] > 0


@pytest.mark.parametrize("level", range(4))
def test_wavelengths_of_levels(level):
    wave, edges = common_wave(GRID, level), level_edges(GRID, level)
    assert wave.dtype == np.float64
    assert wave.size == -(-common_wave(GRID).size // 2**level)
    np.testing.assert_allclose(edges, log_edges(STEP, first_pixel(), wave.size, 2**level), rtol=1e-13)
    np.testing.assert_allclose(pixel_edges(wave), edges, rtol=1e-12)
    np.testing.assert_array_equal(edges[:-1], level_edges(GRID)[:: 2**level][: edges.size - 1])
    assert wave[0] >= GRID.start
    if level == 0:
        whole = np.log10(wave) / STEP
        np.testing.assert_allclose(whole, np.round(whole), atol=1e-8)


def test_a_grid_of_sdss_is_copied_bit_by_bit():
    wave = 10 ** (3.5793 + 1e-4 * np.arange(3848))
    spectrum = make(wave, lsf=np.linspace(1.0, 2.0, wave.size))
    single = spectrum.evolve(data=spectrum.data.astype("f4"), variance=np.abs(spectrum.variance).astype("f4"))
    moved = on_common_grid(single, CommonGrid()).subject
    start = int(np.argmin(np.abs(moved.wave - wave[0])))
    part = slice(start, start + wave.size)
    good = single.valid[0]
    np.testing.assert_allclose(moved.wave[part], wave, rtol=1e-13)
    np.testing.assert_array_equal(moved.mask[0][part], single.mask[0])
    np.testing.assert_array_equal(moved.data[0][part][good], single.data[0][good])
    np.testing.assert_array_equal(moved.variance[0][part][good], single.variance[0][good])
    np.testing.assert_array_equal(moved.lsf[part], single.lsf)
    assert moved.correlation is None
    assert moved.mask[0][:start].all()
    assert moved.mask[0][part.stop :].all()
    assert moved.history[-1].parameters["copied"] is True


@pytest.mark.parametrize("shift", [5e-4, 5e-3])
def test_a_thousandth_of_a_pixel_decides(shift):
    wave = 10 ** (STEP * (first_pixel() + 4 + shift + np.arange(40)))
    moved = on_common_grid(make(wave, masked=False), GRID)
    assert moved.subject.history[-1].parameters["copied"] is (shift < 1e-3)
    assert (moved.subject.correlation is None) == (shift < 1e-3)


@pytest.mark.parametrize("kind", ["shifted", "fine", "linear"])
def test_the_same_as_resample_but_with_its_own_lags(kind):
    spectrum = make(waves(kind), LAGS, lsf=1.7, flags=np.full((1, waves(kind).size), Flag.NEAR_SATURATED))
    moved = on_common_grid(spectrum, GRID).subject
    other = resample(spectrum, common_wave(GRID))
    np.testing.assert_array_equal(moved.mask, other.mask)
    good = ~moved.mask
    np.testing.assert_allclose(moved.data[good], other.data[good], rtol=1e-6)
    np.testing.assert_allclose(moved.variance[good], other.variance[good], rtol=1e-6)
    np.testing.assert_allclose(moved.lsf, other.lsf, rtol=1e-9)
    np.testing.assert_array_equal(moved.flags, other.flags)


@pytest.mark.parametrize("kind", KINDS)
def test_flux_is_conserved_at_every_level(kind):
    spectrum = make(waves(kind))
    _, levels = spectrum_levels(spectrum, SETTINGS)
    widths = np.where(levels[0].subject.mask[0], 0.0, np.diff(level_edges(GRID)))
    total = np.sum(np.where(widths > 0, levels[0].subject.data[0], 0) * widths)
    variance = weighted_sum_variance(levels[0].subject.variance[0], widths, levels[0].subject.correlation)
    for level in levels[1:]:
        widths = np.append(widths, np.zeros(widths.size % 2)).reshape(-1, 2).sum(axis=1)
        subject = level.subject
        flux = np.sum(np.where(widths > 0, subject.data[0], 0) * widths)
        assert flux == pytest.approx(total, rel=1e-6)
        # The error of the whole stays the same, too, but for the lags that are left out.
        found = weighted_sum_variance(subject.variance[0], widths, subject.correlation)
        assert found == pytest.approx(variance, rel=5e-3)


def test_flux_of_a_line_in_air_is_conserved():
    wave = vacuum_to_air(waves("fine"))
    data = 10 * np.exp(-0.5 * ((wave - wave[55]) / 1.5) ** 2)
    spectrum = Spectra(data[None], np.ones((1, wave.size)), None, UNIT, wave, "air")
    moved = on_common_grid(spectrum, GRID).subject
    assert moved.medium == "vacuum"
    good = moved.valid[0]
    flux = np.sum(moved.data[0][good] * np.diff(level_edges(GRID))[good])
    assert flux == pytest.approx(np.sum(data * np.diff(pixel_edges(wave))), rel=1e-6)
    centre = np.average(moved.wave[good], weights=(moved.data[0] * np.diff(level_edges(GRID)))[good])
    assert centre == pytest.approx(float(air_to_vacuum(wave[55])), abs=5e-3)


def test_the_lsf_grows_by_the_pixels_that_are_joined():
    """The second moment of a line in the levels' own pixels is the LSF that they tell."""
    grid = CommonGrid(5000.0, 5400.0)
    wave = 10 ** (1e-4 * (36988 + np.arange(330)))
    assert wave[0] < 5100.0 < 5300.0 < wave[-1]
    spectrum = Spectra(np.ones((1, 330)), np.ones((1, 330)), None, UNIT, wave, "vacuum", lsf=2.5)
    _, levels = spectrum_levels(spectrum, StoreSettings(common_grid=grid, levels=4))
    for number, level in enumerate(levels):
        edges = level_edges(grid, number)
        middle = np.argmin(np.abs(level.subject.wave - 5200.0))
        pixel = edges[middle + 1] - edges[middle]
        first = wave[np.argmin(np.abs(wave - 5200.0))] * 1e-4 * np.log(10)
        expected = np.sqrt(2.5**2 + (pixel**2 - first**2) / 12)
        assert level.subject.lsf[middle] == pytest.approx(expected, rel=1e-3)
    assert all(level.subject.lsf.shape == level.subject.wave.shape for level in levels)


def test_an_unknown_lsf_spoils_only_what_it_touches():
    lsf = np.full(40, 1.5)
    lsf[20] = np.nan
    _, levels = spectrum_levels(make(waves("aligned"), lsf=lsf), SETTINGS)
    assert np.isnan(levels[0].subject.lsf).sum() == 1
    assert np.isfinite(levels[1].subject.lsf).all()


def test_flags_and_shared_errors_go_along():
    wave = waves("aligned")
    flags = np.zeros((1, 40), np.uint16)
    flags[0, 20], flags[0, 5] = 8, 16  # The second of them is under the mask, as are its neighbours.
    modes = (Mode("sky", np.linspace(1, 2, 40)[None], 0.1), Mode("zero point", 1.0, 0.02))
    _, levels = spectrum_levels(make(wave, flags=flags, modes=modes), SETTINGS)
    assert (levels[0].subject.flags == 8).sum() == 1
    assert [int((level.subject.flags & 8 > 0).sum()) for level in levels] == [1, 1, 1, 1]
    assert levels[3].subject.flags[0, (4 + 5) // 8] & 16 == 0
    subject = levels[1].subject
    full = np.flatnonzero(levels[1].n_good[0] == 2)[3]
    before = levels[0].subject.modes[0].map[0]
    assert subject.modes[0].map[0, full] == pytest.approx(before[2 * full : 2 * full + 2].mean(), rel=1e-4)
    assert subject.modes[1] == Mode("zero point", 1.0, 0.02)


def test_half_masked_pairs_are_the_good_half():
    wave = waves("aligned")
    spectrum = make(wave, masked=False)
    mask = np.zeros((1, 40), bool)
    mask[0, 1::2] = True
    _, levels = spectrum_levels(spectrum.evolve(mask=mask), SETTINGS)
    start = int(np.argmin(np.abs(levels[0].subject.wave - wave[0])))
    assert start % 2 == 0
    half = slice(start // 2, start // 2 + 20)
    np.testing.assert_array_equal(
        levels[1].subject.data[0, half], levels[0].subject.data[0, start : start + 40 : 2]
    )
    np.testing.assert_array_equal(levels[1].n_good[0, half], 1)
    assert levels[2].n_good.max() == 2


def test_where_the_common_grid_is_not_reached():
    native, levels = spectrum_levels(make(7000.0 + np.arange(50.0)), SETTINGS)
    assert levels == ()
    assert native.subject.data.shape == (1, 50)
    assert on_common_grid(make(10 ** (1e-4 * (38500 + np.arange(50)))), GRID) is None


def test_a_spectrum_that_is_masked_all_over():
    spectrum = make(waves("shifted")).evolve(mask=np.ones((1, 41), bool))
    native, levels = spectrum_levels(spectrum, SETTINGS)
    assert native.n_good.sum() == 0
    assert all(level.subject.mask.all() and level.n_good.sum() == 0 for level in levels)
    assert len(levels) == 4


def test_the_native_level_is_what_was_observed():
    wave = waves("linear")
    spectrum = make(wave, LAGS, lsf=1.2, medium="air")
    native, _ = spectrum_levels(spectrum, SETTINGS)
    subject = native.subject
    assert subject.data.dtype == np.float32
    np.testing.assert_array_equal(subject.wave, wave)
    assert (subject.medium, subject.lsf, subject.unit) == ("air", 1.2, spectrum.unit)
    np.testing.assert_array_equal(subject.correlation, LAGS)
    np.testing.assert_array_equal(native.n_good, ~spectrum.mask)


def test_values_too_small_for_single_precision_change_their_unit():
    spectrum = make(waves("aligned"), modes=(Mode("sky", 2e-22, 0.1),))
    small = spectrum.evolve(
        data=spectrum.data * 1e-22, variance=np.abs(spectrum.variance) * 1e-44, unit="erg/(s cm2 AA)"
    )
    native, levels = spectrum_levels(small, SETTINGS)
    subject = native.subject
    good = subject.valid
    factor = subject.unit.to(small.unit)
    assert 1e-23 < factor < 1e-20
    np.testing.assert_allclose(subject.data[good] * factor, small.data[good], rtol=1e-6)
    np.testing.assert_allclose(
        subject.variance[good].astype(float) * factor**2, small.variance[good], rtol=1e-6
    )
    assert subject.modes[0].map * subject.modes[0].sigma * factor == pytest.approx(2e-23)
    assert levels[3].subject.unit == subject.unit
    assert u.Unit(str(subject.unit)).is_equivalent(small.unit)


def test_what_is_masked_may_be_anything():
    spectrum = make(waves("shifted"), LAGS)
    _, expected = spectrum_levels(spectrum, SETTINGS)
    for value in (np.nan, np.inf, -np.inf, 1e300):
        data, variance = (
            np.where(spectrum.mask, value, plane) for plane in (spectrum.data, spectrum.variance)
        )
        _, levels = spectrum_levels(spectrum.evolve(data=data, variance=variance), SETTINGS)
        for level, other in zip(levels, expected, strict=True):
            np.testing.assert_array_equal(level.subject.data, other.subject.data)
            np.testing.assert_array_equal(level.subject.variance, other.subject.variance)
            np.testing.assert_array_equal(level.subject.correlation, other.subject.correlation)


def test_rows_have_what_belongs_to_each():
    wave = waves("linear")
    one, two = make(wave, seed=1), make(wave, seed=2)
    both = Spectra(
        np.vstack((one.data, two.data)), np.vstack((one.variance, two.variance)), np.vstack((one.mask, two.mask)),
        UNIT, wave, "vacuum", lsf=np.vstack((np.full(40, 1.0), np.full(40, 2.0))),
        modes=(Mode("sky", np.vstack((np.ones(40), np.zeros(40))), 0.1), Mode("zero", 1.0, 0.1)),
        meta={"object": "a galaxy", "n_pixels": np.array([5, 7]), "labels": [3, 4], "three": [1, 2, 3]},
    )  # fmt: skip
    first, second = rows(both)
    np.testing.assert_array_equal(second.data, two.data)
    assert (first.lsf.max(), second.lsf.min()) == (1.0, 2.0)
    assert first.modes[0].map.shape == (1, 40)
    assert second.modes[0].map.max() == 0
    assert second.meta == {"object": "a galaxy", "n_pixels": 7, "labels": 4, "three": [1, 2, 3]}
    _, levels = spectrum_levels(second, SETTINGS)
    assert levels[0].subject.lsf.shape == common_wave(GRID).shape
    assert next(rows(one)) is one
    with pytest.raises(ShapeError, match="2 spectra"):
        spectrum_levels(both, SETTINGS)


@pytest.mark.parametrize("sampling", ["linear", "log"])
def test_nothing_is_lost_on_the_way_to_the_common_grid(sampling):
    grid = CommonGrid(6490.0, 6610.0)
    changes = ("wave", "lsf", "correlation", "mask", "shape")
    spectrum = make_spectra(n=1, sampling=sampling)
    check_spectral_invariants(lambda given: on_common_grid(given, grid).subject, spectrum, changes=changes)


def test_history_says_how_often_a_spectrum_was_halved():
    _, levels = spectrum_levels(make(waves("aligned")).evolve(data=np.ones((1, 40), "f4")), SETTINGS)
    for number, level in enumerate(levels):
        names = [step.name for step in level.subject.history]
        assert names.count("on_common_grid") == 1
        assert names.count("halve_spectrum") == (number > 0)
        if number:
            assert level.subject.history[-1].parameters["level"] == number
