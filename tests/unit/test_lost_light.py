"""Wings of saturated stars: measured where one image lacks light, and given back with their error."""

import numpy as np
import pytest

from skyloom.core.image import Image
from skyloom.core.psf import MoffatPSF
from skyloom.errors import ShapeError
from skyloom.imaging.psfs.lost_light import add_lost_light, find_lost_light
from skyloom.mock.scenes.images import sky_wcs

PSF = MoffatPSF(0.8, 2.8)
SHAPE = (121, 121)
UNIT = "1e-20 erg / (s cm2 AA arcsec2)"
PLACE = (70.3, 48.6)
FLUX = 5e5


def field(rng, share):
    """A level, noise, and ``share`` of the light of a star."""
    stamp = PSF.render(np.diag([-0.2, 0.2]), 141, (0.3, -0.4))
    star = np.zeros((261, 261))
    star[49:190, 70:211] = stamp  # row 49 + 70 = 119, column 70 + 70 = 140
    star = star[119 - 49 : 119 - 49 + SHAPE[0], 140 - 70 : 140 - 70 + SHAPE[1]]
    data = 20.0 + share * FLUX * star + rng.normal(0, 1.0, SHAPE)
    return Image(data, np.ones(SHAPE), None, UNIT, sky_wcs((24.0, 15.0), SHAPE, 0.2), psf=PSF)


def stars():
    y, x = np.indices(SHAPE)
    return np.hypot(x - PLACE[0], y - PLACE[1]) < 12


def test_lost_light_is_measured_and_its_wings_come_back():
    rng = np.random.default_rng(3)
    image, reference = field(rng, 0.3), field(rng, 1.0)
    before = image.data.copy()
    lost = find_lost_light(image, reference, stars(), PSF)
    assert len(lost) == 1
    assert lost["flux"][0].to_value(UNIT) == pytest.approx(0.7 * FLUX, rel=0.02)
    assert (lost["x"][0], lost["y"][0]) == pytest.approx(PLACE, abs=0.1)
    done = add_lost_light(image, lost, PSF)
    outside = ~stars()
    difference = reference.data - image.data
    assert np.mean(difference[outside]) > 0.25  # what a fit would take for the sky; its error here is 0.012
    assert abs(np.mean((reference.data - done.data)[outside])) < 0.05
    np.testing.assert_array_equal(image.data, before)
    (mode,) = done.modes
    np.testing.assert_allclose(mode.map, done.data - image.data, atol=1e-3 * mode.map.max())
    assert mode.sigma == 0.2


def test_stars_that_lack_nothing_are_left_alone():
    rng = np.random.default_rng(4)
    image, reference = field(rng, 1.0), field(rng, 1.0)
    lost = find_lost_light(image, reference, stars(), PSF)
    assert len(lost) == 0
    assert add_lost_light(image, lost, PSF) is image


def test_masked_cores_do_not_matter_and_shapes_must_agree():
    rng = np.random.default_rng(5)
    image, reference = field(rng, 0.3), field(rng, 1.0)
    mask = np.zeros(SHAPE, bool)
    mask[49, 70] = True
    image = image.evolve(mask=mask, data=np.where(mask, np.nan, image.data))
    lost = find_lost_light(image, reference, stars(), PSF)
    assert lost["flux"][0].to_value(UNIT) == pytest.approx(0.7 * FLUX, rel=0.02)
    with pytest.raises(ShapeError, match="stars"):
        find_lost_light(image, reference, stars()[1:], PSF)
