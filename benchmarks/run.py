"""Measure every job beside its peers, check what is recovered of known truth, and write it all down.

    python benchmarks/run.py [--only NAME ...] [--rounds N] [--tiny] [--no-truth] [--page FILE] [--results FILE]

``make bench`` runs it whole. The table goes to the terminal, all figures to a JSON file, and both to the page of the
documentation about proof. Exit code 1: something could not be measured; goals that are missed are told, and no error.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "src")) if path not in sys.path]

from benchmarks.jobs import all_jobs  # noqa: E402
from benchmarks.measure import machine, version_of  # noqa: E402
from benchmarks.proof import write_page  # noqa: E402
from benchmarks.runner import run_job, say  # noqa: E402
from benchmarks.table import text_table  # noqa: E402
from benchmarks.truth import check_named, run_checks  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results.json"
PAGE = ROOT / "docs" / "proof.md"


def measure_all(options: argparse.Namespace) -> dict[str, Any]:
    """Measure what was asked for."""
    start = time.perf_counter()
    size = "tiny" if options.tiny else "quick"
    about: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "version": skyloom_version(),
        "size": size,
    }
    rows: list[dict[str, Any]] = []
    for job in all_jobs():
        if options.only and job.name not in options.only:
            continue
        begin = time.perf_counter()
        rows += run_job(job, size=size, rounds=options.rounds)
        say(f"  {job.name}: {time.perf_counter() - begin:.0f} s")
        # What is measured is kept, whatever happens later.
        keep(about | {"seconds": time.perf_counter() - start, "rows": rows, "recovery": []}, options.results)
    # Of the last minute: what was there before the run is forgotten by now.
    about["machine"]["load"] = round(min(about["machine"]["load"], os.getloadavg()[0]), 1)
    recovery = [] if options.no_truth else run_checks(options.only or (), tell=say)
    results = about | {"seconds": time.perf_counter() - start, "rows": rows, "recovery": recovery}
    keep(results, options.results)
    return results


def keep(results: dict[str, Any], path: Path) -> None:
    """Write all figures."""
    path.write_text(json.dumps(results, indent=1), encoding="utf-8")


def skyloom_version() -> str:
    """Return the version of Skyloom that is measured, installed or not."""
    from skyloom._version import __version__

    return version_of("skyloom") or __version__


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", help="names of jobs and checks")
    parser.add_argument("--rounds", type=int, help="fresh processes for each contender")
    parser.add_argument("--tiny", action="store_true", help="the smallest sizes: whether all of it works")
    parser.add_argument("--no-truth", action="store_true", help="only the jobs")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument(
        "--page", type=Path, help=f"default: {PAGE.relative_to(ROOT)} when nothing is left out"
    )
    parser.add_argument("--check", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run it."""
    options = parsed(arguments)
    if options.check:
        print(json.dumps({"rows": check_named(options.check)()}))
        return 0
    results = measure_all(options)
    print(text_table(results["rows"]))
    whole = not (options.only or options.tiny or options.no_truth)
    page = options.page or (PAGE if whole else None)
    if page is not None:
        write_page(results, page)
        say(f"{page}")
    failed = [f"{row['job']}, {row['who']}" for row in results["rows"] if "error" in row]
    failed += [row["what"] for row in results["recovery"] if "error" in row]
    print(f"{results['seconds']:.0f} s; not measured: {', '.join(failed) or 'none'}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
