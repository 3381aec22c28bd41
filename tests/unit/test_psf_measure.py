"""The PSF from stars: what is measured, which stars are believed, and what is said about the others."""

from __future__ import annotations

import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS

from skyloom.core.image import Flag, Image
from skyloom.core.psf import GaussianPSF, MoffatPSF, SampledPSF, square_matrix
from skyloom.errors import AssumptionWarning, InputError, ShapeError
from skyloom.imaging.psfs.matching import encircled_fractions
from skyloom.imaging.psfs.psf import measure_psf
from skyloom.imaging.psfs.star_stack import _shifted, _sorted_planes

SCALE = 0.06
PIXELS = square_matrix(SCALE)
SIDE = 61
RADII = np.arange(1.0, 6.5, 0.5)


def make_wcs(scale=SCALE):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = [53.0, -27.0], [31.0, 31.0], [-scale / 3600, scale / 3600]
    return wcs


def make_star(rng, psf, phase=(0.0, 0.0), flux=50_000.0, sky=0.0, noise=1.0, extra=0.0, scale=SCALE):
    data = flux * psf.render(square_matrix(scale), 101, tuple(phase))[20:81, 20:81] + sky + extra
    data = data + rng.normal(0.0, noise, data.shape)
    return Image(
        data, np.full(data.shape, noise**2), np.zeros(data.shape, bool), "electron/s", make_wcs(scale)
    )


def make_stars(rng, psf, n=5, **options):
    flux = options.pop("flux", 50_000.0)
    return [make_star(rng, psf, rng.uniform(-0.5, 0.5, 2), flux * (1 + 0.3 * i), **options) for i in range(n)]


def blob(x, y, sigma=1.3):
    rows, columns = np.indices((SIDE, SIDE))
    return np.exp(-0.5 * ((columns - x) ** 2 + (rows - y) ** 2) / sigma**2)


MOFFAT = MoffatPSF(3.0 * SCALE, 3.0, 0.92, 30.0)


# --- what is measured ----------------------------------------------------------------------------------


def test_the_sampled_psf_has_the_encircled_energy_of_the_truth(rng):
    measured = measure_psf(make_stars(rng, MOFFAT))
    assert isinstance(measured.psf, SampledPSF)
    assert measured.rejected == ()
    assert measured.used.all()
    array = measured.psf.array
    assert array.shape[0] == array.shape[1]
    assert array.shape[0] % 2 == 1
    truth = MOFFAT.render(PIXELS, array.shape[0])
    error = encircled_fractions(array, RADII) / encircled_fractions(truth, RADII) - 1
    assert np.abs(error).max() < 0.01
    assert np.abs(array - truth).max() < 0.02 * truth.max()


def test_gaussians_and_moffats_come_back(rng):
    gaussian = GaussianPSF(3.0 * SCALE, 0.85, 40.0)
    measured = measure_psf(make_stars(rng, gaussian), model="gaussian")
    assert measured.psf.fwhm == pytest.approx(gaussian.fwhm, rel=0.01)
    assert measured.psf.axis_ratio == pytest.approx(0.85, abs=0.02)
    assert measured.psf.position_angle == pytest.approx(40.0, abs=3.0)
    assert measured.fwhm == pytest.approx(gaussian.fwhm, rel=0.01)
    moffat = measure_psf(make_stars(rng, MOFFAT), model="moffat").psf
    assert moffat.fwhm == pytest.approx(MOFFAT.fwhm, rel=0.02)
    assert moffat.beta == pytest.approx(3.0, rel=0.1)
    assert moffat.position_angle == pytest.approx(30.0, abs=5.0)


