"""Damage is found and named; a packed store is the same store."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from skyloom.errors import FileFormatError, InputError
from skyloom.store.files.folder import make_folder
from skyloom.store.files.manifest import PartEntry, append_drop, append_part
from skyloom.store.files.pack import pack
from skyloom.store.files.part_reader import PartReader
from skyloom.store.files.parts import write_part
from skyloom.store.files.verify import verify
from skyloom.store.levels.quantise import quantise_observation
from skyloom.store.schema import COLUMNS, StoreSettings
from skyloom.store.search.cells import healpix_of
from tests.inputs.io_objects import assert_same
from tests.inputs.part_observations import (
    cube_observation,
    image_observation,
    plain_spectrum,
    spectrum_observation,
)


def placed(observation, ra, dec, radius=0.0):
    """The same observation at a place of the sky; a radius makes it a square field."""
    columns = dict(observation.columns) | {
        "dataproduct_type": observation.kind,
        "s_ra": ra,
        "s_dec": dec,
        "radius": radius,
        "healpix": int(healpix_of([ra], [dec])[0]),
        "s_region": "",
    }
    if radius:
        half = radius / np.sqrt(2)
        corners = [
            (ra - half, dec - half),
            (ra + half, dec - half),
            (ra + half, dec + half),
            (ra - half, dec + half),
        ]
        columns["s_region"] = "POLYGON ICRS " + " ".join(f"{x} {y}" for x, y in corners)
    return type(observation)(
        observation.obs_id,
        observation.kind,
        columns,
        observation.header,
        observation.levels,
        observation.native,
    )


def make_store(path, settings=None, rounded=False):
    settings = settings or StoreSettings()
    rng = np.random.default_rng(17)
    make_folder(path, settings)
    given = {
        "partitions/5-1/aa.h5": [
            placed(image_observation(rng, "field", (40, 33), 2), 10.0, 0.5, 0.1),
            placed(spectrum_observation(rng, "inside"), 10.03, 0.52),
            placed(plain_spectrum(rng, "outside"), 10.3, 0.5),
        ],
        "partitions/5-2/bb.h5": [
            placed(cube_observation(rng, "cube"), 200.0, -5.0, 0.01),
            placed(spectrum_observation(rng, "alone", reaches=False), 100.0, -5.0),
        ],
    }
    for name, observations in given.items():
        stored = [quantise_observation(one, 0.1) for one in observations] if rounded else observations
        append_part(path, PartEntry(name, *write_part(path / name, stored, settings)))
    return given


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("stores") / "store"
    return path, make_store(path)


def test_a_store_as_it_was_written_has_no_problems(store):
    found = verify(store[0])
    assert found.colnames == ["part", "obs_id", "problem"]
    assert len(found) == 0


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(InputError, match="no store"):
        verify(tmp_path / "nothing")


def test_a_packed_store_is_the_same_store(store, tmp_path):
    path, given = store
    for compression in ("lz4", "gzip"):
        out = tmp_path / f"{compression}.h5"
        summary = pack(path, out, compression=compression)
        assert summary.n == 5
        assert len(verify(out)) == 0
        with PartReader(out) as packed:
            for name, observations in given.items():
                with PartReader(path / name) as part:
                    for one in observations:
                        original, copy = part.observation(one.obs_id), packed.observation(one.obs_id)
                        assert original.columns == copy.columns
                        assert original.header == copy.header
                        for first, second in zip(original.levels, copy.levels, strict=True):
                            assert_same(second.subject, first.subject)


def test_a_packed_store_knows_its_links(store, tmp_path):
    pack(store[0], tmp_path / "p.h5")
    with h5py.File(tmp_path / "p.h5", locking=False) as file, PartReader(tmp_path / "p.h5") as reader:
        pairs = [*zip(file["links/spectrum"][:], file["links/image"][:], strict=True)]
        assert [(reader.obs_ids[one], reader.obs_ids[other]) for one, other in pairs] == [("inside", "field")]


def test_a_packed_store_stands_for_itself_and_opens_in_h5web(store, tmp_path):
    """No external links, no virtual datasets; from the root, `default` leads to something that can be drawn."""
    pack(store[0], tmp_path / "p.h5", compression="gzip")
    own = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
    with h5py.File(tmp_path / "p.h5") as file:

        def look(name, item):
            link = file.get(name, getlink=True)
            assert isinstance(link, h5py.HardLink)
            if isinstance(item, h5py.Dataset):
                assert not item.is_virtual
                assert item.external is None
                plist = item.id.get_create_plist()
                assert {plist.get_filter(i)[0] for i in range(plist.get_nfilters())} <= own
            elif item.attrs["NX_class"] == "NXdata":
                signal, axes = item[item.attrs["signal"]], list(item.attrs["axes"])
                assert len(axes) == signal.ndim
                for axis, size in zip(axes, signal.shape, strict=True):
                    assert axis == "." or item[axis].shape == (size,)

        file.visititems(look)
        assert file.attrs["NX_class"] == "NXroot"
        group, steps = file, 0
        while "default" in group.attrs:
            group, steps = group[group.attrs["default"]], steps + 1
        assert steps == 4
        assert group.name == "/semi_sparse_cube/0/images/field"
        assert group.attrs["NX_class"] == "NXdata"
        assert group.attrs["CTYPE1"] == "RA---TAN-SIP"
        assert json.loads(file.attrs["settings"])["schema"] == 1


def test_replaced_rows_are_not_packed(tmp_path):
    make_store(tmp_path / "store")
    append_drop(tmp_path / "store", "partitions/5-1/aa.h5", [0, 2])
    assert pack(tmp_path / "store", tmp_path / "p.h5").n == 3
    with PartReader(tmp_path / "p.h5") as reader:
        assert set(reader.obs_ids) == {"inside", "cube", "alone"}


def test_rounded_values_are_not_rounded_twice(tmp_path):
    settings = StoreSettings(compression="quantised")
    given = make_store(tmp_path / "store", settings, rounded=True)
    pack(tmp_path / "store", tmp_path / "p.h5")
    assert len(verify(tmp_path / "store")) == 0
    assert len(verify(tmp_path / "p.h5")) == 0
    whole = given["partitions/5-1/aa.h5"][0].levels[0].subject
    with PartReader(tmp_path / "p.h5") as reader:
        image = reader.image("field")
        spectrum = reader.spectrum("inside")
    used = whole.valid
    error = (image.data - whole.data)[used] / np.sqrt(whole.variance[used])
    assert 0.005 < error.std() < 0.03
    assert [one.name for one in image.history].count("quantise") == 1
    assert_same(image, whole, ["mask", "wcs", "psf", "correlation", "flags", "modes", "meta"])
    native = given["partitions/5-1/aa.h5"][1].native.subject
    assert_same(spectrum, native, ["wave", "mask", "correlation", "lsf"])


def test_packing_refuses(tmp_path, store):
    make_folder(tmp_path / "empty", StoreSettings())
    with pytest.raises(InputError, match="is empty"):
        pack(tmp_path / "empty", tmp_path / "p.h5")
    with pytest.raises(InputError, match="compression is 'zip'"):
        pack(store[0], tmp_path / "p.h5", compression="zip")
    (tmp_path / "there.h5").write_bytes(b"")
    with pytest.raises(InputError, match="exists"):
        pack(store[0], tmp_path / "there.h5")


def test_a_changed_pixel_column_or_header_is_named(tmp_path):
    make_store(tmp_path / "store")
    first, second = (tmp_path / "store" / "partitions" / name for name in ("5-1/aa.h5", "5-2/bb.h5"))
    with h5py.File(first, "a") as file:
        flux = file["semi_sparse_cube/1/images/field/flux"]
        flux[3, 4] = 7.25
        file["semi_sparse_cube/0/spectra/native/wave"][40] += 1e-9
    with h5py.File(second, "a") as file:
        file["observations/t_start"][1] += 1e-9
    found = verify(tmp_path / "store")
    assert [*found["obs_id"]].count("") <= 2  # The sizes of the files, where HDF5 made them longer.
    assert {(part[-5:], obs_id) for part, obs_id in found["part", "obs_id"] if obs_id} == {
        ("aa.h5", "field"),
        ("aa.h5", "outside"),
        ("bb.h5", "alone"),
    }
    with pytest.raises(FileFormatError, match="is not what was written"):
        pack(tmp_path / "store", tmp_path / "p.h5")
    assert not (tmp_path / "p.h5").exists()


def test_missing_truncated_and_foreign_parts_are_named(tmp_path):
    make_store(tmp_path / "store")
    first, second = (tmp_path / "store" / "partitions" / name for name in ("5-1/aa.h5", "5-2/bb.h5"))
    first.write_bytes(first.read_bytes()[:-1000])
    second.unlink()
    found = verify(tmp_path / "store")
    assert any("bytes" in row["problem"] and row["part"].endswith("aa.h5") for row in found)
    assert any("cannot be read" in row["problem"] and row["part"].endswith("aa.h5") for row in found)
    assert any("missing" in row["problem"] and row["part"].endswith("bb.h5") for row in found)
    make_store(tmp_path / "other")
    second.write_bytes((tmp_path / "other" / "partitions" / "5-1" / "aa.h5").read_bytes())
    assert any("journal says" in row["problem"] for row in verify(tmp_path / "store"))


def content(path):
    """Everything a reader gives out, as one comparable value."""
    with PartReader(path) as reader:
        whole = []
        for number in range(len(reader)):
            for name, level in reader.stored_levels(number):
                whole += [(name, key, plane.tobytes()) for key, plane in sorted(level.planes.items())]
            whole.append((reader.header(number), [str(reader.column(name)[number]) for name in COLUMNS]))
        return whole


def test_a_flipped_bit_is_found_or_harmless(tmp_path):
    make_store(tmp_path / "store")
    path = tmp_path / "store" / "partitions" / "5-1" / "aa.h5"
    original, whole = content(path), path.read_bytes()
    rng = np.random.default_rng(4)
    named = 0
    for place in rng.integers(0, len(whole), 40):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        if len(verify(tmp_path / "store")):
            named += 1
        else:
            assert content(path) == original, f"byte {place}"
    assert named > 10


@pytest.mark.parametrize("byte", range(0, 12, 3))
def test_a_damaged_size_at_the_head_of_a_chunk_is_no_end_of_the_process(tmp_path, byte):
    """The decompressor believes the size that a chunk begins with; HDF5 would read beyond its memory."""
    make_store(tmp_path / "store")
    path = tmp_path / "store" / "partitions" / "5-1" / "aa.h5"
    with h5py.File(path, "r", locking=False) as file:
        chunk = file["semi_sparse_cube/0/spectra/flux"].id.get_chunk_info(0)
    damaged = bytearray(path.read_bytes())
    damaged[chunk.byte_offset + byte] ^= 0xFF
    path.write_bytes(damaged)
    assert len(verify(tmp_path / "store"))
