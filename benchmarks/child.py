"""Do one job in this process and print what it took, as JSON: what the runner starts again and again.

python benchmarks/child.py benchmarks.jobs.fitting fit_lines Skyloom quick
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "src")) if path not in sys.path]

from benchmarks.runner import perform  # noqa: E402


def main() -> None:
    """Import no more than the job needs, and do it."""
    module, name, who, size = sys.argv[1:]
    job = next(job for job in importlib.import_module(module).JOBS if job.name == name)
    print(json.dumps(perform(job.contender(who), getattr(job, size), job.tiny)))


if __name__ == "__main__":
    main()
