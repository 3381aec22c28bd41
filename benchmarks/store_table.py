"""The rows that the benchmarks of the store print, and processes of their own that they measure in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("SKYLOOM_DATA", HERE.parent.parent / "shared" / "data")).resolve()
"""Real data, where there are such; the tests look there, too."""
# Figures are those of one core: BLAS must not spread over the others.
ENVIRONMENT = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
_missed: list[str] = []


def show(check: str, figure: str, target: str = "", met: bool | None = None) -> None:
    """Print a figure beside its target, and whether it was met."""
    verdict = "" if met is None else "ok" if met else "MISSED"
    if met is False:
        _missed.append(check.strip())
    told = f"target {target}" if target else ""
    print(f"  {check:50s} {figure:48s} {told:32s} {verdict}".rstrip(), flush=True)


def missed() -> list[str]:
    """Return the checks that missed their targets so far."""
    return list(_missed)


def child(script: str, *arguments: Any) -> dict[str, Any]:
    """Run a function of a script beside this one in a fresh process and return what it reports."""
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


class Usage(NamedTuple):
    """What a process took: seconds of wall clock and CPU, MB of memory at its peak."""

    wall: float
    cpu: float
    peak: float


def command_line(*arguments: Any) -> list[str]:
    """Return a command of Skyloom for a new process."""
    return [sys.executable, "-m", "skyloom.cli", *map(str, arguments)]


# Memory at the peak is handed down from the process that starts another: a small one must do that.
_LAUNCH = """
import json, os, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
cpu, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
print(json.dumps([done.returncode, cpu, peak, done.stdout.decode()]))
"""


def run(arguments: Sequence[Any], through: Sequence[Any] = ()) -> Usage:
    """Run a command of Skyloom, ``through`` a program that starts it, and return what it took with its children."""
    start = time.perf_counter()
    launched = subprocess.run(
        [sys.executable, "-S", "-c", _LAUNCH, *map(str, through), *command_line(*arguments)],
        stdout=subprocess.PIPE,
        check=True,
        env=ENVIRONMENT,
    )
    wall = time.perf_counter() - start
    code, cpu, peak, said = json.loads(launched.stdout)
    if code:
        raise SystemExit(f"{' '.join(map(str, arguments))} ended with {code}\n{said}")
    return Usage(wall, cpu, peak)
