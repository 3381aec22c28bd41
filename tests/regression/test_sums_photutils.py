"""Sums over apertures and segments against photutils and scipy, which know no covariance and no shared errors."""

from __future__ import annotations

import numpy as np
import pytest
from photutils.aperture import CircularAperture, aperture_photometry
from photutils.segmentation import SegmentationImage, SourceCatalog
from scipy import ndimage
from tests.inputs.sky import galaxy_field, sky_image

from skyloom.imaging.measure.regions import sum_apertures, sum_regions


@pytest.fixture
def image(rng):
    image = sky_image(galaxy_field(rng, "acs") + rng.normal(size=(100, 100)))
    return image.evolve(variance=rng.uniform(0.5, 2.0, image.shape), mask=rng.random(image.shape) < 0.05)


def test_apertures_equal_photutils(image, rng):
    x, y = rng.uniform(0, 99, (2, 40))
    for radius in (0.7, 3.0, 11.3):
        ours = sum_apertures(image, x, y, radius)
        theirs = aperture_photometry(
            image.data, CircularAperture(np.transpose([x, y]), radius), error=np.sqrt(image.variance),
            mask=image.mask, method="exact",
        )  # fmt: skip
        np.testing.assert_allclose(ours["flux"].value, theirs["aperture_sum"], rtol=1e-8, atol=1e-8)
        # photutils weighs the variance of a cut pixel with the overlap itself, which is right for photons of that
        # part of the pixel; a weighted sum of pixel values has the overlap squared. Whole pixels agree.
        assert np.all(ours["flux_err"].value <= theirs["aperture_sum_err"] + 1e-12)
        if radius >= 3.0:
            weight = CircularAperture([50, 50], radius).to_mask(method="exact").data
            factor = np.sqrt(np.sum(weight**2) / np.sum(weight))
            ratio = ours["flux_err"].value / theirs["aperture_sum_err"]
            assert np.median(ratio) == pytest.approx(factor, rel=0.02)


def test_regions_equal_scipy(image, rng):
    labels = rng.integers(-1, 30, image.shape).astype(np.int32)
    table = sum_regions(image, labels)
    usable = np.where(image.mask, -1, labels)
    ids = np.asarray(table["label"])
    np.testing.assert_allclose(table["flux"].value, ndimage.sum_labels(image.data, usable, ids))
    np.testing.assert_allclose(table["flux_err"].value ** 2, ndimage.sum_labels(image.variance, usable, ids))
    np.testing.assert_array_equal(table["n_pixels"], np.bincount(usable[usable >= 0]))
    np.testing.assert_array_equal(
        table["n_masked"], np.bincount(labels[(labels >= 0) & image.mask], minlength=30)
    )


def test_segments_equal_photutils(image):
    segments = np.zeros(image.shape, np.int32)
    segments[40:60, 35:70], segments[5:15, 5:25], segments[80:90, 60:90] = 1, 2, 3
    catalogue = SourceCatalog(
        image.data, SegmentationImage(segments), error=np.sqrt(image.variance), mask=image.mask
    )
    table = sum_regions(image, np.where(segments > 0, segments, -1))
    np.testing.assert_allclose(table["flux"].value, catalogue.segment_flux)
    errors = getattr(catalogue, "segment_flux_err", None)
    errors = catalogue.segment_fluxerr if errors is None else errors
    np.testing.assert_allclose(table["flux_err"].value, errors)
