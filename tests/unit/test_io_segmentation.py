"""Whole labels from maps that were stored, or interpolated, as floats."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from astropy.io import fits
from scipy.ndimage import map_coordinates

import skyloom as sl
from skyloom.core.labels import NO_REGION, UNKNOWN
from skyloom.errors import FileFormatError, InputError, RepairWarning
from skyloom.io.formats.files import open_fits
from skyloom.io.segmentation import recover_labels
from tests.inputs.io_objects import tan_wcs


def discs(size=120, ids=(24350, 24353, 7, 60161)):
    """Overlapping discs: labels that differ by 3, and by 60154."""
    y, x = np.mgrid[:size, :size]
    labels = np.zeros((size, size))
    for label, (row, column, radius) in zip(
        ids, [(40, 40, 25), (40, 70, 22), (90, 50, 18), (95, 95, 12)], strict=True
    ):
        labels[np.hypot(y - row, x - column) < radius] = label
    return labels


def turned(labels, angle=42.0):
    """The map interpolated bilinearly as if labels were fluxes."""
    centre = (labels.shape[0] - 1) / 2
    y, x = np.mgrid[: labels.shape[0], : labels.shape[1]] - centre
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return map_coordinates(
        labels, [c * y + s * x + centre + 0.3, -s * y + c * x + centre + 0.2], order=1, mode="nearest"
    )


def shares(labels, angle=42.0):
    """Label -> what part of each interpolated pixel it makes up."""
    return {label: turned((labels == label).astype(float), angle) for label in np.unique(labels)}


def test_integer_maps_are_taken_as_they_are():
    labels = discs().astype(np.int64)
    recovered = recover_labels(labels)
    np.testing.assert_array_equal(recovered.labels, np.where(labels == 0, NO_REGION, labels))
    assert (recovered.n_assigned, recovered.n_unknown) == (0, 0)
    assert recovered.labels.dtype == np.int32


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clean_float_maps_are_taken_as_they_are(dtype):
    labels = discs().astype(dtype)
    labels[5, 5] = 99  # an object of one pixel is still an object
    labels[0, 0] = np.nan
    recovered = recover_labels(labels)
    assert recovered.labels[5, 5] == 99
    assert recovered.labels[0, 0] == UNKNOWN
    assert recovered.labels[0, 1] == NO_REGION
    assert recovered.n_unknown == 1


@pytest.mark.parametrize("angle", [3.0, 42.0, 71.0])
@pytest.mark.parametrize("ids", [(24350, 24353, 7, 60161), (1, 2, 3, 4), (5, 10000, 20000, 25460)])
def test_interpolated_labels_are_never_invented_and_hardly_ever_wrong(ids, angle):
    labels = discs(ids=ids)
    recovered = recover_labels(turned(labels, angle).astype(np.float32), repair="interpolated")
    found = np.where(recovered.labels == NO_REGION, 0, recovered.labels)
    assert set(np.unique(found[found >= 0])) <= set(np.unique(labels))
    share = shares(labels, angle)
    largest = np.max(list(share.values()), axis=0)
    wrong = sum(np.count_nonzero((found == label) & (part < 0.49)) for label, part in share.items())
    blended = np.count_nonzero(largest < 0.999)
    assert recovered.n_unknown <= 0.12 * blended
    assert wrong <= 0.01 * blended


def test_pure_pixels_are_all_right():
    labels = discs()
    recovered = recover_labels(turned(labels).astype(np.float32))
    for label, share in shares(labels).items():
        pure = share > 1 - 1e-12
        assert np.all(recovered.labels[pure] == (label or NO_REGION))


def test_blends_between_two_labels_are_no_third_object():
    recovered = recover_labels(turned(discs()).astype(np.float32))
    assert not np.isin(recovered.labels, [24351, 24352]).any()


def test_where_mixtures_disagree_the_label_is_unknown():
    # 14000 is 57 % of 24353 and background, or 57 % of 24350 and background: both touch the pixel.
    labels = np.zeros((9, 11), np.float32)
    labels[:, :5], labels[:, 6:] = 24350, 24353
    labels[6:] = 0
    labels[5, 5] = 14000
    labels[:5, 5] = 24353
    labels[0, 0] += 0.5
    assert recover_labels(labels).labels[5, 5] == UNKNOWN


def test_more_background_than_object_is_background():
    labels = np.zeros((9, 9), np.float32)
    labels[:, :4] = 100
    labels[:, 4] = 49.0 - 0.1 * np.arange(9)
    labels[4, 4] = 51.0
    recovered = recover_labels(labels, repair="interpolated")
    assert recovered.labels[4, 4] == 100
    assert np.all(recovered.labels[[0, 1, 2, 3, 5, 6, 7, 8], 4] == NO_REGION)


def test_blends_that_were_rounded_are_noticed():
    labels = np.round(turned(discs()))
    recovered = recover_labels(labels)
    assert set(np.unique(recovered.labels)) <= {UNKNOWN, NO_REGION, 7, 24350, 24353, 60161}
    assert recovered.n_assigned > 100


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.random.default_rng(1).normal(size=(30, 30)), "reach from -"),
        (np.random.default_rng(1).uniform(0, 1000, (30, 30)), "not on a label that is certain"),
        (np.full((5, 5), 3e9), "reach from"),
        (np.full((5, 5), 2.0**25, np.float32), "reach from"),
        (np.full((5, 5), 2**40), "beyond 32 bits"),
        (np.zeros((5, 5), complex), "type complex128"),
    ],
)
def test_what_is_no_label_map_is_refused(values, reason):
    with pytest.raises(FileFormatError, match=f"no segmentation map: .*{reason}"):
        recover_labels(values)


def write_map(path, values, **header):
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(values, fits.Header(header) or None, "DATA")]).writeto(
        path
    )
    return path


def test_reading_counts_and_warns(tmp_path):
    header = tan_wcs(42.0).to_header()
    path = write_map(tmp_path / "segmap.fits", turned(discs()).astype(np.float32), **header)
    with pytest.warns(RepairWarning, match=r"segmap.fits: .* pixels recovered from their neighbours"):
        labels = sl.read(path)
    assert isinstance(labels, sl.LabelMap)
    assert labels.wcs is not None
    assert labels.meta["n_assigned"] > 100
    assert labels.history[0].name == "read_segmentation"
    assert list(labels.ids) == [7, 24350, 24353, 60161]


def test_repair_none_refuses_blends(tmp_path):
    path = write_map(tmp_path / "segmap.fits", turned(discs()).astype(np.float32))
    with pytest.raises(FileFormatError, match=r"segmap.fits: .*pixels are not whole numbers"):
        sl.read(path, repair="none")
    with pytest.raises(InputError, match="use one of auto, none, interpolated"):
        sl.read(path, repair="always")


def test_extensions_by_name_and_number(tmp_path):
    path = tmp_path / "a.fits"
    planes = [fits.ImageHDU(np.full((3, 4), n, np.int32), name=f"MAP{n}") for n in (1, 2)]
    fits.HDUList([fits.PrimaryHDU(), *planes]).writeto(path)
    assert sl.read(path, instrument="segmentation").ids == [1]
    assert sl.read(path, instrument="segmentation", extension=2).ids == [2]
    assert sl.read(path, instrument="segmentation", extension="map2").ids == [2]
    for extension in (0, 7, "MAP9"):
        with pytest.raises(FileFormatError, match="extension"):
            sl.read(path, instrument="segmentation", extension=extension)


def test_an_image_is_no_label_map(tmp_path, rng):
    path = write_map(tmp_path / "a.fits", rng.normal(size=(20, 20)))
    with pytest.raises(FileFormatError, match="no reader knows"):
        sl.read(path)
    with pytest.raises(FileFormatError, match="no segmentation map"):
        sl.read(path, instrument="segmentation")


@pytest.mark.data
@pytest.mark.parametrize(
    ("galaxy", "central", "unknown"),
    [(3, 24353, 200), (15, 10345, 5), (37, 9791, 5), (912, 5082, 20), (919, 23037, 50)],
)
def test_real_maps_of_the_ultra_deep_field(galaxy, central, unknown, data_dir):
    path = data_dir / "hst_udf" / "segment_maps" / f"udf_mosaic_{galaxy}_HST_SEGMAP.fits"
    with open_fits(path) as file:
        values = file["DATA"].array()
    with pytest.warns(RepairWarning, match="interpolated"):
        labels = sl.read(path)
    ny, nx = labels.shape
    assert labels.labels[ny // 2, nx // 2] == central
    assert labels.meta["n_unknown"] <= unknown
    assert labels.meta["n_assigned"] + labels.meta["n_unknown"] == pytest.approx(
        np.sum(values % 1 != 0), rel=0.03
    )
    # Every label that is left covers pixels that held exactly this value.
    for label in labels.ids:
        assert np.count_nonzero(values == label) >= 3
    assert (24350 in labels.ids) == (galaxy == 3)


@pytest.mark.data
def test_real_object_masks(data_dir):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mask = sl.read(data_dir / "hst_udf" / "segment_maps" / "udf_mosaic_3_MASK_OBJ.fits")
    assert list(mask.ids) == [1]
    assert mask.wcs is not None
