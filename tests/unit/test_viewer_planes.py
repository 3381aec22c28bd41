"""Planes of the viewer: what a view reads, and that it equals what numpy makes of the whole array."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from skyloom.viewer.panes.sky_grid import affine_between, pixel_at, sky_grid
from skyloom.viewer.planes import cubes
from skyloom.viewer.planes.blocks import Frame, Pixels, block_means, frame_of, nearest
from skyloom.viewer.planes.cubes import CHANNEL, RANGE, WHITE, CubePlanes
from skyloom.viewer.planes.images import ArrayReader, Plane, Planes
from skyloom.viewer.planes.sky import Sky
from skyloom.viewer.shelf import Shelf


def tan(scale=0.2, turn=0.0, centre=(150.0, 2.0), shape=(60, 80), frame="ICRS"):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = centre
    wcs.wcs.crpix = [shape[1] / 2, shape[0] / 2]
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    wcs.wcs.cd = scale / 3600.0 * np.array([[-c, s], [s, c]])
    wcs.wcs.radesys = frame
    wcs.wcs.set()
    return wcs


def planes_of(data, variance=None, bad=None, wcs=None):
    reader = ArrayReader(Pixels(data, variance, bad))
    return Planes(
        "image", [Plane("image", reader, "Jy")], data.shape, Sky(wcs), has_errors=variance is not None
    )


class Counting:
    """A reader that says how many pixels were asked for."""

    pixel_bytes = 4

    def __init__(self, data):
        self.data, self.pixels = data, 0

    def read(self, rows, columns):
        part = self.data[rows, columns]
        self.pixels += part.size
        return Pixels(part, None, None)


# --- frames ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (60, 80), (4096, 4096), (30, 5000)])
@pytest.mark.parametrize("pixels", [(1, 1), (300, 200), (2000, 1500)])
def test_a_view_has_at_most_four_elements_per_pixel_of_the_screen(shape, pixels):
    frame = frame_of(shape, (-0.5, shape[1] - 0.5, -0.5, shape[0] - 0.5), pixels)
    assert (frame.x, frame.y, frame.columns, frame.rows) == (0, 0, shape[1], shape[0])
    h, w = frame.shape
    assert h <= 2 * pixels[1] + 1
    assert w <= 2 * pixels[0] + 1
    # As fine as the screen resolves, or as the image is.
    assert frame.step == 1 or w >= pixels[0] or h >= pixels[1]


def test_blocks_do_not_move_with_the_view():
    for x0 in np.linspace(100, 140, 37):
        frame = frame_of((1000, 1000), (x0, x0 + 400, 50.3, 450.3), (100, 100))
        assert frame.step == 4
        assert frame.x % 4 == frame.y % 4 == 0
        assert frame.x - 0.5 <= x0
        assert frame.columns - 0.5 >= x0 + 400


@pytest.mark.parametrize(
    "box", [(-900, -800, 5, 6), (5, 5, 5, 5), (np.nan, np.inf, -np.inf, 3), (9, 2, 7, 1)]
)
def test_any_box_gives_pixels_of_the_image(box):
    frame = frame_of((20, 30), box, (10, 10))
    assert 0 <= frame.x < frame.columns <= 30
    assert 0 <= frame.y < frame.rows <= 20


# --- means ----------------------------------------------------------------------------------------------------------


def expected_means(data, variance, bad, frame):
    """Block by block."""
    h, w = frame.shape
    mean, error, masked = np.full((h, w), np.nan), np.full((h, w), np.nan), np.ones((h, w))
    for j in range(h):
        for i in range(w):
            rows = slice(frame.y + j * frame.step, min(frame.y + (j + 1) * frame.step, frame.rows))
            columns = slice(frame.x + i * frame.step, min(frame.x + (i + 1) * frame.step, frame.columns))
            good = np.isfinite(data[rows, columns]) & ~bad[rows, columns]
            masked[j, i] = 1 - good.mean()
            if good.any():
                mean[j, i] = data[rows, columns][good].mean(dtype=np.float64)
                error[j, i] = np.sqrt(variance[rows, columns][good].mean(dtype=np.float64))
    return mean, error, masked


@pytest.mark.parametrize("step", [1, 2, 4, 8])
@pytest.mark.parametrize("strip", [64, 1 << 22])
def test_means_equal_those_of_numpy(rng, monkeypatch, step, strip):
    monkeypatch.setattr("skyloom.viewer.planes.blocks.STRIP_BYTES", strip)
    data = rng.normal(5, 1, (53, 71)).astype(np.float32)
    variance = rng.uniform(1, 2, data.shape).astype(np.float32)
    bad = rng.random(data.shape) < 0.2
    bad[8:24, 16:32] = True
    data[bad] = 1e30
    data[3, 5] = np.nan
    frame = Frame(8, 16, 67, 50, step)
    reader = ArrayReader(Pixels(data, variance, bad))
    reader.pixel_bytes = 9
    means = block_means(reader, frame)
    mean, error, masked = expected_means(data, variance, bad, frame)
    np.testing.assert_allclose(means.values, mean, rtol=2e-6)
    np.testing.assert_allclose(means.error, error, rtol=2e-6)
    np.testing.assert_allclose(means.masked, masked, atol=1e-6)
    assert means.read_bytes == 9 * (67 - 8) * (50 - 16)


def test_of_a_huge_image_some_rows_of_each_block_are_read(rng):
    data = rng.normal(size=(640, 640)).astype(np.float32)
    reader = Counting(data)
    frame = frame_of(data.shape, (-0.5, 639.5, -0.5, 639.5), (40, 40))
    assert frame.step == 16
    means = block_means(reader, frame, most_bytes=data.nbytes // 4)
    assert means.rows == 4
    assert reader.pixels == data.size // 4
    assert means.read_bytes == data.nbytes // 4
    expected = data.reshape(40, 16, 40, 16)[:, :4].mean(axis=(1, 3), dtype=np.float64)
    np.testing.assert_allclose(means.values, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(means.masked, 0.0)


def test_a_zoomed_view_reads_its_own_pixels(rng):
    reader = Counting(rng.normal(size=(2000, 2000)).astype(np.float32))
    block_means(reader, frame_of((2000, 2000), (500, 600, 700, 760), (800, 480)))
    assert reader.pixels <= 102 * 62


def test_codes_are_sampled_and_not_averaged():
    codes = np.arange(24 * 24, dtype=np.int32).reshape(24, 24)
    codes[0, 0] = -1
    values, _ = nearest(ArrayReader(Pixels(codes, None, None)), Frame(0, 0, 24, 24, 4))
    np.testing.assert_array_equal(values[1:], codes[::4, ::4][1:])
    assert np.isnan(values[0, 0])


def test_layers_of_a_view():
    data = np.full((40, 40), 6.0, np.float32)
    variance = np.full((40, 40), 4.0, np.float32)
    bad = np.zeros((40, 40), bool)
    bad[:, :10] = True
    planes = planes_of(data, variance, bad)
    assert planes.layers == ("value", "error", "snr", "mask")
    box, screen = (-0.5, 39.5, -0.5, 39.5), (10, 10)
    views = {layer: planes.view(layer, box=box, pixels=screen) for layer in planes.layers}
    assert {view.step for view in views.values()} == {4}
    assert views["value"].values[0, -1] == 6
    assert views["error"].values[0, -1] == 2
    assert views["snr"].values[0, -1] == 3
    assert views["mask"].values[0].tolist() == [1, 1, 0.5, 0, 0, 0, 0, 0, 0, 0]
    assert np.isnan(views["value"].values[0, 0])
    # What an element stands for is said: the error is that of a pixel, not of the mean.
    assert "one pixel" in views["error"].note
    assert "4 × 4" in views["value"].note
    assert planes.view("value", box=(0, 5, 0, 5), pixels=screen).note == ""


def test_layers_of_one_view_are_read_once(rng):
    reader = Counting(rng.normal(size=(100, 100)).astype(np.float32))
    planes = Planes("image", [Plane("image", reader, "")], (100, 100), Sky(None), has_errors=False)
    assert planes.layers == ("value", "mask")
    for layer in planes.layers:
        planes.view(layer, box=(-0.5, 99.5, -0.5, 99.5), pixels=(50, 50))
    assert reader.pixels == 100 * 100


# --- files ----------------------------------------------------------------------------------------------------------


def write(path, *hdus):
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    return path


def seen(planes, layer="value", plane=0):
    ny, nx = planes.shape
    return planes.view(layer, plane=plane, box=(-0.5, nx - 0.5, -0.5, ny - 0.5), pixels=(nx, ny)).values


def test_a_product_of_bands_has_a_plane_for_each(tmp_path, rng):
    data = rng.normal(size=(2, 30, 40)).astype(np.float32)
    variance = rng.uniform(1, 2, data.shape).astype(np.float32)
    mask = (rng.random(data.shape) < 0.1).astype(np.uint8)
    header = tan(shape=(30, 40)).to_header()
    header["BUNIT"] = "Jy"
    hdus = []
    for number, band in enumerate(("F606W", "F814W")):
        for name, values in (("SCI", data), ("VAR", variance), ("MASK", mask)):
            hdus.append(fits.ImageHDU(values[number], header, name=f"{band}_{name}"))
    hdus.append(fits.ImageHDU(np.ones((5, 5)), name="F606W_CORR"))
    hdus.append(fits.ImageHDU(np.zeros((30, 40), np.uint8), header, name="OBJECT_MASK"))
    planes = Shelf(write(tmp_path / "a.fits", *hdus)).open("a.fits")
    assert planes.planes == ("F606W", "F814W", "OBJECT MASK")
    for number in range(2):
        good = mask[number] == 0
        shown = seen(planes, plane=number)
        np.testing.assert_array_equal(shown[good], data[number][good])
        assert np.isnan(shown[~good]).all()
        np.testing.assert_allclose(
            seen(planes, "error", number)[good], np.sqrt(variance[number][good]), rtol=1e-6
        )


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("ERR", lambda v: np.sqrt(v)),
        ("IVAR", lambda v: 1 / v),
        ("WHT", lambda v: 1 / v),
        ("STAT", lambda v: v),
    ],
)
def test_errors_of_any_kind(tmp_path, rng, name, stored):
    data = rng.normal(size=(20, 20)).astype(np.float32)
    variance = rng.uniform(1, 2, data.shape).astype(np.float32)
    path = write(
        tmp_path / "a.fits", fits.ImageHDU(data, name="SCI"), fits.ImageHDU(stored(variance), name=name)
    )
    planes = Shelf(path).open("a.fits")
    assert len(planes.planes) == 1
    np.testing.assert_allclose(seen(planes, "error"), np.sqrt(variance), rtol=1e-5)
    np.testing.assert_allclose(seen(planes, "snr"), data / np.sqrt(variance), rtol=1e-4)


def test_maps_with_errors_and_bins(tmp_path, rng):
    bins = np.repeat(np.arange(5, dtype=np.int32), 20).reshape(10, 10)
    bins[0] = -1
    flux = fits.ImageHDU(rng.normal(size=(10, 10)), name="HALPHA_FLUX")
    flux.header["ERRDATA"] = "HALPHA_FLUX_ERR"
    path = write(
        tmp_path / "a.fits",
        fits.ImageHDU(bins, name="BINS"),
        flux,
        fits.ImageHDU(np.full((10, 10), 2.0), name="HALPHA_FLUX_ERR"),
        fits.ImageHDU(np.zeros((10, 10), np.int16), name="HALPHA_FLAG"),
    )
    planes = Shelf(path).open("a.fits")
    assert planes.planes == ("BINS", "HALPHA FLUX", "HALPHA FLAG")
    np.testing.assert_array_equal(seen(planes, "error", 1), 2.0)
    assert planes.labels_at(3.2, 9.4) == 4
    assert planes.labels_at(3.0, 0.0) is None
    assert planes.labels_at(30.0, 0.0) is None


# --- the sky --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", ["ICRS", "FK5"])
def test_places_are_icrs(frame):
    wcs = tan(turn=30.0, frame=frame)
    found = Sky(wcs).world(12.0, 34.0)
    expected = wcs.pixel_to_world(12.0, 34.0).icrs
    assert SkyCoord(*found, unit="deg").separation(expected).arcsec < 1e-4


@pytest.mark.parametrize("centre", [(150.0, 2.0), (0.0, -30.0), (10.0, 89.99)])
def test_the_grid_of_the_read_out_holds_to_a_tenth_of_a_pixel(rng, centre):
    # The largest frames: 2048 pixels of 0.4 arcsec.
    planes = planes_of(np.zeros((2048, 2048), np.float32), wcs=tan(0.396, 20.0, centre, (2048, 2048)))
    directions, (x0, x1, y0, y1, n) = sky_grid(planes, (-0.5, 2047.5, -0.5, 2047.5))
    n = int(n)
    x, y = rng.uniform(0, 2047, (2, 200))
    u, v = (x - x0) / (x1 - x0) * (n - 1), (y - y0) / (y1 - y0) * (n - 1)
    i, j = np.minimum(u.astype(int), n - 2), np.minimum(v.astype(int), n - 2)
    s, t = (u - i)[:, None], (v - j)[:, None]
    found = (1 - t) * ((1 - s) * directions[j, i] + s * directions[j, i + 1])
    found += t * ((1 - s) * directions[j + 1, i] + s * directions[j + 1, i + 1])
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    distance = np.degrees(np.linalg.norm(found - planes.sky.directions(x, y), axis=1)) * 3600 / 0.396
    assert distance.max() < 0.1


def test_images_are_linked_through_the_sky():
    first = planes_of(np.zeros((60, 80), np.float32), wcs=tan(0.2, 10.0))
    second = planes_of(np.zeros((300, 300), np.float32), wcs=tan(0.05, -25.0, (150.0005, 2.0003), (300, 300)))
    a, b, c, d, e, f = affine_between(first, second, 39.5, 29.5)
    for x, y in ((39.5, 29.5), (10.0, 50.0), (70.0, 5.0)):
        there = second.world(a * x + b * y + c, d * x + e * y + f)
        here = first.world(x, y)
        assert SkyCoord(*here, unit="deg").separation(SkyCoord(*there, unit="deg")).arcsec < 1e-3
    np.testing.assert_allclose(pixel_at(second, *second.world(12.0, 250.0)), (12.0, 250.0), atol=1e-3)
    assert affine_between(first, planes_of(np.zeros((5, 5), np.float32)), 1.0, 1.0) == []


# --- cubes ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def cube(tmp_path, rng):
    data = rng.normal(3, 1, (90, 12, 14)).astype(np.float32)
    variance = rng.uniform(1, 2, data.shape).astype(np.float32)
    data[40:43, 2, 3] = np.nan
    data[30:60, 5, 5] = np.nan
    header = fits.Header()
    axes = ("RA---TAN", "DEC--TAN", "AWAV"), ("deg", "deg", "Angstrom"), (150.0, 2.0, 5000.0), (7.0, 6.0, 1.0)
    for key, values in zip(("CTYPE", "CUNIT", "CRVAL", "CRPIX"), axes, strict=True):
        for axis, value in enumerate(values, start=1):
            header[f"{key}{axis}"] = value
    header["CD1_1"], header["CD2_2"], header["CD3_3"] = -0.2 / 3600, 0.2 / 3600, 1.25
    header["BUNIT"] = "10**(-20)*erg/s/cm**2/Angstrom"
    errors = header.copy()
    errors["BUNIT"] = "(10**(-20)*erg/s/cm**2/Angstrom)**2"
    path = write(
        tmp_path / "cube.fits",
        fits.ImageHDU(data, header, name="DATA"),
        fits.ImageHDU(variance, errors, name="STAT"),
    )
    return path, data, variance


def test_planes_of_a_cube(cube):
    path, data, variance = cube
    planes = CubePlanes(path, "cube")
    assert planes.n_channels == 90
    box, screen = (-0.5, 13.5, -0.5, 11.5), (14, 12)
    channel = planes.view("value", plane=CHANNEL, channel=17, box=box, pixels=screen)
    np.testing.assert_array_equal(channel.values, data[17])
    error = planes.view("error", plane=CHANNEL, channel=17, box=box, pixels=screen)
    np.testing.assert_allclose(error.values, np.sqrt(variance[17]), rtol=1e-6)
    assert channel.read_bytes > 0
    assert error.read_bytes == 0


def test_a_range_is_the_integral_over_its_wavelengths(cube):
    path, data, variance = cube
    planes = CubePlanes(path, "cube")
    planes.select(30, 60)
    box, screen = (-0.5, 13.5, -0.5, 11.5), (14, 12)
    shown = planes.view("value", plane=RANGE, box=box, pixels=screen)
    good = np.isfinite(data[30:60])
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = np.where(good, data[30:60], 0).sum(axis=0) / good.sum(axis=0) * 30 * 1.25
    expected[5, 5] = np.nan
    np.testing.assert_allclose(shown.values, expected, rtol=1e-5)
    assert "Å" not in shown.unit
    error = planes.view("error", plane=RANGE, box=box, pixels=screen).values
    np.testing.assert_allclose(error[0, 0], np.sqrt(variance[30:60, 0, 0].sum()) * 1.25, rtol=1e-5)
    assert np.isnan(error[5, 5])


def test_white_light_reads_a_limited_number_of_channels(cube, monkeypatch):
    path, data, _ = cube
    monkeypatch.setattr(cubes, "WHITE_CHANNELS", 30)
    planes = CubePlanes(path, "cube")
    shown = planes.view("value", plane=WHITE, box=(-0.5, 13.5, -0.5, 11.5), pixels=(14, 12))
    assert "1 in 3" in planes.planes[WHITE]
    np.testing.assert_allclose(shown.values[0], data[::3, 0].mean(axis=0), rtol=1e-5)
    assert shown.read_bytes == 30 * 12 * 14 * 9


def test_a_cube_without_errors_is_seen_too(tmp_path, rng):
    data = rng.normal(size=(20, 10, 11)).astype(np.float32)
    path = write(tmp_path / "a.fits", fits.ImageHDU(data, name="SOMETHING"))
    planes = Shelf(path).open("a.fits")
    assert "error" not in planes.layers
    np.testing.assert_array_equal(
        planes.view("value", plane=CHANNEL, channel=3, box=(-0.5, 10.5, -0.5, 9.5), pixels=(11, 10)).values,
        data[3],
    )
