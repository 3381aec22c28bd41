"""Time and memory of a piece of work, processes of their own, and what the machine is."""

from __future__ import annotations

import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("SKYLOOM_DATA", ROOT.parent / "shared" / "data")).resolve()
"""Real data, where there are such; the tests look there, too."""
_PATHS = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
ENVIRONMENT = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": _PATHS}
"""Of processes that measure: figures are those of one core, BLAS must not spread over the others."""
STATUS = Path("/proc/self/status")


class Usage(NamedTuple):
    """What work took: seconds of CPU (all threads and children) and of wall clock, MB of memory beyond its inputs."""

    cpu: float
    wall: float
    peak: float


def _cpu() -> float:
    return sum(os.times()[:4])


def _memory(field: str) -> float:
    """MB of memory in use (VmRSS) or at its highest (VmHWM); outside Linux the highest of the whole process."""
    if STATUS.exists():
        return int(STATUS.read_text(encoding="ascii").split(f"{field}:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def _forget_peak() -> None:
    """Let the highest memory start from what is in use now."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        # Not Linux, or a container that forbids it: the peak is then that of the process, which is never too small.
        return


def used(call: Callable[[], Any]) -> tuple[Usage, Any]:
    """Call, and return what it took together with its result."""
    _forget_peak()
    before = _memory("VmRSS")
    wall, cpu, own = time.perf_counter(), _cpu(), time.process_time()
    result = call()
    # The clock of children ticks in hundredths; that of this process is finer.
    own = time.process_time() - own
    cpu, wall = _cpu() - cpu, time.perf_counter() - wall
    peak = max(0.0, _memory("VmHWM") - before)
    return Usage(cpu if cpu > own + 0.05 else own, wall, peak), result


def repeated(call: Callable[[], Any], *, seconds: float, at_most: int = 5) -> tuple[Usage, Any]:
    """Call a short piece of work several times; medians of the times, and the highest memory of the first time."""
    gc.collect()
    first, result = used(call)
    found, spent = [first], first.wall
    while spent < seconds and len(found) < at_most:
        again, result = used(call)
        found.append(again)
        spent += again.wall
    cpu, wall = (statistics.median(getattr(item, name) for item in found) for name in ("cpu", "wall"))
    return Usage(cpu, wall, first.peak), result


def best_cpu(call: Callable[[], Any], repeats: int = 3) -> float:
    """Least CPU seconds of a few calls, after one that loads what is compiled."""
    call()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


class ChildError(RuntimeError):
    """A process of its own ended badly; the message ends with what it said last."""


def in_process(
    command: Sequence[Any], *, timeout: float | None = None, environment: Mapping[str, str] = ENVIRONMENT
) -> dict[str, Any]:
    """Run Python with these arguments in a fresh process; return what its last line tells as JSON."""
    try:
        done = subprocess.run(
            [sys.executable, *map(str, command)],
            capture_output=True, text=True, check=False, cwd=ROOT, env=dict(environment), timeout=timeout,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ChildError(f"not finished after {error.timeout:.0f} s") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise ChildError("\n".join(said[-12:]) or f"ended with {done.returncode}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def run_code(code: str, *arguments: Any) -> dict[str, Any]:
    """Run a text of Python in a fresh process; its last line is JSON."""
    return in_process(["-W", "ignore", "-c", code, *arguments])


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


def run_command(
    arguments: Sequence[Any], through: Sequence[Any] = (), *, accepted: Sequence[int] = (0,)
) -> tuple[Usage, str]:
    """Run a command of Skyloom, ``through`` a program that starts it; what it took with its children, and said.

    The peak is that of the whole process. Other exit codes than those ``accepted`` end the benchmark.
    """
    start = time.perf_counter()
    launched = subprocess.run(
        [sys.executable, "-S", "-c", _LAUNCH, *map(str, through), *command_line(*arguments)],
        stdout=subprocess.PIPE, check=True, env=ENVIRONMENT,
    )  # fmt: skip
    wall = time.perf_counter() - start
    code, cpu, peak, said = json.loads(launched.stdout)
    if code not in accepted:
        raise SystemExit(f"{' '.join(map(str, arguments))} ended with {code}\n{said}")
    return Usage(cpu, wall, peak), said


# ------------------------------------------------------------------------------------------------ the machine

PACKAGES = (
    "numpy", "scipy", "astropy", "numba", "h5py", "photutils", "reproject", "sep", "astroscrappy", "ccdproc",
    "specutils", "ppxf", "vorbin", "powerbin",
)  # fmt: skip


def version_of(package: str) -> str:
    """Return the version that is installed, or nothing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def machine() -> dict[str, Any]:
    """Name the machine and what is installed on it."""
    cpu = platform.processor() or platform.machine()
    memory = 0.0
    info, total = Path("/proc/cpuinfo"), Path("/proc/meminfo")
    if info.exists():
        lines = [line for line in info.read_text(encoding="utf-8").splitlines() if "model name" in line]
        cpu = lines[0].split(":")[1].strip() if lines else cpu
    if total.exists():
        memory = int(total.read_text(encoding="ascii").split("MemTotal:")[1].split()[0]) / 2**20
    return {
        "cpu": cpu,
        "cores": os.cpu_count() or 1,
        "memory": round(memory, 1),
        "system": f"{platform.system()} {platform.release()} ({platform.machine()})",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
        "packages": {name: version_of(name) for name in PACKAGES if version_of(name)},
    }
