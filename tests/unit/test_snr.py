"""Line S/N as users call it: what comes out, what is masked, what is refused."""

from __future__ import annotations

import warnings

import astropy.units as u
import numpy as np
import pytest

from skyloom.core.cube import Cube
from skyloom.core.image import Flag, Image
from skyloom.core.linelist import default_lines
from skyloom.core.spectra import Spectra
from skyloom.errors import AssumptionWarning, InputError, ShapeError
from skyloom.spectral.axes.widths import LIGHT
from skyloom.spectral.signal.snr import (
    channels_needed,
    continuum_snr,
    first_velocity_map,
    line_snr,
    spectra_line_snr,
)
from tests.inputs.snr import LSF, axis, celestial, cube_of, line_profile, noise_cube, noise_of
from tests.spectral_invariants import GARBAGE, make_cube, make_spectra

HALPHA = default_lines()["Halpha"].rest("air")
SHAPE = (120, 6, 7)


def line_cube(flux=100.0, redshift=0.0, *, velocity=0.0, sigma=LSF, slope=0.01, level=3.0, mask=None, n=120):
    """A noise-free line on a sloping continuum."""
    wave = axis(HALPHA * (1 + redshift), n)
    place = HALPHA * (1 + redshift) * (1 + np.broadcast_to(velocity, SHAPE[1:]) / LIGHT)
    data = flux * line_profile(wave, place, sigma)
    data += (level + slope * (wave - wave.mean()))[:, np.newaxis, np.newaxis]
    return cube_of(data, np.ones_like(data), wave, mask=mask)


def test_maps_say_what_they_are():
    cube = make_cube()
    result = line_snr(cube, "Halpha", 0.0, continuum=[[6515, 6540], [6575, 6595]])
    for image, unit in (
        (result.signal, cube.unit * u.AA),
        (result.noise, cube.unit * u.AA),
        (result.snr, u.dimensionless_unscaled),
    ):
        assert image.unit == unit
        assert image.shape == cube.shape[1:]
        assert image.wcs.to_header() == cube.wcs.to_header()
        assert image.correlation is cube.correlation.spatial
        assert image.psf.fwhm == pytest.approx(cube.psf.at(HALPHA).fwhm, rel=1e-4)
        assert image.history[:-1] == cube.history
        assert image.history[-1].name == "line_snr"
        assert image.history[-1].parameters["line"] == ["Halpha"]
        assert image.meta["instrument"] == "MUSE"
        assert image.flags is not None
    good = result.signal.valid
    np.testing.assert_allclose(result.signal.variance[good], result.noise.data[good] ** 2)
    np.testing.assert_allclose(result.snr.data[good], (result.signal.data / result.noise.data)[good])
    assert result.method == "window"
    assert result.windows.keys == ("Halpha",)


def test_shared_errors_pass_through_the_same_weights():
    cube = make_cube()
    result = line_snr(cube, "Halpha", 0.0, continuum=[[6515, 6540], [6575, 6595]])
    names = [mode.name for mode in result.signal.modes]
    assert names == ["sky level", "pedestal"]
    # a constant level is taken away with the continuum
    np.testing.assert_allclose(result.signal.modes[1].map, 0.0, atol=1e-9)
    as_data = cube.evolve(data=cube.modes[0].map.astype(np.float32))
    expected = line_snr(as_data, "Halpha", 0.0, continuum=[[6515, 6540], [6575, 6595]]).signal
    good = expected.valid
    np.testing.assert_allclose(result.signal.modes[0].map[good], expected.data[good])


