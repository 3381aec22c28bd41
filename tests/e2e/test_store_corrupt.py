"""Every way in which files of SDSS are known to be broken, in one folder with good ones, through ``skyloom store``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.inputs.store import digests
from tests.inputs.store_files import BROKEN, BrokenFile, duplicate, good_frame, good_spectrum, same_name
from typer.testing import CliRunner

import skyloom as sl
from skyloom.cli import app

# None of that r frame of the first night, by whose numbers the broken ones call themselves.
GOOD_FRAMES = ((0, "g"), (0, "i"), (1, "r"), (1, "i"))
GOOD_FIBERS = (300, 301)


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["store", *map(str, arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("good")
    frames = [good_frame(folder / "frames", epoch, band) for epoch, band in GOOD_FRAMES]
    return frames + [good_spectrum(folder / "spectra", fiber) for fiber in GOOD_FIBERS]


@pytest.fixture(scope="module")
def broken(good: list[Path]) -> list[BrokenFile]:
    return [maker(good[0].parent) for maker in BROKEN.values()]


@pytest.fixture(scope="module")
def store(good: list[Path], broken: list[BrokenFile], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of all of them, made in one go, one part after the other broken and good."""
    path = tmp_path_factory.mktemp("stores") / "mixed"
    run("create", path, "--levels", 3)
    output = run("ingest", path, good[0].parents[1], code=4)
    assert f"{len(good)} new observations" in output
    assert f"{len(broken)} failed" in output
    return path


def test_each_broken_file_is_listed_with_its_own_reason(store: Path, broken: list[BrokenFile]) -> None:
    rows = sl.store.open(store).failures()
    reasons = {
        str(source): str(reason) for source, reason in zip(rows["source"], rows["reason"], strict=True)
    }
    assert reasons.keys() == {str(item.path) for item in broken}
    for item in broken:
        reason = reasons[str(item.path)]
        for word in item.words:
            assert word in reason, (item.path.name, reason)
        assert "internal error" not in reason
        assert "Traceback" not in reason
        # Told once, by the list: a reason says what is wrong.
        assert not reason.startswith(str(item.path)), reason
    # No two of them are told the same, but what cannot be told apart.
    assert len(set(reasons.values())) >= len(broken) - 3
    listed = run("info", store, "--failures")
    assert all(item.path.name in listed for item in broken)


def test_good_files_between_broken_ones_are_stored_with_their_own_pixels(
    store: Path, good: list[Path]
) -> None:
    opened = sl.store.open(store)
    table = opened.observations()
    sources = dict(zip(table["source"].tolist(), table["obs_id"].tolist(), strict=True))
    assert sources.keys() == {path.name for path in good}
    for path in good:
        given, name = sl.read(path), str(sources[path.name])
        is_image = isinstance(given, sl.Image)
        found = opened.cutout(name) if is_image else opened.spectrum(name)
        np.testing.assert_array_equal(found.mask, given.mask)
        used = ~given.mask
        np.testing.assert_array_equal(found.data[used], given.data[used])
        np.testing.assert_array_equal(found.variance[used], given.variance[used])
    assert "as it was stored" in run("verify", store)


def test_a_store_with_broken_files_is_that_of_the_good_ones_alone(
    store: Path, good: list[Path], tmp_path: Path
) -> None:
    """Nothing of a broken file gets in, whichever part it would have belonged to; nor when they come one by one."""
    alone = tmp_path / "alone"
    run("create", alone, "--levels", 3)
    run("ingest", alone, *good)
    assert digests(store) == digests(alone)


def test_a_second_run_lists_them_again_and_changes_nothing(store: Path, good: list[Path]) -> None:
    before = digests(store)
    output = run("ingest", store, good[0].parents[1], code=4)
    assert "0 new observations" in output
    assert f"{len(good)} files were stored already" in output
    assert f"{len(BROKEN)} failed" in output
    assert digests(store) == before


