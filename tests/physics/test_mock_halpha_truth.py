"""The mock in Halpha against physics: both instruments see one galaxy, and errors are what they claim to be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from skyloom.core.bandpass import AB_ZERO, SPEED_OF_LIGHT
from skyloom.core.image import Image
from skyloom.core.linelist import default_lines
from skyloom.mock.cubes.cubes import observe_cube
from skyloom.mock.halpha.observe import HalphaMock, halpha_model, observe_halpha
from skyloom.mock.scenes.images import line_truth, object_images
from skyloom.mock.scenes.scene import Scene

Float = NDArray[np.float64]
SIDE = 480  # pixels


@pytest.fixture(scope="module")
def mock() -> HalphaMock:
    return observe_halpha(shape=(SIDE, SIDE), seed=12)


def block_sums(values: NDArray[np.float32], size: int) -> Float:
    ny, nx = (length // size for length in values.shape)
    whole = np.asarray(values[: ny * size, : nx * size], dtype=np.float64)
    return np.asarray(whole.reshape(ny, size, nx, size).sum(axis=(1, 3)))


def block_variance(correlation: Float, size: int) -> float:
    """Variance of a sum over size x size pixels of unit variance, by the lags between its pixels."""
    half = correlation.shape[0] // 2
    total = 0.0
    for dy, dx in np.ndindex(correlation.shape):
        pairs = max(size - abs(dy - half), 0) * max(size - abs(dx - half), 0)
        total += correlation[dy, dx] * pairs
    return total


def check_pulls(noise: NDArray[np.float32], image: Image) -> None:
    unit = (noise / np.sqrt(image.variance)).astype(np.float32)
    assert image.correlation is not None
    for size in (1, 5, 20):
        pulls = block_sums(unit, size) / np.sqrt(block_variance(image.correlation, size))
        # Neighbouring pixels share noise, hence fewer independent ones than there are; blocks hardly do.
        number = pulls.size / (np.sum(image.correlation**2) if size == 1 else 1.2)
        assert abs(pulls.std() - 1) < 3.5 / np.sqrt(2 * number), size


def test_noise_of_hubble_and_muse_is_what_they_claim(mock: HalphaMock) -> None:
    for seen in mock.hst.values():
        check_pulls(seen.noise, seen.image)
    truth = {**mock.truth.muse_bands, **mock.truth.muse_lines}
    for name, image in (mock.muse_bands | mock.muse_lines).items():
        check_pulls(image.data - truth[name], image)


def test_both_instruments_see_the_same_light(mock: HalphaMock) -> None:
    """Halpha and the narrow band within 7 arcsec: the wide PSF moves little across, and much of it both ways."""
    totals = {}
    narrow = mock.narrow.truth.data * mock.narrow.image.meta["photflam"] * 1e20
    images = {
        "Halpha": (mock.truth.halpha.data * 0.04**2, mock.truth.muse_lines["Halpha"] * 0.2**2),
        "narrow": (narrow, mock.truth.muse_bands["f658n"] * 0.2**2),
    }
    for name, pair in images.items():
        for wcs, values in zip((mock.narrow.image.wcs, mock.labels.wcs), pair, strict=True):
            y, x = np.indices(values.shape)
            place = wcs.all_world2pix(*mock.truth.scene.scene.centre, 0)
            scale = 0.04 if values.shape[0] == SIDE else 0.2
            inside = np.hypot(x - place[0], y - place[1]) * scale < 7.0
            totals.setdefault(name, []).append(float(values[inside].sum(dtype=np.float64)))
    for hst, muse in totals.values():
        assert muse == pytest.approx(hst, rel=0.02)


def test_excess_over_the_stars_is_halpha_and_nitrogen() -> None:
    """The narrow band less its stars, by the widths of the band at the lines, is the Halpha that was put in.

    Velocities of +-30 km/s move the lines by 0.7 A, over which the throughput changes by less than 1 %.
    """
    plain = observe_halpha(
        shape=(200, 200), seed=5, noise=0.0, cosmic_rays=0.0, saturate=False, sky={"f658n": 0.0}
    )
    model = plain.truth.model
    scene = plain.truth.scene.scene
    stars = Scene(scene.name, scene.centre, tuple(replace(part, lines={}) for part in scene.components))
    band = model.bands["f658n"]
    continuum = object_images(stars, band.bandpass, model.wcs, model.shape, band.psf)[0]
    excess = 1e20 * (plain.narrow.image.data * band.photflam - continuum) / 0.04**2
    known = default_lines()
    weight = {}
    for key in ("Halpha", "NII6583", "NII6548"):
        wave = known[key].rest("vacuum") * (1 + plain.redshift)
        weight[key] = float(band.bandpass.throughput_at(wave)) * wave / band.bandpass.photon_integral
    nitrogen = object_images_of_line(scene, "NII6583", plain) / plain.truth.halpha.data
    halpha = excess / (weight["Halpha"] + nitrogen * (weight["NII6583"] + weight["NII6548"] / 3.05))
    bright = plain.truth.halpha.data > np.median(plain.truth.halpha.data)
    np.testing.assert_allclose(halpha[bright], plain.truth.halpha.data[bright], rtol=0.012)
    assert halpha.sum() == pytest.approx(plain.truth.halpha.data.sum(dtype=np.float64), rel=0.003)


def object_images_of_line(scene: Scene, key: str, mock: HalphaMock) -> Float:
    """Surface brightness of a line on Hubble's pixels, 1e-20 erg s-1 cm-2 arcsec-2."""
    flux = line_truth(scene, key, mock.truth.model.wcs, mock.truth.model.shape, mock.narrow.image.psf).flux
    return np.asarray(1e20 * flux / 0.04**2)


