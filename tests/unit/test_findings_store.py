"""Defects measured in an existing cube database, shown on a whole store: from files, through an ingest, to a reader."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

import skyloom as sl
from skyloom.store.files.manifest import MANIFEST_NAME
from skyloom.store.files.verify import verify
from tests.inputs.store import digests, make_store, small_image, write_files
from tests.inputs.store_files import good_frame, good_spectrum


def test_no_name_has_the_pixels_of_another_file(tmp_path: Path) -> None:
    """A bad file inside a batch: another image's pixels were stored under its metadata, or zeros without a word."""
    paths = write_files(tmp_path / "in", 9)
    bad = paths[3]
    bad.write_bytes(bad.read_bytes()[:3000])
    store = sl.store.open(make_store(tmp_path / "store"))
    result = store.ingest(paths)
    assert [Path(failure.source).name for failure in result.failures] == [bad.name]
    assert len(store) == len(paths) - 1
    for number, path in enumerate(paths):
        if path == bad:
            continue
        given = sl.read(path)
        found = store.spectrum(path.stem) if number % 5 == 4 else store.cutout(path.stem)
        np.testing.assert_array_equal(found.mask, given.mask)
        np.testing.assert_array_equal(found.data[~found.mask], given.data[~given.mask].astype(np.float32))
        assert store.table([store.row(path.stem)], ["source"])["source"][0] == path.name


def test_a_store_that_was_killed_opens_tells_what_it_holds_and_is_completed(tmp_path: Path) -> None:
    """Killed during ingest: the file did not open again, and nothing marked what was missing."""
    paths = write_files(tmp_path / "in", 9)
    whole = make_store(tmp_path / "whole")
    sl.store.open(whole).ingest(paths)
    reference = digests(whole)
    for n_lines in (0, 2, 4):
        killed = tmp_path / f"killed{n_lines}"
        shutil.copytree(whole, killed)
        journal = (whole / MANIFEST_NAME).read_bytes().splitlines(keepends=True)
        assert len(journal) >= 4
        # Killed within a line; one part not begun, one half written under the name of a process that is gone.
        (killed / MANIFEST_NAME).write_bytes(b"".join(journal[:n_lines]) + b'{"part": "partit')
        (killed / "master.h5").unlink()
        last = sorted((killed / "partitions").glob("*/*.h5"))[-1]
        half = last.with_name(f".{last.stem}.999999999.0123abcd.h5")
        half.write_bytes(last.read_bytes()[:5000])
        known = sl.store.open(killed)
        assert set(known.observations()["obs_id"]) == set(digests(killed)) <= set(reference)
        assert len(known) < len(reference) or n_lines >= len(journal)
        assert sl.store.open(killed).ingest(paths).failures == ()
        assert digests(killed) == reference
        assert not half.exists()
        assert len(verify(killed)) == 0


def test_times_and_wavelengths_have_all_their_digits_after_an_ingest(tmp_path: Path) -> None:
    """622 distinct wavelengths of 4620; times in steps of 512 s, where rows of a drift scan are 26 ms apart."""
    store = sl.store.create(tmp_path / "store", levels=3, compression="quantised", quantum=1.0)
    frame, spectrum = good_frame(tmp_path), good_spectrum(tmp_path)
    assert store.ingest([frame, spectrum]).failures == ()
    given = sl.read(frame)
    row = store.search(kind="image")
    assert store.table(row, ["t_start"])["t_start"].value[0] == given.meta["time_start"]
    name = str(store.spectra()["obs_id"][0])
    np.testing.assert_array_equal(store.spectrum(name).wave, sl.read(spectrum).wave)
    for level in range(3):
        assert (
            np.unique(store.spectrum(name, level, "common").wave).size
            == store.spectrum(name, level, "common").wave.size
        )


def test_errors_of_every_observation_are_its_own(tmp_path: Path) -> None:
    """The errors of the dense cube were copies of the data, wrong by a factor of 0.3 to 10."""
    store = sl.store.create(tmp_path / "store", levels=2)
    for seed in range(3):
        image = small_image(seed)
        image = image.evolve(variance=np.full(image.shape, 4.0 + seed, np.float32))
        sl.write(image, tmp_path / f"i{seed}.fits")
    store.ingest(sorted(tmp_path.glob("*.fits")))
    for seed in range(3):
        found = store.cutout(f"i{seed}")
        np.testing.assert_array_equal(found.variance[~found.mask], np.float32(4.0 + seed))
        assert not np.allclose(found.data[~found.mask], found.variance[~found.mask], atol=0.5)
        coarse = store.cutout(f"i{seed}", level=1)
        n_good = store._reader(store.row(f"i{seed}"))[0].level(f"i{seed}", 1).n_good
        kept = ~coarse.mask
        expected = 16.0 * (4.0 + seed) / n_good[kept]
        np.testing.assert_allclose(coarse.variance[kept], expected, rtol=1e-6)


def test_a_folder_of_files_with_one_of_another_process_is_not_mixed_up(tmp_path: Path) -> None:
    """Files that are exchanged while they are stored: never the new pixels under the digest of the old file."""
    from skyloom.errors import SkyloomError
    from skyloom.store.ingest.locate import locate
    from skyloom.store.ingest.prepare import prepare

    first, second = write_files(tmp_path / "in", 2)
    source = locate(first)
    os.replace(second, first)
    try:
        made = prepare(source)
    except SkyloomError:
        return
    assert made[0].columns["source_digest"] != source.digest
