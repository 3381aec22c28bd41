"""Defects of existing pipelines in continuum subtraction, each with what it was measured to cost."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.core.linelist import default_lines
from skyloom.core.noise import region_variances
from skyloom.imaging.narrow_band.continuum import subtract_continuum
from skyloom.imaging.narrow_band.line_flux import line_flux
from tests.oracles.continuum import (
    BLUE,
    KERNELS,
    NARROW,
    RED,
    make_images,
    noisy_bands,
    pivot_weights,
    true_bands,
)


def faint_field(rng, interpolation="log", side=400):
    truth = true_bands((side, side), interpolation, peak=4.0, colour=0.5)
    sigmas = (0.5, 0.4, 0.3)
    images = make_images(
        noisy_bands(truth[:3], sigmas, rng), np.square(sigmas), kernels=KERNELS, dtype=np.float32
    )
    return images, truth


@pytest.mark.parametrize("interpolation", ["linear", "log"])
def test_a_continuum_below_zero_became_zero_with_zero_error(rng, interpolation):
    """44 % of a faint field: there the excess was the narrow band itself, and its error too small."""
    images, (_, blue, red, _) = faint_field(rng, interpolation)
    lost = (images[1].data <= 0) | (images[2].data <= 0)
    assert 0.35 < lost.mean() < 0.55
    found = subtract_continuum(images[0], images[1:], NARROW, (BLUE, RED), interpolation=interpolation)
    assert found.excess.valid.all()
    assert (found.continuum.variance > 0).all()
    assert (found.excess.variance > images[0].variance).all()
    assert found.counts["not_positive"] > 0.1 * lost.size
    w1, w2 = pivot_weights()
    level = w1 * blue + w2 * red if interpolation == "linear" else blue**w1 * red**w2
    assert level[lost].sum() > 0.03 * level.sum()
    # The old way, on the same pixels: nothing is taken off where either band is below zero.
    with np.errstate(invalid="ignore"):
        old = np.where(lost, 0.0, images[1].data ** w1 * images[2].data ** w2)
    everywhere = np.zeros(lost.shape, np.int32)
    error = np.sqrt(region_variances(found.excess.variance, everywhere, 1, found.excess.correlation)[0])
    kept = float(np.sum(found.continuum.data - level))
    dropped = float(np.sum(old - level))
    assert abs(kept) < 3 * error
    assert abs(dropped) > 6 * error


def test_the_nitrogen_intercept_was_fitted_and_ignored(rng):
    """The line ratio takes part in the flux: at the wrong one every flux is off by tens of per cent."""
    redshift, flux = 0.0022, 100.0
    lines = default_lines()
    seen = sum(
        flux * ratio / NARROW.line_width(lines[key].rest_vacuum * (1 + redshift))
        for key, ratio in (("Halpha", 1.0), ("NII6583", 0.5), ("NII6548", 0.5 * lines["NII6548"].tied[1]))
    )
    images = make_images(
        (np.full((4, 5), seen + 2.0), np.full((4, 5), 2.0), np.full((4, 5), 2.0)), (0.01,) * 3
    )
    excess = subtract_continuum(images[0], images[1:], NARROW, (BLUE, RED)).excess
    with_nitrogen = line_flux(excess, NARROW, redshift, 0.5, nii_ratio_err=0.1)
    np.testing.assert_allclose(with_nitrogen.data, flux, rtol=1e-6)
    without = line_flux(excess, NARROW, redshift, 0.0)
    assert np.all(without.data > 1.5 * flux)
    assert with_nitrogen.modes[0].sigma > 0


def test_covariance_of_the_noise_was_ignored(rng):
    """20 x 20 sums had errors 1.8 to 4.7 times too small."""
    images, _ = faint_field(rng, side=160)
    found = subtract_continuum(images[0], images[1:], NARROW, (BLUE, RED), interpolation="log")
    y, x = np.indices(found.excess.shape) // 20
    labels = y * 8 + x
    honest = region_variances(found.excess.variance, labels, 64, found.excess.correlation)
    naive = region_variances(found.excess.variance, labels, 64)
    assert 1.8 < np.sqrt(np.median(honest / naive)) < 4.7


def test_lines_inside_a_broad_band_were_subtracted_with_the_continuum():
    """A line in a broad band is taken for continuum, and the flux of its nebula is too low."""
    redshift, flux = 0.0022, 500.0
    wide = [BLUE, RED]
    lines = default_lines()
    ratios = {"Halpha": 1.0, "Hbeta": 0.3, "OIII5007": 1.2, "OIII4959": 1.2 * lines["OIII4959"].tied[1]}
    planes = [np.full((3, 4), 3.0) for _ in range(3)]
    for plane, band in zip(planes, (NARROW, *wide), strict=True):
        for key, ratio in ratios.items():
            wave = lines[key].rest_vacuum * (1 + redshift)
            if band.throughput_at(wave) > 0:
                plane += flux * ratio / band.line_width(wave)
    images = make_images(planes, (0.01,) * 3)
    left_in = subtract_continuum(images[0], images[1:], NARROW, wide).excess
    taken_out = subtract_continuum(
        images[0], images[1:], NARROW, wide, redshift=redshift, line_ratios={"Hbeta": 0.3, "OIII5007": 1.2}
    )
    np.testing.assert_allclose(line_flux(taken_out.excess, NARROW, redshift, 0.0).data, flux, rtol=1e-9)
    np.testing.assert_allclose(taken_out.continuum.data, 3.0, rtol=1e-9)
    assert np.all(line_flux(left_in, NARROW, redshift, 0.0).data < 0.96 * flux)
