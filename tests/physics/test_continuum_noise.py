"""Errors of the excess, on noisy bands of known truth: sums of 1, 25 and 400 pixels, bright and faint, with modes."""

from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.continuum import BLUE, KERNELS, NARROW, RED, make_images, noisy_bands, true_bands

from skyloom.core.image import Mode
from skyloom.core.noise import region_variances
from skyloom.imaging.narrow_band.continuum import subtract_continuum
from skyloom.imaging.narrow_band.line_flux import line_flux

SIGMAS = (1.0, 0.5, 0.7)
GAP = 5  # Pixels between boxes, so that their sums are independent.


def box_labels(shape, side):
    """Labels of separate square boxes, and how many there are."""
    ny, nx = ((size - GAP) // (side + GAP) for size in shape)
    y, x = np.indices(shape)
    pitch = side + GAP
    inside = (y % pitch < side) & (x % pitch < side) & (y // pitch < ny) & (x // pitch < nx)
    return np.where(inside, (y // pitch) * nx + x // pitch, -1), ny * nx


def pulls_of_boxes(image, truth, side):
    labels, n = box_labels(image.shape, side)
    used = labels >= 0
    sums = np.bincount(labels[used], (image.data.astype(float) - truth)[used], n)
    return sums / np.sqrt(region_variances(image.variance, labels, n, image.correlation))


def check(pulls, where, slack=0.0):
    n = pulls.size
    assert abs(pulls.mean()) < 3 / np.sqrt(n) + slack, f"{where}: mean {pulls.mean():+.3f}"
    assert abs(pulls.std() - 1) < 3 / np.sqrt(2 * n) + slack, f"{where}: deviation {pulls.std():.3f}"


@pytest.mark.parametrize("interpolation", ["linear", "log"])
@pytest.mark.parametrize("peak", [100.0, 12.0, 2.0], ids=["bright", "disc", "faint"])
def test_sums_of_the_excess_have_the_errors_that_are_claimed(interpolation, peak):
    rng = np.random.default_rng(int(peak) + (interpolation == "log"))
    shape = (500, 500)
    *truth, excess = true_bands(shape, interpolation, peak=peak, lines=5.0, colour=0.7)
    images = make_images(
        noisy_bands(truth, SIGMAS, rng), np.square(SIGMAS), kernels=KERNELS, dtype=np.float32
    )
    found = subtract_continuum(images[0], images[1:], NARROW, (BLUE, RED), interpolation=interpolation)
    if peak == 2.0:
        assert np.mean((images[1].data <= 0) | (images[2].data <= 0)) > 0.4
    for side in (1, 5, 20):
        # The weights of faint pixels come from a noisy colour: it may cost 1 %.
        check(
            pulls_of_boxes(found.excess, excess, side), f"{side} px", 0.01 if interpolation == "log" else 0.0
        )


@pytest.mark.parametrize("interpolation", ["linear", "log"])
def test_a_sky_below_zero_everywhere_costs_nothing(interpolation):
    """All bands alike below zero: no colour anywhere, so both interpolations are the linear one."""
    rng = np.random.default_rng(3)
    shape = (500, 500)
    *truth, excess = true_bands(shape, "linear", peak=2.0, lines=5.0, colour=0.7)
    planes = noisy_bands([plane - 4.0 for plane in truth], SIGMAS, rng)
    images = make_images(planes, np.square(SIGMAS), kernels=KERNELS, dtype=np.float32)
    found = subtract_continuum(images[0], images[1:], NARROW, (BLUE, RED), interpolation=interpolation)
    assert found.counts["not_positive"] > 0.99 * excess.size
    for side in (1, 5, 20):
        check(pulls_of_boxes(found.excess, excess, side), f"{side} px")


@pytest.mark.parametrize("interpolation", ["linear", "log"])
def test_line_fluxes_from_contaminated_bands_with_shared_errors(interpolation):
    """Lines in the broad bands, sky errors, a ratio with an error: sums of 20 x 20 pixels, one per draw."""
    rng = np.random.default_rng(11)
    redshift, n_draws, shape = 0.0022, 200, (32, 32)
    ratio, ratio_error, sky_errors = 0.5, 0.1, (0.1, 0.06, 0.05)
    narrow, blue, red, excess = true_bands(shape, interpolation, peak=12.0, floor=4.0, lines=8.0)
    noiseless = make_images((narrow, blue, red), (1e-12,) * 3)
    options = {"interpolation": interpolation, "redshift": redshift, "line_ratios": {"OIII5007": 1.0}}
    shares = subtract_continuum(noiseless[0], noiseless[1:], NARROW, (BLUE, RED), **options).contamination
    truth = (narrow, blue + shares[0] * excess, red + shares[1] * excess)
    flux = line_flux(noiseless[0].evolve(data=excess), NARROW, redshift, ratio).data
    labels = np.full(shape, -1)
    labels[6:26, 6:26] = 0
    true_sum = flux[labels == 0].sum()
    modes = tuple((Mode("sky", 1.0, error),) for error in sky_errors)
    variances = np.square(SIGMAS) / 4
    pulls, without = np.zeros(n_draws), np.zeros(n_draws)
    for draw in range(n_draws):
        offsets = rng.normal(0, sky_errors)
        planes = noisy_bands(truth, np.sqrt(variances), rng)
        images = make_images(
            [plane + offset for plane, offset in zip(planes, offsets, strict=True)],
            variances,
            kernels=KERNELS,
            modes=modes,
        )
        found = subtract_continuum(images[0], images[1:], NARROW, (BLUE, RED), **options)
        measured = ratio + rng.normal(0, ratio_error)
        line = line_flux(found.excess, NARROW, redshift, measured, nii_ratio_err=ratio_error)
        (variance,) = region_variances(line.variance, labels, 1, line.correlation)
        shared = [
            (np.broadcast_to(mode.map, shape)[labels == 0].sum() * mode.sigma) ** 2 for mode in line.modes
        ]
        miss = line.data[labels == 0].sum() - true_sum
        pulls[draw] = miss / np.sqrt(variance + sum(shared))
        without[draw] = miss / np.sqrt(variance)
    # The quotient by an uncertain response is not quite linear: 7 % of error make a bias of 7 % of it.
    check(pulls, interpolation, 0.07)
    assert without.std() > 1.5
