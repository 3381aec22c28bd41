"""The voxel table against the images, cubes and spectra it is made of."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.wcs.utils import pixel_to_skycoord
from cdshealpix.nested import healpix_to_lonlat

from skyloom.core.linelist import air_to_vacuum
from skyloom.errors import InputError
from skyloom.io.sdss.frame import PIVOT, frame_flux_density
from skyloom.store.export import voxels as voxels_module
from skyloom.store.export.fields import BLOCK_ROWS
from skyloom.store.export.voxels import voxel_table
from tests.inputs.export_stores import (
    FIBRE,
    ROW_TIME,
    START,
    STOP,
    gathered,
    make_odd_store,
    make_sdss_store,
    objects,
)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    return make_odd_store(tmp_path_factory.mktemp("voxels"))


@pytest.fixture(scope="module")
def sdss(tmp_path_factory):
    return make_sdss_store(tmp_path_factory.mktemp("voxels_sdss"))


def rows_of(store, *names, **options):
    return gathered(voxel_table(store, [store.row(name) for name in names], **options))


def separation(rows, place):
    return SkyCoord(rows["ra"] * u.deg, rows["dec"] * u.deg).separation(place.icrs).to_value(u.arcsec)


@pytest.mark.parametrize("name", ["plain", "drift", "galactic", "nowhere"])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_voxels_of_an_image_are_its_usable_pixels(odd, name, level):
    rows, image = rows_of(odd, name, level=level), odd.cutout(name, level=level)
    good = ~image.mask
    assert rows.size == good.sum()
    np.testing.assert_array_equal(rows["mean"], image.data[good])
    np.testing.assert_array_equal(rows["sigma"], np.sqrt(image.variance[good]))
    np.testing.assert_allclose(rows["mean"].sum(dtype=float), image.data[good].sum(dtype=float), rtol=1e-12)
    assert set(rows["unit"]) == {str(image.unit).encode()}
    assert set(rows["obs_id"]) == {name.encode()}


@pytest.mark.parametrize("name", ["plain", "galactic"])
@pytest.mark.parametrize("level", [0, 2])
def test_places_are_those_of_the_wcs(odd, name, level):
    rows, image = rows_of(odd, name, level=level), odd.cutout(name, level=level)
    y, x = np.nonzero(~image.mask)
    assert separation(rows, pixel_to_skycoord(x, y, image.wcs)).max() < 1e-3
    longitude, latitude = healpix_to_lonlat(rows["healpix"].astype(np.uint64), 29)
    # Cells of order 29 are 0.4 mas wide.
    assert separation(rows, SkyCoord(longitude, latitude)).max() < 1e-3


def test_rows_of_a_drift_scan_have_their_own_time(odd):
    for level in (0, 1):
        rows, image = rows_of(odd, "drift", level=level), odd.cutout("drift", level=level)
        y = np.nonzero(~image.mask)[0]
        # A row of level 1 is two of level 0; its time is that of their middle.
        expected = ROW_TIME[0] + ROW_TIME[1] * (y * 2**level + 0.5 * (2**level - 1))
        np.testing.assert_allclose(rows["time"], expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(rows_of(odd, "plain")["time"], 0.5 * (START + STOP), rtol=1e-15)


def test_what_is_not_known_is_nan(odd):
    nowhere = rows_of(odd, "nowhere")
    assert np.all(nowhere["healpix"] == -1)
    assert np.all(np.isnan(nowhere["ra"]) & np.isnan(nowhere["dec"]))
    lost = rows_of(odd, "lost")
    assert np.all(lost["healpix"] == -1)
    assert np.all(np.isnan(lost["ra"]) & np.isnan(lost["time"]))
    assert np.all(np.isnan(rows_of(odd, "plain")["wavelength"]))


def test_wavelengths_of_images_are_those_of_their_bands(odd, sdss):
    assert set(rows_of(odd, "nowhere")["wavelength"]) == {6000.0}
    np.testing.assert_allclose(rows_of(odd, "galactic")["wavelength"], 6210.0, rtol=1e-12)
    frames = sdss.images(band="g")["obs_id"]
    assert set(rows_of(sdss, str(frames[0]))["wavelength"]) == {PIVOT["g"]}


def test_voxels_of_a_cube(odd, monkeypatch):
    # Slabs smaller than the cube, tiles smaller than its planes.
    monkeypatch.setattr(voxels_module, "SLAB", 40)
    monkeypatch.setattr(voxels_module, "TILE", (5, 4))
    rows, cube = rows_of(odd, "cube"), odd.cutout("cube")
    vacuum = air_to_vacuum(cube.wave)
    x, y = (
        np.rint(axis).astype(int) for axis in cube.wcs.celestial.all_world2pix(rows["ra"], rows["dec"], 0)
    )
    channel = np.searchsorted(vacuum, rows["wavelength"] - 1e-6)
    assert rows.size == (~cube.mask).sum()
    assert len({*zip(channel.tolist(), y.tolist(), x.tolist(), strict=True)}) == rows.size
    np.testing.assert_array_equal(rows["mean"], cube.data[channel, y, x])
    np.testing.assert_array_equal(rows["sigma"], np.sqrt(cube.variance[channel, y, x]))
    np.testing.assert_allclose(rows["wavelength"], vacuum[channel], rtol=1e-12)
    assert separation(rows, pixel_to_skycoord(x, y, cube.wcs.celestial)).max() < 1e-3


def test_images_in_tiles_are_the_same(odd, monkeypatch):
    whole = np.sort(rows_of(odd, "drift"), order=["time", "ra"])
    monkeypatch.setattr(voxels_module, "TILE", (7, 9))
    tiled = np.sort(rows_of(odd, "drift"), order=["time", "ra"])
    for name in set(whole.dtype.names) - {"wavelength"}:
        np.testing.assert_array_equal(tiled[name], whole[name])


@pytest.mark.parametrize("level", [0, 1])
def test_voxels_of_a_spectrum(odd, level):
    rows, spectrum = rows_of(odd, "fibre", level=level), odd.spectrum("fibre", level)
    good = ~spectrum.mask[0]
    np.testing.assert_array_equal(rows["mean"], spectrum.data[0][good])
    np.testing.assert_array_equal(rows["sigma"], np.sqrt(spectrum.variance[0][good]))
    wave = spectrum.wave if spectrum.medium == "vacuum" else air_to_vacuum(spectrum.wave)
    np.testing.assert_allclose(rows["wavelength"], wave[good], rtol=1e-14)
    assert set(rows["ra"]) == {10.002}
    assert set(rows["healpix"]) == {int(odd.table([odd.row("fibre")])["healpix"][0])}


def test_images_and_spectra_in_one_unit(sdss):
    frame = str(sdss.images(band="r")["obs_id"][0])
    fibre = str(sdss.spectra()["obs_id"][0])
    rows = rows_of(sdss, frame, fibre, units="f_lambda")
    assert "unit" not in rows.dtype.names
    image = frame_flux_density(sdss.cutout(frame))
    own = rows[rows["obs_id"] == frame.encode()]
    np.testing.assert_allclose(own["mean"], image.data[~image.mask], rtol=1e-6)
    np.testing.assert_allclose(own["sigma"], np.sqrt(image.variance[~image.mask]), rtol=1e-6)
    spectrum = sdss.spectrum(fibre)
    np.testing.assert_array_equal(
        rows[rows["obs_id"] == fibre.encode()]["mean"], spectrum.data[~spectrum.mask]
    )


def test_brightness_is_flux_over_the_area(odd):
    flux, surface = (rows_of(odd, "fibre", units=units) for units in ("f_lambda", "surface"))
    np.testing.assert_allclose(flux["mean"] / surface["mean"], np.pi * FIBRE**2 / 4, rtol=1e-6)
    flux, surface = (rows_of(odd, "cube", units=units) for units in ("f_lambda", "surface"))
    np.testing.assert_allclose(flux["mean"] / surface["mean"], 0.4**2, rtol=1e-6)
    np.testing.assert_allclose(flux["mean"] * 1e3, rows_of(odd, "cube")["mean"], rtol=1e-6)


def test_units_that_cannot_be_converted_are_named(odd):
    with pytest.raises(InputError, match=r"plain is in nmgy.*units='own'"):
        rows_of(odd, "plain", units="f_lambda")
    with pytest.raises(InputError, match="nothing tells how large a pixel of nowhere"):
        rows_of(odd, "nowhere", units="surface")
    with pytest.raises(InputError, match="own, f_lambda, surface"):
        rows_of(odd, "plain", units="magnitudes")


def test_the_unit_of_each_row_is_told_or_is_that_of_all(odd):
    mixed = voxel_table(odd, [odd.row("plain"), odd.row("cube")])
    assert {field.name: field.unit for field in mixed.fields}["mean"] == ""
    rows = gathered(mixed)
    for name in ("plain", "cube"):
        unit = u.Unit(set(rows["unit"][rows["obs_id"] == name.encode()]).pop().decode())
        assert unit == u.Unit(objects()[name].unit)
    alone = voxel_table(odd, [odd.row("plain"), odd.row("drift")])
    assert {field.name: field.unit for field in alone.fields}["mean"] == "nmgy"


def test_blocks_are_full_but_for_the_last(odd, monkeypatch):
    monkeypatch.setattr("skyloom.store.export.fields.BLOCK_ROWS", 64)
    stream = voxel_table(odd, odd.search())
    sizes = [len(block) for block in stream.blocks]
    assert len(sizes) > 3
    assert set(sizes[:-1]) == {64}
    assert BLOCK_ROWS % 4 == 0


def test_a_missing_level_and_an_empty_selection_are_told(odd):
    with pytest.raises(InputError, match="no level 7"):
        rows_of(odd, "plain", level=7)
    with pytest.raises(InputError, match="nothing is selected"):
        voxel_table(odd, [])
