"""Defects of existing pipelines that read cubes, each by name: none of them may come back."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

import skyloom as sl
from skyloom.core.linelist import default_lines
from skyloom.errors import AssumptionWarning
from tests.inputs.cube_files import cards, voxels, write_cube, write_muse

C = 299792.458  # km/s


def test_wavelengths_are_not_stretched_between_two_ends(tmp_path, rng):
    """linspace(CRVAL, CRVAL + n CD, n) with its end included moves Halpha by 0.52 A and the red end by 1.25 A."""
    shape = (3681, 1, 1)
    data, variance = voxels(rng, shape)
    path = write_cube(
        tmp_path / "a.fits", {"DATA": data, "STAT": variance}, cards(CRVAL3=4749.9), {"INSTRUME": "MUSE"}
    )
    wave = sl.read(path).wave
    stretched = np.linspace(4749.9, 4749.9 + shape[0] * 1.25, shape[0])
    halpha = int(np.argmin(np.abs(wave - 6662.0)))
    assert stretched[halpha] - wave[halpha] == pytest.approx(0.52, abs=0.005)
    assert C * (stretched[halpha] - wave[halpha]) / wave[halpha] == pytest.approx(23.4, abs=0.5)
    assert stretched[-1] - wave[-1] == pytest.approx(1.25)
    np.testing.assert_array_equal(np.diff(wave), np.full(shape[0] - 1, 1.25))
    assert wave[-1] == pytest.approx(4749.9 + 3680 * 1.25, rel=1e-14)


def test_the_reference_pixel_counts_from_one(tmp_path, rng):
    cut = write_muse(tmp_path / "a.fits", rng, cards(CRPIX3=-1146.0))
    assert sl.read(cut).wave[0] == 4750.0 + 1147 * 1.25


def test_a_logarithmic_axis_is_not_read_as_linear(tmp_path, rng):
    data, variance = voxels(rng, (4563, 1, 1))
    header = cards(CTYPE3="WAVE-LOG", CRVAL3=3621.5957, CD3_3=0.83390)
    wave = sl.read(write_cube(tmp_path / "a.fits", {"FLUX": data, "VAR": variance}, header)).wave
    steps = np.diff(np.log10(wave))
    assert np.ptp(steps) < 1e-12
    assert steps[0] == pytest.approx(1e-4, rel=1e-4)
    linear = 3621.5957 + 0.83390 * np.arange(wave.size)
    assert wave[-1] - linear[-1] > 2900  # A: half the range of the instrument


def test_unusable_errors_become_neither_zero_nor_tiny(tmp_path, rng):
    """Replacing NaN errors by 1e-22, and inverting an inverse variance of 0, give noise that is not there."""
    data, variance = voxels(rng)
    weight = 1.0 / variance
    weight[2, 3, 4] = 0.0
    weight[2, 3, 5] = np.nan
    cube = sl.read(write_cube(tmp_path / "a.fits", {"FLUX": data, "IVAR": weight}))
    assert np.argwhere(cube.mask).tolist() == [[2, 3, 4], [2, 3, 5]]
    usable = cube.variance[cube.valid]
    assert np.all(np.isfinite(usable))
    assert usable.min() > 1.0


def test_nan_does_not_become_a_signal_of_zero(tmp_path, rng):
    data, variance = voxels(rng)
    data[:, 0], variance[:, 0] = np.nan, np.nan
    cube = sl.read(
        write_cube(tmp_path / "a.fits", {"DATA": data, "STAT": variance}, primary={"INSTRUME": "MUSE"})
    )
    assert cube.mask[:, 0].all()
    assert not np.any(cube.data[:, 0] == 0)


def test_air_and_vacuum_are_never_mixed_up_silently(tmp_path, rng):
    """A vacuum rest wavelength on an air axis is 83 km/s off."""
    line = next(line for line in default_lines() if line.key == "OIII5007")
    assert C * (line.rest("vacuum") / line.rest("air") - 1) == pytest.approx(83.0, abs=1.0)
    with pytest.warns(AssumptionWarning, match="air or vacuum"):
        sl.read(write_cube(tmp_path / "a.fits", _planes(rng), cards(CTYPE3="LAMBDA")))


def test_an_ampere_is_no_angstrom(tmp_path, rng):
    cube = sl.read(write_cube(tmp_path / "a.fits", _planes(rng), cards(BUNIT="1e-16 erg/cm2/s/A/arcsec2")))
    assert cube.unit.is_equivalent("erg / (s cm2 AA arcsec2)")


def test_the_third_extension_is_not_taken_on_trust(tmp_path, rng):
    """Errors are found by name and not by place: a cube with its variance first reads the same."""
    data, variance = voxels(rng)
    first = write_cube(tmp_path / "a.fits", {"DATA": data, "STAT": variance}, primary={"INSTRUME": "MUSE"})
    second = write_cube(tmp_path / "b.fits", {"STAT": variance, "DATA": data}, primary={"INSTRUME": "MUSE"})
    np.testing.assert_array_equal(sl.read(first).data, sl.read(second).data)
    assert fits.getheader(second, 1)["EXTNAME"] == "STAT"


def _planes(rng):
    data, variance = voxels(rng)
    return {"SCI": data, "VAR": variance}
