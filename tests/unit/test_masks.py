"""Labels on other grids, masks of objects, and what lies beyond the footprint."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.core.image import Flag, Image
from skyloom.core.labels import NO_REGION, UNKNOWN, LabelMap
from skyloom.core.psf import GaussianPSF
from skyloom.errors import InputError, ShapeError
from skyloom.imaging.measure.masks import (
    ObjectMask,
    apply_object_mask,
    mask_from_labels,
    move_labels,
    source_mask,
)
from tests.inputs.sky import sky_image, tangent_wcs
from tests.invariants import check_invariants
from tests.oracles import sky as oracles_sky

CENTRE, COMPANION, OTHER = 24353, 24350, 9342


def galaxy_labels(shape=(61, 67), scale=0.03, angle=42.0):
    """An object in the middle, a companion that touches it, another one apart, background, an unknown rim."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    labels = np.full(shape, NO_REGION, dtype=np.int32)
    middle = ((y - shape[0] // 2) / 9.0) ** 2 + ((x - shape[1] // 2) / 14.0) ** 2
    labels[middle < 1.3] = UNKNOWN
    labels[middle < 1.0] = CENTRE
    labels[(y - 46) ** 2 + (x - 36) ** 2 < 50] = COMPANION
    labels[(y - 10) ** 2 + (x - 12) ** 2 < 20] = OTHER
    return LabelMap(labels, wcs=tangent_wcs(shape, scale, angle))


@pytest.fixture
def labels():
    return galaxy_labels()


# --- moving labels -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "angle", "n_samples"),
    [(0.03, 0.0, 1), (0.02, 65.0, 1), (0.036, 10.0, 1), (0.06, 0.0, 3), (0.06, 42.0, 3), (0.13, -20.0, 5)],
)
def test_moved_labels_equal_the_wcs_evaluated_at_every_point(labels, scale, angle, n_samples):
    shape = (18, 21)
    target = tangent_wcs(shape, scale, angle, pixel=[9.3, 10.8])
    moved = move_labels(labels, (target, shape)).labels
    for row in range(shape[0]):
        for column in range(shape[1]):
            counts = oracles_sky.label_at(labels.labels, labels.wcs, target, row, column, n_samples)
            most = max(counts.values())
            assert counts.get(int(moved[row, column]), 0) == most, (row, column, counts)
            # Of equally common labels the lowest, whatever the order of the samples.
            assert moved[row, column] == min(label for label, number in counts.items() if number == most)


def test_positions_are_interpolated_exactly_enough_across_a_large_grid():
    labels = galaxy_labels((501, 503), 0.03, 42.0)
    shape = (260, 300)
    target = tangent_wcs(shape, 0.05, 3.0)
    target.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    from astropy.wcs import Sip

    distortion = np.zeros((3, 3))
    distortion[2, 0], distortion[1, 1], distortion[0, 2] = 3e-5, -2e-5, 1e-5
    target.sip = Sip(distortion, -distortion, np.zeros((3, 3)), np.zeros((3, 3)), target.wcs.crpix)
    target.wcs.set()
    moved = move_labels(labels, (target, shape)).labels
    rng = np.random.default_rng(1)
    for row, column in zip(rng.integers(0, shape[0], 300), rng.integers(0, shape[1], 300), strict=True):
        counts = oracles_sky.label_at(labels.labels, labels.wcs, target, row, column, 3)
        assert counts.get(int(moved[row, column]), 0) == max(counts.values())


def test_every_pixel_gets_exactly_one_existing_label(labels):
    shape = (40, 40)
    moved = move_labels(labels, (tangent_wcs(shape, 0.05, 17.0), shape))
    assert moved.labels.dtype == np.int32
    assert set(np.unique(moved.labels)) <= set(np.unique(labels.labels))
    assert moved.history[-1].name == "move_labels"


def test_areas_are_conserved(labels):
    for scale in (0.01, 0.03, 0.05, 0.06):
        shape = (int(4 / scale), int(4 / scale))
        moved = move_labels(labels, (tangent_wcs(shape, scale, 77.0), shape)).labels
        area = np.count_nonzero(moved == CENTRE) * scale**2
        assert area == pytest.approx(np.count_nonzero(labels.labels == CENTRE) * 0.03**2, rel=0.06)


def test_same_grid_is_not_resampled(labels):
    moved = move_labels(labels, (labels.wcs, labels.shape))
    np.testing.assert_array_equal(moved.labels, labels.labels)


def test_outside_the_footprint_is_unknown_not_background(labels):
    shape = (200, 200)
    moved = move_labels(labels, (tangent_wcs(shape, 0.03), shape)).labels
    assert np.all(moved[:20] == UNKNOWN)
    assert np.count_nonzero(moved == UNKNOWN) > 0.8 * moved.size
    far = tangent_wcs(shape, 0.03, centre=(10.0, 40.0))
    assert np.all(move_labels(labels, (far, shape)).labels == UNKNOWN)
    opposite = tangent_wcs(shape, 0.03, centre=(233.16, 27.79))
    assert np.all(move_labels(labels, (opposite, shape)).labels == UNKNOWN)


def test_a_small_target_in_a_large_map(labels):
    shape = (3, 5)
    moved = move_labels(labels, (tangent_wcs(shape, 0.03, 42.0), shape)).labels
    assert np.all(moved == CENTRE)
    single = move_labels(labels, (tangent_wcs((1, 1), 0.03), (1, 1))).labels
    np.testing.assert_array_equal(single, [[CENTRE]])


def test_odd_negative_labels_count_as_unknown():
    values = np.full((20, 20), -7, dtype=np.int32)
    labels = LabelMap(values, wcs=tangent_wcs((20, 20), 0.03))
    moved = move_labels(labels, (tangent_wcs((5, 5), 0.03, 5.0), (5, 5)))
    assert np.all(moved.labels == UNKNOWN)


@pytest.mark.parametrize("which", ["labels", "target"])
def test_a_missing_wcs_is_an_error(labels, which):
    target = (tangent_wcs((9, 9)), (9, 9))
    if which == "labels":
        labels = LabelMap(labels.labels)
    else:
        target = sky_image(np.ones((9, 9))).evolve(wcs=None)
    with pytest.raises(InputError, match="needs a WCS"):
        move_labels(labels, target)


# --- which labels ------------------------------------------------------------------------------------------


def grid(size=80, scale=0.03, angle=42.0):
    return tangent_wcs((size, size), scale, angle, pixel=[size // 2 + 1] * 2), (size, size)


@pytest.mark.parametrize("keep", ["centre", "center", CENTRE, [CENTRE], ["centre", CENTRE], np.int64(CENTRE)])
def test_the_central_object_is_kept(labels, keep):
    mask = mask_from_labels(labels, grid(), keep=keep)
    assert mask.ids == (CENTRE,)
    assert np.count_nonzero(mask.inside) == np.count_nonzero(labels.labels == CENTRE)
    assert mask.inside[40, 40]


def test_a_merger_is_a_list_of_labels(labels):
    mask = mask_from_labels(labels, grid(), keep=["centre", COMPANION])
    assert mask.ids == (CENTRE, COMPANION)
    both = np.isin(labels.labels, [CENTRE, COMPANION])
    assert np.count_nonzero(mask.inside) == np.count_nonzero(both)


def test_the_centre_is_that_of_the_map_not_of_the_target(labels):
    shape = (60, 60)
    shifted = tangent_wcs(shape, 0.03, 42.0, pixel=[45.0, 20.0])
    mask = mask_from_labels(labels, (shifted, shape))
    assert mask.ids == (CENTRE,)
    rows, columns = np.nonzero(mask.inside)
    assert (columns.mean(), rows.mean()) == pytest.approx((44.0, 19.0), abs=1.5)


def test_a_hole_at_the_centre_is_bridged_a_little(labels):
    values = labels.labels.copy()
    middle = (slice(28, 33), slice(31, 36))
    values[middle] = UNKNOWN
    assert mask_from_labels(LabelMap(values, labels.wcs), grid()).ids == (CENTRE,)
    values[np.isin(values, [CENTRE, COMPANION])] = NO_REGION
    with pytest.raises(InputError, match=r"the centre of the label map is unknown.*9342 \(\d+ px\)"):
        mask_from_labels(LabelMap(values, labels.wcs), grid())


def test_an_absent_label_is_an_error_that_lists_the_others(labels):
    with pytest.raises(InputError, match=r"label 5; labels that exist: 24353 \(\d+ px\), 24350 .*, 9342"):
        mask_from_labels(labels, grid(), keep=["centre", 5])
    with pytest.raises(InputError, match="no labels at all"):
        mask_from_labels(LabelMap(np.full((5, 5), -1, np.int32), labels.wcs), grid(), keep=3)


@pytest.mark.parametrize("keep", ["middle", [], [1.5], [True], -1])
def test_what_is_no_label_is_refused(labels, keep):
    with pytest.raises(InputError):
        mask_from_labels(labels, grid(), keep=keep)


def test_an_object_off_the_grid_is_an_error(labels):
    far = (tangent_wcs((30, 30), 0.03, centre=(53.2, -27.79)), (30, 30))
    with pytest.raises(InputError, match="no pixel on the target grid"):
        mask_from_labels(labels, far)


# --- dilation, unknown --------------------------------------------------------------------------------------


def test_dilation_is_euclidean_in_arcsec_and_stops_at_other_objects(labels):
    target = grid()
    plain = mask_from_labels(labels, target)
    mask = mask_from_labels(labels, target, dilation_arcsec=0.1)
    moved = move_labels(labels, target).labels
    other = (moved >= 0) & (moved != CENTRE)
    expected = oracles_sky.grown(plain.inside, 0.1 / 0.03, 0.1 / 0.03) & ~other
    np.testing.assert_array_equal(mask.inside, expected)
    assert mask.dilation_arcsec == 0.1
    assert not (mask.inside & other).any()
    finer = mask_from_labels(labels, grid(160, 0.015), dilation_arcsec=0.1)
    assert np.count_nonzero(finer.inside) == pytest.approx(4 * np.count_nonzero(mask.inside), rel=0.05)
    with pytest.raises(InputError, match="dilation_arcsec is -1"):
        mask_from_labels(labels, target, dilation_arcsec=-1.0)


def test_unknown_is_neither_inside_nor_background(labels):
    shape = (160, 160)
    mask = mask_from_labels(labels, (tangent_wcs(shape, 0.03, 0.0), shape))
    assert mask.unknown[0, 0]
    assert not (mask.unknown & mask.inside).any()
    rim = mask_from_labels(labels, grid())
    assert 0 < np.count_nonzero(rim.unknown) < np.count_nonzero(rim.inside) + 80 * 80 - 61 * 67
    # Dilation takes the rim whose labels could not be recovered.
    grown = mask_from_labels(labels, grid(), dilation_arcsec=0.2)
    assert np.count_nonzero(grown.unknown) < np.count_nonzero(rim.unknown)


# --- application ---------------------------------------------------------------------------------------------


def test_everything_outside_is_masked_and_weighs_nothing(labels, rng):
    wcs, shape = grid()
    image = Image(rng.normal(size=shape), np.full(shape, 2.0), rng.random(shape) < 0.1, "electron/s", wcs)
    object_mask = mask_from_labels(labels, image)
    result = apply_object_mask(image, object_mask)
    np.testing.assert_array_equal(result.mask, image.mask | ~object_mask.inside)
    assert np.all(result.weight[~object_mask.inside] == 0.0)
    np.testing.assert_array_equal(result.variance, image.variance)
    np.testing.assert_array_equal(result.data, image.data)
    flagged = (result.flags & Flag.UNKNOWN_FOOTPRINT) > 0
    np.testing.assert_array_equal(flagged, object_mask.unknown)
    assert result.history[-1].parameters["labels"] == [CENTRE]


def test_application_keeps_what_an_operation_must_keep(labels, rng):
    wcs, shape = grid()
    flags = np.full(shape, int(Flag.INTERPOLATED), np.uint16)
    image = Image(
        rng.normal(size=shape), rng.uniform(1, 2, shape), rng.random(shape) < 0.1, "electron/s", wcs, flags=flags,
        psf=GaussianPSF(0.1), correlation=np.ones((1, 1)), meta={"band": "f606w"},
    )  # fmt: skip
    object_mask = mask_from_labels(labels, image)
    result = check_invariants(lambda given: apply_object_mask(given, object_mask), image)
    assert np.all(result.flags & Flag.INTERPOLATED)


def test_a_mask_of_another_shape_is_refused():
    object_mask = ObjectMask(np.ones((4, 4), bool), np.zeros((4, 4), bool))
    with pytest.raises(ShapeError, match=r"\(4, 4\); expected \(9, 9\)"):
        apply_object_mask(sky_image(np.ones((9, 9))), object_mask)


def test_sources_for_the_sky_are_all_objects(labels):
    wcs, shape = grid()
    mask = source_mask(labels, (wcs, shape))
    assert np.count_nonzero(mask) == np.count_nonzero(labels.labels >= 0)
    assert np.count_nonzero(source_mask(labels, (wcs, shape), dilation_arcsec=0.1)) > np.count_nonzero(mask)
    assert not mask[0, 0]
