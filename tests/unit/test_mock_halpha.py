"""The mock of a nearby spiral in Halpha: what it promises, and that the same seed gives the same."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.core.linelist import default_lines
from skyloom.errors import InputError
from skyloom.mock.halpha.observe import STRIPE, HalphaMock, halpha_model, observe_halpha
from skyloom.mock.halpha.paint import paint_galaxy
from skyloom.mock.halpha.scene import absorption_fluxes, halpha_bands, halpha_scene, saturation_rate
from skyloom.mock.scenes.render import paint
from skyloom.mock.scenes.scene import Scene


@pytest.fixture(scope="module")
def mock() -> HalphaMock:
    return observe_halpha(shape=(320, 320), seed=3)


def test_bands_hold_the_lines_that_they_should() -> None:
    bands = {name: band.bandpass for name, band in halpha_bands().items()}
    narrow = bands["f658n"]
    assert abs(narrow.pivot - 6584) < 5
    assert 85 < narrow.rectangular_width < 110
    rest = {
        key: default_lines()[key].rest("vacuum") * 1.00219
        for key in ("NII6548", "Halpha", "NII6583", "SII6716")
    }
    seen = {key: float(narrow.throughput_at(wave)) for key, wave in rest.items()}
    assert min(seen["NII6548"], seen["Halpha"], seen["NII6583"]) > 0.3
    assert seen["NII6583"] > 1.04 * seen["Halpha"] > 1.08 * seen["NII6548"]
    assert seen["SII6716"] == 0.0
    for key in ("Hbeta", "OIII5007"):
        assert bands["f555w"].throughput_at(default_lines()[key].rest("vacuum") * 1.00219) > 0.25
    assert not bands["f814w"].throughput_at(rest["Halpha"])


def test_absorption_flux_is_what_a_spectrum_without_it_shows() -> None:
    """Integrate the stars' spectra over the line, against the straight line between its sides."""
    disc = halpha_scene(seed=1, n_nebulae=5).scene.components[0]
    level, absorbed = absorption_fluxes(disc)
    wave = np.arange(6440.0, 6720.0, 0.25)
    spectra = Scene("disc", (0.0, 0.0), (disc,)).spectra(wave, "vacuum")
    sides = (wave < 6470) | (wave > 6690)
    for index in (0, 300, 700):
        continuum = np.polynomial.Polynomial.fit(wave[sides], spectra[index][sides], 2)(wave)
        missing = np.sum(continuum - spectra[index]) * 0.25
        np.testing.assert_allclose(missing, absorbed[index], rtol=0.03)
        np.testing.assert_allclose(np.interp(6579.0, wave, continuum), level[index], rtol=2e-3)


def test_same_seed_same_mock(mock: HalphaMock) -> None:
    again, other = (observe_halpha(shape=(320, 320), seed=seed) for seed in (3, 4))
    for name, observation in mock.hst.items():
        np.testing.assert_array_equal(observation.image.data, again.hst[name].image.data)
        assert np.mean(observation.image.data == other.hst[name].image.data) < 0.01
    np.testing.assert_array_equal(mock.labels.labels, again.labels.labels)
    np.testing.assert_array_equal(mock.muse_lines["Halpha"].data, again.muse_lines["Halpha"].data)


def test_a_stripe_is_the_same_without_the_others() -> None:
    model = halpha_model(shape=(2 * STRIPE, 120), seed=5, n_nebulae=20)
    first, second = model.stripes()
    alone = model.stripe("f658n", second, model.paint_rows(second)[0])
    whole = observe_halpha(shape=(2 * STRIPE, 120), seed=5, n_nebulae=20).narrow
    np.testing.assert_array_equal(alone.data, whole.image.data[STRIPE:])
    both = model._unit_noise(0, slice(0, 2 * STRIPE))
    np.testing.assert_allclose(model._unit_noise(0, second), both[STRIPE:], rtol=1e-6)
    np.testing.assert_allclose(model._unit_noise(0, first), both[:STRIPE], rtol=1e-6)


def test_image_is_the_sum_of_its_ingredients(mock: HalphaMock) -> None:
    for name, seen in mock.hst.items():
        total = seen.truth.data + seen.sky + seen.noise + seen.cosmic_rays
        limit = saturation_rate(name)
        np.testing.assert_allclose(seen.image.data, np.minimum(total, limit), rtol=2e-6, atol=1e-6)
        np.testing.assert_array_equal(mock.truth.saturated[name], seen.image.data == np.float32(limit))
        assert seen.image.meta["photflam"] == halpha_bands()[name].photflam
        assert np.all(seen.sky == np.float32(mock.truth.sky[name]))


