"""The line anchor on scenes with known slope, sky, absorption: parameters, field, fluxes, and their errors."""

from __future__ import annotations

import numpy as np
import pytest
from tests.inputs.anchor import scene, triple

import skyloom as sl

DRAWS = 24


@pytest.fixture(scope="module")
def draws():
    """Fits of as many scenes, each with its own absorption: errors of smooth fields hold over scenes, not in one."""
    rng = np.random.default_rng(31)
    result = []
    for _ in range(DRAWS):
        made = scene(rng)
        excess, continuum, lines = triple(rng, made)
        anchor = sl.imaging.fit_line_anchor(excess, continuum, lines)
        result.append((made, excess, anchor, sl.imaging.apply_line_anchor(excess, continuum, anchor)))
    return result


@pytest.mark.slow
def test_slope_and_sky_are_recovered_within_their_errors(draws):
    slope = np.array([(anchor.slope - 1.05) / anchor.slope_err for _, _, anchor, _ in draws])
    offset = np.array([(anchor.offset + 3.0) / anchor.offset_err for _, _, anchor, _ in draws])
    assert 0.9 - 3 / np.sqrt(2 * DRAWS) < slope.std() < 1.15 + 3 / np.sqrt(2 * DRAWS)
    assert abs(slope.mean()) < 3 / np.sqrt(DRAWS)
    # The sky's error allows for fields rougher than these: it is an upper bound.
    assert np.sqrt(np.mean(offset**2)) < 1.15 + 3 / np.sqrt(2 * DRAWS)
    assert np.mean(np.abs(offset) < 2) > 0.9


@pytest.mark.slow
def test_absorption_that_varies_by_a_third_is_recovered(draws):
    ratios, pulls = [], []
    for made, excess, anchor, _ in draws:
        field = anchor.field.on(excess.wcs, excess.shape)
        error = anchor.field.error_on(excess.wcs, excess.shape)
        bright = made.continuum > 300
        ratios.append(np.median(field[bright] / made.absorption[bright]))
        pulls.append(((field - made.absorption) / error)[bright][::97])
    assert abs(np.median(ratios) - 1) < 0.01
    assert 0.5 < np.sqrt(np.mean(np.concatenate(pulls) ** 2)) < 1.3


@pytest.mark.slow
def test_bright_disc_and_the_whole_field(draws):
    bright, whole = [], []
    for made, _, _, applied in draws:
        part = (made.lines < 0.03 * made.continuum) & (made.continuum > 500)
        bright.append(applied.data[part].sum() / made.lines[part].sum())
        whole.append(applied.data.sum() / made.lines.sum())
    assert abs(np.median(bright) - 1) < 0.02
    assert np.all(np.abs(np.array(whole) - 1) < 0.02)


@pytest.mark.slow
@pytest.mark.parametrize("size", [5, 20])
def test_pulls_of_sums(draws, size):
    pulls = []
    for made, _, _, applied in draws:
        step = size + 5
        rows, columns = (np.arange(side) for side in applied.shape)
        inside = ((rows % step < size)[:, None]) & ((columns % step < size)[None])
        index = (rows // step)[:, None] * 100 + (columns // step)[None]
        labels = np.where(inside, index, -1).astype(np.int32)
        table = sl.imaging.sum_regions(applied, labels)
        expected = np.bincount(labels[inside], weights=made.lines[inside])[np.asarray(table["label"])]
        pull = (table["flux"].value - expected * applied.pixel_area) / table["flux_err"].value
        pulls.append(pull)
    assert 0.9 < np.std(np.concatenate(pulls)) < 1.1
    assert abs(np.mean(np.concatenate(pulls))) < 0.1
