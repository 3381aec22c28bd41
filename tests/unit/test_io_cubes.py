"""Cubes of any layout: wavelengths, errors, masks, parts of files, and what is refused."""

from __future__ import annotations

import gzip
import shutil
import warnings
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

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
from skyloom.io.cubes.files import LoadedCube, open_cube
from skyloom.io.cubes.layout import GenericLayout
from skyloom.io.formats.files import open_fits
from skyloom.io.formats.headers import parse_bunit
from skyloom.io.formats.wavelengths import sampled_wave
from skyloom.io.inspection.inspect import inspect, render
from skyloom.io.registry import register_reader
from skyloom.kernels.tables.voxels import KINDS, decode_voxels, finish_voxels
from tests.inputs.cube_files import AXES, SHAPE, cards, voxels, write_cube
from tests.oracles import readers as oracles_readers

MATRIX = ("CD3_3", "CD1_1", "CD1_2", "CD2_1", "CD2_2")
FLUX_DENSITY = u.Unit("1e-20 erg / (s cm2 AA)")


def write_sci(
    path: Path, rng: np.random.Generator, header: fits.Header | None = None, **planes: np.ndarray
) -> Path:
    data, variance = voxels(rng)
    return write_cube(path, {"SCI": data, **(planes or {"VAR": variance})}, header)


# ------------------------------------------------------------------------------------------- wavelengths


@pytest.mark.parametrize(
    ("drop", "changes", "medium"),
    [
        ((), {}, "air"),
        (MATRIX, {"CDELT3": 0.5, "PC3_3": 2.5, "CDELT1": -5e-5, "CDELT2": 5e-5}, "air"),
        (MATRIX, {"CDELT3": 1.25, "CDELT1": -5e-5, "CDELT2": 5e-5}, "air"),
        ((), {"CTYPE3": "WAVE", "CRVAL3": 475.0, "CD3_3": 0.125, "CUNIT3": "nm"}, "vacuum"),
        ((), {"CTYPE3": "WAVE", "CRVAL3": 4.75e-7, "CD3_3": 1.25e-10, "CUNIT3": "m"}, "vacuum"),
        (("CUNIT3",), {"CTYPE3": "WAVE", "CRVAL3": 4.75e-7, "CD3_3": 1.25e-10}, "vacuum"),
        ((), {"CTYPE3": "WAVE", "CRVAL3": 2.2, "CD3_3": 2.45e-4, "CRPIX3": 30.0, "CUNIT3": "um"}, "vacuum"),
        ((), {"CTYPE3": "WAVE-LOG", "CRVAL3": 3621.5957, "CD3_3": 0.83390}, "vacuum"),
        ((), {"CTYPE3": "AWAV-LOG", "CRVAL3": 3621.5957, "CD3_3": 0.83390, "CRPIX3": -12.5}, "air"),
    ],
)  # fmt: skip
def test_wavelengths_are_those_of_wcslib(drop, changes, medium, tmp_path, rng):
    header = cards(drop, **changes)
    cube = open_cube(write_sci(tmp_path / "a.fits", rng, header))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # astropy mends units on the way
        axis = WCS(header).sub([3])
    expected = axis.all_pix2world(np.arange(SHAPE[0]), 0)[0] * 1e10
    assert cube.wave.dtype == np.float64
    np.testing.assert_allclose(cube.wave, expected, rtol=1e-12)
    assert cube.medium == medium


def test_log10_axes_of_sdss_and_iraf(tmp_path, rng):
    header = cards(CTYPE3="WAVE", CRVAL3=3.5589, CD3_3=1e-4, **{"DC-FLAG": 1})
    cube = open_cube(write_sci(tmp_path / "a.fits", rng, header))
    np.testing.assert_allclose(cube.wave, 10 ** (3.5589 + 1e-4 * np.arange(SHAPE[0])), rtol=1e-13)


def test_tabulated_axis_is_interpolated_at_the_index(tmp_path, rng):
    table = np.cumsum(1.0 + np.arange(60) / 50.0) / 1e4 + 0.5
    header = cards(("CD3_3",), CTYPE3="WAVE-TAB", CRVAL3=3.5, CUNIT3="um")
    header["PS3_0"], header["PS3_1"] = "WCS-TABLE", "wavelength"
    path = write_sci(tmp_path / "a.fits", rng, header)
    with fits.open(path, mode="append") as hdus:
        column = fits.Column("wavelength", "60D", array=table[np.newaxis], dim="(1,60)")
        hdus.append(fits.BinTableHDU.from_columns([column], name="WCS-TABLE"))
    cube = open_cube(path)
    expected = 0.5 * (table[2 : 2 + SHAPE[0]] + table[3 : 3 + SHAPE[0]]) * 1e4
    np.testing.assert_allclose(cube.wave, expected, rtol=1e-12)
    assert cube.medium == "vacuum"


