"""Resampling along wavelength: against the full matrix, on every kind of grid, with masks, flags and the LSF."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from astropy.wcs import WCS

from skyloom.core.cube import CubeCorrelation
from skyloom.core.image import Mode
from skyloom.core.spectra import Spectra
from skyloom.errors import InputError
from skyloom.spectral.axes.grids import overlap, pixel_edges, regular_grid
from skyloom.spectral.axes.resample import resample
from tests.oracles import spectral as oracles_spectral
from tests.spectral_invariants import LAGS, make_cube, make_spectra

LINEAR = 4750.0 + 1.25 * np.arange(60)
LOG = 10 ** (3.677 + 1e-4 * np.arange(60))
UNEVEN = 4750.0 + np.cumsum(np.random.default_rng(4).uniform(0.5, 2.0, 60))
GRIDS = {"linear": LINEAR, "log": LOG, "uneven": UNEVEN}


def make(wave, n=3, seed=1, correlation=LAGS, dtype=np.float64, masked=0.02):
    rng = np.random.default_rng(seed)
    shape = (n, wave.size)
    mask = rng.random(shape) < masked
    data = np.where(mask, np.nan, rng.normal(3, 1, shape))
    return Spectra(
        data.astype(dtype),
        rng.uniform(0.5, 2, shape).astype(dtype),
        mask,
        "1e-20 erg/(s cm2 AA)",
        wave,
        "air",
        correlation=correlation,
    )


# --- grids


@pytest.mark.parametrize("name", GRIDS)
def test_edges_lie_half_way(name):
    edges = pixel_edges(GRIDS[name])
    np.testing.assert_allclose(edges, oracles_spectral.pixel_edges(GRIDS[name]), rtol=1e-14)
    inner = np.sqrt(LOG[1:] * LOG[:-1]) if name == "log" else 0.5 * (GRIDS[name][1:] + GRIDS[name][:-1])
    np.testing.assert_allclose(edges[1:-1], inner, rtol=1e-14)


def test_a_grid_in_the_rest_frame_keeps_its_kind():
    np.testing.assert_allclose(pixel_edges(LOG / 1.0885), pixel_edges(LOG) / 1.0885, rtol=1e-14)
    np.testing.assert_allclose(pixel_edges(LINEAR / 1.0885), pixel_edges(LINEAR) / 1.0885, rtol=1e-14)


@pytest.mark.parametrize("step", [1.0, 0.7, 3.0])
def test_a_linear_grid_fills_the_range_with_multiples_of_its_step(step):
    edges = pixel_edges(LINEAR)
    grid = regular_grid(edges, step, "linear")
    np.testing.assert_array_equal(grid, step * np.rint(grid / step))
    assert edges[0] <= grid[0] - step / 2 < edges[0] + step
    assert edges[-1] - step < grid[-1] + step / 2 <= edges[-1]


def test_a_log_grid_coincides_with_that_of_the_survey():
    grid = regular_grid(pixel_edges(LOG), 1e-4, "log")
    np.testing.assert_allclose(grid, LOG, rtol=1e-13)
    np.testing.assert_allclose(np.diff(np.log10(grid)), 1e-4, rtol=1e-9)


@pytest.mark.parametrize(
    ("step", "sampling", "message"),
    [
        (0.0, "linear", "step is 0"),
        (np.nan, "linear", "step is nan"),
        (1.0, "cubic", "sampling is 'cubic'"),
        (1.0, "log", "1e-4 is 69 km/s"),
        (60.0, "linear", "leaves no two pixels between 4749.4 and 4824.4 A"),
    ],
)
def test_an_impossible_grid_is_refused(step, sampling, message):
    with pytest.raises(InputError, match=message):
        resample(make(LINEAR), step=step, sampling=sampling)


@pytest.mark.parametrize("wave", [[5000.0], [4800.0, 4799.0], [4800.0, np.nan], [[4800.0, 4801.0]]])
def test_impossible_wavelengths_are_refused(wave):
    with pytest.raises(InputError, match="wave"):
        resample(make(LINEAR), wave)


def test_exactly_one_grid_is_asked_for():
    with pytest.raises(InputError, match="neither wave nor step"):
        resample(make(LINEAR))
    with pytest.raises(InputError, match="both wave and step"):
        resample(make(LINEAR), LINEAR, step=1.0)
    with pytest.raises(InputError, match=r"no new pixel lies wholly between 4750\.0 and 4823\.8 A"):
        resample(make(LINEAR), LINEAR + 500)


# --- values


@pytest.mark.parametrize("correlation", ["independent", "lags", "band"])
@pytest.mark.parametrize("target", ["linear", "log", "uneven", "coarse", "wider"])
@pytest.mark.parametrize("source", GRIDS)
def test_values_are_those_of_the_full_matrix(source, target, correlation):
    wave = GRIDS[source]
    grid = {
        "linear": 4760.0 + 1.0 * np.arange(40),
        "log": 10 ** (3.6785 + 0.9e-4 * np.arange(30)),
        "uneven": 4760 + np.cumsum(np.random.default_rng(5).uniform(0.3, 3, 20)),
        "coarse": 4757.0 + 6.1 * np.arange(6),
        "wider": 4700.0 + 2.0 * np.arange(100),
    }[target]
    band = oracles_spectral.lag_matrix(LAGS, 60)
    lags = {"independent": None, "lags": LAGS, "band": make_band(band)}[correlation]
    spectra = make(wave, correlation=lags)
    result = resample(spectra, grid)
    assert result.valid.any()
    for row in range(3):
        data, variance, hidden = oracles_spectral.resample_spectrum(
            wave, grid, spectra.data[row], spectra.variance[row], spectra.mask[row], lags
        )
        np.testing.assert_array_equal(result.mask[row], hidden)
        np.testing.assert_allclose(result.data[row][~hidden], data[~hidden], rtol=1e-9)
        np.testing.assert_allclose(result.variance[row][~hidden], variance[~hidden], rtol=1e-9)


def make_band(matrix, radius=2):
    n_wave = matrix.shape[0]
    band = np.zeros((n_wave, 2 * radius + 1))
    for i in range(n_wave):
        for lag in range(-radius, radius + 1):
            if 0 <= i + lag < n_wave:
                band[i, radius + lag] = matrix[i, i + lag]
    return band


def test_a_cube_is_resampled_like_its_spectra():
    cube = make_cube(np.float64)
    result = resample(cube, step=1.0)
    spectra = Spectra(
        cube.data.reshape(80, -1).T, cube.variance.reshape(80, -1).T, cube.mask.reshape(80, -1).T, cube.unit,
        cube.wave, "air", cube.lsf.reshape(80, -1).T, LAGS, cube.flags.reshape(80, -1).T,
    )  # fmt: skip
    rows = resample(spectra, step=1.0)
    for name in ("data", "variance", "mask", "lsf", "flags"):
        plane = getattr(result, name)
        np.testing.assert_allclose(plane.reshape(plane.shape[0], -1).T, getattr(rows, name), rtol=1e-12)
    np.testing.assert_allclose(result.correlation.spectral, rows.correlation, rtol=1e-9)
    np.testing.assert_array_equal(result.correlation.spatial, cube.correlation.spatial)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_do_not_matter(threads, monkeypatch):
    cube, spectra = make_cube(), make_spectra()
    whole = resample(cube, step=1.0), resample(spectra, step=1.0)
    monkeypatch.setattr(sys.modules[resample.__module__], "SPAXELS", 32)
    for subject, expected in zip((cube, spectra), whole, strict=True):
        result = resample(subject, step=1.0, threads=threads)
        np.testing.assert_array_equal(result.data, expected.data)
        np.testing.assert_array_equal(result.variance, expected.variance)


def test_one_masked_pixel_hides_only_what_touches_it():
    spectra = make(LINEAR, masked=0)
    mask = spectra.mask.copy()
    mask[1, 30] = True
    data = spectra.data.copy()
    data[1, 30] = np.nan
    result = resample(spectra.evolve(data=data, mask=mask), step=1.0)
    low, high = pixel_edges(LINEAR)[30:32]
    edges = pixel_edges(result.wave)
    touched = (edges[1:] > low) & (edges[:-1] < high)
    np.testing.assert_array_equal(result.mask[1], touched)
    assert touched.sum() in (2, 3)
    assert not result.mask[[0, 2]].any()


def test_pixels_that_only_share_an_edge_do_not_touch():
    spectra = make(LINEAR, masked=0)
    mask = spectra.mask.copy()
    mask[0, 30] = True
    # Each new pixel is two old ones; 0.1 + 0.2 style rounding of the edges must not spread the mask.
    pairs = 0.5 * (LINEAR[::2] + LINEAR[1::2])
    result = resample(spectra.evolve(mask=mask), pairs)
    assert np.flatnonzero(result.mask[0]).tolist() == [15]
    np.testing.assert_allclose(
        result.data[0, :15], 0.5 * (spectra.data[0, 0:30:2] + spectra.data[0, 1:30:2]), rtol=1e-9
    )


def test_the_same_grid_is_not_resampled():
    cube = make_cube()
    same = resample(cube, cube.wave.copy())
    assert same.data is cube.data
    assert same.correlation is cube.correlation or same.correlation == cube.correlation
    assert same.history[-1].parameters["same_grid"] is True
    log = make(LOG)
    assert resample(log, step=1e-4, sampling="log").data is log.data


def test_new_pixels_of_whole_old_ones_stay_independent():
    spectra = make(LINEAR, correlation=None)
    assert resample(spectra, 0.5 * (LINEAR[::2] + LINEAR[1::2])).correlation is None
    cube = make_cube().evolve(correlation=None)
    assert resample(cube, 0.5 * (cube.wave[::2] + cube.wave[1::2])).correlation is None
    assert resample(cube, step=1.0).correlation.spatial is None
    kernel = np.outer([0.2, 1, 0.2], [0.2, 1, 0.2])
    spatial = resample(
        cube.evolve(correlation=CubeCorrelation(kernel, None)), 0.5 * (cube.wave[::2] + cube.wave[1::2])
    )
    assert spatial.correlation.spectral is None
    np.testing.assert_array_equal(spatial.correlation.spatial, kernel)


def test_where_nothing_was_seen_nothing_is_said():
    spectra = make(LINEAR, masked=0)
    result = resample(spectra.evolve(lsf=1.1), 4700.0 + np.arange(200.0))
    edges, source = pixel_edges(result.wave), pixel_edges(LINEAR)
    outside = (edges[:-1] < source[0] - 1e-6) | (edges[1:] > source[-1] + 1e-6)
    np.testing.assert_array_equal(result.mask, np.tile(outside, (3, 1)))
    assert result.history[-1].parameters["n_uncovered"] == outside.sum()
    assert np.all(result.lsf > 1.1)


def test_a_spectrum_without_any_value_stays_without():
    spectra = make(LINEAR, masked=0)
    mask = spectra.mask.copy()
    mask[1] = True
    result = resample(spectra.evolve(mask=mask), step=1.0)
    assert result.mask[1].all()
    assert not result.mask[[0, 2]].any()
    empty = resample(spectra.evolve(mask=np.ones_like(mask)), step=1.0)
    assert empty.mask.all()


def test_flags_of_all_that_a_pixel_holds():
    spectra = make(LINEAR, masked=0)
    flags = np.zeros((3, 60), np.uint16)
    flags[0, 30], flags[0, 31] = 1, 8
    result = resample(spectra.evolve(flags=flags), step=1.0)
    shares = overlap(pixel_edges(LINEAR), pixel_edges(result.wave))
    for j in range(result.wave.size):
        touched = shares.first[j] + np.flatnonzero(shares.weights[j])
        assert result.flags[0, j] == np.bitwise_or.reduce(flags[0, touched])
    assert 9 in result.flags[0]


def test_shared_errors_are_resampled_like_data():
    spectra = make(LINEAR, masked=0)
    slope = np.tile(LINEAR - 4780.0, (3, 1))
    result = resample(spectra.evolve(modes=(Mode("slope", slope, 0.1), Mode("level", 2.0, 0.3))), step=1.0)
    expected = resample(spectra.evolve(data=slope), step=1.0).data
    np.testing.assert_allclose(result.modes[0].map, expected, rtol=1e-12)
    assert result.modes[1] == ("level", 2.0, 0.3)


def test_a_wcs_with_a_spectral_axis_keeps_only_the_sky():
    wcs = WCS(naxis=3)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN", "AWAV"]
    wcs.wcs.crval, wcs.wcs.cdelt = [53.1, -27.8, 6500.0], [-5e-5, 5e-5, 1.25]
    wcs.wcs.cunit = ["deg", "deg", "Angstrom"]
    assert resample(make_cube().evolve(wcs=wcs), step=1.0).wcs.naxis == 2


# --- the line-spread function


def stacked_width(wave, data, centres):
    """Standard deviation of a line about its true centre, averaged over lines at all phases."""
    offset = wave - np.asarray(centres)[:, None]
    return np.sqrt(np.sum(data * offset**2) / np.sum(data))


@pytest.mark.parametrize("target", ["1 A", "1.25 A, shifted", "2.5 A, whole pixels", "3 A", "log"])
def test_the_lsf_is_the_width_of_a_line_as_it_is_sampled(target):
    wave = 4750.0 + 1.25 * np.arange(160)
    centres = 4850 + np.linspace(-8, 8, 1500)
    sigma = 1.4
    data = np.exp(-0.5 * ((wave - centres[:, None]) / sigma) ** 2)
    spectra = Spectra(data, np.ones_like(data), None, "1e-20 erg/(s cm2 AA)", wave, "air", lsf=sigma)
    options = {
        "1 A": {"step": 1.0},
        "1.25 A, shifted": {"wave": wave[1:-1] + 0.4},
        "2.5 A, whole pixels": {"wave": 0.5 * (wave[::2] + wave[1::2])},
        "3 A": {"step": 3.0},
        "log": {"step": 1e-4, "sampling": "log"},
    }[target]
    result = resample(spectra, **options)
    lsf = np.interp(4850.0, result.wave, result.lsf)
    # The width that is there, against the width that is claimed; without the broadening it would be 5 to 15 % off.
    assert stacked_width(result.wave, result.data, centres) == pytest.approx(lsf, rel=4e-3)
    assert lsf > 1.03 * sigma


def test_an_unknown_width_stays_where_it_is():
    lsf = np.full((3, 60), 1.2)
    lsf[1, 30] = np.nan
    result = resample(make(LINEAR, masked=0).evolve(lsf=lsf), step=1.0)
    assert 2 <= np.count_nonzero(np.isnan(result.lsf)) <= 3
    assert np.isfinite(result.lsf[[0, 2]]).all()


def test_no_lsf_stays_no_lsf():
    assert resample(make(LINEAR), step=1.0).lsf is None
