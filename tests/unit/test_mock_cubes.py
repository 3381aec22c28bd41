"""Cubes of a scene: light, lines, noise and sky are what they are said to be."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from skyloom.core.cube import Cube
from skyloom.core.linelist import convert_medium, default_lines
from skyloom.core.psf import GaussianPSF
from skyloom.errors import InputError
from skyloom.mock.cubes.cubes import CubeObservation, cube_model, observe_cube
from skyloom.mock.cubes.noise import CubeNoise, SkyResiduals, field_of_view
from skyloom.mock.cubes.spectrographs import Spectrograph, autocorrelation, manga, muse, pmas, spectrograph
from skyloom.mock.scenes.galaxies import mix, rotating_disc
from skyloom.mock.scenes.milky_way import milky_way_factor
from skyloom.mock.scenes.mixture import Mixture
from skyloom.mock.scenes.render import paint
from skyloom.mock.scenes.scene import Component, Scene
from skyloom.mock.scenes.templates import SPEED_OF_LIGHT
from skyloom.spectral.axes.extinction import extinction_curve

AROUND_HALPHA = (6560.0, 6720.0)
INSTRUMENTS = [(muse, 1.2, (40, 44)), (manga, 2.4, (36, 34)), (pmas, 5.0, (32, 30))]
QUIET = {"noise": 0.0, "sky_residuals": False}
CENTRE = (150.0, 2.0)


@pytest.fixture(scope="module", params=INSTRUMENTS, ids=lambda case: case[0].__name__)
def observation(request: pytest.FixtureRequest) -> CubeObservation:
    instrument, size, shape = request.param
    scene = rotating_disc(200.0, scale_length=size, n_nebulae=20)
    return observe_cube(scene, instrument(AROUND_HALPHA), shape, seed=3, a_v=0.3, dead=3, angle=25.0)


def blob(
    lines: Mapping[str, float], *, size: float = 0.0, velocity: float = 0.0, continuum: float = 1e-17
) -> Scene:
    """One Gaussian whose lines are as narrow as the instrument lets them be."""
    mixture = Mixture(np.ones(1), np.zeros((1, 2)), size**2 * np.eye(2)[np.newaxis])
    part = Component(
        "blob", 1, mixture, np.array([continuum]), mix(a5000=1.0), 0.01, 0.0, 0.0, 60.0,
        {key: np.array([flux]) for key, flux in lines.items()}, velocity, 0.0,
    )  # fmt: skip
    return Scene("blob", CENTRE, (part,))


def widths(instrument: Spectrograph) -> np.ndarray:
    return np.diff(instrument.edges)[:, None, None]


# --- light -------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("instrument", [muse, manga, pmas], ids=lambda function: function.__name__)
def test_the_sum_over_the_field_is_the_sum_of_the_spectra(instrument) -> None:
    tool = instrument((5000.0, 5300.0))
    # A Gaussian PSF, as a Moffat's wings reach beyond any field.
    tool = tool.evolve(psf=GaussianPSF(1.5 * tool.pixel_scale))
    scene = rotating_disc(scale_length=0.8 * tool.pixel_scale, n_nebulae=10)
    observation = observe_cube(scene, tool, (48, 48), seed=1, field="square", a_v=0.4, **QUIET)
    flux = scene.spectra(tool.wave, tool.medium, tool.lsf, edges=tool.edges).sum(axis=0)
    vacuum = convert_medium(tool.wave, tool.medium, "vacuum")
    # CALIFA's cubes are corrected for the Milky Way.
    factor = 1.0 if tool.corrected else milky_way_factor(vacuum, 0.4)
    total = observation.truth.sum(axis=(1, 2), dtype=float) * tool.flux_unit
    np.testing.assert_allclose(total, flux * factor, rtol=1e-5)
    np.testing.assert_array_equal(observation.cube.data, observation.truth)


def test_line_flux_maps_are_the_cube_minus_its_continuum(observation: CubeObservation) -> None:
    instrument = observation.model.spectrograph
    light = (observation.truth.astype(float) - observation.continuum) * widths(instrument)
    total = light.sum(axis=0) * instrument.flux_unit
    expected = sum(line.flux for line in observation.lines.values())
    np.testing.assert_allclose(total, expected, rtol=1e-4, atol=1e-4 * expected.max())


def test_velocity_and_dispersion_maps_are_the_moments_of_the_line(observation: CubeObservation) -> None:
    model = observation.model
    instrument = model.spectrograph
    line, truth = default_lines()["Halpha"], observation.lines["Halpha"]
    lone = tuple(
        Component(
            part.name, part.label, part.mixture, part.continuum, part.population, part.redshift, part.attenuation,
            part.velocity, part.dispersion, {"Halpha": part.lines["Halpha"]}, part.gas_velocity, part.gas_dispersion,
        )
        for part in model.scene.components
        if "Halpha" in part.lines
    )  # fmt: skip
    only = cube_model(Scene("lone", CENTRE, lone), instrument, model.shape, seed=3, a_v=0.3, angle=25.0)
    light = only.truth(light=("lines",)).astype(float) * widths(instrument)
    light[light < 1e-6 * light.max(axis=0)] = 0.0
    wave = convert_medium(instrument.wave, instrument.medium, "vacuum")[:, None, None]
    reference = line.rest_vacuum * (1 + model.redshift)
    mean = (light * wave).sum(axis=0) / light.sum(axis=0)
    bright = truth.flux > 1e-3 * truth.flux.max()
    velocity = SPEED_OF_LIGHT * (mean / reference - 1)
    np.testing.assert_allclose(velocity[bright], truth.velocity[bright], atol=0.5)
    width = np.sqrt((light * (wave - mean) ** 2).sum(axis=0) / light.sum(axis=0)) / reference * SPEED_OF_LIGHT
    near = np.argmin(np.abs(instrument.wave - reference))
    spread = np.hypot(instrument.lsf[near], np.diff(instrument.edges)[near] / np.sqrt(12))
    intrinsic = np.sqrt(width**2 - (spread / reference * SPEED_OF_LIGHT) ** 2)
    np.testing.assert_allclose(intrinsic[bright], truth.dispersion[bright], rtol=0.02)


def test_the_disc_rotates_by_the_velocity_asked_for() -> None:
    scene = rotating_disc(200.0, scale_length=2.0, position_angle=90.0)
    assert float(scene.velocity_field(6.0, 0.0)) == pytest.approx(200.0, rel=0.06)
    assert float(scene.velocity_field(-6.0, 0.0)) == pytest.approx(-200.0, rel=0.06)
    model = cube_model(scene, muse(AROUND_HALPHA), (90, 90), seed=1)
    velocity = model.line("Halpha").velocity
    assert np.nanmin(velocity) < -170
    assert np.nanmax(velocity) > 170
    with pytest.raises(InputError, match="no rotation"):
        rotating_disc(axis_ratio=1.0)


def test_velocities_are_relative_to_the_redshift_asked_for() -> None:
    scene = blob({"Halpha": 1e-15}, velocity=100.0)
    line = cube_model(scene, muse(AROUND_HALPHA), (20, 20), seed=1, redshift=0.0095).line("Halpha")
    expected = SPEED_OF_LIGHT * (1.01 / 1.0095 * (1 + 100 / SPEED_OF_LIGHT) - 1)
    assert line.velocity[10, 10] == pytest.approx(expected, abs=1e-2)


@pytest.mark.parametrize("instrument", [muse, manga, pmas], ids=lambda function: function.__name__)
def test_lines_stand_at_their_wavelengths_with_the_widths_of_the_lsf(instrument) -> None:
    keys = ["Hbeta", "OIII5007", "OI6300", "SII6716"]
    tool = instrument()
    spectrum = blob(dict.fromkeys(keys, 1e-15), velocity=37.0).spectra(
        tool.wave, tool.medium, tool.lsf, edges=tool.edges, light=("lines",)
    )[0]
    light = spectrum * np.diff(tool.edges)
    for key in keys:
        vacuum = default_lines()[key].rest_vacuum * 1.01 * (1 + 37.0 / SPEED_OF_LIGHT)
        place = float(convert_medium(vacuum, "vacuum", tool.medium))
        near = np.abs(tool.wave - place) < 8 * np.interp(place, tool.wave, tool.lsf)
        centre = np.average(tool.wave[near], weights=light[near])
        assert (centre / place - 1) * SPEED_OF_LIGHT == pytest.approx(0.0, abs=0.5)
        width = np.sqrt(np.average((tool.wave[near] - centre) ** 2, weights=light[near]))
        pixel = np.interp(place, tool.wave, np.diff(tool.edges))
        lsf = np.interp(place, tool.wave, tool.lsf)
        assert width == pytest.approx(np.hypot(lsf, pixel / np.sqrt(12)), rel=2e-3)


def test_wavelengths_are_those_of_the_instruments() -> None:
    np.testing.assert_array_equal(manga().wave, 10 ** (3.5589 + 1e-4 * np.arange(4563)))
    np.testing.assert_array_equal(muse().wave, 4750 + 1.25 * np.arange(3681))
    np.testing.assert_array_equal(pmas().wave, 3749 + 2.0 * np.arange(1877))
    linear = manga(sampling="linear")
    assert np.unique(np.diff(linear.wave)).tolist() == [1.0]
    assert (manga().medium, muse().medium, pmas().medium) == ("vacuum", "air", "air")
    cut = muse((5000.0, 5100.0))
    assert (cut.wave[0], cut.wave[-1], cut.first) == (5000.0, 5100.0, 200)
    with pytest.raises(InputError, match="within 4750"):
        muse((9500.0, 9600.0))
    with pytest.raises(InputError, match="choose one of muse"):
        spectrograph("kcwi")


@pytest.mark.parametrize("instrument", [muse, manga, pmas], ids=lambda function: function.__name__)
def test_the_point_spread_is_the_chromatic_one_at_every_wavelength(instrument) -> None:
    tool = instrument()
    scene = blob({})
    model = cube_model(scene, tool, (25, 25), seed=1, **QUIET)
    # Also where the shares of the light are interpolated, in the middle between two nodes.
    nodes = model._nodes
    for place in (tool.wave[0], 0.5 * (nodes[1] + nodes[2]), 6600.0, tool.wave[-1]):
        channel = int(np.argmin(np.abs(tool.wave - place)))
        image = model.truth(slice(channel, channel + 1))[0].astype(float)
        psf = tool.psf.at(tool.wave[channel])
        expected = paint(
            scene.offsets, scene.covariance, np.ones((1, 1)), scene.centre, model.wcs, (25, 25), psf
        )[0]
        np.testing.assert_allclose(
            image / image.sum(), expected / expected.sum(), atol=3e-4 * expected.max(), rtol=0
        )
    first, last = tool.psf.at(tool.wave[0]).fwhm, tool.psf.at(tool.wave[-1]).fwhm
    assert first > 1.05 * last


def test_the_milky_way_dims_by_the_published_curve() -> None:
    wave = np.linspace(3700.0, 10300.0, 40)
    own = -2.5 * np.log10(milky_way_factor(wave, 1.0))
    np.testing.assert_allclose(own, extinction_curve(wave), rtol=2e-3)
    assert milky_way_factor(5500.0, 0.0) == 1.0


# --- noise and sky -----------------------------------------------------------------------------------


def lagged_mean(values: np.ndarray, shift: tuple[int, ...]) -> float:
    """Mean of products of voxels that lie ``shift`` apart."""
    first = tuple(
        slice(max(0, -step), min(size, size - step)) for step, size in zip(shift, values.shape, strict=True)
    )
    second = tuple(
        slice(part.start + step, part.stop + step) for part, step in zip(first, shift, strict=True)
    )
    return float(np.mean(values[first] * values[second], dtype=float))


@pytest.mark.parametrize("instrument", [muse, manga, pmas], ids=lambda function: function.__name__)
def test_noise_has_the_variance_and_the_correlation_it_claims(instrument) -> None:
    tool = instrument(AROUND_HALPHA)
    space, wave = tool.spatial_correlation, tool.spectral_correlation
    values = CubeNoise.of(tool, (60, 60), 5).draw(0, 120).astype(float)
    # Of a mean of products of correlated Gaussians, in independent ones: n over the sum of the squared correlation.
    independent = values.size / (np.sum(space**2) * np.sum(wave**2))
    bound = 4 * np.sqrt(2 / independent)
    assert lagged_mean(values, (0, 0, 0)) == pytest.approx(1.0, abs=bound)
    half = space.shape[0] // 2
    for dy, dx in ((0, 1), (1, 0), (1, 1), (-1, 1), (2, 0), (3, -1)):
        claimed = space[half + dy, half + dx] if max(abs(dy), abs(dx)) <= half else 0.0
        assert lagged_mean(values, (0, dy, dx)) == pytest.approx(claimed, abs=bound)
    for lag in (1, 2, 3):
        claimed = wave[wave.size // 2 + lag] if lag <= wave.size // 2 else 0.0
        assert lagged_mean(values, (lag, 0, 0)) == pytest.approx(claimed, abs=bound)
    # Separable.
    claimed = wave[wave.size // 2 + 1] * space[half, half + 1]
    assert lagged_mean(values, (1, 0, 1)) == pytest.approx(claimed, abs=bound)


def test_noise_of_single_voxels_over_draws() -> None:
    tool = muse((5560.0, 5600.0))
    draws = []
    for seed in range(100):
        model = cube_model(None, tool, (7, 7), seed=seed, sky_residuals=SkyResiduals(offset=0.0, shift=0.0))
        draws.append(model.slab(0, model.n_wave).data)
    scatter = np.mean(np.square(draws, dtype=float), axis=0)
    # Averaged over 49 spaxels: 100 x 49 values, of which the correlation leaves about 100 x 40.
    ratio = scatter.mean(axis=(1, 2)) / model.background_variance
    assert np.abs(ratio - 1).max() < 4 * np.sqrt(2 / (100 * 40))
    # Sky lines are bright: at 5577 A the noise is several times that of the continuum.
    peak = model.background_variance.max() / np.median(model.background_variance)
    assert peak > 9


def test_sources_add_the_noise_of_their_photons() -> None:
    tool = muse((5000.0, 5020.0))
    bright = observe_cube(blob({}, size=2.0, continuum=1e-14), tool, (20, 20), seed=2)
    extra = bright.cube.variance - bright.model.background_variance[:, None, None]
    np.testing.assert_allclose(extra, bright.truth / tool.electrons[:, None, None], rtol=1e-3)
    assert np.median(extra / bright.cube.variance) > 0.5
    pulls = bright.noise / np.sqrt(bright.cube.variance)
    assert pulls.std() == pytest.approx(1.0, abs=0.05)


def test_left_over_sky_is_known_exactly() -> None:
    tool = muse((5500.0, 5650.0))
    clean = observe_cube(None, tool, (12, 12), seed=4, noise=0.0, sky_residuals=False)
    assert not clean.sky_residual.any()
    assert not clean.cube.data.any()
    dirty = observe_cube(None, tool, (12, 12), seed=4, noise=0.0, sky_residuals=SkyResiduals(offset=0.05))
    np.testing.assert_allclose(dirty.cube.data, dirty.sky_residual, rtol=1e-6)
    brightest = tool.wave[np.argmax(np.abs(dirty.sky_residual).max(axis=(1, 2)))]
    assert abs(brightest - 5577.34) < 3
    pattern = dirty.model.residual_pattern
    assert pattern.mean() == pytest.approx(1.0)
    assert pattern.std() > 0.1
    # The excess noise is in the variance.
    excess = dirty.cube.variance - clean.cube.variance
    np.testing.assert_allclose(excess[:, 0, 0], (0.01 * tool.sky_lines) ** 2, rtol=1e-3, atol=1e-3)


def test_a_part_of_a_cube_is_the_part_of_the_cube() -> None:
    scene = rotating_disc(scale_length=1.0, n_nebulae=5)
    options = {"seed": 6, "bad_share": 0.01, "dead": 2}
    whole = observe_cube(scene, muse((5500.0, 5700.0)), (16, 18), **options)
    part = observe_cube(scene, muse((5560.0, 5600.0)), (16, 18), **options)
    first = int(np.argmin(np.abs(whole.cube.wave - 5560.0)))
    same = slice(first, first + part.cube.shape[0])
    np.testing.assert_allclose(part.cube.data, whole.cube.data[same], rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(part.cube.mask, whole.cube.mask[same])
    slab = whole.model.slab(30, 41)
    np.testing.assert_allclose(slab.data, whole.cube.data[30:41], rtol=1e-5, atol=1e-5)
    again = observe_cube(scene, muse((5560.0, 5600.0)), (16, 18), **options)
    np.testing.assert_array_equal(part.cube.data, again.cube.data)
    other = observe_cube(scene, muse((5560.0, 5600.0)), (16, 18), **(options | {"seed": 7}))
    good = ~(part.cube.mask | other.cube.mask)
    difference = (other.cube.data - part.cube.data)[good]
    assert abs(np.corrcoef(other.noise[good], part.noise[good])[0, 1]) < 0.1
    assert difference.std() > 1


def test_autocorrelation_of_a_filter() -> None:
    np.testing.assert_allclose(autocorrelation([1.0, 2.0, 1.0]), np.array([1, 4, 6, 4, 1]) / 6)
    assert autocorrelation([3.0]).tolist() == [1.0]
    # Law et al. 2016: exp(-0.5 (d / 1.92)^2) between the spaxels of MaNGA.
    space = manga().spatial_correlation
    middle = space[space.shape[0] // 2]
    distance = np.arange(middle.size) - middle.size // 2
    np.testing.assert_allclose(middle, np.exp(-0.5 * (distance / 1.92) ** 2), atol=2e-3)


# --- field of view -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "angle", "share"),
    [
        ("square", 0.0, 1.0),
        ("square", 45.0, 0.5),
        ("circle", 0.0, np.pi / 4),
        ("hexagon", 0.0, 3 * np.sqrt(3) / 8),
    ],
)
def test_fields_of_view(kind, angle: float, share: float) -> None:
    inside = field_of_view(kind, (101, 101), angle)
    assert inside.mean() == pytest.approx(share, abs=0.015)
    assert inside[50, 50]
    assert inside[0, 0] == (share == 1.0)
    np.testing.assert_array_equal(inside, inside[::-1, ::-1])


def test_nothing_is_known_outside_the_field_and_in_dead_spaxels() -> None:
    observation = observe_cube(
        None, muse((6000.0, 6020.0)), (30, 34), seed=1, field="circle", dead=4, bad_share=0.01
    )
    mask = observation.cube.mask
    always = mask.all(axis=0)
    np.testing.assert_array_equal(always, ~observation.model.covered | observation.model.dead)
    assert (observation.model.dead & observation.model.covered).sum() == 4
    assert mask[:, ~always].mean() == pytest.approx(0.01, abs=0.004)
    assert np.isnan(observation.cube.data[mask]).all()
    assert np.isfinite(observation.truth).all()
    with pytest.raises(InputError, match="choose square, circle or hexagon"):
        field_of_view("round", (5, 5))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="bad_share"):
        cube_model(None, muse((6000.0, 6020.0)), (5, 5), seed=1, bad_share=1.5)
    with pytest.raises(InputError, match="no lines"):
        observation.model.line("Halpha")
