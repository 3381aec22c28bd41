"""Items on Dask and in processes: the same outcomes, one failed item never stops the others."""

from __future__ import annotations

import os
import warnings

import distributed
import pytest

from skyloom.core import cluster
from skyloom.core.execution import run_items
from skyloom.errors import AssumptionWarning, InputError, RepairWarning


def treat(context, item, detail="all"):
    assert detail == context
    if item == "bad":
        raise InputError("cannot be used", source="bad.fits", remedy="mend it")
    if item == "bug":
        raise ZeroDivisionError("division by zero")
    if item == "dies":
        os._exit(1)
    if item == "warns":
        warnings.warn("3 pixels were repaired", RepairWarning, stacklevel=1)
    return f"{context} {item}"


ITEMS = ("one", "bad", "bug", "warns")


def check(outcomes):
    found = {outcome.item: outcome for outcome in outcomes}
    assert set(found) == set(ITEMS)
    assert found["one"].result == "all one"
    assert found["bad"].failure == "bad.fits: cannot be used; mend it"
    assert found["bug"].failure.startswith("internal error: ZeroDivisionError")
    assert found["warns"].result == "all warns"
    assert found["warns"].notes == ("RepairWarning: 3 pixels were repaired",)


@pytest.mark.parametrize("workers", [1, 2])
def test_here_and_in_processes(workers):
    # What all items share, and what each has of its own.
    check(run_items(treat, "all", ITEMS, details=dict.fromkeys(ITEMS, "all"), workers=workers))


def test_a_worker_that_dies_is_reported():
    outcomes = list(run_items(treat, "all", ("dies", "one"), workers=2))
    (dead,) = [outcome for outcome in outcomes if outcome.item == "dies"]
    assert "worker process died" in dead.failure


# Dask's own start-up leaves sockets to the garbage collector, which pytest reports as unraisable.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_on_a_dask_scheduler():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
    ) as here:
        details = dict.fromkeys(ITEMS, "all")
        check(run_items(treat, "all", ITEMS, details=details, scheduler=here.scheduler_address))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_a_worker_with_many_threads_is_told_of():
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=4, processes=False, dashboard_address=None
        ) as here,
        pytest.warns(AssumptionWarning, match="has 4 threads and treats one item at a time"),
    ):
        check(run_items(treat, "all", ITEMS, scheduler=here.scheduler_address))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_a_scheduler_without_workers_and_one_that_ends(monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 0.2)
    with distributed.LocalCluster(
        n_workers=0, threads_per_worker=1, processes=False, dashboard_address=None
    ) as empty:
        with pytest.raises(InputError, match="has had no worker for 0 s"):
            list(run_items(treat, "all", ITEMS, scheduler=empty.scheduler_address))
        empty.scale(1)
        monkeypatch.setattr(cluster, "PATIENCE", 20.0)
        outcomes = run_items(treat, "all", ITEMS, scheduler=empty.scheduler_address)
        assert next(outcomes).item == "one"
        monkeypatch.setattr(cluster, "PATIENCE", 0.2)
        empty.scale(0)
        with pytest.raises(InputError, match="has had no worker"):
            list(outcomes)


# As above; starting the workers leaves sockets behind, too.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_on_local_dask_workers_of_which_an_item_kills_three():
    outcomes = {
        outcome.item: outcome
        for outcome in run_items(treat, "all", ("dies", *ITEMS), workers=2, local="dask")
    }
    assert "3 workers died over it" in outcomes.pop("dies").failure
    check(outcomes.values())


def test_an_absent_scheduler_is_bad_input():
    with pytest.raises(InputError, match="no Dask scheduler answers"):
        list(run_items(treat, "all", ITEMS, scheduler="not-an-address"))
