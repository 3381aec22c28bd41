"""Products in Imviz, Cubeviz and Specviz of jdaviz: one process for all, apart from this one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from tests.inputs.ecosystem_products import needs

SCRIPT = Path(__file__).with_name("jdaviz_script.py")


@pytest.fixture(scope="module")
def loaded(made):
    needs("jdaviz")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(made.folder)], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads((made.folder / "loaded.json").read_text())
    return made, told


def array(made, name, number):
    return np.load(made.folder / f"{name}_{number}.npy")


@pytest.mark.slow
def test_imviz_opens_images_with_their_coordinates(loaded):
    made, told = loaded
    (image,) = told["image"]
    assert "SCI" in image["label"]
    assert "WCS" in image["coords"]
    assert {u.Unit(unit) for unit in image["units"].values()} == {made.image.unit}
    np.testing.assert_array_equal(array(made, "image", 0), made.image.data)


@pytest.mark.slow
def test_cubeviz_opens_a_cube_with_errors_and_mask(loaded):
    made, told = loaded
    labels = [item["label"] for item in told["cube"]]
    assert any("UNC" in label for label in labels)
    assert any("MASK" in label for label in labels)
    cube = told["cube"][0]
    assert tuple(cube["shape"]) in (made.cube.shape, made.cube.shape[::-1])
    unit = u.Unit(cube["units"]["flux"]) * u.pix**2
    good = ~made.cube.mask
    np.testing.assert_allclose(
        (array(made, "cube", 0)[good] * unit).to_value(made.cube.unit), made.cube.data[good], rtol=1e-5
    )


@pytest.mark.slow
def test_specviz_opens_spectra(loaded):
    made, told = loaded
    assert told["spectra"]
    first = array(made, "spectra", 0)
    good = ~made.spectra.mask[0]
    np.testing.assert_allclose(first[good], made.spectra.data[0][good], rtol=1e-6)
    assert u.Unit(told["spectra"][0]["units"]["flux"]) == made.spectra.unit
