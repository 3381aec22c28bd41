"""Cubes of a scene: light, lines, noise and sky are what they are said to be."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest

from skyloom.core.cube import Cube
from skyloom.core.linelist import default_lines
from skyloom.core.psf import GaussianPSF
from skyloom.errors import InputError
from skyloom.mock.cube_noise import CubeNoise, SkyResiduals, field_of_view
from skyloom.mock.cubes import CubeObservation, cube_model, observe_cube
from skyloom.mock.galaxies import rotating_disc, star
from skyloom.mock.render import paint
from skyloom.mock.scene import Scene
from skyloom.mock.spectrographs import SPECTROGRAPHS, Spectrograph, manga, muse, pmas, spectrograph
from skyloom.mock.templates import SPEED_OF_LIGHT

AROUND_HALPHA = (6560.0, 6720.0)
INSTRUMENTS = [(muse, 1.2, (40, 44)), (manga, 2.4, (36, 34)), (pmas, 5.0, (32, 30))]


@pytest.fixture(scope="module", params=INSTRUMENTS, ids=lambda case: case[0].__name__)
def observation(request: pytest.FixtureRequest) -> CubeObservation:
    instrument, size, shape = request.param
    scene = rotating_disc(200.0, scale_length=size, n_nebulae=20)
    return observe_cube(scene, instrument(AROUND_HALPHA), shape, seed=3, a_v=0.3, dead=3, angle=25.0)


def widths(instrument: Spectrograph) -> np.ndarray:
    return np.diff(instrument.edges)[:, None, None]


def test_an_observation_is_a_cube_with_its_errors(observation: CubeObservation) -> None:
    cube = observation.cube
    assert isinstance(cube, Cube)
    assert cube.data.dtype == cube.variance.dtype == observation.truth.dtype == np.float32
    pulls = (observation.noise / np.sqrt(cube.variance))[cube.valid]
    assert abs(pulls.mean()) < 0.05
    assert pulls.std() == pytest.approx(1.0, abs=0.03)
    assert np.isnan(cube.data[cube.mask]).all()
    assert np.isfinite(cube.data[cube.valid]).all()
    assert {"Halpha", "NII6548", "NII6583"} <= set(observation.lines)


def test_line_flux_maps_are_the_cube_minus_its_continuum(observation: CubeObservation) -> None:
    instrument = observation.model.spectrograph
    light = (observation.truth.astype(float) - observation.continuum) * widths(instrument)
    total = light.sum(axis=0) * instrument.flux_unit
    expected = sum(line.flux for line in observation.lines.values())
    np.testing.assert_allclose(total, expected, rtol=1e-4, atol=1e-4 * expected.max())
