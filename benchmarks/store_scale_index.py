"""The index of a store at the size of a survey: writing, appending, loading, searching, and what an ingest asks of it.

The rows are those of mock observations; the parts they come from are left as files without content when the index has
them, as nothing reads them after that.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mock_index import SEED, write_part_of
from store_search import RADIUS
from store_table import child, show

PIECE = 2_500_000
APPENDED = 1000
SCRIPT = "store_scale_index.py"
CONE_SECONDS, LOAD_SECONDS = 2e-3, 5.0


def peak() -> float:
    """Return the largest memory this process has had, in GB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def resident() -> float:
    """Return the memory of this process now, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


def timed(function: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return wall clock, CPU and result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def add_part(folder: str, first: str, number: str, where: str) -> dict[str, Any]:
    """Write a part of mock observations, and enter it into the journal."""
    from skyloom.mock.sdss.observations import mock_observations
    from skyloom.store.files.folder import is_store, make_folder
    from skyloom.store.files.manifest import PartEntry, append_part

    store = Path(folder)
    if not is_store(store):
        make_folder(store)
    name = f"partitions/0-{first}/mock.h5"
    columns = mock_observations(int(number), seed=SEED, first=int(first), where=where)
    write_part_of(store / name, columns)
    append_part(store, PartEntry(name, int(number), "mock", (store / name).stat().st_size))
    return {}


def write(folder: str) -> dict[str, Any]:
    """Write the index, and leave files of the same size without content of the parts it has."""
    from skyloom.store.files.manifest import Manifest
    from skyloom.store.files.master_writer import write_master

    before = peak()
    wall, cpu, path = timed(lambda: write_master(folder))
    for part in Manifest.read(folder).parts:
        os.truncate(Path(folder) / part.name, 0)
        os.truncate(Path(folder) / part.name, part.bytes)
    return {"wall": wall, "cpu": cpu, "peak": peak(), "before": before, "bytes": path.stat().st_size}


def ahead(folder: str) -> dict[str, Any]:
    """Open a store of which the index does not know the last part, and recover it for an ingest."""
    from skyloom.store.ingest.recovery import recover
    from skyloom.store.query import open as open_store

    recovered = timed(lambda: recover(Path(folder)))
    figures = {"recover": recovered[1], "recover_peak": peak()}
    del recovered
    wall, cpu, store = timed(lambda: open_store(folder))
    return {**figures, "open": wall, "cpu": cpu, "peak": peak(), "rows": len(store)}


def searched(folder: str, count: str) -> dict[str, Any]:
    """Open a store, and look for cones on the whole sky and in the stripe, for links and for names."""
    from skyloom.store.query import open as open_store

    open_store(folder).close()
    base = resident()
    loads = []
    for _ in range(3):
        store = None
        wall, cpu, store = timed(lambda: open_store(folder))
        loads.append((wall, cpu))
    figures: dict[str, Any] = {"load": min(loads)[0], "load_cpu": min(cpu for _, cpu in loads)}
    figures |= {"rows": len(store), "bytes": resident() - base, "peak": peak()}
    columns = {name: store.column(name) for name in ("s_ra", "s_dec")}
    generator = np.random.default_rng(SEED)
    in_stripe = (np.abs(columns["s_dec"]) < 1.0) & ((columns["s_ra"] > 320) | (columns["s_ra"] < 50))
    sphere = generator.normal(size=(int(count), 3))
    spread = (
        np.degrees(np.arctan2(sphere[:, 1], sphere[:, 0])) % 360,
        np.degrees(np.arctan2(sphere[:, 2], np.hypot(sphere[:, 0], sphere[:, 1]))),
    )
    for name, pool in (("observations", np.arange(len(store))), ("stripe", np.flatnonzero(in_stripe))):
        rows = generator.choice(pool, int(count))
        figures[name] = _cones(store, columns["s_ra"][rows], columns["s_dec"][rows])
    figures["sky"] = _cones(store, *spread)
    spectra = np.flatnonzero(store.column("dataproduct_type") == b"spectrum")
    for name, pool in (("links", spectra), ("links_stripe", spectra[in_stripe[spectra]])):
        rows = generator.choice(pool, int(count))
        figures[name] = _cones(store, columns["s_ra"][rows], columns["s_dec"][rows], 0.0, ("image", "cube"))
    names = [name.decode() for name in store.column("obs_id", rows).tolist()]
    figures["first_name"] = timed(lambda: store.row(names[0]))[0]
    figures["name"] = float(np.median([timed(lambda name=name: store.row(name))[0] for name in names]))
    figures["bytes_names"] = resident() - base
    return figures


def _cones(
    store: Any, ra: np.ndarray, dec: np.ndarray, radius: float = RADIUS, kind: Any = None
) -> dict[str, float]:
    store.search(cone=((float(ra[0]), float(dec[0])), radius), kind=kind)
    taken = [
        timed(lambda a=float(a), d=float(d): store.search(cone=((a, d), radius), kind=kind).size)
        for a, d in zip(ra, dec, strict=True)
    ]
    wall, cpu, found = (np.array(column) for column in zip(*taken, strict=True))
    return {
        "wall": float(np.median(wall)),
        "wall99": float(np.percentile(wall, 99)),
        "cpu": float(np.median(cpu)),
        "found": float(np.mean(found)),
    }


def show_index(folder: Path, number: int, where: str) -> None:
    """Print the rows about the index of ``number`` observations."""
    store = folder / "store"
    place = {"sky": "the whole sky", "sdss": "the caps of SDSS"}[where]
    show(f"{number:.1e} observations, in stripe 82 and on {place}", "")
    for first in range(0, number, PIECE):
        size = min(PIECE, number - first)
        child(SCRIPT, "add_part", store, first, size, where)
        written = child(SCRIPT, "write", store)
        show(
            f"    index of {first + size:.1e}, {size:.1e} of them new",
            f"CPU {written['cpu']:.0f} s, memory {written['peak']:.1f} GB, {written['bytes'] / 1e9:.2f} GB on disk",
        )
    child(SCRIPT, "add_part", store, number, APPENDED, where)
    late = child(SCRIPT, "ahead", store)
    show(
        f"    open with {APPENDED} rows that it does not know",
        f"{late['open']:.1f} s (CPU {late['cpu']:.1f} s)",
    )
    show(
        "    what an ingest asks before it begins",
        f"CPU {late['recover']:.2f} s, {late['recover_peak']:.1f} GB",
    )
    written = child(SCRIPT, "write", store)
    show(
        f"    the same with {APPENDED} rows more",
        f"CPU {written['cpu']:.0f} s, memory {written['peak']:.1f} GB",
    )
    figures = child(SCRIPT, "search", store, 500)
    limit = LOAD_SECONDS * max(1.0, number / 5e6)
    show(
        "    load",
        f"{figures['load']:.2f} s (CPU {figures['load_cpu']:.2f} s)",
        f"<= {limit:g} s",
        figures["load"] <= limit,
    )
    per_row = figures["bytes"] / figures["rows"]
    show("    memory", f"{figures['bytes'] / 1e9:.2f} GB: {per_row:.0f} bytes an observation")
    show("    memory with names, peak", f"{figures['bytes_names'] / 1e9:.2f} GB, {figures['peak']:.2f} GB")
    for name, told in (
        ("sky", "anywhere"),
        ("observations", "where observations are"),
        ("stripe", "in the stripe"),
    ):
        own = figures[name]
        show(
            f"    cone of {RADIUS:g} deg {told}: {own['found']:.0f} found",
            f"{own['wall'] * 1e3:.2f} ms, p99 {own['wall99'] * 1e3:.1f} ms (CPU {own['cpu'] * 1e3:.2f})",
            f"<= {CONE_SECONDS * 1e3:g} ms",
            own["wall"] <= CONE_SECONDS,
        )
    for name, told in (("links", "anywhere"), ("links_stripe", "in the stripe")):
        own = figures[name]
        show(
            f"    images over a spectrum {told}: {own['found']:.0f}",
            f"{own['wall'] * 1e3:.2f} ms (CPU {own['cpu'] * 1e3:.2f})",
        )
    show(
        "    a name: the first, others",
        f"{figures['first_name'] * 1e3:.0f} ms, {figures['name'] * 1e3:.2f} ms",
    )
    shutil.rmtree(store)


if __name__ == "__main__":
    functions = {"add_part": add_part, "write": write, "ahead": ahead, "search": searched}
    print(json.dumps(functions[sys.argv[1]](*sys.argv[2:])))