def test_an_unknown_medium_is_assumed_aloud_or_said(tmp_path, rng):
    path = write_sci(tmp_path / "a.fits", rng, cards(CTYPE3="LAMBDA"))
    with pytest.warns(AssumptionWarning, match="air or vacuum: taken as air"):
        assert sl.read(path).medium == "air"
    assert sl.read(path, medium="vacuum").medium == "vacuum"
    with pytest.raises(InputError, match="medium is 'water'"):
        sl.read(path, medium="water")
    infrared = write_sci(tmp_path / "b.fits", rng, cards(CTYPE3="LAMBDA", CRVAL3=22000.0))
    with pytest.warns(AssumptionWarning, match="taken as vacuum"):
        assert sl.read(infrared).medium == "vacuum"


def test_a_medium_against_the_header_is_taken_with_a_warning(tmp_path, rng):
    path = write_sci(tmp_path / "a.fits", rng)
    with pytest.warns(AssumptionWarning, match="header says air wavelengths; taken as vacuum, as asked"):
        assert sl.read(path, medium="vacuum").medium == "vacuum"


@pytest.mark.parametrize(
    ("drop", "changes", "message"),
    [
        (("CRVAL3",), {}, "CRVAL3 is missing or no number"),
        (("CD3_3",), {}, "neither CD3_3 nor CDELT3 says the step"),
        ((), {"CD3_3": 0.0}, "CD3_3 is zero"),
        ((), {"CD3_3": -1.25}, "wavelengths that descend are not read"),
        ((), {"CD3_1": 1e-4}, "the wavelength changes over the field"),
        ((), {"CUNIT3": "km/s"}, "'km/s' is no unit of wavelength"),
        (("CUNIT3",), {"CRVAL3": 475.0, "CD3_3": 0.125}, "may be in nm or um"),
        ((), {"CRVAL3": -4000.0}, "not positive and ascending"),
        ((), {"CTYPE3": "WAVE-GRI"}, "the algorithm 'GRI' is not read"),
        ((), {"CTYPE3": "WAVE-TAB"}, "there is no column '' in a table ''"),
        ((), {"CD1_1": 0.0, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.0}, "the CD matrix is zero"),
        (("BUNIT",), {}, "the header says no unit"),
        ((), {"BUNIT": "furlong of light"}, "is not a unit that can be read"),
    ],
)
def test_headers_that_cannot_be_used(drop, changes, message, tmp_path, rng):
    path = write_sci(tmp_path / "a.fits", rng, cards(drop, **changes))
    with pytest.raises(InputError, match=message) as caught:
        open_cube(path)
    assert str(path) in str(caught.value)


def test_a_missing_reference_pixel_is_the_first_with_a_warning(tmp_path, rng):
    path = write_sci(tmp_path / "a.fits", rng, cards(("CRPIX3",)))
    with pytest.warns(
        AssumptionWarning, match="CRPIX3 is missing: the first channel is taken as the reference"
    ):
        assert open_cube(path).wave[0] == 4750.0


def test_an_axis_of_frequency_is_named(tmp_path, rng):
    path = write_sci(tmp_path / "a.fits", rng, cards(CTYPE3="FREQ", CUNIT3="Hz"))
    with pytest.raises(FileFormatError, match="axes of frequency, energy or velocity are not read"):
        open_cube(path, instrument="cube")


def test_sampled_wavelengths():
    np.testing.assert_allclose(sampled_wave(400, 0.1, 3, unit="nm"), [4000, 4001, 4002])
    np.testing.assert_allclose(sampled_wave(3.6, 1e-4, 2, sampling="log10"), 10 ** np.array([3.6, 3.6001]))
    np.testing.assert_allclose(sampled_wave(4000, 2, 2, sampling="log"), [4000, 4000 * np.exp(5e-4)])
    with pytest.raises(InputError, match="use one of linear, log, log10"):
        sampled_wave(4000, 1, 3, sampling="cubic")


# ------------------------------------------------------------------------------------ values, errors, masks


