"""Throughput curves from files, and from collections that happen to be installed."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from skyloom.core.bandpass import Bandpass, photbw_width
from skyloom.core.linelist import default_lines, vacuum_to_air
from skyloom.errors import AssumptionWarning, FileFormatError, InputError, RepairWarning
from skyloom.io import find_bandpass, read_bandpass

WAVE = np.array([6400.0, 6450.0, 6500.0, 6620.0, 6700.0])
THROUGHPUT = np.array([0.0, 0.1, 0.25, 0.24, 0.0])
PYPHOT = (
    "# WAVELENGTH_UNIT\t{unit}\n# NAME           \tHST_WFC3_F657N\n# DETECTOR       \t{detector}\n#\n"
    "## WAVELENGTH\tNone\t{unit}\n## THROUGHPUT\tNone\tfilter throughput definition\n#\nWAVELENGTH,THROUGHPUT\n"
)


def rows(separator: str = " ", wave: np.ndarray = WAVE, prefix: str = "") -> str:
    return "".join(f"{prefix}{x:.6f}{separator}{y:g}\n" for x, y in zip(wave, THROUGHPUT, strict=True))


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def same_curve(band: Bandpass) -> None:
    np.testing.assert_allclose(band.wave, WAVE, rtol=1e-12)
    np.testing.assert_allclose(band.throughput, THROUGHPUT, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("svo.dat", rows()),
        ("svo_comments.dat", "# from SVO\n\n" + rows("\t")),
        ("sedpy.par", "# Units: lambda in Angstroms\n\n\n" + rows("  ")),
        (
            "kcorrect.par",
            "typedef struct {\n double lambda;\n double pass;\n} KFILTER;\n\n" + rows(prefix="KFILTER "),
        ),
        ("named.csv", "wave,throughput\n" + rows(",")),
        ("acs.csv", PYPHOT.format(unit="AA", detector="photon") + rows(",")),
        ("nanometre.csv", PYPHOT.format(unit="nm", detector="photon") + rows(",", WAVE / 10)),
        ("micron.csv", PYPHOT.format(unit="um", detector="photon") + rows(",", WAVE / 1e4)),
        ("bom.dat", "\ufeff" + rows()),
        ("descending.dat", "".join(reversed(rows().splitlines(keepends=True)))),
        ("repeated.dat", rows().replace("6500.000000 0.25\n", "6500.000000 0.25\n" * 2)),
    ],
)
def test_text_of_every_form_is_the_same_curve(tmp_path: Path, name: str, text: str) -> None:
    band = read_bandpass(written(tmp_path / name, text))
    same_curve(band)
    assert band.name == Path(name).stem
    assert band.medium == "vacuum"


def test_name_medium_and_unit_can_be_given(tmp_path: Path) -> None:
    path = written(tmp_path / "curve.txt", rows(wave=WAVE / 10))
    with pytest.raises(InputError, match=r"curve.txt: wavelength: .*640 to 670.*wave_unit"):
        read_bandpass(path)
    band = read_bandpass(path, name="F657N", medium="air", wave_unit="nm")
    same_curve(band)
    assert (band.name, band.medium) == ("F657N", "air")
    with pytest.raises(InputError, match="'ether'"):
        read_bandpass(path, medium="ether", wave_unit="nm")
    with pytest.raises(InputError, match="not a length"):
        read_bandpass(path, wave_unit="Jy")


@pytest.mark.parametrize("ends", [(400.0, 700.0), (690.0, 960.0), (800.0, 1100.0)])
def test_nanometres_are_not_taken_for_angstrom(tmp_path, ends):
    path = tmp_path / "band.dat"
    wave = np.linspace(*ends, 20)
    path.write_text("\n".join(f"{x} {y}" for x, y in zip(wave, np.hanning(20), strict=True)))
    with pytest.raises(InputError, match="cannot be A; pass wave_unit"):
        read_bandpass(path)
    assert read_bandpass(path, wave_unit="nm").pivot > 4000.0


@pytest.mark.parametrize(("unit", "scale"), [("Angstrom", 1.0), ("nm", 0.1), ("micron", 1e-4)])
def test_ecsv_knows_its_units(tmp_path: Path, unit: str, scale: float) -> None:
    table = Table({"response": THROUGHPUT, "wavelength": WAVE * scale})
    table["wavelength"].unit = unit
    path = tmp_path / "sdss2010-r.ecsv"
    table.write(path, format="ascii.ecsv")
    same_curve(read_bandpass(path))


def test_an_energy_counting_curve_gives_the_same_means(tmp_path: Path) -> None:
    """<f> = int f S dl / int S dl of an energy counter S is the photon-weighted mean with T = S / l."""
    wave = np.arange(6400.0, 6700.5, 0.5)
    energy = np.interp(wave, WAVE, THROUGHPUT)
    body = "".join(f"{x},{y:.12g}\n" for x, y in zip(wave, energy, strict=True))
    band = read_bandpass(written(tmp_path / "j.csv", PYPHOT.format(unit="AA", detector="energy") + body))
    flux = 1.0 + (wave - 6400.0) ** 2
    expected = np.trapezoid(flux * energy, wave) / np.trapezoid(energy, wave)
    assert band.mean_flux_density(wave, flux) == pytest.approx(expected, rel=1e-4)
    assert band.throughput.max() == pytest.approx(energy.max(), rel=1e-3)


def test_bare_filters_of_pyphot_are_announced(tmp_path: Path) -> None:
    text = PYPHOT.format(unit="AA", detector="photon") + rows(",")
    with pytest.warns(
        AssumptionWarning, match=r"hst_wfc3_f657n.csv.*bare filter.*wrong for a zero point"
    ) as caught:
        read_bandpass(written(tmp_path / "hst_wfc3_f657n.csv", text))
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_bandpass(written(tmp_path / "hst_acs_wfc_f658n.csv", text))
        # A total throughput under such a name, in another form, is not pyphot's.
        read_bandpass(written(tmp_path / "hst_wfc3_uvis1.f657n.dat", rows()))


def test_noise_below_zero_is_repaired_and_counted(tmp_path: Path) -> None:
    path = written(tmp_path / "r.par", rows().replace("6400.000000 0\n", "6300 -0.001\n6400 -0.002\n"))
    with pytest.warns(RepairWarning, match=r"r.par: throughput: 2 values between -0.002 and 0") as caught:
        band = read_bandpass(path)
    assert caught[0].filename == __file__
    assert band.throughput.min() == 0.0


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", FileFormatError, "holds no curve; expected two columns"),
        ("# only a comment\n", FileFormatError, "holds no curve"),
        ("wave throughput\n", FileFormatError, "holds no curve"),
        ("6500 0.2\n", FileFormatError, "one row only"),
        ("6500 0.2\n6600\n", FileFormatError, "line 2: '6600' is not a wavelength and a throughput"),
        ("6500 high\n6600 0.2\n", FileFormatError, "line 1: '6500 high'"),
        ("a b\nc d\n6500 0.2\n", FileFormatError, "line 2: 'c d'"),
        ("<?xml version='1.0'?>\n", FileFormatError, "XML.*download the curve as ASCII"),
        ("# %ECSV 1.0\n# nonsense\n", FileFormatError, "cannot be read as ECSV"),
        (
            "6500 0.2\n6400 0.1\n6600 0.1\n",
            InputError,
            "wavelength: .*6500 A is followed by 6400 A; sort the rows",
        ),
        ("6400 0.2\n6500 0.1\n6500 0.3\n", InputError, "6500 A is followed by 6500 A"),
        ("6400 0.2\n6500 -0.1\n6600 0.3\n", InputError, "throughput: .*-0.1 at 6500 A.*expected >= 0"),
        (
            "6400 0.2\n6500 nan\n6600 0.3\n",
            InputError,
            "1 of 3 rows have no finite value .first: row 2.*remove",
        ),
        ("6400 0\n6500 0\n", InputError, "throughput: .*not all 0; expected two columns"),
        ("-6500 0.1\n6400 0.2\n", InputError, "must be positive"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path: Path, text: str, error: type, words: str) -> None:
    path = written(tmp_path / "odd.dat", text)
    with pytest.raises(error, match=words) as caught:
        read_bandpass(path)
    assert caught.value.source == str(path)
    assert caught.value.remedy


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "image.fits").write_bytes(b"SIMPLE  =\xff\xfe\x00\x80")
    with pytest.raises(FileFormatError, match=r"image.fits: the file is not text; expected"):
        read_bandpass(tmp_path / "image.fits")
    with pytest.raises(FileFormatError, match=r"none.dat: .*cannot be read: No such file.*check the path"):
        read_bandpass(tmp_path / "none.dat")
    with pytest.raises(FileFormatError, match="cannot be read"):
        read_bandpass(tmp_path)
    table = Table({"name": ["a", "b"], "wavelength": [1.0, 2.0]})
    table.write(tmp_path / "t.ecsv", format="ascii.ecsv")
    with pytest.raises(FileFormatError, match="expected a wavelength and a throughput"):
        read_bandpass(tmp_path / "t.ecsv")


# ------------------------------------------------------------------------------------------ installed collections


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for packages, where none of the collections is installed."""
    monkeypatch.setattr(
        sys, "path", [str(tmp_path)] + [item for item in sys.path if "site-packages" not in item]
    )
    for name in ("sedpy", "speclite", "pyphot"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def install(site: Path, name: str, text: str) -> None:
    written(site / name, text)
    # Importing it would fail: the curves are read as files.
    written(site / name.split("/")[0] / "__init__.py", "raise RuntimeError('imported')\n")


def test_bands_of_installed_collections_are_found(site: Path) -> None:
    install(site, "sedpy/data/filters/acs_wfc_f814w.par", rows())
    install(
        site,
        "pyphot/libs/ascii_sources/hst_wfc3_f657n.csv",
        PYPHOT.format(unit="AA", detector="photon") + rows(","),
    )
    install(site, "pyphot/libs/ascii_sources/acs_wfc_f814w.csv", rows(",", WAVE + 1))
    band = find_bandpass("ACS_WFC_F814W")
    same_curve(band)
    assert band.name == "acs_wfc_f814w"
    assert find_bandpass("pyphot:acs_wfc_f814w").wave[0] == 6401.0
    with pytest.warns(AssumptionWarning, match="bare filter") as caught:
        same_curve(find_bandpass("hst_wfc3_f657n"))
    assert caught[0].filename == __file__
    with pytest.raises(
        InputError, match=r"'wfc3_f657' is no band of astro-sedpy, pyphot .there are hst_wfc3_f657n"
    ):
        find_bandpass("wfc3_f657")
    assert "sedpy" not in sys.modules


def test_without_a_collection_the_remedy_is_named(site: Path) -> None:
    with pytest.raises(
        InputError, match=r"bandpass: no curve of 'acs_wfc_f814w'.*give the file.*pip install astro-sedpy"
    ):
        find_bandpass("acs_wfc_f814w")
    install(site, "sedpy/data/filters/acs_wfc_f814w.par", rows())
    with pytest.raises(InputError, match=r"no filter collection is installed \(pyphot\)"):
        find_bandpass("pyphot:acs_wfc_f814w")


# --------------------------------------------------------------------------------------------- what bands are for


def test_line_width_turns_a_mean_into_a_flux() -> None:
    """A narrow line of known flux, averaged over the band on a fine grid, comes back by the width at its place."""
    band = Bandpass(WAVE, THROUGHPUT, "F657N")
    wave = np.arange(6390.0, 6710.0, 0.01)
    for centre in (6470.0, 6576.0, 6650.0):
        line = 3.0 * np.exp(-0.5 * ((wave - centre) / 0.8) ** 2) / (0.8 * np.sqrt(2 * np.pi))
        mean = float(band.mean_flux_density(wave, line))
        # T l is curved on the scale of the line by less than 1e-5 away from the corners of the curve.
        assert mean * band.line_width(centre) == pytest.approx(3.0, rel=1e-5)
    box = Bandpass.tophat(6600.0, 100.0, edge=0.01)
    assert box.line_width(box.photon_mean) == pytest.approx(100.0, rel=1e-3)
    halpha = default_lines()["Halpha"]
    observed = halpha.rest("vacuum") * 1.00219
    assert band.line_width(float(vacuum_to_air(observed)), "air") == pytest.approx(
        band.line_width(observed), rel=1e-7
    )


def test_a_line_outside_the_band_has_no_width() -> None:
    band = Bandpass(WAVE, THROUGHPUT, "F657N")
    with pytest.raises(
        InputError, match=r"F657N: wave: .*7000.00 A .vacuum. is 0; .*6400.0-6700.0 A; check the redshift"
    ):
        band.line_width(7000.0)


def test_photbw_is_told_from_the_rectangular_width() -> None:
    band = Bandpass.gaussian(6566.0, 100.0, name="F657N")
    rms, rectangular = band.rms_width, band.rectangular_width
    assert rectangular == pytest.approx(2.5066 * rms, rel=1e-3)
    assert photbw_width(rms * 1.1, band).kind == "rms"
    assert photbw_width(rectangular * 0.9, band).kind == "rectangular"
    between = photbw_width(1.5 * rms, band)
    assert (between.kind, between.rms, between.rectangular) == ("neither", rms, rectangular)
    assert "is neither width" in between.describe()
    assert "RMS width" in photbw_width(rms, band).describe()
    assert photbw_width(0.5 * rms, band).leak == 0.0
    with pytest.raises(InputError, match="PHOTBW is -1"):
        photbw_width(-1.0, band)


def test_a_leak_makes_photbw_an_rms_width_that_exceeds_the_band() -> None:
    core = Bandpass.tophat(6585.0, 27.5, edge=2.0, peak=0.25, name="F658N")
    distance, share = 658.5, 0.02
    leak = 0.25 * 27.5 * share / 10.0
    wave = np.concatenate([core.wave, 6585.0 + distance + np.array([-10.0, -5.0, 5.0, 10.0])])
    whole = Bandpass(wave, np.concatenate([core.throughput, [0.0, leak * 2 / 3, leak * 2 / 3, 0.0]]), "F658N")
    assert whole.rms_width > 2.5 * core.rectangular_width
    assert photbw_width(whole.rms_width, whole).kind == "rms"
    judged = photbw_width(whole.rms_width, core)
    assert judged.kind == "neither"
    # First order in distance and share: it counts as ln(1.1)^2 / 1.1, 17 % less than 0.1^2, among 2 % more light.
    assert judged.leak == pytest.approx(share, rel=0.25)
    assert "leaks in 10 % of the pivot off" in judged.describe()


@pytest.mark.data
def test_real_curves_of_every_form(data_dir: Path) -> None:
    """All 43 files, warned about where they should be; total throughputs have the pivots everybody knows."""
    paths = [
        *(data_dir / "phangs_hst" / "filters").glob("*.dat"),
        *(data_dir / "filters").rglob("*.*"),
    ]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bands = {path.name: read_bandpass(path) for path in paths}
    assert len(bands) == 43
    kinds = sorted(
        (type(item.message).__name__, Path(str(item.message).split(":")[0]).name) for item in caught
    )
    assert kinds == [
        ("AssumptionWarning", "hst_wfc3_f657n.csv"),
        ("AssumptionWarning", "hst_wfc3_f658n.csv"),
        ("RepairWarning", "sdss_r0.par"),
    ]
    assert bands["acs_wfc_f814w.par"].pivot == pytest.approx(8052.0, abs=10.0)
    for name in ("sdss_r0.par", "sdss2010-r.ecsv"):
        assert bands[name].pivot == pytest.approx(6175.0, abs=10.0)