def test_a_broken_file_does_not_keep_out_the_good_one_of_its_name(tmp_path: Path) -> None:
    """A download that broke off lies before the whole file; copies of it must not be called stored."""
    folder = tmp_path / "in"
    cut, damaged = (BROKEN[name](folder).path for name in ("truncated_frame", "nan_calibration"))
    copy = folder / "frame-r-002820-3-0999.fits"
    copy.write_bytes(damaged.read_bytes())
    whole = good_frame(tmp_path).rename(folder / "whole.fits")
    store = tmp_path / "store"
    run("create", store, "--levels", 3)
    assert "1 new observation" in run("ingest", store, folder, code=4)
    opened = sl.store.open(store)
    assert opened.observations()["source"].tolist() == [whole.name]
    reasons = {Path(row["source"]).name: str(row["reason"]) for row in opened.failures()}
    assert "truncated" in reasons[cut.name]
    assert "calibration" in reasons[damaged.name]
    assert reasons[copy.name] == reasons[damaged.name]
    given, found = sl.read(whole), opened.cutout(str(opened.observations()["obs_id"][0]))
    np.testing.assert_array_equal(found.data[~given.mask], given.data[~given.mask])


@pytest.mark.parametrize("maker", [duplicate, same_name], ids=lambda maker: maker.__name__)
def test_of_two_files_for_one_name_one_is_stored_and_the_other_listed(maker, tmp_path: Path) -> None:
    first, second = maker(tmp_path / "in")
    store = tmp_path / "store"
    run("create", store, "--levels", 3)
    run("ingest", store, tmp_path / "in", code=4)
    (line,) = run("query", store, "--json").splitlines()
    stored = json.loads(line)
    (failure,) = sl.store.open(store).failures()
    kept, refused = (first, second) if str(failure["source"]) == str(second) else (second, first)
    assert str(failure["source"]) == str(refused)
    assert "same content" in failure["reason"] or str(kept) in failure["reason"]
    assert stored["source"] == kept.name
    given, found = sl.read(kept), sl.store.open(store).spectrum(stored["obs_id"])
    np.testing.assert_array_equal(found.data[~given.mask], given.data[~given.mask])


def several(seed: int, start: float = 4000.0) -> sl.Spectra:
    wave = start + 2.0 * np.arange(60)
    data = np.random.default_rng(seed).normal(3.0, 1.0, (4, 60))
    unit = "1e-17 erg/(s cm2 AA)"
    return sl.Spectra(data, np.ones_like(data), np.zeros(data.shape, bool), unit, wave, "vacuum")


def test_a_file_of_many_spectra_fails_once(tmp_path: Path) -> None:
    """However many of its names are taken; what was stored before stays."""
    first, second = tmp_path / "a" / "rows.fits", tmp_path / "b" / "rows.fits"
    for seed, path in enumerate((first, second)):
        path.parent.mkdir()
        sl.write(several(seed), path)
    store = tmp_path / "store"
    run("create", store, "--levels", 1)
    run("ingest", store, first)
    before = digests(store)
    parts = sorted((store / "partitions").rglob("*.h5"))
    for _ in range(2):
        assert "rows-0 and 3 more" in run("ingest", store, second, code=4)
        assert sorted((store / "partitions").rglob("*.h5")) == parts
    assert len(sl.store.open(store).failures()) == 1
    assert digests(store) == before
    run("ingest", store, second, "--replace")
    assert len(sl.store.open(store).failures()) == 0
    np.testing.assert_array_equal(
        sl.store.open(store).spectrum("rows-2").data[0], several(1).data[2].astype(np.float32)
    )


def test_wavelengths_that_are_none_are_refused(tmp_path: Path) -> None:
    sl.write(several(0, start=-4.0), tmp_path / "velocities.fits")
    store = tmp_path / "store"
    run("create", store)
    assert "the wavelengths begin at -4 A" in run("ingest", store, tmp_path / "velocities.fits", code=4)
