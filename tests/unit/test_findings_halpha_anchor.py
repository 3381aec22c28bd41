"""Defects that existing pipelines have where HST is anchored to MUSE, one test each."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import skyloom as sl
from tests.grids import tangent_wcs
from tests.inputs.anchor import SMOOTHED, image, pair, scene, triple


def test_an_offset_that_is_fitted_is_applied():
    """Not: the [NII] intercept is fitted and ignored."""
    made = scene(np.random.default_rng(1))
    excess, continuum, lines = triple(np.random.default_rng(2), made, offset=-3.0)
    anchor = sl.imaging.fit_line_anchor(excess, continuum, lines)
    applied = sl.imaging.apply_line_anchor(excess, continuum, anchor)
    field = anchor.field.on(excess.wcs, excess.shape)
    by_hand = (excess.data - anchor.offset - field * continuum.data) / anchor.slope
    np.testing.assert_allclose(applied.data, by_hand, rtol=1e-4, atol=1e-3)
    assert anchor.offset < -1
    assert applied.history[-1].parameters["offset"] == anchor.offset


def test_a_ratio_of_lines_is_not_shifted_by_noise_or_a_hidden_intercept():
    """Not: [NII]/Halpha as the slope of a fit whose intercept is thrown away; it is a ratio of sums."""
    wcs = tangent_wcs((120, 120), 0.2)
    light = gaussian_filter(np.random.default_rng(3).gamma(0.05, 400.0, (120, 120)), 2)
    rng = np.random.default_rng(4)
    ratio = sl.imaging.smooth_ratio(
        image(0.4 * light, 4.0, SMOOTHED, rng, wcs), image(light, 4.0, SMOOTHED, rng, wcs)
    )
    assert abs(np.sum(ratio.data * light) / np.sum(0.4 * light) - 1) < 0.02


def test_the_offset_belongs_to_the_slope_that_is_applied():
    """Not: offsets of a free-slope fit whose slope is thrown away."""
    first, second, truth = pair(np.random.default_rng(5), slope=1.1)
    anchor = sl.imaging.fit_anchor(first, second)
    applied = sl.imaging.apply_anchor(first, anchor)
    assert abs(np.mean(applied.data - truth)) < 0.5
    thrown_away = first.data - anchor.offset
    assert abs(np.mean(thrown_away - truth)) > 2
    held = sl.imaging.fit_anchor(first, second, slope=1.0)
    assert held.offset > anchor.offset + 10 * anchor.offset_err


def test_errors_on_both_axes_and_uncertainties():
    """Not: fits without uncertainties that take the noisier image for exact, whose slope is too flat."""
    first, second, _ = pair(np.random.default_rng(6), noise=25.0)
    anchor = sl.imaging.fit_anchor(first, second)
    blind = np.polyfit(second.data.ravel(), first.data.ravel(), 1)[0]
    assert blind < 1.1 - 4 * anchor.slope_err
    assert abs(anchor.slope - 1.1) < 3 * anchor.slope_err
    assert anchor.offset_err > 0


@pytest.mark.parametrize("absorption", [0.0, 0.033])
def test_recovery_of_nebulae_and_disc(absorption):
    """The ideal case is 1 in any case; with 2.5 A of absorption only the third term brings it back (0.88 without)."""
    made = scene(np.random.default_rng(7))
    made = made._replace(absorption=made.absorption * (absorption / 0.033))
    excess, continuum, lines = triple(np.random.default_rng(8), made, noise=0.2)
    spots = (made.lines > 0.05 * made.continuum) & (made.continuum > 500)
    disc = (made.lines < 0.03 * made.continuum) & (made.continuum > 300)
    found = {}
    for field in ("none", "auto"):
        anchor = sl.imaging.fit_line_anchor(excess, continuum, lines, field=field)
        applied = sl.imaging.apply_line_anchor(excess, continuum, anchor)
        ratio = applied.data / made.lines
        found[field] = float(np.median(ratio[spots])), float(np.median(ratio[disc]))
    assert abs(found["auto"][0] - 1) < 0.02
    assert abs(found["auto"][1] - 1) < 0.05
    if absorption:
        # The offset takes part of the absorption over, so that bright places come out low and faint ones high.
        assert found["none"][0] < 0.9
        assert found["none"][1] < 0.3
    else:
        assert abs(found["none"][0] - 1) < 0.02
