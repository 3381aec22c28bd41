"""The light in a fibre, and the seeing of an image."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS

from skyloom.core.image import Image, Mode
from skyloom.core.psf import GaussianPSF, MoffatPSF
from skyloom.errors import InputError, ShapeError
from skyloom.imaging.measure.fibre import fibre_flux, measure_seeing

SCALE = 0.396


def frame_wcs(scale=SCALE, ratio=1.0, reference=(60.0, 50.0)):
    """A WCS turned by 90 degrees, as those of drift scans are."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [38.33, -0.107]
    wcs.wcs.crpix = list(reference)
    wcs.wcs.cd = np.array([[0.0, scale * ratio], [scale, 0.0]]) / 3600
    wcs.wcs.set()
    return wcs


def flat(level=1.0, shape=(100, 120), variance=0.04, **options):
    options = {"unit": u.nmgy, "wcs": frame_wcs(), **options}
    return Image(np.full(shape, level), np.full(shape, variance), np.zeros(shape, bool), **options)


def sky(image, x, y):
    ra, dec = image.wcs.all_pix2world(x, y, 0)
    return np.array([ra, dec])


def star_image(psf, places, flux, shape=(100, 120), noise=0.0, rng=None):
    image = flat(0.0, shape, max(noise, 1e-3) ** 2, psf=psf)
    data, size = np.zeros(shape), 61
    for (x, y), amount in zip(places, np.broadcast_to(flux, len(places)), strict=True):
        column, line = round(x), round(y)
        stamp = psf.render(image.pixel_matrix, size, (x - column, y - line))
        top, left = line - size // 2, column - size // 2
        rows = slice(max(0, top), min(shape[0], top + size))
        columns = slice(max(0, left), min(shape[1], left + size))
        data[rows, columns] += (
            amount * stamp[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        )
    if noise:
        data += noise * rng.standard_normal(shape)
    return image.evolve(data=data)


def test_positions_and_diameters_in_all_forms():
    image = flat()
    place = sky(image, [30.0, 60.0], [40.0, 50.0]).T
    two = fibre_flux(image, place, 3 * u.arcsec)
    same = fibre_flux(image, SkyCoord(*place.T, unit="deg"), np.array([3.0, 2.0]))
    np.testing.assert_allclose(two["x"], [30, 60], atol=1e-6)
    np.testing.assert_allclose(same["y"], [40, 50], atol=1e-6)
    assert same["flux"][0] == two["flux"][0]
    assert float(same["flux"][1] / two["flux"][1]) == pytest.approx(4 / 9, rel=1e-6)
    assert np.isnan(two["seeing"]).all()


def test_surface_brightness_is_multiplied_with_the_area():
    image = flat(3.0, unit=u.nmgy / u.arcsec**2)
    (found,) = fibre_flux(image, sky(image, 50.2, 50.7), 3.0)
    assert found["flux"].to_value(u.nmgy) == pytest.approx(3.0 * np.pi * 1.5**2, rel=1e-6)


@pytest.mark.parametrize("source", [1.2, 1.5])
def test_at_a_common_seeing_a_star_loses_the_same(source):
    """Stars of any seeing give what a Gaussian of 2 arcsec leaves in the fibre."""
    image = star_image(GaussianPSF(source), [(50.3, 47.6)], 100.0)
    (found,) = fibre_flux(image, sky(image, 50.3, 47.6), 2.0, seeing=2.0)
    sigma = GaussianPSF(2.0).sigma
    expected = 100 * (1 - np.exp(-0.5 / sigma**2))
    assert found["flux"].value == pytest.approx(expected, rel=4e-3)
    assert found["seeing"].to_value(u.arcsec) == pytest.approx(2.0)
    (matched,) = fibre_flux(image, sky(image, 50.3, 47.6), 2.0, seeing=GaussianPSF(2.0))
    # A PSF is matched as it stands: the pixels of the detector and those that the circle cuts widen it.
    wider = sigma**2 + SCALE**2 / 6
    assert matched["flux"].value == pytest.approx(100 * (1 - np.exp(-0.5 / wider)), rel=5e-3)


def test_wings_are_not_taken_away():
    """Smoothing a Moffat to a FWHM broadens its core and keeps its sum: no deconvolution of wings."""
    psf = MoffatPSF(1.2, beta=3.0)
    image = star_image(psf, [(60.0, 50.0)], 100.0)
    place = sky(image, 60.0, 50.0)
    smooth = fibre_flux(image, place, 16.0, seeing=1.8)["flux"][0].value
    assert smooth == pytest.approx(fibre_flux(image, place, 16.0)["flux"][0].value, rel=5e-3)


@pytest.mark.parametrize("correlated", [False, True])
def test_pulls_of_fibres(rng, correlated):
    """Noise in fibres of smoothed images has the errors that are told, white or correlated before."""
    shape, n_frames = (110, 130), 6
    kernel = np.array([[0.05, 0.1, 0.05], [0.1, 0.9, 0.1], [0.05, 0.1, 0.05]])
    kernel = kernel / np.sqrt(np.sum(kernel**2)) if correlated else np.ones((1, 1))
    y, x = (part.ravel() for part in np.mgrid[14:100:14, 14:120:14] + 0.37)
    pulls = []
    for _ in range(n_frames):
        white = rng.standard_normal((shape[0] + 2, shape[1] + 2))
        side = kernel.shape[0]
        noise = sum(
            kernel[i, j] * white[i : i + shape[0], j : j + shape[1]] for i in range(side) for j in range(side)
        )
        if correlated:
            rho = np.zeros((5, 5))
            for i in range(3):
                for j in range(3):
                    rho[2 - i : 5 - i, 2 - j : 5 - j] += kernel[i, j] * kernel
        image = flat(0.0, shape, 0.25, psf=GaussianPSF(1.3), correlation=rho if correlated else None)
        image = image.evolve(data=0.5 * noise)
        table = fibre_flux(image, sky(image, x, y).T, 2.0, seeing=2.0)
        pulls.append((table["flux"] / table["flux_err"]).to_value(u.one))
    pull = np.concatenate(pulls)
    # Apertures are 14 pixels apart, seven times the smoothing: independent.
    assert abs(pull.mean()) < 3 / np.sqrt(pull.size)
    assert abs(pull.std() - 1) < 3 / np.sqrt(2 * pull.size)


def test_shared_errors_count_in_full():
    image = flat(2.0, modes=(Mode("sky", 1.0, 0.1),))
    (found,) = fibre_flux(image, sky(image, 50.0, 50.0), 3.0)
    area = np.pi * 1.5**2 / SCALE**2
    assert found["flux_err"].value > 0.1 * area
    assert found["flux_err"].value == pytest.approx(np.hypot(0.1 * area, 0.2 * np.sqrt(area)), rel=0.05)


def test_what_is_not_covered_is_said():
    image = flat(1.0)
    mask = image.mask.copy()
    mask[:, :60] = True
    image = image.evolve(data=np.where(mask, np.nan, image.data), mask=mask)
    half, inside, off = fibre_flux(image, sky(image, [59.5, 30.0, -40.0], [50.0, 50.0, 50.0]).T, 3.0)
    assert half["covered"] == pytest.approx(0.5, abs=1e-6)
    assert half["flux"].value == pytest.approx(0.5 * np.pi * 1.5**2 / SCALE**2, rel=1e-6)
    for lost in (inside, off):
        assert lost["covered"] == 0
        assert np.isnan(lost["flux"].value)
        assert np.isnan(lost["flux_err"].value)


@pytest.mark.parametrize(
    ("diameter", "seeing", "error", "text"),
    [
        (0.0, None, InputError, "diameter"),
        ([2.0, 3.0], None, ShapeError, "diameters"),
        (2.0, 1.0, InputError, "sharper"),
    ],
)
def test_what_cannot_be_measured_is_refused(diameter, seeing, error, text):
    image = flat(psf=GaussianPSF(1.4))
    with pytest.raises(error, match=text):
        fibre_flux(image, sky(image, 50.0, 50.0), diameter, seeing=seeing)


def test_no_psf_and_oblong_pixels_are_refused():
    image = flat()
    with pytest.raises(InputError, match="PSF"):
        fibre_flux(image, sky(image, 50.0, 50.0), 2.0, seeing=2.0)
    with pytest.raises(InputError, match="square"):
        fibre_flux(image.evolve(wcs=frame_wcs(ratio=1.1)), (38.33, -0.107), 2.0)
    with pytest.raises(ShapeError, match="position"):
        fibre_flux(image, [38.0, 0.1, 3.0], 2.0)


def test_the_seeing_of_a_frame_is_that_of_its_stars(rng):
    shape = (420, 460)
    places = [
        (x + rng.uniform(-1, 1), y + rng.uniform(-1, 1))
        for y in (60, 160, 260, 360)
        for x in (70, 190, 310, 400)
    ]
    image = star_image(
        MoffatPSF(1.4, beta=3.5), places, rng.uniform(40, 300, len(places)), shape, noise=0.03, rng=rng
    ).evolve(psf=None)
    found = measure_seeing(image)
    assert found.used.sum() >= 12
    assert found.psf.fwhm == pytest.approx(1.4, rel=0.02)
    assert isinstance(found.psf, MoffatPSF)
    empty = flat(0.0).evolve(data=0.2 * rng.standard_normal((100, 120)))
    with pytest.raises(InputError, match="peaks"):
        measure_seeing(empty)