@pytest.mark.parametrize("method", ["window", "matched"])
@pytest.mark.parametrize("garbage", GARBAGE)
def test_nothing_under_the_mask_leaks(method, garbage):
    cube = make_cube()
    data, variance = cube.data.copy(), cube.variance.copy()
    data[cube.mask] = garbage
    variance[cube.mask] = -1.0 if garbage == 1e30 else garbage
    options = {"continuum": [[6515, 6540], [6575, 6595]], "velocity": 0.0, "continuum_coverage": 0.4}
    first = line_snr(cube, "Halpha", 0.0, method, **options)
    other = line_snr(cube.evolve(data=data, variance=variance), "Halpha", 0.0, method, **options)
    for name in ("signal", "noise", "snr"):
        np.testing.assert_array_equal(getattr(first, name).data, getattr(other, name).data)
        np.testing.assert_array_equal(getattr(first, name).mask, getattr(other, name).mask)


def test_the_cube_is_not_changed(rng):
    cube = noise_cube(rng, SHAPE)
    before = cube.data.copy(), cube.variance.copy(), cube.mask.copy()
    line_snr(cube, "Halpha", 0.0)
    first_velocity_map(cube, "Halpha", 0.0)
    for old, new in zip(before, (cube.data, cube.variance, cube.mask), strict=True):
        np.testing.assert_array_equal(old, new)


def test_threads_and_layout_change_nothing(rng):
    cube = noise_cube(rng, (120, 90, 100))
    one = line_snr(cube, "Halpha", 0.0, workers=1)
    three = line_snr(cube, "Halpha", 0.0, workers=3)
    np.testing.assert_array_equal(one.signal.data, three.signal.data)
    turned = cube_of(
        np.asfortranarray(cube.data), np.asfortranarray(cube.variance), cube.wave, mask=cube.mask
    )
    np.testing.assert_array_equal(one.signal.data, line_snr(turned, "Halpha", 0.0).signal.data)


def test_only_the_channels_that_are_needed_need_be_read(rng):
    cube = noise_cube(rng, (400, 6, 7))
    run = channels_needed(cube.wave, "air", "Halpha", 0.0, lsf=LSF)
    part = cube.evolve(
        data=cube.data[run], variance=cube.variance[run], mask=cube.mask[run], wave=cube.wave[run]
    )
    assert part.shape[0] < 110
    for method, velocity in (("window", None), ("matched", 30.0)):
        whole, cut = (line_snr(each, "Halpha", 0.0, method, velocity=velocity) for each in (cube, part))
        np.testing.assert_allclose(cut.signal.data, whole.signal.data, rtol=1e-6)
        np.testing.assert_allclose(cut.noise.data, whole.noise.data, rtol=1e-6)


def test_a_continuum_that_is_a_straight_line_leaves_nothing(rng):
    cube = line_cube(flux=0.0, slope=0.05)
    for method in ("window", "matched"):
        signal = line_snr(cube, "Halpha", 0.0, method, velocity=0.0).signal
        np.testing.assert_allclose(signal.data, 0.0, atol=2e-5)
    mean = line_snr(line_cube(flux=0.0, slope=0.0), "Halpha", 0.0, degree=0).signal
    np.testing.assert_allclose(mean.data, 0.0, atol=2e-5)


def test_widths_in_three_units_give_the_same_map(rng):
    cube = noise_cube(rng, SHAPE)
    widths = [8.75, "8.75 AA", "7 px", 7 * u.pix, f"{8.75 / HALPHA * LIGHT} km/s"]
    maps = [line_snr(cube, "Halpha", 0.0, half_width=width).signal.data for width in widths]
    for other in maps[1:]:
        np.testing.assert_allclose(other, maps[0], rtol=1e-6, atol=1e-6)


def test_a_set_of_lines_counts_nothing_twice(rng):
    cube = noise_cube(rng, (160, 5, 5))
    both = line_snr(cube, ["Halpha", "NII6583"], 0.0, half_width=15.0, continuum=[[6500, 6530], [6610, 6640]])
    low = HALPHA - 15
    high = default_lines()["NII6583"].rest("air") + 15
    whole = line_snr(
        cube, 0.5 * (low + high), 0.0, half_width=0.5 * (high - low), continuum=[[6500, 6530], [6610, 6640]]
    )
    np.testing.assert_allclose(both.signal.data, whole.signal.data, rtol=1e-6)
    np.testing.assert_allclose(both.noise.data, whole.noise.data, rtol=1e-6)


