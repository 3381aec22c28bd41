"""Convolution of an image: data, variance and mask together; what is masked or missing neither spreads nor counts."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS

from skyloom.core.image import Flag, Image, Mode
from skyloom.core.noise import convolve_correlation
from skyloom.core.psf import GaussianPSF, SampledPSF, square_matrix
from skyloom.errors import InputError, ShapeError
from skyloom.imaging.psfs import stencil as stencil_module
from skyloom.imaging.psfs.convolve import convolve, match_psf, matching_kernel
from skyloom.imaging.psfs.stencil import Stencil
from skyloom.kernels.images.convolve import convolve_separable, normalise_convolution, subtract_footprints
from tests.oracles import convolve as oracles

SCALE = 0.06
PIXELS = square_matrix(SCALE)
CROSS = np.outer([0.3, 1.0, 0.3], [0.2, 1.0, 0.2])


def make_wcs(scale=SCALE):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = [53.0, -27.0], [1.0, 1.0], [-scale / 3600, scale / 3600]
    return wcs


def make_image(rng, shape=(23, 30), masked=0.05, dtype=np.float32, **fields):
    data = rng.normal(3.0, 1.0, shape).astype(dtype)
    variance = rng.uniform(0.5, 2.0, shape).astype(dtype)
    mask = rng.random(shape) < masked
    data[mask] = np.nan
    return Image(data, variance, mask, "electron/s", make_wcs(), **fields)


def gaussian(sigma):
    return GaussianPSF.from_sigma(sigma * SCALE)


def centroid(array):
    y, x = np.indices(array.shape)
    return np.array([np.sum(x * array), np.sum(y * array)]) / np.sum(array)


KERNELS = {
    "separable": np.outer([1.0, 2.0, 4.0, 1.0, 0.5], [1.0, 3.0, 1.0]),
    "three ranks": np.random.default_rng(1).random((3, 5)),
    "negative lobes": np.outer([-0.1, 0.3, 1.0, 0.3, -0.1], [-0.2, 1.0, -0.2]),
    "wider than the image": np.outer(np.hanning(55), np.hanning(71)),
    "one pixel": np.array([[2.0]]),
    "one row": np.array([[0.25, 0.5, 0.25]]),
}


# --- against naive twins -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("masked", [0.0, 0.1])
@pytest.mark.parametrize("correlation", [None, CROSS], ids=["white", "correlated"])
def test_convolution_equals_its_naive_twin(rng, name, masked, correlation):
    kernel = KERNELS[name]
    image = make_image(rng, masked=masked, correlation=correlation)
    result = convolve(image, kernel, coverage=0.3)
    _, variance_kernel = convolve_correlation(kernel, correlation)
    data, variance, coverage = oracles.normalised_convolution(
        image.data, image.variance, image.mask, kernel, variance_kernel
    )
    np.testing.assert_array_equal(result.mask, ~(coverage >= 0.3))
    valid = result.valid
    np.testing.assert_allclose(result.data[valid], data[valid], rtol=2e-5, atol=1e-5 * kernel.sum())
    np.testing.assert_allclose(result.variance[valid], variance[valid], rtol=2e-5)


@pytest.mark.parametrize("tile", [1024, 40])
def test_kernels_that_are_not_separable_go_through_the_fft_and_give_the_same(rng, monkeypatch, tile):
    monkeypatch.setattr(stencil_module, "TILE", tile)
    monkeypatch.setattr(stencil_module, "MAX_TAPS", 20)
    kernel = rng.normal(1.0, 1.0, (9, 7))
    image = make_image(rng, (61, 97), dtype=np.float64)
    stencil = Stencil(kernel)
    assert stencil._factors is None
    result = convolve(image, stencil, coverage=0.5)
    data, variance, coverage = oracles.normalised_convolution(
        image.data, image.variance, image.mask, kernel, kernel**2
    )
    np.testing.assert_array_equal(result.mask, coverage < 0.5)
    np.testing.assert_allclose(result.data[result.valid], data[result.valid], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(result.variance[result.valid], variance[result.valid], rtol=1e-8)


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "interpreted"])
def test_separable_passes_with_and_without_the_compiler(rng, compiled):
    plane = rng.normal(size=(9, 13))
    mask = rng.random(plane.shape) < 0.2
    along_x, along_y = rng.normal(size=(2, 11)), rng.normal(size=(2, 3))
    out = np.empty_like(plane)
    run = convolve_separable if compiled else convolve_separable.py_func
    run(np.where(mask, np.nan, plane), mask, False, along_x, along_y, out)
    kernel = along_y.T @ along_x
    naive = np.zeros_like(plane)
    for (y, x), value in np.ndenumerate(np.where(mask, 0.0, plane)):
        for (row, column), tap in np.ndenumerate(kernel):
            target = y + row - 1, x + column - 5
            if 0 <= target[0] < 9 and 0 <= target[1] < 13:
                naive[target] += tap * value
    np.testing.assert_allclose(out, naive, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "interpreted"])
def test_footprints_of_masked_pixels_with_and_without_the_compiler(rng, compiled):
    mask = rng.random((12, 15)) < 0.1
    kernel = rng.random((5, 7))
    shares = np.zeros(mask.shape)
    run = subtract_footprints if compiled else subtract_footprints.py_func
    run(shares, mask, kernel)
    expected = np.zeros((16, 21))
    for y, x in np.argwhere(mask):
        expected[y : y + 5, x : x + 7] -= kernel
    np.testing.assert_allclose(shares, expected[2:-2, 3:-3], atol=1e-14)


@pytest.mark.parametrize("name", ["separable", "negative lobes", "three ranks"])
def test_shares_are_the_same_however_they_are_found(rng, monkeypatch, name):
    mask = rng.random((30, 40)) < 0.05
    plane = np.zeros(mask.shape)
    one_by_one = Stencil(KERNELS[name]).shares(plane, mask)
    monkeypatch.setattr(stencil_module, "SPARSE", 0.0)
    together = Stencil(KERNELS[name]).shares(plane, mask)
    np.testing.assert_allclose(one_by_one.signed, together.signed, atol=1e-12)
    np.testing.assert_allclose(one_by_one.coverage, together.coverage, atol=1e-12)
    np.testing.assert_array_equal(one_by_one.plane(one_by_one.signed), one_by_one.signed)


@pytest.mark.parametrize("shape", [(30, 40), (5, 40), (7, 6), (9, 9)])
def test_shares_along_borders_are_found_from_few_distinct_places(shape):
    kernel = np.outer([1.0, 2.0, 3.0, 2.0, 1.0], [1.0, 4.0, 9.0, 4.0, -1.0, 0.0, 0.5])
    stencil = Stencil(kernel)
    mask = np.zeros(shape, bool)
    shares = stencil.shares(np.zeros(shape), mask)
    whole = stencil.convolve(np.ones(shape), mask) / kernel.sum()
    np.testing.assert_allclose(shares.plane(shares.signed), whole, atol=1e-12)


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "interpreted"])
def test_last_step_with_and_without_the_compiler(compiled):
    data, variance = np.array([[2.0, 2.0, 2.0, 2.0]]), np.array([[4.0, 4.0, 4.0, 0.0]])
    share = np.array([[1.0, 0.5, 0.2]])
    mask, flagged = np.ones((1, 4), bool), np.ones((1, 4), bool)
    run = normalise_convolution if compiled else normalise_convolution.py_func
    counts = run(data, variance, share, share, np.array([0]), np.array([0, 1, 2, 0]), 0.4, 0.9, mask, flagged)
    assert counts == (2, 1)
    np.testing.assert_array_equal(mask, [[False, False, True, True]])
    np.testing.assert_array_equal(flagged, [[False, True, False, False]])
    np.testing.assert_array_equal(data[0, :2], [2.0, 4.0])
    np.testing.assert_array_equal(variance[0, :2], [4.0, 16.0])
    assert np.isnan(data[0, 2:]).all()


def test_float32_is_good_to_a_few_rounding_errors(rng):
    image = make_image(rng, (80, 600), masked=0.0)
    kernel = matching_kernel(gaussian(1.0), gaussian(8.0), PIXELS)
    exact = image.evolve(data=image.data.astype(float), variance=image.variance.astype(float))
    coarse, fine = convolve(image, kernel.stencil), convolve(exact, kernel.stencil)
    assert coarse.data.dtype == np.float32
    assert fine.data.dtype == np.float64
    valid = fine.valid
    np.testing.assert_allclose(coarse.data[valid], fine.data[valid], rtol=3e-6)
    np.testing.assert_allclose(coarse.variance[valid], fine.variance[valid], rtol=3e-6)


# --- place and orientation -----------------------------------------------------------------------------


def test_a_point_becomes_the_kernel_neither_shifted_nor_turned(rng):
    kernel = rng.random((5, 7))
    data = np.zeros((21, 20))
    data[10, 9] = 1.0
    image = Image(data, np.ones_like(data), np.zeros(data.shape, bool), "Jy", None)
    result = convolve(image, kernel, coverage=0.9)
    np.testing.assert_allclose(result.data[8:13, 6:13], kernel, atol=1e-14)


@pytest.mark.parametrize("method", ["gaussian", "wiener"])
def test_odd_and_even_shapes_agree_to_a_thousandth_of_a_pixel(method):
    offsets = []
    for ny, nx in ((100, 100), (101, 101), (100, 101), (101, 100)):
        x, y = nx / 2 - 0.3, ny / 2 + 0.2
        star = oracles.gaussian_on_pixels((ny, nx), x, y, 0.8, 0.8)
        image = Image(
            star, np.ones_like(star), np.zeros(star.shape, bool), "Jy", make_wcs(), psf=gaussian(0.8)
        )
        result = match_psf(image, gaussian(1.6), method=method)
        offsets.append(centroid(np.nan_to_num(result.data)) - [x, y])
    assert np.abs(offsets).max() < 1e-3


# --- masked and missing pixels -------------------------------------------------------------------------


def test_what_lies_under_the_mask_changes_nothing_bit_by_bit(rng):
    image = make_image(rng, (40, 50), masked=0.1)
    wiener = matching_kernel(gaussian(1.0), gaussian(2.0), PIXELS, method="wiener")
    for kernel in (np.outer(np.hanning(7), np.hanning(7))[1:-1, 1:-1], wiener.stencil):
        reference = convolve(image, kernel, coverage=0.2)
        for garbage in (np.inf, 1e30, -7.0):
            data, variance = image.data.copy(), image.variance.copy()
            data[image.mask], variance[image.mask] = garbage, np.nan
            result = convolve(image.evolve(data=data, variance=variance), kernel, coverage=0.2)
            for name in ("data", "variance", "mask"):
                np.testing.assert_array_equal(getattr(result, name), getattr(reference, name))


def test_a_constant_stays_a_constant_up_to_holes_and_borders(rng):
    image = make_image(rng, (40, 40), masked=0.2).evolve(data=np.full((40, 40), 7.0, np.float32))
    for method in ("gaussian", "wiener"):
        kernel = matching_kernel(gaussian(1.0), gaussian(2.5), PIXELS, method=method)
        result = convolve(image, kernel.stencil, coverage=0.3)
        assert result.valid.sum() > 1500
        np.testing.assert_allclose(result.data[result.valid], 7.0, rtol=1e-5)


def test_coverage_says_what_is_masked_and_what_is_flagged():
    image = Image(np.ones((40, 40)), np.ones((40, 40)), np.zeros((40, 40), bool), "Jy", None)
    box = np.ones((1, 11)) / 11
    strict = convolve(image, box, coverage=1.0)
    assert strict.mask[:, :5].all()
    assert not strict.mask[:, 5:-5].any()
    assert strict.flags is None
    usual = convolve(image, box)
    np.testing.assert_array_equal(usual.mask[0], [True] * 4 + [False] * 32 + [True] * 4)
    np.testing.assert_array_equal(np.nonzero(usual.flags[0])[0], [4, 35])
    assert usual.flags[0, 4] == Flag.LOW_COVERAGE
    loose = convolve(image, box, coverage=0.5)
    assert not loose.mask.any()


def test_border_pixels_have_the_variance_of_a_mean_over_fewer_pixels():
    image = Image(np.ones((30, 30)), np.ones((30, 30)), np.zeros((30, 30), bool), "Jy", None)
    result = convolve(image, np.ones((5, 5)) / 25, coverage=0.3)
    assert result.variance[15, 15] == pytest.approx(1 / 25)
    assert result.variance[0, 15] == pytest.approx(1 / 15)
    assert result.variance[0, 0] == pytest.approx(1 / 9)


def test_a_hole_is_filled_where_enough_is_left_and_counted(rng):
    mask = np.zeros((40, 40), bool)
    mask[20, 20] = True
    mask[5:12, 5:12] = True
    image = Image(np.full((40, 40), 2.0), np.ones((40, 40)), mask, "Jy", make_wcs(), psf=gaussian(1.0))
    result = match_psf(image, gaussian(3.0))
    assert not result.mask[20, 20]
    assert result.data[20, 20] == pytest.approx(2.0)
    assert result.mask[8, 8]
    record = result.history[-1].parameters
    assert record["n_filled"] == np.count_nonzero(mask & result.valid)
    assert record["n_newly_masked"] == np.count_nonzero(result.mask & ~mask)
    assert record["n_low_coverage"] == np.count_nonzero(result.flags)


def test_an_image_without_usable_pixels_stays_without(rng):
    image = Image(np.full((9, 9), np.nan), np.ones((9, 9)), np.ones((9, 9), bool), "Jy", None)
    assert convolve(image, CROSS).mask.all()


# --- what else an image carries ------------------------------------------------------------------------


def test_shared_errors_are_convolved_like_data(rng):
    slope = np.tile(np.arange(30.0), (23, 1))
    image = make_image(
        rng, masked=0.0, dtype=np.float64, modes=(Mode("sky", 1.0, 0.1), Mode("anchor", slope, 0.2))
    )
    result = convolve(image, np.outer([1, 2, 1], [1, 2, 1]) / 16.0, coverage=0.5)
    sky, anchor = result.modes
    assert (sky.map, sky.sigma, anchor.sigma) == (1.0, 0.1, 0.2)
    np.testing.assert_allclose(anchor.map[:, 1:-1], slope[:, 1:-1], rtol=1e-12)


def test_flags_stay_and_the_input_is_untouched(rng):
    image = make_image(rng)
    flags = np.zeros(image.shape, np.uint16)
    flags[3, 4] = Flag.REPAIRED_COSMIC_RAY
    image = image.evolve(flags=flags)
    result = convolve(image, CROSS / CROSS.sum(), coverage=0.3)
    assert result.flags[3, 4] & Flag.REPAIRED_COSMIC_RAY
    assert np.count_nonzero(image.flags) == 1


def test_a_kernel_of_any_sum_is_applied_as_given(rng):
    image = make_image(rng, masked=0.1, dtype=np.float64)
    one, three = convolve(image, CROSS, coverage=0.5), convolve(image, 3.0 * CROSS, coverage=0.5)
    valid = one.valid
    np.testing.assert_allclose(three.data[valid], 3.0 * one.data[valid], rtol=1e-12)
    np.testing.assert_allclose(three.variance[valid], 9.0 * one.variance[valid], rtol=1e-12)


def test_correlations_are_prepared_once_per_input_correlation(rng):
    stencil = Stencil(CROSS / CROSS.sum())
    assert stencil.noise(None) is stencil.noise(None)
    assert stencil.noise(CROSS) is stencil.noise(CROSS.copy())
    assert stencil.noise(CROSS) is not stencil.noise(None)


def test_a_stencil_forgets_what_it_has_not_used_for_long(rng):
    stencil = Stencil(CROSS)
    for value in np.linspace(0.01, 0.3, 30):
        stencil.noise(np.array([[0, value, 0], [value, 1, value], [0, value, 0]]))
    assert len(stencil._noise) == stencil_module.KEPT


# --- match_psf -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("psf", [gaussian(1.3), SampledPSF(np.outer(np.hanning(9), np.hanning(9)), PIXELS)])
def test_matching_to_the_same_psf_leaves_the_pixels_alone(rng, psf):
    image = make_image(rng, psf=psf, correlation=CROSS)
    other = GaussianPSF(psf.fwhm * (1 + 5e-7)) if isinstance(psf, GaussianPSF) else psf
    result = match_psf(image, other)
    for name in ("data", "variance", "mask", "correlation"):
        np.testing.assert_array_equal(getattr(result, name), getattr(image, name))
    assert result.history[-1].name == "match_psf"
    assert result.history[-1].parameters["kernel"] == "identity"


def test_history_carries_what_the_matching_is_worth(rng):
    image = make_image(rng, psf=gaussian(0.8))
    result = match_psf(image, gaussian(1.6))
    record = result.history[-1].parameters
    assert record["kernel"] == "gaussian"
    assert record["source_fwhm"] == pytest.approx(0.8 * SCALE * 2.3548, rel=1e-4)
    assert record["target_fwhm"] == pytest.approx(1.6 * SCALE * 2.3548, rel=1e-4)
    assert 0 <= record["encircled_energy_residual"] < 1e-3
    assert 0.03 < record["noise_gain"] < 0.06
    assert result.psf == gaussian(1.6)


def test_the_psf_of_a_wiener_match_is_what_was_reached(rng):
    image = make_image(rng, psf=gaussian(0.8))
    result = match_psf(image, gaussian(1.6), method="wiener")
    assert isinstance(result.psf, SampledPSF)
    target = gaussian(1.6).render(PIXELS, result.psf.array.shape[0])
    np.testing.assert_allclose(result.psf.array, target, atol=0.01 * target.max())


def test_one_kernel_serves_many_images(rng):
    kernel = matching_kernel(gaussian(0.8), gaussian(1.6), PIXELS)
    image = make_image(rng, psf=gaussian(0.8))
    given, made = match_psf(image, gaussian(1.6), kernel=kernel), match_psf(image, gaussian(1.6))
    np.testing.assert_array_equal(given.data, made.data)


def test_an_image_without_wcs_is_matched_on_the_grid_of_its_sampled_psf(rng):
    psf = SampledPSF(gaussian(1.0).render(PIXELS, 25), PIXELS)
    image = make_image(rng, masked=0.0).evolve(wcs=None, psf=psf)
    assert match_psf(image, gaussian(2.0)).history[-1].parameters["kernel"] == "wiener"


# --- refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [np.ones((2, 3)), np.ones(3), np.ones((3, 3, 3))])
def test_a_kernel_without_a_central_pixel_is_refused(rng, kernel):
    with pytest.raises(ShapeError, match="expected two odd dimensions"):
        convolve(make_image(rng), kernel)


@pytest.mark.parametrize("kernel", [np.array([[-1.0, 0.0, 1.0]]), -CROSS, np.full((3, 3), np.nan)])
def test_a_kernel_without_positive_sum_is_refused(rng, kernel):
    with pytest.raises(InputError, match="expected finite values with a sum > 0"):
        convolve(make_image(rng), kernel)


@pytest.mark.parametrize("coverage", [0.0, -1.0, 1.1, np.nan])
def test_a_coverage_outside_0_to_1_is_refused(rng, coverage):
    with pytest.raises(InputError, match="expected 0 < coverage <= 1"):
        convolve(make_image(rng), CROSS, coverage=coverage)


def test_an_image_without_psf_cannot_be_matched(rng):
    with pytest.raises(InputError, match="no PSF to start from; measure it"):
        match_psf(make_image(rng), gaussian(2.0))


def test_a_kernel_for_other_pixels_is_refused(rng):
    kernel = matching_kernel(gaussian(0.8), gaussian(1.6), square_matrix(0.03))
    with pytest.raises(InputError, match="the kernel is for pixels of matrix"):
        match_psf(make_image(rng, psf=gaussian(0.8)), gaussian(1.6), kernel=kernel)
