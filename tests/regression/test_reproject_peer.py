"""Values against the `reproject` package."""

import numpy as np
import pytest
from tests.grids import tangent_wcs

from skyloom.core.image import Image
from skyloom.imaging.grids.reproject import reproject

peer = pytest.importorskip("reproject", reason="the peer package `reproject` is not installed")
SHAPE = (70, 81)


def scene(sip=False):
    rng = np.random.default_rng(3)
    y, x = np.indices(SHAPE)
    data = 1.0 + 20 * np.exp(-((x - 40) ** 2 + (y - 33) ** 2) / 50) + rng.normal(0, 0.2, SHAPE)
    return Image(data, np.ones(SHAPE), None, "MJy/sr", tangent_wcs(SHAPE, sip=sip))


GRIDS = {
    "turned": (tangent_wcs((60, 60), 0.05, 25.0, (0.2, 0.3)), (60, 60)),
    "coarser": (tangent_wcs((14, 15), 0.2), (14, 15)),
    "coarser, turned": (tangent_wcs((14, 15), 0.23, -33.0), (14, 15)),
    "distorted": (tangent_wcs((60, 61), 0.05, 70.0, sip=True), (60, 61)),
}


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("sip", [False, True])
def test_bilinear_is_that_of_reproject_interp(name, sip):
    image, target = scene(sip), GRIDS[name]
    result = reproject(image, target, "bilinear")
    theirs, _ = peer.reproject_interp((image.data, image.wcs), target[0], target[1], order="bilinear")
    valid = result.valid
    assert valid.sum() > 100
    np.testing.assert_allclose(result.data[valid], theirs[valid], atol=2e-5)
    # It extrapolates half a pixel beyond the outer centres; here these pixels are masked.
    assert np.isfinite(theirs[valid]).all()
    assert np.isfinite(theirs).sum() >= valid.sum()


@pytest.mark.parametrize("name", GRIDS)
def test_area_is_that_of_reproject_exact(name):
    image, target = scene(), GRIDS[name]
    result = reproject(image, target, "area")
    theirs, footprint = peer.reproject_exact((image.data, image.wcs), target[0], target[1], parallel=False)
    whole = footprint > 1.0 - 1e-6
    # The footprint agrees but for rounding at its edge.
    assert np.count_nonzero(whole != result.valid) <= 2
    both = whole & result.valid
    assert both.sum() > 100
    np.testing.assert_allclose(result.data[both], theirs[both], rtol=1e-5)
