"""Cubes and spectra of real instruments."""

from __future__ import annotations

import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits

import skyloom as sl
from skyloom.core.geometry import local_matrix
from skyloom.core.psf import FWHM_PER_SIGMA
from skyloom.errors import AssumptionWarning, FileFormatError, UnitError
from skyloom.io.cubes.files import open_cube
from skyloom.io.cubes.layout import GenericLayout
from skyloom.io.cubes.muse import lsf_sigma
from skyloom.io.images import noise_scale
from skyloom.io.inspection.inspect import inspect, render

pytestmark = pytest.mark.data

FLUX_DENSITY = u.Unit("1e-20 erg / (s cm2 AA)")


def scatter(cube):
    """Scatter along wavelength over the claimed error."""
    return float(np.sqrt(noise_scale(cube.data, cube.variance, cube.mask, axes=(0,), lag=3)))


def rotation(wcs):
    matrix = local_matrix(wcs, 0.0, 0.0)
    return float(np.degrees(np.arctan2(matrix[0, 1], matrix[1, 1])))


def test_a_pipeline_cube_of_abell_478(data_dir):
    cube = sl.read(data_dir / "muse" / "A478_cut_core_20x20.fits")
    assert (cube.shape, cube.unit, cube.medium) == ((3681, 20, 20), FLUX_DENSITY, "air")
    assert cube.wave[0] == 4749.890625
    assert cube.wave[-1] == 4749.890625 + 3680 * 1.25
    assert cube.mask.sum() == 3  # NaN in DATA and STAT, and DQ set
    assert 0.97 < scatter(cube) < 1.05
    meta = cube.meta
    assert (meta["instrument"], meta["object"], meta["mode"]) == ("MUSE", "Abell 478", "WFM-NOAO-N")
    assert (meta["exposure"], meta["pipeline"], meta["sky_method"]) == (900.0, "muse/1.0", "model")
    assert meta["seeing_source"] == "ESO QC"
    assert 0.8 < meta["seeing"] < 1.2
    assert "whatever" not in meta["stat_unit"]
    with fits.open(data_dir / "muse" / "A478_cut_core_20x20.fits") as hdus:
        valid = cube.valid
        np.testing.assert_array_equal(cube.data[valid], hdus["DATA"].data[valid])
        np.testing.assert_array_equal(cube.variance[valid], hdus["STAT"].data[valid])


def test_halpha_of_abell_478_lies_where_its_redshift_puts_it(data_dir):
    file = open_cube(data_dir / "muse" / "A478_cut_core_20x20.fits")
    channels = slice(*np.searchsorted(file.wave, [7100.0, 7175.0]).tolist())
    spectrum = np.where(file.read(channels).mask, 0.0, file.read(channels).data).sum(axis=(1, 2))
    peak = file.wave[channels][int(np.argmax(spectrum))]
    # Halpha and [NII]6583 (air) blend at a redshift of 0.0885 or so.
    assert 6562.8 * 1.085 < peak < 6583.5 * 1.092


def test_a_rotated_part_of_the_ultra_deep_field(data_dir):
    path = data_dir / "muse" / "UDF_mosaic_subcube.fits"
    cube = sl.read(path)
    assert (cube.shape, cube.meta["object"]) == ((500, 30, 30), "UDF-MOSAIC")
    assert rotation(cube.wcs) == pytest.approx(42.0, abs=0.05)
    assert np.sqrt(abs(np.linalg.det(local_matrix(cube.wcs, 15, 15)))) == pytest.approx(0.2, abs=1e-4)
    assert 0.85 < scatter(cube) < 1.1
    part = open_cube(path).read(slice(100, 110), slice(20, 30))
    np.testing.assert_array_equal(part.data, cube.data[100:110, 20:])
    np.testing.assert_allclose(
        part.wcs.pixel_to_world_values(3.0, 0.0), cube.wcs.pixel_to_world_values(3.0, 20.0), rtol=1e-13
    )


@pytest.mark.parametrize("galaxy", [3, 15, 37, 912, 919])
def test_oii_cubes_with_the_variance_in_another_file(galaxy, data_dir):
    folder = next((data_dir / "hst_udf" / "muse_oii").glob(f"*_{galaxy}_o2_*"))
    flux, errors = (next(folder.glob(f"*_{kind}_cut.fits")) for kind in ("cube", "var"))
    cube = sl.read(flux, weight=errors, weight_kind="variance")
    assert (cube.unit, cube.medium, cube.shape[1:]) == (FLUX_DENSITY, "air", (31, 31))
    assert fits.getheader(errors)["BUNIT"].startswith("10**-40")
    # The variances that come with the mosaic (ids 912 and 919) are 2.5 times the scatter from channel to channel.
    assert 0.55 < scatter(cube) < 1.3
    turned = 42.0 if "udf_mos" in flux.name else 0.0
    assert rotation(cube.wcs) == pytest.approx(turned, abs=0.05)
    # The doublet lies where the redshift in the folder's name (vacuum) puts it.
    redshift = float(folder.name.rpartition("_Z_")[2])
    doublet = 3728.5 * (1 + redshift) / 1.00028
    spectrum = np.where(cube.mask, 0.0, cube.data).sum(axis=(1, 2))
    spectrum = spectrum - np.median(spectrum)
    inside = np.abs(cube.wave - doublet) < 12.0
    assert spectrum[inside].mean() > 3 * np.abs(spectrum[~inside].mean())
    with pytest.raises(FileFormatError, match=f"perhaps {errors.name}"):
        sl.read(flux)


