"""Continuum subtraction against its naive twin, and what it must refuse."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.core.bandpass import Bandpass
from skyloom.core.extinction import extinction_curve
from skyloom.core.image import Flag, Image, Mode
from skyloom.core.linelist import default_lines
from skyloom.core.noise import truncate_correlation
from skyloom.core.psf import GaussianPSF
from skyloom.errors import AssumptionWarning, InputError, ShapeError, UnitError
from skyloom.imaging.narrow_band import continuum_pass
from skyloom.imaging.narrow_band.continuum import subtract_continuum
from skyloom.imaging.narrow_band.lines import line_response
from tests.grids import tangent_wcs
from tests.oracles.continuum import (
    BLUE,
    KERNELS,
    NARROW,
    RED,
    make_images,
    pivot_weights,
    subtract_naively,
    true_bands,
)

SHAPE = (40, 50)
REDSHIFT = 0.0022
BANDS = (BLUE, RED)


def run(images, **options):
    return subtract_continuum(images[0], images[1:], NARROW, BANDS[: len(images) - 1], **options)


def bright_images(rng, variances=(1e-6, 2e-6, 3e-6), **fields):
    truth = true_bands((7, 9), "linear", peak=20.0, floor=6.0, lines=8.0)
    planes = [plane + rng.normal(0, 0.3, plane.shape) for plane in truth[:3]]
    return make_images(planes, variances, **fields)


def shares(ratios):
    """k of both continua, written out."""
    lines = default_lines()
    sums = [
        sum(r * line_response(band, lines[key].rest_vacuum * (1 + REDSHIFT)) for key, r in ratios.items())
        for band in (NARROW, BLUE, RED)
    ]
    return sums[1] / sums[0], sums[2] / sums[0]


@pytest.mark.parametrize("interpolation", ["linear", "log"])
@pytest.mark.parametrize("redshift", [None, REDSHIFT])
def test_excess_and_variance_are_those_of_the_naive_twin(rng, interpolation, redshift):
    images = bright_images(rng)
    strong = {"OIII5007": 4.0, "NII6583": 0.4}
    found = run(
        images, interpolation=interpolation, redshift=redshift, line_ratios=strong if redshift else None
    )
    k1, k2 = 0.0, 0.0
    if redshift:
        ties = {"OIII4959": 4.0 * 0.3356, "NII6548": 0.4 * 0.3279, "Hbeta": 1 / 2.86, "Halpha": 1.0}
        k1, k2 = shares(strong | ties)
        assert found.contamination == pytest.approx((k1, k2), rel=1e-12)
        assert k1 > 0.1
    data, variance = (np.array([getattr(image, name) for image in images]) for name in ("data", "variance"))
    excess, spread = subtract_naively(data, variance, k1, k2, *pivot_weights(), interpolation)
    np.testing.assert_allclose(found.excess.data, excess, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.excess.variance, spread, rtol=2e-5)
    np.testing.assert_allclose(found.continuum.data, images[0].data - found.excess.data, rtol=1e-12)


def test_lines_in_the_broad_bands_are_taken_out_exactly(rng):
    """With the true ratios the true excess comes back, in closed form and by Newton's method."""
    ratios = {"Halpha": 1.0, "NII6583": 0.5, "NII6548": 0.5 * 0.3279, "Hbeta": 1 / 2.86, "OIII5007": 1.5}
    ratios["OIII4959"] = 1.5 * 0.3356
    k1, k2 = shares(ratios)
    given = {"NII6583": 0.5, "OIII5007": 1.5}
    for interpolation in ("linear", "log"):
        narrow, blue, red, excess = true_bands(SHAPE, interpolation, peak=20.0, lines=30.0)
        images = make_images((narrow, blue + k1 * excess, red + k2 * excess), (1e-8,) * 3)
        found = run(images, interpolation=interpolation, redshift=REDSHIFT, line_ratios=given)
        np.testing.assert_allclose(found.excess.data, excess, atol=1e-6)
        ignored = run(images, interpolation=interpolation)
        assert np.max(np.abs(ignored.excess.data - excess)) > 0.02 * excess.max()


