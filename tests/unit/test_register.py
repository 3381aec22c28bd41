"""Registration: shifts found, WCS put right, refusals."""

import numpy as np
import pytest

from skyloom.core.image import Image
from skyloom.errors import InputError
from skyloom.imaging.grids.register import register, shift_wcs
from skyloom.imaging.grids.reproject import reproject
from tests.grids import tangent_wcs

SHAPE = (90, 101)


def blobs(shape, wcs=None, shift=(0.0, 0.0), angle=0.0, seed=3, count=14, sigma=1.6):
    """Round sources at fixed places relative to the centre, moved and turned about it; or at sky places of a WCS."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape, dtype=float)
    centre_y, centre_x = (shape[0] - 1) / 2, (shape[1] - 1) / 2
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    light = np.zeros(shape)
    for _ in range(count):
        u, v = rng.uniform(-42, 42), rng.uniform(-37, 37)
        flux, width = rng.exponential(30) + 5, sigma * rng.uniform(1, 2.5)
        if wcs is None:
            x0, y0 = centre_x + c * u - s * v + shift[0], centre_y + s * u + c * v + shift[1]
        else:
            sky = tangent_wcs(SHAPE).wcs_pix2world(50 + u, 44.5 + v, 0)
            x0, y0 = (float(value) for value in wcs.wcs_world2pix(*sky, 0))
            x0, y0 = x0 + shift[0], y0 + shift[1]
        light += flux / width * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * width**2))
    return light


def make_image(rng, light, sigma=0.3, wcs=None, masked=0.005):
    mask = rng.random(light.shape) < masked
    data = light + sigma * rng.normal(size=light.shape)
    data[mask] = rng.choice([np.nan, 1e6, -1e6], mask.sum())
    return Image(data, np.full(light.shape, sigma**2), mask, "electron/s", wcs or tangent_wcs(light.shape))


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.5, 0.5), (3.3, -2.7), (-12.0, 7.25)])
def test_shift_is_found_within_its_error(rng, shift):
    reference = make_image(rng, blobs(SHAPE))
    image = make_image(rng, 2.5 * blobs(SHAPE, shift=shift) + 4.0)
    found = register(image, reference)
    error = found.shift_error
    assert 0.003 < error[0] < 0.02
    assert abs(found.shift_x - shift[0]) < 4 * error[0]
    assert abs(found.shift_y - shift[1]) < 4 * error[1]
    assert found.amplitude == pytest.approx(2.5, rel=0.01)
    assert found.correlation > 0.9
    assert found.agreement > 0.98
    assert found.chi_square == pytest.approx(1.0, abs=0.1)
    assert found.rotation == 0.0
    # East is to the left on this grid of 0.05 arcsec.
    np.testing.assert_allclose(
        found.offset, [-0.05 * found.shift_x, 0.05 * found.shift_y], rtol=1e-5, atol=1e-8
    )
    np.testing.assert_allclose(found.offset_covariance[0, 0], 0.05**2 * found.covariance[0, 0], rtol=1e-5)


def test_swapping_the_images_reverses_the_shift(rng):
    first, second = make_image(rng, blobs(SHAPE)), make_image(rng, blobs(SHAPE, shift=(1.3, -0.6)))
    there, back = register(second, first), register(first, second)
    assert there.shift_x == pytest.approx(-back.shift_x, abs=0.015)
    assert there.shift_y == pytest.approx(-back.shift_y, abs=0.015)


def test_small_rotation_is_found(rng):
    reference = make_image(rng, blobs(SHAPE))
    image = make_image(rng, blobs(SHAPE, shift=(1.2, -0.4), angle=0.8))
    found = register(image, reference, model="shift+rotation")
    assert found.covariance.shape == (3, 3)
    error = np.sqrt(found.covariance[2, 2])
    assert error < 0.05
    assert abs(found.rotation - 0.8) < 4 * error
    assert abs(found.shift_x - 1.2) < 4 * found.shift_error[0]
    assert abs(found.shift_y + 0.4) < 4 * found.shift_error[1]


@pytest.mark.parametrize("sip", [False, True])
@pytest.mark.parametrize("rotation", [0.0, 33.0])
def test_corrected_wcs_finds_the_sources(rng, rotation, sip):
    """An image on another grid with a wrong CRPIX; once put right it lies on the reference."""
    reference = make_image(rng, blobs(SHAPE))
    shape = (110, 105)
    wrong = tangent_wcs(shape, 0.047, rotation, (2.0, 1.0), sip=sip)
    true = wrong.deepcopy()
    true.wcs.crpix = np.add(true.wcs.crpix, [1.7, -2.2])
    if sip:
        true.sip = None
        true.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    true.wcs.set()
    image = make_image(rng, blobs(shape, true), wcs=wrong)
    before = image.wcs.wcs.crpix.copy()
    found = register(image, reference)
    fixed = shift_wcs(image, found)
    np.testing.assert_array_equal(image.wcs.wcs.crpix, before)
    assert fixed.data is image.data
    assert fixed.history[-1].name == "shift_wcs"
    np.testing.assert_allclose(fixed.wcs.wcs.crpix, true.wcs.crpix, atol=0.05)
    again = register(fixed, reference)
    assert np.hypot(*again.offset) < 0.001
    if sip:
        assert fixed.wcs.sip is not None
        np.testing.assert_allclose(fixed.wcs.sip.crpix - before, fixed.wcs.wcs.crpix - before, atol=1e-9)


@pytest.mark.parametrize("use_cd", [True, False])
def test_rotation_is_put_into_the_wcs(rng, use_cd):
    reference = make_image(rng, blobs(SHAPE))
    wcs = tangent_wcs(SHAPE, shift=(30.0, 20.0))
    if not use_cd:
        plain = tangent_wcs(SHAPE)
        wcs = type(plain)(naxis=2)
        wcs.wcs.ctype, wcs.wcs.crval = plain.wcs.ctype, plain.wcs.crval
        wcs.wcs.crpix, wcs.wcs.cdelt = plain.wcs.crpix, [-0.05 / 3600, 0.05 / 3600]
        wcs.wcs.set()
        reference = reference.evolve(wcs=wcs)
    else:
        reference = reference.evolve(wcs=wcs)
    image = make_image(rng, blobs(SHAPE, shift=(1.2, -0.4), angle=0.8), wcs=wcs)
    fixed = shift_wcs(image, register(image, reference, model="shift+rotation"))
    again = register(reproject(fixed, reference), reference, model="shift+rotation")
    assert abs(again.rotation) < 0.05
    assert np.hypot(again.shift_x, again.shift_y) < 0.03


def test_rotation_of_a_distorted_wcs_is_refused(rng):
    reference = make_image(rng, blobs(SHAPE))
    image = make_image(rng, blobs(SHAPE, angle=0.8))
    found = register(image, reference, model="shift+rotation")
    with pytest.raises(InputError, match="SIP"):
        shift_wcs(image.evolve(wcs=tangent_wcs(SHAPE, sip=True)), found)


def test_poor_matches_are_refused(rng):
    reference = make_image(rng, blobs(SHAPE))
    empty = make_image(rng, np.zeros(SHAPE))
    with pytest.raises(InputError, match="nothing common"):
        register(empty, reference)
    for seed in range(20, 26):  # other sources
        with pytest.raises(InputError):
            register(make_image(rng, blobs(SHAPE, seed=seed)), reference)
    far = make_image(rng, blobs(SHAPE, shift=(9.0, 0.0)))
    with pytest.raises(InputError, match="edge of the search"):
        register(far, reference, max_shift_arcsec=0.2)
    assert register(far, reference, max_shift_arcsec=0.6).shift_x == pytest.approx(9.0, abs=0.03)
    tiny = Image(np.ones((10, 10)), np.ones((10, 10)), None, "electron/s", tangent_wcs((10, 10)))
    with pytest.raises(InputError, match="usable pixels"):
        register(tiny, tiny)
    with pytest.raises(InputError, match="overlap"):
        register(make_image(rng, blobs(SHAPE), wcs=tangent_wcs(SHAPE, centre=(53.2, -27.8))), reference)
    with pytest.raises(InputError, match="model"):
        register(reference, reference, model="affine")
    with pytest.raises(InputError, match="max_shift_arcsec"):
        register(reference, reference, max_shift_arcsec=-1.0)
    with pytest.raises(InputError, match="no WCS"):
        shift_wcs(reference.evolve(wcs=None), register(reference, reference))


def test_correlated_noise_widens_the_error(rng):
    light = blobs(SHAPE)
    reference, image = make_image(rng, light), make_image(rng, light)
    rho = np.outer([0.1, 0.5, 1.0, 0.5, 0.1], [0.1, 0.5, 1.0, 0.5, 0.1])
    white = register(image, reference)
    wide = register(image.evolve(correlation=rho), reference.evolve(correlation=rho))
    assert wide.shift_error[0] > 1.5 * white.shift_error[0]


def test_a_reference_of_few_pixels_is_registered_with_what_lies_beyond_it(rng):
    """20 x 20 pixels out of a larger image, displaced by 8: half of the reference would be lost at its borders."""
    light = blobs(SHAPE)
    image = make_image(rng, light, masked=0.0)
    rows, columns = slice(48, 68), slice(28, 48)
    wcs = image.wcs.deepcopy()
    # The reference shows rows and columns of the scene, and says that it shows others.
    wcs.wcs.crpix = wcs.wcs.crpix - [columns.start, rows.start] + [5.4, -6.3]
    wcs.wcs.set()
    cut = make_image(rng, blobs(SHAPE)[rows, columns], wcs=wcs, masked=0.0)
    found = register(image, cut, max_shift_arcsec=0.6)
    # 256 pixels stay when the gradients have taken their two rows.
    assert found.n_pixels == 256
    assert abs(found.shift_x - 5.4) < 4 * found.shift_error[0]
    assert abs(found.shift_y + 6.3) < 4 * found.shift_error[1]
    assert max(found.shift_error) < 0.1
