"""One part of a store is done again, and nothing else is written."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest

from skyloom import store as sky
from skyloom.errors import InputError
from skyloom.io.fits import write
from skyloom.store.files.digests import observation_digest
from skyloom.store.files.manifest import MANIFEST_NAME, Manifest
from skyloom.store.files.master import MASTER_NAME
from skyloom.store.files.part_reader import PartReader
from skyloom.store.files.verify import verify
from skyloom.store.ingest import prepare, run, update
from skyloom.store.ingest.columns import stored_columns
from skyloom.store.levels import images, spectra
from skyloom.store.schema import StoreSettings
from tests.inputs.store import digests, make_store, small_image, small_spectrum
from tests.inputs.store_files import good_frame, good_spectrum


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two frames and two spectra of SDSS, an image and a spectrum of Skyloom."""
    folder = tmp_path_factory.mktemp("files")
    good_frame(folder, 0)
    good_frame(folder, 1)
    good_spectrum(folder, 211)
    good_spectrum(folder, 212)
    write(small_image(1), folder / "field.fits")
    write(small_spectrum(2), folder / "source.fits")
    return folder


@pytest.fixture(scope="module")
def reference(files, tmp_path_factory):
    """A store that nobody has updated; not to be changed."""
    store = make_store(tmp_path_factory.mktemp("store") / "reference")
    assert not run.ingest(store, [files]).failures
    return store


@pytest.fixture
def store(reference, tmp_path):
    return shutil.copytree(reference, tmp_path / "store")


def state(store):
    """Return what is visible: the name of the part, and the digests of the planes alone, of each observation."""
    found = {}
    manifest = Manifest.read(store)
    for part in manifest.visible_parts:
        hidden = manifest.dropped.get(part.name, frozenset())
        with PartReader(store / part.name) as reader:
            for number, obs_id in enumerate(reader.obs_ids):
                if number not in hidden:
                    levels = dict(reader.stored_levels(number))
                    same = dict.fromkeys(reader.columns(), "")
                    planes = observation_digest(same, reader.header(number), levels)
                    found[obs_id] = (reader.kind(number), part.name, planes)
    return found


def kinds(found, *names):
    return {obs_id: rest for obs_id, (kind, *rest) in found.items() if kind in names}


def frame_of(store, source):
    """Return the name of the observation that came from a file."""
    with sky.open(store) as opened:
        table = opened.table(np.arange(len(opened)), ("obs_id", "source"))
        return next(str(row["obs_id"]) for row in table if row["source"] == source)


def other_columns(monkeypatch):
    """Let what is stored have columns as an older version might have written them."""
    monkeypatch.setattr(prepare, "_collection", lambda *_: "old")
    monkeypatch.setitem(prepare._UCD, "image", "phot")


# --- metadata -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"compression": "quantised"}], ids=["lossless", "quantised"])
def test_columns_follow_from_what_is_stored(files, tmp_path, options):
    faint = small_image(3)
    faint = faint.evolve(data=faint.data * 1e-20, variance=faint.variance.astype(float) * 1e-40)
    write(faint, tmp_path / "faint.fits")
    with sky.create(tmp_path / "store", **options) as opened:
        opened.ingest([files, tmp_path / "faint.fits"])
        for part in opened.manifest.parts:
            with PartReader(opened.path / part.name) as reader:
                for number in range(len(reader)):
                    made = stored_columns(reader, number)
                    stored = {name: reader.column(name)[number].item() for name in made}
                    assert str(made) == str(stored)


def test_metadata_are_computed_anew_and_planes_stay(files, reference, tmp_path, monkeypatch):
    store = make_store(tmp_path / "store")
    with monkeypatch.context() as patch:
        other_columns(patch)
        run.ingest(store, [files])
    before = state(store)
    assert digests(store).items() & digests(reference).items() == set()
    told = []
    result = update.update(store, "metadata", progress=lambda *state: told.append(state))
    assert set(result.updated) == set(before)
    assert not result.failures
    assert not result.removed
    assert told[-1][1:] == (len(before), len(before))
    after = state(store)
    assert {name: planes for name, (_, _, planes) in after.items()} == {
        name: planes for name, (_, _, planes) in before.items()
    }
    assert digests(store) == digests(reference)
    assert not len(verify(store))


def test_metadata_that_are_right_are_not_written(store):
    before = (store / MANIFEST_NAME).read_bytes()
    result = update.update(store, "metadata")
    assert (result.updated, result.n_unchanged, result.parts) == ((), 6, ())
    assert (store / MANIFEST_NAME).read_bytes() == before


def test_metadata_of_some_observations(files, tmp_path, monkeypatch):
    store = make_store(tmp_path / "store")
    with monkeypatch.context() as patch:
        other_columns(patch)
        run.ingest(store, [files])
    before = digests(store)
    result = update.update(store, "metadata", obs=["field"])
    assert result.updated == ("field",)
    assert {name for name, digest in digests(store).items() if before[name] != digest} == {"field"}


