"""Masks of stars from catalogues, masks, detection and saturation."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable, Table
from scipy import signal

from skyloom.core.image import Flag, Image
from skyloom.core.labels import LabelMap
from skyloom.core.psf import MoffatPSF
from skyloom.errors import InputError, ShapeError
from skyloom.imaging.stars import detection as star_detection
from skyloom.imaging.stars.detection import find_point_sources
from skyloom.imaging.stars.masks import apply_star_mask, mask_stars
from tests.grids import tangent_wcs

N = 200
SCALE = 0.04
PSF = MoffatPSF(0.1, 2.8)
PLACES = np.array([[50.3, 60.8], [150.0, 40.2], [100.4, 150.5]])
FLUXES = np.array([3000.0, 30000.0, 1000.0])


def star_field(places=PLACES, fluxes=FLUXES, seed=1, saturation=None, **changes):
    wcs = tangent_wcs((N, N), SCALE, 25.0)
    noise = np.random.default_rng(seed).normal(0, 1.0, (N, N)).astype(np.float32)
    image = Image(noise, np.ones((N, N), np.float32), None, "electron / s", wcs, psf=PSF)
    data = image.data.astype(float)
    for (x, y), flux in zip(places, fluxes, strict=True):
        column, row = round(x), round(y)
        stamp = flux * PSF.render(image.pixel_matrix, 151, (x - column, y - row))
        rows, columns = np.arange(row - 75, row + 76), np.arange(column - 75, column + 76)
        keep_y, keep_x = (rows >= 0) & (rows < N), (columns >= 0) & (columns < N)
        data[np.ix_(rows[keep_y], columns[keep_x])] += stamp[np.ix_(keep_y, keep_x)]
    if saturation is not None:
        data = np.minimum(data, saturation)
    return image.evolve(data=data.astype(np.float32), **changes)


def catalogue_of(image, places=PLACES, **columns):
    ra, dec = image.wcs.all_pix2world(places[:, 0], places[:, 1], 0)
    return QTable({"ra": ra * u.deg, "dec": dec * u.deg, **columns})


def distance(place):
    y, x = np.indices((N, N))
    return SCALE * np.hypot(x - place[0], y - place[1])


def test_radii_of_a_catalogue_are_circles_on_the_sky():
    image = star_field()
    stars = mask_stars(image, catalogue=catalogue_of(image, radius=[0.5, 1.0, 0.3] * u.arcsec))
    expected = np.zeros((N, N), dtype=bool)
    for place, radius in zip(PLACES, (0.5, 1.0, 0.3), strict=True):
        expected |= distance(place) <= radius
    assert np.count_nonzero(stars.mask != expected) <= 4  # Rounding on the rims.
    assert stars.n_pixels == stars.mask.sum()
    assert stars.table["inside"].all()
    np.testing.assert_allclose(stars.table["x"].value, PLACES[:, 0], atol=1e-6)


def test_plain_numbers_are_degrees_and_arcsec():
    image = star_field()
    table = catalogue_of(image, radius_arcsec=[0.5, 1.0, 0.3])
    plain = Table({name: np.asarray(table[name]) for name in table.colnames})
    minutes = catalogue_of(image, radius=[0.5 / 60, 1.0 / 60, 0.3 / 60] * u.arcmin)
    first, second = (mask_stars(image, catalogue=one).mask for one in (plain, minutes))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("how", ["flux", "magnitude", "measured"])
def test_light_outside_of_a_star_is_below_the_noise(how):
    image = star_field()
    columns = {
        "flux": {"flux": FLUXES * u.electron / u.s},
        "magnitude": {"magnitude": (25.0 - 2.5 * np.log10(FLUXES)) * u.mag},
        "measured": {},
    }[how]
    stars = mask_stars(image, catalogue=catalogue_of(image, **columns), zero_point=25.0)
    light = star_field().data - star_field(fluxes=0 * FLUXES).data
    assert light[~stars.mask].max() < 1.1
    # But not much more than that is masked: Hubble's halo reaches further than this PSF.
    assert stars.mask.mean() < 0.2
    order = np.argsort(FLUXES)
    assert (np.diff(stars.table["radius"].value[order]) > 0).all()
    if how != "measured":
        np.testing.assert_allclose(stars.table["flux"], FLUXES, rtol=1e-6)
    else:
        np.testing.assert_allclose(stars.table["flux"], FLUXES, rtol=0.1)


def test_stars_outside_are_listed_and_their_halo_reaches_in():
    places = np.array([[-10.0, 100.0], [-5000.0, 100.0], [100.0, N + 3.0]])
    image = star_field(fluxes=0 * FLUXES)
    table = catalogue_of(image, places, radius=[1.0, 1.0, 0.05] * u.arcsec)
    stars = mask_stars(image, catalogue=table)
    assert stars.table["inside"].tolist() == [True, False, False]
    assert stars.mask[100, 0]
    assert not stars.mask[:, 20:].any()
    # Beyond the horizon, and without any radius: nothing to mask, no failure.
    far = QTable({"ra": [233.0, 53.1] * u.deg, "dec": [27.8, -27.9] * u.deg})
    assert not mask_stars(image, catalogue=far).mask.any()


def test_masks_are_taken_and_label_maps_moved():
    image = star_field()
    given = np.zeros((N, N), dtype=bool)
    given[20:40, 50:60] = True
    np.testing.assert_array_equal(mask_stars(image, mask=given).mask, given)
    half = tangent_wcs((N // 2, N // 2), 2 * SCALE, 25.0)
    labels = np.full((N // 2, N // 2), -1)
    labels[10:20, 25:30] = 0
    moved = mask_stars(image, mask=LabelMap(labels, half)).mask
    np.testing.assert_array_equal(moved, given)
    with pytest.raises(ShapeError, match="mask of the stars"):
        mask_stars(image, mask=np.zeros((3, 3), dtype=bool))


def test_stars_are_found_and_extended_sources_are_not():
    blob = MoffatPSF(0.2, 2.8)
    image = star_field()
    data = image.data.copy()
    data[140:171, 20:51] += 5000 * blob.render(image.pixel_matrix, 31)
    x, y, flux = find_point_sources(image.evolve(data=data))
    order = np.argsort(flux)
    assert x.size == 3
    expected = np.argsort(FLUXES)
    np.testing.assert_allclose(flux[order], FLUXES[expected], rtol=0.1)
    np.testing.assert_allclose(np.column_stack([x, y])[order], PLACES[expected], atol=0.15)
    stars = mask_stars(image.evolve(data=data), detect=True)
    assert set(stars.table["origin"]) == {"detected"}
    assert not stars.mask[155, 35]


def test_the_significance_of_a_point_knows_the_correlation_of_the_noise(rng):
    blur = np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25])
    rho = signal.convolve(blur, blur)
    rho /= rho.max()
    stamp = PSF.render(np.diag([-SCALE, SCALE]), 25)[6:-6, 6:-6]
    noise = signal.fftconvolve(rng.normal(size=(4000, 15, 15)), blur[np.newaxis], mode="valid", axes=(1, 2))
    noise /= np.sqrt(np.sum(blur**2))
    shape = (stamp - stamp.mean()) / np.sum((stamp - stamp.mean()) ** 2)
    measured = np.var(np.tensordot(noise, shape, 2))
    # The variance of 4000 draws is known to 2.2 %.
    assert star_detection._noise_gain(stamp, rho) == pytest.approx(measured, rel=0.07)
    assert star_detection._noise_gain(stamp, rho) > 1.5 * star_detection._noise_gain(stamp, None)
    # A threshold between the significances that a star of 1000 has with and without it.
    stamp = PSF.render(np.diag([-SCALE, SCALE]), 9)
    gains = [star_detection._noise_gain(stamp, correlation) for correlation in (None, rho)]
    threshold = 1000.0 / (gains[0] * gains[1]) ** 0.25
    assert find_point_sources(star_field(), significance=threshold)[0].size == 3
    assert find_point_sources(star_field(correlation=rho), significance=threshold)[0].size == 2


def test_points_in_the_line_are_nebulae():
    image = star_field()
    line = star_field(fluxes=np.array([0.0, 0.0, 800.0]), seed=2)
    assert find_point_sources(image, line=line)[0].size == 2
    with pytest.raises(ShapeError, match="line"):
        find_point_sources(image, line=Image(np.ones((3, 3)), np.ones((3, 3)), None, image.unit, None))


@pytest.mark.parametrize("level", [1500.0, "auto"])
def test_saturated_stars_are_masked_with_their_columns_and_haloes(level):
    fluxes = np.array([3000.0, 300000.0, 1000.0])
    image = star_field(fluxes=fluxes, saturation=1500.0)
    data = image.data.copy()
    data[20:90, 150] = 1500.0  # A bleeding column.
    data[170, 30] = 1e4 if level != "auto" else 100.0  # A cosmic ray is no star.
    stars = mask_stars(image.evolve(data=data), saturation=level)
    assert stars.table["origin"].tolist() == ["saturated"]
    assert stars.mask[18:92, 148:153].all()
    assert not stars.mask[170, 30]
    np.testing.assert_allclose([stars.table["x"][0].value, stars.table["y"][0].value], PLACES[1], atol=1.5)
    assert 0.3 < stars.table["flux"][0] / 300000.0 < 3.0
    light = star_field(fluxes=[0, 300000.0, 0]).data - star_field(fluxes=0 * fluxes).data
    assert light[~stars.mask].max() < 5.0


def test_pixels_flagged_as_saturated_are_stars():
    image = star_field()
    flags = np.zeros((N, N), dtype=np.uint16)
    flags[38:43, 148:153] = Flag.NEAR_SATURATED
    stars = mask_stars(image.evolve(flags=flags))
    assert stars.mask[38:43, 148:153].all()
    assert len(stars.table) == 1


def test_no_plateau_is_no_saturation():
    assert not mask_stars(star_field(), saturation="auto").mask.any()


def test_the_radius_has_a_bound():
    image = star_field()
    stars = mask_stars(image, catalogue=catalogue_of(image, flux=[1e9, 1e9, 1e9]), largest_arcsec=1.2)
    assert stars.table["radius"].value.max() == pytest.approx(1.2)


def test_problems_are_named():
    image = star_field()
    with pytest.raises(InputError, match="nothing says where stars are"):
        mask_stars(image)
    with pytest.raises(InputError, match="no column 'dec'"):
        mask_stars(image, catalogue=Table({"ra": [1.0]}))
    with pytest.raises(InputError, match="no PSF"):
        mask_stars(image.evolve(psf=None), catalogue=catalogue_of(image))
    with pytest.raises(InputError, match="no PSF"):
        mask_stars(image.evolve(psf=None), detect=True)
    with pytest.raises(InputError, match="expected arcsec"):
        mask_stars(image, catalogue=catalogue_of(image, radius=[1, 2, 3] * u.s))
    # With radii no PSF is needed.
    mask_stars(image.evolve(psf=None), catalogue=catalogue_of(image, radius=[1, 2, 3] * u.arcsec))


def test_applying_masks_and_records():
    image = star_field()
    before = image.data.copy()
    stars = mask_stars(image, catalogue=catalogue_of(image, radius=[0.5, 1.0, 0.3] * u.arcsec))
    product = apply_star_mask(image, stars)
    np.testing.assert_array_equal(product.mask, stars.mask)
    np.testing.assert_array_equal(image.data, before)
    assert not image.mask.any()
    assert product.history[-1].parameters == {"stars": 3, "pixels": stars.n_pixels}
    with pytest.raises(ShapeError):
        apply_star_mask(image, np.zeros((3, 3), dtype=bool))
