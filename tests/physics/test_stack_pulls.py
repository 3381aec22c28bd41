"""Means of images and of spectra scatter as much as they say: other grids, correlated noise and shared errors too."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS
from scipy.ndimage import convolve, convolve1d

from skyloom.core.image import Image, Mode
from skyloom.core.noise import autocorrelate
from skyloom.core.spectra import Spectra
from skyloom.core.spectral_noise import weighted_sum_variance
from skyloom.errors import InputError, UnitError
from skyloom.imaging.measure.regions import sum_regions
from skyloom.store.stack import stack_images, stack_spectra

SIDE = 54
TRUTH = 5.0
y, x = np.mgrid[-3:4, -3:4]
KERNEL = np.exp(-0.5 * (x**2 + y**2) / 0.8**2)
KERNEL /= np.sqrt(np.sum(KERNEL**2))


def grid(angle: float = 0.0, shift: float = 0.0, scale: float = 0.4) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [10.0, -5.0]
    wcs.wcs.crpix = [(SIDE + 1) / 2 + shift, (SIDE + 1) / 2 - shift]
    turn = np.radians(angle)
    wcs.wcs.cd = scale / 3600 * np.array([[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    wcs.wcs.set()
    return wcs


def image(rng, wcs: WCS, sigma: float, *, correlated: bool, sky: float = 0.0) -> Image:
    noise = rng.normal(size=(SIDE, SIDE))
    if correlated:
        noise = convolve(noise, KERNEL, mode="wrap")
    # The noise doubles from one side to the other.
    spread = sigma * np.linspace(1.0, 2.0, SIDE) * np.ones((SIDE, 1))
    data = TRUTH + spread * noise + sky * rng.normal()
    mask = np.zeros(data.shape, bool)
    mask[20:23, 30:34] = True
    rho = autocorrelate(KERNEL) if correlated else None
    modes = (Mode("sky", 1.0, sky),) if sky else ()
    return Image(data, spread**2, mask, "nmgy / arcsec2", wcs, correlation=rho, modes=modes)


def regions(side: int) -> np.ndarray:
    """Squares well inside, apart from each other."""
    labels = np.full((SIDE, SIDE), -1, np.int32)
    number = 0
    for top in range(9, SIDE - 9 - side, side + 5):
        for left in range(9, SIDE - 9 - side, side + 5):
            labels[top : top + side, left : left + side] = number
            number += 1
    return labels


GRIDS = [grid(), grid(), grid(20.0, 0.3), grid(0.0, 0.5, 0.3)]


@pytest.mark.parametrize("weights", ["observation", "pixel"])
@pytest.mark.parametrize("correlated", [False, True])
def test_sums_over_a_mean_of_images_scatter_as_they_say(weights, correlated) -> None:
    rng = np.random.default_rng(7)
    pulls: dict[int, list[np.ndarray]] = {3: [], 8: []}
    for _ in range(40):
        epochs = [
            image(rng, wcs, sigma, correlated=correlated)
            for wcs, sigma in zip(GRIDS, (1.0, 0.7, 1.5, 1.2), strict=True)
        ]
        mean = stack_images(epochs, weights=weights)
        for side, found in pulls.items():
            table = sum_regions(mean, regions(side))
            labels = regions(side)
            area = np.bincount(labels[(labels >= 0) & ~mean.mask]) * mean.pixel_area
            found.append((table["flux"].value - TRUTH * area) / table["flux_err"].value)
    for side, found in pulls.items():
        values = np.concatenate(found)
        assert abs(values.mean()) < 3 / np.sqrt(values.size)
        # 3 % for the noise model (phase-averaged variance, means of correlations), beside the scatter of the draws.
        assert abs(values.std() - 1) < 0.03 + 3 / np.sqrt(2 * values.size), (side, values.std())


def test_an_error_that_an_image_shares_stays_shared_in_the_mean() -> None:
    rng = np.random.default_rng(8)
    pulls = []
    whole = np.where(np.indices((SIDE, SIDE)).min(axis=0) >= 9, 0, -1).astype(np.int32)
    for _ in range(400):
        epochs = [image(rng, GRIDS[0], 1.0, correlated=False, sky=0.3) for _ in range(2)]
        mean = stack_images(epochs)
        assert [mode.name for mode in mean.modes] == ["sky 1", "sky 2"]
        table = sum_regions(mean, whole)
        area = np.count_nonzero((whole == 0) & ~mean.mask) * mean.pixel_area
        pulls.append(
            (table["flux"][1 if len(table) > 1 else 0].value - TRUTH * area) / table["flux_err"][-1].value
        )
    assert abs(np.mean(pulls)) < 3 / np.sqrt(len(pulls))
    assert abs(np.std(pulls) - 1) < 3 / np.sqrt(2 * len(pulls))


def test_the_mean_is_the_weighted_one_and_unions_what_is_usable() -> None:
    rng = np.random.default_rng(9)
    first, second = (image(rng, GRIDS[0], sigma, correlated=False) for sigma in (1.0, 2.0))
    mask = first.mask.copy()
    mask[5, 5] = True
    first = first.evolve(mask=mask)
    mean = stack_images([first, second], weights="pixel")
    inside = ~mask
    expected = (first.data / first.variance + second.data / second.variance) / (
        1 / first.variance + 1 / second.variance
    )
    assert np.allclose(mean.data[inside], expected[inside], rtol=1e-5)
    assert np.allclose(
        mean.variance[inside], 1 / (1 / first.variance + 1 / second.variance)[inside], rtol=1e-5
    )
    assert mean.data[5, 5] == pytest.approx(second.data[5, 5], rel=1e-6)
    assert mean.mask[21, 31]
    garbage = first.data.copy()
    garbage[mask] = 1e30
    assert np.array_equal(
        stack_images([first.evolve(data=garbage), second], weights="pixel").data, mean.data, equal_nan=True
    )


def test_weights_per_image_are_not_biased_by_counts_that_make_their_own_variance() -> None:
    rng = np.random.default_rng(10)
    counts = [rng.poisson(100, (SIDE, SIDE)).astype(float) for _ in range(8)]
    images = [Image(n - 100, n, np.zeros(n.shape, bool), "electron", GRIDS[0]) for n in counts]
    error = np.sqrt(100 / 8 / SIDE**2)
    assert abs(stack_images(images).data.mean()) < 3 * error
    # What the default avoids: one electron times (n - 1) / n.
    assert stack_images(images, weights="pixel").data.mean() == pytest.approx(-7 / 8, abs=0.15)


def test_units_are_brought_together_or_refused() -> None:
    rng = np.random.default_rng(11)
    one = image(rng, GRIDS[0], 1.0, correlated=False)
    other = one.evolve(data=one.data / 1000, variance=one.variance / 1e6, unit="1e3 nmgy / arcsec2")
    both = stack_images([one, other])
    good = ~both.mask
    assert np.allclose(both.data[good], one.data[good], rtol=1e-6)
    assert np.allclose(both.variance[good], one.variance[good] / 2, rtol=1e-6)
    with pytest.raises(UnitError, match="average what has the same unit"):
        stack_images([one, one.evolve(unit="electron / arcsec2")])
    with pytest.raises(InputError, match="nothing to average"):
        stack_images([])
    with pytest.raises(InputError, match="weights is 'median'"):
        stack_images([one], weights="median")


def spectrum(rng, sigma: float, taps: np.ndarray, masked: slice, n_wave: int = 400) -> Spectra:
    noise = convolve1d(rng.normal(size=n_wave), taps / np.sqrt(np.sum(taps**2)), mode="wrap")
    spread = sigma * np.linspace(1, 1.5, n_wave)
    lags = np.correlate(taps, taps, "full") / np.sum(taps**2)
    mask = np.zeros((1, n_wave), bool)
    mask[0, masked] = True
    wave = 10 ** (3.6 + 1e-4 * np.arange(n_wave))
    data = (TRUTH + spread * noise)[None]
    unit = "1e-17 erg/(s cm2 AA)"
    return Spectra(data, (spread**2)[None], mask, unit, wave, "vacuum", lsf=1.0 + sigma, correlation=lags)


def test_sums_over_a_mean_of_spectra_scatter_as_they_say() -> None:
    rng = np.random.default_rng(12)
    taps = [np.array([1.0]), np.array([0.5, 1.0, 0.5]), np.array([0.2, 0.7, 1.0, 0.7, 0.2])]
    pulls: dict[int, list[float]] = {1: [], 5: [], 50: []}
    for _ in range(150):
        items = [
            spectrum(rng, sigma, kernel, slice(begin, begin + 60))
            for sigma, kernel, begin in zip((1.0, 0.6, 1.4), taps, (50, 80, 200), strict=True)
        ]
        mean = stack_spectra(items)
        assert mean.correlation.shape == (400, 9)
        for width, found in pulls.items():
            for start in range(10, 380 - width, width + 8):
                weights = np.zeros(400)
                weights[start : start + width] = 1.0
                variance = weighted_sum_variance(mean.variance[0], weights, mean.correlation)
                found.append(float((mean.data[0] @ weights - TRUTH * width) / np.sqrt(variance)))
    for width, found in pulls.items():
        values = np.array(found)
        assert abs(values.mean()) < 3 / np.sqrt(values.size)
        assert abs(values.std() - 1) < 3 / np.sqrt(2 * values.size), (width, values.std())
    assert mean.lsf[0] == pytest.approx(1.8, abs=0.3)
    with pytest.raises(InputError, match="different wavelengths"):
        stack_spectra([items[0], items[1].evolve(wave=items[1].wave + 1)])
