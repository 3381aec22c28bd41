"""How time, memory and disk grow with the number of frames."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from measure import run_command
from store_table import show

SHAPE = (64, 64)
SEED = 6
# CPU of a further frame, the more against the fewer; memory of the most against that of the fewest.
LINEAR, MEMORY = 1.3, 1.5


def show_growth(folder: Path, numbers: Sequence[int]) -> None:
    """Print what ingests of more and more frames take, each a process of its own."""
    from skyloom.mock.sdss.files import write_quick_frames
    from skyloom.store.query import create

    points = []
    for number in (1, *numbers):
        files, store = folder / f"frames{number}", folder / f"store{number}"
        write_quick_frames(files, number, shape=SHAPE, seed=SEED)
        create(store).close()
        usage, _ = run_command(["store", "ingest", store, files])
        size = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
        parts = sum(1 for _ in store.glob("partitions/*/*.h5"))
        points.append((number, usage, size))
        show(
            f"ingest of {number} frame{'s' * (number > 1)} of {SHAPE[1]}x{SHAPE[0]}, {parts} parts",
            f"CPU {usage.cpu:.2f} s, wall {usage.wall:.2f} s, {usage.peak:.0f} MB, {size / number / 1e3:.1f} kB each",
        )
    slopes = [
        (after.cpu - before.cpu) / (many - few) for (few, before, _), (many, after, _) in pairwise(points[1:])
    ]
    told = " -> ".join(f"{slope * 1e3:.1f}" for slope in slopes)
    show(
        "    CPU of a further frame",
        f"{told} ms (of the program itself {points[0][1].cpu:.2f} s)",
        "linear",
        slopes[-1] <= LINEAR * slopes[0],
    )
    peaks = [usage.peak for _, usage, _ in points]
    show(
        "    peak memory",
        " -> ".join(f"{peak:.0f}" for peak in peaks) + " MB",
        "linear or less",
        peaks[-1] <= MEMORY * peaks[0],
    )