def test_lines_in_vacuum():
    wave = axis(6564.632)
    data = 50.0 * line_profile(wave, np.full((2, 2), 6564.632), LSF)
    cube = cube_of(data, np.ones_like(data), wave, medium="vacuum")
    np.testing.assert_allclose(
        line_snr(cube, "Halpha", 0.0, "matched", velocity=0.0, sigma=0.0).signal.data, 50.0, rtol=1e-3
    )


def test_a_map_of_redshifts_is_a_map_of_velocities():
    velocity = np.linspace(-200, 200, 42).reshape(6, 7)
    cube = line_cube(redshift=0.02, velocity=velocity)
    total = 1.02 * (1 + velocity / LIGHT) - 1
    by_redshift = line_snr(cube, "Halpha", total, "matched", sigma=0.0)
    by_velocity = line_snr(cube, "Halpha", 0.02, "matched", velocity=velocity, sigma=0.0)
    np.testing.assert_allclose(by_redshift.signal.data, by_velocity.signal.data, rtol=1e-9)
    np.testing.assert_allclose(by_redshift.signal.data, 100.0, rtol=1e-3)
    as_image = Image(velocity, np.ones_like(velocity), None, "km/s", celestial())
    np.testing.assert_allclose(
        line_snr(cube, "Halpha", 0.02, "matched", velocity=as_image, sigma=0.0).signal.data,
        by_redshift.signal.data,
    )
    in_metres = as_image.evolve(data=velocity * 1e3, variance=np.ones_like(velocity), unit="m/s")
    np.testing.assert_allclose(
        line_snr(cube, "Halpha", 0.02, "matched", velocity=in_metres, sigma=0.0).signal.data,
        by_redshift.signal.data,
    )


def test_spaxels_whose_line_leaves_the_axis_or_has_no_velocity_are_masked():
    cube = line_cube()
    velocity = np.zeros(SHAPE[1:])
    velocity[0, 0], velocity[1, 1], velocity[2, 2] = np.nan, 9000.0, -9000.0
    for method in ("window", "matched"):
        image = line_snr(cube, "Halpha", 0.0, method, velocity=velocity).snr
        assert image.mask.sum() == 3
        assert image.mask[[0, 1, 2], [0, 1, 2]].all()
        assert np.isnan(image.data[image.mask]).all()


def test_a_masked_channel_in_the_wing_is_made_up_for_and_flagged():
    mask = np.zeros((120, 6, 7), bool)
    mask[62, 0, 0] = True  # 2.5 A from the line
    mask[59:62, 0, 1] = True  # the line itself
    mask[20:26, 0, 2] = True  # some continuum
    cube = line_cube(mask=mask, sigma=1.4)
    window = line_snr(cube, "Halpha", 0.0, half_width=8.0, sigma=40.0, window_coverage=0.8)
    assert not window.signal.mask[0, 0]
    assert window.signal.flags[0, 0] == Flag.LOW_COVERAGE
    assert window.signal.mask[0, 1]
    assert not window.signal.mask[0, 2]
    assert window.signal.flags[0, 2] == 0
    full = window.signal.data[3, 3]
    assert full == pytest.approx(100.0, rel=1e-3)
    # the share is that of a Gaussian of the assumed width (1.41 A) at the line
    assert window.signal.data[0, 0] == pytest.approx(full, rel=0.01)
    assert window.noise.data[0, 0] > window.noise.data[3, 3]
    strict = line_snr(cube, "Halpha", 0.0, half_width=8.0, window_coverage=1.0)
    assert strict.signal.mask[0, 0]
    matched = line_snr(
        cube, "Halpha", 0.0, "matched", velocity=0.0, sigma=np.sqrt(1.4**2 - LSF**2) / HALPHA * LIGHT,
        window_coverage=0.5,
    )  # fmt: skip
    np.testing.assert_allclose(matched.signal.data[~matched.signal.mask], 100.0, rtol=1e-3)
    assert matched.signal.flags[0, 0] == Flag.LOW_COVERAGE


