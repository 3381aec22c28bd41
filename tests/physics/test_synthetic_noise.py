"""Synthetic images against the truth of mock scenes, and their errors against noise that was drawn.

Pulls of N independent values have a standard deviation of 1 +- 3 / sqrt(2 N); neighbours that share noise make N
smaller, which the boxes, three pixels apart, do not.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import convolve1d
from tests.inputs.snr import UNIT, celestial

from skyloom.core.bandpass import Bandpass
from skyloom.core.cube import Cube, CubeCorrelation
from skyloom.core.noise import region_variances
from skyloom.mock.cubes.cubes import observe_cube
from skyloom.mock.cubes.spectrographs import muse
from skyloom.mock.scenes.galaxies import rotating_disc
from skyloom.mock.scenes.render import paint_each
from skyloom.spectral.bands.synthetic import synthetic_image, synthetic_images

BROAD = Bandpass.tophat(6900.0, 900.0, edge=60.0, name="broad")
NARROW = Bandpass.tophat(6630.0, 70.0, edge=8.0, name="narrow")
PARTIAL = Bandpass.tophat(7200.0, 1000.0, edge=60.0, name="partial")  # 18 % lie beyond the axis.
RANGE = (6350.0, 7500.0)
SHAPE = (30, 30)
TAPS = np.array([0.3, 1.0, 0.3]) / np.sqrt(1.18)


@pytest.fixture(scope="module")
def scene():
    return rotating_disc(surface_brightness=20.0, n_nebulae=20)


def band_truth(scene, observation, band, spectrograph):
    """What a camera with the PSF of the cube at the middle of the band sees."""
    psf = spectrograph.psf.at(band.photon_mean)
    shares = paint_each(
        scene.offsets, scene.covariance, scene.centre, observation.model.wcs, observation.model.shape, psf
    )
    return np.tensordot(scene.band_fluxes(band), shares, 1) / spectrograph.flux_unit


def test_it_is_what_a_camera_sees(scene):
    """Covered bands: 0.03 % are the A of air, the rest the PSF that changes over the band.

    A third band lies to 18 % beyond the axis: the sum is 0.1 % too high with each pixel's slope, 0.3 % with constant
    spectra, 1.1 % without a correction.
    """
    spectrograph = muse(RANGE)
    observation = observe_cube(scene, spectrograph, SHAPE, seed=1, noise=0, sky_residuals=False)
    for band in (BROAD, NARROW):
        image = synthetic_image(observation.cube, band)
        truth = band_truth(scene, observation, band, spectrograph)
        assert np.median(image.data / truth) == pytest.approx(1.0, abs=1e-3)
        assert image.data.sum() / truth.sum() == pytest.approx(1.0, abs=1e-3)
    truth = band_truth(scene, observation, PARTIAL, spectrograph)
    biases = {}
    for beyond in ("slope", "constant", "none"):
        image = synthetic_image(observation.cube, PARTIAL, beyond=beyond)
        biases[beyond] = image.data.sum() / truth.sum() - 1
        if beyond != "none":
            assert abs(biases[beyond]) < 3 * image.meta["correction_error"]
    assert abs(biases["slope"]) < 0.005
    assert abs(biases["slope"]) < 0.7 * abs(biases["none"])


def standard(pulls, n):
    assert abs(np.mean(pulls)) < 3 / np.sqrt(n)
    assert abs(np.std(pulls) - 1) < 3 / np.sqrt(2 * n)


def box_pulls(image, truth, side=3):
    """Pulls of sums over boxes that are as far apart as they are wide, with the correlation of the pixels."""
    y, x = np.indices(image.shape)
    across = -(-image.shape[1] // (2 * side))
    labels = np.where(
        (y % (2 * side) < side) & (x % (2 * side) < side), (y // (2 * side)) * across + x // (2 * side), -1
    )
    n = int(labels.max()) + 1
    sums = np.bincount(labels[labels >= 0], (image.data - truth)[labels >= 0], n)
    return sums / np.sqrt(region_variances(image.variance, labels, n, image.correlation))


def test_pulls_on_a_mock_cube(scene):
    """The variance of the mock has sky lines and light in it; the truth is the image of its noise-free twin."""
    pixels, boxes = {}, {}
    for seed in (1, 2):
        observation = observe_cube(scene, muse(RANGE), (36, 36), seed=seed, sky_residuals=False)
        cube = observation.cube
        noisy = synthetic_images(cube, [BROAD, NARROW])
        clean = synthetic_images(cube.evolve(data=observation.truth), [BROAD, NARROW])
        for name, image in noisy.items():
            truth = clean[name].data
            alone = ((image.data - truth) / np.sqrt(image.variance))[::3, ::3]
            pixels.setdefault(name, []).append(alone.ravel())
            boxes.setdefault(name, []).append(box_pulls(image, truth))
    for name in pixels:
        for pulls in (np.concatenate(pixels[name]), np.concatenate(boxes[name])):
            standard(pulls, pulls.size)


@pytest.mark.parametrize("light", [0.0, 3.0, 300.0])
@pytest.mark.parametrize("beyond", ["slope", "constant", "none"])
def test_pulls_with_the_noise_of_the_colour(light, beyond, rng):
    """Straight spectra whose slopes scatter by 1e-4 per A, faint to bright: the colour's own noise is in the error.

    The band wants 18 % from beyond the axis. Steep spectra must not make the medians of the windows those of one
    window, which gave pulls of 1.17 at the brightest.
    """
    wave = np.arange(*RANGE, 5.0)
    slopes = 2e-4 + 1e-4 * rng.standard_normal((50, 50))

    def spectra(where):
        return light * (1.0 + slopes * (np.asarray(where) - 7000.0)[:, None, None])

    variance = np.broadcast_to((1.0 + (wave > 7000))[:, None, None], (wave.size, 50, 50))
    noise = convolve1d(rng.standard_normal(variance.shape), TAPS, axis=0, mode="wrap") * np.sqrt(variance)
    lags = np.correlate(TAPS, TAPS, "full")
    cube = Cube(
        spectra(wave) + noise, variance, None, UNIT, celestial(), wave, "vacuum",
        correlation=CubeCorrelation(None, lags),
    )  # fmt: skip
    points = np.linspace(*PARTIAL.limits, 200_001)
    counted = points * PARTIAL.throughput_at(points)
    if beyond == "constant":
        points = np.minimum(points, wave[-1])
    elif beyond == "none":
        counted = np.where(points <= wave[-1], counted, 0.0)
    truth = light * (1.0 + slopes * (np.sum(counted * points) / counted.sum() - 7000.0))
    image = synthetic_image(cube, PARTIAL, beyond=beyond)
    pulls = ((image.data - truth) / np.sqrt(image.variance)).ravel()
    # What all pixels share, the error of the field's colour, is a mode.
    shared = image.meta["correction_error"] * np.abs(image.data).max() / np.sqrt(np.min(image.variance))
    assert abs(pulls.mean()) < 3 / np.sqrt(pulls.size) + 3 * shared
    assert abs(pulls.std() - 1) < 3 / np.sqrt(2 * pulls.size)
