"""What existing pipelines for Halpha images do to rays, stars, holes and negative pixels, and what must not happen."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable

from skyloom.core.image import Flag, Image
from skyloom.core.psf import MoffatPSF
from skyloom.imaging import apply_star_mask, mask_stars, remove_cosmic_rays, repair_negatives
from tests.grids import tangent_wcs

N = 120
EXPOSURE = 2000.0


@pytest.fixture(scope="module")
def image():
    """An image in electron/s, whose noise is 10 electrons."""
    noise = np.random.default_rng(4).normal(0.0, 10.0, (N, N)) / EXPOSURE
    variance = np.full((N, N), (10.0 / EXPOSURE) ** 2)
    return Image(
        noise.astype(np.float32),
        variance.astype(np.float32),
        None,
        "electron / s",
        tangent_wcs((N, N), 0.04),
        psf=MoffatPSF(0.07, 2.8),
    )


def test_cosmic_rays_never_removed_although_configured(image):
    """The product has no rays, says where they were, and says what was done."""
    data = image.data.copy()
    data[60, 30:45] += 500 / EXPOSURE
    product = remove_cosmic_rays(image.evolve(data=data)).image
    assert np.abs(product.data[60, 30:45]).max() < 60 / EXPOSURE
    assert ((product.flags[60, 30:45] & Flag.REPAIRED_COSMIC_RAY) != 0).all()
    assert product.history[-1].name == "remove_cosmic_rays"
    assert product.history[-1].parameters["pixels"] >= 15


def test_rates_find_no_rays(image):
    """Tools that expect electrons find nothing in electron/s: completeness 0."""
    data = image.data.copy()
    data[20, 20], data[90, 50:52], data[40:50, 100] = 0.3, 0.3, 0.3
    rays = np.zeros((N, N), dtype=bool)
    rays[20, 20], rays[90, 50:52], rays[40:50, 100] = True, True, True
    assert remove_cosmic_rays(image.evolve(data=data)).mask[rays].all()


def test_isolated_spikes_of_two_pixels_are_missed(image):
    data = image.data.copy()
    places = np.random.default_rng(1).integers(5, N - 5, (25, 2))
    for y, x in places:
        data[y, x : x + 2] += 200 / EXPOSURE
    found = remove_cosmic_rays(image.evolve(data=data)).mask
    assert all(found[y, x : x + 2].all() for y, x in places)


def test_stars_not_masked_in_the_product(image):
    star = image.psf.render(image.pixel_matrix, 41)
    data = image.data.copy()
    data[40:81, 30:71] += (1e5 / EXPOSURE * star).astype(np.float32)
    ra, dec = image.wcs.all_pix2world(50, 60, 0)
    catalogue = QTable({"ra": [float(ra)] * u.deg, "dec": [float(dec)] * u.deg})
    bright = image.evolve(data=data)
    product = apply_star_mask(bright, mask_stars(bright, catalogue=catalogue))
    assert product.mask[60, 50]
    assert (1e5 / EXPOSURE * star)[~product.mask[40:81, 30:71]].max() < 10 / EXPOSURE
    assert not product.mask[:20].any()


def test_coverage_closing_fills_real_holes(image):
    """No repair gives a value to a pixel that has none."""
    mask = np.zeros((N, N), dtype=bool)
    mask[50, 50] = mask[80:90, 80:90] = True
    data = np.where(mask, np.nan, image.data)
    data[50, 51] = data[79, 85] = 1.0
    data[50, 49] = data[90, 85] = -1.0
    hollow = image.evolve(data=data, mask=mask)
    for product in (remove_cosmic_rays(hollow).image, repair_negatives(hollow)):
        np.testing.assert_array_equal(product.mask, mask)
        assert np.isnan(product.data[mask]).all()


def test_nonpositive_pixels_clipped_by_default(image):
    """Replacing all that is <= 0 makes an empty sky bright; outliers are what is replaced."""
    product = repair_negatives(image)
    assert abs(product.data.mean() - image.data.mean()) < 1e-3 * 10 / EXPOSURE
    assert (product.data <= 0).mean() > 0.45


def test_headers_and_data_edited_in_place(image):
    data = image.data.copy()
    data[20, 20], data[70, 70] = 1.0, -1.0
    hit = image.evolve(data=data, meta={"band": "f657n"})
    kept, history = hit.data.copy(), hit.history
    remove_cosmic_rays(hit)
    repair_negatives(hit)
    np.testing.assert_array_equal(hit.data, kept)
    assert hit.history == history
    assert hit.meta == {"band": "f657n"}
    assert hit.flags is None
