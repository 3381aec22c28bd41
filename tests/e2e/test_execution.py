"""Items on Dask and in processes: the same outcomes, one failed item never stops the others."""

from __future__ import annotations

import os
import warnings

import distributed
import pytest

from skyloom.core.execution import run_items
from skyloom.errors import InputError, RepairWarning


def treat(context, item):
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
    check(run_items(treat, "all", ITEMS, workers=workers))


def test_a_worker_that_dies_is_reported():
    outcomes = list(run_items(treat, "all", ("dies", "one"), workers=2))
    (dead,) = [outcome for outcome in outcomes if outcome.item == "dies"]
    assert "worker process died" in dead.failure


# Dask's own start-up leaves sockets to the garbage collector, which pytest reports as unraisable.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_on_a_dask_scheduler():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        check(run_items(treat, "all", ITEMS, scheduler=cluster.scheduler_address))


# As above; starting the workers leaves sockets behind, too.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_on_local_dask_workers():
    check(run_items(treat, "all", ITEMS, workers=2, local="dask"))


def test_an_absent_scheduler_is_bad_input():
    with pytest.raises(InputError, match="no Dask scheduler answers"):
        list(run_items(treat, "all", ITEMS, scheduler="not-an-address"))