def test_what_is_read_is_what_was_written(tmp_path, rng):
    data, variance = voxels(rng)
    path = write_cube(
        tmp_path / "a.fits", {"SCI": data, "VAR": variance}, primary={"OBJECT": "NGC 1", "EXPTIME": 900.0}
    )
    cube = sl.read(path)
    assert isinstance(cube, sl.Cube)
    assert (cube.data.dtype, cube.variance.dtype) == (np.float32, np.float32)
    assert cube.data.dtype.isnative
    np.testing.assert_array_equal(cube.data, data)
    np.testing.assert_array_equal(cube.variance, variance)
    assert not cube.mask.any()
    assert cube.unit == FLUX_DENSITY
    assert cube.meta["object"] == "NGC 1"
    assert cube.meta["exposure"] == 900.0
    assert cube.meta["path"] == str(path)
    assert cube.history[0].name == "read_cube"


@pytest.mark.parametrize(
    ("name", "function"),
    [("VAR", lambda v: v), ("ERR", np.sqrt), ("IVAR", lambda v: 1 / v), ("NOISE", np.sqrt), ("STAT", lambda v: v)],
)  # fmt: skip
def test_errors_of_every_kind_become_the_variance(name, function, tmp_path, rng):
    data, variance = voxels(rng)
    path = write_cube(tmp_path / "a.fits", {"SCI": data, name: function(variance)})
    np.testing.assert_allclose(sl.read(path, instrument="cube").variance, variance, rtol=1e-6)


def test_bad_voxels_are_masked_and_nothing_else(tmp_path, rng):
    data, variance = voxels(rng)
    quality = np.zeros(SHAPE, np.int32)
    truth = np.zeros(SHAPE, bool)
    bad = [(data, value) for value in (np.nan, np.inf, -np.inf)]
    bad += [(variance, value) for value in (0.0, np.nan, np.inf)]
    for place, (plane, value) in enumerate([*bad, (quality, 4)]):
        plane[3 * place, place % 6, 2] = value
        truth[3 * place, place % 6, 2] = True
    path = write_cube(tmp_path / "a.fits", {"SCI": data, "VAR": variance, "DQ": quality})
    np.testing.assert_array_equal(sl.read(path).mask, truth)


def test_negative_variances_are_masked_and_counted(tmp_path, rng):
    data, variance = voxels(rng)
    variance[:2, 1, 1] = -3.0
    path = write_cube(tmp_path / "a.fits", {"SCI": data, "VAR": variance})
    with pytest.warns(RepairWarning, match=r"2 voxels have a negative variance \(VAR\); masked"):
        cube = sl.read(path)
    assert np.argwhere(cube.mask).tolist() == [[0, 1, 1], [1, 1, 1]]


def test_masks_by_bits_by_value_and_in_two_dimensions(tmp_path, rng):
    data, variance = voxels(rng)
    codes = np.zeros(SHAPE, np.int16)
    codes[0], codes[1], codes[2] = 1, 2, 3
    flat = np.ones(SHAPE[1:], np.uint8)
    flat[2, 3] = 0
    path = write_cube(tmp_path / "a.fits", {"SCI": data, "VAR": variance, "CODES": codes, "GOOD": flat})

    def masked(**options):
        return open_cube(path, layout=GenericLayout(**options)).read().mask

    assert not masked().any()
    assert masked(mask="CODES").sum(axis=(1, 2)).tolist() == [42, 42, 42] + [0] * 37
    assert masked(mask="CODES", bad_bits=2).sum(axis=(1, 2)).tolist() == [0, 42, 42] + [0] * 37
    assert masked(mask="CODES", good_value=2).sum(axis=(1, 2)).tolist() == [42, 0] + [42] * 38
    bad = masked(mask="GOOD", good_value=1)
    assert bad[:, 2, 3].all()
    assert bad.sum() == SHAPE[0]


def test_huge_errors_are_bad_where_the_layout_says_so(tmp_path, rng):
    data, variance = voxels(rng)
    sigma = np.sqrt(variance)
    sigma[5, 0, 0] = 1e10
    path = write_cube(tmp_path / "a.fits", {"SCI": data, "ERR": sigma})
    assert not sl.read(path).mask.any()
    cube = open_cube(path, layout=GenericLayout(error_floor=1e10)).read()
    assert np.argwhere(cube.mask).tolist() == [[5, 0, 0]]