def test_too_little_continuum_is_masked():
    mask = np.zeros((120, 6, 7), bool)
    mask[:48, 2, 2] = True
    result = line_snr(line_cube(mask=mask), "Halpha", 0.0)
    assert result.signal.mask.sum() == 1
    # a mean needs no two sides
    assert not line_snr(line_cube(mask=mask), "Halpha", 0.0, degree=0).signal.mask.any()


def test_flags_of_used_channels_reach_the_map():
    cube = line_cube()
    flags = np.zeros(cube.shape, np.uint16)
    flags[60, 1, 2], flags[0, 3, 3] = Flag.INTERPOLATED, Flag.NEGATIVE
    found = line_snr(cube.evolve(flags=flags), "Halpha", 0.0).signal.flags
    assert found[1, 2] == Flag.INTERPOLATED
    assert found[3, 3] == 0


def test_excluded_channels_are_not_read(rng):
    cube = noise_cube(rng, SHAPE)
    exclude = np.zeros(120, bool)
    exclude[25:30] = True
    data = cube.data.copy()
    data[25:30] = 1e6
    first = line_snr(cube, "Halpha", 0.0, exclude=exclude)
    other = line_snr(cube.evolve(data=data), "Halpha", 0.0, exclude=exclude)
    np.testing.assert_array_equal(first.signal.data, other.signal.data)
    assert not np.array_equal(first.signal.data, line_snr(cube, "Halpha", 0.0).signal.data)


def test_the_scale_of_the_variance_enters_the_noise_only_where_it_should(rng):
    cube = noise_cube(rng, SHAPE)
    plain = line_snr(cube, "Halpha", 0.0)
    scaled = line_snr(cube, "Halpha", 0.0, scale=4.0)
    np.testing.assert_allclose(scaled.noise.data, 2 * plain.noise.data)
    np.testing.assert_allclose(scaled.signal.data, plain.signal.data)


