"""Products opened by glue's own reader of FITS."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from tests.inputs.ecosystem_products import needs


@pytest.fixture(scope="module")
def loaded(made):
    needs("glue")
    with warnings.catch_warnings():
        # What glue's own dependencies say about each other.
        warnings.simplefilter("ignore")
        from glue.core.data_factories import load_data

        data = {}
        for name in ("image", "cube", "bands", "maps"):
            parts = load_data(str(made.folder / f"{name}.fits"))
            data[name] = {part.label.partition("[")[2].rstrip("]"): part for part in parts}
    return made, data


def test_planes_keep_names_values_and_coordinates(loaded):
    made, data = loaded
    for name in ("image", "cube"):
        obj, parts = getattr(made, name), data[name]
        assert {"SCI", "VAR", "MASK"} <= set(parts)
        for plane, values in (("SCI", obj.data), ("VAR", obj.variance), ("MASK", obj.mask)):
            np.testing.assert_array_equal(parts[plane][plane], values)
        assert parts["SCI"].coords is not None


def test_a_cube_has_wavelengths_in_glue(loaded):
    made, data = loaded
    coords = data["cube"]["SCI"].coords
    world = coords.pixel_to_world_values(0, 0, np.arange(made.cube.shape[0]))[2]
    np.testing.assert_allclose(np.asarray(world) * 1e10, made.cube.wave, rtol=0, atol=1e-4)


def test_every_band_and_map_is_there(loaded):
    _, data = loaded
    assert {"F814W_SCI", "F606W_SCI", "F814W_VAR"} <= set(data["bands"])
    assert any("HALPHA_FLUX" in name.upper() for name in data["maps"])
