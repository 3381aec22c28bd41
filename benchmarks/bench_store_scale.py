"""A store of a whole survey: its index, its parts and its partitions, simulated; each figure beside its target.

    python benchmarks/bench_store_scale.py [--quick] [--only index parts partitions] [--number N] [--where sky|sdss]

``--quick`` is 2e5 observations, else 5e6 (``--number``). CPU is that of fresh processes of one thread with a warm numba
cache.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from measure import ENVIRONMENT
from store_scale_index import show_index
from store_scale_parts import show_partitions, show_parts
from store_table import missed, show

SECTIONS = ("index", "parts", "partitions")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="2e5 observations, in about a minute")
    parser.add_argument("--number", type=float, default=5e6)
    parser.add_argument("--where", choices=("sky", "sdss"), default="sdss")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    options = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    number = 200_000 if options.quick else int(options.number)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.only:
            folder = Path(temporary) / name
            folder.mkdir()
            if name == "index":
                show_index(folder, number, options.where)
            elif name == "parts":
                show_parts(folder, 50 if options.quick else 500, 10_000 if options.quick else 100_000)
            else:
                show_partitions(number, options.where)
    show("all", f"{time.perf_counter() - begin:.0f} s; missed: {', '.join(missed()) or 'none'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
