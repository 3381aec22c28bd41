"""Analytic populations: closed forms against numerical convolution, and what they look like."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.core.linelist import vacuum_to_air
from skyloom.errors import InputError
from skyloom.mock.scenes.templates import REFERENCE_WAVE, SPEED_OF_LIGHT, populations


def test_broadening_is_the_convolution_in_ln_wavelength() -> None:
    logarithm = np.linspace(np.log(3550.0), np.log(4500.0), 40001)
    step = logarithm[1] - logarithm[0]
    sigma = 200.0 / SPEED_OF_LIGHT
    reach = int(8 * sigma / step)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * step / sigma) ** 2)
    kernel /= kernel.sum()
    sharp = populations().evaluate(np.exp(logarithm))
    expected = np.array([np.convolve(flux, kernel, "valid") for flux in sharp])
    broad = populations().evaluate(np.exp(logarithm[reach:-reach]), 200.0)
    np.testing.assert_allclose(broad, expected, rtol=1e-9)


def test_populations_look_like_populations() -> None:
    library = populations()
    np.testing.assert_allclose(library.evaluate([REFERENCE_WAVE]), 1.0, rtol=1e-12)
    wave = np.geomspace(1500.0, 20000.0, 6000)
    flux = library.evaluate(wave)
    assert flux.min() > 0
    red = library.evaluate([8000.0])[:, 0] / library.evaluate([4500.0])[:, 0]
    solar = library.metallicity == 0
    order = np.argsort(library.age[solar])
    assert np.all(np.diff(red[solar][order][1:]) > 0)
    depth = 1 - library.evaluate([4862.69])[:, 0] / library.evaluate([4800.0])[:, 0]
    assert np.argmax(depth) == library.nearest(0.5)
    sodium = 1 - library.evaluate([5891.58])[:, 0] / library.evaluate([5860.0])[:, 0]
    assert np.argmax(sodium) == library.nearest(12.0)


def test_dispersion_may_change_with_wavelength() -> None:
    wave = np.array([4862.69, 6564.63])
    both = populations().evaluate(wave, [100.0, 300.0])
    np.testing.assert_allclose(both[:, 0], populations().evaluate(wave[:1], 100.0)[:, 0])
    np.testing.assert_allclose(both[:, 1], populations().evaluate(wave[1:], 300.0)[:, 0])


def test_library_is_sampled_in_its_medium() -> None:
    vacuum = np.arange(4700.0, 5300.0, 1.0)
    library = populations().library(vacuum_to_air(vacuum), "air", fwhm=2.0)
    sigma = SPEED_OF_LIGHT * 2.0 / np.sqrt(8 * np.log(2)) / vacuum
    np.testing.assert_allclose(library.flux, populations().evaluate(vacuum, sigma), rtol=1e-9)
    assert library.medium == "air"
    assert len(library) == len(populations()) == 8


def test_nearest() -> None:
    library = populations()
    assert library.age[library.nearest(0.009)] == 0.01
    assert library.metallicity[library.nearest(12.0, -1.0)] == -0.7
    with pytest.raises(InputError, match="age is 0"):
        library.nearest(0.0)
