"""Rest frame, dereddening and both in one pass: the values, the records, and what is refused."""

from __future__ import annotations

import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.wcs import WCS

from skyloom.core.image import Mode
from skyloom.core.linelist import air_to_vacuum, default_lines
from skyloom.core.psf import GaussianPSF
from skyloom.errors import AssumptionWarning, InputError, UnitError
from skyloom.kernels.spectra.prepare import TILE, scale_channels
from skyloom.spectral.axes import scaling
from skyloom.spectral.axes.extinction import CURVES, deredden, extinction_curve
from skyloom.spectral.axes.prepare import prepare_cube
from skyloom.spectral.axes.rest_frame import to_rest_frame
from tests.oracles import spectral as oracles_spectral
from tests.spectral_invariants import make_cube, make_spectra

# --- rest frame


@pytest.mark.parametrize("make", [make_cube, make_spectra])
@pytest.mark.parametrize("redshift", [0.0, 0.0885, -0.001, 2.5])
def test_line_fluxes_survive_the_rest_frame(make, redshift):
    subject = make(np.float64)
    rest = to_rest_frame(subject, redshift)
    np.testing.assert_allclose(rest.wave * (1 + redshift), subject.wave, rtol=1e-14)
    np.testing.assert_allclose(rest.lsf * (1 + redshift), subject.lsf, rtol=1e-14)
    axis = 0 if subject.data.ndim == 3 else 1
    flux = [np.sum(each.data * step_of(each, axis), axis=axis) for each in (subject, rest)]
    np.testing.assert_allclose(flux[1], flux[0], rtol=1e-12)
    ratio = np.sqrt(subject.variance) / subject.data
    np.testing.assert_allclose(np.sqrt(rest.variance) / rest.data, ratio, rtol=1e-12)
    assert rest.meta["redshift_applied"] == redshift
    assert rest.history[-1].name == "to_rest_frame"
    assert rest.history[-1].parameters["redshift"] == redshift


def step_of(subject, axis):
    width = np.gradient(subject.wave)
    return width[:, None, None] if axis == 0 else width


def test_shared_errors_grow_like_the_data():
    cube = make_cube()
    rest = to_rest_frame(cube, 0.5)
    for before, after in zip(cube.modes, rest.modes, strict=True):
        np.testing.assert_allclose(
            np.asarray(after.map) * after.sigma, 1.5 * np.asarray(before.map) * before.sigma, rtol=1e-6
        )


def test_a_chromatic_psf_follows_its_wavelengths():
    cube = make_cube()
    rest = to_rest_frame(cube, 0.1)
    for before, after in zip(cube.wave, rest.wave, strict=True):
        assert rest.psf.at(after).fwhm == pytest.approx(cube.psf.at(before).fwhm, rel=1e-12)
    plain = to_rest_frame(cube.evolve(psf=GaussianPSF(0.7)), 0.1)
    assert plain.psf.fwhm == 0.7


def test_a_wcs_with_a_spectral_axis_keeps_only_the_sky():
    wcs = WCS(naxis=3)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN", "AWAV"]
    wcs.wcs.crval, wcs.wcs.cdelt = [53.1, -27.8, 6500.0], [-5e-5, 5e-5, 1.25]
    wcs.wcs.cunit = ["deg", "deg", "Angstrom"]
    rest = to_rest_frame(make_cube().evolve(wcs=wcs), 0.1)
    assert rest.wcs.naxis == 2
    assert rest.wcs.has_celestial


@pytest.mark.parametrize(
    "redshift", [-1.0, -2, np.nan, np.inf, "far", "0.1", [0.1, 0.2], np.array([0.1]), None, 300 * u.km / u.s]
)
def test_an_impossible_redshift_is_refused(redshift):
    with pytest.raises(InputError, match="redshift") as caught:
        to_rest_frame(make_spectra(), redshift)
    assert caught.value.field == "redshift"


def test_a_second_redshift_multiplies_and_says_so():
    once = to_rest_frame(make_cube(), 0.1)
    with pytest.warns(AssumptionWarning, match="already those of the rest frame of redshift 0.1"):
        twice = to_rest_frame(once, 0.2)
    assert twice.meta["redshift_applied"] == pytest.approx(1.1 * 1.2 - 1)
    assert [item.name for item in twice.history[-2:]] == ["to_rest_frame"] * 2
    np.testing.assert_allclose(twice.wave * 1.32, make_cube().wave)


