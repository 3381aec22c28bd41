"""The flux of a line from the excess of a narrow band."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest

from skyloom.core.bandpass import Bandpass
from skyloom.core.image import Image, Mode
from skyloom.core.linelist import default_lines
from skyloom.errors import AssumptionWarning, InputError, ShapeError, UnitError
from skyloom.imaging.narrow_band.line_flux import line_flux
from tests.grids import tangent_wcs
from tests.oracles.continuum import UNIT

SHAPE = (6, 8)
REDSHIFT = 0.0022
BAND = Bandpass(
    np.array([6530.0, 6550.0, 6570.0, 6590.0, 6610.0, 6640.0]),
    np.array([0, 0.1, 0.25, 0.27, 0.2, 0]),
    "F658N",
)


def excess_image(data, variance=0.01, **fields):
    plane = np.asarray(data, dtype=fields.pop("dtype", np.float64))
    return Image(
        plane, np.full_like(plane, variance), fields.pop("mask", None), UNIT, tangent_wcs(SHAPE), **fields
    )


def seen(flux, ratio):
    """Mean flux density of three lines, integrated as spikes one tenth of an Angstrom wide."""
    total = np.zeros(np.broadcast(flux, ratio).shape)
    for key, share in (("Halpha", 1.0), ("NII6583", ratio), ("NII6548", ratio / 3.05)):
        centre = default_lines()[key].rest_vacuum * (1 + REDSHIFT)
        wave = np.concatenate([BAND.wave, centre + np.array([-0.0501, -0.05, 0.05, 0.0501])])
        wave.sort()
        spike = np.interp(
            wave, centre + np.array([-0.0501, -0.05, 0.05, 0.0501]), [0, 10, 10, 0], left=0, right=0
        )
        total = total + flux * share * float(BAND.mean_flux_density(wave, spike / np.trapezoid(spike, wave)))
    return total


@pytest.mark.parametrize("as_map", [False, True])
def test_the_flux_of_a_spectrum_of_three_lines_comes_back(rng, as_map):
    flux = rng.uniform(1.0, 5.0, SHAPE)
    ratio = rng.uniform(0.2, 1.2, SHAPE) if as_map else 0.4
    found = line_flux(excess_image(seen(flux, ratio)), BAND, REDSHIFT, ratio)
    np.testing.assert_allclose(found.data, flux, rtol=1e-4)
    assert found.unit == u.Unit("1e-20 erg / (s cm2 arcsec2)")
    factor = found.data / seen(flux, ratio)
    np.testing.assert_allclose(found.variance, 0.01 * factor**2)
    assert found.history[-1].parameters["line"] == "Halpha"
    assert found.meta["line"] == "Halpha"


def test_the_error_of_the_ratio_is_shared(rng):
    data = rng.uniform(1.0, 5.0, SHAPE)
    image = excess_image(data, modes=(Mode("sky", 1.0, 0.3), Mode("slope", data.copy(), 0.02)))
    up, down = (line_flux(image, BAND, REDSHIFT, 0.4 + step).data for step in (1e-5, -1e-5))
    derivative = (up - down) / 2e-5
    found = line_flux(image, BAND, REDSHIFT, 0.4, nii_ratio_err=0.05)
    sky, slope, ratio = found.modes
    np.testing.assert_allclose(ratio.map * ratio.sigma, 0.05 * derivative, rtol=1e-5)
    assert sky.map == pytest.approx(found.data[0, 0] / data[0, 0])
    np.testing.assert_allclose(slope.map, found.data)
    assert [mode.name for mode in found.modes] == ["sky", "slope", "NII6583/Halpha"]
    wcs = image.wcs
    error = rng.uniform(0.01, 0.1, SHAPE)
    plane = Image(np.full(SHAPE, 0.4), error**2, None, "", wcs, modes=(Mode("anchor", 0.4, 0.02),))
    *_, own, anchor = line_flux(image, BAND, REDSHIFT, plane).modes
    np.testing.assert_allclose(own.map * own.sigma, error * derivative, rtol=1e-5)
    np.testing.assert_allclose(anchor.map * anchor.sigma, 0.4 * 0.02 * derivative, rtol=1e-5)


def test_where_the_ratio_is_not_known_the_flux_is_not(rng):
    ratio = np.full(SHAPE, 0.4)
    ratio[2, 2] = np.nan
    mask = np.zeros(SHAPE, bool)
    mask[0] = True
    data = rng.uniform(1.0, 5.0, SHAPE).astype(np.float32)
    found = line_flux(
        excess_image(data, mask=mask, dtype=np.float32), BAND, REDSHIFT, ratio, nii_ratio_err=0.1
    )
    assert found.mask[2, 2]
    assert found.mask.sum() == 9
    assert found.data.dtype == found.variance.dtype == np.float32
    assert np.isfinite(found.modes[0].map).all()
    assert found.history[-1].parameters["n_without_ratio"] == 1
    assert not mask[2, 2]


def test_an_error_may_be_unknown_where_the_ratio_is(rng):
    ratio, error = np.full(SHAPE, 0.4), np.full(SHAPE, 0.1)
    ratio[2, 2] = error[2, 2] = np.nan
    image = excess_image(rng.uniform(1.0, 5.0, SHAPE))
    (mode,) = line_flux(image, BAND, REDSHIFT, ratio, nii_ratio_err=error).modes
    assert np.isfinite(mode.map).all()
    assert mode.map[2, 2] == 0.0
    masked = Image(ratio, error**2, np.isnan(ratio), "", image.wcs, modes=(Mode("anchor", error, 0.2),))
    for mode in line_flux(image, BAND, REDSHIFT, masked).modes:
        assert np.isfinite(mode.map).all()
    error[1, 1] = np.nan
    with pytest.raises(InputError, match="error of the ratio is nan"):
        line_flux(image, BAND, REDSHIFT, ratio, nii_ratio_err=error)


def test_a_ratio_in_percent_is_a_ratio_and_a_flux_is_none(rng):
    image = excess_image(rng.uniform(1.0, 5.0, SHAPE))
    plain = Image(
        np.full(SHAPE, 0.4), np.full(SHAPE, 1e-4), None, "", image.wcs, modes=(Mode("a", 1.0, 0.02),)
    )
    percent = Image(
        np.full(SHAPE, 40.0), np.full(SHAPE, 1.0), None, "percent", image.wcs, modes=(Mode("a", 1.0, 2.0),)
    )
    first, second = (line_flux(image, BAND, REDSHIFT, ratio) for ratio in (plain, percent))
    np.testing.assert_allclose(second.data, first.data)
    for mine, its in zip(first.modes, second.modes, strict=True):
        np.testing.assert_allclose(its.map * its.sigma, mine.map * mine.sigma)
    with pytest.raises(UnitError, match="ratio map of NII6583 is in erg"):
        line_flux(image, BAND, REDSHIFT, plain.evolve(unit="erg / (s cm2)"))


def test_without_a_ratio_nitrogen_is_left_in_and_said():
    image = excess_image(np.ones(SHAPE))
    with pytest.warns(AssumptionWarning, match="F658N sees .N II. with 1.*Halpha and .N II. together"):
        both = line_flux(image, BAND, REDSHIFT)
    wave = default_lines()["Halpha"].rest_vacuum * (1 + REDSHIFT)
    np.testing.assert_allclose(both.data, BAND.line_width(wave))
    narrow = Bandpass.tophat(wave, 10.0, name="slim")
    # A band that sees Halpha alone needs no ratio.
    np.testing.assert_allclose(line_flux(image, narrow, REDSHIFT).data, narrow.line_width(wave))
    oxygen = Bandpass.tophat(5010.0, 40.0)
    found = line_flux(image, oxygen, 0.0, line="OIII5007")
    np.testing.assert_allclose(found.data, oxygen.line_width(default_lines()["OIII5007"].rest_vacuum))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"redshift": 0.02}, InputError, r"F658N: redshift: Halpha lies at 6695.9 A .* 6530-6640 A"),
        ({"redshift": np.inf}, InputError, "redshift is inf"),
        ({"nii_ratio": -0.1}, InputError, "NII6583 is -0.1"),
        ({"nii_ratio": np.ones((2, 2))}, ShapeError, r"\(2, 2\); expected \(6, 8\)"),
        ({"nii_ratio_err": np.ones((2, 2))}, ShapeError, r"error of the ratio has shape \(2, 2\)"),
        ({"nii_ratio_err": -0.1}, InputError, "error of the ratio is -0.1"),
        ({"line": "OIII5007", "nii_ratio": None}, InputError, "OIII5007 lies at"),
        ({"line": "NII6583"}, InputError, "ratio is given for NII6583"),
        ({"line": "Ha", "nii_ratio": None}, InputError, "not in the line list"),
    ],
)
def test_bad_input_is_refused(options, error, message):
    given = {"redshift": REDSHIFT, "nii_ratio": 0.4, **options}
    with pytest.raises(error, match=message):
        line_flux(excess_image(np.ones(SHAPE)), BAND, given.pop("redshift"), given.pop("nii_ratio"), **given)