def test_without_a_lsf_the_default_window_says_what_it_assumes():
    cube = line_cube().evolve(lsf=None)
    with pytest.warns(AssumptionWarning, match="one channel, 1.25 A"):
        line_snr(cube, "Halpha", 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        line_snr(cube, "Halpha", 0.0, half_width=8.0)


def test_a_lsf_per_voxel_counts_spaxel_by_spaxel():
    lsf = np.ones((120, 6, 7)) * np.linspace(0.9, 1.6, 42).reshape(6, 7)
    lsf[:, 5, 6] = np.nan
    wave = axis(HALPHA)
    data = np.stack(
        [line_profile(wave, np.array(HALPHA), s) for s in np.nan_to_num(lsf[0], nan=1.2).ravel()], 1
    )
    cube = cube_of(100 * data.reshape(120, 6, 7), np.ones((120, 6, 7)), wave, lsf=lsf)
    signal = line_snr(cube, "Halpha", 0.0, "matched", velocity=0.0, sigma=0.0).signal.data
    np.testing.assert_allclose(signal.ravel()[:-1], 100.0, rtol=1e-3)
    assert signal.ravel()[-1] == pytest.approx(100.0, rel=0.1)


def empty(cube: Cube, **planes) -> Cube:
    mask = np.ones(cube.shape, bool)
    return cube.evolve(mask=mask, **planes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: line_snr(c, "Halpha", 0.5), "Halpha at redshift 0.5 needs"),
        (lambda c: line_snr(c, "Halpha", -2.0), "more than -1"),
        (lambda c: line_snr(c, "Halpha", np.nan), "redshift is nan"),
        (lambda c: line_snr(c, "Halpha", np.full((6, 7), np.nan)), "no finite value"),
        (lambda c: line_snr(c, "Halfa", 0.0), "did you mean 'Halpha'"),
        (lambda c: line_snr(c, "Halpha", 0.0, "median"), "use one of window, matched, peak"),
        (lambda c: line_snr(c, "Halpha", 0.0, "matched"), "first_velocity_map"),
        (lambda c: line_snr(c, "Halpha", 0.0, degree=3), "straight line"),
        (lambda c: line_snr(c, "Halpha", 0.0, window_coverage=0.0), "window_coverage is 0.0"),
        (lambda c: line_snr(c, "Halpha", 0.0, half_width=200.0), "the axis covers"),
        (lambda c: line_snr(c, "Halpha", 0.0, scale=-1.0), "must be positive"),
        (lambda c: line_snr(empty(c), "Halpha", 0.0), "no voxel between"),
        (
            lambda c: line_snr(empty(c, data=np.full(c.shape, np.nan, np.float32)), "Halpha", 0.0),
            "everything NaN",
        ),
        (
            lambda c: line_snr(empty(c, variance=np.zeros(c.shape, np.float32)), "Halpha", 0.0),
            "all errors zero",
        ),
        (
            lambda c: line_snr(c, "Halpha", 0.0, velocity=np.full((6, 7), 1e4)),
            "the axis covers",
        ),
        (lambda c: line_snr(c, "Halpha", 0.0, exclude=np.ones(120, bool)), "no voxel"),
        (lambda c: continuum_snr(c, (6000.0, 6100.0)), "the window runs from 6000.0"),
        (lambda c: continuum_snr(c, (6560.0, 6563.0)), "too few for degree 3"),
        (lambda c: continuum_snr(c, (6540.0, 6580.0), degree=20), "degree is 20"),
        (lambda c: continuum_snr(empty(c), (6540.0, 6580.0)), "no voxel"),
        (lambda c: first_velocity_map(c, "Halpha", 0.0, max_velocity=-1.0), "max_velocity"),
        (lambda c: first_velocity_map(c, "Halpha", 0.0, max_velocity=6000.0), "6000.0 km/s"),
        (lambda c: first_velocity_map(c, "Halpha", 0.0, false_alarm=0.0), "false_alarm"),
        (lambda c: first_velocity_map(c, "Halpha", 0.0, scales=[-1.0]), "scales"),
        (lambda c: line_snr(c, "Halpha", 0.0, "peak", velocity=0.0), "means nothing to a maximum"),
        (lambda c: line_snr(c, ["Halpha", "NII6583"], 0.0, "peak"), "no single peak"),
        (lambda c: line_snr(c, "Halpha", 0.5, "peak"), "must lie within"),
        (lambda c: line_snr(c, "Halpha", 0.0, "peak", half_width="40 px"), "continuum begins beyond"),
        (lambda c: line_snr(c, "Halpha", 0.0, "peak", continuum=[[6500, 6510]]), "two distances"),
    ],
)
def test_bad_input_is_one_clear_message(call, message):
    with pytest.raises(InputError, match=message):
        call(line_cube())


@pytest.mark.parametrize("field", ["velocity", "redshift", "sigma"])
def test_a_map_of_another_shape_is_named(field):
    options = {"redshift": 0.0, "velocity": 0.0, field: np.zeros((3, 4))}
    with pytest.raises(ShapeError, match=rf"{field}: the map has shape \(3, 4\); expected \(6, 7\)"):
        line_snr(line_cube(), "Halpha", options.pop("redshift"), "matched", **options)
    with pytest.raises(ShapeError, match="exclude has shape"):
        line_snr(line_cube(), "Halpha", 0.0, exclude=np.zeros(5, bool))


def test_nowhere_measurable_says_why():
    mask = np.zeros((120, 6, 7), bool)
    mask[58:63] = True
    with pytest.raises(InputError, match=r"too little of the line is on usable channels \(42\)"):
        line_snr(line_cube(mask=mask), "Halpha", 0.0)


