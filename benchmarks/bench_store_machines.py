"""One ingest in one process, by two local workers and under mpiexec: what it takes, and that the stores are the same.

    python benchmarks/bench_store_machines.py [--quick] [--directory FOLDER]

Frames are mock ones of the size of SDSS frames. CPU is that of all processes together, with what it takes to start them
and to load their modules (about two seconds each), which is why that is shown apart: from an ingest of two frames.
The machine should be otherwise idle; wall clocks gain from as many cores as there are workers.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import ENVIRONMENT, Usage, command_line, run_command
from store_kills import digests
from store_table import missed, show

SHAPE = (1489, 2048)
SEED = 7
PART_BYTES = 80_000_000  # two frames
FEW = 2
MPIEXEC = ("mpiexec", "--oversubscribe", "-n", "4")
ENVIRONMENT |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def new_store(path: Path, **options: int) -> Path:
    from skyloom.store.query import create

    create(path, part_bytes=PART_BYTES, **options).close()
    return path


def show_ways(folder: Path, files: Path, number: int) -> dict[str, str]:
    """Print a row for each way; return the digests after the first."""
    ways: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
        "one process": ((), ()),
        "2 local workers": ((), ("--workers", "2")),
        "mpiexec -n 4": (MPIEXEC, ()),
    }
    if shutil.which("mpiexec") is None:
        del ways["mpiexec -n 4"]
        show("mpiexec -n 4", "there is no mpiexec")
    reference: dict[str, str] = {}
    alone: Usage | None = None
    for name, (through, options) in ways.items():
        store = new_store(folder / name.replace(" ", "_"))
        used, _ = run_command(("store", "ingest", store, files, *options), through)
        few, _ = run_command(
            ("store", "ingest", new_store(Path(f"{store}_few")), files.with_name("few"), *options), through
        )
        found = digests(store)
        alone, reference = alone or used, reference or found
        wall, cpu = used.wall / alone.wall, used.cpu / alone.cpu
        show(
            f"{name}: {number} frames",
            f"wall {used.wall:6.1f} s ({wall:.2f}), CPU {used.cpu:6.1f} s ({cpu:.2f})",
            "the same digests",
            len(found) == number and found == reference,
        )
        work = (used.cpu - few.cpu) / (number - FEW)
        show("   without starting", f"{work:.3f} CPU s per frame; starting {few.cpu - FEW * work:.1f} CPU s")
    return reference


def show_killed_rank(folder: Path, files: Path, reference: dict[str, str]) -> None:
    """Print what a killed rank leaves behind: mpiexec ends all of them, and the next run goes on."""
    store = new_store(folder / "killed")
    process = subprocess.Popen(
        [*MPIEXEC, *command_line("store", "ingest", store, files)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
    )
    journal = store / "manifest.jsonl"
    while process.poll() is None and not journal.exists():
        time.sleep(0.05)
    ranks = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False
    ).stdout.split()
    if process.poll() is None:
        os.kill(int(ranks[-1]), signal.SIGKILL)
    code, finished = process.wait(), len(digests(store))
    run_command(("store", "ingest", store, files), MPIEXEC)
    show(
        "a rank killed with kill -9, then run again",
        f"mpiexec ended with {code}, {finished} frames stored; then {len(digests(store))}",
        "the same digests",
        code != 0 and digests(store) == reference,
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer frames")
    parser.add_argument("--directory", type=Path, default=None, help="keep what is written here")
    options = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    from skyloom.mock.sdss.files import write_quick_frames

    with tempfile.TemporaryDirectory() as temporary:
        folder = options.directory or Path(temporary)
        number = 8 if options.quick else 40
        write_quick_frames(folder / "frames", number, shape=SHAPE, seed=SEED)
        write_quick_frames(folder / "few", FEW, shape=SHAPE, seed=SEED, stripe=False, first=900)
        # Files and kernels are in memory for all that follow.
        run_command(("store", "ingest", new_store(folder / "first"), folder / "frames"))
        reference = show_ways(folder, folder / "frames", number)
        if shutil.which("mpiexec") is not None:
            show_killed_rank(folder, folder / "frames", reference)
    return len(missed()) > 0


if __name__ == "__main__":
    sys.exit(main())