def test_positions_angles_and_fluxes_of_the_stars_are_in_the_table(rng):
    phases = rng.uniform(-0.5, 0.5, (4, 2))
    fluxes = 50_000.0 * np.array([1.0, 1.2, 1.4, 1.6])
    psf = GaussianPSF(2.5 * SCALE, 0.8, 70.0)
    stars = [make_star(rng, psf, phase, flux, sky=7.0) for phase, flux in zip(phases, fluxes, strict=True)]
    table = measure_psf(stars, names=["a", "b", "c", "d"]).stars
    assert list(table["name"]) == ["a", "b", "c", "d"]
    np.testing.assert_allclose(table["x"], 30 + phases[:, 0], atol=0.005)
    np.testing.assert_allclose(table["y"], 30 + phases[:, 1], atol=0.005)
    np.testing.assert_allclose(table["flux"].to_value("electron/s"), fluxes, rtol=0.01)
    np.testing.assert_allclose(table["sky"].to_value("electron/s"), 7.0, atol=0.3)
    np.testing.assert_allclose(table["axis_ratio"], 0.8, atol=0.02)
    np.testing.assert_allclose(table["position_angle"].to_value("deg"), 70.0, atol=3.0)
    assert (table["fwhm"].unit, table["flux"].unit) == (u.arcsec, u.Unit("electron/s"))
    assert (table["snr"] > 1000).all()


def test_width_errors_hold_in_repeated_measurements(rng):
    psf = GaussianPSF(2.5 * SCALE)
    tables = [measure_psf(make_stars(rng, psf, flux=1000.0)).stars for _ in range(40)]
    pulls = np.concatenate([(t["fwhm"] - psf.fwhm * u.arcsec) / t["fwhm_err"] for t in tables]).value
    assert abs(pulls.mean()) < 3 / np.sqrt(pulls.size)
    assert abs(pulls.std() - 1) < 3 / np.sqrt(2 * pulls.size)


def test_the_sky_of_each_star_is_taken_off_with_its_error(rng):
    psf = GaussianPSF(2.5 * SCALE)
    skies = []
    for _ in range(40):
        table = measure_psf(make_stars(rng, psf, n=3, sky=4.0)).stars
        skies += list((table["sky"].value - 4.0) / table["sky_err"].value)
    # Errors from the scatter of eight sectors follow Student's t with 7 degrees of freedom: sd 1.18.
    assert abs(np.mean(skies)) < 0.35
    assert 0.8 < np.std(skies) < 1.6


def test_uncertainty_between_stars_is_that_of_stars_that_differ(rng):
    stars = [
        make_star(rng, GaussianPSF(w * SCALE), rng.uniform(-0.5, 0.5, 2)) for w in (2.4, 2.45, 2.5, 2.55, 2.6)
    ]
    measured = measure_psf(stars)
    assert measured.fwhm == pytest.approx(2.5 * SCALE, rel=0.01)
    assert measured.fwhm_error == pytest.approx(
        np.std([2.4, 2.45, 2.5, 2.55, 2.6], ddof=1) * SCALE / np.sqrt(5), rel=0.1
    )
    assert measured.curve_scatter.max() > 0.01
    same = measure_psf(make_stars(rng, GaussianPSF(2.5 * SCALE)))
    assert same.curve_scatter.max() < 0.005


def test_one_image_with_positions_or_sky_coordinates(rng):
    psf = GaussianPSF(2.5 * SCALE, 0.9, 20.0)
    data = rng.normal(0, 1.0, (150, 170))
    truth = np.array([[40.2, 50.3], [100.7, 60.4], [60.0, 110.5], [130.1, 105.9]])
    for x, y in truth:
        whole = np.rint([x, y]).astype(int)
        stamp = 50_000.0 * psf.render(PIXELS, 41, (x - whole[0], y - whole[1]))
        data[whole[1] - 20 : whole[1] + 21, whole[0] - 20 : whole[0] + 21] += stamp
    wcs = make_wcs()
    image = Image(data, np.ones_like(data), np.zeros(data.shape, bool), "electron/s", wcs)
    measured = measure_psf(image, positions=truth + np.array([1.4, -2.0]), size=41)
    np.testing.assert_allclose(np.transpose([measured.stars["x"], measured.stars["y"]]), truth, atol=0.01)
    assert measured.fwhm == pytest.approx(psf.fwhm, rel=0.01)
    coordinates = SkyCoord(wcs.pixel_to_world(truth[:, 0], truth[:, 1]))
    again = measure_psf(image, positions=coordinates, size=41)
    np.testing.assert_array_equal(again.psf.array, measured.psf.array)


