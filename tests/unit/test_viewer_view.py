"""Saved views: they come back as they were; what was crafted is refused, without a word of any path."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from skyloom.errors import InputError
from skyloom.store import Store
from skyloom.viewer.panes.store import StorePane
from skyloom.viewer.stores.filters import Filters
from skyloom.viewer.view import read_view, restore_panes, view_file
from tests.inputs.viewer_stores import make_epoch_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with make_epoch_store(tmp_path_factory.mktemp("epochs")) as opened:
        yield opened


def new_pane(store: Store) -> StorePane:
    return StorePane(store, lambda *_: None, lambda *_: None)


class Remembering:
    """A pane that holds one number."""

    def __init__(self) -> None:
        self.value = 1

    def state(self) -> dict[str, Any]:
        return {"value": self.value}

    def restore(self, state: dict[str, Any]) -> None:
        self.value = state["value"] + 0
        if self.value < 0:
            raise InputError("less than nothing", source="/secret/path", field="value")


def test_a_view_comes_back_as_it_was(store: Store) -> None:
    pane = new_pane(store)
    wanted = {
        "filters": Filters(kinds=("image", "spectrum"), bands=("r",), cone=(38.33, -0.1, 0.01)).plain(),
        "order": {"by": "t_start", "descending": True},
        "map": {"ra": 38.33, "dec": -0.1, "width": 0.05},
        "chosen": "second-r",
    }
    pane.restore(wanted)
    assert pane.filters == Filters.from_plain(wanted["filters"])
    assert [store.column("obs_id", [row])[0] for row in pane.rows] == [b"second-r", b"first-r"]
    states = read_view(view_file({"store": pane}))
    other = new_pane(store)
    assert restore_panes({"store": other}, states) == []
    assert other.state() == pane.state()
    assert other.state()["chosen"] == "second-r"
    assert other.state()["map"]["width"] == pytest.approx(0.05, rel=0.01)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[1, 2]",
        b"{}",
        b'{"skyloom_view": 2, "panes": {}}',
        b'{"skyloom_view": true, "panes": {}}',
        b'{"skyloom_view": 1, "panes": []}',
        b'{"skyloom_view": 1, "panes": {"store": "../../etc/passwd"}}',
        b'{"skyloom_view": 1, "panes": {"store": {"map": {"ra": NaN}}}}',
        b'{"skyloom_view": 1, "panes": {"store": {"a": ' + b"[" * 50 + b"]" * 50 + b"}}}",
        b"[" * 100_000,
        b'{"skyloom_view": 1, "panes": {"a": {"b": "' + b"x" * (1 << 20) + b'"}}}',
    ],
    ids=range(12),
)
def test_what_is_no_view_is_refused(content: bytes) -> None:
    with pytest.raises(InputError, match="view"):
        read_view(content)


def test_one_wrong_pane_leaves_the_others_and_names_no_path() -> None:
    panes = {"first": Remembering(), "second": Remembering(), "third": Remembering()}
    told = restore_panes(
        panes, {"first": {"value": 5}, "second": {"value": -1}, "third": {"value": "x"}, "/etc/passwd": {}}
    )
    assert [pane.value for pane in panes.values()] == [5, 1, 1]
    assert len(told) == 3
    assert not any("secret" in line for line in told)
    assert any("second: less than nothing" in line for line in told)
    assert any("third: the view cannot be understood" in line for line in told)


@pytest.mark.parametrize(
    "crafted",
    [
        {"filters": {"path": "/etc/passwd"}},
        {"filters": []},
        {"filters": {"bands": ["Y"]}},
        {"filters": {"kinds": ["cube"]}},
        {"chosen": "../../etc/passwd"},
        {"chosen": 3},
        {"place": [1.0, 95.0]},
        {"place": "here"},
        {"map": {"ra": 1.0, "dec": 2.0, "width": -1.0}},
        {"map": {"ra": 1.0}},
        {"map": {"ra": 1.0, "dec": 2.0, "width": 1e300}},
        {"order": {"by": "source"}},
        {"order": {"by": ["sky"]}},
    ],
    ids=range(13),
)
def test_crafted_states_of_a_store_change_nothing(store: Store, crafted: dict[str, Any]) -> None:
    pane = new_pane(store)
    before = json.loads(json.dumps(pane.state()))
    told = restore_panes({"store": pane}, {"store": crafted})
    assert len(told) == 1
    assert str(store.path) not in told[0]
    after = pane.state()
    assert after["filters"] == before["filters"]
    assert after["order"] == before["order"]
    assert len(pane.rows) == len(store)
