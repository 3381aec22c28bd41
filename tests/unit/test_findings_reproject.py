"""Defects of existing pipelines in moving images between grids, each with what it was measured to cost."""

import numpy as np
import pytest

from skyloom.core.image import Image, Mode
from skyloom.core.noise import region_variances
from skyloom.imaging.grids.reproject import pixel_variance, reproject
from tests.grids import tangent_wcs
from tests.oracles.resample import exact_sum_variances, full_positions, interpolation_operator, pixel_grid

SHAPE = (60, 60)


def test_pixel_area_from_cd1_1_alone_is_wrong_by_a_fifth_at_25_degrees():
    flat = Image(np.ones(SHAPE), np.ones(SHAPE), None, "electron/s", tangent_wcs(SHAPE))
    target = tangent_wcs((40, 40), 0.05, 25.0)
    cd = 3600 * target.wcs.cd[0, 0]
    assert 0.05**2 / cd**2 == pytest.approx(1.217, abs=0.001)
    for method in ("lanczos3", "bilinear", "area"):
        turned = reproject(flat, (target, (40, 40)), method)
        np.testing.assert_allclose(turned.data[turned.valid], 1.0, rtol=1e-6)
    assert turned.pixel_area == pytest.approx(0.05**2, rel=1e-6)


def test_nearest_neighbour_extrapolates_outside_the_footprint():
    image = Image(np.ones(SHAPE), np.ones(SHAPE), None, "MJy/sr", tangent_wcs(SHAPE))
    for method in ("auto", "bilinear", "area"):
        wide = reproject(image, (tangent_wcs((100, 100), 0.05, 10.0), (100, 100)), method)
        x, y = full_positions(image.wcs, wide.wcs, *pixel_grid(wide.shape))
        outside = (x < -0.5) | (x > 59.5) | (y < -0.5) | (y > 59.5)
        assert outside.any()
        assert wide.mask[outside].all()
        assert np.isnan(wide.data[outside]).all()
        assert (wide.weight[outside] == 0).all()


def test_zero_padding_lowers_variance_and_flux_at_the_borders():
    image = Image(np.full(SHAPE, 3.0), np.ones(SHAPE), None, "MJy/sr", tangent_wcs(SHAPE))
    for method in ("lanczos3", "bilinear", "area"):
        moved = reproject(image, (tangent_wcs((70, 70), 0.05, 25.0, (0.3, 0.2)), (70, 70)), method)
        np.testing.assert_allclose(moved.data[moved.valid], 3.0, rtol=1e-6)
        np.testing.assert_allclose(
            moved.variance[moved.valid], moved.history[-1].parameters["noise_gain"], rtol=1e-6
        )


@pytest.mark.parametrize("method", ["lanczos3", "bilinear", "area"])
def test_variance_interpolated_like_a_flux_overstates_single_pixels(method):
    image = Image(np.zeros(SHAPE), np.ones(SHAPE), None, "MJy/sr", tangent_wcs(SHAPE))
    target = (tangent_wcs((40, 40), 0.05, 25.0), (40, 40))
    result = reproject(image, target, method)
    true = float(np.nanmean(pixel_variance(image, target, method)))
    # Interpolating variance like data would leave it at 1; bilinear noise is really 0.67 sigma.
    assert np.nanmean(result.variance) == pytest.approx(true, rel=0.01)
    expected = {"bilinear": 0.667, "area": 0.665, "lanczos3": 0.893}[method]
    assert np.sqrt(true) == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize(("method", "ignored"), [("bilinear", 1.4), ("lanczos3", 1.08)])
def test_covariance_ignored_understates_large_sums(method, ignored):
    image = Image(np.zeros(SHAPE), np.ones(SHAPE), None, "MJy/sr", tangent_wcs(SHAPE))
    target, shape = tangent_wcs((40, 40), 0.05, 25.0), (40, 40)
    result = reproject(image, (target, shape), method)
    labels = np.full(shape, -1, np.int32)
    labels[10:30, 10:30] = 0
    operator, _ = interpolation_operator(
        method, *full_positions(image.wcs, target, *pixel_grid(shape)), SHAPE
    )
    true = np.sqrt(exact_sum_variances(operator, image.variance, np.ones((1, 1)), labels, 1)[0])
    plane = np.where(result.mask, 1.0, result.variance)
    assert true / np.sqrt(region_variances(plane, labels, 1, result.correlation)[0]) == pytest.approx(
        1, abs=0.01
    )
    assert true / np.sqrt(region_variances(plane, labels, 1)[0]) > ignored


@pytest.mark.parametrize("method", ["lanczos3", "bilinear", "area"])
@pytest.mark.parametrize("side", [100, 101])
def test_odd_shapes_are_not_shifted(method, side):
    source = tangent_wcs((60, 60))
    y, x = np.indices((60, 60)) - 29.5
    star = np.exp(-(x**2 + y**2) / (2 * 2.0**2))
    image = Image(star, np.ones((60, 60)), None, "electron/s", source)
    moved = reproject(image, (tangent_wcs((side, side), 0.05, 40.0), (side, side)), method)
    light = np.where(moved.mask, 0.0, moved.data)
    y, x = np.indices(moved.shape) - (side - 1) / 2
    assert abs(np.sum(x * light) / light.sum()) < 1e-3
    assert abs(np.sum(y * light) / light.sum()) < 1e-3


def test_shared_sky_error_is_not_forgotten_on_the_new_grid():
    image = Image(
        np.zeros(SHAPE),
        np.ones(SHAPE),
        None,
        "electron/s",
        tangent_wcs(SHAPE),
        modes=(Mode("sky", 1.0, 0.1),),
    )
    coarse = reproject(image, (tangent_wcs((20, 20), 0.15), (20, 20)))
    # 0.1 per pixel of 0.05 arcsec is 0.9 per pixel of 0.15 arcsec.
    assert coarse.modes[0].sigma * np.mean(coarse.modes[0].map) == pytest.approx(0.9, rel=1e-4)