def test_gmos_errors_are_found_to_be_variances(data_dir):
    path = data_dir / "other_ifu" / "GMOS_ngc3081_cube.fits"
    with pytest.warns(AssumptionWarning) as told:
        trusted = sl.read(path)
    messages = " ".join(str(item.message) for item in told)
    for part in ("it looks like the variance", "taken as A", "taken as air", "does not place the spaxels"):
        assert part in messages
    assert scatter(trusted) > 1e10
    layout = GenericLayout(
        name="GMOS", error_kind="variance", medium="air", wave_unit="Angstrom", redshift=0.00798
    )
    with pytest.warns(AssumptionWarning, match="does not place the spaxels on the sky"):
        cube = open_cube(path, layout=layout).read()
    assert 0.2 < scatter(cube) < 2.0
    assert cube.unit.is_equivalent("erg / (s cm2 AA arcsec2)")
    assert cube.mask.all(axis=0).sum() == 2  # the two-dimensional mask
    assert cube.wave[-1] == pytest.approx(5627.89 + 1799 * 0.678294, rel=1e-14)
    seen = inspect(path)
    assert (seen.error.claimed, seen.error.found) == ("standard deviation", "variance")
    assert "ERR: its name says standard deviation" in render(seen)
    assert seen.error.ratio > 1e10


def test_miri_wavelengths_come_from_its_table(data_dir):
    path = data_dir / "other_ifu" / "STRUCTURE_ONLY_JWST_MIRI_s3d.fits"
    cube = sl.read(path)
    table = fits.getdata(path, "WCS-TABLE")["wavelength"].ravel()
    np.testing.assert_allclose(cube.wave, table[:10].astype(float) * 1e4, rtol=1e-12)
    assert (cube.medium, cube.unit) == ("vacuum", u.Unit("mJy / arcsec2"))
    np.testing.assert_allclose(cube.variance, fits.getdata(path, "ERR") ** 2, rtol=1e-6)


def test_sinfoni_says_what_is_missing(data_dir):
    path = data_dir / "other_ifu" / "STRUCTURE_ONLY_SINFONI.fits"
    with pytest.raises(UnitError, match="the header says no unit; pass unit="):
        sl.read(path)
    with pytest.raises(FileFormatError, match="no errors for its data; pass weight=<file>"):
        sl.read(path, unit="adu")
    assert "as it is: the header says no unit" in render(inspect(path))


def test_sinfoni_opens_with_errors_from_a_file(data_dir, tmp_path):
    path = data_dir / "other_ifu" / "STRUCTURE_ONLY_SINFONI.fits"
    fits.PrimaryHDU(np.full((10, 10, 10), 0.04, np.float32)).writeto(tmp_path / "errors.fits")
    cube = sl.read(path, unit="adu", weight=tmp_path / "errors.fits", weight_kind="rms")
    assert cube.medium == "vacuum"
    first = (2.20000004768372 + (1 - 1108) * 0.000245000002905726) * 1e4
    assert cube.wave[0] == pytest.approx(first, rel=1e-13)
    assert np.sqrt(abs(np.linalg.det(local_matrix(cube.wcs, 5, 5)))) == pytest.approx(0.125, abs=1e-4)


def test_spectra_of_the_ultra_deep_field(data_dir):
    paths = sorted((data_dir / "muse_udf_spectra" / "input").glob("*.fits"))
    assert len(paths) == 12
    for path in paths:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            spectra = sl.read(path)
        assert (spectra.shape, spectra.unit, spectra.medium) == ((1, 3681), FLUX_DENSITY, "air")
        assert spectra.wave[[0, -1]].tolist() == [4750.0, 9350.0]
        assert spectra.meta["source_id"] == int(path.stem.rpartition("_")[2])
        ratio = np.sqrt(noise_scale(spectra.data, spectra.variance, spectra.mask, axes=(1,), lag=3))
        assert 0.5 < ratio < 3.0  # the features of bright stars and galaxies count as scatter


def test_the_published_line_spread_function(data_dir):
    """An independent table of the same fit; it does not go below 2.54 A."""
    wave, fwhm = np.loadtxt(data_dir / "lsf" / "lsf_MUSE-WFM", unpack=True)
    inside = (wave > 4650) & (wave < 9350) & (fwhm > 2.5405)
    assert inside.sum() > 1000
    np.testing.assert_allclose(FWHM_PER_SIGMA * lsf_sigma(wave[inside]), fwhm[inside], atol=1e-4)


def test_a_source_file_is_named_as_such(data_dir):
    with pytest.raises(FileFormatError, match=r"a source file of MPDAF .*IMA_MUSE_WHITE_DATA"):
        sl.read(data_dir / "muse" / "origin-00026.fits")
