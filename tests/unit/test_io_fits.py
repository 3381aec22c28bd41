"""What is written comes back the same, field by field, and astropy understands the file."""

from __future__ import annotations

import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

import skyloom as sl
from skyloom.core.cube import CubeCorrelation
from skyloom.core.provenance import Step, step
from skyloom.core.psf import square_matrix
from skyloom.errors import FileFormatError, InputError, ShapeError, UnitError
from skyloom.io.fits import read_product, write_product
from tests.inputs.io_objects import assert_same, make_cube, make_image, make_spectra, sip_wcs, tan_wcs

PSFS = [
    None,
    sl.GaussianPSF(0.1),
    sl.GaussianPSF(1 / 3, 0.7, 33.3),
    sl.MoffatPSF(0.8, 2.8, 0.9, 12.0),
    sl.SampledPSF(sl.GaussianPSF(0.2).render(square_matrix(0.06)), square_matrix(0.06)),
    sl.ChromaticPSF(np.array([5000.0, 9000.0]), (sl.MoffatPSF(0.8, 2.8), sl.MoffatPSF(0.7, 2.8))),
]


def round_trip(obj, tmp_path):
    path = tmp_path / "object.fits"
    sl.write(obj, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with fits.open(path, checksum=True) as hdus:
            hdus.verify("exception")
    return sl.read(path)


@pytest.mark.parametrize("psf", PSFS, ids=lambda psf: type(psf).__name__)
def test_image_with_every_psf(psf, tmp_path, rng):
    image = make_image(rng, psf=psf)
    assert_same(round_trip(image, tmp_path), image)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (4, 7), (31, 20)])
def test_image_types_and_shapes(dtype, shape, tmp_path, rng):
    image = make_image(rng, shape=shape, dtype=dtype)
    assert_same(round_trip(image, tmp_path), image)


def test_bare_image(tmp_path):
    image = sl.Image(np.ones((3, 4)), np.ones((3, 4)), np.zeros((3, 4), bool), "Jy", None)
    assert_same(round_trip(image, tmp_path), image)


def test_everything_an_image_can_carry(tmp_path, rng):
    image = make_image(rng, full=True)
    assert_same(round_trip(image, tmp_path), image)


@pytest.mark.parametrize(
    "wcs", [tan_wcs(0.0), tan_wcs(25.0), sip_wcs(), None], ids=["tan", "rotated", "sip", "none"]
)
def test_world_coordinates_keep_every_digit(wcs, tmp_path, rng):
    image = make_image(rng, wcs=wcs)
    back = round_trip(image, tmp_path)
    assert_same(back, image)
    if wcs is not None:
        x, y = rng.uniform(-50, 50, (2, 20))
        np.testing.assert_array_equal(back.wcs.all_pix2world(x, y, 0), wcs.all_pix2world(x, y, 0))


@pytest.mark.parametrize("projection", ["ZPN", "TPV"])
def test_projections_with_parameters(projection, tmp_path, rng):
    wcs = tan_wcs(10.0)
    wcs.wcs.ctype = [f"RA---{projection}", f"DEC--{projection}"]
    parameters = {"ZPN": [(2, 1, 1.0), (2, 3, 1 / 3)], "TPV": [(1, 1, 1.0), (1, 4, 1e-3 / 7), (2, 1, 1.0)]}
    wcs.wcs.set_pv(parameters[projection])
    wcs.wcs.set()
    assert_same(round_trip(make_image(rng, wcs=wcs), tmp_path), make_image(rng, wcs=wcs), only=("wcs",))


@pytest.mark.parametrize(
    "unit",
    [
        "electron/s",
        "1e-20 erg/(s cm2 AA)",
        "1e-20 erg/(s cm2 AA arcsec2)",
        "nmgy",
        "MJy/sr",
        "ct/s",
        "adu",
        "",
        "uJy",
    ],
)
def test_units_come_back_and_astropy_reads_them(unit, tmp_path, rng):
    image = make_image(rng, unit=u.Unit(unit))
    assert_same(round_trip(image, tmp_path), image)
    with fits.open(tmp_path / "object.fits") as hdus:
        assert u.Unit(hdus["SCI"].header["BUNIT"]) == u.Unit(unit)
        assert u.Unit(hdus["VAR"].header["BUNIT"]) == u.Unit(unit) ** 2


