"""Cubes and spectra are validated in one pass, and an operation that tested its voxels does not pay twice."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.core import image
from skyloom.core.provenance import step
from skyloom.errors import InputError, ShapeError
from tests.spectral_invariants import make_cube, make_spectra


@pytest.mark.parametrize("place", [(0, 0, 0), (41, 3, 2), (79, 5, 6)])
@pytest.mark.parametrize("together", [1, 100, 1 << 17])
def test_a_bad_voxel_is_found_in_whatever_block_it_is(place, together, monkeypatch):
    monkeypatch.setattr(image, "CHECKED_TOGETHER", together)
    cube = make_cube()
    mask = cube.mask.copy()
    mask[place] = False
    clean = {"data": np.where(cube.mask, 1, cube.data), "variance": np.where(cube.mask, 1, cube.variance)}
    for name, value in (("data", np.nan), ("data", np.inf), ("variance", 0.0), ("variance", np.inf)):
        planes = {key: plane.copy() for key, plane in clean.items()}
        planes[name][place] = value
        shown = ", ".join(map(str, place))
        with pytest.raises(InputError, match=rf"{name} is .* at \({shown}\) \(and 0 more pixels\)"):
            cube.evolve(mask=mask, **planes)
        hidden = mask.copy()
        hidden[place] = True
        cube.evolve(mask=hidden, **planes)


@pytest.mark.parametrize("make", [make_cube, make_spectra])
def test_checked_changes_still_have_to_fit(make):
    subject = make()
    renamed = subject.evolve_checked(step("rename", object="b"), meta={"object": "b"})
    assert type(renamed) is type(subject)
    assert renamed.data is subject.data
    assert renamed.meta == {"object": "b"}
    assert renamed.history == (*subject.history, renamed.history[-1])
    assert subject.meta["object"] == "a galaxy"
    with pytest.raises(ShapeError, match="variance has shape"):
        subject.evolve_checked(variance=subject.variance[:3])
    with pytest.raises(ShapeError, match="wave has shape"):
        subject.evolve_checked(wave=subject.wave[:-1])
    with pytest.raises(TypeError, match="has no field"):
        subject.evolve_checked(colour="red")
