"""Synthetic images: means, variances, what masks and the ends of the axis take, and cubes read in slabs."""

from __future__ import annotations

import numpy as np
import pytest

import skyloom as sl
from skyloom.core.bandpass import Bandpass
from skyloom.core.cube import Cube, CubeCorrelation
from skyloom.core.image import Flag, Mode
from skyloom.core.linelist import vacuum_to_air
from skyloom.core.psf import ChromaticPSF, GaussianPSF
from skyloom.errors import InputError
from skyloom.spectral.bands.synthetic import synthetic_image, synthetic_images
from tests.inputs.snr import UNIT, celestial
from tests.oracles.synthetic import naive_means

WAVE = np.arange(4750.0, 9350.1, 5.0)
NARROW = Bandpass.tophat(6580.0, 80.0, edge=10.0, name="narrow")
RED = Bandpass.tophat(8000.0, 1600.0, edge=100.0, name="red")  # Covered.
FAR_RED = Bandpass.tophat(8500.0, 2000.0, edge=100.0, name="far_red")  # 8 % lie beyond 9350 A.
BAND = np.array([0.2, 1.0, 0.2])


def cube_of(data, *, variance=None, mask=None, wave=WAVE, **more) -> Cube:
    data = np.asarray(data, dtype=float)
    variance = np.full(data.shape, 1e-4) if variance is None else variance
    more = {"medium": "vacuum", **more}
    return Cube(data, variance, mask, UNIT, celestial(), wave, **more)


def straight(slopes, wave=WAVE, pivot=7000.0):
    """Spectra 1 + s (wave - pivot), in a row of pixels."""
    return 1.0 + (wave[:, None] - pivot)[:, :, None] * np.atleast_1d(slopes)[None, None, :]


def naive_mean(band, slope, pivot=7000.0):
    """Photon-weighted mean of 1 + s (wave - pivot) over the whole band, by brute force."""
    points = np.linspace(*band.limits, 2_000_001)
    counted = points * band.throughput_at(points)
    return 1.0 + slope * (np.sum(counted * points) / counted.sum() - pivot)


def noisy(rng, shape=(WAVE.size, 4, 5), **more):
    variance = 0.01 * (1 + rng.random(shape))
    lags = np.tile(BAND, (shape[0], 1)) + rng.uniform(-0.05, 0.05, (shape[0], 1)) * [1, 0, 1]
    return cube_of(
        2 + rng.standard_normal(shape), variance=variance, correlation=CubeCorrelation(None, lags), **more
    )


@pytest.mark.parametrize("band", [NARROW, RED])
def test_mean_and_variance_are_those_of_the_naive_twin(band, rng):
    cube = noisy(rng)
    mean, variance = naive_means(cube, band)
    image = synthetic_image(cube, band)
    np.testing.assert_allclose(image.data, mean, rtol=1e-10)
    np.testing.assert_allclose(image.variance, variance, rtol=1e-10)
    assert not image.mask.any()
    assert image.flags is None
    assert image.modes == ()
    assert image.unit == cube.unit
    assert image.meta["correction"] == pytest.approx(1.0, abs=1e-9)


def test_lost_voxels_of_a_narrow_band_leave_the_mean_of_the_rest(rng):
    cube = noisy(rng)
    mask = np.zeros(cube.shape, bool)
    inside = np.flatnonzero(np.abs(cube.wave - 6580) < 30)
    mask[inside[2], 1, 2] = True  # 1 of 16 channels
    mask[inside[:6], 3, 4] = True  # too many
    cube = cube.evolve(mask=mask, data=np.where(mask, np.nan, cube.data))
    mean, variance = naive_means(cube, NARROW)
    image = synthetic_image(cube, NARROW)
    assert image.mask.sum() == 1
    assert image.mask[3, 4]
    np.testing.assert_allclose(image.data[image.valid], mean[image.valid], rtol=1e-10)
    np.testing.assert_allclose(image.variance[image.valid], variance[image.valid], rtol=1e-10)
    assert np.argwhere(image.flags == Flag.LOW_COVERAGE).tolist() == [[1, 2]]
    assert not synthetic_image(cube, NARROW, maximum_lost=0.5).mask.any()


def test_what_is_lost_in_a_broad_band_is_judged_by_the_slope():
    """The red 9 % of the band are lost in one pixel: the mean of the rest would be 2 % too low."""
    slope = 5e-4
    cube = cube_of(straight([slope, slope, slope]))
    mask = np.zeros(cube.shape, bool)
    mask[cube.wave > 8680, 0, 1] = True
    image = synthetic_image(cube.evolve(mask=mask), RED, maximum_lost=0.12)
    np.testing.assert_allclose(image.data, naive_mean(RED, slope), rtol=1e-4)
    assert naive_means(cube.evolve(mask=mask), RED)[0][0, 1] < 0.98 * naive_mean(RED, slope)
    assert image.flags.tolist() == [[0, Flag.LOW_COVERAGE, 0]]


