"""Registration against scenes that were moved by a known amount."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import Sip

from skyloom.core.image import Image
from skyloom.core.psf import GaussianPSF
from skyloom.errors import InputError
from skyloom.imaging.register import register, shift_wcs
from skyloom.mock.images import sky_wcs
from skyloom.mock.noise import correlated_noise, kernel_correlation

SHAPE = (60, 64)
WCS = sky_wcs((53.1, -27.8), SHAPE, 0.06)
MATRIX = np.diag([-0.06, 0.06])
SOURCES = ((20.3, 18.7, 40.0), (41.0, 30.5, 60.0), (28.4, 44.1, 30.0), (52.7, 12.2, 20.0))


def field(shift=(0.0, 0.0), rotation=0.0):
    """Stars at known places, shifted and turned about the centre of the image."""
    data = np.zeros(SHAPE)
    angle = np.radians(rotation)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = (np.array(SHAPE[::-1]) - 1) / 2
    side = 129
    for x, y, flux in SOURCES:
        place = turn @ (np.array([x, y]) - centre) + centre + shift
        star = GaussianPSF(0.2).render(MATRIX, side, offset=tuple(place - np.rint(place)))
        column, row = np.rint(place).astype(int)
        data += flux * star[64 - row : 64 - row + SHAPE[0], 64 - column : 64 - column + SHAPE[1]]
    return data


def image(data, sigma=0.05, mask=None, correlation=None):
    return Image(data, np.full(SHAPE, sigma**2), mask, "electron/s", WCS, correlation=correlation)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.37, -0.81), (5.2, 3.4), (-7.6, 0.5)])
def test_shift_without_noise(shift):
    found = register(image(field(shift)), image(field()))
    assert (found.shift_x, found.shift_y) == pytest.approx(shift, abs=2e-3)
    assert found.scale == pytest.approx(1.0, abs=2e-3)
    assert found.correlation > 0.99


def test_rotation_without_noise():
    found = register(image(field((1.2, -0.4), 1.5)), image(field()), rotation=True)
    assert found.rotation == pytest.approx(1.5, abs=5e-3)
    assert (found.shift_x, found.shift_y) == pytest.approx((1.2, -0.4), abs=5e-3)
    assert found.covariance.shape == (3, 3)


def test_brightness_and_pedestal_do_not_matter():
    found = register(image(3.0 * field((0.6, 0.2)) + 7.0), image(field()))
    assert (found.shift_x, found.shift_y) == pytest.approx((0.6, 0.2), abs=2e-3)
    assert found.scale == pytest.approx(3.0, rel=1e-2)


def test_garbage_under_the_mask_changes_nothing():
    mask = np.zeros(SHAPE, bool)
    mask[25:28, 30:36] = True
    results = []
    for garbage in (np.nan, 1e6):
        data = field((0.6, 0.2))
        data[mask] = garbage
        results.append(register(image(data, mask=mask), image(field())))
    assert results[0].shift_x == results[1].shift_x
    assert results[0].shift_x == pytest.approx(0.6, abs=5e-3)


@pytest.mark.slow
def test_errors_hold_with_correlated_noise_in_both_images():
    axis = np.arange(-3, 4)
    kernel = np.exp(-0.5 * np.add.outer(axis**2, axis**2) / 0.9**2)
    kernel /= np.sqrt(np.sum(kernel**2))
    generator = np.random.default_rng(3)
    rho = kernel_correlation(kernel)
    variance = np.full(SHAPE, 0.1**2)
    pulls = []
    for _ in range(150):
        noisy = [
            image(data + correlated_noise(variance, kernel, generator), 0.1, correlation=rho)
            for data in (field((0.43, -0.27)), field())
        ]
        found = register(*noisy)
        pulls.append(
            [(found.shift_x - 0.43) / found.shift_errors[0], (found.shift_y + 0.27) / found.shift_errors[1]]
        )
    pulls = np.array(pulls)
    # Noise in the gradient of the reference, left out of the error, widens the pulls by a few per cent.
    assert np.all(np.abs(pulls.mean(axis=0)) < 3 / np.sqrt(len(pulls)) + 0.1)
    assert np.all(np.abs(pulls.std(axis=0) - 1) < 3 / np.sqrt(2 * len(pulls)) + 0.05)


def test_unrelated_images_are_refused(rng):
    noise = [image(rng.normal(size=SHAPE), 1.0) for _ in range(2)]
    with pytest.raises(InputError, match=r"do not resemble|beyond the search"):
        register(*noise)


def test_images_without_wcs_or_overlap_are_refused():
    bare = Image(field(), np.ones(SHAPE), None, "electron/s", None)
    with pytest.raises(InputError, match="WCS of both"):
        register(bare, image(field()))
    mask = np.ones(SHAPE, bool)
    mask[:5, :5] = False
    with pytest.raises(InputError, match="share 25 usable pixels"):
        register(image(field(), mask=mask), image(field()))


@pytest.mark.parametrize("kind", ["cd", "pc", "sip"])
def test_corrected_wcs_puts_features_where_the_reference_has_them(kind):
    wcs = WCS.deepcopy()
    if kind == "pc":
        if wcs.wcs.has_cd():
            del wcs.wcs.cd
        wcs.wcs.pc = np.eye(2)
        wcs.wcs.cdelt = [-0.06 / 3600, 0.06 / 3600]
    if kind == "sip":
        a = np.zeros((3, 3))
        a[2, 0] = 1e-4
        wcs.sip = Sip(a, np.zeros((3, 3)), None, None, wcs.wcs.crpix)
        wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    wcs.wcs.set()
    rotation = 0.0 if kind == "sip" else 1.0
    moved = image(field((1.5, -0.7), rotation)).evolve(wcs=wcs)
    reference = image(field()).evolve(wcs=wcs)
    found = register(moved, reference, rotation=rotation > 0)
    mended = shift_wcs(moved, found)
    angle = np.radians(found.rotation)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = (np.array(SHAPE[::-1]) - 1) / 2
    for x, y, _ in SOURCES:
        there = turn @ (np.array([x, y]) - centre) + centre + [found.shift_x, found.shift_y]
        sky = reference.wcs.all_pix2world([[x, y]], 0)
        again = mended.wcs.all_pix2world([there], 0)
        np.testing.assert_allclose(again, sky, atol=1e-9)
    assert mended.history[-1].name == "shift_wcs"
    np.testing.assert_array_equal(mended.data, moved.data)
