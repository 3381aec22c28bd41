"""Finding about dense cubes: in an existing pipeline their errors are copies of the data, wrong by 0.3 to 10 times."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.store.dense import DenseCube
from tests.inputs.dense import flat_image, flat_spectrum, store_of

SIGMA = {"r": 0.5, "g": 3.0}
LEVEL = 40.0


@pytest.fixture(scope="module")
def cube(tmp_path_factory):
    """Noise of 0.5 and of 3 on an image of 40, four exposures each; three spectra with noise of 2 on 10."""
    rng = np.random.default_rng(8)
    items: dict = {}
    for band, sigma in SIGMA.items():
        for number in range(4):
            image = flat_image(LEVEL, 10.0, -5.0, band=band)
            data = image.data + rng.normal(0, sigma, image.shape)
            items[f"{band}{number}"] = image.evolve(data=data, variance=np.full(image.shape, sigma**2))
    for number in range(3):
        spectrum = flat_spectrum(10.0, 10.0, -5.0)
        data = spectrum.data + rng.normal(0, 2.0, spectrum.shape)
        items[f"s{number}"] = spectrum.evolve(data=data, variance=np.full(spectrum.shape, 4.0))
    folder = tmp_path_factory.mktemp("findings")
    # The middle of the image lies between pixels, as that of a grid of 16: nothing is interpolated.
    store_of(folder, items).dense_cube(
        folder / "cube.h5", [(10.0, -5.0)], size=16, bands="gr", pixel_scale=0.4
    )
    return DenseCube(folder / "cube.h5")


def test_errors_of_dense_cubes_are_errors_and_not_copies_of_the_data(cube):
    sample = cube[0]
    for number, band in enumerate("gr"):
        sigma = 1 / np.sqrt(sample["image_0_ivar"][number])
        flux = sample["image_0"][number]
        # That of a mean of four, and nothing like the flux.
        assert sigma == pytest.approx(SIGMA[band] / 2, rel=1e-3)
        assert (np.abs(sigma / flux) < 0.1).all()
        assert flux.std() == pytest.approx(SIGMA[band] / 2, rel=3 / np.sqrt(2 * 256))
        # A block of 2 x 2 is half as noisy again.
        assert 1 / np.sqrt(sample["image_1_ivar"][number]) == pytest.approx(SIGMA[band] / 4, rel=1e-3)
    valid = sample["spectrum_0_valid"]
    sigma = 1 / np.sqrt(sample["spectrum_0_ivar"][valid])
    assert sigma == pytest.approx(2.0 / np.sqrt(3), rel=1e-3)
    assert sample["spectrum_0"][valid].std() == pytest.approx(2.0 / np.sqrt(3), rel=3 / np.sqrt(2 * 300))


def test_what_is_scaled_in_the_data_is_scaled_in_the_error(cube, tmp_path):
    """A brighter object without more noise keeps its errors."""
    stores = {
        name: store_of(
            tmp_path / name,
            {"r": flat_image(value, 10.0, -5.0), "s": flat_spectrum(value, 10.0, -5.0)},
        )
        for name, value in (("faint", 1.0), ("bright", 1000.0))
    }
    found = {}
    for name, store in stores.items():
        store.dense_cube(tmp_path / f"{name}.h5", size=8)
        found[name] = DenseCube(tmp_path / f"{name}.h5")[0]
    for level in (0, 1):
        for kind in ("image", "spectrum"):
            key = f"{kind}_{level}"
            np.testing.assert_array_equal(found["faint"][f"{key}_ivar"], found["bright"][f"{key}_ivar"])
            valid = found["faint"][f"{key}_valid"]
            assert found["bright"][key][valid] == pytest.approx(1000 * found["faint"][key][valid], rel=1e-5)