def test_integers_with_scale_and_doubles(tmp_path, rng):
    data, variance = voxels(rng)
    path = tmp_path / "a.fits"
    stored = fits.ImageHDU(np.round(data * 100).astype(np.int32), cards(), "SCI")
    stored.header["BSCALE"], stored.header["BZERO"] = 0.01, 5.0
    raw = stored.data.copy()
    hdus = fits.HDUList(
        [fits.PrimaryHDU(), stored, fits.ImageHDU(variance.astype(np.float64), cards(), "VAR")]
    )
    hdus.writeto(path)
    written = fits.getdata(path, "SCI", do_not_scale_image_data=True)
    assert written.dtype.kind == "i"
    cube = sl.read(path)
    assert cube.data.dtype == np.float32
    expected = np.asarray(written, float) * 0.01 + 5.0
    np.testing.assert_allclose(cube.data, expected, rtol=1e-6)
    assert raw.shape == SHAPE
    part = open_cube(path).read(slice(7, 9), slice(1, 3))
    np.testing.assert_array_equal(part.data, cube.data[7:9, 1:3])


def test_fluxes_in_plain_units_keep_their_digits(tmp_path, rng):
    """1e-19 squared is not in float32: the power of ten moves into the unit."""
    data, variance = voxels(rng)
    header = cards(BUNIT="erg/s/cm2/A")
    path = write_cube(tmp_path / "a.fits", {"SCI": data * 1e-21, "ERR": np.sqrt(variance) * 1e-21}, header)
    cube = sl.read(path)
    scale = cube.unit.to(FLUX_DENSITY)
    np.testing.assert_allclose(cube.data * scale, data * 0.1, rtol=1e-5)
    np.testing.assert_allclose(cube.variance * scale**2, variance * 0.01, rtol=1e-5)
    assert not cube.mask.any()
    part = open_cube(path).read(slice(3, 4))
    assert part.unit == cube.unit


# -------------------------------------------------------------------------------------------- parts of files


@pytest.mark.parametrize("kind", ["plain", "gzip", "compressed image"])
def test_any_part_is_that_part_of_the_whole(kind, tmp_path, rng):
    data, variance = voxels(rng)
    data[3, 2, 2] = np.nan
    path = write_cube(
        tmp_path / "a.fits", {"SCI": data, "VAR": variance, "DQ": (data > 103).astype(np.uint8)}
    )
    if kind == "gzip":
        with open(path, "rb") as plain, gzip.open(tmp_path / "a.fits.gz", "wb") as packed:
            shutil.copyfileobj(plain, packed)
        path = tmp_path / "a.fits.gz"
    elif kind == "compressed image":
        grid = cards()
        hdus = [fits.PrimaryHDU()]
        for name, plane in (("SCI", data), ("VAR", variance)):
            hdus.append(
                fits.CompImageHDU(plane, grid, name=name, compression_type="GZIP_2", quantize_level=0)
            )
        hdus.append(fits.ImageHDU((data > 103).astype(np.uint8), grid, "DQ"))
        path = tmp_path / "b.fits"
        fits.HDUList(hdus).writeto(path)
    file = open_cube(path)
    whole = file.read()
    np.testing.assert_array_equal(whole.data, data)
    assert file.shape == SHAPE
    for channels, rows in [
        (slice(None), slice(2, 5)),
        (slice(5, 9), slice(None)),
        (slice(39, None), slice(0, 1)),
        (slice(3, 4), slice(-2, None)),
    ]:
        part = file.read(channels, rows)
        np.testing.assert_array_equal(part.data, whole.data[channels, rows])
        np.testing.assert_array_equal(part.variance, whole.variance[channels, rows])
        np.testing.assert_array_equal(part.mask, whole.mask[channels, rows])
        np.testing.assert_array_equal(part.wave, whole.wave[channels])


def test_a_part_lies_where_it_lay(tmp_path, rng):
    file = open_cube(write_sci(tmp_path / "a.fits", rng))
    part = file.read(slice(0, 2), slice(2, 6))
    sky = file.wcs.pixel_to_world_values(4.0, 3.5)
    np.testing.assert_allclose(part.wcs.pixel_to_world_values(4.0, 1.5), sky, rtol=1e-12)
    assert file.wcs.wcs.crpix[1] == AXES["CRPIX2"]


def test_slabs_cover_the_cube_once(tmp_path, rng):
    file = open_cube(write_sci(tmp_path / "a.fits", rng))
    one = 9 * SHAPE[1] * SHAPE[2]
    for max_bytes in (1, one, 3 * one, 7 * one + 1, 10**9):
        slabs = list(file.slabs(max_bytes))
        assert np.concatenate([np.arange(SHAPE[0])[slab] for slab in slabs]).tolist() == list(range(SHAPE[0]))
        assert all((slab.stop - slab.start) * one <= max(max_bytes, one) for slab in slabs)
    np.testing.assert_array_equal(
        np.concatenate([file.read(slab).data for slab in file.slabs(7 * one)]), file.read().data
    )


