"""Errors of a band's anchor against many draws."""

from __future__ import annotations

import numpy as np
import pytest
from tests.inputs.anchor import pair

import skyloom as sl

DRAWS = 60


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "scatter"), [(1.0, 0.0), (0.3, 0.08)])
def test_pulls_of_slope_and_offset(noise, scatter):
    rng = np.random.default_rng(21)
    pulls, slopes = [], []
    for _ in range(DRAWS):
        first, second, _ = pair(rng, noise=noise, scatter=scatter)
        anchor = sl.imaging.fit_anchor(first, second)
        pulls.append(((anchor.slope - 1.1) / anchor.slope_err, (anchor.offset - 25.48) / anchor.offset_err))
        slopes.append(anchor.slope)
    pulls = np.array(pulls)
    assert np.all(np.abs(pulls.mean(axis=0)) < 3 / np.sqrt(DRAWS))
    # The larger of two error estimates is taken, one of which scatters by 10 %: pulls lie a little below 1.
    spread = pulls.std(axis=0)
    assert np.all(spread < 1 + 3 / np.sqrt(2 * DRAWS))
    assert np.all(spread > 0.9 - 3 / np.sqrt(2 * DRAWS))
    assert abs(np.mean(slopes) / 1.1 - 1) < 0.003


@pytest.mark.slow
def test_sums_have_the_errors_they_claim_once_the_anchor_is_applied():
    rng = np.random.default_rng(22)
    # Sums over most of the pixels that were fitted share their noise with the anchor: their errors are upper bounds.
    pulls = {3: [], 10: [], 20: []}
    for _ in range(DRAWS):
        first, second, truth = pair(rng)
        applied = sl.imaging.apply_anchor(first, sl.imaging.fit_anchor(first, second))
        labels = np.full(first.shape, -1, np.int32)
        for label, size in enumerate(pulls):
            labels[...] = -1
            labels[15 : 15 + size, 15 : 15 + size] = label
            row = sl.imaging.sum_regions(applied, labels)
            area = applied.pixel_area
            expected = truth[labels == label].sum() * area
            pulls[size].append(float(((row["flux"].value - expected) / row["flux_err"].value)[0]))
    for size, values in pulls.items():
        assert abs(np.std(values) - 1) < 3 / np.sqrt(2 * DRAWS), size
        assert abs(np.mean(values)) < 3 / np.sqrt(DRAWS), size
