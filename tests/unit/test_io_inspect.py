"""What inspection sees, and what it complains about."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from astropy.io import fits

import skyloom as sl
from skyloom.errors import FileFormatError
from skyloom.io.fits import write_product
from skyloom.io.inspection.inspect import inspect, render
from tests.inputs.io_objects import make_cube, make_image, make_spectra, sip_wcs, tan_wcs

SHAPE = (60, 64)
TAN = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"}
CARDS = {"TELESCOP": "HST", "INSTRUME": "ACS", "DETECTOR": "WFC", "FILTER": "F814W"}
CARDS |= {"EXPTIME": 1200.0, "PHOTFLAM": 7e-20}


def write_hst(
    path, rng, cards=None, grid=None, errors=("WHT", 4.0), unit="ELECTRONS/S", sigma=0.5, data=None
):
    primary = fits.PrimaryHDU(header=fits.Header({**CARDS, **(cards or {})}))
    header = tan_wcs(25.0).to_header() if grid is None else fits.Header(grid)
    if unit:
        header["BUNIT"] = unit
    hdus = [primary, fits.ImageHDU(rng.normal(size=SHAPE) * sigma if data is None else data, header, "SCI")]
    if errors:
        name, value = errors
        hdus.append(fits.ImageHDU(np.broadcast_to(np.asarray(value, float), SHAPE).copy(), name=name))
    fits.HDUList(hdus).writeto(path)
    return path


def complaints(inspection, severity=None):
    found = [p for p in inspection.problems if severity in (None, p.severity)]
    return "\n".join(f"{p.where}: {p.message}" for p in found)


def test_a_sound_file_has_no_problems(tmp_path, rng):
    seen = inspect(write_hst(tmp_path / "a.fits", rng))
    assert seen.problems == ()
    assert (seen.kind, seen.reader) == ("image", "hst")
    assert seen.meta["band"] == "f814w"
    assert (seen.error.name, seen.error.found) == ("WHT", "inverse variance")
    assert seen.error.ratio == pytest.approx(1.0, abs=0.1)
    science = seen.hdus[1]
    assert (science.kind, science.shape, science.unit) == ("image", SHAPE, "ELECTRONS/S")
    assert science.wcs.scale == pytest.approx(0.06)
    assert science.wcs.rotation == pytest.approx(25.0, abs=0.1)
    assert "no problems found" in render(seen)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"unit": ""}, "SCI: no unit"),
        ({"unit": "bananas"}, "'bananas' is not a unit"),
        ({"grid": {}}, "SCI: no world coordinates"),
        ({"errors": ("WHT", 0.0)}, "WHT: no value is positive"),
        ({"errors": ("WHT", np.where(np.arange(64) < 3, -1.0, 4.0))}, "WHT: 180 values are negative"),
        ({"errors": None}, "no plane of errors found"),
        (
            {"errors": ("ERR", 2.5e-5), "sigma": 5e-3},
            "ERR: its name says standard dev.*looks like the variance",
        ),
        (
            {"errors": ("WHT", 0.01), "sigma": 0.01},
            "WHT: its name says inverse variance.*like the standard deviation",
        ),
        (
            {"cards": {"INSTRUME": "WFC3", "DETECTOR": "IR"}},
            r"INSTRUME: the header names the camera WFC3/IR.*ACS/WFC",
        ),
        ({"cards": {"EXPTIME": "53.9"}}, "EXPTIME: is the text '53.9'"),
        ({"cards": {"EXPTIME": 1.0}}, "EXPTIME: is 1 s"),
        ({"cards": {"RADECSYS": "FK5"}}, "RADECSYS: the old name"),
        ({"cards": {"DATE-OBS": "22/03/13"}}, "DATE-OBS: '22/03/13' is not a date"),
        ({"cards": {"PHOTFLAM": ""}}, "PHOTFLAM: absent"),
        (
            {"cards": {"D001WTSC": 600.0, "D001DEXP": 600.0}},
            'WHT: drizzle weighted by expos.*weight_kind="exposure"',
        ),
        ({"data": np.full(SHAPE, np.nan)}, "SCI: every value is NaN"),
        (
            {"data": np.where(np.arange(64) < 16, np.nan, 1.0) * np.ones(SHAPE)},
            r"SCI: 960 values \(25 %\) are NaN",
        ),
        (
            {"grid": {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "CDELT1": 1e-5}},
            "SCI: CTYPE says -SIP but",
        ),
        (
            {"grid": {**TAN, "A_ORDER": 2}},
            "SCI: there are SIP coefficients but",
        ),
        (
            {"grid": {**TAN, "CRVAL1": "north"}},
            "SCI: the world coordinates cannot",
        ),
    ],
)
def test_complaints(options, complaint, tmp_path, rng):
    import re

    seen = inspect(write_hst(tmp_path / "a.fits", rng, **options))
    assert re.search(complaint, complaints(seen)), complaints(seen)
    assert re.search(complaint, render(seen).replace("\n", " "))


def test_the_gravest_comes_first(tmp_path, rng):
    seen = inspect(write_hst(tmp_path / "a.fits", rng, errors=("WHT", 0.0), unit="", cards={"EXPTIME": "1"}))
    ranks = [problem.rank for problem in seen.problems]
    assert ranks == sorted(ranks)
    assert ranks[0] == 0


def test_truncated_files_show_what_is_left(tmp_path, rng):
    path = write_hst(tmp_path / "a.fits", rng)
    path.write_bytes(path.read_bytes()[:-20000])
    seen = inspect(path)
    assert "truncated: " in complaints(seen, "error")
    assert seen.hdus[1].values is not None
    assert seen.hdus[2].values is None
    assert seen.reader is None


@pytest.mark.parametrize("content", [None, b"", b"no FITS" * 1000])
def test_what_is_no_fits_file_is_refused(content, tmp_path):
    path = tmp_path / "a.fits"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"a\.fits"):
        inspect(path)


def test_files_of_ours(tmp_path, rng):
    sl.write(make_image(rng, psf=sl.GaussianPSF(0.123), wcs=sip_wcs()), tmp_path / "image.fits")
    seen = inspect(tmp_path / "image.fits")
    assert (seen.kind, seen.reader) == ("image", "skyloom")
    assert "gaussian of FWHM 0.123 arcsec" in render(seen)
    assert "SIP distortion" in render(seen)
    for name, obj in (("cube", make_cube(rng, full=True)), ("spectra", make_spectra(rng, full=True))):
        sl.write(obj, tmp_path / f"{name}.fits")
        seen = inspect(tmp_path / f"{name}.fits")
        assert (seen.kind, seen.reader) == (name, "skyloom")
        assert seen.error.claimed == "variance"
        assert not complaints(seen, "error")
    write_product(tmp_path / "product.fits", {"f814w": make_image(rng, full=True)})
    assert inspect(tmp_path / "product.fits").kind == "product"
    sl.write(sl.LabelMap(rng.integers(-2, 9, (9, 8)), tan_wcs(0.0)), tmp_path / "labels.fits")
    assert inspect(tmp_path / "labels.fits").kind == "labelmap"


def test_weight_in_the_next_file_is_pointed_at(tmp_path, rng):
    path = write_hst(tmp_path / "3_sci.fits", rng, errors=None)
    fits.PrimaryHDU(np.ones(SHAPE)).writeto(tmp_path / "3_wht.fits")
    assert "perhaps in 3_wht.fits" in complaints(inspect(path))


def test_tables_and_odd_shapes(tmp_path):
    column = fits.Column("FLUX", "E", array=[1.0, 2.0])
    four = fits.ImageHDU(np.zeros((2, 2, 2, 2)))
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns([column]), four]).writeto(
        tmp_path / "a.fits"
    )
    seen = inspect(tmp_path / "a.fits")
    assert [hdu.kind for hdu in seen.hdus] == ["empty", "table", "mask"]
    assert seen.hdus[1].columns == ("FLUX",)
    assert "2 rows: FLUX" in render(seen)


EXPECTED = {
    "hst/A478_WFPC2_F814W_cutout.fits": ("image", 'weight_kind="exposure"'),
    "hst/abell2744_f105w/abell_2744_dwarf_galaxy_f105w.fits.gz": ("image", "no plane of errors"),
    "hst/abell2744_f105w/abell_2744_dwarf_galaxy_f105w_rms.fits.gz": ("image", "no unit"),
    "hst_udf/stamps/3_60mas_f814w_sci.fits": ("image", "has no filter F814W"),
    "hst_udf/stamps/3_60mas_f160w_sci.fits": ("image", "is 1 s in an image of rates"),
    "hst_udf/stamps/3_60mas_f814w_wht.fits": ("weight", "has no filter F814W"),
    "hst_udf/segment_maps/udf_mosaic_3_HST_SEGMAP.fits": ("labels", "BLANK"),
    "hst_udf/segment_maps/udf_mosaic_3_MASK_OBJ.fits": ("mask", ""),
    "muse/A478_cut_core_20x20.fits": ("cube", "STAT: holds the variance, though"),
    "muse/UDF_mosaic_subcube.fits": ("cube", "RADECSYS"),
    "muse/origin-00026.fits": ("image", ""),
    "manga/MaNGA_test_spectra.fits.gz": ("spectra", "FLUX: no unit"),
    "manga/STRUCTURE_ONLY_manga-7495-12704-LOGCUBE.fits": ("cube", ""),
    "pmas_califa/NGC2691.COMB.RSS.fits": ("spectra", "no unit"),
    "other_ifu/GMOS_ngc3081_cube.fits": ("cube", "it looks like the variance"),
    "other_ifu/STRUCTURE_ONLY_JWST_MIRI_s3d.fits": ("cube", "table of coordinates"),
    "other_ifu/STRUCTURE_ONLY_SINFONI.fits": ("cube", "no unit"),
    "sdss_spectra/spec-4238-55455-0037.fits": ("table", "RADECSYS"),
    "muse_udf_spectra/input/udf10_00002.fits": ("spectrum", ""),
    "muse_udf_spectra/platefit-results-dev.fits": ("table", ""),
    "gist_results/NGC0000Example_mask.fits": ("table", ""),
    "gist_results/NGC0000Example_gas_BIN.fits": ("table", ""),
}


@pytest.mark.data
@pytest.mark.parametrize("name", EXPECTED)
def test_real_files(name, data_dir):
    kind, complaint = EXPECTED[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen = inspect(data_dir / name)
    assert seen.kind == kind
    assert complaint in complaints(seen)
    assert not complaints(seen, "error")
    assert render(seen).isprintable() or "\n" in render(seen)


@pytest.mark.data
def test_errors_of_real_muse_cubes_are_what_they_say(data_dir):
    for name in ("A478_cut_core_20x20.fits", "UDF_mosaic_subcube.fits"):
        error = inspect(data_dir / "muse" / name).error
        assert (error.claimed, error.found) == ("variance", "variance")
        assert error.ratio == pytest.approx(1.0, abs=0.08)


@pytest.mark.data
def test_a_compressed_frame(data_dir):
    path = data_dir / "sdss_frames" / "frame-r-002820-3-0122.fits.bz2"
    seen = inspect(path)
    assert path.read_bytes()[:3] == b"BZh"
    assert seen.hdus[0].shape == (1489, 2048)
    assert seen.hdus[0].wcs.scale == pytest.approx(0.396, abs=0.001)
    assert seen.meta["exposure"] == pytest.approx(53.907456)
    assert "EXPTIME: is the text" in complaints(seen)


@pytest.mark.data
def test_every_kind_of_small_file_is_seen_without_a_crash(data_dir):
    """One file of each folder and extension pattern, beyond those named above."""
    seen = set()
    for path in sorted(data_dir.rglob("*.fits*")):
        relative = path.relative_to(data_dir)
        key = (relative.parts[0], relative.parts[1] if len(relative.parts) > 2 else "", path.name[-14:])
        if key in seen or path.stat().st_size > 300_000:
            continue
        seen.add(key)
        assert render(inspect(path))
    assert len(seen) > 60
