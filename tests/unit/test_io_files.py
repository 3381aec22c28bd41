"""Headers and arrays of FITS files as astropy reads them, at a fraction of its time."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from astropy.io import fits

from skyloom.errors import FileFormatError
from skyloom.io.formats.files import header_number, open_fits, parse_header


def parsed(*cards):
    return parse_header(b"".join(card.encode("latin-1").ljust(80) for card in cards))


@pytest.mark.parametrize(
    ("card", "value"),
    [
        *(
            ("A       =                    T / yes", True),
            ("A       = F", False),
            ("A       =                   12", 12),
        ),
        *(
            ("A       = -1.5E-20 / x", -1.5e-20),
            ("A       = 1.5D3", 1500.0),
            ("A       = +7", 7),
            ("A       = .5", 0.5),
        ),
        *(("A       = 'it''s  '  / quoted", "it's"), ("A       = ''", ""), ("A       = 'a/b' / c", "a/b")),
        *(("A       = '  lead'", "  lead"), ("A       = ", None), ("A       =         / nothing", None)),
        *(("A       = 'never ends", "never ends"), ("A       = what is this", "what is this")),
        ("HIERARCH ESO DET GAIN = 1.25 / e", None),
    ],
)
def test_values(card, value):
    header = parsed(card)
    assert header.get("A") == value
    assert type(header.get("A")) is type(value)


def test_long_texts_commentary_and_repeats():
    header = parsed(
        *(
            "LONG    = 'first &'",
            "CONTINUE  'second &'",
            "CONTINUE  'third' / end",
            "HISTORY = 'not a value'",
        ),
        *(
            "COMMENT text",
            "A       = 1",
            "A       = 2",
            "HIERARCH ESO DET GAIN = 1.25",
            "CONTINUE  'lost'",
            "END",
        ),
    )
    assert header == {"LONG": "first second third", "A": 1, "ESO DET GAIN": 1.25}


def test_numbers_in_texts():
    header = {"A": "53.9", "B": "many", "C": None, "D": float("nan"), "E": 3}
    assert [header_number(header, key) for key in "ABCDEF"] == [53.9, None, None, None, 3.0, None]


SAMPLES = [
    *("hst/A478_WFPC2_F814W_cutout.fits", "hst/abell2744_f105w/abell_2744_dwarf_galaxy_f105w.fits.gz"),
    *("hst_udf/stamps/3_60mas_f814w_sci.fits", "hst_udf/segment_maps/udf_mosaic_3_HST_SEGMAP.fits"),
    *("muse/A478_cut_core_20x20.fits", "muse/origin-00026.fits", "manga/MaNGA_test_spectra.fits.gz"),
    *("manga/STRUCTURE_ONLY_manga-7495-12704-LOGCUBE.fits", "pmas_califa/NGC2691.COMB.RSS.fits"),
    *("other_ifu/STRUCTURE_ONLY_JWST_MIRI_s3d.fits", "other_ifu/STRUCTURE_ONLY_SINFONI.fits"),
    *("sdss_spectra/spec-4238-55455-0037.fits", "gist_results/NGC0000Example_gas_BIN.fits"),
    "muse_udf_spectra/input/udf10_00002.fits",
]


def same(ours, theirs):
    if isinstance(theirs, fits.card.Undefined) or theirs is None:
        return ours is None
    return ours == theirs and isinstance(ours, bool) == isinstance(theirs, bool)


@pytest.mark.data
@pytest.mark.parametrize("name", SAMPLES)
def test_real_files_read_as_astropy_reads_them(name, data_dir):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # astropy comments on these files; here only its values count
        with fits.open(data_dir / name, memmap=False) as hdus, open_fits(data_dir / name) as file:
            assert len(file) == len(hdus)
            for ours, theirs in zip(file, hdus, strict=True):
                expected = {
                    key: value
                    for key, value in reversed(list(theirs.header.items()))
                    if key not in ("COMMENT", "HISTORY", "", "BSCALE", "BZERO", "BITPIX")
                }
                wrong = {
                    key: (ours.header.get(key), value)
                    for key, value in expected.items()
                    if not same(ours.header.get(key), value)
                }
                assert not wrong
                assert ours.name == ("" if theirs.name == "PRIMARY" else theirs.name)
                if theirs.is_image and theirs.data is not None:
                    array = ours.array()
                    assert array.dtype.isnative
                    assert array.dtype == theirs.data.dtype.newbyteorder("=")
                    np.testing.assert_array_equal(array, theirs.data)


@pytest.mark.data
def test_header_dumps_read_as_astropy_reads_them(data_dir):
    dumps = sorted((data_dir / "phangs_hst" / "headers").glob("*.txt"))
    assert dumps
    for dump in dumps:
        content = dump.read_bytes()
        expected = fits.Header.fromstring(content)
        header = parse_header(content)
        for key in (
            "PHOTFLAM",
            "PHOTPLAM",
            "EXPTIME",
            "BUNIT",
            "CTYPE1",
            "CRVAL1",
            "CD1_1",
            "EXPSTART",
            "INSTRUME",
        ):
            assert header[key] == expected[key]


@pytest.mark.parametrize("scaling", [{"bzero": 5.0, "bscale": 0.5}, {"bzero": 32768}, {"blank": -99}])
def test_scaled_integers(scaling, tmp_path):
    stored = np.array([[1, -99, 3], [4, 5, 32767]], np.int16)
    hdu = fits.PrimaryHDU(stored)
    for key, value in scaling.items():
        hdu.header[key] = value
    path = tmp_path / "a.fits"
    hdu.writeto(path)
    content = path.read_bytes()
    body = stored.astype(">i2").tobytes()
    path.write_bytes(content[:2880] + body + content[2880 + len(body) :])
    expected = fits.getdata(path)
    with open_fits(path) as file:
        array = file[0].array()
    np.testing.assert_allclose(array, expected)
    assert array.dtype.kind == expected.dtype.kind


def test_tile_compressed_images(tmp_path):
    data = np.arange(600, dtype=np.float32).reshape(20, 30)
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(data, name="SCI", quantize_level=0.0)]).writeto(
        tmp_path / "a.fits"
    )
    with open_fits(tmp_path / "a.fits") as file:
        assert file["SCI"].is_image
        assert file["SCI"].is_float
        assert file["SCI"].shape == data.shape
        np.testing.assert_array_equal(file["sci"].array(), data)


def test_what_is_missing_is_counted(tmp_path):
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones((50, 50)), name="SCI")]).writeto(path)
    path.write_bytes(path.read_bytes()[: 2 * 2880 + 15000])
    with pytest.raises(FileFormatError, match="truncated: 5000 bytes are missing"), open_fits(path):
        pass
    with open_fits(path, whole=False) as file, pytest.raises(FileFormatError, match="5000 bytes"):
        file["SCI"].array()


def test_what_is_no_array_is_said(tmp_path):
    path = tmp_path / "a.fits"
    fits.HDUList(
        [fits.PrimaryHDU(), fits.BinTableHDU.from_columns([fits.Column("A", "J", array=[1])])]
    ).writeto(path)
    with open_fits(path) as file:
        for number in (0, 1):
            with pytest.raises(FileFormatError, match="holds no array"):
                file[number].array()
        assert list(file[1].table()["A"]) == [1]
        with pytest.raises(FileFormatError, match=r"no extension NOPE.*it has the extensions 0 PRIMARY, 1"):
            file["NOPE"]


@pytest.mark.parametrize(
    "content", [b"", b"SIMPLE  =", b"hello" * 2000, b"SIMPLE  =                    T".ljust(2880)]
)
def test_what_is_no_fits_file(content, tmp_path):
    path = tmp_path / "a.fits"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"a\.fits"), open_fits(path):
        pass


def test_nonsense_in_the_structure_is_named(tmp_path):
    cards = ("SIMPLE  =                    T", "BITPIX  =                  -32", "NAXIS   = 'two'", "END")
    path = tmp_path / "a.fits"
    path.write_bytes("".join(card.ljust(80) for card in cards).encode().ljust(2880))
    with pytest.raises(FileFormatError, match="NAXIS: 'two' is no whole number"), open_fits(path):
        pass
