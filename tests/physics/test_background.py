"""A known sky under galaxies with wings: recovered, with errors that say how well."""

from __future__ import annotations

import numpy as np
import pytest
from tests.inputs.sky import KINDS, filtered_noise, galaxy_field, sky_image

from skyloom.imaging.measure.regions import sum_regions
from skyloom.imaging.sky.background import measure_background, subtract_background

REALISATIONS = 80
PEDESTAL = 5.0


def measured_fields(kind, faint):
    found = []
    for number in range(REALISATIONS):
        rng = np.random.default_rng([number, faint])
        light = galaxy_field(rng, kind, faint=faint)
        image = sky_image(light + filtered_noise(rng, KINDS[kind][1]) + PEDESTAL, fwhm=KINDS[kind][0])
        found.append((light, measure_background(image)))
    return found


@pytest.mark.parametrize("kind", ["acs", "ir"])
@pytest.mark.parametrize("faint", [0, 10])
def test_pedestal_is_recovered_within_its_error(kind, faint):
    fields = measured_fields(kind, faint)
    pulls = np.array([(sky.level - PEDESTAL) / sky.error for _, sky in fields])
    # The systematic part is no random error that the next field draws anew, but a bound (half of the correction), so
    # the scatter of the pulls stays below 1. What remains of the mean is light of undetected sources, of which ten per
    # field put 0.01-0.02 sigma into every pixel: no data tell it from sky.
    assert abs(pulls.mean()) < (0.35 if faint == 0 else 0.65)
    assert 0.5 < pulls.std() < 1.0
    assert np.sqrt(np.mean(pulls**2)) < 1.1
    assert np.mean(np.abs(pulls) < 2) > 0.93


@pytest.mark.parametrize("kind", ["acs", "ir"])
def test_wings_do_not_count_as_sky(kind):
    fields = measured_fields(kind, 0)
    bias = np.mean([sky.level for _, sky in fields]) - PEDESTAL
    plain = np.mean([sky.plain_level for _, sky in fields]) - PEDESTAL
    light = np.mean([sky.light_level for _, sky in fields]) - PEDESTAL
    assert light > plain > 2.5 * abs(bias)
    # The pixels called sky do hold that much light of the galaxies.
    wings = np.mean([np.median(scene[sky.sky_mask]) for scene, sky in fields])
    assert wings > 2 * abs(bias)


def test_pure_noise_is_not_pulled_down_by_masking_its_peaks():
    pulls, masked = [], []
    for number in range(REALISATIONS):
        image = sky_image(filtered_noise(np.random.default_rng(number), 1.3), fwhm=3.0)
        found = measure_background(image, threshold=2.5)
        pulls.append(found.level / found.error)
        masked.append(1 - found.sky_mask.mean())
    assert np.mean(masked) > 0.1  # Many peaks of the noise are masked at this threshold,
    assert abs(np.mean(pulls)) < 3 / np.sqrt(REALISATIONS)  # and as many troughs with them.
    # Where blocks differ by chance the error is enlarged, and never made smaller: pulls scatter by less than 1.
    assert 0.6 < np.std(pulls) < 1.0 + 3 / np.sqrt(2 * REALISATIONS)


def test_gradient_is_recovered_by_the_mesh():
    y, x = np.mgrid[:160, :160] / 160 - 0.5
    truth = PEDESTAL + 2.0 * x - 1.0 * y
    flat, tilted, errors = [], [], []
    for number in range(20):
        rng = np.random.default_rng(number)
        light = np.zeros(truth.shape)
        light[30:130, 30:130] = galaxy_field(rng, "acs", faint=0)
        image = sky_image(light + filtered_noise(rng, 0.55, truth.shape) + truth, fwhm=1.8)
        mesh = measure_background(image, method="mesh")
        far = np.hypot(x, y) > 0.4
        tilted.append(np.mean((mesh.map - truth)[far] ** 2))
        flat.append(np.mean((measure_background(image).level - truth)[far] ** 2))
        errors.append(np.mean(mesh.error_map[far] ** 2))
    assert np.mean(tilted) < 0.15 * np.mean(flat)
    assert 0.2 < np.mean(tilted) / np.mean(errors) < 1.5


def test_shared_error_of_the_sky_makes_the_pulls_of_apertures_right():
    """A sky measured on few pixels is an error of all pixels of a large aperture alike."""
    y, x = np.mgrid[:100, :100] - 49.5
    radius = np.hypot(x, y)
    labels = np.where(radius < 25.2, 0, -1).astype(np.int32)
    shared, alone = [], []
    for number in range(300):
        noise = filtered_noise(np.random.default_rng(number), 0.55)
        image = sky_image(noise, correlation=np.array(CORRELATION))
        sky = measure_background(
            image, source_mask=radius < 30, threshold=np.inf, grow_arcsec=0.0, wings="none"
        )
        row = sum_regions(subtract_background(image, sky), labels)[0]
        shared.append((row["flux"] / row["flux_err"]).value)
        bare = sum_regions(subtract_background(image, sky).evolve(modes=()), labels)[0]
        alone.append((bare["flux"] / bare["flux_err"]).value)
    assert np.count_nonzero(labels == 0) == pytest.approx(2000, abs=20)
    assert np.std(alone) > 1.08
    # The systematic part, which this noise does not need, makes the errors a little too large.
    assert 0.85 < np.std(shared) < 1.0 + 3 / np.sqrt(2 * len(shared))


def _correlation():
    """Autocorrelation of `filtered_noise` with sigma 0.55."""
    delta = np.zeros((25, 25))
    delta[12, 12] = 1.0
    from scipy import ndimage, signal

    kernel = ndimage.gaussian_filter(delta, 0.55)
    full = signal.fftconvolve(kernel, kernel[::-1, ::-1])
    cut = full[24 - 3 : 24 + 4, 24 - 3 : 24 + 4]
    cut = (cut + cut[::-1, ::-1]) / 2
    return cut / cut[3, 3]


CORRELATION = _correlation()