def test_a_turned_grid_gives_the_same_psf_on_the_sky(rng):
    psf = GaussianPSF(3.0 * SCALE, 0.8, 25.0)
    angle = np.radians(50.0)
    matrix = SCALE * np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    data = 50_000 * psf.render(matrix, SIDE) + rng.normal(0, 1, (SIDE, SIDE))
    star = Image(data, np.ones_like(data), np.zeros(data.shape, bool), "electron/s", None)
    measured = measure_psf([star, star, star], matrix=matrix, model="gaussian").psf
    assert measured.position_angle == pytest.approx(25.0, abs=2.0)
    assert measured.axis_ratio == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("shape", [(60, 60), (61, 60), (66, 66)])
def test_even_and_odd_cutouts_alike(rng, shape):
    psf = GaussianPSF(2.5 * SCALE)
    stars = []
    for _ in range(4):
        place = np.array([shape[1] / 2, shape[0] / 2]) + rng.uniform(-1, 1, 2)
        whole = np.rint(place).astype(int)
        data = 50_000 * psf.render(PIXELS, 121, tuple(place - whole))
        data = data[60 - whole[1] : 60 - whole[1] + shape[0], 60 - whole[0] : 60 - whole[0] + shape[1]]
        data = data + rng.normal(0, 1, shape)
        stars.append(Image(data, np.ones(shape), np.zeros(shape, bool), "electron/s", make_wcs()))
    array = measure_psf(stars).psf.array
    y, x = np.indices(array.shape) - array.shape[0] // 2
    core = np.hypot(x, y) < 5
    assert abs(np.sum(x * array * core)) < 2e-3
    assert abs(np.sum(y * array * core)) < 2e-3


# --- what does not belong to the star ------------------------------------------------------------------


def test_neighbours_are_left_out(rng):
    stars = make_stars(rng, MOFFAT)
    clean = measure_psf(stars).psf.array
    spoiled = list(stars)
    spoiled[1] = stars[1].evolve(data=stars[1].data + 800.0 * blob(37.0, 33.0))
    spoiled[3] = stars[3].evolve(data=stars[3].data + 300.0 * blob(15.0, 45.0, 3.0))
    measured = measure_psf(spoiled)
    assert measured.rejected == ()
    np.testing.assert_allclose(measured.psf.array, clean, atol=0.003 * clean.max())
    ratio = encircled_fractions(measured.psf.array, RADII) / encircled_fractions(clean, RADII)
    np.testing.assert_allclose(ratio, 1.0, atol=0.01)


def test_masked_pixels_do_not_count(rng):
    stars = make_stars(rng, MOFFAT)
    clean = measure_psf(stars).psf.array
    for garbage in (np.nan, 1e12):
        masks = [rng.random(star.shape) < 0.02 for star in stars]
        spoiled = [
            star.evolve(data=np.where(mask, garbage, star.data), mask=mask)
            for star, mask in zip(stars, masks, strict=True)
        ]
        spoilt = measure_psf(spoiled)
        np.testing.assert_allclose(spoilt.psf.array, clean, atol=0.03 * clean.max())
        assert np.isfinite(spoilt.psf.array).all()


def test_stars_beside_the_border_of_their_cutouts_are_used_as_far_as_they_reach(rng):
    star = make_star(rng, GaussianPSF(2.5 * SCALE))
    cut = star.evolve(data=star.data[:, 12:], variance=star.variance[:, 12:], mask=star.mask[:, 12:])
    measured = measure_psf([cut, star, star], size=51)
    assert measured.psf.array.shape == (51, 51)
    assert measured.fwhm == pytest.approx(2.5 * SCALE, rel=0.01)


# --- which stars are believed --------------------------------------------------------------------------


@pytest.mark.parametrize("count", [4, 5, 8])
def test_an_extended_source_among_stars_is_rejected_by_name(rng, count):
    stars = make_stars(rng, MOFFAT, count)
    stars[2] = stars[2].evolve(data=stars[2].data + 400.0 * blob(30.1, 30.2, 4.0))
    names = [f"star {i}" for i in range(count)]
    measured = measure_psf(stars, names=names)
    assert measured.rejected == ("star 2",)
    assert "differs by -" in measured.reasons[2]
    assert "of the other stars" in measured.reasons[2]
    assert list(measured.stars["used"]) == [i != 2 for i in range(count)]
    truth = encircled_fractions(MOFFAT.render(PIXELS, measured.psf.array.shape[0]), RADII)
    np.testing.assert_allclose(encircled_fractions(measured.psf.array, RADII) / truth, 1.0, atol=0.015)


