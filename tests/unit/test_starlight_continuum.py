"""Results of STARLIGHT as continua: on which grid, in which frame, and what is flagged."""

from __future__ import annotations

from pathlib import Path

import astropy.units as u
import numpy as np
import pytest

from skyloom.core.continuum import ContinuumFlag
from skyloom.core.linelist import air_to_vacuum
from skyloom.core.spectra import Spectra
from skyloom.core.templates import TemplateLibrary
from skyloom.errors import InputError, ShapeError
from skyloom.io.starlight.continuum import read_starlight_continuum
from tests.unit.starlight_texts import output_text

N = 40
NORM = 2e-18  # of the text


def at_rest(n: int = 1, **changes: object) -> Spectra:
    """The spectra that the results of `output_text` were made from: 1 + 0.01 i in units of NORM."""
    data = np.tile(NORM * (1 + 0.01 * np.arange(N)), (n, 1))
    values: dict = {
        "data": data,
        "variance": np.full((n, N), (0.1 * NORM) ** 2),
        "mask": np.zeros((n, N), bool),
        "unit": "erg / (s cm2 AA)",
        "wave": 4000.0 + np.arange(N),
        "medium": "air",
        "lsf": 1.2,
        "meta": {"redshift_applied": 0.0},
    }
    return Spectra(**(values | changes))


def base(**changes: object) -> TemplateLibrary:
    values: dict = {
        "wave": np.linspace(3500.0, 5000.0, 16),
        "medium": "air",
        "flux": np.ones((2, 16)),
        "age": [0.01, 0.1],
        "metallicity": [0.0, 0.0],
        "fwhm": 2.0,
        "name": "base",
    }
    return TemplateLibrary(**(values | changes))


@pytest.fixture
def write(tmp_path: Path):
    def written(text: str, number: int = 0) -> Path:
        path = tmp_path / f"bin_{number:05d}.out"
        path.write_text(text)
        return path

    return written


def test_a_result_on_the_grid_it_was_made_on(write) -> None:
    fit = read_starlight_continuum([write(output_text())], at_rest(), templates=base())
    np.testing.assert_allclose(fit.model, NORM, rtol=1e-6)
    assert fit.model.dtype == np.float64  # the square of 1e-20 is lost in single precision
    assert fit.unit == u.Unit("erg / (s cm2 AA)")
    np.testing.assert_array_equal(fit.flags, 0)
    assert fit.reasons == ("",)
    assert (fit.velocity[0], fit.av[0], fit.chi2_dof[0]) == (-35.5, 0.4, 1.25)
    assert np.isnan([fit.velocity_err[0], fit.sigma_err[0], fit.av_err[0]]).all()
    np.testing.assert_allclose(fit.age, [0.01, 0.1])
    np.testing.assert_allclose(fit.metallicity, 0.0)
    np.testing.assert_allclose(fit.light_fractions, [[0.5, 0.5]])
    np.testing.assert_allclose(fit.mean_age, 7.5)
    assert (fit.weight_kind, fit.backend, fit.templates) == ("light", "starlight", "base")
    assert fit.n_used[0] == N - 3
    # Two populations and three other parameters over the channels that were fitted.
    np.testing.assert_allclose(fit.variance, 1.25 * 5 / (N - 3) * (0.1 * NORM) ** 2, rtol=1e-6)
    assert fit.meta["starlight"]["dispersion"] == [120.25]
    assert len(fit.table) == 1


def test_the_dispersion_is_that_of_the_stars(write) -> None:
    """STARLIGHT's width holds the spectrograph and lacks the templates' own."""
    fit = read_starlight_continuum([write(output_text())], at_rest(), templates=base())
    kms = 299792.458 / (4000.0 + np.arange(N))
    expected = np.sqrt(120.25**2 - np.median((kms * 1.2) ** 2 - (kms * 2.0 / 2.3548200450309493) ** 2))
    np.testing.assert_allclose(fit.sigma, expected, rtol=1e-6)
    assert abs(fit.sigma[0] - 120.25) > 5
    for unknown in ({"templates": None}, {}):
        spectra = at_rest(lsf=None) if unknown == {} else at_rest()
        options = unknown or {"templates": base()}
        assert np.isnan(read_starlight_continuum([write(output_text())], spectra, **options).sigma).all()
    narrow = read_starlight_continuum([write(output_text())], at_rest(lsf=5.0), templates=base())
    assert narrow.sigma[0] == 0.0
    assert narrow.flags[0] == ContinuumFlag.UNRESOLVED