def test_densities_per_frequency_are_refused():
    with pytest.raises(UnitError, match="per frequency"):
        to_rest_frame(make_spectra().evolve(unit="mJy"), 0.1)


# --- extinction


def test_the_curves_agree_with_the_published_values():
    # CCM89, Table 3 (R_V = 3.1); F99, the anchors of its Table 4; O94 equals CCM89 at V by construction.
    assert extinction_curve(1e4 / 2.78, "ccm89") == pytest.approx(1.569, abs=0.012)  # U
    assert extinction_curve(1e4 / 2.27, "ccm89") == pytest.approx(
        1 + 1 / 3.1, abs=0.001
    )  # B: E(B-V) = A_V / R_V
    assert extinction_curve(1e4 / 1.82, "ccm89") == pytest.approx(1.000, abs=0.003)  # V
    assert extinction_curve(1e4 / 1.43, "ccm89") == pytest.approx(0.751, abs=0.012)  # R
    assert extinction_curve(1e4 / 1.11, "ccm89") == pytest.approx(0.479, abs=0.012)  # I
    r_v = 3.1
    anchors = {
        12200.0: 0.829,
        6000.0: -0.426 + 1.0044 * r_v,
        5470.0: -0.050 + 1.0016 * r_v,
        4670.0: 0.701 + 1.0016 * r_v,
        4110.0: 1.208 + 1.0032 * r_v - 0.00033 * r_v**2,
    }
    for wave, a_over_ebv in anchors.items():
        assert extinction_curve(wave) * r_v == pytest.approx(a_over_ebv, rel=1e-6)
    assert extinction_curve(1e4 / 1.82, "odonnell94") == pytest.approx(1.0, abs=0.003)


def test_a_curve_keeps_the_shape_of_its_wavelengths():
    assert extinction_curve(5500.0).shape == ()
    assert extinction_curve(np.full((2, 3), 5500.0)).shape == (2, 3)
    assert extinction_curve([]).shape == (0,)
    assert np.all(np.isfinite(extinction_curve([1000.0, 33333.0])))


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("make", [make_cube, make_spectra])
def test_dereddening_takes_out_what_reddening_did(curve, make):
    subject = make(np.float64)
    vacuum = air_to_vacuum(subject.wave) if subject.medium == "air" else subject.wave
    factor = 10 ** (-0.4 * 0.6 * extinction_curve(vacuum, curve, 2.8))
    column = factor[:, None, None] if subject.data.ndim == 3 else factor
    reddened = subject.evolve(data=subject.data * column, variance=subject.variance * column**2)
    clean = deredden(reddened, av=0.6, r_v=2.8, curve=curve)
    np.testing.assert_allclose(clean.data, subject.data, rtol=1e-12)
    np.testing.assert_allclose(clean.variance, subject.variance, rtol=1e-12)
    same = deredden(reddened, ebv=0.6 / 2.8, r_v=2.8, curve=curve)
    np.testing.assert_allclose(same.data, clean.data, rtol=1e-12)
    assert clean.meta["milky_way_corrected"] is True
    assert clean.history[-1].parameters == {"av": 0.6, "r_v": 2.8, "curve": curve}


def test_the_dust_sees_observed_wavelengths():
    cube = make_cube(np.float64)
    first = to_rest_frame(deredden(cube, av=1.0), 0.2)
    second = deredden(to_rest_frame(cube, 0.2), av=1.0)
    np.testing.assert_allclose(second.data, first.data, rtol=1e-12)
    np.testing.assert_allclose(second.variance, first.variance, rtol=1e-12)


def test_air_wavelengths_are_taken_to_vacuum():
    cube = make_cube(np.float64)
    moved = cube.evolve(wave=air_to_vacuum(cube.wave), medium="vacuum")
    np.testing.assert_allclose(deredden(cube, av=2.0).data, deredden(moved, av=2.0).data, rtol=1e-13)
    # 1.8 A at 6500 A is little, and yet not nothing.
    assert not np.allclose(
        deredden(cube, av=2.0).data, deredden(cube.evolve(medium="vacuum"), av=2.0).data, rtol=1e-5
    )


def corrected_by_its_file():
    return make_cube().evolve(meta={"milky_way_corrected": True})


