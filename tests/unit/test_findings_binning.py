"""Defects that existing pipelines have in their binning; none may come back."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.spectral.bins.binning import METHODS, bin_to_snr
from skyloom.spectral.bins.contents import measure_bins, paint
from tests.inputs.binning import add_noise, circular_mask, disc_and_blobs
from tests.unit.test_binning import bin_snr, check_promises, make_image

TARGET = 10.0


@pytest.fixture(scope="module")
def circular_field():
    """A round field of view, NaN in the corners and in some dead pixels."""
    truth, variance = disc_and_blobs(110)
    signal = add_noise(truth, variance, 1)
    dead = circular_mask(110) | (np.random.default_rng(2).random(truth.shape) < 0.02)
    return np.where(dead, np.nan, signal), np.where(dead, np.nan, variance), dead


@pytest.mark.parametrize("method", METHODS)
def test_no_bin_holds_a_nan_pixel_and_every_good_pixel_is_in_one(circular_field, method):
    """14,713 of 57,209 good pixels shared bins with NaN pixels, which counted as zero signal and zero noise."""
    signal, variance, dead = circular_field
    numbers = np.asarray(bin_to_snr(signal, variance, TARGET, method))
    assert (numbers[dead] == -1).all()
    assert (numbers[~dead] >= 0).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "what", ["mask", "nan", "inf", "-inf", "zero variance", "negative variance", "nan variance"]
)
def test_unusable_pixels_of_every_kind_stay_out(circular_field, method, what):
    signal, variance, dead = circular_field
    expected = np.asarray(bin_to_snr(signal, variance, TARGET, method))
    values, noise = np.where(dead, 1e6, signal), np.where(dead, 1.0, variance)
    mask = None
    if what == "mask":
        mask = dead
    elif what in ("nan", "inf", "-inf"):
        values[dead] = float(what)
    else:
        noise[dead] = {"zero variance": 0.0, "negative variance": -1.0, "nan variance": np.nan}[what]
    assert np.array_equal(bin_to_snr(values, noise, TARGET, method, mask=mask), expected)


@pytest.mark.parametrize("method", METHODS)
def test_bins_have_the_snr_they_claim(circular_field, method):
    """23 % of the bins were below 95 % of their claimed S/N: parents were scored with their children's pixels."""
    signal, variance, dead = circular_field
    labels = bin_to_snr(signal, variance, TARGET, method)
    snr = check_promises(signal, variance, ~dead, labels, TARGET)
    kept = np.ones(snr.size, bool)
    kept[labels.meta["remainder"]] = False
    assert snr[kept].min() >= TARGET * (1 - 1e-9)
    assert kept.mean() > 0.95


def test_bins_of_equal_signal_stay_apart():
    """Bins were known by the mean of their signal, compared as floats: [.5, 2, 3, .7] became labels [1, 4, 4, 4]."""
    signal = np.array([[0.5, 2.0, 3.0, 0.7]])
    noise = np.full((1, 4), 0.01**2)
    for method in METHODS:
        assert np.asarray(bin_to_snr(signal, noise, TARGET, method)).tolist() == [[0, 1, 2, 3]]
        same = bin_to_snr(np.full((6, 6), 2.0), np.full((6, 6), 0.01), TARGET, method)
        assert same.meta["n_bins"] == 36


@pytest.mark.parametrize("method", METHODS)
def test_the_last_bin_is_there(circular_field, method):
    """The last bin was dropped."""
    signal, variance, dead = circular_field
    labels = bin_to_snr(signal, variance, TARGET, method)
    image = make_image(signal, variance, dead)
    table = measure_bins(image, labels)
    assert table["id"].tolist() == list(range(labels.meta["n_bins"]))
    assert table["n_pixels"].sum() == np.count_nonzero(~dead)
    assert table["n_pixels"][-1] > 0
    painted = paint(table["snr"], np.asarray(labels))
    assert np.array_equal(np.isfinite(painted), ~dead)


@pytest.mark.parametrize("method", METHODS)
def test_no_pixel_is_in_two_bins(circular_field, method):
    signal, variance, dead = circular_field
    labels = bin_to_snr(signal, variance, TARGET, method)
    sums = np.bincount(np.asarray(labels)[~dead], signal[~dead])
    assert sums.sum() == pytest.approx(signal[~dead].sum())
    assert (
        bin_snr(np.where(dead, 0, signal), np.where(dead, 0, variance), labels).size == labels.meta["n_bins"]
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_noise_map_yields_no_bins(method):
    """A noise cube gave 292 bins of claimed S/N 18."""
    signal = np.random.default_rng(11).normal(size=(100, 100))
    labels = bin_to_snr(signal, np.ones_like(signal), TARGET, method)
    assert (bin_snr(signal, np.ones_like(signal), labels) < 5).all()
    assert labels.meta["remainder"] == labels.ids.tolist()
