"""Exports of a store: rows per CPU second and memory, each figure beside its target.

    python benchmarks/bench_store_exports.py [--quick] [--directory FOLDER]

CPU is that of one thread of a fresh process with a warm numba cache, the file on the disk included.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from measure import ENVIRONMENT
from store_exports import show_exports
from store_table import missed, show


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="3e6 voxels instead of 1e7")
    parser.add_argument("--directory", type=Path, default=None, help="keep what is written here")
    options = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.directory or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        show_exports(folder, options.quick)
    show("all", f"missed: {', '.join(missed()) or 'none'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
