"""Files of STARLIGHT: written and read back, refused where STARLIGHT would stumble."""

from __future__ import annotations

from itertools import pairwise

import astropy.units as u
import numpy as np
import pytest

from skyloom.core.spectra import Spectra
from skyloom.errors import FileFormatError, InputError, RepairWarning, ShapeError
from skyloom.io.starlight import (
    BaseEntry,
    GridFit,
    MaskWindow,
    StarlightGrid,
    bin_names,
    emission_masks,
    read_base,
    read_config,
    read_grid,
    read_masks,
    read_output,
    read_spectrum,
    spaxel_names,
    write_base,
    write_grid,
    write_masks,
    write_spectrum,
    write_starlight_set,
)
from skyloom.io.starlight.text import fortran_number, number_rows
from tests.unit.starlight_texts import output_text

BASE = (
    BaseEntry("ssp_001.spec", 1e6, 0.004, "age001_m42"),
    BaseEntry("ssp_002.spec", 1.3e10, 0.05, "age002_m72", 0.5036, 0, 0.2),
)
CONFIG = """\
# Configuration
#
4020.0        [l_norm    (A)]                  = for base spectra only
4610.0        [llow_norm (A)]                  = for observed spectrum
4660.0        [lupp_norm (A)]
    1         [Is1stLineHeader]                = 1/0 = Y/N

|  5     |    7       |  12    | [Is1stLineHeader]
"""


def spectra(n=3, **changes):
    wave = 4500.0 + np.arange(501)
    rng = np.random.default_rng(5)
    mask = np.zeros((n, wave.size), bool)
    mask[:, 40:43] = True
    mask[0, :2] = True
    data = rng.normal(10, 1, mask.shape)
    data[mask] = np.nan
    fields = {"meta": {"redshift_applied": 0.01}, "medium": "air", "wave": wave} | changes
    return Spectra(data, np.full(mask.shape, 0.25), mask, "1e-20 erg/(s cm2 AA)", **fields)


def write(folder, given=None, **changes):
    given = spectra() if given is None else given
    names = bin_names("NGC 863", range(given.shape[0]))
    arguments = {"config": "StCv04.C11.config", "base": BASE} | changes
    return write_starlight_set(folder, given, names, **arguments)


# ------------------------------------------------------------------------------------------------ single files


def test_spectrum_round_trip(tmp_path):
    wave, flux = np.arange(4000.0, 4010.0), np.linspace(-1e-18, 3e-17, 10)
    path = write_spectrum(tmp_path / "a.txt", wave, flux, flux**2 + 1e-19, np.arange(10) % 4)
    found = read_spectrum(path)
    np.testing.assert_array_equal(found.wave, wave)
    np.testing.assert_allclose(found.flux, flux, rtol=1e-8)
    np.testing.assert_allclose(found.error, flux**2 + 1e-19, rtol=1e-8)
    np.testing.assert_array_equal(found.flag, np.arange(10) % 4)
    assert found.header == ""
    assert len(path.read_text().splitlines()) == 10


def test_spectrum_with_title_and_without_flags(tmp_path):
    path = write_spectrum(
        tmp_path / "a.txt", [1.0, 2.0], [3, 4], [5, 6], [0, 2], header="lambda flux error flag"
    )
    assert read_spectrum(path).header == "lambda flux error flag"
    (tmp_path / "b.txt").write_text("3800. 0.133 0.626\n3801. 0.125 0.622\n")
    found = read_spectrum(tmp_path / "b.txt")
    assert found.flag is None
    np.testing.assert_array_equal(found.error, [0.626, 0.622])


def test_spectrum_refuses_what_starlight_cannot_read(tmp_path):
    with pytest.raises(InputError, match="flux: 1 values are not finite"):
        write_spectrum(tmp_path / "a.txt", [1.0, 2.0], [np.nan, 1], [1, 1], [0, 0])
    with pytest.raises(ShapeError, match="error has shape"):
        write_spectrum(tmp_path / "a.txt", [1.0, 2.0], [1, 1], [1], [0, 0])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "no numbers"), ("1 2\n3\n", "row 2"), ("1 2 3 0\n2 *** 3 0\n", "row 2"), ("1\n2\n", "row 1")],
)
def test_broken_spectra_are_refused(text, message, tmp_path):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(FileFormatError, match=message):
        read_spectrum(tmp_path / "a.txt")


