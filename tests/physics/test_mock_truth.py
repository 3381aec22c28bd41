"""The mock against itself as an observer would see it: photometry of many noise realisations returns the truth."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.core.noise import sum_variance
from skyloom.io.templates.library import read_templates, write_templates
from skyloom.mock.hubble.bands import STEP, udf_band
from skyloom.mock.hubble.noise import draw_noise
from skyloom.mock.hubble.observe import observe
from skyloom.mock.scenes.field import FIELD_CENTRE, field_target
from skyloom.mock.scenes.images import sky_wcs
from skyloom.mock.scenes.templates import populations


@pytest.mark.parametrize("name", ["f814w", "f160w"])
def test_aperture_sums_scatter_as_their_variance_says(name: str) -> None:
    """Sums over four places, from empty sky to the centre, in 600 exposures of one galaxy."""
    band, shape, runs = udf_band(name), (48, 48), 600
    target = field_target(1, 4, size=0.06 * 48)
    wcs = sky_wcs(target.scene.centre, shape, 0.06, reference=FIELD_CENTRE)
    made = observe(target.scene, band, wcs, shape, exposure=2000.0, seed=12)
    variance, rho = made.image.variance, made.image.correlation
    noise = draw_noise(variance, band.kernel(0.06), np.random.default_rng(12), runs, step=STEP)
    boxes = (
        (slice(2, 11), slice(2, 11)),
        (slice(20, 29), slice(20, 29)),
        (slice(14, 17), slice(30, 33)),
        (24, 24),
    )
    for rows, columns in boxes:
        weights = np.zeros(shape)
        weights[rows, columns] = 1.0
        pulls = (noise * weights).sum(axis=(1, 2)) / np.sqrt(sum_variance(variance, weights, rho))
        assert abs(pulls.mean()) < 3.5 / np.sqrt(runs)
        assert pulls.std() == pytest.approx(1.0, abs=3.5 / np.sqrt(2 * runs))


def test_the_populations_serve_as_a_template_library(tmp_path) -> None:
    library = populations().library(np.arange(3600.0, 9300.0, 1.25), "air", fwhm=2.5)
    write_templates(library, tmp_path / "populations.fits")
    again = read_templates(tmp_path / "populations.fits")
    np.testing.assert_array_equal(again.flux, library.flux)
    np.testing.assert_array_equal(again.age, populations().age)
    assert again.name == "skyloom analytic"
