"""Errors at every resolution are the scatter of many realisations, and stars are those that larger pixels would see."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import correlate1d
from tests.grids import tangent_wcs

from skyloom.core.cube import Cube, CubeCorrelation
from skyloom.core.image import Image
from skyloom.core.noise import autocorrelate, region_variances
from skyloom.core.psf import GaussianPSF, MoffatPSF, SampledPSF
from skyloom.store.levels.cubes import cube_levels
from skyloom.store.levels.image_psf import coarse_psf
from skyloom.store.levels.images import image_levels

DRAWS = 60
SIGMA = 0.8
AXIS = np.arange(-5, 6)
SMOOTHING = np.exp(-0.5 * (AXIS / SIGMA) ** 2)
SMOOTHING /= np.sqrt(np.sum(SMOOTHING**2))  # Unit variance after smoothing.
LAGS = np.correlate(SMOOTHING, SMOOTHING, "full")
CORRELATION = autocorrelate(np.outer(SMOOTHING, SMOOTHING))


def unit_noise(rng, shape, correlated):
    noise = rng.normal(size=shape)
    for axis in range(len(shape)) if correlated else ():
        noise = correlate1d(noise, SMOOTHING, axis=axis, mode="wrap")
    return noise


def variance_plane(shape, kind):
    y, x = np.indices(shape)
    variance = 1.0 + 2.0 * x / shape[1]
    if kind == "bump":
        # A source thirty times brighter than the sky, eight pixels wide.
        distance = np.hypot(y - 0.4 * shape[0], x - 0.55 * shape[1])
        variance += 60.0 * np.exp(-0.5 * (distance / 8.0) ** 2)
    return variance.astype(np.float32)


def normalised_levels(shape, kind, correlated, masked, seed):
    """Noise over its error at all levels, (draws, ny, nx) each, and sums of 3 x 3 pixels over theirs."""
    rng = np.random.default_rng(seed)
    variance = variance_plane(shape, kind)
    mask = rng.random(shape) < masked
    pulls, sums = [], []
    for _ in range(DRAWS):
        data = (np.sqrt(variance) * unit_noise(rng, shape, correlated)).astype(np.float32)
        image = Image(data, variance, mask, "Jy", None, correlation=CORRELATION if correlated else None)
        levels = [level.subject for level in image_levels(image, 5)]
        pulls.append([np.where(level.mask, np.nan, level.data / np.sqrt(level.variance)) for level in levels])
        sums.append([sums_of_nine(level) for level in levels[:4]])
    return tuple([np.array(level) for level in zip(*draws, strict=True)] for draws in (pulls, sums))


def sums_of_nine(image):
    """Sums over tiles of 3 x 3 pixels over their errors."""
    ny, nx = (size // 3 for size in image.shape)
    y, x = np.indices(image.shape) // 3
    labels = np.where((y < ny) & (x < nx) & ~image.mask, y * nx + x, -1).astype(np.int32)
    inside = labels >= 0
    total = np.bincount(labels[inside], image.data[inside], ny * nx)
    variance = region_variances(image.variance, labels, ny * nx, image.correlation)
    return total[variance > 0] / np.sqrt(variance[variance > 0])


def tolerance(pulls, correlated, z):
    """Three times the error of the scatter; neighbours of correlated noise count for less."""
    independent = np.count_nonzero(np.isfinite(pulls)) / (4.0 if correlated and z < 2 else 1.5)
    return 3.0 / np.sqrt(2.0 * independent)


@pytest.mark.parametrize("correlated", [False, True], ids=["white", "correlated"])
@pytest.mark.parametrize("shape", [(128, 128), (115, 141)], ids=["even", "odd"])
def test_pulls_at_every_level(correlated, shape):
    masked = 0.0 if shape == (128, 128) else 0.1
    pulls, sums = normalised_levels(shape, "gradient", correlated, masked, seed=21)
    assert len(pulls) == 5
    for z, level in enumerate(pulls):
        limit = min(0.03, 0.005 + tolerance(level, correlated, z))
        assert np.nanstd(level) == pytest.approx(1.0, abs=limit), z
    for z, level in enumerate(sums):
        # Correlations are cut where they have lost 1 %, worth half of that in the error of a sum.
        assert level.std() == pytest.approx(1.0, abs=0.01 + tolerance(level, False, z)), z


@pytest.mark.parametrize("correlated", [False, True], ids=["white", "correlated"])
def test_pulls_on_a_bright_source(correlated):
    shape = (128, 128)
    pulls, _ = normalised_levels(shape, "bump", correlated, 0.0, seed=5)
    for z, level in enumerate(pulls):
        side = 2**z
        # The source and its flanks, where the variance changes fastest.
        y, x = (
            slice(int(c * 128 / side - 16 / side), int(c * 128 / side + 16 / side) + 1) for c in (0.4, 0.55)
        )
        inside = level[:, y, x]
        assert inside.std() == pytest.approx(1.0, abs=0.02 + tolerance(inside, correlated, z)), z


def test_pulls_of_a_cube():
    rng = np.random.default_rng(9)
    shape = (32, 40, 37)
    variance = np.broadcast_to(1.0 + np.linspace(0, 1, 32)[:, None, None], shape).astype(np.float32)
    mask = rng.random(shape) < 0.05
    wave = 5000.0 + 1.25 * np.arange(32)
    correlation = CubeCorrelation(CORRELATION, LAGS)
    pulls = []
    for _ in range(12):
        data = (np.sqrt(variance) * unit_noise(rng, shape, True)).astype(np.float32)
        cube = Cube(data, variance, mask, "Jy", None, wave, "air", correlation=correlation)
        levels = [level.subject for level in cube_levels(cube, 4)]
        pulls.append([np.where(level.mask, np.nan, level.data / np.sqrt(level.variance)) for level in levels])
    for z, draws in enumerate(zip(*pulls, strict=True)):
        level = np.array(draws)
        assert np.nanstd(level) == pytest.approx(1.0, abs=0.005 + 1.5 * tolerance(level, True, z)), z


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize(
    "psf", [GaussianPSF(1.1, 0.8, 30.0), MoffatPSF(1.2, 2.7)], ids=["gaussian", "moffat"]
)
def test_star_of_a_level_is_what_its_pixels_would_see(psf, level):
    size, scale, side = 128, 0.4, 2**level
    wcs = tangent_wcs((size, size), scale)
    matrix = Image(*planes_of(np.ones((size, size))), "Jy", wcs).pixel_matrix
    # Half a fine pixel between the grids, and a star off the centre of both.
    fine = psf.render(matrix, 127, offset=(0.8, -1.3))
    stamp = np.zeros((size, size))
    stamp[:127, :127] = fine
    image = Image(*planes_of(stamp), "Jy", wcs, psf=psf)
    result = image_levels(image, level + 1)[level].subject
    coarse = result.data.astype(float)
    place = (np.array([63 + 0.8, 63 - 1.3]) + 0.5) / side - 0.5
    middle = np.floor(place + 0.5).astype(int)
    expected = result.psf.render(side * matrix, 9 if level < 3 else 5, offset=tuple(place - middle))
    radius = expected.shape[0] // 2
    cut = coarse[middle[1] - radius : middle[1] + radius + 1, middle[0] - radius : middle[0] + radius + 1]
    # `render` gives what lies within its square the sum 1; within it all is the same light.
    np.testing.assert_allclose(cut / cut.sum(), expected, atol=2e-4)


def planes_of(data):
    return data.astype(np.float32), np.ones_like(data, np.float32), np.zeros(data.shape, bool)


def true_width(psf, matrix, side):
    """Full width at half maximum with the pixels in it."""
    return SampledPSF(psf.render(matrix, side), matrix).fwhm


@pytest.mark.parametrize("level", [1, 2, 3])
def test_sampled_psf_holds_the_pixels_of_its_level(level):
    true = MoffatPSF(1.4, 3.0)
    matrix = np.diag([-0.4, 0.4])
    sampled = coarse_psf(SampledPSF(true.render(matrix, 81), matrix), level)
    coarse = 2**level * matrix
    np.testing.assert_allclose(sampled.matrix, coarse)
    side = sampled.array.shape[0]
    expected = true.render(coarse, side)
    # Splines through 3.5 pixels per full width round the peak by half a per cent.
    np.testing.assert_allclose(sampled.array, expected, atol=6e-3 * expected.max())
    np.testing.assert_allclose(sampled.fwhm, true_width(true, coarse, side), rtol=3e-3)