def test_metadata_do_not_hide_damage(files, tmp_path, monkeypatch):
    store = make_store(tmp_path / "store")
    with monkeypatch.context() as patch:
        other_columns(patch)
        run.ingest(store, [files])
    part = state(store)["field"][1]
    with h5py.File(store / part, "r+") as file:
        file["semi_sparse_cube/0/images/field/flux"][0, 0] += 1.0
    result = update.update(store, "metadata")
    assert [failure.source for failure in result.failures] == ["field"]
    assert "digest" in result.failures[0].reason
    assert "field" not in result.updated
    assert len(verify(store))


# --- images and spectra ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "own", "others"),
    [("images", ("image",), ("spectrum",)), ("spectra", ("spectrum",), ("image",))],
)
def test_one_kind_is_read_again_and_the_other_stays(
    files, reference, tmp_path, monkeypatch, part, own, others
):
    store = make_store(tmp_path / "store")
    with monkeypatch.context() as patch:
        # As a version with another idea of levels has made it.
        make, split = images.image_levels, spectra.spectrum_levels
        patch.setattr(images, "image_levels", lambda image, _: make(image, 1))
        patch.setattr(spectra, "spectrum_levels", lambda row, _: split(row, StoreSettings(levels=1)))
        run.ingest(store, [files])
    before, seen = state(store), digests(store)
    bytes_before = {name: (store / name).read_bytes() for name in {part for _, part, _ in before.values()}}
    result = update.update(store, part, [files])
    after = state(store)
    assert set(result.updated) == set(kinds(before, *own)) == set(kinds(after, *own))
    assert not result.failures
    # The others lie where they lay, to the last byte, with their digests.
    assert kinds(after, *others) == kinds(before, *others)
    assert {name: (store / name).read_bytes() for name in bytes_before} == bytes_before
    now, right = digests(store), digests(reference)
    assert {name: now[name] for name in kinds(after, *others)} == {
        name: seen[name] for name in kinds(after, *others)
    }
    assert {name: now[name] for name in result.updated} == {name: right[name] for name in result.updated}
    assert all(now[name] != seen[name] for name in result.updated)
    assert not len(verify(store))


def test_again_and_again(store, files):
    seen = digests(store)
    for _ in range(3):
        assert len(update.update(store, "images", [files]).updated) == 3
        assert digests(store) == seen
    assert len({part.name for part in Manifest.read(store).parts}) == len(Manifest.read(store).parts)


def test_what_was_replaced_takes_no_room(store, files):
    def on_disk():
        return {path.relative_to(store).as_posix() for path in store.glob("partitions/*/*.h5")}

    seen, first = digests(store), on_disk()
    update.update(store, "images", [files])
    # Readers that are at work may still open the old ones; the next run removes them.
    assert first < on_disk()
    update.update(store, "spectra", [files])
    update.update(store, "metadata")
    assert on_disk() == {part.name for part in Manifest.read(store).visible_parts}
    assert not first & on_disk()
    assert digests(store) == seen
    assert not len(verify(store))
    with sky.open(store) as opened:
        assert opened.info()["parts"] == len(on_disk())
        assert opened.info()["bytes"] == sum((store / name).stat().st_size for name in on_disk())


def test_what_was_given_up_is_kept(store, files):
    name = Manifest.read(store).visible_parts[0].name
    damaged = store / name
    with damaged.open("r+b") as file:
        file.write(b"no file of HDF5 begins like this")
    run.ingest(store, [files], replace=True)
    for _ in range(2):
        update.update(store, "images", [files])
    assert damaged.exists()


def test_files_are_known_by_their_content(store, files, tmp_path):
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.copy(files / "field.fits", moved / "renamed.fits")
    seen = digests(store)
    result = update.update(store, "images", [moved], obs=["field"])
    assert result.updated == ("field",)
    assert digests(store) == seen


def test_a_missing_source_is_a_failure_and_stays_stored(store, files):
    seen = digests(store)
    result = update.update(store, "images", [files / "field.fits"])
    assert result.updated == ("field",)
    assert len(result.failures) == 2
    assert all("not among the files" in failure.reason for failure in result.failures)
    assert digests(store) == seen
    # What is missing can be stored; the error table is about what is not.
    assert not Manifest.read(store).failures


def test_a_changed_file_needs_replace(store, tmp_path):
    changed = tmp_path / "changed"
    changed.mkdir()
    write(small_image(7), changed / "field.fits")
    seen = digests(store)
    result = update.update(store, "images", [changed], obs=["field"])
    assert "has been changed" in result.failures[0].reason
    assert digests(store) == seen
    result = update.update(store, "images", [changed], obs=["field"], replace=True)
    assert (result.updated, result.failures) == (("field",), ())
    now = digests(store)
    assert {name for name in now if now[name] != seen[name]} == {"field"}
    with sky.open(store) as opened:
        np.testing.assert_array_equal(opened.cutout("field").data, small_image(7).data)