def test_an_elongated_star_is_rejected_by_name(rng):
    stars = make_stars(rng, GaussianPSF(3.0 * SCALE))
    stars[4] = make_star(rng, GaussianPSF(3.0 * SCALE, 0.65, 10.0), (0.1, 0.2))
    assert measure_psf(stars).rejected == ("5",)


def test_stars_that_only_differ_by_noise_are_all_kept(rng):
    rejected = 0
    for _ in range(20):
        rejected += len(measure_psf(make_stars(rng, MOFFAT, flux=3000.0)).rejected)
    assert rejected <= 2


def test_a_bright_star_with_a_bled_core_gives_its_wings_only(rng):
    stars = make_stars(rng, MOFFAT, 3)
    wide = make_star(rng, MOFFAT, (0.2, -0.1), 500_000.0)
    bled = wide.data.copy()
    core = slice(28, 33), slice(28, 33)
    taken = 0.35 * np.clip(bled[core] - 15_000.0, 0.0, None)
    bled[core] -= taken
    bled[27:34, 27:34] += taken.sum() / 49
    measured = measure_psf([*stars, wide.evolve(data=bled)])
    assert measured.rejected == ()
    assert measured.reasons[3].startswith("wings only: core broader")
    assert list(measured.core_used) == [True, True, True, False]
    truth = MOFFAT.render(PIXELS, measured.psf.array.shape[0])
    assert measured.psf.array.max() == pytest.approx(truth.max(), rel=0.02)


@pytest.mark.parametrize("how", ["level", "flag", "mask"])
def test_saturated_cores_are_left_out(rng, how):
    stars = [*make_stars(rng, MOFFAT, 3), make_star(rng, MOFFAT, (0.2, -0.1), 500_000.0)]
    ceiling = 20_000.0
    high = stars[3].data > ceiling
    assert high.any()
    clipped = stars[3].evolve(data=np.minimum(stars[3].data, ceiling))
    if how == "flag":
        clipped = clipped.evolve(flags=np.where(high, Flag.NEAR_SATURATED, 0).astype(np.uint16))
    elif how == "mask":
        clipped = clipped.evolve(mask=high, data=np.where(high, np.nan, clipped.data))
    measured = measure_psf([*stars[:3], clipped], saturation=ceiling if how == "level" else None)
    assert measured.reasons[3] == "wings only: core saturated"
    assert measured.used[3]
    assert not measured.core_used[3]
    truth = encircled_fractions(MOFFAT.render(PIXELS, measured.psf.array.shape[0]), RADII)
    np.testing.assert_allclose(encircled_fractions(measured.psf.array, RADII) / truth, 1.0, atol=0.015)


def test_a_cutout_without_usable_pixels_does_not_spoil_the_others(rng):
    stars = make_stars(rng, MOFFAT, 4)
    empty = stars[0].evolve(mask=np.ones(stars[0].shape, bool), data=np.full(stars[0].shape, np.nan))
    measured = measure_psf([*stars, empty])
    assert measured.rejected == ("5",)
    np.testing.assert_allclose(measured.psf.array, measure_psf(stars).psf.array, atol=1e-4)


def test_stars_can_be_excluded_by_name(rng):
    measured = measure_psf(make_stars(rng, MOFFAT), exclude=["2"])
    assert measured.rejected == ("2",)
    assert measured.reasons[1] == "excluded by the caller"


def test_stars_too_faint_are_named(rng):
    stars = make_stars(rng, MOFFAT, 3)
    measured = measure_psf([*stars, make_star(rng, MOFFAT, flux=20.0)])
    assert measured.rejected == ("4",)
    assert "signal to noise" in measured.reasons[3]


# --- few stars -----------------------------------------------------------------------------------------


