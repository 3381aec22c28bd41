"""Defects of existing pipelines for Halpha with HST and MUSE that the recipe must not repeat, one test each."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable
from astropy.wcs import WCS
from typer.testing import CliRunner

import skyloom as sl
from skyloom import cli
from skyloom.core.image import Flag, Image, Mode
from skyloom.core.units import parse_unit
from skyloom.imaging.measure.units import FLUX_DENSITY, LINE_BRIGHTNESS
from skyloom.mock.halpha.files import write_halpha_mock
from skyloom.recipes.halpha.anchor import on_grid
from skyloom.recipes.halpha.cleaning import Rays, binned
from skyloom.recipes.halpha.inputs import add_photons, measure_noise
from skyloom.recipes.halpha.products import deviation, star_formation

NAME = "spiral"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of a small mock, and a file in its folder that it did not write."""
    folder = tmp_path_factory.mktemp("findings")
    mock = write_halpha_mock(folder, seed=5, size=240, n_nebulae=40, n_stars=1, noise_free=False)
    out = folder / "out"
    (out / NAME).mkdir(parents=True)
    (out / NAME / "notes_of_the_user.txt").write_text("mine")
    options = ["--out", str(out), "--set", "cosmic_rays=none", "--set", "nebulae=none"]
    done = CliRunner().invoke(cli.app, ["run", str(mock.config), *options])
    assert done.exit_code == 0, done.output
    return mock, out / NAME


def product(finished, kind) -> Image:
    return sl.read(finished[1] / f"{NAME}_{kind}.fits")


