"""A line map predicted from bands: units, shapes, what is refused, what the products are."""

from __future__ import annotations

import warnings

import astropy.units as u
import numpy as np
import pytest

from skyloom.core.image import Image
from skyloom.core.psf import GaussianPSF, MoffatPSF
from skyloom.errors import AssumptionWarning, InputError, ShapeError
from skyloom.imaging.line_models.halves import judge_line_model
from skyloom.imaging.line_models.line_model import checkerboard, fit_line_model
from tests.grids import tangent_wcs
from tests.inputs.line_model import BAND_FWHM, LINE_FWHM, scene

QUIET = {"band_noise": 0.0005, "line_noise": 0.1}


@pytest.fixture(scope="module")
def mock():
    return scene(3, level=0.4, **QUIET)


@pytest.fixture(scope="module")
def model(mock):
    return fit_line_model(mock.bands, mock.line_map, max_bands=2, offset="fit")


def per_area(image):
    area = image.pixel_area
    return image.evolve(
        data=image.data / area, variance=image.variance / area**2, unit=image.unit / u.arcsec**2
    )


def test_the_residual_is_the_map_minus_the_model(mock, model):
    valid = model.residual.valid
    expected = mock.line_map.data - model.rebinned.data - model.offset
    assert np.allclose(model.residual.data[valid], expected[valid])
    assert np.all(model.residual.valid == (mock.line_map.valid & model.rebinned.valid))
    assert np.all(model.residual.variance[valid] > mock.line_map.variance[valid])
    assert model.residual_rms() == pytest.approx(np.sqrt(np.mean(model.residual.data[valid] ** 2)))


def test_every_pixel_of_the_fit_has_a_residual(model):
    assert model.used.sum() > 500
    assert np.mean(model.residual.valid[model.used]) > 0.98


def test_the_images_are_what_the_fit_has_seen(mock, model):
    """Blur by FFT in the fit, convolution and areas in the products: one model."""
    used = model.used & model.residual.valid
    errors = np.sqrt(mock.line_map.variance[used])
    chi_square = np.sum((model.residual.data[used] / errors) ** 2) / (used.sum() - 3)
    assert chi_square == pytest.approx(model.chi_square, rel=0.03)


def test_the_three_models_hold_the_same_light(mock, model):
    high, smooth, coarse = model.high_resolution, model.smoothed, model.rebinned
    assert high.shape == smooth.shape == (120, 120)
    assert coarse.shape == mock.line_map.shape
    assert high.unit == smooth.unit == coarse.unit == mock.line_map.unit
    centre, wide = slice(8, 22), slice(32, 88)
    total = coarse.data[centre, centre].sum()
    assert smooth.data[wide, wide].sum() == pytest.approx(total, rel=5e-3)
    assert coarse.wcs is mock.line_map.wcs
    assert high.psf.fwhm == pytest.approx(BAND_FWHM, rel=0.1)
    assert coarse.psf.fwhm == pytest.approx(LINE_FWHM, rel=0.08)


def test_weights_offset_blur_and_shift_are_found(model):
    truth = [{"blue": 3.0, "red": 7.0}[band] for band in model.bands]
    errors = np.sqrt(np.diag(model.covariance))
    assert np.all(np.abs(model.weights - truth) < 4 * errors)
    assert np.all(errors < 0.3)
    assert model.offset == pytest.approx(0.4, abs=4 * model.offset_err)
    assert model.shift == pytest.approx([0.3, -0.2], abs=0.05)
    assert model.blur.fwhm == pytest.approx(np.sqrt(LINE_FWHM**2 - BAND_FWHM**2), rel=0.02)
    assert 0 < model.fwhm_err < 0.02
    assert np.all(model.shift_err > 0)


def test_the_table_has_units_and_falls_with_each_band(mock, model):
    table = model.table
    unit = mock.line_map.unit / mock.bands["red"].unit
    assert table["weight"].unit == unit
    assert table["weight_err"].unit == unit
    assert list(table["band"]) == list(model.bands)
    assert np.all(np.diff(table["left_out_residual"].value) < 0)
    assert np.allclose(table["weight_err"].value, np.sqrt(np.diag(model.covariance)))
    assert table.meta["line_unit"] == mock.line_map.unit.to_string()