@pytest.mark.parametrize(
    ("corrected", "reason"),
    [
        (corrected_by_its_file, "its file says so"),
        (lambda: deredden(make_cube(), av=0.3), "history holds deredden with A_V = 0.3"),
        (lambda: prepare_cube(make_cube(), av=0.3), "history holds prepare_cube with A_V = 0.3"),
        (lambda: deredden(make_cube(), av=0.3).evolve(meta={}), "history holds deredden"),
    ],
)
def test_nothing_is_dereddened_twice(corrected, reason):
    cube = corrected()
    for operation in (deredden, prepare_cube):
        with pytest.raises(InputError, match=reason) as caught:
            operation(cube, av=0.2)
        assert "proceed" in str(caught.value)
        again = operation(cube, av=0.2, if_corrected="proceed")
        assert np.nanmean(again.data[again.valid]) > np.nanmean(cube.data[cube.valid])


def test_a_rest_frame_alone_is_no_dereddening():
    cube = prepare_cube(make_cube(), redshift=0.1)
    assert "milky_way_corrected" not in cube.meta
    deredden(cube, av=0.2)
    unsure = make_cube().evolve(meta={"milky_way_corrected": False})
    assert deredden(unsure, ebv=0.1).meta["milky_way_corrected"] is True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "neither av nor ebv given"),
        ({"av": 0.1, "ebv": 0.1}, "both av and ebv given"),
        ({"av": -0.1}, "av is -0.1"),
        ({"ebv": np.nan}, "ebv is nan"),
        ({"av": 0.1, "r_v": 7.0}, "r_v is 7.0"),
        ({"av": 0.1, "curve": "calzetti"}, "expected one of fitzpatrick99, ccm89, odonnell94"),
        ({"av": 0.1, "if_corrected": "yes"}, "if_corrected"),
    ],
)
def test_unclear_extinctions_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        deredden(make_spectra(), **options)


def test_what_the_header_knows_is_offered():
    with pytest.raises(InputError, match=r"the header says E\(B-V\) = 0.07"):
        deredden(make_spectra().evolve(meta={"ebv": 0.07}))


@pytest.mark.parametrize("start", [500.0, 40000.0])
def test_wavelengths_without_a_curve_are_named(start):
    spectra = make_spectra()
    outside = spectra.evolve(wave=start + np.arange(80.0))
    with pytest.raises(InputError, match=f"wavelengths run from {start:.1f} to {start + 79:.1f} A"):
        deredden(outside, av=0.1)
    with pytest.raises(InputError, match="nan"):
        extinction_curve([5000.0, np.nan])


# --- both in one pass


