"""Hubble, MUSE and SDSS see the same galaxy: fluxes of their files without noise agree."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from skyloom.core.psf import GaussianPSF
from skyloom.mock.cubes.cubes import cube_model
from skyloom.mock.cubes.spectrographs import muse
from skyloom.mock.galaxy import GALAXY, SIZES, galaxy_bands, galaxy_scene
from skyloom.mock.halpha.hubble import halpha_model
from skyloom.mock.scenes.images import object_images
from skyloom.mock.sdss.field import NANOMAGGY, sdss_bandpass
from skyloom.mock.sdss.frames import EPOCHS, frame_wcs
from skyloom.mock.sdss.spectra import SDSS, fibre_fractions, observe_spectrum

SIZE = SIZES["small"]
WAVE = (5400.0, 7000.0)


@pytest.fixture(scope="module")
def seen():
    """The scene, and each telescope's model of it."""
    scene = galaxy_scene(SIZE, seed=1)
    pixels = round(SIZE.field / 0.04)
    hst = halpha_model(shape=(pixels, pixels), fwhm=0.08, saturate=False, seed=1, source=scene.near)
    # Wide enough for all of the galaxy's light, and of the wings of its PSF.
    cube = cube_model(
        scene.galaxy,
        replace(muse(WAVE), psf=GaussianPSF(0.7), pixel_scale=0.4),
        (34, 34),
        seed=1,
        sky_residuals=False,
    )
    return SimpleNamespace(scene=scene, hst=hst, cube=cube)


def cube_light(cube):
    """Flux density of the whole cube, erg s-1 cm-2 A-1."""
    return cube.truth().sum(axis=(1, 2), dtype=np.float64) * cube.spectrograph.flux_unit


def test_the_narrow_band_sees_what_the_cube_sees(seen):
    band = seen.hst.bands["f658n"]
    weights = band.bandpass.mean_weights(seen.cube.spectrograph.wave, "air")
    synthetic = float(weights @ cube_light(seen.cube))
    grid = seen.hst.wcs, seen.hst.shape
    image = object_images(seen.scene.near.scene, band.bandpass, *grid, band.psf, groups=[[GALAXY]])[0]
    assert image.sum() == pytest.approx(synthetic, rel=0.01)


def test_a_frame_in_r_sees_what_the_cube_sees(seen):
    curve = sdss_bandpass("r")
    weights = curve.mean_weights(seen.cube.spectrograph.wave, "air", minimum_coverage=0.9)
    synthetic = float(weights @ cube_light(seen.cube))
    shape = (120, 120)
    wcs = frame_wcs(EPOCHS[0], "r", shape, centre=seen.scene.field.scene.centre)
    frame = object_images(seen.scene.field.scene, curve, wcs, shape, GaussianPSF(1.3), groups=[[GALAXY]])[0]
    assert frame.sum() == pytest.approx(synthetic, rel=0.01)
    listed = seen.scene.field.table()
    row = listed[listed["label"] == GALAXY][0]
    assert row["flux_r"].value == pytest.approx(frame.sum() / curve.photflam(NANOMAGGY), rel=0.01)


def test_a_fibre_sees_what_the_scene_emits_into_it(seen):
    observed = observe_spectrum(seen.scene.field, GALAXY, SDSS, seed=1)
    place = observed.ra, observed.dec
    shares = fibre_fractions(seen.scene.field.scene, place, SDSS.diameter, GaussianPSF(1.5))
    curve = sdss_bandpass("r")
    expected = shares @ seen.scene.field.scene.band_fluxes(curve)
    synthetic = curve.mean_weights(SDSS.wave, "vacuum") @ observed.truth * 1e-17 * observed.fraction
    assert synthetic == pytest.approx(expected, rel=0.01)


def test_all_of_hubbles_bands_and_the_lines_come_from_one_scene(seen):
    halpha = float(seen.scene.galaxy.line_fluxes("Halpha").sum())
    assert np.nansum(seen.cube.line("Halpha").flux) == pytest.approx(halpha, rel=0.01)
    light = seen.hst.paint_rows(slice(0, seen.hst.shape[0]))[-1]
    assert light.sum() == pytest.approx(halpha, rel=0.01)
    fluxes = [seen.scene.galaxy.band_fluxes(band.bandpass).sum() for band in galaxy_bands()]
    assert all(flux > 0 for flux in fluxes)
