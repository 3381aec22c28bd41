"""Gain and dark variance of the CCDs of the SDSS camera."""

from __future__ import annotations

import pytest

from skyloom.errors import InputError
from skyloom.io.sdss.ccd import BANDS, ccd


def test_every_ccd_has_a_gain_and_a_dark_variance():
    values = [ccd(2820, camcol, band) for camcol in range(1, 7) for band in BANDS]
    assert len(set(values)) == 30
    assert all(1 < gain < 7 and 0.5 < dark < 16 for gain, dark in values)


@pytest.mark.parametrize(
    ("run", "camcol", "band", "gain", "dark_variance"),
    [
        (1000, 2, "u", 1.595, 12.6025),
        (1200, 2, "u", 1.825, 12.6025),
        (1200, 2, "i", 6.565, 5.76),
        (2820, 2, "i", 6.565, 6.25),
        (1462, 4, "z", 4.775, 9.61),
        (2820, 4, "z", 4.775, 12.6025),
        (2820, 3, "r", 4.72, 1.3225),
        (2820, 5, "z", 3.48, 2.1025),
    ],
)
def test_values_follow_the_published_table(run, camcol, band, gain, dark_variance):
    assert ccd(run, camcol, band) == (gain, dark_variance)


@pytest.mark.parametrize(
    ("run", "camcol", "band", "field"),
    [(2820, 3, "y", "FILTER"), (2820, 7, "r", "CAMCOL"), (0, 3, "r", "RUN")],
)
def test_an_unknown_ccd_is_refused(run, camcol, band, field):
    with pytest.raises(InputError) as caught:
        ccd(run, camcol, band)
    assert caught.value.field == field