def test_the_disc_is_what_was_asked_for(mock: HalphaMock) -> None:
    """19 mag/arcsec2 in the centre, 1 % of it in the field; absorption by 30 %, [N II]/Halpha by a factor 2."""
    scene = mock.truth.scene
    wave = 5500.0 * (1 + mock.redshift)
    central = AB_ZERO * SPEED_OF_LIGHT / wave**2 * 10 ** (-0.4 * 19.0)
    disc = scene.scene.components[0]
    model = mock.truth.model
    band = model.bands["f555w"]
    disc_only = Scene("disc", scene.scene.centre, (disc,))
    image = object_images(disc_only, band.bandpass, model.wcs, model.shape, band.psf)[0] / 0.04**2
    assert image.max() == pytest.approx(central, rel=0.15)  # the band is bluer and wider than 5500 A
    inner, outer = image.max(), np.min(image)
    assert outer < 0.01 * inner
    assert 0.1 < np.mean(image < 0.02 * inner) < 0.6
    low, middle, high = np.percentile(mock.truth.absorption, [2, 50, 98])
    assert 2.3 < middle < 2.75
    assert 0.2 < (high - low) / middle < 0.5
    low, high = np.percentile(mock.truth.nii_ratio, [1, 99])
    assert 1.7 < high / low < 2.3
    # Two of the three sky offsets are more than 50 of the errors that the noise of the whole image allows.
    pixels = mock.narrow.image.data.size
    assert mock.narrow.image.correlation is not None
    for name in ("f658n", "f555w"):
        error = model.bands[name].noise * np.sqrt(mock.narrow.image.correlation.sum() / pixels)
        assert mock.truth.sky[name] > 50 * error


def test_noise_of_a_synthetic_image_is_that_of_the_cube() -> None:
    """Sum the noise of a cube over the narrow band: its scatter is the error of the mock's image."""
    model = halpha_model(shape=(320, 320), seed=4, n_nebulae=5)
    mock = observe_halpha(shape=(320, 320), seed=4, n_nebulae=5)
    tool = model.muse.select((6400.0, 6760.0))
    cube = observe_cube(None, tool, (64, 64), seed=4, sky_residuals=False).cube
    weights = model.bands["f658n"].bandpass.mean_weights(cube.wave, cube.medium)
    image = np.tensordot(weights, cube.data.astype(np.float64), 1) / 0.04
    claimed = np.sqrt(mock.muse_bands["f658n"].variance.min())
    assert image.std() == pytest.approx(claimed, rel=0.05)
    # A line by the best estimate with its known profile, spaxel by spaxel.
    wave = default_lines()["Halpha"].rest(tool.medium) * (1 + mock.redshift)
    index = int(np.argmin(np.abs(tool.wave - wave)))
    sigma = float(np.hypot(tool.lsf[index], wave * 20.0 / 299792.458))
    profile = np.exp(-0.5 * ((tool.wave - wave) / sigma) ** 2) / (np.sqrt(2 * np.pi) * sigma)
    flux = np.tensordot(profile / np.sum(profile**2), cube.data.astype(np.float64), 1) / 0.04
    claimed = np.sqrt(mock.muse_lines["Halpha"].variance.min())
    assert flux.std() == pytest.approx(claimed, rel=0.08)


def test_regions_scatter_by_their_errors(mock: HalphaMock) -> None:
    """Fluxes of the catalogue against the truth, over many observations of the same regions."""
    pulls = []
    table = mock.truth.regions
    for image_seed in range(12, 16):
        again = observe_halpha(shape=(240, 240), seed=image_seed)
        table = again.truth.regions
        pulls.append(
            (again.catalogue["HA6562_FLUX"] - table["flux_muse"]).value
            / again.catalogue["HA6562_FLUX_ERR"].value
        )
    pulls.append(
        (mock.catalogue["HA6562_FLUX"] - mock.truth.regions["flux_muse"]).value
        / mock.catalogue["HA6562_FLUX_ERR"].value
    )
    values = np.concatenate(pulls)
    assert abs(values.mean()) < 3 / np.sqrt(values.size)
    assert abs(values.std() - 1) < 3 / np.sqrt(2 * values.size)
