"""Line keys, rest wavelengths, and air against vacuum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from specutils.utils.wcs_utils import vac_to_air

from skyloom.core.linelist import Line, LineList, air_to_vacuum, convert_medium, default_lines, vacuum_to_air
from skyloom.errors import FileFormatError, InputError


def test_vacuum_to_air_agrees_with_specutils() -> None:
    import astropy.units as u

    wave = np.linspace(2100.0, 25000.0, 200)
    peer = vac_to_air(wave * u.AA, method="Ciddor1996").to_value(u.AA)
    np.testing.assert_allclose(vacuum_to_air(wave), peer, rtol=1e-9)


@given(st.floats(2001.0, 30000.0))
def test_air_and_vacuum_are_inverse(wave: float) -> None:
    assert float(vacuum_to_air(air_to_vacuum(wave))) == pytest.approx(wave, abs=1e-9)
    assert float(air_to_vacuum(vacuum_to_air(wave + 1))) == pytest.approx(wave + 1, abs=1e-9)


def test_the_far_ultraviolet_is_always_in_vacuum() -> None:
    assert vacuum_to_air(1215.67) == 1215.67
    assert air_to_vacuum(1215.67) == 1215.67


def test_convert_medium() -> None:
    np.testing.assert_array_equal(convert_medium([5000.0], "air", "air"), [5000.0])
    assert convert_medium(5000.0, "vacuum", "air") < 5000.0 < convert_medium(5000.0, "air", "vacuum")
    with pytest.raises(InputError, match="ether"):
        convert_medium(5000.0, "ether", "air")  # type: ignore[arg-type]


def test_keys_carry_the_wavelength_in_air() -> None:
    for line in default_lines():
        digits = "".join(character for character in line.key if character.isdigit())
        if digits:
            assert abs(line.rest_air - int(digits)) < 1.0, line


@pytest.mark.parametrize(
    ("key", "air"),
    [
        ("Halpha", 6562.80),
        ("Hbeta", 4861.33),
        ("OIII5007", 5006.84),
        ("NII6583", 6583.45),
        ("SII6716", 6716.44),
        ("OII3726", 3726.03),
        ("OII3729", 3728.82),
        ("NaD5889", 5889.95),
    ],
)
def test_rest_wavelengths_in_air(key: str, air: float) -> None:
    assert default_lines()[key].rest("air") == pytest.approx(air, abs=0.03)


def test_an_unknown_key_suggests_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'Halpha'"):
        default_lines()["halfa"]
    with pytest.raises(InputError, match="known are"):
        default_lines().select(["x"])


def test_lists_are_sorted_selected_and_counted() -> None:
    lines = default_lines().select(["Halpha", "Hbeta"])
    assert lines.keys == ("Hbeta", "Halpha")
    assert len(lines) == 2
    assert "Halpha" in lines
    assert np.all(np.diff(lines.wavelengths("air")) > 0)
    with pytest.raises(InputError, match="more than once: Halpha"):
        LineList((Line("Halpha", 6564.6), Line("Halpha", 6564.7)))


def test_text_lists() -> None:
    lines = LineList.from_text("# mine\n\nOI5577 5578.89 emission [O I]  # sky\nDIB5780 5782.1 absorption")
    assert lines["OI5577"] == Line("OI5577", 5578.89, "[O I]")
    assert lines["DIB5780"].kind == "absorption"
    with pytest.raises(FileFormatError, match="row 2"):
        LineList.from_text("a 1 emission\nb wide emission")
    with pytest.raises(InputError, match="kind is 'wide'"):
        LineList.from_text("a 1 wide")


def test_ties_of_a_list_name_lines_of_the_same_group():
    lines = default_lines()
    assert len(lines) >= 41
    for line in lines:
        for other in (line.tied, line.bounds):
            if other is not None:
                assert lines[other[0]].group == line.group != ""
    # Fixed by atomic physics: about 1 to 3 for the doublets that share their upper level.
    for key in ("OIII4959", "NII6548", "OI6363"):
        assert lines[key].tied[1] == pytest.approx(1 / 3, abs=0.02)


def test_options_of_a_row_are_read():
    text = "A 5000.0 emission [X I] ; group=g\nB 5010.0 emission [X I] ; group=g tied=A:0.5 bounds=A:0.1:2"
    lines = LineList.from_text(text)
    assert (lines["B"].tied, lines["B"].bounds, lines["B"].species) == (("A", 0.5), ("A", 0.1, 2.0), "[X I]")


@pytest.mark.parametrize("option", ["tied=A", "tied=A:x", "bounds=A:1", "colour=red", "group="])
def test_an_option_that_cannot_be_read_names_its_row(option):
    with pytest.raises(FileFormatError, match="row 2"):
        LineList.from_text(f"A 5000 emission\nB 5010 emission x ; {option}")


def test_senseless_ratios_are_refused():
    with pytest.raises(InputError, match="ratio"):
        Line("B", 5000.0, tied=("A", -1.0))
    with pytest.raises(InputError, match="range"):
        Line("B", 5000.0, bounds=("A", 2.0, 1.0))
