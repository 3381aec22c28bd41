"""Readers of template sets: axes by formula, widths, media, users' folders, STARLIGHT bases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from skyloom.errors import FileFormatError, InputError
from skyloom.io.starlight import BaseEntry, write_base
from skyloom.io.templates.sets import load_templates
from skyloom.io.templates.ssp_readers import (
    FAMILIES,
    family_of,
    read_ssp_family,
    read_starlight_base,
    read_template_folder,
)
from skyloom.io.templates.ssp_spectra import read_template_spectrum, stack_spectra
from tests.inputs.ssp_files import level, write_bc03, write_mastar

WAVE = np.array([4000.0, 4001.0, 4002.5, 4004.0])


def write_text(path: Path, flux: float, wave: np.ndarray = WAVE) -> None:
    rows = "\n".join(f"{value:.4f} {flux:.6e}" for value in wave)
    path.write_text(f"# a title\n{rows}\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        write_text(tmp_path / f"t{number}.txt", 1.0 + number)
    return tmp_path


ROWS = "file,age,metallicity\nt0.txt,0.1,0.0\nt1.txt,1.0,-0.4\nt2.txt,10,0.2\n"


# ------------------------------------------------------------------------------------------------- axes


@pytest.mark.parametrize(
    ("cards", "expected"),
    [
        ({"CRVAL1": 4000.0, "CDELT1": 2.0}, [4000.0, 4002.0, 4004.0]),
        ({"CRVAL1": 4000.0, "CDELT1": 9.0, "CD1_1": 2.0, "CRPIX1": 2.0}, [3998.0, 4000.0, 4002.0]),
        ({"CRVAL1": 3.6, "CDELT1": 1e-4, "CTYPE1": "WAVE-LOG"}, 10 ** np.array([3.6, 3.6001, 3.6002])),
        ({"CRVAL1": 3.6, "CDELT1": 1e-4, "DC-FLAG": 1}, 10 ** np.array([3.6, 3.6001, 3.6002])),
        ({"CRVAL1": 400.0, "CDELT1": 0.2, "CUNIT1": "nm"}, [4000.0, 4002.0, 4004.0]),
        ({"CRVAL1": 0.4, "CDELT1": 2e-4, "CUNIT1": "um"}, [4000.0, 4002.0, 4004.0]),
        # FITS paper III: the logarithmic axis of the standard has CRVAL in A.
        ({"CRVAL1": 4000.0, "CDELT1": 2.0, "CTYPE1": "AWAV-LOG"}, 4000.0 * np.exp(np.arange(3) * 5e-4)),
    ],
)
def test_axes_follow_the_formula_of_the_header(tmp_path: Path, cards: dict, expected: list) -> None:
    hdu = fits.PrimaryHDU(np.ones(3))
    hdu.header.update(cards)
    hdu.writeto(tmp_path / "t.fits")
    np.testing.assert_allclose(read_template_spectrum(tmp_path / "t.fits").wave, expected, rtol=1e-12)


def test_a_header_without_an_axis_is_refused(tmp_path: Path) -> None:
    fits.PrimaryHDU(np.ones(3)).writeto(tmp_path / "t.fits")
    with pytest.raises(FileFormatError, match="wavelengths are not known"):
        read_template_spectrum(tmp_path / "t.fits")


def test_tables_have_their_own_unit(tmp_path: Path) -> None:
    columns = [
        fits.Column("FLUX", "D", array=[1.0, 2.0]),
        fits.Column("LAMBDA", "D", unit="nm", array=[400.0, 401.0]),
    ]
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)]).writeto(tmp_path / "t.fits")
    spectrum = read_template_spectrum(tmp_path / "t.fits")
    np.testing.assert_allclose(spectrum.wave, [4000.0, 4010.0])
    np.testing.assert_allclose(spectrum.flux, [1.0, 2.0])
    fits.PrimaryHDU().writeto(tmp_path / "none.fits")
    with pytest.raises(FileFormatError, match="neither"):
        read_template_spectrum(tmp_path / "none.fits")


def test_resolving_power_becomes_a_width(tmp_path: Path) -> None:
    hdu = fits.PrimaryHDU(np.ones(3))
    hdu.header.update({"CRVAL1": 4000.0, "CDELT1": 2.0, "FWHM": 9.0})
    power = fits.ImageHDU(np.array([1000.0, 2000.0, 4000.0]), name="SRES")
    fits.HDUList([hdu, power]).writeto(tmp_path / "t.fits")
    np.testing.assert_allclose(read_template_spectrum(tmp_path / "t.fits").fwhm, [4.0, 2.001, 1.001])
    bad = fits.ImageHDU(np.array([1000.0, 0.0, 4000.0]), name="SRES")
    fits.HDUList([hdu, bad]).writeto(tmp_path / "bad.fits")
    with pytest.raises(FileFormatError, match="SRES"):
        read_template_spectrum(tmp_path / "bad.fits")


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "nan.txt").write_text("4000 1\n4001 nan\n")
    (tmp_path / "words.txt").write_text("wave flux\n4000 1\n")
    (tmp_path / "one.txt").write_text("4000\n4001\n")
    for name, words in (
        ("nan", "1 values of the template"),
        ("words", "cannot be read"),
        ("one", "1 columns"),
    ):
        with pytest.raises(FileFormatError, match=words):
            read_template_spectrum(tmp_path / f"{name}.txt")


def test_templates_of_one_set_share_an_axis(folder: Path) -> None:
    write_text(folder / "other.txt", 1.0, WAVE + 0.5)
    with pytest.raises(FileFormatError, match=r"are not those of t0\.txt"):
        stack_spectra([folder / "t0.txt", folder / "other.txt"])
    write_text(folder / "down.txt", 1.0, WAVE[::-1])
    with pytest.raises(FileFormatError, match="ascend"):
        stack_spectra([folder / "down.txt"])
    first, flux = stack_spectra([folder / "t0.txt", folder / "t1.txt"], wave_range=(4000.5, 4003.0))
    np.testing.assert_allclose(first.wave, [4001.0, 4002.5])
    np.testing.assert_allclose(flux, [[1.0, 1.0], [2.0, 2.0]])
    with pytest.raises(FileFormatError, match="no wavelengths"):
        stack_spectra([folder / "t0.txt"], wave_range=(1.0, 2.0))


def test_widths_of_one_set_are_equal(tmp_path: Path) -> None:
    for name, fwhm in (("a", 2.5), ("b", 2.5), ("c", 3.0), ("d", None)):
        hdu = fits.PrimaryHDU(np.ones(3))
        hdu.header.update({"CRVAL1": 4000.0, "CDELT1": 2.0})
        if fwhm:
            hdu.header["FWHM"] = fwhm
        hdu.writeto(tmp_path / f"{name}.fits")
    assert stack_spectra([tmp_path / "a.fits", tmp_path / "b.fits"])[0].fwhm == 2.5
    for other in "cd":
        with pytest.raises(FileFormatError, match="width"):
            stack_spectra([tmp_path / "a.fits", tmp_path / f"{other}.fits"])


# ---------------------------------------------------------------------------------------- published sets


@pytest.mark.parametrize(
    ("family", "name", "population"),
    [
        ("mastar", "MaStar-SSP-A00.003-Z-1.35.fits.gz", (0.00316227766, -1.35)),
        ("mastar", "MaStar-SSP-A14.000-Z+0.35.fits.gz", (14.0, 0.35)),
        ("bc03", "BC03_z0.008_a01.434.fits", (1.434, np.log10(0.4))),
        ("miuscat", "Iun1.30Zm0.40T12.5893.fits", (12.5893, -0.4)),
        ("miuscat", "Iun1.30Zp0.22T00.0631.fits", (0.0631, 0.22)),
        ("mastar", "README", None),
        ("mastar", "MaStar-SSP-A14.000-Z+0.35.fits.gz.part", None),
    ],
)
def test_names_say_age_and_metallicity(family: str, name: str, population: tuple | None) -> None:
    found = FAMILIES[family].population(name)
    if population is None:
        assert found is None
    else:
        assert found == pytest.approx(population)


def test_a_family_is_ordered_and_found_by_its_names(tmp_path: Path) -> None:
    write_mastar(tmp_path / "mastar", ("09.000", "01.000"), ("+0.00", "-0.33"))
    (tmp_path / "mastar" / "README").write_text("text")
    assert family_of(tmp_path / "mastar") is FAMILIES["mastar"]
    library = read_ssp_family(tmp_path / "mastar", "mastar")
    assert list(library.age) == [1.0, 9.0, 1.0, 9.0]
    assert list(library.metallicity) == [-0.33, -0.33, 0.0, 0.0]
    for row, flux in enumerate(library.flux):
        np.testing.assert_allclose(flux, level(library.age[row], library.metallicity[row]))
    assert library.medium == "vacuum"
    assert library.meta["flux_per_mass"] is False
    write_bc03(tmp_path / "bc03", ("10.000",), ("0.020",))
    assert family_of(tmp_path / "bc03") is FAMILIES["bc03"]
    with pytest.raises(FileFormatError, match="no mastar spectra"):
        read_ssp_family(tmp_path / "bc03", "mastar")
    with pytest.raises(InputError, match="no family"):
        read_ssp_family(tmp_path / "bc03", "miles")
    assert family_of(tmp_path) is None


# ----------------------------------------------------------------------------------------- STARLIGHT bases


def entries(*files: str) -> list[BaseEntry]:
    return [
        BaseEntry(name, 10.0 ** (8 + number), 0.02 / (number + 1), f"code{number}", 1.0 - 0.1 * number)
        for number, name in enumerate(files)
    ]


def test_a_base_keeps_its_order(folder: Path) -> None:
    write_base(folder / "Base.own", entries("t2.txt", "t0.txt"))
    library = load_templates(folder / "Base.own", medium="vacuum", fwhm=2.0)
    np.testing.assert_allclose(library.flux[:, 0], [3.0, 1.0])
    np.testing.assert_allclose(library.age, [0.1, 1.0])
    np.testing.assert_allclose(library.metallicity, [0.0, np.log10(0.5)])
    assert library.medium == "vacuum"
    assert library.meta["star_fraction"] == [1.0, 0.9]
    assert library.meta["codes"] == ["code0", "code1"]
    assert library.meta["flux_per_mass"] is True
    np.testing.assert_array_equal(load_templates(folder, medium="vacuum", fwhm=2.0).flux, library.flux)


def test_a_base_of_unknown_spectra_needs_medium_and_width(folder: Path) -> None:
    write_base(folder / "Base.own", entries("t2.txt", "t0.txt"))
    for options in ({}, {"medium": "air"}, {"fwhm": 2.0}):
        with pytest.raises(InputError, match="do not say their medium"):
            read_starlight_base(folder / "Base.own", **options)
    with pytest.raises(FileFormatError, match=r"2 of 2 spectra are not in .* such as t2\.txt"):
        read_starlight_base(folder / "Base.own", folder / "elsewhere", medium="air", fwhm=2.0)


def test_a_base_of_bc03_is_known(tmp_path: Path) -> None:
    names = ("bc2003_hr_m62_chab_ssp_020.spec", "bc2003_hr_m62_chab_ssp_045.spec")
    for number, name in enumerate(names):
        write_text(tmp_path / name, 1.0 + number, np.array([91.0, 3210.0, 4000.0, 4001.0, 9490.0, 9999.0]))
    write_base(tmp_path / "Base.BC03", entries(*names))
    library = load_templates(tmp_path)
    assert library.medium == "air"
    assert np.all(library.fwhm == 3.0)
    np.testing.assert_allclose(library.wave, [3210.0, 4000.0, 4001.0, 9490.0])  # the empirical part only


# ------------------------------------------------------------------------------------------ users' folders


def test_a_folder_with_a_csv_table(folder: Path) -> None:
    notes = "# medium: air\n# fwhm: 2.5\n# name: mine\n# flux_per_mass: true\n# imf: Kroupa 2001\n"
    (folder / "templates.csv").write_text(notes + ROWS)
    library = load_templates(folder)
    assert (library.name, library.medium) == ("mine", "air")
    np.testing.assert_allclose(library.age, [0.1, 1.0, 10.0])
    np.testing.assert_allclose(library.metallicity, [0.0, -0.4, 0.2])
    np.testing.assert_allclose(library.flux, [[1.0] * 4, [2.0] * 4, [3.0] * 4])
    np.testing.assert_allclose(library.fwhm, 2.5)
    assert library.meta["flux_per_mass"] is True
    assert library.meta["imf"] == "Kroupa 2001"
    assert load_templates(folder, medium="vacuum", fwhm=1.0).medium == "vacuum"
    with pytest.raises(InputError, match="folder cannot be given"):
        load_templates(folder, folder=folder)


def test_a_folder_with_an_ecsv_table_in_years_and_nanometres(folder: Path) -> None:
    for number in range(3):
        write_text(folder / f"t{number}.txt", 1.0 + number, WAVE / 10)
    table = Table(
        {
            "file": ["t0.txt", "t1.txt", "t2.txt"],
            "age": [1e8, 1e9, 1e10],
            "metallicity": [0.0, -0.4, 0.2],
            "star_fraction": [0.9, 0.7, 0.5],
        },
        units={"age": "yr"},
        meta={"medium": "vacuum", "fwhm": 2.5, "wave_unit": "nm"},
    )
    table.write(folder / "templates.ecsv")
    library = read_template_folder(folder)
    np.testing.assert_allclose(library.age, [0.1, 1.0, 10.0])
    np.testing.assert_allclose(library.wave, WAVE)
    assert library.meta["star_fraction"] == [0.9, 0.7, 0.5]
    assert library.meta["flux_per_mass"] is False


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        (ROWS, InputError, "air or in vacuum"),
        ("# medium: air\n" + ROWS, InputError, "how wide"),
        ("# medium: water\n# fwhm: 2\n" + ROWS, InputError, "water"),
        ("# medium: air\n# fwhm: narrow\n" + ROWS, InputError, "narrow"),
        ("# medium: air\n# fwhm: 2\nfile,age\nt0.txt,1\n", FileFormatError, "no column metallicity"),
        ("file,age,metallicity\n", FileFormatError, "no rows"),
        ("# medium: air\n# fwhm: 2\n" + ROWS.replace("t1", "absent"), FileFormatError, "absent"),
        ("# medium: air\n# fwhm: 2\n" + ROWS.replace("1.0", "-1.0"), InputError, "ages > 0"),
        ("# medium: air\n# fwhm: 2\n" + ROWS.replace("1.0", "old"), FileFormatError, "age"),
    ],
)
def test_tables_that_do_not_do(folder: Path, text: str, error: type, words: str) -> None:
    (folder / "templates.csv").write_text(text)
    with pytest.raises(error, match=words):
        read_template_folder(folder)


def test_a_folder_without_a_table_is_refused(folder: Path) -> None:
    with pytest.raises(FileFormatError, match="no table of the templates"):
        read_template_folder(folder)


def test_the_header_of_a_spectrum_can_say_medium_and_width(tmp_path: Path) -> None:
    hdu = fits.PrimaryHDU(np.ones(5))
    hdu.header.update(
        {"CRVAL1": 4000.0, "CDELT1": 2.0, "CTYPE1": "AWAV", "CUNIT1": "Angstrom", "FWHM": 2.2, "CRPIX1": 1}
    )
    hdu.writeto(tmp_path / "t.fits")
    (tmp_path / "templates.txt").write_text("file age metallicity\nt.fits 1.0 0.0\n")
    library = read_template_folder(tmp_path)
    assert library.medium == "air"
    np.testing.assert_allclose(library.fwhm, 2.2)