def test_only_the_bytes_of_a_part_are_read(tmp_path, rng):
    """A file whose other channels have been cut off after opening still gives the first ones."""
    data, variance = voxels(rng)
    path = write_cube(tmp_path / "a.fits", {"VAR": variance, "SCI": data})
    file = open_cube(path)
    with open_fits(path) as opened:
        end = opened["SCI"].start + 10 * 4 * SHAPE[1] * SHAPE[2]
    with open(path, "r+b") as stream:
        stream.truncate(end)
    np.testing.assert_array_equal(file.read(slice(0, 10)).data, data[:10])
    np.testing.assert_array_equal(file.read(slice(9, 10), slice(5, 6)).data, data[9:10, 5:6])
    with pytest.raises(FileFormatError, match="the file ends within SCI"):
        file.read(slice(0, 11))


@pytest.mark.parametrize("part", [slice(3, 3), slice(0, 10, 2), slice(50, 60)])
def test_ranges_that_are_none(part, tmp_path, rng):
    file = open_cube(write_sci(tmp_path / "a.fits", rng))
    with pytest.raises(InputError, match="expected a range without step within 0 to 40"):
        file.read(part)


def test_cubes_of_our_own_and_of_registered_readers_are_opened_too(tmp_path, rng, monkeypatch):
    cube = sl.read(write_sci(tmp_path / "a.fits", rng)).evolve(lsf=np.linspace(1.0, 2.0, SHAPE[0]))
    sl.write(cube, tmp_path / "own.fits")
    file = open_cube(tmp_path / "own.fits")
    assert isinstance(file, LoadedCube)
    part = file.read(slice(4, 6), slice(1, 3))
    np.testing.assert_array_equal(part.data, cube.data[4:6, 1:3])
    np.testing.assert_array_equal(part.lsf, cube.lsf[4:6])
    np.testing.assert_array_equal(part.wave, cube.wave[4:6])
    assert list(file.slabs(10**9)) == [slice(0, SHAPE[0])]
    file.require_usable()

    from skyloom.io import registry

    monkeypatch.setattr(registry, "_REGISTERED", {})
    register_reader("mine", lambda opened: "VAR" in {hdu.name for hdu in opened}, lambda _: cube)
    assert open_cube(tmp_path / "a.fits").read() is cube


# ------------------------------------------------------------------------------------- what the user says


def test_a_layout_says_everything_that_the_file_does_not(tmp_path, rng):
    data, variance = voxels(rng)
    planes = {"FIRST": data, "SECOND": np.sqrt(variance), "LSF": np.full(SHAPE, 2.0, np.float32)}
    path = write_cube(tmp_path / "a.fits", planes, fits.Header())
    layout = GenericLayout.from_mapping(
        {
            "name": "OSIRIS",
            "data": "first",
            "error": 2,
            "error_kind": "sigma",
            "unit": "1e-18 erg/(s cm2 AA arcsec2)",
            "medium": "vacuum",
            "wave_start": 1.2,
            "wave_step": 2e-4,
            "wave_unit": "um",
            "lsf": "LSF",
            "lsf_kind": "fwhm",
            "psf_fwhm": 0.8,
            "milky_way_corrected": True,
            "redshift": 0.01,
        }
    )
    with pytest.warns(AssumptionWarning, match="does not place the spaxels on the sky"):
        file = open_cube(path, layout=layout)
    cube = file.read(slice(2, 5), slice(0, 2))
    np.testing.assert_array_equal(cube.data, data[2:5, :2])
    np.testing.assert_allclose(cube.variance, variance[2:5, :2], rtol=1e-6)
    np.testing.assert_allclose(cube.wave, [12004.0, 12006.0, 12008.0])
    assert cube.unit == u.Unit("1e-18 erg/(s cm2 AA arcsec2)")
    assert cube.lsf.shape == (3, 2, 7)
    np.testing.assert_allclose(cube.lsf, 2.0 / FWHM_PER_SIGMA, rtol=1e-6)
    assert cube.psf.fwhm == 0.8
    assert {
        "instrument": "OSIRIS",
        "milky_way_corrected": True,
        "redshift": 0.01,
    }.items() <= cube.meta.items()


