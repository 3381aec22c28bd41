"""Defects measured in existing pipelines that a whole run could repeat, each as a named test."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from skyloom.core.image import Image
from skyloom.core.labels import LabelMap
from skyloom.core.psf import GaussianPSF
from skyloom.imaging.measure.regions import sum_regions
from skyloom.imaging.psfs.convolve import match_psf
from skyloom.mock.hubble.files import write_hst_mock
from skyloom.mock.scenes.images import sky_wcs
from skyloom.recipes.config import load_config
from skyloom.recipes.homogenize import run as recipe
from skyloom.recipes.homogenize.config import HomogenizeConfig

BANDS = ("f606w", "f160w")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One object in two bands, and how often its mask was made."""
    folder = tmp_path_factory.mktemp("mock")
    field = write_hst_mock(folder, seed=2, n_objects=1, bands=BANDS, fine=False)
    settings = [f"output.directory={folder / 'out'}", "output.contact_sheet=false", "output.report=false"]
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        made = recipe.object_mask
        patch.setattr(recipe, "object_mask", lambda *given: calls.append(given) or made(*given))
        result = recipe.homogenize(load_config(field.config, HomogenizeConfig, settings))
    return result, calls


def test_the_mask_is_made_once_for_all_bands(run):
    """It was computed 16 times per object, and took 97 % of the time."""
    _, calls = run
    assert len(calls) == 1


def test_what_is_computed_is_what_is_written(run):
    """Sky-subtracted, matched images were computed and thrown away; nothing checked the output."""
    result, _ = run
    assert result.checks, "a run without science checks would not notice"
    with fits.open(result.products[0]) as hdus:
        for band in BANDS:
            history = [row["NAME"] for row in hdus["HISTORY"].data if row["ITEM"] == band]
            steps = [name.strip('"') for name in history]
            for name in ("subtract_background", "match_psf", "apply_object_mask"):
                assert name in steps
            usable = hdus[f"{band.upper()}_MASK"].data == 0
            assert usable.sum() > 100
            assert np.all(np.isfinite(hdus[f"{band.upper()}_SCI"].data[usable]))


def test_nan_pixels_do_not_reach_any_other_pixel():
    """A NaN normalisation made every product all-NaN."""
    shape = (60, 60)
    wcs = sky_wcs((53.1, -27.8), shape, 0.06)
    data = np.ones(shape)
    data[30, 30] = np.nan
    image = Image(data, np.ones(shape), np.isnan(data), "electron/s", wcs, psf=GaussianPSF(0.1))
    matched = match_psf(image, GaussianPSF(0.2))
    inner = matched.valid & (np.hypot(*(np.indices(shape) - 30)) < 20)
    np.testing.assert_allclose(matched.data[inner], 1.0, rtol=1e-4)
    labels = LabelMap(np.where(inner, 0, -1).astype(np.int32))
    assert np.isfinite(sum_regions(matched, labels)["flux"][0].value)


def test_widths_are_arcsec_whatever_the_pixels():
    """A width in arcsec was passed where pixels were expected."""
    shape = (81, 81)
    widths = []
    for scale in (0.03, 0.06):
        wcs = sky_wcs((53.1, -27.8), shape, scale)
        point = GaussianPSF(0.10).render(np.diag([-scale, scale]), 81)
        image = Image(point, np.ones(shape), None, "electron/s", wcs, psf=GaussianPSF(0.10))
        light = match_psf(image, GaussianPSF(0.25), coverage=0.01).data
        x = (np.arange(81) - 40) * scale
        # The pixel itself adds its own second moment.
        widths.append(np.sqrt(np.sum(light * x**2) / light.sum() - scale**2 / 12))
    np.testing.assert_allclose(widths, GaussianPSF(0.25).sigma, rtol=2e-3)
