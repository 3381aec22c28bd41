"""Rings along the ellipse of a galaxy, on the sky and in pixels."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from skyloom.core.image import Image
from skyloom.core.labels import LabelMap
from skyloom.errors import InputError, ShapeError
from skyloom.mock.scenes.images import sky_wcs
from skyloom.spectral.bins.radius import bin_by_radius, elliptical_radius
from tests.oracles import regions as oracles_regions

SHAPE = (40, 50)


def frame(angle=0.0, scale=0.5):
    wcs = sky_wcs((150.0, 2.0), SHAPE, scale, angle=angle)
    return Image(np.zeros(SHAPE), np.ones(SHAPE), np.zeros(SHAPE, bool), "", wcs)


def test_radii_agree_with_the_formula_pixel_by_pixel():
    expected = oracles_regions.elliptical_radius(SHAPE, 20.0, 18.0, 0.5, 35.0, 0.4)
    radius = elliptical_radius(frame(), (20.0, 18.0), position_angle=35.0, axis_ratio=0.4)
    np.testing.assert_allclose(radius, expected, rtol=2e-6, atol=1e-9)


def test_pixels_count_where_there_is_no_wcs():
    expected = oracles_regions.elliptical_radius(SHAPE, 20.0, 18.0, 1.0, 35.0, 0.4)
    radius = elliptical_radius(SHAPE, (20.0, 18.0), position_angle=35.0, axis_ratio=0.4)
    np.testing.assert_allclose(radius, expected, atol=1e-12)


def test_the_angle_is_on_the_sky_however_the_grid_is_turned():
    """The pixel a given way from the centre on the sky has the same radius on a turned grid."""
    centre = SkyCoord(150.0, 2.0, unit="deg")
    place = centre.directional_offset_by(30 * u.deg, 6 * u.arcsec)
    for angle in (0.0, 42.0, 160.0):
        image = frame(angle)
        radius = elliptical_radius(image, centre, position_angle=30.0, axis_ratio=0.3)
        x, y = (int(round(float(value))) for value in image.wcs.world_to_pixel(place))
        # Rounding to a pixel moves by at most 0.25 arcsec along and 0.25 / 0.3 across.
        assert radius[y, x] == pytest.approx(6.0, abs=0.9)


def test_rings_hold_what_lies_between_their_edges():
    image = frame(20.0)
    edges = [1.0, 3.0, 4.5, 9.0] * u.arcsec
    labels = bin_by_radius(image, (25.0, 20.0), edges=edges, position_angle=10, axis_ratio=0.7)
    radius = elliptical_radius(image, (25.0, 20.0), position_angle=10, axis_ratio=0.7)
    for number, (low, high) in enumerate(zip(edges.value[:-1], edges.value[1:], strict=True)):
        inside = (radius >= low) & (radius < high)
        np.testing.assert_array_equal(labels.labels == number, inside)
    assert (labels.labels[(radius < 1) | (radius >= 9)] == -1).all()
    assert labels.wcs is image.wcs
    assert labels.history[-1].name == "bin_by_radius"


def test_a_width_reaches_the_last_pixel_and_masks_stay_out():
    image = frame()
    mask = np.zeros(SHAPE, bool)
    mask[:5] = True
    labels = bin_by_radius(image.evolve(mask=mask), (25.0, 20.0), width=2.0, mask=np.eye(*SHAPE, dtype=bool))
    out = mask | np.eye(*SHAPE, dtype=bool)
    np.testing.assert_array_equal(labels.labels == -1, out)


def test_an_empty_ring_leaves_a_gap_in_the_numbers():
    mask = elliptical_radius(SHAPE, (25, 20)) < 6
    labels = bin_by_radius(LabelMap(np.zeros(SHAPE, int)), (25, 20), edges=[0, 3, 6, 12], mask=mask)
    assert labels.ids.tolist() == [2]


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({}, "either edges or width"),
        ({"edges": [0, 1], "width": 1}, "either edges or width"),
        ({"edges": [1, 1]}, "ascending"),
        ({"edges": [-1, 1]}, "ascending"),
        ({"width": 0}, "width is 0"),
        ({"width": 1, "axis_ratio": 0}, "axis_ratio"),
    ],
)
def test_senseless_rings_are_refused(wrong, match):
    with pytest.raises(InputError, match=match):
        bin_by_radius(SHAPE, (25, 20), **wrong)


def test_a_centre_on_the_sky_needs_a_wcs_and_a_mask_its_shape():
    with pytest.raises(InputError, match="WCS"):
        bin_by_radius(SHAPE, SkyCoord(150.0, 2.0, unit="deg"), width=1.0)
    with pytest.raises(ShapeError, match="mask has shape"):
        bin_by_radius(SHAPE, (25, 20), width=1.0, mask=np.zeros((3, 3), bool))
