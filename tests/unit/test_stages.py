"""Stages: done once, found done, done again when anything that decides them has changed."""

from __future__ import annotations

import json
import warnings

import pytest

from skyloom.errors import AssumptionWarning, RepairWarning
from skyloom.recipes.stages import Files, Stages


@pytest.fixture
def chain(tmp_path):
    """A chain of two stages, and a list of what was really done."""
    (tmp_path / "stages").mkdir()
    calls = []

    def files(name):
        path = tmp_path / f"{name}.txt"

        def write(value):
            path.write_text(value)
            return [path]

        return Files(write, lambda paths: paths[0].read_text())

    def first(text):
        calls.append("first")
        warnings.warn("assumed", AssumptionWarning, stacklevel=1)
        return text

    def second(text):
        calls.append("second")
        return f"{text} and more"

    def run(text="a", setting=1, *, overwrite=False):
        calls.clear()
        stages = Stages(tmp_path, overwrite)
        one = stages.do("one", first, text, settings=text, files=files("one"))
        two = stages.do("two", second, one, settings=setting, files=files("two"))
        return one, two, list(calls)

    return run


def test_a_stage_is_done_once(chain, tmp_path):
    one, two, done = chain()
    assert done == ["first", "second"]
    assert not one.kept
    one, two, done = chain()
    assert done == []
    assert one.kept
    assert two.value == "a and more"
    assert one.notes == ("AssumptionWarning: assumed",)


def test_what_a_stage_took_is_told_again_by_a_resumed_run(chain, tmp_path):
    first, _, _ = chain()
    again, _, _ = chain()
    assert again.wall == pytest.approx(first.wall, abs=1e-3)
    assert again.memory == pytest.approx(first.memory, abs=1)
    assert first.memory > 1e6
    stages = Stages(tmp_path)
    stages.done += [first, again]
    assert [step.origin for step in stages.records()] == ["this run", "an earlier run"]


def test_a_change_does_again_what_depends_on_it_and_no_more(chain):
    chain()
    assert chain(setting=2)[2] == ["second"]
    assert chain(text="b", setting=2)[2] == ["first", "second"]
    assert chain(text="b", setting=2, overwrite=True)[2] == ["first", "second"]


def test_the_value_of_a_kept_stage_is_read_where_it_is_needed(chain):
    chain()
    _, two, done = chain(setting=2)
    assert done == ["second"]
    assert two.value == "a and more"


@pytest.mark.parametrize("damage", [lambda path: path.write_text("x"), lambda path: path.unlink()])
def test_a_damaged_file_is_made_again_and_nothing_else(chain, tmp_path, damage):
    chain()
    damage(tmp_path / "one.txt")
    with pytest.warns(RepairWarning, match=r"one\.txt: not as it was written; stage 'one' was done again"):
        one, two, done = chain()
    assert done == ["first"]
    assert one.value == "a"
    assert two.kept


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"digest": 1}', "\x00"])
def test_a_record_that_is_not_whole_counts_as_none(chain, tmp_path, record):
    chain()
    (tmp_path / "stages" / "one.json").write_text(record)
    assert chain()[2] == ["first"]


def test_files_that_a_stage_no_longer_makes_are_removed(tmp_path):
    (tmp_path / "stages").mkdir()

    def write(names):
        for name in names:
            (tmp_path / name).write_text(name)
        return [tmp_path / name for name in names]

    files = Files(write, lambda paths: [path.name for path in paths])
    Stages(tmp_path).do("s", lambda: ["a", "b"], settings=1, files=files)
    (tmp_path / "mine").write_text("not of this stage")
    Stages(tmp_path).do("s", lambda: ["b", "c"], settings=2, files=files)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["b", "c", "mine"]


def test_a_stage_that_fails_leaves_no_record_of_success(chain, tmp_path):
    chain()

    def fail():
        raise ZeroDivisionError

    files = Files(lambda _: [], lambda _: None)
    with pytest.raises(ZeroDivisionError):
        Stages(tmp_path).do("three", fail, settings=1, files=files)
    assert not (tmp_path / "stages" / "three.json").exists()


def test_the_record_says_what_a_stage_was_made_from(chain, tmp_path):
    chain()
    record = json.loads((tmp_path / "stages" / "two.json").read_text())
    assert record["files"]["two.txt"][0] == len("a and more")
    assert record["cpu_seconds"] >= 0