def test_regions_have_their_fluxes(mock: HalphaMock) -> None:
    """Sums over regions by a loop over pixels' places on the sky."""
    truth, labels = mock.truth, mock.labels
    assert mock.catalogue["region_ID"].tolist() == labels.ids.tolist()
    assert len(mock.catalogue) >= 15
    assert labels.wcs is not None
    area = mock.muse_lines["Halpha"].pixel_scale ** 2
    y, x = np.indices(truth.halpha.shape)
    sky = truth.halpha.wcs.all_pix2world(x.ravel(), y.ravel(), 0)
    column, row = (np.rint(axis).astype(int) for axis in labels.wcs.all_world2pix(*sky, 0))
    inside = (column >= 0) & (row >= 0) & (column < labels.shape[1]) & (row < labels.shape[0])
    moved = np.full(truth.halpha.shape, -1).ravel()
    moved[inside] = labels.labels[row[inside], column[inside]]
    values = truth.halpha.data.ravel() * truth.halpha.pixel_scale**2
    for row_number in (0, 3, len(mock.catalogue) - 1):
        line = truth.regions[row_number]
        region = line["region_ID"]
        own = moved == region
        assert abs(int(own.sum()) - line["n_pixels"]) <= 1
        np.testing.assert_allclose(values[own].sum(), line["flux"].value, rtol=2e-3)
        chosen = labels.labels == region
        np.testing.assert_allclose(
            truth.halpha_muse.data[chosen].sum() * area, line["flux_muse"].value, rtol=1e-5
        )
        measured = mock.muse_lines["Halpha"].data[chosen].sum() * area
        np.testing.assert_allclose(measured, mock.catalogue["HA6562_FLUX"][row_number].value, rtol=1e-5)


def test_options() -> None:
    """No noise, no rays, no saturation; a border without values; other levels of sky."""
    plain = observe_halpha(
        shape=(120, 160), seed=1, noise=0.0, cosmic_rays=0.0, saturate=False, border=4, sky={"f658n": 0.5}
    )
    inner = (slice(4, -4), slice(4, -4))
    seen = plain.narrow
    np.testing.assert_allclose(seen.image.data[inner], seen.truth.data[inner] + 0.5, rtol=1e-6)
    assert np.isnan(seen.image.data[:4]).all()
    assert seen.image.mask[:, -4:].all()
    assert not seen.image.mask[inner].any()
    assert not plain.stars["saturated"].any()
    np.testing.assert_array_equal(plain.muse_lines["Halpha"].data, plain.truth.muse_lines["Halpha"])
    with pytest.raises(InputError, match="shape"):
        observe_halpha(shape=(20, 20), seed=1)


def test_stars_table_says_which_saturate(mock: HalphaMock) -> None:
    wcs = mock.narrow.image.wcs
    assert wcs is not None
    x, y = wcs.all_world2pix(mock.stars["ra"].value, mock.stars["dec"].value, 0)
    hit = np.zeros(len(mock.stars), dtype=bool)
    for saturated in mock.truth.saturated.values():
        for index, place in enumerate(zip(y, x, strict=True)):
            row, column = (round(float(axis)) for axis in place)
            hit[index] |= bool(saturated[row - 2 : row + 3, column - 2 : column + 3].any())
    np.testing.assert_array_equal(hit, mock.stars["saturated"])
    assert hit.any()
    assert not hit.all()
    assert np.all(mock.stars["radius"].value > 0.7)


def test_coarse_grids_change_nothing() -> None:
    """Wide Gaussians and wings on coarser grids against the exact images, on rows in the middle of a large image."""
    model = halpha_model(shape=(1200, 1200), seed=6, n_nebulae=30, scale=0.2, muse_scale=0.8, n_stars=2)
    scene, psf = model.source.scene, model.muse.psf.at(6580.0)
    fast = paint_galaxy(scene, model.fluxes, model.wcs, (90, 1200), psf, 500)
    wcs = model.wcs.deepcopy()
    wcs.wcs.crpix = wcs.wcs.crpix - np.array([0.0, 500.0])
    wcs.wcs.set()
    exact = paint(scene.offsets, scene.covariance, model.fluxes, scene.centre, wcs, (90, 1200), psf)
    assert any(np.sqrt(part.mixture.covariance[:, 0, 0]).min() / 0.2 > 24 for part in scene.components)
    for one, other in zip(fast, exact, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5)
