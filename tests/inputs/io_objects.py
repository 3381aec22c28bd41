"""Objects for the tests of reading and writing, and what it means that two of them are the same."""

from __future__ import annotations

import astropy.units as u
import numpy as np
from astropy.wcs import WCS, Sip

import skyloom as sl
from skyloom.core.cube import CubeCorrelation
from skyloom.core.provenance import step
from skyloom.core.psf import square_matrix


def tan_wcs(angle, scale=0.06):
    turn = np.radians(angle)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [53.122751 + 1 / 3, -27.805089]
    wcs.wcs.crpix = [2071.729171875612, -1731.379758671446 / 3]
    wcs.wcs.cd = scale / 3600 * np.array([[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.set()
    return wcs


def sip_wcs():
    wcs = tan_wcs(10.0)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    a, b = np.zeros((4, 4)), np.zeros((4, 4))
    a[2, 0], a[1, 1], a[0, 3], b[0, 2], b[1, 2] = 1e-6 / 3, -2e-7, 1e-10, 3e-6 / 7, 1e-11
    wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    wcs.wcs.set()
    return wcs


def symmetric(rng, shape):
    values = rng.uniform(-0.1, 0.3, shape)
    flipped = values[(slice(None, None, -1),) * values.ndim]
    rho = (values + flipped) / 2
    rho[tuple(size // 2 for size in shape)] = 1.0
    return rho


def planes(rng, shape, dtype):
    data = rng.normal(size=shape).astype(dtype)
    variance = rng.uniform(0.1, 3.0, shape).astype(dtype)
    mask = rng.random(shape) < 0.2
    data[mask] = np.nan
    variance[mask] = np.nan
    return data, variance, mask


def make_image(rng, shape=(6, 5), dtype=np.float32, psf=None, unit="electron/s", wcs="default", full=False):
    grid = tan_wcs(25.0) if isinstance(wcs, str) else wcs
    image = sl.Image(*planes(rng, shape, dtype), u.Unit(unit), grid, psf=psf)
    if not full:
        return image
    return image.evolve(
        step("read_hst", path="a.fits", count=3, ratio=1 / 3, nothing=None, listed=[1, [2.5, "x"]]),
        psf=sl.SampledPSF(sl.GaussianPSF(0.2).render(square_matrix(0.06)), square_matrix(0.06)),
        correlation=symmetric(rng, (5, 5)),
        flags=rng.integers(0, 2**16, shape).astype(np.uint16),
        modes=(sl.Mode("sky", 1.0, 0.01 / 3), sl.Mode("anchor slope", rng.normal(size=shape), 0.2)),
        meta={
            "instrument": "ACS",
            "band": "f814w",
            "exposure": 1200.5,
            "photflam": 7e-20,
            "notes": ["a", {"b": None}],
        },
    )


def make_cube(rng, shape=(7, 5, 4), full=False):
    wave = 4750.0 + 1.25 * np.arange(shape[0]) + 1e-3 / 3
    cube = sl.Cube(*planes(rng, shape, np.float32), "1e-20 erg/(s cm2 AA)", tan_wcs(42.0, 0.2), wave, "air")
    if not full:
        return cube
    return cube.evolve(
        step("read_muse"),
        psf=sl.ChromaticPSF(np.array([4700.0, 9300.0]), (sl.MoffatPSF(0.8, 2.8), sl.MoffatPSF(0.7, 2.8))),
        lsf=rng.uniform(1.0, 1.3, shape[0]),
        correlation=CubeCorrelation(symmetric(rng, (3, 3)), symmetric(rng, (5,))),
        flags=np.ones(shape, np.uint16),
        modes=(sl.Mode("sky", rng.normal(size=shape), 0.1),),
        meta={"instrument": "MUSE"},
    )


def make_spectra(rng, shape=(3, 9), full=False):
    wave = np.geomspace(3600.0, 10300.0, shape[1])
    spectra = sl.Spectra(*planes(rng, shape, np.float64), "1e-17 erg/(s cm2 AA)", wave, "vacuum")
    if not full:
        return spectra
    return spectra.evolve(
        step("extract"),
        lsf=rng.uniform(1.0, 1.3, shape),
        correlation=np.tile(symmetric(rng, (3,)), (shape[1], 1)),
        flags=np.zeros(shape, np.uint16),
        modes=(sl.Mode("flux", 1.0, 0.05),),
        meta={"z": 0.0177},
    )


def assert_same_value(first, second, name):
    if isinstance(second, np.ndarray):
        assert isinstance(first, np.ndarray), name
        assert first.dtype == second.dtype, name
        np.testing.assert_array_equal(first, second, err_msg=name)
    elif isinstance(second, WCS):
        assert_same_wcs(first, second)
    elif isinstance(second, sl.SampledPSF):
        assert isinstance(first, sl.SampledPSF)
        np.testing.assert_array_equal(first.array, second.array)
        np.testing.assert_array_equal(first.matrix, second.matrix)
    elif isinstance(second, sl.ChromaticPSF):
        assert first.describe() == second.describe()
    elif isinstance(second, tuple) and name in ("modes", "correlation"):
        assert type(first) is type(second)
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same_value(one, other, "parts" if isinstance(other, tuple) else name)
    elif isinstance(second, sl.Mode):
        assert (first.name, first.sigma) == (second.name, second.sigma)
        assert_same_value(first.map, second.map, "map")
    else:
        assert first == second, name
        assert type(first) is type(second), name


def assert_same_wcs(first, second):
    assert first is not None
    assert first.wcs.compare(second.wcs)
    assert first.naxis == second.naxis
    for name in ("crpix", "crval"):
        np.testing.assert_array_equal(getattr(first.wcs, name), getattr(second.wcs, name))
    np.testing.assert_array_equal(first.pixel_scale_matrix, second.pixel_scale_matrix)
    assert (first.sip is None) == (second.sip is None)
    if second.sip is not None:
        np.testing.assert_array_equal(first.sip.a, second.sip.a)
        np.testing.assert_array_equal(first.sip.b, second.sip.b)


def assert_same(first, second, only=None):
    """Assert that two objects agree in every field: type, dtype, values, also NaN and what lies under the mask."""
    assert type(first) is type(second)
    for name in only or list(second.__slots__):
        assert_same_value(getattr(first, name), getattr(second, name), name)
