"""Throughput curves: closed forms, published widths, and weighted means."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import quad

from skyloom.core.bandpass import Bandpass
from skyloom.core.linelist import vacuum_to_air
from skyloom.errors import InputError, ShapeError


def test_widths_of_a_box_have_closed_forms() -> None:
    low, high = 5000.0, 6000.0
    box = Bandpass.tophat(5500.0, 1000.0, edge=0.001)
    assert box.rectangular_width == pytest.approx(1000.0, rel=1e-9)
    assert box.pivot == pytest.approx(np.sqrt((high**2 - low**2) / (2 * np.log(high / low))), rel=1e-8)
    assert box.photon_mean == pytest.approx((high**3 - low**3) / 3 / ((high**2 - low**2) / 2), rel=1e-8)
    # In ln l the box is a box of width ln(high / low), around the geometric mean.
    assert box.rms_width == pytest.approx(np.sqrt(low * high) * np.log(high / low) / np.sqrt(12), rel=1e-8)
    assert box.limits == (pytest.approx(low, abs=0.001), pytest.approx(high, abs=0.001))


def test_a_triangle_is_the_widest_edge_of_a_box() -> None:
    triangle = Bandpass.tophat(5500.0, 10.0, edge=10.0)
    assert triangle.throughput_at(5500.0) == 1.0
    assert triangle.rectangular_width == pytest.approx(10.0)
    with pytest.raises(InputError, match="edge"):
        Bandpass.tophat(5500.0, 10.0, edge=11.0)


def test_gaussian_band() -> None:
    band = Bandpass.gaussian(6563.0, 50.0, peak=0.2)
    sigma = 50.0 / np.sqrt(8 * np.log(2))
    assert band.throughput_at(6563.0 + 25.0) == pytest.approx(0.1, rel=1e-4)
    assert band.rectangular_width == pytest.approx(sigma * np.sqrt(2 * np.pi), rel=1e-3)
    assert band.rms_width == pytest.approx(sigma, rel=1e-3)
    assert band.throughput_at([100.0, 9000.0]).tolist() == [0.0, 0.0]


def test_mean_of_a_linear_spectrum_is_the_integral() -> None:
    wave = np.linspace(4000.0, 7000.0, 14)
    flux = 1.0 + np.sin(wave / 300.0)
    band = Bandpass([4500.0, 4800.0, 5600.0, 6100.0], [0.0, 0.3, 0.8, 0.0])
    breaks = np.union1d(wave, band.wave)

    def integral(function) -> float:
        pieces = itertools.pairwise(breaks)
        return sum(quad(function, low, high, epsabs=0, epsrel=1e-12)[0] for low, high in pieces)

    expected = integral(lambda x: np.interp(x, wave, flux) * band.throughput_at(x) * x) / integral(
        lambda x: band.throughput_at(x) * x
    )
    assert band.mean_flux_density(wave, flux) == pytest.approx(expected, rel=1e-12)
    weights = band.mean_weights(wave)
    assert weights.sum() == pytest.approx(1.0, rel=1e-14)
    cube = np.stack([flux, 2 * flux])[:, np.newaxis]
    np.testing.assert_allclose(band.mean_flux_density(wave, cube)[:, 0], [expected, 2 * expected], rtol=1e-12)


def test_samples_outside_the_band_do_not_leak() -> None:
    wave = np.arange(4000.0, 7000.0, 2.0)
    flux = np.where((wave > 4900) & (wave < 6100), 1.0, np.nan)
    assert Bandpass.tophat(5500.0, 1000.0).mean_flux_density(wave, flux) == pytest.approx(1.0)


def test_coverage_is_asked_for() -> None:
    band = Bandpass.tophat(5500.0, 1000.0)
    wave = np.linspace(5000.0, 5500.0, 100)
    expected = (5500.0**2 - 5000.0**2) / (6000.0**2 - 5000.0**2)
    assert band.covered_fraction(5000.0, 5500.0) == pytest.approx(expected, rel=1e-3)
    with pytest.raises(InputError, match=r"4999\.5-6000\.5"):
        band.mean_weights(wave)
    assert band.mean_weights(wave, minimum_coverage=0.4).sum() == pytest.approx(1.0)
    with pytest.raises(InputError, match="minimum_coverage"):
        band.mean_weights(wave + 3000.0, minimum_coverage=0.0)


def test_media_are_kept_apart() -> None:
    band = Bandpass.gaussian(6564.6, 20.0, medium="vacuum")
    assert band.to_medium("air").pivot == pytest.approx(float(vacuum_to_air(band.pivot)), abs=1e-4)
    wave = np.arange(6400.0, 6700.0, 0.5)
    flux = 1.0 + 1e-3 * (wave - 6400.0)
    in_vacuum = band.mean_flux_density(wave, flux)
    in_air = band.mean_flux_density(vacuum_to_air(wave), flux, "air")
    assert in_air == pytest.approx(float(in_vacuum), rel=1e-8)


def test_pivot_joins_both_flux_densities() -> None:
    """A flat f_nu of AB magnitude m has the mean f_lambda that photflam gives for m."""
    band = Bandpass([4000.0, 4500.0, 5500.0, 6200.0], [0.0, 0.9, 0.4, 0.0])
    wave = np.arange(3900.0, 6300.0, 0.5)
    flux = 10 ** (-0.4 * (25.0 + 48.6)) * 2.99792458e18 / wave**2
    assert band.photflam(25.0) == pytest.approx(float(band.mean_flux_density(wave, flux)), rel=1e-7)


@pytest.mark.parametrize(
    ("wave", "throughput", "error", "words"),
    [
        ([1.0, 2.0], [1.0], ShapeError, "shape"),
        ([2.0, 1.0], [1.0, 1.0], InputError, "ascend"),
        ([1.0, 2.0], [0.0, 0.0], InputError, "not all 0"),
        ([1.0, 2.0], [-1.0, 1.0], InputError, "throughput runs"),
        ([1.0, 2.0], [np.nan, 1.0], InputError, "throughput runs"),
    ],
)
def test_bad_curves_are_refused(wave: list[float], throughput: list[float], error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        Bandpass(wave, throughput, "odd")
    with pytest.raises(InputError, match="medium is 'ether'"):
        Bandpass([1.0, 2.0], [1.0, 1.0], medium="ether")


def test_published_numbers_of_f657n(data_dir: Path) -> None:
    """The rectangular width is 121 A (WFC3 handbook), PHOTPLAM 6566.6 A and PHOTBW, an RMS width, 41 A."""
    path = data_dir / "phangs_hst" / "filters" / "HST_WFC3_UVIS1.F657N.dat"
    wave, throughput = np.loadtxt(path, unpack=True)
    band = Bandpass(wave, throughput, "F657N")
    assert band.pivot == pytest.approx(6566.6, abs=1.0)
    assert band.rectangular_width == pytest.approx(121.0, abs=3.0)
    assert band.rms_width == pytest.approx(41.0, rel=0.05)
