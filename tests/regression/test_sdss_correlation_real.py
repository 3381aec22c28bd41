"""Broad sums of real SDSS spectra scatter as their errors and the typical correlation of neighbours say.

One galaxy was observed in eight nights: what two of its spectra differ by, beyond a smooth ratio, is noise.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import LSQUnivariateSpline

from skyloom.core.spectral_noise import lag_bands, weighted_sum_variance
from skyloom.io.sdss.spec import TYPICAL_CORRELATION, read_sdss_spectrum

KNOTS = 300  # pixels: much wider than the sums
pytestmark = pytest.mark.data


def smooth(values, weights):
    x = np.arange(values.size)
    return LSQUnivariateSpline(x, values, np.arange(KNOTS, values.size - KNOTS, KNOTS), w=weights)(x)


def difference(one, other):
    """Two spectra of one object less each other, on the pixels they share: values, variance, mask."""
    first = max(one.wave[0], other.wave[0]) * (1 - 1e-6)
    last = min(one.wave[-1], other.wave[-1]) * (1 + 1e-6)
    planes = []
    for spectrum in (one, other):
        part = (spectrum.wave > first) & (spectrum.wave < last)
        planes.append([plane[0, part] for plane in (spectrum.data, spectrum.variance, spectrum.mask)])
    (a, var_a, mask_a), (b, var_b, mask_b) = planes
    mask = mask_a | mask_b
    a, var_a, b, var_b = (np.where(mask, 1.0, plane.astype(float)) for plane in (a, var_a, b, var_b))
    ratio = smooth(a / b, np.where(mask, 0.0, b / np.sqrt(var_a)))
    variance = var_a + ratio**2 * var_b
    residual = np.where(mask, 0.0, a - ratio * b)
    return residual - smooth(residual, np.where(mask, 0.0, variance**-0.5)), variance, mask


def scatter(values):
    return 1.4826 * np.median(np.abs(values - np.median(values)))


def pulls(residual, variance, mask, size, lags):
    unit = scatter(
        (residual / np.sqrt(variance))[~mask]
    )  # errors that are off as a whole are not the question here
    found = []
    for start in range(0, residual.size - size + 1, size):
        part = slice(start, start + size)
        if not mask[part].any():
            bands = None if lags is None else lag_bands(np.asarray(lags), size)
            total = weighted_sum_variance(variance[part], np.ones(size), bands)
            found.append(residual[part].sum() / unit / np.sqrt(float(total)))
    return np.array(found)


def test_sums_of_twenty_pixels_have_the_errors_of_correlated_neighbours(data_dir):
    paths = sorted((data_dir / "sdss_spectra").glob("spec-0412-*.fits"))
    assert len(paths) == 8
    spectra = [read_sdss_spectrum(path) for path in paths]
    assert spectra[0].correlation.tolist() == list(TYPICAL_CORRELATION)
    pairs = [difference(one, other) for one, other in zip(spectra[::2], spectra[1::2], strict=True)]
    found = {
        name: scatter(np.concatenate([pulls(*pair, 20, lags) for pair in pairs]))
        for name, lags in (("typical", TYPICAL_CORRELATION), ("independent", None))
    }
    print(f"\nscatter over error of sums of 20 pixels: {found}")  # noqa: T201  figures
    assert found["typical"] == pytest.approx(1.0, abs=0.1)
    assert found["independent"] > 1.12
