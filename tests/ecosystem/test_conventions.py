"""What DS9, CASA and astropy expect of a FITS file, for every kind of product."""

from __future__ import annotations

import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, VarianceUncertainty
from astropy.wcs import WCS
from tests.inputs.io_objects import assert_same_wcs, make_cube

import skyloom as sl
from skyloom.io.formats.spectral_axis import axis_cards, has_form

PRODUCTS = (
    "image", "cube", "log_cube", "spectra", "one", "bins", "bands", "resam", "maps", "fits",
)  # fmt: skip


def waves(header):
    """Wavelengths that the cards of the third, or the first, axis describe, in A."""
    axis = 3 if "CTYPE3" in header else 1
    wcs = WCS(header).sub([axis])
    values = wcs.all_pix2world(np.arange(header[f"NAXIS{axis}"]), 0)[0]
    return u.Quantity(values, wcs.wcs.cunit[0]).to_value(u.AA)


@pytest.mark.parametrize("name", PRODUCTS)
def test_files_are_whole_and_standard(made, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with fits.open(made.folder / f"{name}.fits", checksum=True) as hdus:
            hdus.verify("exception")
            for hdu in hdus:
                _ = hdu.data
                assert {"CHECKSUM", "DATASUM"} <= set(hdu.header)
            names = [hdu.name for hdu in hdus[1:]]
            assert all(names)
            assert len(set(names)) == len(names)
            # Programs that open "the first image" find the data, for the primary HDU is empty.
            assert hdus[0].header["NAXIS"] == 0
            assert hdus[0].header["EXTEND"] is True
            first = next(hdu for hdu in hdus if hdu.is_image and hdu.header["NAXIS"])
            assert first is hdus[1]


@pytest.mark.parametrize("name", PRODUCTS)
def test_units_and_world_coordinates_are_read_by_astropy(made, name):
    with fits.open(made.folder / f"{name}.fits") as hdus:
        for hdu in hdus[1:]:
            if not hdu.is_image:
                continue
            if "BUNIT" in hdu.header:
                u.Unit(hdu.header["BUNIT"])
            if "CTYPE1" in hdu.header:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    wcs = WCS(hdu.header)
                assert wcs.naxis == hdu.header["NAXIS"]


@pytest.mark.parametrize(("name", "kind"), [("cube", "AWAV"), ("log_cube", "WAVE-LOG"), ("resam", "AWAV")])
def test_cubes_have_their_wavelengths_as_third_axis(made, name, kind):
    cube = getattr(made, name, made.cube)
    with fits.open(made.folder / f"{name}.fits") as hdus:
        for plane in ("DATA", "ERROR") if name == "resam" else ("SCI", "VAR", "MASK"):
            header = hdus[plane].header
            assert header["CTYPE3"] == kind
            assert header["CUNIT3"] == "Angstrom"
            np.testing.assert_allclose(waves(header), cube.wave, rtol=0, atol=1e-4 * np.diff(cube.wave).min())
            sky = WCS(header).celestial
            np.testing.assert_allclose(
                sky.all_pix2world(3, 4, 0), cube.wcs.all_pix2world(3, 4, 0), rtol=1e-12
            )


def test_wavelengths_at_rest_say_so(made):
    header = fits.getheader(made.folder / "log_cube.fits", "SCI")
    assert (header["SPECSYS"], header["ZSOURCE"]) == ("SOURCE", 0.02)
    assert "SPECSYS" not in fits.getheader(made.folder / "cube.fits", "SCI")


def test_the_third_axis_is_not_part_of_the_object(made, tmp_path):
    """A cube with a WCS of the sky comes back with that, not with one of three axes."""
    for name in ("cube", "log_cube"):
        back = sl.read(made.folder / f"{name}.fits")
        assert back.wcs.naxis == 2
        assert_same_wcs(back.wcs, getattr(made, name).wcs)
    for change in ({"wcs": None}, {"wave": np.cumsum(np.linspace(1.0, 3.0, 25)) + 5000.0}):
        cube = made.cube.evolve(**change)
        path = tmp_path / f"{next(iter(change))}.fits"
        sl.write(cube, path)
        back = sl.read(path)
        np.testing.assert_array_equal(back.wave, cube.wave)
        assert (back.wcs is None) == (cube.wcs is None)
        assert ("CTYPE3" in fits.getheader(path, "SCI")) == (cube.wcs is None)


def test_a_cube_keeps_a_wcs_of_three_axes(tmp_path, rng):
    cube = make_cube(rng)
    header = cube.wcs.to_header()
    header["WCSAXES"] = 3
    header.update({"CTYPE3": "AWAV", "CUNIT3": "m", "CRVAL3": 4.75e-7, "CRPIX3": 1.0, "CDELT3": 1.25e-10})
    solid = cube.evolve(wcs=WCS(header))
    sl.write(solid, tmp_path / "solid.fits")
    back = sl.read(tmp_path / "solid.fits")
    assert back.wcs.naxis == 3
    assert_same_wcs(back.wcs, solid.wcs)


def test_axes_without_a_form_get_no_cards():
    assert not has_form(np.array([5000.0]))
    assert not has_form(np.array([1.0, 2.0, 4.0, 5.0]))
    assert axis_cards(np.array([1.0, 2.0, 4.0, 5.0]), "air", 3) == b""
    assert has_form(np.geomspace(1.0, 9.0, 50))
    assert has_form(np.linspace(1.0, 9.0, 50))


def test_images_open_as_ccddata(made):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ccd = CCDData.read(made.folder / "image.fits", hdu="SCI", hdu_uncertainty="VAR", hdu_mask="MASK")
    image = made.image
    assert ccd.unit == image.unit
    assert isinstance(ccd.uncertainty, VarianceUncertainty)
    assert ccd.uncertainty.unit == image.unit**2
    np.testing.assert_array_equal(ccd.data, image.data)
    np.testing.assert_array_equal(ccd.uncertainty.array, image.variance)
    np.testing.assert_array_equal(ccd.mask, image.mask)
    assert_same_wcs(ccd.wcs, image.wcs)
    band = CCDData.read(
        made.folder / "bands.fits", hdu="F814W_SCI", hdu_uncertainty="F814W_VAR", hdu_mask="F814W_MASK"
    )
    np.testing.assert_array_equal(band.uncertainty.array, image.variance)
