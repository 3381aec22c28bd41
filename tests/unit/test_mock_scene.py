"""Scenes: band fluxes against spectra, velocities, lines, and images built from them."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest

from skyloom.core.bandpass import Bandpass
from skyloom.core.linelist import default_lines
from skyloom.core.psf import GaussianPSF
from skyloom.errors import InputError, ShapeError
from skyloom.mock.scenes.galaxies import Spiral, mix, neighbour, reference_flux, spiral_galaxy, star
from skyloom.mock.scenes.images import line_truth, object_images, segmentation, sky_wcs, truth_image
from skyloom.mock.scenes.mixture import Mixture
from skyloom.mock.scenes.scene import Component, Scene
from skyloom.mock.scenes.templates import SPEED_OF_LIGHT

CENTRE = (53.16, -27.78)
SPIRAL = Spiral(7, 21.0, 0.6, 0.5, axis_ratio=0.6, position_angle=40.0, n_nebulae=12, spacing=0.9)


def scene() -> Scene:
    components = spiral_galaxy(SPIRAL, np.random.default_rng(1))
    components.append(neighbour(8, 24.0, 1.1, 0.2, (1.4, 1.6), oxygen_width=30.0))
    components.append(star(9, 23.0, (-1.8, 0.6)))
    return Scene("test", CENTRE, tuple(components))


@pytest.fixture(scope="module")
def sky() -> Scene:
    return scene()


@pytest.mark.parametrize(
    "band",
    [
        Bandpass.tophat(5922.0, 400.0, edge=60.0, name="broad"),
        Bandpass.tophat(6564.6 * 1.6, 60.0, edge=12.0, name="narrow"),
        Bandpass.gaussian(4861.0 * 1.6, 80.0, name="air", medium="air"),
    ],
    ids=lambda band: band.name,
)
def test_band_fluxes_are_the_means_of_the_spectra(sky: Scene, band: Bandpass) -> None:
    low, high = band.to_medium("vacuum").limits
    wave = np.arange(low - 1, high + 1, 0.1)
    expected = band.mean_flux_density(wave, sky.spectra(wave))
    np.testing.assert_allclose(sky.band_fluxes(band), expected, rtol=3e-5)
    assert sky.band_fluxes(band).sum() == pytest.approx(expected.sum(), rel=1e-6)


def test_a_line_in_the_spectrum_has_its_flux_place_and_width(sky: Scene) -> None:
    line = default_lines()["Halpha"].rest_vacuum * 1.6
    wave = np.arange(line - 60, line + 60, 0.2)
    flux = sky.line_fluxes("Halpha")
    index = int(np.argmax(flux))
    lsf = 1.1
    only = Scene("line", CENTRE, tuple(part for part in sky.components if part.lines))
    bare = [
        Component(
            part.name, part.label, part.mixture, part.continuum, part.population, part.redshift,
            part.attenuation, part.velocity, part.dispersion, {}, part.gas_velocity, part.gas_dispersion,
        )
        for part in only.components
    ]  # fmt: skip
    with_lines = only.spectra(wave, lsf=lsf) - Scene("bare", CENTRE, tuple(bare)).spectra(wave, lsf=lsf)
    index -= len(sky.components[0].mixture)
    profile = with_lines[index]
    near = np.abs(wave - line) < 12  # between the [N II] lines
    total = profile[near].sum() * 0.2
    centre = (profile * wave)[near].sum() / profile[near].sum()
    width = np.sqrt((profile * (wave - centre) ** 2)[near].sum() / profile[near].sum())
    velocity, dispersion = only.collect("gas_velocity")[index], only.collect("gas_dispersion")[index]
    assert total == pytest.approx(only.line_fluxes("Halpha")[index], rel=1e-6)
    assert (centre / line - 1) * SPEED_OF_LIGHT == pytest.approx(velocity, abs=0.1)
    assert width == pytest.approx(np.hypot(lsf, centre * dispersion / SPEED_OF_LIGHT), rel=1e-4)


def test_continuum_is_normalised_at_the_reference_wavelength(sky: Scene) -> None:
    spiral = sky.select([7])
    flux = spiral.spectra([5500.0 * 1.6]).sum()
    # Dispersion and rotation move the smooth spectrum by less than a per mille.
    assert flux == pytest.approx(reference_flux(21.0, 0.6), rel=3e-3)
    magnitude = (flux * u.erg / u.s / u.cm**2 / u.AA).to(u.ABmag, u.spectral_density(8800 * u.AA))
    assert magnitude.value == pytest.approx(21.0, abs=0.005)


def test_velocity_field_rotates(sky: Scene) -> None:
    angle = np.radians(40.0)
    major, minor = np.array([np.sin(angle), np.cos(angle)]), np.array([np.cos(angle), -np.sin(angle)])
    receding, approaching, centre, side = (
        float(sky.velocity_field(*place)) for place in (0.9 * major, -0.9 * major, 0 * major, 0.5 * minor)
    )
    assert 60 < receding < 180
    assert approaching == pytest.approx(-receding, rel=0.2)
    assert abs(centre) < 0.2 * receding
    assert abs(side) < 0.3 * receding
    assert np.isnan(sky.velocity_field(500.0, 0.0))


def test_line_truth_is_the_moments_of_the_blobs(sky: Scene) -> None:
    wcs, shape = sky_wcs(CENTRE, (40, 40), 0.15), (40, 40)
    truth = line_truth(sky, "Halpha", wcs, shape, GaussianPSF(0.3))
    assert truth.flux.sum() == pytest.approx(sky.line_fluxes("Halpha").sum(), rel=2e-3)
    mean = np.nansum(truth.flux * truth.velocity) / truth.flux.sum()
    expected = np.average(sky.collect("gas_velocity"), weights=sky.line_fluxes("Halpha"))
    assert mean == pytest.approx(expected, abs=0.5)
    lit = truth.flux > 0.01 * truth.flux.max()
    assert truth.dispersion[lit].min() > 15.0
    # Beam smearing: a broader PSF mixes more velocities in a pixel.
    smeared = line_truth(sky, "Halpha", wcs, shape, GaussianPSF(1.2))
    assert np.median(smeared.dispersion[lit]) > 1.3 * np.median(truth.dispersion[lit])


def test_gradients_of_lines(sky: Scene) -> None:
    disc = next(part for part in sky.components if part.name == "disc")
    ratio = disc.lines["NII6583"] / disc.lines["Halpha"]
    assert ratio.max() / ratio.min() > 2.0
    np.testing.assert_allclose(disc.lines["NII6583"] / disc.lines["NII6548"], 3.05, rtol=0.01)
    decrement = disc.lines["Halpha"] / disc.lines["Hbeta"]
    assert decrement.min() > 2.86
    assert decrement.max() < 5.0


def test_truth_image_units_and_groups(sky: Scene) -> None:
    band = Bandpass.tophat(8000.0, 1000.0, edge=100.0, name="f800")
    wcs, shape = sky_wcs(CENTRE, (50, 52), 0.12, angle=30.0), (50, 52)
    psf = GaussianPSF(0.2)
    physical = truth_image(sky, band, wcs, shape, psf)
    assert physical.unit.is_equivalent(u.erg / u.s / u.cm**2 / u.AA)
    assert physical.data.dtype == np.float64
    electrons = truth_image(sky, band, wcs, shape, psf, photflam=2e-20, variance=3.0)
    assert electrons.unit == u.electron / u.s
    np.testing.assert_allclose(electrons.data * 2e-20, physical.data)
    assert electrons.variance.min() == 3.0
    assert electrons.psf == psf
    parts = object_images(sky, band, wcs, shape, psf, groups=[[7], [8, 9]])
    np.testing.assert_allclose(parts.sum(axis=0), physical.data, rtol=1e-10)
    assert parts[0].sum() == pytest.approx(sky.select([7]).band_fluxes(band).sum(), rel=3e-3)


def test_segmentation_gives_each_pixel_to_the_brightest(sky: Scene) -> None:
    band = Bandpass.tophat(8000.0, 1000.0, edge=100.0)
    wcs, shape = sky_wcs(CENTRE, (80, 80), 0.08), (80, 80)
    psf = GaussianPSF(0.15)
    threshold = 1e-20
    labels = segmentation(sky, band, wcs, shape, psf, threshold=threshold)
    assert labels.ids.tolist() == [7, 8, 9]
    assert labels.labels[40, 40] == 7
    total = truth_image(sky, band, wcs, shape, psf).data
    np.testing.assert_array_equal(labels.labels >= 0, total > threshold * 0.08**2 * (1 + 1e-6))
    x, y = wcs.all_world2pix(*wcs.all_pix2world(0, 0, 0), 0)
    assert (x, y) == (pytest.approx(0, abs=1e-6), pytest.approx(0, abs=1e-6))


def test_sky_wcs_puts_the_place_in_the_middle() -> None:
    wcs = sky_wcs(CENTRE, (11, 21), 0.05, angle=42.0, reference=(53.12, -27.8), shift=(0.5, -0.25))
    x, y = wcs.all_world2pix(*CENTRE, 0)
    assert (float(x), float(y)) == (pytest.approx(10.5, abs=1e-8), pytest.approx(4.75, abs=1e-8))
    top = wcs.all_pix2world(10.5, 14.75, 0)
    angle = np.degrees(np.arctan2((top[0] - CENTRE[0]) * np.cos(np.radians(CENTRE[1])), top[1] - CENTRE[1]))
    assert angle == pytest.approx(42.0, abs=0.05)


def test_bad_scenes_are_refused(sky: Scene) -> None:
    point = Mixture(np.ones(1), np.zeros((1, 2)), np.zeros((1, 2, 2)))
    with pytest.raises(ShapeError, match=r"odd\.continuum"):
        Component("odd", 1, point, np.ones(2), mix(a100=1.0))
    with pytest.raises(InputError, match="add up to 1"):
        Component("odd", 1, point, np.ones(1), 2 * mix(a100=1.0))
    with pytest.raises(InputError, match="did you mean 'Halpha'"):
        Component("odd", 1, point, np.ones(1), mix(a100=1.0), lines={"Halfa": np.ones(1)})
    with pytest.raises(InputError, match="no object"):
        sky.select([99])
    with pytest.raises(InputError, match="not in the line list"):
        sky.line_fluxes("Lyman")


def test_the_generator_decides_the_galaxy() -> None:
    first, again = scene(), scene()
    np.testing.assert_array_equal(first.offsets, again.offsets)
    other = spiral_galaxy(SPIRAL, np.random.default_rng(2))
    assert not np.array_equal(other[-1].mixture.centre, first.components[3].mixture.centre)
