"""Files into a store: what is stored, skipped, replaced and refused; kills, corrupt files, readers meanwhile."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from tests.inputs.store import (
    digests,
    ingest_alone,
    make_store,
    small_image,
    small_spectrum,
    write_files,
)
from typer.testing import CliRunner

from skyloom.cli import app
from skyloom.errors import InputError
from skyloom.io.fits import write
from skyloom.store.files.folder import PARTITIONS, write_lock
from skyloom.store.files.manifest import MANIFEST_NAME, Manifest
from skyloom.store.files.part_reader import PartReader
from skyloom.store.ingest.run import ingest
from skyloom.store.ingest.sources import FileList


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("files"), 14)


@pytest.fixture(scope="module")
def reference(files, tmp_path_factory):
    """A store whose ingest nobody disturbed."""
    store = make_store(tmp_path_factory.mktemp("reference") / "store")
    result = ingest(store, [files[0].parent])
    assert not result.failures
    return store


def parts_on_disk(store):
    return sorted(
        path.relative_to(store).as_posix() for path in (store / PARTITIONS).rglob("*") if path.is_file()
    )


def test_everything_is_stored_once(files, reference):
    assert set(digests(reference)) == {path.stem for path in files}
    manifest = Manifest.read(reference)
    assert manifest.n_visible == len(files)
    # Three cells, and more than one part where the size is reached.
    assert len({Path(part.name).parent for part in manifest.parts}) == 3
    assert len(manifest.parts) > 4
    assert parts_on_disk(reference) == sorted(part.name for part in manifest.parts)


def test_a_second_run_changes_nothing(files, reference):
    before = (reference / MANIFEST_NAME).read_bytes()
    result = ingest(reference, files)
    assert (len(result.stored), len(result.skipped), result.parts) == (0, len(files), ())
    assert (reference / MANIFEST_NAME).read_bytes() == before


def test_order_does_not_matter(files, reference, tmp_path):
    store = make_store(tmp_path / "store")
    ingest(store, files[::-1])
    assert digests(store) == digests(reference)
    assert parts_on_disk(store) == parts_on_disk(reference)


# Slow, since workers load their modules. Dask's own start-up leaves sockets to the garbage collector, which pytest
# reports as unraisable.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_workers_do_not_matter(files, reference, tmp_path):
    store = make_store(tmp_path / "store")
    told = []
    result = ingest(store, files, workers=2, progress=lambda _, done, total: told.append((done, total)))
    assert not result.failures
    assert digests(store) == digests(reference)
    assert told[-1] == (len(files), len(files))


def test_what_is_appended_leaves_the_rest_alone(files, tmp_path):
    store = make_store(tmp_path / "store")
    ingest(store, files[:6])
    before = {name: (store / name).read_bytes() for name in parts_on_disk(store)}
    seen = digests(store)
    result = ingest(store, files)
    assert (len(result.stored), len(result.skipped)) == (len(files) - 6, 6)
    assert {name: (store / name).read_bytes() for name in before} == before
    assert seen.items() <= digests(store).items()


def test_bad_files_are_listed_and_the_rest_is_stored(files, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for path in files[:4]:
        shutil.copy(path, folder)
    (folder / "truncated.fits").write_bytes(files[5].read_bytes()[:-2880])
    (folder / "text.fits").write_text("not a FITS file")
    (folder / "empty.fits").touch()
    (folder / "copy.fits").write_bytes(files[0].read_bytes())
    store = make_store(tmp_path / "store")
    result = CliRunner().invoke(app, ["store", "ingest", str(store), str(folder)])
    assert result.exit_code == 4, result.output
    reasons = {Path(item.source).name: item.reason for item in Manifest.read(store).failures}
    assert "truncated" in reasons["truncated.fits"]
    assert "not a FITS file" in reasons["text.fits"]
    assert "empty" in reasons["empty.fits"]
    # The first in the order of names is stored: "copy" comes before "field000".
    assert "same content" in reasons["field000.fits"]
    assert len(reasons) == 4
    assert set(digests(store)) == {"copy", "field001", "field002", "field003"}
    for reason in reasons.values():
        assert reason[:60] in result.output.replace("\n", "")
    # Again: the same reasons, and the journal does not grow.
    before = (store / MANIFEST_NAME).read_bytes()
    assert len(ingest(store, [folder]).failures) == 4
    assert (store / MANIFEST_NAME).read_bytes() == before


def test_a_mended_file_is_stored_and_its_failure_forgotten(files, tmp_path):
    path = tmp_path / "mended.fits"
    path.write_bytes(files[0].read_bytes()[:-2880])
    store = make_store(tmp_path / "store")
    assert len(ingest(store, [path]).failures) == 1
    path.write_bytes(files[0].read_bytes())
    assert ingest(store, [path]).stored == ("mended",)
    assert Manifest.read(store).failures == ()


def test_a_taken_name_is_refused_or_replaced(tmp_path):
    first, second = tmp_path / "a" / "field.fits", tmp_path / "b" / "field.fits"
    for path, seed in ((first, 1), (second, 2)):
        path.parent.mkdir()
        write(small_image(seed), path)
    store = make_store(tmp_path / "store")
    ingest(store, [first])
    before = digests(store)
    (failure,) = ingest(store, [second]).failures
    assert "field" in failure.reason
    assert "replace" in failure.reason
    assert digests(store) == before
    assert ingest(store, [second], replace=True).stored == ("field",)
    after = digests(store)
    assert after.keys() == before.keys()
    assert after != before
    assert Manifest.read(store).failures == ()
    # And back: the same sources give the same name of a part, which is taken by the part that was replaced.
    assert ingest(store, [first], replace=True).stored == ("field",)
    assert digests(store) == before


def test_both_files_of_one_name_at_once(tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        write(small_image(seed), tmp_path / name / "field.fits")
    store = make_store(tmp_path / "store")
    result = ingest(store, [tmp_path / "b", tmp_path / "a"])
    assert result.stored == ("field",)
    (failure,) = result.failures
    assert failure.source.endswith("b/field.fits")
    with PartReader(store / result.parts[0].name) as reader:
        image = reader.image("field")
    np.testing.assert_array_equal(image.data[image.valid], small_image(1).data[image.valid])


def test_lists_name_files_by_numbers(tmp_path):
    folder = tmp_path / "deep" / "er"
    folder.mkdir(parents=True)
    for plate, fibre in ((411, 3), (411, 12), (412, 7)):
        write(small_spectrum(fibre), folder / f"spec-{plate:04d}-51817-{fibre:04d}.fits")
    table = tmp_path / "plates.csv"
    table.write_text("# chosen\nplate,fiberid\n411,12\n0412,7\n999,1\n")
    store = make_store(tmp_path / "store")
    result = ingest(store, lists=[FileList(table, tmp_path)])
    assert result.stored == ("spec-0411-51817-0012", "spec-0412-51817-0007")
    (failure,) = result.failures
    assert "plate 999, fiberid 1" in failure.source
    table.write_text("plates\n411\n")
    with pytest.raises(InputError, match="name neither frames"):
        ingest(store, lists=[FileList(table, tmp_path)])


def test_one_ingest_at_a_time(files, tmp_path):
    store = make_store(tmp_path / "store")
    with write_lock(store), pytest.raises(InputError, match=f"process {os.getpid()} is writing"):
        ingest(store, files[:1])
    assert ingest(store, files[:1]).stored == ("field000",)


def test_readers_see_a_consistent_store_meanwhile(files, reference, tmp_path):
    store = make_store(tmp_path / "store")
    whole = digests(reference)
    sizes = [0]

    def look(item: str, done: int, total: int) -> None:
        seen = digests(store)
        assert seen.items() <= whole.items()
        assert len(seen) >= sizes[-1]
        sizes.append(len(seen))

    ingest(store, files, progress=look)
    assert 0 < sizes[len(sizes) // 2] < len(files)
    assert digests(store) == whole


# --- kills ----------------------------------------------------------------------------------------------------------


def test_what_was_finished_is_taken_in_and_what_was_not_removed(files, reference, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(reference, store)
    journal = store / MANIFEST_NAME
    lines = journal.read_bytes().splitlines(keepends=True)
    # Killed while the line of the last part was written, with another part under way.
    journal.write_bytes(b"".join(lines[:-1]) + lines[-1][:20])
    left = store / Manifest.read(store).parts[0].name
    unfinished = left.with_name(f".{left.stem}.999999999.0badcafe.h5")
    unfinished.write_bytes(left.read_bytes()[:5000])
    assert len(digests(store)) < len(files)
    result = ingest(store, files)
    assert result.stored == ()
    assert digests(store) == digests(reference)
    assert parts_on_disk(store) == parts_on_disk(reference)


def test_a_finished_part_that_was_damaged_is_made_again(files, reference, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(reference, store)
    journal = store / MANIFEST_NAME
    lines = journal.read_bytes().splitlines(keepends=True)
    name = Manifest.read(store).parts[-1].name
    journal.write_bytes(b"".join(lines[:-1]))
    (store / name).write_bytes((store / name).read_bytes()[:3000])
    assert ingest(store, files).stored
    assert digests(store) == digests(reference)


PRELOADED = (
    "io.fits",
    "store.master_writer",
    "store.parts",
    "store.prepare",
    "store.pyramid",
    "store.spectrum_levels",
)


def killed_ingest(context, store: Path, folder: Path, delay: float) -> bool:
    """Ingest in another process and kill it after ``delay`` seconds; tell whether it was still at work."""
    process = context.Process(target=ingest_alone, args=(str(store), str(folder)))
    process.start()
    process.join(delay)
    at_work = process.is_alive()
    if at_work:
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    code = process.exitcode
    process.close()
    assert at_work or code == 0
    return at_work


def kill_at(moments: int, seed: int, files, reference: Path, tmp_path: Path) -> int:
    """Kill an ingest at random moments, each followed by an undisturbed run; return how many were at work."""
    # Processes of this kind start in milliseconds: their modules are loaded once, in a process without threads.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.inputs.store", *(f"skyloom.{name}" for name in PRELOADED)])
    whole, folder = digests(reference), files[0].parent
    warm = make_store(tmp_path / "warm")
    killed_ingest(context, make_store(tmp_path / "start"), folder, 60.0)
    clock = time.monotonic()
    assert not killed_ingest(context, warm, folder, 60.0)
    duration = time.monotonic() - clock
    generator = np.random.default_rng(seed)
    at_work = 0
    for number in range(moments):
        store = make_store(tmp_path / f"store{number}")
        at_work += killed_ingest(context, store, folder, duration * generator.uniform(0.1, 1.0))
        seen = digests(store)
        assert seen.items() <= whole.items()
        finished = {name for name in parts_on_disk(store) if not Path(name).name.startswith(".")}
        result = ingest(store, [folder])
        assert not result.failures
        # What was finished has not been made again.
        assert not finished & {part.name for part in result.parts}
        assert digests(store) == whole
        assert parts_on_disk(store) == parts_on_disk(reference)
    return at_work


def test_kills_at_random_moments(files, reference, tmp_path):
    assert kill_at(4, 1, files, reference, tmp_path) > 0


@pytest.mark.slow
@pytest.mark.long
def test_kills_at_twenty_random_moments(files, reference, tmp_path):
    assert kill_at(20, 2, files, reference, tmp_path) > 5