def test_masks_round_trip(tmp_path):
    windows = (MaskWindow(3710.0, 3744.0, 0.0, "[OII] 3726+3729"), MaskWindow(3912.0, 3952.5, 2.0))
    assert read_masks(write_masks(tmp_path / "m", windows)) == windows
    with pytest.raises(InputError, match="window 4000-3990"):
        write_masks(tmp_path / "n", [MaskWindow(4000, 3990)])
    (tmp_path / "o").write_text("3\n1 2 0\n")
    with pytest.raises(FileFormatError, match="3 entries are promised, 1 are there"):
        read_masks(tmp_path / "o")


def test_base_round_trip_and_limit(tmp_path):
    assert read_base(write_base(tmp_path / "b", BASE)) == BASE
    with pytest.raises(InputError, match="301 populations; STARLIGHT takes 1 to 300"):
        write_base(tmp_path / "c", BASE[:1] * 301)
    with pytest.raises(InputError, match="holds blanks"):
        write_base(tmp_path / "c", [BaseEntry("my file.spec", 1e6, 0.02, "a")])


def test_grid_round_trip(tmp_path):
    fits = (
        GridFit("a.txt", "c", "b", "m", "CAL", -31.5, 206.0, "a.out"),
        GridFit("d.txt", "c", "b", "m", output="d.out"),
    )
    grid = StarlightGrid(
        fits,
        (4580.0, 4640.0),
        (3741.0, 7218.0),
        obs_dir="./my files/",
        kinematics="FXK",
        has_flag=False,
        step=0.5,
    )
    path = write_grid(tmp_path / "g.in", grid)
    assert read_grid(path) == grid
    lines = path.read_text().splitlines()
    assert len(lines) == 15 + 2
    assert lines[0].split() == ["2", "[Number", "of", "fits", "to", "run]"]


def test_grid_refusals(tmp_path):
    grid = StarlightGrid((GridFit("a b.txt", "c", "b", "m", output="o"),), (1, 2), (1, 2))
    with pytest.raises(InputError, match=r"'a b\.txt' is empty or holds blanks"):
        write_grid(tmp_path / "g", grid)
    twice = GridFit("a.txt", "c", "b", "m", output="o")
    with pytest.raises(InputError, match="two fits write 'o'"):
        write_grid(tmp_path / "g", StarlightGrid((twice, twice), (1, 2), (1, 2)))
    with pytest.raises(InputError, match="kinematics is 'FIX'"):
        StarlightGrid((), (1, 2), (1, 2), kinematics="FIX")


def test_grid_with_fewer_fits_than_promised(tmp_path):
    path = write_grid(
        tmp_path / "g", StarlightGrid((GridFit("a", "c", "b", "m", output="o"),), (1, 2), (1, 2))
    )
    path.write_text(path.read_text().replace("1 ", "3 ", 1))
    with pytest.warns(RepairWarning, match="3 fits are promised, 1 are there"):
        assert len(read_grid(path).fits) == 1
    path.write_text("\n".join(path.read_text().splitlines()[:9]))
    with pytest.raises(FileFormatError, match=r"the setting \[Olsyn_fin\] is missing"):
        read_grid(path)


def test_config_takes_settings_not_remarks(tmp_path):
    (tmp_path / "c").write_text(CONFIG)
    settings = read_config(tmp_path / "c")
    assert settings["Is1stLineHeader"] == "1"
    assert settings["llow_norm"] == "4610.0"
    (tmp_path / "d").write_text("nothing\n")
    with pytest.raises(FileFormatError, match="no STARLIGHT configuration"):
        read_config(tmp_path / "d")


@pytest.mark.parametrize(
    ("text", "value"), [("1.5", 1.5), ("1.234-101", 1.234e-101), ("-2.5D+03", -2500.0), (" 7 ", 7.0)]
)
def test_fortran_numbers(text, value):
    assert fortran_number(text) == value


@pytest.mark.parametrize("text", ["****", "", "abc", "--"])
def test_what_is_no_number_is_nan(text):
    assert np.isnan(fortran_number(text))


def test_rows_without_any_complete_one():
    assert np.isnan(number_rows(["****", "1 2"], 2)[0]).all()
    assert number_rows([], 4).size == 0