def test_wavelengths_from_an_extension_and_lsf_by_resolution(tmp_path, rng):
    data, variance = voxels(rng)
    wave = 10 ** (3.56 + 1e-4 * np.arange(SHAPE[0]))
    path = write_cube(tmp_path / "a.fits", {"SCI": data, "VAR": variance})
    with fits.open(path, mode="append") as hdus:
        hdus.append(fits.ImageHDU(np.log10(wave), name="LOGLAM"))
    layout = GenericLayout(
        wave="LOGLAM", wave_sampling="log10", medium="vacuum", lsf=2000.0, lsf_kind="resolution"
    )
    cube = open_cube(path, layout=layout).read()
    np.testing.assert_allclose(cube.wave, wave, rtol=1e-13)
    np.testing.assert_allclose(cube.lsf, wave / 2000.0 / FWHM_PER_SIGMA, rtol=1e-12)
    with pytest.raises(InputError, match="the medium of the wavelengths is not known"):
        open_cube(path, layout=GenericLayout(wave="LOGLAM", wave_sampling="log10"))


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"errors": "ERR"}, "no key 'errors' in the instrument block; known: name, data, error"),
        ({"error_kind": "ivar"}, "error_kind is 'ivar'; use one of variance, sigma, inverse_variance"),
        ({"lsf_kind": "R"}, "lsf_kind is 'R'"),
        ({"wave_start": 4000.0}, "wave_start and wave_step belong together"),
    ],
)
def test_blocks_that_mean_nothing(block, message):
    with pytest.raises(InputError, match=message):
        GenericLayout.from_mapping(block)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (GenericLayout(data="MISSING"), "there is no extension 'MISSING'; known: 0 PRIMARY, 1 SCI, 2 VAR"),
        (GenericLayout(data=0), "extension 0 has 0 dimensions; a cube has 3"),
        (GenericLayout(error="SCI"), "does not say what kind of errors it holds"),
        (GenericLayout(lsf=-2.0), "the line-spread function has the width -2"),
        (GenericLayout(lsf="VAR", lsf_kind="resolution"), "a resolving power per voxel is not read"),
        (GenericLayout(wave="VAR", medium="air"), "lists 1680 wavelengths; the cube has 40 channels"),
        (GenericLayout(wave="W", medium="air"), "there is no extension 'W' of wavelengths"),
    ],
)
def test_layouts_that_do_not_fit(layout, message, tmp_path, rng):
    with pytest.raises(InputError, match=message):
        open_cube(write_sci(tmp_path / "a.fits", rng), layout=layout)


def test_errors_in_another_file(tmp_path, rng):
    data, variance = voxels(rng)
    path = write_cube(tmp_path / "x_cube.fits", {"SCI": data})
    with pytest.raises(FileFormatError, match="no errors for its data; pass weight=<file> with weight_kind"):
        sl.read(path)
    other = write_cube(tmp_path / "x_var.fits", {"PRIMARY": variance})
    with pytest.raises(FileFormatError, match=r"\(perhaps x_var.fits\)"):
        sl.read(path)
    cube = sl.read(path, weight=other, weight_kind="variance")
    np.testing.assert_array_equal(cube.variance, variance)
    assert cube.meta["weight_path"] == str(other)
    np.testing.assert_allclose(
        sl.read(path, weight=other, weight_kind="rms").variance, variance**2, rtol=1e-6
    )
    with pytest.raises(InputError, match="weight_kind is 'exposure'; use one of"):
        sl.read(path, weight=other, weight_kind="exposure")
    named = write_cube(tmp_path / "y.fits", {"STAT": variance})
    with pytest.warns(AssumptionWarning, match="STAT has the name of a variance; read as inverse variance"):
        sl.read(path, weight=named)
    small = write_cube(tmp_path / "z.fits", {"STAT": variance[1:]})
    with pytest.raises(
        ShapeError, match=r"the errors \(STAT\) have shape \(39, 6, 7\); expected \(40, 6, 7\)"
    ):
        sl.read(path, weight=small, weight_kind="variance")


