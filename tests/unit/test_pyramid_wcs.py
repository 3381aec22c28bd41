"""Where the blocks of a level lie: the mean position of their pixels, distortions included."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS, DistortionLookupTable, Sip

from skyloom.errors import InputError
from skyloom.store.levels.image_wcs import coarse_wcs
from tests.grids import tangent_wcs

SHAPE = (256, 320)


def offset(fine, coarse, level):
    """Largest distance, in arcsec, between points of the image through both WCS."""
    side = 2**level
    x, y = (axis.ravel() for axis in np.meshgrid(np.linspace(-0.5, 319.5, 9), np.linspace(-0.5, 255.5, 9)))
    first = np.radians(fine.all_pix2world(x, y, 0))
    second = np.radians(coarse.all_pix2world((x + 0.5) / side - 0.5, (y + 0.5) / side - 0.5, 0))
    east = (first[0] - second[0]) * np.cos(first[1])
    return np.degrees(np.hypot(east, first[1] - second[1])).max() * 3600


def strongly_distorted():
    wcs = tangent_wcs(SHAPE, 0.4, rotation=20, shift=(13.2, -7.7), sip=True)
    a, b = (np.array(plane) * 10 for plane in (wcs.sip.a, wcs.sip.b))
    wcs.sip = Sip(a, b, -a, -b, wcs.wcs.crpix)
    return wcs


def with_pc_and_cdelt():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---SIN", "DEC--SIN"]
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = (10, 60), (100.3, 20.8), (-1e-4, 1.1e-4)
    wcs.wcs.pc = [[0.8, -0.6], [0.6, 0.8]]
    wcs.wcs.set()
    return wcs


def with_lookup_table():
    wcs = tangent_wcs(SHAPE, 0.4)
    y, x = np.mgrid[:6, :7]
    shifts = (0.3 * np.sin(x) + 0.2 * y).astype(np.float32)
    wcs.cpdis1 = DistortionLookupTable(shifts, (1.0, 1.0), (1.0, 1.0), (55.0, 60.0))
    wcs.cpdis2 = DistortionLookupTable(-shifts, (2.0, 2.0), (56.0, 61.0), (55.0, 60.0))
    return wcs


@pytest.mark.parametrize("level", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "wcs",
    [tangent_wcs(SHAPE, 0.4, rotation=30), strongly_distorted(), with_pc_and_cdelt(), with_lookup_table()],
    ids=["linear", "sip", "pc", "table"],
)
def test_blocks_lie_where_their_pixels_do(wcs, level):
    # Interpolation in a lookup table is done in single precision.
    limit = 2e-6 if wcs.cpdis1 is None else 1e-4
    assert offset(wcs, coarse_wcs(wcs, level), level) < limit


def test_inverse_distortion_follows():
    wcs = strongly_distorted()
    coarse = coarse_wcs(wcs, 2)
    # What goes in counts from CRPIX, what comes out from the first pixel.
    fine = np.array(wcs.sip_foc2pix(40.0, 80.0, 1))
    squeezed = np.array(coarse.sip_foc2pix(10.0, 20.0, 1))
    np.testing.assert_allclose(squeezed, (fine - 0.5) / 4 + 0.5, atol=1e-9)


def test_distortions_matter_in_this_test():
    wcs = strongly_distorted()
    unscaled = coarse_wcs(wcs, 2)
    unscaled.sip = Sip(wcs.sip.a, wcs.sip.b, None, None, unscaled.wcs.crpix)
    assert offset(wcs, unscaled, 2) > 0.1


def test_three_axes():
    wcs = WCS(naxis=3)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN", "AWAV"]
    wcs.wcs.crval, wcs.wcs.crpix = (10, 20, 5e-7), (3, 4, 1)
    wcs.wcs.cdelt = (-1e-4, 1e-4, 1.25e-10)
    wcs.wcs.set()
    coarse = coarse_wcs(wcs, 1)
    # The first pair of channels: half-way between both.
    assert coarse.all_pix2world(0, 0, 0, 0)[2] == pytest.approx(5e-7 + 0.5 * 1.25e-10, rel=1e-12)


def test_original_is_not_touched():
    wcs = strongly_distorted()
    before = wcs.to_header(relax=True)
    coarse_wcs(wcs, 3)
    assert wcs.to_header(relax=True) == before
    assert coarse_wcs(wcs, 0) is wcs
    assert coarse_wcs(None, 2) is None


def test_negative_level_is_an_error():
    with pytest.raises(InputError, match="level is -1"):
        coarse_wcs(tangent_wcs(SHAPE), -1)
