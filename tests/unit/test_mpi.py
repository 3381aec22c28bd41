"""What is known of mpiexec before the ranks know of each other, and what is said when they cannot work together."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from skyloom.core import mpi
from skyloom.errors import InputError


@pytest.fixture(autouse=True)
def no_ranks(monkeypatch):
    for name in (*mpi._SIZES, *mpi._RANKS, mpi.SWITCH, mpi.INTERFACE):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("size", "rank"),
    [
        ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
        ("PMI_SIZE", "PMI_RANK"),
        ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    ],
)
def test_ranks_are_counted(size, rank, monkeypatch):
    assert mpi.started_ranks() == 1
    assert mpi.is_first_rank()
    monkeypatch.setenv(size, "4")
    monkeypatch.setenv(rank, "2")
    assert mpi.started_ranks() == 4
    assert not mpi.is_first_rank()
    assert mpi.cluster_address() is None
    monkeypatch.setenv("SKYLOOM_MPI", "0")
    assert mpi.started_ranks() == 1


def test_a_slurm_batch_script_is_one_process(monkeypatch):
    # The script itself sees the tasks that srun may start; only a step has its own number.
    monkeypatch.setenv("SLURM_NTASKS", "64")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert mpi.started_ranks() == 1


def test_without_dask_mpi_the_remedy_is_named(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    whole = mpi.import_module

    def absent(name):
        if name == "dask_mpi":
            raise ImportError("No module named 'dask_mpi'")
        return whole(name)

    monkeypatch.setattr(mpi, "import_module", absent)
    with pytest.raises(InputError, match=r"4 ranks.*pip install 'skyloom\[mpi\]'"):
        mpi.run_on_ranks(lambda: 0)


@pytest.mark.parametrize(
    ("size", "words"), [(1, "mpi4py sees 1: it belongs to another MPI"), (4, ""), (2, "4 ranks were started")]
)
def test_mpi4py_of_another_mpi_is_told_of(size, words, monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "4")
    world = SimpleNamespace(Get_size=lambda: size)
    modules = {
        "mpi4py.MPI": SimpleNamespace(COMM_WORLD=world),
        "dask": SimpleNamespace(config=SimpleNamespace(config={"logging": 0})),
    }
    monkeypatch.setattr(mpi, "import_module", lambda name: modules.get(name))
    if words:
        with pytest.raises(InputError, match=words):
            mpi._communicator()
    else:
        assert mpi._communicator() is world
