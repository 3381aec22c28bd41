"""Line models against the truth of mock bands: weights, blur, shift and sums within their errors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from tests.inputs.line_model import BAND_FWHM, LINE_FWHM, scene

from skyloom.core.labels import LabelMap
from skyloom.imaging.line_models.line_model import fit_line_model
from skyloom.imaging.measure.regions import sum_regions

pytestmark = pytest.mark.slow
DRAWS = 20
BLUR = np.sqrt(LINE_FWHM**2 - BAND_FWHM**2)
SHIFT = (0.3, -0.2)


def boxes(shape, side):
    """Labels of boxes of ``side`` pixels; what is left at the rim belongs to none."""
    ny, nx = (size // side for size in shape)
    labels = np.full(shape, -1, dtype=np.int32)
    y, x = np.indices((ny * side, nx * side)) // side
    labels[: ny * side, : nx * side] = y * nx + x
    return LabelMap(labels)


def box_pulls(image, truth, side):
    """Sums of the image minus those of the truth, over their errors; boxes with light and without."""
    labels = boxes(image.shape, side)
    table = sum_regions(image, labels)
    true = np.bincount(labels.labels.ravel() + 1, truth.ravel(), minlength=len(table) + 1)[1:]
    whole = np.asarray(table["n_pixels"]) == side**2
    return ((table["flux"].value - true) / table["flux_err"].value)[whole]


@pytest.fixture(scope="module")
def draws():
    found = []
    for seed in range(DRAWS):
        mock = scene(seed, band_noise=0.002, line_noise=0.1, shift=SHIFT)
        found.append((mock, fit_line_model(mock.bands, mock.line_map, max_bands=2)))
    return found


def test_pulls_of_weights_blur_and_shift(draws):
    pulls = []
    for _, model in draws:
        assert set(model.bands) == {"blue", "red"}
        order = [model.bands.index(name) for name in ("blue", "red")]
        errors = np.sqrt(np.diag(model.covariance))
        pulls.append(
            [
                *((model.weights - [(3.0, 7.0)[order.index(k)] for k in range(2)]) / errors)[order],
                (model.blur.fwhm - BLUR) / model.fwhm_err,
                *((model.shift - SHIFT) / model.shift_err),
            ]
        )
    values = np.array(pulls)
    # The noise of the bands draws the blur up and the weights together: by less than the error of one fit here.
    assert np.all(np.abs(values.mean(axis=0)) < 3 / np.sqrt(DRAWS))
    assert np.all(np.abs(values.std(axis=0) - 1) < 3 / np.sqrt(2 * DRAWS))


def test_pulls_of_box_sums_of_the_model(draws):
    """High resolution against the truth at the PSF of the bands; the modes of the weights are needed for that."""
    with_modes, without = [], []
    for mock, model in draws:
        high = model.high_resolution
        truth = mock.line_truth(high.wcs, high.shape)
        with_modes.append(box_pulls(high, truth, 20))
        without.append(box_pulls(high.evolve(modes=()), truth, 20))
    values = np.concatenate(with_modes)
    assert 0.85 < values.std() < 1.15
    assert abs(values.mean()) < 0.2
    # The galaxy is in the four boxes of the middle: there the errors of the weights are what counts.
    middle = np.array([pulls[[5, 6, 9, 10]] for pulls in with_modes])
    bare = np.array([pulls[[5, 6, 9, 10]] for pulls in without])
    assert middle.std() < 1.4
    assert bare.std() > 1.3 * middle.std()  # 1.11 and 0.78


def test_the_high_resolution_model_is_the_line_at_the_resolution_of_the_bands(draws):
    mock, model = draws[0]
    high = model.high_resolution
    truth = mock.line_truth(high.wcs, high.shape)
    bright = truth > 0.05 * truth.max()
    assert np.corrcoef(high.data[bright], truth[bright])[0, 1] > 0.99
    assert high.data[bright].sum() == pytest.approx(truth[bright].sum(), rel=0.02)
    # Structure that the line map itself does not resolve.
    coarse = mock.galaxy.paint(mock.weights @ mock.galaxy.flux, high.wcs, high.shape, LINE_FWHM)
    difference = np.std(high.data[bright] - truth[bright])
    assert difference < 0.3 * np.std(coarse[bright] - truth[bright])


def test_errors_grow_by_what_the_bands_do_not_describe():
    """The line over the light of the band varies by 20 % from place to place: the errors grow by that."""
    plain = scene(0, weights=(0.0, 10.0), band_noise=0.002, line_noise=0.1)
    light = plain.galaxy.paint(
        plain.weights @ plain.galaxy.flux, plain.line_map.wcs, (30, 30), LINE_FWHM, SHIFT
    )
    before = fit_line_model(plain.bands, plain.line_map, max_bands=1)
    pulls, excess, errors = [], [], []
    for seed in range(16):
        mock = scene(seed, weights=(0.0, 10.0), band_noise=0.002, line_noise=0.1)
        field = gaussian_filter(np.random.default_rng(seed).normal(size=light.shape), 1.4)
        data = mock.line_map.data + 0.2 * light * field / field.std()
        model = fit_line_model(mock.bands, mock.line_map.evolve(data=data), max_bands=1)
        assert model.bands == ("red",)
        error = float(np.sqrt(model.covariance[0, 0]))
        pulls.append((model.weights[0] - 10.0) / error)
        excess.append(model.chi_square / before.chi_square)
        errors.append(error / float(np.sqrt(before.covariance[0, 0])))
    assert np.median(excess) > 2.0
    assert np.median(errors) > 1.6
    # Few independent places hold the light, so the errors remain too small: by 2.7 where chi-square alone makes it 6.
    assert np.std(pulls) < 3.5
