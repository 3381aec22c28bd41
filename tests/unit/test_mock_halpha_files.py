"""Files of the mock in Halpha: what is in them is what was observed, readable without a warning."""

from __future__ import annotations

from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable

import skyloom as sl
from skyloom.core.image import Image
from skyloom.core.labels import LabelMap
from skyloom.io.bandpass import read_bandpass
from skyloom.mock.halpha.files import HALPHA_SCENES, HalphaFiles, write_halpha_mock
from skyloom.mock.halpha.observe import HalphaMock, observe_halpha
from skyloom.mock.hubble.files import SCENES
from skyloom.recipes.config import load_config
from skyloom.recipes.halpha.config import HalphaConfig

OPTIONS = {"seed": 7, "n_nebulae": 40, "border": 2}
SHAPE = (440, 240)  # two stripes


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> HalphaFiles:
    return write_halpha_mock(tmp_path_factory.mktemp("halpha"), shape=SHAPE, **OPTIONS)


@pytest.fixture(scope="module")
def mock() -> HalphaMock:
    return observe_halpha(shape=SHAPE, **OPTIONS)


def test_hubble_files_hold_what_was_observed(files: HalphaFiles, mock: HalphaMock) -> None:
    for band, seen in mock.hst.items():
        image = sl.read(files.science[band], weight=files.weight[band])
        assert isinstance(image, Image)
        assert image.unit == u.electron / u.s
        np.testing.assert_array_equal(image.mask, seen.dead)
        good = ~image.mask
        np.testing.assert_array_equal(image.data[good], seen.image.data[good])
        np.testing.assert_allclose(image.variance[good], seen.background_variance[good], rtol=1e-6)
        for key in ("band", "exposure", "photflam", "photplam", "instrument", "detector"):
            assert image.meta[key] == seen.image.meta[key], key
        np.testing.assert_allclose(
            image.wcs.pixel_scale_matrix, seen.image.wcs.pixel_scale_matrix, rtol=1e-12
        )
        curve = read_bandpass(files.filters[band])
        header = fits.getheader(files.science[band])
        assert curve.pivot == pytest.approx(header["PHOTPLAM"], rel=1e-9)
        assert curve.rms_width == pytest.approx(header["PHOTBW"], rel=1e-6)
        assert header["ORIENTAT"] == pytest.approx(25.0)
        with fits.open(files.truth[band]) as hdus:
            np.testing.assert_array_equal(hdus["TRUTH"].data, seen.truth.data)
            np.testing.assert_array_equal(hdus["COSMIC"].data > 0, mock.truth.cosmic_rays[band])
            np.testing.assert_array_equal(hdus["SATURATED"].data > 0, mock.truth.saturated[band])


def test_muse_files_hold_what_was_observed(files: HalphaFiles, mock: HalphaMock) -> None:
    area = 0.04 * u.arcsec**2
    for band, expected in mock.muse_bands.items():
        image = sl.read(files.muse_bands[band])
        assert image.meta["band"] == band
        pivot = mock.bandpasses[band].pivot * u.AA
        back = (image.data * u.Jy).to(u.Unit("1e-20 erg / (s cm2 AA)"), u.spectral_density(pivot)).value
        np.testing.assert_allclose(back / area.value, expected.data, rtol=1e-5, atol=1e-3)
        ratio = image.variance / np.asarray(expected.variance, dtype=np.float64)
        np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-5)
        np.testing.assert_allclose(
            np.sqrt(ratio[0, 0]), image.data[9, 9] / np.float64(expected.data[9, 9]), rtol=1e-5
        )
    maps = sl.read(files.lines)
    for key, name in (
        ("Halpha", "HA6562"),
        ("NII6583", "NII6583"),
        ("Hbeta", "HB4861"),
        ("OIII5007", "OIII5006"),
    ):
        found, expected = maps[f"{name}_FLUX"], mock.muse_lines[key]
        assert found.unit == u.Unit("1e-20 erg / (s cm2)")
        np.testing.assert_allclose(found.data, expected.data * area.value, rtol=1e-6)
        np.testing.assert_allclose(found.variance, expected.variance * area.value**2, rtol=1e-5)


def test_truth_and_tables(files: HalphaFiles, mock: HalphaMock) -> None:
    halpha = fits.getdata(files.truth["halpha"])
    np.testing.assert_allclose(halpha, mock.truth.halpha.data, rtol=1e-5)
    with fits.open(files.truth["muse"]) as hdus:
        np.testing.assert_array_equal(hdus["HALPHA"].data, mock.truth.halpha_muse.data)
        np.testing.assert_array_equal(hdus["ABSORPTION"].data, mock.truth.absorption)
        np.testing.assert_array_equal(hdus["NII_RATIO"].data, mock.truth.nii_ratio)
    labels = sl.read(files.labels)
    assert isinstance(labels, LabelMap)
    np.testing.assert_array_equal(labels.labels, mock.labels.labels)
    table = QTable.read(files.table)
    for key in ("flux", "flux_muse", "nebula_flux"):
        # Sums over stripes add float32 rows in another order.
        np.testing.assert_allclose(table[key].value, mock.truth.regions[key].value, rtol=1e-5)
    np.testing.assert_array_equal(table["n_pixels"], mock.truth.regions["n_pixels"])
    assert table.meta["sky"] == pytest.approx(mock.truth.sky)
    catalogue = QTable.read(files.catalogue)
    assert catalogue["region_ID"].tolist() == mock.catalogue["region_ID"].tolist() == labels.ids.tolist()
    for key in ("cen_ra", "cen_dec", "HA6562_FLUX", "HA6562_FLUX_ERR"):
        np.testing.assert_allclose(catalogue[key].value, mock.catalogue[key].value, rtol=1e-12)
    stars = QTable.read(files.stars)
    np.testing.assert_allclose(stars["ra"].to_value("deg"), mock.stars["ra"].to_value("deg"))
    assert stars["saturated"].tolist() == mock.stars["saturated"].tolist()


def test_configuration_finds_the_files(files: HalphaFiles) -> None:
    config = load_config(files.config, HalphaConfig)
    found = config.object_files("spiral")
    assert [Path(part.image) for part in found.bands] == list(files.science.values())
    assert found.labels == files.labels
    assert found.lines == files.lines
    assert found.star_catalogue == files.stars


def test_a_cube_on_the_grid_of_the_images(tmp_path: Path) -> None:
    """The noise-free cube, summed over the narrow band, is the noise-free image of that band."""
    files = write_halpha_mock(tmp_path, shape=(100, 100), seed=2, n_nebulae=10, cube=True, noise=0.0)
    assert files.cube is not None
    cube = sl.read(files.cube)
    weights = files.model.bands["f658n"].bandpass.mean_weights(cube.wave, cube.medium)
    image = np.tensordot(weights, np.nan_to_num(cube.data).astype(np.float64), 1) / 0.04
    with fits.open(files.truth["muse"]) as hdus:
        expected = hdus["F658N_BAND"].data
    # The sky residuals are in the cube, not in the image.
    assert np.median(np.abs(image / expected - 1)) < 2e-3
    assert files.config.read_text().count("templates.fits") == 1
    assert (tmp_path / "templates.fits").exists()


def test_scenes_are_known_to_the_command() -> None:
    assert set(HALPHA_SCENES) == {"halpha-like", "halpha-field"}
    assert set(HALPHA_SCENES) < set(SCENES)
