"""Tables of bins and painted maps."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest

from skyloom.core.image import Image
from skyloom.core.labels import LabelMap
from skyloom.errors import InputError, ShapeError
from skyloom.spectral.bins.contents import measure_bins, paint
from tests.inputs.binning import gaussian_correlation
from tests.inputs.sky import tangent_wcs
from tests.oracles import binning as oracles_binning

RHO = gaussian_correlation(0.6, 2)


@pytest.fixture
def image(rng):
    shape = (9, 11)
    mask = rng.random(shape) < 0.1
    data, variance = rng.normal(5, 1, shape), rng.uniform(0.5, 2, shape)
    data[mask] = np.nan
    variance[mask] = np.nan
    return Image(data, variance, mask, "1e-20 erg/(s cm2)", tangent_wcs(shape, scale=0.2), correlation=RHO)


@pytest.fixture
def labels(rng, image):
    numbers = np.full(image.shape, -1, dtype=np.int32)
    numbers[:4, :6] = 7
    numbers[4:, :6] = 2
    numbers[2, 8] = 90
    numbers[8, 10] = -2
    return numbers


@pytest.mark.parametrize("white", [True, False])
def test_table_equals_pairs_written_out(image, labels, white):
    source = image.evolve(correlation=None) if white else image
    table = measure_bins(source, labels)
    assert table["id"].tolist() == [2, 7, 90], "numbers need not be contiguous"
    used = np.where(image.mask, -1, labels)
    expected = oracles_binning.bin_sums(image.data, image.variance, used, None if white else RHO)
    for row in table:
        if int(row["id"]) not in expected:
            assert row["flag"] == "empty"
            continue
        total, noise, n_pixels = expected[int(row["id"])]
        y, x = np.nonzero(used == row["id"])
        assert row["n_pixels"] == n_pixels
        assert row["signal"].value == pytest.approx(total)
        assert row["noise"].value == pytest.approx(noise)
        assert row["snr"] == pytest.approx(total / noise)
        assert (row["x"], row["y"]) == pytest.approx((x.mean(), y.mean()))
    assert table["signal"].unit == image.unit == table["noise"].unit


def test_an_explicit_correlation_wins(image, labels):
    wide = gaussian_correlation(1.0, 3)
    expected = measure_bins(image.evolve(correlation=wide), labels)
    assert np.allclose(measure_bins(image, labels, wide)["snr"], expected["snr"], equal_nan=True)


def test_places_and_areas_on_the_sky(image, labels):
    table = measure_bins(image, labels)
    sky = image.wcs.pixel_to_world(table["x"], table["y"])
    assert np.allclose(table["ra"].to_value("deg"), sky.ra.deg, equal_nan=True)
    assert np.allclose(table["dec"].to_value("deg"), sky.dec.deg, equal_nan=True)
    np.testing.assert_allclose(table["area"].to_value("arcsec2"), table["n_pixels"] * 0.04, rtol=1e-5)
    plain = measure_bins(image.evolve(wcs=None), labels)
    assert "area" not in plain.colnames
    assert "ra" not in plain.colnames
    assert np.array_equal(plain["snr"], table["snr"], equal_nan=True)


def test_surface_brightness_is_multiplied_by_the_pixel(image, labels):
    per_area = image.evolve(unit=u.Unit("1e-20 erg/(s cm2 arcsec2)"))
    bright, plain = measure_bins(per_area, labels), measure_bins(image, labels)
    assert bright["signal"].unit == u.Unit("1e-20 erg/(s cm2)")
    for name in ("signal", "noise"):
        np.testing.assert_allclose(bright[name].value, 0.04 * plain[name].value, rtol=1e-5)
    assert np.allclose(bright["snr"], plain["snr"], equal_nan=True)


def test_flags(image):
    data, variance = np.full((1, 5), 6.0), np.ones((1, 5))
    source = Image(data, variance, np.array([[0, 0, 0, 0, 1]], bool), "electron/s", None)
    labels = LabelMap(np.array([[0, 0, 1, 2, 3]], dtype=np.int32), meta={"target": 8.0})
    assert measure_bins(source, labels)["flag"].tolist() == ["ok", "below target", "below target", "empty"]
    assert measure_bins(source, labels, target=5.0)["flag"].tolist() == ["ok", "single", "single", "empty"]
    assert measure_bins(source, np.asarray(labels))["flag"].tolist() == ["ok", "single", "single", "empty"]
    assert np.isnan(measure_bins(source, labels)["signal"][3].value)


def test_labels_of_another_shape_are_refused(image):
    with pytest.raises(ShapeError, match=r"labels have shape \(3, 3\); expected \(9, 11\)"):
        measure_bins(image, np.zeros((3, 3), dtype=int))


def test_painted_array_has_the_value_of_each_bin(labels):
    painted = paint([1.0, 2.5, -4.0], labels)
    assert isinstance(painted, np.ndarray)
    for label, value in ((2, 1.0), (7, 2.5), (90, -4.0)):
        assert (painted[labels == label] == value).all()
    assert np.isnan(painted[labels < 0]).all()


def test_painted_image_masks_what_is_not_known(labels, image):
    bins = LabelMap(labels, image.wcs)
    painted = paint([1.0, np.nan, 3.0] * u.km / u.s, bins, variance=[0.1, 0.2, 0.3] * u.km**2 / u.s**2)
    assert isinstance(painted, Image)
    assert painted.unit == u.km / u.s
    assert painted.wcs is image.wcs
    assert np.array_equal(painted.mask, (labels < 0) | (labels == 7))
    assert (painted.variance[labels == 90] == 0.3).all()
    assert painted.meta["variance_known"]
    assert painted.history[-1].name == "paint"
    assert not paint([1.0, 2.0, 3.0], bins).meta["variance_known"]
    metres = paint([1.0, 2.0, 3.0] * u.km / u.s, bins, variance=[1e6, 1e6, 1e6] * u.m**2 / u.s**2)
    assert metres.variance[labels == 2] == pytest.approx(1.0)


def test_painting_needs_a_number_for_each_bin(labels):
    with pytest.raises(ShapeError, match=r"values have shape \(2,\); expected \(3,\)"):
        paint([1.0, 2.0], labels)
    with pytest.raises(InputError, match="values have type"):
        paint(["a", "b", "c"], labels)


def test_nothing_to_measure(image):
    table = measure_bins(image, np.full(image.shape, -1))
    assert len(table) == 0
    assert np.isnan(paint([], np.full((3, 4), -1))).all()
