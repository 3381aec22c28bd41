"""Means over blocks and images averaged once for several kernels, against the general ways that they replace."""

from __future__ import annotations

import sys
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.wcs import WCS

from skyloom.core.image import Flag, Image, Mode
from skyloom.core.psf import MoffatPSF
from skyloom.errors import InputError
from skyloom.imaging.grids.block_means import block_means
from skyloom.imaging.grids.derived import derived_grid
from skyloom.imaging.grids.divided import divide
from skyloom.imaging.grids.reproject import reproject
from skyloom.imaging.psfs.convolve import convolve
from skyloom.imaging.psfs.kernel_profiles import sample_kernel

BRIGHTNESS = u.Unit("erg / (s cm2 AA arcsec2)")
ELECTRONS = u.Unit("electron / s")


def tangent(shape: tuple[int, int], scale: float, angle: float = 0.0) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 2.0]
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs.wcs.cd = np.array([[-cosine, sine], [sine, cosine]]) * scale / 3600.0
    return wcs


def sharp(unit: u.UnitBase, *, masked: float = 0.0, shape: tuple[int, int] = (301, 280)) -> Image:
    rng = np.random.default_rng(3)
    data = rng.normal(5.0, 1.0, shape).astype(np.float32)
    data[140:146, 150:155] += 300.0
    return Image(
        data,
        rng.uniform(0.5, 1.5, shape).astype(np.float32),
        rng.random(shape) < masked,
        unit,
        tangent(shape, 0.04, 25.0),
        correlation=np.outer([0.2, 1.0, 0.2], [0.2, 1.0, 0.2]),
        modes=(Mode("level", 1.0, 0.1), Mode("tilt", rng.normal(1.0, 0.1, shape).astype(np.float32), 0.2)),
    )


@pytest.mark.parametrize("unit", [BRIGHTNESS, ELECTRONS])
@pytest.mark.parametrize("side", [2, 3])
def test_block_means_are_the_overlap_with_whole_blocks(unit: Any, side: int) -> None:
    image = sharp(unit, masked=0.1)
    mean = block_means(image, side)
    assert mean.wcs is not None
    slow = reproject(image, (mean.wcs, mean.shape), "area")
    both = mean.valid & slow.valid
    # Half of a block masked: rounding decides in the general way.
    assert np.mean(mean.mask != slow.mask) < 0.01
    np.testing.assert_allclose(mean.data[both], slow.data[both], rtol=3e-6, atol=1e-5)
    np.testing.assert_allclose(mean.variance[both], slow.variance[both], rtol=1e-5)
    assert mean.correlation is not None
    assert slow.correlation is not None
    np.testing.assert_allclose(mean.correlation, slow.correlation, atol=1e-12)
    for new, old in zip(mean.modes, slow.modes, strict=True):
        new_map, old_map = (np.broadcast_to(mode.map, mean.shape)[both] for mode in (new, old))
        np.testing.assert_allclose(new_map, old_map, rtol=1e-5)
    assert mean.flags is not None
    assert np.any(mean.flags & np.uint16(Flag.LOW_COVERAGE))


def test_block_means_leave_the_same_light_out_of_two_images() -> None:
    first = sharp(BRIGHTNESS, masked=0.1)
    second = first.evolve(data=3.0 * first.data + 2.0, mask=np.zeros(first.shape, bool))
    one, two = (block_means(image, 4, mask=first.mask) for image in (first, second))
    np.testing.assert_array_equal(one.mask, two.mask)
    np.testing.assert_allclose(two.data[two.valid], 3.0 * one.data[one.valid] + 2.0, rtol=1e-5)


def test_block_means_refuse_what_they_cannot_average() -> None:
    with pytest.raises(InputError, match="side"):
        block_means(sharp(BRIGHTNESS), 500)


@pytest.mark.parametrize("unit", [BRIGHTNESS, ELECTRONS])
@pytest.mark.parametrize("masked", [0.0, 0.01])
def test_one_division_serves_as_convolution_and_two_averages(unit: Any, masked: float) -> None:
    image = sharp(unit, masked=masked)
    shape = (44, 40)
    wcs, margin = tangent(shape, 0.2), 6
    divided = divide(image, wcs, shape, margin)
    assert divided.factor == 3
    for fwhm in (0.5, 0.9):
        fast = divided.blurred(sample_kernel(MoffatPSF(fwhm, 2.8), divided.fine.pixel_matrix))
        fine = reproject(image, derived_grid(wcs, shape, margin=margin, factor=3), "area")
        slow = reproject(
            convolve(fine, sample_kernel(MoffatPSF(fwhm, 2.8), fine.pixel_matrix)), (wcs, shape), "area"
        )
        both = fast.valid & slow.valid
        assert np.count_nonzero(both) > 0.5 * both.size
        assert np.mean(fast.mask != slow.mask) < 0.03
        inside = both & ~_near(fast.mask | slow.mask)
        np.testing.assert_allclose(fast.data[inside], slow.data[inside], rtol=2e-3 if masked else 1e-5)
        np.testing.assert_allclose(
            fast.variance[inside], slow.variance[inside], rtol=1e-2 if masked else 1e-4
        )
        assert fast.correlation is not None
        assert slow.correlation is not None
        np.testing.assert_allclose(fast.correlation, slow.correlation, atol=1e-8)
        for new, old in zip(fast.modes, slow.modes, strict=True):
            new_map, old_map = (np.broadcast_to(mode.map, shape)[inside] for mode in (new, old))
            np.testing.assert_allclose(new_map, old_map, rtol=2e-3)


def _near(mask: Any) -> Any:
    from scipy.ndimage import binary_dilation

    return binary_dilation(np.pad(mask, 1, constant_values=True), iterations=2)[1:-1, 1:-1]


def test_a_window_of_the_divided_image_is_what_would_be_averaged_for_it() -> None:
    image = sharp(BRIGHTNESS)
    shape = (40, 36)
    wcs = tangent(shape, 0.2)
    divided = divide(image, wcs, shape, 8)
    part = wcs[10:30, 5:25]
    window = divided.window(part, (20, 20), 5)
    assert window is not None
    alone = divide(image, part, (20, 20), 5).fine
    both = window.valid & alone.valid
    np.testing.assert_allclose(window.data[both], alone.data[both], rtol=1e-4)
    assert divided.window(part, (20, 20), 40) is None
    moved = part.deepcopy()
    moved.wcs.crpix = np.array(part.wcs.crpix) + 0.3
    assert divided.window(moved, (20, 20), 5) is None


def test_rows_of_a_large_overlap_are_the_same_from_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    image = sharp(BRIGHTNESS, masked=0.05)
    grid = tangent((100, 90), 0.1), (100, 90)
    one = reproject(image, grid, "area")
    monkeypatch.setattr(sys.modules["skyloom.imaging.grids.reproject"], "PART", 512)
    several = reproject(image, grid, "area")
    for name in ("data", "variance", "mask", "flags"):
        np.testing.assert_array_equal(getattr(one, name), getattr(several, name))