def test_a_scale_that_fits_cannot_say_is_refused(tmp_path, rng):
    with pytest.raises(UnitError, match=r"scale 3.631; .*powers of ten only; multiply the data"):
        sl.write(make_image(rng, unit=u.Unit("3.631 Jy")), tmp_path / "a.fits")
    assert not list(tmp_path.iterdir())


def test_lookup_distortions_are_refused(tmp_path, rng):
    from astropy.wcs import DistortionLookupTable

    wcs = tan_wcs(0.0)
    wcs.cpdis1 = DistortionLookupTable(np.zeros((2, 2), np.float32), (1, 1), (1, 1), (1, 1))
    with pytest.raises(InputError, match="distortion or coordinate tables"):
        sl.write(make_image(rng, wcs=wcs), tmp_path / "a.fits")


def test_cube(tmp_path, rng):
    for cube in (make_cube(rng), make_cube(rng, full=True)):
        assert_same(round_trip(cube, tmp_path), cube)
        (tmp_path / "object.fits").unlink()


@pytest.mark.parametrize("part", ["spatial", "spectral"])
def test_cube_with_half_a_correlation(part, tmp_path, rng):
    cube = make_cube(rng, full=True)
    cube = cube.evolve(
        correlation=CubeCorrelation(
            **({"spatial": None, "spectral": None} | {part: getattr(cube.correlation, part)})
        )
    )
    assert_same(round_trip(cube, tmp_path), cube)


def test_cube_with_a_spectral_axis_in_its_wcs(tmp_path, rng):
    header = fits.Header(
        {
            "CTYPE1": "RA---TAN",
            "CTYPE2": "DEC--TAN",
            "CTYPE3": "AWAV",
            "CUNIT3": "Angstrom",
            "CRVAL3": 4749.79,
        }
        | {
            "CD1_1": -5.6e-5,
            "CD1_2": 0.0,
            "CD2_1": 0.0,
            "CD2_2": 5.6e-5,
            "CD3_3": 1.25,
            "CRVAL1": 63.3,
            "CRVAL2": 10.4,
        }
        | {
            "CRPIX1": 3.0,
            "CRPIX2": 2.0,
            "CRPIX3": 1.0,
            "DATE-OBS": "2014-12-08T02:48:56.798",
            "MJD-OBS": 56999.11732405,
        }
    )
    wcs = WCS(header)
    cube = make_cube(rng).evolve(wcs=wcs)
    assert_same(round_trip(cube, tmp_path), cube)


@pytest.mark.parametrize("lsf", [None, 1.1, "wave", "voxel"])
def test_line_spread_functions(lsf, tmp_path, rng):
    cube = make_cube(rng)
    sizes = {"wave": cube.shape[:1], "voxel": cube.shape}
    cube = cube.evolve(lsf=rng.uniform(1, 2, sizes[lsf]) if lsf in sizes else lsf)
    assert_same(round_trip(cube, tmp_path), cube)


def test_spectra(tmp_path, rng):
    for spectra in (make_spectra(rng), make_spectra(rng, full=True)):
        assert_same(round_trip(spectra, tmp_path), spectra)
        (tmp_path / "object.fits").unlink()


def test_labels(tmp_path, rng):
    labels = sl.LabelMap(rng.integers(-2, 60000, (9, 8)), tan_wcs(42.0), {"n": 3}, (step("read"),))
    assert_same(round_trip(labels, tmp_path), labels)


def test_history_is_readable_by_people_and_by_programs(tmp_path, rng):
    done = (
        step("match_psf", residual=0.0123, kernel=[1, 2]),
        Step("reproject", "0.0.9", {"method": "lanczos3"}),
    )
    path = tmp_path / "a.fits"
    sl.write(make_image(rng).evolve(history=done), path)
    header = fits.getheader(path)
    assert "match_psf (" in str(header["HISTORY"])
    assert "residual=0.0123" in str(header["HISTORY"])
    assert sl.read(path).history == done


