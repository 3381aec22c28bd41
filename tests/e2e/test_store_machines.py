"""One ingest on many machines: the same store from one process, a scheduler with workers, and mpiexec."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from tests.inputs.store import digests, make_store, write_files

from skyloom.errors import InputError
from skyloom.store.files.manifest import Manifest
from skyloom.store.ingest.run import ingest

ROOT = Path(__file__).resolve().parents[2]
N_FILES = 14
LIMIT = 300  # Seconds after which something hangs, on however busy a machine.
# Every process loads its modules, in one thread of the linear algebra; as root Open MPI wants to be asked twice.
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]),
    "OPENBLAS_NUM_THREADS": "1",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    # More ranks than processors, in the words of Open MPI 4 and 5.
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Images and spectra, and one file that cannot be stored."""
    folder = tmp_path_factory.mktemp("files")
    write_files(folder, N_FILES)
    (folder / "broken.fits").write_text("no FITS file")
    return folder


@pytest.fixture(scope="module")
def reference(files, tmp_path_factory) -> dict[str, str]:
    """Digests after an ingest in this process."""
    store = make_store(tmp_path_factory.mktemp("reference") / "store")
    assert len(ingest(store, [files]).failures) == 1
    return digests(store)


@pytest.fixture(scope="module")
def mpiexec() -> str:
    program = shutil.which("mpiexec")
    if program is None or not all(map(importlib.util.find_spec, ("mpi4py", "dask_mpi"))):
        message = "mpiexec, mpi4py or dask-mpi is absent"
        if os.environ.get("SKYLOOM_REQUIRE_MPI"):
            pytest.fail(message)
        pytest.skip(message)
    return program


def started(*command: object, start_new_session: bool = False) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=start_new_session,
        # What runs in the background of a shell ignores interruptions, and so would its children.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def line_with(process: subprocess.Popen[str], pattern: str) -> str:
    """Wait until a process says something; return what the pattern catches."""
    said = []
    for line in process.stdout:
        said.append(line)
        found = re.search(pattern, line)
        if found:
            return found[1]
    raise AssertionError("".join(said))


@pytest.fixture
def cluster():
    """A scheduler and two workers, each a process of its own."""
    with contextlib.ExitStack() as ends:

        def start(*command: object) -> subprocess.Popen[str]:
            process = started(*command)
            ends.callback(process.stdout.close)
            ends.callback(process.wait)
            ends.callback(process.kill)
            return process

        scheduler = start(
            "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"
        )
        address = line_with(scheduler, r"Scheduler at:\s+(\S+)")
        options = ("--no-nanny", "--nthreads", "1", "--no-dashboard")
        workers = [start("-m", "distributed.cli.dask_worker", address, *options) for _ in range(2)]
        for worker in workers:
            line_with(worker, r"(Registered) to")
        yield address, workers


# Dask's own start-up leaves sockets to the garbage collector, which pytest reports as unraisable.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_a_worker_that_is_killed_is_replaced_by_the_others(files, reference, cluster, tmp_path):
    address, (first, _) = cluster
    store = make_store(tmp_path / "store")
    told = []

    def look(_: str, done: int, total: int) -> None:
        told.append((done, total))
        # Stopped, it keeps the part that it has or is given; killed, it has not finished it.
        if len(told) == 2:
            first.send_signal(signal.SIGSTOP)
        if len(told) == N_FILES // 2:
            first.kill()

    result = ingest(store, [files], scheduler=address, progress=look)
    assert first.wait() == -signal.SIGKILL
    assert len(result.failures) == 1
    assert digests(store) == reference
    assert told[-1] == (N_FILES, N_FILES)
    assert not list(store.glob(".probe*"))


def test_under_mpiexec(files, reference, mpiexec, tmp_path):
    store = make_store(tmp_path / "store")
    command = (mpiexec, "-n", "4", sys.executable, "-m", "skyloom.cli", "store", "ingest", store, files)
    done = subprocess.run(
        [*map(str, command)], env=ENVIRONMENT, capture_output=True, text=True, timeout=LIMIT
    )
    # One file has failed, which is told once; all ranks say so to mpiexec.
    assert done.returncode == 4, done.stdout + done.stderr
    assert done.stdout.count("14 new observations") == 1
    assert done.stdout.count("broken.fits: ") == 1
    assert "distributed" not in done.stderr
    assert digests(store) == reference


def test_an_exception_on_a_rank_ends_the_run_with_its_reason(mpiexec):
    program = (
        "from skyloom.core.mpi import run_on_ranks\n"
        "def fail(): raise RuntimeError('this went wrong')\n"
        "raise SystemExit(run_on_ranks(fail))"
    )
    command = (mpiexec, "-n", "3", sys.executable, "-c", program)
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 1
    assert "rank 1 has failed" in done.stderr
    assert "RuntimeError: this went wrong" in done.stderr


def test_two_ranks_are_too_few(mpiexec):
    command = (mpiexec, "-n", "2", sys.executable, "-m", "skyloom.cli", "store", "info", "none")
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 2
    assert done.stderr.count("start at least 3") == 1


def test_an_interruption_ends_the_workers_and_leaves_a_store(files, reference, tmp_path):
    store = make_store(tmp_path / "store")
    command = ("-m", "skyloom.cli", "store", "ingest", store, files, "--workers", "2")
    process = started(*command, start_new_session=True)
    try:
        line_with(process, "(1)/14")
        # As a terminal does: the workers get it, too.
        os.killpg(process.pid, signal.SIGINT)
        # Its output ends when the last of the processes that have it has ended.
        said, _ = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    seen = digests(store)
    assert seen
    assert seen.items() <= reference.items()
    ingest(store, [files])
    assert digests(store) == reference


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_workers_that_see_something_else_are_told_before_the_work(files, tmp_path, monkeypatch):
    from distributed import LocalCluster

    store = make_store(tmp_path / "store")
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as here:
        address = here.scheduler_address
        monkeypatch.setattr(
            "skyloom.store.ingest.locating._unseen", lambda needed: f"does not see {needed.store}"
        )
        with pytest.raises(
            InputError, match=r"the Dask worker \S+ does not see .*; start workers where the same"
        ):
            ingest(store, [files], scheduler=address)
        assert Manifest.read(store).parts == ()