def test_continuum_snr_measures_level_and_scatter(rng):
    wave = axis(5500.0, 100)
    x = (wave - 5500.0) / 60
    level = 20 + 3 * x - 2 * x**2 + x**3
    noise, lags = noise_of(np.full((100, 20, 20), 4.0), rng, np.array([1.0, 1.5, 1.0]))
    cube = cube_of(level[:, np.newaxis, np.newaxis] + noise, np.full((100, 20, 20), 4.0), wave, lags=lags)
    result = continuum_snr(cube, (5460.0, 5540.0))
    used = (wave > 5460) & (wave < 5540)
    assert result.signal.data.mean() == pytest.approx(level[used].mean(), abs=0.1)
    # the scatter about the polynomial is what the errors and their correlation say: 400 spectra, 1.5 % each way
    ratio = np.sqrt(np.mean(result.noise.data**2) / np.mean(result.noise_claimed.data**2))
    assert ratio == pytest.approx(1.0, abs=0.03)
    assert 1.5 < result.noise_claimed.data.mean() < 2.0
    assert result.signal.unit == cube.unit
    np.testing.assert_allclose(result.snr.data, result.signal.data / result.noise.data)
    assert result.signal.history[-1].name == "continuum_snr"


def test_continuum_of_a_polynomial_has_no_scatter():
    wave = axis(5500.0, 100)
    x = (wave - 5500.0) / 60
    data = np.broadcast_to((20 + 3 * x - 2 * x**2 + x**3)[:, np.newaxis, np.newaxis], (100, 3, 3))
    cube = cube_of(data, np.ones(data.shape), wave)
    result = continuum_snr(cube, (5450.0, 5550.0))
    assert result.noise.data.max() < 1e-5  # float32 data
    # independent channels: the claimed scatter of a single channel is its error, whatever the degree
    np.testing.assert_allclose(result.noise_claimed.data, 1.0, rtol=1e-3)


def spectra_of(data, variance, wave, lags=None, **more) -> Spectra:
    return Spectra(
        data.astype(np.float32), variance.astype(np.float32), None, "1e-20 erg/(s cm2 AA)", wave, "air", lsf=LSF,
        correlation=lags, **more,
    )  # fmt: skip


@pytest.mark.parametrize("kernel", [None, np.array([1.0, 2.0, 1.0])])
def test_spectra_have_claimed_and_measured_noise(kernel, rng):
    n = 400
    variance = np.full((120, n), 2.0)
    noise, lags = noise_of(variance, rng, kernel)
    # the claimed variance is half the true one
    spectra = spectra_of(noise.T, variance.T / 2, axis(HALPHA), lags)
    table = spectra_line_snr(spectra, "Halpha", 0.0)
    assert list(table.columns) == ["signal", "noise", "snr", "noise_measured", "snr_measured", "n_continuum"]
    assert table["signal"].unit == spectra.unit * u.AA
    ratio = np.sqrt(np.mean(table["noise_measured"] ** 2) / np.mean(table["noise"] ** 2)).value
    # 400 spectra of 48 channels: 1/sqrt(2 * 19200) = 0.5 % where channels are independent
    assert ratio == pytest.approx(np.sqrt(2), rel=0.02)
    assert np.std(table["snr"]) == pytest.approx(np.sqrt(2), abs=0.15)
    # a measured noise has its own scatter of 1/sqrt(2 n), and more where channels are correlated
    assert np.std(table["snr_measured"]) == pytest.approx(1.0, abs=0.12)


def test_spectra_are_measured_like_spaxels(rng):
    cube = noise_cube(rng, SHAPE, kernel=np.array([1.0, 2.0, 1.0]))
    flat = [plane.reshape(120, 42).T for plane in (cube.data, cube.variance, cube.mask)]
    spectra = Spectra(
        flat[0], flat[1], flat[2], cube.unit, cube.wave, "air", lsf=LSF, correlation=cube.correlation.spectral
    )
    velocity = np.linspace(-100, 100, 42)
    for method in ("window", "matched"):
        table = spectra_line_snr(spectra, "Halpha", np.zeros(42), method, velocity=velocity)
        image = line_snr(cube, "Halpha", 0.0, method, velocity=velocity.reshape(6, 7))
        np.testing.assert_allclose(table["signal"].value, image.signal.data.ravel(), rtol=1e-6)
        np.testing.assert_allclose(table["noise"].value, image.noise.data.ravel(), rtol=1e-6)


