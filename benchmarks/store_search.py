"""The index of a store of very many observations: loading it and searching it."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from mock_index import SEED, write_index
from store_table import child, show

CONE_SECONDS, LOAD_SECONDS = 1e-3, 1.0
RADIUS = 0.2  # deg


def searched(folder: str, number: str) -> dict[str, Any]:
    """Open a store, twice, and search cones around its observations."""
    from skyloom.store.query import open as open_store

    opened = []
    for _ in range(3):
        wall, start = time.perf_counter(), time.process_time()
        store = open_store(folder)
        opened.append((time.perf_counter() - wall, time.process_time() - start))
        rows = len(store)
        places = store.table(np.random.default_rng(SEED).choice(rows, int(number)), ("s_ra", "s_dec"))
        if len(opened) < 3:
            store.close()
    cones = [
        (float(ra), float(dec))
        for ra, dec in zip(places["s_ra"].to_value("deg"), places["s_dec"].to_value("deg"), strict=True)
    ]
    store.search(cone=(cones[0], RADIUS))
    wall, cpu, found = [], [], []
    for cone in cones:
        begin, start = time.perf_counter(), time.process_time()
        hits = store.search(cone=(cone, RADIUS))
        cpu.append(time.process_time() - start)
        wall.append(time.perf_counter() - begin)
        found.append(hits.size)
    start = time.perf_counter()
    table = store.observations(cone=(cones[0], RADIUS))
    return {
        "rows": rows,
        "load": min(opened)[0],
        "load_first": opened[0][0],
        "load_cpu": min(seconds for _, seconds in opened),
        "wall": float(np.median(wall)),
        "wall99": float(np.percentile(wall, 99)),
        "cpu": float(np.median(cpu)),
        "found": float(np.median(found)),
        "found99": float(np.percentile(found, 99)),
        "table": time.perf_counter() - start,
        "table_rows": len(table),
    }


def show_index(folder: Path, number: int) -> None:
    """Print the rows about search."""
    store = folder / "store"
    written = child("store_search.py", "make", store, number)["seconds"]
    figures = child("store_search.py", "search", store, 1000)
    assert figures["rows"] == number
    show(
        f"index of {number:.0e} observations, cone of {RADIUS:g} deg",
        f"{figures['wall'] * 1e3:.3f} ms, p99 {figures['wall99'] * 1e3:.2f} ms (CPU {figures['cpu'] * 1e3:.3f})",
        f"<= {CONE_SECONDS * 1e3:g} ms",
        figures["wall"] <= CONE_SECONDS,
    )
    show("    observations found, median / p99", f"{figures['found']:.0f} / {figures['found99']:.0f}")
    show(
        "    load",
        f"{figures['load']:.2f} s (CPU {figures['load_cpu']:.2f} s, first time {figures['load_first']:.2f} s)",
        f"<= {LOAD_SECONDS:g} s",
        figures["load"] <= LOAD_SECONDS,
    )
    show(f"    all columns of {figures['table_rows']} rows found", f"{figures['table'] * 1e3:.1f} ms")
    show("    write it", f"CPU {written:.1f} s")
    shutil.rmtree(store)


if __name__ == "__main__":
    if sys.argv[1] == "make":
        print(json.dumps({"seconds": write_index(Path(sys.argv[2]), int(sys.argv[3]))}))
    else:
        print(json.dumps(searched(*sys.argv[2:])))
