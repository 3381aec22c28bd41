"""Ranges of sky residuals: in the observed frame, in either medium, editable."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.core.linelist import air_to_vacuum
from skyloom.errors import InputError
from skyloom.spectral.axes.rest_frame import to_rest_frame
from skyloom.spectral.noise.sky_residuals import SKY_RESIDUALS, sky_residual_mask
from tests.spectral_invariants import make_cube, make_spectra

WAVE = 4300.0 + 1.25 * np.arange(5400)


def naive(wave, ranges):
    return np.array([any(low <= value <= high for low, high in ranges) for value in wave])


def test_the_published_ranges_are_the_default():
    inside = sky_residual_mask(WAVE)
    np.testing.assert_array_equal(inside, naive(WAVE, SKY_RESIDUALS))
    assert inside[np.searchsorted(WAVE, 5577.0)]
    assert not inside[np.searchsorted(WAVE, 6563.0)]
    assert len(SKY_RESIDUALS) == 7


def test_ends_belong_to_a_range():
    np.testing.assert_array_equal(
        sky_residual_mask([9.9, 10.0, 11.0, 12.0, 12.1], [(10.0, 12.0)]), [False, True, True, True, False]
    )


@pytest.mark.parametrize("make", [make_cube, make_spectra])
@pytest.mark.parametrize("redshift", [0.0, 0.0885, 1.2])
def test_the_sky_does_not_move_with_the_galaxy(make, redshift):
    subject = make()
    ranges = [(6510.0, 6520.0), (6550.1, 6551.0)]
    observed = sky_residual_mask(subject, ranges)
    np.testing.assert_array_equal(observed, sky_residual_mask(to_rest_frame(subject, redshift), ranges))
    assert 0 < observed.sum() < observed.size


def test_vacuum_axes_are_compared_in_air():
    spectra = make_spectra()
    cube = make_cube()
    line = [(6529.9, 6530.1)]
    assert sky_residual_mask(cube, line).tolist().index(True) == 24
    moved = spectra.evolve(wave=air_to_vacuum(spectra.wave))
    np.testing.assert_array_equal(sky_residual_mask(moved, line), sky_residual_mask(cube, line))
    np.testing.assert_array_equal(
        sky_residual_mask(moved.wave, line, wave_medium="vacuum"), sky_residual_mask(cube, line)
    )
    vacuum = [(air_to_vacuum(low), air_to_vacuum(high)) for low, high in line]
    np.testing.assert_array_equal(
        sky_residual_mask(cube, vacuum, medium="vacuum"), sky_residual_mask(cube, line)
    )


def test_ranges_can_be_added_and_left_out():
    more = (*SKY_RESIDUALS, (8342.0, 8350.0))
    assert sky_residual_mask(WAVE, more).sum() > sky_residual_mask(WAVE).sum()
    assert not sky_residual_mask(WAVE, ()).any()


@pytest.mark.parametrize("bad", [(5.0, 4.0), (np.nan, 4.0), (1.0,), (1.0, 2.0, 3.0)])
def test_what_is_no_range_is_refused(bad):
    with pytest.raises(InputError, match="is no range"):
        sky_residual_mask(WAVE, [bad])
    with pytest.raises(InputError, match="medium"):
        sky_residual_mask(WAVE, medium="water")
    with pytest.raises(InputError, match="medium"):
        sky_residual_mask(WAVE, wave_medium="water")