@pytest.mark.parametrize("storage", ["new", "reuse"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_pass_equals_the_naive_loop(storage, dtype):
    cube = make_cube(dtype)
    expected = oracles_spectral.prepare_voxels(
        cube.data, cube.variance, air_to_vacuum(cube.wave), 0.0885, 0.4, extinction_curve
    )
    data, variance = cube.data, cube.variance
    result = prepare_cube(cube, redshift=0.0885, av=0.4, storage=storage)
    tolerance = 3e-7 if dtype == np.float32 else 1e-14
    np.testing.assert_allclose(result.data, expected[0], rtol=tolerance)
    np.testing.assert_allclose(result.variance, expected[1], rtol=tolerance)
    assert result.data.dtype == result.variance.dtype == dtype
    assert (result.data is data) == (result.variance is variance) == (storage == "reuse")
    assert result.history[-1].parameters["redshift_applied"] == pytest.approx(0.0885)
    assert len(result.history) == len(cube.history) + 1


def test_one_pass_equals_two_steps():
    cube = make_cube(np.float64)
    steps = to_rest_frame(deredden(cube, ebv=0.1), 0.3)
    once = prepare_cube(cube, redshift=0.3, ebv=0.1)
    np.testing.assert_allclose(once.data, steps.data, rtol=1e-14)
    np.testing.assert_allclose(once.variance, steps.variance, rtol=1e-14)
    assert once.meta == steps.meta
    for before, after in zip(steps.modes, once.modes, strict=True):
        np.testing.assert_allclose(
            np.asarray(after.map) * after.sigma, np.asarray(before.map) * before.sigma, rtol=1e-12
        )


def test_nothing_asked_is_nothing_changed():
    cube = make_cube()
    same = prepare_cube(cube)
    np.testing.assert_array_equal(same.data, cube.data)
    assert same.meta == cube.meta
    assert same.history[-1].parameters == {"redshift": None, "av": None}


def test_a_part_of_a_cube_is_prepared_like_the_whole():
    cube = make_cube()
    part = cube.evolve(
        data=cube.data[:, 1:4, ::2],
        variance=cube.variance[:, 1:4, ::2],
        mask=cube.mask[:, 1:4, ::2],
        lsf=1.1,
        flags=None,
        modes=(),
    )
    np.testing.assert_array_equal(
        prepare_cube(part, redshift=0.1).data, prepare_cube(cube, redshift=0.1).data[:, 1:4, ::2]
    )
    with pytest.raises(InputError, match="data cannot be written over"):
        prepare_cube(part, redshift=0.1, storage="reuse")


def test_read_only_arrays_are_not_written_over():
    cube = make_cube()
    cube.variance.flags.writeable = False
    with pytest.raises(InputError, match='storage="new"'):
        prepare_cube(cube, redshift=0.1, storage="reuse")
    with pytest.raises(InputError, match="storage is 'fast'"):
        prepare_cube(cube, redshift=0.1, storage="fast")


@pytest.mark.parametrize("make", [make_cube, make_spectra])
def test_variances_too_small_for_their_type_are_refused(make):
    subject = make()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny = subject.evolve(variance=np.full_like(subject.variance, 1e-45), modes=())
    with pytest.raises(InputError, match="usable voxels leave the range of float32"):
        to_rest_frame(tiny, -0.9)


def test_an_extinction_beyond_all_numbers_is_refused():
    with pytest.raises(InputError, match=r"the factor at 65\d\d\.\d A is inf"):
        deredden(make_cube(), av=5000.0)
    with pytest.raises(
        InputError, match="usable voxels leave the range of float32 when they are scaled by up to"
    ):
        deredden(make_spectra(), av=150.0)


def test_the_kernel_counts_what_is_spoilt():
    rng = np.random.default_rng(3)
    shape = (3, 2 * TILE + 17)
    for place in ((0, 0), (1, TILE - 1), (2, shape[1] - 1)):
        for name, value in (("data", np.nan), ("data", -np.inf), ("variance", 0.0), ("variance", np.inf)):
            planes = {"data": rng.normal(0, 1, shape), "variance": rng.uniform(1, 2, shape)}
            planes[name][place] = value
            mask = np.zeros(shape, bool)
            for hidden in (False, True):
                mask[place] = hidden
                results = [np.empty(shape), np.empty(shape)]
                factor = np.array([1.0, 2.0, 3.0])
                count = scale_channels(planes["data"], planes["variance"], mask, factor, *results)
                assert count == (not hidden)
                np.testing.assert_allclose(results[0], planes["data"] * factor[:, None])
                np.testing.assert_allclose(results[1], planes["variance"] * factor[:, None] ** 2)


def test_threads_share_the_channels(monkeypatch):
    cube = make_cube()
    whole = prepare_cube(cube, redshift=0.1, av=0.2)
    monkeypatch.setattr(scaling, "BLOCK", 100)
    np.testing.assert_array_equal(prepare_cube(cube, redshift=0.1, av=0.2).data, whole.data)


def test_a_constant_shared_error_becomes_one_number_per_channel():
    cube = make_cube(np.float64).evolve(modes=(Mode("level", 2.0, 0.5),))
    (mode,) = deredden(cube, av=1.0).modes
    factor = deredden(cube, av=1.0).data / cube.data
    np.testing.assert_allclose(mode.map * mode.sigma, factor, rtol=1e-9)


def test_halpha_of_a_known_galaxy_lands_on_its_rest_wavelength():
    halpha = default_lines()["Halpha"].rest_vacuum
    spectra = make_spectra(np.float64)
    wave = halpha * 1.0885 + np.arange(-40, 40) * 1.25
    profile = np.exp(-0.5 * ((wave - halpha * 1.0885) / 2.5) ** 2)
    rest = to_rest_frame(spectra.evolve(wave=wave, data=np.tile(profile, (9, 1))), 0.0885)
    assert np.average(rest.wave, weights=rest.data[0]) == pytest.approx(halpha, abs=1e-6)
