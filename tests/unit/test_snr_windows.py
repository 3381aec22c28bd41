"""Widths in three units; windows that keep clear of other lines and of the ends of the axis."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest

from skyloom.core.linelist import Line, LineList, default_lines
from skyloom.errors import InputError, UnitError
from skyloom.spectral.axes.widths import LIGHT, channel_edges, width_in_angstrom, width_in_channels
from skyloom.spectral.signal.windows import channels_needed, measured_lines, plan_windows, unite

WAVE = 4750.0 + 1.25 * np.arange(3681)
KNOWN = default_lines()
HALPHA = KNOWN["Halpha"].rest("air")


def plan(line="Halpha", stretch=1.0, **options):
    return plan_windows(WAVE, "air", line, stretch, **{"line_sigma": 1.3, **options})


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (5.0, 5.0),
        (5, 5.0),
        ("25 px", 31.25),
        ("25 pix", 31.25),
        ("4 channels", 5.0),
        ("5 AA", 5.0),
        ("5 A", 5.0),
        ("5", 5.0),
        ("0.5 nm", 5.0),
        ("200 km/s", 6000 * 200 / LIGHT),
        (25 * u.pix, 31.25),
        (5 * u.AA, 5.0),
        (200 * u.km / u.s, 6000 * 200 / LIGHT),
        (2e5 * u.m / u.s, 6000 * 200 / LIGHT),
    ],
)
def test_widths_in_every_unit(width, expected):
    assert width_in_angstrom(width, WAVE, 6000.0, "half_width") == pytest.approx(expected)
    assert width_in_channels(width, WAVE, 6000.0, "half_width") == round(expected / 1.25)


def test_a_pixel_of_a_logarithmic_axis_is_the_one_at_the_line():
    wave = 10 ** (3.5589 + 1e-4 * np.arange(4000))
    assert width_in_angstrom("1 px", wave, 6563.0, "half_width") == pytest.approx(6563 * np.log(10) * 1e-4)


@pytest.mark.parametrize("width", ["5 Jy", 5 * u.Jy, "5 parsnips"])
def test_a_width_in_another_unit_is_refused(width):
    with pytest.raises(UnitError, match="half_width"):
        width_in_angstrom(width, WAVE, 6000.0, "half_width")


@pytest.mark.parametrize("width", ["wide", -1.0, 0.0, float("nan"), np.array([1.0, 2.0]), [1.0] * u.AA, None])
def test_what_is_no_width_is_refused(width):
    with pytest.raises(InputError, match="half_width"):
        width_in_angstrom(width, WAVE, 6000.0, "half_width")


def test_edges_lie_half_way():
    np.testing.assert_allclose(channel_edges([1.0, 2.0, 4.0]), [0.5, 1.5, 3.0, 5.0])
    with pytest.raises(InputError, match="1 channels"):
        channel_edges([5000.0])


def test_unite():
    np.testing.assert_array_equal(unite([[5, 7], [1, 3], [2, 4], [4, 4.5]]), [[1, 4.5], [5, 7]])
    assert unite(np.zeros((0, 2))).shape == (0, 2)


def test_lines_by_key_wavelength_and_object():
    keys, rests = measured_lines(["NII6583", HALPHA - 100.0, Line("mine", 6000.0)], "air")
    assert keys == ("mine", "6462.82", "NII6583")
    np.testing.assert_allclose(
        rests, [Line("mine", 6000.0).rest_air, HALPHA - 100, KNOWN["NII6583"].rest_air]
    )
    # the same line twice is one line
    assert measured_lines(["Halpha", HALPHA], "air")[0] == ("Halpha",)
    assert measured_lines("Halpha", "vacuum")[1][0] == pytest.approx(6564.632)


@pytest.mark.parametrize(
    ("line", "message"),
    [("Halfa", "did you mean 'Halpha'"), (-3.0, "-3"), ([], "no line"), ([None], "no line"), (np.nan, "nan")],
)
def test_what_is_no_line_is_refused(line, message):
    with pytest.raises(InputError, match=message):
        measured_lines(line, "air")


def test_default_window_is_three_sigma_and_the_allowance():
    window = plan("OIII5007").line[0]
    rest = KNOWN["OIII5007"].rest("air")
    np.testing.assert_allclose(window, rest + np.array([-1, 1]) * (3 * 1.3 + rest * 200 / LIGHT))


def test_default_window_ends_half_way_to_the_next_line():
    window = plan("Halpha", line_sigma=2.0).line[0]
    assert window[0] == pytest.approx(0.5 * (HALPHA + KNOWN["NII6548"].rest("air")))
    assert window[1] == pytest.approx(0.5 * (HALPHA + KNOWN["NII6583"].rest("air")))
    # a width that was asked for is taken as it is
    wide = plan("Halpha", half_width=12.0).line[0]
    np.testing.assert_allclose(wide, [HALPHA - 12, HALPHA + 12])


def test_windows_are_asked_for_on_the_axis_of_the_cube():
    stretch = 1.2
    np.testing.assert_allclose(
        plan("Halpha", stretch, half_width=12.0).line[0] * stretch, HALPHA * stretch + np.array([-12, 12])
    )


def test_windows_of_a_set_are_united():
    windows = plan(["Halpha", "NII6583", "NII6548"], half_width=12.0)
    assert windows.line.shape == (1, 2)
    assert windows.keys == ("NII6548", "Halpha", "NII6583")
    apart = plan(["Halpha", "SII6716"], half_width=3.0)
    assert apart.line.shape == (2, 2)


@pytest.mark.parametrize("line", ["Halpha", "SII6716", "Hbeta", "OIII5007", ["SII6716", "SII6730"], "NI5200"])
def test_continuum_keeps_clear_of_other_lines(line):
    windows = plan(line)
    measured = measured_lines(line, "air")[1]
    for other in KNOWN:
        rest = other.rest("air")
        if np.abs(rest - measured).min() < 1.0:
            continue
        for low, high in windows.sides:
            assert not low - 3 * 1.3 < rest < high + 3 * 1.3, other.key
    assert np.diff(windows.sides, axis=1).sum() >= 59.0
    below = windows.sides[windows.sides[:, 1] < measured.min()]
    assert np.diff(below, axis=1).sum() >= 29.5


def test_continuum_by_two_distances_leaves_other_lines_out():
    windows = plan("Halpha", continuum=("12 AA", "60 AA"))
    assert windows.sides[0, 0] == pytest.approx(HALPHA - 60)
    assert windows.sides[-1, 1] == pytest.approx(HALPHA + 60)
    bare = plan("Halpha", continuum=("12 AA", "60 AA"), lines=LineList((KNOWN["Halpha"],)))
    np.testing.assert_allclose(bare.sides, HALPHA + np.array([[-60, -12], [12, 60]]))


def test_continuum_windows_are_taken_as_they_are():
    windows = plan("Halpha", 1.1, continuum=[[6500, 6530], [6600, 6640], [6620, 6650]])
    np.testing.assert_allclose(windows.sides, [[6500, 6530], [6600, 6650]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"continuum": [[6550, 6560], [6600, 6610]]}, "overlaps the line window"),
        ({"continuum": [[1000, 1010]]}, "outside the axis"),
        ({"continuum": ("40 AA", "10 AA")}, "nearer distance first"),
        ({"continuum": [[6610, 6600]]}, "rest wavelength"),
        ({"continuum": "wide"}, "continuum"),
        ({"continuum": [6500, 6510, 6520]}, "rest wavelength"),
        ({"continuum": ("14 AA", "15 AA")}, "free of lines"),
        ({"half_width": 3000.0}, "axis covers"),
        ({"stretch": 1.5}, "9844.2 A; the axis covers 4749.4 to 9350.6 A"),
    ],
)
def test_windows_that_cannot_be(options, message):
    with pytest.raises(InputError, match=message):
        plan(**options)


def test_a_line_at_the_end_of_the_axis_has_no_continuum():
    wave = WAVE[(WAVE > 6400) & (WAVE < HALPHA + 20)]
    with pytest.raises(InputError, match="above the line within the axis"):
        plan_windows(wave, "air", "Halpha", 1.0, line_sigma=1.3)


@pytest.mark.parametrize("line", ["Halpha", "OIII5007", ["SII6716", "SII6730"]])
@pytest.mark.parametrize("redshift", [0.0, 0.03])
def test_channels_needed_are_enough_and_few(line, redshift):
    run = channels_needed(WAVE, "air", line, redshift, lsf=1.1)
    whole = plan_windows(WAVE, "air", line, 1 + redshift, line_sigma=1.4)
    part = plan_windows(WAVE[run], "air", line, 1 + redshift, line_sigma=1.4)
    np.testing.assert_array_equal(whole.line, part.line)
    np.testing.assert_array_equal(whole.sides, part.sides)
    assert run.stop - run.start < 200


def test_channels_needed_for_a_map_cover_all_of_it():
    one = channels_needed(WAVE, "air", "Halpha", 0.02, lsf=1.1)
    several = channels_needed(WAVE, "air", "Halpha", np.array([[0.019, 0.021], [np.nan, 0.02]]), lsf=1.1)
    assert several.start < one.start - 4
    assert several.stop > one.stop + 4
    assert channels_needed(WAVE, "air", "Halpha", 0.02, max_velocity=300.0).start < one.start - 3
    with pytest.raises(InputError, match="no finite"):
        channels_needed(WAVE, "air", "Halpha", [np.nan])


def test_channels_needed_for_the_peak_reach_its_continuum():
    run = channels_needed(WAVE, "air", "Halpha", 0.0, "peak")
    middle = int(np.abs(WAVE - HALPHA).argmin())
    assert run.start <= middle - 100
    assert run.stop > middle + 100
    assert run.stop - run.start < 210
    near = channels_needed(WAVE, "air", "Halpha", 0.0, "peak", continuum=("30 px", "50 px"))
    assert near.stop - near.start < 110
