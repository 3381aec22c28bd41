"""What was wrong with the light of images in fibres elsewhere, and is right here."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest

from skyloom.imaging import fibre_flux
from tests.unit.test_fibre import SCALE, flat, sky


def test_the_area_of_a_fibre_is_that_of_its_radius():
    """A flux within pi d^2 instead of pi (d / 2)^2 is 4 times too bright on a flat field, 3.9 times on a real one."""
    image = flat(2.0)
    for diameter in (2.0, 3.0, 0.3):
        (found,) = fibre_flux(image, sky(image, 51.3, 40.8), diameter)
        area = np.pi * (diameter / 2) ** 2
        assert found["area"].to_value(u.arcsec**2) == pytest.approx(area, rel=1e-6)
        assert found["flux"].to_value(u.nmgy) == pytest.approx(2.0 * area / SCALE**2, rel=1e-6)
        assert found["covered"] == pytest.approx(1.0, rel=1e-6)