def tangent_wcs(scale, shape=(40, 40), angle=25.0):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [24.0, 15.0], [shape[1] / 2 + 0.5, shape[0] / 2 + 0.5]
    turn = np.radians(angle)
    wcs.wcs.cd = scale / 3600 * np.array([[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return wcs


def plain(data, variance=1.0, unit="electron/s", scale=0.04, **more):
    data = np.asarray(data, dtype=np.float32)
    return Image(data, np.full_like(data, variance), None, unit, tangent_wcs(scale, data.shape), **more)


def test_the_output_folder_is_not_emptied_on_start(finished):
    assert (finished[1] / "notes_of_the_user.txt").read_text() == "mine"


def test_the_unit_says_its_factor(finished):
    """BUNIT used to lack a factor of 1e20."""
    with fits.open(finished[1] / f"{NAME}_hst_ha.fits") as hdus:
        assert parse_unit(hdus["SCI"].header["BUNIT"]) == u.Unit("1e-20 erg / (s cm2)")


def test_what_is_fitted_is_applied(finished):
    """Slope and offset of one fit, both of them, for bands and line; never the offset of a slope thrown away."""
    steps = product(finished, "anchored").history
    table = QTable.read(finished[1] / f"{NAME}_bandfit.ecsv")
    row = next(row for row in table if row["band"] == "f658n")
    used = next(step for step in steps if step.name == "apply_anchor").parameters
    assert used["slope"] == pytest.approx(row["slope"])
    assert used["offset"] == pytest.approx(row["offset"].value)
    line = QTable.read(finished[1] / f"{NAME}_linefit.ecsv")
    used = next(step for step in steps if step.name == "apply_line_anchor").parameters
    assert used["slope"] == pytest.approx(line["value"][0])
    assert used["offset"] == pytest.approx(line["value"][1])
    assert next(step for step in steps if step.name == "line_flux").parameters["nii_ratio"] > 0.05


def test_fits_have_errors(finished):
    for kind, columns in (
        ("bandfit", ("slope_err", "offset_err")),
        ("linefit", ("error",)),
        ("alignment", ("fwhm_err",)),
    ):
        table = QTable.read(finished[1] / f"{NAME}_{kind}.ecsv")
        for column in columns:
            assert np.all(np.asarray(getattr(table[column], "value", table[column])) > 0)


def test_smoothed_maps_have_errors(finished):
    image = product(finished, "halpha_smoothed")
    assert np.all(image.variance[image.valid] > 0)
    assert image.correlation is not None
    assert image.correlation.sum() > 10, "neighbours share their noise"


def test_stars_are_masked_in_the_product(finished):
    with fits.open(finished[1] / f"{NAME}_starmask.fits") as hdus:
        stars = hdus["MASK"].data.astype(bool)
    assert stars.any()
    assert product(finished, "hst_ha").mask[stars].all()
    assert product(finished, "anchored").mask[stars].all()


def test_a_faint_continuum_is_no_zero_continuum(finished):
    """Pixels whose continuum is zero or negative keep their value and an error, as all others."""
    continuum = product(finished, "cont_raw")
    negative = continuum.valid & (continuum.data <= 0)
    assert np.all(continuum.variance[continuum.valid] > 0)
    raw = product(finished, "halpha_raw")
    assert np.array_equal(raw.mask, continuum.mask)
    assert np.all(raw.variance[negative] > 0)


def test_input_files_are_not_edited(finished):
    mock, _ = finished
    for path in mock.science.values():
        header = fits.getheader(path)
        assert "PHOTFLAM" in header
        assert header["BUNIT"] == "ELECTRONS/S"


def test_the_psf_of_muse_is_fitted_with_its_error(finished):
    """It used to be parsed from the name of a file."""
    table = QTable.read(finished[1] / f"{NAME}_alignment.ecsv")
    true = finished[0].model.muse.psf.at(6580.0).fwhm
    row = next(row for row in table if row["band"] == "f658n")
    assert row["fwhm"].value == pytest.approx(true, abs=max(5 * row["fwhm_err"].value, 0.05))


def test_a_ratio_is_no_flux_on_a_finer_grid():
    """The same value in smaller pixels; beyond the map its median, with the scatter as error."""
    ratio = plain(np.full((40, 40), 0.3), 1e-4, "", scale=0.2)
    fine = plain(np.zeros((260, 260)), 1.0, FLUX_DENSITY)
    moved = on_grid(ratio, fine)
    assert not moved.mask.any()
    np.testing.assert_allclose(moved.data, 0.3, rtol=1e-5)
    assert moved.unit == u.dimensionless_unscaled


def test_binning_keeps_place_and_brightness():
    rng = np.random.default_rng(1)
    image = plain(rng.normal(5.0, 1.0, (40, 40)), 1.0, LINE_BRIGHTNESS)
    coarse = binned(image, 4)
    assert coarse.shape == (10, 10)
    np.testing.assert_allclose(coarse.data, image.data.reshape(10, 4, 10, 4).mean(axis=(1, 3)), rtol=1e-4)
    assert coarse.variance[5, 5] == pytest.approx(1 / 16, rel=1e-3)


def test_repaired_cosmic_rays_are_flagged_and_the_image_untouched():
    image = plain(np.ones((20, 20)))
    place = np.array([21, 45], dtype=np.int64)
    rays = Rays(place, np.array([3.0, np.nan]), np.array([2.0, np.nan]), 2, {}, (20, 20), image.wcs)
    repaired = rays.repair(image)
    assert repaired.data.flat[21] == 3.0
    assert repaired.variance.flat[21] == 2.0
    assert repaired.flags.flat[21] == Flag.REPAIRED_COSMIC_RAY
    assert repaired.mask.flat[45]
    assert image.data.flat[21] == 1.0
    assert not image.mask.any()


def test_noise_is_measured_on_a_galaxy_that_fills_the_field():
    """Correlated noise of known variance on a smooth disc: neither its light nor its gradient passes for noise."""
    rng = np.random.default_rng(3)
    white = rng.normal(0.0, 1.0, (402, 402))
    noise = (white[:-2, :-2] + white[1:-1, :-2] + white[:-2, 1:-1] + white[1:-1, 1:-1]) / 2.0
    y, x = np.mgrid[:400, :400]
    disc = 80.0 * np.exp(-np.hypot(x - 150, y - 220) / 130.0)
    image = plain(noise + disc)
    noise_found, level = measure_noise(image)
    # 160000 pixels, four of which share their noise, and cells whose mean is taken off.
    assert noise_found.scale == pytest.approx(1.0, abs=0.04)
    # The slope of the disc within a cell is left in all lags alike, a little stronger in near ones.
    assert noise_found.correlation.sum() == pytest.approx(4.0, rel=0.25)
    assert 0 < level < 80.0


def test_photon_noise_is_that_of_the_light_above_the_sky():
    data = np.zeros((60, 50), np.float32)
    data[20:40, 10:40] = 5.0
    image = plain(data + 2.0, correlation=np.pad(np.ones((1, 1)), 1))
    noisy = add_photons(image, 2.0, 100.0)
    assert noisy.variance[30, 25] == pytest.approx(1.0 + 5.0 / 100.0)
    assert noisy.variance[5, 5] == pytest.approx(1.0)


def test_the_error_image_has_the_shared_errors():
    image = plain(np.full((8, 8), 3.0), 4.0, "1e-20 erg/(s cm2)", modes=(Mode("offset", 1.5, 2.0),))
    np.testing.assert_allclose(deviation(image).data, np.sqrt(4.0 + 9.0), rtol=1e-6)


def test_star_formation_does_not_depend_on_the_distance():
    image = plain(np.full((8, 8), 1000.0), 4.0, LINE_BRIGHTNESS)
    near, far = star_formation(image, 5.0), star_formation(image, 50.0)
    np.testing.assert_allclose(near.data, far.data)
    # 1e-17 erg/s/cm2/arcsec2 is 1.2e39 erg/s/kpc2: 4 pi (kpc in cm)^2 (arcsec per rad)^2 1e-17.
    expected = 4 * np.pi * (3.0856775814913673e21) ** 2 * (180 * 3600 / np.pi) ** 2 * 1e-17 * 10**-41.27
    np.testing.assert_allclose(near.data, expected, rtol=1e-5)