def test_errors_that_look_like_another_kind_are_told_on_reading(tmp_path, rng):
    data, variance = voxels(rng)
    path = write_cube(tmp_path / "a.fits", {"SCI": data * 1e3, "ERR": variance * 1e6})
    with pytest.warns(AssumptionWarning, match=r"it looks like the variance \(error_kind: variance\)"):
        sl.read(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cube = open_cube(path, layout=GenericLayout(error_kind="variance")).read()
    np.testing.assert_allclose(cube.variance, variance * 1e6, rtol=1e-6)
    seen = inspect(path)
    assert (seen.error.claimed, seen.error.found) == ("standard deviation", "variance")
    assert "it looks like the variance" in render(seen)


# ----------------------------------------------------------------------------------------------- bad input


def test_nothing_usable_is_refused_with_the_reason(tmp_path, rng):
    data, variance = voxels(rng)
    flagged = np.ones(SHAPE, np.uint8)
    cases = {
        "every voxel is NaN or infinite": {"SCI": data * np.nan, "VAR": variance},
        "no error is positive and finite": {"SCI": data, "VAR": variance * 0},
        "every voxel with a value and an error is masked": {"SCI": data, "VAR": variance, "DQ": flagged},
    }
    for message, planes in cases.items():
        path = write_cube(tmp_path / "a.fits", planes)
        with pytest.raises(InputError, match=message):
            sl.read(path)
        file = open_cube(path)
        with pytest.raises(InputError, match=message):
            file.require_usable()
        assert file.read(slice(0, 2)).mask.all()
        assert any(problem.severity == "error" for problem in inspect(path).problems)


def test_a_single_good_voxel_is_enough(tmp_path, rng):
    _, variance = voxels(rng)
    lonely = np.full(SHAPE, np.nan, np.float32)
    lonely[0, 5, 6] = 1.0
    path = write_cube(tmp_path / "a.fits", {"SCI": lonely, "VAR": variance})
    assert np.count_nonzero(~sl.read(path).mask) == 1


def test_truncated_files(tmp_path, rng):
    path = write_sci(tmp_path / "a.fits", rng)
    content = path.read_bytes()
    path.write_bytes(content[: int(0.9 * len(content))])
    with pytest.raises(FileFormatError, match="the file is truncated"):
        sl.read(path)
    with pytest.raises(FileFormatError, match="the file is truncated"):
        open_cube(path)
    assert any("truncated" in problem.message for problem in inspect(path).problems)


def test_an_image_is_no_cube(tmp_path, rng):
    data, variance = voxels(rng)
    path = write_cube(tmp_path / "a.fits", {"SCI": data[0], "VAR": variance[0]})
    with pytest.raises(FileFormatError, match="no three-dimensional array of data"):
        open_cube(path, instrument="cube")
    with pytest.raises(FileFormatError, match="no reader knows this kind of file"):
        open_cube(write_cube(tmp_path / "b.fits", {"SCI": np.ones(5, np.float32)}))


def test_unknown_options_and_instruments(tmp_path, rng):
    path = write_sci(tmp_path / "a.fits", rng)
    with pytest.raises(InputError, match="files of kind 'cube' take no colour; known: layout, weight"):
        open_cube(path, colour=1)
    with pytest.raises(InputError, match="'musa' is no known instrument"):
        open_cube(path, instrument="musa")


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("10**(-20)*erg/s/cm**2/Angstrom", "1e-20 erg/(s cm2 AA)"),
        ("10**-20 Angstrom-1 cm-2 erg s-1", "1e-20 erg/(s cm2 AA)"),
        ("10^(-20)*erg/s/cm^2/Angstrom", "1e-20 erg/(s cm2 AA)"),
        ("1E-17 erg/s/cm^2/Ang/spaxel", "1e-17 erg/(s cm2 AA)"),
        ("1e-20 erg s-1 cm-2 A-1 spaxel-1", "1e-20 erg/(s cm2 AA)"),
        ("erg/cm2/s/A/arcsec2", "erg/(s cm2 AA arcsec2)"),
        ("(10**(-20)*erg/s/cm**2/Angstrom)**2", "1e-40 erg2/(s2 cm4 AA2)"),
        ("mJy/arcsec^2", "mJy/arcsec2"),
        ("A", "A"),
    ],
)
def test_spellings_of_flux_densities(text, unit):
    assert parse_bunit(text) == u.Unit(unit)


def test_unit_option(tmp_path, rng):
    path = write_sci(tmp_path / "a.fits", rng, cards(("BUNIT",)))
    with pytest.raises(UnitError, match="the header says no unit"):
        sl.read(path)
    assert sl.read(path, unit="ct").unit == u.ct
    with pytest.warns(AssumptionWarning, match="BUNIT says .*; taken as ct, as asked"):
        assert sl.read(write_sci(tmp_path / "b.fits", rng), unit="ct").unit == u.ct


# ---------------------------------------------------------------------------------------------- inspection


