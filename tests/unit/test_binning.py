"""Bins of a target S/N: the promises, the exceptions, and what bad input is told."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest

from skyloom.core.image import Image
from skyloom.core.labels import LabelMap
from skyloom.core.noise import region_variances
from skyloom.errors import InputError, ShapeError
from skyloom.spectral.bins.binning import METHODS, bin_to_snr
from skyloom.spectral.bins.contents import measure_bins
from tests.inputs.binning import add_noise, circular_mask, disc_and_blobs, gaussian_correlation
from tests.inputs.sky import tangent_wcs
from tests.oracles import binning as oracles_binning


def bin_snr(signal, variance, labels, correlation=None):
    numbers = np.asarray(labels)
    inside, n_bins = numbers >= 0, numbers.max() + 1
    total = np.bincount(numbers[inside], signal[inside], n_bins)
    return total / np.sqrt(region_variances(variance, numbers, n_bins, correlation))


def check_promises(signal, variance, good, labels, target, correlation=None):
    """Every usable pixel in one bin, every bin connected, none below the target but those that are named."""
    numbers = np.asarray(labels)
    assert ((numbers >= 0) == good).all()
    assert np.array_equal(labels.ids, np.arange(labels.meta["n_bins"]))
    snr = bin_snr(np.where(good, signal, 0), np.where(good, variance, 0), labels, correlation)
    poor = np.flatnonzero(snr < target * (1 - 1e-9))
    assert poor.tolist() == labels.meta["remainder"]
    for label in labels.ids[:: max(1, labels.ids.size // 60)]:
        assert oracles_binning.connected_parts(numbers == label) == 1
    return snr


@pytest.fixture(scope="module")
def galaxy():
    truth, variance = disc_and_blobs(120)
    return truth, variance, add_noise(truth, variance, 1)


@pytest.mark.parametrize("method", METHODS)
def test_promises_hold_on_a_galaxy(galaxy, method):
    _truth, variance, signal = galaxy
    labels = bin_to_snr(signal, variance, 10.0, method)
    check_promises(signal, variance, np.ones(signal.shape, bool), labels, 10.0)
    assert labels.meta["method"] == method
    assert labels.meta["target"] == 10.0
    assert labels.meta["n_bins"] > 100
    assert len(labels.meta["remainder"]) <= 3


def test_voronoi_bins_are_even_and_round(galaxy):
    _truth, variance, signal = galaxy
    labels = bin_to_snr(signal, variance, 10.0)
    numbers = np.asarray(labels)
    snr, n_pixels = bin_snr(signal, variance, labels), np.bincount(numbers.ravel())
    several = (n_pixels > 1) & (snr >= 10)
    ratio = snr[several] / 10
    assert np.median(ratio) < 1.13
    assert ratio.std() < 0.15
    y, x = np.indices(signal.shape)
    large = np.flatnonzero(n_pixels >= 12)
    assert large.size > 10
    compactness = []
    for label in large:
        member = numbers == label
        spread = y[member].var() + x[member].var()
        # A disc of n pixels has a second moment of n / (2 pi).
        compactness.append(member.sum() / (2 * np.pi) / spread)
    assert np.median(compactness) > 0.8
    assert np.min(compactness) > 0.35


def test_an_independent_realisation_confirms_what_the_bins_claim(galaxy):
    truth, variance, signal = galaxy
    numbers = np.asarray(bin_to_snr(signal, variance, 10.0))
    several = np.bincount(numbers.ravel()) > 1
    claimed = np.bincount(numbers.ravel(), signal.ravel())[several]
    for seed in (2, 3):
        again = np.bincount(numbers.ravel(), add_noise(truth, variance, seed).ravel())[several]
        # 124 bins, 14 % noise on each ratio: 1.3 % on their mean.
        assert 0.96 < np.mean(again / claimed) < 1.06


@pytest.mark.parametrize("method", METHODS)
def test_pixels_that_reach_the_target_alone_are_bins(galaxy, method):
    _truth, variance, signal = galaxy
    numbers = np.asarray(bin_to_snr(signal, variance, 10.0, method))
    alone = signal >= 10 * np.sqrt(variance)
    n_pixels = np.bincount(numbers.ravel())
    share = np.mean(n_pixels[numbers[alone]] == 1)
    # Some take in a pixel that nobody else can have; squares are cut only where all quarters allow it.
    assert share > (0.97 if method == "voronoi" else 0.4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pure_noise_gives_no_bin(method, seed):
    signal = np.random.default_rng(seed).normal(size=(80, 90))
    labels = bin_to_snr(signal, np.ones_like(signal), 10.0, method)
    assert labels.meta["remainder"] == labels.ids.tolist()
    assert labels.meta["n_bins"] == 1
    assert (np.asarray(labels) == 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_empty_sky_around_a_source_is_one_remainder(method):
    generator = np.random.default_rng(3)
    truth = np.zeros((96, 96))
    truth[40:56, 36:60] = 4.0
    signal = truth + generator.normal(size=truth.shape)
    labels = bin_to_snr(signal, np.ones_like(signal), 10.0, method)
    numbers = np.asarray(labels)
    check_promises(signal, np.ones_like(signal), np.ones(signal.shape, bool), labels, 10.0)
    n_pixels = np.bincount(numbers.ravel())
    remainder = labels.meta["remainder"]
    assert 1 <= len(remainder) <= 3
    assert n_pixels[remainder].sum() > 0.9 * np.count_nonzero(truth == 0)
    # 384 pixels of S/N 4, of which bins of 7 are made: nearly all of what is possible.
    assert labels.meta["n_bins"] > (40 if method == "voronoi" else 20)


def test_uniform_field_has_bins_of_one_size():
    generator = np.random.default_rng(3)
    signal = 1.0 + generator.normal(size=(100, 100))
    labels = bin_to_snr(signal, np.ones_like(signal), 10.0)
    snr = check_promises(signal, np.ones_like(signal), np.ones(signal.shape, bool), labels, 10.0)
    assert labels.meta["remainder"] == []
    assert np.median(snr) < 10.8
    assert labels.meta["n_bins"] > 80  # At most 100 without noise.


@pytest.mark.parametrize("method", METHODS)
def test_bright_field_keeps_its_pixels(method):
    signal = np.full((16, 16), 20.0)
    labels = bin_to_snr(signal, np.ones_like(signal), 10.0, method)
    assert np.array_equal(np.asarray(labels), np.arange(256).reshape(16, 16))


@pytest.mark.parametrize("method", METHODS)
def test_correlated_noise_enters_the_floor(galaxy, method):
    truth, variance, _ = galaxy
    rho = gaussian_correlation(0.6, 2)
    signal = add_noise(truth, variance, 1, kernel_sigma=0.6)
    labels = bin_to_snr(signal, variance, 10.0, method, correlation=rho)
    good = np.ones(signal.shape, bool)
    check_promises(signal, variance, good, labels, 10.0, rho)
    ignoring = bin_to_snr(signal, variance, 10.0, method)
    several = np.bincount(np.asarray(ignoring).ravel()) > 1
    assert labels.meta["n_bins"] < ignoring.meta["n_bins"]
    assert np.mean(bin_snr(signal, variance, ignoring, rho)[several] < 10.0) > 0.2, "nothing was at stake"


def test_floor_is_that_of_all_pairs():
    """Against every pair of pixels written out, on a field small enough for it."""
    truth, variance = disc_and_blobs(36, n_blobs=3)
    rho = gaussian_correlation(0.8, 3)
    signal = add_noise(truth, variance, 4, kernel_sigma=0.8)
    labels = bin_to_snr(signal, variance, 8.0, correlation=rho)
    poor = set(labels.meta["remainder"])
    sums = oracles_binning.bin_sums(signal, variance, np.asarray(labels), rho)
    assert len(sums) >= 8
    for label, (total, noise, _) in sums.items():
        assert (total >= 8.0 * noise * (1 - 1e-9)) == (label not in poor)


@pytest.mark.parametrize("method", METHODS)
def test_negative_pixels_are_shared_out(method):
    """A dead column of strongly negative values must not sink the bins around it, nor be dropped."""
    signal = np.full((40, 40), 3.0)
    signal[:, 20] = -3.0
    labels = bin_to_snr(signal, np.ones_like(signal), 10.0, method)
    check_promises(signal, np.ones_like(signal), np.ones(signal.shape, bool), labels, 10.0)


def test_minimum_snr_leaves_faint_pixels_out(galaxy):
    _truth, variance, signal = galaxy
    labels = bin_to_snr(signal, variance, 10.0, minimum_snr=1.0)
    assert ((np.asarray(labels) >= 0) == (signal >= np.sqrt(variance))).all()
    with pytest.raises(InputError, match="no pixel has an S/N of 1e"):
        bin_to_snr(signal, variance, 10.0, minimum_snr=1e9)


def test_progress_counts_to_the_end(galaxy):
    _truth, variance, signal = galaxy
    seen = []
    bin_to_snr(signal, variance, 10.0, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1]


def make_image(signal, variance, mask, **more):
    return Image(signal, variance, mask, "erg/(s cm2)", tangent_wcs(signal.shape), **more)


def test_an_image_brings_variance_mask_correlation_and_wcs(galaxy):
    truth, variance, _ = galaxy
    rho = gaussian_correlation(0.6, 2)
    signal, mask = add_noise(truth, variance, 1, kernel_sigma=0.6), circular_mask(120)
    image = make_image(
        np.where(mask, np.nan, signal), np.where(mask, np.nan, variance), mask, correlation=rho
    )
    labels = bin_to_snr(image, None, 10.0)
    assert isinstance(labels, LabelMap)
    assert labels.wcs is image.wcs
    assert labels.history[-1].name == "bin_to_snr"
    by_hand = bin_to_snr(signal, variance, 10.0, mask=mask, correlation=rho)
    assert np.array_equal(labels, by_hand)
    # Explicit arguments win; masks add up.
    other = bin_to_snr(image, 4 * variance, 10.0, correlation=np.ones((1, 1)), mask=truth > 20)
    assert np.array_equal(other, bin_to_snr(signal, 4 * variance, 10.0, mask=mask | (truth > 20)))
    assert np.array_equal(bin_to_snr(image, image.evolve(data=image.variance), 10.0), labels)
    table = measure_bins(image, labels)
    assert ((table["snr"] >= 10 * (1 - 1e-9)) == (table["flag"] != "below target")).all()


BAD = [
    ({"target": 0}, InputError, "target S/N is 0"),
    ({"target": -3.0}, InputError, "target S/N is -3"),
    ({"target": np.nan}, InputError, "target is nan"),
    ({"target": "ten"}, InputError, "target is 'ten'"),
    ({"method": "hexagons"}, InputError, "no method 'hexagons'.*voronoi, quadtree"),
    ({"mask": np.zeros((4, 5), bool)}, ShapeError, r"mask has shape \(4, 5\); expected \(6, 7\)"),
    ({"variance": np.ones((7, 6))}, ShapeError, r"variance has shape \(7, 6\); expected \(6, 7\)"),
    ({"mask": np.ones((6, 7), bool)}, InputError, "none of the 42 pixels is usable"),
    ({"variance": np.zeros((6, 7))}, InputError, "none of the 42 pixels is usable.*variance > 0"),
    ({"variance": None}, InputError, "there is no variance"),
    ({"signal": np.full((6, 7), np.nan)}, InputError, "none of the 42 pixels is usable"),
    ({"signal": np.ones(6)}, ShapeError, "signal has 1 dimensions"),
    ({"signal": np.full((6, 7), "a")}, InputError, "signal has type"),
    ({"correlation": np.zeros((3, 3))}, InputError, "correlation is 0.0 in its centre"),
    ({"minimum_snr": np.inf}, InputError, "minimum_snr is inf"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_input_gets_one_clear_message(change, error, message):
    arguments = {"signal": np.ones((6, 7)), "variance": np.ones((6, 7)), "target": 2.0} | change
    with pytest.raises(error, match=message):
        bin_to_snr(**arguments)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 3), (31, 5)])
def test_small_and_narrow_fields(method, shape):
    generator = np.random.default_rng(7)
    signal = generator.normal(4.0, 1.0, shape)
    labels = bin_to_snr(signal, np.ones(shape), 10.0, method)
    check_promises(signal, np.ones(shape), np.ones(shape, bool), labels, 10.0)


def test_quadtree_bins_are_squares_or_squares_with_a_neighbour():
    _y, x = np.indices((64, 64))
    signal = 0.5 + x / 40.0
    numbers = np.asarray(bin_to_snr(signal, np.ones((64, 64)), 10.0, "quadtree"))
    n_squares = 0
    for label in range(numbers.max() + 1):
        rows, columns = np.nonzero(numbers == label)
        side = np.ptp(rows) + 1
        if side == np.ptp(columns) + 1 and rows.size == side**2:
            n_squares += 1
            assert side & (side - 1) == 0, "sides are powers of two"
            assert rows.min() % side == columns.min() % side == 0, "corners lie at multiples of the side"
    assert numbers.max() + 1 > 30
    assert n_squares > 0.6 * numbers.max()


def test_units_do_not_matter_to_the_bins(galaxy):
    _truth, variance, signal = galaxy
    unit = u.Unit("1e-20 erg/(s cm2)")
    plain = bin_to_snr(signal, variance, 10.0)
    assert np.array_equal(bin_to_snr(signal * unit, variance * unit**2, 10.0), plain)
