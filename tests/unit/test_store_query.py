"""A store gives back what was put in, whether its index is there, outdated or lost."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest

import skyloom as sl
from skyloom.errors import FileFormatError, InputError
from skyloom.io.fits import write
from skyloom.store import query
from skyloom.store.files.manifest import Manifest, append_drop
from skyloom.store.files.master import MASTER_NAME
from skyloom.store.files.master_writer import write_master
from skyloom.store.search.index import sky_order
from skyloom.store.search.links import find_links
from tests.inputs.store import make_store, small_image, small_spectrum, write_files

pytestmark = pytest.mark.filterwarnings("ignore::skyloom.errors.AssumptionWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("query")
    make_store(folder / "sky")
    with query.open(folder / "sky") as store:
        # Two fibres in the first image, before and after a later image of the same place.
        write(small_spectrum(50, 10.0005, -5.0), folder / "fibre0.fits")
        store.ingest([*write_files(folder / "first", 10), folder / "fibre0.fits"])
        write(small_spectrum(51, 9.9995, -5.0), folder / "fibre1.fits")
        write(small_image(77), folder / "late.fits")
        store.ingest(
            [*write_files(folder / "second", 10, first=10), folder / "fibre1.fits", folder / "late.fits"]
        )
    return folder / "sky"


@pytest.fixture
def store(folder):
    with query.open(folder) as opened:
        yield opened


def listing(store) -> list[tuple]:
    table = store.observations()
    table.sort("obs_id")
    return [tuple(str(value) for value in row) for row in table]


def linked(store) -> dict[str, list[str]]:
    return {str(name): sorted(store.links(name)["obs_id"]) for name in store.spectra()["obs_id"]}


def test_the_index_covers_the_journal_and_its_links_are_those_of_a_fresh_search(store) -> None:
    assert store._catalogue.file is not None
    fresh = find_links(store._index)
    names = store._catalogue.column("obs_id")
    pairs = list(zip(names[fresh.spectrum], names[fresh.image], strict=True))
    assert sorted(pairs) == sorted((one, other) for one, others in linked(store).items() for other in others)
    assert pairs
    columns = store._index.columns
    assert (sky_order(columns["radius"], columns["healpix"]) == np.arange(len(store))).all()


def test_without_an_index_or_with_an_old_one_the_answers_are_the_same(store, folder, tmp_path) -> None:
    import shutil

    whole, pairs = listing(store), linked(store)
    other = tmp_path / "sky"
    shutil.copytree(folder, other)
    (other / MASTER_NAME).unlink()
    with query.open(other) as bare:
        assert bare._catalogue.file is None
        assert listing(bare) == whole
        assert linked(bare) == pairs
    write_master(other)
    with query.open(other) as indexed:
        assert listing(indexed) == whole
    with query.open(other) as outdated:
        before = len(outdated)
        outdated.ingest(write_files(tmp_path / "third", 5, first=20))
        assert len(outdated) == before + 5
    shutil.copy(folder / MASTER_NAME, other / MASTER_NAME)
    with query.open(other) as outdated:
        assert len(outdated) == before + 5
        assert [row for row in listing(outdated) if row in whole] == whole
        mixed = linked(outdated)
    write_master(other)
    with query.open(other) as indexed:
        assert linked(indexed) == mixed
    (other / MASTER_NAME).write_bytes((folder / MASTER_NAME).read_bytes()[:3000])
    with query.open(other) as damaged:
        assert len(damaged) == before + 5


def test_rows_that_are_dropped_are_gone_at_once(folder, tmp_path) -> None:
    import shutil

    other = tmp_path / "sky"
    shutil.copytree(folder, other)
    part = Manifest.read(other).parts[0]
    with query.open(other) as opened:
        before = len(opened)
        append_drop(other, part.name, [0])
        assert len(opened) == before
        opened.refresh()
        assert len(opened) == before - 1
        after = listing(opened)
    write_master(other)
    with query.open(other) as opened:
        assert listing(opened) == after


def test_tables_have_units_and_names(store) -> None:
    table = store.images(cone=((10.0, -5.0), 0.05))
    assert set(table["dataproduct_type"]) == {"image"}
    assert table["s_ra"].unit == "deg"
    assert len(store.images()) + len(store.spectra()) == len(store) == 23
    assert len(store.cubes()) == 0
    assert set(store.images(band="r")["band"]) == {"r"}
    with pytest.raises(InputError, match="unknown condition"):
        store.images(colour="red")


def test_cutouts_are_what_was_stored(store) -> None:
    image = small_image(0)
    whole = store.cutout("field000")
    assert np.array_equal(whole.data[~whole.mask], image.data[~image.mask])
    assert np.array_equal(whole.mask, image.mask)
    ny, nx = whole.shape
    place = whole.wcs.pixel_to_world(12.2, 9.3)
    small = store.cutout("field000", place, 7)
    assert small.shape == (7, 7)
    assert np.array_equal(small.mask, image.mask[6:13, 9:16])
    assert np.array_equal(small.data[~small.mask], image.data[6:13, 9:16][~small.mask])
    x, y = small.wcs.world_to_pixel(place)
    assert (float(x), float(y)) == pytest.approx((3.2, 3.3), abs=1e-6)
    by_pixel = store.cutout("field000", size=(7, 7), pixel=(12.2, 9.3))
    assert np.array_equal(by_pixel.mask, small.mask)
    corner = store.cutout("field000", size=10, pixel=(0, 0))
    assert corner.mask[:4].all()
    assert not corner.mask[5:, 5:].all()
    assert store.cutout("field000", level=1).shape == (-(-ny // 2), -(-nx // 2))


def test_what_is_not_there_is_named(store) -> None:
    with pytest.raises(InputError, match=r"no observation 'field0000'.*did you mean field000"):
        store.cutout("field0000")
    with pytest.raises(InputError, match="is no spectrum"):
        store.spectrum("field000")
    with pytest.raises(InputError, match="but no size"):
        store.cutout("field000", (10.0, -5.0))
    with pytest.raises(InputError, match="too far"):
        store.cutout("field000", (190.0, 5.0), 10)
    with pytest.raises(InputError, match="has no level 9"):
        store.cutout("field000", level=9)
    with pytest.raises(FileFormatError, match="no store"):
        query.open("/nowhere")


def test_spectra_links_and_their_cutouts(store) -> None:
    name = "fibre0"
    assert store.spectrum(name).shape == (1, 300)
    table = store.links(name)
    assert {"field000", "late"} <= set(table["obs_id"])
    assert table["distance"][list(table["obs_id"]).index("late")].value == pytest.approx(1.793, abs=0.01)
    position = 10.0005, -5.0
    for row in table:
        wcs = store.cutout(row["obs_id"]).wcs
        x, y = wcs.all_world2pix(*position, 0)
        assert (row["x"], row["y"]) == pytest.approx((float(x), float(y)), abs=1e-6)
    found = store.cutouts(name, 5)
    assert sorted(found) == sorted(table["obs_id"])
    assert all(image.shape == (5, 5) for image in found.values())
    with pytest.raises(InputError, match="is no spectrum"):
        store.links("field000")


def test_the_header_history_and_figures_of_a_store(store) -> None:
    assert "CRVAL1" in store.header("field000")
    assert isinstance(store.history("field000"), tuple)
    info = store.info()
    assert (info["observations"], info["images"], info["spectra"]) == (23, 17, 6)
    assert sum(info["bands"].values()) == 17
    assert "17 images, 6 spectra" in repr(store)
    assert len(store.failures()) == 0
    assert len(store.verify()) == 0
    assert store.moc().contains_lonlat([10.0] * u.deg, [-5.0] * u.deg)[0]


def test_the_index_file_shows_parts_and_spectra(folder) -> None:
    import h5py

    with query.open(folder) as store:
        stored = store.spectrum("fibre0", 0, "common").data[0]
    with h5py.File(folder / MASTER_NAME) as file:
        assert len(file["partitions"]) == len(store.manifest.parts)
        first = file["partitions"][next(iter(file["partitions"]))]
        assert first.attrs["NX_class"] == "NXroot"
        spectra = file["semi_sparse_cube/0/spectra/flux"]
        assert spectra.is_virtual
        assert any(np.array_equal(row, stored, equal_nan=True) for row in spectra[:])


def test_a_part_alone_opens_like_a_store(folder) -> None:
    part = Manifest.read(folder).parts[0]
    with query.open(folder / part.name) as single:
        assert len(single) == part.n
        assert single.is_packed
        with pytest.raises(InputError, match="packed"):
            single.ingest([])


@pytest.mark.parametrize("compression", ["lz4", "gzip"])
def test_a_packed_store_answers_as_the_store_does_and_brings_its_index(
    store, tmp_path, monkeypatch, compression
) -> None:
    store.pack(tmp_path / "sky.h5", compression=compression)

    def refused(*_):
        raise AssertionError("the index of a packed file must not be made of its table")

    monkeypatch.setattr("skyloom.store.files.master.assembled", refused)
    with query.open(tmp_path / "sky.h5") as packed:
        assert listing(packed) == listing(store)
        assert linked(packed) == linked(store)
        assert any(linked(packed).values())
        cone = (10.0, -5.0), 0.001
        found = packed.images(cone=cone)
        assert sorted(found["obs_id"]) == sorted(store.images(cone=cone)["obs_id"])
        name = str(found["obs_id"][0])
        for level in (0, 1):
            mine, other = (one.cutout(name, (10.0, -5.0), 8, level) for one in (packed, store))
            np.testing.assert_array_equal(mine.data, other.data)
            np.testing.assert_array_equal(mine.variance, other.variance)
        assert packed.header("fibre0") == store.header("fibre0")
        np.testing.assert_array_equal(packed.spectrum("fibre1").data, store.spectrum("fibre1").data)
        assert packed.moc() == store.moc()
        with pytest.raises(InputError, match=r"no observation 'fibre9'.*did you mean fibre"):
            packed.row("fibre9")


def test_stores_are_made_with_options(tmp_path) -> None:
    with sl.store.create(tmp_path / "new", levels=2) as store:
        assert store.settings.levels == 2
        assert len(store) == 0
        assert store.moc().empty()
        assert store.images(cone=((0, 0), 1)).colnames[0] == "obs_id"
        with pytest.raises(InputError, match="no observation"):
            store.cutout("x")
    with pytest.raises(InputError, match="unknown option"):
        sl.store.create(tmp_path / "other", level=2)


def test_stacks_take_names_or_conditions(tmp_path) -> None:
    with query.open(make_store(tmp_path / "sky")) as store:
        paths = []
        for number in range(4):
            paths.append(tmp_path / f"epoch{number}.fits")
            write(small_image(2 * number), paths[-1])
        for number in range(2):
            paths.append(tmp_path / f"fibre{number}.fits")
            write(small_spectrum(number), paths[-1])
        store.ingest(paths)
        mean = store.stack(kind="image", band="g")
        assert mean.meta["n_stacked"] == 4
        best = ~mean.mask
        assert np.median(mean.variance[best]) == pytest.approx(0.25)
        assert np.mean(mean.data[best]) == pytest.approx(5.0, abs=0.1)
        small = store.stack(store.images(), center=(10.0, -5.0), size=9)
        assert small.shape == (9, 9)
        assert store.stack(kind="spectrum").shape[0] == 1
        assert store.stack(kind="spectrum", level=1).meta["n_stacked"] == 2
        with pytest.raises(InputError, match="of the kinds"):
            store.stack(cone=((10, -5), 1))
        with pytest.raises(InputError, match="nothing fulfils"):
            store.stack(cone=((100, -5), 1))
