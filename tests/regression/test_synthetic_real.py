"""Synthetic images with the curves of real filters, of a real cube and of a mock that covers what MUSE does not."""

from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.synthetic import naive_means

from skyloom.core.bandpass import Bandpass
from skyloom.errors import AssumptionWarning
from skyloom.io.cubes.files import open_cube
from skyloom.mock.cubes.cubes import observe_cube
from skyloom.mock.cubes.spectrographs import muse
from skyloom.mock.scenes.galaxies import rotating_disc
from skyloom.mock.scenes.render import paint_each
from skyloom.spectral.bands.synthetic import synthetic_image, synthetic_images

pytestmark = pytest.mark.data


def curve(data_dir, name):
    rows = np.loadtxt(data_dir / "filters" / "sedpy_par" / f"{name}.par")
    return Bandpass(rows[:, 0], rows[:, 1], name)


def test_f814w_of_abell_478(data_dir, recwarn):
    """WFPC2 has another F814W than ACS; the nearest curve there is."""
    band = curve(data_dir, "acs_wfc_f814w")
    cube = open_cube(data_dir / "muse" / "A478_cut_core_20x20.fits")
    assert all(issubclass(item.category, AssumptionWarning) for item in recwarn)
    images = {
        beyond: synthetic_images(cube, [band], beyond=beyond, slab_bytes=1 << 20)[band.name]
        for beyond in ("slope", "constant", "none")
    }
    image = images["slope"]
    assert image.valid.all()
    snr = image.data / np.sqrt(image.variance)
    assert 0.953 < image.meta["covered_fraction"] < 0.955
    assert 50 < np.median(snr) < 2000
    assert abs(image.meta["correction"] - 1) < 0.02
    assert 0 < image.meta["correction_error"] < 0.01
    whole = cube.read()
    few = (slice(None), slice(3, None, 6), slice(3, None, 6))
    part = whole.evolve(data=whole.data[few], variance=whole.variance[few], mask=whole.mask[few], lsf=None)
    mean, variance = naive_means(part, band)
    # The leaks of the curve at both ends are left out of the image.
    np.testing.assert_allclose(images["none"].data[few[1:]], mean, rtol=2e-4)
    np.testing.assert_allclose(images["none"].variance[few[1:]], variance, rtol=1e-3)
    corrected = image.data.sum() / images["none"].data.sum()
    assert corrected == pytest.approx(image.meta["correction"], abs=1e-3)


def test_a_narrow_band_on_the_nebula_shows_it(data_dir, recwarn):
    """Halpha and [N II] at z = 0.0885 are in 7122-7152 A (air); the band beside them has none."""
    cube = open_cube(data_dir / "muse" / "A478_cut_core_20x20.fits")
    on = Bandpass.tophat(7137.0, 60.0, edge=6.0, name="on", medium="air")
    off = Bandpass.tophat(7237.0, 60.0, edge=6.0, name="off", medium="air")
    images = synthetic_images(cube, [on, off])
    excess = images["on"].data - images["off"].data
    error = np.sqrt(images["on"].variance + images["off"].variance)
    assert np.median(excess / error) > 20


def test_what_muse_does_not_cover(data_dir):
    """A disc of stars and nebulae at z = 0.01 through F814W and F555W, of which 4.6 % and 2.0 % lie outside.

    Without a correction the sums are 0.6 and 0.3 % too high, with that of the slope 0.00 and 0.12 %.
    """
    scene = rotating_disc(surface_brightness=20.0, n_nebulae=10)
    spectrograph = muse()
    observation = observe_cube(scene, spectrograph, (12, 12), seed=1, noise=0, sky_residuals=False)
    for name in ("acs_wfc_f814w", "acs_wfc_f555w", "acs_wfc_f625w"):
        band = curve(data_dir, name)
        psf = spectrograph.psf.at(band.photon_mean)
        shares = paint_each(
            scene.offsets, scene.covariance, scene.centre, observation.model.wcs, (12, 12), psf
        )
        truth = np.tensordot(scene.band_fluxes(band), shares, 1) / spectrograph.flux_unit
        bias = {}
        for beyond in ("slope", "constant", "none"):
            image = synthetic_image(observation.cube, band, beyond=beyond)
            bias[beyond] = float(image.data.sum() / truth.sum() - 1)
            claimed = image.meta["correction_error"]
            # 0.03 % are the A of air.
            assert beyond == "none" or abs(bias[beyond]) < 3 * claimed + 1e-3
        assert abs(bias["slope"]) < 0.002
        assert abs(bias["slope"]) <= abs(bias["none"]) + 1e-9