def test_a_single_star_works_without_an_uncertainty(rng):
    star = make_star(rng, MOFFAT, (0.2, 0.4))
    with pytest.warns(AssumptionWarning, match="single star"):
        measured = measure_psf([star])
    assert np.isnan(measured.fwhm_error)
    assert np.isnan(measured.curve_scatter).all()
    truth = encircled_fractions(MOFFAT.render(PIXELS, measured.psf.array.shape[0]), RADII)
    np.testing.assert_allclose(encircled_fractions(measured.psf.array, RADII) / truth, 1.0, atol=0.015)
    with pytest.warns(AssumptionWarning, match="single star"):
        alone = measure_psf(star)
    np.testing.assert_array_equal(alone.psf.array, measured.psf.array)


def test_of_two_stars_that_disagree_neither_is_blamed(rng):
    stars = [make_star(rng, GaussianPSF(2.4 * SCALE)), make_star(rng, GaussianPSF(3.4 * SCALE))]
    with pytest.warns(
        AssumptionWarning, match="stars 1 and 2 differ by .* neither can be called the outlier"
    ):
        measured = measure_psf(stars)
    assert measured.rejected == ()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure_psf(make_stars(rng, MOFFAT, 2))


# --- refusals ------------------------------------------------------------------------------------------


def test_an_empty_list_is_refused():
    with pytest.raises(InputError, match="the list of stars is empty"):
        measure_psf([])


def test_what_cannot_be_used_is_refused(rng):
    stars = make_stars(rng, MOFFAT, 2)
    with pytest.raises(InputError, match="expected one of sampled, gaussian, moffat"):
        measure_psf(stars, model="airy")
    with pytest.raises(ShapeError, match="1 names for 2 stars"):
        measure_psf(stars, names=["a"])
    with pytest.raises(ShapeError, match="expected an odd number"):
        measure_psf(stars, size=30)
    with pytest.raises(InputError, match="positions belong to a single image"):
        measure_psf(stars, positions=[[1, 2]])
    with pytest.raises(InputError, match="lies outside the image"):
        measure_psf(stars[0], positions=[[30.0, 30.0], [500.0, 2.0]])
    with pytest.raises(InputError, match="not among the stars"):
        measure_psf(stars, exclude=["7"])
    with pytest.raises(InputError, match="pixels of unlike size"):
        measure_psf([stars[0], make_star(rng, MOFFAT, scale=0.03)])
    with pytest.raises(InputError, match="needs a WCS"):
        measure_psf([star.evolve(wcs=None) for star in stars])
    tiny = Image(np.ones((9, 9)), np.ones((9, 9)), np.zeros((9, 9), bool), "Jy", make_wcs())
    with pytest.raises(ShapeError, match="smaller than 13 pixels"):
        measure_psf([tiny])


def test_stars_of_pure_noise_or_none_at_all_are_refused_with_reasons(rng):
    noise = make_star(rng, MOFFAT, flux=0.0)
    with pytest.raises(InputError, match="none of the stars is usable: 1: "):
        measure_psf([noise])
    empty = noise.evolve(mask=np.ones(noise.shape, bool))
    with pytest.raises(InputError, match="none of the stars is usable"):
        measure_psf([empty, empty])


# --- pieces --------------------------------------------------------------------------------------------


def test_spline_shifts_move_a_smooth_star_exactly(rng):
    psf = GaussianPSF(3.0 * SCALE)
    for dx, dy in ((0.5, -0.5), (0.23, 0.4), (0.0, 0.0)):
        moved = _shifted(psf.render(PIXELS, 41)[np.newaxis], np.array([dx]), np.array([dy]))[0]
        np.testing.assert_allclose(moved, psf.render(PIXELS, 41, (dx, dy)), atol=1e-4)
    noise = rng.normal(size=(1, 41, 41))
    np.testing.assert_allclose(_shifted(noise, np.zeros(1), np.zeros(1)), noise, atol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 5, 6, 14])
def test_exchange_sort_sorts(rng, count):
    planes = rng.normal(size=(count, 4, 5))
    np.testing.assert_array_equal(_sorted_planes(planes.copy()), np.sort(planes, axis=0))