def test_inspection_of_a_large_cube_looks_at_a_sample(tmp_path, rng, monkeypatch):
    from skyloom.io.inspection import scatter

    shape = (300, 12, 12)
    data, variance = voxels(rng, shape)
    data += 1000 * (np.arange(300) // 100)[:, None, None].astype(np.float32)
    data[:, 0, 0] = np.nan
    path = write_cube(tmp_path / "a.fits", {"SCI": data, "VAR": variance})
    whole = inspect(path)
    monkeypatch.setattr(scatter.sample_channels, "__defaults__", (64 * 12 * 12 * 4,))
    sampled = inspect(path)
    assert sampled.hdus[1].sampled == 64
    assert sampled.hdus[1].shape == shape
    assert "of 64 channels" in render(sampled)
    assert sampled.error.found == whole.error.found == "variance"
    # A gap between stretches spans a thousand sigma of the continuum; it must not count as noise.
    assert sampled.error.ratio == pytest.approx(whole.error.ratio, abs=0.05)
    assert sampled.cube.masked == pytest.approx(1 / 144)
    assert sampled.cube.wave == whole.cube.wave == (4750.0, pytest.approx(4750.0 + 299 * 1.25))


def test_inspection_tells_what_reading_needs(tmp_path, rng):
    data, _ = voxels(rng)
    seen = inspect(write_cube(tmp_path / "a.fits", {"SCI": data}))
    assert seen.cube is None
    assert "as it is: the file has no errors for its data; pass weight=<file>" in render(seen)
    lines = render(inspect(write_sci(tmp_path / "b.fits", rng)))
    assert "cube 40 x 6 x 7: 4750 .. 4798.75 A in air, step 1.25 A" in lines
    assert "flux per spaxel in 1e-20 erg / (Angstrom s cm2), errors read as variance, 0 % masked" in lines


# ------------------------------------------------------------------------------------------------- kernel


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_kernel_is_its_naive_twin(kind, compiled, rng):
    data = rng.normal(size=500).astype(np.float32)
    error = (1.0 + rng.random(500)).astype(np.float32)
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, -1.0, 1e10, 3e4, 1e-3], np.float32)
    data[:9], error[20:29], data[40:49], error[40:49] = odd, odd, odd, odd[::-1]
    mask = rng.random(500) < 0.1
    for floor in (np.inf, 1e4):
        variance, bad = error.copy(), mask.copy()
        function = finish_voxels if compiled else finish_voxels.py_func
        with np.errstate(all="ignore"):
            counts = function(data, variance, bad, KINDS.index(kind), floor)
        expected, expected_bad, expected_counts = oracles_readers.finish_voxels(
            data, error, mask, kind, floor
        )
        np.testing.assert_allclose(variance[~bad], expected[~bad], rtol=2e-7)
        np.testing.assert_array_equal(bad, expected_bad)
        assert tuple(int(count) for count in counts) == expected_counts


@pytest.mark.parametrize("compiled", [True, False])
def test_decoding_bits_is_decoding_numbers(compiled, rng):
    odd = np.array([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, -1.0, 1e-45, 3.4e38], np.float32)
    data = rng.normal(size=400).astype(np.float32)
    error = (1.0 + rng.random(400)).astype(np.float32)
    mask = rng.random(400) < 0.1
    data[:9], error[20:29], data[40:49], error[40:49] = odd, odd, odd, odd[::-1]
    function = decode_voxels if compiled else decode_voxels.py_func
    for errors in (error, np.abs(np.nan_to_num(error, nan=1.0))):
        values, variance, bad = np.empty(400, np.float32), np.empty(400, np.float32), mask.copy()
        stored = [plane.astype(">f4").view(np.uint8).view(np.uint32) for plane in (data, errors)]
        with np.errstate(over="ignore"):  # without numba, 0 - 1 of unsigned integers is announced
            negative = function(*stored, values.view(np.uint32), variance.view(np.uint32), bad)
        expected = oracles_readers.finish_voxels(data, errors, mask, "variance", np.inf)
        np.testing.assert_array_equal(values.view(np.uint32), data.view(np.uint32))
        np.testing.assert_array_equal(variance.view(np.uint32), errors.view(np.uint32))
        np.testing.assert_array_equal(bad, expected[1])
        assert bool(negative) == bool(np.signbit(errors).any())


def test_the_reader_of_another_instrument_says_what_it_misses(tmp_path):
    path = write_cube(tmp_path / "a.fits", {"DATA": np.ones(SHAPE), "STAT": np.ones(SHAPE)})
    with pytest.raises(FileFormatError, match=r"a\.fits: there is no extension FLUX; check which instrument"):
        open_cube(path, instrument="manga")
