"""MUSE: cubes, spectra, maps and band images as the pipelines write them."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits

import skyloom as sl
from skyloom.core.psf import FWHM_PER_SIGMA
from skyloom.errors import (
    AssumptionWarning,
    FileFormatError,
    InputError,
    RepairWarning,
    ShapeError,
    UnitError,
)
from skyloom.io.cubes.files import open_cube
from skyloom.io.cubes.muse import lsf_sigma
from skyloom.io.inspection.inspect import inspect, render
from skyloom.io.registry import sniff_instrument
from skyloom.mock.cubes.files import write_cube_mock
from tests.inputs.cube_files import SHAPE, cards, voxels, write_cube, write_muse

FLUX_DENSITY = u.Unit("1e-20 erg / (s cm2 AA)")
PHASE_3 = {
    "TELESCOP": "ESO-VLT-U4",
    "INSTRUME": "MUSE",
    "OBJECT": "NGC 628",
    "PRODCATG": "SCIENCE.CUBE.IFS",
    "EXPTIME": 990.0,
    "TEXPTIME": 2970.0,
    "MJD-OBS": 57000.0,
    "MJD-END": 57000.2,
    "NCOMBINE": 3,
    "SPEC_RES": 2989.0,
    "SKY_RES": 0.68,
    "PROG_ID": "094.C-0623(A)",
    "PROV1": "MUSE.2014-10-31T03:00:00.fits",
    "PROV2": "MUSE.2014-10-31T03:20:00.fits",
    "HIERARCH ESO INS MODE": "WFM-AO-N",
    "HIERARCH ESO PRO REC1 PIPE ID": "muse/2.8.3",
    "HIERARCH ESO PRO REC1 PARAM7 NAME": "skymethod",
    "HIERARCH ESO PRO REC1 PARAM7 VALUE": "model",
}


def test_a_phase_3_cube(tmp_path, rng):
    data, variance = voxels(rng)
    data[:, 0, :] = np.nan  # the rim of a rotated field
    path = write_cube(tmp_path / "ADP.fits", {"DATA": data, "STAT": variance}, primary=PHASE_3)
    assert sniff_instrument(path) == "muse"
    cube = sl.read(path)
    assert (cube.unit, cube.medium, cube.shape) == (FLUX_DENSITY, "air", SHAPE)
    np.testing.assert_array_equal(cube.variance, variance)
    assert cube.mask[:, 0].all()
    assert not cube.mask[:, 1:].any()
    expected = {
        "instrument": "MUSE",
        "object": "NGC 628",
        "mode": "WFM-AO-N",
        "exposure": 2970.0,
        "mjd": 57000.0,
        "mjd_end": 57000.2,
        "n_combined": 3.0,
        "resolving_power": 2989.0,
        "seeing": 0.68,
        "seeing_source": "SKY_RES",
        "program": "094.C-0623(A)",
        "pipeline": "muse/2.8.3",
        "sky_method": "model",
        "provenance": ["MUSE.2014-10-31T03:00:00.fits", "MUSE.2014-10-31T03:20:00.fits"],
    }
    assert expected.items() <= cube.meta.items()
    assert "Bacon et al. 2017" in cube.meta["lsf_source"]
    assert "milky_way_corrected" not in cube.meta  # the header does not say
    assert cube.psf is None


@pytest.mark.parametrize(
    ("scale", "mode"), [(0.2, "WFM-NOAO-N"), (0.025, "NFM-AO-N")]
)  # fmt: skip
def test_the_pixel_scale_is_that_of_the_wcs(scale, mode, tmp_path, rng):
    side = scale / 3600
    grid = cards(CD1_1=-side, CD1_2=0.0, CD2_1=0.0, CD2_2=side)
    cube = sl.read(write_muse(tmp_path / "a.fits", rng, grid, **{"HIERARCH ESO INS MODE": mode}))
    assert 3600 * np.sqrt(abs(np.linalg.det(cube.wcs.pixel_scale_matrix))) == pytest.approx(scale)
    assert cube.meta["mode"] == mode


def test_stat_is_the_variance_whatever_its_unit_says(tmp_path, rng):
    data, variance = voxels(rng)
    right = "(10**(-20)*erg/s/cm**2/Angstrom)**2"
    for unit, noted in (
        (cards()["BUNIT"] + "**2", True),
        (cards()["BUNIT"], True),
        (right, False),
        ("?", True),
    ):
        hdus = [
            fits.PrimaryHDU(header=fits.Header({"INSTRUME": "MUSE"})),
            fits.ImageHDU(data, cards(), "DATA"),
            fits.ImageHDU(variance, cards(BUNIT=unit), "STAT"),
        ]
        fits.HDUList(hdus).writeto(tmp_path / "a.fits", overwrite=True)
        cube = sl.read(tmp_path / "a.fits")
        np.testing.assert_array_equal(cube.variance, variance)
        assert ("stat_unit" in cube.meta) == noted


def test_data_quality_masks(tmp_path, rng):
    data, variance = voxels(rng)
    quality = np.zeros(SHAPE, np.int32)
    quality[4, 1, 2] = 1 << 9
    path = write_cube(tmp_path / "a.fits", {"DATA": data, "STAT": variance, "DQ": quality}, primary=PHASE_3)
    assert np.argwhere(sl.read(path).mask).tolist() == [[4, 1, 2]]


def test_line_spread_function():
    """Bacon et al. 2017, eqn. 8, at wavelengths of the sky lines that it was fitted to."""
    wave = np.array([5577.338, 6300.304, 8919.610])
    expected = 5.866e-8 * wave**2 - 9.187e-4 * wave + 6.040
    np.testing.assert_allclose(lsf_sigma(wave) * FWHM_PER_SIGMA, expected, rtol=1e-12)
    assert lsf_sigma(np.array([3000.0])) == lsf_sigma(np.array([4600.0]))


def test_options_of_the_reader(tmp_path, rng):
    path = write_muse(tmp_path / "a.fits", rng)
    cube = sl.read(path, lsf=1.1)
    assert (cube.lsf, cube.meta["lsf_source"]) == (1.1, "given")
    with pytest.warns(AssumptionWarning, match="taken as vacuum, as asked"):
        assert sl.read(path, medium="vacuum").medium == "vacuum"
    with pytest.raises(InputError, match="files of kind 'muse' take no layout; known: weight, weight_kind"):
        sl.read(path, layout=None, instrument="muse")
    part = open_cube(path).read(slice(10, 20))
    np.testing.assert_array_equal(part.lsf, cube.evolve().lsf * 0 + lsf_sigma(part.wave))


@pytest.mark.parametrize(
    ("cards_of_model", "fwhm_at_7000", "beta"),
    [
        ({"FSFMODE": "MOFFAT1", "FSF00BET": 2.8, "FSF00FWA": 0.869, "FSF00FWB": -3.401e-5}, 0.63093, 2.8),
        (
            {"FSFMODE": 2, "FSFLB1": 5000, "FSFLB2": 9000, "FSF00FNC": 2, "FSF00F00": -0.2, "FSF00F01": 0.7}
            | {"FSF00BNC": 1, "FSF00B00": 2.5},
            0.7,
            2.5,
        ),
    ],
)
def test_the_psf_that_mpdaf_writes(cards_of_model, fwhm_at_7000, beta, tmp_path, rng):
    grid = cards(CRVAL3=5000.0, CD3_3=100.0)  # 5000 to 8900 A
    cube = sl.read(write_muse(tmp_path / "a.fits", rng, grid, **cards_of_model))
    psf = cube.psf.at(7000.0)
    assert psf.fwhm == pytest.approx(fwhm_at_7000, abs=1e-9)
    assert psf.beta == pytest.approx(beta)
    assert cube.psf.at(5000.0).fwhm > cube.psf.at(8900.0).fwhm
    assert "PSF: chromatic of FWHM" in render(inspect(tmp_path / "a.fits"))


@pytest.mark.parametrize(
    "model",
    [
        {"FSFMODE": "MOFFAT1", "FSF00BET": 2.8},
        {"FSFMODE": "MOFFAT1", "FSF01FWA": 0.8, "FSF02FWA": 0.9},
        {"FSFMODE": "KOLMOGOROV", "FSF00FWA": 0.8},
        {"FSFMODE": 2, "FSF00FNC": 1, "FSF00F00": 0.7},
        {"FSFMODE": "MOFFAT1", "FSF00BET": 2.8, "FSF00FWA": -1.0, "FSF00FWB": 0.0},
    ],
)
def test_a_psf_that_is_not_clear_is_not_made_up(model, tmp_path, rng):
    assert sl.read(write_muse(tmp_path / "a.fits", rng, **model)).psf is None


def test_cuts_without_an_instrument_are_known_by_their_form(tmp_path, rng):
    data, variance = voxels(rng)
    flux = write_cube(tmp_path / "a_cube_cut.fits", {"PRIMARY": data}, primary={"EXTNAME": "DATA"})
    errors = write_cube(tmp_path / "a_var_cut.fits", {"PRIMARY": variance}, primary={"EXTNAME": "STAT"})
    assert sniff_instrument(flux) == "muse"
    cube = sl.read(flux, weight=errors, weight_kind="variance")
    np.testing.assert_array_equal(cube.variance, variance)
    with pytest.raises(FileFormatError, match=r"perhaps a_var_cut.fits"):
        sl.read(flux)


def test_stat_of_another_shape_or_missing(tmp_path, rng):
    data, variance = voxels(rng)
    path = write_cube(tmp_path / "a.fits", {"DATA": data, "STAT": variance[:, 1:]}, primary=PHASE_3)
    with pytest.raises(
        ShapeError, match=r"the errors \(STAT\) have shape \(40, 5, 7\); expected \(40, 6, 7\)"
    ):
        sl.read(path)
    path = write_cube(tmp_path / "a.fits", {"DATA": data}, primary=PHASE_3)
    with pytest.raises(FileFormatError, match="the file has no errors for its data"):
        sl.read(path)


def test_source_files_of_mpdaf_are_named(tmp_path, rng):
    data, variance = voxels(rng)
    planes = {"CUB_MUSE_DATA": data, "CUB_MUSE_STAT": variance, "SPE_TOT_DATA": data[:, 0, 0]}
    path = write_cube(tmp_path / "a.fits", planes, primary={"AUTHOR": "MPDAF"})
    with pytest.raises(
        FileFormatError, match=r"a source file of MPDAF.*data: CUB_MUSE_DATA, error: CUB_MUSE_STAT"
    ):
        sl.read(path)
    layout = sl.io.GenericLayout(data="CUB_MUSE_DATA", error="CUB_MUSE_STAT", error_kind="variance")
    np.testing.assert_array_equal(open_cube(path, layout=layout).read().variance, variance)


def test_a_mock_cube_scatters_about_its_truth_as_it_claims(tmp_path):
    mock = write_cube_mock(
        tmp_path, "muse", seed=11, shape=(12, 14), wave_range=(6500, 6700), sky_residuals=False
    )
    cube = sl.read(mock.cube)
    truth = fits.getdata(mock.noise_free, "TRUTH")
    pull = ((cube.data - truth) / np.sqrt(cube.variance))[cube.valid]
    # Neighbours are correlated: the noise of the mean is some three times that of independent voxels.
    assert abs(pull.mean()) < 9 / np.sqrt(pull.size)
    assert pull.std() == pytest.approx(1.0, abs=0.03)
    np.testing.assert_allclose(cube.wave, fits.getdata(mock.noise_free, "WAVE"), rtol=1e-12)


# ------------------------------------------------------------------------------------------------- spectra


def spectrum_header(**changes):
    values = {"CTYPE1": "AWAV", "CUNIT1": "Angstrom", "CRVAL1": 4750.0, "CRPIX1": 1.0, "CDELT1": 1.25}
    return fits.Header(values | {"BUNIT": "10**-20 Angstrom-1 cm-2 erg s-1"} | changes)


def test_a_single_spectrum(tmp_path, rng):
    data, variance = voxels(rng, (50,))
    data[3], variance[4] = np.nan, 0.0
    path = write_cube(
        tmp_path / "a.fits", {"DATA": data, "STAT": variance}, spectrum_header(), {"ID": 5, "RA": 53.1}
    )
    spectra = sl.read(path)
    assert isinstance(spectra, sl.Spectra)
    assert (spectra.shape, spectra.unit, spectra.medium) == ((1, 50), FLUX_DENSITY, "air")
    assert np.flatnonzero(spectra.mask[0]).tolist() == [3, 4]
    np.testing.assert_array_equal(spectra.wave, 4750 + 1.25 * np.arange(50))
    np.testing.assert_allclose(spectra.lsf, lsf_sigma(spectra.wave))
    assert (spectra.meta["source_id"], spectra.meta["ra"]) == (5.0, 53.1)
    with pytest.raises(FileFormatError, match=r"a single spectrum, no cube; read it with skyloom\.read"):
        open_cube(path)


def test_spectra_that_cannot_be_used(tmp_path, rng):
    data, variance = voxels(rng, (50,))
    header = spectrum_header()

    def written(**planes):
        return write_cube(tmp_path / "a.fits", planes, header, {"INSTRUME": "MUSE"})

    with pytest.raises(FileFormatError, match="no errors"):
        sl.read(written(DATA=data))
    with pytest.raises(ShapeError, match=r"STAT has shape \(49,\); expected \(50,\)"):
        sl.read(written(DATA=data, STAT=variance[1:]))
    with pytest.raises(InputError, match="no channel has both a finite value and a positive variance"):
        sl.read(written(DATA=data, STAT=variance * 0))
    with pytest.warns(RepairWarning, match="1 channels have a negative variance"):
        sl.read(written(DATA=data, STAT=np.where(np.arange(50) == 7, -1, variance).astype(np.float32)))


# ---------------------------------------------------------------------------------------------------- maps

MAPS = ("HA6562_FLUX", "HA6562_VEL", "HA6562_SIGMA")
GRID = ("CTYPE3", "CUNIT3", "CRVAL3", "CRPIX3", "CD3_3", "BUNIT")
UNITS = {"FLUX": "10**(-20)*erg/s/cm**2", "VEL": "km/s", "SIGMA": "km/s"}


def write_maps(path, rng, units=UNITS, shape=(8, 9), bins=True):
    hdus = [fits.PrimaryHDU(header=fits.Header({"OBJECT": "NGC 628", "INSTRUME": "MUSE"}))]
    truth = {}
    for name in MAPS:
        sigma = (1.0 + rng.random(shape)).astype(np.float32)
        value = (50.0 + sigma * rng.normal(size=shape)).astype(np.float32)
        value[0, 0] = np.nan
        grid = cards(GRID)
        if units:
            grid["BUNIT"] = units[name.split("_")[1]]
        hdus += [fits.ImageHDU(value, grid, name), fits.ImageHDU(sigma, grid, f"{name}_ERR")]
        truth[name] = (value, sigma)
    stars = np.full(shape, 800.0, np.float32)
    hdus += [
        fits.ImageHDU(stars, cards(GRID), "V_STARS"),
        fits.ImageHDU(stars / 100, cards(GRID), "FORM_ERR_V_STARS"),
    ]
    if bins:
        hdus.append(fits.ImageHDU(np.arange(72.0).reshape(shape), cards(GRID), "BIN_ID"))
    fits.HDUList(hdus).writeto(path)
    return truth


def test_maps_of_an_analysis_pipeline(tmp_path, rng):
    truth = write_maps(tmp_path / "NGC0628_MAPS.fits", rng, UNITS)
    with pytest.warns(AssumptionWarning, match="V_STARS has no unit"):
        maps = sl.read(tmp_path / "NGC0628_MAPS.fits")
    assert list(maps) == [*MAPS, "V_STARS"]
    for name, (value, sigma) in truth.items():
        image = maps[name]
        assert isinstance(image, sl.Image)
        np.testing.assert_array_equal(image.data, value)
        np.testing.assert_allclose(image.variance[image.valid], sigma[image.valid] ** 2, rtol=1e-6)
        assert np.argwhere(image.mask).tolist() == [[0, 0]]
        assert image.wcs.naxis == 2
        assert {"name": name, "object": "NGC 628", "instrument": "MUSE"}.items() <= image.meta.items()
    assert maps["HA6562_FLUX"].unit == u.Unit("1e-20 erg/(s cm2)")
    assert maps["V_STARS"].unit == u.km / u.s
    assert maps["HA6562_FLUX"].pixel_scale == pytest.approx(0.2, rel=1e-3)


def test_some_of_the_maps(tmp_path, rng):
    write_maps(tmp_path / "a.fits", rng, units={})
    with pytest.warns(AssumptionWarning, match="HA6562_FLUX has no unit .*taken as 1e-20 erg"):
        maps = sl.read(tmp_path / "a.fits", instrument="muse-maps", names=["ha6562_flux"])
    assert list(maps) == ["HA6562_FLUX"]
    maps = sl.read(tmp_path / "a.fits", names=["HA6562_FLUX"], units={"HA6562_FLUX": "1e-17 erg/(s cm2)"})
    assert maps["HA6562_FLUX"].unit == u.Unit("1e-17 erg/(s cm2)")
    for name in ("BIN_ID", "OIII5006_FLUX"):
        with pytest.raises(
            FileFormatError, match=f"no map '{name}' with errors; known: HA6562_FLUX, HA6562_VEL"
        ):
            sl.read(tmp_path / "a.fits", names=[name])


def test_maps_whose_errors_are_off(tmp_path, rng):
    sigma = np.ones((8, 9), np.float32)
    sigma[2, 2] = -1.0
    planes = {"HA6562_FLUX": sigma * 50, "HA6562_FLUX_ERR": sigma}
    path = write_cube(tmp_path / "a.fits", planes, cards(GRID, BUNIT="Jy"))
    with pytest.warns(RepairWarning, match="1 pixels of HA6562_FLUX_ERR are negative; masked"):
        assert sl.read(path)["HA6562_FLUX"].mask.sum() == 1
    planes["HA6562_FLUX_ERR"] = sigma[1:]
    path = write_cube(tmp_path / "a.fits", planes, cards(GRID, BUNIT="Jy"))
    with pytest.raises(
        ShapeError, match=r"HA6562_FLUX has shape \(8, 9\), its errors HA6562_FLUX_ERR have \(7, 9\)"
    ):
        sl.read(path)
    path = write_cube(tmp_path / "b.fits", {"SNR": sigma}, cards(GRID))
    with pytest.raises(FileFormatError, match="there are no maps with errors"):
        sl.read(path, instrument="muse-maps")


@pytest.mark.parametrize("name", ["STAT", "ERR"])
def test_band_images_in_jansky(name, tmp_path, rng):
    data, variance = voxels(rng, (8, 9))
    errors = variance if name == "STAT" else np.sqrt(variance)
    header = cards(GRID, BUNIT="Jy", FILTER="SDSS_r")
    path = write_cube(tmp_path / "a.fits", {"DATA": data, name: errors}, header, PHASE_3)
    assert sniff_instrument(path) == "muse-image"
    image = sl.read(path)
    np.testing.assert_allclose(image.variance, variance, rtol=1e-6)
    assert (image.unit, image.meta["band"], image.meta["instrument"]) == (u.Jy, "sdss_r", "MUSE")
    lone = write_cube(tmp_path / "b.fits", {"DATA": data}, cards(GRID, BUNIT="Jy"), PHASE_3)
    with pytest.raises(InputError, match="no weight map"):
        sl.read(lone)
    with pytest.raises(UnitError, match="the header says no unit"):
        sl.read(write_cube(tmp_path / "c.fits", {"DATA": data, name: errors}, cards(GRID), PHASE_3))
