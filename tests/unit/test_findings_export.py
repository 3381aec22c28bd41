"""Exports: what existing pipelines do wrong, or slowly, with tables of all values."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from skyloom.store.export import export
from skyloom.store.export.fields import BLOCK_ROWS, Field, TableStream
from skyloom.store.export.votable import write_votable
from tests.inputs.export_stores import make_sdss_store


def stream(n_blocks: int) -> TableStream:
    rows = np.zeros(BLOCK_ROWS, [("x", "f8"), ("name", "i4")])
    names = np.array([b"one", b"three"])
    fields = (
        Field("x", "f8", "deg", "pos.eq.ra", "x"),
        Field("name", "S5", "", "meta.id", "name", values=names),
    )
    return TableStream("t", "", fields, (rows for _ in range(n_blocks)))


def test_memory_does_not_grow_with_the_table(tmp_path):
    # One table in memory as text took 95 s and gigabytes for 2.4 million rows.
    write_votable(stream(1), tmp_path / "warm.vot")
    peaks = []
    for n_blocks in (2, 12):
        tracemalloc.start()
        assert write_votable(stream(n_blocks), tmp_path / f"{n_blocks}.vot") == n_blocks * BLOCK_ROWS
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.05 * peaks[0]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_sdss_store(tmp_path_factory.mktemp("findings"))


def test_times_and_wavelengths_keep_their_digits(store, tmp_path):
    # As float32 a time had steps of 512 s, and 4620 wavelengths were 622 different ones.
    from astropy.io import fits

    export(store, tmp_path / "t.fits", "voxels")
    rows = fits.getdata(tmp_path / "t.fits")
    spectrum = str(store.spectra()["obs_id"][0])
    wavelengths = rows["wavelength"][rows["obs_id"] == spectrum]
    assert np.unique(wavelengths).size == wavelengths.size
    frame = str(store.images()["obs_id"][0])
    times = np.unique(rows["time"][rows["obs_id"] == frame])
    image = store.cutout(frame)
    assert times.size == image.shape[0]
    np.testing.assert_allclose(np.diff(times), image.meta["row_time"][1], rtol=1e-3)


def test_values_in_different_units_are_never_without_their_unit(store, tmp_path):
    from skyloom.store.export.voxels import voxel_table

    fields = {field.name: field for field in voxel_table(store, store.search()).fields}
    assert fields["mean"].unit == ""
    assert sorted(fields["unit"].values.tolist()) == [b"1e-17 erg / (Angstrom s cm2)", b"nmgy"]
    same = {field.name: field for field in voxel_table(store, store.search(), units="f_lambda").fields}
    assert "unit" not in same
    assert same["mean"].unit == same["sigma"].unit == "1e-17 erg / (Angstrom s cm2)"
