"""Pixel maps: the spline finds what the full WCS finds."""

import numpy as np
import pytest
from astropy.wcs import WCS

from skyloom.core.geometry import local_matrix
from skyloom.errors import InputError
from skyloom.imaging.grids.pixel_map import pixel_map, source_positions
from tests.grids import tangent_wcs
from tests.oracles.resample import full_positions

BIG = (4096, 4096)
CASES = {
    "tangent planes, turned": (
        tangent_wcs(BIG),
        BIG,
        tangent_wcs(BIG, rotation=25, centre=(53.12, -27.79)),
        BIG,
        1e-6,
    ),
    "wide field": (
        tangent_wcs((2000, 1500), 30.0),
        (2000, 1500),
        tangent_wcs((1500, 2000), 30.0, 10, centre=(54.0, -26.0)),
        (1500, 2000),
        1e-6,
    ),
    "small stamp": (
        tangent_wcs((100, 100), 0.06),
        (100, 100),
        tangent_wcs((101, 80), 0.06, 0.2, (3.3, -7.1)),
        (101, 80),
        1e-6,
    ),
    "across the pole": (
        tangent_wcs((1000, 1000), 1.0, centre=(0.0, 89.99)),
        (1000, 1000),
        tangent_wcs((900, 1000), 1.0, 10, centre=(100.0, 89.95)),
        (900, 1000),
        1e-6,
    ),
    "distorted source": (
        tangent_wcs(BIG, sip=True),
        BIG,
        tangent_wcs(BIG, rotation=25, centre=(53.12, -27.79)),
        BIG,
        1e-5,
    ),
    "distorted target": (tangent_wcs(BIG), BIG, tangent_wcs(BIG, rotation=25, sip=True), BIG, 1e-5),
    "both distorted": (
        tangent_wcs(BIG, sip=True),
        BIG,
        tangent_wcs(BIG, rotation=70, sip=True, centre=(53.1, -27.78)),
        BIG,
        1e-5,
    ),
    "stamp out of a distorted mosaic": (
        tangent_wcs(BIG, sip=True),
        BIG,
        tangent_wcs((100, 100), 0.05, shift=(1200, -900)),
        (100, 100),
        1e-5,
    ),
    "distorted stamp into a mosaic": (
        tangent_wcs((100, 100), sip=True),
        (100, 100),
        tangent_wcs((8000, 8000), centre=(53.12, -27.82)),
        (8000, 8000),
        1e-5,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_positions_agree_with_the_full_wcs(name):
    source, source_shape, target, target_shape, tolerance = CASES[name]
    chart = pixel_map(source, source_shape, target, target_shape)
    rng = np.random.default_rng(4)
    x = rng.uniform(chart.window[2] - 0.5, chart.window[3] - 0.5, 4000)
    y = rng.uniform(chart.window[0] - 0.5, chart.window[1] - 0.5, 4000)
    true_x, true_y = full_positions(source, target, x, y)
    ny, nx = source_shape
    seen = (true_x > -0.5) & (true_x < nx - 0.5) & (true_y > -0.5) & (true_y < ny - 0.5)
    assert seen.sum() > 1000
    found_x, found_y, area = chart.positions(x, y)
    assert chart.dense.size == 0
    assert np.hypot(found_x - true_x, found_y - true_y)[seen].max() < tolerance
    assert chart.error < tolerance
    for index in np.nonzero(seen)[0][:20]:
        ratio = np.linalg.det(local_matrix(target, x[index], y[index])) / np.linalg.det(
            local_matrix(source, true_x[index], true_y[index])
        )
        assert area[index] == pytest.approx(abs(ratio), rel=1e-6)


def test_a_small_image_in_a_large_target_is_looked_for_where_it_is():
    source, _, target, _, _ = CASES["distorted stamp into a mosaic"]
    chart = pixel_map(source, (100, 100), target, (8000, 8000))
    assert np.all(np.diff(chart.window)[[0, 2]] < 120)


def test_a_map_that_is_not_smooth_is_evaluated_in_full():
    target = WCS(naxis=2)
    target.wcs.ctype = ["RA---AIT", "DEC--AIT"]
    target.wcs.crval, target.wcs.crpix, target.wcs.cdelt = [0.0, 0.0], [90.5, 45.5], [-2.0, 2.0]
    target.wcs.set()
    shape = (400, 400)
    source = tangent_wcs(shape, 900.0, centre=(170.0, 10.0))  # 100 degrees wide, over the edge of the map
    chart = pixel_map(source, shape, target, (90, 180))
    assert chart.dense.shape[0] == 3
    rows = np.arange(chart.window[0], chart.window[1], dtype=float)
    columns = np.arange(chart.window[2], chart.window[3], dtype=float)
    x, y = np.meshgrid(columns, rows)
    true_x, true_y = full_positions(source, target, x, y)
    finite = np.isfinite(true_x)
    assert 0 < finite.sum() < finite.size
    np.testing.assert_allclose(chart.dense[0][finite], true_x[finite], atol=1e-9)
    np.testing.assert_allclose(chart.dense[1][finite], true_y[finite], atol=1e-9)
    assert np.isnan(chart.dense[0][~finite]).all()


def test_named_frames_are_transformed_and_an_unnamed_one_is_not():
    shape = (50, 50)
    grids = {name: tangent_wcs(shape) for name in ("ICRS", "FK5", "")}
    for name, wcs in grids.items():
        wcs.wcs.radesys = name
        wcs.wcs.set()
    grids["FK5"].wcs.equinox = 1950.0
    x, y = np.array([20.0]), np.array([30.0])
    same_x, same_y = source_positions(grids[""], grids["FK5"], x, y)
    assert np.hypot(same_x - x, same_y - y)[0] < 1e-6
    moved_x, moved_y = source_positions(grids["ICRS"], grids["FK5"], x, y)
    # Fifty years of precession: 50 arcsec a year along the ecliptic.
    assert 1500 < np.hypot(moved_x - x, moved_y - y)[0] * 0.05 < 2700
    back_x, back_y = source_positions(grids["FK5"], grids["ICRS"], moved_x, moved_y)
    assert np.hypot(back_x - x, back_y - y)[0] < 1e-5


def test_galactic_and_equatorial_grids_meet():
    from astropy.coordinates import SkyCoord

    shape = (64, 64)
    centre = SkyCoord(53.1, -27.8, unit="deg").galactic
    target = WCS(naxis=2)
    target.wcs.ctype = ["GLON-TAN", "GLAT-TAN"]
    target.wcs.crval, target.wcs.crpix = [centre.l.deg, centre.b.deg], [32.5, 32.5]
    target.wcs.cdelt = [-0.05 / 3600, 0.05 / 3600]
    target.wcs.set()
    chart = pixel_map(tangent_wcs(shape), shape, target, shape)
    found_x, found_y, _ = chart.positions(np.array([31.5]), np.array([31.5]))
    np.testing.assert_allclose([found_x[0], found_y[0]], 31.5, atol=1e-5)
    assert chart.scale == pytest.approx(1.0, abs=1e-6)


def test_declination_may_come_first():
    shape = (40, 40)
    swapped = tangent_wcs(shape, rotation=10)
    swapped = swapped.sub([2, 1])
    straight = tangent_wcs(shape, rotation=10).sub([1, 2])
    x, y = np.array([3.0, 20.0]), np.array([30.0, 8.0])
    longitude, latitude = straight.all_pix2world(x, y, 0)
    expected = swapped.wcs_world2pix(latitude, longitude, 0)
    found = source_positions(swapped, straight, x, y)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_grids_that_do_not_overlap_are_an_error_that_says_where_they_are():
    shape = (50, 50)
    with pytest.raises(InputError, match="do not overlap"):
        pixel_map(tangent_wcs(shape), shape, tangent_wcs(shape, centre=(53.2, -27.8)), shape)
    with pytest.raises(InputError, match=r"no pixel of the target|do not overlap"):
        pixel_map(tangent_wcs(shape), shape, tangent_wcs(shape, centre=(233.0, 30.0)), shape)


def test_phases_are_those_that_occur():
    shape = (60, 60)
    source = tangent_wcs(shape)
    shifted = pixel_map(source, shape, tangent_wcs(shape, shift=(0.3, -0.2)), shape).phases()
    np.testing.assert_allclose(shifted, [[0.7, 0.2]], atol=1e-4)
    half = pixel_map(source, shape, tangent_wcs((40, 40), 0.075), (40, 40)).phases()
    # Centres every 1.5 pixels, the first at 0.25.
    expected = [[0.25, 0.25], [0.25, 0.75], [0.75, 0.25], [0.75, 0.75]]
    np.testing.assert_allclose(sorted(half.tolist()), expected, atol=1e-4)
    assert pixel_map(source, shape, tangent_wcs(shape, rotation=25), shape).phases() is None
    slow = pixel_map(source, shape, tangent_wcs(shape, rotation=0.2), shape).phases()
    assert slow.shape == (16, 2)


def test_shifts_by_whole_pixels_are_recognised():
    shape = (30, 41)
    source = tangent_wcs(shape)
    near = pixel_map(source, shape, tangent_wcs((50, 60), shift=(4.0, -2.0)), (50, 60))
    # The centre of a grid of 60 x 50 lies at (29.5, 24.5), that of 41 x 30 at (20, 14.5).
    assert near.whole_shift(1e-4) is None
    exact = pixel_map(source, shape, tangent_wcs((50, 61), shift=(4.0, -2.0)), (50, 61))
    assert exact.whole_shift(1e-4) == (-14, -8)
    assert pixel_map(source, shape, tangent_wcs(shape, rotation=0.2), shape).whole_shift(1e-4) is None