def test_a_gap_in_all_spaxels_is_bridged_and_counts_as_not_covered():
    cube = cube_of(straight([4e-4, 1e-4]))
    mask = np.broadcast_to(((cube.wave > 7400) & (cube.wave < 7700))[:, None, None], cube.shape)
    cube = cube.evolve(mask=mask, data=np.where(mask, np.nan, cube.data))
    image = synthetic_image(cube, RED)
    np.testing.assert_allclose(image.data[0], [naive_mean(RED, s) for s in (4e-4, 1e-4)], rtol=1e-3)
    assert image.flags is None  # No pixel lacks more than the others.
    with pytest.raises(InputError, match=r"usable channels hold 0\.8"):
        synthetic_image(cube, RED, minimum_coverage=0.95)


@pytest.mark.parametrize("beyond", ["slope", "constant", "none"])
def test_beyond_the_axis(beyond):
    slopes = np.array([-1e-4, 0.0, 1e-4, 3e-4])
    image = synthetic_image(cube_of(straight(slopes)), FAR_RED, beyond=beyond)
    points = np.linspace(*FAR_RED.limits, 200_001)
    counted = points * FAR_RED.throughput_at(points)
    inside = points <= WAVE[-1]
    if beyond == "none":
        counted, where = counted[inside], points[inside]
    else:
        where = np.minimum(points, WAVE[-1]) if beyond == "constant" else points
    expected = 1 + slopes * (np.sum(counted * where) / counted.sum() - 7000)
    # A steep slope stands out from the field; four pixels are a field all the same.
    np.testing.assert_allclose(image.data[0], expected, rtol=2e-4)
    assert image.meta["covered_fraction"] == pytest.approx(0.91684, abs=1e-4)
    assert bool(image.modes) == (beyond != "none")


def test_the_error_of_what_lies_beyond_is_shared():
    bent = straight([2e-4, 1e-4]) + 3e-8 * ((WAVE - 8000) ** 2)[:, None, None]
    image = synthetic_image(cube_of(bent), FAR_RED)
    (mode,) = image.modes
    assert mode.name == "beyond far_red"
    assert mode.sigma == image.meta["correction_error"]
    np.testing.assert_array_equal(mode.map, image.data)
    points = np.linspace(*FAR_RED.limits, 200_001)
    counted = points * FAR_RED.throughput_at(points)
    truth = [
        np.sum(counted * (1 + s * (points - 7000) + 3e-8 * (points - 8000) ** 2)) / counted.sum()
        for s in (2e-4, 1e-4)
    ]
    offset = image.data[0] / truth - 1
    assert np.all(np.abs(offset) > 1e-4)  # A parabola is no line,
    assert np.all(np.abs(offset) < 2 * mode.sigma)
    assert mode.sigma < 0.02


def test_faint_pixels_take_the_colour_of_the_field(rng):
    """Without light of its own no pixel has a colour; its noise must not be blown up by one."""
    slope = np.full(400, 2e-4)
    slope[200:] = -4e-5
    light = np.r_[np.full(200, 30.0), np.zeros(200)]
    truth = light * straight(slope)
    variance = np.ones(truth.shape)
    cube = cube_of(truth + rng.standard_normal(truth.shape), variance=variance)
    mean, naive = naive_means(cube, FAR_RED)
    image = synthetic_image(cube, FAR_RED)
    assert np.all(image.variance[0, 200:] < 1.1 * naive[0, 200:])
    assert np.median(image.data[0, :200] / mean[0, :200]) == pytest.approx(image.meta["correction"], rel=1e-3)


def test_bands_in_air_and_in_vacuum_are_the_same():
    """The axis in air holds the same spectrum at other numbers."""
    line = 1 + 50 * np.exp(-0.5 * ((WAVE - 6541.0) / 8) ** 2)[:, None, None] * np.ones((1, 1, 2))
    in_vacuum = synthetic_image(cube_of(line), NARROW)
    in_air = synthetic_image(cube_of(line, wave=vacuum_to_air(WAVE), medium="air"), NARROW)
    mistaken = synthetic_image(cube_of(line, medium="air"), NARROW)
    np.testing.assert_allclose(in_air.data, in_vacuum.data, rtol=1e-4)
    assert abs(mistaken.data[0, 0] / in_vacuum.data[0, 0] - 1) > 0.02