def test_errors_of_the_weights_are_modes_of_every_product(model):
    for image in (model.high_resolution, model.smoothed, model.rebinned, model.residual):
        names = [mode.name for mode in image.modes]
        assert sum(name.startswith("weights of the bands") for name in names) == 2
        assert image.history[-1].name
    assert "level of the line map" in [mode.name for mode in model.residual.modes]
    assert all(np.asarray(mode.map).dtype == np.float32 for mode in model.high_resolution.modes)


def test_flux_and_surface_brightness_give_the_same_model(mock, model):
    bands = {name: per_area(image) for name, image in mock.bands.items()}
    other = fit_line_model(bands, per_area(mock.line_map), max_bands=2, offset="fit")
    assert other.bands == model.bands
    assert other.weights == pytest.approx(model.weights, rel=1e-3)
    assert other.blur.fwhm == pytest.approx(model.blur.fwhm, rel=1e-3)
    area = mock.line_map.pixel_area
    valid = model.rebinned.valid & other.rebinned.valid
    assert np.allclose(other.rebinned.data[valid] * area, model.rebinned.data[valid], atol=0.02)


@pytest.mark.parametrize("oversample", [2, 6])
def test_the_model_does_not_depend_on_the_fine_pixels(mock, model, oversample):
    other = fit_line_model(mock.bands, mock.line_map, max_bands=2, offset="fit", oversample=oversample)
    assert other.high_resolution.shape == (30 * oversample, 30 * oversample)
    valid = model.rebinned.valid & other.rebinned.valid
    assert (
        np.max(np.abs(other.rebinned.data - model.rebinned.data)[valid])
        < 0.02 * model.rebinned.data[valid].max()
    )


def test_a_given_psf_is_kept(mock):
    psf = GaussianPSF(LINE_FWHM)
    fixed = fit_line_model(mock.bands, mock.line_map, psf=psf, shift="none")
    assert fixed.rebinned.psf.fwhm == pytest.approx(LINE_FWHM, rel=5e-3)  # fine pixels broaden it
    assert np.isnan(fixed.fwhm_err)
    assert np.all(fixed.shift == 0)
    assert np.all(fixed.shift_err == 0)
    free = fit_line_model(mock.bands, mock.line_map, psf=MoffatPSF(LINE_FWHM, 3.0), offset="fit")
    assert free.shift == pytest.approx([0.3, -0.2], abs=0.06)


def test_nothing_that_is_given_changes(mock):
    images = (*mock.bands.values(), mock.line_map)
    before = [(image.data.copy(), image.variance.copy(), image.mask.copy()) for image in images]
    fit_line_model(mock.bands, mock.line_map, max_bands=1)
    for image, kept in zip(images, before, strict=True):
        for plane, copy in zip((image.data, image.variance, image.mask), kept, strict=True):
            assert np.array_equal(plane, copy)


def test_what_is_masked_does_not_matter(mock, model):
    """Garbage under the masks of bands and line map, NaN included."""
    mask = np.zeros(mock.line_map.shape, dtype=bool)
    mask[10:12, 3:9] = True
    data = np.where(mask, np.nan, mock.line_map.data)
    broken = mock.line_map.evolve(data=data, mask=mask, variance=np.where(mask, -1.0, mock.line_map.variance))
    rim = np.zeros((104, 104), dtype=bool)
    rim[:8] = True
    bands = {
        name: image.evolve(data=np.where(rim, np.nan, image.data), mask=rim)
        for name, image in mock.bands.items()
    }
    fitted = fit_line_model(bands, broken, max_bands=2, offset="fit")
    assert fitted.weights == pytest.approx(model.weights, abs=0.3)
    assert not fitted.residual.valid[mask].any()
    assert not fitted.used[0].any()


def test_a_band_of_little_coverage_is_left_out_and_named(mock):
    mask = np.zeros((104, 104), dtype=bool)
    mask[:50] = True
    bands = mock.bands | {"patchy": mock.bands["red"].evolve(mask=mask)}
    with pytest.warns(AssumptionWarning, match="patchy: left out of the line model"):
        fitted = fit_line_model(bands, mock.line_map)
    assert "patchy" not in fitted.bands


