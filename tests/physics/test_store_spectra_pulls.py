"""Injected noise in spectra that are brought to the common grid and halved: the errors stored are the scatter."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from skyloom.core.linelist import vacuum_to_air
from skyloom.core.spectra import Spectra
from skyloom.core.spectral_noise import lag_bands
from skyloom.store.levels.common_grid import rows
from skyloom.store.levels.spectra import spectrum_levels
from skyloom.store.schema import CommonGrid, StoreSettings

N_DRAWS = 1000
GRID = CommonGrid(5000.0, 5800.0)
SETTINGS = StoreSettings(common_grid=GRID, levels=5)
UNIT = "1e-17 erg/(s cm2 AA)"
KERNELS = {"white": [1.0], "correlated": [1.0, 2.0, 1.0], "rebinned": [0.4, 1.0, 0.1]}
WIDTHS = (1, 5, 50)


def native_wave(kind):
    if kind == "aligned":
        return 10 ** (1e-4 * (36985 + np.arange(655)))
    if kind == "shifted":
        return 10 ** (1e-4 * (36985.37 + np.arange(655)))
    if kind == "linear in air":
        return vacuum_to_air(4995.0) + 1.25 * np.arange(650)
    return 4995.0 + 0.6 * np.arange(1350)


def draw(kind, noise, *, masked):
    """Noise alone, with a sky line and a bump, and a few channels lost."""
    rng = np.random.default_rng([N_DRAWS, len(kind), len(noise)])
    wave = native_wave(kind)
    kernel = np.asarray(KERNELS[noise]) / np.linalg.norm(KERNELS[noise])
    white = rng.normal(0, 1, (N_DRAWS, wave.size + kernel.size - 1))
    unit = sum(weight * white[:, start : start + wave.size] for start, weight in enumerate(kernel))
    variance = np.linspace(1.0, 3.0, wave.size)
    variance = variance * (1 + 30 * np.exp(-0.5 * ((wave - wave[wave.size // 3]) / 1.5) ** 2))
    mask = np.zeros((N_DRAWS, wave.size), bool)
    if masked:
        mask[:, wave.size // 2 : wave.size // 2 + 3] = True
        mask[:, wave.size // 4] = True
    lags = None if noise == "white" else np.convolve(kernel, kernel[::-1])
    data = np.where(mask, 1e6, unit * np.sqrt(variance))
    medium = "air" if "air" in kind else "vacuum"
    return Spectra(
        data, np.broadcast_to(variance, data.shape), mask, UNIT, wave, medium, lsf=1.2, correlation=lags
    )


@lru_cache(maxsize=1)
def stored(kind, noise, masked):
    """For each level: values (n, n_wave), and variance, lags and mask, which are the same for all draws."""
    levels = [spectrum_levels(row, SETTINGS)[1] for row in rows(draw(kind, noise, masked=masked))]
    found = []
    for parts in zip(*levels, strict=True):
        first = parts[0].subject
        assert all(
            np.array_equal(part.subject.variance, first.variance, equal_nan=True) for part in parts[::97]
        )
        found.append((np.vstack([part.subject.data for part in parts]), first.variance[0], first.correlation,
                      first.mask[0]))  # fmt: skip
    return found


def pulls(values, variance, correlation, mask, width):
    """(n, sums) pulls of sums over ``width`` neighbouring channels, the masked ones left out."""
    covered = np.flatnonzero(~mask)
    start, stop = covered[0], covered[-1] + 1
    n_sums = (stop - start) // width
    if n_sums == 0:
        start, n_sums, width = start, 1, stop - start
    sigma = np.where(mask, 0.0, np.sqrt(np.where(mask, 0.0, variance)))
    bands = lag_bands(correlation, mask.size)
    radius = bands.shape[1] // 2
    result = []
    for index in range(n_sums):
        part = np.arange(start + index * width, start + (index + 1) * width)
        if mask[part].all():
            continue
        expected = 0.0
        for i in part:
            for d in range(-radius, radius + 1):
                if part[0] <= i + d <= part[-1]:
                    expected += sigma[i] * sigma[i + d] * bands[i, radius + d]
        total = np.where(mask[part], 0.0, values[:, part]).sum(axis=1)
        result.append(total / np.sqrt(expected))
    return np.array(result).T


CASES = [
    ("aligned", "white", True),
    ("aligned", "rebinned", True),
    ("shifted", "white", True),
    ("shifted", "correlated", False),
    ("linear in air", "white", False),
    ("linear in air", "rebinned", True),
    ("fine", "correlated", True),
]


@pytest.mark.parametrize(("kind", "noise", "masked"), CASES)
def test_sums_have_the_errors_that_are_stored(kind, noise, masked):
    for level, planes in enumerate(stored(kind, noise, masked)):
        for width in WIDTHS:
            found = pulls(*planes, width)
            scatter = found.std(axis=0)
            # All sums of a level together: their mean scatter is known to 1/sqrt(2 n_draws n_sums). A hundred such
            # means are looked at here, so 4 times that is chance (6e-3 in all), and so is 5 for the worst sum of
            # thousands.
            assert abs(scatter.mean() - 1) < max(0.01, 4 / np.sqrt(2 * N_DRAWS * scatter.size)), (
                level,
                width,
            )
            assert np.abs(scatter - 1).max() < 5 / np.sqrt(2 * N_DRAWS), (level, width)
            assert abs(found.mean()) < 4 / np.sqrt(N_DRAWS), (level, width)


def test_each_spectrum_has_the_lags_of_its_own_variance():
    """A sky line in one of two spectra: a typical correlation would be wrong for both."""
    wave = native_wave("shifted")
    line = 1 + 400 * np.exp(-0.5 * ((wave - wave[300]) / 0.7) ** 2)
    rng = np.random.default_rng(3)
    scatter = {}
    for name, variance in (("quiet", np.ones(wave.size)), ("line", line)):
        data = rng.normal(0, 1, (N_DRAWS, wave.size)) * np.sqrt(variance)
        spectra = Spectra(data, np.broadcast_to(variance, data.shape), None, UNIT, wave, "vacuum")
        planes = [spectrum_levels(row, SETTINGS)[1][1].subject for row in rows(spectra)]
        first = planes[0]
        values = np.vstack([plane.data for plane in planes])
        scatter[name] = pulls(values, first.variance[0], first.correlation, first.mask[0], 2).std(axis=0)
        assert np.abs(scatter[name] - 1).max() < 4.5 / np.sqrt(2 * N_DRAWS)


def test_flux_of_a_line_is_the_same_at_every_level():
    wave = native_wave("linear in air")
    data = 1 + 20 * np.exp(-0.5 * ((wave - wave[300]) / 2.0) ** 2)
    spectrum = Spectra(data[None], np.ones((1, wave.size)), None, UNIT, wave, "air")
    _, levels = spectrum_levels(spectrum, SETTINGS)
    from skyloom.store.levels.common_grid import level_edges

    widths = np.where(levels[0].subject.mask[0], 0.0, np.diff(level_edges(GRID)))
    total = np.sum(np.nan_to_num(levels[0].subject.data[0]) * widths)
    for level in levels[1:]:
        widths = np.append(widths, np.zeros(widths.size % 2)).reshape(-1, 2).sum(axis=1)
        assert np.sum(np.nan_to_num(level.subject.data[0]) * widths) == pytest.approx(total, rel=1e-6)