def test_psf_flags_modes_and_history_are_kept():
    psf = ChromaticPSF(np.array([5000.0, 9000.0]), (GaussianPSF(1.0), GaussianPSF(0.6)))
    flags = np.zeros((WAVE.size, 1, 2), np.uint16)
    flags[np.abs(WAVE - 6580) < 3, 0, 1] = Flag.NEAR_SATURATED
    flags[WAVE < 6000] = Flag.NEGATIVE
    modes = (
        Mode("sky", np.broadcast_to(WAVE[:, None, None] / 6580, (WAVE.size, 1, 2)), 0.3),
        Mode("zero", 2.0, 0.1),
    )
    kernel = np.outer(BAND, BAND)
    cube = cube_of(
        straight([0.0, 0.0]), psf=psf, flags=flags, modes=modes, correlation=CubeCorrelation(kernel, BAND)
    )
    image = synthetic_image(cube, NARROW)
    assert image.psf.fwhm == pytest.approx(1.0 - 0.4 * (6580 - 5000) / 4000, abs=1e-4)
    assert image.flags.tolist() == [[0, Flag.NEAR_SATURATED]]
    np.testing.assert_array_equal(image.correlation, kernel)
    assert [mode.sigma for mode in image.modes] == [0.3, 0.1]
    np.testing.assert_allclose(image.modes[0].map, 1.0, rtol=1e-4)
    np.testing.assert_allclose(image.modes[1].map, 2.0)
    assert image.history[-1].name == "synthetic_image"
    assert image.wcs.naxis == 2


class Slabs:
    """A cube that can only be read in parts, and says which."""

    def __init__(self, cube):
        self._cube, self.asked = cube, []
        for name in ("shape", "wave", "medium", "unit", "wcs", "psf", "correlation", "meta"):
            setattr(self, name, getattr(cube, name))

    def read(self, channels):
        self.asked.append(channels)
        cube = self._cube
        return cube_of(
            cube.data[channels],
            variance=cube.variance[channels],
            mask=cube.mask[channels],
            wave=cube.wave[channels],
        )


def test_slabs_give_the_same_and_read_only_what_is_needed(rng):
    cube = noisy(rng)
    bands = [NARROW, FAR_RED]
    whole = synthetic_images(cube, bands)
    source = Slabs(cube)
    parts = synthetic_images(source, bands, slab_bytes=7 * 20 * 9, workers=2)
    assert list(parts) == ["narrow", "far_red"]
    for name, image in whole.items():
        np.testing.assert_allclose(parts[name].data, image.data, rtol=1e-12)
        np.testing.assert_allclose(parts[name].variance, image.variance, rtol=1e-12)
    assert all(part.stop - part.start <= 7 for part in source.asked)
    read = np.concatenate([np.arange(part.start, part.stop) for part in source.asked])
    assert np.unique(read).size == read.size
    assert WAVE[read].min() > 6500
    assert not np.any((WAVE[read] > 6650) & (WAVE[read] < 7400))


def test_the_leaks_of_a_measured_curve_are_not_read_for():
    wave = np.linspace(4000, 10000, 3001)
    leaky = Bandpass(wave, NARROW.throughput_at(wave) + 1e-7, "leaky")
    source = Slabs(cube_of(straight([1e-4, 0.0])))
    image = synthetic_images(source, [leaky])["leaky"]
    np.testing.assert_allclose(image.data[0], [naive_mean(NARROW, 1e-4), 1.0], rtol=1e-4)
    assert sum(part.stop - part.start for part in source.asked) < 80


def test_it_is_found_in_the_interface():
    assert sl.spectral.synthetic_image is synthetic_image


@pytest.mark.parametrize(
    ("band", "options", "message"),
    [
        (Bandpass.tophat(9800.0, 1200.0, name="off"), {}, "hold 0.1"),
        (Bandpass.tophat(12000.0, 1200.0, name="off"), {}, "hold 0.0000 of the band"),
        (FAR_RED, {"beyond": "linear"}, "beyond is 'linear'; expected one of slope, constant, none"),
    ],
)
def test_what_cannot_be_made_is_said(band, options, message):
    with pytest.raises(InputError, match=message):
        synthetic_image(cube_of(straight([0.0])), band, **options)


def test_a_short_cube_cannot_tell_a_colour():
    wave = WAVE[(WAVE > 8400) & (WAVE < 8600)]
    with pytest.raises(InputError, match="too short to tell"):
        synthetic_image(cube_of(straight([0.0], wave), wave=wave), FAR_RED, minimum_coverage=0.05)
    image = synthetic_image(
        cube_of(straight([0.0], wave), wave=wave), FAR_RED, minimum_coverage=0.05, beyond="none"
    )
    np.testing.assert_allclose(image.data, 1.0)


def test_bands_must_have_names_of_their_own():
    cube = cube_of(straight([0.0]))
    with pytest.raises(InputError, match="two bands have the same name"):
        synthetic_images(cube, [NARROW, NARROW])
    with pytest.raises(InputError, match="no band"):
        synthetic_images(cube, [])


def test_a_cube_without_usable_voxels_in_the_band_is_refused():
    cube = cube_of(straight([0.0]))
    with pytest.raises(InputError, match=r"usable channels hold 0\.0000"):
        synthetic_image(cube.evolve(mask=np.ones(cube.shape, bool)), NARROW)
