"""Line S/N on real cubes: a nebula with many lines, [O II] doublets against published fits, and an empty field."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.stats import mad_std
from astropy.wcs import WCS

from skyloom.core.cube import Cube
from skyloom.core.linelist import LineList, default_lines
from skyloom.errors import AssumptionWarning, InputError
from skyloom.spectral.axes.widths import LIGHT, channel_widths
from skyloom.spectral.noise.measure import apply_cube_noise, measure_cube_noise
from skyloom.spectral.signal.snr import channels_needed, continuum_snr, first_velocity_map, line_snr

pytestmark = pytest.mark.data

DOUBLET = ["OII3726", "OII3729"]
OII_CUBES = {
    "udf10_c042_e031_15_o2_Z_0.667103": 0.667103,
    "udf10_c042_e031_37_o2_Z_0.981254": 0.981254,
    "udf10_c042_e031_3_o2_Z_0.621656": 0.621656,
    "udf_mos_c042_e030_912_o2_Z_0.618915": 0.618915,
    "udf_mos_c042_e030_919_o2_Z_1.09568": 1.09568,
}


def as_cube(data, variance, header, lsf=1.15) -> Cube:
    wave = header["CRVAL3"] + (np.arange(data.shape[0]) + 1 - header["CRPIX3"]) * header["CD3_3"]
    mask = ~(np.isfinite(data) & np.isfinite(variance) & (variance > 0))
    celestial = WCS(naxis=2)
    celestial.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    celestial.wcs.crpix = [header["CRPIX1"], header["CRPIX2"]]
    celestial.wcs.crval = [header["CRVAL1"], header["CRVAL2"]]
    celestial.wcs.cd = [[header["CD1_1"], header["CD1_2"]], [header["CD2_1"], header["CD2_2"]]]
    return Cube(data, variance, mask, "1e-20 erg/(s cm2 AA)", celestial, wave, "air", lsf=lsf)


@pytest.fixture(scope="module")
def nebula(data_dir) -> Cube:
    with fits.open(data_dir / "muse" / "A478_cut_core_20x20.fits") as hdus:
        return as_cube(hdus["DATA"].data, hdus["STAT"].data, hdus["DATA"].header)


@pytest.fixture(scope="module")
def field(data_dir) -> Cube:
    with fits.open(data_dir / "muse" / "UDF_mosaic_subcube.fits") as hdus:
        return as_cube(hdus["DATA"].data, hdus["STAT"].data, hdus["DATA"].header, lsf=1.2)


def test_halpha_and_nii_of_a_nebula(nebula):
    redshift = 0.0891
    result = line_snr(nebula, ["NII6548", "Halpha", "NII6583"], redshift, half_width="400 km/s")
    # the same by hand in one spaxel: whole channels, a straight line through the sides
    low, high = (result.windows.line * (1 + redshift)).ravel()[[0, -1]]
    assert 7110 < low < 7128 < 7175 < high < 7195
    wave, spectrum = nebula.wave, nebula.data[:, 10, 10].astype(float)
    side = np.zeros(wave.size, bool)
    for window in result.windows.sides * (1 + redshift):
        side |= (wave > window[0]) & (wave < window[1])
    fit = np.polynomial.Polynomial.fit(wave[side], spectrum[side], 1)
    inside = (wave > low) & (wave < high)
    by_hand = np.sum(((spectrum - fit(wave)) * channel_widths(wave))[inside])
    assert result.signal.data[10, 10] == pytest.approx(by_hand, rel=0.03)
    assert np.median(result.snr.data) > 30
    assert not result.snr.mask.any()
    alone = line_snr(nebula, "Halpha", redshift)
    assert 0.3 < np.median(alone.signal.data / result.signal.data) < 0.8


def test_velocities_and_matched_filter_of_a_nebula(nebula):
    velocity = first_velocity_map(nebula, "Halpha", 0.0885, sigma=150.0, max_velocity=600.0)
    assert (velocity.flags == 0).all()
    # the place of the maximum of the median spectrum, independently
    near = (nebula.wave > 7135) & (nebula.wave < 7157)
    top = nebula.wave[near][np.nanmedian(nebula.data[near], axis=(1, 2)).argmax()]
    rest = default_lines()["Halpha"].rest("air")
    expected = (top / (rest * 1.0885) - 1) * LIGHT
    assert np.median(velocity.data) == pytest.approx(expected, abs=40)
    matched = line_snr(nebula, "Halpha", 0.0885, "matched", velocity=velocity, sigma=150.0).snr.data
    window = line_snr(nebula, "Halpha", 0.0885).snr.data
    assert np.median(matched / window) > 1.05


def test_other_lines_of_a_nebula(nebula):
    sulphur = line_snr(nebula, ["SII6716", "SII6730"], 0.0891)
    assert np.median(sulphur.snr.data) > 3
    with pytest.raises(InputError, match="redshift"):
        line_snr(nebula, DOUBLET, 0.0891)
    with pytest.warns(AssumptionWarning, match="2.3"):
        peak = line_snr(nebula, "Halpha", 0.0891, "peak")
    assert np.median(peak.snr.data) > 10


def test_continuum_of_a_nebula(nebula):
    result = continuum_snr(nebula, (5600.0, 5700.0))
    # the errors of this cube are known to hold within a few per cent
    assert np.median(result.noise.data / result.noise_claimed.data) == pytest.approx(1.0, abs=0.06)
    used = (nebula.wave > 5600) & (nebula.wave < 5700)
    direct = np.nanmean(np.where(nebula.mask, np.nan, nebula.data)[used], axis=0)
    np.testing.assert_allclose(result.signal.data, direct, rtol=0.02, atol=0.5)


def test_a_few_channels_of_the_file_are_enough(nebula):
    run = channels_needed(nebula.wave, "air", "Halpha", 0.0891, lsf=1.15)
    assert run.stop - run.start < 150
    part = nebula.evolve(
        data=nebula.data[run], variance=nebula.variance[run], mask=nebula.mask[run], wave=nebula.wave[run]
    )
    np.testing.assert_allclose(
        line_snr(part, "Halpha", 0.0891).snr.data, line_snr(nebula, "Halpha", 0.0891).snr.data, rtol=1e-6
    )


@pytest.mark.parametrize("name", OII_CUBES)
def test_doublets_against_published_fits(name, data_dir):
    """Flux and velocity where the published fit has S/N > 8 per spaxel; its cube is smoothed by 2 px."""
    folder = data_dir / "hst_udf" / "muse_oii" / name
    with fits.open(folder / f"{name}_ssmooth_cube.fits") as cube:
        header, data = cube[0].header if cube[0].data is not None else cube[1].header, cube[-1].data
    variance = fits.getdata(folder / f"{name}_ssmooth_var.fits")
    cube = as_cube(data, variance, header)

    def published(what):
        return fits.getdata(folder / f"{name}_ssmooth_{what}_common.fits")

    flux = sum(fits.getdata(folder / f"{name}_ssmooth_flux_common_{line}.fits") for line in DOUBLET)
    velocity = published("vel")
    good = (published("snr") > 8) & (np.abs(velocity) < 300)
    assert good.sum() > 60
    redshift = OII_CUBES[name]
    ours = first_velocity_map(cube, DOUBLET, redshift, hole=2.5)
    offset = (ours.data - velocity)[good]
    assert np.abs(np.median(offset)) < 25.0
    # a velocity from the neighbours alone follows a steep rotation of a small galaxy with some delay
    assert mad_std(offset) < 40.0
    window = line_snr(cube, DOUBLET, redshift).signal.data
    assert np.median((window / flux)[good]) == pytest.approx(1.0, abs=0.08)
    matched = line_snr(cube, DOUBLET, redshift, "matched", velocity=ours, sigma=50.0).signal.data
    assert np.median((matched / flux)[good]) == pytest.approx(1.0, abs=0.1)


def test_an_empty_real_field_has_standard_noise(field):
    """With the noise measured on the cube, twelve wavelengths of an empty field: S/N of mean 0 and sd 1.

    Claimed errors alone give 1.18. Faint sources are there: medians, and a wider bound on the mean.
    """
    cube = apply_cube_noise(field, measure_cube_noise(field))
    figures = []
    for wave in np.arange(4830.0, 5310.0, 40.0):
        options = {"continuum": ("8 AA", "40 AA"), "lines": LineList(())}
        bare = line_snr(field, wave, 0.0, half_width="6 AA", **options).snr.data
        window = line_snr(cube, wave, 0.0, half_width="6 AA", **options).snr.data
        velocity = first_velocity_map(cube, wave, 0.0, continuum=("20 AA", "50 AA"), lines=LineList(()))
        matched = line_snr(cube, wave, 0.0, "matched", velocity=velocity, **options).snr.data
        figures.append([f(each) for each in (bare, window, matched) for f in (np.nanmedian, mad_std)])
    mean = np.mean(figures, axis=0)
    assert mean[1] > 1.1
    assert abs(mean[2]) < 0.02
    assert abs(mean[3] - 1.0) < 0.03
    assert abs(mean[4]) < 0.03
    assert abs(mean[5] - 1.0) < 0.03