def test_spectra_with_everything():
    spectra = make_spectra()
    table = spectra_line_snr(spectra, "Halpha", 0.0, continuum=[[6515, 6540], [6575, 6595]])
    assert np.isfinite(table["snr"]).all()
    with pytest.raises(ShapeError, match=r"expected \(9,\)"):
        spectra_line_snr(spectra, "Halpha", np.zeros(4))
    with pytest.raises(InputError, match="peak"):
        spectra_line_snr(spectra, "Halpha", 0.0, "peak")


def test_first_pass_flags_what_it_filled(rng):
    cube = noise_cube(rng, (120, 24, 24), uneven=False)
    nothing = first_velocity_map(cube, "Halpha", 0.0, false_alarm=1e-4)
    assert (nothing.flags == Flag.INTERPOLATED).all()
    assert (nothing.data == 0).all()
    np.testing.assert_allclose(nothing.variance, 400.0**2 / 3)
    lit = cube.data.astype(float)
    lit[:, 2:9, 2:9] += 60 * line_profile(cube.wave, np.full((7, 7), HALPHA * (1 + 120 / LIGHT)), 1.4)
    found = first_velocity_map(cube.evolve(data=lit.astype(np.float32)), "Halpha", 0.0)
    assert found.unit == u.km / u.s
    assert (found.flags[3:8, 3:8] == 0).all()
    np.testing.assert_allclose(found.data[3:8, 3:8], 120.0, atol=8)
    assert found.data[20, 20] == pytest.approx(120.0, abs=8)
    assert found.history[-1].parameters["n_significant"] == np.count_nonzero(found.flags == 0)
    assert (np.sqrt(found.variance[3:8, 3:8]) < 8).all()


def test_first_pass_does_not_know_the_spaxel_itself(rng):
    """Whatever is in a spaxel, its velocity comes from others."""
    cube = noise_cube(rng, (120, 24, 24), uneven=False)
    data = cube.data.astype(float)
    data += 8 * line_profile(cube.wave, np.full((24, 24), HALPHA * (1 + 60 / LIGHT)), 1.4)
    first = first_velocity_map(cube.evolve(data=data.astype(np.float32)), "Halpha", 0.0)
    data[:, 10, 11] = 50 * rng.normal(size=120)
    other = first_velocity_map(cube.evolve(data=data.astype(np.float32)), "Halpha", 0.0)
    assert first.flags[10, 11] == 0
    assert other.data[10, 11] == pytest.approx(first.data[10, 11], abs=0.01)  # rounding of float32
    assert other.data[10, 13] != pytest.approx(first.data[10, 13], abs=0.1)


def test_peak_windows_can_be_set(rng):
    cube = noise_cube(rng, (230, 5, 5), uneven=False)
    with pytest.warns(AssumptionWarning, match="mean S/N of about 2.3"):
        plain = line_snr(cube, "Halpha", 0.0, "peak")
    with pytest.warns(AssumptionWarning):
        narrow = line_snr(cube, "Halpha", 0.0, "peak", half_width="5 AA", continuum=("20 px", "2000 km/s"))
    middle = cube.data[115 - 25 : 115 + 26].max(axis=0)
    away = np.abs(np.arange(230) - 115)
    side = cube.data[(away >= 35) & (away <= 100)].astype(float)
    np.testing.assert_allclose(plain.signal.data, middle - side.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(plain.noise.data, side.std(axis=0, ddof=1), rtol=1e-5)
    assert plain.signal.unit == cube.unit
    assert (narrow.signal.data < plain.signal.data + 1).all()
    parameters = narrow.signal.history[-1].parameters
    assert parameters["half_width_px"] == 4
    assert parameters["continuum_px"] == [20, 35]