@pytest.mark.parametrize("interpolation", ["linear", "log"])
def test_maps_of_ratios_give_what_numbers_give(rng, interpolation):
    images = bright_images(rng, variances=(0.04, 0.02, 0.03))
    numbers = run(images, interpolation=interpolation, redshift=REDSHIFT, line_ratios={"NII6583": 0.4})
    plane = np.full(images[0].shape, 0.4)
    ratio = Image(plane, np.full_like(plane, 1e-4), None, "", images[0].wcs)
    for given in (plane, ratio):
        maps = run(images, interpolation=interpolation, redshift=REDSHIFT, line_ratios={"NII6583": given})
        np.testing.assert_allclose(maps.excess.data, numbers.excess.data, rtol=1e-12)
        np.testing.assert_allclose(maps.excess.variance, numbers.excess.variance, rtol=1e-12)
    ratio.mask[2, 3] = True
    holed = run(images, interpolation=interpolation, redshift=REDSHIFT, line_ratios={"NII6583": ratio})
    assert holed.excess.mask.sum() == 1
    assert holed.excess.mask[2, 3]
    assert np.isnan(holed.excess.data[2, 3])
    assert holed.counts["unusable"] == 1


def hermite_images(snr, narrow_noise=0.05):
    """An image whose pixels are the nodes of a quadrature over the noise of three bands, and their weights."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(31)
    small, share = np.polynomial.hermite_e.hermegauss(3)
    n, b, r = (part.reshape(3, -1) for part in np.meshgrid(small, nodes, nodes, indexing="ij"))
    chance = np.einsum("i,j,k->ijk", share, weights, weights).reshape(3, -1)
    truth = np.array([2.0, 1.0, 0.6])
    w1, w2 = pivot_weights()
    sigma = np.array([narrow_noise, truth[1] / snr, truth[2] / snr])
    planes = [value + error * node for value, error, node in zip(truth, sigma, (n, b, r), strict=True)]
    return make_images(planes, sigma**2), chance / chance.sum(), truth[0] - truth[1] ** w1 * truth[2] ** w2


@pytest.mark.parametrize("snr", [8.0, 12.0])
def test_log_interpolation_is_unbiased_and_its_error_true_to_second_order(snr):
    images, chance, truth = hermite_images(snr)
    # Pixels far out in the tail, where the logarithm has no value, have a weight of 1e-9.
    found = run(images, interpolation="log", minimum_snr=0.5)
    mean = np.sum(chance * found.excess.data)
    variance = np.sum(chance * (found.excess.data - mean) ** 2)
    claimed = np.sum(chance * found.excess.variance)
    error = np.sqrt(variance)
    assert abs(mean - truth) < 0.01 * error
    assert claimed == pytest.approx(variance, rel=0.01)
    plain = (
        images[0].data
        - images[1].data.clip(0.01) ** found.weights[0] * images[2].data.clip(0.01) ** found.weights[1]
    )
    bias = np.sum(chance * plain) - truth
    # What is removed is what the equation says.
    expected = np.prod(found.weights) * np.prod(np.power([1.0, 0.6], found.weights)) / snr**2
    assert bias == pytest.approx(expected, rel=0.05)
    assert bias > 4 * abs(mean - truth)


def test_one_continuum_is_scaled_by_the_slope(rng):
    images = bright_images(rng)[:2]
    flat = run(images)
    np.testing.assert_allclose(flat.excess.data, images[0].data - images[1].data)
    np.testing.assert_allclose(flat.excess.variance, images[0].variance + images[1].variance)
    assert flat.weights == (1.0,)
    blue = run(images, slope=-1.5, interpolation="log")
    factor = (NARROW.pivot / BLUE.pivot) ** -1.5
    np.testing.assert_allclose(blue.continuum.data, factor * images[1].data)
    np.testing.assert_allclose(blue.continuum.variance, factor**2 * images[1].variance)


@pytest.mark.parametrize("interpolation", ["linear", "log"])
def test_a_power_law_is_recovered_with_its_slope(interpolation):
    planes = [np.full((5, 6), 3.0 * (band.pivot / 6000) ** -1.7) for band in (NARROW, *BANDS)]
    images = make_images(planes, (1e-8,) * 3)
    found = run(images, slope=-1.7, interpolation=interpolation)
    np.testing.assert_allclose(found.excess.data, 0, atol=1e-7)


def test_headers_alone_give_the_pivots_and_the_scale_of_ab_zero_points(rng):
    """PHOTFLAM and PHOTPLAM scale counts as AB zero points do, when the slope is that of a flat f_nu."""
    photflam, photplam = (1.9e-18, 1.1e-19, 1.5e-19), (6584.0, 5308.0, 8048.0)
    counts = rng.uniform(1.0, 2.0, (3, 6, 5))
    zero_points = [
        -2.5 * np.log10(f) - 5 * np.log10(p) - 2.408 for f, p in zip(photflam, photplam, strict=True)
    ]
    images = make_images([c * f / 1e-20 for c, f in zip(counts, photflam, strict=True)], (1e-4,) * 3)
    for image, pivot in zip(images, photplam, strict=True):
        image.meta["photplam"] = pivot
    scaled = [c * 10 ** (-0.4 * (z - zero_points[0])) for c, z in zip(counts, zero_points, strict=True)]
    one = subtract_continuum(images[0], images[1], slope=-2.0)
    np.testing.assert_allclose(one.excess.data * 1e-20 / photflam[0], scaled[0] - scaled[1], rtol=1e-5)
    red = (photplam[0] - photplam[1]) / (photplam[2] - photplam[1])
    logarithm = (1 - red) * np.log10(scaled[1]) + red * np.log10(scaled[2])
    two = subtract_continuum(images[0], images[1:], slope=-2.0, interpolation="log")
    assert two.weights == pytest.approx((1 - red, red))
    np.testing.assert_allclose(two.excess.data * 1e-20 / photflam[0], scaled[0] - 10**logarithm, rtol=1e-5)


def test_milky_way_extinction_is_taken_out_per_band(rng):
    images = bright_images(rng, modes=((Mode("sky", 1.0, 0.1),), (Mode("sky", 1.0, 0.2),), ()))
    found = run(images, a_v=0.5)
    factors = 10 ** (0.2 * extinction_curve([NARROW.pivot, BLUE.pivot, RED.pivot]))
    assert found.extinction == pytest.approx(factors)
    bright = [
        image.evolve(
            data=image.data * f,
            variance=image.variance * f**2,
            modes=tuple(mode._replace(sigma=mode.sigma * f) for mode in image.modes),
        )
        for image, f in zip(images, factors, strict=True)
    ]
    expected = run(bright)
    np.testing.assert_allclose(found.excess.data, expected.excess.data)
    np.testing.assert_allclose(found.excess.variance, expected.excess.variance)
    for mine, its in zip(found.excess.modes, expected.excess.modes, strict=True):
        assert mine.map * mine.sigma == pytest.approx(its.map * its.sigma)
    assert run(images, ebv=0.5 / 3.1).extinction == pytest.approx(factors)
    assert found.excess.meta["milky_way_corrected"] is True
    assert found.excess.history[-1].parameters["a_v"] == 0.5
    with pytest.raises(InputError, match="taken out already"):
        run([found.excess, *images[1:]], a_v=0.5)
    images[1].meta["milky_way_corrected"] = True
    images[2].meta["milky_way_corrected"] = False
    with pytest.raises(InputError, match=r"some images only .*F555W: True, F814W: False"):
        run(images)


def test_line_light_behind_dust_is_taken_out_with_the_dust_of_its_own_wavelength():
    """Line ratios are those outside of the Milky Way; the lines lie off the pivots the bands are corrected at."""
    lines, visual = default_lines(), 0.8
    ratios = {"Halpha": 1.0, "Hbeta": 0.25, "OIII5007": 2.0, "OIII4959": 2.0 * 0.3356}
    flux = np.array([[0.0, 100.0, 2000.0]])
    planes = []
    for band, level in zip((NARROW, *BANDS), (0.0, 5.0, 4.0), strict=True):
        light = np.zeros(flux.shape)
        for key, ratio in ratios.items():
            wave = lines[key].rest_vacuum * (1 + REDSHIFT)
            dust = 10 ** (-0.4 * visual * float(extinction_curve(wave)))
            light += ratio * flux * line_response(band, wave) * dust
        planes.append(light + level * 10 ** (-0.4 * visual * float(extinction_curve(band.pivot))))
    w1, w2 = pivot_weights()
    planes[0] += (5.0 * w1 + 4.0 * w2) * 10 ** (-0.4 * visual * float(extinction_curve(NARROW.pivot)))
    images = make_images(planes, (1e-6,) * 3)
    found = run(images, a_v=visual, redshift=REDSHIFT, line_ratios={"Hbeta": 0.25, "OIII5007": 2.0})
    np.testing.assert_allclose(found.continuum.data, 5.0 * w1 + 4.0 * w2, rtol=1e-9)


@pytest.mark.parametrize("interpolation", ["linear", "log"])
@pytest.mark.parametrize("as_map", [False, True])
def test_shared_errors_enter_with_the_derivative_of_the_result(rng, interpolation, as_map):
    pattern = np.linspace(-1, 1, 63).reshape(7, 9)
    modes = ((Mode("sky", 1.0, 0.1),), (Mode("sky", 1.0, 0.02),), (Mode("slope", pattern, 0.03),))
    images = bright_images(rng, modes=modes)
    ratio = np.full((7, 9), 0.4) if as_map else 0.4
    options = {"interpolation": interpolation, "redshift": REDSHIFT, "line_ratios": {"NII6583": ratio}}
    found = run(images, **options)
    names = ["sky", "sky (F555W)", "slope (F814W)"]
    assert [mode.name for mode in found.excess.modes] == names
    for number, name in enumerate(names):
        mode = modes[number][0]
        moved = list(images)
        moved[number] = images[number].evolve(data=images[number].data + 1e-4 * mode.map)
        other = run(moved, **options)
        for product in ("excess", "continuum"):
            derivative = (getattr(other, product).data - getattr(found, product).data) / 1e-4
            (carried,) = [mode for mode in getattr(found, product).modes if mode.name == name]
            assert carried.sigma == mode.sigma
            np.testing.assert_allclose(np.broadcast_to(carried.map, (7, 9)), derivative, rtol=1e-3, atol=1e-6)


def test_an_error_common_to_all_images_is_added_up(rng):
    images = bright_images(rng)
    images = [image.evolve(modes=(Mode("flux scale", image.data.copy(), 0.02),)) for image in images]
    for interpolation in ("linear", "log"):
        found = run(images, common_modes=("flux scale",), interpolation=interpolation)
        (mode,) = found.excess.modes
        np.testing.assert_allclose(mode.map * mode.sigma, 0.02 * found.excess.data, rtol=1e-4, atol=1e-5)
    assert len(run(images).excess.modes) == 3


def test_correlation_is_the_mean_weighted_with_the_shares_in_the_variance(rng):
    images = bright_images(rng, variances=(1.0, 4.0, 0.5), kernels=KERNELS)
    part = np.array([1.0, *pivot_weights()]) ** 2 * [1.0, 4.0, 0.5]
    expected = sum(
        share * np.pad(image.correlation, (9 - image.correlation.shape[0]) // 2)
        for share, image in zip(part / part.sum(), images, strict=True)
    )
    for options in ({}, {"interpolation": "log", "minimum_snr": 1e9}):
        # Without any colour around a pixel (one noisy block) log interpolation is the linear one.
        found = run([image.evolve(data=image.data - 50) for image in images], **options)
        np.testing.assert_allclose(found.excess.correlation, truncate_correlation(expected), atol=1e-12)
    # The narrow band has no part in the continuum as long as no lines are taken out.
    broad = run(images[:2])
    np.testing.assert_array_equal(broad.continuum.correlation, images[1].correlation)


def test_masks_and_flags_are_united_and_nothing_leaks_from_under_a_mask(rng):
    masks = [np.zeros((7, 9), bool) for _ in range(3)]
    masks[0][0], masks[1][:, 0], masks[2][3, 3] = True, True, True
    for interpolation in ("linear", "log"):
        results = []
        for garbage in (np.nan, np.inf, 1e30):
            images = bright_images(np.random.default_rng(5), masks=masks)
            for image in images:
                image.data[image.mask] = garbage
                image.variance[image.mask] = -1.0
            flags = np.zeros((7, 9), np.uint16)
            flags[5, 5] = Flag.REPAIRED_COSMIC_RAY
            images[1] = images[1].evolve(flags=flags)
            results.append(run(images, interpolation=interpolation))
        for found in results:
            union = masks[0] | masks[1] | masks[2]
            np.testing.assert_array_equal(found.excess.mask, union)
            np.testing.assert_array_equal(found.excess.data, results[0].excess.data)
            assert np.isnan(found.excess.data[union]).all()
            assert found.excess.flags[5, 5] == Flag.REPAIRED_COSMIC_RAY
            assert found.counts["valid"] == np.sum(~union)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("interpolation", ["linear", "log"])
def test_tiles_and_threads_change_nothing(rng, monkeypatch, dtype, interpolation):
    truth = true_bands((70, 50), interpolation, peak=20.0, lines=5.0)[:3]
    planes = [plane + rng.normal(0, 1, plane.shape) for plane in truth]
    images = make_images(planes, (1.0,) * 3, dtype=dtype, kernels=KERNELS)
    before = [image.data.copy() for image in images]
    options = {"interpolation": interpolation, "redshift": REDSHIFT}
    whole = run(images, threads=1, **options)
    monkeypatch.setattr(continuum_pass, "TILE", 400)
    tiled = run(images, threads=3, **options)
    for name in ("excess", "continuum"):
        first, second = getattr(whole, name), getattr(tiled, name)
        assert first.data.dtype == first.variance.dtype == dtype
        np.testing.assert_array_equal(first.data, second.data)
        np.testing.assert_array_equal(first.variance, second.variance)
        np.testing.assert_allclose(first.correlation, second.correlation, rtol=1e-12)
    assert whole.counts == tiled.counts
    for image, kept in zip(images, before, strict=True):
        np.testing.assert_array_equal(image.data, kept)


def test_the_kernels_do_the_same_without_compilation(rng, monkeypatch):
    planes = [plane + rng.normal(0, 1, plane.shape) for plane in true_bands((12, 20), "log", peak=20.0)[:3]]
    images = make_images(planes, (1.0, 0.5, 0.7))
    ratio = {"NII6583": np.full((12, 20), 0.5)}
    for interpolation in ("linear", "log"):
        for given in (None, ratio):
            options = {"interpolation": interpolation, "line_ratios": given}
            compiled = run(images, redshift=REDSHIFT, **options)
            with monkeypatch.context() as patch:
                for name in ("subtract_fixed", "subtract_mapped", "add_blocks"):
                    patch.setattr(continuum_pass, name, getattr(continuum_pass, name).py_func)
                plain = run(images, redshift=REDSHIFT, **options)
            np.testing.assert_allclose(plain.excess.data, compiled.excess.data, rtol=1e-12)
            np.testing.assert_allclose(plain.excess.variance, compiled.excess.variance, rtol=1e-12)
            assert plain.counts == compiled.counts


def test_faint_pixels_take_the_colour_of_their_surroundings():
    """The tangent of log interpolation at the true colour is log interpolation, whatever the pixel shows."""
    narrow, blue, red, _ = true_bands((96, 96), "log", peak=3.0, colour=0.4)
    images = make_images((narrow, blue, red), (1.0, 0.5, 0.5))
    found = run(images, interpolation="log")
    assert found.counts["surroundings"] == 96 * 96
    np.testing.assert_allclose(found.excess.data, 0, atol=0.003)
    linear = run(images)
    assert np.max(np.abs(linear.excess.data)) > 0.03
    # A sky level below zero leaves no colour anywhere: linear, and said so.
    dark = run(make_images((narrow, blue - 50, red - 50), (1.0, 0.5, 0.5)), interpolation="log")
    assert dark.counts["linear"] == 96 * 96
    assert dark.excess.history[-1].parameters["linear"] == 96 * 96
    np.testing.assert_allclose(dark.excess.data, linear.excess.data + 50)


def test_psfs_that_differ_are_announced_or_matched():
    planes = [np.ones((40, 40)) * level for level in (3.0, 2.0, 1.0)]
    psfs = [GaussianPSF(width) for width in (0.10, 0.10, 0.14)]
    images = [
        image.evolve(psf=psf) for image, psf in zip(make_images(planes, (0.01,) * 3), psfs, strict=True)
    ]
    with pytest.warns(AssumptionWarning, match='PSFs differ by 40%.*F814W 0.140"'):
        run(images)
    matched = run(images, match="broadest")
    assert matched.excess.psf is psfs[2]
    assert matched.excess.correlation is not None
    run(images, psf_tolerance=0.5)


def test_history_and_result_say_what_was_done(rng):
    images = bright_images(rng)
    found = run(images, redshift=REDSHIFT)
    (last,) = found.excess.history
    assert last.name == "subtract_continuum"
    assert last.parameters["bands"] == ["F658N", "F555W", "F814W"]
    assert last.parameters["weights"] == pytest.approx(pivot_weights())
    assert set(last.parameters["lines"]) == {"Halpha", "Hbeta"}
    assert found.bands == ("F658N", "F555W", "F814W")
    assert found.pivots == pytest.approx((NARROW.pivot, BLUE.pivot, RED.pivot))
    assert found.excess.meta["continuum_bands"] == ["F555W", "F814W"]
    # Order of the continua does not matter.
    turned = subtract_continuum(images[0], images[:0:-1], NARROW, (RED, BLUE), redshift=REDSHIFT)
    np.testing.assert_allclose(turned.excess.data, found.excess.data, rtol=1e-12)


def changed(number, **changes):
    def change(images):
        images[number] = images[number].evolve(**changes)
        return images

    return change


def zeroed(images):
    images[1].data[:] = 0.0
    return images


BAD = {
    "swapped images": (lambda images: [images[0], images[2], images[1]], {}, InputError, "same order"),
    "narrow last": (lambda images: [images[2], images[1], images[0]], {}, InputError, "same order"),
    "zeros": (zeroed, {}, InputError, "F555W: .*zero in all usable pixels"),
    "zeros, log": (zeroed, {"interpolation": "log"}, InputError, "F555W: .*zero in all usable pixels"),
    "unit": (changed(1, unit="Jy / arcsec2"), {}, UnitError, "continuum 1 is in Jy / arcsec2"),
    "counts": (changed(0, unit="electron / s"), {}, UnitError, "expected a flux density per wavelength"),
    "grid": (changed(2, wcs=tangent_wcs((7, 9), 0.05)), {}, InputError, "another pixel grid"),
    "no grid": (changed(2, wcs=None), {}, InputError, "another pixel grid"),
    "all masked": (
        changed(2, mask=np.ones((7, 9), bool)),
        {},
        InputError,
        "no pixel is usable in all of F658N",
    ),
    "interpolation": (list, {"interpolation": "cubic"}, InputError, "'linear' or 'log'"),
    "minimum_snr": (list, {"minimum_snr": 0.0}, InputError, "minimum_snr is 0.0"),
    "slope": (list, {"slope": np.nan}, InputError, "slope is nan"),
    "match": (list, {"match": "all"}, InputError, "'none' or 'broadest'"),
    "outside": (list, {"outside": "yes"}, InputError, "'refuse' or 'extrapolate'"),
    "ratios alone": (list, {"line_ratios": {"NII6583": 0.3}}, InputError, "no redshift"),
    "redshift": (list, {"redshift": 0.3}, InputError, "F658N: redshift: Halpha lies at 8534.0 A"),
    "no number": (list, {"redshift": np.nan}, InputError, "redshift is nan"),
    "unknown line": (list, {"redshift": 0.0, "line_ratios": {"OIII": 1.0}}, InputError, "did you mean"),
    "negative ratio": (
        list,
        {"redshift": 0.0, "line_ratios": {"NII6583": -1.0}},
        InputError,
        "NII6583 is -1.0",
    ),
    "own ratio": (list, {"redshift": 0.0, "line_ratios": {"Halpha": 2.86}}, InputError, "relative to Halpha"),
    "ratio shape": (
        list,
        {"redshift": 0.0, "line_ratios": {"NII6583": np.ones((2, 2))}},
        ShapeError,
        r"\(2, 2\)",
    ),
    "both": (list, {"a_v": 0.1, "ebv": 0.1}, InputError, "both a_v and ebv"),
    "dust": (list, {"ebv": -0.1}, InputError, "ebv is -0.1"),
    "header": (changed(1, meta={"photplam": 8060.0}), {}, InputError, "PHOTPLAM.* says 8060.0 A"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_one_clear_message(rng, case):
    change, options, error, message = BAD[case]
    images = change(bright_images(rng))
    with pytest.raises(error, match=message):
        run(images, **options)


def test_continua_that_see_the_line_as_the_narrow_band_does_are_refused(rng):
    images = [image.evolve(meta={}) for image in bright_images(rng)]
    bands = (Bandpass.tophat(6500.0, 300.0, name="B"), Bandpass.tophat(6507.0, 200.0, name="R"))
    narrow = Bandpass.tophat(6585.0, 80.0)
    options = {"redshift": 0.0, "outside": "extrapolate"}
    with (
        pytest.warns(AssumptionWarning, match="extrapolated"),
        pytest.raises(InputError, match="of the line light is left when the lines in B and R"),
    ):
        subtract_continuum(images[0], images[1:], narrow, bands, **options)


def test_bands_must_be_known_and_lie_around_the_narrow_one(rng):
    images = bright_images(rng)
    with pytest.raises(InputError, match="F658N: bands: its pivot wavelength is not known"):
        subtract_continuum(images[0], images[1:])
    with pytest.raises(InputError, match="1 continuum bands given for 2 images"):
        subtract_continuum(images[0], images[1:], NARROW, BLUE)
    with pytest.raises(InputError, match="3 continuum images"):
        subtract_continuum(images[0], [*images[1:], images[1]], NARROW, (BLUE, RED, BLUE))
    with pytest.raises(ShapeError, match="continuum 1 has shape"):
        subtract_continuum(images[0], make_images([np.ones((3, 3))] * 3, (1.0,) * 3)[1:], NARROW, BANDS)
    with pytest.raises(InputError, match="same pivot"):
        subtract_continuum(images[0], images[1:], 6584.0, (5400.0, 5400.0))
    with pytest.raises(InputError, match="throughput of F555W, F814W is not known"):
        subtract_continuum(images[0], images[1:], NARROW, (5400.0, 8050.0), redshift=0.0)
    with pytest.raises(InputError, match="expected > 0"):
        subtract_continuum(images[0], images[1:], NARROW, (-5400.0, 8050.0))
    plain = [image.evolve(meta={}) for image in images]
    with pytest.raises(InputError, match=r"sees .* of the line light that .* sees"):
        subtract_continuum(
            plain[0],
            plain[1:],
            Bandpass.tophat(6600.0, 1500.0),
            (Bandpass.tophat(6565.0, 100.0), RED),
            redshift=0.0,
        )
    beyond = (5400.0, 6000.0)
    with pytest.raises(
        InputError, match=r"F658N, 6584.* does not lie between those of F555W, 5400.0 A, and F814W"
    ):
        subtract_continuum(images[0], images[1:], NARROW.pivot, beyond)
    with pytest.warns(AssumptionWarning, match="extrapolated"):
        found = subtract_continuum(images[0], images[1:], NARROW.pivot, beyond, outside="extrapolate")
    assert found.weights[0] < 0


def test_borders_of_nan_stay_masked(rng):
    """Drizzled images end in NaN, at other places in each band."""
    planes = [plane.copy() for plane in true_bands(SHAPE, "linear")[:3]]
    masks = []
    for number, plane in enumerate(planes):
        plane[: number + 1] = np.nan
        plane[:, -3 - number :] = np.nan
        masks.append(np.isnan(plane))
    for interpolation in ("linear", "log"):
        found = run(make_images(planes, (1.0,) * 3, masks=masks), interpolation=interpolation)
        np.testing.assert_array_equal(found.excess.mask, masks[0] | masks[1] | masks[2])
        assert np.isfinite(found.excess.data[found.excess.valid]).all()
