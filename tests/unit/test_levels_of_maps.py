"""Maps that are no fluxes, at coarser resolutions: velocities and ratios are averaged, shared errors kept."""

from __future__ import annotations

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest

from skyloom.core.image import Image
from skyloom.core.line_maps import SHARED_ERRORS
from skyloom.core.units import adds_up
from skyloom.imaging.grids.block_means import block_means
from skyloom.imaging.grids.reproject import reproject
from skyloom.store.levels.images import image_levels
from tests.inputs.store import small_wcs

SHAPE = (16, 24)


def flat(unit: str, value: float = -76.0, **meta: object) -> Image:
    data = np.full(SHAPE, value)
    wcs = small_wcs(10.0, -5.0, SHAPE)
    return Image(data, np.full(SHAPE, 4.0), np.zeros(SHAPE, bool), unit, wcs, meta=meta)


@pytest.mark.parametrize(
    "unit", ["nmgy", "electron/s", "adu", "ct", "Jy", "1e-16 erg/(s cm2)", "1e-17 erg/(s cm2 AA)", "Lsun"]
)
def test_fluxes_and_counts_add_up(unit):
    assert adds_up(u.Unit(unit))


@pytest.mark.parametrize(
    "unit",
    ["km/s", "AA", "", "%", "mag", "deg", "yr", "K", "MJy/sr", "Jy/beam", "1e-20 erg/(s cm2 AA arcsec2)"],
)
def test_velocities_ratios_and_brightnesses_are_averaged(unit):
    assert not adds_up(u.Unit(unit))


@pytest.mark.parametrize(("unit", "factor"), [("km/s", 1.0), ("AA", 1.0), ("", 1.0), ("nmgy", 4.0)])
def test_a_velocity_stays_a_velocity_at_every_level(unit, factor):
    image = flat(unit)
    for level, found in enumerate(image_levels(image, 3)):
        np.testing.assert_allclose(found.subject.data, -76.0 * factor**level, rtol=1e-6)
        # Of a mean of 4^level independent pixels, times the factor.
        np.testing.assert_allclose(
            found.subject.variance, 4.0 / 4.0**level * factor ** (2 * level), rtol=1e-6
        )


@pytest.mark.parametrize(("unit", "factor"), [("km/s", 1.0), ("nmgy", 4.0)])
def test_a_velocity_stays_a_velocity_on_larger_pixels(unit, factor):
    image = flat(unit)
    coarse = small_wcs(10.0, -5.0, (8, 12))
    coarse.wcs.cd = coarse.wcs.cd * 2
    coarse.wcs.set()
    found = reproject(image, (coarse, (8, 12)))
    np.testing.assert_allclose(found.data[found.valid], -76.0 * factor, rtol=1e-4)
    np.testing.assert_allclose(block_means(image, 2).data, -76.0 * factor, rtol=1e-6)


def test_errors_that_the_pixels_of_a_bin_share_are_not_halved():
    shared = flat("km/s", **{SHARED_ERRORS: "bins"})
    levels = image_levels(shared, 4)
    assert len(levels) == 1
    np.testing.assert_array_equal(levels[0].subject.variance, np.float32(4.0))
    assert len(image_levels(replace(shared, meta={}), 4)) > 1
