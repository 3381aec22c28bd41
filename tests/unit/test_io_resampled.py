"""The resampled cube: an ordinary FITS cube for others, the same cube again for us."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

import skyloom as sl
from skyloom.core.cube import Cube, CubeCorrelation
from skyloom.core.noise import gaussian_correlation
from skyloom.core.provenance import step
from skyloom.core.psf import GaussianPSF
from skyloom.errors import FileFormatError, InputError
from skyloom.io.cubes.files import open_cube
from skyloom.io.products import resampled
from skyloom.io.products.resampled import read_resampled, write_resampled


def sky(cd=False):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval, wcs.wcs.crpix = (130.2, 39.5), (3.0, 2.0)
    turn = np.array([[-0.8, 0.6], [0.6, 0.8]]) * 0.2 / 3600
    if cd:
        wcs.wcs.cd = turn
    else:
        wcs.wcs.cdelt, wcs.wcs.pc = (1.0, 1.0), turn
    return wcs


def cube(**changes):
    rng = np.random.default_rng(4)
    shape = (21, 4, 5)
    mask = np.zeros(shape, bool)
    mask[3, 1, 2] = mask[:, 0, 0] = True
    fields = {
        "data": rng.normal(3, 1, shape).astype(np.float32),
        "variance": rng.uniform(0.1, 0.2, shape).astype(np.float32),
        "mask": mask,
        "unit": "1e-20 erg/(s cm2 AA)",
        "wcs": sky(),
        "wave": 4750.0 + np.arange(21),
        "medium": "air",
        "lsf": 1.1,
        "psf": GaussianPSF(0.8),
        "correlation": CubeCorrelation(gaussian_correlation(0.8, 2.0), np.array([0.2, 1.0, 0.2])),
        "meta": {
            "object": "A478",
            "instrument": "MUSE",
            "redshift_applied": 0.0885,
            "milky_way_corrected": True,
        },
        "history": (step("resample", step=1.0),),
    }
    return Cube(**(fields | changes))


@pytest.mark.parametrize("cd", [False, True])
@pytest.mark.parametrize("medium", ["air", "vacuum"])
def test_round_trip(cd, medium, tmp_path):
    given = cube(wcs=sky(cd), medium=medium)
    path = write_resampled(given, tmp_path / "A478.resam.fits")
    found = sl.read(path)
    np.testing.assert_array_equal(found.mask, given.mask)
    np.testing.assert_array_equal(found.data[given.valid], given.data[given.valid])
    np.testing.assert_allclose(found.variance[given.valid], given.variance[given.valid], rtol=3e-7)
    np.testing.assert_array_equal(found.wave, given.wave)
    assert found.medium == medium
    assert found.unit == given.unit
    assert found.psf == given.psf
    np.testing.assert_array_equal(found.lsf, np.full(21, 1.1))
    np.testing.assert_array_equal(found.correlation.spectral, given.correlation.spectral)
    np.testing.assert_array_equal(found.correlation.spatial, given.correlation.spatial)
    assert found.meta["redshift_applied"] == 0.0885
    assert found.meta["milky_way_corrected"] is True
    pixels = np.array([0.0, 4.0]), np.array([1.0, 3.0])
    for one, other in zip(
        found.wcs.all_pix2world(*pixels, 0), given.wcs.all_pix2world(*pixels, 0), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-14)


def test_other_programs_find_an_ordinary_cube(tmp_path):
    given = cube()
    path = write_resampled(given, tmp_path / "a.resam.fits")
    with fits.open(path, checksum=True) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "DATA", "ERROR", "LAGS", "CORR", "LSF", "META"]
        header = hdus["DATA"].header
        assert header["BUNIT"] == hdus["ERROR"].header["BUNIT"]
        assert (header["CTYPE3"], header["CUNIT3"]) == ("AWAV", "Angstrom")
        assert (header["CRVAL3"], header["CRPIX3"], header["CDELT3"]) == (4750.0, 1.0, 1.0)
        assert (header["SPECSYS"], header["ZSOURCE"]) == ("SOURCE", 0.0885)
        assert np.isnan(hdus["DATA"].data[3, 1, 2])
        assert np.isnan(hdus["ERROR"].data[3, 1, 2])
        np.testing.assert_allclose(
            hdus["ERROR"].data[given.valid], np.sqrt(given.variance[given.valid]), rtol=1e-6
        )
        assert "resample" in str(hdus[0].header["HISTORY"])
        solid = WCS(header)
        assert solid.naxis == 3
        np.testing.assert_allclose(
            solid.pixel_to_world_values(1.0, 2.0, 20.0)[2] * u.Unit(solid.wcs.cunit[2]).to(u.AA), 4770.0
        )


def test_written_in_parts_as_in_one(tmp_path, monkeypatch):
    whole = write_resampled(cube(), tmp_path / "a.fits").read_bytes()
    monkeypatch.setattr(resampled, "_PART_BYTES", 200)
    assert write_resampled(cube(), tmp_path / "b.fits").read_bytes() == whole


def test_parts_can_be_read(tmp_path):
    widths = np.random.default_rng(1).uniform(1, 2, (21, 4, 5)).astype(np.float32)
    bands = np.tile([0.1, 1.0, 0.1], (21, 1))
    given = cube(lsf=widths, correlation=CubeCorrelation(None, bands))
    opened = open_cube(write_resampled(given, tmp_path / "a.fits"))
    part = opened.read(slice(5, 9), slice(1, 3))
    np.testing.assert_array_equal(part.lsf, widths[5:9, 1:3])
    np.testing.assert_array_equal(part.correlation.spectral, bands[5:9])
    assert part.correlation.spatial is None


def test_without_sky_or_anything_else(tmp_path):
    given = cube(wcs=None, lsf=None, psf=None, correlation=None, meta={})
    found = read_resampled(write_resampled(given, tmp_path / "a.fits"))
    assert found.wcs is None
    assert found.correlation is None
    assert found.lsf is None
    assert "redshift_applied" not in found.meta


def test_axes_that_are_not_linear_are_refused(tmp_path):
    wave = 4750.0 * np.exp(np.arange(21) * 2e-4)
    with pytest.raises(InputError, match=r"not evenly spaced.*resample\(cube, step=1\)"):
        write_resampled(cube(wave=wave), tmp_path / "a.fits")
    one = cube().evolve(data=np.ones((1, 4, 5)), variance=np.ones((1, 4, 5)), mask=None, wave=[4750.0])
    with pytest.raises(InputError, match="one channel has no step"):
        write_resampled(one, tmp_path / "a.fits")
    assert not list(tmp_path.iterdir())


def test_existing_and_damaged_files(tmp_path):
    path = write_resampled(cube(), tmp_path / "a.fits")
    with pytest.raises(InputError, match="exists already"):
        write_resampled(cube(), path)
    content = path.read_bytes()
    path.write_bytes(content[:-3000])
    with pytest.raises(FileFormatError, match="truncated"):
        sl.read(path)
    with fits.open(write_resampled(cube(), tmp_path / "b.fits")) as hdus:
        del hdus["ERROR"]
        hdus.writeto(tmp_path / "c.fits")
    with pytest.raises(FileFormatError, match="ERROR is missing"):
        sl.read(tmp_path / "c.fits")
