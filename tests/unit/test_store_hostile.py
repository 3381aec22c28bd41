"""Files and folders as they should not be, and what a store makes of them."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

import skyloom as sl
from skyloom.core.image import Image
from skyloom.errors import FileFormatError, InputError
from skyloom.io.formats import atomic
from skyloom.store.files import manifest as journal
from skyloom.store.files.manifest import FailureEntry, Manifest, append_failures
from skyloom.store.files.verify import verify
from skyloom.store.ingest.locating import located
from skyloom.store.ingest.run import ingest
from tests.inputs.store import digests, make_store, small_image, small_spectrum, small_wcs, write_files
from tests.inputs.store_files import good_frame


def test_the_index_tells_the_unit_that_the_values_are_in(tmp_path: Path) -> None:
    """Variances of 1e-40 have no place in single precision: a power of ten goes into the unit, here and there."""
    shape = (8, 9)
    data = np.random.default_rng(0).normal(0, 1e-20, shape)
    image = Image(
        data, np.full(shape, 1e-40), np.zeros(shape, bool), "erg/(s cm2 AA)", small_wcs(1, 2, shape)
    )
    sl.write(image, tmp_path / "faint.fits")
    store = sl.store.open(make_store(tmp_path / "store"))
    store.ingest([tmp_path / "faint.fits"])
    found = store.cutout("faint")
    assert found.unit.scale == pytest.approx(1e-20)
    assert str(store.images()["o_unit"][0]) == found.unit.to_string()


def test_a_mean_leaves_out_images_on_the_other_side_of_the_sky(tmp_path: Path) -> None:
    for name, ra in (("far", 190.0), ("here", 10.0), ("there", 70.0)):
        sl.write(small_image(1, ra), tmp_path / f"{name}.fits")
    store = sl.store.open(make_store(tmp_path / "store"))
    store.ingest(sorted(tmp_path.glob("*.fits")))
    found = store.stack(kind="image", center=(10.0, -5.0), size=8)
    alone = store.stack(["here"], center=(10.0, -5.0), size=8)
    assert found.meta["n_stacked"] == 1
    np.testing.assert_array_equal(found.data, alone.data)
    with pytest.raises(InputError, match="no image has a usable pixel"):
        store.stack(["far"], center=(10.0, -5.0), size=8)


def test_rows_of_levels_and_cutouts_have_their_own_times(tmp_path: Path) -> None:
    """The row of a drift scan that is cut out, or joined with others, was not observed when row 0 of the frame was."""
    store = sl.store.create(tmp_path / "store", levels=3)
    store.ingest([good_frame(tmp_path)])
    name = str(store.images()["obs_id"][0])
    first, step = store.cutout(name).meta["row_time"]
    begin, same = store.cutout(name, size=10, pixel=(20, 30)).meta["row_time"]
    top = int(
        store.cutout(name).wcs.wcs.crpix[1] - store.cutout(name, size=10, pixel=(20, 30)).wcs.wcs.crpix[1]
    )
    assert top > 20
    assert begin == pytest.approx(first + top * step, abs=1e-10)
    assert same == step
    for level in (1, 2):
        rows = np.arange(2**level)
        begin, wide = store.cutout(name, level=level).meta["row_time"]
        assert begin == pytest.approx(first + rows.mean() * step, abs=1e-10)
        assert wide == pytest.approx(2**level * step)
    packed = store.pack(tmp_path / "packed.h5")
    assert len(verify(packed)) == 0
    assert sl.store.open(packed).cutout(name, level=2).meta["row_time"] == [begin, wide]
    assert "row_time" not in store.stack([name]).meta


def test_warnings_are_as_before_when_files_were_located_in_threads(tmp_path: Path) -> None:
    paths = write_files(tmp_path, 60)
    show, filters = warnings._showwarnmsg_impl, list(warnings.filters)  # type: ignore[attr-defined]
    for _ in range(3):
        assert len(list(located(paths, tmp_path, 4, None, []))) == len(paths)
    assert warnings._showwarnmsg_impl is show  # type: ignore[attr-defined]
    assert warnings.filters == filters


@pytest.mark.parametrize("damage", ["missing", "cut"])
@pytest.mark.parametrize("indexed", [True, False])
def test_a_damaged_part_can_be_given_up(tmp_path: Path, damage: str, indexed: bool) -> None:
    paths = write_files(tmp_path / "in", 6)
    folder = make_store(tmp_path / "store")
    ingest(folder, paths)
    reference = digests(folder)
    lost = folder / Manifest.read(folder).parts[0].name
    if damage == "missing":
        lost.unlink()
    else:
        lost.write_bytes(lost.read_bytes()[:4000])
    if not indexed:
        (folder / "master.h5").unlink()
    with pytest.raises(FileFormatError, match="with replace"):
        ingest(folder, paths)
    assert len(verify(folder)) > 0
    result = ingest(folder, paths, replace=True)
    assert result.failures == ()
    assert 0 < len(result.stored) < len(paths)
    assert len(verify(folder)) == 0
    with sl.store.open(folder) as store:
        assert set(store.observations()["obs_id"]) == set(reference)
        for name, digest in zip(*(store.observations()[key] for key in ("obs_id", "digest")), strict=True):
            assert reference[str(name)] == str(digest)
    assert ingest(folder, paths).stored == ()


def test_names_of_files_may_hold_bytes_that_are_no_text(tmp_path: Path) -> None:
    paths = write_files(tmp_path / "in", 2)
    odd = os.fsencode(tmp_path / "in") + b"/odd\xff\xfe.fits"
    try:
        os.rename(paths[1], odd)
    except OSError:
        pytest.skip("this file system knows text alone")
    given = [str(paths[0]), os.fsdecode(odd)]
    store = sl.store.open(make_store(tmp_path / "store"))
    assert store.ingest(given).failures == ()
    assert len(store) == 2
    again = store.ingest(given)
    assert (len(again.skipped), again.failures) == (2, ())
    assert "odd\\udcff\\udcfe.fits" in set(store.observations()["source"])
    assert len(store.verify()) == 0


def test_texts_with_zero_bytes_are_no_damage(tmp_path: Path) -> None:
    image = small_image(0)
    image.meta["object"] = "NGC\x00 1\x00"
    sl.write(image, tmp_path / "a.fits")
    store = sl.store.open(make_store(tmp_path / "store"))
    store.ingest([tmp_path / "a.fits"])
    assert str(store.images()["target_name"][0]) == "NGC  1"
    assert len(store.verify()) == 0
    store.pack(tmp_path / "packed.h5")


def test_a_place_beyond_the_pole_is_told_with_its_keyword(tmp_path: Path) -> None:
    spectrum = small_spectrum(0)
    spectrum.meta["dec"] = 95.0
    sl.write(spectrum, tmp_path / "s.fits")
    (failure,) = ingest(make_store(tmp_path / "store"), [tmp_path / "s.fits"]).failures
    assert "dec" in failure.reason
    assert "internal error" not in failure.reason


def test_what_is_taken_in_afterwards_is_no_failure(tmp_path: Path) -> None:
    """A lost worker's part was reported as failed, and is found complete by the next run."""
    paths = write_files(tmp_path / "in", 3)
    whole = make_store(tmp_path / "whole")
    ingest(whole, paths)
    store = make_store(tmp_path / "store")
    shutil.copytree(whole / "partitions", store / "partitions", dirs_exist_ok=True)
    with sl.store.open(whole) as opened:
        table = opened.observations()
    told = [
        FailureEntry(str(tmp_path / "in" / str(source)), "the Dask worker failed", str(digest))
        for source, digest in zip(table["source"], table["source_digest"], strict=True)
    ]
    other = FailureEntry(str(tmp_path / "copy.fits"), "has the same content", told[0].digest)
    append_failures(store, [*told, other])
    assert len(ingest(store, paths).skipped) == len(paths)
    assert Manifest.read(store).failures == (other,)


