"""Spectra of regions: sums, their variance, what masks do, and slabs."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS

from skyloom.core import geometry
from skyloom.core.cube import Cube, CubeCorrelation
from skyloom.core.image import Flag, Image, Mode
from skyloom.core.labels import LabelMap
from skyloom.core.provenance import step
from skyloom.errors import InputError, ShapeError
from skyloom.imaging.measure.regions import sum_regions
from skyloom.kernels.bins.extract import lag_products
from skyloom.spectral.bins.extract import extract_spectra, merge_slabs
from tests.oracles import extract as oracles

SHAPE = (7, 9, 11)
RHO = np.array([[0.05, 0.2, 0.1], [0.3, 1.0, 0.3], [0.1, 0.2, 0.05]])
LAGS = np.array([0.2, 1.0, 0.2])


def sky(scale=0.2, rotation=30.0):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150.0, 2.0], [5.0, 5.0]
    wcs.wcs.cdelt = [-scale / 3600, scale / 3600]
    angle = np.radians(rotation)
    wcs.wcs.pc = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return wcs


def make_cube(
    rng, *, dtype=np.float32, masked=0.0, rho=RHO, unit="1e-20 erg/(s cm2 AA)", shape=SHAPE, **more
):
    data = (10 + rng.standard_normal(shape)).astype(dtype)
    variance = rng.uniform(0.5, 2.0, shape).astype(dtype)
    mask = rng.random(shape) < masked
    data[mask], variance[mask] = np.nan, -1.0
    wave = 4750 + 1.25 * np.arange(shape[0])
    correlation = CubeCorrelation(rho, LAGS)
    return Cube(data, variance, mask, unit, sky(), wave, "air", correlation=correlation, **more)


def make_labels(rng, shape=SHAPE[1:], n=6):
    """Blobs and scattered pixels, with gaps in the numbers and pixels of no region."""
    labels = (rng.integers(0, n, shape) * 10).astype(np.int32)
    labels[:4, :5] = 70
    labels[-1, -1] = 999
    labels[4, :] = -1
    labels[0, 10] = -2
    return labels


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("radius", [0, 1, 2, 12])
def test_sums_and_variances_are_those_of_all_pairs(rng, dtype, radius):
    offset = np.arange(-radius, radius + 1)
    rho = None if radius == 0 else np.exp(-0.5 * (offset[:, None] ** 2 + 1.5 * offset**2) / 0.8)
    cube = make_cube(rng, dtype=dtype, masked=0.1, rho=rho)
    labels = make_labels(rng)
    spectra = extract_spectra(cube, labels, coverage=1e-3)
    assert spectra.data.dtype == spectra.variance.dtype == dtype
    assert spectra.meta["labels"] == [0, 10, 20, 30, 40, 50, 70, 999]
    for row, label in enumerate(spectra.meta["labels"]):
        inside = labels == label
        total, square, share = oracles.region_spectrum(cube.data, cube.variance, cube.mask, inside, rho)
        good = share > 0
        np.testing.assert_array_equal(spectra.mask[row], ~good)
        np.testing.assert_allclose(spectra.data[row, good], (total / share)[good], rtol=1e-6)
        np.testing.assert_allclose(spectra.variance[row, good], (square / share**2)[good], rtol=2e-6)
        low = np.where(good & (share < 1), Flag.LOW_COVERAGE, 0)
        np.testing.assert_array_equal(spectra.flags[row], low)
        assert spectra.meta["n_pixels"][row] == inside.sum()


def test_axis_unit_correlation_metadata_and_history_travel(rng):
    cube = make_cube(rng, meta={"instrument": "MUSE", "redshift": 0.01}, history=(step("before", a=1),))
    spectra = extract_spectra(cube, make_labels(rng))
    assert spectra.unit == cube.unit
    assert spectra.medium == "air"
    np.testing.assert_array_equal(spectra.wave, cube.wave)
    np.testing.assert_array_equal(spectra.correlation, LAGS)
    assert spectra.meta["instrument"] == "MUSE"
    assert spectra.meta["redshift"] == 0.01
    assert spectra.meta["extraction"] == "sum"
    assert spectra.meta["empty"] == []
    assert [each.name for each in spectra.history] == ["before", "extract_spectra"]
    assert spectra.history[-1].parameters["correlation_sum"] == pytest.approx(RHO.sum())
    assert spectra.flags is None


def test_a_band_of_lags_travels_unchanged(rng):
    band = np.tile(LAGS, (SHAPE[0], 1)) * np.linspace(0.9, 1, SHAPE[0])[:, None]
    cube = make_cube(rng).evolve(correlation=CubeCorrelation(None, band))
    np.testing.assert_array_equal(extract_spectra(cube, make_labels(rng)).correlation, band)


def test_mean_is_the_sum_per_spaxel(rng):
    cube, labels = make_cube(rng, masked=0.05), make_labels(rng)
    total, mean = (extract_spectra(cube, labels, mode=mode) for mode in ("sum", "mean"))
    n = np.array(total.meta["n_pixels"])[:, None]
    good = total.valid
    np.testing.assert_array_equal(mean.mask, total.mask)
    np.testing.assert_allclose((mean.data * n)[good], total.data[good], rtol=1e-6)
    np.testing.assert_allclose((mean.variance * n**2)[good], total.variance[good], rtol=1e-6)


def test_surface_brightness_is_multiplied_by_the_area_of_each_spaxel(rng):
    cube, labels = make_cube(rng, unit="1e-20 erg/(s cm2 AA arcsec2)"), make_labels(rng)
    total, mean = (extract_spectra(cube, labels, mode=mode) for mode in ("sum", "mean"))
    assert total.unit.is_equivalent("erg/(s cm2 AA)")
    assert mean.unit == cube.unit
    area = geometry.pixel_area_map(cube.wcs, cube.shape[1:])
    for row, label in enumerate(total.meta["labels"]):
        inside = labels == label
        flux, square, _ = oracles.region_spectrum(cube.data, cube.variance, cube.mask, inside, RHO, area)
        np.testing.assert_allclose(total.data[row], flux, rtol=1e-6)
        np.testing.assert_allclose(total.variance[row], square, rtol=1e-6)
        np.testing.assert_allclose(mean.data[row], flux / area[inside].sum(), rtol=1e-6)


def test_a_channel_is_the_sum_over_regions_of_its_image(rng):
    cube, labels = make_cube(rng, unit="1e-20 erg/(s cm2 AA sr)"), make_labels(rng)
    spectra = extract_spectra(cube, labels)
    plane = Image(cube.data[3], cube.variance[3], cube.mask[3], cube.unit, cube.wcs, correlation=RHO)
    table = sum_regions(plane, labels)
    np.testing.assert_allclose(spectra.data[:, 3], table["flux"].to_value(spectra.unit), rtol=1e-6)
    np.testing.assert_allclose(
        np.sqrt(spectra.variance[:, 3]), table["flux_err"].to_value(spectra.unit), rtol=1e-6
    )


def test_channels_with_missing_voxels_are_scaled_flagged_or_masked_by_name(rng):
    cube = make_cube(rng, rho=None)
    mask = cube.mask.copy()
    mask[2, 0, 0] = mask[4, 0, :3] = True
    cube = cube.evolve(mask=mask)
    labels = np.full(SHAPE[1:], -1)
    labels[0, :5] = 3
    scaled = extract_spectra(cube, labels)
    np.testing.assert_allclose(scaled.data[0, 2], cube.data[2, 0, 1:5].sum() * 5 / 4, rtol=1e-6)
    np.testing.assert_allclose(
        scaled.variance[0, 2], cube.variance[2, 0, 1:5].sum() * (5 / 4) ** 2, rtol=1e-6
    )
    assert np.flatnonzero(scaled.flags[0]).tolist() == [2]
    assert np.flatnonzero(scaled.mask[0]).tolist() == [4], "two of five are fewer than the coverage asks for"
    assert scaled.history[-1].parameters["n_scaled"] == 1
    masked = extract_spectra(cube, labels, missing="mask")
    assert np.flatnonzero(masked.mask[0]).tolist() == [2, 4]
    assert masked.flags is None
    generous = extract_spectra(cube, labels, coverage=0.4)
    assert not generous.mask.any()
    assert np.flatnonzero(generous.flags[0]).tolist() == [2, 4]


def test_dead_spaxels_are_left_out_when_asked(rng):
    cube = make_cube(rng)
    mask = cube.mask.copy()
    mask[:, 0, :2] = True
    cube = cube.evolve(mask=mask)
    labels = np.full(SHAPE[1:], -1)
    labels[0, :4] = 0
    assert extract_spectra(cube, labels).mask.all(), "half of the region is below the default coverage"
    usable = ~mask.all(axis=0)
    spectra = extract_spectra(cube, labels, usable=usable)
    assert not spectra.mask.any()
    assert spectra.flags is None
    assert spectra.meta["n_pixels"] == [2]
    np.testing.assert_allclose(spectra.data[0], cube.data[:, 0, 2:4].sum(axis=1), rtol=1e-6)
    assert spectra.history[-1].parameters["n_left_out"] == 2


def test_what_lies_under_the_mask_never_leaks(rng):
    cube, labels = make_cube(rng, masked=0.2), make_labels(rng)
    expected = extract_spectra(cube, labels, coverage=0.3)
    for garbage in (np.nan, np.inf, -np.inf, 1e30):
        data, variance = cube.data.copy(), cube.variance.copy()
        data[cube.mask], variance[cube.mask] = garbage, -garbage
        result = extract_spectra(cube.evolve(data=data, variance=variance), labels, coverage=0.3)
        for name in ("data", "variance", "mask", "flags"):
            np.testing.assert_array_equal(getattr(result, name), getattr(expected, name))


def test_an_unusable_region_is_a_masked_row_and_listed(rng):
    cube, labels = make_cube(rng), make_labels(rng)
    cube = cube.evolve(mask=cube.mask | (labels == 70))
    spectra = extract_spectra(cube, labels)
    assert spectra.meta["empty"] == [70]
    row = spectra.meta["labels"].index(70)
    assert spectra.mask[row].all()
    assert not np.delete(spectra.mask, row, axis=0).any()


def test_a_cube_without_a_usable_voxel_gives_masked_rows(rng):
    cube = make_cube(rng, masked=1.1)
    spectra = extract_spectra(cube, make_labels(rng))
    assert spectra.mask.all()
    assert spectra.meta["empty"] == spectra.meta["labels"]


def test_flags_of_usable_voxels_are_joined(rng):
    cube = make_cube(rng)
    flags = np.zeros(SHAPE, np.uint16)
    flags[1, 0, 0], flags[1, 0, 1], flags[2, 0, 2] = 1, 4, 2
    mask = cube.mask.copy()
    mask[2, 0, 2] = True
    labels = np.full(SHAPE[1:], -1)
    labels[0, :6] = 1
    joined = extract_spectra(cube.evolve(flags=flags, mask=mask), labels).flags[0]
    assert joined[1] == 5
    assert joined[2] == Flag.LOW_COVERAGE, "the flag of a masked voxel counts for nothing"
    assert joined[3] == 0


def test_shared_errors_keep_their_sigma_and_their_maps_are_summed(rng):
    pattern = rng.uniform(0.5, 1.5, SHAPE)
    cube = make_cube(rng, modes=(Mode("sky", 1.0, 0.1), Mode("slope", pattern, 0.02)))
    labels = make_labels(rng)
    total, mean = (extract_spectra(cube, labels, mode=mode) for mode in ("sum", "mean"))
    row = total.meta["labels"].index(70)
    inside = labels == 70
    assert [(mode.name, mode.sigma) for mode in total.modes] == [("sky", 0.1), ("slope", 0.02)]
    np.testing.assert_allclose(total.modes[0].map[row], inside.sum())
    np.testing.assert_allclose(total.modes[1].map[row], pattern[:, inside].sum(axis=1))
    np.testing.assert_allclose(mean.modes[0].map, 1.0)


def test_lsf_of_a_sum_has_the_mean_second_moment(rng):
    lsf = rng.uniform(1.0, 1.5, SHAPE)
    lsf[:, 0, 0] = 0.0
    lsf[3, :4, :5] = np.nan
    cube = make_cube(rng, lsf=lsf)
    labels = make_labels(rng)
    spectra = extract_spectra(cube, labels)
    row = spectra.meta["labels"].index(70)
    inside = labels == 70
    inside[0, 0] = False
    expected = np.sqrt((lsf[:, inside] ** 2).mean(axis=1))
    expected[3] = (expected[2] + expected[4]) / 2
    np.testing.assert_allclose(spectra.lsf[row], expected)
    line = np.linspace(1.0, 1.2, SHAPE[0])
    np.testing.assert_array_equal(extract_spectra(cube.evolve(lsf=line), labels).lsf, line)
    assert extract_spectra(cube.evolve(lsf=1.1), labels).lsf == 1.1


def test_threads_and_blocks_change_nothing(rng):
    cube = make_cube(rng, masked=0.1, shape=(67, 9, 11))
    labels = make_labels(rng)
    one, two = (extract_spectra(cube, labels, workers=workers) for workers in (1, 2))
    np.testing.assert_array_equal(one.data, two.data)
    np.testing.assert_array_equal(one.variance, two.variance)


def test_input_is_not_changed(rng):
    cube, labels = make_cube(rng, masked=0.1), make_labels(rng)
    before = [array.copy() for array in (cube.data, cube.variance, cube.mask, labels)]
    extract_spectra(cube, labels)
    for old, new in zip(before, (cube.data, cube.variance, cube.mask, labels), strict=True):
        np.testing.assert_array_equal(old, new)


def test_bad_input_is_named(rng):
    cube, labels = make_cube(rng), make_labels(rng)
    with pytest.raises(ShapeError, match=r"\(9, 10\).*\(9, 11\)"):
        extract_spectra(cube, labels[:, :-1])
    with pytest.raises(ShapeError, match="usable"):
        extract_spectra(cube, labels, usable=np.ones((2, 2), bool))
    with pytest.raises(InputError, match="no region"):
        extract_spectra(cube, np.full(SHAPE[1:], -1))
    with pytest.raises(InputError, match="'median'"):
        extract_spectra(cube, labels, mode="median")
    with pytest.raises(InputError, match="'ignore'"):
        extract_spectra(cube, labels, missing="ignore")
    with pytest.raises(InputError, match="coverage is 0"):
        extract_spectra(cube, labels, coverage=0.0)
    with pytest.raises(InputError, match="workers is 0"):
        extract_spectra(cube, labels, workers=0)
    with pytest.raises(InputError, match="another grid"):
        extract_spectra(cube, LabelMap(labels, wcs=sky(rotation=0.0)))
    with pytest.raises(InputError, match="size of the spaxels is not known"):
        extract_spectra(cube.evolve(wcs=None, unit="erg/(s cm2 AA arcsec2)"), labels)
    assert extract_spectra(cube, LabelMap(labels, wcs=sky())).shape[0] == 8


def test_means_of_surface_brightness_need_no_place_on_the_sky(rng):
    cube, labels = make_cube(rng, unit="1e-20 erg/(s cm2 AA arcsec2)", masked=0.1), make_labels(rng)
    mean = extract_spectra(cube.evolve(wcs=None), labels, mode="mean")
    assert mean.unit == cube.unit
    # The spaxels of this grid are equal to the seventh digit.
    np.testing.assert_allclose(mean.data, extract_spectra(cube, labels, mode="mean").data, rtol=1e-5)


def cut(cube, where):
    lsf = cube.lsf[where] if np.ndim(cube.lsf) else cube.lsf
    modes = tuple(m._replace(map=m.map[where]) if np.ndim(m.map) else m for m in cube.modes)
    flags = None if cube.flags is None else cube.flags[where]
    return Cube(
        cube.data[where], cube.variance[where], cube.mask[where], cube.unit, cube.wcs, cube.wave[where],
        cube.medium, lsf, correlation=cube.correlation, flags=flags, modes=modes, meta=cube.meta,
    )  # fmt: skip


def test_slabs_join_to_the_whole(rng):
    cube = make_cube(
        rng, masked=0.1, shape=(40, 9, 11), lsf=rng.uniform(1, 2, (40, 9, 11)),
        flags=rng.integers(0, 4, (40, 9, 11)), modes=(Mode("sky", 1.0, 0.1),), meta={"instrument": "MUSE"},
    )  # fmt: skip
    labels = make_labels(rng)
    whole = extract_spectra(cube, labels)
    parts = [extract_spectra(cut(cube, slice(lo, hi)), labels) for lo, hi in ((0, 7), (7, 30), (30, 40))]
    joined = merge_slabs(parts)
    for name in ("data", "variance", "mask", "flags", "wave", "correlation"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name), err_msg=name)
    np.testing.assert_array_equal(joined.modes[0].map, whole.modes[0].map)
    assert joined.meta == whole.meta
    assert joined.history[-1].name == "merge_slabs"
    # Gaps in the LSF are filled within a slab; all others agree.
    close = np.isclose(joined.lsf, whole.lsf)
    assert close.mean() > 0.95


def test_slabs_of_other_rows_units_or_order_are_refused(rng):
    cube, labels = make_cube(rng), make_labels(rng)
    first, second = (extract_spectra(cut(cube, where), labels) for where in (slice(0, 3), slice(3, 7)))
    with pytest.raises(InputError, match="no spectra"):
        merge_slabs([])
    with pytest.raises(InputError, match="do not follow"):
        merge_slabs([second, first])
    with pytest.raises(InputError, match="do not follow"):
        merge_slabs([first, first])
    other = np.where(labels == 999, -1, labels)
    with pytest.raises(InputError, match="number of spectra"):
        merge_slabs([first, extract_spectra(cut(cube, slice(3, 7)), other)])
    with pytest.raises(InputError, match="labels"):
        merge_slabs([first, extract_spectra(cut(cube, slice(3, 7)), np.where(labels == 999, 998, labels))])
    with pytest.raises(InputError, match="unit"):
        merge_slabs([first, second.evolve(unit="erg/(s cm2 AA)")])
    with pytest.raises(InputError, match="extraction"):
        merge_slabs([first, extract_spectra(cut(cube, slice(3, 7)), labels, mode="mean")])


def test_slabs_with_different_lags_become_a_band(rng):
    cube, labels = make_cube(rng), make_labels(rng)
    parts = [extract_spectra(cut(cube, where), labels) for where in (slice(0, 3), slice(3, 7))]
    parts[1] = parts[1].evolve(correlation=np.array([0.1, 0.3, 1.0, 0.3, 0.1]))
    band = merge_slabs(parts).correlation
    np.testing.assert_array_equal(band[0], [0, 0.2, 1, 0.2, 0])
    np.testing.assert_array_equal(band[-1], [0.1, 0.3, 1, 0.3, 0.1])
    independent = [part.evolve(correlation=None) for part in parts]
    assert merge_slabs(independent).correlation is None
    np.testing.assert_array_equal(merge_slabs([independent[0], parts[1]]).correlation[0], [0, 0, 1, 0, 0])


def test_slabs_join_lsf_numbers_and_modes_that_one_lacks(rng):
    cube, labels = make_cube(rng, lsf=1.1), make_labels(rng)
    parts = [extract_spectra(cut(cube, where), labels) for where in (slice(0, 3), slice(3, 7))]
    assert merge_slabs(parts).lsf == 1.1
    parts[1] = parts[1].evolve(lsf=1.2, modes=(Mode("sky", 2.0, 0.1),))
    joined = merge_slabs(parts)
    np.testing.assert_array_equal(joined.lsf, [1.1] * 3 + [1.2] * 4)
    np.testing.assert_array_equal(joined.modes[0].map[0], [0] * 3 + [2] * 4)
    assert merge_slabs([parts[0].evolve(lsf=None), parts[1]]).lsf is None


@pytest.mark.parametrize("shape", [(3, 7, 9), (2, 2, 3), (1, 1, 1)])
def test_products_of_neighbours_match_the_naive_twin(rng, shape):
    planes = rng.standard_normal(shape).astype(np.float32)
    np.testing.assert_allclose(lag_products(planes, 3), oracles.lag_products(planes, 3), rtol=1e-6, atol=1e-6)