def test_a_file_that_cannot_be_read_leaves_what_was_stored(store, tmp_path):
    changed = tmp_path / "changed"
    frame = good_frame(changed, 0)
    frame.write_bytes(frame.read_bytes()[:9000])
    seen = digests(store)
    name = frame_of(store, frame.name)
    result = update.update(store, "images", [changed], obs=[name], replace=True)
    assert "truncated" in result.failures[0].reason
    assert not result.updated
    assert digests(store) == seen


def test_a_name_that_another_file_has_taken(store, tmp_path, files):
    """The content of one frame under the name of another would give the observation of the first one twice."""
    one, other = (good_frame(tmp_path / "frames", epoch).name for epoch in (0, 1))
    changed = tmp_path / "changed"
    changed.mkdir()
    # Changed a little: it is not the file that is stored.
    (changed / one).write_bytes((tmp_path / "frames" / other).read_bytes() + bytes(2880))
    seen = digests(store)
    own, taken = frame_of(store, one), frame_of(store, other)
    result = update.update(store, "images", [changed], obs=[own], replace=True)
    assert [f"gives the observation {taken}" in failure.reason for failure in result.failures] == [True]
    assert digests(store)[taken] == seen[taken]


# --- links and dense cubes ------------------------------------------------------------------------------------------


def test_links_are_found_again_in_an_index_of_the_parts(store):
    before = state(store)
    with sky.open(store) as opened:
        spectrum = next(name for name in digests(store) if name.endswith("0211"))
        links = opened.links(spectrum)["obs_id"].tolist()
    assert links
    (store / MASTER_NAME).write_bytes(b"no index")
    result = update.update(store, "links")
    assert result.n_links >= len(links)
    assert state(store) == before
    with sky.open(store) as opened:
        assert opened.links(spectrum)["obs_id"].tolist() == links
    with h5py.File(store / MASTER_NAME) as file:
        assert file.attrs["complete"]


def test_a_dense_cube_is_built_again(store, tmp_path):
    with sky.open(store) as opened:
        spectrum = next(name for name in digests(store) if name.endswith("0211"))
        opened.dense_cube(tmp_path / "cube.h5", [spectrum], size=8, levels=[0])
        seen = digests(store)
        with h5py.File(tmp_path / "cube.h5") as file:
            before = file["images/0/flux"][:]
        (summary,) = opened.update("dense", tmp_path / "cube.h5")
        assert summary.n_targets == 1
    with h5py.File(tmp_path / "cube.h5") as file:
        np.testing.assert_array_equal(file["images/0/flux"][:], before)
    assert digests(store) == seen


# --- what cannot be -------------------------------------------------------------------------------------------------


def test_errors_say_what_to_do(store, files, tmp_path):
    with pytest.raises(InputError, match="did you mean images"):
        update.update(store, "image")
    with pytest.raises(InputError, match="no files are given"):
        update.update(store, "images")
    with pytest.raises(InputError, match="need no source files"):
        update.update(store, "metadata", [files])
    with pytest.raises(InputError, match="did you mean field"):
        update.update(store, "images", [files], obs=["feild"])
    with sky.open(store) as opened:
        opened.pack(tmp_path / "sky.h5")
        with pytest.raises(InputError, match="no dense cube is given"):
            opened.update("dense")
    with sky.open(tmp_path / "sky.h5") as opened, pytest.raises(InputError, match="packed"):
        opened.update("links")


@pytest.mark.parametrize("part", ["images", "metadata"])
def test_killed_before_it_is_visible(files, tmp_path, monkeypatch, part):
    """A part that was finished, and not entered into the journal, is nobody's; the next run does it again."""
    store = make_store(tmp_path / "store")
    with monkeypatch.context() as patch:
        other_columns(patch)
        run.ingest(store, [files])
    before, seen = state(store), digests(store)
    sources = [files] if part == "images" else []
    with monkeypatch.context() as patch:

        def die(*_, **__):
            raise KeyboardInterrupt

        patch.setattr(update, "append_part", die)
        with pytest.raises(KeyboardInterrupt):
            update.update(store, part, sources)
    assert (state(store), digests(store)) == (before, seen)
    on_disk = set(store.glob("partitions/*/*.h5"))
    assert len(on_disk) > len(Manifest.read(store).parts)
    result = update.update(store, part, sources)
    assert result.updated
    assert not result.failures
    assert {path.relative_to(store).as_posix() for path in store.glob("partitions/*/*.h5")} == {
        entry.name for entry in Manifest.read(store).parts
    }
    assert not len(verify(store))