def test_a_new_folder_is_on_the_disk_before_the_journal_names_it(tmp_path: Path, monkeypatch) -> None:
    store = make_store(tmp_path / "store")
    flushed: list[str] = []
    flush, append = atomic.flush, journal._append

    def spy(path: Path) -> None:
        flushed.append(path.name)
        flush(path)

    def append_and_note(folder: Path, lines) -> None:
        flushed.append("journal")
        append(folder, lines)

    monkeypatch.setattr("skyloom.io.formats.atomic.flush", spy)
    monkeypatch.setattr("skyloom.store.ingest.write.flush", spy)
    monkeypatch.setattr("skyloom.store.files.manifest._append", append_and_note)
    ingest(store, write_files(tmp_path / "in", 1))
    cell = next((store / "partitions").iterdir()).name
    order = [flushed.index(name) for name in ("partitions", cell, "journal")]
    # append_failures of nothing comes first; the line of the part is the last.
    order[2] = len(flushed) - 1 - flushed[::-1].index("journal")
    assert order == sorted(order)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (3, 2), (2, 4097)])
def test_images_of_any_shape_and_windows_anywhere(tmp_path: Path, shape: tuple[int, int]) -> None:
    image = Image(np.ones(shape), np.ones(shape), np.zeros(shape, bool), "nmgy", small_wcs(5, 5, shape))
    sl.write(image, tmp_path / "a.fits")
    store = sl.store.open(make_store(tmp_path / "store"))
    assert store.ingest([tmp_path / "a.fits"]).failures == ()
    corner = store.cutout("a", size=5, pixel=(0, 0))
    assert (~corner.mask).sum() == min(shape[0], 3) * min(shape[1], 3)
    assert store.cutout("a", size=4, pixel=(-100, 9000)).mask.all()
    here, there = corner.wcs.pixel_to_world_values(2, 2), image.wcs.pixel_to_world_values(0, 0)
    np.testing.assert_allclose(here, there, rtol=0, atol=1e-10)
