"""Pixel scales, areas and orientation come from the whole WCS."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS, Sip
from astropy.wcs.utils import proj_plane_pixel_area

from skyloom.core import geometry
from skyloom.core.apertures import circle_overlap
from skyloom.core.labels import LabelMap
from skyloom.core.units import is_per_area, parse_unit, sum_unit
from skyloom.errors import InputError


def tan(scale=0.06, angle=0.0, shape=(50, 60), dec=-27.8):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [53.1, dec]
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    turn = np.radians(angle)
    wcs.wcs.cd = scale / 3600 * np.array([[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    wcs.wcs.set()
    return wcs


def test_pixel_area_does_not_shrink_with_rotation():
    """Surface brightness from CD1_1 alone is wrong by 1.217 at 25 degrees."""
    areas = [geometry.pixel_area(tan(angle=angle), (50, 60)) for angle in (0.0, 25.0, 80.0)]
    np.testing.assert_allclose(areas, 0.06**2, rtol=1e-7)
    assert geometry.pixel_area(tan(angle=25.0), (50, 60)) == pytest.approx(
        proj_plane_pixel_area(tan(angle=25.0)) * 3600**2, rel=1e-7
    )


def test_matrix_points_east_and_north():
    np.testing.assert_allclose(geometry.pixel_matrix(tan(), (50, 60)), [[-0.06, 0.0], [0.0, 0.06]], atol=1e-9)


def test_area_map_follows_distortion():
    wcs = tan(shape=(200, 200))
    a = np.zeros((3, 3))
    a[2, 0] = 1e-4
    wcs.sip = Sip(a, np.zeros((3, 3)), None, None, wcs.wcs.crpix)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    wcs.wcs.set()
    areas = geometry.pixel_area_map(wcs, (200, 200))
    x = np.arange(200) - 99.5
    np.testing.assert_allclose(areas[100], 0.06**2 * (1 + 2e-4 * x), rtol=1e-4)


def test_same_grid_tells_small_shifts():
    wcs, moved = tan(), tan()
    moved.wcs.crpix += 1e-3
    assert geometry.same_grid(wcs, (50, 60), tan(), (50, 60))
    assert not geometry.same_grid(wcs, (50, 60), moved, (50, 60))
    assert not geometry.same_grid(wcs, (50, 60), tan(), (50, 61))


def test_no_wcs_is_named():
    with pytest.raises(InputError, match="needs a WCS"):
        geometry.pixel_scale(None, (5, 5))


def test_circle_overlap_is_exact():
    area = circle_overlap((31, 33), 15.3, 14.8, 7.2)
    assert area.sum() == pytest.approx(np.pi * 7.2**2, rel=1e-8)
    fine = (np.indices((310 * 4, 330 * 4)) + 0.5) / 40 - 0.5
    inside = (fine[0] - 14.8) ** 2 + (fine[1] - 15.3) ** 2 < 7.2**2
    brute = inside.reshape(31, 40, 33, 40).mean(axis=(1, 3))
    np.testing.assert_allclose(area, brute, atol=5e-3)


@pytest.mark.parametrize(
    ("unit", "per_area", "summed"),
    [
        ("electron/s", False, "electron/s"),
        ("1e-20 erg/(s cm2 AA)", False, "1e-20 erg/(s cm2 AA)"),
        ("erg/(s cm2 arcsec2)", True, "erg/(s cm2)"),
        ("MJy/sr", True, "MJy"),
    ],
)
def test_units_tell_flux_from_surface_brightness(unit, per_area, summed):
    parsed = parse_unit(unit)
    assert is_per_area(parsed) is per_area
    assert sum_unit(parsed) == parse_unit(summed)


def test_labels_are_never_rounded():
    with pytest.raises(InputError, match="expected integers"):
        LabelMap(np.array([[1.5, 2.0]]))
    labels = LabelMap(np.array([[-1, 3], [3, 7]]))
    assert np.asarray(labels).dtype == np.int32
    assert list(labels.ids) == [3, 7]
