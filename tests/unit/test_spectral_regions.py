"""HII regions: found, told apart, grown and measured against a known truth."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from skyloom.core.image import Image
from skyloom.core.psf import GaussianPSF
from skyloom.errors import InputError
from skyloom.kernels.bins.flood import flood
from skyloom.mock.scenes.images import sky_wcs
from skyloom.spectral.bins.regions import find_regions
from tests.oracles import regions as oracles_regions

SCALE = 0.2  # arcsec per pixel
SIGMA = 2.0  # of the PSF in pixels
PSF = GaussianPSF.from_sigma(SIGMA * SCALE)


def line_map(blobs, generator, shape=(120, 120), diffuse=0.0, noise=1.0, correlated=False):
    """Point sources (x, y, flux) under the PSF on an exponential disc, with noise."""
    y, x = np.indices(shape, dtype=np.float64)
    truth = diffuse * np.exp(-np.hypot(x - shape[1] / 2, y - shape[0] / 2) / (0.2 * shape[0]))
    for x0, y0, flux in blobs:
        distance = (x - x0) ** 2 + (y - y0) ** 2
        truth += flux / (2 * np.pi * SIGMA**2) * np.exp(-0.5 * distance / SIGMA**2)
    draw = generator.normal(size=shape)
    rho = None
    if correlated:
        draw = gaussian_filter(draw, 0.6, mode="wrap") / 0.4701  # the sum of the squared kernel is 0.221
        lag = np.add.outer(np.arange(-2, 3) ** 2, np.arange(-2, 3) ** 2)
        rho = np.exp(-lag / (4 * 0.6**2))
    wcs = sky_wcs((10.0, 20.0), shape, SCALE, angle=30.0)
    mask = np.zeros(shape, bool)
    return Image(
        truth + noise * draw, np.full(shape, noise**2), mask, "1e-20 erg/(s cm2)", wcs, PSF, correlation=rho
    )


def grid_of_blobs(flux, step=24, shape=(120, 120)):
    return [(x, y, flux) for y in np.arange(12.0, shape[0], step) for x in np.arange(12.3, shape[1], step)]


def matched(catalogue, blobs):
    """How many of the blobs have a region whose peak lies within a pixel and a half."""
    peaks = np.column_stack([catalogue["peak_x"].value, catalogue["peak_y"].value])
    return sum(bool(np.any(np.hypot(*(peaks - blob[:2]).T) < 1.6)) for blob in blobs)


def test_every_blob_on_a_disc_is_found_once(rng):
    # A point source of flux f has the significance f / (noise sqrt(4 pi) sigma) under the matched filter: 18.
    blobs = grid_of_blobs(18 * np.sqrt(4 * np.pi) * SIGMA)
    regions = find_regions(line_map(blobs, rng, diffuse=3.0))
    assert matched(regions.catalogue, blobs) == len(blobs)
    # What is found besides is the middle of the disc, which is no point source.
    assert len(blobs) <= len(regions) <= len(blobs) + 2


@pytest.mark.parametrize("correlated", [False, True])
def test_noise_alone_has_hardly_a_region(correlated):
    generator = np.random.default_rng(5)
    found = sum(
        len(find_regions(line_map([], generator, correlated=correlated), minimum_area=1)) for _ in range(20)
    )
    # 20 x 14400 pixels hold about 20 x 14400 / (4 pi) = 23,000 independent ones: 0.007 beyond 5 sigma.
    assert found == 0


def test_ignoring_the_correlation_finds_noise():
    generator = np.random.default_rng(5)
    noisy = [line_map([], generator, correlated=True).evolve(correlation=None) for _ in range(20)]
    assert sum(len(find_regions(image, minimum_area=1, threshold=4)) for image in noisy) > 0


def test_a_smooth_disc_does_not_fall_to_pieces():
    generator = np.random.default_rng(8)
    counts = [len(find_regions(line_map([], generator, diffuse=20.0))) for _ in range(20)]
    assert np.mean(counts) <= 1.2


def test_neighbours_are_told_apart_and_marked(rng):
    flux = 60 * np.sqrt(4 * np.pi) * SIGMA
    pair = [(50.0, 60.0, flux), (50.0 + 3.2 * 2.355 * SIGMA / 2, 60.0, 0.7 * flux)]
    regions = find_regions(line_map([*pair, (20.0, 20.0, flux)], rng))
    assert len(regions) == 3
    apart = regions.catalogue["touches_region"]
    alone = np.hypot(regions.catalogue["peak_x"].value - 20, regions.catalogue["peak_y"].value - 20) < 2
    assert not apart[alone].any()
    assert apart[~alone].all()


def test_blends_that_show_no_saddle_stay_one(rng):
    flux = 60 * np.sqrt(4 * np.pi) * SIGMA
    regions = find_regions(line_map([(50.0, 60.0, flux), (52.0, 60.0, flux)], rng))
    assert len(regions) == 1


def test_growth_decides_how_far_a_region_reaches():
    # Noise-free in effect: the smoothed profile has sqrt(1 + 0.25) times the width of the PSF.
    image = line_map([(60.0, 60.0, 1e6)], np.random.default_rng(1))
    for growth in (0.5, 0.1):
        expected = np.pi * 2 * np.log(1 / growth) * 1.25 * SIGMA**2
        regions = find_regions(image, growth=growth)
        assert regions.catalogue["n_pixels"][0] == pytest.approx(expected, rel=0.1)  # whole pixels
        radius = regions.catalogue["radius"][0].to_value(u.arcsec)
        assert radius == pytest.approx(np.sqrt(expected / np.pi) * SCALE, rel=0.05)


def test_fluxes_and_their_errors_hold():
    """Regions found without noise, measured with it: the pulls of the fluxes are those of their errors."""
    blobs = grid_of_blobs(3000.0)
    clean = line_map(blobs, np.random.default_rng(2), noise=1e-3)
    from skyloom.spectral.bins.contents import measure_bins

    labels = find_regions(clean).labels
    truth = np.asarray(measure_bins(clean, labels)["signal"].value)
    generator = np.random.default_rng(3)
    pulls = []
    for _ in range(40):
        table = measure_bins(line_map(blobs, generator, correlated=True), labels)
        pulls.append((table["signal"].value - truth) / table["noise"].value)
    n = np.size(pulls)
    assert abs(np.mean(pulls)) < 3 / np.sqrt(n)
    # 3 / sqrt(2n) is 0.067; 0.02 more for the tails of the correlation that the 5 x 5 kernel leaves out.
    assert abs(np.std(pulls) - 1) < 3 / np.sqrt(2 * n) + 0.02


def test_masked_pixels_are_in_no_region(rng):
    image = line_map(grid_of_blobs(3000.0), rng)
    mask = np.zeros(image.shape, bool)
    mask[:, 58:62] = True
    mask[10:14, 10:14] = True
    data = np.where(mask, np.nan, image.data)
    regions = find_regions(image.evolve(data=data, mask=mask))
    assert not (regions.labels.labels[mask] >= 0).any()
    garbage = find_regions(image.evolve(data=np.where(mask, 1e30, image.data), mask=mask))
    np.testing.assert_array_equal(regions.labels.labels, garbage.labels.labels)
    assert regions.catalogue["touches_border"].any()


def test_labels_are_numbered_by_brightness_and_connected(rng):
    from scipy.ndimage import label

    blobs = [(x, y, 500.0 * (i + 1)) for i, (x, y, _) in enumerate(grid_of_blobs(1.0, step=30))]
    regions = find_regions(line_map(blobs, rng, diffuse=2.0))
    assert (np.diff(regions.catalogue["peak"].value) <= 0).all()
    for number in regions.labels.ids:
        assert label(regions.labels.labels == number, np.ones((3, 3)))[1] == 1


def test_a_map_without_regions_has_an_empty_catalogue(rng):
    regions = find_regions(line_map([], rng))
    assert len(regions) == 0
    assert (regions.labels.labels == -1).all()
    assert "peak_snr" in regions.catalogue.colnames


def test_small_regions_are_dropped(rng):
    image = line_map(grid_of_blobs(3000.0), rng)
    assert len(find_regions(image, minimum_area=1000 * u.arcsec**2)) == 0
    assert len(find_regions(image, minimum_area=0.5 * u.arcsec**2)) == 25


@pytest.mark.parametrize(
    "wrong", [{"threshold": 0}, {"growth": 1.0}, {"growth": 0}, {"limit": 9}, {"contrast": 1.0}]
)
def test_senseless_parameters_are_refused(rng, wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        find_regions(line_map([], rng), **wrong)


def test_a_map_without_usable_pixels_is_refused(rng):
    image = line_map([], rng)
    with pytest.raises(InputError, match="usable"):
        find_regions(image.evolve(mask=np.ones(image.shape, bool)))


def test_flooding_agrees_with_sets_of_pixels():
    generator = np.random.default_rng(4)
    ny, nx = 30, 34
    values = gaussian_filter(generator.normal(size=(ny, nx)), 1.5) * 30
    values[[0, -1]] = values[:, [0, -1]] = 0.0
    noise = np.full(values.size, 1.0)
    flat = values.ravel()
    order = np.flatnonzero(flat > 1.0)
    order = order[np.argsort(-flat[order], kind="stable")]
    basin, peaks = flood(order, flat, noise, nx, 3.0, 2.0, 0.1)
    owner = oracles_regions.flood(order, flat, noise, nx, 3.0, 2.0, 0.1)
    assert {index: int(peaks[basin[index]]) for index in np.flatnonzero(basin >= 0)} == owner
    assert len(set(owner.values())) > 5
