"""MaNGA cubes and spectra: what every extension means, and what is refused."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits

import skyloom as sl
from skyloom.core.noise import gaussian_correlation, sum_variance
from skyloom.core.psf import FWHM_PER_SIGMA
from skyloom.errors import AssumptionWarning, FileFormatError, InputError, RepairWarning, ShapeError
from skyloom.io.cubes.files import open_cube
from skyloom.io.cubes.manga import CUBE_BAD_BITS, RSS_BAD_BITS, read_manga
from skyloom.io.cubes.survey_noise import califa_correlation, manga_correlation
from tests.inputs.survey_files import MANGA_WAVE, correlation_table, manga_arrays, write_manga

RESOLUTION = fits.ImageHDU(np.full(30, 2000.0), name="SPECRES")


def write(tmp_path, *, edit=None, **options):
    arrays = manga_arrays()
    if edit is not None:
        edit(*arrays)
    options.setdefault("extra", (RESOLUTION,))
    return write_manga(tmp_path / "manga.fits", *arrays, **options)


def test_cube(tmp_path):
    cube = sl.read(write(tmp_path))
    flux, _, _ = manga_arrays()
    np.testing.assert_array_equal(cube.data, flux)
    np.testing.assert_allclose(cube.variance, 0.01, rtol=1e-6)
    assert cube.data.dtype == np.float32
    assert not cube.mask.any()
    assert cube.unit == u.Unit("1e-17 erg/(s cm2 AA)")
    assert cube.medium == "vacuum"
    np.testing.assert_allclose(cube.wave, MANGA_WAVE, rtol=0)
    np.testing.assert_allclose(cube.lsf, MANGA_WAVE / 2000 / FWHM_PER_SIGMA)
    assert cube.psf.at(4686.0).fwhm == pytest.approx(2.5)
    assert cube.psf.at(6166.0).fwhm == pytest.approx(2.4)
    ra, dec = cube.wcs.pixel_to_world_values(3.0, 3.0)
    assert (float(ra), float(dec)) == pytest.approx((205.4384, 27.004754))
    assert cube.meta["instrument"] == "MaNGA"
    assert cube.meta["object"] == cube.meta["plateifu"] == "7495-12704"
    assert cube.meta["ebv"] == 0.0122922
    assert cube.meta["milky_way_corrected"] is False
    assert cube.meta["lsf"] == "SPECRES"


def test_linear_cube_is_linear(tmp_path):
    wave = 3622.0 + np.arange(30.0)
    cube = sl.read(write(tmp_path, wave=wave, linear=True))
    np.testing.assert_array_equal(cube.wave, wave)


@pytest.mark.parametrize("bit", [0, 1, 2, 3, 10])
def test_each_bad_bit_masks(bit, tmp_path):
    def edit(flux, ivar, mask):
        mask[4, 5, 6] = 1 << bit

    cube = sl.read(write(tmp_path, edit=edit))
    assert np.argwhere(cube.mask).tolist() == [[4, 5, 6]]
    assert CUBE_BAD_BITS >> bit & 1


def test_other_bits_are_usable(tmp_path):
    def edit(flux, ivar, mask):
        mask[4, 5, 6] = 1 << 5

    assert not sl.read(write(tmp_path, edit=edit)).mask.any()


def test_negative_inverse_variance_is_masked_and_announced(tmp_path):
    def edit(flux, ivar, mask):
        ivar[2, 3, 1:4] = -5.0

    path = write(tmp_path, edit=edit)
    with pytest.warns(RepairWarning, match=r"3 voxels have a negative inverse variance \(IVAR\); masked"):
        cube = sl.read(path)
    assert cube.mask.sum() == 3


@pytest.mark.parametrize(("choice", "name"), [("pre", "LSFPRE"), ("post", "LSFPOST")])
def test_line_spread_per_voxel(choice, name, tmp_path):
    widths = np.random.default_rng(1).uniform(0.9, 1.4, (30, 8, 8)).astype(np.float32)
    extra = (
        fits.ImageHDU(widths, name=name),
        fits.ImageHDU(widths + 1, name="LSFPOST" if choice == "pre" else "LSFPRE"),
        RESOLUTION,
    )
    path = write(tmp_path, extra=extra)
    cube = read_manga(path, lsf=choice)
    np.testing.assert_array_equal(cube.lsf, widths)
    assert cube.meta["lsf"] == name
    part = open_cube(path, lsf=choice).read(slice(3, 6), slice(2, 5))
    np.testing.assert_array_equal(part.lsf, widths[3:6, 2:5])
    np.testing.assert_allclose(read_manga(path, lsf="median").lsf, MANGA_WAVE / 2000 / FWHM_PER_SIGMA)


def test_line_spread_of_earlier_releases(tmp_path):
    widths = np.full((30, 8, 8), 1.1, np.float32)
    cube = sl.read(write(tmp_path, extra=(fits.ImageHDU(widths, name="DISP"),)))
    assert cube.meta["lsf"] == "DISP"
    np.testing.assert_array_equal(cube.lsf, widths)


def test_missing_line_spread_is_said(tmp_path):
    path = write(tmp_path, extra=())
    with pytest.warns(AssumptionWarning, match="no line-spread function"):
        assert sl.read(path).lsf is None
    with pytest.raises(InputError, match="lsf is 'broad'"):
        sl.read(path, lsf="broad")


# ------------------------------------------------------------------------------------------------- correlation


def test_correlation_from_the_matrices(tmp_path):
    """The mean over pairs of covered spaxels gives back the kernel the matrices were made of, borders included."""
    kernel = gaussian_correlation(1.1, 3.0)
    covered = np.ones((8, 8), bool)
    covered[:2, :3] = covered[6:, 5:] = False
    tables = tuple(correlation_table(name, kernel, covered) for name in ("GCORREL", "RCORREL"))
    cube = sl.read(write(tmp_path, extra=(RESOLUTION, *tables)))
    found = cube.correlation.spatial
    radius = found.shape[0] // 2
    inner = kernel[3 - radius : 4 + radius, 3 - radius : 4 + radius]
    np.testing.assert_allclose(found, inner, atol=1e-12)
    assert cube.meta["noise_correlation"] == "mean of the matrices of the file"


def test_matrix_elements_left_out_are_zero(tmp_path):
    kernel = gaussian_correlation(1.1, 3.0)
    table = correlation_table("GCORREL", kernel, np.ones((8, 8), bool))
    # Every second pair at the offset (1, 0) is not in the table.
    rows = table.data
    first = (rows["INDXJ_C1"] - rows["INDXI_C1"] == 1) & (rows["INDXJ_C2"] == rows["INDXI_C2"])
    kept = ~(first & (rows["INDXI_C2"] % 2 == 1))
    hdu = fits.BinTableHDU(rows[kept], name="GCORREL")
    found = sl.read(write(tmp_path, extra=(RESOLUTION, hdu))).correlation.spatial
    middle = found.shape[0] // 2
    assert found[middle, middle + 1] == pytest.approx(0.5 * kernel[3, 4])
    assert found[middle + 1, middle] == pytest.approx(kernel[4, 3])


def test_asymmetric_correlation_keeps_its_axes(tmp_path):
    kernel = np.zeros((5, 5))
    kernel[2, 2], kernel[2, 1], kernel[2, 3], kernel[0, 2], kernel[4, 2] = 1.0, 0.6, 0.6, 0.2, 0.2
    cube = sl.read(
        write(tmp_path, extra=(RESOLUTION, correlation_table("GCORREL", kernel, np.ones((8, 8), bool))))
    )
    np.testing.assert_allclose(cube.correlation.spatial, kernel, atol=1e-12)


def test_published_law_where_there_is_no_matrix(tmp_path):
    cube = sl.read(write(tmp_path))
    np.testing.assert_array_equal(cube.correlation.spatial, manga_correlation())
    assert "1.92" in cube.meta["noise_correlation"]
    middle = manga_correlation().shape[0] // 2
    assert manga_correlation()[middle, middle + 2] == pytest.approx(np.exp(-0.5 * (2 / 1.92) ** 2))
    assert manga_correlation()[middle + 5, middle + 5] == 0  # 7.1 spaxels away


@pytest.mark.parametrize("number", [2, 4, 9, 16, 30, 50, 80])
def test_califa_law_gives_the_published_errors(number):
    """beta(N) = 1 + 1.07 log10(N) over compact regions; a Gaussian cannot follow the logarithm everywhere."""
    y, x = np.mgrid[-8:9, -8:9]
    nearest = np.argsort(((x - 0.3) ** 2 + (y - 0.2) ** 2).ravel(), kind="stable")[:number]
    region = np.zeros(x.size)
    region[nearest] = 1.0
    beta = np.sqrt(sum_variance(np.ones(x.shape), region.reshape(x.shape), califa_correlation()) / number)
    assert 0.91 < beta / (1 + 1.07 * np.log10(number)) < 1.09


def test_bad_matrices_are_refused(tmp_path):
    good = correlation_table("GCORREL", gaussian_correlation(1.0, 1.0), np.ones((8, 8), bool))
    beyond = fits.BinTableHDU(good.data.copy(), name="GCORREL")
    beyond.data["INDXI_C1"][0] = 8
    lacking = fits.BinTableHDU.from_columns(good.columns[:2], name="GCORREL")
    for number, (hdu, message) in enumerate(((beyond, "beyond the 8 x 8"), (lacking, "no column INDXJ_C1"))):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(FileFormatError, match=message):
            sl.read(write(tmp_path / str(number), extra=(RESOLUTION, hdu)))


# --------------------------------------------------------------------------------------------------- refusals


def test_critical_quality_is_said(tmp_path):
    with pytest.warns(AssumptionWarning, match="CRITICAL"):
        sl.read(write(tmp_path, primary=(("DRP3QUAL", (1 << 30) + 1),)))


def test_model_cubes_of_the_analysis_pipeline_are_refused(tmp_path):
    path = write(tmp_path, primary=(("MASKNAME", "MANGA_DAPSPECMASK"),))
    with pytest.raises(FileFormatError, match=r"MASKNAME is 'MANGA_DAPSPECMASK'.*LOGCUBE"):
        sl.read(path)


def test_shapes_and_missing_extensions(tmp_path):
    flux, ivar, mask = manga_arrays()
    path = write_manga(tmp_path / "a.fits", flux, ivar[:-1], mask, extra=(RESOLUTION,))
    with pytest.raises(ShapeError, match="IVAR"):
        sl.read(path)
    path = write_manga(tmp_path / "b.fits", flux, ivar, mask, wave=MANGA_WAVE[:-1])
    with pytest.raises(ShapeError, match="WAVE has shape"):
        sl.read(path)
    path = write_manga(tmp_path / "c.fits", flux, ivar, mask, drop=("IVAR",))
    with pytest.raises(FileFormatError, match="IVAR is missing"):
        sl.read(path, instrument="manga")


def test_header_formula_is_compared_with_the_list(tmp_path):
    flux, ivar, mask = manga_arrays()
    path = write_manga(tmp_path / "a.fits", flux, ivar, mask, extra=(RESOLUTION,))
    with fits.open(path, mode="update") as hdus:
        hdus["FLUX"].header["CD3_3"] *= 1.01
    with pytest.warns(AssumptionWarning, match="A off the wavelengths listed in WAVE"):
        np.testing.assert_array_equal(sl.read(path).wave, MANGA_WAVE)


# --------------------------------------------------------------------------------------------- stacked spectra


def test_row_stacked_spectra(tmp_path):
    flux, ivar, mask = (array[:, 0].T.copy() for array in manga_arrays())
    mask[1, 3] = 1 << 30
    mask[1, 4] = 1 << 24  # BRIGHTSKY: usable
    ivar[2, 5] = 0
    x = np.linspace(-5, 5, 8)[:, None] + np.zeros(30)
    extra = (
        fits.ImageHDU(np.full(flux.shape, 1.2), name="LSFPRE"),
        fits.ImageHDU(x, name="XPOS"),
        fits.ImageHDU(-x, name="YPOS"),
    )
    path = write_manga(
        tmp_path / "rss.fits", flux, ivar, mask, extra=extra, primary=(("MASKNAME", "MANGA_DRP2PIXMASK"),)
    )
    spectra = sl.read(path)
    assert isinstance(spectra, sl.Spectra)
    assert np.argwhere(spectra.mask).tolist() == [[1, 3], [2, 5]]
    np.testing.assert_array_equal(spectra.lsf, 1.2)
    np.testing.assert_allclose(spectra.meta["positions"], np.stack([x[:, 0], -x[:, 0]], axis=1))
    assert RSS_BAD_BITS >> 30 & 1
    with pytest.raises(FileFormatError, match="FLUX has 2 dimensions"):
        open_cube(path)


def test_spectra_round_trip_through_our_own_form(tmp_path):
    flux, ivar, mask = (array[:, 0].T.copy() for array in manga_arrays())
    spectra = sl.read(write_manga(tmp_path / "a.fits", flux, ivar, mask))
    sl.write(spectra, tmp_path / "b.fits")
    again = sl.read(tmp_path / "b.fits")
    np.testing.assert_array_equal(again.variance, spectra.variance)
    assert again.meta == spectra.meta