def test_no_half_file_and_no_surprise(tmp_path, rng):
    path = tmp_path / "a.fits"
    sl.write(make_image(rng), path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="exists already"):
        sl.write(make_image(rng), path)
    with pytest.raises(InputError, match=r"meta\['thing'\]"):
        sl.write(make_image(rng).evolve(meta={"thing": object()}), tmp_path / "b.fits")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.fits"]
    assert path.read_bytes() == before


def test_the_same_object_gives_the_same_bytes(tmp_path, rng):
    image = make_image(rng, full=True)
    sl.write(image, tmp_path / "a.fits")
    sl.write(image, tmp_path / "b.fits")
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()


def test_things_that_cannot_be_written_are_named(tmp_path):
    with pytest.raises(InputError, match="ndarray cannot be written"):
        sl.write(np.zeros((3, 3)), tmp_path / "a.fits")


def test_truncated_file_of_ours(tmp_path, rng):
    path = tmp_path / "a.fits"
    sl.write(make_image(rng, shape=(60, 60)), path)
    path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(FileFormatError, match=r"a\.fits"):
        sl.read(path)


def product(rng):
    return {"f814w": make_image(rng, full=True), "f160w": make_image(rng, psf=sl.GaussianPSF(0.2))}


def test_product_has_the_promised_extensions(tmp_path, rng):
    images = product(rng)
    shape = images["f814w"].shape
    inside, unknown = np.zeros(shape, bool), np.zeros(shape, bool)
    inside[2:4], unknown[0] = True, True
    path = tmp_path / "object.fits"
    write_product(path, images, inside=inside, unknown=unknown, config="pixel: 0.06\nname: 'é'")
    with fits.open(path, checksum=True) as hdus:
        hdus.verify("exception")
        names = {hdu.name for hdu in hdus}
        for band in ("F814W", "F160W"):
            assert {f"{band}_{kind}" for kind in ("SCI", "VAR", "WHT", "MASK", "CORR")} <= names
        assert {"OBJECT_MASK", "HISTORY", "CONFIG", "META"} <= names
        weight, variance, mask = (hdus[f"F814W_{kind}"].data for kind in ("WHT", "VAR", "MASK"))
        assert np.all(weight[mask == 1] == 0)
        np.testing.assert_allclose(weight[mask == 0] * variance[mask == 0], 1.0, rtol=1e-6)
        assert hdus["F160W_CORR"].data.tolist() == [[1.0]]
        assert set(np.unique(hdus["OBJECT_MASK"].data)) == {0, 1, 2}
        assert u.Unit(hdus["F814W_WHT"].header["BUNIT"]) == images["f814w"].unit ** -2
        for name in ("F814W_SCI", "F160W_VAR", "OBJECT_MASK"):
            assert WCS(hdus[name].header).wcs.compare(images["f814w"].wcs.wcs)


def test_bands_of_a_product_come_back(tmp_path, rng):
    images = product(rng)
    path = tmp_path / "object.fits"
    write_product(path, images)
    for band, image in images.items():
        assert_same(sl.read(path, band=band), image)
    back = read_product(path)
    assert list(back) == list(images)
    assert_same(back["f160w"], images["f160w"])
    with pytest.raises(InputError, match="it has: f814w, f160w"):
        sl.read(path)


def test_bad_products_are_refused(tmp_path, rng):
    images = product(rng)
    with pytest.raises(ShapeError, match="f160w has shape"):
        write_product(tmp_path / "a.fits", images | {"f160w": make_image(rng, shape=(3, 3))})
    with pytest.raises(ShapeError, match="object mask has shape"):
        write_product(tmp_path / "a.fits", images, inside=np.zeros((3, 3)))
    with pytest.raises(InputError, match="case only"):
        write_product(tmp_path / "a.fits", {"f814w": images["f814w"], "F814W": images["f814w"]})
    with pytest.raises(InputError, match="cannot name"):
        write_product(tmp_path / "a.fits", {"f 814": images["f814w"]})
    assert not list(tmp_path.iterdir())