def test_other_grids_and_frames(write) -> None:
    """Native pixels, observed at z = 0.1, in vacuum: the same continuum, thinner by 1 + z."""
    z = 0.1
    rest = np.arange(4002.0, 4037.0, 1.7)
    wave = air_to_vacuum(rest * (1 + z))
    data = NORM * (1 + 0.01 * (rest - 4000.0)) / (1 + z)
    spectra = Spectra(
        data[np.newaxis], np.full((1, rest.size), NORM**2), np.zeros((1, rest.size), bool),
        "erg / (s cm2 AA)", wave, "vacuum",
    )  # fmt: skip
    fit = read_starlight_continuum([write(output_text())], spectra, redshift=z)
    np.testing.assert_allclose(fit.model, NORM / (1 + z), rtol=1e-6)
    assert fit.redshift[0] == z
    assert fit.medium == "vacuum"
    assert fit.flags[0] == 0


def test_beyond_the_result_there_is_no_model(write) -> None:
    wave = 3990.0 + np.arange(N)
    spectra = at_rest(wave=wave, data=(NORM * (1 + 0.01 * (wave - 4000.0)))[np.newaxis])
    fit = read_starlight_continuum([write(output_text())], spectra)
    np.testing.assert_array_equal(np.isnan(fit.model[0]), wave < 4000.0)
    np.testing.assert_array_equal(np.isnan(fit.variance[0]), wave < 4000.0)
    assert fit.flags[0] == ContinuumFlag.PARTLY_COVERED


def test_stars_in_a_number_are_no_absorption(write) -> None:
    text = output_text().replace(" 4010.00    1.10000   1.00000", " 4010.00    1.10000**********")
    assert text != output_text()
    fit = read_starlight_continuum([write(text)], at_rest())
    assert np.isnan(fit.model[0, 10])
    np.testing.assert_allclose(np.delete(fit.model[0], 10), NORM, rtol=1e-6)


def test_what_failed_is_flagged_and_the_rest_is_kept(write, tmp_path: Path) -> None:
    whole = output_text()
    paths = [
        write("aborted run\n", 0),
        write(whole, 1),
        tmp_path / "absent.out",
        write(whole[: len(whole) // 2], 3),
        write(output_text(n_base=3), 4),
        write(output_text(fobs_norm="3.000000E-18"), 5),
    ]
    fit = read_starlight_continuum(paths, at_rest(len(paths)))
    np.testing.assert_array_equal(fit.usable, [False, True, False, False, False, False])
    for row, words in (
        (0, "aborted"),
        (2, "missing"),
        (3, "aborted"),
        (4, "3 populations"),
        (5, "another spectrum"),
    ):
        assert fit.flags[row] == ContinuumFlag.FAILED
        assert words in fit.reasons[row]
        assert np.isnan(fit.model[row]).all()
        assert np.isnan([fit.velocity[row], fit.av[row], fit.mean_age[row]]).all()
    np.testing.assert_allclose(fit.model[1], NORM, rtol=1e-6)
    assert fit.history[-1].parameters["n_failed"] == 5


def test_nothing_finished_is_no_error(write) -> None:
    fit = read_starlight_continuum([write("\n")], at_rest())
    assert not fit.usable.any()
    assert np.isnan(fit.mean_age).all()
    assert read_starlight_continuum([write("\n")], at_rest(), templates=base()).age.size == 2


def test_bad_calls(write) -> None:
    path = write(output_text())
    with pytest.raises(ShapeError, match="1 results for 2 spectra"):
        read_starlight_continuum([path], at_rest(2))
    with pytest.raises(InputError, match="not the base"):
        read_starlight_continuum([path], at_rest(), templates=base(age=[1.0, 2.0]))