def test_a_shift_beyond_the_limit_is_said(mock):
    moved = mock.line_map.wcs.deepcopy()
    moved.wcs.crpix = moved.wcs.crpix + np.array([4.0, 0.0])
    with pytest.warns(AssumptionWarning, match="the shift reached the limit"):
        fit_line_model(mock.bands, mock.line_map.evolve(wcs=moved), max_bands=1)


def test_one_good_band_is_not_joined_by_noise():
    """The line follows one band; a band of nothing but noise must not get a weight."""
    mock = scene(5, weights=(0.0, 7.0), **QUIET)
    noise = np.random.default_rng(8).normal(size=(104, 104)) * 0.01
    bands = mock.bands | {"noise": mock.bands["red"].evolve(data=noise)}
    assert fit_line_model(bands, mock.line_map).bands[0] == "red"
    assert "noise" not in fit_line_model(bands, mock.line_map).bands


def test_a_judgement_compares_the_same_pixels(mock):
    judged = judge_line_model(mock.bands, mock.line_map, max_bands=2, offset="fit")
    assert judged.rms < judged.single_rms
    assert judged.ratio == pytest.approx(judged.rms / judged.single_rms)
    assert set(judged.bands) == {"blue", "red"}
    assert judged.single in judged.bands
    assert 150 < judged.n_pixels < 450


def test_checkerboard():
    board = checkerboard((4, 6), 2)
    assert board[:2, :2].all()
    assert not board[:2, 2:4].any()
    assert board.sum() == 12


# --- what is refused -----------------------------------------------------------------------------------------------


def test_bands_of_other_units_are_refused(mock):
    bands = mock.bands | {"red": mock.bands["red"].evolve(unit="nJy")}
    with pytest.raises(InputError, match="band red is in nJy, band blue in electron / s"):
        fit_line_model(bands, mock.line_map)
    with pytest.raises(InputError, match="both per pixel, or both per area"):
        fit_line_model(mock.bands, per_area(mock.line_map))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"psf": "guess"}, "psf is 'guess'"),
        ({"psf": GaussianPSF(0.1)}, "not broader than that of the bands"),
        ({"shift": "yes"}, "shift is 'yes'"),
        ({"offset": "yes"}, "offset is 'yes'"),
        ({"oversample": 0}, "oversample is 0"),
        ({"max_bands": 0}, "max_bands is 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(mock, options, message):
    with pytest.raises(InputError, match=message):
        fit_line_model(mock.bands, mock.line_map, **options)


def test_a_selection_of_another_shape_is_refused(mock):
    with pytest.raises(ShapeError, match=r"where has shape \(3, 3\); expected \(30, 30\)"):
        fit_line_model(mock.bands, mock.line_map, where=np.ones((3, 3), dtype=bool))


def test_too_few_pixels_are_refused(mock):
    where = np.zeros(mock.line_map.shape, dtype=bool)
    where[15, 10:14] = True
    with pytest.raises(InputError, match="4 pixels of the line map can be predicted"):
        fit_line_model(mock.bands, mock.line_map, where=where)


def test_no_bands_and_no_overlap_are_refused(mock):
    with pytest.raises(InputError, match="there is no band"):
        fit_line_model({}, mock.line_map)
    elsewhere = mock.line_map.evolve(wcs=tangent_wcs((30, 30), 0.2, centre=(54.0, -27.8)))
    with pytest.raises(InputError, match=r"overlap|covered"):
        fit_line_model(mock.bands, elsewhere)


def test_a_line_map_without_wcs_is_refused(mock):
    with pytest.raises(InputError, match="WCS"):
        fit_line_model(mock.bands, mock.line_map.evolve(wcs=None))


def test_no_rms_of_nothing(model):
    with pytest.raises(InputError, match="no usable pixel"):
        model.residual_rms(np.zeros(model.residual.shape, dtype=bool))


def test_a_dark_line_map_gives_a_model_of_nothing():
    """Zero signal: weights within their errors of zero, no warnings from the numerics."""
    mock = scene(9, weights=(0.0, 0.0), **QUIET)
    assert isinstance(mock.line_map, Image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AssumptionWarning)  # blur and shift have nothing to hold on to
        dark = fit_line_model(mock.bands, mock.line_map, max_bands=1)
    assert abs(dark.weights[0]) < 5 * np.sqrt(dark.covariance[0, 0])