# ---------------------------------------------------------------------------------------------------- outputs


def test_output_fields(tmp_path):
    path = tmp_path / "a.out"
    path.write_text(output_text(3))
    output = read_output(path)
    assert output.ok
    assert output.values["signal_to_noise_norm"] == 14.0
    assert output.values["mass_current"] == 1e4
    assert output.tags["Ntot_cliped & clip_method"].split() == ["3", "NSIGMA"]
    assert output.population["component"].tolist() == ["age001_m62", "age002_m62", "age003_m62"]
    np.testing.assert_allclose(output.population["age"], [1e7, 1e8, 1e9] * u.yr)
    np.testing.assert_allclose(output.population["light"].to_value(u.percent), 33.3333)
    np.testing.assert_array_equal(output.weight[:5], [5, 0, -1, -2, 5])
    np.testing.assert_allclose(output.observed, 2e-18 * (1 + 0.01 * np.arange(40)))


def test_population_with_a_field_too_narrow(tmp_path):
    text = output_text(3)
    rows = text.splitlines(keepends=True)
    number = next(i for i, row in enumerate(rows) if row.startswith("  2 "))
    # x_j (12 characters from column 3 on) and Mini_j (15) overflow and touch.
    rows[number] = rows[number][:3] + "*" * 27 + rows[number][30:]
    path = tmp_path / "a.out"
    path.write_text("".join(rows))
    output = read_output(path)
    assert output.ok, output.reason
    assert np.isnan(output.population["light"][1])
    assert np.isnan(output.population["mass_initial"][1])
    assert output.population["mass_current"][1].value == 20.0
    assert output.n_invalid == 2


# ------------------------------------------------------------------------------------------------------- sets


def test_names():
    assert bin_names("NGC 863", [0, 12]) == ("NGC_863_00000", "NGC_863_00012")
    assert spaxel_names("KUG0210-078.", [23], [37]) == ("KUG0210-078._23_37",)
    with pytest.raises(InputError, match="no name"):
        bin_names("  ", [1])


def test_emission_masks_cover_their_lines_in_the_medium_asked():
    windows = emission_masks()
    assert all(low < high for low, high, _, _ in windows)
    assert all(first.high < second.low for first, second in pairwise(windows))
    halpha = next(window for window in windows if "Halpha" in window.comment)
    assert halpha.low < 6548.05 - 10 < 6583.45 + 10 < halpha.high
    vacuum = next(window for window in emission_masks(medium="vacuum") if "Halpha" in window.comment)
    assert vacuum.low - halpha.low == pytest.approx(1.81, abs=0.05)


def test_set_holds_what_starlight_needs(tmp_path):
    given = spectra()
    done = write(tmp_path / "run", given, velocity=[1.0, 2.0, 3.0])
    assert [path.name for path in done.spectra] == [f"NGC_863_{i:05d}.txt" for i in range(3)]
    grid = read_grid(done.grids[0])
    assert len(done.grids) == 1
    assert len(grid.fits) == 3
    assert grid.fit_range == (4550.0, 4950.0)
    assert [fit.velocity for fit in grid.fits] == [1.0, 2.0, 3.0]
    assert (grid.has_error, grid.has_flag) == (True, True)
    assert read_base(tmp_path / "run" / grid.fits[0].base) == BASE
    assert read_masks(tmp_path / "run" / grid.fits[0].masks) == emission_masks()
    assert done.outputs[1] == tmp_path / "run" / grid.fits[1].output


def test_masked_channels_are_flagged_and_hold_finite_numbers(tmp_path):
    given = spectra()
    found = read_spectrum(write(tmp_path, given).spectra[0])
    np.testing.assert_array_equal(found.flag >= 2, given.mask[0])
    good = ~given.mask[0]
    np.testing.assert_allclose(found.flux[good], given.data[0][good], rtol=1e-7)
    np.testing.assert_allclose(found.error, 0.5)
    # Interpolated between the neighbours, or the nearest one at the end.
    low, high = given.data[0, 39], given.data[0, 43]
    np.testing.assert_allclose(found.flux[40:43], low + (high - low) * np.array([0.25, 0.5, 0.75]), rtol=1e-7)
    np.testing.assert_allclose(found.flux[:2], given.data[0, 2], rtol=1e-7)


