"""Defects that were measured in existing pipelines, in masks and sky: each must stay away."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from skyloom.core.image import Flag, Image
from skyloom.core.labels import UNKNOWN, LabelMap
from skyloom.core.psf import GaussianPSF
from skyloom.errors import InputError
from skyloom.imaging.measure.masks import ObjectMask, apply_object_mask, mask_from_labels, move_labels
from skyloom.imaging.measure.regions import sum_regions
from skyloom.imaging.psfs.convolve import match_psf
from skyloom.imaging.sky.background import measure_background, subtract_background
from tests.inputs.sky import PIXEL, filtered_noise, sky_image, tangent_wcs


def test_labels_are_not_compared_as_floats():
    # float32 holds 24 bits: 16777217 becomes 16777216, another object.
    values = np.full((40, 40), 16777217, dtype=np.int32)
    values[:, 20:] = 16777216
    labels = LabelMap(values, tangent_wcs((40, 40), 0.03))
    grid = (tangent_wcs((40, 40), 0.03, 0.0), (40, 40))
    for label, half in ((16777217, np.s_[:, :20]), (16777216, np.s_[:, 20:])):
        mask = mask_from_labels(labels, grid, keep=label)
        assert mask.inside[half].all()
        assert np.count_nonzero(mask.inside) == 800
    with pytest.raises(InputError, match="expected integers"):
        LabelMap(values.astype(np.float32))


def test_an_interpolated_label_between_two_objects_is_never_made():
    values = np.where(np.arange(60) < 30, 24350, 24354) * np.ones((60, 1), dtype=np.int32)
    labels = LabelMap(values.astype(np.int32), tangent_wcs((60, 60), 0.03))
    moved = move_labels(labels, (tangent_wcs((30, 30), 0.047, 33.0), (30, 30))).labels
    assert set(np.unique(moved)) <= {24350, 24354, UNKNOWN}


def test_the_nearest_label_is_not_extrapolated_outside_the_footprint():
    labels = LabelMap(np.full((40, 40), 7, np.int32), tangent_wcs((40, 40), 0.03))
    shape = (100, 100)
    image = Image(np.ones(shape), np.ones(shape), None, "electron/s", tangent_wcs(shape, 0.03))
    mask = mask_from_labels(labels, image)
    assert np.count_nonzero(mask.inside) == 1600
    assert mask.unknown[0, 0]
    assert np.count_nonzero(mask.unknown) == 10000 - 1600
    assert np.all(apply_object_mask(image, mask).flags[mask.unknown] == Flag.UNKNOWN_FOOTPRINT)


def test_the_sky_has_an_error_that_reaches_the_fluxes(rng):
    image = sky_image(rng.normal(size=(100, 100)) + 3.0)
    found = subtract_background(image)
    sky = measure_background(image)
    assert sky.error > 0
    assert [(mode.name, mode.sigma) for mode in found.modes] == [("sky", sky.error)]
    labels = np.full(image.shape, -1, np.int32)
    labels[20:80, 20:80] = 0
    (row,) = sum_regions(found, labels)
    assert row["flux_err"].value == pytest.approx(np.hypot(60.0, 3600 * sky.error))


def test_a_sky_gradient_can_be_followed(rng):
    gradient = np.linspace(0.0, 3.0, 128) * np.ones((128, 1))
    image = sky_image(rng.normal(size=(128, 128)) + gradient)
    residual = subtract_background(image, method="mesh").data
    assert abs(residual[:, :20].mean()) < 0.1
    assert abs(residual[:, -20:].mean()) < 0.1
    assert residual[:, -20:].mean() - residual[:, :20].mean() < 0.2


def test_wings_of_objects_do_not_count_as_sky():
    y, x = np.mgrid[:100, :100] - 49.5
    errors, medians, levels = [], [], []
    for number in range(20):
        wings = 700.0 * (1 + (x**2 + y**2) / 3.0**2) ** -1.4
        image = sky_image(wings + filtered_noise(np.random.default_rng(number), 1.3), fwhm=3.0)
        found = measure_background(image)
        outside = ndimage.binary_dilation(image.data > 5.0, iterations=2)
        medians.append(np.median(image.data[~outside]))
        levels.append(found.level)
        errors.append(found.error)
    assert np.mean(medians) > 0.6  # One median over all that is not obviously a source: +0.7 sigma and more.
    assert abs(np.mean(levels)) < 0.3 * np.mean(medians)
    assert abs(np.mean(levels)) < np.mean(errors)


def test_variance_outside_the_mask_is_not_zero_and_the_weight_is_not_infinite(rng):
    shape = (50, 50)
    inside = np.hypot(*(np.mgrid[:50, :50] - 24.5)) < 12
    image = sky_image(rng.normal(size=shape))
    result = apply_object_mask(image, ObjectMask(inside, np.zeros(shape, bool), (1,)))
    assert np.all(result.variance > 0)
    assert np.all(np.isfinite(result.weight))
    assert np.all(result.weight[~inside] == 0)
    assert result.mask[~inside].all()


def test_masks_after_the_convolution_lose_no_flux_at_the_rim():
    shape = (101, 101)
    y, x = np.mgrid[:101, :101] - 50
    light = np.exp(-np.hypot(x, y) / 8.0)
    image = sky_image(light).evolve(psf=GaussianPSF(0.10))
    inside = np.hypot(x, y) < 20
    object_mask = ObjectMask(inside, np.zeros(shape, bool), (1,))
    target = GaussianPSF(0.20)
    after = apply_object_mask(match_psf(image, target), object_mask)
    sigma = np.sqrt(0.20**2 - 0.10**2) / 2.3548 / PIXEL
    exact = ndimage.gaussian_filter(light, sigma, mode="constant", truncate=8)
    labels = np.where(inside, 0, -1).astype(np.int32)
    (row,) = sum_regions(after, labels)
    assert row["n_masked"] == 0
    assert row["flux"].value == pytest.approx(exact[inside].sum(), rel=1e-3)
    rim = inside & (np.hypot(x, y) > 18)
    assert after.data[rim].sum() == pytest.approx(exact[rim].sum(), rel=2e-3)
    # Masked first, the light that the rim should get from outside is gone.
    before = ndimage.gaussian_filter(np.where(inside, light, 0.0), sigma, mode="constant", truncate=8)
    assert before[rim].sum() < 0.93 * exact[rim].sum()
