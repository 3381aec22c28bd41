"""A store of images and spectra: cost, size, search, kills, growth and errors, each figure beside its target.

    python benchmarks/bench_store.py [--quick] [--only frames spectra ...] [--directory FOLDER]

CPU is that of fresh processes of one thread with a warm numba cache, in which one small file has been stored before.
Frames are those of SDSS below ``$SKYLOOM_DATA/sdss_frames`` (default: ``../shared/data`` beside the repository) where
there are such, else mock frames of the same size; the rows say which.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from measure import ENVIRONMENT
from store_costs import show_frames, show_spectra
from store_growth import show_growth
from store_kills import show_corrupt, show_kills
from store_noise import show_noise
from store_real import show_real
from store_search import show_index
from store_table import missed, show


def sections(quick: bool) -> dict[str, Callable[[Path], None]]:
    """Return what prints the rows of each section into a folder of its own."""
    return {
        "real": show_real,
        "noise": lambda folder: show_noise(folder, quick),
        "frames": lambda folder: show_frames(folder, quick),
        "spectra": lambda folder: show_spectra(folder, 60 if quick else 300),
        "index": lambda folder: show_index(folder, 100_000 if quick else 1_000_000),
        "kills": lambda folder: show_kills(folder, 5 if quick else 20),
        "corrupt": show_corrupt,
        "growth": lambda folder: show_growth(folder, (10, 100) if quick else (10, 100, 1000)),
    }


SECTIONS = tuple(sections(False))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer and smaller, in about a minute")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--directory", type=Path, default=None, help="keep what is written here")
    options = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.only:
            folder = (options.directory or Path(temporary)) / name
            folder.mkdir(parents=True)
            start, cpu = time.perf_counter(), sum(os.times()[:4])
            sections(options.quick)[name](folder)
            took = f"{time.perf_counter() - start:.0f} s, CPU {sum(os.times()[:4]) - cpu:.0f} s"
            print(f"  -- {name}: {took}", flush=True)
    late = missed()
    show("all", f"{time.perf_counter() - begin:.0f} s; missed: {', '.join(late) or 'none'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