def test_flags_of_sky_ranges_and_repaired_channels(tmp_path):
    given = spectra(flags=np.zeros((3, 501), np.uint16))
    given.flags[1, 100] = 4
    sky = np.zeros(501, int)
    sky[200:210] = 3
    sky[41] = 3
    found = read_spectrum(write(tmp_path, given, flags=sky).spectra[1])
    assert set(np.flatnonzero(found.flag == 3)) == {41, *range(200, 210)}
    assert np.flatnonzero(found.flag == 1).tolist() == [100]
    assert np.flatnonzero(found.flag == 2).tolist() == [40, 42]
    # What lies under a sky line is a measurement, and stays.
    np.testing.assert_allclose(found.flux[200:210], given.data[1, 200:210], rtol=1e-7)


def test_fits_are_spread_over_grids(tmp_path):
    done = write(tmp_path, spectra(7), n_grids=3)
    sizes = [len(read_grid(path).fits) for path in done.grids]
    assert sizes == [3, 2, 2]
    listed = {fit.spectrum for path in done.grids for fit in read_grid(path).fits}
    assert listed == {path.name for path in done.spectra}


def test_dead_spectrum_is_named_and_left_out(tmp_path):
    given = spectra()
    given.mask[1] = True
    done = write(tmp_path, given)
    assert done.left_out == {"NGC_863_00001": "no usable channel in the fit range"}
    assert done.ids == (0, 2)
    assert len(read_grid(done.grids[0]).fits) == 2


def test_title_line_as_the_configuration_says(tmp_path):
    (tmp_path / "my.config").write_text(CONFIG)
    done = write(tmp_path / "run", config=tmp_path / "my.config")
    assert "erg" in read_spectrum(done.spectra[0]).header
    assert (tmp_path / "run" / "my.config").read_text() == CONFIG
    assert read_spectrum(write(tmp_path / "other").spectra[0]).header == ""


def test_same_input_same_files(tmp_path):
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    for one, other in zip(first.spectra + first.grids, second.spectra + second.grids, strict=True):
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({"meta": {}}, {}, "not known to be at rest.*to_rest_frame"),
        ({"medium": "vacuum"}, {}, "wavelengths are in vacuum"),
        (
            {"wave": 4500 + 1.25 * np.arange(501)},
            {},
            r"not sampled evenly by 1 A.*resample\(spectra, step=1\)",
        ),
        ({"wave": 4500 * np.exp(np.arange(501) / 4750)}, {}, "not sampled evenly"),
        ({}, {"signal_to_noise_window": (6000.0, 6050.0)}, "does not lie in the spectra"),
        ({}, {"fit_range": (4400.0, 4900.0)}, "fit_range 4400-4900 A does not lie in the spectra"),
        ({}, {"n_grids": 0}, "n_grids is 0"),
        ({}, {"flags": np.zeros(7, int)}, "flags are"),
    ],
)
def test_set_refuses_what_would_be_fitted_wrongly(changes, arguments, message, tmp_path):
    with pytest.raises(InputError, match=message):
        write(tmp_path, spectra(**changes), **arguments)
    assert not list(tmp_path.glob("grid*"))


def test_normalisation_window_of_the_configuration_is_checked(tmp_path):
    (tmp_path / "my.config").write_text(CONFIG.replace("4660.0", "5660.0"))
    with pytest.raises(InputError, match="normalisation window of the configuration 4610-5660 A"):
        write(tmp_path / "run", config=tmp_path / "my.config")


def test_names_must_differ(tmp_path):
    with pytest.raises(InputError, match="'a' occurs twice"):
        write_starlight_set(tmp_path, spectra(2), ["a", "a"], config="c", base=BASE)
    with pytest.raises(ShapeError, match="1 names for 2 spectra"):
        write_starlight_set(tmp_path, spectra(2), ["a"], config="c", base=BASE)


def test_an_older_set_is_not_mixed_in(tmp_path):
    write(tmp_path, n_grids=3)
    with pytest.raises(InputError, match="holds a set already"):
        write(tmp_path)
    assert len(write(tmp_path, overwrite=True).grids) == len(list(tmp_path.glob("grid_*.in"))) == 1
