"""Skyloom started by mpiexec: the first rank schedules, the second is the program, all others are its workers.

Which rank does what is decided by dask-mpi. Here is what it leaves open: an exception on any rank ends all of them, no
rank is left waiting for one that has ended, and all end with the exit code of the program.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

from skyloom.errors import InputError

__all__ = ["cluster_address", "is_first_rank", "run_on_ranks", "started_ranks"]

_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK", "SLURM_PROCID")
SWITCH = "SKYLOOM_MPI"
"""Environment variable; 0 lets every process work for itself."""
INTERFACE = "SKYLOOM_MPI_INTERFACE"
"""Environment variable: name of the network interface between machines, e.g. ``ib0``."""
_END = 77
"""Tag of the message with the exit code."""
_PAUSE = 0.05  # Seconds between looks for it: a rank that waits inside MPI keeps a processor busy.
_state: dict[str, str] = {}


def started_ranks() -> int:
    """Return how many processes mpiexec, or srun, has started together; 1 without them."""
    if os.environ.get(SWITCH) == "0":
        return 1
    return _number(_SIZES, 1)


def is_first_rank() -> bool:
    """Tell whether this is the one of them that speaks for all before they know of each other."""
    return _number(_RANKS, 0) == 0


def _number(names: tuple[str, ...], default: int) -> int:
    found = (os.environ.get(name, "") for name in names)
    return next((int(text) for text in found if text.isdecimal()), default)


def cluster_address() -> str | None:
    """Return the address of the scheduler that was started with this process; None without mpiexec."""
    return _state.get("address")


def run_on_ranks(program: Callable[[], int]) -> int:
    """Run a program on the second rank while the others serve it; return its exit code on all of them.

    Parameters
    ----------
    program : callable
        Returns an exit code; `cluster_address` tells it where its workers are.

    Raises
    ------
    InputError
        When dask-mpi is missing, mpi4py belongs to another MPI than mpiexec, or there are fewer than three ranks.
    """
    communicator = _communicator()
    try:
        return _serve(communicator, program)
    except BaseException:
        # Whatever it is: the other ranks would wait for this one for ever.
        rank = communicator.Get_rank()
        sys.stderr.write(f"rank {rank} has failed, which ends the run:\n{traceback.format_exc()}")
        sys.stderr.flush()
        communicator.Abort(1)
        raise


def _communicator() -> Any:
    dask = import_module("dask")
    if "logging" not in dask.config.config:
        # Before Dask's scheduler is imported, which sets up its messages then. What matters is told by the program.
        dask.config.set({"logging": {"distributed": "critical", "tornado.application": "critical"}})
    try:
        import_module("dask_mpi")
        communicator = import_module("mpi4py.MPI").COMM_WORLD
    except (ImportError, RuntimeError) as error:
        # RuntimeError: mpi4py without the library of an MPI.
        raise InputError(
            f"mpiexec has started {started_ranks()} ranks, and dask-mpi cannot be used: {error}",
            remedy=f"pip install 'skyloom[mpi]', or set {SWITCH}=0 to let every process work for itself",
        ) from error
    size, started = communicator.Get_size(), started_ranks()
    if size != started:
        raise InputError(
            f"{started} ranks were started, and mpi4py sees {size}: it belongs to another MPI",
            remedy="use the mpiexec of the MPI that mpi4py was built with, or 'srun --mpi=pmix'",
        )
    if size < 3:
        raise InputError(
            f"mpiexec has started {size} ranks; one schedules, one is the program, the others work",
            remedy="start at least 3, e.g. 'mpiexec -n 4 skyloom ...' for two workers",
        )
    return communicator


def _serve(communicator: Any, program: Callable[[], int]) -> int:
    """Do what is this rank's part, until the program has ended."""
    dask, dask_mpi = import_module("dask"), import_module("dask_mpi")
    is_program = dask_mpi.initialize(
        interface=_interface(communicator),
        nthreads=1,
        # How much memory a rank may use is decided by whoever starts the ranks.
        memory_limit=0,
        dashboard=False,
        dashboard_address=":0",
        worker_options={"dashboard": False},
        exit=False,
    )
    if not is_program:
        return _wait_for_the_end(communicator)
    _state["address"] = address = dask.config.get("scheduler_address")
    try:
        code = program()
    finally:
        _state.clear()
    # A scheduler that was lost has been told of by the program, and has no workers any more.
    with suppress(OSError), import_module("dask.distributed").Client(address, set_as_default=False) as client:
        client.shutdown()
    sent = [communicator.isend(code, rank, _END) for rank in range(communicator.Get_size()) if rank != 1]
    for request in sent:
        request.wait()
    return code


def _wait_for_the_end(communicator: Any) -> int:
    while not communicator.iprobe(source=1, tag=_END):
        time.sleep(_PAUSE)
    return int(communicator.recv(source=1, tag=_END))


def _interface(communicator: Any) -> str | None:
    """Return the network interface to use: where all ranks are on one machine, one that others cannot reach."""
    chosen = os.environ.get(INTERFACE)
    if chosen:
        return chosen
    if len(set(communicator.allgather(os.uname().nodename))) > 1:
        return None
    addresses = import_module("psutil").net_if_addrs()
    return next(
        (name for name, own in addresses.items() if any(item.address == "127.0.0.1" for item in own)), None
    )
